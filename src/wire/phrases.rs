//! What the messages of errors say, from servers whose codes say nothing.
//!
//! Shared by the formats: gateways speak one vendor's format and pass on another's words. Every phrase is that of
//! a body in `tests/data/errors`, in small letters.

use crate::types::Class;

const TOO_LONG: [&str; 28] = [
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

const CONTENT_FILTER: [&str; 14] = [
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

const QUOTA: [&str; 28] = [
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

const KEY: [&str; 8] = [
    "invalid api key",
    "incorrect api key",
    "api key provided",
    "security token included in the request is invalid",
    "organization has been restricted",
    "organization has been disabled",
    "invalid access token",
    "access denied due to invalid subscription key",
];

const NOT_FOUND: [&str; 10] = [
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

/// What is said of a path that a server does not have: LM Studio, and what Ollama is made of.
const NO_ENDPOINT: [&str; 2] = ["unexpected endpoint or method", "404 page not found"];

const OVERLOADED: [&str; 9] = [
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

/// Failures of a server that are answered as if the request were wrong.
const FAILED: [&str; 6] = [
    "the model has crashed",
    "model unloaded",
    "enginecore encountered",
    "engine core",
    "failed during generation",
    "error occurred while processing your request",
];

/// Returns whether a message in small letters says that a server has no such path.
pub(super) fn is_no_endpoint(message: &str) -> bool {
    NO_ENDPOINT.iter().any(|phrase| message.contains(phrase))
}

/// Returns what a message in small letters means; `None` when the status knows better.
pub(super) fn class_of_message(message: &str, status: Option<u16>) -> Option<Class> {
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    let refused = matches!(status, None | Some(400 | 403 | 413 | 422));
    let failed = matches!(status, None | Some(500));
    let of_money = matches!(status, None | Some(400..=403 | 412 | 422 | 429 | 500));
    if (refused || failed) && any(&TOO_LONG) {
        return Some(Class::TooLong);
    }
    if refused && any(&CONTENT_FILTER) {
        return Some(Class::ContentFilter);
    }
    if of_money && any(&QUOTA) {
        return Some(Class::Quota);
    }
    if refused && any(&KEY) {
        return Some(Class::Auth);
    }
    if matches!(status, None | Some(400 | 404 | 422)) && any(&NOT_FOUND) {
        return Some(Class::NotFound);
    }
    if (failed || status == Some(429)) && any(&OVERLOADED) {
        return Some(Class::Overloaded);
    }
    (refused && any(&FAILED)).then_some(Class::ServerError)
}

/// Tells a limit of a day or a month, such as Groq's `tokens per day (TPD)` and OpenRouter's
/// `free-models-per-day`, from one that opens within the minute. A word like "daily" alone says nothing.
pub(super) fn is_of_a_day(message: &str) -> bool {
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
    const WHAT: [&str; 6] = ["limit", "quota", "request", "token", "usage", "call"];
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    let of_a_period = PERIODS.iter().any(|period| {
        let mut rests = message.match_indices(period).map(|(at, _)| &message[at + period.len()..]);
        rests.any(|rest| {
            let next = rest.trim_start_matches([' ', '-', '_']);
            WHAT.iter().any(|what| next.starts_with(what))
        })
    });
    (any(&SPANS) || of_a_period) && !any(&["per min", "per-min", "(rpm)", "(tpm)", "per second", "/ minute"])
}
