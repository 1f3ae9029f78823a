//! Decides whether a 429 response is caused by a limit at all.
//!
//! A provider at its limit rejects again within a few calls. A 429 response after
//! [`MIN_ACCEPTED_FOR_TOLERANCE`] accepted calls or more is tolerated: the rate exceeds a limit by 3% at
//! most, or the provider was only busy, or the response concerned that one request. Slowing down for it
//! would lose more answers than it saves 429 responses. Pure.

use super::send_record::Amount;

/// Accepted calls since the last 429 response that make one tolerable.
const MIN_ACCEPTED_FOR_TOLERANCE: f64 = 35.0;

/// What had been accepted at the last 429 response.
#[derive(Debug, Default)]
pub(super) struct Tolerance(Amount);

impl Tolerance {
    /// Records a 429 response before which this much had been accepted. Returns whether it is tolerated.
    pub(super) fn tolerates(&mut self, accepted: Amount) -> bool {
        let since = accepted - self.0;
        self.0 = accepted;
        since.calls >= MIN_ACCEPTED_FOR_TOLERANCE
    }
}
