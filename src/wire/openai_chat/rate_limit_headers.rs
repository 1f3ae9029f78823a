//! Parsing of the `x-ratelimit-*` headers that OpenAI and compatible servers send with every response.
//!
//! | vendor | counts | reset |
//! |---|---|---|
//! | OpenAI, xAI | `-requests`, `-tokens`, some models `-tokens_usage_based`; all per minute | `6m0s`, `120ms` |
//! | Azure | the same; `-1` and other negative numbers are unknown | seconds |
//! | Groq | `-requests` **per day**, `-tokens` per minute, under the same names | `2m59.56s` |
//! | Cerebras | `-requests-minute`, `-tokens-minute`, `-requests-day`, `-tokens-day` | `33011.382867` |
//! | SambaNova | `-requests` per minute, `-requests-day` | `4h17m` |
//! | Mistral | `-req-minute`, `-tokens-minute`; a limit of 0 is an account without quota | none |
//! | Fireworks | limits only, so the remaining counts are unknown | none |
//!
//! [`gateway`](crate::wire::gateway) parses those of gateways, including OpenRouter's.
//!
//! Ollama, vLLM, llama.cpp, LM Studio, DeepSeek and Gemini's compatible endpoint send none. A missing or
//! malformed limit is unknown and never zero.

use std::time::SystemTime;

use http::HeaderMap;

use crate::types::RateLimitStatus;
use crate::wire::RateLimitHeaders;
use crate::wire::limit_status::read_limit_status;
use crate::wire::rate_limit_headers::are_present;
use crate::wire::retry_after::{header_text, parse_count};

/// Suffixes of `x-ratelimit-remaining`, in the order of precedence.
const REQUEST_SUFFIXES: [&str; 3] = ["-requests", "-requests-minute", "-req-minute"];
const TOKEN_SUFFIXES: [&str; 3] = ["-tokens", "-tokens-minute", "-tokens_usage_based"];

/// Parses the rate-limit headers.
pub(in crate::wire) fn read_rate_limit_headers(headers: &HeaderMap, now: SystemTime) -> RateLimitHeaders {
    let common = RateLimitHeaders::read_common(headers, now);
    // Many servers send none, and one lookup per name has a cost.
    if !are_present(headers) {
        return common;
    }
    let find = |suffixes: &[&str]| suffixes.iter().find_map(|suffix| read_suffix(headers, suffix, now));
    RateLimitHeaders {
        requests: find(&REQUEST_SUFFIXES).or(common.requests),
        tokens: find(&TOKEN_SUFFIXES),
        requests_per_day: find(&["-requests-day"]).or(common.requests_per_day),
        tokens_per_day: find(&["-tokens-day"]),
        ..common
    }
}

/// Returns whether the account has no quota at all: a limit of zero with zero remaining.
pub(super) fn has_zero_limit(headers: &HeaderMap) -> bool {
    let is_zero = |of: &str, suffix: &str| {
        header_text(headers, &format!("x-ratelimit-{of}{suffix}")).and_then(parse_count) == Some(0)
    };
    REQUEST_SUFFIXES
        .iter()
        .chain(&TOKEN_SUFFIXES)
        .chain(&[""])
        .any(|suffix| is_zero("limit", suffix) && is_zero("remaining", suffix))
}

fn read_suffix(headers: &HeaderMap, suffix: &str, now: SystemTime) -> Option<RateLimitStatus> {
    let name = |of| format!("x-ratelimit-{of}{suffix}");
    let remaining = name("remaining");
    // A vendor sends only a few of these names.
    headers.get(&remaining)?;
    read_limit_status(headers, [&name("limit"), &remaining, &name("reset")], now)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::types::LimitWindow;
    use crate::wire::fixtures;

    fn read(json: &str) -> RateLimitHeaders {
        let all: HashMap<String, String> = serde_json::from_str(json).unwrap();
        let headers: HeaderMap = (&all).try_into().unwrap();
        read_rate_limit_headers(&headers, fixtures::arrival())
    }

    fn status(limit: u64, remaining: u64, milliseconds: u64) -> Option<RateLimitStatus> {
        let window = LimitWindow::VendorDefault;
        Some(RateLimitStatus {
            limit: Some(limit),
            remaining,
            reset: Some(Duration::from_millis(milliseconds)),
            window,
        })
    }

    #[test]
    fn the_headers_of_a_success_are_parsed() {
        let limits = read(include_str!("../../../tests/data/wire/openai_headers_success.json"));
        let requests = status(500, 499, 120);
        let tokens = status(200_000, 195_880, 1236);
        assert_eq!(limits, RateLimitHeaders { requests, tokens, ..RateLimitHeaders::default() });
    }

    #[test]
    fn the_headers_of_a_429_are_parsed() {
        let limits = read(include_str!("../../../tests/data/wire/openai_headers_429.json"));
        assert_eq!(limits.retry_after, Some(Duration::from_millis(699)));
        assert_eq!(limits.should_retry, Some(true));
        assert_eq!(limits.tokens.map(|tokens| tokens.remaining), Some(1789));
    }

    #[test]
    fn the_reset_of_azure_is_in_seconds_and_its_unknown_is_not_zero() {
        let limits = read(
            r#"{"x-ratelimit-remaining-requests": "-1", "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-remaining-tokens": "9", "x-ratelimit-limit-tokens": "0", "x-ratelimit-reset-tokens": "64"}"#,
        );
        let tokens = RateLimitStatus {
            limit: None,
            remaining: 9,
            reset: Some(Duration::from_secs(64)),
            window: LimitWindow::VendorDefault,
        };
        assert_eq!(limits, RateLimitHeaders { tokens: Some(tokens), ..RateLimitHeaders::default() });
        assert_eq!(read("{}"), RateLimitHeaders::default());
    }

    #[test]
    fn the_headers_of_every_vendor_are_parsed() {
        let requests = |requests| RateLimitHeaders { requests, ..RateLimitHeaders::default() };
        let of = |window, status: Option<RateLimitStatus>| {
            status.map(|status| RateLimitStatus { window, ..status })
        };
        let minute = LimitWindow::Fixed(Duration::from_secs(60));
        let without_reset = |limit, remaining| {
            Some(RateLimitStatus {
                limit: Some(limit),
                remaining,
                reset: None,
                window: LimitWindow::VendorDefault,
            })
        };
        for (vendor, headers, limits) in [
            (
                "Groq",
                r#"{"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "18000", "x-ratelimit-remaining-requests": "14370",
                    "x-ratelimit-remaining-tokens": "17997", "x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"}"#,
                RateLimitHeaders {
                    tokens: status(18_000, 17_997, 7_660),
                    ..requests(status(14_400, 14_370, 179_560))
                },
            ),
            (
                "OpenAI, a token limit by usage",
                r#"{"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-limit-tokens_usage_based": "40000",
                    "x-ratelimit-remaining-tokens_usage_based": "39880", "x-ratelimit-reset-tokens_usage_based": "180ms"}"#,
                RateLimitHeaders { tokens: status(40_000, 39_880, 180), ..RateLimitHeaders::default() },
            ),
            (
                "Cerebras",
                r#"{"x-ratelimit-limit-requests-day": "10000", "x-ratelimit-remaining-requests-day": "9500", "x-ratelimit-reset-requests-day": "33011.382",
                    "x-ratelimit-limit-tokens-minute": "60000", "x-ratelimit-remaining-tokens-minute": "51000", "x-ratelimit-reset-tokens-minute": "45.5"}"#,
                RateLimitHeaders {
                    tokens: status(60_000, 51_000, 45_500),
                    requests_per_day: status(10_000, 9_500, 33_011_382),
                    ..RateLimitHeaders::default()
                },
            ),
            (
                "SambaNova",
                r#"{"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "42", "x-ratelimit-reset-requests": "30",
                    "x-ratelimit-limit-requests-day": "1500", "x-ratelimit-remaining-requests-day": "1497", "x-ratelimit-reset-requests-day": "4h17m"}"#,
                RateLimitHeaders {
                    requests_per_day: status(1_500, 1_497, 15_420_000),
                    ..requests(status(60, 42, 30_000))
                },
            ),
            (
                "Mistral",
                r#"{"x-ratelimit-limit-req-minute": "60", "x-ratelimit-remaining-req-minute": "59", "x-ratelimit-limit-tokens-minute": "50000",
                    "x-ratelimit-remaining-tokens-minute": "47196", "x-ratelimit-remaining-tokens-month": "3950246"}"#,
                RateLimitHeaders { tokens: without_reset(50_000, 47_196), ..requests(without_reset(60, 59)) },
            ),
            (
                "Fireworks",
                r#"{"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens-prompt": "21600000"}"#,
                RateLimitHeaders::default(),
            ),
            (
                "OpenRouter, milliseconds since 1970",
                r#"{"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795219200000"}"#,
                requests(of(LimitWindow::Unknown, status(50, 0, 14_400_000))),
            ),
            (
                "a gateway, seconds since 1970",
                r#"{"x-ratelimit-limit": "100, 100;window=60", "x-ratelimit-remaining": "98", "x-ratelimit-reset": "1795204830"}"#,
                requests(of(minute, status(100, 98, 30_000))),
            ),
            (
                "the draft",
                r#"{"ratelimit": "\"default\";r=50;t=30", "ratelimit-policy": "\"default\";q=100;w=60"}"#,
                requests(of(minute, status(100, 50, 30_000))),
            ),
            (
                "the draft, in tokens",
                r#"{"ratelimit": "\"default\";r=50;t=30", "ratelimit-policy": "\"default\";q=100;qu=\"content-bytes\""}"#,
                RateLimitHeaders::default(),
            ),
            (
                "the draft before",
                r#"{"ratelimit": "limit=100, remaining=50, reset=30"}"#,
                requests(of(LimitWindow::Unknown, status(100, 50, 30_000))),
            ),
            (
                "the draft before that",
                r#"{"ratelimit-limit": "100", "ratelimit-remaining": "50", "ratelimit-reset": "30"}"#,
                requests(of(LimitWindow::Unknown, status(100, 50, 30_000))),
            ),
        ] {
            assert_eq!(read(headers), limits, "{vendor}");
        }
    }

    #[test]
    fn a_limit_of_zero_with_zero_remaining_is_detected() {
        let is_zero = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            has_zero_limit(&pairs.collect())
        };
        assert!(is_zero(&[("x-ratelimit-limit-req-minute", "0"), ("x-ratelimit-remaining-req-minute", "0")]));
        assert!(!is_zero(&[
            ("x-ratelimit-limit-req-minute", "5"),
            ("x-ratelimit-remaining-req-minute", "0")
        ]));
        assert!(!is_zero(&[("x-ratelimit-limit-tokens", "0"), ("x-ratelimit-remaining-tokens", "9")]));
        assert!(!is_zero(&[("x-ratelimit-remaining-tokens", "0")]));
    }

    proptest! {
        #[test]
        fn every_parsed_limit_is_credible(
            value in "\\PC{0,40}|-?[0-9]{0,30}(\\.[0-9]{0,9})?[hms]{0,2}|\"d\";r=[0-9e+-]{0,9};t=[0-9.e+-]{0,20}",
            reset in "\\PC{0,40}|-?[0-9]{0,30}(\\.[0-9]{0,9})?[hms]{0,2}",
        ) {
            let names = REQUEST_SUFFIXES.iter().chain(&TOKEN_SUFFIXES).map(|suffix| format!("x-ratelimit-remaining{suffix}"));
            let mut headers = HeaderMap::new();
            for name in names.chain(["ratelimit".to_owned(), "x-ratelimit-limit".to_owned()]) {
                let (Ok(value), Ok(reset)) = (value.parse(), reset.parse()) else { continue };
                headers.insert(http::HeaderName::try_from(name.replace("remaining", "reset")).unwrap(), reset);
                headers.insert(http::HeaderName::try_from(name).unwrap(), value);
            }
            let limits = read_rate_limit_headers(&headers, fixtures::arrival());
            for status in [limits.requests, limits.tokens].into_iter().flatten() {
                prop_assert!(status.remaining <= 1_000_000_000_000_000);
                prop_assert!(status.reset.is_none_or(|reset| reset <= Duration::from_hours(366 * 24)));
            }
        }
    }
}
