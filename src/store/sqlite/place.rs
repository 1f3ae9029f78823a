//! Notices that the database is not where it was: what is written then goes to a file that nobody finds again.
//!
//! The system lets a program write on into a file that was removed, and reports no error.

use std::io;
use std::path::Path;

/// Which file it was that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(Option<(u64, u64)>);

impl Place {
    /// Notes which file is at `path`.
    pub(super) fn of(path: &Path) -> Self {
        Self(number(path).ok())
    }

    /// Returns whether the same file is there still.
    ///
    /// # Errors
    /// What the system says when there is none, or that it is another one.
    pub(super) fn holds(self, path: &Path) -> io::Result<()> {
        if Some(number(path)?) == self.0 {
            return Ok(());
        }
        Err(io::Error::other("another file is in its place"))
    }
}

#[cfg(unix)]
fn number(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Elsewhere an open file cannot be removed.
#[cfg(not(unix))]
fn number(_: &Path) -> io::Result<(u64, u64)> {
    Ok((0, 0))
}
