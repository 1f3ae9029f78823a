//! Computes the SHA-256 of an input while it is read, so the recorded digest is of exactly the bytes that were
//! read.
//!
//! A file can grow or be replaced while its items are processed. There is no digest before the end of the input
//! was reached.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

/// Digest of an input that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputDigest {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Receives the digest of an input once it has been read to its end.
pub(crate) type DigestSlot = Arc<OnceLock<InputDigest>>;

/// Computes the digest of what is read through it.
pub(super) struct DigestReader<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
    slot: DigestSlot,
}

impl<R> DigestReader<R> {
    pub(super) fn new(inner: R, slot: DigestSlot) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0, slot }
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count > 0 {
            self.hasher.update(&buffer[..count]);
            self.bytes += count as u64;
        } else if !buffer.is_empty() {
            // If the caller reads on after this end, the further bytes are not part of the digest.
            self.slot.get_or_init(|| InputDigest { bytes: self.bytes, sha256: hexadecimal(&self.hasher) });
        }
        Ok(count)
    }
}

/// Returns the digest of what has been read so far.
fn hexadecimal(hasher: &Sha256) -> String {
    hasher.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_of_the_bytes_read_and_not_available_before_the_end() {
        let read = DigestSlot::default();
        let mut input = DigestReader::new(io::Cursor::new(b"abc".to_vec()), read.clone());
        let mut three = [0; 3];
        input.read_exact(&mut three).unwrap();
        assert_eq!(read.get(), None);
        input.read_to_end(&mut Vec::new()).unwrap();
        // printf abc | sha256sum
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert_eq!(read.get(), Some(&InputDigest { bytes: 3, sha256 }));
    }
}
