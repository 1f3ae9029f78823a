//! Reads key files again, so that a replaced key needs no restart.
//!
//! Never on an arbiter, because a disk may hang. Never logs file contents.

use std::error::Error as _;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::types::{KeyLabel, Secret};

use super::key_error::KeyError;
use super::key_set::ReloadOutcome;
use crate::provider::state::State;

/// The contents of a key file, with the label of the key.
type ReadFile = (KeyLabel, Result<Option<Secret>, KeyError>);

impl State {
    /// Reads the key files that are due, on a thread that may block.
    pub(in crate::provider) fn read_key_files(self: &Arc<Self>, now: Instant) {
        let Ok(permit) = self.key_file_reader.clone().try_acquire_owned() else { return };
        let files = self.lock().keys.files_to_read(now);
        if files.is_empty() {
            return;
        }
        let state = self.clone();
        drop(self.runtime().spawn_blocking(move || {
            let began = Instant::now();
            let read = files.into_iter().map(|(label, file)| (label, file.read(&|_| None)));
            let read: Vec<_> = read.collect();
            drop(permit);
            state.apply_files(read, began);
        }));
    }

    fn apply_files(self: &Arc<Self>, read: Vec<ReadFile>, began: Instant) {
        let now = Instant::now();
        let health = self.health(now);
        for (key, read) in read {
            let outcome = self.lock().keys.apply_file(&key, read, began);
            self.log_outcome(&key, outcome);
        }
        let inner = self.lock();
        let needs_recheck = inner.keys.needs_recheck(now);
        let has_queued_calls = !inner.queue.is_empty();
        drop(inner);
        // A key was refused while its file was read.
        if needs_recheck {
            self.read_key_files(now);
        }
        let health_changed = self.health(now) != health;
        if has_queued_calls || health_changed {
            self.notify_actor(health_changed);
        }
    }

    fn log_outcome(&self, key: &KeyLabel, outcome: ReloadOutcome) {
        let provider = self.name();
        match outcome {
            ReloadOutcome::Unchanged => {}
            ReloadOutcome::Replaced => info!(%provider, %key, "key file changed, using the new key"),
            ReloadOutcome::Unreadable(error) => {
                let cause = error.source().map(ToString::to_string);
                let advice = error.advice();
                warn!(%provider, %key, %error, cause, advice, "no key in the key file, keeping the old key");
            }
        }
    }
}
