//! `pointsman run`: items through a pipeline, watched.

mod missing;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use crate::config::{Config, Inputs};
use crate::document::Faults;
use crate::pipeline::Pipeline;
use crate::provider::process_env;
use crate::run::{History, Report};
use crate::runtime::{
    Error, Keep, Kept, MaxCost, PauseOptions, Pointsman, Retried, RunOptions, note_written,
};
use crate::sink::Target;
use crate::source::{Entry, Source};
use crate::store::{RunNumber, StoreUrl};
use crate::types::Class;

use super::args::Run;
use super::exit::Exit;
use super::kept::{self, Said, is_dash};
use super::live::{Live, Mode, say_json};
use super::place::{self, Before, Places, protect};
use super::print::say_lines;
use super::status::numbered;
use super::watch::{End, watch};
use super::{log, results, table};

/// How long actors may take to stop when there is nothing left to do.
const LAST_ACTORS: Duration = Duration::from_secs(1);

/// Which run goes on, and with what.
#[derive(Debug, Default)]
pub(super) struct Going {
    /// The run of this number, whatever its files.
    pub(super) run: Option<RunNumber>,
    /// Only with what failed of these classes, or of any.
    pub(super) retry: Option<Vec<Class>>,
}

/// Runs items through a pipeline, and shows it.
pub(super) fn run(args: &Run) -> Exit {
    go(args, &Going::default())
}

/// Begins a run, or goes on with one.
pub(super) fn go(args: &Run, going: &Going) -> Exit {
    let mode = Mode::choose(args.show.quiet, args.show.json);
    if let Err(error) = Places::check(args) {
        return mode.fail(&error, Exit::Usage);
    }
    let config = match load(args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(faults) => return mode.refuse(&faults),
    };
    let title =
        args.pipeline.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let live = Live::new(mode, &title);
    log::start(args.show.verbose, live.bar(), mode);
    let pointsman = match Pointsman::start(&config) {
        Ok(pointsman) => pointsman,
        Err(Error::Faults(faults)) => return mode.refuse(&faults),
        Err(error) => return mode.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    let session = Session {
        pointsman: &pointsman,
        args,
        going,
        mode,
        url: kept::url(args.keep.store.as_ref(), &config),
        inputs: config.store.inputs,
        pause: args.pause.options(&config.run),
    };
    let exit = session.run(live);
    // Actors that are dropped instead look as if they had died.
    pointsman.runtime().block_on(pointsman.drain(Instant::now() + LAST_ACTORS));
    exit
}

/// One time that a run is at work.
struct Session<'a> {
    pointsman: &'a Pointsman,
    args: &'a Run,
    going: &'a Going,
    mode: Mode,
    url: StoreUrl,
    inputs: Inputs,
    pause: PauseOptions,
}

impl Session<'_> {
    fn run(&self, mut live: Live) -> Exit {
        let mode = self.mode;
        let mut pipeline = match self.pointsman.pipeline(&self.args.pipeline) {
            Ok(pipeline) => pipeline,
            Err(faults) => return mode.refuse(&faults),
        };
        // After the pipeline: where no key is there, one message says so.
        self.pointsman.notes().iter().for_each(|note| mode.note(note));
        live.name(pipeline.name());
        // The cap that the run was given before is known later. Without a store there is none, and none is made.
        let named = self.args.keep.max_cost;
        let has_store = self.url.files().iter().any(|file| file.exists());
        if (named.is_some() || !has_store)
            && let Err(faults) = self.pointsman.check_cap(&pipeline, named)
        {
            return mode.refuse(&faults);
        }
        let mut kept = match self.pointsman.runtime().block_on(async { self.keep(&pipeline).await }) {
            Ok(kept) => kept,
            Err(error) => {
                let exit = match error.downcast_ref() {
                    Some(Error::Changed { .. }) => Exit::Configuration,
                    _ => Exit::Broken,
                };
                return mode.fail(&error, exit);
            }
        };
        let named = kept.as_ref().map_or(named, Kept::max_cost);
        if let Err(faults) = self.pointsman.check_cap(&pipeline, named) {
            return mode.refuse(&faults);
        }
        kept.iter().flat_map(Kept::notes).for_each(|note| mode.note(note));
        if let Some(exit) = kept.as_ref().and_then(|kept| self.nothing_left(kept)) {
            return exit;
        }
        let retried = match self.retried(kept.as_ref()) {
            Ok(Some(retried)) if retried.count() == 0 => {
                let text = "nothing has failed of that: there is nothing to try again";
                return match kept.as_ref().and_then(|kept| self.missing(kept)) {
                    Some(missing) => mode.end(&format!("{text}; {missing}"), Exit::ItemsFailed),
                    None => mode.end(text, Exit::Done),
                };
            }
            Ok(retried) => retried,
            Err(error) => return mode.fail(&error, Exit::Broken),
        };
        let is_from_store = retried.is_some() && !self.reads_items();
        if let Some(kept) = kept.as_ref().filter(|_| !is_from_store)
            && let Err(error) = self.refuse_emptied(&pipeline, kept)
        {
            return mode.fail(&error, Exit::Broken);
        }
        let before = kept
            .as_ref()
            .map(|kept| Before { settled: kept.before().settled(), rejected: kept.rejected_before() });
        // Items that are tried again were none of them rejected: what was is in that file already.
        let unrejected = Run { rejects: None, ..self.args.clone() };
        let args = if retried.is_some() { &unrejected } else { self.args };
        let owner = kept.as_ref().map_or_else(|| self.pointsman.owner(&pipeline), Kept::owner);
        let owner = owner.overwriting(self.args.overwrite);
        let places =
            Places::open(args, &pipeline, &self.url, is_from_store, before.unwrap_or_default(), &owner);
        let Places { source, output, report, replaceable } = match places {
            Ok(places) => places,
            Err(error) => match error.downcast::<Faults>() {
                Ok(faults) => {
                    mode.note("the items are CSV, in which every field is a text");
                    return mode.refuse(&faults);
                }
                Err(error) => return mode.fail(&error, Exit::Broken),
            },
        };
        protect(&mut pipeline, self.args);
        if let Some(kept) = &mut kept {
            report.as_ref().and_then(Target::written).into_iter().for_each(|file| kept.also_writes(file));
            replaceable.into_iter().for_each(|file| kept.may_replace(file));
        }
        let source = match retried {
            Some(retried) if is_from_store => {
                let name = numbered(retried.count() as u64, "failed item");
                retried.source(name, self.pointsman.runtime().clone())
            }
            _ => source,
        };
        let name = source.name().to_owned();
        if let Some(number) = kept.as_ref().and_then(Kept::number) {
            let complete = kept.as_ref().is_some_and(Kept::was_complete) && self.going.retry.is_none();
            let added = if complete {
                "; it was complete, and what is new is added to it (--new begins another)"
            } else {
                ""
            };
            let cap = match named {
                Some(MaxCost::Limit(cap)) if self.args.keep.max_cost.is_none() => {
                    format!("; its cap of {cap} holds (--max-cost names another, or none)")
                }
                Some(_) | None => String::new(),
            };
            mode.note(&format!(
                "run {number} goes on: {} settled before{added}{cap}",
                numbered(before.unwrap_or_default().settled, "item")
            ));
        }
        let ran = self.pointsman.runtime().block_on(async {
            let mut run = match kept {
                Some(kept) => self.pointsman.run_kept(pipeline, source, output, kept).await?,
                None => {
                    let options = RunOptions { max_cost: self.args.keep.max_cost, pause: self.pause };
                    self.pointsman.run_with(pipeline, source, output, &options).await?
                }
            };
            run.notes().iter().for_each(|note| live.note(note));
            Ok((watch(self.pointsman, &mut run, &mut live).await, run.number()))
        });
        live.clear();
        match ran {
            Ok((End::Reported(ended, gave_up), number)) => {
                if ended.is_empty() {
                    mode.note(&format!("no items in {name}"));
                }
                let exit = conclude(mode, &ended, gave_up);
                let exit = self.write_again(number).err().unwrap_or(exit);
                let exit = match number.filter(|_| is_from_store && exit == Exit::Done) {
                    Some(number) => match self.still_missing(number) {
                        Ok(Some(missing)) => mode.end(&missing, Exit::ItemsFailed),
                        Ok(None) => exit,
                        Err(error) => mode.fail(&error, Exit::Broken),
                    },
                    None => exit,
                };
                if let Some(number) = number
                    && !ended.reader_gone
                {
                    self.say_what_next(number, &ended);
                }
                write_report(mode, report, &ended, exit)
            }
            Ok((End::Left, _)) => {
                let left = "stopped before all lines could be written; every line that was is whole";
                mode.fail(&anyhow::anyhow!(left), Exit::Interrupted)
            }
            Err(Error::Faults(faults)) => mode.refuse(&faults),
            Err(error @ (Error::Store(_) | Error::BegunMeanwhile { .. })) => {
                mode.fail(&anyhow::Error::new(error), Exit::Broken)
            }
            Ok((End::Failed(error), _)) | Err(error) => mode.fail(&anyhow::Error::new(error), Exit::Internal),
        }
    }

    /// Returns the option by which another command finds the same store, where it needs one.
    fn here(&self) -> String {
        self.args.keep.store.as_ref().map(|url| format!(" --store {url}")).unwrap_or_default()
    }

    /// Finds the run that is meant, if runs are kept.
    async fn keep(&self, pipeline: &Pipeline) -> anyhow::Result<Option<Kept>> {
        let Some(store) = self.url.open().await? else { return Ok(None) };
        let said = Said::of(self.args)?;
        let is_partly = self.going.retry.is_some() && !self.reads_items();
        let keep = Keep {
            run: self.going.run,
            places: serde_json::to_value(&said)?,
            files: if is_partly { Vec::new() } else { said.files() },
            accept_changes: self.args.keep.accept_changes,
            max_cost: self.args.keep.max_cost,
            pause: self.pause,
            anew: self.args.new,
            partly: is_partly,
            retry: self.going.retry.clone(),
            keep_inputs: self.inputs == Inputs::All,
            ..Keep::new(store, said.identity())
        };
        Ok(Some(self.pointsman.keep(pipeline, keep).await?))
    }

    /// Refuses a file without any item where the run has settled some, before anything is changed: an export that
    /// failed must not empty the output. What cannot be read is told later, and what comes from a pipe is seen later.
    fn refuse_emptied(&self, pipeline: &Pipeline, kept: &Kept) -> anyhow::Result<()> {
        let Some(number) = kept.number().filter(|_| kept.has_settled() && self.reads_items()) else {
            return Ok(());
        };
        let Ok(Ok(mut reader)) = place::source(self.args).map(Source::read) else { return Ok(()) };
        let has_item = self.pointsman.runtime().block_on(async {
            loop {
                match reader.next().await {
                    Some(Ok(Entry::Item(item))) if pipeline.validate_item(&item.value).is_ok() => {
                        return true;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return true,
                    None => return false,
                }
            }
        });
        let (items, out) = (self.args.items.display(), self.args.out.display());
        ensure!(
            has_item,
            "no items in {items}, and run {number} has settled some before: {out} is as it was. Correct {items}, or \
             begin another run with --new"
        );
        Ok(())
    }

    /// Returns whether the items can be read again. Where they cannot, failed items are tried again as they were.
    fn reads_items(&self) -> bool {
        !is_dash(&self.args.items) && self.args.items.is_file()
    }

    /// Finds the failed items, if those are what the run goes on with.
    fn retried(&self, kept: Option<&Kept>) -> anyhow::Result<Option<Retried>> {
        let Some((classes, kept)) = self.going.retry.as_ref().zip(kept) else { return Ok(None) };
        Ok(Some(self.pointsman.runtime().block_on(kept.retried(classes))?))
    }

    /// Writes a whole output from the store after items were tried again: their lines are all over the file.
    fn write_again(&self, run: Option<RunNumber>) -> Result<(), Exit> {
        let is_from_store = self.going.retry.is_some() && !self.reads_items();
        let (Some(run), true) = (run, is_from_store && !is_dash(&self.args.out)) else {
            return Ok(());
        };
        let out = &self.args.out;
        let written = self.pointsman.runtime().block_on(async {
            let store = self.url.open().await?.context("the store is gone")?;
            let history = History::of(store.clone(), run).await?;
            let target = Target::file(out, &[]).context("--out")?;
            let format = results::format(self.args.to, self.args.csv, out);
            results::export(&history, target, out, format).await?;
            Ok(note_written(&*store, run, out).await?)
        });
        written.map_err(|error| self.mode.fail(&error, Exit::Broken))
    }
}

fn conclude(mode: Mode, report: &Report, gave_up: bool) -> Exit {
    let exit = Exit::of(report, gave_up);
    match mode {
        Mode::Json => say_json("report", report),
        _ if report.reader_gone => {}
        Mode::Quiet if exit == Exit::Done => {}
        Mode::Quiet => {
            say_lines(&table::summary(report));
            table::problems(report).iter().for_each(|problem| say_lines(problem));
        }
        Mode::Drawn | Mode::Lines => say_lines(&table::report(report)),
    }
    exit
}

/// Writes the report where it is wanted, and returns the exit code of the run with it.
fn write_report(mode: Mode, to: Option<Target>, report: &Report, exit: Exit) -> Exit {
    let Some(to) = to else { return exit };
    let text = serde_json::to_string_pretty(report).map_err(anyhow::Error::new);
    let written = text.and_then(|text| Ok(to.overwrite(&format!("{text}\n"))?)).context("--report");
    match written.map_err(|error| mode.fail(&error, Exit::Broken)) {
        Ok(()) => exit,
        // A report that is not read hides nothing worse.
        Err(Exit::BrokenPipe) if !matches!(exit, Exit::Done | Exit::ItemsFailed) => exit,
        Err(unwritten) => unwritten,
    }
}

/// Loads the configuration with the process's environment, with every target simulated if that was asked for.
pub(super) fn load(path: Option<&Path>, simulate: bool) -> Result<Config, Faults> {
    let config = Config::load(path, &process_env)?;
    Ok(if simulate { config.simulated() } else { config })
}
