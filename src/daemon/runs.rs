//! Creates, resumes, holds, cancels and deletes runs.
//!
//! The items of a run are a file on the disk before the run exists, and the run is in the store before its caller is
//! answered. A crash between the two leaves a file that the next start removes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::config::KeepInputs;
use crate::pipeline::Pipeline;
use crate::run::{History, MaxFailures, Report, RunOutput, RunSummary, pause_reason};
use crate::runtime::{self, MaxCost, PauseOptions, ResumeOptions, RunHandle};
use crate::sink::{Destination, Format as SinkFormat, Sink};
use crate::source::{self, Format, Source};
use crate::store::{RunFilter, RunNumber, RunState, StoredRun};
use crate::types::{Class, NanoUsd, ScopeName, StepName};

use super::caller::Caller;
use super::catalogue::{LoadedPipeline, PipelineOrigin};
use super::daemon::Daemon;
use super::data_folder::{DataFolder, SpooledFile, random_id};
use super::error::Error;
use super::events::EventKind;
use super::growing_file::remove_partial_line;
use super::item_counts::RunCounted;
use super::items_check::{check_head, has_faulty_items};
use super::run_command::{IDENTITY_PREFIX, ItemsFile, RunCommand, format_named};
use super::run_log::{self, Begin};
use super::shown_state::ShownState;
use super::views::{RunPage, RunView};

/// How long a change of a run waits for the calls in flight of its session that ends.
const MAX_END_WAIT: Duration = Duration::from_secs(20);

/// How many runs a page has at most.
const MAX_PAGE: u32 = 500;

/// The items of a new run.
#[derive(Debug)]
#[non_exhaustive]
pub enum ItemsFrom {
    /// The items themselves.
    Values(Vec<Value>),
    /// An uploaded file, with the name of its format, or one that is found out.
    Spooled(SpooledFile, Option<String>),
    /// A file in one of the allowed folders.
    Path(PathBuf, Option<String>),
}

/// A run to create.
#[derive(Debug)]
#[non_exhaustive]
pub struct NewRun {
    /// The name of its pipeline.
    pub pipeline: String,
    /// Its items.
    pub items: ItemsFrom,
    /// The most that it may spend; `None` uses the configuration.
    pub max_cost: Option<NanoUsd>,
    /// Makes the creation repeatable: a run that was created with the same text is returned instead of a new one.
    pub identity: Option<String>,
}

impl NewRun {
    /// Creates a run of this pipeline.
    pub fn new(pipeline: impl Into<String>, items: ItemsFrom) -> Self {
        Self { pipeline: pipeline.into(), items, max_cost: None, identity: None }
    }
}

/// Which runs a list has.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RunQuery {
    /// Only those in this state.
    pub state: Option<ShownState>,
    /// Only those of this pipeline.
    pub pipeline: Option<String>,
    /// Where the page begins: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// How many runs it has at most; 0 is 50.
    pub limit: u32,
    /// Whether each run has its counts and its cost over all sessions. They are read from the rows of its items.
    pub with_summary: bool,
}

impl RunQuery {
    /// Creates the query of the first page of all runs.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What a session reads and writes.
pub(super) struct SessionIo {
    pub(super) source: Source,
    pub(super) output: RunOutput,
}

/// How a session of a stored run begins.
#[derive(Debug, Default)]
pub(super) struct SessionTerms {
    pub(super) run: Option<RunNumber>,
    pub(super) identity: String,
    pub(super) max_cost: Option<NanoUsd>,
    pub(super) scope: Option<ScopeName>,
    pub(super) retry: Option<Vec<Class>>,
    pub(super) accept_changes: bool,
}

impl Daemon {
    /// Fails if a run of this pipeline cannot be created whatever its items are: before they are sent.
    ///
    /// # Errors
    /// If there is no such pipeline, it has faults, or the daemon stops.
    pub async fn check_new_run(&self, pipeline: &str) -> Result<(), Error> {
        self.check_running()?;
        self.load_pipeline(pipeline).await.map(drop)
    }

    /// Creates a run and begins it. It is durable when this returns. A caller that goes away before changes nothing.
    ///
    /// # Errors
    /// If there is no such pipeline, or its run cannot begin. Nothing is left of it then.
    pub async fn create_run(&self, new: NewRun, caller: &Caller) -> Result<RunView, Error> {
        let daemon = self.clone();
        let caller = caller.clone();
        Box::pin(self.uninterrupted(async move { Box::pin(daemon.create(new, &caller)).await })).await
    }

    async fn create(&self, new: NewRun, caller: &Caller) -> Result<RunView, Error> {
        self.check_running()?;
        let identity = match &new.identity {
            Some(text) => {
                let identity = format!("{IDENTITY_PREFIX}{text}");
                if let Some(run) = self.find_created(&identity).await? {
                    return self.view(&run).await;
                }
                identity
            }
            None => format!("{IDENTITY_PREFIX}{}", random_id()),
        };
        let LoadedPipeline { pipeline, origin } = self.load_pipeline(&new.pipeline).await?;
        let items = match new.items {
            ItemsFrom::Values(values) => {
                let daemon = self.clone();
                let spool = move || spool_values(daemon.data(), &values);
                let format = Some("jsonl".to_owned());
                ItemsFile { id: self.keep_items(self.blocking(spool).await?).await?, path: None, format }
            }
            ItemsFrom::Spooled(spooled, format) => {
                check_format(format.as_deref())?;
                ItemsFile { id: self.keep_items(spooled).await?, path: None, format }
            }
            ItemsFrom::Path(path, format) => {
                check_format(format.as_deref())?;
                ItemsFile { id: random_id(), path: Some(self.allowed_items(&path)?), format }
            }
        };
        let command = RunCommand {
            pipeline: new.pipeline,
            version: match &origin {
                PipelineOrigin::Stored { version, .. } => Some(*version),
                PipelineOrigin::File { .. } => None,
            },
            directory: match &origin {
                PipelineOrigin::File { path } => Some(path.parent().unwrap_or(Path::new("")).to_owned()),
                PipelineOrigin::Stored { .. } => None,
            },
            items,
            created_by: caller.name.clone(),
            one_at_a_time: false,
        };
        let terms = SessionTerms {
            identity,
            max_cost: new.max_cost,
            scope: Some(caller.scope.clone()),
            ..SessionTerms::default()
        };
        let begun = match self.check_items(&pipeline, &command).await {
            Ok(()) => self.begin_session(pipeline, &command, terms).await,
            Err(error) => Err(error),
        };
        let run = match begun {
            Ok(run) => run,
            Err(error) => {
                // Not a part of any run. If it cannot be removed, the next start does it.
                drop(self.data().remove_run_files(&command.items.id));
                return Err(error);
            }
        };
        self.run(run, caller).await
    }

    /// Makes an uploaded file the items of a run. Returns its ID.
    async fn keep_items(&self, spooled: SpooledFile) -> Result<String, Error> {
        let id = spooled.id().to_owned();
        let daemon = self.clone();
        // The disk may take seconds.
        self.blocking(move || daemon.data().keep_items(spooled)).await?;
        Ok(id)
    }

    /// Returns a run.
    ///
    /// # Errors
    /// If there is none, or the caller may not see it.
    pub async fn run(&self, run: RunNumber, caller: &Caller) -> Result<RunView, Error> {
        let (stored, _) = self.stored_run(run, caller).await?;
        self.view(&stored).await
    }

    /// Returns a page of runs, the newest first.
    ///
    /// # Errors
    /// If the cursor is none, or the store cannot be read.
    pub async fn runs(&self, query: &RunQuery, caller: &Caller) -> Result<RunPage, Error> {
        let max = match query.limit {
            0 => 50,
            limit => limit.min(MAX_PAGE),
        };
        let mut before = query.cursor.as_deref().map(parse_cursor).transpose()?;
        let mut found = Vec::new();
        let mut is_last = false;
        while !is_last && found.len() < max as usize {
            let filter = RunFilter {
                state: query.state.map(ShownState::stored),
                name: query.pipeline.clone(),
                identity_prefix: Some(IDENTITY_PREFIX.to_owned()),
                before,
                max,
            };
            let page = self.store().runs_page(&filter).await?;
            before = page.last().map(|run| run.number);
            is_last = page.len() < max as usize;
            let visible: Vec<StoredRun> = page.into_iter().filter(|run| is_visible(run, caller)).collect();
            // Together: each run in progress takes a moment to publish its progress.
            let views = join_all(visible.iter().map(|run| self.view(run))).await;
            for (run, view) in visible.into_iter().zip(views) {
                let view = view?;
                // The store does not know which runs wait and which are without a process.
                if query.state.is_none_or(|state| state.as_str() == view.state) {
                    found.push((run, view));
                }
            }
        }
        let is_complete = is_last && found.len() <= max as usize;
        found.truncate(max as usize);
        let next_cursor = found.last().filter(|_| !is_complete).map(|(last, _)| last.number.to_string());
        let listed = found.into_iter().map(|(run, view)| self.listed(run, view, query.with_summary));
        Ok(RunPage { runs: try_join_all(listed).await?, next_cursor })
    }

    async fn listed(&self, run: StoredRun, view: RunView, with_summary: bool) -> Result<RunView, Error> {
        if !with_summary {
            return Ok(view);
        }
        Ok(view.with_summary(RunSummary::of(&**self.store(), &run).await?))
    }

    /// Pauses a run until its user resumes it. Calls in flight are finished.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn hold_run(&self, run: RunNumber, caller: &Caller) -> Result<RunView, Error> {
        let (stored, _) = self.controlled_run(run, caller).await?;
        match stored.state {
            RunState::Running | RunState::Stopped | RunState::IoFailed => {}
            RunState::Paused => return self.view(&stored).await,
            RunState::Completed | RunState::Cancelled => {
                return Err(Error::conflict(format!(
                    "run {run} is {}: it cannot be held",
                    stored.state.as_str()
                )));
            }
        }
        // First, so that a run whose process ends now is not resumed at the next start.
        self.store().set_state(run, RunState::Paused).await?;
        run_log::changed(run, &stored.metadata.name, "held", &caller.name);
        if let Some(control) = self.open_runs().control(run) {
            let why = match caller.name.as_str() {
                "" => "held by the operator".to_owned(),
                name => format!("held by {name}"),
            };
            self.open_runs().set_held(run, why.clone());
            control.pause(why);
        }
        self.run(run, caller).await
    }

    /// Resumes a run. If changes since affect its stored answers, it is resumed only with `accept_changes`.
    ///
    /// # Errors
    /// If it is complete or in progress, or it has changed.
    pub async fn resume_run(
        &self,
        run: RunNumber,
        accept_changes: bool,
        max_cost: Option<NanoUsd>,
        caller: &Caller,
    ) -> Result<RunView, Error> {
        self.check_running()?;
        let (stored, command) = self.ended_run(run, caller, "there is nothing to resume").await?;
        if stored.state == RunState::Completed {
            return Err(Error::conflict(format!(
                "run {run} is complete: there is nothing to resume; `retry` processes its failed items again"
            )));
        }
        self.reopen(&stored, &command, SessionTerms { accept_changes, max_cost, ..SessionTerms::default() })
            .await?;
        self.run(run, caller).await
    }

    /// Processes the failed items of a run again: those of these classes, or all. If changes since affect its stored
    /// answers, they are processed only with `accept_changes`.
    ///
    /// # Errors
    /// If it is in progress, or it has changed.
    pub async fn retry_run(
        &self,
        run: RunNumber,
        classes: Vec<Class>,
        accept_changes: bool,
        caller: &Caller,
    ) -> Result<RunView, Error> {
        self.check_running()?;
        let (stored, command) = self.ended_run(run, caller, "retry it when it has ended").await?;
        let terms = SessionTerms { retry: Some(classes), accept_changes, ..SessionTerms::default() };
        self.reopen(&stored, &command, terms).await?;
        self.run(run, caller).await
    }

    /// Cancels a run: it takes no more items and aborts those in flight. Its finished items stay stored.
    ///
    /// # Errors
    /// If it is complete.
    pub async fn cancel_run(&self, run: RunNumber, caller: &Caller) -> Result<RunView, Error> {
        let (stored, _) = self.controlled_run(run, caller).await?;
        if stored.state == RunState::Completed {
            return Err(Error::conflict(format!("run {run} is complete: there is nothing to cancel")));
        }
        // First, so that its session ends as cancelled.
        self.store().set_state(run, RunState::Cancelled).await?;
        run_log::changed(run, &stored.metadata.name, "cancelled", &caller.name);
        if let Some(control) = self.open_runs().control(run) {
            control.cancel();
        }
        self.run(run, caller).await
    }

    /// Deletes a run with its items and answers. Its spend stays recorded.
    ///
    /// # Errors
    /// If it is in progress.
    pub async fn delete_run(&self, run: RunNumber, caller: &Caller) -> Result<(), Error> {
        let (_, command) = self.ended_run(run, caller, "cancel it first").await?;
        let lock = self.store().lock(run)?;
        self.store().delete_runs(&[run]).await?;
        drop(lock);
        self.shrink_due().store(true, Ordering::Release);
        self.data().remove_run_files(&command.items.id)?;
        self.open_runs().forget(run);
        self.events().record(EventKind::RunDeleted, Some(run), json!({}));
        run_log::changed(run, &command.pipeline, "deleted", &caller.name);
        Ok(())
    }

    /// Returns the stored lines, failures and report of a run, also while it is in progress.
    ///
    /// # Errors
    /// If there is none, or the caller may not see it.
    pub async fn history(&self, run: RunNumber, caller: &Caller) -> Result<History, Error> {
        self.stored_run(run, caller).await?;
        Ok(History::of(self.store().clone(), run).await?)
    }

    /// Returns the file with the records of a run's input that were not items; `None` if there are none.
    ///
    /// # Errors
    /// If there is no such run, or the file cannot be opened.
    pub async fn rejects(&self, run: RunNumber, caller: &Caller) -> Result<Option<std::fs::File>, Error> {
        let (_, command) = self.stored_run(run, caller).await?;
        match std::fs::File::open(self.data().rejects_file(&command.items.id)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { doing: "open the rejects of the run".to_owned(), source }),
        }
    }

    /// Makes the file of the store smaller if runs were deleted and none is open. Writes wait meanwhile.
    pub(super) async fn shrink_store(&self) {
        let is_idle = || self.open_runs().numbers().is_empty();
        if !is_idle() || !self.shrink_due().swap(false, Ordering::AcqRel) {
            return;
        }
        let shrunk = self.store().vacuum().await;
        if let Err(error) = &shrunk {
            tracing::warn!(error = crate::types::error_chain(error), "the store cannot be made smaller");
        }
        // The store skips this while a run is open.
        if shrunk.is_err() || !is_idle() {
            self.shrink_due().store(true, Ordering::Release);
        }
    }

    /// Removes the files whose run is not in the store, if they were not written since `before`: an earlier process ended
    /// while it created the run, or another process has deleted the run.
    pub(super) async fn remove_unknown_files(&self, before: SystemTime) {
        let mut known = HashSet::new();
        let mut filter = RunFilter {
            identity_prefix: Some(IDENTITY_PREFIX.to_owned()),
            max: MAX_PAGE,
            ..RunFilter::default()
        };
        loop {
            // Without the list, nothing is removed.
            let Ok(page) = self.store().runs_page(&filter).await else { return };
            for run in &page {
                // Also if it is not known which files belong to a run.
                let Some(command) = RunCommand::of(run) else { return };
                known.insert(command.items.id);
            }
            match page.last() {
                Some(last) if page.len() == MAX_PAGE as usize => filter.before = Some(last.number),
                Some(_) | None => break,
            }
        }
        let daemon = self.clone();
        let remove = move || {
            let removed = daemon.data().remove_unknown(|id| known.contains(id), before);
            removed.map_err(Error::io("remove the files of unknown runs"))
        };
        if let Err(error) = self.blocking(remove).await {
            let error = crate::types::error_chain(&error);
            tracing::warn!(error, "files of runs that are not stored cannot be removed");
        }
    }

    /// Resumes, one after the other, the runs that an earlier process left. One that cannot be resumed shows why.
    pub(super) async fn resume_interrupted(&self) {
        let runs = match self.store().unfinished_runs(IDENTITY_PREFIX).await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::error!(%error, "the runs that were interrupted cannot be read");
                return;
            }
        };
        for stored in runs {
            let run = stored.number;
            let Some(command) = RunCommand::of(&stored) else { continue };
            if self.check_running().is_err() {
                return;
            }
            if self.open_runs().control(run).is_some() {
                continue;
            }
            if let Err(error) = self.reopen(&stored, &command, SessionTerms::default()).await {
                self.record_resume_error(run, &error);
            }
        }
    }

    /// Resumes the runs that could not be resumed earlier, as when their items were missing, and those whose end could not be
    /// stored. A run that its user has paused or cancelled since stays so.
    pub(super) async fn resume_after_problem(&self) {
        for run in self.open_runs().with_problems() {
            // The store reports its error to those who wait for it.
            let Ok(stored) = self.store().run(run).await else { continue };
            let Some(command) = RunCommand::of(&stored) else { continue };
            let is_due = match stored.state {
                RunState::Running | RunState::Stopped => true,
                // `resume_after_io_error` resumes a run that had an I/O error.
                RunState::Paused | RunState::IoFailed => false,
                RunState::Completed | RunState::Cancelled => {
                    self.open_runs().forget(run);
                    false
                }
            };
            if self.check_running().is_err() {
                return;
            }
            if !is_due || self.open_runs().control(run).is_some() {
                continue;
            }
            if let Err(error) = self.reopen(&stored, &command, SessionTerms::default()).await {
                self.record_resume_error(run, &error);
            }
        }
    }

    /// Records why a run could not be resumed. It is tried again and again, so the same reason is reported once.
    fn record_resume_error(&self, run: RunNumber, error: &Error) {
        let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
        let problem = format!("it could not be resumed: {}{advice}", crate::types::error_chain(error));
        let is_known = self.open_runs().problem(run).as_deref() == Some(problem.as_str());
        // A user may have resumed it meanwhile.
        if is_known || self.open_runs().control(run).is_some() {
            return;
        }
        tracing::error!(run = run.0, %problem, "a run could not be resumed");
        self.events().record(EventKind::RunFailed, Some(run), json!({ "reason": problem }));
        self.open_runs().set_problem(run, problem);
    }

    /// Resumes the runs that paused because a budget was spent, for a day that has begun or caps that were changed. A run
    /// whose budget is still spent pauses again at once, without a call.
    pub(super) async fn resume_after_budget(&self) {
        self.resume_those(RunState::Paused, |run| pause_reason(run).1 == Some(Class::Budget)).await;
    }

    /// Resumes the runs whose output or store failed, as when the disk was full. A run whose input cannot be read would
    /// fail again for the same reason.
    pub(super) async fn resume_after_io_error(&self) {
        self.resume_those(RunState::IoFailed, |run| !has_faulty_items(run)).await;
    }

    async fn resume_those(&self, state: RunState, is_due: impl Fn(&StoredRun) -> bool) {
        let filter = RunFilter {
            state: Some(state),
            identity_prefix: Some(IDENTITY_PREFIX.to_owned()),
            max: MAX_PAGE,
            ..RunFilter::default()
        };
        // The store reports its error to those who wait for it.
        let Ok(runs) = self.store().runs_page(&filter).await else { return };
        for stored in runs.iter().filter(|run| is_due(run)) {
            let Some(command) = RunCommand::of(stored) else { continue };
            if self.check_running().is_err() {
                return;
            }
            if self.open_runs().control(stored.number).is_some() {
                continue;
            }
            if let Err(error) = self.reopen(stored, &command, SessionTerms::default()).await {
                let run = stored.number.0;
                tracing::warn!(run, error = crate::types::error_chain(&error), "a run could not be resumed");
            }
        }
    }

    /// Begins another session of a stored run.
    pub(super) async fn reopen(
        &self,
        stored: &StoredRun,
        command: &RunCommand,
        terms: SessionTerms,
    ) -> Result<RunNumber, Error> {
        let daemon = self.clone();
        let name = command.pipeline.clone();
        let text = stored.metadata.pipeline.clone();
        let directory = command.directory.clone();
        let parse = move || {
            let directory = directory.as_deref();
            let parsed = daemon.catalogue().parse_again(daemon.pointsman(), &name, &text, directory);
            parsed.map_err(Error::from)
        };
        let pipeline = Arc::new(self.blocking(parse).await?);
        // A simulated run has a suffix, which is added again.
        let identity = stored.identity.split(' ').next().unwrap_or_default().to_owned();
        let terms = SessionTerms { run: Some(stored.number), identity, ..terms };
        self.begin_session(pipeline, command, terms).await
    }

    /// Begins a session that reads the file of the run's items. Returns the number of the run.
    async fn begin_session(
        &self,
        pipeline: Arc<Pipeline>,
        command: &RunCommand,
        terms: SessionTerms,
    ) -> Result<RunNumber, Error> {
        let source = self.source(command)?;
        let for_csv = pipeline.csv_diagnostics();
        if source.is_csv() && !for_csv.0.is_empty() {
            return Err(Error::Diagnostics(for_csv.clone()));
        }
        let steps: Vec<StepName> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
        let lines = Sink::results(Destination::none(), SinkFormat::Jsonl, &steps);
        let lines = lines.map_err(|error| Error::invalid(error.to_string()))?;
        let io = SessionIo { source, output: RunOutput::new(lines) };
        self.begin_session_with(pipeline, command, terms, io).await
    }

    /// Begins a session, which this daemon then watches. Returns the number of its run.
    pub(super) async fn begin_session_with(
        &self,
        pipeline: Arc<Pipeline>,
        command: &RunCommand,
        terms: SessionTerms,
        io: SessionIo,
    ) -> Result<RunNumber, Error> {
        let daemon = self.clone();
        let command = command.clone();
        // A session that has begun and is not watched would be cancelled.
        self.uninterrupted(async move { daemon.begin_watched(pipeline, &command, terms, io).await }).await
    }

    async fn begin_watched(
        &self,
        pipeline: Arc<Pipeline>,
        command: &RunCommand,
        terms: SessionTerms,
        SessionIo { source, mut output }: SessionIo,
    ) -> Result<RunNumber, Error> {
        let is_retry = terms.retry.is_some();
        let is_new = terms.run.is_none();
        let prepared = self.pointsman().prepare_run(&pipeline, self.options(command, terms)).await?;
        self.pointsman().check_cap(&pipeline, prepared.max_cost())?;
        // Items that are retried were not rejected, and items that came one at a time were checked.
        if !is_retry && !command.one_at_a_time {
            output.rejects = Some(self.rejects_sink(&command.items.id, prepared.rejected_before())?);
        }
        let handle = self.pointsman().run_stored(pipeline, source, output, prepared).await?;
        let Some(run) = handle.id() else {
            return Err(Error::invalid("the run is not stored"));
        };
        // Before the event of its first session.
        if is_new {
            let data = json!({ "pipeline": command.pipeline });
            self.events().record(EventKind::RunCreated, Some(run), data);
            run_log::created(run, &command.pipeline, &command.created_by);
        }
        let begin = match (is_new, is_retry) {
            (true, _) => Begin::New,
            (false, true) => Begin::Retried,
            (false, false) => Begin::Resumed,
        };
        run_log::started(run, &command.pipeline, begin);
        self.watch(run, command.pipeline.clone(), handle);
        Ok(run)
    }

    fn options(&self, command: &RunCommand, terms: SessionTerms) -> ResumeOptions {
        let config = self.config();
        let mut options = ResumeOptions::new(self.store().clone(), terms.identity)
            .with_command(command.to_value())
            .with_keep_inputs(config.store.keep_inputs == KeepInputs::All)
            .with_accept_changes(terms.accept_changes)
            .with_cache(config.run.cache)
            .with_cache_limits(config.store.cache_limits())
            .with_pause(pause_options(command));
        options.run = terms.run;
        options.retry = terms.retry;
        options.scope = terms.scope;
        options.max_cost = terms.max_cost.map(MaxCost::Limit);
        options
    }

    /// Opens the items of a run.
    fn source(&self, command: &RunCommand) -> Result<Source, Error> {
        let path = match &command.items.path {
            // Checked again: what the path leads to may have changed.
            Some(path) => self.allowed_items(path)?,
            None => self.data().items_file(&command.items.id),
        };
        if command.one_at_a_time {
            remove_partial_line(&path).map_err(Error::io("read the items"))?;
        }
        // The callers of the daemon are not trusted with formats whose parsers are large, or that expand.
        let opened = Source::file(&path, command.format()).map(Source::with_plain_text_only);
        if command.items.path.is_some() {
            return opened.map_err(|error| Error::invalid(crate::types::error_chain(&error)));
        }
        // Its path says nothing to those who sent the items.
        let source = opened.map_err(|error| match error {
            source::Error::Open { source, .. } => Error::io("open the items of the run")(source),
            error => Error::io("open the items of the run")(std::io::Error::other(error)),
        })?;
        Ok(source.with_name("the items"))
    }

    /// Fails if the items of a new run cannot be read as the run would read them.
    async fn check_items(&self, pipeline: &Pipeline, command: &RunCommand) -> Result<(), Error> {
        check_head(self.source(command)?, pipeline).await
    }

    fn rejects_sink(&self, id: &str, before: u64) -> Result<Sink<crate::sink::RejectLine>, Error> {
        let path = self.data().rejects_file(id);
        let destination = Destination::file(&path, &[]).map(|opened| opened.replacing_after(&path, before));
        let sink = destination.and_then(Sink::rejects);
        sink.map_err(|error| Error::Io {
            doing: "write the rejects of the run".to_owned(),
            source: std::io::Error::other(error),
        })
    }

    /// Watches a session until its end.
    fn watch(&self, run: RunNumber, pipeline: String, mut handle: RunHandle) {
        self.open_runs().insert(run, handle.control());
        self.events().record(EventKind::RunStarted, Some(run), json!({}));
        let daemon = self.downgrade();
        drop(self.pointsman().runtime().spawn(async move {
            let ended = handle.report().await;
            let Some(daemon) = daemon.upgrade() else { return };
            let state = daemon.store().state(run).await.ok();
            // Before it is removed, so that a resume that follows removes the problem.
            if state.is_none_or(|state| state == RunState::Running) {
                daemon.open_runs().set_problem(run, unstored_end(ended.as_ref()));
            }
            // A drain waits until it is removed, and ends the process.
            run_log::ended(run, &pipeline, state, ended.as_ref());
            daemon.open_runs().remove(run);
            let data = match &ended {
                Ok(report) => {
                    json!({ "outcome": report.outcome, "items": report.items, "reason": report.reason() })
                }
                Err(error) => json!({ "reason": error.to_string() }),
            };
            daemon.events().record(EventKind::RunEnded, Some(run), data);
            // The handle of a run that has ended changes nothing when it is dropped.
            drop(handle);
        }));
    }

    /// Returns a run of a daemon that the caller may change.
    async fn controlled_run(
        &self,
        run: RunNumber,
        caller: &Caller,
    ) -> Result<(StoredRun, RunCommand), Error> {
        let (stored, command) = self.stored_run(run, caller).await?;
        let is_own = command.created_by == caller.name;
        if caller.controls_all || is_own { Ok((stored, command)) } else { Err(Error::Forbidden) }
    }

    /// Returns a run that the caller may change and on which no session works. The stored state says that a session has
    /// ended, or has to end, before its calls in flight and its last records have: this waits for them.
    ///
    /// # Errors
    /// If it is in progress. `advice` says what to do then.
    async fn ended_run(
        &self,
        run: RunNumber,
        caller: &Caller,
        advice: &str,
    ) -> Result<(StoredRun, RunCommand), Error> {
        let (stored, _) = self.controlled_run(run, caller).await?;
        if stored.state != RunState::Running {
            let ended = timeout(MAX_END_WAIT, self.open_runs().ended(run)).await;
            ended.map_err(|_| Error::Busy {
                message: format!("run {run} is ending, and its calls in flight have not ended yet"),
                retry_after: MAX_END_WAIT.as_secs(),
            })?;
        }
        let ended = self.controlled_run(run, caller).await?;
        if self.open_runs().control(run).is_some() {
            return Err(Error::conflict(format!("run {run} is in progress: {advice}")));
        }
        Ok(ended)
    }

    /// Returns a run of a daemon that the caller may see.
    pub(super) async fn stored_run(
        &self,
        run: RunNumber,
        caller: &Caller,
    ) -> Result<(StoredRun, RunCommand), Error> {
        let missing = || Error::NotFound { what: "run", name: run.to_string() };
        let stored = self.store().run(run).await.map_err(|error| match error {
            crate::store::Error::NoRun(_) => missing(),
            error => Error::Store(error),
        })?;
        match RunCommand::of(&stored) {
            Some(command) if is_visible(&stored, caller) => Ok((stored, command)),
            Some(_) => Err(missing()),
            // Its commands are on the machine, which is not for every caller to know.
            None if caller.controls_all => Err(Error::conflict(format!(
                "run {run} was not created by a daemon: manage it with the commands of the program, without a server"
            ))),
            None => Err(missing()),
        }
    }

    pub(super) async fn view(&self, stored: &StoredRun) -> Result<RunView, Error> {
        let progress = self.open_runs().progress(stored.number).await;
        let problem = self.open_runs().problem(stored.number);
        let counted = match &progress {
            Some(progress) => RunCounted::now(progress),
            None => match RunCounted::of_only_session(stored) {
                Some(counted) => counted,
                None => RunCounted::of_rows(stored, &self.totals(stored).await?),
            },
        };
        Ok(RunView::of(&**self.store(), stored, counted, progress, problem))
    }

    /// Returns the run that was created with this identity, simulated or not.
    async fn find_created(&self, identity: &str) -> Result<Option<StoredRun>, Error> {
        let filter = RunFilter {
            state: None,
            name: None,
            identity_prefix: Some(identity.to_owned()),
            before: None,
            max: 1,
        };
        Ok(self.store().runs_page(&filter).await?.into_iter().next())
    }

    /// Returns the real path of a file of items, which must be in one of the allowed folders.
    ///
    /// The error is the same whether the file does not exist or may not be read, so that a caller learns nothing about
    /// files outside.
    fn allowed_items(&self, path: &Path) -> Result<PathBuf, Error> {
        let config = self.config();
        let folders = &config.serve.items;
        if folders.is_empty() {
            return Err(Error::invalid(
                "no folder is allowed for items_path: name it in items = [\"FOLDER\"] of [serve], or upload the items",
            ));
        }
        let refused = || {
            Error::invalid(format!(
                "items_path {:?} is not a file in a folder of `items` in [serve]",
                path.display().to_string()
            ))
        };
        let folders: Vec<PathBuf> = folders.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
        let candidates = folders.iter().map(|folder| folder.join(path));
        let real = candidates.filter_map(|candidate| candidate.canonicalize().ok());
        let inside = |real: &PathBuf| folders.iter().any(|folder| real.starts_with(folder)) && real.is_file();
        real.into_iter().find(inside).ok_or_else(refused)
    }
}

/// Returns the problem of a run whose session has ended although the store does not have its end, as on a full disk.
fn unstored_end(ended: Result<&Report, &runtime::Error>) -> String {
    let why = match ended {
        Ok(report) => report.store_error.clone(),
        Err(error) => Some(crate::types::error_chain(error)),
    };
    let why = why.map_or(String::new(), |why| format!(": {why}"));
    format!("its end could not be stored{why}. It is resumed when the store accepts writes")
}

/// A daemon waits for a provider as long as it takes, unless the configuration says otherwise. Items that come one at a time
/// are not of one kind, so failed ones say nothing about the next.
fn pause_options(command: &RunCommand) -> PauseOptions {
    let pause = PauseOptions::new();
    if command.one_at_a_time { pause.with_max_failures(MaxFailures::Unlimited) } else { pause }
}

pub(super) fn is_visible(run: &StoredRun, caller: &Caller) -> bool {
    RunCommand::of(run).is_some_and(|command| caller.sees_all || command.created_by == caller.name)
}

/// Writes items to a file, one a line.
fn spool_values(data: &DataFolder, values: &[Value]) -> Result<SpooledFile, Error> {
    let mut spooled = data.spool()?;
    let mut lines = Vec::new();
    for value in values {
        serde_json::to_writer(&mut lines, value).map_err(Error::json)?;
        lines.push(b'\n');
    }
    spooled.write(&lines)?;
    Ok(spooled)
}

fn parse_cursor(cursor: &str) -> Result<RunNumber, Error> {
    cursor.parse().map_err(|_| Error::invalid("the cursor is not one: use `next_cursor` of the page before"))
}

fn check_format(format: Option<&str>) -> Result<Option<Format>, Error> {
    match format {
        None => Ok(None),
        Some(name) => match format_named(name) {
            Some(format) => Ok(Some(format)),
            None => {
                Err(Error::invalid(format!("the format {name:?} is not known: use jsonl, json, csv or tsv")))
            }
        },
    }
}
