//! Quotes values for a POSIX shell, so that a printed command can be copied.
//!
//! The value may be the name of a file that another user has chosen: a shell must read it as one word, without
//! running any part of it. Characters that the printer replaces or removes are written as escapes.

use std::fmt::Write;

use crate::store::StoreUrl;
use crate::terminal_text;

/// Returns `text` as one word of a shell: as it is, in single quotes, or with escapes as `$'a\012b'`.
pub(super) fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_./:=@%+,-".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    if terminal_text::line(text) == text {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    let mut word = "$'".to_owned();
    for letter in text.chars() {
        match letter {
            '\'' | '\\' => word.extend(['\\', letter]),
            _ => {
                let mut buffer = [0; 4];
                let letter: &str = letter.encode_utf8(&mut buffer);
                if terminal_text::line(letter) == letter {
                    word.push_str(letter);
                } else {
                    push_octal(&mut word, letter);
                }
            }
        }
    }
    word.push('\'');
    word
}

/// Appends the bytes of a letter as octal escapes.
fn push_octal(word: &mut String, letter: &str) {
    for byte in letter.bytes() {
        // Three digits, because another digit may follow. Writing to a `String` cannot fail.
        let _ = write!(word, "\\{byte:03o}");
    }
}

/// Returns the option by which another command finds the same store; nothing if the command did not name one.
pub(super) fn store_option(url: Option<&StoreUrl>) -> String {
    url.map(|url| format!(" --store {}", shell_word(&url.to_string()))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_one_word_of_a_shell() {
        for (text, word) in [
            ("sqlite:/var/lib/runs-1.db", "sqlite:/var/lib/runs-1.db"),
            ("", "''"),
            ("two words", "'two words'"),
            ("$(touch x)", "'$(touch x)'"),
            ("`id`", "'`id`'"),
            ("a;b&c|d>e", "'a;b&c|d>e'"),
            ("~/runs.db", "'~/runs.db'"),
            ("it's", "'it'\\''s'"),
            ("say \"no\"", "'say \"no\"'"),
            ("a\\b", "'a\\b'"),
            ("é", "'é'"),
            ("a\n1'\\b", "$'a\\0121\\'\\\\b'"),
            ("a\u{1b}[31m\tb", "$'a\\033[31m\\011b'"),
            ("a\u{202e}b", "$'a\\342\\200\\256b'"),
        ] {
            assert_eq!(shell_word(text), word, "{text:?}");
        }
    }

    #[test]
    fn the_store_of_a_command_is_quoted() {
        assert_eq!(store_option(None), "");
        let url: StoreUrl = "sqlite:a b;rm -r x.db".parse().unwrap();
        assert_eq!(store_option(Some(&url)), " --store 'sqlite:a b;rm -r x.db'");
    }

    /// Reads a word as a shell does; `None` if it is more than one word, or if the shell would run a part of it.
    fn read_word(word: &str) -> Option<String> {
        let mut bytes = Vec::new();
        let mut rest = word;
        while let Some(letter) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix("$'") {
                rest = quoted;
                loop {
                    let letter = rest.chars().next()?;
                    rest = &rest[letter.len_utf8()..];
                    if letter == '\'' {
                        break;
                    }
                    if letter != '\\' {
                        bytes.extend(letter.to_string().bytes());
                    } else if rest.starts_with(['\'', '\\']) {
                        bytes.extend(rest[..1].bytes());
                        rest = &rest[1..];
                    } else {
                        bytes.push(u8::from_str_radix(rest.get(..3)?, 8).ok()?);
                        rest = &rest[3..];
                    }
                }
            } else if let Some(quoted) = rest.strip_prefix('\'') {
                let (inside, after) = quoted.split_once('\'')?;
                bytes.extend(inside.bytes());
                rest = after;
            } else if let Some(after) = rest.strip_prefix("\\'") {
                bytes.push(b'\'');
                rest = after;
            } else {
                if !letter.is_ascii_alphanumeric() && !"_./:=@%+,-".contains(letter) {
                    return None;
                }
                bytes.extend(letter.to_string().bytes());
                rest = &rest[letter.len_utf8()..];
            }
        }
        String::from_utf8(bytes).ok()
    }

    proptest! {
        #[test]
        fn a_shell_reads_any_value_unchanged_after_printing(text in any::<String>()) {
            let word = shell_word(&text);
            prop_assert_eq!(terminal_text::line(&word), word.as_str());
            prop_assert_eq!(read_word(&word), Some(text));
        }
    }
}
