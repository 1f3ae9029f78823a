//! Counts the records of a file in the background, for the progress of a run.
//!
//! A thread reads the file a second time, in blocks of bounded size, and separates its records without parsing
//! their values. It stops when the number is not wanted any more. A count never fails: if the file cannot be
//! read, or its layout is not understood, the number stays unknown, and reading the items reports the reason.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use super::compression::Compression;
use super::csv_parser::CsvParser;
use super::csv_separator::{self, Expected, Separator};
use super::file_selection::FileSelection;
use super::format::{Format, InputHead};
use super::format_detection::{self, Detection};
use super::options::Delimiter;
use super::signature::FileType;

/// How many bytes are read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// The number of records of an input, which become items or rejects, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct ItemCount(Arc<OnceLock<u64>>);

impl ItemCount {
    /// Creates the count of an input whose number of records is known.
    pub(super) fn known(records: u64) -> Self {
        Self(Arc::new(records.into()))
    }

    /// Starts to count the records of a file, up to `max`. Without a format, its first record decides.
    pub(super) fn of_file(
        path: &Path,
        format: Option<Format>,
        delimiter: Option<Delimiter>,
        max: u64,
    ) -> Self {
        let count = Self::default();
        let result = Arc::downgrade(&count.0);
        let path = path.to_owned();
        let work = move || {
            if let Ok(Some(records)) = count_file(&path, format, delimiter, max, &result)
                && let Some(result) = result.upgrade()
            {
                // No other thread sets it.
                let _ = result.set(records);
            }
        };
        // Without a thread the number stays unknown.
        drop(thread::Builder::new().name("count".into()).spawn(work));
        count
    }

    /// Starts to count the files of a selection, up to `max`.
    pub(super) fn of_files(selection: FileSelection, max: u64) -> Self {
        let count = Self::default();
        let result = Arc::downgrade(&count.0);
        let work = move || {
            let mut files = 0;
            for file in selection.walk() {
                if file.is_err() || result.strong_count() == 0 {
                    return;
                }
                files += 1;
                if files >= max {
                    break;
                }
            }
            if let Some(result) = result.upgrade() {
                // No other thread sets it.
                let _ = result.set(files);
            }
        };
        // Without a thread the number stays unknown.
        drop(thread::Builder::new().name("count".into()).spawn(work));
        count
    }

    /// Returns the number of records; `None` while it is not known.
    pub fn get(&self) -> Option<u64> {
        self.0.get().copied()
    }
}

/// Returns the number of records of a file, up to `max`; `None` if its layout is not understood.
fn count_file(
    path: &Path,
    format: Option<Format>,
    delimiter: Option<Delimiter>,
    max: u64,
    result: &Weak<OnceLock<u64>>,
) -> io::Result<Option<u64>> {
    // A pipe has no number of records, and to open it could wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let file = WantedFile { file: File::open(path)?, result: result.clone() };
    let mut input = BufReader::with_capacity(BLOCK_BYTES, file);
    let records = match Compression::of(input.fill_buf()?) {
        Some(compression) => {
            let decoded = BufReader::with_capacity(BLOCK_BYTES, compression.decoder(input)?);
            count(decoded, format, delimiter, max)?
        }
        None => count(input, format, delimiter, max)?,
    };
    Ok(records.map(|records| records.min(max)))
}

/// Returns the number of records of an input; `None` if its layout is not understood. Stops after the block with
/// record number `max`.
fn count(
    mut input: impl BufRead,
    format: Option<Format>,
    delimiter: Option<Delimiter>,
    max: u64,
) -> io::Result<Option<u64>> {
    let mut head = InputHead::read(&mut input)?;
    let is_encoded = head.is_utf16 || Compression::of(&head.bytes).is_some();
    if is_encoded || FileType::of(&head.bytes).is_some() {
        return Ok(None);
    }
    let format = match format {
        Some(format) => format,
        None if delimiter.is_some() => Format::Csv,
        None => match format_detection::detect(&mut head, &mut input)? {
            Detection::Format(format) => format,
            Detection::Unclear(_) => return Ok(None),
        },
    };
    let input = Cursor::new(head.bytes).chain(input);
    match format {
        Format::Jsonl => count_lines(input, max).map(Some),
        Format::Csv => count_csv_records(input, Expected::of(None, delimiter), max),
        Format::Tsv => count_csv_records(input, Expected::of(Some(b'\t'), delimiter), max),
        Format::Json => count_elements(input, max),
        // Reading their items reports what they are in truth.
        Format::Xlsx | Format::Parquet => Ok(None),
    }
}

/// A file that is read only while the result is wanted.
struct WantedFile {
    file: File,
    result: Weak<OnceLock<u64>>,
}

impl Read for WantedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.result.strong_count() == 0 {
            return Err(io::Error::other("the number of records is not wanted any more"));
        }
        loop {
            match self.file.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Counts the lines that are not blank.
fn count_lines(mut input: impl BufRead, max: u64) -> io::Result<u64> {
    let has_text = |bytes: &[u8]| !bytes.trim_ascii_start().is_empty();
    let mut lines = 0;
    let mut line_has_text = false;
    loop {
        let block = input.fill_buf()?;
        if block.is_empty() || lines >= max {
            return Ok(lines + u64::from(line_has_text));
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', block) {
            lines += u64::from(line_has_text || has_text(&block[start..end]));
            line_has_text = false;
            start = end + 1;
        }
        line_has_text = line_has_text || has_text(&block[start..]);
        let used = block.len();
        input.consume(used);
    }
}

/// Counts the records below the header that are not blank.
fn count_csv_records(mut input: impl BufRead, expected: Expected, max: u64) -> io::Result<Option<u64>> {
    let mut first = Vec::new();
    let (separator, mut header_records) = match csv_separator::detect(&mut input, &mut first, expected)? {
        Separator::SepLine(separator) => (separator, 2),
        Separator::Header(separator) => (separator, 1),
        Separator::Ambiguous(_) => return Ok(None),
    };
    let mut input = Cursor::new(first).chain(input);
    // No field is kept.
    let mut parser = CsvParser::new(0, separator);
    parser.keep_fields(0);
    let mut records = 0;
    loop {
        let block = input.fill_buf()?;
        let is_end = block.is_empty();
        let (used, is_complete) = if is_end { (0, parser.finish()) } else { parser.parse(block) };
        input.consume(used);
        if is_complete {
            match header_records {
                0 => records += u64::from(!parser.is_blank()),
                _ => header_records -= 1,
            }
            parser.reset();
        }
        if is_end || records >= max {
            return Ok(Some(records));
        }
    }
}

/// Counts the elements of a JSON array; `None` if the input does not begin with one or has no end of it.
fn count_elements(mut input: impl BufRead, max: u64) -> io::Result<Option<u64>> {
    let mut counter = ElementCounter::default();
    loop {
        let block = input.fill_buf()?;
        if block.is_empty() {
            return Ok(None);
        }
        match counter.read(block) {
            ArrayPart::Inside if counter.elements >= max => return Ok(Some(counter.elements)),
            ArrayPart::Inside => {}
            ArrayPart::Ended => return Ok(Some(counter.elements)),
            ArrayPart::NoArray => return Ok(None),
        }
        let used = block.len();
        input.consume(used);
    }
}

/// Where in an array a block ends.
enum ArrayPart {
    Inside,
    Ended,
    NoArray,
}

/// Counts the commas between the elements of an array.
#[derive(Default)]
struct ElementCounter {
    elements: u64,
    /// How many brackets and braces are open.
    depth: u64,
    is_in_string: bool,
    /// Whether the last byte of a string was a backslash that escapes the next one.
    is_escaped: bool,
    /// Whether an element has begun since the last comma.
    has_element: bool,
}

impl ElementCounter {
    fn read(&mut self, block: &[u8]) -> ArrayPart {
        let mut at = 0;
        while at < block.len() {
            if self.is_in_string {
                at = self.skip_string(block, at);
                continue;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'[' | b'{' if self.depth > 0 => {
                    self.has_element = true;
                    self.depth += 1;
                }
                b'[' => self.depth = 1,
                b']' | b'}' if self.depth > 1 => self.depth -= 1,
                b']' if self.depth == 1 => {
                    self.elements += u64::from(self.has_element);
                    return ArrayPart::Ended;
                }
                b',' if self.depth == 1 => {
                    self.elements += 1;
                    self.has_element = false;
                }
                _ if byte.is_ascii_whitespace() => {}
                _ if self.depth == 0 => return ArrayPart::NoArray,
                b'"' => {
                    self.has_element = true;
                    self.is_in_string = true;
                }
                _ => self.has_element = true,
            }
        }
        ArrayPart::Inside
    }

    /// Skips the rest of a string, and returns where it or the block ends.
    fn skip_string(&mut self, block: &[u8], mut at: usize) -> usize {
        while at < block.len() {
            if self.is_escaped {
                self.is_escaped = false;
                at += 1;
                continue;
            }
            match memchr::memchr2(b'"', b'\\', &block[at..]) {
                Some(found) if block[at + found] == b'"' => {
                    self.is_in_string = false;
                    return at + found + 1;
                }
                Some(found) => {
                    self.is_escaped = true;
                    at += found + 1;
                }
                None => return block.len(),
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use proptest::prelude::*;

    use super::*;
    use crate::source::format_tests::{gzip, zstd};
    use crate::source::{Limits, Source};

    /// Counts `bytes`, which are passed in blocks of `block_bytes` bytes.
    fn count_in_blocks(bytes: &[u8], block_bytes: usize, format: Format) -> Option<u64> {
        count(BufReader::with_capacity(block_bytes, bytes), Some(format), None, u64::MAX).unwrap()
    }

    /// Returns how many entries reading `bytes` returns; `None` if it ends with an error.
    fn entries_of(bytes: &[u8], format: Format) -> Option<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut reader = Source::reader("test", Cursor::new(bytes.to_vec()), Some(format)).read().unwrap();
        runtime.block_on(async {
            let mut entries = 0;
            while let Some(entry) = reader.next().await {
                entry.ok()?;
                entries += 1;
            }
            Some(entries)
        })
    }

    fn wait_for(count: &ItemCount) -> u64 {
        for _ in 0..10_000_000 {
            if let Some(records) = count.get() {
                return records;
            }
            thread::yield_now();
        }
        panic!("the records are not counted");
    }

    proptest! {
        #[test]
        fn lines_are_counted_as_they_are_read(
            bytes in prop::collection::vec(prop::sample::select(b"{}1 \t\r\n\n".to_vec()), 0..60),
            block_bytes in 1usize..9,
        ) {
            if let Some(entries) = entries_of(&bytes, Format::Jsonl) {
                prop_assert_eq!(count_in_blocks(&bytes, block_bytes, Format::Jsonl), Some(entries));
            }
        }

        #[test]
        fn csv_records_are_counted_as_they_are_read(
            header in prop::sample::select(vec!["a,b\n", "a;b\r\n", "sep=;\na;b\n", "\na\n"]),
            bytes in prop::collection::vec(prop::sample::select(b"ab,;\"\"\n\r ".to_vec()), 0..60),
            block_bytes in 1usize..9,
        ) {
            let bytes = [header.as_bytes(), &bytes].concat();
            if let Some(entries) = entries_of(&bytes, Format::Csv) {
                prop_assert_eq!(count_in_blocks(&bytes, block_bytes, Format::Csv), Some(entries));
            }
        }

        #[test]
        fn elements_are_counted_as_they_are_read(
            texts in prop::collection::vec("[a,\\\\\"\\]\\[{}]{0,5}", 0..8),
            block_bytes in 1usize..9,
        ) {
            let elements: Vec<_> = texts.iter().map(|text| serde_json::json!({ text: [text, {}] })).collect();
            let bytes = serde_json::to_vec_pretty(&elements).unwrap();
            prop_assert_eq!(count_in_blocks(&bytes, block_bytes, Format::Json), Some(texts.len() as u64));
        }
    }

    #[test]
    fn what_is_no_array_has_no_number_of_elements() {
        for text in ["", "  ", "{\"a\": [1, 2]}", "[1, 2", "[\"a]", "7"] {
            assert_eq!(count_in_blocks(text.as_bytes(), 4, Format::Json), None, "{text}");
        }
        assert_eq!(count_in_blocks(b" [ ] ", 4, Format::Json), Some(0));
    }

    #[test]
    fn a_file_is_counted_in_the_background() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.csv");
        fs::write(&path, "id,text\n1,\"two\nlines\"\n\n2,x\n,\n3,\"\"\n").unwrap();
        let source = Source::file(&path, None).unwrap().with_count();
        let reader = source.read().unwrap();
        assert_eq!(wait_for(&reader.count()), 3);
        let limits = Limits::new().with_max_items(NonZeroU64::MIN);
        let source = Source::file(&path, None).unwrap().with_limits(limits).with_count();
        assert_eq!(wait_for(&source.read().unwrap().count()), 1);
        let source = Source::values("values", [serde_json::json!({}), serde_json::json!({})]);
        assert_eq!(source.read().unwrap().count().get(), Some(2));
    }

    #[test]
    fn the_records_of_a_compressed_file_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"{}\n{}\n\n{}";
        for (name, bytes) in [("items.jsonl.gz", gzip(text)), ("items.jsonl.zst", zstd(text))] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let reader = Source::file(&path, None).unwrap().with_count().read().unwrap();
            assert_eq!(wait_for(&reader.count()), 3, "{name}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_one_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.jsonl");
        let file = File::create(&path).unwrap();
        // A sparse file: its content takes no space.
        file.set_len(64 << 20).unwrap();
        assert_eq!(wait_for(&ItemCount::of_file(&path, Some(Format::Jsonl), None, u64::MAX)), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_has_an_unknown_number() {
        let folder = tempfile::tempdir().unwrap();
        let result = Arc::new(OnceLock::new());
        let wanted = Arc::downgrade(&result);
        assert!(count_file(&folder.path().join("none.jsonl"), None, None, u64::MAX, &wanted).is_err());
        assert_eq!(count_file(folder.path(), None, None, u64::MAX, &wanted).unwrap(), None);
    }

    #[test]
    fn counting_stops_when_the_number_is_not_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.jsonl");
        fs::write(&path, "{}\n").unwrap();
        let result = Arc::new(OnceLock::new());
        let wanted = Arc::downgrade(&result);
        drop(result);
        assert!(count_file(&path, None, None, u64::MAX, &wanted).is_err());
    }
}
