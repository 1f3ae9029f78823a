//! Makes a configuration out of the environment variables that people already have.
//!
//! Reads no key: it only looks which variables are set.

use std::num::NonZeroU32;

use indexmap::IndexMap;

use crate::document::{Fault, Faults};
use crate::provider::{self, Env, KeySource, Model, parse_base_url};
use crate::types::ProviderName;
use crate::wire::Format;

/// What the environment says.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) providers: IndexMap<ProviderName, provider::Settings>,
    /// What it almost says, for the user to know.
    pub(super) notes: Vec<String>,
    pub(super) faults: Faults,
}

struct Vendor {
    name: &'static str,
    format: Format,
    /// What its variables begin with; the first that is set counts.
    prefixes: &'static [&'static str],
    /// A model for the advice. Never a default: models come and go, and so do their prices.
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

/// Returns the variables of which one vendor's would be enough, for advice.
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
        let main = self.prefixes[0];
        if key.is_none() && base_url.is_none() {
            if model.is_some() {
                found.notes.push(format!("{}: skipped, {main}_API_KEY is not set", self.name));
            }
            return;
        }
        if model.is_none() {
            let advice = format!("say which model to use, such as {main}_MODEL={}", self.example);
            found.faults.push(Fault::new(format!("{main}_MODEL is not set")).advise(advice));
        }
        let base_url = base_url.and_then(|(name, url)| match parse_base_url(&url) {
            Ok(url) => Some(url),
            Err(wrong) => {
                let fault = Fault::new(format!("{name}: {}", wrong.wrong));
                found.faults.push(fault.advise(wrong.advice));
                None
            }
        });
        let max_tokens =
            self.parse(env, "_MAX_TOKENS", "a whole number above 0", &mut found.faults, |text| {
                text.parse::<NonZeroU32>().ok()
            });
        let temperature =
            self.parse(env, "_TEMPERATURE", "a number from 0 to 2", &mut found.faults, |text| {
                text.parse::<f64>().ok().filter(|temperature| (0.0..=2.0).contains(temperature))
            });
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

    /// Returns the first of this vendor's variables with this ending that is set, and its value.
    fn variable(&self, env: Env<'_>, ending: &str) -> Option<(String, String)> {
        self.prefixes.iter().find_map(|prefix| {
            let name = format!("{prefix}{ending}");
            let value = env(&name)?.trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        })
    }

    fn parse<T>(
        &self,
        env: Env<'_>,
        ending: &str,
        expected: &str,
        faults: &mut Faults,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let (name, value) = self.variable(env, ending)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            faults.push(Fault::new(format!("{name}: expected {expected}, found {value:?}")));
        }
        parsed
    }
}
