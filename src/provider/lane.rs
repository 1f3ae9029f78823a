//! One model of a provider: its breaker, whether it has ever answered, and what its calls take.
//!
//! Estimates only; never holds a call back itself.

use tokio::time::Instant;

use crate::guard::{Breaker, Need};
use crate::types::Failure;

use super::call::Refused;
use super::reservation::Reservation;
use super::sizes::{ASSUMED_OUTPUT, Sizes};

/// What a call is assumed to take before there was one.
pub(super) const ASSUMED_NEED: Need = Need { input: 500, output: ASSUMED_OUTPUT };

/// What a provider knows of one of its models.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) breaker: Breaker,
    pub(super) has_answered: bool,
    /// The last failure that counted against it.
    pub(super) last: Option<Failure>,
    /// Tokens that a call of it reads, by estimate.
    pub(super) input: Learned,
    /// Output tokens that its calls reserve for good, where they do.
    kept: Learned,
    /// What is known of its calls.
    pub(super) sizes: Sizes,
}

/// An average that forgets slowly.
#[derive(Debug, Default)]
pub(super) struct Learned(pub(super) Option<f64>);

impl Learned {
    pub(super) fn learn(&mut self, seen: f64) {
        self.0 = Some(self.0.map_or(seen, |known| known + (seen - known) / 20.0));
    }
}

impl Lane {
    pub(super) fn new(breaker: Breaker) -> Self {
        Self {
            breaker,
            has_answered: false,
            last: None,
            input: Learned::default(),
            kept: Learned::default(),
            sizes: Sizes::default(),
        }
    }

    /// Says why the breaker refuses a call.
    pub(super) fn refusal(&self, until: Option<Instant>) -> Refused {
        match &self.last {
            Some(last) if !self.has_answered => Refused::NeverAnswered(last.clone()),
            _ => Refused::Open { until },
        }
    }

    /// Notes that a call has left.
    pub(super) fn took(&mut self, reserved: &Reservation) {
        self.input.learn(reserved.need.input as f64);
        if reserved.kept {
            self.kept.learn(reserved.need.output as f64);
        }
    }

    /// Returns what a call of it takes on average; `None` before there was one.
    pub(super) fn usual_need(&self) -> Option<Need> {
        let kept = self.kept.0.map(|output| output as u64);
        let output = kept.or_else(|| self.sizes.usual(None)).unwrap_or(ASSUMED_OUTPUT);
        self.input.0.map(|input| Need { input: input as u64, output })
    }
}
