//! Reads the files of keys anew, so that one that is replaced needs no restart.
//!
//! Never on an arbiter: a disk may hang. Never logs what it reads.

use std::error::Error as _;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use crate::types::{KeyLabel, Secret};

use super::actor::Released;
use super::key_error::KeyError;
use super::keys::Renewed;
use super::state::State;

/// What the file of a key held.
type ReadFile = (KeyLabel, Result<Option<Secret>, KeyError>);

impl State {
    /// Reads the key files that are due, on a thread that may wait for a disk.
    pub(super) fn read_key_files(self: &Arc<Self>, now: Instant) {
        let Ok(reader) = self.reader.clone().try_acquire_owned() else { return };
        let files = self.lock().keys.files_to_read(now);
        if files.is_empty() {
            return;
        }
        let state = self.clone();
        drop(self.runtime().spawn_blocking(move || {
            let began = Instant::now();
            let read = files.into_iter().map(|(label, file)| (label, file.read(&|_| None)));
            let read: Vec<_> = read.collect();
            drop(reader);
            state.renew_keys(read, began);
        }));
    }

    fn renew_keys(self: &Arc<Self>, read: Vec<ReadFile>, began: Instant) {
        let now = Instant::now();
        let health = self.health(now);
        for (key, read) in read {
            let renewed = self.lock().keys.renew(&key, read, began);
            self.tell(&key, renewed);
        }
        let inner = self.lock();
        let (doubtful, waiting) = (inner.keys.are_in_doubt(now), !inner.queue.is_empty());
        drop(inner);
        // Something was refused while its file was read.
        if doubtful {
            self.read_key_files(now);
        }
        let health_changed = self.health(now) != health;
        if (waiting || health_changed)
            && let Some(actor) = self.slot().shared()
        {
            actor.do_send(Released { health_changed });
        }
    }

    fn tell(&self, key: &KeyLabel, renewed: Renewed) {
        let provider = self.name();
        match renewed {
            Renewed::Not => {}
            Renewed::Changed => info!(%provider, %key, "key file has changed, using the new key"),
            Renewed::Unreadable(error) => {
                let cause = error.source().map(ToString::to_string);
                let advice = error.advice();
                warn!(%provider, %key, %error, cause, advice, "key file gives no key, keeping the old one");
            }
        }
    }
}
