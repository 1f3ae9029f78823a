//! The files of an SQLite database.

use std::path::{Path, PathBuf};

/// Returns the files of the database at `path`: itself and its journals.
pub(super) fn database_files(path: &Path) -> Vec<PathBuf> {
    let beside = ["-wal", "-shm", "-journal"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    std::iter::once(path.to_owned()).chain(beside).collect()
}
