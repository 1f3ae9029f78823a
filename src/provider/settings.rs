//! What can be set about a provider, `[provider.NAME]`.
//!
//! Holds where keys are, never a key.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::{HeaderName, Uri};
use indexmap::IndexMap;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::guard::{BreakerSettings, RetryBudgetSettings};
use crate::types::{ModelName, duration};
use crate::wire::{Dialect, Format, LeftOut, MaxTokensField, ReasoningTags, Structured};

use super::base_url::{SIMULATOR, parse_base_url};
use super::this_machine::is_this_machine;
use super::{HeaderSource, KeySource, Limits, Model, Patience};

/// One provider.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Written")]
pub struct Settings {
    /// The format it speaks.
    pub format: Format,
    /// Its address without a slash at the end; `None` is the vendor's own, `simulator` is played on
    /// this machine.
    pub base_url: Option<String>,
    /// How its format differs from the vendor's.
    pub dialect: Dialect,
    /// Headers sent with every call, beside those of the format.
    pub headers: IndexMap<HeaderName, HeaderSource>,
    /// Where its keys are, best first.
    pub keys: Vec<KeySource>,
    /// After how long the next of its keys is used first; `None` is always the best.
    pub rotate_every: Option<Duration>,
    /// What it allows.
    pub limits: Limits,
    /// What a call reserves for its answer.
    pub reserve: Reserve,
    /// How long it may stay silent.
    pub timeouts: Timeouts,
    /// When it counts as failing.
    pub breaker: BreakerSettings,
    /// How many retries it is asked for.
    pub retries: RetryBudgetSettings,
    /// Most attempts in flight to all of its models together; `None` is no bound beside each model's own.
    pub max_concurrency: Option<NonZeroU32>,
    /// Most calls that may wait for it.
    pub queue: NonZeroUsize,
    /// How long a model may say nothing before it counts as silent. No key of the file.
    pub patience: Patience,
    /// Its models, in the order of the file.
    pub models: IndexMap<ModelName, Model>,
}

impl Settings {
    /// Returns whether the simulator plays it, on this machine.
    pub fn is_practice(&self) -> bool {
        self.base_url.as_deref() == Some(SIMULATOR)
    }

    /// Returns whether no call can leave without a key: only a server of one's own may need none.
    pub fn needs_key(&self) -> bool {
        self.base_url.is_none() || !self.keys.is_empty() && !self.is_practice()
    }

    /// Returns what becomes of reasoning in its answers, unless that is the default at its address.
    pub fn unusual_reasoning_tags(&self) -> Option<&'static str> {
        let real_url = self.base_url.as_deref().filter(|url| *url != SIMULATOR);
        let tags = self.dialect.reasoning_tags;
        (tags != ReasoningTags::default_for(self.format, real_url)).then(|| tags.as_str())
    }

    /// Returns the host that its calls go to over plain `http://`, where that is another machine: what they carry
    /// can be read on the way.
    pub fn plain_remote_host(&self) -> Option<String> {
        self.remote().filter(|remote| !remote.is_https).map(|remote| remote.host)
    }

    /// Returns how many attempts may be in flight at most, to all of its models together.
    pub(super) fn max_in_flight(&self) -> usize {
        let account = self.limits.concurrency;
        let of = |model: &Model| model.limits.as_ref().map_or(account, |own| own.concurrency);
        let of_models =
            self.models.values().map(|model| of(model).max.get().max(of(model).min.get()) as usize);
        let all = of_models.fold(0, usize::saturating_add).max(1);
        self.max_concurrency.map_or(all, |bound| all.min(bound.get() as usize))
    }

    /// Returns where its calls go; `None` where that is this machine.
    pub(super) fn remote(&self) -> Option<Remote> {
        let url: Uri = match &self.base_url {
            None => return Some(Remote { host: String::new(), is_https: true }),
            Some(url) => url.parse().ok()?,
        };
        let host = url.host().filter(|host| !is_this_machine(host))?.trim_matches(['[', ']']).to_owned();
        Some(Remote { host, is_https: url.scheme_str()? == "https" })
    }

    /// Returns the settings of a simulated provider, which knows one model, `any`.
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
    /// Its name or address; empty where it is the vendor's own.
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
            reserve: Reserve::default(),
            timeouts: Timeouts::default(),
            breaker: BreakerSettings::default(),
            retries: RetryBudgetSettings::default(),
            max_concurrency: None,
            queue: const { NonZeroUsize::new(10_000).unwrap() },
            patience: Patience::default(),
            models: IndexMap::new(),
        }
    }
}

/// What a call reserves of the token limits for its answer, before anybody knows how long that will be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reserve {
    /// What nearly all answers of its step stay within; what was not used is given back.
    #[default]
    Learned,
    /// Its `max_tokens`, and nothing is given back: for providers that count so themselves.
    MaxTokens,
}

/// How long a provider may stay silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until a connection stands.
    #[serde(with = "duration")]
    pub connect: Duration,
    /// From sending the call until the first piece of the answer.
    #[serde(with = "duration")]
    pub first_token: Duration,
    /// Between two pieces of the answer.
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

/// The keys as they stand in the file: the dialect's are among the provider's own.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields, rename = "provider")]
struct Written {
    format: Format,
    #[serde(deserialize_with = "base_url")]
    base_url: Option<String>,
    api_version: Option<String>,
    structured: Structured,
    max_tokens_field: MaxTokensField,
    #[serde(deserialize_with = "some_tags")]
    reasoning_tags: Option<ReasoningTags>,
    #[serde(deserialize_with = "headers")]
    headers: IndexMap<HeaderName, HeaderSource>,
    keys: Vec<KeySource>,
    #[serde(deserialize_with = "some_duration")]
    rotate_every: Option<Duration>,
    limits: Limits,
    reserve: Reserve,
    timeouts: Timeouts,
    breaker: BreakerSettings,
    retries: RetryBudgetSettings,
    #[serde(deserialize_with = "some_count")]
    max_concurrency: Option<NonZeroU32>,
    queue: NonZeroUsize,
    models: IndexMap<ModelName, Model>,
}

impl Default for Written {
    fn default() -> Self {
        let default = Settings::default();
        let Settings { format, base_url, dialect, headers, keys, rotate_every, limits, reserve, .. } =
            default;
        let Settings { timeouts, breaker, retries, max_concurrency, queue, models, .. } = default;
        let Dialect { api_version, structured, max_tokens_field, reasoning_tags: _, left_out: _ } = dialect;
        Self {
            format,
            base_url,
            api_version,
            structured,
            max_tokens_field,
            reasoning_tags: None,
            headers,
            keys,
            rotate_every,
            limits,
            reserve,
            timeouts,
            breaker,
            retries,
            max_concurrency,
            queue,
            models,
        }
    }
}

impl From<Written> for Settings {
    fn from(written: Written) -> Self {
        let Written { format, base_url, headers, keys, rotate_every, limits, reserve, .. } = written;
        let Written { timeouts, breaker, retries, max_concurrency, queue, models, .. } = written;
        let Written { api_version, structured, max_tokens_field, reasoning_tags, .. } = written;
        let real_url = base_url.as_deref().filter(|url| *url != SIMULATOR);
        let reasoning_tags = reasoning_tags.unwrap_or_else(|| ReasoningTags::default_for(format, real_url));
        let left_out = LeftOut::default();
        let dialect = Dialect { api_version, structured, max_tokens_field, reasoning_tags, left_out };
        Self {
            format,
            base_url,
            dialect,
            headers,
            keys,
            rotate_every,
            limits,
            reserve,
            timeouts,
            breaker,
            retries,
            max_concurrency,
            queue,
            patience: Patience::default(),
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
    let written = IndexMap::<Header, HeaderSource>::deserialize(from)?;
    Ok(written.into_iter().map(|(Header(name), source)| (name, source)).collect())
}

/// The name of a header that may be set.
#[derive(PartialEq, Eq, Hash)]
struct Header(HeaderName);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        header_name(&String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text
        .parse()
        .map_err(|_| format!("`{text}` is no name of a header; use letters, digits and dashes"))?;
    match name.as_str() {
        "anthropic-version" => Err(format!("`{name}` has a setting of its own; write `api_version`")),
        "connection" | "content-encoding" | "content-length" | "content-type" | "host"
        | "transfer-encoding" => Err(format!("`{name}` belongs to the call itself; leave it out")),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_as_in_the_default() {
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
    }

    #[test]
    fn every_key_of_a_provider_arrives() {
        let settings: Settings = toml::from_str(
            r#"
            format = "gemini"
            base_url = "http://localhost:8000/v1/"
            api_version = "v1"
            structured = "prompt"
            max_tokens_field = "max_tokens"
            reasoning_tags = "strip"
            headers = { X-Team = "crew" }
            keys = ["env:A", "file:/b"]
            rotate_every = "1h"
            limits = { requests_per_minute = 1000, concurrency = 8 }
            reserve = "max_tokens"
            timeouts = { idle = "5s" }
            breaker = { pause = "1s" }
            retries = { share = 0.5 }
            max_concurrency = 24
            queue = 7
            models.b.name = "x"
            models.a.name = "y"
            "#,
        )
        .unwrap();
        assert_eq!(settings.format, Format::Gemini);
        assert_eq!(settings.base_url.as_deref(), Some("http://localhost:8000/v1"));
        assert_eq!(settings.dialect.api_version.as_deref(), Some("v1"));
        assert_eq!(settings.dialect.structured, Structured::Prompt);
        assert_eq!(settings.dialect.max_tokens_field, MaxTokensField::MaxTokens);
        assert_eq!(settings.dialect.reasoning_tags, ReasoningTags::Strip);
        assert!(settings.headers.contains_key("x-team"));
        assert_eq!(settings.keys.len(), 2);
        assert_eq!(settings.limits.requests_per_minute, NonZeroU32::new(1000));
        assert_eq!(settings.limits.concurrency.max.get(), 8);
        assert_eq!(settings.reserve, Reserve::MaxTokens);
        assert_eq!(settings.rotate_every, Some(Duration::from_secs(3600)));
        assert_eq!(settings.timeouts, Timeouts { idle: Duration::from_secs(5), ..Timeouts::default() });
        assert_eq!(settings.breaker.pause, Duration::from_secs(1));
        assert_eq!(settings.retries.share, 0.5);
        assert_eq!(settings.max_concurrency, NonZeroU32::new(24));
        assert_eq!(settings.queue.get(), 7);
        let models: Vec<_> = settings.models.keys().map(ModelName::as_str).collect();
        assert_eq!(models, ["b", "a"]);
    }

    #[test]
    fn a_header_that_belongs_to_the_call_is_refused() {
        for name in ["Content-Type", "anthropic-version", "'x y'"] {
            assert!(toml::from_str::<Settings>(&format!("headers = {{ {name} = 'x' }}")).is_err(), "{name}");
        }
    }

    #[test]
    fn only_another_machine_is_called_in_the_clear() {
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
    fn only_a_server_of_ones_own_needs_no_key() {
        let own = Settings { base_url: Some("http://localhost:1".to_owned()), ..Settings::default() };
        let keyed = Settings { keys: vec!["env:A".parse().unwrap()], ..own.clone() };
        assert!(Settings::default().needs_key() && keyed.needs_key());
        assert!(!own.needs_key() && !Settings::simulated().needs_key());
    }
}
