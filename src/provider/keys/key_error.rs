//! Why a key cannot be read, and advice for the user. Never contains a key.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use crate::diagnostics::{REDACTED, path_may_be_key};
use crate::types::KeyLabel;

/// Maximum size of a key file or of the output of a key command. A key is one line, and a wrong path may be a
/// disk image.
pub(in crate::provider) const MAX_KEY_BYTES: u64 = 64 * 1024;

/// Why a key cannot be read. Never contains the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not a key source.
    #[error("this is not a key source")]
    InvalidSource,
    /// The file cannot be read.
    #[error("cannot read the key file {}{}", shown_path(path), base_directory(path, source))]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The path is not a regular file of plausible size and content.
    #[error("the key file {} is {what}", shown_path(path))]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// Description of what the path is.
        what: &'static str,
    },
    /// The file contains variable assignments, not a key.
    #[error("the key file {} contains variable assignments instead of a key", shown_path(path))]
    EnvFile {
        /// The file.
        path: PathBuf,
    },
    /// The command cannot be started, or its output cannot be read.
    #[error("cannot run the key command {label}")]
    Command {
        /// The command's label.
        label: KeyLabel,
        /// The I/O error.
        source: io::Error,
    },
    /// The command failed.
    #[error("the key command {label} failed ({status})")]
    CommandFailed {
        /// The command's label.
        label: KeyLabel,
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// The command did not end within its time limit.
    #[error("the key command {label} did not end within 1 minute")]
    CommandTimedOut {
        /// The command's label.
        label: KeyLabel,
    },
    /// The command tried to use the terminal from the background.
    #[error("the key command {label} needs a terminal, which it does not have here")]
    CommandWantsTerminal {
        /// The command's label.
        label: KeyLabel,
    },
    /// The output of the command is longer than 64 KiB.
    #[error("the key command {label} writes more than 64 KiB")]
    CommandOutputTooLarge {
        /// The command's label.
        label: KeyLabel,
    },
    /// The source is empty.
    #[error("{label} has no key")]
    Empty {
        /// The source's label.
        label: KeyLabel,
    },
    /// The key is not valid in a header.
    #[error("{label} has a line break or another character that is not valid in a key")]
    InvalidKey {
        /// The source's label.
        label: KeyLabel,
    },
}

/// Returns the path of a key file as messages show it. If a user writes a key in place of the path, messages must not
/// show the key.
pub(super) fn shown_path(path: &Path) -> Cow<'_, str> {
    let shown = path.to_string_lossy();
    if path_may_be_key(&shown) { Cow::Borrowed(REDACTED) } else { shown }
}

/// Returns the directory in which a missing file was looked for, if its path is relative.
fn base_directory(path: &Path, error: &io::Error) -> String {
    match std::env::current_dir() {
        Ok(directory) if path.is_relative() && error.kind() == io::ErrorKind::NotFound => {
            format!(", relative to the working directory {}", directory.display())
        }
        Ok(_) | Err(_) => String::new(),
    }
}

impl KeyError {
    /// Returns advice for the user.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::File { .. } => {
                "write the key into this file and make the file readable, or name another source in `keys`"
            }
            Self::NotAFile { .. } => "name a file that contains only the key, on one line",
            Self::EnvFile { .. } => {
                "load the file into the environment and use env:NAME, or write only the key into the file"
            }
            Self::Empty { .. } => "write only the key into it, on one line",
            Self::InvalidKey { .. } => "it must contain only the key, on one line",
            Self::InvalidSource => "write env:NAME, file:PATH or command:..., never the key itself",
            Self::CommandOutputTooLarge { .. } => "make it write only the key",
            Self::Command { .. } | Self::CommandFailed { .. } | Self::CommandTimedOut { .. } => {
                "run it in a terminal to see why"
            }
            Self::CommandWantsTerminal { .. } => {
                "unlock its agent in a terminal first, or set a variable with the command and use env:NAME"
            }
        }
    }
}
