//! The handle to a daemon: what all its parts share.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::runtime::Pointsman;
use crate::runtime::request_spending::RequestSpending;
use crate::store::Store;
use crate::types::Fingerprint;

use super::browser_sessions::BrowserSessions;
use super::catalogue::{
    Catalogue, Expected, LoadedPipeline, PipelineCheck, PipelineEntry, PipelineVersion, StoredPipeline,
};
use super::data_folder::DataFolder;
use super::error::Error;
use super::events::{EventKind, EventLog};
use super::history_samples::HistorySamples;
use super::idempotency_keys::IdempotencyKeys;
use super::load_config::LoadConfig;
use super::open_runs::OpenRuns;
use super::overview_view::OverviewCache;
use super::process_lock::ProcessLock;
use super::progress_feeds::ProgressFeeds;
use super::readiness::LastReadiness;
use super::shared_runs::SharedRuns;
use super::token_index::TokenIndex;
use super::token_store::TokenStore;

/// The handle to a daemon. It is cheap to clone.
///
/// Runs that an earlier process left are resumed in the background.
#[derive(Debug, Clone)]
pub struct Daemon {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pointsman: Pointsman,
    store: Arc<dyn Store>,
    data: DataFolder,
    catalogue: Catalogue,
    open_runs: OpenRuns,
    shared_runs: SharedRuns,
    events: EventLog,
    feeds: ProgressFeeds,
    tokens: TokenIndex,
    idempotency_keys: IdempotencyKeys,
    request_spending: RequestSpending,
    browser_sessions: BrowserSessions,
    history_samples: HistorySamples,
    overview_cache: OverviewCache,
    /// Whether the upkeep has ended. Held while it works.
    upkeep_ended: Arc<tokio::sync::Mutex<bool>>,
    load_config: ConfigLoader,
    reloading: tokio::sync::Mutex<()>,
    reload_fault: Mutex<Option<String>>,
    /// The content of the configuration file at the last reload; `None` if it could not be read.
    loaded_file: Mutex<Option<Fingerprint>>,
    last_readiness: LastReadiness,
    /// Whether runs were deleted since the file of the store was made smaller.
    shrink_due: AtomicBool,
    started: Instant,
    stopping: watch::Sender<bool>,
    _lock: Option<ProcessLock>,
}

/// What a daemon is created from.
pub(super) struct Parts {
    pub(super) pointsman: Pointsman,
    pub(super) store: Arc<dyn Store>,
    pub(super) data: DataFolder,
    pub(super) catalogue: Catalogue,
    pub(super) load_config: LoadConfig,
    pub(super) lock: Option<ProcessLock>,
}

/// A daemon that does not keep it running, for tasks that last as long as it does.
#[derive(Debug, Clone)]
pub(super) struct WeakDaemon(Weak<Inner>);

impl WeakDaemon {
    /// Returns the daemon; `None` if its last handle was dropped.
    pub(super) fn upgrade(&self) -> Option<Daemon> {
        self.0.upgrade().map(|inner| Daemon { inner })
    }
}

/// What loads the configuration again.
struct ConfigLoader(LoadConfig);

impl fmt::Debug for ConfigLoader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ConfigLoader")
    }
}

/// Waits until a daemon stops.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns when the daemon stops and takes no more work.
    pub async fn stopped(&mut self) {
        // An error means that the daemon is gone.
        let _ = self.0.wait_for(|is_stopping| *is_stopping).await;
    }
}

impl Daemon {
    /// Creates a daemon that does nothing yet.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { pointsman, store, data, catalogue, load_config, lock } = parts;
        // What the process has loaded, and not what the file has become since.
        let loaded_file = pointsman.config().file_content();
        let tokens = TokenIndex::new(TokenStore::new(store.clone()));
        let idempotency_keys = IdempotencyKeys::new(store.clone());
        let request_spending = RequestSpending::new(store.clone());
        let inner = Inner {
            pointsman,
            store,
            data,
            catalogue,
            open_runs: OpenRuns::default(),
            shared_runs: SharedRuns::default(),
            events: EventLog::new(),
            feeds: ProgressFeeds::default(),
            tokens,
            idempotency_keys,
            request_spending,
            upkeep_ended: Arc::default(),
            load_config: ConfigLoader(load_config),
            reloading: tokio::sync::Mutex::new(()),
            reload_fault: Mutex::new(None),
            loaded_file: Mutex::new(loaded_file),
            browser_sessions: BrowserSessions::default(),
            history_samples: HistorySamples::default(),
            overview_cache: OverviewCache::default(),
            last_readiness: LastReadiness::default(),
            shrink_due: AtomicBool::new(false),
            started: Instant::now(),
            stopping: watch::Sender::new(false),
            _lock: lock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the handle to the router, the providers and the runs.
    pub fn pointsman(&self) -> &Pointsman {
        &self.inner.pointsman
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// Returns the folder with its files.
    pub fn data(&self) -> &DataFolder {
        &self.inner.data
    }

    /// Returns what has happened lately.
    pub fn events(&self) -> &EventLog {
        &self.inner.events
    }

    /// Returns the present configuration.
    pub fn config(&self) -> Arc<Config> {
        self.inner.pointsman.config()
    }

    /// Returns how long it has run.
    pub fn uptime(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// Returns whether it stops and takes no more work.
    pub fn is_stopping(&self) -> bool {
        *self.inner.stopping.borrow()
    }

    /// Returns what waits until the daemon stops.
    pub fn stopping(&self) -> Stopping {
        Stopping(self.inner.stopping.subscribe())
    }

    /// Returns why the last reload was refused; `None` if it was applied.
    pub fn reload_fault(&self) -> Option<String> {
        self.inner.reload_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_reload_fault(&self, fault: Option<String>) {
        self.inner.pointsman.set_configuration_faulty(fault.is_some());
        *self.inner.reload_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Returns the content of the configuration file at the last reload; `None` if it could not be read.
    pub(super) fn loaded_file(&self) -> Option<Fingerprint> {
        *self.inner.loaded_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_loaded_file(&self, content: Option<Fingerprint>) {
        *self.inner.loaded_file.lock().unwrap_or_else(PoisonError::into_inner) = content;
    }

    pub(super) fn reloading(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.reloading
    }

    pub(super) fn load_config(&self) -> Result<Config, Diagnostics> {
        (self.inner.load_config.0)()
    }

    pub(super) fn downgrade(&self) -> WeakDaemon {
        WeakDaemon(Arc::downgrade(&self.inner))
    }

    /// Takes no more work from now on. Returns whether it did before.
    pub(super) fn stop_taking_work(&self) -> bool {
        self.inner.stopping.send_replace(true)
    }

    /// Returns all pipelines, without their texts.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn pipelines(&self) -> Result<Vec<PipelineEntry>, Error> {
        self.catalogue().entries(self.pointsman(), &self.config()).await
    }

    /// Returns a pipeline with its text.
    ///
    /// # Errors
    /// If there is none.
    pub async fn pipeline(&self, name: &str) -> Result<PipelineEntry, Error> {
        self.catalogue().get(self.pointsman(), &self.config(), name).await
    }

    /// Checks the text of a pipeline under the present configuration.
    ///
    /// # Errors
    /// If too many texts are being read, or the daemon stops.
    pub async fn check_pipeline(&self, text: &str) -> Result<PipelineCheck, Error> {
        self.catalogue().check(self.pointsman(), text).await
    }

    /// Stores a version of a pipeline, which runs from now on use. `by` is who does it.
    ///
    /// # Errors
    /// If the text has problems, the name belongs to a file, or the pipeline is not what is expected.
    pub async fn put_pipeline(
        &self,
        name: &str,
        text: &str,
        by: &str,
        expected: Expected,
    ) -> Result<StoredPipeline, Error> {
        self.check_running()?;
        let stored =
            self.catalogue().put(self.pointsman(), &self.config(), (name, text), by, expected).await?;
        self.events().record(EventKind::PipelineChanged, None, json!({ "pipeline": name, "by": by }));
        Ok(stored)
    }

    /// Deletes a stored pipeline. Its runs and versions stay.
    ///
    /// # Errors
    /// If there is none, or it comes from a file.
    pub async fn delete_pipeline(&self, name: &str, by: &str) -> Result<(), Error> {
        self.check_running()?;
        self.catalogue().delete(self.pointsman(), &self.config(), name, by).await?;
        self.events().record(EventKind::PipelineChanged, None, json!({ "pipeline": name, "by": by }));
        Ok(())
    }

    /// Returns the versions of a stored pipeline, the newest first, without their texts.
    ///
    /// # Errors
    /// If there is none.
    pub async fn pipeline_versions(&self, name: &str) -> Result<Vec<PipelineVersion>, Error> {
        self.catalogue().versions(name).await
    }

    /// Returns a version of a stored pipeline, with its text.
    ///
    /// # Errors
    /// If there is none.
    pub async fn pipeline_version(&self, name: &str, version: i64) -> Result<PipelineVersion, Error> {
        self.catalogue().version(name, version).await
    }

    pub(super) async fn load_pipeline(&self, name: &str) -> Result<LoadedPipeline, Error> {
        self.catalogue().load(self.pointsman(), &self.config(), name).await
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    pub(super) fn shared_runs(&self) -> &SharedRuns {
        &self.inner.shared_runs
    }

    pub(super) fn token_index(&self) -> &TokenIndex {
        &self.inner.tokens
    }

    pub(super) fn idempotency_keys(&self) -> &IdempotencyKeys {
        &self.inner.idempotency_keys
    }

    pub(super) fn browser_sessions(&self) -> &BrowserSessions {
        &self.inner.browser_sessions
    }

    pub(super) fn history_samples(&self) -> &HistorySamples {
        &self.inner.history_samples
    }

    pub(super) fn overview_cache(&self) -> &OverviewCache {
        &self.inner.overview_cache
    }

    pub(super) fn upkeep_ended(&self) -> &Arc<tokio::sync::Mutex<bool>> {
        &self.inner.upkeep_ended
    }

    pub(super) fn request_spending(&self) -> &RequestSpending {
        &self.inner.request_spending
    }

    pub(super) fn feeds(&self) -> &ProgressFeeds {
        &self.inner.feeds
    }

    pub(super) fn last_readiness(&self) -> &LastReadiness {
        &self.inner.last_readiness
    }

    pub(super) fn shrink_due(&self) -> &AtomicBool {
        &self.inner.shrink_due
    }

    pub(super) fn open_runs(&self) -> &OpenRuns {
        &self.inner.open_runs
    }

    /// Does work to its end, also if its caller goes away meanwhile.
    pub(super) async fn uninterrupted<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.pointsman().runtime().spawn(work).await.unwrap_or_else(|error| Err(Error::ended_early(error)))
    }

    /// Does work that may block.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.pointsman().runtime().spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(Error::ended_early(error)))
    }

    /// Refuses new work while the daemon stops.
    pub(super) fn check_running(&self) -> Result<(), Error> {
        if self.is_stopping() { Err(Error::Stopping) } else { Ok(()) }
    }
}
