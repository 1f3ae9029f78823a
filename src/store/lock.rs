//! Lets one process at a time work on a run.
//!
//! A lock of the operating system on a file beside the database: it goes with the process, however that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::run::RunNumber;

/// The right to work on a run, for as long as it lives.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    path: PathBuf,
}

impl RunLock {
    /// Takes the right to work on `run` of the database at `database`.
    ///
    /// # Errors
    /// [`Error::Busy`] when somebody has it; [`Error::Open`] when no file can be made beside the database.
    pub(super) fn take(database: &Path, run: RunNumber) -> Result<Self, Error> {
        let path = beside(database, run);
        loop {
            let mut file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Busy { run, who: who(&mut file) }),
                Err(TryLockError::Error(error)) => return Err(not_open(&path, &error)),
            }
            // Whoever held it last may have removed the file between our opening and our lock: then others
            // would make and lock a new one.
            if matches!(open(&path)?.try_lock(), Ok(())) {
                continue;
            }
            let note = format!("process {}", std::process::id());
            // Who holds it is only for people: the lock itself is what counts.
            let _ =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
            return Ok(Self { file, path });
        }
    }

    /// Returns whether anybody works on `run`.
    pub(super) fn is_taken(database: &Path, run: RunNumber) -> bool {
        let file = OpenOptions::new().read(true).write(true).open(beside(database, run));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // While it is still held, so that nobody else's file is removed. One that stays behind harms nobody.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn beside(database: &Path, run: RunNumber) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(format!("-run{run}.lock"));
    PathBuf::from(name)
}

fn open(path: &Path) -> Result<File, Error> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    options.map_err(|error| not_open(path, &error))
}

fn not_open(path: &Path, error: &std::io::Error) -> Error {
    Error::Open { path: path.to_owned(), why: format!("{error}: is its directory there, and writable?") }
}

fn who(file: &mut File) -> String {
    let mut note = String::new();
    match file.read_to_string(&mut note) {
        Ok(_) if !note.is_empty() => note,
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_by_name_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let first = RunLock::take(&database, RunNumber(3)).unwrap();
        assert!(RunLock::is_taken(&database, RunNumber(3)) && !RunLock::is_taken(&database, RunNumber(4)));
        let refused = RunLock::take(&database, RunNumber(3)).unwrap_err().to_string();
        let process = format!("run 3 is being worked on by process {}:", std::process::id());
        assert!(refused.starts_with(&process), "{refused}");
        let _other = RunLock::take(&database, RunNumber(4)).unwrap();
        drop(first);
        assert!(!RunLock::is_taken(&database, RunNumber(3)));
        let _again = RunLock::take(&database, RunNumber(3)).unwrap();
    }

    #[test]
    fn of_many_who_come_and_go_one_at_a_time_has_it() {
        use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let (inside, had) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(_lock) = RunLock::take(&database, RunNumber(1)) {
                            assert_eq!(inside.fetch_add(1, SeqCst), 0, "two at once");
                            had.fetch_add(1, SeqCst);
                            inside.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert!(had.load(SeqCst) > 0);
    }
}
