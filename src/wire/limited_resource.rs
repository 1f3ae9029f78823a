//! Detects which resource a rate-limit error refers to: requests or tokens.
//!
//! OpenAI's `error.type` is `requests` or `tokens`. Other vendors state it only in the message or in the name of
//! a quota.

use crate::types::{Failure, RateLimitResource};

use super::phrases::contains_any;

/// Phrases of messages and quota names, in lower case.
const TOKEN_PHRASES: [&str; 6] =
    ["tokens per m", "tokens per s", "token_count", "tokensper", "(tpm)", "too many tokens"];
const REQUEST_PHRASES: [&str; 6] =
    ["requests per m", "requests per s", "_requests", "requestsper", "(rpm)", "too many requests"];

/// Returns the limited resource; `None` if the error does not state it.
pub(super) fn limited_resource(failure: &Failure) -> Option<RateLimitResource> {
    match failure.code.as_deref() {
        Some("tokens") => return Some(RateLimitResource::Tokens),
        Some("requests") => return Some(RateLimitResource::Requests),
        Some(_) | None => {}
    }
    let message = failure.message.to_ascii_lowercase();
    match (contains_any(&message, &TOKEN_PHRASES), contains_any(&message, &REQUEST_PHRASES)) {
        (true, _) => Some(RateLimitResource::Tokens),
        (false, true) => Some(RateLimitResource::Requests),
        (false, false) => None,
    }
}

/// Returns whether a message, in lower case, rejects a request that exceeds the whole limit:
/// `request too large for gpt-4o on tokens per min (tpm): limit 30000, requested 31000`.
pub(super) fn exceeds_limit(message: &str) -> bool {
    let numbers = number_after(message, "limit ").zip(number_after(message, "requested "));
    message.contains("request too large for") || numbers.is_some_and(|(limit, requested)| requested > limit)
}

/// Returns the first number that follows a word.
fn number_after(message: &str, word: &str) -> Option<u64> {
    let mut rests = message.match_indices(word).map(|(at, word)| &message[at + word.len()..]);
    rests.find_map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    #[test]
    fn a_request_above_the_whole_limit_is_distinguished_from_one_sent_too_early() {
        for (message, expected) in [
            // https://github.com/DrShushen/climb/issues/13
            (
                "request too large for gpt-4o in organization org-x on tokens per min (tpm): limit 30000, requested 30601.",
                true,
            ),
            // https://github.com/Aider-AI/aider/issues/1880
            (
                "litellm.ratelimiterror: openaiexception - error code: 429 - {'error': {'message': 'request too large for gpt-4o on tokens per min (tpm): limit 30000, requested 36278.",
                true,
            ),
            (
                "rate limit reached for m on tokens per minute (tpm): limit 6000, used 0, requested 7400.",
                true,
            ),
            (
                "rate limit reached for m on tokens per min (tpm): limit 30000, used 22999, requested 12528.",
                false,
            ),
            ("rate limit reached for m on requests per min (rpm): limit 3, used 3, requested 1.", false),
            ("limit reached, requested later", false),
            ("limit 99999999999999999999, requested 1", false),
        ] {
            assert_eq!(exceeds_limit(message), expected, "{message}");
        }
    }

    #[test]
    fn the_limited_resource_is_detected_for_every_vendor() {
        for (message, expected) in [
            // https://platform.openai.com/docs/guides/rate-limits
            (
                "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000",
                Some(RateLimitResource::Tokens),
            ),
            (
                "Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, Used 3",
                Some(RateLimitResource::Requests),
            ),
            // https://docs.anthropic.com/en/api/rate-limits
            (
                "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: x).",
                Some(RateLimitResource::Tokens),
            ),
            (
                "This request would exceed your organization's rate limit of 50 requests per minute (org: x).",
                Some(RateLimitResource::Requests),
            ),
            // https://ai.google.dev/gemini-api/docs/troubleshooting
            (
                "Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 15",
                Some(RateLimitResource::Requests),
            ),
            (
                "Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_input_token_count",
                Some(RateLimitResource::Tokens),
            ),
            ("Slow down.", None),
        ] {
            assert_eq!(limited_resource(&Failure::new(Class::RateLimit, message)), expected, "{message}");
        }
        let coded = Failure { code: Some("tokens".into()), ..Failure::new(Class::RateLimit, "no") };
        assert_eq!(limited_resource(&coded), Some(RateLimitResource::Tokens));
    }
}
