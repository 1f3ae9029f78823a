//! Surrogate pairs that are split between two chunks of a stream.
//!
//! JSON may encode a character above U+FFFF as two escapes, `\ud83d\ude00`. Some servers split an answer between
//! them and send each surrogate in its own chunk. Neither chunk is then valid Unicode. This module replaces the
//! lone surrogates of a chunk by marked placeholders, so that the chunk can be parsed, and joins them when its
//! text is added to the answer.

use std::borrow::Cow;

/// The first of the placeholder characters for the 2,048 surrogates. Each placeholder follows a mark.
const PLACEHOLDER_BASE: u32 = 0x0010_0000;

/// The length of `\uXXXX`.
const ESCAPE_BYTES: usize = 6;

/// JSON without lone surrogates.
#[derive(Debug, PartialEq)]
pub(super) struct Repaired {
    pub(super) json: String,
    /// The character before each placeholder. It occurs nowhere else.
    pub(super) mark: char,
}

/// Replaces the lone surrogates in `json`; `None` if there are none.
pub(super) fn repair(json: &str) -> Option<Repaired> {
    let lower = json.to_ascii_lowercase();
    // Private-use characters. A character that occurs in the text, possibly escaped, cannot be the mark.
    let is_free =
        |mark: &char| !json.contains(*mark) && !lower.contains(&format!("{:04x}", u32::from(*mark)));
    let mark = ('\u{f8f0}'..='\u{f8ff}').find(is_free)?;
    let mut repaired = String::with_capacity(json.len());
    let mut rest = json;
    let mut found = false;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        repaired.push_str(before);
        let first = surrogate(escape);
        let pairs = first.is_some_and(is_high)
            && escape.get(ESCAPE_BYTES..).and_then(surrogate).is_some_and(|second| !is_high(second));
        let length = match first {
            Some(lone) if !pairs => {
                found = true;
                repaired.push(mark);
                repaired.extend(char::from_u32(PLACEHOLDER_BASE + u32::from(lone - 0xd800)));
                rest = &escape[ESCAPE_BYTES..];
                continue;
            }
            Some(_) => 2 * ESCAPE_BYTES,
            // The escaped character is skipped too, so that `\\u` is not read as an escape.
            None => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        let (escapes, after) = escape.split_at(length);
        repaired.push_str(escapes);
        rest = after;
    }
    repaired.push_str(rest);
    found.then_some(Repaired { json: repaired, mark })
}

/// Repairs a complete body; `None` if it has no lone surrogates or is not UTF-8.
pub(super) fn repair_body(body: &[u8]) -> Option<Repaired> {
    str::from_utf8(body).ok().and_then(repair)
}

/// Returns the surrogate of an escape at the start of `text`.
fn surrogate(text: &str) -> Option<u16> {
    let digits = text.get(..ESCAPE_BYTES)?.strip_prefix("\\u")?;
    let unit = digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16));
    unit?.ok().filter(|unit| (0xd800..=0xdfff).contains(unit))
}

fn is_high(surrogate: u16) -> bool {
    surrogate < 0xdc00
}

/// A text joined from chunks.
#[derive(Debug, Default)]
pub(super) struct JoinedText {
    text: String,
    /// A high surrogate whose low surrogate has not been received yet.
    high: Option<u16>,
}

impl JoinedText {
    /// Adds a piece, with the mark of its chunk if the chunk was repaired.
    pub(super) fn push(&mut self, piece: &str, mark: Option<char>) {
        let Some(mark) = mark else { return self.push_plain(piece) };
        let mut parts = piece.split(mark);
        self.push_plain(parts.next().unwrap_or_default());
        for part in parts {
            let mut rest = part.chars();
            let placeholder =
                rest.next().and_then(|placeholder| u32::from(placeholder).checked_sub(PLACEHOLDER_BASE));
            match placeholder.and_then(|offset| u16::try_from(offset).ok()) {
                Some(offset) => self.push_surrogate(0xd800 + (offset & 0x7ff)),
                None => self.push_plain("\u{fffd}"),
            }
            self.push_plain(rest.as_str());
        }
    }

    fn push_plain(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.end_surrogate();
            self.text.push_str(piece);
        }
    }

    fn push_surrogate(&mut self, surrogate: u16) {
        let pair = self.high.take().map(|high| char::decode_utf16([high, surrogate]).next());
        match pair {
            Some(Some(Ok(character))) => self.text.push(character),
            Some(_) => {
                self.text.push('\u{fffd}');
                self.begin_surrogate(surrogate);
            }
            None => self.begin_surrogate(surrogate),
        }
    }

    fn begin_surrogate(&mut self, surrogate: u16) {
        if is_high(surrogate) {
            self.high = Some(surrogate);
        } else {
            self.text.push('\u{fffd}');
        }
    }

    /// Replaces a surrogate that stays alone by U+FFFD.
    pub(super) fn end_surrogate(&mut self) {
        if self.high.take().is_some() {
            self.text.push('\u{fffd}');
        }
    }

    /// Returns the number of bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Returns the text so far, without a surrogate whose other half has not been received.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the complete text.
    pub(super) fn into_string(mut self) -> String {
        self.end_surrogate();
        self.text
    }
}

/// Restores a text of a repaired chunk that is not part of a longer text.
pub(super) fn restore(text: &str, mark: Option<char>) -> Cow<'_, str> {
    if mark.is_none() {
        return Cow::Borrowed(text);
    }
    let mut joined = JoinedText::default();
    joined.push(text, mark);
    Cow::Owned(joined.into_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> (String, Option<char>) {
        match repair(json) {
            None => (serde_json::from_str(json).unwrap(), None),
            Some(Repaired { json, mark }) => (serde_json::from_str(&json).unwrap(), Some(mark)),
        }
    }

    fn joined(pieces: &[&str]) -> String {
        let mut text = JoinedText::default();
        for json in pieces {
            let (piece, mark) = read(json);
            text.push(&piece, mark);
        }
        text.into_string()
    }

    #[test]
    fn json_without_a_lone_surrogate_is_unchanged() {
        for json in [r#""""#, r#""a\ud83d\ude00b""#, r#""\\ud83d""#, r#""\u00e9\n\"\\""#, r#""😀""#, "\"\\"]
        {
            assert_eq!(repair(json), None, "{json}");
        }
    }

    #[test]
    fn surrogates_of_two_chunks_form_one_character() {
        assert_eq!(joined(&[r#""Hi \ud83d""#, r#""\ude00!""#]), "Hi 😀!");
        assert_eq!(joined(&[r#""\uD83D""#, r#""""#, r#""\uDE00\ud83d""#, r#""\ude01""#]), "😀😁");
        assert_eq!(joined(&[r#""\\\ud83d""#, r#""\ude00\\ud83d""#]), "\\😀\\ud83d");
    }

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        assert_eq!(joined(&[r#""a\ud83d""#, r#""b""#]), "a\u{fffd}b");
        assert_eq!(joined(&[r#""\ud83d\ud83d""#, r#""\ude00""#]), "\u{fffd}😀");
        assert_eq!(joined(&[r#""\ude00a""#]), "\u{fffd}a");
        assert_eq!(joined(&[r#""a\ud83d""#]), "a\u{fffd}");
    }

    #[test]
    fn the_mark_does_not_occur_in_the_text() {
        let (piece, mark) = read("\"\u{f8f0}\\uF8F1\\ud83d\"");
        assert_eq!(mark, Some('\u{f8f2}'));
        let mut text = JoinedText::default();
        text.push(&piece, mark);
        text.push("\u{f8f2}\u{100000}", None);
        assert_eq!(text.into_string(), "\u{f8f0}\u{f8f1}\u{fffd}\u{f8f2}\u{100000}");
        let all: String = ('\u{f8f0}'..='\u{f8ff}').collect();
        assert_eq!(repair(&format!(r#""{all}\ud83d""#)), None);
    }

    proptest! {
        #[test]
        fn a_text_is_restored_wherever_its_utf_16_is_split(text in any::<String>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(units.len() + 1)).collect();
            cuts.extend([0, units.len()]);
            cuts.sort_unstable();
            let pieces: Vec<String> =
                cuts.windows(2).map(|cut| format!("\"{}\"", units[cut[0]..cut[1]].concat())).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let is_markable = !('\u{f8f0}'..='\u{f8ff}').all(|mark| text.contains(mark));
            prop_assume!(is_markable);
            prop_assert_eq!(joined(&pieces), text);
        }

        #[test]
        fn repair_never_panics(json in "(\\\\u?[dD][89a-fA-F][0-9a-f]{0,2}|\\\\|\"|\\PC){0,20}") {
            // Only the absence of a panic is tested.
            let _ = repair(&json);
        }
    }
}
