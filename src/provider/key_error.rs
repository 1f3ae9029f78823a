//! Why a key cannot be read, and what to do about it. Never holds a key.

use std::io;
use std::path::PathBuf;

use crate::types::KeyLabel;

/// Most bytes that a key's file or command may hold: a key is a line, and the wrong file may be a disk image.
pub(super) const MAX_KEY_BYTES: u64 = 64 * 1024;

/// A key that cannot be read. Never holds the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text names no source.
    #[error("this is no source of a key")]
    NoSource,
    /// The file cannot be read.
    #[error("cannot read the key file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What stands at the path is no file that can hold a key.
    #[error("the key file {} is {what}", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file holds variables, not a key.
    #[error("the key file {} holds variables, not a key alone", path.display())]
    EnvFile {
        /// The file.
        path: PathBuf,
    },
    /// The command cannot be run or read.
    #[error("cannot run the key command {label}")]
    Command {
        /// The command's label.
        label: KeyLabel,
        /// Why.
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
    /// The command did not end in time.
    #[error("the key command {label} did not end in time")]
    CommandHung {
        /// The command's label.
        label: KeyLabel,
    },
    /// The command used the terminal, from the background.
    #[error(
        "the key command {label} wants to use the terminal, which is not possible here; unlock what it asks for first, \
         as by running it once by hand where an agent remembers that, or write env:NAME and set the variable with it"
    )]
    CommandWantsTerminal {
        /// The command's label.
        label: KeyLabel,
    },
    /// The command wrote more than any key is long.
    #[error("the key command {label} writes more than 64 KiB")]
    CommandOutput {
        /// The command's label.
        label: KeyLabel,
    },
    /// The source holds nothing.
    #[error("{label} holds no key")]
    Empty {
        /// The source's label.
        label: KeyLabel,
    },
    /// The source holds what no header can carry.
    #[error("{label} holds a line break or another character that no key has")]
    NoKey {
        /// The source's label.
        label: KeyLabel,
    },
}

impl KeyError {
    /// Returns what to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::File { .. } => "put the key into this file, let it be read, or name another under `keys`",
            Self::NoFile { .. } => "name a file that holds the key alone, on one line",
            Self::EnvFile { .. } => {
                "load it into the environment and write env:NAME, or put the key alone into a file"
            }
            Self::Empty { .. } => "put the key into it, alone on one line",
            Self::NoKey { .. } => "leave nothing in it but the key, on one line",
            Self::NoSource => "write env:NAME, file:PATH or command:..., never the key itself",
            Self::CommandOutput { .. } => "let it write the key alone",
            Self::Command { .. }
            | Self::CommandFailed { .. }
            | Self::CommandHung { .. }
            | Self::CommandWantsTerminal { .. } => "run it by hand to see why",
        }
    }
}
