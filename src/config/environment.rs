//! Builds a configuration from the vendors' usual environment variables, such as `OPENAI_API_KEY`.
//!
//! Does not store keys: it only checks which variables are set.

use std::num::NonZeroU32;

use indexmap::IndexMap;

use crate::diagnostics::{Diagnostic, Diagnostics, hide_likely_secrets};
use crate::provider::{self, Env, KeySource, Model, parse_base_url};
use crate::types::{Advice, Format, ProviderName, Remedy};

/// Configuration found in the environment.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) providers: IndexMap<ProviderName, provider::Settings>,
    /// Notes for the user about incomplete settings.
    pub(super) notes: Vec<String>,
    pub(super) diagnostics: Diagnostics,
    /// The keys that variables set, with the names of the variables.
    pub(super) variables: Vec<(Vec<String>, String)>,
}

/// A vendor, with the variables of its settings.
#[derive(Debug)]
pub(super) struct Vendor {
    pub(super) name: &'static str,
    pub(super) format: Format,
    /// Prefixes of the variables' names. The first variable that is set is used.
    prefixes: &'static [&'static str],
    /// What the names of its models begin with.
    models: &'static [&'static str],
    /// A model for the help text. It is never a default, because models and prices change.
    example: &'static str,
    /// A cheap and a capable model, for a first configuration. The built-in list has their prices.
    pub(super) starter_models: [&'static str; 2],
}

const VENDORS: [Vendor; 3] = [
    Vendor {
        name: "openai",
        format: Format::Openai,
        prefixes: &["OPENAI"],
        models: &["gpt-", "chatgpt-", "o1", "o3", "o4", "text-embedding-"],
        example: "gpt-6-luna",
        starter_models: ["gpt-6-luna", "gpt-6.1-sol"],
    },
    Vendor {
        name: "anthropic",
        format: Format::Anthropic,
        prefixes: &["ANTHROPIC", "CLAUDE"],
        models: &["claude-"],
        example: "claude-haiku-4-5",
        starter_models: ["claude-haiku-5-5", "claude-opus-5-5"],
    },
    Vendor {
        name: "gemini",
        format: Format::Gemini,
        prefixes: &["GEMINI", "GOOGLE"],
        models: &["gemini-", "gemma-"],
        example: "gemini-3.8-flash",
        starter_models: ["gemini-3.5-flash-lite", "gemini-3.8-flash"],
    },
];

/// Reads every vendor's variables. A vendor with a key and without a model is an error if `needs_model` is set, and else
/// skipped.
pub(super) fn read(env: Env<'_>, needs_model: bool) -> Environment {
    let mut found = Environment::default();
    for vendor in &VENDORS {
        if needs_model || vendor.variable(env, "_MODEL").is_some() {
            vendor.read(env, &mut found);
        }
    }
    found
}

/// Adds the vendors that have a key or an address, and no model. For a list of their models.
pub(super) fn add_vendors_without_models(env: Env<'_>, found: &mut Environment) {
    for vendor in &VENDORS {
        let name = ProviderName::from(vendor.name);
        if found.providers.contains_key(&name) {
            continue;
        }
        match vendor.settings(env, false) {
            Ok(Some(settings)) => drop(found.providers.insert(name, settings)),
            Ok(None) => {}
            Err(diagnostic) => found.diagnostics.push(diagnostic),
        }
    }
}

/// Returns the beginnings of the variables of the vendor that has variables beginning with `prefix`.
pub(super) fn prefixes_of_vendor(prefix: &str) -> impl Iterator<Item = &'static str> {
    let vendor = VENDORS.iter().find(|vendor| vendor.prefixes.contains(&prefix));
    vendor.into_iter().flat_map(|vendor| vendor.prefixes.iter().copied())
}

/// Returns all vendors.
pub(super) fn vendors() -> impl Iterator<Item = &'static Vendor> {
    VENDORS.iter()
}

/// Returns the vendor with this name.
pub(super) fn vendor(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|vendor| vendor.name == name)
}

/// Returns the vendor of a model, by the beginning of the model's name.
pub(super) fn vendor_of_model(name: &str) -> Option<&'static Vendor> {
    VENDORS.iter().find(|vendor| vendor.models.iter().any(|prefix| name.starts_with(prefix)))
}

/// Returns the alternatives of variables to set, for the help text.
pub(super) fn variables() -> String {
    let pair = |vendor: &Vendor| format!("{0}_API_KEY and {0}_MODEL", vendor.prefixes[0]);
    let pairs: Vec<String> = VENDORS.iter().map(pair).collect();
    pairs.join(", or ")
}

/// Parses the address in a variable.
fn parse_base_url_of(variable: &str, url: &str) -> Result<String, Diagnostic> {
    parse_base_url(url)
        .map_err(|wrong| Diagnostic::new(format!("{variable}: {}", wrong.wrong)).with_help(wrong.advice))
}

impl Vendor {
    /// Returns the variable of the key, for help texts.
    pub(super) fn key_variable(&self) -> String {
        format!("{}_API_KEY", self.prefixes[0])
    }

    /// Returns the variable of the key that is set.
    pub(super) fn key(&self, env: Env<'_>) -> Option<String> {
        self.variable(env, "_API_KEY").map(|(name, _)| name)
    }

    /// Returns the address that a variable sets, if it is valid.
    pub(super) fn base_url(&self, env: Env<'_>) -> Option<String> {
        let (name, url) = self.variable(env, "_BASE_URL")?;
        parse_base_url_of(&name, &url).ok()
    }

    /// Returns the settings of the vendor without a model; `None` if neither its key nor its address is set, and one is
    /// needed, because it is not simulated.
    pub(super) fn settings(
        &self,
        env: Env<'_>,
        simulate: bool,
    ) -> Result<Option<provider::Settings>, Diagnostic> {
        let key = self.variable(env, "_API_KEY");
        let base_url = self.variable(env, "_BASE_URL");
        if key.is_none() && base_url.is_none() && !simulate {
            return Ok(None);
        }
        let base_url = base_url.map(|(name, url)| parse_base_url_of(&name, &url)).transpose()?;
        let key = key.map_or_else(|| simulate.then(|| self.key_variable()), |(name, _)| Some(name));
        Ok(Some(provider::Settings {
            format: self.format,
            base_url,
            keys: key.map(KeySource::Env).into_iter().collect(),
            ..provider::Settings::default()
        }))
    }

    fn read(&self, env: Env<'_>, found: &mut Environment) {
        let key = self.variable(env, "_API_KEY");
        let base_url = self.variable(env, "_BASE_URL");
        let model = self.variable(env, "_MODEL");
        let prefix = self.prefixes[0];
        if key.is_none() && base_url.is_none() {
            if model.is_some() {
                found.notes.push(format!("{}: skipped, {prefix}_API_KEY is not set", self.name));
            }
            return;
        }
        if model.is_none() {
            let help =
                Advice::from(format!("set the model to use, such as {prefix}_MODEL={}, ", self.example));
            let help = help.with_remedy(Remedy::WriteConfiguration).with_text(", or ");
            let help = help.with_remedy(Remedy::NameModel);
            found.diagnostics.push(Diagnostic::new(format!("{prefix}_MODEL is not set")).with_help(help));
        }
        let base_url = base_url.and_then(|(name, url)| match parse_base_url_of(&name, &url) {
            Ok(url) => Some(url),
            Err(diagnostic) => {
                found.diagnostics.push(diagnostic);
                None
            }
        });
        let max_tokens =
            self.parse(env, "_MAX_TOKENS", "a whole number above 0", &mut found.diagnostics, |text| {
                text.parse::<NonZeroU32>().ok()
            });
        let temperature =
            self.parse(env, "_TEMPERATURE", "a number from 0 to 2", &mut found.diagnostics, |text| {
                text.parse::<f64>().ok().filter(|temperature| (0.0..=2.0).contains(temperature))
            });
        let table = ["provider", self.name];
        for (suffix, keys) in [
            ("_API_KEY", &["keys"][..]),
            ("_BASE_URL", &["base_url"]),
            ("_MODEL", &["models", "default", "name"]),
            ("_MAX_TOKENS", &["models", "default", "max_tokens"]),
            ("_TEMPERATURE", &["models", "default", "temperature"]),
        ] {
            if let Some((variable, _)) = self.variable(env, suffix) {
                let path = table.iter().chain(keys).map(|key| (*key).to_owned());
                found.variables.push((path.collect(), variable));
            }
        }
        let name = model.map(|(_, name)| name).unwrap_or_default();
        let model = Model { name, max_tokens, temperature, ..Model::default() };
        let settings = provider::Settings {
            format: self.format,
            base_url,
            keys: key.map(|(name, _)| KeySource::Env(name)).into_iter().collect(),
            models: IndexMap::from([("default".into(), model)]),
            ..provider::Settings::default()
        };
        found.providers.insert(self.name.into(), settings);
    }

    /// Returns the name and value of the first variable with this suffix that is set.
    fn variable(&self, env: Env<'_>, suffix: &str) -> Option<(String, String)> {
        self.prefixes.iter().find_map(|prefix| {
            let name = format!("{prefix}{suffix}");
            let value = env(&name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        })
    }

    fn parse<T>(
        &self,
        env: Env<'_>,
        suffix: &str,
        expected: &str,
        diagnostics: &mut Diagnostics,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let (name, value) = self.variable(env, suffix)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            let found = hide_likely_secrets(&value);
            diagnostics.push(Diagnostic::new(format!("{name}: expected {expected}, found {found:?}")));
        }
        parsed
    }
}
