//! What a reload replaces as a whole: the configuration, and the parts that are built from it.
//!
//! The value never changes. A caller that holds one sees one configuration, also while another takes its place.

#[cfg(feature = "server")]
use std::any::Any;
use std::sync::Arc;
#[cfg(feature = "server")]
use std::sync::Weak;

use crate::config::{Config, ResolvedConfig};
use crate::diagnostics::Diagnostics;
use crate::pipeline::cache_key::shared_model_key;
use crate::pipeline::{Defaults, ModelIdentity, Pipeline};
use crate::provider::{HeaderSource, Model, Settings};
use crate::types::{Fingerprint, RouteName, TargetName};

use super::budgets::DayBudgets;
use super::children::Providers;

/// A configuration with the state of its providers and its budgets.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) config: Arc<Config>,
    pub(super) usable: ResolvedConfig,
    pub(super) providers: Providers,
    pub(super) budgets: DayBudgets,
}

/// Identifies a configuration in use, with the state of its targets. It does not keep them.
#[cfg(feature = "server")]
#[derive(Debug, Clone)]
pub(crate) struct ConfigurationVersion(Weak<dyn Any + Send + Sync>);

#[cfg(feature = "server")]
impl ConfigurationVersion {
    pub(super) fn of(current: &Arc<Current>) -> Self {
        let current: Arc<dyn Any + Send + Sync> = current.clone();
        Self(Arc::downgrade(&current))
    }

    /// Returns one that equals no other.
    #[cfg(test)]
    pub(crate) fn unique() -> Self {
        let value: Arc<dyn Any + Send + Sync> = Arc::new(0_u8);
        Self(Arc::downgrade(&value))
    }
}

#[cfg(feature = "server")]
impl PartialEq for ConfigurationVersion {
    /// The memory of a value is not used again as long as it can be compared.
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Current {
    /// Returns the pipeline that `load` reads with the defaults and the routes of the configuration, if each of its steps
    /// has a usable target.
    pub(super) fn load_pipeline(
        &self,
        load: impl FnOnce(&Defaults, &[RouteName]) -> Result<Pipeline, Diagnostics>,
    ) -> Result<Pipeline, Diagnostics> {
        let Config { defaults, files, routes, .. } = &*self.config;
        let routes: Vec<RouteName> = routes.keys().cloned().collect();
        let pipeline = load(defaults, &routes)?;
        let pipeline = pipeline.with_allowed_folders(&files.allow).with_allowed_hosts(&files.allow_hosts);
        self.usable.check(pipeline.routes())?;
        self.usable.check_embeddings(pipeline.steps())?;
        Ok(pipeline)
    }

    /// Returns the fingerprint of the model of a target; `None` if it is not usable.
    pub(super) fn model_identity(&self, target: &TargetName) -> Option<Fingerprint> {
        model_identity_of(&self.usable, target)
    }

    /// Returns the fingerprint of the model of a target and its address; `None` if it is not usable.
    pub(super) fn shared_model_identity(&self, target: &TargetName) -> Option<Fingerprint> {
        shared_model_identity_of(&self.usable, target)
    }

    /// Returns the usable targets of a route.
    pub(super) fn targets_of(
        &self,
        route: &RouteName,
    ) -> impl Iterator<Item = (&TargetName, &Settings, &Model)> {
        let usable = &self.usable;
        let targets = usable.route(route).map(|route| route.targets.as_slice()).unwrap_or_default();
        targets.iter().filter_map(|target| {
            let ready = usable.providers.get(&target.name.provider)?;
            Some((&target.name, &ready.settings, ready.settings.models.get(&target.name.model)?))
        })
    }
}

/// Returns the fingerprint of the model of a target; `None` if it is not usable.
pub(super) fn model_identity_of(usable: &ResolvedConfig, target: &TargetName) -> Option<Fingerprint> {
    let settings = &usable.providers.get(&target.provider)?.settings;
    Some(model_identity(settings, settings.models.get(&target.model)?))
}

/// Returns the fingerprint of the model of a target and its address, for the answer cache; `None` if it is not usable.
pub(super) fn shared_model_identity_of(usable: &ResolvedConfig, target: &TargetName) -> Option<Fingerprint> {
    let settings = &usable.providers.get(&target.provider)?.settings;
    let identity = model_identity(settings, settings.models.get(&target.model)?);
    let labels: Vec<_> = settings.headers.values().map(header_identity).collect();
    let names = settings.headers.keys().map(|name| name.as_str().as_bytes());
    let headers = names.zip(labels.iter().map(Vec::as_slice));
    Some(shared_model_key(identity, settings.base_url.as_deref(), headers))
}

/// Returns what is known of the value of a header without reading its source.
fn header_identity(source: &HeaderSource) -> Vec<u8> {
    match source {
        HeaderSource::Value(value) => value.as_bytes().to_vec(),
        HeaderSource::Read(source) => source.label().to_string().into_bytes(),
    }
}

/// Returns the fingerprint of a model: what its answers depend on, besides the request.
pub(super) fn model_identity(settings: &Settings, model: &Model) -> Fingerprint {
    let identity = ModelIdentity {
        format: settings.format.as_str(),
        model: &model.name,
        simulated: settings.is_simulated(),
        structured_output: settings.dialect.structured_output.non_default_name(),
        reasoning_tags: settings.non_default_reasoning_tags(),
        max_tokens: model.max_tokens.map(Into::into),
        temperature: model.temperature,
        drop_parameters: &settings.dialect.drop_parameters,
        extra: model.extra.as_deref(),
    };
    identity.fingerprint()
}
