//! A file that is read from several positions, as workbooks, Parquet files and objects with an array are.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

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

/// How large a temporary copy may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct CopyLimits {
    /// Most bytes.
    bytes: u64,
    /// How many times larger than its compressed data it may be, above `bytes_of_any_ratio`.
    ratio: u64,
    bytes_of_any_ratio: u64,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self { bytes: 16 << 30, ratio: 200, bytes_of_any_ratio: 1 << 30 }
    }
}

/// Why an input is not copied.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    /// The input cannot be read, or the copy cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is too large.
    #[error(
        "it has more than {0} bytes, the most that are copied to a temporary file, which its format needs"
    )]
    Bytes(u64),
    /// It is too large for the size of its compressed data.
    #[error(
        "it is more than {0} times larger than its compressed data, as files that are made to fill the disk are"
    )]
    Ratio(u64),
}

/// Copies the rest of `input`, which can be read only once, to a temporary file without a name. It is deleted when it is
/// closed. `compressed_bytes` counts the bytes of a compressed input that were read.
pub(super) fn spool(
    mut input: impl Read,
    compressed_bytes: Option<&AtomicU64>,
    limits: CopyLimits,
) -> Result<File, CopyError> {
    let mut file = tempfile::tempfile()?;
    let mut buffer = vec![0; 1 << 16];
    let mut copied = 0;
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        copied += length as u64;
        if copied > limits.bytes {
            return Err(CopyError::Bytes(limits.bytes));
        }
        let compressed_bytes = compressed_bytes.map(|bytes| bytes.load(Relaxed));
        if copied > limits.bytes_of_any_ratio
            && compressed_bytes.is_some_and(|compressed| copied / limits.ratio > compressed)
        {
            return Err(CopyError::Ratio(limits.ratio));
        }
        file.write_all(&buffer[..length])?;
    }
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_a_limit_in_bytes_and_by_its_compressed_size() {
        let limits = CopyLimits { bytes: 1_000_000, ratio: 200, bytes_of_any_ratio: 400_000 };
        let copy = |bytes: u64, compressed: Option<u64>| {
            let compressed = compressed.map(AtomicU64::new);
            spool(io::repeat(b'x').take(bytes), compressed.as_ref(), limits)
                .and_then(|file| Ok(file.metadata()?.len()))
        };
        assert_eq!(copy(1_000_000, None).unwrap(), 1_000_000);
        assert!(matches!(copy(1_000_001, None), Err(CopyError::Bytes(1_000_000))));
        assert!(matches!(copy(1 << 50, Some(1 << 50)), Err(CopyError::Bytes(1_000_000))));
        assert_eq!(copy(400_000, Some(1)).unwrap(), 400_000);
        assert_eq!(copy(500_000, Some(2_500)).unwrap(), 500_000);
        assert!(matches!(copy(500_000, Some(2_000)), Err(CopyError::Ratio(200))));
    }
}
