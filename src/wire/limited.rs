//! Finds out what the rate limit counts that a refusal speaks of.
//!
//! OpenAI's `error.type` is `requests` or `tokens`; others only say it in words, or in the name of a quota.

use crate::types::{Failure, Limited};

/// Words of messages and quota names, in lower case.
const OF_TOKENS: [&str; 6] =
    ["tokens per m", "tokens per s", "token_count", "tokensper", "(tpm)", "too many tokens"];
const OF_REQUESTS: [&str; 6] =
    ["requests per m", "requests per s", "_requests", "requestsper", "(rpm)", "too many requests"];

/// Returns what is limited; `None` where the refusal does not say so.
pub(super) fn limited(failure: &Failure) -> Option<Limited> {
    match failure.code.as_deref() {
        Some("tokens") => return Some(Limited::Tokens),
        Some("requests") => return Some(Limited::Requests),
        Some(_) | None => {}
    }
    let message = failure.message.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match (any(&OF_TOKENS), any(&OF_REQUESTS)) {
        (true, _) => Some(Limited::Tokens),
        (false, true) => Some(Limited::Requests),
        (false, false) => None,
    }
}

/// Tells the refusal of a request that is larger than all that the limit grants, by its message in small letters:
/// `request too large for gpt-4o on tokens per min (tpm): limit 30000, requested 31000`.
pub(super) fn exceeds_limit(message: &str) -> bool {
    let numbers = after(message, "limit ").zip(after(message, "requested "));
    message.contains("request too large for") || numbers.is_some_and(|(limit, requested)| requested > limit)
}

/// Returns the number that first stands after a word.
fn after(message: &str, word: &str) -> Option<u64> {
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
    fn a_request_above_the_whole_limit_is_told_from_one_that_came_too_soon() {
        for (message, is) in [
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
            assert_eq!(exceeds_limit(message), is, "{message}");
        }
    }

    #[test]
    fn what_is_limited_is_read_from_the_error_of_every_vendor() {
        for (message, is) in [
            // https://platform.openai.com/docs/guides/rate-limits
            (
                "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29000",
                Some(Limited::Tokens),
            ),
            (
                "Rate limit reached for gpt-4o in organization org-x on requests per min (RPM): Limit 3, Used 3",
                Some(Limited::Requests),
            ),
            // https://docs.anthropic.com/en/api/rate-limits
            (
                "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: x).",
                Some(Limited::Tokens),
            ),
            (
                "This request would exceed your organization's rate limit of 50 requests per minute (org: x).",
                Some(Limited::Requests),
            ),
            // https://ai.google.dev/gemini-api/docs/troubleshooting
            (
                "Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 15",
                Some(Limited::Requests),
            ),
            (
                "Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_input_token_count",
                Some(Limited::Tokens),
            ),
            ("Slow down.", None),
        ] {
            assert_eq!(limited(&Failure::new(Class::RateLimit, message)), is, "{message}");
        }
        let coded = Failure { code: Some("tokens".into()), ..Failure::new(Class::RateLimit, "no") };
        assert_eq!(limited(&coded), Some(Limited::Tokens));
    }
}
