//! One model of a provider: its breaker, whether it has ever answered, and what its answers take.
//!
//! Estimates only; never holds a call back itself.

use std::num::NonZeroU32;

use tokio::time::Instant;

use crate::guard::{Breaker, Need};
use crate::types::{Failure, Part, Prompt};

use super::call::Refused;
use super::model::Model;
use super::times::Times;

/// Tokens an answer is assumed to have before one has been seen.
const ASSUMED_OUTPUT: f64 = 500.0;

/// What a call is assumed to take before there was one.
pub(super) const ASSUMED_NEED: Need = Need { input: 500, output: 500 };

/// Bytes of text that make one token, about; English prose has a little over four.
const BYTES_PER_TOKEN: u64 = 4;

/// Tokens that an image or document is assumed to have.
const MEDIA_TOKENS: u64 = 1_000;

/// What a provider knows of one of its models.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) breaker: Breaker,
    pub(super) has_answered: bool,
    /// The last failure that counted against it.
    pub(super) last: Option<Failure>,
    /// Tokens that a call of it reads, by estimate.
    pub(super) input: Learned,
    /// Tokens that an answer of it has.
    pub(super) output: Learned,
    /// How long its latest calls took.
    pub(super) times: Times,
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
            output: Learned::default(),
            times: Times::default(),
        }
    }

    /// Says why the breaker refuses a call.
    pub(super) fn refusal(&self, until: Option<Instant>) -> Refused {
        match &self.last {
            Some(last) if !self.has_answered => Refused::NeverAnswered(last.clone()),
            _ => Refused::Open { until },
        }
    }

    /// Returns what a call of it has taken on average; `None` before there was one.
    pub(super) fn usual_need(&self) -> Option<Need> {
        let output = self.output.0.unwrap_or(ASSUMED_OUTPUT);
        self.input.0.map(|input| Need { input: input as u64, output: output as u64 })
    }

    /// Returns what `prompt` will take, as far as can be told before.
    pub(super) fn need(&self, prompt: &Prompt, model: &Model) -> Need {
        let parts = prompt.messages.iter().flat_map(|message| &message.parts);
        let media = parts.filter(|part| !matches!(part, Part::Text(_))).count() as u64;
        let input = (prompt.text_bytes() as u64).div_ceil(BYTES_PER_TOKEN) + media * MEDIA_TOKENS;
        let most = prompt.max_tokens.or(model.max_tokens.map(NonZeroU32::get)).map_or(f64::MAX, f64::from);
        let output = self.output.0.unwrap_or(ASSUMED_OUTPUT).min(most);
        Need { input: input.max(1), output: output as u64 }
    }
}
