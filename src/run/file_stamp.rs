//! The state of an attached file, from its metadata. A file with another state is attached again.

use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::FileStamp;

/// Returns whether a file is unchanged since it was attached, as far as that is known without reading it.
pub(super) fn is_unchanged(file: &FileStamp) -> bool {
    std::fs::metadata(&file.path).is_ok_and(|now| stamp(file.path.clone(), &now) == *file)
}

/// Returns the state of the file at `path`, which has this metadata.
pub(super) fn stamp(path: PathBuf, metadata: &Metadata) -> FileStamp {
    let modified = metadata.modified().map_or(0, nanoseconds);
    FileStamp { path, bytes: metadata.len(), modified, changed: changed(metadata) }
}

fn nanoseconds(at: SystemTime) -> i64 {
    let since =
        at.duration_since(UNIX_EPOCH).map(|since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    since.unwrap_or(0)
}

#[cfg(unix)]
fn changed(metadata: &Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> i64 {
    0
}
