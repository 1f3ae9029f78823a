//! Settings for stored runs, `[store]`.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::ByteSize;
use crate::pipeline::defaults::optional_duration;
use crate::store::{CacheLimits, StoreUrl};
use crate::types::duration;

/// The most bytes of the answer cache, if nothing else is set.
const DEFAULT_CACHE_SIZE: ByteSize = ByteSize(4 << 30);

/// Where runs are stored, and which of their data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// Address of the database.
    pub url: StoreUrl,
    /// Items whose fields are stored.
    pub keep_inputs: KeepInputs,
    /// The most bytes of the answer cache. Answers that were not used for the longest time are removed first.
    pub cache_max_size: ByteSize,
    /// How long an answer stays in the answer cache without being used. `None` for any time.
    #[serde(
        deserialize_with = "optional_duration",
        serialize_with = "optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub cache_max_age: Option<Duration>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            url: StoreUrl::default(),
            keep_inputs: KeepInputs::default(),
            cache_max_size: DEFAULT_CACHE_SIZE,
            cache_max_age: None,
        }
    }
}

impl StoreSettings {
    /// Returns the limits of the answer cache.
    pub fn cache_limits(&self) -> CacheLimits {
        CacheLimits { max_age: self.cache_max_age, max_bytes: Some(self.cache_max_size.0 as u64) }
    }
}

fn optional_text<S: Serializer>(age: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match age {
        Some(age) => duration::serialize(age, to),
        None => to.serialize_none(),
    }
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
