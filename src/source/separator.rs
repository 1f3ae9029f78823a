//! Finds what separates the fields of a CSV file.
//!
//! A line `sep=;` above the header decides, as spreadsheets write it. Else the header does: a comma outside quotes, else
//! a semicolon, else a tab. A file without any of them has one column.

use std::io::{self, BufRead};

/// Most bytes of the first record that are looked at. The names of all columns may have less.
const MAX_LOOK: usize = 1 << 20;

/// How the first record of a file says that fields are separated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Separator {
    /// The first record is a `sep=` line: the header comes after it.
    Line(u8),
    /// The first record is the header.
    Header(u8),
    /// The first record is a header that can be read in several ways; says which.
    Unclear(String),
}

/// Reads the first record into `first` and returns its separator; `given` is that of the file's format, if it has one.
pub(super) fn find(
    input: &mut impl BufRead,
    first: &mut Vec<u8>,
    given: Option<u8>,
) -> io::Result<Separator> {
    let mut scan = Scan::default();
    while !scan.has_ended && first.len() < MAX_LOOK {
        let available = input.fill_buf()?;
        if available.is_empty() {
            break;
        }
        let used = available.iter().position(|byte| scan.take(*byte)).map_or(available.len(), |at| at + 1);
        first.extend_from_slice(&available[..used]);
        input.consume(used);
    }
    Ok(match (sep_line(first.trim_ascii()), given) {
        (Some(separator), _) => Separator::Line(separator),
        (None, Some(separator)) => scan.as_given(separator),
        (None, None) => scan.decide(),
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
        // A tab at the line's end was trimmed.
        [] | b"\\t" => Some(b'\t'),
        [separator] if separator.is_ascii_punctuation() && *separator != b'"' => Some(*separator),
        _ => None,
    }
}

/// Where in the first record the next byte stands, whatever separates its fields.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the record: line ends are skipped.
    #[default]
    Before,
    /// At the start of a field.
    Start,
    Plain,
    Quoted,
    /// Just after a quote that closes the field, unless another quote follows.
    Closing,
}

/// Counts what may be separators, outside quotes.
#[derive(Debug, Default)]
struct Scan {
    state: State,
    commas: usize,
    semicolons: usize,
    tabs: usize,
    has_ended: bool,
}

impl Scan {
    /// Takes one byte; returns whether it ends the record.
    fn take(&mut self, byte: u8) -> bool {
        let is_line_end = matches!(byte, b'\r' | b'\n');
        self.state = match (self.state, byte) {
            (State::Before, _) if is_line_end => State::Before,
            (State::Start | State::Plain | State::Closing, _) if is_line_end => {
                self.has_ended = true;
                return true;
            }
            (State::Before | State::Start | State::Closing, b'"') => State::Quoted,
            (State::Quoted, b'"') => State::Closing,
            (State::Quoted, _) => State::Quoted,
            (State::Before | State::Start | State::Plain | State::Closing, b',' | b';' | b'\t') => {
                let count = match byte {
                    b',' => &mut self.commas,
                    b';' => &mut self.semicolons,
                    _ => &mut self.tabs,
                };
                *count += 1;
                State::Start
            }
            (State::Before | State::Start | State::Plain | State::Closing, _) => State::Plain,
        };
        false
    }

    fn counts(&self) -> [(u8, usize); 3] {
        [(b',', self.commas), (b';', self.semicolons), (b'\t', self.tabs)]
    }

    /// Decides for a file whose format says nothing.
    fn decide(&self) -> Separator {
        let counts = self.counts();
        let Some((separator, count)) = counts.into_iter().find(|(_, count)| *count > 0) else {
            return Separator::Header(b',');
        };
        match counts.into_iter().find(|(_, other)| *other > count) {
            None => Separator::Header(separator),
            Some((other, more)) => Separator::Unclear(format!(
                "it is unclear what separates the columns: outside quotes the header has {} {count} times and {} {more} \
                 times; put the names with {} in quotes, or write `sep=` and the separator on a line of its own above \
                 the header",
                shown(separator),
                shown(other),
                shown(separator),
            )),
        }
    }

    /// Decides for a file whose format says what separates its fields.
    fn as_given(&self, given: u8) -> Separator {
        let count = |wanted: u8| self.counts().into_iter().find(|(separator, _)| *separator == wanted);
        if count(given).is_some_and(|(_, count)| count > 0) {
            return Separator::Header(given);
        }
        match self.counts().into_iter().find(|(_, count)| *count > 0) {
            None => Separator::Header(given),
            Some((other, _)) => Separator::Unclear(format!(
                "the header has no {}, and seems to be separated by {}; name the file .csv, or use --from csv",
                shown(given),
                shown(other),
            )),
        }
    }
}

fn shown(separator: u8) -> &'static str {
    match separator {
        b',' => "`,`",
        b';' => "`;`",
        _ => "a tab",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Separator {
        let mut first = Vec::new();
        let mut input = text.as_bytes();
        let found = find(&mut input, &mut first, None).unwrap();
        assert_eq!([&first, input].concat(), text.as_bytes(), "nothing is lost");
        found
    }

    #[test]
    fn the_header_tells_the_separator_and_a_comma_goes_before_others() {
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
        ] {
            assert_eq!(of(header), Separator::Header(separator), "{header:?}");
        }
    }

    #[test]
    fn a_header_with_more_semicolons_than_commas_is_unclear() {
        let Separator::Unclear(why) = of("name;net, total;city\n") else { panic!("it is clear") };
        assert!(why.contains("`,` 1 times and `;` 2 times") && why.contains("`sep=`"), "{why}");
    }

    #[test]
    fn a_line_above_the_header_names_the_separator() {
        for (line, separator) in
            [("sep=;", b';'), ("SEP=,", b','), ("sep=\t", b'\t'), ("\"sep=|\"", b'|'), ("sep=\\t", b'\t')]
        {
            assert_eq!(of(&format!("{line}\r\nid,text\n")), Separator::Line(separator), "{line:?}");
        }
        assert_eq!(of("separate;sep=;\n"), Separator::Header(b';'));
        assert_eq!(of("sep=1,x\n"), Separator::Header(b','));
    }
}
