//! The settings of a provider: `[provider.NAME]`.
//!
//! Contains the sources of keys, never a key.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::{HeaderName, Uri};
use indexmap::IndexMap;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::guard::{BreakerSettings, ConcurrencySettings, RetryBudgetSettings};
use crate::types::{EmbeddingLimits, Format, ModelName, duration};
use crate::wire::{
    Dialect, DropParameter, MaxTokensField, ReasoningTags, StreamSupport, StructuredOutput,
    UnsupportedParameters,
};

use super::dispatch::base_url::{SIMULATOR, parse_base_url};
use super::dispatch::loopback::is_loopback_host;
use super::{HeaderSource, KeySource, Limits, Model, UnresponsiveTimeouts};

/// One provider.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "RawSettings")]
pub struct Settings {
    /// The API format of the provider.
    pub format: Format,
    /// The base URL, without a trailing slash. `None` is the vendor's own address; `simulator` is a simulated
    /// provider on this machine.
    pub base_url: Option<String>,
    /// Differences from the vendor's own format.
    pub dialect: Dialect,
    /// Headers that are sent with every call, in addition to those of the format.
    pub headers: IndexMap<HeaderName, HeaderSource>,
    /// The sources of its keys, preferred first.
    pub keys: Vec<KeySource>,
    /// How often the next key becomes the preferred one; `None` always prefers the first usable key.
    pub rotate_every: Option<Duration>,
    /// The account's limits.
    pub limits: Limits,
    /// How many output tokens a call reserves.
    pub output_reservation: OutputReservation,
    /// Timeouts of its calls.
    pub timeouts: Timeouts,
    /// Settings of its circuit breakers.
    pub breaker: BreakerSettings,
    /// Settings of its retry budget.
    pub retry_budget: RetryBudgetSettings,
    /// Maximum attempts in flight to all models together; `None` leaves only the limit of each model.
    pub max_concurrency: Option<NonZeroU32>,
    /// Maximum number of inputs in a joined call for embeddings; `None` leaves it to the format and the address. With 1,
    /// requests for embeddings are not joined.
    pub embedding_inputs: Option<NonZeroU32>,
    /// Maximum number of queued calls.
    pub queue: NonZeroUsize,
    /// Whether calls carry the trace context of their caller, as the header `traceparent`.
    pub traceparent: bool,
    /// How long a model may send nothing before it counts as unresponsive. Not a configuration key.
    pub unresponsive_after: UnresponsiveTimeouts,
    /// Its models, in the order of the configuration file.
    pub models: IndexMap<ModelName, Model>,
}

impl Settings {
    /// Returns whether it is a simulated provider.
    pub fn is_simulated(&self) -> bool {
        self.base_url.as_deref() == Some(SIMULATOR)
    }

    /// Sets the most attempts in flight to all models together, and the limit of each model to the same number.
    pub fn set_max_concurrency(&mut self, attempts: NonZeroU32) {
        self.max_concurrency = Some(attempts);
        let of_models = self.models.values_mut().filter_map(|model| model.limits.as_mut());
        for limits in of_models.chain([&mut self.limits]) {
            let ConcurrencySettings { min, start, .. } = limits.concurrency;
            limits.concurrency =
                ConcurrencySettings { min: min.min(attempts), start: start.min(attempts), max: attempts };
        }
    }

    /// Returns whether calls need a key: only a server at a configured address may need none.
    pub fn needs_key(&self) -> bool {
        self.base_url.is_none() || !self.keys.is_empty() && !self.is_simulated()
    }

    /// Returns the handling of reasoning in its answers, if it is not the default at its address.
    pub fn non_default_reasoning_tags(&self) -> Option<&'static str> {
        let real_url = self.base_url.as_deref().filter(|url| *url != SIMULATOR);
        let tags = self.dialect.reasoning_tags;
        (tags != ReasoningTags::default_for(self.format, real_url)).then(|| tags.as_str())
    }

    /// Returns the host that its calls go to over plain `http://`, if that is another machine: their contents
    /// can be read in transit.
    pub fn plain_remote_host(&self) -> Option<String> {
        self.remote().filter(|remote| !remote.is_https).map(|remote| remote.host)
    }

    /// Returns how much a joined call for embeddings may contain; `None` if the format has no embeddings. `base_url` is
    /// the address of its calls; `None` takes the configured one.
    pub fn embedding_limits(&self, base_url: Option<&str>) -> Option<EmbeddingLimits> {
        let configured = self.base_url.as_deref().unwrap_or_else(|| self.format.default_base_url());
        let of_vendor = self.format.embedding_limits(base_url.unwrap_or(configured))?;
        let max_inputs = self.embedding_inputs.map_or(of_vendor.max_inputs, |inputs| inputs.get() as usize);
        Some(EmbeddingLimits::new(max_inputs, of_vendor.max_tokens))
    }

    /// Returns the maximum number of attempts in flight to all models together.
    pub(crate) fn max_in_flight(&self) -> usize {
        let account = self.limits.concurrency;
        let of = |model: &Model| model.limits.as_ref().map_or(account, |own| own.concurrency);
        let of_models =
            self.models.values().map(|model| of(model).max.get().max(of(model).min.get()) as usize);
        let all = of_models.fold(0, usize::saturating_add).max(1);
        self.max_concurrency.map_or(all, |bound| all.min(bound.get() as usize))
    }

    /// Returns the host that its calls go to; `None` if that is this machine.
    pub(super) fn remote(&self) -> Option<Remote> {
        let url: Uri = match &self.base_url {
            None => return Some(Remote { host: String::new(), is_https: true }),
            Some(url) => url.parse().ok()?,
        };
        let host = url.host().filter(|host| !is_loopback_host(host))?.trim_matches(['[', ']']).to_owned();
        Some(Remote { host, is_https: url.scheme_str()? == "https" })
    }

    /// Returns the settings of a simulated provider with one model, `any`.
    pub fn simulated() -> Self {
        Self {
            base_url: Some(SIMULATOR.to_owned()),
            models: IndexMap::from([("any".into(), Model { name: "any".to_owned(), ..Model::default() })]),
            ..Self::default()
        }
    }
}

/// Another machine that calls go to.
pub(super) struct Remote {
    /// The host name or address; empty for the vendor's own.
    pub(super) host: String,
    pub(super) is_https: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: Format::Openai,
            base_url: None,
            dialect: Dialect::default(),
            headers: IndexMap::new(),
            keys: Vec::new(),
            rotate_every: None,
            limits: Limits::default(),
            output_reservation: OutputReservation::default(),
            timeouts: Timeouts::default(),
            breaker: BreakerSettings::default(),
            retry_budget: RetryBudgetSettings::default(),
            max_concurrency: None,
            embedding_inputs: None,
            queue: const { NonZeroUsize::new(10_000).unwrap() },
            traceparent: false,
            unresponsive_after: UnresponsiveTimeouts::default(),
            models: IndexMap::new(),
        }
    }
}

/// How many output tokens a call reserves from the token limits before the length of its answer is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputReservation {
    /// The 95th percentile of the answers of its step; what is not used is returned.
    #[default]
    P95,
    /// The call's `max_tokens`, and nothing is returned: for providers that count so.
    MaxTokens,
}

/// Timeouts of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until the connection is established.
    #[serde(with = "duration")]
    pub connect: Duration,
    /// From sending the call until the first part of the answer. It does not apply to whole responses
    /// ([`StreamSupport::Never`]), of which nothing arrives before the end.
    #[serde(with = "duration")]
    pub first_token: Duration,
    /// Between two parts of the answer.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// For the whole call.
    #[serde(with = "duration")]
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_token: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}

/// The keys as in the configuration file: the dialect's are among the provider's own.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "provider")]
struct RawSettings {
    format: Format,
    #[serde(deserialize_with = "base_url")]
    base_url: Option<String>,
    api_version: Option<String>,
    structured_output: StructuredOutput,
    max_tokens_field: MaxTokensField,
    #[serde(deserialize_with = "some_tags")]
    reasoning_tags: Option<ReasoningTags>,
    drop_parameters: Vec<DropParameter>,
    stream: StreamSupport,
    #[serde(deserialize_with = "headers")]
    headers: IndexMap<HeaderName, HeaderSource>,
    keys: Vec<KeySource>,
    #[serde(deserialize_with = "some_duration")]
    rotate_every: Option<Duration>,
    limits: Limits,
    output_reservation: OutputReservation,
    timeouts: Timeouts,
    breaker: BreakerSettings,
    retry_budget: RetryBudgetSettings,
    #[serde(deserialize_with = "some_count")]
    max_concurrency: Option<NonZeroU32>,
    #[serde(deserialize_with = "some_count")]
    embedding_inputs: Option<NonZeroU32>,
    queue: NonZeroUsize,
    traceparent: bool,
    models: IndexMap<ModelName, Model>,
}

impl Default for RawSettings {
    fn default() -> Self {
        let default = Settings::default();
        let Settings {
            format,
            base_url,
            dialect,
            headers,
            keys,
            rotate_every,
            limits,
            output_reservation: reserve,
            ..
        } = default;
        let Settings {
            timeouts,
            breaker,
            retry_budget: retries,
            max_concurrency,
            embedding_inputs,
            queue,
            traceparent,
            models,
            ..
        } = default;
        let Dialect {
            api_version,
            structured_output: structured,
            max_tokens_field,
            reasoning_tags: _,
            drop_parameters,
            stream,
            extra: _,
            min_cache_tokens: _,
            unsupported: _,
        } = dialect;
        Self {
            format,
            base_url,
            api_version,
            structured_output: structured,
            max_tokens_field,
            reasoning_tags: None,
            drop_parameters,
            stream,
            headers,
            keys,
            rotate_every,
            limits,
            output_reservation: reserve,
            timeouts,
            breaker,
            retry_budget: retries,
            max_concurrency,
            embedding_inputs,
            queue,
            traceparent,
            models,
        }
    }
}

impl From<RawSettings> for Settings {
    fn from(raw: RawSettings) -> Self {
        let RawSettings {
            format,
            base_url,
            headers,
            keys,
            rotate_every,
            limits,
            output_reservation: reserve,
            ..
        } = raw;
        let RawSettings {
            timeouts,
            breaker,
            retry_budget: retries,
            max_concurrency,
            embedding_inputs,
            queue,
            traceparent,
            models,
            ..
        } = raw;
        let RawSettings {
            api_version,
            structured_output: structured,
            max_tokens_field,
            reasoning_tags,
            drop_parameters,
            stream,
            ..
        } = raw;
        let real_url = base_url.as_deref().filter(|url| *url != SIMULATOR);
        let reasoning_tags = reasoning_tags.unwrap_or_else(|| ReasoningTags::default_for(format, real_url));
        let unsupported = UnsupportedParameters::default();
        let dialect = Dialect {
            api_version,
            structured_output: structured,
            max_tokens_field,
            reasoning_tags,
            drop_parameters,
            stream,
            // Each model has its own.
            extra: None,
            min_cache_tokens: None,
            unsupported,
        };
        Self {
            format,
            base_url,
            dialect,
            headers,
            keys,
            rotate_every,
            limits,
            output_reservation: reserve,
            timeouts,
            breaker,
            retry_budget: retries,
            max_concurrency,
            embedding_inputs,
            queue,
            traceparent,
            unresponsive_after: UnresponsiveTimeouts::default(),
            models,
        }
    }
}

fn some_count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<NonZeroU32>, D::Error> {
    NonZeroU32::deserialize(from).map(Some)
}

fn some_tags<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ReasoningTags>, D::Error> {
    ReasoningTags::deserialize(from).map(Some)
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration::deserialize(from).map(Some)
}

fn base_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    parse_base_url(&String::deserialize(from)?).map(Some).map_err(D::Error::custom)
}

fn headers<'de, D: Deserializer<'de>>(from: D) -> Result<IndexMap<HeaderName, HeaderSource>, D::Error> {
    let raw = IndexMap::<Header, HeaderSource>::deserialize(from)?;
    Ok(raw.into_iter().map(|(Header(name), source)| (name, source)).collect())
}

/// The name of a header that may be configured.
#[derive(PartialEq, Eq, Hash)]
struct Header(HeaderName);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        header_name(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName =
        text.parse().map_err(|_| format!("`{text}` is not a header name; use letters, digits and dashes"))?;
    match name.as_str() {
        "anthropic-version" => Err(format!("`{name}` has its own setting; write `api_version`")),
        "connection" | "content-encoding" | "content-length" | "content-type" | "host"
        | "transfer-encoding" => Err(format!("`{name}` is set by each call itself; leave it out")),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_has_its_default() {
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
    }

    #[test]
    fn every_key_of_a_provider_is_read() {
        let settings: Settings = toml::from_str(
            r#"
            format = "gemini"
            base_url = "http://localhost:8000/v1/"
            api_version = "v1"
            structured_output = "prompt"
            max_tokens_field = "max_tokens"
            reasoning_tags = "strip"
            drop_parameters = ["seed", "parallel_tool_calls"]
            stream = "never"
            headers = { X-Team = "crew" }
            keys = ["env:A", "file:/b"]
            rotate_every = "1h"
            limits = { requests_per_minute = 1000, concurrency = 8 }
            output_reservation = "max_tokens"
            timeouts = { idle = "5s" }
            breaker = { open_duration = "1s" }
            retry_budget = { ratio = 0.5 }
            max_concurrency = 24
            embedding_inputs = 32
            queue = 7
            traceparent = true
            models.b.name = "x"
            models.a.name = "y"
            "#,
        )
        .unwrap();
        assert_eq!(settings.format, Format::Gemini);
        assert_eq!(settings.base_url.as_deref(), Some("http://localhost:8000/v1"));
        assert_eq!(settings.dialect.api_version.as_deref(), Some("v1"));
        assert_eq!(settings.dialect.structured_output, StructuredOutput::Prompt);
        assert_eq!(settings.dialect.max_tokens_field, MaxTokensField::MaxTokens);
        assert_eq!(settings.dialect.reasoning_tags, ReasoningTags::Strip);
        let dropped = [DropParameter::Seed, DropParameter::ParallelToolCalls];
        assert_eq!(settings.dialect.drop_parameters, dropped);
        assert_eq!(settings.dialect.stream, StreamSupport::Never);
        assert!(settings.headers.contains_key("x-team"));
        assert_eq!(settings.keys.len(), 2);
        assert_eq!(settings.limits.requests_per_minute, NonZeroU32::new(1000));
        assert_eq!(settings.limits.concurrency.max.get(), 8);
        assert_eq!(settings.output_reservation, OutputReservation::MaxTokens);
        assert_eq!(settings.rotate_every, Some(Duration::from_secs(3600)));
        assert_eq!(settings.timeouts, Timeouts { idle: Duration::from_secs(5), ..Timeouts::default() });
        assert_eq!(settings.breaker.open_duration, Duration::from_secs(1));
        assert_eq!(settings.retry_budget.ratio, 0.5);
        assert_eq!(settings.max_concurrency, NonZeroU32::new(24));
        assert_eq!(settings.embedding_inputs, NonZeroU32::new(32));
        assert_eq!(settings.queue.get(), 7);
        assert!(settings.traceparent);
        let models: Vec<_> = settings.models.keys().map(ModelName::as_str).collect();
        assert_eq!(models, ["b", "a"]);
    }

    #[test]
    fn a_header_that_each_call_sets_itself_is_refused() {
        for name in ["Content-Type", "anthropic-version", "'x y'"] {
            assert!(toml::from_str::<Settings>(&format!("headers = {{ {name} = 'x' }}")).is_err(), "{name}");
        }
    }

    #[test]
    fn only_another_machine_counts_as_a_plain_http_host() {
        for (url, host) in [
            ("http://10.0.0.7:8000/v1", Some("10.0.0.7")),
            ("http://models.example.com", Some("models.example.com")),
            ("http://[2001:db8::1]:80", Some("2001:db8::1")),
            ("https://models.example.com", None),
            ("http://localhost:8000", None),
            ("http://127.0.0.1:1", None),
            ("http://[::1]:1", None),
            ("http://models.localhost:1", None),
            ("http://localhost.example.com", Some("localhost.example.com")),
            ("simulator", None),
        ] {
            let settings = Settings { base_url: Some(url.to_owned()), ..Settings::default() };
            assert_eq!(settings.plain_remote_host().as_deref(), host, "{url}");
        }
    }

    #[test]
    fn only_a_server_at_a_configured_address_needs_no_key() {
        let own = Settings { base_url: Some("http://localhost:1".to_owned()), ..Settings::default() };
        let keyed = Settings { keys: vec!["env:A".parse().unwrap()], ..own.clone() };
        assert!(Settings::default().needs_key() && keyed.needs_key());
        assert!(!own.needs_key() && !Settings::simulated().needs_key());
    }
}
