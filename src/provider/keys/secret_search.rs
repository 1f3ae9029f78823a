//! Finds a secret in text, also if it is escaped, interspersed with other characters, or incomplete.
//!
//! A text is read as a sequence of units: its bytes without escapes of JSON and of URLs, and without characters
//! that a terminal does not show. Candidates are stretches of a text whose every four units occur in the secret.
//! Only these are compared with the secret, so that a long text is read once.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::terminal_text;
use crate::types::Secret;

/// Maximum number of backslashes before one character that count as escapes of it.
const MAX_ESCAPES: usize = 8;

/// How many units are looked up at once.
const GRAM_LEN: usize = 4;

/// The length of the shortest part of a secret for which a search may ask.
const MIN_PART_LEN: usize = 8;

/// Number of words of 64 bits in a filter. A gram of other text is rarely in the filter.
const FILTER_WORDS: usize = 1 << 10;

/// The longest escape of one character in a message that was cut off within the escape.
const MAX_CUT_ESCAPE_LEN: usize = MAX_ESCAPES + 4;

/// Which parts of a secret count, and what may stand between its characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct SearchRules {
    /// Minimum length of a part anywhere in the text, at least [`MIN_PART_LEN`]; `None` if only the whole secret
    /// counts.
    pub(super) min_part: Option<usize>,
    /// Minimum length of a beginning of the secret at the end of the text, at least [`MIN_PART_LEN`]; `None` if
    /// the text is not cut off.
    pub(super) min_cut_off: Option<usize>,
    /// Whether whitespace may stand between the characters.
    pub(super) skips_whitespace: bool,
}

/// Finds one secret in texts.
#[derive(Clone)]
pub(super) struct SecretSearch {
    /// What is searched literally.
    literals: Arc<[Secret]>,
    /// What is searched in the units of a text.
    forms: Arc<[Secret]>,
    /// A bit for each gram of the forms, by its hash.
    filter: Arc<[u64]>,
    /// How many grams in a row a candidate has at least.
    min_grams: usize,
}

impl SecretSearch {
    /// Creates the search for a secret, given in one or several encodings.
    pub(super) fn new(literals: impl IntoIterator<Item = String>) -> Self {
        let literals: Vec<String> = literals.into_iter().collect();
        let mut forms: Vec<String> = Vec::new();
        for literal in &literals {
            // A secret may itself have characters that are read as escapes.
            let variants = [
                Some(literal.replace('\\', "")),
                String::from_utf8(units(literal, false)).ok(),
                String::from_utf8(units(literal, true)).ok(),
            ];
            for form in variants.into_iter().flatten() {
                if form.len() >= GRAM_LEN && !forms.contains(&form) {
                    forms.push(form);
                }
            }
        }
        let mut filter = vec![0; FILTER_WORDS];
        for gram in forms.iter().flat_map(|form| form.as_bytes().windows(GRAM_LEN)) {
            let gram = gram.iter().fold(0, |gram, byte| (gram << 8) | u32::from(*byte));
            let (word, bit) = filter_position(gram);
            filter.get_mut(word).into_iter().for_each(|word| *word |= bit);
        }
        let shortest = forms.iter().map(String::len).min().unwrap_or(MIN_PART_LEN).min(MIN_PART_LEN);
        Self {
            literals: literals.into_iter().map(Secret::from).collect(),
            forms: forms.into_iter().map(Secret::from).collect(),
            filter: filter.into(),
            min_grams: shortest + 1 - GRAM_LEN,
        }
    }

    /// Returns where the secret and parts of it stand in `text`. The ranges may overlap.
    pub(super) fn find(&self, text: &str, rules: SearchRules) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for literal in &*self.literals {
            let matches = text.match_indices(literal.expose());
            found.extend(matches.map(|(start, part)| start..start + part.len()));
        }
        let candidates = self.candidates(text, rules.skips_whitespace);
        if candidates.is_empty() {
            return found;
        }
        for form in &*self.forms {
            let form = IndexedForm::new(form.expose().as_bytes());
            for candidate in &candidates {
                form.find(text, candidate, rules, &mut found);
            }
        }
        found
    }

    /// Returns the stretches of `text` that may be a part of a form.
    fn candidates(&self, text: &str, skips_whitespace: bool) -> Vec<Range<usize>> {
        let mut candidates = Vec::new();
        let mut current: Option<Candidate> = None;
        let mut gram = 0;
        let mut starts = [0; GRAM_LEN];
        let mut count = 0;
        for_each_unit(text, skips_whitespace, |byte, range| {
            gram = (gram << 8) | u32::from(byte);
            starts[count % GRAM_LEN] = range.start;
            count += 1;
            let is_known = count >= GRAM_LEN && self.has_gram(gram);
            if !is_known {
                candidates.extend(current.take().and_then(|candidate| candidate.range(self.min_grams)));
                return;
            }
            let gram_start = starts[count % GRAM_LEN];
            let candidate = current.get_or_insert(Candidate { start: gram_start, end: range.end, grams: 0 });
            candidate.end = range.end;
            candidate.grams += 1;
        });
        candidates.extend(current.and_then(|candidate| candidate.range(self.min_grams)));
        candidates
    }

    fn has_gram(&self, gram: u32) -> bool {
        let (word, bit) = filter_position(gram);
        self.filter.get(word).is_some_and(|word| word & bit != 0)
    }
}

impl fmt::Debug for SecretSearch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The filter would reveal the secret.
        out.write_str("SecretSearch(..)")
    }
}

/// Returns the word and the bit of a gram in a filter.
fn filter_position(gram: u32) -> (usize, u64) {
    let hash = gram.wrapping_mul(0x9e37_79b1);
    ((hash >> 22) as usize, 1 << ((hash >> 16) & 63))
}

/// A stretch of a text whose every gram is in the filter.
#[derive(Debug)]
struct Candidate {
    start: usize,
    end: usize,
    grams: usize,
}

impl Candidate {
    fn range(self, min_grams: usize) -> Option<Range<usize>> {
        (self.grams >= min_grams).then_some(self.start..self.end)
    }
}

/// A form of a secret, with the positions of each byte.
struct IndexedForm<'a> {
    form: &'a [u8],
    positions: [Vec<usize>; 256],
}

/// A part of a form that was found in a text.
#[derive(Debug)]
struct PartialMatch {
    /// The range in the form.
    part: Range<usize>,
    /// The range in the text.
    range: Range<usize>,
}

impl<'a> IndexedForm<'a> {
    fn new(form: &'a [u8]) -> Self {
        let mut positions = [const { Vec::new() }; 256];
        for (position, byte) in form.iter().enumerate() {
            positions[usize::from(*byte)].push(position);
        }
        Self { form, positions }
    }

    /// Adds where the form and parts of it stand in a candidate stretch of `text`.
    fn find(&self, text: &str, candidate: &Range<usize>, rules: SearchRules, found: &mut Vec<Range<usize>>) {
        let Some(stretch) = text.get(candidate.clone()) else { return };
        // The longest matches that end at the previous unit, one for each position in the form.
        let mut matches: Vec<PartialMatch> = Vec::new();
        let mut previous = None;
        for_each_unit(stretch, rules.skips_whitespace, |byte, range| {
            let range = candidate.start + range.start..candidate.start + range.end;
            matches.retain_mut(|partial| {
                let continues = self.form.get(partial.part.end) == Some(&byte);
                if continues {
                    partial.part.end += 1;
                    partial.range.end = range.end;
                } else if self.counts(partial, text, rules) {
                    found.push(partial.range.clone());
                }
                continues
            });
            for &position in &self.positions[usize::from(byte)] {
                let before = position.checked_sub(1).and_then(|before| self.form.get(before).copied());
                let continues_a_match = before.is_some() && before == previous;
                let may_begin = position == 0 || rules.min_part.is_some() && !continues_a_match;
                if may_begin {
                    matches.push(PartialMatch { part: position..position + 1, range: range.clone() });
                }
            }
            previous = Some(byte);
        });
        let complete = matches.into_iter().filter(|partial| self.counts(partial, text, rules));
        found.extend(complete.map(|partial| partial.range));
    }

    /// Returns whether a match is long enough for the rules.
    fn counts(&self, partial: &PartialMatch, text: &str, rules: SearchRules) -> bool {
        let length = partial.part.len();
        let is_beginning = partial.part.start == 0;
        length == self.form.len()
            || rules.min_part.is_some_and(|least| length >= least)
            || is_beginning
                && rules.min_cut_off.is_some_and(|least| length >= least)
                && text.get(partial.range.end..).is_some_and(is_cut_off)
    }
}

/// Returns whether a text ends here: with an ellipsis, with characters that do not show, or within an escape.
fn is_cut_off(rest: &str) -> bool {
    let rest = rest.strip_suffix('…').unwrap_or(rest);
    let is_escape =
        |character: char| character.is_ascii_hexdigit() || matches!(character, '\\' | '%' | 'u' | 'x');
    let is_cut_escape =
        rest.starts_with(['\\', '%']) && rest.len() <= MAX_CUT_ESCAPE_LEN && rest.chars().all(is_escape);
    is_cut_escape || rest.chars().all(|character| is_skipped(character, true))
}

/// Returns whether `character` may stand between the characters of a secret.
fn is_skipped(character: char, skips_whitespace: bool) -> bool {
    terminal_text::is_invisible(character) || skips_whitespace && character.is_whitespace()
}

/// Returns the units of a text.
fn units(text: &str, skips_whitespace: bool) -> Vec<u8> {
    let mut units = Vec::with_capacity(text.len());
    for_each_unit(text, skips_whitespace, |byte, _| units.push(byte));
    units
}

/// Calls `act` with each unit of `text` and with its range, which includes its escapes.
fn for_each_unit(text: &str, skips_whitespace: bool, mut act: impl FnMut(u8, Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let is_plain = matches!(byte, b'!'..=b'~') && !matches!(byte, b'\\' | b'%');
        if is_plain {
            act(byte, at..at + 1);
            at += 1;
            continue;
        }
        let slashes = bytes[at..].iter().take_while(|byte| **byte == b'\\').count();
        let start = at + slashes.saturating_sub(MAX_ESCAPES);
        let Some((unit, length)) = text.get(at + slashes..).and_then(|rest| decode(rest, slashes > 0)) else {
            return;
        };
        at += slashes + length;
        match unit {
            Unit::Byte(byte) => act(byte, start..at),
            Unit::Character(character) if is_skipped(character, skips_whitespace) => {}
            Unit::Character(character) => {
                character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| act(byte, start..at));
            }
        }
    }
}

/// What one character or escape in a text stands for.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Character(char),
    /// A byte of a character that is not in ASCII.
    Byte(u8),
}

impl From<u8> for Unit {
    fn from(byte: u8) -> Self {
        if byte.is_ascii() { Self::Character(char::from(byte)) } else { Self::Byte(byte) }
    }
}

/// Decodes the first character or escape of `text` and returns it with its length; `None` at the end.
fn decode(text: &str, is_after_slash: bool) -> Option<(Unit, usize)> {
    let escape = match text.as_bytes() {
        [b'%', high, low, ..] => hex(&[*high, *low]).map(|character| (character, 3)),
        [b'x', high, low, ..] if is_after_slash => hex(&[*high, *low]).map(|character| (character, 3)),
        [b'u', a, b, c, d, ..] if is_after_slash => hex(&[*a, *b, *c, *d]).map(|character| (character, 5)),
        [b'n', ..] if is_after_slash => Some((0x0a, 1)),
        [b'r', ..] if is_after_slash => Some((0x0d, 1)),
        [b't', ..] if is_after_slash => Some((0x09, 1)),
        [b'b', ..] if is_after_slash => Some((0x08, 1)),
        [b'f', ..] if is_after_slash => Some((0x0c, 1)),
        _ => None,
    };
    match escape {
        // One byte, as `%C3` and `\xc3` are.
        Some((code, 3)) => Some((Unit::from(u8::try_from(code).ok()?), 3)),
        // A half of a surrogate pair belongs to no key.
        Some((code, length)) => {
            let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            Some((Unit::Character(character), length))
        }
        None => text.chars().next().map(|character| (Unit::Character(character), character.len_utf8())),
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some((number << 4) | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: SearchRules =
        SearchRules { min_part: Some(8), min_cut_off: Some(8), skips_whitespace: true };

    fn find(secret: &str, text: &str, rules: SearchRules) -> Vec<Range<usize>> {
        SecretSearch::new([secret.to_owned()]).find(text, rules)
    }

    #[test]
    fn escapes_are_decoded_to_units() {
        for (text, decoded) in [
            (r"a\u0062\\u0063\x64%65", "abcde"),
            (r"a\nb\tc\r\fd", "abcd"),
            ("\\u00fc%C3%BC\u{fc}", "\u{fc}\u{fc}\u{fc}"),
            ("100% %zz %", "100%%zz%"),
            (r"\ud83d\", "\u{fffd}"),
            (r"\/\u12", "/u12"),
            (r#"\\\\\\\\\\\\""#, "\""),
        ] {
            assert_eq!(String::from_utf8(units(text, true)).unwrap(), decoded, "{text}");
        }
        assert_eq!(units("a b\nc\u{1}\u{200b}", false), b"a b\nc");
    }

    #[test]
    fn the_range_of_a_match_ends_between_characters() {
        // `é` and `ü` have the same first byte.
        let text = "0123456789\u{e9}!";
        let found = find("0123456789\u{fc}", text, EVERYTHING);
        assert!(found.iter().all(|range| text.get(range.clone()).is_some()), "{found:?}");
    }

    #[test]
    fn a_secret_with_repeated_characters_is_found_in_a_long_text() {
        let text = "ab".repeat(1 << 16);
        let found = find(&"ab".repeat(20), &text, EVERYTHING);
        assert_eq!(found.iter().map(|range| range.start).min(), Some(0));
        assert_eq!(found.iter().map(|range| range.end).max(), Some(text.len()));
        let only_whole = SearchRules { min_part: None, min_cut_off: None, ..EVERYTHING };
        assert!(find("0123456789-ab", &text, only_whole).is_empty());
    }

    #[test]
    fn the_debug_output_has_nothing_of_the_secret() {
        assert_eq!(format!("{:?}", SecretSearch::new(["0123456789".to_owned()])), "SecretSearch(..)");
    }

    #[test]
    fn a_secret_that_consists_of_escapes_is_found_as_it_is() {
        let only_whole = SearchRules { min_part: None, min_cut_off: None, ..EVERYTHING };
        for secret in [r"\\\\\\", "%41%42%43%44", r"a\nb\nc\nd", "\u{200b}\u{200b}\u{200b}\u{200b}"] {
            assert_eq!(find(secret, secret, only_whole).first(), Some(&(0..secret.len())), "{secret}");
        }
    }
}
