//! `pointsman run`: items through a pipeline, watched.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::config::Config;
use crate::document::Faults;
use crate::pipeline::run::{Ended, Report};
use crate::pipeline::sink::Target;
use crate::runtime::{Error, Pointsman, RunHandle, RunOptions};

use super::args::Run;
use super::exit::Exit;
use super::live::{Live, Mode, say, say_json};
use super::place::Places;
use super::stops::{Stops, survive_file_limits};
use super::{log, table};

/// How long items in flight may take once something that must not fail did.
const LAST_ITEMS: Duration = Duration::from_secs(30);

/// How long actors may take to stop when there is nothing left to do.
const LAST_ACTORS: Duration = Duration::from_secs(1);

/// Runs items through a pipeline, and shows it.
pub(super) fn run(args: &Run) -> Exit {
    let mode = Mode::choose(args.quiet, args.json);
    if let Err(error) = Places::check(args) {
        return mode.fail(&error, Exit::Usage);
    }
    let config = match load(args.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return mode.refuse(&faults),
    };
    let title =
        args.pipeline.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let live = Live::new(mode, &title);
    log::start(args.verbose, live.bar(), mode);
    let pointsman = match Pointsman::start(&config) {
        Ok(pointsman) => pointsman,
        Err(Error::Faults(faults)) => return mode.refuse(&faults),
        Err(error) => return mode.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    let exit = run_with(&pointsman, args, mode, live);
    // Actors that are dropped instead look as if they had died.
    pointsman.runtime().block_on(pointsman.drain(Instant::now() + LAST_ACTORS));
    exit
}

fn run_with(pointsman: &Pointsman, args: &Run, mode: Mode, mut live: Live) -> Exit {
    pointsman.notes().iter().for_each(|note| mode.note(note));
    let pipeline = match pointsman.pipeline(&args.pipeline) {
        Ok(pipeline) => pipeline,
        Err(faults) => return mode.refuse(&faults),
    };
    live.name(pipeline.name());
    let Places { source, output, report: report_to } = match Places::open(args, &pipeline) {
        Ok(places) => places,
        Err(error) => return mode.fail(&error, Exit::Broken),
    };
    let name = source.name().to_owned();
    let ran = pointsman.runtime().block_on(async {
        survive_file_limits();
        let options = RunOptions { max_cost: args.max_cost };
        let mut run = pointsman.run_with(pipeline, source, output, &options).await?;
        run.notes().iter().for_each(|note| live.note(note));
        Ok(watch(pointsman, &mut run, &mut live).await)
    });
    live.clear();
    match ran {
        Ok(End::Reported(report, gave_up)) => {
            if report.is_empty() {
                mode.note(&format!("no items in {name}"));
            }
            let exit = conclude(mode, &report, gave_up);
            write_report(mode, report_to, &report).err().unwrap_or(exit)
        }
        Ok(End::Left) => {
            let left = "stopped before all lines could be written; every line that was is whole";
            mode.fail(&anyhow::anyhow!(left), Exit::Interrupted)
        }
        Err(Error::Faults(faults)) => mode.refuse(&faults),
        Ok(End::Failed(error)) | Err(error) => mode.fail(&anyhow::Error::new(error), Exit::Internal),
    }
}

/// How the watching of a run ended.
enum End {
    /// With its report, and whether something failed that must not.
    Reported(Box<Report>, bool),
    /// It was told a third time to stop: whoever reads the output does not.
    Left,
    Failed(Error),
}

/// Shows the run until it ends, and stops it when told to: first gently, then now.
async fn watch(pointsman: &Pointsman, run: &mut RunHandle, live: &mut Live) -> End {
    let mut progress = run.progress();
    let mut stops = Stops::new();
    let mut asked = 0;
    let mut gave_up = false;
    let mut last = None;
    loop {
        tokio::select! {
            report = run.report() => return match report {
                Ok(report) => End::Reported(Box::new(report), gave_up),
                Err(error) => End::Failed(error),
            },
            Ok(()) = progress.changed() => live.show(&progress.borrow_and_update()),
            () = stops.next() => {
                asked += 1;
                match asked {
                    1 => {
                        live.note("stopping: items in flight are finished; press Ctrl-C again to stop now");
                        run.stop_intake();
                    }
                    2 => {
                        live.note("stopping now; once more leaves an output that nobody reads");
                        run.cancel();
                    }
                    _ => return End::Left,
                }
            }
            why = pointsman.gave_up(), if !gave_up => {
                gave_up = true;
                live.note(&format!("stopping: {why}"));
                run.stop_intake();
                last = Some(Instant::now() + LAST_ITEMS);
            }
            () = until(last) => {
                last = None;
                run.cancel();
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn conclude(mode: Mode, report: &Report, gave_up: bool) -> Exit {
    match mode {
        Mode::Json => say_json("report", report),
        _ if report.reader_gone => {}
        Mode::Quiet => table::problems(report).iter().for_each(|problem| say(problem)),
        Mode::Drawn | Mode::Lines => say(&table::report(report)),
    }
    match report.ended {
        _ if gave_up => Exit::Internal,
        _ if report.reader_gone => Exit::BrokenPipe,
        Ended::Broken => Exit::Broken,
        Ended::Interrupted => Exit::Interrupted,
        Ended::Paused => Exit::Paused,
        Ended::Whole if report.items.failed + report.items.rejected > 0 => Exit::ItemsFailed,
        Ended::Whole => Exit::Done,
    }
}

fn write_report(mode: Mode, to: Option<Target>, report: &Report) -> Result<(), Exit> {
    let Some(to) = to else { return Ok(()) };
    let written = serde_json::to_string_pretty(report)
        .map_err(anyhow::Error::new)
        .and_then(|text| Ok(to.overwrite(format!("{text}\n").as_bytes())?));
    written.context("--report").map_err(|error| mode.fail(&error, Exit::Broken))
}

/// Loads the configuration with the process's environment.
pub(super) fn load(path: Option<&Path>) -> Result<Config, Faults> {
    Config::load(path, &|name| std::env::var(name).ok())
}
