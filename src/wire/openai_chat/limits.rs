//! Reads the `x-ratelimit-*` headers that OpenAI, Azure, Groq and others send with every response.
//!
//! A limit that is missing or senseless is unknown; it is never taken for zero.

use std::time::SystemTime;

use http::HeaderMap;

use crate::wire::times::{go_duration, retry_after};
use crate::wire::{Hints, Remaining};

/// Reads what the headers say about the account's limits.
pub(in crate::wire) fn read_hints(headers: &HeaderMap, now: SystemTime) -> Hints {
    Hints {
        requests: remaining(
            headers,
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"],
        ),
        tokens: remaining(
            headers,
            ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"],
        ),
        input_tokens: None,
        output_tokens: None,
        retry_after: retry_after(headers, now),
    }
}

fn remaining(headers: &HeaderMap, [limit, remaining, reset]: [&str; 3]) -> Option<Remaining> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    // Azure sends -1 and other negative numbers where it does not know; they are no count.
    let count = |name| text(name).and_then(|text| text.parse::<u64>().ok());
    Some(Remaining {
        remaining: count(remaining)?,
        limit: count(limit).filter(|limit| *limit > 0),
        reset: text(reset).and_then(go_duration),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn read(json: &str) -> Hints {
        let all: HashMap<String, String> = serde_json::from_str(json).unwrap();
        let headers: HeaderMap = (&all).try_into().unwrap();
        read_hints(&headers, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_success_says_what_is_left() {
        let hints = read(include_str!("../../../tests/data/wire/openai_headers_success.json"));
        let requests =
            Remaining { limit: Some(500), remaining: 499, reset: Some(Duration::from_millis(120)) };
        let tokens =
            Remaining { limit: Some(200_000), remaining: 195_880, reset: Some(Duration::from_millis(1236)) };
        assert_eq!(hints, Hints { requests: Some(requests), tokens: Some(tokens), ..Hints::default() });
    }

    #[test]
    fn a_refusal_says_how_long_to_wait() {
        let hints = read(include_str!("../../../tests/data/wire/openai_headers_429.json"));
        assert_eq!(hints.retry_after, Some(Duration::from_millis(699)));
        assert_eq!(hints.tokens.map(|tokens| tokens.remaining), Some(1789));
    }

    #[test]
    fn azure_counts_seconds_and_its_unknown_is_not_zero() {
        let hints = read(
            r#"{"x-ratelimit-remaining-requests": "-1", "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-remaining-tokens": "9", "x-ratelimit-limit-tokens": "0", "x-ratelimit-reset-tokens": "64"}"#,
        );
        let tokens = Remaining { limit: None, remaining: 9, reset: Some(Duration::from_secs(64)) };
        assert_eq!(hints, Hints { tokens: Some(tokens), ..Hints::default() });
        assert_eq!(read("{}"), Hints::default());
    }
}
