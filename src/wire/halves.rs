//! Characters whose two UTF-16 halves come in different pieces of a stream.
//!
//! JSON may write a character beyond U+FFFF as two escapes, `\ud83d\ude00`. Servers that cut an answer between them send
//! each half in a chunk of its own, and neither chunk is a text by itself. Here the lone halves of a chunk are replaced
//! by marked characters, so that the chunk can be read, and put together again where its text is added to the answer.

use std::borrow::Cow;

/// The first of the characters that stand for the 2,048 halves, each after a mark.
const STAND_INS: u32 = 0x0010_0000;

/// Bytes of a `\uXXXX`.
const ESCAPE: usize = 6;

/// JSON without lone halves.
#[derive(Debug, PartialEq)]
pub(super) struct Repaired {
    pub(super) json: String,
    /// What stands before each stand-in, and nowhere else.
    pub(super) mark: char,
}

/// Replaces the lone halves in `json`; `None` when there are none.
pub(super) fn repair(json: &str) -> Option<Repaired> {
    let lower = json.to_ascii_lowercase();
    // Private characters. One that occurs, or may be escaped, is no mark.
    let is_free =
        |mark: &char| !json.contains(*mark) && !lower.contains(&format!("{:04x}", u32::from(*mark)));
    let mark = ('\u{f8f0}'..='\u{f8ff}').find(is_free)?;
    let mut repaired = String::with_capacity(json.len());
    let mut rest = json;
    let mut found = false;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        repaired.push_str(before);
        let first = half(escape);
        let pairs = first.is_some_and(is_high)
            && escape.get(ESCAPE..).and_then(half).is_some_and(|second| !is_high(second));
        let length = match first {
            Some(lone) if !pairs => {
                found = true;
                repaired.push(mark);
                repaired.extend(char::from_u32(STAND_INS + u32::from(lone - 0xd800)));
                rest = &escape[ESCAPE..];
                continue;
            }
            Some(_) => 2 * ESCAPE,
            // The escaped character comes along, so that `\\u` is taken for what it is.
            None => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        let (whole, after) = escape.split_at(length);
        repaired.push_str(whole);
        rest = after;
    }
    repaired.push_str(rest);
    found.then_some(Repaired { json: repaired, mark })
}

/// Returns the half that an escape at the start of `text` stands for.
fn half(text: &str) -> Option<u16> {
    let digits = text.get(..ESCAPE)?.strip_prefix("\\u")?;
    let unit = digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16));
    unit?.ok().filter(|unit| (0xd800..=0xdfff).contains(unit))
}

fn is_high(half: u16) -> bool {
    half < 0xdc00
}

/// A text that is put together from pieces.
#[derive(Debug, Default)]
pub(super) struct Text {
    text: String,
    /// The first half of a character whose second half has not come.
    high: Option<u16>,
}

impl Text {
    /// Adds a piece, with the mark of its chunk if that was repaired.
    pub(super) fn push(&mut self, piece: &str, mark: Option<char>) {
        let Some(mark) = mark else { return self.push_plain(piece) };
        let mut parts = piece.split(mark);
        self.push_plain(parts.next().unwrap_or_default());
        for part in parts {
            let mut rest = part.chars();
            let stand_in = rest.next().and_then(|stand_in| u32::from(stand_in).checked_sub(STAND_INS));
            match stand_in.and_then(|offset| u16::try_from(offset).ok()) {
                Some(offset) => self.push_half(0xd800 + (offset & 0x7ff)),
                None => self.push_plain("\u{fffd}"),
            }
            self.push_plain(rest.as_str());
        }
    }

    fn push_plain(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.end_half();
            self.text.push_str(piece);
        }
    }

    fn push_half(&mut self, half: u16) {
        let pair = self.high.take().map(|high| char::decode_utf16([high, half]).next());
        match pair {
            Some(Some(Ok(whole))) => self.text.push(whole),
            Some(_) => {
                self.text.push('\u{fffd}');
                self.begin_half(half);
            }
            None => self.begin_half(half),
        }
    }

    fn begin_half(&mut self, half: u16) {
        if is_high(half) {
            self.high = Some(half);
        } else {
            self.text.push('\u{fffd}');
        }
    }

    /// A half that stays alone is no character.
    fn end_half(&mut self) {
        if self.high.take().is_some() {
            self.text.push('\u{fffd}');
        }
    }

    /// Returns how many bytes are held.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Returns the text, whose pieces have all come.
    pub(super) fn into_string(mut self) -> String {
        self.end_half();
        self.text
    }
}

/// Returns a text of a repaired chunk that is no piece of a longer one.
pub(super) fn alone(text: &str, mark: Option<char>) -> Cow<'_, str> {
    if mark.is_none() {
        return Cow::Borrowed(text);
    }
    let mut whole = Text::default();
    whole.push(text, mark);
    Cow::Owned(whole.into_string())
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
        let mut text = Text::default();
        for json in pieces {
            let (piece, mark) = read(json);
            text.push(&piece, mark);
        }
        text.into_string()
    }

    #[test]
    fn json_without_a_lone_half_is_left_alone() {
        for json in [r#""""#, r#""a\ud83d\ude00b""#, r#""\\ud83d""#, r#""\u00e9\n\"\\""#, r#""😀""#, "\"\\"]
        {
            assert_eq!(repair(json), None, "{json}");
        }
    }

    #[test]
    fn halves_of_two_pieces_are_one_character() {
        assert_eq!(joined(&[r#""Hi \ud83d""#, r#""\ude00!""#]), "Hi 😀!");
        assert_eq!(joined(&[r#""\uD83D""#, r#""""#, r#""\uDE00\ud83d""#, r#""\ude01""#]), "😀😁");
        assert_eq!(joined(&[r#""\\\ud83d""#, r#""\ude00\\ud83d""#]), "\\😀\\ud83d");
    }

    #[test]
    fn a_half_that_stays_alone_is_the_replacement_character() {
        assert_eq!(joined(&[r#""a\ud83d""#, r#""b""#]), "a\u{fffd}b");
        assert_eq!(joined(&[r#""\ud83d\ud83d""#, r#""\ude00""#]), "\u{fffd}😀");
        assert_eq!(joined(&[r#""\ude00a""#]), "\u{fffd}a");
        assert_eq!(joined(&[r#""a\ud83d""#]), "a\u{fffd}");
    }

    #[test]
    fn a_mark_occurs_nowhere_else() {
        let (piece, mark) = read("\"\u{f8f0}\\uF8F1\\ud83d\"");
        assert_eq!(mark, Some('\u{f8f2}'));
        let mut text = Text::default();
        text.push(&piece, mark);
        text.push("\u{f8f2}\u{100000}", None);
        assert_eq!(text.into_string(), "\u{f8f0}\u{f8f1}\u{fffd}\u{f8f2}\u{100000}");
        let all: String = ('\u{f8f0}'..='\u{f8ff}').collect();
        assert_eq!(repair(&format!(r#""{all}\ud83d""#)), None);
    }

    proptest! {
        #[test]
        fn a_text_survives_wherever_its_utf_16_is_cut(text in any::<String>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
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
        fn nothing_makes_it_panic(json in "(\\\\u?[dD][89a-fA-F][0-9a-f]{0,2}|\\\\|\"|\\PC){0,20}") {
            let _ = repair(&json);
        }
    }
}
