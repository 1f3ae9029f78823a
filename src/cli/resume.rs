//! `pointsman resume` and `pointsman retry`: a run that is kept goes on, as its command once said.

use anyhow::{Context, ensure};

use crate::store::{KnownRun, RunNumber, RunState};

use super::args::{KeepArgs, Resume, Retry, Run, StoreArgs};
use super::exit::Exit;
use super::kept::{Opened, Said, fail, is_dash};
use super::live::Mode;
use super::run::{Going, go};

/// Goes on with a run.
pub(super) fn resume(args: &Resume) -> Exit {
    let mode = Mode::choose(args.show.quiet, args.show.json);
    let found = find(args.run, &args.keep, args.config.clone()).and_then(|(run, keep)| {
        let said = Said::from_run(&run)?;
        ensure!(
            !is_dash(said.items()),
            "the items of run {} came from stdin: pipe them into the same `pointsman run` again, and it goes on",
            run.number
        );
        move_to(&said)?;
        let run_args = said.args(&keep, args.config.as_deref(), args.show);
        Ok((run.number, Run { overwrite: args.overwrite, pause: args.pause, ..run_args }))
    });
    match found {
        Ok((run, args)) => go(&args, &Going { run: Some(run), retry: None }),
        Err(error) if error.is::<Nothing>() => {
            mode.note(&error.to_string());
            Exit::Done
        }
        Err(error) => fail(mode, error),
    }
}

/// There is no run to go on with.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing is left to go on with: every run is complete, cancelled or at work; `pointsman runs` lists them"
)]
struct Nothing;

/// Asks again what has failed.
pub(super) fn retry(args: &Retry) -> Exit {
    let mode = Mode::choose(args.show.quiet, args.show.json);
    let found = find(Some(args.run), &args.keep, args.config.clone()).and_then(|(run, keep)| {
        let said = Said::from_run(&run)?;
        move_to(&said)?;
        let run_args = said.args(&keep, args.config.as_deref(), args.show);
        Ok((run.number, Run { overwrite: args.overwrite, pause: args.pause, ..run_args }))
    });
    match found {
        Ok((run, run_args)) => go(&run_args, &Going { run: Some(run), retry: Some(args.classes.clone()) }),
        Err(error) => fail(mode, error),
    }
}

/// Finds the run that is meant: the latest that has something left, if none is named. The store is named by its
/// whole path from here on.
fn find(
    run: Option<RunNumber>,
    keep: &KeepArgs,
    config: Option<std::path::PathBuf>,
) -> anyhow::Result<(KnownRun, KeepArgs)> {
    let opened = Opened::of(&StoreArgs { store: keep.store.clone(), config })?;
    let Opened { runtime, store, url } = &opened;
    let run = match run {
        Some(run) => runtime.block_on(store.run(run))?,
        None => {
            let is_left = |run: &KnownRun| {
                run.sessions > 0
                    && !matches!(run.state, RunState::Complete | RunState::Cancelled)
                    && !store.is_at_work(run.number)
            };
            let runs = runtime.block_on(store.runs())?;
            let left = runs.into_iter().find(is_left);
            left.ok_or(Nothing)?
        }
    };
    let keep = KeepArgs { store: Some(url.absolute()?), ..keep.clone() };
    Ok((run, keep))
}

/// Goes where the run was begun: what its files name may be meant from there.
fn move_to(said: &Said) -> anyhow::Result<()> {
    let directory = said.directory();
    std::env::set_current_dir(directory)
        .with_context(|| format!("the run was begun in {}, which cannot be entered", directory.display()))
}
