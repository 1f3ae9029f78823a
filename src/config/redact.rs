//! Finds possible secrets in the text of a configuration, so that diagnostics do not show them.
//!
//! Keys must not be in the file, but users may put them there, and a diagnostic shows the line of the error. It is
//! better to redact a harmless text than to show a key.

use std::ops::Range;

use crate::diagnostics::{Spans, TomlString};
use crate::provider::KeySource;

/// Substrings of the names of secrets.
const SECRET_NAME_SUBSTRINGS: [&str; 9] =
    ["key", "secret", "token", "pass", "auth", "credential", "bearer", "cookie", "headers"];

/// Words in the names of secrets. They are too short to be used as substrings.
const SECRET_NAME_WORDS: [&str; 2] = ["pw", "pwd"];

/// Returns the possible secrets of a parsed document.
pub(super) fn find_secrets(spans: &Spans<'_>) -> Vec<TomlString> {
    spans.strings().iter().filter(|text| may_be_secret(text)).cloned().collect()
}

/// Returns whether a text is a key source that does not contain the secret itself.
fn is_source_without_secret(text: &str) -> bool {
    text.parse().is_ok_and(|source: KeySource| !source.may_hold_secret())
}

fn may_be_secret(text: &TomlString) -> bool {
    let path: Vec<&str> = text.path.iter().map(String::as_str).collect();
    let has_secret_name = match path.as_slice() {
        ["provider", _, "max_tokens_field"] => false,
        ["provider", _, "base_url"] => has_credentials(&text.value) || text.value.contains(['?', '#']),
        ["provider", _, "headers", ..] => true,
        ["provider", _, rest @ ..] => rest.iter().any(|key| names_secret(key)),
        ["route" | "retry" | "defaults" | "simulator" | "run", ..] => false,
        anywhere => anywhere.iter().any(|key| names_secret(key)),
    };
    let may_be_secret = has_secret_name || has_credentials(&text.value);
    // The arguments of a command may contain a key, and a key may be written instead of the name of a variable.
    let is_harmless = is_source_without_secret(&text.value);
    may_be_secret && !is_harmless
}

/// Returns whether a text is a URL with a user and a password.
fn has_credentials(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

fn names_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let mut parts = name.split(|character: char| !character.is_ascii_alphanumeric());
    SECRET_NAME_SUBSTRINGS.iter().any(|part| name.contains(part))
        || parts.any(|part| SECRET_NAME_WORDS.contains(&part))
}

/// Returns the possible secrets of a text that does not parse: words that follow the name of a secret on its line,
/// in its list, its multi-line string or under its heading; URLs with a password; and long words of letters and
/// digits.
pub(super) fn guess_secrets(text: &str) -> Vec<TomlString> {
    let mut found = Vec::new();
    let mut follows_secret_name = false;
    let mut list_depth = 0_usize;
    let mut in_multiline_string = false;
    let mut under_secret_heading = false;
    for line in text.split_inclusive('\n') {
        let line_start = line.as_ptr() as usize - text.as_ptr() as usize;
        if !in_multiline_string && line.trim_start().starts_with('[') && list_depth == 0 {
            under_secret_heading = line.contains("headers");
        }
        follows_secret_name =
            under_secret_heading || follows_secret_name && (list_depth > 0 || in_multiline_string);
        let mut last_end = 0;
        for Range { start, end } in words(line) {
            list_depth = open_lists(list_depth, &line[last_end..start], follows_secret_name);
            last_end = end;
            let word = &line[start..end];
            let is_source =
                word.starts_with("file:") || word.starts_with("env:") && is_source_without_secret(word);
            if !is_source && (follows_secret_name && word.len() >= 4 || looks_like_key(word)) {
                found.push(TomlString {
                    path: Vec::new(),
                    span: line_start + start..line_start + end,
                    value: word.to_owned(),
                });
            }
            follows_secret_name |= names_secret(word);
        }
        list_depth = open_lists(list_depth, &line[last_end..], follows_secret_name);
        for Range { start, end } in urls_with_password(line) {
            let value = line[start..end].to_owned();
            found.push(TomlString { path: Vec::new(), span: line_start + start..line_start + end, value });
        }
        let delimiters = line.matches("\"\"\"").count() + line.matches("'''").count();
        in_multiline_string ^= delimiters % 2 == 1;
    }
    found
}

/// Returns the number of open lists after the name of a secret.
fn open_lists(open: usize, between: &str, follows_secret_name: bool) -> usize {
    between.chars().fold(open, |open, character| match character {
        '[' if follows_secret_name => open + 1,
        ']' => open.saturating_sub(1),
        _ => open,
    })
}

fn looks_like_key(word: &str) -> bool {
    word.len() >= 20
        && word.chars().any(|character| character.is_ascii_digit())
        && word.chars().any(|character| character.is_alphabetic())
}

/// Returns the URLs with a password. A password may contain any character except whitespace and quotes.
fn urls_with_password(line: &str) -> impl Iterator<Item = Range<usize>> {
    let ends = |character: char| character.is_whitespace() || "\"'".contains(character);
    parts(line, ends).into_iter().filter(|part| has_credentials(&line[part.clone()]))
}

fn words(line: &str) -> Vec<Range<usize>> {
    parts(line, |character| character.is_whitespace() || "\"',[]{}=".contains(character))
}

fn parts(line: &str, ends_word: impl Fn(char) -> bool + Copy) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = 0;
    for part in line.split_inclusive(ends_word) {
        let word = part.trim_end_matches(ends_word);
        if !word.is_empty() {
            words.push(start..start + word.len());
        }
        start += part.len();
    }
    words
}
