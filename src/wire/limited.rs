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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

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
