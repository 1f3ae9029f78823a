//! Reloads the configuration when its file or the `.env` file beside it changes.
//!
//! The folder is watched instead of the file, because editors and configuration managers replace the file. Some write it in
//! several steps, so the reload waits until it has not changed for a moment. The file is also read at intervals: a fault may
//! end without a change of the file, such as when the file of a key is back, and not every file system reports changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::file_content;
use crate::types::Fingerprint;

use super::daemon::{Stopping, WeakDaemon};

/// How long the file has to be unchanged before it is loaded.
const SETTLE_TIME: Duration = Duration::from_millis(300);

/// How often the file is read without a reported change, and a configuration that was faulty is loaded again.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Watches the file of the configuration until the daemon stops. It is logged if the system cannot watch it.
pub(super) async fn watch(daemon: WeakDaemon, mut stopping: Stopping, file: PathBuf) {
    let (changes_tx, mut changes) = mpsc::channel(1);
    // Held, so that the channel stays open without a watcher.
    let reported_tx = changes_tx.clone();
    let watched = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // A full channel has a change that is not handled yet.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = reported_tx.try_send(());
        }
    });
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watcher = watched.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    if let Err(error) = &watcher {
        tracing::warn!(%error, file = %file.display(), "the configuration file cannot be watched; it is read every ten seconds");
    }
    // The first tick is at once: the file may have changed since it was loaded.
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_poll = tokio::select! {
            _ = changes.recv() => false,
            _ = polls.tick() => true,
            () = stopping.stopped() => break,
        };
        let now = settled(&file).await;
        let Some(daemon) = daemon.upgrade() else { break };
        let is_changed = now != daemon.loaded_file();
        // A file that is missing may be about to be replaced. The next poll finds one that stays missing.
        if is_changed && (now.is_some() || is_poll) {
            // The error is logged and shown by the reload.
            drop(daemon.reload("a change of the file").await);
        } else if is_poll && daemon.reload_fault().is_some() {
            daemon.retry_reload().await;
        }
    }
    drop(changes_tx);
}

/// Returns the content of a file when it has not changed for a moment. Only its own changes count: the database may be in the
/// same folder.
async fn settled(file: &Path) -> Option<Fingerprint> {
    let mut content = file_content(file);
    loop {
        sleep(SETTLE_TIME).await;
        let next = file_content(file);
        if next == content {
            return content;
        }
        content = next;
    }
}
