//! The lock of a daemon: one process at a time uses a store and a data folder.
//!
//! It is a lock of the operating system, so it ends with the process in every case.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::files;

use super::error::Error;

/// What a lock protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protected {
    Store,
    DataFolder,
}

impl Protected {
    fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::DataFolder => "data folder",
        }
    }

    /// Returns what a second daemon needs.
    fn advice(self) -> &'static str {
        match self {
            Self::Store => "set another file in `url` of [store]",
            Self::DataFolder => "set another folder in `data` of [serve]",
        }
    }
}

/// The lock of a process. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Takes the lock in the file at `path`, which stays. What is `protected` and the `address` of this process are in the
    /// error of the next process.
    ///
    /// # Errors
    /// If another process holds it, or the file cannot be used.
    pub(super) fn take(path: &Path, protected: Protected, address: &str) -> Result<Self, Error> {
        let mut options = files::owner_only_options();
        options.read(true).write(true).create(true).truncate(false);
        let opened = files::open_unlinked(path, options);
        let mut file = opened.map_err(Error::io(format!("open {}", path.display())))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut who = String::new();
                let is_named = file.read_to_string(&mut who).is_ok() && !who.is_empty();
                let who = if is_named { who } else { "another process".to_owned() };
                return Err(Error::conflict(format!(
                    "another daemon uses this {}: {who}. Stop it first, or {}",
                    protected.name(),
                    protected.advice()
                )));
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(format!("lock {}", path.display()))(error));
            }
        }
        // Only for the message above.
        let note = format!("process {} on {address}", std::process::id());
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
        Ok(Self { _file: file })
    }
}
