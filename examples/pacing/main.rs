//! Pacing benchmark: how well Pointsman uses and keeps a provider's limits, measured by the provider's own counts.
//!
//! ```sh
//! cargo run --release --example pacing                      # all rows, about 40 minutes
//! cargo run --release --example pacing -- 1 7b --seconds 20
//! cargo run --release --example pacing -- 9 --repeat 5       # median, minimum and maximum
//! ```
//!
//! Each row simulates a provider on its own threads, gives Pointsman more work than the limit admits, and prints
//! one line of a table from the provider's counts. `rows.rs` defines the configuration, the simulated provider and
//! the goal of each row. The exit code is 1 if a row misses its goal. No real provider is called.

mod bursts;
mod faulty;
mod outage;
mod reduced_limit;
mod rows;
mod score;
mod setup;
mod steady;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;

use rows::{ROWS, Row, Scenario};
use score::{Measured, Repetitions, header};
use setup::SimulatorHost;
use tokio::runtime::Builder;

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { rows, measured_for, repeat } = arguments()?;
    let host = SimulatorHost::new(measured_for)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure_rows(&host, &rows, repeat))
}

#[expect(clippy::print_stdout, reason = "prints its result")]
async fn measure_rows(host: &SimulatorHost, rows: &[&Row], repeat: usize) -> anyhow::Result<ExitCode> {
    println!("{}", header());
    let mut missed = 0;
    // Rows with low limits take long and use little CPU: they are measured concurrently.
    for group in rows.chunk_by(|row, next| row.is_idle() && next.is_idle()) {
        let mut repetitions = vec![Vec::new(); group.len()];
        for _ in 0..repeat {
            let measurements = group.iter().map(|row| Box::pin(measure(host, row)));
            for ((measured, row), repetitions) in
                join_all(measurements).await.into_iter().zip(group).zip(&mut repetitions)
            {
                repetitions.push(measured.with_context(|| format!("row {} was not measured", row.name))?);
            }
        }
        for (row, repetitions) in group.iter().zip(repetitions) {
            let repetitions = Repetitions::new(repetitions);
            let median = repetitions.median();
            missed += usize::from(!row.goal.is_met_by(&median));
            println!("{}", row.goal.line(row, &median));
            if let Some(range) = repetitions.range() {
                println!("{range}");
            }
        }
    }
    Ok(ExitCode::from(u8::from(missed > 0)))
}

async fn measure(host: &SimulatorHost, row: &Row) -> anyhow::Result<Measured> {
    match row.scenario {
        Scenario::Steady => steady::measure(host, row).await,
        Scenario::UnadvertisedLimit => steady::measure_unadvertised(host, row).await,
        Scenario::Faulty(ideal) => faulty::measure(host, row, ideal).await,
        Scenario::Incident(ideal, share) => faulty::measure_incident(host, row, ideal, share).await,
        Scenario::Bursts => bursts::measure(host, row).await,
        Scenario::ReducedLimit(kind) => reduced_limit::measure(host, row, kind).await,
        Scenario::Outage(kind) => outage::measure(host, row, kind).await,
    }
}

/// Command-line arguments.
struct Arguments {
    /// The rows to measure; all rows by default.
    rows: Vec<&'static Row>,
    /// Duration of the measurement of each row.
    measured_for: Duration,
    /// Number of measurements of each row.
    repeat: usize,
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut rows = Vec::new();
    let mut seconds = 60;
    let mut repeat = 1;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--seconds" {
            seconds = number(&argument, arguments.next())?;
        } else if argument == "--repeat" {
            repeat = number(&argument, arguments.next())?;
        } else if let Some(row) = ROWS.iter().find(|row| row.name == argument) {
            rows.push(row);
        } else {
            let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            bail!("there is no row {argument}; known rows: {}", names.join(", "));
        }
    }
    if repeat == 0 {
        bail!("--repeat must be at least 1");
    }
    if seconds < 5 {
        bail!("--seconds {seconds}: must be at least 5");
    }
    if rows.is_empty() {
        rows = ROWS.iter().collect();
    }
    Ok(Arguments { rows, measured_for: Duration::from_secs(seconds), repeat: repeat as usize })
}

fn number(option: &str, value: Option<String>) -> anyhow::Result<u64> {
    let value = value.with_context(|| format!("{option} needs a number"))?;
    value.parse().with_context(|| format!("{option} {value}: not a whole number"))
}
