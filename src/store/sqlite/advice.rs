//! Translates errors of SQLite into errors with advice.

use std::path::Path;

use crate::store::error::Error;

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>).
const BUSY: u32 = 5;
const READONLY: u32 = 8;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const NOTADB: u32 = 26;

/// Returns the error of a database that cannot be opened.
pub(super) fn on_open(path: &Path, error: &sqlx::Error) -> Error {
    match on_use(path, "open", error) {
        Error::Io { path, why, .. } => Error::Open { path, why },
        other => other,
    }
}

/// Returns the error of a file that is not a database.
pub(super) fn not_a_database(path: &Path) -> Error {
    Error::Damaged { path: path.to_owned(), what: "it does not begin like a database".to_owned() }
}

/// Returns the error of a database that cannot be read or written.
pub(super) fn on_use(path: &Path, doing: &'static str, error: &sqlx::Error) -> Error {
    let message = match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    let why = match primary(error) {
        Some(CORRUPT) => return Error::Damaged { path: path.to_owned(), what: message },
        Some(NOTADB) => return not_a_database(path),
        Some(FULL) => format!("{message}: free some space, then start the run again"),
        Some(IOERR) if has_file_size_limit() => format!(
            "{message}: this process has a limit on file sizes. Raise it (`ulimit -f`) or check the disk, then start the \
             run again"
        ),
        Some(IOERR) => {
            format!(
                "{message}: check the disk and the limit on file sizes (`ulimit -f`), then start the run again"
            )
        }
        Some(READONLY) => format!("{message}: make it and its directory writable"),
        Some(BUSY) => format!("{message}: another process has been writing to it for more than 30 seconds"),
        Some(CANTOPEN) if has_no_file_left() => {
            format!(
                "{message}: the process has reached its limit of open files. Raise that limit with `ulimit -n`"
            )
        }
        Some(CANTOPEN) => format!("{message}: check that its directory exists and is writable"),
        _ => match error {
            // The thread of a connection could not be started.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => format!(
                "{message}: the system lets this process start no more threads. Raise the limits on processes \
                 (`ulimit -u`) and memory (`ulimit -v`)"
            ),
            _ => message,
        },
    };
    Error::Io { path: path.to_owned(), doing, why }
}

/// Returns whether a limit on open files prevents opening a file. SQLite does not report this.
fn has_no_file_left() -> bool {
    /// `EMFILE` and `ENFILE`.
    const TOO_MANY_FILES: [i32; 2] = [24, 23];
    let error = std::fs::File::open("/dev/null").err().and_then(|error| error.raw_os_error());
    error.is_some_and(|code| TOO_MANY_FILES.contains(&code))
}

/// Returns whether the process has a limit on file sizes. SQLite does not report that a write exceeded it.
fn has_file_size_limit() -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit};
        getrlimit(Resource::Fsize).current.is_some()
    }
    #[cfg(not(unix))]
    {
        false
    }
}

/// Returns whether the database was locked by another process.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    primary(error) == Some(BUSY)
}

fn primary(error: &sqlx::Error) -> Option<u32> {
    let sqlx::Error::Database(database) = error else { return None };
    let extended: u32 = database.code()?.parse().ok()?;
    Some(extended & 0xff)
}
