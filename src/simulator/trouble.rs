//! What can be wrong with a call, in no vendor's words.
//!
//! Each vendor's file finds the words, the status and the body; nothing is formatted here but numbers.

use std::time::Duration;

use super::account::{Quantity, Refusal};
use super::{Fault, FaultKind};

/// What an answer may have where the request does not limit it.
const DEFAULT_MAX_TOKENS: u64 = 65_536;

/// Why a call is not answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trouble {
    /// The request itself is wrong.
    Invalid { message: String, param: Option<&'static str>, code: Option<&'static str> },
    /// It is larger than anything that is read.
    TooLarge,
    /// No key, where one is needed.
    NoKey,
    /// A key that is not accepted.
    Key { given: String },
    /// No such model.
    NoModel { model: String },
    /// No such address.
    NoAddress { what: String },
    /// A limit refuses it.
    Throttled(Throttled),
    /// The account's money or daily quota is spent.
    Quota { model: String, hint: Hint },
    /// A 403 that is about this.
    Forbidden(Forbidden),
    /// The account cannot afford an answer as long as this.
    Unaffordable { max_tokens: u64 },
    /// The server failed, with this status.
    Server { status: u16 },
    /// The server is down, with this status.
    Unavailable { status: u16 },
    /// The server has too much to do; `None` is the vendor's own status for that.
    Overloaded { status: Option<u16> },
}

/// What a 403 is about.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Forbidden {
    /// It does not say.
    Unsaid,
    /// The use of this model.
    Model(String),
    /// A file.
    File,
}

/// A limit's refusal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Throttled {
    pub(super) model: String,
    pub(super) quantity: Quantity,
    /// Per minute.
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) requested: u64,
    pub(super) hint: Hint,
}

/// What a refusal says about when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    Nothing,
    After(Duration),
    /// A number of seconds that nobody should believe.
    Absurd(i64),
}

impl Hint {
    /// Returns the value of a Retry-After header: whole seconds, rounded up.
    pub(super) fn seconds(self) -> Option<i64> {
        match self {
            Self::Nothing => None,
            Self::After(wait) => Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1) as i64),
            Self::Absurd(seconds) => Some(seconds),
        }
    }
}

impl Trouble {
    /// Returns what it says about when to come back.
    pub(super) fn hint(&self) -> Hint {
        match self {
            Self::Throttled(throttled) => throttled.hint,
            Self::Quota { hint, .. } => *hint,
            _ => Hint::Nothing,
        }
    }

    /// Makes the trouble of a request that lacks something or says something wrong.
    pub(super) fn invalid(
        message: impl Into<String>,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> Self {
        Self::Invalid { message: message.into(), param, code }
    }

    /// Makes the trouble of a limit's refusal.
    pub(super) fn refused(refusal: Refusal, model: &str, hint: Hint) -> Self {
        let Refusal { quantity, limit, used, requested, .. } = refusal;
        Self::Throttled(Throttled { model: model.to_owned(), quantity, limit, used, requested, hint })
    }

    /// Returns the trouble that a fault plays at the door; `None` for faults that are no error reply.
    pub(super) fn of_fault(
        fault: &Fault,
        model: &str,
        key: Option<&str>,
        limit: u64,
        max_tokens: Option<u64>,
        hint: Hint,
    ) -> Option<Self> {
        let (model, status) = (model.to_owned(), fault.status);
        Some(match fault.kind {
            FaultKind::RateLimited => Self::Throttled(Throttled {
                model,
                quantity: Quantity::Requests,
                limit,
                used: limit,
                requested: 1,
                hint,
            }),
            FaultKind::ServerError => Self::Server { status: status.unwrap_or(500) },
            FaultKind::Unavailable => Self::Unavailable { status: status.unwrap_or(503) },
            FaultKind::Overloaded => Self::Overloaded { status },
            FaultKind::Auth => Self::Key { given: key.unwrap_or_default().to_owned() },
            // By itself a spent quota says nothing of when to come back.
            FaultKind::Quota => {
                let hint = if fault.retry_after.is_some() { hint } else { Hint::Nothing };
                Self::Quota { model, hint }
            }
            FaultKind::NotFound => Self::NoModel { model },
            FaultKind::Forbidden => Self::Forbidden(Forbidden::Unsaid),
            FaultKind::ModelForbidden => Self::Forbidden(Forbidden::Model(model)),
            FaultKind::FileForbidden => Self::Forbidden(Forbidden::File),
            FaultKind::MaxTokensUnaffordable => {
                Self::Unaffordable { max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS) }
            }
            FaultKind::Reset
            | FaultKind::Silent
            | FaultKind::SlowFirstToken
            | FaultKind::Cut
            | FaultKind::Stalled
            | FaultKind::MalformedChunk
            | FaultKind::NoEnd
            | FaultKind::TruncatedJson
            | FaultKind::Html
            | FaultKind::Firewall
            | FaultKind::WrongContent
            | FaultKind::Empty
            | FaultKind::Length
            | FaultKind::Refusal
            | FaultKind::ErrorInStream => return None,
        })
    }
}

/// Writes what OpenRouter says to a request whose answer might cost more than the account has.
pub(super) fn unaffordable(max_tokens: u64) -> String {
    format!(
        "This request requires more credits, or fewer max_tokens. You requested up to {max_tokens} tokens, but can \
         only afford {}. To increase, add credits to your account.",
        max_tokens / 2
    )
}

/// Writes a number with commas between thousands.
pub(super) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_parted_by_commas() {
        assert_eq!(
            [0, 999, 1_000, 50_000, 1_234_567].map(with_commas),
            ["0", "999", "1,000", "50,000", "1,234,567"]
        );
    }

    #[test]
    fn a_hint_is_rounded_up_to_a_whole_second() {
        assert_eq!(Hint::After(Duration::from_millis(699)).seconds(), Some(1));
        assert_eq!(Hint::After(Duration::from_millis(12_001)).seconds(), Some(13));
        assert_eq!(Hint::After(Duration::from_secs(12)).seconds(), Some(12));
        assert_eq!(Hint::Absurd(-5).seconds(), Some(-5));
    }
}
