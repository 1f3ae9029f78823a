//! Hashes an input while it is read, so that what is noted of it is what was read.
//!
//! A file can grow or be replaced while its items are at work. Says nothing before the reader came to the end.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

/// What an input held that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputDigest {
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Where the digest of an input is found once that has been read to its end.
pub(crate) type DigestSlot = Arc<OnceLock<InputDigest>>;

/// Hashes what is read through it.
pub(super) struct Digesting<R> {
    inner: R,
    all: Sha256,
    bytes: u64,
    read: DigestSlot,
}

impl<R> Digesting<R> {
    pub(super) fn new(inner: R, read: DigestSlot) -> Self {
        Self { inner, all: Sha256::new(), bytes: 0, read }
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count > 0 {
            self.all.update(&buffer[..count]);
            self.bytes += count as u64;
        } else if !buffer.is_empty() {
            // What a reader that asks on is given after this end is none of what is noted.
            self.read.get_or_init(|| InputDigest { bytes: self.bytes, sha256: hexadecimal(&self.all) });
        }
        Ok(count)
    }
}

/// Returns the hash of what has been read so far.
fn hexadecimal(all: &Sha256) -> String {
    all.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_noted_as_it_was_read_and_not_before_its_end() {
        let read = DigestSlot::default();
        let mut input = Digesting::new(io::Cursor::new(b"abc".to_vec()), read.clone());
        let mut three = [0; 3];
        input.read_exact(&mut three).unwrap();
        assert_eq!(read.get(), None);
        input.read_to_end(&mut Vec::new()).unwrap();
        // printf abc | sha256sum
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
        assert_eq!(read.get(), Some(&InputDigest { bytes: 3, sha256 }));
    }
}
