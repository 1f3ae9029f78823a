//! `pointsman run`: items through a pipeline, watched.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::config::Config;
use crate::document::Faults;
use crate::pipeline::run::{Ended, Report};
use crate::runtime::{Error, Pointsman, RunHandle};

use super::args::Run;
use super::exit::Exit;
use super::live::{Live, Mode, say, say_json};
use super::{log, place, table};

/// How long items in flight may take once something that must not fail did.
const LAST_ITEMS: Duration = Duration::from_secs(30);

/// Runs items through a pipeline, and shows it.
pub(super) fn run(args: &Run) -> Exit {
    let mode = Mode::choose(args.quiet, args.json);
    let config = match load(args.config.as_deref()) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    let title =
        args.pipeline.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut live = Live::new(mode, &title);
    log::start(args.verbose, live.bar());
    let pointsman = match Pointsman::start(&config) {
        Ok(pointsman) => pointsman,
        Err(Error::Faults(faults)) => return refuse(&faults),
        Err(error) => return fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    if mode != Mode::Quiet {
        pointsman.notes().iter().for_each(|note| say(note));
    }
    let pipeline = match pointsman.pipeline(&args.pipeline) {
        Ok(pipeline) => pipeline,
        Err(faults) => return refuse(&faults),
    };
    live.name(pipeline.name());
    let (source, output) =
        match place::source(args).and_then(|source| Ok((source, place::output(args, &pipeline)?))) {
            Ok(opened) => opened,
            Err(error) => return fail(&error, Exit::Broken),
        };
    let runtime = pointsman.runtime().clone();
    let ran = runtime.block_on(async {
        let mut run = pointsman.run(pipeline, source, output).await?;
        Ok(watch(&pointsman, &mut run, &mut live).await)
    });
    live.clear();
    match ran {
        Ok((Ok(report), gave_up)) => conclude(args, mode, &report, gave_up),
        Ok((Err(error), _)) | Err(error) => fail(&anyhow::Error::new(error), Exit::Internal),
    }
}

/// Shows the run until it ends, and stops it when told to: first gently, then now. Returns whether
/// something failed that must not.
async fn watch(pointsman: &Pointsman, run: &mut RunHandle, live: &mut Live) -> (Result<Report, Error>, bool) {
    let mut progress = run.progress();
    let mut stops = Stops::new();
    let mut asked = 0;
    let mut gave_up = false;
    let mut last = None;
    loop {
        tokio::select! {
            report = run.report() => return (report, gave_up),
            Ok(()) = progress.changed() => live.show(&progress.borrow_and_update()),
            () = stops.next() => {
                asked += 1;
                if asked == 1 {
                    live.note("stopping: items in flight are finished; press Ctrl-C again to stop now");
                    run.stop_intake();
                } else {
                    run.cancel();
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

/// Ctrl-C and SIGTERM.
struct Stops(Vec<tokio::signal::unix::Signal>);

impl Stops {
    fn new() -> Self {
        // Where a signal cannot be caught it ends the process, as without us.
        Self(
            [SignalKind::interrupt(), SignalKind::terminate()]
                .into_iter()
                .filter_map(|kind| signal(kind).ok())
                .collect(),
        )
    }

    async fn next(&mut self) {
        std::future::poll_fn(|cx| {
            if self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
    }
}

fn conclude(args: &Run, mode: Mode, report: &Report, gave_up: bool) -> Exit {
    let written = args.report.as_deref().map(|path| write_report(path, report));
    match mode {
        Mode::Quiet => {
            for error in [&report.input_error, &report.output_error].into_iter().flatten() {
                say(&format!("error: {error}"));
            }
        }
        Mode::Json => say_json("report", report),
        Mode::Drawn | Mode::Lines if !report.reader_gone => say(&table::report(report)),
        Mode::Drawn | Mode::Lines => {}
    }
    if let Some(Err(error)) = written {
        return fail(&error, Exit::Broken);
    }
    match report.ended {
        _ if gave_up => Exit::Internal,
        _ if report.reader_gone => Exit::BrokenPipe,
        Ended::Broken => Exit::Broken,
        Ended::Interrupted => Exit::Interrupted,
        Ended::Whole if report.items.failed + report.items.rejected > 0 => Exit::ItemsFailed,
        Ended::Whole => Exit::Done,
    }
}

fn write_report(path: &Path, report: &Report) -> anyhow::Result<()> {
    let file = File::create(path).with_context(|| format!("--report: cannot write {}", path.display()))?;
    serde_json::to_writer_pretty(file, report)
        .with_context(|| format!("--report: cannot write {}", path.display()))
}

/// Loads the configuration with the process's environment.
pub(super) fn load(path: Option<&Path>) -> Result<Config, Faults> {
    Config::load(path, &|name| std::env::var(name).ok())
}

/// Shows every fault, with its place.
pub(super) fn refuse(faults: &Faults) -> Exit {
    say(&faults.render(io::stderr().is_terminal()));
    Exit::Configuration
}

/// Shows an error with the whole chain of its causes.
pub(super) fn fail(error: &anyhow::Error, exit: Exit) -> Exit {
    say(&format!("error: {error:#}"));
    exit
}
