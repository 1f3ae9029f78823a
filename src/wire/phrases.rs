//! Classification of errors by their messages, for servers without specific error codes.
//!
//! Shared by the formats, because gateways use the format of one vendor and forward the messages of another. Each
//! phrase comes from a body in `tests/data/errors`, in lower case.

use crate::types::Class;

const TOO_LONG_PHRASES: [&str; 28] = [
    "context length",
    "context size",
    "context window",
    "context limit",
    "maximum context",
    "prompt length",
    "prompt is too long",
    "prompt too long",
    "prompt exceeds",
    "prompt 超长",
    "input is too long",
    "input token length too long",
    "input tokens exceed",
    "input token count exceeds",
    "token count exceeds",
    "exceeds the maximum number of tokens",
    "exceeds the maximum allowed length",
    "exceeded model token limit",
    "exceed model token limit",
    "model max length exceeded",
    "range of input length",
    "`inputs` tokens +",
    "`inputs` must have less than",
    "too many tokens: total",
    "too many tokens: size",
    "reduce the length of the messages",
    "max_tokens must be at least 1, got -",
    "too large for model with",
];

const CONTENT_FILTER_PHRASES: [&str; 14] = [
    "content management policy",
    "content policy",
    "content filtering policy",
    "content exists risk",
    "considered high risk",
    "was flagged",
    "flagged by moderation",
    "requires moderation",
    "violating our usage policy",
    "inappropriate content",
    "may contain sens",
    "不安全或敏感内容",
    "sensitive content",
    "blocked by policy",
];

const QUOTA_PHRASES: [&str; 28] = [
    "exceeded your current quota",
    "exceeded current quota",
    "insufficient balance",
    "insufficient credits",
    "insufficient account",
    "balance is insufficient",
    "credit balance",
    "credit limit exceeded",
    "credits expired",
    "doesn't have any credits",
    "out of credits",
    "included credits",
    "add credits",
    "spending limit",
    "budget has been exceeded",
    "quota has been used up",
    "free allocated quota",
    "free tier of the model has been exhausted",
    "out of call volume quota",
    "without an active subscription",
    "your billing status",
    "update your payment method",
    "your usage limit",
    "account is in good standing",
    "billing details",
    "账户已欠费",
    "余额不足",
    "欠费",
];

const KEY_PHRASES: [&str; 8] = [
    "invalid api key",
    "incorrect api key",
    "api key provided",
    "security token included in the request is invalid",
    "organization has been restricted",
    "organization has been disabled",
    "invalid access token",
    "access denied due to invalid subscription key",
];

const NOT_FOUND_PHRASES: [&str; 10] = [
    "model not exist",
    "model does not exist",
    "model not found",
    "model_not_found",
    "invalid model",
    "has been decommissioned",
    "has been deprecated",
    "模型不存在",
    "failed to load model",
    "unexpected endpoint or method",
];

/// Phrases about a path that a server does not have: LM Studio, and Ollama's HTTP framework.
const NO_ENDPOINT_PHRASES: [&str; 2] = ["unexpected endpoint or method", "404 page not found"];

const OVERLOADED_PHRASES: [&str; 9] = [
    "loading model",
    "currently loading",
    "server busy",
    "overloaded",
    "high traffic",
    "capacity exceeded",
    "no capacity available",
    "service is too busy",
    "访问量过大",
];

/// Phrases about server failures that are reported with the status of an invalid request.
const SERVER_FAILURE_PHRASES: [&str; 6] = [
    "the model has crashed",
    "model unloaded",
    "enginecore encountered",
    "engine core",
    "failed during generation",
    "error occurred while processing your request",
];

/// Returns whether a message contains one of the phrases.
pub(super) fn contains_any(message: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| message.contains(phrase))
}

/// Returns whether a message, in lower case, reports that the server does not have the path.
pub(super) fn is_no_endpoint(message: &str) -> bool {
    contains_any(message, &NO_ENDPOINT_PHRASES)
}

/// Returns the class of a message in lower case; `None` if the status decides.
pub(super) fn class_of_message(message: &str, status: Option<u16>) -> Option<Class> {
    let any = |phrases: &[&str]| contains_any(message, phrases);
    let is_rejection = matches!(status, None | Some(400 | 403 | 413 | 422));
    let is_server_error = matches!(status, None | Some(500));
    let may_be_billing = matches!(status, None | Some(400..=403 | 412 | 422 | 429 | 500));
    if (is_rejection || is_server_error) && any(&TOO_LONG_PHRASES) {
        return Some(Class::TooLong);
    }
    if is_rejection && any(&CONTENT_FILTER_PHRASES) {
        return Some(Class::ContentFilter);
    }
    if may_be_billing && any(&QUOTA_PHRASES) {
        return Some(Class::Quota);
    }
    if is_rejection && any(&KEY_PHRASES) {
        return Some(Class::Auth);
    }
    if matches!(status, None | Some(400 | 404 | 422)) && any(&NOT_FOUND_PHRASES) {
        return Some(Class::NotFound);
    }
    if (is_server_error || status == Some(429)) && any(&OVERLOADED_PHRASES) {
        return Some(Class::Overloaded);
    }
    (is_rejection && any(&SERVER_FAILURE_PHRASES)).then_some(Class::ServerError)
}

/// Returns whether a message refers to a limit per day, week or month, such as Groq's `tokens per day (TPD)` and
/// OpenRouter's `free-models-per-day`, and not to one that resets within a minute. A word like "daily" alone is
/// not enough.
pub(super) fn is_long_period_limit(message: &str) -> bool {
    const SPANS: [&str; 10] = [
        "per day",
        "per-day",
        "(rpd)",
        "(tpd)",
        "per week",
        "per-week",
        "per month",
        "per-month",
        "/ day",
        "/ month",
    ];
    const PERIODS: [&str; 3] = ["daily", "weekly", "monthly"];
    const LIMITED_NOUNS: [&str; 6] = ["limit", "quota", "request", "token", "usage", "call"];
    let any = |phrases: &[&str]| contains_any(message, phrases);
    let is_periodic = PERIODS.iter().any(|period| {
        let mut rests = message.match_indices(period).map(|(at, _)| &message[at + period.len()..]);
        rests.any(|rest| {
            let next = rest.trim_start_matches([' ', '-', '_']);
            LIMITED_NOUNS.iter().any(|what| next.starts_with(what))
        })
    });
    (any(&SPANS) || is_periodic) && !any(&["per min", "per-min", "(rpm)", "(tpm)", "per second", "/ minute"])
}
