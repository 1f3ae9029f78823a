//! Finds possible secrets in the text of a configuration or of a pipeline, so that diagnostics do not show them.
//!
//! Keys must not be in the file, but users may put them there, and a diagnostic shows the line of the error. A secret
//! is recognized by the name of its setting, or because it looks like a key, wherever it is written. It is better to
//! redact a harmless text than to show a key.

use std::ops::Range;

use crate::diagnostics::{Spans, TomlString, likely_keys};

use super::keys::key_source::KeySource;

/// Substrings of the names of secrets.
const SECRET_NAME_SUBSTRINGS: [&str; 9] =
    ["key", "secret", "token", "pass", "auth", "credential", "bearer", "cookie", "headers"];

/// The longest text that is taken for a misspelled mode of `[serve] tokens`.
const MAX_TOKEN_MODE_BYTES: usize = 12;

/// Words in the names of secrets. They are too short to be used as substrings.
const SECRET_NAME_WORDS: [&str; 2] = ["pw", "pwd"];

/// Keys of a step with a text, or with texts.
const PIPELINE_TEXTS: [&str; 10] =
    ["name", "prompt", "system", "when", "attach", "choice", "schema", "needs", "route", "stop"];

/// Returns the possible secrets of a parsed document.
pub(crate) fn find_secrets(spans: &Spans<'_>) -> Vec<TomlString> {
    let text = spans.text();
    let strings = spans.strings().iter().filter(|text| may_be_secret(text));
    let keys = spans.keys().iter().filter(|key| is_below_keys(&key.path));
    let is_secret_number =
        |number: &&TomlString| is_in_keys_or_headers(&number.path) || !likely_keys(&number.value).is_empty();
    let numbers = spans.numbers().iter().filter(is_secret_number);
    let mut found: Vec<TomlString> = strings.chain(keys).chain(numbers).cloned().collect();
    for value in spans.strings().iter().chain(spans.keys()) {
        // A key that is written with escapes is not in the text of the file.
        let written = text.get(value.span.clone()).unwrap_or_default();
        let decoded = likely_keys(&value.value).into_iter().filter_map(|key| value.value.get(key));
        let escaped = decoded.filter(|key| !written.contains(key));
        found.extend(escaped.map(|key| TomlString { value: key.to_owned(), ..value.clone() }));
    }
    found.extend(secrets_of_text(text));
    found
}

/// Returns whether the key at `path` is in a table at the place of the list `keys`.
fn is_below_keys(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(path.as_slice(), ["provider", _, "keys", _, ..] | ["keys", _, ..])
}

/// Returns whether the value at `path` should be the text of a key source.
fn is_in_keys_or_headers(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(path.as_slice(), ["provider", _, "keys" | "headers", ..] | ["keys" | "headers", ..])
}

/// Returns the words that look like keys, and the URLs with a password, wherever they are: also in comments.
fn secrets_of_text(text: &str) -> Vec<TomlString> {
    let mut ranges = likely_keys(text);
    for line in text.split_inclusive('\n') {
        let line_start = line.as_ptr() as usize - text.as_ptr() as usize;
        let in_text = |part: Range<usize>| line_start + part.start..line_start + part.end;
        ranges.extend(urls_with_password(line).map(in_text));
    }
    let mut found = Vec::new();
    for span in ranges {
        let secret = &text[span.clone()];
        // A message may have only a part, such as the provider of a target.
        let parts = secret.split('/').filter(|part| !likely_keys(part).is_empty());
        for value in parts.chain([secret]) {
            found.push(TomlString { path: Vec::new(), span: span.clone(), value: value.to_owned() });
        }
    }
    found
}

/// Returns whether a text is a key source that does not contain the secret itself.
fn is_source_without_secret(text: &str) -> bool {
    text.parse().is_ok_and(|source: KeySource| !source.may_hold_secret())
}

fn may_be_secret(text: &TomlString) -> bool {
    let path: Vec<&str> = text.path.iter().map(String::as_str).collect();
    if is_pipeline_text(&path) {
        return false;
    }
    let has_secret_name = match path.as_slice() {
        ["provider", _, "max_tokens_field"] => false,
        ["provider", _, "base_url"] => has_credentials(&text.value) || text.value.contains(['?', '#']),
        ["provider", _, "headers", ..] => true,
        ["provider", _, rest @ ..] => rest.iter().any(|key| names_secret(key)),
        // A mode. A token that is written in its place is longer.
        ["serve", "tokens"] => text.value.len() > MAX_TOKEN_MODE_BYTES,
        ["route" | "retry" | "defaults" | "simulator" | "run", ..] => false,
        anywhere => anywhere.iter().any(|key| names_secret(key)),
    };
    let may_be_secret = has_secret_name || has_credentials(&text.value);
    // The arguments of a command may contain a key, and a key may be written instead of the name of a variable.
    let is_harmless = is_source_without_secret(&text.value);
    may_be_secret && !is_harmless
}

/// Returns whether `path` is a text of a pipeline. Its words are about anything, and have no secret by their place.
fn is_pipeline_text(path: &[&str]) -> bool {
    match path {
        ["step", _, key, ..] => PIPELINE_TEXTS.contains(key),
        ["input", "schema", ..] => true,
        _ => false,
    }
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
/// in its list, its multi-line string or under its heading; URLs with a password; and words that look like keys.
pub(crate) fn guess_secrets(text: &str) -> Vec<TomlString> {
    let mut found = secrets_of_text(text);
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
            if !is_source && follows_secret_name && word.len() >= 4 {
                found.push(TomlString {
                    path: Vec::new(),
                    span: line_start + start..line_start + end,
                    value: word.to_owned(),
                });
            }
            follows_secret_name |= names_secret(word);
        }
        list_depth = open_lists(list_depth, &line[last_end..], follows_secret_name);
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
