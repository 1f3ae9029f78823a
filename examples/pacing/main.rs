//! The pacing score: how well limits are used and kept, judged by the books of the provider that has them.
//!
//! ```sh
//! cargo run --release --example pacing                      # every row, about 40 minutes
//! cargo run --release --example pacing -- 1 7b --seconds 20
//! cargo run --release --example pacing -- 9 --repeat 5       # medians, and from the least to the most
//! ```
//!
//! Each row plays a provider on threads of its own, drives Pointsman against it with more work than the
//! limit lets through, and prints one line of a table, from the provider's counts. `rows.rs` has what each
//! row configures, plays and is to reach. Ends with 1 when a row misses its goal. Asks no real provider.

mod bursts;
mod faulty;
mod outage;
mod rows;
mod score;
mod shrinking;
mod stage;
mod steady;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;

use rows::{ROWS, Row, Scene};
use score::{Goes, Measured, header};
use stage::Stage;
use tokio::runtime::Builder;

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { rows, measured_for, repeat } = arguments()?;
    let stage = Stage::new(measured_for)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(judge(&stage, &rows, repeat))
}

#[expect(clippy::print_stdout, reason = "a program that prints its result")]
async fn judge(stage: &Stage, rows: &[&Row], repeat: usize) -> anyhow::Result<ExitCode> {
    println!("{}", header());
    let mut missed = 0;
    // Those of low limits take long and little work: they are played at one time.
    for together in rows.chunk_by(|row, next| row.is_idle() && next.is_idle()) {
        let mut goes = vec![Vec::new(); together.len()];
        for _ in 0..repeat {
            let played = together.iter().map(|row| Box::pin(play(stage, row)));
            for ((measured, row), goes) in join_all(played).await.into_iter().zip(together).zip(&mut goes) {
                goes.push(measured.with_context(|| format!("row {} was not measured", row.name))?);
            }
        }
        for (row, goes) in together.iter().zip(goes) {
            let goes = Goes::new(goes);
            let median = goes.median();
            missed += usize::from(!row.goal.is_met_by(&median));
            println!("{}", row.goal.line(row, &median));
            if let Some(range) = goes.range() {
                println!("{range}");
            }
        }
    }
    Ok(ExitCode::from(u8::from(missed > 0)))
}

async fn play(stage: &Stage, row: &Row) -> anyhow::Result<Measured> {
    match row.scene {
        Scene::Steady => steady::play(stage, row).await,
        Scene::Unnamed => steady::play_unnamed(stage, row).await,
        Scene::Faulty(ideal) => faulty::play(stage, row, ideal).await,
        Scene::Incident(ideal, share) => faulty::play_incident(stage, row, ideal, share).await,
        Scene::Bursts => bursts::play(stage, row).await,
        Scene::Shrinking(how) => shrinking::play(stage, row, how).await,
        Scene::Outage(how) => outage::play(stage, row, how).await,
    }
}

/// What is asked for.
struct Arguments {
    /// The rows to play, all if none is named.
    rows: Vec<&'static Row>,
    /// For how long each is measured.
    measured_for: Duration,
    /// How often each is played.
    repeat: usize,
}

fn arguments() -> anyhow::Result<Arguments> {
    let (mut rows, mut seconds, mut repeat) = (Vec::new(), 60, 1);
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
            bail!("there is no row {argument}; there are {}", names.join(", "));
        }
    }
    if repeat == 0 {
        bail!("--repeat 0: nothing to play");
    }
    if seconds < 5 {
        bail!("--seconds {seconds}: less than 5 seconds tell nothing");
    }
    if rows.is_empty() {
        rows = ROWS.iter().collect();
    }
    Ok(Arguments { rows, measured_for: Duration::from_secs(seconds), repeat: repeat as usize })
}

fn number(option: &str, given: Option<String>) -> anyhow::Result<u64> {
    let given = given.with_context(|| format!("{option} needs a number"))?;
    given.parse().with_context(|| format!("{option} {given}: not a whole number"))
}
