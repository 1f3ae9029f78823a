//! The rate-limit headers of a provider.
//!
//! Every field is optional, because each is missing at some vendor. A missing or malformed value is unknown and
//! never zero.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::types::RateLimitStatus;

use super::gateway::GatewayLimits;
use super::retry_after;

/// The limits of the account that the headers of one response advertise.
///
/// The window of a limit depends on the vendor, and most headers do not state it: OpenAI's, Azure's and
/// Anthropic's limits are per minute, and Groq sends *daily* requests together with tokens per minute, under
/// OpenAI's names. `reset` is the best indication of the window.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RateLimitHeaders {
    /// Requests.
    pub requests: Option<RateLimitStatus>,
    /// Requests per second or per few seconds: the limit of a gateway.
    pub requests_per_second: Option<RateLimitStatus>,
    /// Input and output tokens together.
    pub tokens: Option<RateLimitStatus>,
    /// Input tokens.
    pub input_tokens: Option<RateLimitStatus>,
    /// Output tokens.
    pub output_tokens: Option<RateLimitStatus>,
    /// Requests per day, or per another window over a minute, from vendors that count both (Cerebras, SambaNova)
    /// and from gateways.
    pub requests_per_day: Option<RateLimitStatus>,
    /// Tokens per day, from vendors that count both (Cerebras).
    pub tokens_per_day: Option<RateLimitStatus>,
    /// The wait before the next request.
    pub retry_after: Option<Duration>,
    /// Whether the provider recommends a retry.
    pub should_retry: Option<bool>,
}

impl RateLimitHeaders {
    /// Parses the headers that all vendors share, and those of gateways.
    pub(super) fn read_common(headers: &HeaderMap, now: SystemTime) -> Self {
        let should_retry = match retry_after::header_text(headers, "x-should-retry") {
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) | None => None,
        };
        // Many servers send none, and one lookup per name has a cost.
        let gateway =
            if are_present(headers) { GatewayLimits::read(headers, now) } else { GatewayLimits::default() };
        Self {
            requests: gateway.minute,
            requests_per_second: gateway.short,
            requests_per_day: gateway.long,
            retry_after: retry_after::retry_after(headers, now),
            should_retry,
            ..Self::default()
        }
    }

    /// Returns the time until all exhausted limits are available again; `None` if no limit is known to be
    /// exhausted or the time is unknown.
    pub fn wait_until_reset(&self) -> Option<Duration> {
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

/// Returns whether the name of a header contains `ratelimit`. Called for each response, so it compares bytes instead of
/// preparing a search for each name.
pub(super) fn are_present(headers: &HeaderMap) -> bool {
    const PART: &[u8] = b"ratelimit";
    let mut names = headers.keys().map(|name| name.as_str().as_bytes());
    names.any(|name| name.windows(PART.len()).any(|part| part == PART))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LimitWindow;

    fn status(remaining: u64, seconds: u64) -> Option<RateLimitStatus> {
        let window = LimitWindow::VendorDefault;
        Some(RateLimitStatus { limit: None, remaining, reset: Some(Duration::from_secs(seconds)), window })
    }

    #[test]
    fn the_wait_is_the_longest_reset_of_an_exhausted_limit() {
        let limits = RateLimitHeaders {
            requests: status(1, 3_600),
            tokens: status(0, 12),
            input_tokens: status(0, 30),
            ..RateLimitHeaders::default()
        };
        assert_eq!(limits.wait_until_reset(), Some(Duration::from_secs(30)));
        assert_eq!(
            RateLimitHeaders { requests: status(1, 9), ..RateLimitHeaders::default() }.wait_until_reset(),
            None
        );
        let without_reset =
            RateLimitStatus { limit: Some(5), remaining: 0, reset: None, window: LimitWindow::VendorDefault };
        assert_eq!(
            RateLimitHeaders { requests: Some(without_reset), ..RateLimitHeaders::default() }
                .wait_until_reset(),
            None
        );
    }

    #[test]
    fn the_x_should_retry_header_is_parsed() {
        for (value, read) in [("true", Some(true)), (" false ", Some(false)), ("maybe", None), ("", None)] {
            let headers = [("x-should-retry".parse().unwrap(), value.parse().unwrap())].into_iter().collect();
            assert_eq!(
                RateLimitHeaders::read_common(&headers, SystemTime::UNIX_EPOCH).should_retry,
                read,
                "{value:?}"
            );
        }
    }
}
