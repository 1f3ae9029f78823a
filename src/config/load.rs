//! Reads a configuration from a file, from a text, or from the environment.
//!
//! Never runs a command and never reads a key.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::document::{Document, Fault, Faults, Places};
use crate::pipeline::Defaults;
use crate::provider::{self, Env, HeaderSource, KeySource, Model};
use crate::router::{Lane, Policy, RetrySettings, Route};
#[cfg(feature = "server")]
use crate::simulator;
use crate::types::{LaneName, ProviderName, RouteName};

use super::check::Check;
use super::key_places::KeyPlaces;
use super::prices::PriceList;
use super::vain::Vain;
use super::{
    BudgetSettings, FileSettings, RunSettings, StoreSettings, SupervisorSettings, environment, hide,
};

/// The file that is read when none is named.
const FILE: &str = "config.toml";

/// The provider that answers where none is configured and simulation was asked for.
const SIMULATED: &str = "simulated";

/// The route of steps that name none.
const DEFAULT: &str = "default";

/// A whole configuration, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The providers, in the order of the file.
    pub providers: IndexMap<ProviderName, provider::Settings>,
    /// The routes, in the order of the file.
    pub routes: IndexMap<RouteName, Route>,
    /// How often a question is asked again.
    pub retry: RetrySettings,
    /// What steps do that do not say otherwise.
    pub defaults: Defaults,
    /// How played providers behave.
    #[cfg(feature = "server")]
    pub simulator: simulator::Settings,
    /// How runs work through their items.
    pub run: RunSettings,
    /// Which files an item may name.
    pub files: FileSettings,
    /// Where runs are kept.
    pub store: StoreSettings,
    /// What may be spent.
    pub budget: BudgetSettings,
    /// How often actors that panic are restarted.
    pub supervisor: SupervisorSettings,
    /// Whether the simulator plays every target, see [`simulated`](Self::simulated).
    pub simulate: bool,
    /// What the user should know although it is no fault.
    pub(super) notes: Vec<String>,
    /// The file that it was read from, if it was one.
    pub(super) file: Option<PathBuf>,
    /// Where its sources of keys stand in the file.
    pub(super) key_places: KeyPlaces,
}

/// The keys of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename = "configuration")]
struct Written {
    provider: IndexMap<ProviderName, provider::Settings>,
    route: IndexMap<RouteName, Route>,
    retry: RetrySettings,
    defaults: Defaults,
    #[cfg(feature = "server")]
    simulator: simulator::Settings,
    run: RunSettings,
    files: FileSettings,
    store: StoreSettings,
    budget: BudgetSettings,
    supervisor: SupervisorSettings,
}

impl Config {
    /// Reads the file at `path`; without one `config.toml` in the working directory, if there is
    /// such a file; else what the environment's variables say.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn load(path: Option<&Path>, env: Env<'_>) -> Result<Self, Faults> {
        let path = match path {
            Some(path) => path,
            None if Path::new(FILE).exists() => Path::new(FILE),
            None => return Self::from_environment(env),
        };
        let file = path.display().to_string();
        let unreadable = |why: &dyn std::fmt::Display| {
            let fault = Fault::new(format!("cannot read the configuration {file}: {why}"));
            Faults(vec![fault.advise("name another file with --config, or mend this one")])
        };
        let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let text = String::from_utf8(bytes).map_err(|error| unreadable(&error.utf8_error()))?;
        Ok(Self { file: Some(path.to_owned()), ..Self::parse(&file, &text, env)? })
    }

    /// Reads `text`, which faults call `file`. Where it names no provider, the environment does.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn parse(file: &str, text: &str, env: Env<'_>) -> Result<Self, Faults> {
        let document = Document::parse(file, text).map_err(|mut faults| {
            faults.hide(&hide::guess(text));
            faults
        })?;
        let (written, mut faults) = document.read::<Written>();
        let places = document.places();
        let mut config = Self::from(written);
        if !places.has(&["provider"]) {
            faults.extend(config.use_environment(env));
        }
        config.complete();
        config.inherit(&places);
        let more = Check { config: &config, places: &places, read: &faults }.run();
        faults.extend(more);
        let Vain { faults: more, notes, .. } = Vain::find(&config, &places);
        faults.extend(more);
        config.notes.extend(notes.iter().map(ToString::to_string));
        config.key_places = KeyPlaces::of(&config, &places);
        if !places.has(&["route"]) {
            config.use_every_lane();
            faults.extend(Check::implied_route(&config, &places));
        }
        faults.hide(&hide::find(&places));
        config.choose_route();
        faults.or(config)
    }

    /// Reads the variables that people have without any file, such as `OPENAI_API_KEY`.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn from_environment(env: Env<'_>) -> Result<Self, Faults> {
        let mut config = Self::default();
        let faults = config.use_environment(env);
        config.complete();
        config.use_every_lane();
        config.choose_route();
        faults.or(config)
    }

    /// Returns the same configuration with every target played by the simulator, in this process: no key is read,
    /// and no call leaves this machine. Where no provider is configured there is one, `simulated`.
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
            self.providers.insert(SIMULATED.into(), provider::Settings::simulated());
            self.use_every_lane();
            self.choose_route();
        }
        self
    }

    /// Returns every lane that the providers have.
    pub fn lanes(&self) -> impl Iterator<Item = LaneName> {
        self.providers.iter().flat_map(|(provider, settings)| {
            let name = |model: &_| LaneName { provider: provider.clone(), model: Clone::clone(model) };
            settings.models.keys().map(name)
        })
    }

    /// Returns the files that hold the secrets of every provider, also of those that have no key or are simulated.
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

    /// Returns the file that it was read from, if it was one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    fn use_environment(&mut self, env: Env<'_>) -> Faults {
        let found = environment::read(env);
        self.providers = found.providers;
        self.notes = found.notes;
        found.faults
    }

    /// Fills in what follows from the rest.
    fn complete(&mut self) {
        for settings in self.providers.values_mut() {
            if settings.is_practice() && settings.models.is_empty() {
                settings.models.insert("any".into(), Model::default());
            }
            for (alias, model) in &mut settings.models {
                if model.name.is_empty() {
                    alias.as_str().clone_into(&mut model.name);
                }
                if model.price.is_none() && settings.base_url.is_none() {
                    let list = PriceList::built_in();
                    model.price = list.and_then(|list| list.price(settings.format, &model.name));
                    model.is_listed = model.price.is_some();
                }
            }
        }
    }

    /// A model with limits of its own keeps what it does not say of the account's `burst` and `concurrency`.
    fn inherit(&mut self, places: &Places<'_>) {
        for (name, settings) in &mut self.providers {
            for (alias, model) in &mut settings.models {
                let Some(own) = &mut model.limits else { continue };
                let says =
                    |key| places.has(&["provider", name.as_str(), "models", alias.as_str(), "limits", key]);
                if !says("burst") {
                    own.burst = settings.limits.burst;
                }
                if !says("concurrency") {
                    own.concurrency = settings.limits.concurrency;
                }
            }
        }
    }

    /// Without a word about it, steps use the route called `default`, else the only one.
    fn choose_route(&mut self) {
        let usual = self.routes.keys().find(|name| name.as_str() == DEFAULT || self.routes.len() == 1);
        self.defaults.route = self.defaults.route.take().or_else(|| usual.cloned());
    }

    /// Without any route there is one, over everything.
    fn use_every_lane(&mut self) {
        let lanes = self.lanes().map(Lane::from).collect();
        self.routes.insert(DEFAULT.into(), Route { policy: Policy::Priority, lanes, ..Route::default() });
    }
}

impl From<Written> for Config {
    fn from(written: Written) -> Self {
        Self {
            providers: written.provider,
            routes: written.route,
            retry: written.retry,
            defaults: written.defaults,
            #[cfg(feature = "server")]
            simulator: written.simulator,
            run: written.run,
            files: written.files,
            store: written.store,
            budget: written.budget,
            supervisor: written.supervisor,
            simulate: false,
            notes: Vec::new(),
            file: None,
            key_places: KeyPlaces::default(),
        }
    }
}
