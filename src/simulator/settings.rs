//! The simulator's settings.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::duration;

use super::{Fault, FirstToken, Latency, Length, PromptCaching, RetryAfter};

/// Minimum tokens of a cached prompt if the settings set none.
const DEFAULT_PROMPT_CACHE_MIN_TOKENS: NonZeroU64 = NonZeroU64::MIN.saturating_add(1_023);

/// Behavior of the simulator. By default it answers every request at once with a short text, without limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Seed of all random values: the same seed and the same requests result in the same answers and faults.
    pub seed: u64,
    /// Time from the request to the last byte of the answer: `"1.5s"`, or `{ median = "1s", p95 = "4s" }`.
    pub latency: Latency,
    /// Time of a stream's first chunk, and of its status and headers: a fraction of the latency (`0.25`), or a
    /// duration (`"300ms"`).
    pub first_token: FirstToken,
    /// Maximum number of text chunks in a stream.
    pub chunks: NonZeroU64,
    /// Length of text answers in tokens: `400`, or `{ median = 300, p95 = 900 }`. As at a vendor, answers are cut
    /// at the request's limit. By default an answer is one short sentence within that limit. Structured answers
    /// keep their length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_tokens: Option<Length>,
    /// Limits of each account.
    pub limits: AccountLimits,
    /// Whether responses have rate-limit headers, if limits are set and the vendor sends such headers.
    pub headers: bool,
    /// Gateway in front of the vendor. Responses have its rate-limit headers instead of the vendor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// How far the vendor's clock is ahead of this machine's. It applies to `Date` and to the times in other
    /// headers.
    #[serde(serialize_with = "duration::serialize", deserialize_with = "duration::deserialize_from_zero")]
    pub clock_ahead: Duration,
    /// Retry delay in a 429: `true` (accurate), `false` (none) or `"absurd"`.
    pub retry_after: RetryAfter,
    /// Faults to inject. At most one fault applies to a request.
    pub faults: Vec<Fault>,
    /// Accepted API keys. If empty, any key is accepted, and a request needs none.
    pub keys: Vec<String>,
    /// Existing models. If empty, any name is accepted.
    pub models: Vec<String>,
    /// Parameters that are rejected, as by reasoning models: `temperature`, `max_tokens` (OpenAI requires
    /// `max_completion_tokens` instead), `stream_options`.
    pub refused_parameters: Vec<String>,
    /// Whether schemas must follow the vendor's rules, such as `additionalProperties: false`.
    pub strict_schemas: bool,
    /// Whether prompts are cached by the rules of the vendor (`"vendor"`) or not (`"off"`). A prompt is in the cache
    /// from the first token of the response on. A response without streaming has its first token when its stream would
    /// have it.
    pub prompt_cache: PromptCaching,
    /// Minimum tokens of a cached prompt, of every model.
    pub prompt_cache_min_tokens: NonZeroU64,
    /// Whether to count distinct prompts, and prompts answered more than once. Costs about 16 bytes per prompt.
    pub track_prompts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            latency: Latency::default(),
            first_token: FirstToken::default(),
            chunks: NonZeroU64::MIN.saturating_add(3),
            answer_tokens: None,
            limits: AccountLimits::default(),
            headers: true,
            gateway: None,
            clock_ahead: Duration::ZERO,
            retry_after: RetryAfter::Truthful,
            faults: Vec::new(),
            keys: Vec::new(),
            models: Vec::new(),
            refused_parameters: Vec::new(),
            strict_schemas: true,
            prompt_cache: PromptCaching::Off,
            prompt_cache_min_tokens: DEFAULT_PROMPT_CACHE_MIN_TOKENS,
            track_prompts: false,
        }
    }
}

/// Rate limits of one account. An account is one key at one vendor or all keys of a vendor. It includes all of its
/// models or one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountLimits {
    /// Requests per minute. `None` is no limit, here and in the fields below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU64>,
    /// Tokens per minute, input and output together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<NonZeroU64>,
    /// Input tokens per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens_per_minute: Option<NonZeroU64>,
    /// Output tokens per minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_minute: Option<NonZeroU64>,
    /// Bucket size: the limit of one minute (`"60s"`) or of one second (`"1s"`).
    pub bucket: BucketSize,
    /// Whether a bucket is full at the start. Otherwise it is empty.
    pub starts_full: bool,
    /// How output tokens are charged: the generated tokens as they are generated (`"used"`), or on arrival the
    /// request's `max_tokens` (`"max_tokens"`) or the length of the answer (`"oracle"`).
    pub output_accounting: OutputAccounting,
    /// Requests per minute that other clients consume from `requests_per_minute` of each account, at a constant
    /// rate. Responses do not report them.
    pub background_requests_per_minute: u64,
    /// Whether all keys of a vendor are one account.
    pub shared_across_keys: bool,
    /// Whether each model has its own limits.
    pub per_model: bool,
}

impl Default for AccountLimits {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            tokens_per_minute: None,
            input_tokens_per_minute: None,
            output_tokens_per_minute: None,
            bucket: BucketSize::Minute,
            starts_full: true,
            output_accounting: OutputAccounting::Used,
            background_requests_per_minute: 0,
            shared_across_keys: false,
            per_model: false,
        }
    }
}

/// API gateway in front of the vendor, with its own headers for the limit of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gateway {
    /// Headers of draft-ietf-httpapi-ratelimit-headers-08: `RateLimit` and `RateLimit-Policy`, with the window.
    Ietf,
    /// Kong's headers without its own prefix: `RateLimit-Limit`, `-Remaining` and `-Reset`, in whole seconds until
    /// the end of the window. No header contains the window.
    Kong,
}

/// Bucket size of a limit: the largest burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketSize {
    /// The limit of one minute.
    #[serde(rename = "60s")]
    Minute,
    /// The limit of one second.
    #[serde(rename = "1s")]
    Second,
}

/// Output tokens that a call consumes from a limit, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputAccounting {
    /// The generated tokens as they are generated: with each chunk of a stream, or at the end of the response. A
    /// call is rejected only for tokens generated before it arrives, so a limit may be overdrawn. Anthropic counts
    /// in this way.
    Used,
    /// The request's `max_tokens` on arrival, or the length of the answer if it sets none. Similar to OpenAI.
    MaxTokens,
    /// The length of the answer on arrival. No vendor can predict it. For tests that need exact sums.
    Oracle,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::FaultKind;

    #[test]
    fn settings_are_parsed_from_toml() {
        let settings: Settings = toml::from_str(
            r#"
            seed = 7
            latency = { median = "1s", p95 = "3s" }
            first_token = "200ms"
            answer_tokens = 300
            retry_after = false
            limits = { requests_per_minute = 1_200, bucket = "1s" }
            faults = [{ kind = "server_error", share = 0.05 }, { kind = "reset", from = "10s", until = "30s" }]
            "#,
        )
        .unwrap();
        assert_eq!(settings.limits.requests_per_minute, NonZeroU64::new(1_200));
        assert_eq!(settings.limits.bucket, BucketSize::Second);
        assert_eq!(settings.retry_after, RetryAfter::Missing);
        assert_eq!(settings.faults[1].kind, FaultKind::Reset);
        assert_eq!(toml::from_str::<Settings>(&toml::to_string(&settings).unwrap()).unwrap(), settings);
    }

    #[test]
    fn an_unknown_key_or_a_limit_of_zero_is_rejected() {
        assert!(toml::from_str::<Settings>("latancy = \"1s\"").is_err());
        assert!(toml::from_str::<Settings>("limits = { requests_per_minute = 0 }").is_err());
        assert!(toml::from_str::<Settings>("limits = { bucket = \"5s\" }").is_err());
        assert!(toml::from_str::<Settings>("chunks = 0").is_err());
    }
}
