//! Unlimited work for a provider with random failures, with limited capacity, or with an incident.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Simulator};

use super::rows::Row;
use super::score::{Measured, Window};
use super::setup::{SimulatorHost, cancel_run, start, start_endless_run};

/// Warm-up before the measurement, in which the concurrency limit adapts.
const WARM_UP: Duration = Duration::from_secs(30);
/// Duration of an incident.
const INCIDENT: Duration = Duration::from_secs(20);
/// Maximum wait for the recovery, in seconds.
const MAX_RECOVERY_SECONDS: u64 = 60;
/// Seconds for which the rate must be restored to count as recovered.
const RECOVERY_WINDOW_SECONDS: u64 = 3;
/// Percentage of the ideal rate that counts as recovered.
const RECOVERED_PERCENT: f64 = 90.0;

/// Compares the answers per second with `ideal`.
pub(crate) async fn measure(host: &SimulatorHost, row: &Row, ideal: f64) -> anyhow::Result<Measured> {
    let simulator = host.start_simulator(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = start_endless_run(&pointsman, row).await?;
    tokio::time::sleep(WARM_UP).await;
    let before = simulator.counts();
    let from = before.elapsed_ms / 1_000 + 1;
    tokio::time::sleep(host.measured_for + Duration::from_secs(2)).await;
    let counts = simulator.counts();
    let end = from + host.measured_for.as_secs();
    let window = Window::of(&counts, from..end);
    let count_faults = |counts: &pointsman::simulator::Counts| counts.by_fault.values().sum::<u64>();
    let calls = counts.requests - before.requests;
    Ok(Measured {
        used: Some(used(&window, ideal, end - from)),
        refused: Some(100.0 * (count_faults(&counts) - count_faults(&before)) as f64 / calls.max(1) as f64),
        calls: window.admitted,
        lost: cancel_run(run).await?,
        attempts: Some(counts.most_repeated),
        ..Measured::default()
    })
}

/// Rejects a share of the calls for a while, and measures the time until the rate of answers is `ideal` again.
pub(crate) async fn measure_incident(
    host: &SimulatorHost,
    row: &Row,
    ideal: f64,
    share: f64,
) -> anyhow::Result<Measured> {
    let simulator = host.start_simulator(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = start_endless_run(&pointsman, row).await?;
    tokio::time::sleep(WARM_UP).await;
    let mut settings = simulator.settings();
    settings.faults = vec![Fault::new(FaultKind::Unavailable).share(share)];
    simulator.set(settings.clone());
    tokio::time::sleep(INCIDENT).await;
    settings.faults = Vec::new();
    simulator.set(settings);
    let since = simulator.counts().elapsed_ms / 1_000 + 1;
    let seconds = recovery_seconds(&simulator, ideal, since).await;
    let counts = simulator.counts();
    Ok(Measured {
        calls: counts.admitted,
        lost: cancel_run(run).await?,
        seconds: Some(seconds),
        attempts: Some(counts.most_repeated),
        ..Measured::default()
    })
}

/// Returns the number of seconds after `since` until the rate of answers is restored.
async fn recovery_seconds(simulator: &Simulator, ideal: f64, since: u64) -> f64 {
    for second in since..since + MAX_RECOVERY_SECONDS {
        let end = second + RECOVERY_WINDOW_SECONDS;
        let now = Duration::from_millis(simulator.counts().elapsed_ms);
        tokio::time::sleep(Duration::from_secs(end).saturating_sub(now)).await;
        let window = Window::of(&simulator.counts(), second..end);
        if used(&window, ideal, RECOVERY_WINDOW_SECONDS) > RECOVERED_PERCENT {
            return (second - since) as f64;
        }
    }
    f64::INFINITY
}

fn used(window: &Window, ideal: f64, seconds: u64) -> f64 {
    100.0 * window.admitted as f64 / (ideal * seconds as f64)
}
