//! Decodes UTF-16 to UTF-8 while it is read.
//!
//! Half of a surrogate pair ends the input with an error: nothing is replaced.

use std::io::{self, Read};

/// How many bytes are decoded at once.
const BLOCK_BYTES: usize = 8 << 10;

/// Order of the two bytes of a code unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteOrder {
    LittleEndian,
    BigEndian,
}

impl ByteOrder {
    /// Returns the order that a byte-order mark at the start shows.
    pub(super) fn of_mark(first: &[u8]) -> Option<Self> {
        match first {
            [0xff, 0xfe, ..] => Some(Self::LittleEndian),
            [0xfe, 0xff, ..] => Some(Self::BigEndian),
            _ => None,
        }
    }
}

/// Reads UTF-16 as UTF-8.
pub(super) struct Utf16Reader<R> {
    inner: R,
    order: ByteOrder,
    /// Bytes that were read and not decoded: half of a unit, and the first unit of a surrogate pair.
    rest: Vec<u8>,
    decoded: String,
    /// Bytes of `decoded` that were returned.
    returned: usize,
    ended: bool,
}

impl<R: Read> Utf16Reader<R> {
    pub(super) fn new(inner: R, order: ByteOrder) -> Self {
        Self { inner, order, rest: Vec::new(), decoded: String::new(), returned: 0, ended: false }
    }

    /// Decodes the next block.
    fn decode_block(&mut self) -> io::Result<()> {
        self.decoded.clear();
        self.returned = 0;
        let start = self.rest.len();
        let mut block = std::mem::take(&mut self.rest);
        block.resize(start + BLOCK_BYTES, 0);
        let count = self.inner.read(&mut block[start..])?;
        block.truncate(start + count);
        self.ended = count == 0;
        let units = block.chunks_exact(2).map(|pair| match self.order {
            ByteOrder::LittleEndian => u16::from_le_bytes([pair[0], pair[1]]),
            ByteOrder::BigEndian => u16::from_be_bytes([pair[0], pair[1]]),
        });
        let mut units: Vec<u16> = units.collect();
        let is_first_of_pair = units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit));
        if is_first_of_pair && !self.ended {
            units.pop();
        }
        self.rest = block[units.len() * 2..].to_vec();
        for decoded in char::decode_utf16(units) {
            self.decoded.push(decoded.map_err(|_| invalid("it has half of a surrogate pair"))?);
        }
        if self.ended && !self.rest.is_empty() {
            return Err(invalid("it ends within a character"));
        }
        Ok(())
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("this is not valid UTF-16: {reason}; save it as UTF-8"),
    )
}

impl<R: Read> Read for Utf16Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.returned == self.decoded.len() && !self.ended {
            self.decode_block()?;
        }
        let available = &self.decoded.as_bytes()[self.returned..];
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.returned += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte for each read.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn decode(bytes: &[u8], order: ByteOrder) -> io::Result<String> {
        let mut text = String::new();
        Utf16Reader::new(Slow(bytes), order).read_to_string(&mut text)?;
        let mut at_once = String::new();
        Utf16Reader::new(bytes, order).read_to_string(&mut at_once)?;
        assert_eq!(text, at_once);
        Ok(text)
    }

    #[test]
    fn text_is_decoded_in_both_orders_however_it_is_cut() {
        let text = format!("Größe;記事\n😀{}", "x😀".repeat(5000));
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(decode(&little, ByteOrder::LittleEndian).unwrap(), text);
        assert_eq!(decode(&big, ByteOrder::BigEndian).unwrap(), text);
    }

    #[test]
    fn text_that_is_cut_is_an_error() {
        let bytes: Vec<u8> = "a😀".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for length in [1, 3, 4, 5] {
            let error = decode(&bytes[..length], ByteOrder::LittleEndian).unwrap_err();
            assert!(error.to_string().contains("not valid UTF-16"), "{length}: {error}");
        }
        assert_eq!(decode(&bytes[..2], ByteOrder::LittleEndian).unwrap(), "a");
    }
}
