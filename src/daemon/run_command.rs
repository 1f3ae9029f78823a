//! What is stored of a run of the daemon besides its items: with it, the run is resumed at the next start.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::source::Format;
use crate::store::StoredRun;

/// The prefix of the identities of all runs of daemons.
pub(super) const IDENTITY_PREFIX: &str = "daemon:";

/// How a run was created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunCommand {
    /// The name of the pipeline.
    pub(super) pipeline: String,
    /// The version of a stored pipeline; `None` for one from a file.
    pub(super) version: Option<i64>,
    /// The folder of a pipeline from a file. Paths in the pipeline are relative to it. `None` for a stored pipeline,
    /// which may not name files.
    pub(super) directory: Option<PathBuf>,
    /// Where its items are.
    pub(super) items: ItemsFile,
    /// Who created it: the name of a token, or empty.
    pub(super) created_by: String,
    /// Whether its items came one at a time.
    #[serde(default)]
    pub(super) one_at_a_time: bool,
}

/// Where the items of a run are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ItemsFile {
    /// The ID of the run's files in the data folder. The rejects have this name in any case.
    pub(super) id: String,
    /// The path of a file outside of the data folder; `None` if the items are in it.
    pub(super) path: Option<PathBuf>,
    /// The format; `None` is decided by the file's name and first byte.
    pub(super) format: Option<String>,
}

/// The stored form, which tells a run of a daemon from one of the command line.
#[derive(Serialize, Deserialize)]
struct Stored {
    daemon: RunCommand,
    /// What lists of runs show as its items.
    items: String,
}

impl RunCommand {
    /// Returns the command of a stored run; `None` if no daemon has created it.
    pub(super) fn of(run: &StoredRun) -> Option<Self> {
        let stored: Stored = serde_json::from_value(run.metadata.command.clone()).ok()?;
        Some(stored.daemon)
    }

    /// Returns what is stored.
    pub(super) fn to_value(&self) -> Value {
        let items = match &self.items.path {
            Some(path) => path.display().to_string(),
            None if self.one_at_a_time => "one at a time".to_owned(),
            None => "uploaded".to_owned(),
        };
        serde_json::to_value(Stored { daemon: self.clone(), items }).unwrap_or_default()
    }

    /// Returns the format of the items.
    pub(super) fn format(&self) -> Option<Format> {
        self.items.format.as_deref().and_then(format_named)
    }
}

/// Returns the format of this name.
pub(super) fn format_named(name: &str) -> Option<Format> {
    match name {
        "jsonl" => Some(Format::Jsonl),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "tsv" => Some(Format::Tsv),
        _ => None,
    }
}
