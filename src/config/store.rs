//! What can be set about keeping runs, `[store]`.

use serde::{Deserialize, Serialize};

use crate::store::StoreUrl;

/// Where runs are kept, and what of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// Where.
    pub url: StoreUrl,
    /// Of which items the fields are kept.
    pub inputs: Inputs,
}

/// Of which items the fields are kept beside their answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// Of all of them.
    #[default]
    All,
    /// Of failed ones only: enough to try those again.
    Failed,
}
