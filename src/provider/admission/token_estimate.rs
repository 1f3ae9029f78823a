//! Token estimate of a text, from its characters alone.
//!
//! One pass over sequences of letters, digits, spaces and symbols, with a table of byte classes. Only characters
//! outside the Latin script are decoded. Each vendor tokenizes differently, so the estimate is right within
//! about a third;
//! `token_stats` learns the rest. There is no vocabulary, neither built in nor downloaded.

/// The estimate counts in parts of a token.
const PARTS_PER_TOKEN: u64 = 16;

/// Parts of a Latin word, by its number of letters: short words are single tokens.
const PARTS_BY_WORD_LENGTH: [u64; 13] = [0, 16, 16, 16, 16, 17, 18, 20, 22, 25, 28, 31, 34];

/// Parts of each further letter.
const PARTS_PER_FURTHER_LETTER: u64 = 4;

/// Additional parts of a capital inside a word, where tokenizers split identifiers.
const PARTS_PER_INNER_CAPITAL: u64 = 3;

/// Additional parts of an accented letter: few vocabularies have every word with one.
const PARTS_PER_ACCENTED_LETTER: u64 = 4;

/// Parts that a word saves when the symbol before it is part of the same token, as in `.com` or `_name`.
const PARTS_SAVED_BY_SYMBOL: u64 = 6;

/// Digits in one token.
const DIGITS_PER_TOKEN: u64 = 3;

/// Parts of the space before a number: in most vocabularies it is not part of the number's token.
const PARTS_OF_SPACE_BEFORE_NUMBER: u64 = 8;

/// Parts of a further symbol in a row that differs from the one before it.
const PARTS_PER_DIFFERENT_SYMBOL: u64 = 6;

/// Parts of a further symbol in a row that repeats the one before it.
const PARTS_PER_REPEATED_SYMBOL: u64 = 1;

/// Spaces in a row in one token.
const SPACES_PER_TOKEN: u64 = 32;

/// Class of the character that a byte starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharClass {
    Letter,
    Capital,
    /// The first of the two bytes of an accented Latin letter.
    Accented,
    Digit,
    Space,
    Symbol,
    /// The first byte of any other character.
    OtherScript,
}

static CHAR_CLASSES: [CharClass; 256] = char_classes();

const fn char_classes() -> [CharClass; 256] {
    let mut char_classes = [CharClass::Symbol; 256];
    let mut byte = 0;
    while byte < 256 {
        char_classes[byte] = match byte as u8 {
            b'a'..=b'z' => CharClass::Letter,
            b'A'..=b'Z' => CharClass::Capital,
            b'0'..=b'9' => CharClass::Digit,
            b' ' | b'\t' | b'\r' | b'\n' => CharClass::Space,
            // U+00C0 to U+027F.
            0xC3..=0xC9 => CharClass::Accented,
            0x80.. => CharClass::OtherScript,
            _ => CharClass::Symbol,
        };
        byte += 1;
    }
    char_classes
}

fn char_class(byte: u8) -> CharClass {
    CHAR_CLASSES[usize::from(byte)]
}

/// Consecutive characters of one class.
struct Span {
    bytes: usize,
    parts: u64,
    class: CharClass,
}

/// Estimates the tokens of `text`. Appending text never reduces the estimate.
pub(in crate::provider) fn estimate_tokens(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut parts = 0;
    // The start of a text counts as following a number, which no word joins.
    let mut before = CharClass::Digit;
    while let Some(first) = bytes.get(at) {
        let rest = &bytes[at..];
        let span = match char_class(*first) {
            CharClass::Letter | CharClass::Capital | CharClass::Accented => word(rest, before),
            CharClass::Digit => number(rest, before),
            CharClass::Space => spaces(rest),
            CharClass::Symbol => symbols(rest, before),
            CharClass::OtherScript => character(&text[at..]),
        };
        at += span.bytes;
        parts += span.parts;
        before = span.class;
    }
    parts.div_ceil(PARTS_PER_TOKEN)
}

fn word(bytes: &[u8], before: CharClass) -> Span {
    let mut at = 0;
    let mut continuation_bytes = 0;
    let mut more = 0;
    loop {
        at += count(&bytes[at..], CharClass::Letter);
        match bytes.get(at).map(|byte| char_class(*byte)) {
            Some(CharClass::Capital) => {
                more += if at > 0 { PARTS_PER_INNER_CAPITAL } else { 0 };
                at += 1;
            }
            Some(CharClass::Accented) => {
                more += PARTS_PER_ACCENTED_LETTER;
                continuation_bytes += 1;
                at += 2;
            }
            // Listing the other classes would cost a tenth of the speed.
            _ => break,
        }
    }
    let letters = at - continuation_bytes;
    let longest = PARTS_BY_WORD_LENGTH.len() - 1;
    let further = letters.saturating_sub(longest) as u64;
    let parts = PARTS_BY_WORD_LENGTH[letters.min(longest)] + PARTS_PER_FURTHER_LETTER * further + more;
    let saved = if before == CharClass::Symbol { PARTS_SAVED_BY_SYMBOL } else { 0 };
    // The space before the next word is part of that word's token. It is skipped here for speed.
    match bytes.get(at..at + 2) {
        Some([b' ', next]) if char_class(*next) == CharClass::Letter => {
            Span { bytes: at + 1, parts: parts - saved, class: CharClass::Space }
        }
        _ => Span { bytes: at, parts: parts - saved, class: CharClass::Letter },
    }
}

fn number(bytes: &[u8], before: CharClass) -> Span {
    let digits = count(bytes, CharClass::Digit);
    let apart = if before == CharClass::Space { PARTS_OF_SPACE_BEFORE_NUMBER } else { 0 };
    Span {
        bytes: digits,
        parts: (digits as u64).div_ceil(DIGITS_PER_TOKEN) * PARTS_PER_TOKEN + apart,
        class: CharClass::Digit,
    }
}

fn spaces(bytes: &[u8]) -> Span {
    let spaces = count(bytes, CharClass::Space);
    // A single space is part of the next word's token.
    let is_single = spaces == 1 && bytes.first() == Some(&b' ');
    let parts = if is_single { 0 } else { PARTS_PER_TOKEN * (1 + spaces as u64 / SPACES_PER_TOKEN) };
    Span { bytes: spaces, parts, class: CharClass::Space }
}

fn symbols(bytes: &[u8], before: CharClass) -> Span {
    let symbols = count(bytes, CharClass::Symbol);
    // An apostrophe as in "don't": the letters after it count as a word.
    let is_inside_word = bytes.first() == Some(&b'\'') && before == CharClass::Letter;
    let pairs = bytes[..symbols].windows(2);
    let more: u64 = pairs
        .map(|pair| if pair[0] == pair[1] { PARTS_PER_REPEATED_SYMBOL } else { PARTS_PER_DIFFERENT_SYMBOL })
        .sum();
    Span {
        bytes: symbols,
        parts: more + if is_inside_word { 0 } else { PARTS_PER_TOKEN },
        class: CharClass::Symbol,
    }
}

fn count(bytes: &[u8], wanted: CharClass) -> usize {
    bytes.iter().take_while(|byte| char_class(**byte) == wanted).count()
}

fn character(text: &str) -> Span {
    let Some(character) = text.chars().next() else {
        return Span { bytes: 1, parts: 0, class: CharClass::OtherScript };
    };
    Span { bytes: character.len_utf8(), parts: other_script_parts(character), class: CharClass::OtherScript }
}

/// Returns the parts of a character that is neither ASCII nor Latin. Vocabularies differ most here: the values lie
/// between those of older vocabularies and those of today's larger ones.
fn other_script_parts(character: char) -> u64 {
    match u32::from(character) {
        // Extended Latin and other alphabets: two to three characters per token.
        0x0250..=0x02FF | 0x0370..=0x1FFF => 7,
        // Dashes, quotation marks and similar; Chinese and Japanese punctuation; full-width forms.
        0x2000..=0x206F | 0x3000..=0x303F | 0xFF00..=0xFFEF => PARTS_PER_TOKEN,
        // Kana, ideographs, Hangul: about one token per character.
        0x3040..=0xA4CF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF => 14,
        // Emoji.
        0x1_F000..=0x1_FAFF => 40,
        // Signs, arrows, box drawing and rare characters.
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Asserts that the estimate differs from the vendor's count by at most a fifth plus one.
    fn assert_close(text: &str, count: u64) {
        let estimate = estimate_tokens(text);
        let tolerance = count / 5 + 1;
        assert!(estimate.abs_diff(count) <= tolerance, "{text}: estimated {estimate}, counted {count}");
    }

    #[test]
    fn estimates_are_close_to_the_counts_of_vendors() {
        assert_close("tiktoken is great!", 6);
        assert_close("Hello, how are you doing today?", 8);
        assert_close("The quick brown fox jumps over the lazy dog.", 10);
        assert_close("You miss 100% of the shots you don't take", 11);
        assert_close("2 + 2 = 4", 7);
        assert_close("antidisestablishmentarianism", 6);
        assert_close("お誕生日おめでとう", 9);
    }

    #[test]
    fn a_hundred_tokens_of_english_are_about_seventy_five_words() {
        let text = "When a provider throttles us, all of its calls wait for as long as it has advertised. A call \
            that cannot wait so long is sent to another provider at once; no provider is called in a loop, and \
            no answer is lost. The report shows afterwards how long every call had waited, which provider \
            had answered it in the end, what it had cost, and why the attempts before it had failed.";
        let words = text.split_whitespace().count() as f64;
        let words_per_token = words / estimate_tokens(text) as f64;
        assert!((0.70..0.85).contains(&words_per_token), "{words_per_token} words per token");
    }

    #[test]
    fn characters_per_token_are_plausible_for_every_script() {
        let per_token = |text: &str| text.chars().count() as f64 / estimate_tokens(text) as f64;
        for (text, least, most) in [
            ("Поезд прибыл на станцию вовремя, и все пассажиры вышли на платформу", 2.0, 3.0),
            ("وصل القطار إلى المحطة في موعده ونزل جميع الركاب", 2.0, 3.0),
            ("गाड़ी समय पर स्टेशन पहुँची और सब यात्री उतर गए", 2.0, 3.0),
            ("列车准时到达车站所有乘客都下了车", 0.8, 1.4),
            ("열차가제시간에역에도착했다", 0.8, 1.4),
            ("😀🚂🎉", 0.3, 0.5),
            ("Der Zug erreichte pünktlich den Bahnhof, und alle Fahrgäste stiegen aus", 3.0, 5.0),
            ("550e8400-e29b-41d4-a716-446655440000", 1.0, 2.5),
            (r#"{"type":"object","properties":{"name":{"type":"string"}}}"#, 2.5, 4.5),
        ] {
            let characters = per_token(text);
            assert!((least..=most).contains(&characters), "{text}: {characters} characters per token");
        }
    }

    #[test]
    fn digits_line_breaks_and_repeated_symbols_take_few_tokens() {
        assert_eq!(["", "1", "123", "1234", "\n\n    ", "--------"].map(estimate_tokens), [0, 1, 1, 2, 1, 2]);
    }

    proptest! {
        #[test]
        fn more_text_never_has_fewer_tokens(text in ".*|\\PC*|[ -~\\n']*", more in ".*|[ -~\\n']*") {
            let both = format!("{text}{more}");
            prop_assert!(estimate_tokens(&both) >= estimate_tokens(&text));
            // At most about one token per byte.
            prop_assert!(estimate_tokens(&both) <= both.len() as u64 + 1);
        }
    }
}
