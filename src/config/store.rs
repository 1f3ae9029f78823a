//! Settings for stored runs, `[store]`.

use serde::{Deserialize, Serialize};

use crate::store::StoreUrl;

/// Where runs are stored, and which of their data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// Address of the database.
    pub url: StoreUrl,
    /// Items whose fields are stored.
    pub keep_inputs: KeepInputs,
}

/// Items whose fields are stored in addition to their answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepInputs {
    /// All items.
    #[default]
    All,
    /// Failed items only, which is enough to retry them.
    Failed,
}
