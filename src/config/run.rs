//! What can be set about runs, `[run]`.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// How a run works through its items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Most items under way at once. `None` follows what the providers can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<NonZeroUsize>,
}
