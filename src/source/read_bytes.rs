//! Reads an input of bytes: decodes it, finds out its format, and passes it to the parser of that format.
//!
//! An input that is compressed or UTF-16 is decoded while it is read. What is no text and has no items is refused with
//! what it looks like. The formats that are read from several positions get the file below the input, or a temporary copy
//! of an input that can be read only once.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::compression::{Compression, CountedReader};
use super::csv_separator::Expected;
use super::error::LayoutFault;
use super::format::{Format, InputHead};
use super::format_detection::{self, Detection};
use super::ingest::{Ingest, ReadStop};
use super::json_object::{self, FindError};
use super::options::ReadOptions;
use super::random_access::{CopyError, CopyLimits, RandomAccess, spool};
use super::signature::FileType;
use super::utf16::{ByteOrder, Utf16Reader};
use super::{csv, json, jsonl};
use crate::types::{Advice, Remedy};

/// How many bytes are read at once.
const BLOCK_BYTES: usize = 1 << 16;

/// How many of the first bytes show the type of a file.
const SIGNATURE_BYTES: usize = 64;

/// An input of bytes that has not been read.
pub(super) struct ByteInput {
    pub(super) bytes: Box<dyn Read + Send>,
    pub(super) format: Option<Format>,
    /// Its length, if that is known.
    pub(super) total: Option<u64>,
    /// The file below `bytes`, if it is a regular one.
    pub(super) random_access: Option<RandomAccess>,
    pub(super) options: ReadOptions,
    /// Most bytes of an item.
    pub(super) limit: usize,
}

/// An input whose first bytes were read.
struct Begun {
    head: InputHead,
    rest: BufReader<Box<dyn Read + Send>>,
    /// Counts the bytes below it that were read, if it is decompressed.
    compressed_bytes: Option<Arc<AtomicU64>>,
}

impl Begun {
    fn read(input: Box<dyn Read + Send>, ingest: &Ingest) -> Result<Self, ReadStop> {
        let mut rest = BufReader::with_capacity(BLOCK_BYTES, input);
        let head = InputHead::read(&mut rest).map_err(|error| ingest.read_error(1, error))?;
        Ok(Self { head, rest, compressed_bytes: None })
    }

    /// Returns the first bytes that are available without reading further.
    fn first_bytes(&self) -> Vec<u8> {
        self.head.bytes.iter().chain(self.rest.buffer()).take(SIGNATURE_BYTES).copied().collect()
    }

    /// Returns the whole input, without its byte-order mark.
    fn whole(self) -> io::Chain<Cursor<Vec<u8>>, BufReader<Box<dyn Read + Send>>> {
        Cursor::new(self.head.bytes).chain(self.rest)
    }
}

/// Reads an input to its end.
pub(super) fn read(input: ByteInput, ingest: &mut Ingest) -> Result<(), ReadStop> {
    let ByteInput { bytes, format, total, mut random_access, options, limit } = input;
    let (bytes, encoded_bytes) = CountedReader::new(RetryInterrupted(bytes));
    let mut begun = Begun::read(Box::new(bytes), ingest)?;
    if let Some(compression) = Compression::of(&begun.head.bytes) {
        check_packed(&options, ingest)?;
        let decoder = compression.decoder(begun.whole()).map_err(|error| ingest.read_error(1, error))?;
        ingest.count_encoded(encoded_bytes.clone());
        random_access = None;
        begun = Begun::read(decoder, ingest)?;
        begun.compressed_bytes = Some(encoded_bytes.clone());
    }
    if begun.head.is_utf16 {
        let order = ByteOrder::of_mark(&begun.head.bytes).ok_or_else(|| ingest.encoding_error())?;
        ingest.count_encoded(encoded_bytes);
        random_access = None;
        let compressed_bytes = begun.compressed_bytes.take();
        begun = Begun::read(Box::new(Utf16Reader::new(begun.whole(), order)), ingest)?;
        begun.compressed_bytes = compressed_bytes;
    }
    match FileType::of(&begun.first_bytes()) {
        Some(FileType::Other(look, advice)) => {
            Err(ingest.unreadable(format!("it looks like {look}, not like items; {advice}")))
        }
        Some(FileType::Zip) => {
            check_packed(&options, ingest)?;
            check_unused(&options, Format::Xlsx, ingest)?;
            with_file(begun, random_access, ingest, |file, ingest| {
                read_workbook(file, options.sheet.as_deref(), total, limit, ingest)
            })
        }
        Some(FileType::Parquet) => {
            check_packed(&options, ingest)?;
            check_unused(&options, Format::Parquet, ingest)?;
            with_file(begun, random_access, ingest, |file, ingest| read_parquet(file, total, limit, ingest))
        }
        None => read_text(begun, format, random_access, &options, limit, ingest),
    }
}

/// Reads a format that needs a file: the one below the input, or a temporary copy.
fn with_file(
    begun: Begun,
    random_access: Option<RandomAccess>,
    ingest: &mut Ingest,
    read: impl FnOnce(File, &mut Ingest) -> Result<(), ReadStop>,
) -> Result<(), ReadStop> {
    let Some(whole) = random_access else {
        let file = copy(begun, ingest)?;
        return read(file, ingest);
    };
    let file = whole.file.try_clone().map_err(|error| ingest.read_error(1, error))?;
    read(file, ingest)?;
    whole.digest_whole().map_err(|error| ingest.read_error(1, error))
}

/// Copies an input that can be read only once to a temporary file.
fn copy(mut begun: Begun, ingest: &Ingest) -> Result<File, ReadStop> {
    let compressed_bytes = begun.compressed_bytes.take();
    let copied = spool(begun.whole(), compressed_bytes.as_deref(), CopyLimits::default());
    copied.map_err(|error| match error {
        // An error of the decoder is about the input.
        CopyError::Io(error) if error.get_ref().is_some_and(|error| error.is::<super::DecodeError>()) => {
            ingest.read_error(1, error)
        }
        CopyError::Io(error) => ingest.unreadable(format!(
            "it cannot be copied to a file in {}, which its format needs: {error}; make room there, or name a file as the \
             items",
            std::env::temp_dir().display()
        )),
        CopyError::Bytes(_) | CopyError::Ratio(_) if compressed_bytes.is_some() => ingest
            .unreadable(format!("{error}; if you trust it, decompress it by hand and use the file that results")),
        CopyError::Bytes(_) | CopyError::Ratio(_) => {
            ingest.unreadable(format!("{error}; name a file in UTF-8 as the items"))
        }
    })
}

fn read_text(
    mut begun: Begun,
    format: Option<Format>,
    random_access: Option<RandomAccess>,
    options: &ReadOptions,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let format = match format {
        Some(format) => format,
        None if options.delimiter.is_some() => Format::Csv,
        None if options.items_key.is_some() => Format::Json,
        None => {
            let detected = format_detection::detect(&mut begun.head, &mut begun.rest);
            match detected.map_err(|error| ingest.read_error(1, error))? {
                Detection::Format(format) => format,
                Detection::Unclear(text) => {
                    return Err(ingest.layout_error(text.line, text.fault(ingest.name())));
                }
            }
        }
    };
    check_unused(options, format, ingest)?;
    let offset = begun.head.bom_bytes;
    match format {
        Format::Jsonl => jsonl::read(begun.whole(), offset, limit, ingest),
        Format::Csv => {
            csv::read(begun.whole(), offset, limit, Expected::of(None, options.delimiter), ingest)
        }
        Format::Tsv => {
            csv::read(begun.whole(), offset, limit, Expected::of(Some(b'\t'), options.delimiter), ingest)
        }
        Format::Json if begun.head.begins_object() => {
            read_object(begun, random_access, options.items_key.as_deref(), limit, ingest)
        }
        Format::Json => json::read(begun.whole(), offset, limit, ingest),
        Format::Xlsx => Err(ingest.unreadable(LayoutFault::other_format(
            "it is no Excel workbook, and seems to be text",
            "name it .csv, or ",
            "csv",
        ))),
        Format::Parquet => Err(ingest.unreadable(
            "it is no Parquet file: it does not begin with PAR1; name it by what it is, such as .csv or .jsonl",
        )),
    }
}

/// Reads the array of items in an object.
fn read_object(
    begun: Begun,
    random_access: Option<RandomAccess>,
    items_key: Option<&str>,
    limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    let bom_bytes = begun.head.bom_bytes;
    let (mut file, found, before) = match random_access {
        Some(whole) => (whole.file, json_object::find(begun.whole(), items_key), bom_bytes),
        None => {
            let mut file = copy(begun, ingest)?;
            let found = json_object::find(BufReader::with_capacity(BLOCK_BYTES, &mut file), items_key);
            (file, found, 0)
        }
    };
    let found = found.map_err(|error| match error {
        FindError::Read(line, error) => ingest.read_error(line, error),
        FindError::Syntax(at, reason) => ingest.syntax_error(at.line, at.column, reason),
        FindError::Layout(fault) => ingest.layout_error(1, fault),
    })?;
    let start = before + found.offset;
    file.seek(SeekFrom::Start(start)).map_err(|error| ingest.read_error(found.at.line, error))?;
    let input = BufReader::with_capacity(BLOCK_BYTES, RetryInterrupted(Box::new(file)));
    json::read_inner(input, start, found.at, limit, ingest)
}

/// Refuses input that is no plain text if only plain text is read.
fn check_packed(options: &ReadOptions, ingest: &Ingest) -> Result<(), ReadStop> {
    if !options.plain_text_only {
        return Ok(());
    }
    Err(ingest.unreadable(
        "compressed, Parquet and Excel items are not read here; send them as JSON lines, JSON, CSV or TSV",
    ))
}

/// Refuses settings that the format does not use.
fn check_unused(options: &ReadOptions, format: Format, ingest: &Ingest) -> Result<(), ReadStop> {
    let is_csv = matches!(format, Format::Csv | Format::Tsv);
    if options.delimiter.is_some() && !is_csv {
        let reason = format!("it is read as {format}, which has no delimiter");
        let advice = Advice::from("leave the delimiter out, or ").with_remedy(Remedy::SetInputFormat("csv"));
        return Err(ingest.unreadable(LayoutFault::with_advice(reason, advice)));
    }
    if options.items_key.is_some() && format != Format::Json {
        let reason = format!("it is read as {format}, which has no key of the items");
        let advice = Advice::from("leave that key out, or ").with_remedy(Remedy::SetInputFormat("json"));
        return Err(ingest.unreadable(LayoutFault::with_advice(reason, advice)));
    }
    if options.sheet.is_some() && format != Format::Xlsx {
        return Err(
            ingest.unreadable(format!("it is read as {format}, which has no sheets; leave the sheet out"))
        );
    }
    Ok(())
}

#[cfg(feature = "xlsx")]
use super::xlsx::read as read_workbook;

#[cfg(not(feature = "xlsx"))]
fn read_workbook(
    _file: File,
    _sheet: Option<&str>,
    _total: Option<u64>,
    _limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    Err(ingest.unreadable(
        "it looks like a workbook of Excel or another packed file, which this build (without the feature `xlsx`) cannot read; \
         save the sheet as CSV UTF-8 and use that file",
    ))
}

#[cfg(feature = "parquet")]
use super::parquet::read as read_parquet;

#[cfg(not(feature = "parquet"))]
fn read_parquet(
    _file: File,
    _total: Option<u64>,
    _limit: usize,
    ingest: &mut Ingest,
) -> Result<(), ReadStop> {
    Err(ingest.unreadable(
        "it is a Parquet file, which this build (without the feature `parquet`) cannot read; convert it to JSON lines or CSV",
    ))
}

/// Retries a read that a signal has interrupted.
struct RetryInterrupted(Box<dyn Read + Send>);

impl Read for RetryInterrupted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}
