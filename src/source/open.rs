//! Opens a source: a file, stdin, any reader, or values that the caller has.
//!
//! What can be known before the first byte is said here, once: a missing file, a directory, a lack
//! of permission. It reads nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::digest::{DigestSlot, Digesting};
use super::{Error, Format};

/// How much of the input is held at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest item, in bytes of its text. A longer one is rejected without being held.
    pub item_bytes: usize,
    /// Entries that are read ahead.
    pub ahead: usize,
    /// About how many bytes of memory the entries read ahead may take.
    pub ahead_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { item_bytes: 16 << 20, ahead: 1024, ahead_bytes: 4 << 20 }
    }
}

/// Where items come from, opened and not yet read.
pub struct Source {
    pub(super) name: String,
    pub(super) path: Option<PathBuf>,
    pub(super) input: Input,
    /// Units of the input, if that is known before: bytes, or values.
    pub(super) total: Option<u64>,
    pub(super) limits: Limits,
    pub(super) fit: Option<Fit>,
    /// Where what a file held is noted once it has been read.
    pub(super) digest: Option<DigestSlot>,
}

/// Says why a value cannot be an item.
pub(super) type Fit = Box<dyn Fn(&Value) -> Result<(), String> + Send>;

pub(super) enum Input {
    Bytes(Box<dyn Read + Send>, Option<Format>),
    /// Each with the line that it is said to begin on.
    Values(Box<dyn Iterator<Item = Result<(u64, Value), Unreadable>> + Send>),
}

/// Why a value cannot be brought.
pub type Unreadable = Box<dyn std::error::Error + Send + Sync>;

impl Source {
    /// Opens a file. Without a format its name decides, then its first byte: `[` begins an array,
    /// anything else means one object per line.
    pub fn file(path: impl AsRef<Path>, format: Option<Format>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |source| Error::Open { name: name.clone(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Error::Directory { name });
        }
        let digest = metadata.is_file().then(DigestSlot::default);
        let read = Digesting::new(file, digest.clone().unwrap_or_default());
        Ok(Self {
            path: Some(path.to_owned()),
            total: metadata.is_file().then_some(metadata.len()),
            digest,
            ..Self::reader(name, read, format.or_else(|| Format::of(path)))
        })
    }

    /// Reads stdin. Without a format the first byte decides, as in [`file`](Self::file).
    pub fn stdin(format: Option<Format>) -> Self {
        let stdin = Self::reader("stdin", std::io::stdin(), format);
        // When a file was redirected to stdin it has a size, and an output must not be that file.
        let path = Path::new("/dev/stdin");
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                Self { path: Some(path.to_owned()), total: Some(metadata.len()), ..stdin }
            }
            Ok(_) | Err(_) => stdin,
        }
    }

    /// Reads anything else; `name` is what messages call it. Without a format the first byte
    /// decides, as in [`file`](Self::file).
    pub fn reader(
        name: impl Into<String>,
        reader: impl Read + Send + 'static,
        format: Option<Format>,
    ) -> Self {
        let input = Input::Bytes(Box::new(reader), format);
        Self {
            name: name.into(),
            path: None,
            input,
            total: None,
            limits: Limits::default(),
            fit: None,
            digest: None,
        }
    }

    /// Takes values that the caller has; `name` is what messages call them. A value that is no
    /// object is rejected.
    pub fn values<I>(name: impl Into<String>, values: I) -> Self
    where
        I: IntoIterator<Item = Value>,
        I::IntoIter: Send + 'static,
    {
        Self::numbered(name, (1..).zip(values))
    }

    /// Takes values that the caller has, each with the line that it once began on.
    pub fn numbered<I>(name: impl Into<String>, values: I) -> Self
    where
        I: IntoIterator<Item = (u64, Value)>,
        I::IntoIter: Send + 'static,
    {
        let values = values.into_iter();
        let (least, most) = values.size_hint();
        let total = most.filter(|most| *most == least).map(|most| most as u64);
        Self::brought(name, total, values.map(Ok))
    }

    /// Takes `total` values that may turn out to be unreadable, which ends the input as a file that cannot be read on
    /// does.
    pub fn fallible<I>(name: impl Into<String>, total: u64, values: I) -> Self
    where
        I: IntoIterator<Item = Result<(u64, Value), Unreadable>>,
        I::IntoIter: Send + 'static,
    {
        Self::brought(name, Some(total), values.into_iter())
    }

    fn brought(
        name: impl Into<String>,
        total: Option<u64>,
        values: impl Iterator<Item = Result<(u64, Value), Unreadable>> + Send + 'static,
    ) -> Self {
        let input = Input::Values(Box::new(values));
        Self {
            name: name.into(),
            path: None,
            input,
            total,
            limits: Limits::default(),
            fit: None,
            digest: None,
        }
    }

    /// Sets how much of the input is held at once.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Rejects the values that `fit` refuses, with its reason. A value that is rejected leaves its key to a later one.
    #[must_use]
    pub fn fit(mut self, fit: impl Fn(&Value) -> Result<(), String> + Send + 'static) -> Self {
        self.fit = Some(Box::new(fit));
        self
    }

    /// Returns whether it is known to be CSV, however separated, before it is read.
    pub fn is_csv(&self) -> bool {
        matches!(self.input, Input::Bytes(_, Some(Format::Csv | Format::Tsv)))
    }

    /// Returns what messages call the source.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns where what the file held is found once it has been read to its end; `None` when it is no file.
    pub(crate) fn digest(&self) -> Option<DigestSlot> {
        self.digest.clone()
    }

    /// Returns the file's path, if it is a file: an output must not be the same one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}
