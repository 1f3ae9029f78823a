//! Reads the files that a step attaches to its prompt.
//!
//! Only when the step is asked, so that a run of a million photos holds a few.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::FileStamp;
use crate::types::{Class, Failure, Part};

use crate::pipeline::attach::Attachment;

/// Most bytes of one attachment; providers refuse larger ones.
const MOST_BYTES: u64 = 50 << 20;

/// Returns the part of a prompt that `attachment` stands for, and the file that was read for it as it was then.
pub(super) async fn load(attachment: &Attachment) -> Result<(Part, Option<FileStamp>), Failure> {
    match attachment {
        Attachment::Ready(part) => Ok((part.clone(), None)),
        Attachment::File(file) => {
            let path = file.path.clone();
            let content = tokio::task::spawn_blocking(move || read(&path)).await;
            let broken = |_| Err(Failure::new(Class::Internal, "reading an attachment panicked"));
            content.unwrap_or_else(broken).map(|(content, stamp)| (file.part(&content), Some(stamp)))
        }
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, FileStamp), Failure> {
    let cannot =
        |why: String| Failure::new(Class::TemplateError, format!("cannot attach {}: {why}", path.display()));
    let mut file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    // Of the file that is read, and before it is: what is written to it meanwhile is noticed by the next run.
    let metadata = file.metadata().map_err(|error| cannot(error.to_string()))?;
    if metadata.len() > MOST_BYTES {
        return Err(cannot(format!("it has {} bytes, and 50 MiB is the most", metadata.len())));
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(|error| cannot(error.to_string()))?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Ok((content, stamp(path, &metadata)))
}

/// Returns whether a file is what it was when it was attached, as far as that is known without reading it.
pub(super) fn is_as_it_was(file: &FileStamp) -> bool {
    std::fs::metadata(&file.path).is_ok_and(|now| stamp(file.path.clone(), &now) == *file)
}

fn stamp(path: PathBuf, metadata: &Metadata) -> FileStamp {
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
