//! Random histories of runs, executed with the built program and compared with a simple reference.
//!
//! Every history has options: items and results as JSON lines or CSV, ordered or not, with rejects, a schema,
//! and validation retries. A history edits items, prompts, routes, models and pictures. Between the edits it
//! runs, resumes, retries, kills, stops and cancels. Providers have outages, between commands and during a
//! run. After each command every line is compared with what the reference computes from scratch. Requests are
//! counted at the provider, and costs in the store.
//!
//! The suite runs fixed seeds. To run new seeds for longer:
//!
//! ```sh
//! POINTSMAN_HISTORIES=60 cargo nextest run --all-features --test histories   # minutes
//! POINTSMAN_HISTORY=17 cargo nextest run --all-features --test histories     # one seed alone
//! ```
//!
//! `POINTSMAN_HISTORIES_FROM=1000` is the first seed (default: random). `POINTSMAN_PROGRAM=FILE` tests
//! another build. A failing history is shortened by leaving out actions, and then printed.
#![cfg(all(feature = "simulator", feature = "sqlite", unix))]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]
#![expect(clippy::panic, reason = "a failing history reports the broken rule")]

mod actions;
mod checks;
mod execution;
mod input;
mod options;
mod outages;
mod output;
#[expect(dead_code, reason = "shared with the integration tests, which use the rest of it")]
#[path = "../it/program.rs"]
mod program;
mod provider;
mod reference;
mod runner;
mod setup;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::time::Instant;

use actions::{Action, generate_history};
use options::HistoryOptions;
use runner::{HistoryRunner, Violation};

/// The seeds of the normal suite.
const SUITE_SEEDS: std::ops::Range<u64> = 0..22;

/// The seeds of the normal suite for runs that share their answers.
const SHARING_SEEDS: std::ops::Range<u64> = 100..112;

/// How many shorter versions of a failing history are tried.
const MAX_SHORTENING_ATTEMPTS: usize = 80;

/// Runs a history. Returns the number of commands and the first violation.
fn run_history(options: HistoryOptions, actions: &[Action]) -> (u64, Result<(), Violation>) {
    let mut runner = HistoryRunner::new(options);
    let result =
        catch_unwind(AssertUnwindSafe(|| actions.iter().try_for_each(|action| runner.run_action(action))));
    let result = result.unwrap_or_else(|panic| {
        let message = panic.downcast::<String>().map_or_else(|_| "?".to_owned(), |message| *message);
        Err(Violation { rule: "the program behaves as expected", detail: message })
    });
    (runner.command_count, result)
}

/// Leaves out actions while the same rule is still broken.
fn shorten(
    options: HistoryOptions,
    mut actions: Vec<Action>,
    mut violation: Violation,
) -> (Vec<Action>, Violation) {
    let mut position = actions.len();
    for _ in 0..MAX_SHORTENING_ATTEMPTS {
        if position == 0 {
            break;
        }
        position -= 1;
        let mut fewer = actions.clone();
        fewer.remove(position);
        if let (_, Err(other)) = run_history(options, &fewer)
            && other.rule == violation.rule
        {
            actions = fewer;
            violation = other;
        }
        position = position.min(actions.len());
    }
    (actions, violation)
}

fn failure_report(seed: u64, options: HistoryOptions, actions: Vec<Action>, violation: Violation) -> String {
    let (actions, violation) = shorten(options, actions, violation);
    format!("seed {seed}: {}\n{options:?}\n{actions:?}\n{}\n", violation.rule, violation.detail)
}

/// Runs the histories of these seeds, or that of `POINTSMAN_HISTORY`, with options that `options` changes.
fn run_seeds(seeds: std::ops::Range<u64>, options: fn(HistoryOptions) -> HistoryOptions) {
    let failures: Vec<_> = match std::env::var("POINTSMAN_HISTORY") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => seeds.collect(),
    }
    .into_iter()
    .filter_map(|seed| {
        let actions = generate_history(seed);
        let options = options(HistoryOptions::for_seed(seed));
        let (_, result) = run_history(options, &actions);
        result.err().map(|violation| failure_report(seed, options, actions, violation))
    })
    .collect();
    assert!(failures.is_empty(), "{} histories failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_history_ends_with_the_right_output() {
    run_seeds(SUITE_SEEDS, |options| options);
}

#[test]
fn every_history_of_runs_that_share_their_answers_ends_with_the_right_output() {
    run_seeds(SHARING_SEEDS, HistoryOptions::sharing_answers);
}

/// Runs new histories for `POINTSMAN_HISTORIES` minutes. Runs none if the variable is not set.
#[test]
fn every_new_history_ends_with_the_right_output() {
    let Some(minutes) = std::env::var("POINTSMAN_HISTORIES").ok().map(|minutes| minutes.parse().unwrap())
    else {
        return;
    };
    let end = Instant::now() + Duration::from_mins(minutes);
    let first = std::env::var("POINTSMAN_HISTORIES_FROM").ok().map(|seed| seed.parse().unwrap());
    let first: u64 = first.unwrap_or_else(|| u64::from(fastrand::u32(..)) << 20);
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    let mut histories = 0;
    let mut steps = 0;
    let mut commands = 0;
    while Instant::now() < end {
        let seed = first + histories;
        let actions = generate_history(seed);
        histories += 1;
        steps += actions.len();
        let options = HistoryOptions::for_seed(seed);
        let options = if seed.is_multiple_of(3) { options.sharing_answers() } else { options };
        let (command_count, result) = run_history(options, &actions);
        commands += command_count;
        if let Err(violation) = result {
            let times = found.entry(violation.rule).or_default();
            *times += 1;
            // Only the first three violations of a rule are shortened: it takes time.
            let shown = if *times <= 3 {
                failure_report(seed, options, actions, violation)
            } else {
                format!("seed {seed}: {}", violation.rule)
            };
            eprintln!("{shown}");
        }
        if histories % 100 == 0 {
            eprintln!("{histories} histories, {steps} steps, {commands} commands: {found:?}");
        }
    }
    eprintln!("{histories} histories, {steps} steps, {commands} commands: {found:?}");
    assert!(found.is_empty(), "{found:?}");
}
