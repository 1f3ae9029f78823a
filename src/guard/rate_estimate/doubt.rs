//! Whether a refusal is a limit's at all.
//!
//! A provider that is at its limit refuses again within a few calls. A refusal after [`SELDOM`] accepted calls or more is
//! tolerated: the rate exceeds a limit by 3% at most, or the provider was only busy, or the refusal was one request's own.
//! Slowing down for it would lose more answers than it saves refusals. Pure.

use super::sent::Amount;

/// Accepted calls since the last refusal that make one tolerable.
const SELDOM: f64 = 35.0;

/// What had been accepted when a call was refused last.
#[derive(Debug, Default)]
pub(super) struct Doubt(Amount);

impl Doubt {
    /// Learns of a refusal, before which so much had been accepted. Returns whether it is tolerated.
    pub(super) fn is_tolerable(&mut self, accepted: Amount) -> bool {
        let since = accepted - self.0;
        self.0 = accepted;
        since.calls >= SELDOM
    }
}
