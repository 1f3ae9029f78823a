//! Tells by their content whether a finished run's files are still what they were.
//!
//! What is noted of the input is what was read of it, which need not be what is there at the end.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::source::{DigestSlot, Source};

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// What a file held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// A file whose items are read.
#[derive(Debug)]
pub(super) struct Input {
    path: PathBuf,
    read: DigestSlot,
}

impl Input {
    /// Returns the file that `source` reads, if it reads one.
    pub(super) fn of(source: &Source) -> Option<Self> {
        let path = std::path::absolute(source.path()?).ok()?;
        Some(Self { path, read: source.digest()? })
    }

    /// Returns what was read; `None` before the end.
    fn mark(&self, path: &Path) -> Option<Mark> {
        let read = self.read.get()?.clone();
        Some(Mark { path: path.to_owned(), bytes: read.bytes, sha256: read.sha256 })
    }
}

/// Returns the marks of all `paths`; `None` when one of them cannot be read, is no file that stays what it is, or is
/// an input that was not read to its end.
pub(super) fn of(paths: &[PathBuf], input: Option<&Input>) -> Option<Vec<Mark>> {
    let is_input =
        |path: &Path, input: &&Input| std::path::absolute(path).is_ok_and(|path| path == input.path);
    let of = |path: &PathBuf| match input.filter(|input| is_input(path, input)) {
        Some(input) => input.mark(path),
        None => mark(path).ok().flatten(),
    };
    paths.iter().map(of).collect()
}

/// Returns whether files are what `marks` say. Reads none of them when one has another size.
pub(super) fn hold(marks: &[Mark]) -> bool {
    let size = |mark: &Mark| std::fs::metadata(&mark.path).is_ok_and(|file| file.len() == mark.bytes);
    let same = |found: &Mark| mark(&found.path).ok().flatten().as_ref() == Some(found);
    marks.iter().all(size) && marks.iter().all(same)
}

fn mark(path: &Path) -> io::Result<Option<Mark>> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let (mut all, mut bytes, mut block) = (Sha256::new(), 0, vec![0; BLOCK]);
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => {
                all.update(&block[..read]);
                bytes += read as u64;
            }
        }
    }
    let sha256 = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Some(Mark { path: path.to_owned(), bytes, sha256 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_or_gone_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        std::fs::write(&one, "some text").unwrap();
        std::fs::write(&two, vec![7; 3 * BLOCK + 1]).unwrap();
        let marks = of(&[one.clone(), two.clone()], None).unwrap();
        assert!(hold(&marks));
        std::fs::write(&one, "same size").unwrap();
        assert!(!hold(&marks));
        std::fs::write(&one, "some text").unwrap();
        assert!(hold(&marks));
        std::fs::remove_file(&two).unwrap();
        assert!(!hold(&marks));
        assert_eq!(of(&[one, two], None), None);
        assert_eq!(of(&[PathBuf::from("/dev/null")], None), None);
    }
}
