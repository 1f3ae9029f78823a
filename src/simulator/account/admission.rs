//! What an account counts, and what it decides about one call.
//!
//! Plain data.

use std::time::Duration;

/// Unit that a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::simulator) enum LimitKind {
    Requests,
    Tokens,
    InputTokens,
    OutputTokens,
}

/// Amounts that a call consumes at one time.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulator) struct Cost {
    pub(super) requests: u64,
    pub(in crate::simulator) input: u64,
    /// Input tokens that the limit of input tokens does not count, because they are read from the prompt cache.
    pub(super) uncounted_input: u64,
    pub(in crate::simulator) output: u64,
}

impl Cost {
    /// Returns the cost of a call on arrival.
    pub(in crate::simulator) fn for_call(input: u64, output: u64) -> Self {
        Self { requests: 1, input, uncounted_input: 0, output }
    }

    /// Exempts `tokens` of the input from the limit of input tokens.
    pub(in crate::simulator) fn with_uncounted_input(self, tokens: u64) -> Self {
        Self { uncounted_input: tokens, ..self }
    }

    pub(super) fn amount_of(self, limit_kind: LimitKind) -> u64 {
        match limit_kind {
            LimitKind::Requests => self.requests,
            LimitKind::Tokens => self.input.saturating_add(self.output),
            LimitKind::InputTokens => self.input.saturating_sub(self.uncounted_input),
            LimitKind::OutputTokens => self.output,
        }
    }
}

/// Status of one limit, for the headers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulator) struct LimitStatus {
    pub(in crate::simulator) limit_kind: LimitKind,
    /// Per minute, for both bucket sizes.
    pub(in crate::simulator) limit: u64,
    pub(in crate::simulator) remaining: u64,
    /// Time until the bucket is full.
    pub(in crate::simulator) reset: Duration,
}

/// Why a call was rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::simulator) struct Rejection {
    pub(in crate::simulator) limit_kind: LimitKind,
    /// Per minute.
    pub(in crate::simulator) limit: u64,
    pub(in crate::simulator) used: u64,
    pub(in crate::simulator) requested: u64,
    /// Time until this call would be admitted; `None` if it never can be.
    pub(in crate::simulator) wait: Option<Duration>,
}

/// Status of all limits of an account.
pub(in crate::simulator) type LimitStatuses = [Option<LimitStatus>; 4];
