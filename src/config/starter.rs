//! A first configuration: the vendors whose keys are set, each with a cheap and a capable model.

use std::path::Path;

use crate::diagnostics::Diagnostics;
use crate::provider::Env;
use crate::types::Format;

use super::dot_env::DotEnv;
use super::environment::{self, Vendor};
use super::prices::PriceList;
use super::settings::Config;

/// A first configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Starter {
    /// The text of its file. It contains no key.
    pub text: String,
    /// The providers that it has.
    pub providers: Vec<&'static str>,
    /// Whether a key of one of them is set.
    pub has_key: bool,
    /// The variables that are not set and would be the keys of vendors.
    pub unset_variables: Vec<String>,
}

/// How a text for a first configuration begins.
const HEAD: &str = "\
# The configuration of Pointsman. `pointsman check` checks it, `pointsman config` shows every setting and its source,
# `pointsman models` lists what the providers offer.
#
# No key stands here: env:NAME reads the variable NAME from the environment, or from a file .env beside this file.
";

/// The names of the two models of a provider.
const ALIASES: [&str; 2] = ["small", "large"];

impl Config {
    /// Returns a first configuration for a file in `folder`, with the vendors whose keys are in `env` or in the `.env` file of
    /// the folder. If no key is set it has all vendors: each is used as soon as its key is set.
    ///
    /// # Errors
    /// If the `.env` file is faulty.
    pub fn starter(folder: &Path, env: Env<'_>) -> Result<Starter, Diagnostics> {
        let dot_env = DotEnv::read(folder)?;
        Ok(starter(&|name| dot_env.value(env, name)))
    }
}

fn starter(env: Env<'_>) -> Starter {
    let with_key: Vec<&Vendor> = environment::vendors().filter(|vendor| vendor.key(env).is_some()).collect();
    let has_key = !with_key.is_empty();
    let vendors = if has_key { with_key } else { environment::vendors().collect() };
    let unset = environment::vendors().filter(|vendor| vendor.key(env).is_none());
    let unset_variables: Vec<String> = unset.map(Vendor::key_variable).collect();
    let mut text = HEAD.to_owned();
    if has_key && !unset_variables.is_empty() {
        let unset = unset_variables.join(" or ");
        text.push_str(&format!("# For another vendor, set {unset} and write a table like these.\n"));
    }
    if !has_key {
        text.push_str(
            "# No key was set when this was written. A provider is used as soon as its variable is set.\n",
        );
    }
    for vendor in &vendors {
        text.push_str(&provider_table(vendor, env));
    }
    let targets = |alias: &str| -> String {
        let targets = vendors.iter().map(|vendor| format!("\"{}/{alias}\"", vendor.name));
        targets.collect::<Vec<_>>().join(", ")
    };
    let [small, large] = ALIASES.map(targets);
    text.push_str(&format!(
        "
# A step of a pipeline uses the route `default` unless it names another one. The first target answers; the next one takes
# over while the first cannot.
[route.default]
targets = [{small}]

[route.large]
targets = [{large}]
"
    ));
    let is_priced = vendors.iter().all(|vendor| vendor.base_url(env).is_none());
    text.push_str(
        "\n# A run pauses when it has spent this much, in US dollars, and can be resumed with another cap.\n",
    );
    // A cap needs the price of every model, which is known only at the vendor's own address.
    text.push_str(if is_priced { "[budget]\nrun = 10\n" } else { "# [budget]\n# run = 10\n" });
    Starter { text, providers: vendors.iter().map(|vendor| vendor.name).collect(), has_key, unset_variables }
}

fn provider_table(vendor: &Vendor, env: Env<'_>) -> String {
    let Vendor { name, format, starter_models, .. } = vendor;
    let key = vendor.key(env).unwrap_or_else(|| vendor.key_variable());
    let base_url = vendor.base_url(env);
    let mut text = format!("\n[provider.{name}]\nformat = \"{}\"\nkeys = [\"env:{key}\"]\n", format.as_str());
    if let Some(url) = &base_url {
        text.push_str(&format!("base_url = {}\n", toml::Value::from(url.as_str())));
    }
    text.push_str(
        "# The limits of your account, if you know them. Without them, those that the responses advertise are kept.\n\
         # limits = { requests_per_minute = 500, tokens_per_minute = 200_000 }\n",
    );
    for (alias, model) in ALIASES.into_iter().zip(starter_models) {
        let price = if base_url.is_none() { price_comment(*format, model) } else { String::new() };
        text.push_str(&format!("models.{alias} = {{ name = \"{model}\" }}{price}\n"));
    }
    text
}

/// Returns the price of a model as a comment.
fn price_comment(format: Format, model: &str) -> String {
    let price = PriceList::built_in().and_then(|list| Some((list.read, list.price(format, model)?)));
    let shown = price.map(|(day, price)| {
        let input = price.input;
        let output = price.output;
        format!("  # ${input} for a million input tokens, ${output} for output ({day}; built in)")
    });
    shown.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: Env<'_>) -> Config {
        Config::parse("pointsman.toml", text, env).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn only_the_vendors_with_a_key_are_written_and_no_key() {
        let env = |name: &str| match name {
            "OPENAI_API_KEY" | "CLAUDE_API_KEY" => Some("sk-secret-0123456789".to_owned()),
            "GEMINI_API_KEY" => Some(" ".to_owned()),
            _ => None,
        };
        let starter = starter(&env);
        assert_eq!((&starter.providers[..], starter.has_key), (&["openai", "anthropic"][..], true));
        assert_eq!(starter.unset_variables, ["GEMINI_API_KEY"]);
        assert!(
            !starter.text.contains("sk-secret") && starter.text.contains("env:CLAUDE_API_KEY"),
            "{}",
            starter.text
        );
        let config = load(&starter.text, &env);
        assert!(config.notes().is_empty(), "{:?}", config.notes());
        let usable = config.resolve(&env).unwrap();
        assert_eq!(usable.routes.len(), 2);
        assert!(
            config
                .providers
                .values()
                .flat_map(|settings| settings.models.values())
                .all(|model| model.price.is_some())
        );
    }

    #[test]
    fn without_a_key_all_vendors_are_written() {
        let none = |_: &str| None;
        let starter = starter(&none);
        assert_eq!(starter.providers, ["openai", "anthropic", "gemini"]);
        assert_eq!(starter.unset_variables, ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"]);
        let config = load(&starter.text, &none);
        assert!(config.resolve(&none).unwrap().routes.is_empty());
        let one = |name: &str| (name == "GEMINI_API_KEY").then(|| "k".to_owned());
        assert_eq!(config.resolve(&one).unwrap().routes.len(), 2, "one key is enough");
    }

    #[test]
    fn an_address_in_the_environment_is_written_and_has_no_cap() {
        let env = |name: &str| match name {
            "OPENAI_API_KEY" => Some("k".to_owned()),
            "OPENAI_BASE_URL" => Some("http://localhost:1/v1".to_owned()),
            _ => None,
        };
        let starter = starter(&env);
        let config = load(&starter.text, &env);
        assert_eq!(config.providers["openai"].base_url.as_deref(), Some("http://localhost:1/v1"));
        assert!(config.budget.run.is_none());
    }
}
