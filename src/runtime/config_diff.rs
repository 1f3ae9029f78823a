//! The difference between two configurations: what changes, and how a running Pointsman applies it.
//!
//! Shows no secret: a key is shown by its label, and the value of a header is not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::config::{Config, ServeSettings};
use crate::pipeline::Defaults;
use crate::provider::{HeaderSource, KeySource, Model, Settings};
use crate::types::{NanoUsd, ProviderName};

/// Tables that apply only at the start.
const NEED_RESTART: [&str; 3] = ["supervisor", "store", "simulator"];

/// How a change is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AppliedAs {
    /// The part continues with the new value, and with what it has learned and used.
    InPlace,
    /// The part is new and starts.
    Started,
    /// The part is removed: it takes nothing new, and what it has begun ends.
    Draining,
    /// A new part takes the place of the old one, which ends what it has begun.
    Replaced,
    /// The old value stays until the next start.
    NeedsRestart,
}

/// One changed setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SettingChange {
    /// The path in the configuration, such as `provider.openai.limits.requests_per_minute`.
    pub what: String,
    /// The value before; `None` if it was not set.
    pub before: Option<String>,
    /// The value after; `None` if it is not set any more.
    pub after: Option<String>,
    /// How it is applied.
    pub applied: AppliedAs,
}

/// The changed settings, in the order of their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigDiff {
    /// The changes.
    pub changes: Vec<SettingChange>,
}

impl fmt::Display for SettingChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, before, after, applied } = self;
        match (before, after) {
            (None, None) => write!(out, "{what} changes")?,
            (None, Some(after)) => write!(out, "{what} is added: {after}")?,
            (Some(before), None) => write!(out, "{what} is removed; it was {before}")?,
            // A value that is not shown.
            (Some(before), Some(after)) if before == after => write!(out, "{what} changes")?,
            (Some(before), Some(after)) => write!(out, "{what} changes from {before} to {after}")?,
        }
        out.write_str(match applied {
            AppliedAs::InPlace => "",
            AppliedAs::Started => " (starts)",
            AppliedAs::Draining => " (ends its calls)",
            AppliedAs::Replaced => " (replaced)",
            AppliedAs::NeedsRestart => " (needs a restart)",
        })
    }
}

impl ConfigDiff {
    /// Compares two configurations.
    pub fn between(before: &Config, after: &Config) -> Self {
        let old = entries(before);
        let new = entries(after);
        let mut changes = Vec::new();
        let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for path in paths {
            let values = (old.get(path), new.get(path));
            if values.0.map(|value| &value.real) == values.1.map(|value| &value.real) {
                continue;
            }
            if let Some(applied) = applied_as(path, before, after) {
                let shown = |value: Option<&Entry>| value.map(|value| value.shown.clone());
                let change = SettingChange {
                    what: path.clone(),
                    before: shown(values.0),
                    after: shown(values.1),
                    applied,
                };
                changes.push(change);
            }
        }
        for (name, settings) in &after.providers {
            if !before.providers.contains_key(name) {
                changes.push(of_provider(name, None, Some(settings), AppliedAs::Started));
            }
        }
        for (name, settings) in &before.providers {
            if !after.providers.contains_key(name) {
                changes.push(of_provider(name, Some(settings), None, AppliedAs::Draining));
            }
        }
        changes.sort_by(|one, other| one.what.cmp(&other.what));
        Self { changes }
    }

    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Returns each change as a sentence.
    pub fn sentences(&self) -> Vec<String> {
        self.changes.iter().map(ToString::to_string).collect()
    }
}

/// A value of a setting.
#[derive(Debug, Clone)]
struct Entry {
    shown: String,
    /// What is compared. It may contain secrets.
    real: String,
}

type Entries = BTreeMap<String, Entry>;

/// Returns how a change of a path is applied; `None` if another change includes it.
fn applied_as(path: &str, before: &Config, after: &Config) -> Option<AppliedAs> {
    let mut parts = path.split('.');
    let table = parts.next().unwrap_or_default();
    if NEED_RESTART.contains(&table) {
        return Some(AppliedAs::NeedsRestart);
    }
    if table == "serve" {
        let key = parts.next().unwrap_or_default();
        let is_start_key = ServeSettings::START_KEYS.contains(&key);
        return Some(if is_start_key { AppliedAs::NeedsRestart } else { AppliedAs::InPlace });
    }
    if table != "provider" {
        return Some(AppliedAs::InPlace);
    }
    let of_path = |config: &Config| {
        let providers = config.providers.iter();
        let mut of_path = providers.filter(|(name, _)| path.starts_with(&format!("provider.{name}.")));
        // The name of a provider may have dots.
        let longest = of_path.by_ref().max_by_key(|(name, _)| name.as_str().len());
        longest.map(|(_, settings)| settings.clone())
    };
    let old = of_path(before)?;
    let new = of_path(after)?;
    let is_same =
        old.format == new.format && old.base_url == new.base_url && before.simulate == after.simulate;
    Some(if is_same { AppliedAs::InPlace } else { AppliedAs::Replaced })
}

/// Returns the change of a whole provider.
pub(super) fn of_provider(
    name: &ProviderName,
    before: Option<&Settings>,
    after: Option<&Settings>,
    applied: AppliedAs,
) -> SettingChange {
    let models = |settings: &Settings| {
        let models: Vec<&str> = settings.models.keys().map(|model| model.as_str()).collect();
        format!("{}, models {}", settings.format.as_str(), models.join(", "))
    };
    SettingChange {
        what: format!("provider.{name}"),
        before: before.map(models),
        after: after.map(models),
        applied,
    }
}

/// Returns all settings of a configuration by their paths.
fn entries(config: &Config) -> Entries {
    let mut out = Entries::new();
    for (name, settings) in &config.providers {
        add_provider(&format!("provider.{name}"), settings, &mut out);
    }
    for (name, route) in &config.routes {
        let path = format!("route.{name}");
        let targets: Vec<String> = route
            .targets
            .iter()
            .map(|target| match target.weight.get() {
                1 => target.name.to_string(),
                weight => format!("{} (weight {weight})", target.name),
            })
            .collect();
        add(&format!("{path}.targets"), targets.join(", "), &mut out);
        add_serialized(&format!("{path}.policy"), &route.policy, &mut out);
        add_serialized(&format!("{path}.hedge_after"), &route.hedge_after, &mut out);
        add_serialized(&format!("{path}.failover_refusals"), &route.failover_refusals, &mut out);
    }
    add_serialized("retry", &config.retry, &mut out);
    add_defaults(&config.defaults, &mut out);
    #[cfg(feature = "simulator")]
    add_serialized("simulator", &config.simulator, &mut out);
    add_serialized("run", &config.run, &mut out);
    add_serialized("files", &config.files, &mut out);
    add_serialized("store", &config.store, &mut out);
    add_serialized("supervisor", &config.supervisor, &mut out);
    add_serialized("serve", &config.serve, &mut out);
    for (name, settings) in &config.scopes {
        add_serialized(&format!("scope.{name}"), settings, &mut out);
    }
    let budget = &config.budget;
    let mut cap = |path: String, cap: NanoUsd| add(&path, cap.to_string(), &mut out);
    budget.run.into_iter().for_each(|run| cap("budget.run".to_owned(), run));
    budget.day.into_iter().for_each(|day| cap("budget.day".to_owned(), day));
    budget.provider.iter().for_each(|(name, of)| cap(format!("budget.provider.{name}"), *of));
    budget.scope.iter().for_each(|(name, of)| cap(format!("budget.scope.{name}"), *of));
    out
}

fn add_provider(path: &str, settings: &Settings, out: &mut Entries) {
    let Settings {
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
        unresponsive_after: _,
        models,
        traceparent,
    } = settings;
    let at = |key: &str| format!("{path}.{key}");
    add(&at("format"), format.as_str().to_owned(), out);
    if let Some(base_url) = base_url {
        add(&at("base_url"), base_url.clone(), out);
    }
    add_serialized(path, dialect, out);
    for (name, source) in headers {
        let (shown, real) = match source {
            // A value may be a secret that does not look like one.
            HeaderSource::Value(value) => ("(not shown)".to_owned(), format!("{:?}", value.as_bytes())),
            HeaderSource::Read(source) => (source.label().to_string(), real_source(source)),
        };
        out.insert(at(&format!("headers.{name}")), Entry { shown, real });
    }
    let labels: Vec<String> = keys.iter().map(|source| source.label().to_string()).collect();
    let real: Vec<String> = keys.iter().map(real_source).collect();
    out.insert(at("keys"), Entry { shown: labels.join(", "), real: real.join("\n") });
    add_debug(&at("rotate_every"), rotate_every.as_ref(), out);
    add_serialized(&at("limits"), limits, out);
    add_serialized(&at("output_reservation"), output_reservation, out);
    add_serialized(&at("timeouts"), timeouts, out);
    add_serialized(&at("breaker"), breaker, out);
    add_serialized(&at("retry_budget"), retry_budget, out);
    add_serialized(&at("max_concurrency"), max_concurrency, out);
    add_serialized(&at("embedding_inputs"), embedding_inputs, out);
    add_serialized(&at("queue"), queue, out);
    add_serialized(&at("traceparent"), traceparent, out);
    for (name, model) in models {
        add_model(&at(&format!("models.{name}")), model, out);
    }
}

fn add_model(path: &str, model: &Model, out: &mut Entries) {
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
    let at = |key: &str| format!("{path}.{key}");
    add(&at("name"), name.clone(), out);
    add_serialized(&at("context"), context, out);
    add_serialized(&at("price"), price, out);
    add_serialized(&at("limits"), limits, out);
    add_serialized(&at("max_tokens"), max_tokens, out);
    add_serialized(&at("temperature"), temperature, out);
    add_serialized(&at("min_cache_tokens"), min_cache_tokens, out);
    if let Some(extra) = extra {
        // The values may be secrets.
        let names: Vec<&str> = extra.keys().map(String::as_str).collect();
        let real = serde_json::to_string(&**extra).unwrap_or_default();
        out.insert(at("extra"), Entry { shown: names.join(", "), real });
    }
}

/// Adds the defaults of steps. The text of a prompt is not shown.
fn add_defaults(defaults: &Defaults, out: &mut Entries) {
    if let Some(route) = &defaults.route {
        add("defaults.route", route.to_string(), out);
    }
    let without_route = Defaults { route: None, ..defaults.clone() };
    let real = format!("{without_route:?}");
    out.insert("defaults".to_owned(), Entry { shown: "(not shown)".to_owned(), real });
}

/// Returns a source as it is compared. It may contain a secret.
fn real_source(source: &KeySource) -> String {
    match source {
        KeySource::Env(name) => format!("env:{name}"),
        KeySource::File(path) => format!("file:{}", path.display()),
        KeySource::Command(line) => format!("command:{line}"),
    }
}

fn add(path: &str, value: String, out: &mut Entries) {
    out.insert(path.to_owned(), Entry { shown: value.clone(), real: value });
}

fn add_debug<T: fmt::Debug>(path: &str, value: Option<&T>, out: &mut Entries) {
    if let Some(value) = value {
        add(path, format!("{value:?}"), out);
    }
}

/// Adds a value with a path for each of its fields.
fn add_serialized(path: &str, value: &impl Serialize, out: &mut Entries) {
    // Settings have only names as keys, so this does not fail.
    let value = serde_json::to_value(value).unwrap_or_default();
    add_value(path, &value, out);
}

fn add_value(path: &str, value: &Value, out: &mut Entries) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| add_value(&format!("{path}.{name}"), value, out));
        }
        Value::String(text) => add(path, text.clone(), out),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => add(path, value.to_string(), out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_toml(text).unwrap()
    }

    const BASE: &str = "[provider.a]\nbase_url = 'http://127.0.0.1:9/v1'\nkeys = ['env:OLD_KEY']\n\
                        models.m = {}\n";

    fn changes(before: &str, after: &str) -> Vec<(String, AppliedAs)> {
        let diff = ConfigDiff::between(&config(before), &config(after));
        diff.changes.into_iter().map(|change| (change.what, change.applied)).collect()
    }

    #[test]
    fn an_unchanged_configuration_has_no_changes() {
        assert_eq!(changes(BASE, BASE), []);
        assert!(ConfigDiff::between(&config(BASE), &config(BASE)).is_empty());
    }

    #[test]
    fn each_changed_setting_has_its_path_and_how_it_is_applied() {
        let limited = format!("{BASE}limits = {{ requests_per_minute = 60 }}\n");
        let path = "provider.a.limits.requests_per_minute".to_owned();
        assert_eq!(changes(BASE, &limited), [(path, AppliedAs::InPlace)]);
        let moved = BASE.replace(":9/", ":10/");
        assert_eq!(changes(BASE, &moved), [("provider.a.base_url".to_owned(), AppliedAs::Replaced)]);
        let more = format!("{BASE}[provider.b]\nbase_url = 'http://127.0.0.1:9/v1'\nmodels.m = {{}}\n");
        let added = changes(BASE, &more);
        assert!(added.contains(&("provider.b".to_owned(), AppliedAs::Started)), "{added:?}");
        assert!(!added.iter().any(|(what, _)| what.starts_with("provider.b.")), "{added:?}");
        let removed = changes(&more, BASE);
        assert!(removed.contains(&("provider.b".to_owned(), AppliedAs::Draining)), "{removed:?}");
        let supervised = format!("{BASE}[supervisor]\nbackoff = '2s'\n");
        assert_eq!(changes(BASE, &supervised), [("supervisor.backoff".to_owned(), AppliedAs::NeedsRestart)]);
    }

    #[test]
    fn the_values_of_keys_headers_and_extra_fields_are_not_shown() {
        let before = format!("{BASE}headers = {{ x-team = 'crew-one' }}\n");
        let after = BASE.replace("env:OLD_KEY", "command:printf crew-three")
            + "headers = { x-team = 'crew-two' }\nmodels.n = { extra = { note = 'crew-four' } }\n";
        let diff = ConfigDiff::between(&config(&before), &config(&after));
        let text = format!("{diff:?} {} {:?}", serde_json::to_string(&diff).unwrap(), diff.sentences());
        for secret in ["crew-one", "crew-two", "crew-three", "crew-four"] {
            assert!(!text.contains(secret), "{text}");
        }
        let keys = diff.changes.iter().find(|change| change.what == "provider.a.keys").unwrap();
        assert_eq!(keys.to_string(), "provider.a.keys changes from env:OLD_KEY to command:printf");
        assert!(diff.changes.iter().any(|change| change.what == "provider.a.headers.x-team"));
    }
}
