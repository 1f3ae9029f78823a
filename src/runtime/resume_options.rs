//! Options of a stored run: its store, its identity, and which of its items are processed.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::pipeline::CacheMode;
use crate::store::{CacheLimits, RunNumber, Store};
use crate::types::{Class, ScopeName};

use super::budgets::MaxCost;
use super::pause_options::PauseOptions;

/// The options of a stored run.
///
/// ```no_run
/// # async fn example(
/// #     pointsman: pointsman::Pointsman, pipeline: pointsman::Pipeline, source: pointsman::Source,
/// #     output: pointsman::RunOutput,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use pointsman::{NanoUsd, ResumeOptions, Sqlite};
///
/// let store = Arc::new(Sqlite::open(Path::new("runs.db")).await?);
/// let options = ResumeOptions::new(store, "tickets.toml on tickets.jsonl")
///     .with_max_cost(NanoUsd(5_000_000_000)) // $5.00
///     .with_accept_changes(true);
/// let prepared = pointsman.prepare_run(&pipeline, options).await?;
/// let mut run = pointsman.run_stored(pipeline, source, output, prepared).await?;
/// println!("{:?}", run.report().await?.outcome);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ResumeOptions {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The identity of the run, which is the same for every start, such as the paths of its pipeline and items.
    /// The latest run of this identity is resumed, unless it was cancelled; without one a new run begins. A
    /// simulated run is never resumed with real answers, nor the other way round.
    pub identity: String,
    /// The run to resume, regardless of its identity. It must exist.
    pub run: Option<RunNumber>,
    /// Whether the resumed `run` gets this `identity`, because its files were moved.
    pub move_identity: bool,
    /// The paths and formats of its files. They are stored for the commands that list or resume runs.
    pub command: Value,
    /// The files that it reads and writes. While they are unchanged after the run has completed, it is up to date.
    pub files: Vec<PathBuf>,
    /// Whether the run is resumed although its pipeline, models or prices have changed.
    pub accept_changes: bool,
    /// Whether a new run begins although one of this identity exists.
    pub force_new: bool,
    /// Whether the source has only some of the run's items. Such a session does not complete the run.
    pub partial: bool,
    /// Processes only failed items of these classes, or of all classes if the list is empty; every other item
    /// keeps its line. `None` processes the items that have not finished, and leaves failed items as they are.
    pub retry: Option<Vec<Class>>,
    /// Whether the fields of every item are stored; otherwise only those of failed items.
    pub keep_inputs: bool,
    /// The most that all sessions of the run together may spend. It is stored with the run and applies to later
    /// sessions until another is set. `None` keeps the last one; if none was ever set, `[budget] run` applies.
    pub max_cost: Option<MaxCost>,
    /// When the run pauses.
    pub pause: PauseOptions,
    /// The scope of the run's requests; empty for none. It is stored with the run and applies to later sessions until
    /// another is set. `None` keeps the last one.
    pub scope: Option<ScopeName>,
    /// Which stored answers are reused instead of sending a request. With `force_new` and `retry`, no answer of another item
    /// or run is reused.
    pub cache: CacheMode,
    /// What the answer cache of the store may contain when a session ends.
    pub cache_limits: CacheLimits,
}

impl ResumeOptions {
    /// Stores the run of this identity in `store`, or resumes it if nothing has changed.
    ///
    /// A run that reaches its cap pauses: it takes no more items, lets the calls in flight end, and reports
    /// [`RunOutcome::Paused`](crate::run::RunOutcome::Paused). The same call with a higher cap resumes it.
    pub fn new(store: Arc<dyn Store>, identity: impl Into<String>) -> Self {
        Self {
            store,
            identity: identity.into(),
            run: None,
            move_identity: false,
            command: Value::Null,
            files: Vec::new(),
            accept_changes: false,
            force_new: false,
            partial: false,
            retry: None,
            keep_inputs: true,
            max_cost: None,
            pause: PauseOptions::default(),
            scope: None,
            cache: CacheMode::Auto,
            cache_limits: CacheLimits::default(),
        }
    }

    /// Sets the identity of the run.
    #[must_use]
    pub fn with_identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = identity.into();
        self
    }

    /// Sets the run to resume, regardless of its identity. It must exist.
    #[must_use]
    pub fn with_run(mut self, run: RunNumber) -> Self {
        self.run = Some(run);
        self
    }

    /// Sets whether the resumed run gets the identity of these options, because its files were moved.
    #[must_use]
    pub fn with_move_identity(mut self, move_identity: bool) -> Self {
        self.move_identity = move_identity;
        self
    }

    /// Sets what is stored for the commands that list or resume runs.
    #[must_use]
    pub fn with_command(mut self, command: Value) -> Self {
        self.command = command;
        self
    }

    /// Sets the files that the run reads and writes.
    #[must_use]
    pub fn with_files(mut self, files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.files = files.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether the run is resumed although its pipeline, models or prices have changed.
    #[must_use]
    pub fn with_accept_changes(mut self, accept_changes: bool) -> Self {
        self.accept_changes = accept_changes;
        self
    }

    /// Sets whether a new run begins although one of this identity exists.
    #[must_use]
    pub fn with_force_new(mut self, force_new: bool) -> Self {
        self.force_new = force_new;
        self
    }

    /// Sets whether the source has only some of the run's items.
    #[must_use]
    pub fn with_partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }

    /// Processes only failed items of these classes, or of all classes if there are none.
    #[must_use]
    pub fn with_retry(mut self, classes: impl IntoIterator<Item = Class>) -> Self {
        self.retry = Some(classes.into_iter().collect());
        self
    }

    /// Sets whether the fields of every item are stored, or only those of failed items.
    #[must_use]
    pub fn with_keep_inputs(mut self, keep_inputs: bool) -> Self {
        self.keep_inputs = keep_inputs;
        self
    }

    /// Sets the most that all sessions of the run together may spend.
    #[must_use]
    pub fn with_max_cost(mut self, max_cost: impl Into<MaxCost>) -> Self {
        self.max_cost = Some(max_cost.into());
        self
    }

    /// Sets when the run pauses.
    #[must_use]
    pub fn with_pause(mut self, pause: PauseOptions) -> Self {
        self.pause = pause;
        self
    }

    /// Sets which stored answers are reused instead of sending a request.
    #[must_use]
    pub fn with_cache(mut self, cache: CacheMode) -> Self {
        self.cache = cache;
        self
    }

    /// Sets what the answer cache of the store may contain when a session ends.
    #[must_use]
    pub fn with_cache_limits(mut self, limits: CacheLimits) -> Self {
        self.cache_limits = limits;
        self
    }

    /// Sets the scope of the run's requests, as [`RunOptions::with_scope`](super::RunOptions::with_scope) does, in this
    /// session and in later ones. The empty name removes the scope of earlier sessions.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<ScopeName>) -> Self {
        self.scope = Some(scope.into());
        self
    }
}
