//! Reads the files that a step attaches to its prompt.
//!
//! Only when the step is asked, so that a run of a million photos holds a few.

use std::path::Path;

use crate::types::{Class, Failure, Part};

use crate::pipeline::attach::Attachment;

/// Most bytes of one attachment; providers refuse larger ones.
const MOST_BYTES: u64 = 50 << 20;

/// Returns the part of a prompt that `attachment` stands for.
pub(super) async fn load(attachment: &Attachment) -> Result<Part, Failure> {
    match attachment {
        Attachment::Ready(part) => Ok(part.clone()),
        Attachment::File(file) => {
            let path = file.path.clone();
            let content = tokio::task::spawn_blocking(move || read(&path)).await;
            let broken = |_| Err(Failure::new(Class::Internal, "reading an attachment panicked"));
            content.unwrap_or_else(broken).map(|content| file.part(&content))
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let cannot =
        |why: String| Failure::new(Class::TemplateError, format!("cannot attach {}: {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
    if metadata.len() > MOST_BYTES {
        return Err(cannot(format!("it has {} bytes, and 50 MiB is the most", metadata.len())));
    }
    std::fs::read(path).map_err(|error| cannot(error.to_string()))
}
