//! Detects the field separator of a CSV file.
//!
//! The user's delimiter decides, else a line `sep=;` above the header, as spreadsheets write it. Otherwise the header
//! decides: a comma outside quotes, else a semicolon, else a tab, else `|`. A file without any of them has one column.

use std::io::{self, BufRead};

use csv_core::{ReadFieldResult, Reader};

use super::error::LayoutFault;
use super::options::Delimiter;
use crate::types::{Advice, Remedy};

/// Most bytes of the first record that are scanned. The names of all columns must be shorter.
pub(super) const MAX_SCAN_BYTES: usize = 1 << 20;

/// Separator that the first record of a file shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Separator {
    /// The first record is a `sep=` line: the header follows.
    SepLine(u8),
    /// The first record is the header.
    Header(u8),
    /// The first record is a header that can be split in several ways. Holds the message.
    Ambiguous(LayoutFault),
}

/// What is known of the separator before the file is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// The user has named it.
    Given(u8),
    /// The format of the file specifies it.
    Format(u8),
    /// Nothing.
    Unknown,
}

impl Expected {
    /// Returns what is known from the separator of the format and from the delimiter that the user has named.
    pub(super) fn of(format_separator: Option<u8>, delimiter: Option<Delimiter>) -> Self {
        match (delimiter, format_separator) {
            (Some(delimiter), _) => Self::Given(delimiter.byte()),
            (None, Some(separator)) => Self::Format(separator),
            (None, None) => Self::Unknown,
        }
    }
}

/// Reads the first record into `first` and returns its separator. Of lines with nothing but spaces before it, only the
/// line ends are kept, which are no record.
pub(super) fn detect(
    input: &mut impl BufRead,
    first: &mut Vec<u8>,
    expected: Expected,
) -> io::Result<Separator> {
    let mut scan = HeaderScan::new();
    let mut start = 0;
    while first.len() - start < MAX_SCAN_BYTES {
        let available = input.fill_buf()?;
        if available.is_empty() {
            break;
        }
        let used = available.iter().position(|byte| scan.take(*byte)).map_or(available.len(), |at| at + 1);
        first.extend_from_slice(&available[..used]);
        input.consume(used);
        if !scan.has_ended {
            continue;
        }
        if !first[start..].iter().all(|byte| matches!(byte, b' ' | b'\r' | b'\n')) {
            break;
        }
        let mut at = 0;
        first.retain(|byte| {
            at += 1;
            at <= start || *byte != b' '
        });
        start = first.len();
        scan = HeaderScan::new();
    }
    if !scan.has_ended && first.len() - start >= MAX_SCAN_BYTES {
        let reason = format!(
            "the first line has more than {MAX_SCAN_BYTES} bytes without a line end, so it is no header; a CSV file has one \
             line for each item below the names of the columns"
        );
        return Ok(Separator::Ambiguous(reason.into()));
    }
    Ok(match (sep_line(first[start..].trim_ascii()), expected) {
        (Some(_), Expected::Given(separator)) => Separator::SepLine(separator),
        (Some(separator), Expected::Format(_) | Expected::Unknown) => Separator::SepLine(separator),
        (None, Expected::Given(separator)) => Separator::Header(separator),
        (None, Expected::Format(separator)) => scan.check_format_separator(separator),
        (None, Expected::Unknown) => scan.detect_separator(),
    })
}

/// Returns the separator that a line such as `sep=;` names.
fn sep_line(line: &[u8]) -> Option<u8> {
    let line = line.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(line);
    let (word, named) = line.split_at_checked(4)?;
    if !word.eq_ignore_ascii_case(b"sep=") {
        return None;
    }
    match named {
        // A tab at the end of the line was trimmed.
        [] | b"\\t" => Some(b'\t'),
        [separator] if separator.is_ascii_punctuation() && *separator != b'"' => Some(*separator),
        _ => None,
    }
}

/// Counts possible separators outside quotes.
struct HeaderScan {
    /// Separates fields at commas.
    reader: Reader,
    commas: usize,
    semicolons: usize,
    tabs: usize,
    pipes: usize,
    has_ended: bool,
}

impl HeaderScan {
    fn new() -> Self {
        Self { reader: Reader::new(), commas: 0, semicolons: 0, tabs: 0, pipes: 0, has_ended: false }
    }

    /// Processes one byte; returns whether it ends the record.
    fn take(&mut self, byte: u8) -> bool {
        // Each possible separator ends a field, so that quotes count after any of them.
        let with_comma = if matches!(byte, b';' | b'\t' | b'|') { b',' } else { byte };
        let (result, ..) = self.reader.read_field(&[with_comma], &mut [0]);
        if result == (ReadFieldResult::Field { record_end: false }) {
            let count = match byte {
                b',' => &mut self.commas,
                b';' => &mut self.semicolons,
                b'|' => &mut self.pipes,
                _ => &mut self.tabs,
            };
            *count += 1;
        }
        self.has_ended = result == (ReadFieldResult::Field { record_end: true });
        self.has_ended
    }

    fn counts(&self) -> [(u8, usize); 4] {
        [(b',', self.commas), (b';', self.semicolons), (b'\t', self.tabs), (b'|', self.pipes)]
    }

    /// Returns the separator of a file whose format does not specify one.
    fn detect_separator(&self) -> Separator {
        let counts = self.counts();
        let Some((separator, count)) = counts.into_iter().find(|(_, count)| *count > 0) else {
            return Separator::Header(b',');
        };
        match counts.into_iter().find(|(_, other)| *other > count) {
            None => Separator::Header(separator),
            Some((other, more)) => {
                let reason = format!(
                    "it is unclear what separates the columns: outside quotes the header has {} {count} times and {} \
                     {more} times",
                    display(separator),
                    display(other),
                );
                let advice = format!(
                    "put the names with {} in quotes, write `sep=` and the separator on a line of its own above the \
                     header, or ",
                    display(separator),
                );
                let advice = Advice::from(advice).with_remedy(Remedy::SetDelimiter);
                Separator::Ambiguous(LayoutFault::with_advice(reason, advice))
            }
        }
    }

    /// Returns the separator of a file whose format specifies it.
    fn check_format_separator(&self, format_separator: u8) -> Separator {
        let count = |separator_byte: u8| {
            self.counts().into_iter().find(|(separator, _)| *separator == separator_byte)
        };
        if count(format_separator).is_some_and(|(_, count)| count > 0) {
            return Separator::Header(format_separator);
        }
        match self.counts().into_iter().find(|(_, count)| *count > 0) {
            None => Separator::Header(format_separator),
            Some((other, _)) => Separator::Ambiguous(LayoutFault::other_format(
                format!(
                    "the header has no {}, and seems to be separated by {}",
                    display(format_separator),
                    display(other),
                ),
                "name the file .csv, or ",
                "csv",
            )),
        }
    }
}

fn display(separator: u8) -> &'static str {
    match separator {
        b',' => "`,`",
        b';' => "`;`",
        b'|' => "`|`",
        _ => "a tab",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect_in(text: &str) -> Separator {
        let mut first = Vec::new();
        let mut input = text.as_bytes();
        let detected = detect(&mut input, &mut first, Expected::Unknown).unwrap();
        assert_eq!([&first, input].concat(), text.as_bytes(), "nothing is lost");
        detected
    }

    #[test]
    fn the_header_determines_the_separator_and_a_comma_has_priority() {
        for (header, separator) in [
            ("id,text\n1;2;3\n", b','),
            ("id;text\r\n1,5;x", b';'),
            ("id\ttext", b'\t'),
            ("\n\r\nid;text\n", b';'),
            ("id\n1;2\n", b','),
            ("", b','),
            ("\"a,b\";c\n", b';'),
            ("\"a\"\",\";c\n", b';'),
            ("\"a\n,,\";c\n", b';'),
            ("5\" tube;a,\n", b','),
            ("id;text\tmore\n", b';'),
            ("id,first;last\n", b','),
            ("id|text|price\n", b'|'),
            ("id|\"a,b;c\"\n", b'|'),
        ] {
            assert_eq!(detect_in(header), Separator::Header(separator), "{header:?}");
        }
    }

    #[test]
    fn lines_of_spaces_above_the_header_keep_only_their_line_ends() {
        for (text, kept, separator) in [
            ("   \r\n\n \nid;text\n1;2\n", "\r\n\n\nid;text\n", Separator::Header(b';')),
            ("  \nsep=|\nid|text\n", "\nsep=|\n", Separator::SepLine(b'|')),
            ("  id  ,b\n", "  id  ,b\n", Separator::Header(b',')),
        ] {
            let mut first = Vec::new();
            let detected = detect(&mut text.as_bytes(), &mut first, Expected::Unknown).unwrap();
            assert_eq!((String::from_utf8(first).unwrap().as_str(), detected), (kept, separator), "{text:?}");
        }
    }

    #[test]
    fn a_delimiter_of_the_user_decides_and_a_sep_line_is_still_no_header() {
        let given =
            |text: &str| detect(&mut text.as_bytes(), &mut Vec::new(), Expected::Given(b'^')).unwrap();
        assert_eq!(given("a,b^c\n"), Separator::Header(b'^'));
        assert_eq!(given("sep=;\na^b\n"), Separator::SepLine(b'^'));
    }

    #[test]
    fn a_header_without_a_line_end_is_refused_after_a_bounded_part() {
        let mut input = io::BufReader::new(io::Read::take(io::repeat(b'x'), 1 << 40));
        let mut first = Vec::new();
        let detected = detect(&mut input, &mut first, Expected::Unknown).unwrap();
        let Separator::Ambiguous(fault) = detected else { panic!("{detected:?}") };
        assert!(fault.to_string().contains("without a line end"), "{fault}");
        assert!(first.len() < 2 * MAX_SCAN_BYTES);
    }

    #[test]
    fn a_header_with_more_semicolons_than_commas_is_ambiguous() {
        let Separator::Ambiguous(fault) = detect_in("name;net, total;city\n") else {
            panic!("not ambiguous")
        };
        let why = fault.to_string();
        assert!(why.contains("`,` 1 times and `;` 2 times") && why.contains("`sep=`"), "{why}");
    }

    #[test]
    fn a_sep_line_above_the_header_names_the_separator() {
        for (line, separator) in
            [("sep=;", b';'), ("SEP=,", b','), ("sep=\t", b'\t'), ("\"sep=|\"", b'|'), ("sep=\\t", b'\t')]
        {
            assert_eq!(detect_in(&format!("{line}\r\nid,text\n")), Separator::SepLine(separator), "{line:?}");
        }
        assert_eq!(detect_in("separate;sep=;\n"), Separator::Header(b';'));
        assert_eq!(detect_in("sep=1,x\n"), Separator::Header(b','));
    }
}
