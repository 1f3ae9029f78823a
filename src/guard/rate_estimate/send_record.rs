//! Record of what was sent: totals, the record of each call, and the last minute.

use std::ops::{AddAssign, Sub, SubAssign};

use tokio::time::Instant;

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
pub(super) struct LastMinute {
    origin: Instant,
    /// For each slot, the second that it was last used for, from 1, and what was sent in it.
    slots: [(u64, Amount); WINDOW_SECONDS as usize],
}

impl LastMinute {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, slots: [(0, Amount::default()); WINDOW_SECONDS as usize] }
    }

    pub(super) fn add(&mut self, amount: Amount, now: Instant) {
        let second = self.second(now);
        let slot = &mut self.slots[(second % WINDOW_SECONDS) as usize];
        if slot.0 != second {
            *slot = (second, Amount::default());
        }
        slot.1 += amount;
    }

    pub(super) fn remove(&mut self, call: &SendRecord) {
        let second = self.second(call.sent_at);
        let slot = &mut self.slots[(second % WINDOW_SECONDS) as usize];
        if slot.0 == second {
            slot.1 -= call.amount;
        }
    }

    /// Returns the mean per second over the last minute.
    pub(super) fn per_second(&self, now: Instant, resource: RateLimitResource) -> f64 {
        let second = self.second(now);
        let recent = self.slots.iter().filter(|(at, _)| *at + WINDOW_SECONDS > second);
        recent.map(|(_, amount)| amount.of(resource)).sum::<f64>().max(0.0) / WINDOW_SECONDS as f64
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs() + 1
    }
}
