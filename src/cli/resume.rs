//! `pointsman resume` and `pointsman retry`: resume a stored run with the arguments of its first command.

#[cfg(feature = "server")]
mod remote_run;

use anyhow::{Context, ensure};

use crate::store::{RunNumber, RunState, StoredRun};

use super::args::{Resume, Retry, Run, StoreArgs, StoredRunArgs};
use super::exit::Exit;
use super::open_store::{OpenedStore, fail};
use super::progress::Mode;
#[cfg(feature = "server")]
use super::remote::server_args::ServerArgs;
use super::run::{ResumeTarget, run_or_resume};
use super::saved_args::{SavedArgs, is_dash};

/// Resumes a run.
pub(super) fn resume(args: &Resume) -> Exit {
    let mode = Mode::choose(args.show.quiet, args.show.json);
    #[cfg(feature = "server")]
    match args.server.remote(args.stored.store.is_some() || args.config.is_some()) {
        Ok(Some(remote)) => return remote_run::resume(&remote, args, mode),
        Ok(None) => {}
        Err(error) => return fail(mode, error),
    }
    let found = find_run(args.run, &args.stored, args.config.clone()).and_then(|(run, stored)| {
        let saved_args = SavedArgs::from_run(&run)?.with_moved_items(args.moved.items.as_deref())?;
        ensure!(
            !is_dash(saved_args.items()),
            "the items of run {} came from stdin: to resume it, pipe them into the same `pointsman run` again, or name a \
             file with them (--items FILE)",
            run.number
        );
        let metrics = args.metrics.absolute()?;
        enter_directory(&saved_args)?;
        let run_args = saved_args.args(&stored, args.config.as_deref(), args.show);
        let cache = args.cache.or(run_args.cache);
        Ok((run.number, Run { overwrite: args.overwrite, pause: args.pause, metrics, cache, ..run_args }))
    });
    match found {
        Ok((run, run_args)) => {
            let has_moved_items = args.moved.items.is_some();
            run_or_resume(&run_args, &ResumeTarget { run: Some(run), retry: None, has_moved_items })
        }
        Err(error) if error.is::<NothingToResume>() => {
            mode.note(&error.to_string());
            Exit::Success
        }
        Err(error) => fail(mode, error),
    }
}

/// There is no run to resume.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no run to resume: every run is complete, cancelled or running; `pointsman runs` lists them"
)]
pub(super) struct NothingToResume;

/// Processes the failed items of a run again.
pub(super) fn retry(args: &Retry) -> Exit {
    let mode = Mode::choose(args.show.quiet, args.show.json);
    #[cfg(feature = "server")]
    match args.server.remote(args.stored.store.is_some() || args.config.is_some()) {
        Ok(Some(remote)) => return remote_run::retry(&remote, args, mode),
        Ok(None) => {}
        Err(error) => return fail(mode, error),
    }
    let found = find_run(Some(args.run), &args.stored, args.config.clone()).and_then(|(run, stored)| {
        let saved_args = SavedArgs::from_run(&run)?.with_moved_items(args.moved.items.as_deref())?;
        let metrics = args.metrics.absolute()?;
        enter_directory(&saved_args)?;
        let run_args = saved_args.args(&stored, args.config.as_deref(), args.show);
        Ok((run.number, Run { overwrite: args.overwrite, pause: args.pause, metrics, ..run_args }))
    });
    match found {
        Ok((run, run_args)) => {
            let has_moved_items = args.moved.items.is_some();
            let retry = Some(args.classes.clone());
            run_or_resume(&run_args, &ResumeTarget { run: Some(run), retry, has_moved_items })
        }
        Err(error) => fail(mode, error),
    }
}

/// Finds the run: that of the number, or else the latest that is not complete. The returned arguments have the
/// absolute path of the store.
fn find_run(
    run: Option<RunNumber>,
    stored: &StoredRunArgs,
    config: Option<std::path::PathBuf>,
) -> anyhow::Result<(StoredRun, StoredRunArgs)> {
    let opened = OpenedStore::of(&StoreArgs {
        store: stored.store.clone(),
        config,
        #[cfg(feature = "server")]
        server: ServerArgs::default(),
    })?;
    let OpenedStore { runtime, store, url } = &opened;
    let run = match run {
        Some(run) => runtime.block_on(store.run(run))?,
        None => {
            let is_left = |run: &StoredRun| {
                run.sessions > 0
                    && !matches!(run.state, RunState::Completed | RunState::Cancelled)
                    && !store.is_locked(run.number)
            };
            let runs = runtime.block_on(store.runs())?;
            let left = runs.into_iter().find(is_left);
            left.ok_or(NothingToResume)?
        }
    };
    let stored = StoredRunArgs { store: Some(url.absolute()?), ..stored.clone() };
    Ok((run, stored))
}

/// Enters the directory in which the run was started, because its files may have relative paths.
fn enter_directory(saved_args: &SavedArgs) -> anyhow::Result<()> {
    let directory = saved_args.directory();
    std::env::set_current_dir(directory).with_context(|| {
        format!(
            "cannot enter {}, where the run was started: if its files were moved, run its command again with \
                 their new paths, and name its store with --store sqlite:FILE",
            directory.display()
        )
    })
}
