//! When a lane counts as failing, and how long it then rests.
//!
//! Decides nothing itself: the breaker does.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::types::duration;

/// The breaker of a provider, `[provider.NAME.breaker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// Failures in a row that open the breaker.
    pub failures: NonZeroU32,
    /// Share of failed calls within `window` that opens the breaker; above 0, at most 1.
    #[serde(deserialize_with = "share")]
    pub failure_share: f64,
    /// How far back `failure_share` looks.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Calls that `window` must hold before `failure_share` counts.
    pub min_calls: NonZeroU32,
    /// Wait before the first probe.
    #[serde(with = "duration")]
    pub pause: Duration,
    /// Longest wait before a probe, however often probes have failed.
    #[serde(with = "duration")]
    pub max_pause: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: const { NonZeroU32::new(5).unwrap() },
            failure_share: 0.5,
            window: Duration::from_secs(30),
            min_calls: const { NonZeroU32::new(20).unwrap() },
            pause: Duration::from_secs(5),
            max_pause: Duration::from_secs(120),
        }
    }
}

fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(from)?;
    if share > 0.0 && share <= 1.0 {
        return Ok(share);
    }
    Err(serde::de::Error::custom(format!(
        "{share} is no share; write a number above 0 and up to 1, such as 0.5"
    )))
}
