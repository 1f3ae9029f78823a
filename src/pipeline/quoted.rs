//! Finds where a part of a TOML string stands in the file, past quotes and escapes.
//!
//! Reads only strings that a TOML parser has accepted; anything it cannot follow has no place.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

/// Returns where the bytes `part` of the string `value` stand in `raw`, which is how `value` is
/// written, quotes included.
pub(super) fn locate(raw: &str, value: &str, part: Range<usize>) -> Option<Range<usize>> {
    // A parser may keep the line ends of the file, or make plain newlines of them.
    let is_it =
        |found: &Vec<(char, Range<usize>)>| found.iter().map(|(character, _)| *character).eq(value.chars());
    let characters = [true, false].into_iter().filter_map(|keep| characters(raw, keep)).find(is_it)?;
    let mut at = 0;
    let (mut start, mut end) = (None, None);
    for (character, written) in &characters {
        if at <= part.start {
            start = Some(written.start);
        }
        if at < part.end.max(part.start + 1) {
            end = Some(written.end);
        }
        at += character.len_utf8();
    }
    let (start, end) = (start?, end?);
    // The place behind the last character.
    if part.start >= at { Some(end..end) } else { Some(start..end) }
}

/// Returns the characters that `raw` stands for, each with its place in `raw`. The `\r` of a line end
/// is left out unless `keep` is set.
fn characters(raw: &str, keep: bool) -> Option<Vec<(char, Range<usize>)>> {
    let (quotes, multi) = match raw {
        _ if raw.starts_with(r#"""""#) || raw.starts_with("'''") => (3, true),
        _ => (1, false),
    };
    let escapes = raw.starts_with('"');
    let mut start = quotes;
    if multi {
        let inner = raw.get(start..)?;
        start += if inner.starts_with("\r\n") { 2 } else { usize::from(inner.starts_with('\n')) };
    }
    let inner = raw.get(start..raw.len().checked_sub(quotes)?)?;
    let mut rest = inner.char_indices().peekable();
    let mut found = Vec::with_capacity(inner.len());
    while let Some((at, character)) = rest.next() {
        let shown = match character {
            '\\' if escapes => escaped(&mut rest)?,
            '\r' if !keep && rest.peek().is_some_and(|(_, next)| *next == '\n') => None,
            other => Some(other),
        };
        if let Some(shown) = shown {
            let end = rest.peek().map_or(inner.len(), |(next, _)| *next);
            found.push((shown, start + at..start + end));
        }
    }
    Some(found)
}

/// Reads what follows a backslash: a character, or a line that goes on (`Some(None)`).
fn escaped(rest: &mut Peekable<CharIndices<'_>>) -> Option<Option<char>> {
    let (_, kind) = rest.next()?;
    let shown = match kind {
        'b' => '\u{8}',
        't' => '\t',
        'n' => '\n',
        'f' => '\u{c}',
        'r' => '\r',
        'e' => '\u{1b}',
        '"' | '\\' => kind,
        'x' => coded(rest, 2)?,
        'u' => coded(rest, 4)?,
        'U' => coded(rest, 8)?,
        space if space.is_whitespace() => {
            while rest.next_if(|(_, next)| next.is_whitespace()).is_some() {}
            return Some(None);
        }
        _ => return None,
    };
    Some(Some(shown))
}

fn coded(rest: &mut Peekable<CharIndices<'_>>, digits: usize) -> Option<char> {
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
    fn a_part_is_found_in_every_kind_of_string() {
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
    fn the_end_of_a_string_has_a_place() {
        assert_eq!(locate("'ab'", "ab", 2..2), Some(3..3));
        assert_eq!(locate("''", "", 0..0), None);
        assert_eq!(locate("'ab'", "other", 0..1), None);
    }

    proptest! {
        #[test]
        fn any_string_is_followed(value in "\\PC{1,20}", start in 0_usize..20) {
            let raw = toml::Value::String(value.clone()).to_string();
            let start = start.min(value.chars().count() - 1);
            let (at, character) = value.char_indices().nth(start).unwrap();
            let found = locate(&raw, &value, at..at + character.len_utf8());
            prop_assert!(found.is_some_and(|found| raw.get(found).is_some()));
        }
    }
}
