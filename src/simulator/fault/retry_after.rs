//! What a 429 says about when to come back, and how settings write it.
//!
//! Holds no time; who answers knows how long there is to wait.

use serde::{Deserialize, Serialize};

/// What a 429 says about when to come back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenRetryAfter", into = "WrittenRetryAfter")]
pub enum RetryAfter {
    /// The time until there is room. Written `true`.
    #[default]
    Truthful,
    /// Nothing. Written `false`.
    Missing,
    /// A value that nobody should believe: negative, or years. Written `"absurd"`.
    Absurd,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged, expecting = "this says nothing of a wait; write true, false or \"absurd\"")]
enum WrittenRetryAfter {
    Given(bool),
    Word(Word),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Absurd,
}

impl From<WrittenRetryAfter> for RetryAfter {
    fn from(written: WrittenRetryAfter) -> Self {
        match written {
            WrittenRetryAfter::Given(true) => Self::Truthful,
            WrittenRetryAfter::Given(false) => Self::Missing,
            WrittenRetryAfter::Word(Word::Absurd) => Self::Absurd,
        }
    }
}

impl From<RetryAfter> for WrittenRetryAfter {
    fn from(value: RetryAfter) -> Self {
        match value {
            RetryAfter::Truthful => Self::Given(true),
            RetryAfter::Missing => Self::Given(false),
            RetryAfter::Absurd => Self::Word(Word::Absurd),
        }
    }
}
