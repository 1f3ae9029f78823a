//! The models that the providers of a configuration offer.

use std::num::NonZeroU64;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use crate::config::{Config, PriceList, ResolvedProvider};
use crate::diagnostics::Diagnostics;
use crate::provider::{self, Env};
use crate::types::{Failure, ModelName, Price, ProviderName};

/// How many providers are asked at once.
const MAX_PROVIDERS_AT_ONCE: usize = 16;

/// The models of one provider.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ProviderModels {
    /// The name of the provider.
    pub provider: ProviderName,
    /// Its models, by name. Empty with an error.
    pub models: Vec<ListedModel>,
    /// Why it has no list.
    pub error: Option<String>,
    /// Whether it was asked. A provider without a key was not.
    pub was_asked: bool,
}

/// A model that a provider offers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ListedModel {
    /// What the provider calls it.
    pub name: String,
    /// The most tokens of a prompt: what the provider states, or else the configuration.
    pub context: Option<u64>,
    /// The most tokens of an answer, if the provider states it.
    pub max_output: Option<u64>,
    /// Its price: that of the configuration, or else of the built-in list.
    pub price: Option<Price>,
    /// The name that it has in the configuration, if it is configured.
    pub configured_as: Option<String>,
}

/// Asks the providers of a configuration which models they offer, in the order of the configuration. A simulated provider
/// offers the models that are configured. The keys are read first, which blocks while a key command runs.
///
/// # Errors
/// If no provider is configured.
pub async fn list_models(config: &Config, env: Env<'_>) -> Result<Vec<ProviderModels>, Diagnostics> {
    if config.providers.is_empty() {
        config.resolve(env)?;
    }
    let ready = config.providers.keys().map(|name| (name.clone(), resolve(config, name, env)));
    let ready: Vec<_> = ready.collect();
    Ok(stream::iter(ready).map(of_provider).buffered(MAX_PROVIDERS_AT_ONCE).collect().await)
}

/// Why a provider is not asked, or could not be.
struct Unlisted {
    error: String,
    was_asked: bool,
}

/// Reads the keys of one provider, so that a fault of another does not matter.
fn resolve(config: &Config, name: &ProviderName, env: Env<'_>) -> Result<ResolvedProvider, Unlisted> {
    let mut alone = config.clone();
    // It has this provider.
    let _ = alone.keep_provider(name);
    let mut resolved = alone.resolve(env).map_err(|diagnostics| {
        let error = diagnostics.texts().join("; ");
        Unlisted { error, was_asked: true }
    })?;
    resolved.providers.swap_remove(name).ok_or_else(|| {
        let prefix = format!("{name}: skipped, ");
        let reason = resolved.notes.iter().find_map(|note| note.strip_prefix(&prefix));
        Unlisted { error: reason.unwrap_or("it has no key").to_owned(), was_asked: false }
    })
}

async fn of_provider(
    (provider, ready): (ProviderName, Result<ResolvedProvider, Unlisted>),
) -> ProviderModels {
    let listed = match ready {
        Ok(ready) => {
            let listed = models_of(&ready).await;
            listed.map_err(|failure| Unlisted { error: failure.message.into_string(), was_asked: true })
        }
        Err(unlisted) => Err(unlisted),
    };
    match listed {
        Ok(models) => ProviderModels { provider, models, error: None, was_asked: true },
        Err(Unlisted { error, was_asked }) => {
            ProviderModels { provider, models: Vec::new(), error: Some(error), was_asked }
        }
    }
}

async fn models_of(ready: &ResolvedProvider) -> Result<Vec<ListedModel>, Failure> {
    let settings = &ready.settings;
    let configured = |(alias, model)| (ModelName::as_str(alias), model);
    let mut models: Vec<ListedModel> = if settings.is_simulated() {
        let models = settings.models.iter().map(configured);
        models.map(|(alias, model)| listed(settings, &model.name, Some((alias, model)))).collect()
    } else {
        let base_url = settings.base_url.as_deref().unwrap_or(settings.format.default_base_url());
        let offered = provider::list_models(settings, base_url, &ready.keys, ready.headers.clone()).await?;
        let models = offered.into_iter().map(|offered| {
            let same_name = settings.models.iter().find(|(_, model)| model.name == offered.name);
            let known = listed(settings, &offered.name, same_name.map(configured));
            ListedModel {
                context: offered.context.or(known.context),
                max_output: offered.max_output,
                ..known
            }
        });
        models.collect()
    };
    models.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(models)
}

/// Returns what the configuration and the price list know about a model.
fn listed(
    settings: &provider::Settings,
    name: &str,
    configured: Option<(&str, &provider::Model)>,
) -> ListedModel {
    let of_list = || PriceList::built_in().and_then(|list| list.price(settings.format, name));
    let price = configured.and_then(|(_, model)| model.price);
    ListedModel {
        name: name.to_owned(),
        context: configured.and_then(|(_, model)| model.context).map(NonZeroU64::get),
        max_output: None,
        price: price.or_else(|| of_list().filter(|_| settings.base_url.is_none())),
        configured_as: configured.map(|(alias, _)| alias.to_owned()),
    }
}
