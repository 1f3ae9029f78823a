//! Finds words that look like API keys, and addresses with a password, so that no message shows them.
//!
//! Names of models, paths and addresses without a password stay readable.

use std::borrow::Cow;
use std::ops::Range;

/// What is shown in place of a secret.
pub(crate) const REDACTED: &str = "***";

/// Prefixes of API keys and tokens, in lower case.
pub(crate) const KEY_PREFIXES: [&str; 20] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "gsk_",
    "hf_",
    "r8_",
    "xai-",
    "pplx-",
    "nvapi-",
    "hvs.",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xox",
    "aiza",
    "akia",
    "eyj",
];

/// The prefix after which words count too. No ordinary name begins with it.
const PREFIX_BEFORE_WORDS: &str = "sk-";

/// Shortest rest after a prefix, in bytes, that is a key.
const MIN_BYTES_AFTER_PREFIX: usize = 8;

/// Shortest rest after a prefix, in bytes, that is a key although no part of it has both letters and digits.
const MIN_BYTES_OF_LONG_REST: usize = 24;

/// Shortest word with both letters and digits that is a key.
const MIN_RANDOM_BYTES: usize = 24;

/// Shortest word with digits, capital and small letters in random order that is a key.
const MIN_MIXED_BYTES: usize = 16;

/// Fewest changes between letters and digits in a random order. The name of a model has one or two.
const MIN_CHANGES: usize = 3;

/// Fewest digits of a number that may be a key. Settings are smaller.
const MIN_DIGITS: usize = 16;

/// Numbers in help: the largest integers of TOML and of JSON.
const LARGEST_NUMBERS: [&str; 2] = ["9223372036854775807", "18446744073709551615"];

/// Returns the byte ranges of all words in `text` that look like keys, in order.
pub(crate) fn likely_keys(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(word) = next_word(text, at) {
        at = word.end;
        if let Some(end) = prefixed_key_end(text, &word) {
            found.push(word.start..end);
            at = end;
        } else if is_random(&text[word.clone()]) || is_long_number(&text[word.clone()]) {
            found.push(word);
        }
    }
    found
}

/// Returns whether a path is probably a key that was written in its place. A part of a longer path may look random,
/// as in the names of mounted files.
pub(crate) fn path_may_be_key(path: &str) -> bool {
    let is_one_word = !path.contains(['/', '\\']);
    is_one_word && !likely_keys(path).is_empty()
        || words(path).any(|word| prefixed_key_end(path, &word).is_some())
}

/// Returns `text` with `***` in place of likely keys, and in place of the user and the password of an address.
pub(crate) fn hide_likely_secrets(text: &str) -> Cow<'_, str> {
    let mut secrets: Vec<Range<usize>> = credentials(text).into_iter().collect();
    secrets.extend(likely_keys(text));
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    secrets.sort_by_key(|secret| secret.start);
    let mut hidden = String::with_capacity(text.len());
    let mut at = 0;
    for secret in secrets {
        if secret.start >= at {
            hidden.push_str(&text[at..secret.start]);
            hidden.push_str(REDACTED);
        }
        at = at.max(secret.end);
    }
    hidden.push_str(&text[at..]);
    Cow::Owned(hidden)
}

/// Returns the range of the user and the password of an address. A password may contain any character.
fn credentials(text: &str) -> Option<Range<usize>> {
    const SCHEME_END: &str = "://";
    let start = text.find(SCHEME_END)? + SCHEME_END.len();
    let end = text.rfind('@').filter(|end| *end > start)?;
    Some(start..end)
}

fn words(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let word = next_word(text, at)?;
        at = word.end;
        Some(word)
    })
}

/// Returns the next word from `at` on: letters, digits, dashes and underscores, not beginning with a dash or an
/// underscore.
fn next_word(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes().get(at..)?;
    let start = bytes.iter().position(u8::is_ascii_alphanumeric)?;
    let length = bytes[start..].iter().take_while(|byte| is_word_byte(**byte)).count();
    Some(at + start..at + start + length)
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Returns the end of the key that begins with `word`, if it has the prefix of one.
fn prefixed_key_end(text: &str, word: &Range<usize>) -> Option<usize> {
    let has_prefix = |prefix: &&str| {
        let begin = text.as_bytes().get(word.start..word.start + prefix.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let prefix = KEY_PREFIXES.into_iter().find(has_prefix)?;
    let rest_start = word.start + prefix.len();
    let rest = text.get(rest_start..)?;
    let rest = &rest[..rest.bytes().take_while(|byte| is_word_byte(*byte)).count()];
    let is_part_of_key =
        |part: &str| part.len() >= MIN_BYTES_AFTER_PREFIX && has_letters(part) && has_digits(part);
    let has_part_of_key = rest.split(['-', '_']).any(is_part_of_key);
    let is_key = prefix == PREFIX_BEFORE_WORDS && rest.len() >= MIN_BYTES_AFTER_PREFIX
        || has_part_of_key
        || rest.len() >= MIN_BYTES_OF_LONG_REST && has_digits(rest);
    if !is_key {
        return None;
    }
    // A token may have several parts, with points between them, and base64 has other characters too.
    let belongs_to_key = |byte: &u8| is_word_byte(*byte) || b".+/~".contains(byte);
    let bytes = text.as_bytes().get(rest_start..)?;
    let length = bytes.iter().take_while(|byte| belongs_to_key(byte)).count();
    Some(rest_start + length)
}

/// Returns whether a part of a word, between dashes and underscores, looks random.
fn is_random(word: &str) -> bool {
    word.split(['-', '_']).any(|part| {
        let has_letters_and_digits = has_letters(part) && has_digits(part);
        let has_capitals = part.bytes().any(|byte| byte.is_ascii_uppercase());
        let has_both_cases = has_capitals && part.bytes().any(|byte| byte.is_ascii_lowercase());
        let is_mixed = part.len() >= MIN_MIXED_BYTES && has_both_cases && changes(part) >= MIN_CHANGES;
        has_letters_and_digits && (part.len() >= MIN_RANDOM_BYTES || is_mixed)
    })
}

/// Returns how often a letter follows a digit, or a digit a letter.
fn changes(part: &str) -> usize {
    part.as_bytes().windows(2).filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit()).count()
}

fn is_long_number(word: &str) -> bool {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    is_number && digits >= MIN_DIGITS && !LARGEST_NUMBERS.contains(&word)
}

fn has_letters(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn has_digits(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_between_other_text() {
        for key in [
            "sk-ant-api03-Zr2WmN4tVb5kQ0x7",
            "sk-live-secret",
            "SK-LIVE-0123456789",
            "AIzaSyA0123456789abcdefghijklmnopqrst",
            "gsk_0123456789abcdef",
            "xai-0123456789abcdef",
            "hvs.CAESIJ1234567890",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x-y_z",
            "d41d8cd98f00b204e9800998ecf8427e",
            "aB3dE5fG7hJ9kL1m",
            "1234567890123456",
            "1234_5678_9012_3456",
        ] {
            for text in ["KEY", "a = \"KEY\" # x", "file:KEY", "u:KEY@h"] {
                let text = text.replace("KEY", key);
                let hidden = hide_likely_secrets(&text);
                assert!(!hidden.contains(key), "{hidden}");
                assert_eq!(hidden, text.replace(key, REDACTED));
            }
        }
    }

    #[test]
    fn ordinary_names_are_not_keys() {
        for name in [
            "claude-haiku-4-5-20251001",
            "gpt-4.1-mini-2025-04-14",
            "anthropic/claude-3-5-sonnet-20241022-v2:0",
            "accounts/fireworks/models/llama-v3p1-405b-instruct",
            "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",
            "Qwen2.5-Coder-32B-Instruct",
            "gemini-2.5-flash-lite-preview-06-17",
            "max_requests_per_minute_of_account_2",
            "/var/lib/pointsman/2025-04-14/runs_of_team_7.db",
            "https://my-resource-2.openai.azure.com/openai/v1",
            "550e8400-e29b-41d4-a716-446655440000",
            "pk_customer_2_id",
            "task-sk-list",
            "9223372036854775807",
            "2025-04-14T12:00:00Z",
        ] {
            assert_eq!(hide_likely_secrets(name), name);
        }
    }

    #[test]
    fn the_user_and_the_password_of_an_address_are_hidden() {
        assert_eq!(hide_likely_secrets("postgres://u:p@ss word@h/db"), "postgres://***@h/db");
        assert_eq!(hide_likely_secrets("postgres://h/db"), "postgres://h/db");
    }

    #[test]
    fn a_part_of_a_path_may_look_random_but_has_no_prefix_of_a_key() {
        for (path, is_key) in [
            ("/run/secrets/openai", false),
            ("/nix/store/d41d8cd98f00b204e9800998ecf8427e/key", false),
            ("d41d8cd98f00b204e9800998ecf8427e", true),
            ("sk-ant-0123456789", true),
            ("./sk-ant-0123456789", true),
        ] {
            assert_eq!(path_may_be_key(path), is_key, "{path}");
        }
    }
}
