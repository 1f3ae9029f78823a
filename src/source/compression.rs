//! Decompresses an input, detected by its first bytes and not by its name.
//!
//! The decoder reads all members of a gzip file and all frames of a zstd file. Compressed data that are incomplete or
//! damaged are a [`DecodeError`], which is distinct from an error of the disk and from the end of the input. Memory is
//! bounded by the window of the format: 32 KiB for gzip, at most 128 MiB for zstd.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use flate2::bufread::MultiGzDecoder;

/// How an input is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    /// Returns the compression of an input with these first bytes; `None` if it is not compressed.
    pub(super) fn of(first: &[u8]) -> Option<Self> {
        match first {
            // 8 is deflate, the only method there is.
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Returns a reader of the decompressed `input`.
    pub(super) fn decoder(self, input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        let input = BufReader::with_capacity(1 << 16, MarkedErrors(input));
        let decoder: Box<dyn Read + Send> = match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(input)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        };
        Ok(Box::new(Decoder { compression: self, decoder }))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// Why compressed data cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The data end within a member or frame.
    #[error("the {compression} data are incomplete; copy, download or compress the file again")]
    Truncated {
        /// The name of the compression.
        compression: String,
    },
    /// The data are not valid.
    #[error("the {compression} data are damaged ({reason}); copy, download or compress the file again")]
    Damaged {
        /// The name of the compression.
        compression: String,
        /// What is wrong with them.
        reason: String,
    },
}

/// Marks the errors of the decoder, which are no errors of the input below it.
struct Decoder {
    compression: Compression,
    decoder: Box<dyn Read + Send>,
}

impl Read for Decoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|error| match error.downcast::<InputError>() {
            Ok(InputError(error)) => error,
            Err(error) => {
                let compression = self.compression.to_string();
                let fault = if error.kind() == io::ErrorKind::UnexpectedEof {
                    DecodeError::Truncated { compression }
                } else {
                    DecodeError::Damaged { compression, reason: error.to_string() }
                };
                io::Error::new(io::ErrorKind::InvalidData, fault)
            }
        })
    }
}

/// Marks the errors of the input below a decoder.
struct MarkedErrors<R>(R);

/// An error of the input below a decoder.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct InputError(io::Error);

impl<R: Read> Read for MarkedErrors<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| io::Error::new(error.kind(), InputError(error)))
    }
}

/// Counts the bytes that are read through it.
pub(super) struct CountedReader<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R> CountedReader<R> {
    /// Creates a reader, and the counter of what is read through it.
    pub(super) fn new(inner: R) -> (Self, Arc<AtomicU64>) {
        let bytes = Arc::new(AtomicU64::new(0));
        (Self { inner, bytes: bytes.clone() }, bytes)
    }
}

impl<R: Read> Read for CountedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes.fetch_add(count as u64, Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::source::format_tests::{gzip, zstd};

    fn decode(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let compression = Compression::of(&bytes).unwrap();
        let mut decoded = Vec::new();
        compression.decoder(Cursor::new(bytes))?.read_to_end(&mut decoded)?;
        Ok(decoded)
    }

    #[test]
    fn all_members_and_frames_are_read() {
        for encode in [gzip, zstd] {
            let both = [encode(b"one\n"), encode(b"two\n")].concat();
            assert_eq!(decode(both).unwrap(), b"one\ntwo\n");
        }
    }

    #[test]
    fn an_archive_that_is_cut_at_any_byte_is_incomplete() {
        for encode in [gzip, zstd] {
            let whole = encode(b"some text that is long enough to be more than a header");
            for length in 4..whole.len() {
                let error = decode(whole[..length].to_vec()).unwrap_err().downcast::<DecodeError>().unwrap();
                assert!(matches!(error, DecodeError::Truncated { .. }), "{length}: {error}");
            }
        }
    }

    #[test]
    fn a_changed_byte_is_damage_and_no_end() {
        let mut damaged = gzip(b"some text");
        let at = damaged.len() - 6;
        damaged[at] ^= 1;
        let error = decode(damaged).unwrap_err().downcast::<DecodeError>().unwrap();
        assert!(matches!(error, DecodeError::Damaged { .. }), "{error}");
    }

    #[test]
    fn an_error_of_the_disk_is_no_damage() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the disk is gone"))
            }
        }
        for (encode, compression) in
            [(gzip as fn(&[u8]) -> Vec<u8>, Compression::Gzip), (zstd, Compression::Zstd)]
        {
            let start = encode(b"some text")[..12].to_vec();
            let mut decoder = compression.decoder(Cursor::new(start).chain(Failing)).unwrap();
            let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (io::ErrorKind::TimedOut, "the disk is gone")
            );
        }
    }
}
