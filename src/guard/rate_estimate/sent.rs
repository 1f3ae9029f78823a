//! What has been sent: totals, each call's mark in them, and the last minute.

use std::ops::{AddAssign, Sub, SubAssign};

use tokio::time::Instant;

use crate::types::Limited;

/// Calls, and the tokens that they take.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Amount {
    pub(super) calls: f64,
    pub(super) tokens: f64,
}

impl Amount {
    pub(super) fn call(tokens: u64) -> Self {
        Self { calls: 1.0, tokens: tokens as f64 }
    }

    pub(super) fn of(self, counted: Limited) -> f64 {
        match counted {
            Limited::Requests => self.calls,
            Limited::Tokens => self.tokens,
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

/// A call that has left.
#[derive(Debug, Clone, Copy)]
pub(in crate::guard) struct Sent {
    pub(super) at: Instant,
    pub(super) own: Amount,
    /// All that had been sent then, itself included.
    pub(super) sent: Amount,
    /// Whether calls left at the estimated rate then.
    pub(super) in_use: bool,
}

/// Seconds that are looked back to.
const SECONDS: u64 = 60;

/// What left in the last minute and was not refused, by the second.
#[derive(Debug)]
pub(super) struct Recent {
    origin: Instant,
    /// The second that a slot was last used for, from 1, and what left in it.
    slots: [(u64, Amount); SECONDS as usize],
}

impl Recent {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, slots: [(0, Amount::default()); SECONDS as usize] }
    }

    pub(super) fn add(&mut self, own: Amount, now: Instant) {
        let second = self.second(now);
        let slot = &mut self.slots[(second % SECONDS) as usize];
        if slot.0 != second {
            *slot = (second, Amount::default());
        }
        slot.1 += own;
    }

    pub(super) fn remove(&mut self, call: &Sent) {
        let second = self.second(call.at);
        let slot = &mut self.slots[(second % SECONDS) as usize];
        if slot.0 == second {
            slot.1 -= call.own;
        }
    }

    /// Returns the mean of a second over the last minute.
    pub(super) fn a_second(&self, now: Instant, counted: Limited) -> f64 {
        let second = self.second(now);
        let recent = self.slots.iter().filter(|(at, _)| *at + SECONDS > second);
        recent.map(|(_, amount)| amount.of(counted)).sum::<f64>().max(0.0) / SECONDS as f64
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_secs() + 1
    }
}
