//! API errors, independent of the vendor. Each vendor's module defines status, message and body.

use std::time::Duration;

use super::account::{LimitKind, Rejection};
use super::{Fault, FaultKind};

/// Maximum output tokens of a request without a limit.
const DEFAULT_MAX_TOKENS: u64 = 65_536;

/// Why a call fails.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ApiError {
    /// The request is invalid.
    InvalidRequest { message: String, param: Option<&'static str>, code: Option<&'static str> },
    /// The request is larger than the maximum.
    RequestTooLarge,
    /// The request has no key.
    MissingKey,
    /// The key is not accepted.
    InvalidKey { given: String },
    /// The model does not exist.
    ModelNotFound { model: String },
    /// The route does not exist.
    RouteNotFound { request: String },
    /// A rate limit is exceeded.
    RateLimited(RateLimitDetails),
    /// The account's credit or daily quota is used up.
    QuotaExceeded { model: String, retry_hint: RetryHint },
    /// A 403, with the resource to which access is denied.
    Forbidden(ForbiddenResource),
    /// The account's credits do not cover this many output tokens.
    InsufficientCredits { max_tokens: u64 },
    /// An internal error of the server, with this status.
    ServerError { status: u16 },
    /// The server is unavailable, with this status.
    Unavailable { status: u16 },
    /// The server is overloaded. `None` is the vendor's own status.
    Overloaded { status: Option<u16> },
}

/// Resource to which access is denied.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ForbiddenResource {
    /// The response does not name it.
    Unspecified,
    /// A model.
    Model(String),
    /// A file.
    File,
}

/// An exceeded rate limit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RateLimitDetails {
    pub(super) model: String,
    pub(super) limit_kind: LimitKind,
    /// Per minute.
    pub(super) limit: u64,
    pub(super) used: u64,
    pub(super) requested: u64,
    pub(super) retry_hint: RetryHint,
}

/// Information in an error about when to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryHint {
    Missing,
    After(Duration),
    /// A number of seconds that a client must ignore.
    Implausible(i64),
}

impl RetryHint {
    /// Returns the value of a Retry-After header: whole seconds, rounded up.
    pub(super) fn seconds(self) -> Option<i64> {
        match self {
            Self::Missing => None,
            Self::After(wait) => Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1) as i64),
            Self::Implausible(seconds) => Some(seconds),
        }
    }
}

impl ApiError {
    /// Returns the information about when to retry.
    pub(super) fn retry_hint(&self) -> RetryHint {
        match self {
            Self::RateLimited(rate_limit) => rate_limit.retry_hint,
            Self::QuotaExceeded { retry_hint, .. } => *retry_hint,
            _ => RetryHint::Missing,
        }
    }

    /// Creates the error of an invalid request.
    pub(super) fn invalid_request(
        message: impl Into<String>,
        param: Option<&'static str>,
        code: Option<&'static str>,
    ) -> Self {
        Self::InvalidRequest { message: message.into(), param, code }
    }

    /// Creates the error of an exceeded rate limit.
    pub(super) fn rate_limited(rejection: Rejection, model: &str, retry_hint: RetryHint) -> Self {
        let Rejection { limit_kind, limit, used, requested, .. } = rejection;
        Self::RateLimited(RateLimitDetails {
            model: model.to_owned(),
            limit_kind,
            limit,
            used,
            requested,
            retry_hint,
        })
    }

    /// Returns the error of a fault; `None` for faults that are not an error response.
    pub(super) fn from_fault(
        fault: &Fault,
        model: &str,
        key: Option<&str>,
        limit: u64,
        max_tokens: Option<u64>,
        retry_hint: RetryHint,
    ) -> Option<Self> {
        let model = model.to_owned();
        let status = fault.status;
        Some(match fault.kind {
            FaultKind::RateLimited => Self::RateLimited(RateLimitDetails {
                model,
                limit_kind: LimitKind::Requests,
                limit,
                used: limit,
                requested: 1,
                retry_hint,
            }),
            FaultKind::ServerError => Self::ServerError { status: status.unwrap_or(500) },
            FaultKind::Unavailable => Self::Unavailable { status: status.unwrap_or(503) },
            FaultKind::Overloaded => Self::Overloaded { status },
            FaultKind::Auth => Self::InvalidKey { given: key.unwrap_or_default().to_owned() },
            // By default an exceeded quota has no information about when to retry.
            FaultKind::Quota => {
                let retry_hint = if fault.retry_after.is_some() { retry_hint } else { RetryHint::Missing };
                Self::QuotaExceeded { model, retry_hint }
            }
            FaultKind::NotFound => Self::ModelNotFound { model },
            FaultKind::Forbidden => Self::Forbidden(ForbiddenResource::Unspecified),
            FaultKind::ModelForbidden => Self::Forbidden(ForbiddenResource::Model(model)),
            FaultKind::FileForbidden => Self::Forbidden(ForbiddenResource::File),
            FaultKind::MaxTokensUnaffordable => {
                Self::InsufficientCredits { max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS) }
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
            | FaultKind::ErrorInStream
            | FaultKind::UnofferedToolCall => return None,
        })
    }
}

/// Returns OpenRouter's message for a request that could cost more than the account's credits.
pub(super) fn insufficient_credits_message(max_tokens: u64) -> String {
    format!(
        "This request requires more credits, or fewer max_tokens. You requested up to {max_tokens} tokens, but can \
         only afford {}. To increase, add credits to your account.",
        max_tokens / 2
    )
}

/// Formats a number with thousands separators.
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
    fn thousands_are_separated_by_commas() {
        assert_eq!(
            [0, 999, 1_000, 50_000, 1_234_567].map(with_commas),
            ["0", "999", "1,000", "50,000", "1,234,567"]
        );
    }

    #[test]
    fn a_retry_hint_is_rounded_up_to_whole_seconds() {
        assert_eq!(RetryHint::After(Duration::from_millis(699)).seconds(), Some(1));
        assert_eq!(RetryHint::After(Duration::from_millis(12_001)).seconds(), Some(13));
        assert_eq!(RetryHint::After(Duration::from_secs(12)).seconds(), Some(12));
        assert_eq!(RetryHint::Implausible(-5).seconds(), Some(-5));
    }
}
