//! Makes untrusted text safe for a terminal.
//!
//! Text of items, providers and file names may have escape sequences, marks of text direction and invisible
//! characters, and a terminal acts on these. Everything that is printed or logged goes through one of these
//! functions. A control character becomes `�`, and an invisible character is removed. In JSON both become `\u`
//! escapes, so that the reader of the JSON gets the original text.

use std::borrow::Cow;
use std::fmt::Write;

/// The ranges of invisible characters: direction marks, joiners, fillers, variation selectors and tags.
const INVISIBLE: [(char, char); 18] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{13430}', '\u{13455}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// How a terminal treats a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharKind {
    /// Shows it.
    Shown,
    /// Ends the line.
    LineEnd,
    Tab,
    /// May act on it.
    Control,
    Invisible,
}

impl CharKind {
    fn of(character: char) -> Self {
        match character {
            ' '..='~' => Self::Shown,
            '\n' | '\u{2028}' | '\u{2029}' => Self::LineEnd,
            '\t' => Self::Tab,
            _ if character.is_control() => Self::Control,
            _ if INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&character)) => {
                Self::Invisible
            }
            _ => Self::Shown,
        }
    }
}

/// Returns `text` as one line.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    replace(text, |kind| match kind {
        CharKind::Shown => None,
        CharKind::LineEnd | CharKind::Tab => Some(" "),
        CharKind::Control => Some("\u{fffd}"),
        CharKind::Invisible => Some(""),
    })
}

/// Returns `text`, with its line ends and tabs.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    replace(text, |kind| match kind {
        CharKind::Shown | CharKind::LineEnd | CharKind::Tab => None,
        CharKind::Control => Some("\u{fffd}"),
        CharKind::Invisible => Some(""),
    })
}

/// Returns whether `text` has only whitespace, control and invisible characters.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(|character| character.is_whitespace() || CharKind::of(character) != CharKind::Shown)
}

/// Returns whether [`line()`] removes or replaces `character`.
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(CharKind::of(character), CharKind::Invisible | CharKind::Control)
}

fn replace(text: &str, with: impl Fn(CharKind) -> Option<&'static str>) -> Cow<'_, str> {
    if text.chars().all(|character| with(CharKind::of(character)).is_none()) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match with(CharKind::of(character)) {
            Some(other) => shown.push_str(other),
            None => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Returns `json` with `\u` escapes for the characters that [`line()`] removes or replaces. Its value is the same.
pub(crate) fn json(json: &str) -> Cow<'_, str> {
    // Line ends and tabs occur only between values: within a string, JSON escapes them already.
    let is_plain = |character| matches!(character, '\n' | '\t') || CharKind::of(character) == CharKind::Shown;
    if json.chars().all(is_plain) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_plain(character) {
            shown.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a `String` cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_that_a_terminal_would_act_on_are_not_shown() {
        for (text, shown) in [
            ("plain text, 日本語 and e\u{301}", "plain text, 日本語 and e\u{301}"),
            ("\u{1b}[31mred\u{1b}]0;title\u{7}", "\u{fffd}[31mred\u{fffd}]0;title\u{fffd}"),
            ("c1 \u{9b}2J del \u{7f} return \r", "c1 \u{fffd}2J del \u{fffd} return \u{fffd}"),
            ("user\u{202e}gpj.exe\u{2066}\u{200f}\u{61c}", "usergpj.exe"),
            ("zero\u{200b}width\u{feff} tag\u{e0041}", "zerowidth tag"),
        ] {
            assert_eq!(line(text), shown);
            assert_eq!(lines(text), shown);
        }
        assert_eq!(line("two\nlines\tand\u{2028}more"), "two lines and more");
        assert_eq!(lines("two\nlines\tmore"), "two\nlines\tmore");
    }

    #[test]
    fn a_text_without_a_visible_character_is_blank() {
        for blank in ["", " \u{a0}\n", "\u{200b}\u{ad} \u{feff}", "\u{1b}\u{0}", "\u{3164}\u{e0041}"] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for seen in ["a", "\u{200b}.", "日", "0", "\u{1f30a}"] {
            assert!(!is_blank(seen), "{seen:?}");
        }
    }

    #[test]
    fn json_keeps_its_value_and_shows_no_character_that_a_terminal_would_act_on() {
        let value =
            serde_json::json!({ "a\u{202e}": ["\u{1b}[2J\u{7f}\u{9b}", "tag \u{e0041}", "日本語\n\t\""] });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = json(&text);
        assert!(
            shown.chars().all(|character| character == '\n' || CharKind::of(character) == CharKind::Shown),
            "{shown}"
        );
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.contains("日本語"), "{shown}");
    }

    proptest! {
        #[test]
        fn any_text_is_shown_without_controls_and_any_json_keeps_its_value(text in any::<String>()) {
            let is_shown = |character| CharKind::of(character) == CharKind::Shown;
            prop_assert!(line(&text).chars().all(is_shown));
            let once = line(&text);
            prop_assert_eq!(line(&once), once.clone());
            let written = serde_json::to_string(&text).unwrap();
            let shown = json(&written);
            prop_assert!(shown.chars().all(is_shown));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
