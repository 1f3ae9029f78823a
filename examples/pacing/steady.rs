//! Unlimited work under a limit: how much of the limit is used, and how many calls are rejected.

use std::time::Duration;

use pointsman::simulator::AccountLimits;

use super::rows::Row;
use super::score::{Measured, Window};
use super::setup::{SimulatorHost, cancel_run, start, start_endless_run};

/// Warm-up before the measurement.
pub(crate) const WARM_UP: Duration = Duration::from_secs(10);

/// Warm-up for limits that Pointsman must estimate from 429 responses. The measurement takes three times as long,
/// because a low limit admits few calls per minute.
const WARM_UP_UNADVERTISED: Duration = Duration::from_secs(60);
const UNADVERTISED_DURATION_FACTOR: u32 = 3;

pub(crate) async fn measure(host: &SimulatorHost, row: &Row) -> anyhow::Result<Measured> {
    measure_for(host, row, WARM_UP, host.measured_for).await
}

/// Measures a row whose limit is not advertised.
pub(crate) async fn measure_unadvertised(host: &SimulatorHost, row: &Row) -> anyhow::Result<Measured> {
    measure_for(host, row, WARM_UP_UNADVERTISED, host.measured_for * UNADVERTISED_DURATION_FACTOR).await
}

async fn measure_for(
    host: &SimulatorHost,
    row: &Row,
    warm_up: Duration,
    measured_for: Duration,
) -> anyhow::Result<Measured> {
    let simulator = host.start_simulator(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = start_endless_run(&pointsman, row).await?;
    let from = simulator.counts().elapsed_ms / 1_000 + 1 + warm_up.as_secs();
    let end = from + measured_for.as_secs();
    // Wait until the last second is complete.
    tokio::time::sleep(warm_up + measured_for + Duration::from_secs(1)).await;
    let counts = simulator.counts();
    let window = Window::of(&counts, from..end);
    Ok(Measured {
        used: Some(used(&window, &simulator.settings().limits, end - from)),
        refused: Some(window.refused()),
        calls: window.admitted,
        lost: cancel_run(run).await?,
        seconds: None,
        slowest: None,
        attempts: Some(counts.most_repeated),
    })
}

/// Returns the used percentage of the limit of tokens, if there is one, or else of the limit of requests.
pub(crate) fn used(window: &Window, limits: &AccountLimits, seconds: u64) -> f64 {
    let (used, limit) = match (limits.tokens_per_minute, limits.requests_per_minute) {
        (Some(limit), _) => (window.tokens, limit.get()),
        (None, Some(limit)) => {
            (window.admitted, limit.get() - limits.background_requests_per_minute.min(limit.get()))
        }
        (None, None) => (0, 1),
    };
    100.0 * used as f64 / (limit as f64 / 60.0 * seconds as f64)
}
