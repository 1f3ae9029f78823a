//! The simulator's settings.
//!
//! Types refuse what could not be played; nothing here is read twice or ignored.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::duration;

use super::{Fault, FirstToken, Latency, Length, RetryAfter};

/// How the simulator behaves. With nothing set it answers at once, short, always, and without limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Decides every draw: the same seed and the same requests give the same answers and faults.
    pub seed: u64,
    /// Time from the request to the last byte of the answer: `"1.5s"`, or `{ median = "1s", p95 = "4s" }`.
    pub latency: Latency,
    /// When a stream's first piece comes, and with it its status and headers: a share of the latency
    /// (`0.25`), or a time (`"300ms"`).
    pub first_token: FirstToken,
    /// Most pieces of text in one stream.
    pub chunks: NonZeroU64,
    /// Length of answers in prose: `400`, or `{ median = 300, p95 = 900 }`; cut at the request's own limit,
    /// as a vendor would. Not set: one short sentence that always fits. Structured answers keep their length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_tokens: Option<Length>,
    /// Limits of each account.
    pub limits: Limits,
    /// Whether replies carry rate-limit headers, where limits are set and the vendor sends such headers.
    pub headers: bool,
    /// The gateway in front of the vendor, whose headers replies carry instead of the vendor's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// How far the vendor's clock is ahead of this machine's: its `Date`, and the dates in its headers.
    #[serde(serialize_with = "duration::serialize", deserialize_with = "duration::deserialize_from_zero")]
    pub clock_ahead: Duration,
    /// What a 429 says about when to come back: `true` (the truth), `false` (nothing) or `"absurd"`.
    pub retry_after: RetryAfter,
    /// What goes wrong. The first that befalls a request is played.
    pub faults: Vec<Fault>,
    /// The only keys that are accepted; empty accepts any, and none.
    pub keys: Vec<String>,
    /// The only models that exist; empty accepts any name.
    pub models: Vec<String>,
    /// Parameters that are refused by their names, as reasoning models refuse them: `temperature`, `max_tokens`
    /// (OpenAI: for `max_completion_tokens`), `stream_options`.
    pub refused_parameters: Vec<String>,
    /// Whether a schema must keep the vendor's own rules (such as `additionalProperties: false`), as it must
    /// at the real vendor.
    pub strict_schemas: bool,
    /// Whether counts tell how many different prompts were answered, and how many more than once. Costs
    /// about 16 bytes for each prompt.
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
            limits: Limits::default(),
            headers: true,
            gateway: None,
            clock_ahead: Duration::ZERO,
            retry_after: RetryAfter::Truthful,
            faults: Vec::new(),
            keys: Vec::new(),
            models: Vec::new(),
            refused_parameters: Vec::new(),
            strict_schemas: true,
            track_prompts: false,
        }
    }
}

/// What one account may use. An account is one key at one vendor, or all keys of a vendor together; and
/// either all of its models, or each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests per minute; not set means no limit, as below.
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
    /// How much may be used at once: what a minute allows (`"60s"`) or what a second allows (`"1s"`).
    pub bucket: BucketSize,
    /// Whether a bucket is full at first; else it is empty.
    pub starts_full: bool,
    /// What a call's output counts, and when: what it writes, while it does (`"used"`); what it might write
    /// (`"max_tokens"`) or will write (`"foreseen"`), when it comes.
    pub output_counts: OutputCounts,
    /// Requests per minute that somebody else takes, steadily, out of `requests_per_minute` of each account.
    /// Replies do not tell of it.
    pub others_per_minute: u64,
    /// Whether all keys of a vendor are one account.
    pub shared: bool,
    /// Whether each model has limits of its own.
    pub per_model: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            tokens_per_minute: None,
            input_tokens_per_minute: None,
            output_tokens_per_minute: None,
            bucket: BucketSize::Minute,
            starts_full: true,
            output_counts: OutputCounts::Used,
            others_per_minute: 0,
            shared: false,
            per_model: false,
        }
    }
}

/// Who stands in front of the vendor, and says in its own headers how the limit of requests stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gateway {
    /// As draft-ietf-httpapi-ratelimit-headers-08 has it: `RateLimit` and `RateLimit-Policy`, which names the window.
    Ietf,
    /// As Kong does without its own names: `RateLimit-Limit`, `-Remaining` and `-Reset`, in whole seconds until the
    /// window ends. Nothing names the window.
    Kong,
}

/// How much of a limit may be used at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketSize {
    /// What a minute allows.
    #[serde(rename = "60s")]
    Minute,
    /// What a second allows.
    #[serde(rename = "1s")]
    Second,
}

/// What a call's output counts towards a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputCounts {
    /// The tokens that are written, as they are: with each piece of a stream, at the end of a whole reply.
    /// So does Anthropic. Who comes is refused only for what was written before, and a limit may be overdrawn.
    Used,
    /// The request's `max_tokens` where it gives one, used or not, when the call comes. Much as OpenAI does.
    MaxTokens,
    /// The tokens that the answer is going to have, when the call comes. No vendor can know that; it is for
    /// tests that want exact sums.
    Foreseen,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::FaultKind;

    #[test]
    fn settings_are_read_as_people_write_them() {
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
    fn an_unknown_key_or_a_limit_of_zero_is_refused() {
        assert!(toml::from_str::<Settings>("latancy = \"1s\"").is_err());
        assert!(toml::from_str::<Settings>("limits = { requests_per_minute = 0 }").is_err());
        assert!(toml::from_str::<Settings>("limits = { bucket = \"5s\" }").is_err());
        assert!(toml::from_str::<Settings>("chunks = 0").is_err());
    }
}
