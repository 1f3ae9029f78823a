//! Random histories of runs, played with the built program and compared with a simple reference.
//!
//! Every history has a form: items and results as JSON lines or CSV, ordered or not, with rejects, a schema, re-asks. It
//! edits items, prompts, routes, models and pictures and runs, resumes, retries, kills, stops and cancels in between. Providers
//! have outages, between commands and while a run is at work. After each command every line is compared with what the reference computes from scratch;
//! requests are counted at the provider, and money in the store.
//!
//! The suite plays fixed seeds. For longer, with new seeds:
//!
//! ```sh
//! POINTSMAN_HISTORIES=60 cargo nextest run --all-features --test histories   # minutes
//! POINTSMAN_HISTORY=17 cargo nextest run --all-features --test histories     # one seed alone
//! ```
//!
//! `POINTSMAN_HISTORIES_FROM=1000` is the first seed (default: drawn). `POINTSMAN_PROGRAM=FILE` plays with another build.
//! A history that fails is shortened by leaving out actions, and printed.
#![cfg(all(feature = "server", feature = "sqlite", unix))]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]
#![expect(clippy::panic, reason = "a history that fails says how")]

mod actions;
mod form;
mod input;
mod judge;
mod outages;
mod output;
mod player;
#[expect(dead_code, reason = "shared with the integration tests, which use the rest of it")]
#[path = "../it/program.rs"]
mod program;
mod provider;
mod reference;
mod session;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::time::Instant;

use actions::{Action, history};
use form::Form;
use player::{Player, Violation};

/// Histories in the normal suite.
const SEEDS: std::ops::Range<u64> = 0..22;

/// How often a history that fails is tried with an action less.
const SHORTER: usize = 80;

/// Plays a history; returns the number of commands, and what went wrong.
fn play(form: Form, actions: &[Action]) -> (u64, Result<(), Violation>) {
    let mut player = Player::new(form);
    let played = catch_unwind(AssertUnwindSafe(|| actions.iter().try_for_each(|action| player.play(action))));
    let result = played.unwrap_or_else(|panic| {
        let why = panic.downcast::<String>().map_or_else(|_| "?".to_owned(), |why| *why);
        Err(Violation { rule: "the program does as it is told", detail: why })
    });
    (player.commands, result)
}

/// Leaves out actions as long as the same rule stays broken.
fn shorten(form: Form, mut actions: Vec<Action>, mut violation: Violation) -> (Vec<Action>, Violation) {
    let mut at = actions.len();
    for _ in 0..SHORTER {
        if at == 0 {
            break;
        }
        at -= 1;
        let mut fewer = actions.clone();
        fewer.remove(at);
        if let (_, Err(other)) = play(form, &fewer)
            && other.rule == violation.rule
        {
            actions = fewer;
            violation = other;
        }
        at = at.min(actions.len());
    }
    (actions, violation)
}

fn report(seed: u64, actions: Vec<Action>, violation: Violation) -> String {
    let form = Form::of(seed);
    let (actions, violation) = shorten(form, actions, violation);
    format!("seed {seed}: {}\n{form:?}\n{actions:?}\n{}\n", violation.rule, violation.detail)
}

#[test]
fn every_history_ends_with_the_right_output() {
    let failures: Vec<_> = match std::env::var("POINTSMAN_HISTORY") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => SEEDS.collect(),
    }
    .into_iter()
    .filter_map(|seed| {
        let actions = history(seed);
        let (_, played) = play(Form::of(seed), &actions);
        played.err().map(|violation| report(seed, actions, violation))
    })
    .collect();
    assert!(failures.is_empty(), "{} histories failed:\n{}", failures.len(), failures.join("\n"));
}

/// Plays histories for as many minutes as `POINTSMAN_HISTORIES` says; none unless it is set.
#[test]
fn histories_without_end() {
    let Some(minutes) = std::env::var("POINTSMAN_HISTORIES").ok().map(|minutes| minutes.parse().unwrap())
    else {
        return;
    };
    let end = Instant::now() + Duration::from_mins(minutes);
    let first = std::env::var("POINTSMAN_HISTORIES_FROM").ok().map(|seed| seed.parse().unwrap());
    let first: u64 = first.unwrap_or_else(|| u64::from(fastrand::u32(..)) << 20);
    let mut found: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut histories, mut steps, mut commands) = (0, 0, 0);
    while Instant::now() < end {
        let seed = first + histories;
        let actions = history(seed);
        histories += 1;
        steps += actions.len();
        let (of_this, played) = play(Form::of(seed), &actions);
        commands += of_this;
        if let Err(violation) = played {
            let times = found.entry(violation.rule).or_default();
            *times += 1;
            // The first of each kind is worth the time.
            let shown = if *times <= 3 {
                report(seed, actions, violation)
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
