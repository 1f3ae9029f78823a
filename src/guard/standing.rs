//! What a header said about one limit.
//!
//! Plain data.

use std::time::Duration;

use crate::types::LimitWindow;

/// What a header said about one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many fit into the provider's whole window, when it says so.
    pub limit: Option<u64>,
    /// How many are left.
    pub remaining: u64,
    /// Until the window is whole again, when it says so.
    pub reset: Option<Duration>,
    /// Over which time it counts.
    pub window: LimitWindow,
}

impl Standing {
    /// Returns the limit for a minute, as far as its headers name the window.
    pub(super) fn limit_per_minute(&self) -> Option<f64> {
        let minutes = match self.window {
            LimitWindow::Is(window) => 60.0 / window.as_secs_f64().max(1e-3),
            LimitWindow::OfVendor | LimitWindow::Unknown => 1.0,
        };
        self.limit.map(|limit| limit as f64 * minutes)
    }
}
