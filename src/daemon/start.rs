//! Starts and stops a daemon.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::clock;
use crate::config::Config;
use crate::files;
use crate::runtime::{Pointsman, served_pipelines};
use crate::store::{DocumentKind, ExpectedVersion, Store, StoreUrl};
use crate::supervisor::Drained;

use super::catalogue::Catalogue;
use super::daemon::{Daemon, Parts};
use super::data_folder::DataFolder;
use super::error::Error;
use super::events::EventKind;
use super::load_config::LoadConfig;
use super::process_lock::{ProcessLock, Protected};
use super::{config_watcher, monitor};

/// How long a drain waits for the log lines of the sessions that it has ended. The store may not answer.
const MAX_LOG_WAIT: Duration = Duration::from_secs(2);

impl Daemon {
    /// Starts the daemon of `pointsman`, with the store and the folder that its configuration names. `load_config` loads the
    /// configuration again when it is reloaded.
    ///
    /// # Errors
    /// If another daemon uses the store, the store or the folder cannot be used, or a pipeline file is faulty.
    pub async fn start(pointsman: Pointsman, load_config: LoadConfig) -> Result<Self, Error> {
        let config = pointsman.config();
        let url = config.store.url.clone();
        let Some(folder) = config.serve.data_folder(&url).filter(|_| url != StoreUrl::None) else {
            return Err(Error::invalid(
                "a daemon needs a store: set url = \"sqlite:FILE\" in [store] of the configuration",
            ));
        };
        // A file that becomes faulty later does not stop the daemon: the readiness shows it.
        served_pipelines(&config)?;
        if let Some(file) = url.path().filter(|file| files::has_hard_links(file)) {
            return Err(Error::invalid(format!(
                "the file {} of the store has another name, a hard link: remove one of the two, because a process that opens \
                 the other name would damage the store",
                file.display()
            )));
        }
        let address = config.serve.listen.to_string();
        // Before the database is opened, so that the second daemon is refused before it changes anything.
        let lock = url
            .path()
            .map(|path| ProcessLock::take(&lock_file(path), Protected::Store, &address))
            .transpose()?;
        let data = DataFolder::open(&folder, &address)?;
        let opened = {
            let url: StoreUrl = url.clone();
            pointsman.work(async move { url.open().await }).await.map_err(Error::from)?
        };
        let Some(store) = opened? else {
            return Err(Error::invalid("a daemon needs a store"));
        };
        check_folder(&*store, &data).await?;
        let directory = data.path().join("pipelines");
        std::fs::create_dir_all(&directory).map_err(Error::io("create the folder of pipelines"))?;
        let catalogue = Catalogue::new(store.clone(), directory);
        let daemon = Self::new(Parts { pointsman, store, data, catalogue, load_config, lock });
        // Before any request, so that none goes past a limit.
        let loading = daemon.clone();
        daemon.pointsman().work(async move { loading.load_limits().await }).await.map_err(Error::from)??;
        daemon.start_upkeep();
        let resuming = daemon.clone();
        let runtime = daemon.pointsman().runtime().clone();
        let start = SystemTime::now();
        drop(runtime.spawn(async move {
            resuming.remove_unknown_files(start).await;
            resuming.resume_interrupted().await;
        }));
        drop(runtime.spawn(monitor::watch(daemon.downgrade(), daemon.stopping())));
        if let Some(file) = config.file() {
            drop(runtime.spawn(config_watcher::watch(
                daemon.downgrade(),
                daemon.stopping(),
                file.to_owned(),
            )));
        }
        Ok(daemon)
    }

    /// Refuses a configuration whose store another daemon uses. [`start`](Self::start) does so too; this changes nothing.
    ///
    /// # Errors
    /// If another daemon uses it.
    pub fn check_unused(config: &Config) -> Result<(), Error> {
        let Some(file) = config.store.url.path().map(lock_file).filter(|file| file.exists()) else {
            return Ok(());
        };
        ProcessLock::take(&file, Protected::Store, &config.serve.listen.to_string()).map(drop)
    }

    /// Takes no more work, lets what is in flight end within this time, and stops. Runs that have not ended are resumed
    /// at the next start.
    pub async fn drain(&self, within: Duration) -> Drained {
        // First, so that watchers get it before their streams end.
        if !self.is_stopping() {
            self.events().record(EventKind::Stopping, None, json!({ "seconds": within.as_secs_f64() }));
        }
        self.stop_taking_work();
        // Their runs end by themselves when nothing is in flight.
        self.shared_runs().close();
        let before = self.cancelled_attempts();
        let drained = self.pointsman().drain(within).await;
        let aborted = self.cancelled_attempts().saturating_sub(before);
        match aborted {
            0 => tracing::debug!("drain ended: no attempt was aborted"),
            _ => tracing::info!(aborted, "drain ended: attempts were aborted, and may have been charged"),
        }
        // The sessions have ended. Their log lines follow as soon as the store has been read.
        if timeout(MAX_LOG_WAIT, self.open_runs().all_ended()).await.is_err() {
            tracing::warn!("the end of some runs was not logged in time");
        }
        self.end_upkeep().await;
        drained
    }

    /// Reads what was spent today, and the limits of tokens.
    async fn load_limits(&self) -> Result<(), Error> {
        self.pointsman().sync_budgets(&**self.store()).await?;
        self.load_tokens().await
    }
}

/// Returns the lock file of the daemon of a store.
fn lock_file(store: &Path) -> PathBuf {
    // One lock, whatever link leads to the store.
    let real = store.canonicalize().unwrap_or_else(|_| store.to_owned());
    let mut name = real.into_os_string();
    name.push("-daemon.lock");
    PathBuf::from(name)
}

/// Refuses a folder with the files of another store: files whose run is not in the store are removed.
async fn check_folder(store: &dyn Store, data: &DataFolder) -> Result<(), Error> {
    let found = store.document(DocumentKind::DataFolder, "data", clock::milliseconds()).await?;
    let known = found.as_ref().and_then(|found| found.value.get("id")).and_then(Value::as_str);
    match known {
        Some(known) if known == data.id() => return Ok(()),
        // A new folder has no files.
        _ if data.is_new() => {}
        _ => {
            return Err(Error::conflict(format!(
                "the folder {} belongs to another store: set `data` in [serve] to the folder of this store, or to a new one",
                data.path().display()
            )));
        }
    }
    let value = json!({ "id": data.id() });
    let kind = DocumentKind::DataFolder;
    store.replace_document(kind, "data", &value, "", None, ExpectedVersion::Any).await?;
    Ok(())
}
