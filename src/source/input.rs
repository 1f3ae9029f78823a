//! Opens a source: a file, stdin, any reader, or values of the caller.
//!
//! Errors that can be found before the first byte is read are reported here: a missing file, a directory, a
//! missing permission. Nothing is read.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::digest::{DigestReader, DigestSlot};
use super::opened_file::OpenedFile;
use super::options::{Delimiter, ReadOptions};
use super::random_access::RandomAccess;
use super::{Error, FileSelection, Format, ValueError};
use crate::files::protected::ProtectedFiles;
use crate::types::ItemKey;

/// How much of the input is buffered.
///
/// ```
/// use pointsman::Source;
/// use pointsman::io::SourceLimits;
/// use serde_json::json;
///
/// let limits = SourceLimits::new().with_item_bytes(64 << 10).with_ahead(100);
/// let source = Source::values("tickets", [json!({ "id": 1 })]).with_limits(limits);
/// assert_eq!(source.name(), "tickets");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest item, in bytes of its text. A longer one is rejected without being buffered.
    pub item_bytes: usize,
    /// Most entries that are read ahead.
    pub ahead: usize,
    /// About how many bytes of memory the entries that are read ahead may take.
    pub ahead_bytes: usize,
    /// Most items that are read; `None` reads all of them.
    pub max_items: Option<NonZeroU64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { item_bytes: 16 << 20, ahead: 1024, ahead_bytes: 4 << 20, max_items: None }
    }
}

impl Limits {
    /// Creates the default limits: items of 16 MiB, and 1,024 entries or 4 MiB that are read ahead.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the longest item, in bytes of its text.
    #[must_use]
    pub fn with_item_bytes(mut self, item_bytes: usize) -> Self {
        self.item_bytes = item_bytes;
        self
    }

    /// Sets the most entries that are read ahead.
    #[must_use]
    pub fn with_ahead(mut self, ahead: usize) -> Self {
        self.ahead = ahead;
        self
    }

    /// Sets about how many bytes of memory the entries that are read ahead may take.
    #[must_use]
    pub fn with_ahead_bytes(mut self, ahead_bytes: usize) -> Self {
        self.ahead_bytes = ahead_bytes;
        self
    }

    /// Reads only the first items of the input, at most this many. A run of such a source has the outcome `limited` if the
    /// input has more, and can be continued.
    #[must_use]
    pub fn with_max_items(mut self, max_items: NonZeroU64) -> Self {
        self.max_items = Some(max_items);
        self
    }
}

/// An opened source of items that has not been read.
pub struct Source {
    pub(super) name: String,
    pub(super) path: Option<PathBuf>,
    pub(super) input: Input,
    /// Size of the input, if it is known before reading: bytes, or number of values.
    pub(super) total: Option<u64>,
    pub(super) limits: Limits,
    pub(super) check: Option<ItemCheck>,
    /// Receives the digest of a file once it has been read.
    pub(super) digest: Option<DigestSlot>,
    /// The file, if it is a regular one: an error is reported if it changes while it is read.
    pub(super) opened_file: Option<OpenedFile>,
    /// Whether its records are counted in the background.
    pub(super) is_counted: bool,
    /// Settings that its bytes do not show.
    pub(super) options: ReadOptions,
    /// The file below the input, if it is a regular one.
    pub(super) random_access: Option<RandomAccess>,
}

/// Returns why a value is not a valid item.
pub(super) type ItemCheck = Box<dyn Fn(&Value) -> Result<(), String> + Send>;

pub(super) enum Input {
    Bytes(Box<dyn Read + Send>, Option<Format>),
    /// Files, each of which is an item.
    Files(FileSelection),
    Values(GivenValues),
}

/// Values of the caller.
pub(super) type GivenValues = Box<dyn Iterator<Item = Result<GivenValue, ValueError>> + Send>;

/// A value of the caller.
pub(super) struct GivenValue {
    /// The line on which it is reported to begin.
    pub(super) line: u64,
    /// Its key, if that was determined before.
    pub(super) key: Option<ItemKey>,
    pub(super) value: Value,
}

impl Source {
    /// Opens a file. Without a format its extension decides, then its first record: `[` starts an array, `{` means one
    /// object per line, and the header of several columns means CSV. Any other text is refused before the first item.
    pub fn file(path: impl AsRef<Path>, format: Option<Format>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |source| Error::Open { name: name.clone(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Error::Directory { name });
        }
        let second_handle = || metadata.is_file().then(|| file.try_clone()).transpose().map_err(failed);
        let opened_file = second_handle()?.map(|file| OpenedFile::new(&metadata, move || file.metadata()));
        let digest = metadata.is_file().then(DigestSlot::default);
        let random_access = second_handle()?.zip(digest.clone());
        let random_access = random_access.map(|(file, digest)| RandomAccess { file, digest });
        let read = DigestReader::new(file, digest.clone().unwrap_or_default());
        Ok(Self {
            path: Some(path.to_owned()),
            total: metadata.is_file().then_some(metadata.len()),
            digest,
            opened_file,
            random_access,
            ..Self::reader(name, read, format.or_else(|| Format::of(path)))
        })
    }

    /// Takes the files of a folder or of a pattern, one item per file, in the order of their paths. An item has the fields
    /// `id` (its path in the folder), `path`, `name`, and `text` if it is text.
    ///
    /// # Errors
    /// If there is no file.
    pub fn files(selection: FileSelection) -> Result<Self, Error> {
        let no_files = |reason| Error::NoFiles { name: selection.name().to_owned(), reason };
        match selection.walk().next() {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(no_files(error.to_string())),
            None => {
                let reason = "none is found in that place; check the path and the pattern. Hidden files and folders that are \
                              links are left out";
                return Err(no_files(reason.to_owned()));
            }
        }
        let name = selection.name().to_owned();
        Ok(Self::of_input(name, Input::Files(selection), None))
    }

    /// Reads stdin. Without a format the first record decides, as in [`file`](Self::file).
    pub fn stdin(format: Option<Format>) -> Self {
        let stdin = Self::reader("stdin", std::io::stdin(), format);
        // If a file is redirected to stdin, it has a size, and an output must not be that file.
        let path = Path::new("/dev/stdin");
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                let opened_file = OpenedFile::new(&metadata, move || std::fs::metadata(path));
                Self {
                    path: Some(path.to_owned()),
                    total: Some(metadata.len()),
                    opened_file: Some(opened_file),
                    ..stdin
                }
            }
            Ok(_) | Err(_) => stdin,
        }
    }

    /// Reads any other reader; `name` is its name in messages. Without a format the first record decides, as in
    /// [`file`](Self::file).
    pub fn reader(
        name: impl Into<String>,
        reader: impl Read + Send + 'static,
        format: Option<Format>,
    ) -> Self {
        Self::of_input(name.into(), Input::Bytes(Box::new(reader), format), None)
    }

    fn of_input(name: String, input: Input, total: Option<u64>) -> Self {
        Self {
            name,
            path: None,
            input,
            total,
            limits: Limits::default(),
            check: None,
            digest: None,
            opened_file: None,
            is_counted: false,
            options: ReadOptions::default(),
            random_access: None,
        }
    }

    /// Takes values of the caller; `name` is their name in messages. A value that is not an object is rejected.
    pub fn values<I>(name: impl Into<String>, values: I) -> Self
    where
        I: IntoIterator<Item = Value>,
        I::IntoIter: Send + 'static,
    {
        Self::numbered(name, (1..).zip(values))
    }

    /// Takes values of the caller, each with the line on which it originally began.
    #[doc(hidden)]
    pub fn numbered<I>(name: impl Into<String>, values: I) -> Self
    where
        I: IntoIterator<Item = (u64, Value)>,
        I::IntoIter: Send + 'static,
    {
        let values = values.into_iter();
        let (lower, upper) = values.size_hint();
        let total = upper.filter(|upper| *upper == lower).map(|upper| upper as u64);
        Self::from_results(name, total, values.map(without_key).map(Ok))
    }

    /// Takes `total` items that were read before, each with its line and its key. They may turn out to be unreadable, which
    /// ends the input like a read error in a file.
    #[doc(hidden)]
    pub fn fallible<I>(name: impl Into<String>, total: u64, items: I) -> Self
    where
        I: IntoIterator<Item = Result<(u64, ItemKey, Value), ValueError>>,
        I::IntoIter: Send + 'static,
    {
        let items = items
            .into_iter()
            .map(|item| item.map(|(line, key, value)| GivenValue { line, key: Some(key), value }));
        Self::from_results(name, Some(total), items)
    }

    /// Takes values of which it is not known how many there will be. Its size is unknown.
    #[doc(hidden)]
    pub fn growing<I>(name: impl Into<String>, values: I) -> Self
    where
        I: IntoIterator<Item = Result<(u64, Value), ValueError>>,
        I::IntoIter: Send + 'static,
    {
        Self::from_results(name, None, values.into_iter().map(|value| value.map(without_key)))
    }

    fn from_results(
        name: impl Into<String>,
        total: Option<u64>,
        values: impl Iterator<Item = Result<GivenValue, ValueError>> + Send + 'static,
    ) -> Self {
        Self::of_input(name.into(), Input::Values(Box::new(values)), total)
    }

    /// Sets how much of the input is buffered.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Reads only the first items, as [`Limits::with_max_items`] does.
    #[must_use]
    pub fn with_max_items(mut self, max_items: NonZeroU64) -> Self {
        self.limits.max_items = Some(max_items);
        self
    }

    /// Counts the records of a file in the background while it is read, for
    /// `Progress::input_items`. The file is read a second time. A count never fails: the
    /// number stays unknown for a pipe, and for a file that cannot be read.
    #[must_use]
    pub fn with_count(mut self) -> Self {
        self.is_counted = true;
        self
    }

    /// Rejects the values for which `check` returns an error, with that reason. A rejected value does not
    /// reserve its key.
    #[must_use]
    #[doc(hidden)]
    pub fn with_check(mut self, check: impl Fn(&Value) -> Result<(), String> + Send + 'static) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// Sets the field or the column that is the key of an item in place of `id`. An item without it is rejected; a table
    /// without the column cannot be read.
    #[must_use]
    pub fn with_key(mut self, field: impl Into<String>) -> Self {
        self.options.key_field = Some(field.into());
        self
    }

    /// Sets what separates the fields of CSV. Without a format, the source is then CSV.
    #[must_use]
    pub fn with_delimiter(mut self, delimiter: Delimiter) -> Self {
        self.options.delimiter = Some(delimiter);
        self
    }

    /// Sets the sheet of an Excel workbook, by its name or its number from 1, in place of the first.
    #[must_use]
    pub fn with_sheet(mut self, sheet: impl Into<String>) -> Self {
        self.options.sheet = Some(sheet.into());
        self
    }

    /// Sets the key of a JSON object whose value is the array of items. Without a format, the source is then such an
    /// object.
    #[must_use]
    pub fn with_items_key(mut self, key: impl Into<String>) -> Self {
        self.options.items_key = Some(key.into());
        self
    }

    /// Refuses input that is compressed, a workbook, another archive or a Parquet file by its first bytes, whatever its
    /// format is said to be. What is left are JSON lines, JSON, CSV and TSV. Choose it for items of callers that are not
    /// trusted: small packed data can need much memory, and their parsers are large.
    #[must_use]
    pub fn with_plain_text_only(mut self) -> Self {
        self.options.plain_text_only = true;
        self
    }

    /// Leaves out the files that the program uses, if the items are the files of a folder or of a pattern.
    pub(crate) fn leave_out(&mut self, used: &ProtectedFiles) {
        match &mut self.input {
            Input::Files(selection) => selection.leave_out(used),
            Input::Bytes(..) | Input::Values(_) => {}
        }
    }

    /// Returns how many files are left out because the program uses them, without hidden files and those of the store.
    pub(crate) fn skipped_files(&self) -> usize {
        match &self.input {
            Input::Files(selection) => selection.skipped_files(),
            Input::Bytes(..) | Input::Values(_) => 0,
        }
    }

    /// Returns the field that is the key of an item in place of `id`.
    pub(crate) fn key_field(&self) -> Option<&str> {
        self.options.key_field.as_deref()
    }

    /// Sets the name of the source for messages.
    #[must_use]
    #[doc(hidden)]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Returns whether the source is known to be a table before it is read: all of its items have the same fields.
    #[doc(hidden)]
    pub fn is_table(&self) -> bool {
        match &self.input {
            Input::Bytes(_, Some(Format::Csv | Format::Tsv | Format::Xlsx | Format::Parquet)) => true,
            Input::Bytes(_, None) => self.options.delimiter.is_some(),
            Input::Bytes(_, Some(Format::Json | Format::Jsonl)) | Input::Files(_) | Input::Values(_) => false,
        }
    }

    /// Returns whether the source is known to be CSV, with any separator, before it is read.
    #[doc(hidden)]
    pub fn is_csv(&self) -> bool {
        match &self.input {
            Input::Bytes(_, Some(Format::Csv | Format::Tsv)) => true,
            Input::Bytes(_, None) => self.options.delimiter.is_some(),
            Input::Bytes(_, Some(Format::Json | Format::Jsonl | Format::Xlsx | Format::Parquet))
            | Input::Files(_)
            | Input::Values(_) => false,
        }
    }

    /// Returns the name of the source for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where the digest of the file is stored once it has been read to its end; `None` if it is not a
    /// file.
    pub(crate) fn digest(&self) -> Option<DigestSlot> {
        self.digest.clone()
    }

    /// Returns the path if it is a file: an output must not be the same file.
    #[doc(hidden)]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

/// Returns a value whose key is to be determined.
fn without_key((line, value): (u64, Value)) -> GivenValue {
    GivenValue { line, key: None, value }
}
