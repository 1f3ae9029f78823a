//! The setting for the retry delay in a 429.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::duration;

/// Retry delay in a 429.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenRetryAfter", into = "WrittenRetryAfter")]
pub enum RetryAfter {
    /// The time until a call would be admitted. Written `true`.
    #[default]
    Truthful,
    /// None. Written `false`.
    Missing,
    /// A value that a client must ignore: negative, or years. Written `"absurd"`.
    Absurd,
    /// This duration. Written such as `"15m"`.
    After(Duration),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged, expecting = "this is not a wait; write true, false, \"absurd\" or a time such as \"15m\"")]
enum WrittenRetryAfter {
    Given(bool),
    Word(Word),
    After(#[serde(with = "duration")] Duration),
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
            WrittenRetryAfter::After(time) => Self::After(time),
        }
    }
}

impl From<RetryAfter> for WrittenRetryAfter {
    fn from(value: RetryAfter) -> Self {
        match value {
            RetryAfter::Truthful => Self::Given(true),
            RetryAfter::Missing => Self::Given(false),
            RetryAfter::Absurd => Self::Word(Word::Absurd),
            RetryAfter::After(time) => Self::After(time),
        }
    }
}
