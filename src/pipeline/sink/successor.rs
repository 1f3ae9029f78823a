//! A file that takes the place of another once it is no poorer.
//!
//! A run that goes on writes all of its lines anew. Should it be killed meanwhile, what was there before is
//! there still.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempPath;

/// A file beside the one whose place it takes. When it is dropped before, it is removed.
pub(super) struct Successor {
    path: TempPath,
    takes: PathBuf,
    /// Lines from which on it is no poorer.
    after: u64,
    /// The file that is there, locked so that nobody else writes to it either.
    pub(super) before: Option<File>,
}

impl Successor {
    /// Makes one for the file at `path`, and opens it twice.
    pub(super) fn of(path: &Path, after: u64) -> io::Result<(Self, File, File)> {
        // Where the path is a link, the file that it leads to is replaced, and not the link.
        let takes = path.canonicalize()?;
        let (folder, name) =
            (takes.parent().unwrap_or(Path::new(".")), takes.file_name().unwrap_or_default());
        // Always the same name, so that one whose run was killed is written over by the next and not left behind.
        // Nobody else writes there: the file whose place it takes is locked.
        let mut beside = OsString::from(".");
        beside.push(name);
        beside.push(".new");
        let beside = folder.join(beside);
        let file = File::options().write(true).create(true).truncate(true).open(&beside)?;
        let path = TempPath::try_from_path(beside)?;
        file.set_permissions(fs::metadata(&takes)?.permissions())?;
        // From when it takes the place on it is the one that others find. Where there are no locks, there are none.
        let _ = file.try_lock();
        let again = file.try_clone()?;
        Ok((Self { path, takes, after, before: None }, file, again))
    }

    /// Returns whether so many lines are enough.
    pub(super) fn is_due(&self, lines: u64) -> bool {
        lines >= self.after
    }

    /// Takes the place. What is in the file must have been written.
    pub(super) fn take(self, file: Option<&File>) -> io::Result<()> {
        // Else a machine that loses its power could have the new name and not what belongs under it.
        file.map_or(Ok(()), File::sync_data)?;
        self.path.persist(&self.takes).map_err(|failed| failed.error)
    }
}
