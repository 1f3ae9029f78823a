//! Estimates how many tokens a text has, from its characters alone.
//!
//! One pass over runs of letters, digits, spaces and symbols, with a table of what a byte is; only what
//! lies beyond Latin script is decoded. Every vendor cuts text in its own way, so this is right within a
//! third or so; `sizes` learns the rest. Holds no vocabulary and fetches none.

/// The part of a token that is counted with.
const TOKEN: u64 = 16;

/// Parts that a Latin word of so many letters takes: the short ones are tokens of their own.
const WORD: [u64; 13] = [0, 16, 16, 16, 16, 17, 18, 20, 22, 25, 28, 31, 34];

/// Parts for each letter more.
const LETTER: u64 = 4;

/// Parts for a capital inside a word, where names of programs are cut.
const CAPITAL: u64 = 3;

/// Parts for a letter with a mark, which few vocabularies hold in every word.
const MARKED: u64 = 4;

/// Parts that a word saves because the symbol before it joins it, as in `.com` or `_name`.
const JOINED: u64 = 6;

/// Digits that make one token.
const DIGITS: u64 = 3;

/// Parts for the space before a number, which most vocabularies do not join to it.
const APART: u64 = 8;

/// Parts for one more symbol in a row: another one, or the same again.
const OTHER: u64 = 6;
const SAME: u64 = 1;

/// Spaces in a row that make one token.
const SPACES: u64 = 32;

/// What a byte begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Letter,
    Capital,
    /// The first of two bytes of a Latin letter with a mark.
    Marked,
    Digit,
    Space,
    Symbol,
    /// The first byte of any other character.
    Beyond,
}

static KINDS: [Kind; 256] = kinds();

const fn kinds() -> [Kind; 256] {
    let mut kinds = [Kind::Symbol; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' => Kind::Letter,
            b'A'..=b'Z' => Kind::Capital,
            b'0'..=b'9' => Kind::Digit,
            b' ' | b'\t' | b'\r' | b'\n' => Kind::Space,
            // U+00C0 to U+027F.
            0xC3..=0xC9 => Kind::Marked,
            0x80.. => Kind::Beyond,
            _ => Kind::Symbol,
        };
        byte += 1;
    }
    kinds
}

fn kind(byte: u8) -> Kind {
    KINDS[usize::from(byte)]
}

/// Characters of one sort in a row.
struct Run {
    bytes: usize,
    parts: u64,
    kind: Kind,
}

/// Returns how many tokens `text` has, about. More text never has fewer.
pub(super) fn tokens(text: &str) -> u64 {
    let bytes = text.as_bytes();
    // A text begins as if after a number: nothing joins that.
    let (mut at, mut parts, mut before) = (0, 0, Kind::Digit);
    while let Some(first) = bytes.get(at) {
        let rest = &bytes[at..];
        let run = match kind(*first) {
            Kind::Letter | Kind::Capital | Kind::Marked => word(rest, before),
            Kind::Digit => number(rest, before),
            Kind::Space => spaces(rest),
            Kind::Symbol => symbols(rest, before),
            Kind::Beyond => character(&text[at..]),
        };
        at += run.bytes;
        parts += run.parts;
        before = run.kind;
    }
    parts.div_ceil(TOKEN)
}

fn word(bytes: &[u8], before: Kind) -> Run {
    let (mut at, mut inside, mut more) = (0, 0, 0);
    loop {
        at += count(&bytes[at..], Kind::Letter);
        match bytes.get(at).map(|byte| kind(*byte)) {
            Some(Kind::Capital) => {
                more += if at > 0 { CAPITAL } else { 0 };
                at += 1;
            }
            Some(Kind::Marked) => {
                more += MARKED;
                inside += 1;
                at += 2;
            }
            // Spelling the others out costs a tenth of the speed.
            _ => break,
        }
    }
    let letters = at - inside;
    let long = WORD.len() - 1;
    let parts = WORD[letters.min(long)] + LETTER * letters.saturating_sub(long) as u64 + more;
    let saved = if before == Kind::Symbol { JOINED } else { 0 };
    // The space before the next word belongs to it. Taking it here is for speed alone.
    match bytes.get(at..at + 2) {
        Some([b' ', next]) if kind(*next) == Kind::Letter => {
            Run { bytes: at + 1, parts: parts - saved, kind: Kind::Space }
        }
        _ => Run { bytes: at, parts: parts - saved, kind: Kind::Letter },
    }
}

fn number(bytes: &[u8], before: Kind) -> Run {
    let digits = count(bytes, Kind::Digit);
    let apart = if before == Kind::Space { APART } else { 0 };
    Run { bytes: digits, parts: (digits as u64).div_ceil(DIGITS) * TOKEN + apart, kind: Kind::Digit }
}

fn spaces(bytes: &[u8]) -> Run {
    let spaces = count(bytes, Kind::Space);
    // The one before a word belongs to the word.
    let alone = spaces == 1 && bytes.first() == Some(&b' ');
    let parts = if alone { 0 } else { TOKEN * (1 + spaces as u64 / SPACES) };
    Run { bytes: spaces, parts, kind: Kind::Space }
}

fn symbols(bytes: &[u8], before: Kind) -> Run {
    let symbols = count(bytes, Kind::Symbol);
    // As in "don't": what follows is counted as a word of its own.
    let inside = bytes.first() == Some(&b'\'') && before == Kind::Letter;
    let pairs = bytes[..symbols].windows(2);
    let more: u64 = pairs.map(|pair| if pair[0] == pair[1] { SAME } else { OTHER }).sum();
    Run { bytes: symbols, parts: more + if inside { 0 } else { TOKEN }, kind: Kind::Symbol }
}

fn count(bytes: &[u8], wanted: Kind) -> usize {
    bytes.iter().take_while(|byte| kind(**byte) == wanted).count()
}

fn character(text: &str) -> Run {
    let Some(character) = text.chars().next() else { return Run { bytes: 1, parts: 0, kind: Kind::Beyond } };
    Run { bytes: character.len_utf8(), parts: parts_beyond(character), kind: Kind::Beyond }
}

/// Returns the parts that a character takes which is neither ASCII nor Latin. Vocabularies differ most
/// here: these are between the older ones and the larger ones of today.
fn parts_beyond(character: char) -> u64 {
    match u32::from(character) {
        // Latin with more marks, and the alphabets: two to three characters a token.
        0x0250..=0x02FF | 0x0370..=0x1FFF => 7,
        // Dashes, quotation marks and the like; Chinese and Japanese punctuation; wide forms.
        0x2000..=0x206F | 0x3000..=0x303F | 0xFF00..=0xFFEF => TOKEN,
        // Kana, ideographs, Hangul: about one a character.
        0x3040..=0xA4CF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF => 14,
        // Emoji.
        0x1_F000..=0x1_FAFF => 40,
        // Signs, arrows, boxes, and what is rare.
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Within a fifth and one of what vendors' own counters say.
    fn about(text: &str, known: u64) {
        let (estimate, slack) = (tokens(text), known / 5 + 1);
        assert!(estimate.abs_diff(known) <= slack, "{text}: {estimate}, and really {known}");
    }

    #[test]
    fn texts_whose_tokens_are_known_are_estimated_well() {
        about("tiktoken is great!", 6);
        about("Hello, how are you doing today?", 8);
        about("The quick brown fox jumps over the lazy dog.", 10);
        about("You miss 100% of the shots you don't take", 11);
        about("2 + 2 = 4", 7);
        about("antidisestablishmentarianism", 6);
        about("お誕生日おめでとう", 9);
    }

    #[test]
    fn a_hundred_tokens_of_english_are_about_seventy_five_words() {
        let text = "When a provider asks us to slow down, all of its calls wait for as long as it said. A call \
            that cannot wait so long is sent to another provider at once; nobody is asked in a circle, and \
            no answer is lost. The report says afterwards how long every call had waited, which provider \
            had answered it in the end, what it had cost, and why the attempts before it had failed.";
        let words = text.split_whitespace().count() as f64;
        let share = words / tokens(text) as f64;
        assert!((0.70..0.85).contains(&share), "{share} words a token");
    }

    #[test]
    fn every_script_has_its_measure() {
        let per_token = |text: &str| text.chars().count() as f64 / tokens(text) as f64;
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
            let measure = per_token(text);
            assert!((least..=most).contains(&measure), "{text}: {measure} characters a token");
        }
    }

    #[test]
    fn digits_lines_and_rules_are_short() {
        assert_eq!(["", "1", "123", "1234", "\n\n    ", "--------"].map(tokens), [0, 1, 1, 2, 1, 2]);
    }

    proptest! {
        #[test]
        fn more_text_never_has_fewer_tokens(text in ".*|\\PC*|[ -~\\n']*", more in ".*|[ -~\\n']*") {
            let both = format!("{text}{more}");
            prop_assert!(tokens(&both) >= tokens(&text));
            // And never more than a few for each byte.
            prop_assert!(tokens(&both) <= both.len() as u64 + 1);
        }
    }
}
