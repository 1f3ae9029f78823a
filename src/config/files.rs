//! What can be set about files that items name, `[files]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::Origin;

/// Which files an item may name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// Folders whose files a pipeline may attach, besides those of its own directory.
    pub allow: Vec<PathBuf>,
    /// Hosts whose addresses an item may give as an attachment, besides those that the template itself writes.
    pub allow_hosts: Vec<Origin>,
}
