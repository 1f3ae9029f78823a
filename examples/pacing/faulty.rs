//! Endless work for a provider that fails at random, takes only so many at once, or has an incident.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Simulator};

use super::rows::Row;
use super::score::{Measured, Window};
use super::stage::{Stage, end, endless, start};

/// Time before anything is measured: the concurrency has to be found.
const WARM_UP: Duration = Duration::from_secs(30);
/// How long an incident lasts.
const INCIDENT: Duration = Duration::from_secs(20);
/// How long its end is waited for, and over how many seconds it counts.
const PATIENCE: u64 = 60;
const STEADY_FOR: u64 = 3;
/// Percent of the answers that are as good as before.
const RECOVERED: f64 = 90.0;

/// Measures the answers against `ideal` a second.
pub(crate) async fn play(stage: &Stage, row: &Row, ideal: f64) -> anyhow::Result<Measured> {
    let simulator = stage.play(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = endless(&pointsman, row).await?;
    tokio::time::sleep(WARM_UP).await;
    let before = simulator.counts();
    let from = before.elapsed_ms / 1_000 + 1;
    tokio::time::sleep(stage.measured_for + Duration::from_secs(2)).await;
    let counts = simulator.counts();
    let until = from + stage.measured_for.as_secs();
    let window = Window::of(&counts, from..until);
    let faults = |counts: &pointsman::simulator::Counts| counts.by_fault.values().sum::<u64>();
    let calls = counts.requests - before.requests;
    Ok(Measured {
        used: Some(used(&window, ideal, until - from)),
        refused: Some(100.0 * (faults(&counts) - faults(&before)) as f64 / calls.max(1) as f64),
        calls: window.admitted,
        lost: end(run).await?,
        attempts: Some(counts.most_repeated),
        ..Measured::default()
    })
}

/// Lets this share of the calls be refused for a while, and measures until when the answers are `ideal` again.
pub(crate) async fn play_incident(
    stage: &Stage,
    row: &Row,
    ideal: f64,
    share: f64,
) -> anyhow::Result<Measured> {
    let simulator = stage.play(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = endless(&pointsman, row).await?;
    tokio::time::sleep(WARM_UP).await;
    let mut settings = simulator.settings();
    settings.faults = vec![Fault::new(FaultKind::Unavailable).share(share)];
    simulator.set(settings.clone());
    tokio::time::sleep(INCIDENT).await;
    settings.faults = Vec::new();
    simulator.set(settings);
    let since = simulator.counts().elapsed_ms / 1_000 + 1;
    let seconds = recovered(&simulator, ideal, since).await;
    let counts = simulator.counts();
    Ok(Measured {
        calls: counts.admitted,
        lost: end(run).await?,
        seconds: Some(seconds),
        attempts: Some(counts.most_repeated),
        ..Measured::default()
    })
}

/// Returns how many seconds after `since` there were as many answers as before.
async fn recovered(simulator: &Simulator, ideal: f64, since: u64) -> f64 {
    for second in since..since + PATIENCE {
        let end = second + STEADY_FOR;
        let now = Duration::from_millis(simulator.counts().elapsed_ms);
        tokio::time::sleep(Duration::from_secs(end).saturating_sub(now)).await;
        let window = Window::of(&simulator.counts(), second..end);
        if used(&window, ideal, STEADY_FOR) > RECOVERED {
            return (second - since) as f64;
        }
    }
    f64::INFINITY
}

fn used(window: &Window, ideal: f64, seconds: u64) -> f64 {
    100.0 * window.admitted as f64 / (ideal * seconds as f64)
}
