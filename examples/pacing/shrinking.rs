//! A limit that falls to a third and comes back: what is asked in vain, and how soon it is used again.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context;
use pointsman::simulator::{Limits, Simulator};

use super::rows::{Row, Shrink};
use super::score::{Measured, Window};
use super::stage::{Stage, end, endless, start};
use super::steady::{WARM_UP, used};

/// How long the limit must be used again before that counts.
const STEADY_FOR: u64 = 5;
/// How long it is waited for.
const PATIENCE: u64 = 60;
/// Percent of the limit that are as good as before.
const RECOVERED: f64 = 90.0;

pub(crate) async fn play(stage: &Stage, row: &Row, how: Shrink) -> anyhow::Result<Measured> {
    let simulator = stage.play(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = endless(&pointsman, row).await?;
    tokio::time::sleep(WARM_UP).await;
    let whole = simulator.settings();
    let shrunk = shrunk(&whole.limits, how).context("this row has no limit of requests")?;
    let fell = change(&simulator, &shrunk).await;
    tokio::time::sleep(stage.measured_for).await;
    let returned = change(&simulator, &whole.limits).await;
    let window = Window::of(&simulator.counts(), fell..returned);
    let seconds = recovered(&simulator, &whole.limits, returned).await;
    Ok(Measured {
        used: Some(used(&window, &shrunk, returned - fell)),
        refused: Some(window.refused()),
        calls: window.admitted,
        lost: end(run).await?,
        seconds: Some(seconds),
        slowest: None,
        attempts: None,
    })
}

fn shrunk(whole: &Limits, how: Shrink) -> Option<Limits> {
    let limit = whole.requests_per_minute?;
    Some(match how {
        Shrink::Lowered => Limits { requests_per_minute: NonZeroU64::new(limit.get() / 3), ..whole.clone() },
        Shrink::Shared => Limits { others_per_minute: limit.get() * 2 / 3, ..whole.clone() },
    })
}

/// Changes the limits as a second of the provider begins, and returns which one.
async fn change(simulator: &Simulator, limits: &Limits) -> u64 {
    let second = simulator.counts().elapsed_ms / 1_000 + 1;
    until(simulator, second).await;
    let mut settings = simulator.settings();
    settings.limits = limits.clone();
    simulator.set(settings);
    second
}

/// Waits until that second of the provider begins.
async fn until(simulator: &Simulator, second: u64) {
    let now = Duration::from_millis(simulator.counts().elapsed_ms);
    tokio::time::sleep(Duration::from_secs(second).saturating_sub(now)).await;
}

/// Returns how many seconds after `since` the limit was used again.
async fn recovered(simulator: &Simulator, limits: &Limits, since: u64) -> f64 {
    for second in since..since + PATIENCE {
        let end = second + STEADY_FOR;
        until(simulator, end).await;
        let window = Window::of(&simulator.counts(), second..end);
        if used(&window, limits, STEADY_FOR) > RECOVERED {
            return (second - since) as f64;
        }
    }
    f64::INFINITY
}
