//! A complete configuration: the settings of all modules.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::pipeline::Defaults;
use crate::provider::{self, HeaderSource, KeySource};
use crate::router::{Policy, RetrySettings, Route, Target};
#[cfg(feature = "server")]
use crate::simulator;
use crate::types::{ProviderName, RouteName, TargetName};

use super::key_spans::KeySpans;
use super::{BudgetSettings, FileSettings, RunSettings, StoreSettings, SupervisorSettings};

/// The provider of a simulated configuration without configured providers.
const SIMULATED_PROVIDER: &str = "simulated";

/// The default route of steps.
const DEFAULT_ROUTE: &str = "default";

/// A complete, validated configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The providers, in the order of the file.
    pub providers: IndexMap<ProviderName, provider::Settings>,
    /// The routes, in the order of the file.
    pub routes: IndexMap<RouteName, Route>,
    /// When and how often failed attempts are retried.
    pub retry: RetrySettings,
    /// Default settings of steps.
    pub defaults: Defaults,
    /// Behavior of simulated providers.
    #[cfg(feature = "server")]
    pub simulator: simulator::Settings,
    /// How runs process their items.
    pub run: RunSettings,
    /// Files that an item may attach.
    pub files: FileSettings,
    /// Where runs are stored.
    pub store: StoreSettings,
    /// Cost caps.
    pub budget: BudgetSettings,
    /// How often actors that panic are restarted.
    pub supervisor: SupervisorSettings,
    /// Whether all targets are simulated, see [`simulated`](Self::simulated).
    pub simulate: bool,
    /// Notes for the user that are not errors.
    pub(super) notes: Vec<String>,
    /// The file from which the configuration was loaded, if any.
    pub(super) file: Option<PathBuf>,
    /// Positions of the key sources in the file.
    pub(super) key_spans: KeySpans,
}

impl Config {
    /// Returns the same configuration with all targets simulated in this process: no key is read, and no call
    /// leaves this machine. If no provider is configured, the provider `simulated` is added.
    ///
    /// ```
    /// # use pointsman::Config;
    /// let config = Config::from_environment(&|_| None).map(Config::simulated);
    /// assert!(config.is_ok_and(|config| config.simulate));
    /// ```
    #[must_use]
    pub fn simulated(mut self) -> Self {
        self.simulate = true;
        if self.providers.is_empty() {
            self.providers.insert(SIMULATED_PROVIDER.into(), provider::Settings::simulated());
            self.add_default_route();
            self.set_default_route();
        }
        self
    }

    /// Returns the targets of all providers.
    pub fn targets(&self) -> impl Iterator<Item = TargetName> {
        self.providers.iter().flat_map(|(provider, settings)| {
            let name = |model: &_| TargetName { provider: provider.clone(), model: Clone::clone(model) };
            settings.models.keys().map(name)
        })
    }

    /// Returns the key files of all providers, including providers that are skipped or simulated.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let sources = self.providers.values().flat_map(|settings| {
            let headers = settings.headers.values().filter_map(|header| match header {
                HeaderSource::Read(source) => Some(source),
                HeaderSource::Value(_) => None,
            });
            settings.keys.iter().chain(headers)
        });
        sources.filter_map(|source| match source {
            KeySource::File(path) => Some(path.as_path()),
            KeySource::Env(_) | KeySource::Command(_) => None,
        })
    }

    /// Returns the file from which the configuration was loaded, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Sets the default route of steps, if it is not set: the route `default`, or else the only route.
    pub(super) fn set_default_route(&mut self) {
        let default =
            self.routes.keys().find(|name| name.as_str() == DEFAULT_ROUTE || self.routes.len() == 1);
        self.defaults.route = self.defaults.route.take().or_else(|| default.cloned());
    }

    /// Adds the route over all targets, for configurations without a route.
    pub(super) fn add_default_route(&mut self) {
        let targets = self.targets().map(Target::from).collect();
        self.routes
            .insert(DEFAULT_ROUTE.into(), Route { policy: Policy::Priority, targets, ..Route::default() });
    }
}
