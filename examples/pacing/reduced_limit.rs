//! A limit that is reduced to a third and restored: how many calls are rejected, and how soon the limit is used
//! again.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context;
use pointsman::simulator::{AccountLimits, Simulator};

use super::rows::{LimitReduction, Row};
use super::score::{Measured, Window};
use super::setup::{SimulatorHost, cancel_run, start, start_endless_run};
use super::steady::{WARM_UP, used};

/// Seconds for which the limit must be used to count as recovered.
const RECOVERY_WINDOW_SECONDS: u64 = 5;
/// Maximum wait for the recovery, in seconds.
const MAX_RECOVERY_SECONDS: u64 = 60;
/// Used percentage of the limit that counts as recovered.
const RECOVERED_PERCENT: f64 = 90.0;

pub(crate) async fn measure(
    host: &SimulatorHost,
    row: &Row,
    kind: LimitReduction,
) -> anyhow::Result<Measured> {
    let simulator = host.start_simulator(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = start_endless_run(&pointsman, row).await?;
    tokio::time::sleep(WARM_UP).await;
    let original = simulator.settings();
    let reduced = reduced_limits(&original.limits, kind).context("this row has no request limit")?;
    let reduced_at = change_limits(&simulator, &reduced).await;
    tokio::time::sleep(host.measured_for).await;
    let restored_at = change_limits(&simulator, &original.limits).await;
    let window = Window::of(&simulator.counts(), reduced_at..restored_at);
    let seconds = recovery_seconds(&simulator, &original.limits, restored_at).await;
    Ok(Measured {
        used: Some(used(&window, &reduced, restored_at - reduced_at)),
        refused: Some(window.refused()),
        calls: window.admitted,
        lost: cancel_run(run).await?,
        seconds: Some(seconds),
        slowest: None,
        attempts: None,
    })
}

fn reduced_limits(original: &AccountLimits, kind: LimitReduction) -> Option<AccountLimits> {
    let limit = original.requests_per_minute?;
    Some(match kind {
        LimitReduction::Lowered => {
            AccountLimits { requests_per_minute: NonZeroU64::new(limit.get() / 3), ..original.clone() }
        }
        LimitReduction::Shared => {
            AccountLimits { background_requests_per_minute: limit.get() * 2 / 3, ..original.clone() }
        }
    })
}

/// Changes the limits at the start of a second of the provider, and returns that second.
async fn change_limits(simulator: &Simulator, limits: &AccountLimits) -> u64 {
    let second = simulator.counts().elapsed_ms / 1_000 + 1;
    wait_until(simulator, second).await;
    let mut settings = simulator.settings();
    settings.limits = limits.clone();
    simulator.set(settings);
    second
}

/// Waits for the start of a second of the provider.
async fn wait_until(simulator: &Simulator, second: u64) {
    let now = Duration::from_millis(simulator.counts().elapsed_ms);
    tokio::time::sleep(Duration::from_secs(second).saturating_sub(now)).await;
}

/// Returns the number of seconds after `since` until the limit is used again.
async fn recovery_seconds(simulator: &Simulator, limits: &AccountLimits, since: u64) -> f64 {
    for second in since..since + MAX_RECOVERY_SECONDS {
        let end = second + RECOVERY_WINDOW_SECONDS;
        wait_until(simulator, end).await;
        let window = Window::of(&simulator.counts(), second..end);
        if used(&window, limits, RECOVERY_WINDOW_SECONDS) > RECOVERED_PERCENT {
            return (second - since) as f64;
        }
    }
    f64::INFINITY
}
