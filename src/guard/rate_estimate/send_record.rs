//! Record of what was sent: totals, the record of each call, and the last minute.

use std::ops::{AddAssign, Sub, SubAssign};

use tokio::time::Instant;

use crate::guard::second_slots::SecondSlots;
use crate::types::RateLimitResource;

/// Calls and the tokens that they use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Amount {
    pub(super) calls: f64,
    pub(super) tokens: f64,
}

impl Amount {
    pub(super) fn call(tokens: u64) -> Self {
        Self { calls: 1.0, tokens: tokens as f64 }
    }

    pub(super) fn of(self, resource: RateLimitResource) -> f64 {
        match resource {
            RateLimitResource::Requests => self.calls,
            RateLimitResource::Tokens => self.tokens,
        }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.tokens += other.tokens;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sub for Amount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { calls: self.calls - other.calls, tokens: self.tokens - other.tokens }
    }
}

/// A call that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendRecord {
    pub(super) sent_at: Instant,
    pub(super) amount: Amount,
    /// Everything sent up to then, this call included.
    pub(super) total_sent: Amount,
    /// Whether calls were sent at the estimated rate at that time.
    pub(super) in_use: bool,
}

/// Length of the window in seconds.
const WINDOW_SECONDS: u64 = 60;

/// What was sent in the last minute and not rejected, by second.
#[derive(Debug)]
pub(super) struct LastMinute(SecondSlots<Amount, { WINDOW_SECONDS as usize }>);

impl LastMinute {
    pub(super) fn new(now: Instant) -> Self {
        Self(SecondSlots::new(now))
    }

    pub(super) fn add(&mut self, amount: Amount, now: Instant) {
        *self.0.value_mut(now) += amount;
    }

    pub(super) fn remove(&mut self, call: &SendRecord) {
        if let Some(sent) = self.0.past_value_mut(call.sent_at) {
            *sent -= call.amount;
        }
    }

    /// Returns the mean per second over the last minute.
    pub(super) fn per_second(&self, now: Instant, resource: RateLimitResource) -> f64 {
        let first = self.0.second(now).saturating_sub(WINDOW_SECONDS - 1);
        let amounts = self.0.values(first..).map(|amount| amount.of(resource));
        amounts.sum::<f64>().max(0.0) / WINDOW_SECONDS as f64
    }
}
