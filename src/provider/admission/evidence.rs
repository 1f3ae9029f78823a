//! What the end of a call is evidence about: its target, the provider's endpoint, or neither.

use std::time::Duration;

use crate::guard::ConcurrencyOutcome;
use crate::types::{Class, Completion, Failure};

use super::grant::CallOutcome;

/// Minimum time without response headers, in seconds, after which a deadline counts as a failure of the target;
/// the second applies before the first answer.
const MIN_SILENCE_SECONDS: f64 = 1.0;
const SILENCE_SECONDS_BEFORE_FIRST_ANSWER: f64 = 5.0;

/// What the end of a call is evidence about.
pub(super) enum Evidence {
    /// The target answered.
    Answered,
    /// The target failed.
    Target,
    /// The provider's endpoint could not be reached.
    Endpoint,
    /// Nothing: the caller was at fault or cancelled the call.
    Unrelated,
}

/// Returns what the end of a call is evidence about. `min_silence` returns the time without a response after which a
/// deadline is evidence about the target.
pub(super) fn evidence_of(
    outcome: &CallOutcome<'_>,
    min_silence: impl FnOnce() -> Option<Duration>,
) -> Evidence {
    let Err(failure) = outcome.result else { return Evidence::Answered };
    match failure.class {
        Class::NetworkError => Evidence::Endpoint,
        Class::Deadline if is_unresponsive(outcome, min_silence()) => Evidence::Target,
        class if class.is_provider_fault() => Evidence::Target,
        _ => Evidence::Unrelated,
    }
}

/// Returns whether a call that its request's deadline cut off had no response headers for longer than calls
/// usually take. Without this rule, an unresponsive provider would never be detected while all requests have
/// short deadlines.
fn is_unresponsive(outcome: &CallOutcome<'_>, min_silence: Option<Duration>) -> bool {
    outcome.first_token.is_none() && min_silence.is_some_and(|min_silence| outcome.took >= min_silence)
}

/// Returns the time without a response after which the deadline of a call with a stream is evidence about the target.
/// `mean_latency` is the provider's, in seconds.
pub(super) fn min_stream_silence(mean_latency: Option<f64>) -> Duration {
    let seconds = mean_latency
        .map_or(SILENCE_SECONDS_BEFORE_FIRST_ANSWER, |seconds| (seconds * 3.0).max(MIN_SILENCE_SECONDS));
    Duration::from_secs_f64(seconds)
}

/// Returns whether there was an HTTP response, whatever its status.
pub(super) fn has_response(result: Option<&Result<Completion, Failure>>) -> bool {
    match result {
        Some(Ok(_)) => true,
        Some(Err(failure)) => failure.status.is_some(),
        None => false,
    }
}

/// Returns what the end of a call means for the concurrency limit.
pub(super) fn concurrency_outcome(
    outcome: Option<&CallOutcome<'_>>,
    evidence: &Evidence,
    is_rate_limited: bool,
) -> ConcurrencyOutcome {
    let class = outcome.and_then(|outcome| outcome.result.as_ref().err()).map(|failure| failure.class);
    match (class, evidence) {
        (None, Evidence::Answered) => ConcurrencyOutcome::Answered,
        (Some(Class::RateLimit), _) if !is_rate_limited => ConcurrencyOutcome::Throttled,
        (Some(Class::Overloaded), _) => ConcurrencyOutcome::Throttled,
        (Some(Class::Timeout | Class::Deadline), Evidence::Target) => ConcurrencyOutcome::TimedOut,
        _ => ConcurrencyOutcome::Other,
    }
}
