//! A complete configuration: the settings of all modules.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::guard::ScopeSettings;
use crate::pipeline::Defaults;
use crate::provider::{self, Env, HeaderSource, KeySource};
use crate::router::{Policy, RetrySettings, Route, Target};
#[cfg(feature = "simulator")]
use crate::simulator;
use crate::types::{Fingerprint, ProviderName, RouteName, ScopeName, TargetName};

use super::dot_env::DotEnv;
use super::key_positions::KeyPositions;
use super::written_keys::WrittenKeys;
use super::{BudgetSettings, FileSettings, RunSettings, ServeSettings, StoreSettings, SupervisorSettings};

/// The provider of a simulated configuration without configured providers.
const SIMULATED_PROVIDER: &str = "simulated";

/// The default route of steps.
const DEFAULT_ROUTE: &str = "default";

/// A complete, validated configuration.
///
/// [`Config::load`] reads the file that it finds or the environment variables, [`Config::from_file`] and
/// [`Config::from_toml`] read another file or a text, and [`Config::builder`] builds a configuration in code. The
/// checks are the same for all of them.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The providers, in the order of the file.
    #[doc(hidden)]
    pub providers: IndexMap<ProviderName, provider::Settings>,
    /// The routes, in the order of the file.
    #[doc(hidden)]
    pub routes: IndexMap<RouteName, Route>,
    /// When and how often failed attempts are retried.
    #[doc(hidden)]
    pub retry: RetrySettings,
    /// Default settings of steps.
    #[doc(hidden)]
    pub defaults: Defaults,
    /// Behavior of simulated providers.
    #[cfg(feature = "simulator")]
    #[doc(hidden)]
    pub simulator: simulator::Settings,
    /// How runs process their items.
    #[doc(hidden)]
    pub run: RunSettings,
    /// Files that an item may attach.
    #[doc(hidden)]
    pub files: FileSettings,
    /// Where runs are stored.
    #[doc(hidden)]
    pub store: StoreSettings,
    /// Cost caps.
    #[doc(hidden)]
    pub budget: BudgetSettings,
    /// The limits of scopes, in the order of the file.
    #[doc(hidden)]
    pub scopes: IndexMap<ScopeName, ScopeSettings>,
    /// How often actors that panic are restarted.
    #[doc(hidden)]
    pub supervisor: SupervisorSettings,
    /// How the daemon listens, what it reads, and its limits.
    #[doc(hidden)]
    pub serve: ServeSettings,
    /// Whether all targets are simulated, see [`simulated`](Self::simulated).
    #[doc(hidden)]
    pub simulate: bool,
    /// Notes for the user that are not errors.
    pub(super) notes: Vec<String>,
    /// The file from which the configuration was loaded, if any.
    pub(super) file: Option<PathBuf>,
    /// The content that this file had.
    pub(super) file_content: Option<Fingerprint>,
    /// The variables of the `.env` file, except those that the process has.
    pub(super) dot_env: DotEnv,
    /// Positions of the key sources, in the file or in the builder.
    pub(super) key_positions: KeyPositions,
    /// Where its keys are written.
    pub(super) written_keys: WrittenKeys,
}

impl Config {
    /// Returns the same configuration with all targets simulated in this process: no key is read, and no call
    /// leaves this machine. If no provider is configured, the provider `simulated` is added.
    ///
    /// ```
    /// use pointsman::{Config, ModelBuilder, ProviderBuilder};
    ///
    /// let provider = ProviderBuilder::openai()
    ///     .with_key("env:OPENAI_API_KEY")
    ///     .with_model("small", ModelBuilder::new().with_name("gpt-4.1-mini"));
    /// let config = Config::builder().with_provider("openai", provider).build()?.simulated();
    /// # assert!(config.simulate);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
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

    /// Sets the address of the daemon to that of an option of the command line, which replaces `[serve] listen`.
    pub fn set_listen(&mut self, listen: SocketAddr) {
        self.serve.listen = listen;
        self.written_keys.add_option(vec!["serve".to_owned(), "listen".to_owned()]);
    }

    /// Sets the most requests in flight at each provider, in place of the limits of the configuration.
    #[doc(hidden)]
    pub fn set_max_concurrency(&mut self, requests: NonZeroU32) {
        for settings in self.providers.values_mut() {
            settings.set_max_concurrency(requests);
        }
    }

    /// Returns the route of steps without one of their own.
    #[doc(hidden)]
    pub fn default_route(&self) -> Option<&RouteName> {
        self.defaults.route.as_ref()
    }

    /// Returns the targets of all providers.
    #[doc(hidden)]
    pub fn targets(&self) -> impl Iterator<Item = TargetName> {
        self.providers.iter().flat_map(|(provider, settings)| {
            let name = |model: &_| TargetName { provider: provider.clone(), model: Clone::clone(model) };
            settings.models.keys().map(name)
        })
    }

    /// Returns the value of a variable: that of `env`, or else that of the `.env` file beside the configuration.
    #[doc(hidden)]
    pub fn variable(&self, env: Env<'_>, name: &str) -> Option<String> {
        self.dot_env.value(env, name)
    }

    /// Returns the key files of all providers, including providers that are skipped or simulated, that of the
    /// daemon's certificate, and the `.env` file.
    #[doc(hidden)]
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let sources = self.providers.values().flat_map(|settings| {
            let headers = settings.headers.values().filter_map(|header| match header {
                HeaderSource::Read(source) => Some(source),
                HeaderSource::Value(_) => None,
            });
            settings.keys.iter().chain(headers)
        });
        let files = sources.filter_map(|source| match source {
            KeySource::File(path) => Some(path.as_path()),
            KeySource::Env(_) | KeySource::Command(_) => None,
        });
        files.chain(self.serve.tls.key.as_deref()).chain(self.dot_env.file())
    }

    /// Keeps one provider and no route, to list its models.
    ///
    /// # Errors
    /// The names of all providers, if it is none of them.
    #[doc(hidden)]
    pub fn keep_provider(&mut self, name: &ProviderName) -> Result<(), Vec<ProviderName>> {
        if !self.providers.contains_key(name) {
            return Err(self.providers.keys().cloned().collect());
        }
        self.providers.retain(|known, _| known == name);
        self.routes.clear();
        Ok(())
    }

    /// Returns notes for the user: files that were skipped, and settings without effect.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the file from which the configuration was loaded, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the content of the file from which the configuration was loaded.
    #[cfg(feature = "server")]
    pub(crate) fn file_content(&self) -> Option<Fingerprint> {
        self.file_content
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
