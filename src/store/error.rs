//! Errors of a store, with advice.

use std::path::PathBuf;

use super::document::{DocumentKind, MAX_DOCUMENT_DEPTH};
use super::run::RunNumber;
use crate::types::{Advice, Remedy};

/// An error of a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or its directory cannot be used.
    #[error("cannot open the database {}: {why}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// The error of the system, with advice.
        why: String,
    },
    /// The lock file of a run cannot be used.
    #[error("cannot use the lock file {}: {why}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// The error of the system, with advice.
        why: String,
    },
    /// A later version created the database.
    #[error(
        "the database {} has schema version {found}, but this program supports at most {known}: use the version of \
         pointsman that wrote it, or set another file in [store] url", path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The latest version that this program supports.
        known: i64,
    },
    /// An earlier version created the database, and it cannot be written.
    #[error(
        "the database {} has schema version {found}, this program needs {known}, and the file is read-only: {}",
        path.display(), older_schema_advice()
    )]
    OlderSchema {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version that this program needs.
        known: i64,
    },
    /// The database must be migrated, but a process of an earlier version uses it.
    #[error(
        "the database {} has schema version {found} and cannot be migrated to version {known} now: an earlier version \
         of pointsman is running {}. Wait until it has ended, or stop it, then start again",
        path.display(), name(*run)
    )]
    InUseByOlderVersion {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The version that this program needs.
        known: i64,
        /// The run that is in progress.
        run: RunNumber,
    },
    /// Another program created the database.
    #[error("{} is a database of another program: set another file in [store] url", path.display())]
    NotOurs {
        /// The database.
        path: PathBuf,
    },
    /// The data differs from what was written.
    #[error(
        "the database {} is damaged: {what}. Nothing in it was changed. Restore it from a copy, or start over with \
         another file in [store] url", path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The damage and its location.
        what: String,
    },
    /// Another version wrote the manifest of a run in a form that cannot be read.
    #[error("the manifest of run {run} cannot be read: {why}. {}", manifest_advice())]
    Manifest {
        /// The run.
        run: RunNumber,
        /// The reason.
        why: String,
    },
    /// The database cannot be read or written.
    #[error("cannot {doing} the database {}: {why}", path.display())]
    Io {
        /// The database.
        path: PathBuf,
        /// `read` or `write`.
        doing: &'static str,
        /// The error of the system, with advice.
        why: String,
    },
    /// Another process works on the run.
    #[error("{} is in use by {who}: wait until that process has ended, or stop it", name(*run))]
    Busy {
        /// The run.
        run: RunNumber,
        /// The process, if it is known.
        who: String,
    },
    /// The run does not exist.
    #[error("there is no run {run} in this database; {advice}", run = .0, advice = no_run_advice())]
    NoRun(RunNumber),
    /// The document has another version than the change expects.
    #[error("{}", conflict(*kind, name, *found))]
    VersionConflict {
        /// What the document is.
        kind: DocumentKind,
        /// Its name.
        name: String,
        /// Its latest version; `None` if it does not exist.
        found: Option<i64>,
    },
    /// The value of a document is too large.
    #[error(
        "the {kind} {name:?} is too large to be stored: it has {bytes} bytes as JSON, and at most {max} are allowed"
    )]
    DocumentTooLarge {
        /// What the document is.
        kind: DocumentKind,
        /// Its name.
        name: String,
        /// The size of its JSON text.
        bytes: usize,
        /// The largest size.
        max: usize,
    },
    /// The value of a document is nested too deeply to be read again.
    #[error("the {kind} {name:?} cannot be stored: it is nested more than {MAX_DOCUMENT_DEPTH} levels deep")]
    DocumentTooDeep {
        /// What the document is.
        kind: DocumentKind,
        /// Its name.
        name: String,
    },
    /// A range of days has too many rows of spend.
    #[error("these days have more than {max} rows of spend: ask for fewer days")]
    TooMuchSpending {
        /// The largest number of rows.
        max: u32,
    },
}

fn conflict(kind: DocumentKind, name: &str, found: Option<i64>) -> String {
    match found {
        Some(version) => format!(
            "the {kind} {name:?} exists and its latest version is {version}, which the change does not expect: read it \
             again, then repeat the change"
        ),
        None => format!("the {kind} {name:?} does not exist, but the change expects a version of it"),
    }
}

fn no_run_advice() -> Advice {
    Remedy::ListRuns.into()
}

fn older_schema_advice() -> Advice {
    Advice::from("copy it to a place where it can be written, and ").with_remedy(Remedy::OpenCopy)
}

fn manifest_advice() -> Advice {
    Advice::from("Use the version of pointsman that started it, or ").with_remedy(Remedy::BeginNewRun)
}

impl Error {
    /// Returns what the user can do about it, if that includes a remedy. The message ends with it.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::OlderSchema { .. } => Some(older_schema_advice()),
            Self::Manifest { .. } => Some(manifest_advice()),
            Self::NoRun(_) => Some(no_run_advice()),
            Self::Open { .. }
            | Self::Lock { .. }
            | Self::NewerSchema { .. }
            | Self::InUseByOlderVersion { .. }
            | Self::NotOurs { .. }
            | Self::Damaged { .. }
            | Self::Io { .. }
            | Self::Busy { .. }
            | Self::VersionConflict { .. }
            | Self::DocumentTooLarge { .. }
            | Self::DocumentTooDeep { .. }
            | Self::TooMuchSpending { .. } => None,
        }
    }
}

/// Names a run. A run that is being created has no number yet.
fn name(run: RunNumber) -> String {
    if run == RunNumber::NONE { "a new run".to_owned() } else { format!("run {run}") }
}
