//! Finds what may be a secret in a configuration's text, so that no fault shows it.
//!
//! Keys do not belong into the file, but people put them there, and what they did wrong is then
//! shown with its line. Better to cover a harmless text than to show one key.

use std::ops::Range;

use crate::document::{Places, Text};
use crate::provider::KeySource;

/// Parts of names under which secrets stand.
const TELLING: [&str; 9] =
    ["key", "secret", "token", "pass", "auth", "credential", "bearer", "cookie", "headers"];

/// Whole parts of names under which secrets stand, too short to be looked for within words.
const TELLING_PARTS: [&str; 2] = ["pw", "pwd"];

/// Finds the strings of a text that parses.
pub(super) fn find(places: &Places<'_>) -> Vec<Text> {
    places.strings().iter().filter(|text| is_suspicious(text)).cloned().collect()
}

/// Returns whether a text is a source that holds no secret itself.
fn is_harmless(text: &str) -> bool {
    text.parse().is_ok_and(|source: KeySource| !source.may_hold_secret())
}

fn is_suspicious(text: &Text) -> bool {
    let path: Vec<&str> = text.path.iter().map(String::as_str).collect();
    let telling = match path.as_slice() {
        ["provider", _, "max_tokens_field"] => false,
        ["provider", _, "base_url"] => has_credentials(&text.value) || text.value.contains(['?', '#']),
        ["provider", _, "headers", ..] => true,
        ["provider", _, rest @ ..] => rest.iter().any(|key| is_telling(key)),
        ["route" | "retry" | "defaults" | "simulator" | "run", ..] => false,
        anywhere => anywhere.iter().any(|key| is_telling(key)),
    };
    let telling = telling || has_credentials(&text.value);
    // A command's arguments may hold a key, too, and so may what should be a variable's name.
    let harmless = is_harmless(&text.value);
    telling && !harmless
}

/// Returns whether a text is an address that holds a user and a password.
fn has_credentials(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

fn is_telling(name: &str) -> bool {
    let name = name.to_lowercase();
    let mut parts = name.split(|character: char| !character.is_ascii_alphanumeric());
    TELLING.iter().any(|part| name.contains(part)) || parts.any(|part| TELLING_PARTS.contains(&part))
}

/// Finds words in a text that does not parse: those after a telling one, on its line, in its list, its text of
/// several lines or under its heading, every address with a password, and every long one with letters and digits.
pub(super) fn guess(text: &str) -> Vec<Text> {
    let mut found = Vec::new();
    let mut telling = false;
    let mut open = 0_usize;
    let mut is_open_text = false;
    let mut under_heading = false;
    for line in text.split_inclusive('\n') {
        let line_start = line.as_ptr() as usize - text.as_ptr() as usize;
        if !is_open_text && line.trim_start().starts_with('[') && open == 0 {
            under_heading = line.contains("headers");
        }
        telling = under_heading || telling && (open > 0 || is_open_text);
        let mut last_end = 0;
        for Range { start, end } in words(line) {
            open = depth(open, &line[last_end..start], telling);
            last_end = end;
            let word = &line[start..end];
            let source = word.starts_with("file:") || word.starts_with("env:") && is_harmless(word);
            if !source && (telling && word.len() >= 4 || looks_like_a_key(word)) {
                found.push(Text {
                    path: Vec::new(),
                    span: line_start + start..line_start + end,
                    value: word.to_owned(),
                });
            }
            telling |= is_telling(word);
        }
        open = depth(open, &line[last_end..], telling);
        for Range { start, end } in addresses(line) {
            let value = line[start..end].to_owned();
            found.push(Text { path: Vec::new(), span: line_start + start..line_start + end, value });
        }
        let marks = line.matches("\"\"\"").count() + line.matches("'''").count();
        is_open_text ^= marks % 2 == 1;
    }
    found
}

/// Counts open lists after a telling word.
fn depth(open: usize, between: &str, telling: bool) -> usize {
    between.chars().fold(open, |open, character| match character {
        '[' if telling => open + 1,
        ']' => open.saturating_sub(1),
        _ => open,
    })
}

fn looks_like_a_key(word: &str) -> bool {
    word.len() >= 20
        && word.chars().any(|character| character.is_ascii_digit())
        && word.chars().any(|character| character.is_alphabetic())
}

/// Returns the addresses that hold a password, which may have any character but a blank or a quote.
fn addresses(line: &str) -> impl Iterator<Item = Range<usize>> {
    let ends = |character: char| character.is_whitespace() || "\"'".contains(character);
    parts(line, ends).into_iter().filter(|part| has_credentials(&line[part.clone()]))
}

fn words(line: &str) -> Vec<Range<usize>> {
    parts(line, |character| character.is_whitespace() || "\"',[]{}=".contains(character))
}

fn parts(line: &str, ends_word: impl Fn(char) -> bool + Copy) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = 0;
    for piece in line.split_inclusive(ends_word) {
        let word = piece.trim_end_matches(ends_word);
        if !word.is_empty() {
            words.push(start..start + word.len());
        }
        start += piece.len();
    }
    words
}
