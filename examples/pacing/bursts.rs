//! The pipeline of `examples/ad_accounts`: 600 calls, as fast as the provider admits them.

use std::path::Path;

use anyhow::ensure;
use pointsman::source::Source;
use tokio::time::Instant;

use super::rows::Row;
use super::score::Measured;
use super::setup::{SimulatorHost, discard_output, start};

const ACCOUNTS: u64 = 200;

pub(crate) async fn measure(host: &SimulatorHost, row: &Row) -> anyhow::Result<Measured> {
    let simulator = host.start_simulator(row)?;
    let pointsman = start(row, &simulator, None)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ad_accounts");
    let pipeline = pointsman.pipeline(&folder.join("pipeline.toml"))?;
    let accounts = Source::file(folder.join("accounts.jsonl"), None)?;
    let started = Instant::now();
    let report = pointsman.run(pipeline, accounts, discard_output()?).await?.report().await?;
    let seconds = started.elapsed().as_secs_f64();
    let counts = simulator.counts();
    ensure!(
        counts.answered >= 3 * report.items.completed,
        "a completed account has fewer than three answers"
    );
    let refused = 100.0 * counts.refused as f64 / (counts.admitted + counts.refused).max(1) as f64;
    Ok(Measured {
        used: None,
        refused: Some(refused),
        calls: counts.admitted,
        lost: ACCOUNTS.saturating_sub(report.items.completed),
        seconds: Some(seconds),
        slowest: None,
        attempts: None,
    })
}
