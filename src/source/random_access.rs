//! A file that is read from several positions, as workbooks, Parquet files and objects with an array are.

use std::fs::File;
use std::io::{self, Read, Seek};

use super::digest::{DigestReader, DigestSlot};

/// A regular file below an input.
pub(super) struct RandomAccess {
    /// The file. Its position is shared with the input, which must not be read any more when this is used.
    pub(super) file: File,
    /// Receives the digest of the file.
    pub(super) digest: DigestSlot,
}

impl RandomAccess {
    /// Reads the whole file for its digest, after its items were read.
    pub(super) fn digest_whole(mut self) -> io::Result<()> {
        self.file.rewind()?;
        io::copy(&mut DigestReader::new(self.file, self.digest), &mut io::sink())?;
        Ok(())
    }
}

/// Copies the rest of `input`, which can be read only once, to a temporary file without a name. It is deleted when it is
/// closed.
pub(super) fn spool(mut input: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut input, &mut file)?;
    file.rewind()?;
    Ok(file)
}
