//! The lock of a run: one process at a time may work on it.
//!
//! It is a lock of the operating system on a file beside the database, so it ends with the process in every case. The
//! holder removes the file. If another process opens the file before the removal and locks it afterwards, that file has
//! no name any more. Therefore a lock counts only while its file is the one at the path.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::run::RunNumber;
use crate::files::{self, FileId};

/// Interval between attempts on a locked file. [`RunLock::is_taken`] also locks it for an instant.
const TRIES: u32 = 100;

/// The lock of a run. Dropping it releases the lock.
#[derive(Debug)]
pub struct RunLock {
    file: File,
    path: PathBuf,
}

/// The result of an attempt to lock a file.
enum Tried {
    /// The file is locked, and it is the run's lock file.
    Locked(RunLock),
    /// Another process holds the lock.
    Busy(File),
    /// The file was removed after it was opened.
    Removed,
}

impl RunLock {
    /// Takes the lock of `run` in the database at `database`.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process holds it; [`Error::Lock`] if the lock file cannot be created, or is a link.
    pub(super) fn take(database: &Path, run: RunNumber) -> Result<Self, Error> {
        let path = beside(database, run);
        let mut tries = 0;
        loop {
            let file = open(&path, true).map_err(|error| not_open(&path, &error))?;
            match try_lock(file, &path).map_err(|error| not_open(&path, &error))? {
                Tried::Locked(mut lock) => {
                    lock.note_holder();
                    return Ok(lock);
                }
                Tried::Removed => {}
                Tried::Busy(_) if tries < TRIES => {
                    tries += 1;
                    std::thread::yield_now();
                }
                Tried::Busy(mut file) => return Err(Error::Busy { run, who: holder(&mut file) }),
            }
        }
    }

    /// Returns the lock file of `run`.
    pub(super) fn file(database: &Path, run: RunNumber) -> PathBuf {
        beside(database, run)
    }

    /// Returns whether a process holds the lock of `run`.
    pub(super) fn is_taken(database: &Path, run: RunNumber) -> bool {
        let file = open(&beside(database, run), false);
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Writes the holder into the file, only for the message of [`Error::Busy`]. A failure has no effect.
    fn note_holder(&mut self) {
        let note = format!("process {}", std::process::id());
        let file = &mut self.file;
        let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes()));
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Removed while it is locked, so that the file at the path is this one. If it stays, the next holder uses it.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

/// Locks `file`, which was opened at `path`.
fn try_lock(file: File, path: &Path) -> io::Result<Tried> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Tried::Busy(file)),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let opened = FileId::of(&file.metadata()?);
    match std::fs::symlink_metadata(path) {
        Ok(found) if FileId::of(&found) == opened => {
            Ok(Tried::Locked(RunLock { file, path: path.to_owned() }))
        }
        Ok(_) => Ok(Tried::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tried::Removed),
        Err(error) => Err(error),
    }
}

fn beside(database: &Path, run: RunNumber) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(format!("-run{run}.lock"));
    PathBuf::from(name)
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let mut options: OpenOptions = files::owner_only_options();
    options.read(true).write(true).create(create).truncate(false);
    files::open_unlinked(path, options)
}

fn not_open(path: &Path, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::Other => "remove it, then start the run again",
        _ => "check that its directory exists and is writable",
    };
    Error::Lock { path: path.to_owned(), why: format!("{error}: {advice}") }
}

fn holder(file: &mut File) -> String {
    let mut note = String::new();
    match file.read_to_string(&mut note) {
        Ok(_) if !note.is_empty() => note,
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// Passes the database to a process that this test starts.
    const DATABASE: &str = "POINTSMAN_TEST_LOCKED_DATABASE";

    #[test]
    fn the_second_is_refused_by_name_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let first = RunLock::take(&database, RunNumber(3)).unwrap();
        assert!(RunLock::is_taken(&database, RunNumber(3)) && !RunLock::is_taken(&database, RunNumber(4)));
        let refused = RunLock::take(&database, RunNumber(3)).unwrap_err().to_string();
        let process = format!("run 3 is in use by process {}:", std::process::id());
        assert!(refused.starts_with(&process), "{refused}");
        let _other = RunLock::take(&database, RunNumber(4)).unwrap();
        drop(first);
        assert!(!RunLock::is_taken(&database, RunNumber(3)));
        let _again = RunLock::take(&database, RunNumber(3)).unwrap();
    }

    #[test]
    fn a_lock_file_that_was_removed_after_it_was_opened_gives_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let path = beside(&database, RunNumber(1));
        let first = RunLock::take(&database, RunNumber(1)).unwrap();
        let opened = open(&path, true).unwrap();
        let opened_too = open(&path, true).unwrap();
        drop(first);
        assert!(matches!(try_lock(opened, &path).unwrap(), Tried::Removed));
        let _second = RunLock::take(&database, RunNumber(1)).unwrap();
        assert!(matches!(try_lock(opened_too, &path).unwrap(), Tried::Removed));
    }

    /// Takes and drops the lock in a loop, and fails if another process holds it at the same time. A file that must not
    /// exist yet detects that.
    fn come_and_go(database: &Path, times: u32) -> u32 {
        let witness = database.with_extension("held");
        let mut had = 0;
        for _ in 0..times {
            if let Ok(_lock) = RunLock::take(database, RunNumber(1)) {
                let held = File::options().write(true).create_new(true).open(&witness);
                assert!(held.is_ok(), "two processes hold the lock at once: {held:?}");
                std::thread::yield_now();
                std::fs::remove_file(&witness).unwrap();
                had += 1;
            }
        }
        had
    }

    #[test]
    fn of_many_threads_that_come_and_go_one_at_a_time_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let had = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| had.fetch_add(come_and_go(&database, 500), SeqCst));
            }
        });
        assert!(had.load(SeqCst) > 0);
    }

    #[test]
    fn of_many_processes_that_come_and_go_one_at_a_time_has_it() {
        if let Some(database) = std::env::var_os(DATABASE) {
            come_and_go(Path::new(&database), 500);
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let this = "store::lock::tests::of_many_processes_that_come_and_go_one_at_a_time_has_it";
        let start = |_| {
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["--exact", this, "--nocapture"]).env(DATABASE, &database).spawn().unwrap()
        };
        let processes: Vec<_> = (0..6).map(start).collect();
        let had = come_and_go(&database, 500);
        for mut process in processes {
            assert!(process.wait().unwrap().success());
        }
        assert!(had > 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_link_in_the_place_of_the_lock_file_is_refused_and_its_target_kept() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let target = folder.path().join("precious");
        std::fs::write(&target, "kept").unwrap();
        for hard in [false, true] {
            let path = beside(&database, RunNumber(1));
            if hard {
                std::fs::hard_link(&target, &path).unwrap();
            } else {
                std::os::unix::fs::symlink(&target, &path).unwrap();
            }
            let refused = RunLock::take(&database, RunNumber(1)).unwrap_err().to_string();
            assert!(refused.contains("link to another file: remove it"), "{refused}");
            assert!(refused.contains("a.db-run1.lock"), "{refused}");
            assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
