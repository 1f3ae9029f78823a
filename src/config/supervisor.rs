//! What can be set about restarts, `[supervisor]`.
//!
//! Restarts nothing itself: the supervisor does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::{Backoff, Intensity, Policy};
use crate::types::duration;

/// How often actors that panic are restarted, and how soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisorSettings {
    /// Restarts of the router within `window`; one more and it has failed for good.
    pub router_restarts: u32,
    /// Restarts of each provider within `window`; one more and it stays down.
    pub provider_restarts: u32,
    /// Restarts of each run within `window`; one more and it has failed for good.
    pub run_restarts: u32,
    /// How far back restarts count.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Wait before a restart; doubles with each further one until a life was long enough.
    #[serde(with = "duration")]
    pub pause: Duration,
    /// Longest wait before a restart.
    #[serde(with = "duration")]
    pub max_pause: Duration,
}

impl SupervisorSettings {
    /// Returns what a child is granted that may be restarted `max` times within the window.
    pub fn policy(&self, max: u32) -> Policy {
        Policy {
            intensity: Intensity { max, period: self.window },
            backoff: Backoff { min: self.pause, max: self.max_pause, ..Backoff::default() },
        }
    }
}

impl Default for SupervisorSettings {
    fn default() -> Self {
        let (intensity, backoff) = (Intensity::default(), Backoff::default());
        Self {
            router_restarts: 5,
            provider_restarts: intensity.max,
            run_restarts: intensity.max,
            window: intensity.period,
            pause: backoff.min,
            max_pause: backoff.max,
        }
    }
}
