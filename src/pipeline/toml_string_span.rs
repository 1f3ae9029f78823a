//! Maps a range of a TOML string's value to the range of its source text, across quotes and escapes.
//!
//! The string must be valid TOML. If the source does not match the value, there is no range.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

/// Returns the range in `raw` of the bytes `part` of the string `value`. `raw` is the source text of `value`,
/// quotes included.
pub(super) fn locate(raw: &str, value: &str, part: Range<usize>) -> Option<Range<usize>> {
    // A parser may keep line ends as `\r\n`, or convert them to `\n`.
    let is_value =
        |found: &Vec<(char, Range<usize>)>| found.iter().map(|(character, _)| *character).eq(value.chars());
    let characters =
        [true, false].into_iter().filter_map(|keep_cr| characters(raw, keep_cr)).find(is_value)?;
    let mut offset = 0;
    let mut start = None;
    let mut end = None;
    for (character, written) in &characters {
        if offset <= part.start {
            start = Some(written.start);
        }
        if offset < part.end.max(part.start + 1) {
            end = Some(written.end);
        }
        offset += character.len_utf8();
    }
    let start = start?;
    let end = end?;
    // An empty range after the last character.
    if part.start >= offset { Some(end..end) } else { Some(start..end) }
}

/// Returns the characters of the value, each with its range in `raw`. The `\r` of a line end is omitted unless
/// `keep_cr` is set.
fn characters(raw: &str, keep_cr: bool) -> Option<Vec<(char, Range<usize>)>> {
    let (quotes, is_multiline) = match raw {
        _ if raw.starts_with(r#"""""#) || raw.starts_with("'''") => (3, true),
        _ => (1, false),
    };
    let has_escapes = raw.starts_with('"');
    let mut start = quotes;
    if is_multiline {
        let inner = raw.get(start..)?;
        start += if inner.starts_with("\r\n") { 2 } else { usize::from(inner.starts_with('\n')) };
    }
    let inner = raw.get(start..raw.len().checked_sub(quotes)?)?;
    let mut rest = inner.char_indices().peekable();
    let mut found = Vec::with_capacity(inner.len());
    while let Some((at, character)) = rest.next() {
        let value = match character {
            '\\' if has_escapes => parse_escape(&mut rest)?,
            '\r' if !keep_cr && rest.peek().is_some_and(|(_, next)| *next == '\n') => None,
            other => Some(other),
        };
        if let Some(value) = value {
            let end = rest.peek().map_or(inner.len(), |(next, _)| *next);
            found.push((value, start + at..start + end));
        }
    }
    Some(found)
}

/// Parses the part of an escape after the backslash: a character, or a line continuation (`Some(None)`).
fn parse_escape(rest: &mut Peekable<CharIndices<'_>>) -> Option<Option<char>> {
    let (_, kind) = rest.next()?;
    let value = match kind {
        'b' => '\u{8}',
        't' => '\t',
        'n' => '\n',
        'f' => '\u{c}',
        'r' => '\r',
        'e' => '\u{1b}',
        '"' | '\\' => kind,
        'x' => parse_code_point(rest, 2)?,
        'u' => parse_code_point(rest, 4)?,
        'U' => parse_code_point(rest, 8)?,
        space if space.is_whitespace() => {
            while rest.next_if(|(_, next)| next.is_whitespace()).is_some() {}
            return Some(None);
        }
        _ => return None,
    };
    Some(Some(value))
}

fn parse_code_point(rest: &mut Peekable<CharIndices<'_>>, digits: usize) -> Option<char> {
    let text: String = rest.by_ref().take(digits).map(|(_, digit)| digit).collect();
    char::from_u32(u32::from_str_radix(&text, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(raw: &str, part: &str) -> Option<String> {
        let toml: toml::Table = toml::from_str(&format!("x = {raw}")).unwrap();
        let value = toml["x"].as_str().unwrap();
        let start = value.find(part).unwrap();
        locate(raw, value, start..start + part.len()).map(|found| raw[found].to_owned())
    }

    #[test]
    fn a_part_is_located_in_every_kind_of_string() {
        for raw in [
            "'say {{ x }} now'",
            r#""s\u00e4y\t{{ x }} now""#,
            "'''\nsay\n{{ x }} now'''",
            "\"\"\"\nsay \\\n   {{ x }} \"now\" \"\"\"",
            "'''\r\nsay\r\n{{ x }} now'''",
        ] {
            assert_eq!(written(raw, "{{ x }}").as_deref(), Some("{{ x }}"), "{raw}");
        }
    }

    #[test]
    fn the_end_of_a_string_has_a_range() {
        assert_eq!(locate("'ab'", "ab", 2..2), Some(3..3));
        assert_eq!(locate("''", "", 0..0), None);
        assert_eq!(locate("'ab'", "other", 0..1), None);
    }

    proptest! {
        #[test]
        fn a_part_of_any_string_is_located(value in "\\PC{1,20}", start in 0_usize..20) {
            let raw = toml::Value::String(value.clone()).to_string();
            let start = start.min(value.chars().count() - 1);
            let (at, character) = value.char_indices().nth(start).unwrap();
            let found = locate(&raw, &value, at..at + character.len_utf8());
            prop_assert!(found.is_some_and(|found| raw.get(found).is_some()));
        }
    }
}
