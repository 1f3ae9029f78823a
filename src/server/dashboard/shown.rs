//! How the pages show texts of others, numbers, times and money.
//!
//! Maud escapes every text. What is left to do here: a text of an item or a provider may be long, may have characters that
//! change the direction of what follows it, and may have characters that cannot be seen. It is cut, isolated, and such
//! characters are shown by their numbers.

use std::fmt::Write;

use jiff::Timestamp;
use maud::{Markup, html};

use crate::terminal_text::is_invisible;

/// The most characters of a text within a line.
const MAX_INLINE: usize = 300;

/// The most characters of a text in a block of its own.
const MAX_BLOCK: usize = 20_000;

/// Invisible characters that emoji need. They change nothing around them.
const IN_EMOJI: [char; 2] = ['\u{200d}', '\u{fe0f}'];

/// Shows a text of others within a line.
pub(super) fn inline(text: &str) -> Markup {
    let (shown, rest) = visible(text, MAX_INLINE, Lines::Joined);
    html! {
        bdi { (shown) }
        @if rest > 0 { "…" }
    }
}

/// Shows a text of others in a block, with its lines. `name` describes it to those who do not see it.
pub(super) fn block(name: &str, id: &str, text: &str) -> Markup {
    let (shown, rest) = visible(text, MAX_BLOCK, Lines::Kept);
    html! {
        pre dir="auto" tabindex="0" role="region" aria-label=(name) id=(id) { (shown) }
        @if rest > 0 {
            p .note { "The text is cut: " (count(rest as u64)) " more characters are not shown." }
        }
    }
}

/// Returns a text of others for the title of a page.
pub(super) fn plain(text: &str) -> String {
    visible(text, 80, Lines::Joined).0
}

/// Returns a text of others with its lines.
pub(super) fn plain_lines(text: &str) -> String {
    visible(text, MAX_BLOCK, Lines::Kept).0
}

/// What happens to the ends of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    Joined,
    Kept,
}

/// Returns the first `max` characters of a text, and how many more it has.
fn visible(text: &str, max: usize, lines: Lines) -> (String, usize) {
    let mut shown = String::with_capacity(text.len().min(max));
    let mut characters = text.chars();
    for character in characters.by_ref().take(max) {
        match character {
            '\n' | '\t' if lines == Lines::Kept => shown.push(character),
            '\r' if lines == Lines::Kept => {}
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => shown.push(' '),
            _ if is_invisible(character) && !IN_EMOJI.contains(&character) => {
                // Writing to a string cannot fail.
                let _ = write!(shown, "\u{27e8}U+{:04X}\u{27e9}", u32::from(character));
            }
            _ => shown.push(character),
        }
    }
    (shown, characters.count())
}

/// Returns a number with separators, such as `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Returns an amount of US dollars.
pub(super) fn usd(amount: f64) -> String {
    let digits = if amount.abs() >= 100.0 || amount == 0.0 {
        2
    } else if amount.abs() >= 0.01 {
        4
    } else {
        6
    };
    format!("${amount:.digits$}")
}

/// Returns a number that has parts, such as a rate.
pub(super) fn decimal(number: f64) -> String {
    if number >= 1_000.0 {
        count(number.round() as u64)
    } else if number >= 10.0 || number == 0.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.2}")
    }
}

/// Returns a part of a whole, such as `45%`.
pub(super) fn percent(part: f64) -> String {
    format!("{:.0}%", part * 100.0)
}

/// Returns a duration, such as `2 min 10 s`.
pub(super) fn seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "unknown".to_owned();
    }
    if seconds < 1.0 {
        return format!("{:.0} ms", seconds * 1_000.0);
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    let minutes = whole / 60;
    let hours = minutes / 60;
    if hours >= 48 {
        format!("{} days {} h", hours / 24, hours % 24)
    } else if hours >= 1 {
        format!("{hours} h {} min", minutes % 60)
    } else {
        format!("{minutes} min {} s", whole % 60)
    }
}

/// Shows a time, given in milliseconds since 1970.
pub(super) fn time(milliseconds: i64) -> Markup {
    html! {
        @match Timestamp::from_millisecond(milliseconds) {
            Ok(at) => {
                time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()) {
                    (at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
                }
            }
            Err(_) => { "unknown" }
        }
    }
}

/// Returns a time of the day, such as `12:30`.
pub(super) fn clock_time(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(at) => at.strftime("%H:%M").to_string(),
        Err(_) => String::new(),
    }
}

/// Returns a text as one segment of a URL path, or as a value of its query.
pub(super) fn url_segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            byte => {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_is_escaped_isolated_and_cut() {
        let shown = inline("<script>alert(1)</script>\" onload=\"x").into_string();
        assert!(shown.starts_with("<bdi>&lt;script&gt;") && !shown.contains("<script"), "{shown}");
        assert!(!shown.contains("\" onload"), "{shown}");
        let long = "a".repeat(1 << 20);
        assert_eq!(inline(&long).into_string().len(), "<bdi></bdi>…".len() + MAX_INLINE);
        let cut = block("Answer", "answer", &long).into_string();
        assert!(cut.len() < MAX_BLOCK + 300, "{}", cut.len());
        assert!(cut.contains("1,028,576 more characters"), "{}", &cut[MAX_BLOCK..]);
    }

    #[test]
    fn characters_that_cannot_be_seen_are_shown_by_their_numbers() {
        let shown = inline("a\u{202e}b\u{0}c\u{200b}\nd").into_string();
        assert_eq!(shown, "<bdi>a⟨U+202E⟩b⟨U+0000⟩c⟨U+200B⟩ d</bdi>");
        assert_eq!(inline("\u{2764}\u{fe0f}").into_string(), "<bdi>\u{2764}\u{fe0f}</bdi>");
        assert!(block("x", "y", "a\r\n\u{2066}b").into_string().contains(">a\n⟨U+2066⟩b<"));
    }

    #[test]
    fn numbers_times_and_money_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.00012, 0.5, 123.456].map(usd), ["$0.00", "$0.000120", "$0.5000", "$123.46"]);
        assert_eq!([0.0, 1.5, 12.4, 12_345.6].map(decimal), ["0", "1.50", "12", "12,346"]);
        assert_eq!(
            [0.25, 12.34, 130.0, 7_260.0, 200_000.0, f64::NAN].map(seconds),
            ["250 ms", "12.3 s", "2 min 10 s", "2 h 1 min", "2 days 7 h", "unknown"]
        );
        assert_eq!(percent(0.456), "46%");
        assert_eq!(
            time(0).into_string(),
            "<time datetime=\"1970-01-01T00:00:00Z\">1970-01-01 00:00:00 UTC</time>"
        );
        assert_eq!(url_segment("a/b?c=ü%"), "a%2Fb%3Fc%3D%C3%BC%25");
    }
}
