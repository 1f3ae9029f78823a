//! What can be set about files that items name, `[files]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which files an item may name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// Folders whose files a pipeline may attach, besides those of its own directory.
    pub allow: Vec<PathBuf>,
}
