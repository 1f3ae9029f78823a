//! Entries that a source yields: an item, or a rejected piece of the input.
//!
//! Plain data; nothing here judges a line.

use serde_json::Value;

use crate::guard::HeldMemory;
use crate::types::ItemKey;

/// One piece of the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A valid item.
    Item(Item),
    /// A piece of the input that is not a valid item.
    Rejected(Reject),
}

/// A valid item.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its index among the items, from 0 and without gaps; rejected lines are not counted.
    pub number: u64,
    /// The line on which it begins, from 1. For [`Source::values`](super::Source::values), the index of the
    /// value, from 1.
    pub line: u64,
    /// Its `id`, or the hash of its content.
    pub key: ItemKey,
    /// Its fields: always a JSON object. All values from CSV are strings.
    pub value: Value,
    /// Memory that is reserved for it while it is in progress.
    pub(crate) held: HeldMemory,
}

/// A piece of the input that is not a valid item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// What is wrong with it, to be read after "line N".
    pub reason: String,
    /// The beginning of its text, at most 2 KB, with a mark if it was cut. Bytes that are not UTF-8 are
    /// replaced.
    pub text: String,
    /// Its key, if it was determined.
    pub key: Option<ItemKey>,
}

/// Bytes of a rejected text that are kept.
pub(super) const MAX_EXCERPT_BYTES: usize = 2048;

/// Returns the beginning of a text with `length` bytes in total, of which `bytes` are available.
pub(super) fn excerpt(bytes: &[u8], length: u64) -> String {
    if length <= MAX_EXCERPT_BYTES as u64 {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut head = &bytes[..bytes.len().min(MAX_EXCERPT_BYTES)];
    // Does not cut a character in two: at most three bytes of it can be at the end.
    for back in 1..=3.min(head.len()) {
        let first = head[head.len() - back];
        if first >= 0xc0 {
            head = &head[..head.len() - back];
        }
        if first & 0xc0 != 0x80 {
            break;
        }
    }
    format!("{}… (cut: {length} bytes in all)", String::from_utf8_lossy(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters_and_marked() {
        let text = format!("a{}", "é".repeat(2000));
        let cut = excerpt(text.as_bytes(), text.len() as u64);
        assert!(cut.starts_with("aé") && cut.ends_with("é… (cut: 4001 bytes in all)"), "{cut}");
        assert!(!cut.contains('\u{fffd}'));
    }

    #[test]
    fn a_short_text_is_kept_whole() {
        assert_eq!(excerpt(b"a\xffb", 3), "a\u{fffd}b");
    }
}
