//! Digests of a run's files. They show whether the files have changed since the run completed.
//!
//! The digest of the input is that of the bytes that were read: the file may have changed before the run ended.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::sink::WrittenLength;
use crate::source::{DigestSlot, Source};

/// How much of a file is read at once.
const READ_BLOCK_BYTES: usize = 1 << 20;

/// The digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileDigest {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// The file from which the items are read.
#[derive(Debug)]
pub(super) struct InputFile {
    path: PathBuf,
    read: DigestSlot,
}

impl InputFile {
    /// Returns the file that `source` reads; `None` if it reads no file.
    pub(super) fn of(source: &Source) -> Option<Self> {
        let path = std::path::absolute(source.path()?).ok()?;
        Some(Self { path, read: source.digest()? })
    }

    /// Returns the digest of what was read; `None` before the end of the file.
    fn digest(&self, path: &Path) -> Option<FileDigest> {
        let read = self.read.get()?.clone();
        Some(FileDigest { path: path.to_owned(), bytes: read.bytes, sha256: read.sha256 })
    }
}

/// Returns the digests of all `paths`; `None` when one of them cannot be read, is not a regular file, is an input
/// that was not read to its end, or is an output that has another length than what was written.
pub(super) fn digests_of(
    paths: &[PathBuf],
    input: Option<&InputFile>,
    written: &[WrittenLength],
) -> Option<Vec<FileDigest>> {
    let is_input =
        |path: &Path, input: &&InputFile| std::path::absolute(path).is_ok_and(|path| path == input.path);
    let digest = |path: &PathBuf| match input.filter(|input| is_input(path, input)) {
        Some(input) => input.digest(path),
        None => digest_file(path).ok().flatten().filter(|digest| has_written_length(digest, written)),
    };
    paths.iter().map(digest).collect()
}

/// Returns whether a file has the length of what was written to it. Otherwise another program has changed it.
fn has_written_length(digest: &FileDigest, written: &[WrittenLength]) -> bool {
    let Ok(path) = digest.path.canonicalize() else { return false };
    written.iter().filter(|output| output.path() == path).all(|output| output.bytes() == digest.bytes)
}

/// Returns whether all files still have these digests. Reads none of them when the size of one differs.
pub(super) fn all_match(digests: &[FileDigest]) -> bool {
    let has_size =
        |digest: &FileDigest| std::fs::metadata(&digest.path).is_ok_and(|file| file.len() == digest.bytes);
    let has_content = |found: &FileDigest| digest_file(&found.path).ok().flatten().as_ref() == Some(found);
    digests.iter().all(has_size) && digests.iter().all(has_content)
}

fn digest_file(path: &Path) -> io::Result<Option<FileDigest>> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut all = Sha256::new();
    let mut bytes = 0;
    let mut block = vec![0; READ_BLOCK_BYTES];
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
    Ok(Some(FileDigest { path: path.to_owned(), bytes, sha256 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{Destination, Format, Sink};

    #[tokio::test]
    async fn an_output_that_was_changed_after_its_last_line_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("o.jsonl");
        let sink = Sink::results(Destination::file(&out, &[]).unwrap(), Format::Jsonl, &[]).unwrap();
        let written = [sink.written_length().unwrap()];
        sink.finish().await.unwrap();
        assert!(digests_of(std::slice::from_ref(&out), None, &written).is_some());
        std::fs::write(&out, "of another program\n").unwrap();
        assert_eq!(digests_of(&[out], None, &written), None);
    }

    #[test]
    fn a_changed_or_missing_file_does_not_match_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one");
        let two = folder.path().join("two");
        std::fs::write(&one, "some text").unwrap();
        std::fs::write(&two, vec![7; 3 * READ_BLOCK_BYTES + 1]).unwrap();
        let digests = digests_of(&[one.clone(), two.clone()], None, &[]).unwrap();
        assert!(all_match(&digests));
        std::fs::write(&one, "same size").unwrap();
        assert!(!all_match(&digests));
        std::fs::write(&one, "some text").unwrap();
        assert!(all_match(&digests));
        std::fs::remove_file(&two).unwrap();
        assert!(!all_match(&digests));
        assert_eq!(digests_of(&[one, two], None, &[]), None);
        assert_eq!(digests_of(&[PathBuf::from("/dev/null")], None, &[]), None);
    }
}
