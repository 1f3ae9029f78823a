//! Reloads the configuration when its file changes.
//!
//! The folder is watched instead of the file, because editors and configuration managers replace the file. Some write it in
//! several steps, so the reload waits until it has not changed for a moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::types::Fingerprint;

use super::daemon::{Stopping, WeakDaemon};

/// How long the file has to be unchanged before it is loaded.
const SETTLE_TIME: Duration = Duration::from_millis(300);

/// Watches the file of the configuration until the daemon stops. It is logged if the system cannot watch it.
pub(super) async fn watch(daemon: WeakDaemon, mut stopping: Stopping, file: PathBuf) {
    let (changes_tx, mut changes) = mpsc::channel(1);
    let watched = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // A full channel has a change that is not handled yet.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _ = changes_tx.try_send(());
        }
    });
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watcher = watched.and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    let _watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "the configuration file cannot be watched; reload it by SIGHUP");
            return;
        }
    };
    let mut known = content(&file);
    loop {
        tokio::select! {
            changed = changes.recv() => if changed.is_none() { return },
            () = stopping.stopped() => return,
        }
        while let Ok(Some(())) = timeout(SETTLE_TIME, changes.recv()).await {}
        let now = content(&file);
        // Removed for a moment, or another file of the folder.
        if now.is_none() || now == known {
            continue;
        }
        known = now;
        let Some(daemon) = daemon.upgrade() else { return };
        // The error is logged and shown by the reload.
        drop(daemon.reload("a change of the file").await);
    }
}

fn content(file: &Path) -> Option<Fingerprint> {
    std::fs::read(file).ok().map(|bytes| Fingerprint::of([bytes.as_slice()]))
}
