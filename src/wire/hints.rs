//! What a provider's headers say about its limits.
//!
//! Everything is optional, because everything is missing somewhere: what is not said, or makes no
//! sense, is unknown and never zero.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::types::LimitWindow;

use super::gateway::Gateway;
use super::times;

/// What one response said about the account's limits.
///
/// Over which time a limit counts is the vendor's affair, and most headers do not say it: OpenAI's,
/// Azure's and Anthropic's are per minute, and Groq sends its *daily* requests beside the tokens of a
/// minute, under OpenAI's names. `reset` tells them apart better than anything else.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Hints {
    /// Requests.
    pub requests: Option<Remaining>,
    /// Requests of a second, or of a few: the limit of a gateway.
    pub requests_per_second: Option<Remaining>,
    /// Tokens of both directions.
    pub tokens: Option<Remaining>,
    /// Tokens that the model reads.
    pub input_tokens: Option<Remaining>,
    /// Tokens that the model writes.
    pub output_tokens: Option<Remaining>,
    /// Requests of a whole day, or of another time beyond a minute, from vendors that count both (Cerebras,
    /// SambaNova) and from gateways.
    pub requests_per_day: Option<Remaining>,
    /// Tokens of a whole day, from vendors that count both (Cerebras).
    pub tokens_per_day: Option<Remaining>,
    /// How long to stay away.
    pub retry_after: Option<Duration>,
    /// Whether the provider itself thinks that asking again may help.
    pub should_retry: Option<bool>,
}

/// One limit as the provider sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// How many fit into the provider's whole window, when it says so.
    pub limit: Option<u64>,
    /// How many are left now.
    pub remaining: u64,
    /// Until the window is whole again, when it says so.
    pub reset: Option<Duration>,
    /// Over which time it counts.
    pub window: LimitWindow,
}

impl Hints {
    /// Reads what every vendor writes alike, and gateways in front of them.
    pub(super) fn common(headers: &HeaderMap, now: SystemTime) -> Self {
        let should_retry = match times::text(headers, "x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) | None => None,
        };
        // Many servers say nothing, and to ask for each name by itself is not free.
        let is_limited = headers.keys().any(|name| name.as_str().contains("ratelimit"));
        let gateway = if is_limited { Gateway::read(headers, now) } else { Gateway::default() };
        Self {
            requests: gateway.minute,
            requests_per_second: gateway.short,
            requests_per_day: gateway.long,
            retry_after: times::retry_after(headers, now),
            should_retry,
            ..Self::default()
        }
    }

    /// Returns how long it is until every limit that is used up is whole again; `None` when none is
    /// known to be used up, or nobody says for how long.
    pub fn until_open(&self) -> Option<Duration> {
        let Self { requests, tokens, input_tokens, output_tokens, requests_per_day, tokens_per_day, .. } =
            self;
        let by_second = self.requests_per_second;
        let all = [
            *requests,
            by_second,
            *tokens,
            *input_tokens,
            *output_tokens,
            *requests_per_day,
            *tokens_per_day,
        ];
        all.into_iter().flatten().filter(|left| left.remaining == 0).filter_map(|left| left.reset).max()
    }
}

impl Remaining {
    /// Reads the three headers of one limit; `None` without a sensible count of what remains.
    pub(super) fn read(
        headers: &HeaderMap,
        [limit, remaining, reset]: [&str; 3],
        now: SystemTime,
    ) -> Option<Self> {
        let count = |name| times::text(headers, name).and_then(times::count);
        Some(Self {
            remaining: count(remaining)?,
            limit: count(limit).filter(|limit| *limit > 0),
            reset: times::text(headers, reset).and_then(|text| times::reset(text, now)),
            window: LimitWindow::OfVendor,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(remaining: u64, seconds: u64) -> Option<Remaining> {
        let window = LimitWindow::OfVendor;
        Some(Remaining { limit: None, remaining, reset: Some(Duration::from_secs(seconds)), window })
    }

    #[test]
    fn only_what_is_used_up_is_waited_for_and_the_longest_decides() {
        let hints = Hints {
            requests: left(1, 3_600),
            tokens: left(0, 12),
            input_tokens: left(0, 30),
            ..Hints::default()
        };
        assert_eq!(hints.until_open(), Some(Duration::from_secs(30)));
        assert_eq!(Hints { requests: left(1, 9), ..Hints::default() }.until_open(), None);
        let silent = Remaining { limit: Some(5), remaining: 0, reset: None, window: LimitWindow::OfVendor };
        assert_eq!(Hints { requests: Some(silent), ..Hints::default() }.until_open(), None);
    }

    #[test]
    fn a_provider_says_itself_whether_asking_again_may_help() {
        for (value, read) in [("true", Some(true)), (" false ", Some(false)), ("maybe", None), ("", None)] {
            let headers = [("x-should-retry".parse().unwrap(), value.parse().unwrap())].into_iter().collect();
            assert_eq!(Hints::common(&headers, SystemTime::UNIX_EPOCH).should_retry, read, "{value:?}");
        }
    }
}
