//! Recognises by its first record a file that is written in another way than its name says.
//!
//! Such a file is refused at once: every one of its lines would be rejected for the same reason.

/// Returns what a line of JSON is called in a file that is read as CSV, with advice; `None` where its first record is a
/// header.
pub(super) fn json_in_csv(first: &[u8]) -> Option<&'static str> {
    let first = first.trim_ascii();
    match first.first()? {
        b'{' if next_is(first, b"\"") => Some(
            "looks like JSON lines, not like the header of a CSV file; name it .jsonl, or use --from jsonl",
        ),
        b'{' | b'[' if first.len() == 1 || next_is(first, b"{") => {
            Some("looks like JSON, not like the header of a CSV file; name it .json, or use --from json")
        }
        _ => None,
    }
}

/// Returns why a first line that is no JSON value cannot begin a file of one JSON object per line; `None` where it is a
/// broken line like any other. `is_cut` says whether a value begins on it that does not end there.
pub(super) fn json_over_lines(first: &[u8], is_cut: bool) -> Option<&'static str> {
    let first = first.trim_ascii();
    match first.first()? {
        b'[' if is_cut => Some(
            "looks like one JSON array over several lines, not like one object per line; name it .json, or use --from \
             json",
        ),
        b'{' if first.len() == 1 => Some(
            "looks like JSON over several lines, not like one object per line; write each object on a line of its own, \
             or put [ ] around all of them, and name it .json, or use --from json",
        ),
        _ => None,
    }
}

/// Returns why a file of one JSON object per line cannot begin with this line, which is an array; `None` where it is no
/// array of objects.
pub(super) fn array_in_lines(first: &[u8]) -> Option<&'static str> {
    let first = first.trim_ascii();
    (first.first() == Some(&b'[') && next_is(first, b"{")).then_some(
        "looks like one JSON array, not like one object per line; name it .json, or use --from json",
    )
}

/// Returns why a file that begins so is no text; `None` where it may be.
pub(super) fn workbook(first: &[u8]) -> Option<&'static str> {
    // A zip file, which .xlsx and .ods are, and the older .xls.
    const BEGINNINGS: [&[u8]; 2] = [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"];
    BEGINNINGS.iter().any(|beginning| first.starts_with(beginning)).then_some(
        "looks like a workbook of Excel or another packed file, not like text; save the sheet as CSV UTF-8 and use that \
         file",
    )
}

/// Returns whether these bytes come after the first one, white space aside.
fn next_is(text: &[u8], wanted: &[u8]) -> bool {
    text.get(1..).is_some_and(|rest| rest.trim_ascii_start().starts_with(wanted))
}
