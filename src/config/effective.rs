//! The configuration in use as a list of keys, with the source of each value. Secrets are masked.
//!
//! A configuration has no keys of providers, only their sources. What else may be secret is masked here: the values of
//! headers, what looks like a key, and passwords in addresses.

use http::HeaderName;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::diagnostics::{REDACTED, hide_likely_secrets, key_path};
use crate::pipeline::Defaults;
use crate::provider::{self, HeaderSource, Model, is_secret_header};
use crate::types::{NanoUsd, duration};

use super::BudgetSettings;
use super::settings::Config;
use super::written_keys::KeyOrigin;

/// A value of a configuration, and what set it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct EffectiveValue {
    /// The key, such as `provider.openai.limits.requests_per_minute`.
    pub key: String,
    /// The value, as it would be written. Secrets are `***`.
    pub value: Value,
    /// What set it.
    pub source: ValueSource,
}

/// What set a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(tag = "from", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ValueSource {
    /// It is a default.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A line of the `.env` file that stands for an environment variable.
    DotEnv {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The name of the variable.
        variable: String,
    },
    /// An option of the command line.
    CommandLine,
    /// The list of prices that is built in.
    PriceList,
    /// The program that built the configuration.
    Program,
}

impl Config {
    /// Returns all values that are set or have a default, with their sources. No value is secret.
    pub fn effective(&self) -> Vec<EffectiveValue> {
        let values = self.effective_paths().into_iter();
        values.map(|(path, value, source)| EffectiveValue { key: key_path(&path), value, source }).collect()
    }

    /// Returns the paths of all values that are set or have a default, with the values and their sources.
    pub(super) fn effective_paths(&self) -> Vec<(Vec<String>, Value, ValueSource)> {
        let mut values = Vec::new();
        self.flatten(&mut Vec::new(), self.tree(), &mut values);
        values
    }

    /// Returns the settings as one object, with the keys of the file.
    fn tree(&self) -> Value {
        let Self {
            providers,
            routes,
            retry,
            defaults,
            #[cfg(feature = "simulator")]
            simulator,
            run,
            files,
            store,
            budget,
            scopes,
            supervisor,
            serve,
            simulate: _,
            notes: _,
            file: _,
            file_content: _,
            dot_env: _,
            key_positions: _,
            written_keys: _,
        } = self;
        let providers: Map<String, Value> =
            providers.iter().map(|(name, settings)| (name.to_string(), of_provider(settings))).collect();
        let mut tree = json!({
            "provider": providers,
            "route": of(routes),
            "retry": of(retry),
            "defaults": of_defaults(defaults),
            "run": of(run),
            "files": of(files),
            "store": of(store),
            "budget": of_budget(budget),
            "scope": of(scopes),
            "supervisor": of(supervisor),
            "serve": of(serve),
        });
        #[cfg(feature = "simulator")]
        {
            tree["simulator"] = of(simulator);
            // They stand for keys of accounts.
            tree["simulator"]["keys"] = simulator.keys.iter().map(|_| REDACTED).collect();
        }
        hide_secrets(&mut tree);
        tree
    }

    fn flatten(
        &self,
        path: &mut Vec<String>,
        value: Value,
        values: &mut Vec<(Vec<String>, Value, ValueSource)>,
    ) {
        match value {
            // Not set.
            Value::Null => {}
            Value::Object(fields) => {
                for (name, value) in fields {
                    path.push(name);
                    self.flatten(path, value, values);
                    path.pop();
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                values.push((path.clone(), value, self.source(path)));
            }
        }
    }

    fn source(&self, path: &[String]) -> ValueSource {
        if self.is_builtin_price(path) {
            return ValueSource::PriceList;
        }
        match self.written_keys.origin(path) {
            Some(KeyOrigin::Line(line)) => {
                let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
                ValueSource::File { file, line }
            }
            Some(KeyOrigin::Variable(variable)) => match self.dot_env.position(variable) {
                Some((file, line)) => {
                    let file = file.display().to_string();
                    ValueSource::DotEnv { file, line, variable: variable.to_owned() }
                }
                None => ValueSource::Environment { variable: variable.to_owned() },
            },
            Some(KeyOrigin::CommandLine) => ValueSource::CommandLine,
            Some(KeyOrigin::Program) => ValueSource::Program,
            None => ValueSource::Default,
        }
    }

    fn is_builtin_price(&self, path: &[String]) -> bool {
        let [first, provider, models, model, price, ..] = path else { return false };
        let is_price = first == "provider" && models == "models" && price == "price";
        let model = || self.providers.get(provider.as_str())?.models.get(model.as_str());
        is_price && model().is_some_and(|model| model.has_builtin_price)
    }
}

/// Returns settings as they are written. A path that is not Unicode cannot be written: its table is left out.
fn of(settings: &impl Serialize) -> Value {
    serde_json::to_value(settings).unwrap_or_default()
}

fn of_provider(settings: &provider::Settings) -> Value {
    let provider::Settings {
        format,
        base_url,
        dialect,
        headers,
        keys,
        rotate_every,
        limits,
        output_reservation,
        timeouts,
        breaker,
        retry_budget,
        max_concurrency,
        embedding_inputs,
        queue,
        traceparent,
        unresponsive_after: _,
        models,
    } = settings;
    let headers: Map<String, Value> =
        headers.iter().map(|(name, source)| (name.to_string(), of_header(source).into())).collect();
    let keys: Vec<String> = keys.iter().map(|source| source.label().to_string()).collect();
    let models: Map<String, Value> =
        models.iter().map(|(name, model)| (name.to_string(), of_model(model))).collect();
    json!({
        "format": format,
        "base_url": base_url,
        "api_version": dialect.api_version,
        "structured_output": dialect.structured_output,
        "max_tokens_field": dialect.max_tokens_field,
        "reasoning_tags": dialect.reasoning_tags,
        "drop_parameters": dialect.drop_parameters,
        "stream": dialect.stream,
        "headers": headers,
        "keys": keys,
        "rotate_every": rotate_every.as_ref().map(duration::format),
        "limits": limits,
        "output_reservation": output_reservation,
        "timeouts": timeouts,
        "breaker": breaker,
        "retry_budget": retry_budget,
        "max_concurrency": max_concurrency,
        "embedding_inputs": embedding_inputs,
        "queue": queue,
        "traceparent": traceparent,
        "models": models,
    })
}

/// Returns the source of a header. A literal value is not shown: no rule tells whether it is secret.
fn of_header(source: &HeaderSource) -> String {
    match source {
        HeaderSource::Value(_) => REDACTED.to_owned(),
        HeaderSource::Read(source) => source.label().to_string(),
    }
}

fn of_model(model: &Model) -> Value {
    let Model {
        name,
        context,
        price,
        limits,
        max_tokens,
        temperature,
        extra,
        min_cache_tokens,
        has_builtin_price: _,
    } = model;
    let mut extra = json!(extra.as_deref());
    hide_secret_fields(&mut extra);
    json!({
        "name": name,
        "context": context,
        "price": price,
        "limits": limits,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "extra": extra,
        "min_cache_tokens": min_cache_tokens,
    })
}

fn of_defaults(defaults: &Defaults) -> Value {
    let Defaults {
        route,
        max_tokens,
        temperature,
        top_p,
        stop,
        seed,
        reasoning_effort,
        keep_reasoning,
        prompt_cache,
        max_prompt_bytes: _,
        system,
        max_validation_retries,
        deadline,
    } = defaults;
    json!({
        "route": route,
        "max_tokens": max_tokens,
        "temperature": temperature.map(|temperature| temperature.get()),
        "top_p": top_p.map(|top_p| top_p.get()),
        "stop": stop.as_ref().map(|stop| stop.0.iter().map(|text| &**text).collect::<Vec<&str>>()),
        "seed": seed,
        "reasoning_effort": reasoning_effort,
        "keep_reasoning": keep_reasoning.unwrap_or(false),
        "prompt_cache": prompt_cache.unwrap_or_default(),
        "max_prompt_bytes": defaults.max_prompt_bytes(),
        "system": system,
        "max_validation_retries": max_validation_retries.unwrap_or(Defaults::MAX_VALIDATION_RETRIES),
        "deadline": duration::format(&deadline.unwrap_or(Defaults::DEADLINE)),
    })
}

fn of_budget(budget: &BudgetSettings) -> Value {
    let BudgetSettings { run, day, provider, scope } = budget;
    let dollars = |cap: &NanoUsd| cap.dollars();
    let provider: Map<String, Value> =
        provider.iter().map(|(name, cap)| (name.to_string(), dollars(cap).into())).collect();
    let scope: Map<String, Value> =
        scope.iter().map(|(name, cap)| (name.as_str().to_owned(), dollars(cap).into())).collect();
    json!({
        "run": run.as_ref().map(dollars),
        "day": day.as_ref().map(dollars),
        "provider": provider,
        "scope": scope,
    })
}

/// Masks what looks like a key, and passwords in addresses, in all texts.
fn hide_secrets(value: &mut Value) {
    match value {
        Value::String(text) => {
            let hidden = hide_likely_secrets(text).into_owned();
            *text = hidden;
        }
        Value::Array(all) => all.iter_mut().for_each(hide_secrets),
        Value::Object(fields) => fields.values_mut().for_each(hide_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Masks the fields whose names show that they are secret, in fields of a vendor.
fn hide_secret_fields(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(hide_secret_fields),
        Value::Object(fields) => {
            for (name, value) in fields {
                let header = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes());
                if header.is_ok_and(|name| is_secret_header(&name)) {
                    *value = REDACTED.into();
                } else {
                    hide_secret_fields(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'v>(values: &'v [EffectiveValue], key: &str) -> &'v EffectiveValue {
        values.iter().find(|value| value.key == key).unwrap_or_else(|| panic!("no {key} in {values:#?}"))
    }

    #[test]
    fn every_value_has_its_source() {
        let text = "
[provider.openai]
keys = ['env:KEY']
limits.concurrency = 4
models.small = { name = 'gpt-6-luna' }
[retry]
max_backoff = '30s'
[budget]
day = 5
";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        let values = Config::load_with(Some(&path), &|_| None).unwrap().effective();
        let file = path.display().to_string();
        let at = |line| ValueSource::File { file: file.clone(), line };
        for (key, expected, source) in [
            ("provider.openai.keys", json!(["env:KEY"]), at(3)),
            ("provider.openai.models.small.name", json!("gpt-6-luna"), at(5)),
            ("provider.openai.format", json!("openai"), ValueSource::Default),
            ("retry.max_backoff", json!("30s"), at(7)),
            ("retry.max_rounds", json!(3), ValueSource::Default),
            ("budget.day", json!(5.0), at(9)),
            ("defaults.deadline", json!("10m"), ValueSource::Default),
            ("serve.listen", json!("127.0.0.1:7700"), ValueSource::Default),
        ] {
            let found = value(&values, key);
            assert_eq!((&found.value, &found.source), (&expected, &source), "{key}");
        }
        let concurrency =
            values.iter().filter(|value| value.key.starts_with("provider.openai.limits.concurrency"));
        let sources: Vec<_> = concurrency.map(|value| &value.source).collect();
        assert!(!sources.is_empty() && sources.iter().all(|source| **source == at(4)), "{sources:?}");
        assert_eq!(value(&values, "provider.openai.models.small.price.input").source, ValueSource::PriceList);
    }

    #[test]
    fn a_value_from_the_environment_names_its_variable() {
        let env = |name: &str| match name {
            "OPENAI_API_KEY" => Some("sk-secret-0123456789".to_owned()),
            "OPENAI_MODEL" => Some("gpt-6-luna".to_owned()),
            _ => None,
        };
        let values = Config::from_env_with(&env).unwrap().effective();
        let variable = |name: &str| ValueSource::Environment { variable: name.to_owned() };
        assert_eq!(value(&values, "provider.openai.keys").source, variable("OPENAI_API_KEY"));
        assert_eq!(value(&values, "provider.openai.models.default.name").source, variable("OPENAI_MODEL"));
        assert!(!serde_json::to_string(&values).unwrap().contains("sk-secret"));
    }

    #[test]
    fn a_value_from_the_command_line_says_so_and_not_the_line_that_it_replaces() {
        let text = "[provider.p]\nbase_url = 'http://127.0.0.1:1/v1'\nmodels.m = {}\n[serve]\nlisten = '127.0.0.1:80'\n";
        let mut config = Config::parse("c.toml", text, &|_| None).unwrap();
        config.set_listen("127.0.0.1:81".parse().unwrap());
        let values = config.effective();
        let found = value(&values, "serve.listen");
        assert_eq!((&found.value, &found.source), (&json!("127.0.0.1:81"), &ValueSource::CommandLine));
        assert_eq!(serde_json::to_value(&found.source).unwrap(), json!({ "from": "command_line" }));
    }

    #[test]
    fn a_configuration_in_code_says_so() {
        let config =
            Config::builder().with("retry.max_backoff", "30s").with("provider.p.base_url", "http://h/v1");
        let values =
            config.with("provider.p.models.m.context", 1000).build_with(&|_| None).unwrap().effective();
        assert_eq!(value(&values, "retry.max_backoff").source, ValueSource::Program);
    }

    #[test]
    fn no_secret_is_shown() {
        let text = "
[provider.p]
base_url = 'http://127.0.0.1:1/v1'
keys = ['command: vault read -token=hvs.CAESIJ0123456789 key']
headers.x-team = 'hunter2'
headers.x-org = 'env:ORG'
models.m.extra = { auth_token = 'hunter2', nested = { api_key = 'hunter2' }, tier = 'flex' }
[defaults]
system = 'The key is sk-live-0123456789abcdef.'
";
        let values = Config::parse("c.toml", text, &|_| None).unwrap().effective();
        let shown = serde_json::to_string(&values).unwrap();
        for secret in ["hunter2", "hvs.", "0123456789abcdef"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(value(&values, "provider.p.keys").value, json!(["command:vault"]));
        assert_eq!(value(&values, "provider.p.headers.x-org").value, json!("env:ORG"));
        assert_eq!(value(&values, "provider.p.models.m.extra.tier").value, json!("flex"));
    }
}
