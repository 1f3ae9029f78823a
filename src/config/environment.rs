//! Builds a configuration from the vendors' usual environment variables, such as `OPENAI_API_KEY`.
//!
//! Does not store keys: it only checks which variables are set.

use std::num::NonZeroU32;

use indexmap::IndexMap;

use crate::diagnostics::{Diagnostic, Diagnostics, hide_likely_secrets};
use crate::provider::{self, Env, KeySource, Model, parse_base_url};
use crate::types::{Format, ProviderName};

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

struct Vendor {
    name: &'static str,
    format: Format,
    /// Prefixes of the variables' names. The first variable that is set is used.
    prefixes: &'static [&'static str],
    /// A model for the help text. It is never a default, because models and prices change.
    example: &'static str,
}

const VENDORS: [Vendor; 3] = [
    Vendor { name: "openai", format: Format::Openai, prefixes: &["OPENAI"], example: "gpt-6-luna" },
    Vendor {
        name: "anthropic",
        format: Format::Anthropic,
        prefixes: &["ANTHROPIC", "CLAUDE"],
        example: "claude-haiku-4-5",
    },
    Vendor {
        name: "gemini",
        format: Format::Gemini,
        prefixes: &["GEMINI", "GOOGLE"],
        example: "gemini-3.8-flash",
    },
];

/// Reads every vendor's variables.
pub(super) fn read(env: Env<'_>) -> Environment {
    let mut found = Environment::default();
    for vendor in &VENDORS {
        vendor.read(env, &mut found);
    }
    found
}

/// Returns the alternatives of variables to set, for the help text.
pub(super) fn variables() -> String {
    let pair = |vendor: &Vendor| format!("{0}_API_KEY and {0}_MODEL", vendor.prefixes[0]);
    let pairs: Vec<String> = VENDORS.iter().map(pair).collect();
    pairs.join(", or ")
}

impl Vendor {
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
            let help = format!("set the model to use, such as {prefix}_MODEL={}", self.example);
            found.diagnostics.push(Diagnostic::new(format!("{prefix}_MODEL is not set")).with_help(help));
        }
        let base_url = base_url.and_then(|(name, url)| match parse_base_url(&url) {
            Ok(url) => Some(url),
            Err(wrong) => {
                let diagnostic = Diagnostic::new(format!("{name}: {}", wrong.wrong));
                found.diagnostics.push(diagnostic.with_help(wrong.advice));
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
