//! Endless work under a limit: how much of it is used, and what is asked in vain.

use std::time::Duration;

use pointsman::simulator::Limits;

use super::rows::Row;
use super::score::{Measured, Window};
use super::stage::{Stage, end, endless, start};

/// Time before anything is measured.
pub(crate) const WARM_UP: Duration = Duration::from_secs(10);

/// The same where the limit has to be found out by refusals, and for how many times as long it is measured
/// then: at low limits a minute has few calls.
const WARM_UP_UNNAMED: Duration = Duration::from_secs(60);
const UNNAMED_TIMES: u32 = 3;

pub(crate) async fn play(stage: &Stage, row: &Row) -> anyhow::Result<Measured> {
    measure(stage, row, WARM_UP, stage.measured_for).await
}

/// The limit is named by nothing.
pub(crate) async fn play_unnamed(stage: &Stage, row: &Row) -> anyhow::Result<Measured> {
    measure(stage, row, WARM_UP_UNNAMED, stage.measured_for * UNNAMED_TIMES).await
}

async fn measure(
    stage: &Stage,
    row: &Row,
    warm_up: Duration,
    measured_for: Duration,
) -> anyhow::Result<Measured> {
    let simulator = stage.play(row)?;
    let pointsman = start(row, &simulator, None)?;
    let run = endless(&pointsman, row).await?;
    let from = simulator.counts().elapsed_ms / 1_000 + 1 + warm_up.as_secs();
    let until = from + measured_for.as_secs();
    // The last second must be over before it is read.
    tokio::time::sleep(warm_up + measured_for + Duration::from_secs(1)).await;
    let counts = simulator.counts();
    let window = Window::of(&counts, from..until);
    Ok(Measured {
        used: Some(used(&window, &simulator.settings().limits, until - from)),
        refused: Some(window.refused()),
        calls: window.admitted,
        lost: end(run).await?,
        seconds: None,
        slowest: None,
        attempts: Some(counts.most_repeated),
    })
}

/// Returns the percentage of a limit that was used in so many seconds: of the tokens where they are limited,
/// else of the requests.
pub(crate) fn used(window: &Window, limits: &Limits, seconds: u64) -> f64 {
    let (used, limit) = match (limits.tokens_per_minute, limits.requests_per_minute) {
        (Some(limit), _) => (window.tokens, limit.get()),
        (None, Some(limit)) => (window.admitted, limit.get() - limits.others_per_minute.min(limit.get())),
        (None, None) => (0, 1),
    };
    100.0 * used as f64 / (limit as f64 / 60.0 * seconds as f64)
}
