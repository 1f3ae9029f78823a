//! The only model of a configuration, as a command line names it: `provider/model`, or the name of the model alone.
//!
//! A model that is not configured is added to its provider. A provider that is not configured is that of the vendor, if
//! its key is in the environment.

use crate::diagnostics::{Diagnostic, nearest};
use crate::provider::{Env, Model};
use crate::router::Route;
use crate::types::{Format, ModelName, ProviderName, RouteName, TargetName};

use super::environment::{self, Vendor};
use super::prices::PriceList;
use super::settings::Config;

/// What a caller wants instead of the routes of a configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct OnlyModel<'a> {
    /// `provider/model`, or the name of a model.
    pub(super) name: &'a str,
    /// Whether all targets will be simulated, so that no key is needed.
    pub(super) simulate: bool,
}

impl Config {
    /// Makes a route to one model, and makes it that of every step without a route. Returns its name.
    pub(super) fn use_only(&mut self, only: OnlyModel<'_>, env: Env<'_>) -> Result<RouteName, Diagnostic> {
        let target = self.find_target(only, env)?;
        let name = RouteName::from(target.to_string().as_str());
        self.routes.insert(name.clone(), Route { targets: vec![target.into()], ..Route::default() });
        self.defaults.route = Some(name.clone());
        Ok(name)
    }

    fn find_target(&mut self, only: OnlyModel<'_>, env: Env<'_>) -> Result<TargetName, Diagnostic> {
        let named = only.name.parse::<TargetName>().ok();
        if let Some(target) = &named {
            if self.providers.contains_key(&target.provider) {
                return Ok(self.add_model(&target.provider, target.model.as_str()));
            }
            if let Some(vendor) = environment::vendor(target.provider.as_str()) {
                let provider = self.add_vendor(vendor, only, env)?;
                return Ok(self.add_model(&provider, target.model.as_str()));
            }
        }
        match &self.targets_of(only.name)[..] {
            [] => {}
            [target] => return Ok(target.clone()),
            several => return Err(ambiguous(only.name, several)),
        }
        let Some(vendor) = environment::vendor_of_model(only.name) else {
            return Err(self.unknown(only.name, named.as_ref()));
        };
        let of_vendor: Vec<ProviderName> = self.providers_of(vendor);
        let provider = match &of_vendor[..] {
            [] => self.add_vendor(vendor, only, env)?,
            [provider] => provider.clone(),
            several => {
                let targets = several.iter().map(|provider| TargetName::new(provider.clone(), only.name));
                return Err(ambiguous(only.name, &targets.collect::<Vec<_>>()));
            }
        };
        Ok(self.add_model(&provider, only.name))
    }

    /// Returns the configured targets whose model has this name.
    fn targets_of(&self, name: &str) -> Vec<TargetName> {
        let providers = self.providers.iter().flat_map(|(provider, settings)| {
            let models = settings.models.iter();
            let models = models.filter(|(alias, model)| alias.as_str() == name || model.name == name);
            models.map(|(alias, _)| TargetName::new(provider.clone(), alias.clone()))
        });
        providers.collect()
    }

    /// Returns the configured providers at the own address of a vendor.
    fn providers_of(&self, vendor: &Vendor) -> Vec<ProviderName> {
        let is_of_vendor = |format: Format| match format {
            Format::OpenaiResponses => vendor.format == Format::Openai,
            Format::Openai | Format::Anthropic | Format::Gemini => vendor.format == format,
        };
        let of_vendor = self
            .providers
            .iter()
            .filter(|(_, settings)| settings.base_url.is_none() && is_of_vendor(settings.format));
        of_vendor.map(|(name, _)| name.clone()).collect()
    }

    /// Adds the provider of a vendor from the environment. Returns its name.
    fn add_vendor(
        &mut self,
        vendor: &Vendor,
        only: OnlyModel<'_>,
        env: Env<'_>,
    ) -> Result<ProviderName, Diagnostic> {
        let name = ProviderName::from(vendor.name);
        let Some(settings) = vendor.settings(env, only.simulate)? else {
            let variable = vendor.key_variable();
            let message = format!("{}: its key is not known, because {variable} is not set", only.name);
            let help = format!("set {variable}, or write a provider with this model in the configuration");
            return Err(Diagnostic::new(message).with_help(help));
        };
        self.providers.insert(name.clone(), settings);
        Ok(name)
    }

    /// Adds a model to a provider, if it is not there. Returns its target.
    fn add_model(&mut self, provider: &ProviderName, name: &str) -> TargetName {
        let alias = ModelName::from(name);
        let target = |alias: &ModelName| TargetName::new(provider.clone(), alias.clone());
        let Some(settings) = self.providers.get_mut(provider) else { return target(&alias) };
        if settings.models.contains_key(&alias) {
            return target(&alias);
        }
        let known =
            settings.models.iter().find(|(_, model)| model.name == name).map(|(alias, _)| target(alias));
        if let Some(known) = known {
            return known;
        }
        let model = Model { name: name.to_owned(), ..Model::default() };
        settings.models.insert(alias.clone(), model);
        let is_vendors_own = settings.base_url.is_none();
        let format = settings.format;
        if is_vendors_own {
            self.notes.extend(unlisted(format, name));
        }
        target(&alias)
    }

    fn unknown(&self, name: &str, named: Option<&TargetName>) -> Diagnostic {
        let targets: Vec<String> = self.targets().map(|target| target.to_string()).collect();
        let models = self.providers.values().flat_map(|settings| settings.models.iter());
        let models = models.flat_map(|(alias, model)| [alias.as_str(), model.name.as_str()]);
        let listed = PriceList::built_in().into_iter().flat_map(PriceList::models);
        let known = targets.iter().map(String::as_str).chain(models).chain(listed);
        let known = known.filter(|known| !known.is_empty());
        let message = match named {
            Some(target) => format!("there is no provider `{}`", target.provider),
            None => format!("it is not known which vendor has the model {name:?}"),
        };
        let help = match nearest(name, known) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => {
                let provider = self.providers.keys().next().map_or("openai", ProviderName::as_str);
                format!("write the provider before it, such as {provider}/{name}")
            }
        };
        Diagnostic::new(message).with_help(help)
    }
}

/// Returns a note if a vendor's model is not in the built-in list, and one with a similar name is: it may be new, or
/// misspelled.
fn unlisted(format: Format, name: &str) -> Option<String> {
    let listed = PriceList::built_in()?;
    if listed.price(format, name).is_some() {
        return None;
    }
    let similar = nearest(name, listed.models())?;
    Some(format!("the model {name} is not in the built-in list, which has {similar}; did you mean that?"))
}

fn ambiguous(name: &str, targets: &[TargetName]) -> Diagnostic {
    let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
    let message = format!("several providers have the model {name:?}");
    Diagnostic::new(message).with_help(format!("name one of them: {}", targets.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::provider::KeySource;

    /// Loads a configuration for one model, with these variables.
    fn load(text: &str, name: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables: HashMap<&str, &str> = variables.iter().copied().collect();
        let env = |name: &str| variables.get(name).map(|value| (*value).to_owned());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        Config::load_only(Some(&file), name, false, &env).map_err(|diagnostics| diagnostics.to_string())
    }

    fn target(config: &Config) -> String {
        let route = config.defaults.route.as_ref().unwrap();
        let targets = &config.routes[route].targets;
        assert_eq!(targets.len(), 1);
        assert_eq!(route.as_str(), targets[0].name.to_string());
        targets[0].name.to_string()
    }

    const TWO: &str = "\
[provider.openai]
keys = ['env:MINE']
models.small = { name = 'gpt-6-luna' }
[provider.local]
base_url = 'http://localhost:1/v1'
models.llama = {}
models.\"gpt-6-sol\" = {}
[route.main]
targets = ['local/llama']
";

    #[test]
    fn a_configured_model_is_found_by_its_target_its_alias_or_its_name() {
        for (name, found) in [
            ("openai/small", "openai/small"),
            ("small", "openai/small"),
            ("gpt-6-luna", "openai/small"),
            ("openai/gpt-6-luna", "openai/small"),
            ("llama", "local/llama"),
            ("gpt-6-sol", "local/gpt-6-sol"),
        ] {
            let config = load(TWO, name, &[]).unwrap();
            assert_eq!(target(&config), found, "{name}");
            assert_eq!(config.providers["local"].models.len(), 2);
        }
    }

    #[test]
    fn a_model_that_is_not_configured_is_added_to_its_provider_with_its_price() {
        for (name, found) in [
            ("local/other", "local/other"),
            ("local/org/other", "local/org/other"),
            ("gpt-6.1-sol", "openai/gpt-6.1-sol"),
            ("gpt-9-new", "openai/gpt-9-new"),
        ] {
            assert_eq!(target(&load(TWO, name, &[]).unwrap()), found, "{name}");
        }
        let config = load(TWO, "gpt-6.1-sol", &[]).unwrap();
        assert!(config.providers["openai"].models["gpt-6.1-sol"].price.is_some());
    }

    #[test]
    fn a_vendor_that_is_not_configured_is_used_with_the_key_of_the_environment() {
        let key = [("CLAUDE_API_KEY", "k")];
        for name in ["claude-haiku-4-5", "anthropic/claude-haiku-4-5", "claude-new-1"] {
            for text in [TWO, ""] {
                let config = load(text, name, &key).unwrap();
                assert_eq!(target(&config).split_once('/').unwrap().0, "anthropic", "{name}");
                let anthropic = &config.providers["anthropic"];
                assert_eq!(anthropic.keys, [KeySource::Env("CLAUDE_API_KEY".into())]);
                assert_eq!(anthropic.models.len(), 1, "without a variable for the model");
            }
        }
        let error = load("", "claude-haiku-4-5", &[("OPENAI_API_KEY", "k")]).unwrap_err();
        assert!(error.contains("ANTHROPIC_API_KEY is not set"), "{error}");
        let other = [("OPENAI_API_KEY", "k"), ("ANTHROPIC_API_KEY", "k"), ("OPENAI_MODEL", "gpt-6-sol")];
        let config = load("", "claude-haiku-4-5", &other).unwrap();
        assert_eq!(target(&config), "anthropic/claude-haiku-4-5");
    }

    #[test]
    fn an_unknown_model_gets_the_nearest_name_and_an_ambiguous_one_all_targets() {
        let error = load(TWO, "claud-haiku-4-5", &[]).unwrap_err();
        assert!(error.contains("did you mean claude-haiku-4-5?"), "{error}");
        let error = load(TWO, "opneai/small", &[]).unwrap_err();
        assert!(error.contains("no provider `opneai`") && error.contains("openai/small?"), "{error}");
        let error = load(TWO, "mystery", &[]).unwrap_err();
        assert!(error.contains("such as openai/mystery"), "{error}");
        let twice = "[provider.a]\nbase_url = 'http://localhost:1/v1'\nmodels.m = {}\n\
             [provider.b]\nbase_url = 'http://localhost:2/v1'\nmodels.m = {}\n";
        let error = load(twice, "m", &[]).unwrap_err();
        assert!(error.contains("name one of them: a/m, b/m"), "{error}");
    }

    #[test]
    fn a_model_that_is_spelled_almost_like_a_listed_one_gets_a_note() {
        let key = [("OPENAI_API_KEY", "k")];
        let config = load("", "gpt-6-lnua", &key).unwrap();
        assert_eq!(target(&config), "openai/gpt-6-lnua");
        assert!(
            config
                .notes
                .iter()
                .any(|note| note.contains("did you mean that?") && note.contains("gpt-6-luna"))
        );
        for listed_or_new in ["gpt-6-luna", "gpt-9-something-else"] {
            assert_eq!(load("", listed_or_new, &key).unwrap().notes, [""; 0], "{listed_or_new}");
        }
    }
}
