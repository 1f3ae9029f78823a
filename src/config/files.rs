//! Settings for files that items attach, `[files]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::Origin;

/// Files that an item may attach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// Folders whose files a pipeline may attach, in addition to the pipeline's own directory.
    pub allow: Vec<PathBuf>,
    /// Hosts whose URLs an item may attach, in addition to the hosts written in the template itself.
    pub allow_hosts: Vec<Origin>,
}
