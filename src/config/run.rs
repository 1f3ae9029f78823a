//! What can be set about runs, `[run]`.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use super::ByteSize;
use crate::guard::DEFAULT_MEMORY;

/// How a run works through its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Most items under way at once. `None` follows what the providers can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<NonZeroUsize>,
    /// About how much memory the items in progress of all runs in this process may take.
    pub max_memory: ByteSize,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { window: None, max_memory: ByteSize(DEFAULT_MEMORY) }
    }
}
