//! Says what went wrong with SQLite, and what to do about it.

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

/// Makes the error of a database that cannot be opened.
pub(super) fn on_open(path: &Path, error: &sqlx::Error) -> Error {
    match on_use(path, "open", error) {
        Error::Io { path, why, .. } => Error::Open { path, why },
        other => other,
    }
}

/// Makes the error of a database that could not be read or written.
pub(super) fn on_use(path: &Path, doing: &'static str, error: &sqlx::Error) -> Error {
    let said = match error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    let why = match primary(error) {
        Some(CORRUPT) => return Error::Damaged { path: path.to_owned(), what: said },
        Some(NOTADB) => {
            let what = "it does not begin as a database does".to_owned();
            return Error::Damaged { path: path.to_owned(), what };
        }
        Some(FULL) => format!("{said}: free some space, then run the same command again"),
        Some(IOERR) => format!("{said}: look at the disk, then run the same command again"),
        Some(READONLY) => format!("{said}: make it and its directory writable"),
        Some(BUSY) => format!("{said}: another process has been writing to it for too long"),
        Some(CANTOPEN) if has_no_file_left() => {
            format!("{said}: the process has as many files open as it may. Raise that limit with `ulimit -n`")
        }
        Some(CANTOPEN) => format!("{said}: is its directory there, and writable?"),
        _ => match error {
            // The thread of a connection could not be started.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => format!(
                "{said}: the system lets this process start no more threads. Raise the limits on processes \
                 (`ulimit -u`) and memory (`ulimit -v`)"
            ),
            _ => said,
        },
    };
    Error::Io { path: path.to_owned(), doing, why }
}

/// Returns whether no file can be opened because of a limit on open files. SQLite does not say so.
fn has_no_file_left() -> bool {
    /// `EMFILE` and `ENFILE`.
    const TOO_MANY_FILES: [i32; 2] = [24, 23];
    let error = std::fs::File::open("/dev/null").err().and_then(|error| error.raw_os_error());
    error.is_some_and(|code| TOO_MANY_FILES.contains(&code))
}

/// Returns whether another process was in the way.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    primary(error) == Some(BUSY)
}

fn primary(error: &sqlx::Error) -> Option<u32> {
    let sqlx::Error::Database(database) = error else { return None };
    let extended: u32 = database.code()?.parse().ok()?;
    Some(extended & 0xff)
}
