//! Reads the `x-ratelimit-*` headers that OpenAI and those who imitate it send with every response.
//!
//! | vendor | counts | until when |
//! |---|---|---|
//! | OpenAI, xAI | `-requests`, `-tokens`, some models `-tokens_usage_based`; all per minute | `6m0s`, `120ms` |
//! | Azure | the same; `-1` and other negative numbers are unknown | seconds |
//! | Groq | `-requests` **per day**, `-tokens` per minute, under the same names | `2m59.56s` |
//! | Cerebras | `-requests-minute`, `-tokens-minute`, `-requests-day`, `-tokens-day` | `33011.382867` |
//! | SambaNova | `-requests` per minute, `-requests-day` | `4h17m` |
//! | Mistral | `-req-minute`, `-tokens-minute`; a limit of 0 is an account without any allowance | nothing |
//! | Fireworks | limits only, so that nothing is known | nothing |
//!
//! Those of gateways, OpenRouter's among them, are read in [`gateway`](crate::wire::gateway).
//!
//! Ollama, vLLM, llama.cpp, LM Studio, DeepSeek and Gemini's compatible endpoint send none. A limit that
//! is missing or senseless is unknown; it is never taken for zero.

use std::time::SystemTime;

use http::HeaderMap;

use crate::wire::times::{count, text};
use crate::wire::{Hints, Remaining};

/// What may stand after `x-ratelimit-remaining`, the most telling first.
const REQUESTS: [&str; 3] = ["-requests", "-requests-minute", "-req-minute"];
const TOKENS: [&str; 3] = ["-tokens", "-tokens-minute", "-tokens_usage_based"];

/// Reads what the headers say about the account's limits.
pub(in crate::wire) fn read_hints(headers: &HeaderMap, now: SystemTime) -> Hints {
    let common = Hints::common(headers, now);
    // Many servers say nothing, and to ask for each name by itself is not free.
    if !headers.keys().any(|name| name.as_str().contains("x-ratelimit")) {
        return common;
    }
    let find = |suffixes: &[&str]| suffixes.iter().find_map(|suffix| suffixed(headers, suffix, now));
    Hints {
        requests: find(&REQUESTS).or(common.requests),
        tokens: find(&TOKENS),
        requests_per_day: find(&["-requests-day"]).or(common.requests_per_day),
        tokens_per_day: find(&["-tokens-day"]),
        ..common
    }
}

/// Tells whether the account has no allowance at all: a limit of zero, of which nothing is left.
pub(super) fn grants_nothing(headers: &HeaderMap) -> bool {
    let is_zero = |of: &str, suffix: &str| {
        text(headers, &format!("x-ratelimit-{of}{suffix}")).and_then(count) == Some(0)
    };
    REQUESTS
        .iter()
        .chain(&TOKENS)
        .chain(&[""])
        .any(|suffix| is_zero("limit", suffix) && is_zero("remaining", suffix))
}

fn suffixed(headers: &HeaderMap, suffix: &str, now: SystemTime) -> Option<Remaining> {
    let name = |of| format!("x-ratelimit-{of}{suffix}");
    let remaining = name("remaining");
    // Most names are no vendor's at once.
    headers.get(&remaining)?;
    Remaining::read(headers, [&name("limit"), &remaining, &name("reset")], now)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::types::LimitWindow;
    use crate::wire::fixtures;

    fn read(json: &str) -> Hints {
        let all: HashMap<String, String> = serde_json::from_str(json).unwrap();
        let headers: HeaderMap = (&all).try_into().unwrap();
        read_hints(&headers, fixtures::arrival())
    }

    fn left(limit: u64, remaining: u64, milliseconds: u64) -> Option<Remaining> {
        let window = LimitWindow::OfVendor;
        Some(Remaining {
            limit: Some(limit),
            remaining,
            reset: Some(Duration::from_millis(milliseconds)),
            window,
        })
    }

    #[test]
    fn a_success_says_what_is_left() {
        let hints = read(include_str!("../../../tests/data/wire/openai_headers_success.json"));
        let (requests, tokens) = (left(500, 499, 120), left(200_000, 195_880, 1236));
        assert_eq!(hints, Hints { requests, tokens, ..Hints::default() });
    }

    #[test]
    fn a_refusal_says_how_long_to_wait() {
        let hints = read(include_str!("../../../tests/data/wire/openai_headers_429.json"));
        assert_eq!(hints.retry_after, Some(Duration::from_millis(699)));
        assert_eq!(hints.should_retry, Some(true));
        assert_eq!(hints.tokens.map(|tokens| tokens.remaining), Some(1789));
    }

    #[test]
    fn azure_counts_seconds_and_its_unknown_is_not_zero() {
        let hints = read(
            r#"{"x-ratelimit-remaining-requests": "-1", "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-remaining-tokens": "9", "x-ratelimit-limit-tokens": "0", "x-ratelimit-reset-tokens": "64"}"#,
        );
        let tokens = Remaining {
            limit: None,
            remaining: 9,
            reset: Some(Duration::from_secs(64)),
            window: LimitWindow::OfVendor,
        };
        assert_eq!(hints, Hints { tokens: Some(tokens), ..Hints::default() });
        assert_eq!(read("{}"), Hints::default());
    }

    #[test]
    fn every_vendor_is_understood() {
        let requests = |requests| Hints { requests, ..Hints::default() };
        let of = |window, left: Option<Remaining>| left.map(|left| Remaining { window, ..left });
        let minute = LimitWindow::Is(Duration::from_secs(60));
        let silent = |limit, remaining| {
            Some(Remaining { limit: Some(limit), remaining, reset: None, window: LimitWindow::OfVendor })
        };
        for (vendor, headers, hints) in [
            (
                "Groq",
                r#"{"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "18000", "x-ratelimit-remaining-requests": "14370",
                    "x-ratelimit-remaining-tokens": "17997", "x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-reset-tokens": "7.66s"}"#,
                Hints { tokens: left(18_000, 17_997, 7_660), ..requests(left(14_400, 14_370, 179_560)) },
            ),
            (
                "OpenAI, a token limit by usage",
                r#"{"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-limit-tokens_usage_based": "40000",
                    "x-ratelimit-remaining-tokens_usage_based": "39880", "x-ratelimit-reset-tokens_usage_based": "180ms"}"#,
                Hints { tokens: left(40_000, 39_880, 180), ..Hints::default() },
            ),
            (
                "Cerebras",
                r#"{"x-ratelimit-limit-requests-day": "10000", "x-ratelimit-remaining-requests-day": "9500", "x-ratelimit-reset-requests-day": "33011.382",
                    "x-ratelimit-limit-tokens-minute": "60000", "x-ratelimit-remaining-tokens-minute": "51000", "x-ratelimit-reset-tokens-minute": "45.5"}"#,
                Hints {
                    tokens: left(60_000, 51_000, 45_500),
                    requests_per_day: left(10_000, 9_500, 33_011_382),
                    ..Hints::default()
                },
            ),
            (
                "SambaNova",
                r#"{"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "42", "x-ratelimit-reset-requests": "30",
                    "x-ratelimit-limit-requests-day": "1500", "x-ratelimit-remaining-requests-day": "1497", "x-ratelimit-reset-requests-day": "4h17m"}"#,
                Hints { requests_per_day: left(1_500, 1_497, 15_420_000), ..requests(left(60, 42, 30_000)) },
            ),
            (
                "Mistral",
                r#"{"x-ratelimit-limit-req-minute": "60", "x-ratelimit-remaining-req-minute": "59", "x-ratelimit-limit-tokens-minute": "50000",
                    "x-ratelimit-remaining-tokens-minute": "47196", "x-ratelimit-remaining-tokens-month": "3950246"}"#,
                Hints { tokens: silent(50_000, 47_196), ..requests(silent(60, 59)) },
            ),
            (
                "Fireworks",
                r#"{"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens-prompt": "21600000"}"#,
                Hints::default(),
            ),
            (
                "OpenRouter, milliseconds since 1970",
                r#"{"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795219200000"}"#,
                requests(of(LimitWindow::Unknown, left(50, 0, 14_400_000))),
            ),
            (
                "a gateway, seconds since 1970",
                r#"{"x-ratelimit-limit": "100, 100;window=60", "x-ratelimit-remaining": "98", "x-ratelimit-reset": "1795204830"}"#,
                requests(of(minute, left(100, 98, 30_000))),
            ),
            (
                "the draft",
                r#"{"ratelimit": "\"default\";r=50;t=30", "ratelimit-policy": "\"default\";q=100;w=60"}"#,
                requests(of(minute, left(100, 50, 30_000))),
            ),
            (
                "the draft, in tokens",
                r#"{"ratelimit": "\"default\";r=50;t=30", "ratelimit-policy": "\"default\";q=100;qu=\"content-bytes\""}"#,
                Hints::default(),
            ),
            (
                "the draft before",
                r#"{"ratelimit": "limit=100, remaining=50, reset=30"}"#,
                requests(of(LimitWindow::Unknown, left(100, 50, 30_000))),
            ),
            (
                "the draft before that",
                r#"{"ratelimit-limit": "100", "ratelimit-remaining": "50", "ratelimit-reset": "30"}"#,
                requests(of(LimitWindow::Unknown, left(100, 50, 30_000))),
            ),
        ] {
            assert_eq!(read(headers), hints, "{vendor}");
        }
    }

    #[test]
    fn a_limit_of_zero_with_nothing_left_grants_nothing() {
        let nothing = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            grants_nothing(&pairs.collect())
        };
        assert!(nothing(&[("x-ratelimit-limit-req-minute", "0"), ("x-ratelimit-remaining-req-minute", "0")]));
        assert!(!nothing(&[
            ("x-ratelimit-limit-req-minute", "5"),
            ("x-ratelimit-remaining-req-minute", "0")
        ]));
        assert!(!nothing(&[("x-ratelimit-limit-tokens", "0"), ("x-ratelimit-remaining-tokens", "9")]));
        assert!(!nothing(&[("x-ratelimit-remaining-tokens", "0")]));
    }

    proptest! {
        #[test]
        fn no_header_makes_a_limit_absurd(
            value in "\\PC{0,40}|-?[0-9]{0,30}(\\.[0-9]{0,9})?[hms]{0,2}|\"d\";r=[0-9e+-]{0,9};t=[0-9.e+-]{0,20}",
            reset in "\\PC{0,40}|-?[0-9]{0,30}(\\.[0-9]{0,9})?[hms]{0,2}",
        ) {
            let names = REQUESTS.iter().chain(&TOKENS).map(|suffix| format!("x-ratelimit-remaining{suffix}"));
            let mut headers = HeaderMap::new();
            for name in names.chain(["ratelimit".to_owned(), "x-ratelimit-limit".to_owned()]) {
                let (Ok(value), Ok(reset)) = (value.parse(), reset.parse()) else { continue };
                headers.insert(http::HeaderName::try_from(name.replace("remaining", "reset")).unwrap(), reset);
                headers.insert(http::HeaderName::try_from(name).unwrap(), value);
            }
            let hints = read_hints(&headers, fixtures::arrival());
            for left in [hints.requests, hints.tokens].into_iter().flatten() {
                prop_assert!(left.remaining <= 1_000_000_000_000_000);
                prop_assert!(left.reset.is_none_or(|reset| reset <= Duration::from_hours(366 * 24)));
            }
        }
    }
}
