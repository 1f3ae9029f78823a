//! The lock of a daemon: one process at a time uses a store and a data folder.
//!
//! It is a lock of the operating system, so it ends with the process in every case.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::files;

use super::error::Error;

/// The lock of a process. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Takes the lock in the file at `path`, which stays. `what` it protects and the `address` of this process are in the
    /// error of the next process.
    ///
    /// # Errors
    /// If another process holds it, or the file cannot be used.
    pub(super) fn take(path: &Path, what: &str, address: &str) -> Result<Self, Error> {
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
                    "another daemon uses this {what}: {who}. Stop it first, or set another file in [store] url"
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
