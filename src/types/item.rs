//! What an item is called and how it can end.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::name;

name! {
    /// An item's identity: its `id`, else the hash of its content. Never its row number, which
    /// changes when the file does.
    ItemKey
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemStatus {
    /// Every step that was due has a checked answer.
    Completed,
    /// A step that is not optional failed.
    Failed,
    /// No step was due: every condition was false.
    Skipped,
}

impl ItemStatus {
    /// Returns the word used in output lines and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for ItemStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}
