//! The pacing score: how well limits are used and kept, judged by the books of the provider that has them.
//!
//! ```sh
//! cargo run --release --example pacing                      # every row, about 15 minutes
//! cargo run --release --example pacing -- 1 7b --seconds 20
//! ```
//!
//! Each row plays a provider on threads of its own, drives Pointsman against it with more work than the
//! limit lets through, and prints one line of a table, from the provider's counts. `rows.rs` has what each
//! row configures, plays and is to reach. Ends with 1 when a row misses its goal. Asks no real provider.

mod bursts;
mod outage;
mod rows;
mod score;
mod shrinking;
mod stage;
mod steady;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use rows::{ROWS, Row, Scene};
use score::{Measured, header};
use stage::Stage;
use tokio::runtime::Builder;

fn main() -> anyhow::Result<ExitCode> {
    let (rows, measured_for) = arguments()?;
    let stage = Stage::new(measured_for)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(judge(&stage, &rows))
}

#[expect(clippy::print_stdout, reason = "a program that prints its result")]
async fn judge(stage: &Stage, rows: &[&Row]) -> anyhow::Result<ExitCode> {
    println!("{}", header());
    let mut missed = 0;
    for row in rows {
        let measured = Box::pin(play(stage, row)).await;
        let measured = measured.with_context(|| format!("row {} was not measured", row.name))?;
        missed += usize::from(!row.goal.is_met_by(&measured));
        println!("{}", row.goal.line(row, &measured));
    }
    Ok(ExitCode::from(u8::from(missed > 0)))
}

async fn play(stage: &Stage, row: &Row) -> anyhow::Result<Measured> {
    match row.scene {
        Scene::Steady => steady::play(stage, row).await,
        Scene::Bursts => bursts::play(stage, row).await,
        Scene::Shrinking(how) => shrinking::play(stage, row, how).await,
        Scene::Outage(how) => outage::play(stage, row, how).await,
    }
}

/// Returns the rows to play, all if none is named, and for how long each is measured.
fn arguments() -> anyhow::Result<(Vec<&'static Row>, Duration)> {
    let (mut rows, mut seconds) = (Vec::new(), 60);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--seconds" {
            let given = arguments.next().context("--seconds needs a number")?;
            seconds = given.parse().with_context(|| format!("--seconds {given}: not a whole number"))?;
        } else if let Some(row) = ROWS.iter().find(|row| row.name == argument) {
            rows.push(row);
        } else {
            let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
            bail!("there is no row {argument}; there are {}", names.join(", "));
        }
    }
    if seconds < 5 {
        bail!("--seconds {seconds}: less than 5 seconds tell nothing");
    }
    if rows.is_empty() {
        rows = ROWS.iter().collect();
    }
    Ok((rows, Duration::from_secs(seconds)))
}
