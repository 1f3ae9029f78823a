//! Builds a configuration in code.
//!
//! A builder writes a TOML document, which is read and checked as a file is. A configuration in code therefore has the
//! keys, the defaults and the checks of a file. Its errors name keys instead of lines.

mod table;
mod toml_value;

use serde::Serialize;

use crate::diagnostics::Diagnostics;
use crate::guard::ScopeSettings;
use crate::provider::{Env, process_env};

use super::Config;
use table::KeyTable;

/// Builds a [`Config`] in code, with the keys and the checks of `config.toml`.
///
/// ```
/// use pointsman::{Config, ModelBuilder, ProviderBuilder};
///
/// let config = Config::builder()
///     .with_provider(
///         "openai",
///         ProviderBuilder::openai()
///             .with_key("env:OPENAI_API_KEY")
///             .with("limits.requests_per_minute", 500)
///             .with_model("gpt-4.1-mini", ModelBuilder::new().with_price(0.4, 1.6)),
///     )
///     .with_route("default", ["openai/gpt-4.1-mini"])
///     .with("run.max_in_flight_items", 100)
///     .with("retry.max_backoff", "30s")
///     .build()?;
/// assert_eq!(config.targets().count(), 1);
///
/// // An error names its key.
/// let error = Config::builder().with("retry.max_rounds", "three").build().unwrap_err();
/// assert!(error.to_string().contains("retry.max_rounds: expected a whole number"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Values are written as in the file: durations are text such as `"30s"`, sizes are text such as `"1GiB"`. Setting a
/// key again replaces its value. All errors are reported by [`build`](Self::build).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ConfigBuilder {
    table: KeyTable,
}

impl Config {
    /// Starts a configuration in code.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }
}

impl ConfigBuilder {
    /// Sets a key of the file, in TOML syntax: `"run.max_hold"`, or `r#"provider.local.models."llama3.2".context"#`.
    ///
    /// A value that TOML cannot represent is an error: null, NaN, and integers above 64 bits.
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        self.table.set(key, &value);
        self
    }

    /// Sets the provider `name`. Replaces what was set for it before.
    ///
    /// Without a provider, those of the environment variables are used, as with a file.
    pub fn with_provider(mut self, name: impl Into<String>, provider: ProviderBuilder) -> Self {
        self.table.insert_table(&["provider".to_owned(), name.into()], provider.table);
        self
    }

    /// Sets the targets of the route `name`, each written `provider/model`, in order of preference.
    pub fn with_route(
        mut self,
        name: impl Into<String>,
        targets: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let targets = targets.into_iter().map(|target| toml::Value::String(target.into())).collect();
        let path = ["route".to_owned(), name.into(), "targets".to_owned()];
        self.table.insert(&path, toml::Value::Array(targets));
        self
    }

    /// Sets the limits of the scope `name`, whose requests are made with
    /// `Request::with_scope`. Replaces what was set for it before.
    pub fn with_scope(mut self, name: impl Into<String>, limits: ScopeSettings) -> Self {
        self.table.set_value(&["scope".to_owned(), name.into()], &limits);
        self
    }

    /// Checks all settings and returns the configuration.
    ///
    /// # Errors
    /// All errors of the configuration, with their keys.
    pub fn build(self) -> Result<Config, Diagnostics> {
        self.build_with(&process_env)
    }

    /// Like [`build`](Self::build), with the environment variables of `env`.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    #[doc(hidden)]
    pub fn build_with(self, env: Env<'_>) -> Result<Config, Diagnostics> {
        let (text, mut diagnostics) = self.table.write();
        diagnostics.hide_likely_secrets();
        match Config::parse_generated(&text, env) {
            Ok(config) => diagnostics.into_result(config),
            Err(more) => {
                diagnostics.extend(more);
                Err(diagnostics)
            }
        }
    }
}

/// Builds a provider of a configuration: one account at a vendor, or a server of your own.
///
/// ```
/// use pointsman::{ModelBuilder, ProviderBuilder};
///
/// let local = ProviderBuilder::openai()
///     .with_base_url("http://localhost:11434/v1")
///     .with("limits.concurrency", 4)
///     .with("timeouts.first_token", "5m")
///     .with_model("llama3.2", ModelBuilder::new());
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ProviderBuilder {
    table: KeyTable,
}

impl ProviderBuilder {
    /// Starts a provider with the API format of OpenAI, which many other servers have too.
    pub fn openai() -> Self {
        Self::with_text("format", "openai")
    }

    /// Starts a provider with OpenAI's responses API.
    pub fn openai_responses() -> Self {
        Self::with_text("format", "openai_responses")
    }

    /// Starts a provider with the API format of Anthropic.
    pub fn anthropic() -> Self {
        Self::with_text("format", "anthropic")
    }

    /// Starts a provider with the API format of Gemini.
    pub fn gemini() -> Self {
        Self::with_text("format", "gemini")
    }

    /// Starts a simulated provider. Without a model it has the model `any`.
    pub fn simulated() -> Self {
        Self::with_text("base_url", "simulator")
    }

    fn with_text(key: &str, value: &str) -> Self {
        let mut table = KeyTable::default();
        table.insert(&[key.to_owned()], toml::Value::String(value.to_owned()));
        Self { table }
    }

    /// Adds the source of a key, preferred after those that were added before: `env:NAME`, `file:PATH` or
    /// `command:...`. The key itself is refused.
    pub fn with_key(mut self, source: impl Into<String>) -> Self {
        self.table.push("keys", toml::Value::String(source.into()));
        self
    }

    /// Sets the URL of the server, if it is not the vendor's.
    pub fn with_base_url(mut self, url: impl Into<String>) -> Self {
        self.table.insert(&["base_url".to_owned()], toml::Value::String(url.into()));
        self
    }

    /// Sets a key of `[provider.NAME]`, such as `"limits.requests_per_minute"`. See [`ConfigBuilder::with`].
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        self.table.set(key, &value);
        self
    }

    /// Sets the model `name`. Its targets are written `provider/name`. Replaces what was set for it before.
    pub fn with_model(mut self, name: impl Into<String>, model: ModelBuilder) -> Self {
        self.table.insert_table(&["models".to_owned(), name.into()], model.table);
        self
    }
}

/// Builds a model of a provider.
///
/// ```
/// use pointsman::ModelBuilder;
///
/// let model = ModelBuilder::new()
///     .with_name("gpt-4.1-mini-2025-04-14")
///     .with_price(0.4, 1.6)
///     .with("max_tokens", 1_000);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ModelBuilder {
    table: KeyTable,
}

impl ModelBuilder {
    /// Starts a model without settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name in requests. Without it, the name of the model in the configuration is sent.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.table.insert(&["name".to_owned()], toml::Value::String(name.into()));
        self
    }

    /// Sets the price in US dollars per million tokens. [`with`](Self::with) sets the other keys of a price, such as
    /// `"price.cached"`.
    pub fn with_price(self, input: f64, output: f64) -> Self {
        self.with("price.input", input).with("price.output", output)
    }

    /// Sets a key of `[provider.NAME.models.MODEL]`, such as `"context"`. See [`ConfigBuilder::with`].
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        self.table.set(key, &value);
        self
    }
}
