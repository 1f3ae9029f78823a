//! Errors of opening and writing an output.

use std::io;
use std::sync::Arc;

use crate::types::{Advice, Remedy};

/// Why an output cannot be opened or written. Every caller that writes to it gets the same error.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened for writing.
    #[error("cannot open {name} for writing{}", advice(source))]
    Open {
        /// The file.
        name: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The path is a directory.
    #[error("{name} is a directory; name a file in it")]
    Directory {
        /// The directory.
        name: String,
    },
    /// The run already uses the file in another way.
    #[error("{}; name another file to write to", same_file_message(name, other))]
    SameFile {
        /// The output.
        name: String,
        /// The input, or the other output.
        other: String,
    },
    /// The file holds something, and the run did not write it.
    #[error("{name} exists and was not written by this run; {}", not_owned_advice())]
    NotOwned {
        /// The file.
        name: String,
    },
    /// The run wrote the file, and it is longer now.
    #[error("another program has added to {name} since this run wrote it; {}", not_owned_advice())]
    Extended {
        /// The file.
        name: String,
    },
    /// The file holds real answers, and the run is simulated.
    #[error("{name} holds real answers, which a simulated run never replaces; name another file to write to")]
    RealAnswers {
        /// The file.
        name: String,
    },
    /// Another run writes to the file.
    #[error("another run is writing to {name}; wait until it has ended, or name another file")]
    InUse {
        /// The file.
        name: String,
    },
    /// The format can be written only to a file.
    #[error("{name} is not a file, and {} can be written only to one: {}", format, Remedy::WriteToFile)]
    NotAFile {
        /// The output.
        name: String,
        /// The format.
        format: &'static str,
    },
    /// This build does not have the format.
    #[error("this build cannot write Parquet; build with the feature `parquet`, or write CSV")]
    NoParquet {
        /// The output.
        name: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread to write {name}")]
    Thread {
        /// The output.
        name: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Writing failed, for example because the disk is full.
    #[error("cannot write to {name}; {}{}", count_lines(*lines), advice(source))]
    Write {
        /// The output.
        name: String,
        /// Complete lines that were written before.
        lines: u64,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The text that is the whole content of the file cannot be written.
    #[error("cannot write to {name}{}", remedy(source))]
    WriteText {
        /// The output.
        name: String,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Another program truncated the file or wrote to it.
    #[error(
        "another program has changed {name} while it was written (lines written: {lines}); start the run again: \
         a stored run writes all its lines again"
    )]
    Changed {
        /// The output.
        name: String,
        /// Complete lines that were written before the change was detected. The file may have fewer.
        lines: u64,
    },
    /// The program that reads the output closed it.
    #[error("the program that reads {name} closed it (lines written: {lines})")]
    BrokenPipe {
        /// The output.
        name: String,
        /// Complete lines that were written before.
        lines: u64,
    },
    /// The writing thread panicked: a bug of this program, or of the caller's own writer.
    #[error("the thread that writes {name} panicked")]
    Panicked {
        /// The output.
        name: String,
    },
}

fn same_file_message(name: &str, other: &str) -> String {
    if name == other {
        return format!("this run already uses {name}");
    }
    format!("{name} and {other} are the same file")
}

/// Returns what the user can do about a system error, if that is known.
fn advice(source: &io::Error) -> String {
    let then = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ", then start the run again"
        }
        _ => "",
    };
    format!("{}{then}", remedy(source))
}

/// Returns what the user can do about a system error before the file is written again, if that is known.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "; create its directory first",
        io::ErrorKind::StorageFull => "; free some space",
        io::ErrorKind::QuotaExceeded => "; your disk quota is exhausted: free some space",
        io::ErrorKind::FileTooLarge => "; raise the limit on file sizes (`ulimit -f`)",
        io::ErrorKind::ReadOnlyFilesystem => "; its file system is read-only: name another file",
        _ => "",
    }
}

fn not_owned_advice() -> Advice {
    Advice::from("name another file, or ").with_remedy(Remedy::Overwrite)
}

fn count_lines(lines: u64) -> String {
    match lines {
        0 => "no line was saved".into(),
        1 => "1 line was saved".into(),
        more => format!("{more} lines were saved"),
    }
}

impl Error {
    /// Returns the error of a write to `name` that failed after `lines` complete lines.
    pub(super) fn of_write(name: String, lines: u64, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe { name, lines },
            _ => Self::Write { name, lines, source: Arc::new(source) },
        }
    }

    /// Returns the error of writing a text as the whole content of `name`.
    pub(super) fn of_text(name: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe { name, lines: 0 },
            _ => Self::WriteText { name, source: Arc::new(source) },
        }
    }

    /// Returns what the user can do about it, if that includes a remedy. The message ends with it.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::NotOwned { .. } | Self::Extended { .. } => Some(not_owned_advice()),
            Self::NotAFile { .. } => Some(Remedy::WriteToFile.into()),
            Self::Open { .. }
            | Self::Directory { .. }
            | Self::SameFile { .. }
            | Self::RealAnswers { .. }
            | Self::InUse { .. }
            | Self::NoParquet { .. }
            | Self::Thread { .. }
            | Self::Write { .. }
            | Self::WriteText { .. }
            | Self::Changed { .. }
            | Self::BrokenPipe { .. }
            | Self::Panicked { .. } => None,
        }
    }

    /// Returns whether the reader of a pipe has closed it, as `head` does. This ends the output but is not a
    /// failure to report.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::BrokenPipe { .. })
    }
}
