//! Settings for restarts, `[supervisor]`. The supervisor applies them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::supervisor::{Intensity, RestartBackoff, RestartPolicy};
use crate::types::duration;

/// How often and how soon actors that panic are restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SupervisorSettings {
    /// Maximum restarts of the router within `window`. The next panic is a permanent failure.
    pub router_restarts: u32,
    /// Maximum restarts of each provider within `window`. After the next panic the provider stays down.
    pub provider_restarts: u32,
    /// Maximum restarts of each run within `window`. The next panic is a permanent failure.
    pub run_restarts: u32,
    /// Period over which restarts are counted.
    #[serde(with = "duration")]
    pub window: Duration,
    /// Wait before a restart. It doubles with each further restart, and is reset after an incarnation that ran
    /// long enough.
    #[serde(with = "duration")]
    pub backoff: Duration,
    /// Maximum wait before a restart.
    #[serde(with = "duration")]
    pub max_backoff: Duration,
}

impl SupervisorSettings {
    /// Returns the restart policy of a child that may be restarted `max` times within the window.
    pub fn policy(&self, max: u32) -> RestartPolicy {
        RestartPolicy {
            intensity: Intensity { max, period: self.window },
            backoff: RestartBackoff { min: self.backoff, max: self.max_backoff, ..RestartBackoff::default() },
        }
    }
}

impl Default for SupervisorSettings {
    fn default() -> Self {
        let intensity = Intensity::default();
        let backoff = RestartBackoff::default();
        Self {
            router_restarts: 5,
            provider_restarts: intensity.max,
            run_restarts: intensity.max,
            window: intensity.period,
            backoff: backoff.min,
            max_backoff: backoff.max,
        }
    }
}
