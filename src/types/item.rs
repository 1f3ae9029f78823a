//! The key of an item and its final status.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::name;

name! {
    /// The identity of an item: its `id`, or else the hash of its content. The row number is never used, because
    /// it changes with the file.
    ItemKey
}

/// The final status of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemStatus {
    /// Every step whose condition was true has a validated answer.
    Completed,
    /// A required step failed.
    Failed,
    /// The condition of every step was false.
    Skipped,
}

impl ItemStatus {
    /// Returns the name that output lines and reports use.
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
