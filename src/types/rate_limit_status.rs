//! One rate limit as stated by the headers of one response.

use std::time::Duration;

use super::limit_window::LimitWindow;

/// One rate limit as stated by the headers of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Capacity of the whole window, if the header states it.
    pub limit: Option<u64>,
    /// What remains of the window.
    pub remaining: u64,
    /// Time until the window is full again, if the header states it.
    pub reset: Option<Duration>,
    /// Length of the window.
    pub window: LimitWindow,
}

impl RateLimitStatus {
    /// Returns the limit converted to a minute. A window of unknown length counts as a minute.
    pub(crate) fn limit_per_minute(&self) -> Option<f64> {
        let minutes = match self.window {
            LimitWindow::Fixed(window) => 60.0 / window.as_secs_f64().max(1e-3),
            LimitWindow::VendorDefault | LimitWindow::Unknown => 1.0,
        };
        self.limit.map(|limit| limit as f64 * minutes)
    }
}
