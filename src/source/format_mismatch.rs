//! Detects a file whose format is not the one that its name indicates, from its first record.
//!
//! Such a file is refused at once, because every line of it would be rejected for the same reason.

use super::error::LayoutFault;

/// The advice for a JSON file, before the remedy.
const NAME_IT_JSON: &str = "name it .json, or ";

/// Returns a message with advice if the first record of a file that is read as CSV is JSON; `None` if it is a
/// header.
pub(super) fn json_in_csv(first: &[u8]) -> Option<LayoutFault> {
    let first = first.trim_ascii();
    match first.first()? {
        b'{' if next_is(first, b"\"") => Some(LayoutFault::other_format(
            "looks like JSON lines, not like the header of a CSV file",
            "name it .jsonl, or ",
            "jsonl",
        )),
        b'{' | b'[' if first.len() == 1 || next_is(first, b"{") => Some(LayoutFault::other_format(
            "looks like JSON, not like the header of a CSV file",
            NAME_IT_JSON,
            "json",
        )),
        _ => None,
    }
}

/// Returns why a first line that is not a JSON value shows that the file does not have one JSON object per
/// line; `None` if it is only a broken line. `is_cut` is whether a value begins on the line and does not end
/// there.
pub(super) fn json_over_lines(first: &[u8], is_cut: bool) -> Option<LayoutFault> {
    let first = first.trim_ascii();
    match first.first()? {
        b'[' if is_cut => Some(LayoutFault::other_format(
            "looks like one JSON array over several lines, not like one object per line",
            NAME_IT_JSON,
            "json",
        )),
        b'{' if first.len() == 1 => Some(LayoutFault::other_format(
            "looks like JSON over several lines, not like one object per line",
            "write each object on a line of its own, or put [ ] around all of them, and name it .json, or ",
            "json",
        )),
        _ => None,
    }
}

/// Returns why a file with one JSON object per line cannot begin with this line, if it is an array of objects.
pub(super) fn array_in_lines(first: &[u8]) -> Option<LayoutFault> {
    let first = first.trim_ascii();
    (first.first() == Some(&b'[') && next_is(first, b"{")).then(|| {
        LayoutFault::other_format(
            "looks like one JSON array, not like one object per line",
            NAME_IT_JSON,
            "json",
        )
    })
}

/// Returns whether `wanted` follows the first byte, ignoring white space.
fn next_is(text: &[u8], wanted: &[u8]) -> bool {
    text.get(1..).is_some_and(|rest| rest.trim_ascii_start().starts_with(wanted))
}
