//! Loads a configuration from a file, a string, or environment variables.
//!
//! Loading runs no command and reads no key.

use std::path::Path;

use indexmap::IndexMap;
use serde::Deserialize;

use crate::diagnostics::{Diagnostic, Diagnostics, Document, Spans};
use crate::guard::ScopeSettings;
use crate::pipeline::Defaults;
use crate::provider::{self, Env, Model, process_env};
use crate::router::{RetrySettings, Route};
#[cfg(feature = "simulator")]
use crate::simulator;
use crate::types::{Advice, Fingerprint, ProviderName, Remedy, RouteName, ScopeName};

use super::check::Check;
use super::key_positions::KeyPositions;
use super::lint::Linter;
use super::prices::PriceList;
use super::settings::Config;
use super::written_keys::WrittenKeys;
use super::{
    BudgetSettings, FileSettings, RunSettings, ServeSettings, StoreSettings, SupervisorSettings, environment,
};

/// The default configuration file.
pub(crate) const DEFAULT_FILE: &str = "config.toml";

/// The name of a text without a file in diagnostics.
const TEXT: &str = "configuration";

/// The file as it is deserialized.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename = "configuration")]
struct RawConfig {
    provider: IndexMap<ProviderName, provider::Settings>,
    route: IndexMap<RouteName, Route>,
    retry: RetrySettings,
    defaults: Defaults,
    #[cfg(feature = "simulator")]
    simulator: simulator::Settings,
    run: RunSettings,
    files: FileSettings,
    store: StoreSettings,
    budget: BudgetSettings,
    scope: IndexMap<ScopeName, ScopeSettings>,
    supervisor: SupervisorSettings,
    serve: ServeSettings,
}

impl Config {
    /// Loads `config.toml` in the working directory if it exists, and otherwise the environment variables.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn load() -> Result<Self, Diagnostics> {
        Self::load_with(None, &process_env)
    }

    /// Loads the file at `path`. If it has no provider, the providers of the environment variables are used.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Diagnostics> {
        Self::load_with(Some(path.as_ref()), &process_env)
    }

    /// Reads a configuration from the text of a file. If it has no provider, the providers of the environment
    /// variables are used.
    ///
    /// ```
    /// use pointsman::Config;
    ///
    /// let config = Config::from_toml(
    ///     "
    ///     [provider.local]
    ///     base_url = 'http://localhost:11434/v1'
    ///     models.llama = {}
    ///     ",
    /// )?;
    /// assert_eq!(config.targets().next().map(|target| target.to_string()).as_deref(), Some("local/llama"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn from_toml(text: &str) -> Result<Self, Diagnostics> {
        Self::parse(TEXT, text, &process_env)
    }

    /// Builds a configuration from environment variables such as `OPENAI_API_KEY` and `OPENAI_MODEL`.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn from_env() -> Result<Self, Diagnostics> {
        Self::from_env_with(&process_env)
    }

    /// Loads the file at `path`. Without a path, loads `config.toml` in the working directory if it exists, and
    /// otherwise the environment variables.
    ///
    /// # Errors
    /// All errors of the configuration.
    #[doc(hidden)]
    pub fn load_with(path: Option<&Path>, env: Env<'_>) -> Result<Self, Diagnostics> {
        let path = match path {
            Some(path) => path,
            None if Path::new(DEFAULT_FILE).exists() => Path::new(DEFAULT_FILE),
            None => return Self::from_env_with(env),
        };
        let file = path.display().to_string();
        let read_error = |why: &dyn std::fmt::Display| {
            let diagnostic = Diagnostic::new(format!("cannot read the configuration {file}: {why}"));
            let help = Advice::from(Remedy::NameConfiguration).with_text(", or correct this one");
            Diagnostics(vec![diagnostic.with_help(help)])
        };
        let bytes = std::fs::read(path).map_err(|error| read_error(&error))?;
        let content = Fingerprint::of([bytes.as_slice()]);
        let text = String::from_utf8(bytes).map_err(|error| read_error(&error.utf8_error()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let config = Self::read(Document::parse(&file, &text), &text, folder, env)?;
        Ok(Self { file: Some(path.to_owned()), file_content: Some(content), ..config })
    }

    /// Parses `text`. Diagnostics refer to it as `file`. If it has no provider, the providers of the environment
    /// variables are used.
    ///
    /// # Errors
    /// All errors of the configuration.
    #[doc(hidden)]
    pub fn parse(file: &str, text: &str, env: Env<'_>) -> Result<Self, Diagnostics> {
        Self::read(Document::parse(file, text), text, Path::new(""), env)
    }

    /// Reads a text that the builder has written. Diagnostics name keys instead of positions.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub(super) fn parse_generated(text: &str, env: Env<'_>) -> Result<Self, Diagnostics> {
        let mut config = Self::read(Document::generated(text), text, Path::new(""), env)?;
        config.written_keys.set_generated();
        Ok(config)
    }

    /// Reads and checks a document, which was parsed from `text`. `folder` is that of its file; it is empty for a text
    /// without a file.
    fn read(
        document: Result<Document, Diagnostics>,
        text: &str,
        folder: &Path,
        env: Env<'_>,
    ) -> Result<Self, Diagnostics> {
        let document = document.map_err(|mut diagnostics| {
            diagnostics.redact(&provider::guess_secrets(text));
            diagnostics
        })?;
        let (raw, mut diagnostics) = document.read::<RawConfig>();
        let spans = document.spans();
        let mut config = Self::from(raw);
        config.written_keys = WrittenKeys::of(&spans);
        config.serve.resolve_paths(folder);
        if !spans.contains(&["provider"]) {
            diagnostics.extend(config.use_environment(env));
        }
        config.set_defaults();
        config.inherit_limits(&spans);
        let more = Check { config: &config, spans: &spans, parse_diagnostics: &diagnostics }.run();
        diagnostics.extend(more);
        let Linter { diagnostics: more, notes, .. } = Linter::run(&config, &spans);
        diagnostics.extend(more);
        let mut notes = Diagnostics(notes);
        document.locate_by_key(&mut notes);
        let secrets = provider::find_secrets(&spans);
        notes.redact(&secrets);
        config.notes.extend(notes.0.iter().map(ToString::to_string));
        config.key_positions = KeyPositions::of(&config.providers, &document, &spans);
        if !spans.contains(&["route"]) {
            config.add_default_route();
            diagnostics.extend(Check::check_default_route(&config, &spans));
        }
        config.set_default_route();
        // Located last: the checks compare positions, and the diagnostics are sorted by them.
        diagnostics.into_result(config).map_err(|mut diagnostics| {
            document.locate_by_key(&mut diagnostics);
            diagnostics.redact(&secrets);
            diagnostics
        })
    }

    /// Builds a configuration from environment variables such as `OPENAI_API_KEY`.
    ///
    /// # Errors
    /// All errors of the configuration.
    #[doc(hidden)]
    pub fn from_env_with(env: Env<'_>) -> Result<Self, Diagnostics> {
        let mut config = Self::default();
        let diagnostics = config.use_environment(env);
        config.set_defaults();
        config.add_default_route();
        config.set_default_route();
        diagnostics.into_result(config)
    }

    fn use_environment(&mut self, env: Env<'_>) -> Diagnostics {
        let found = environment::read(env);
        self.providers = found.providers;
        self.notes = found.notes;
        self.written_keys.add_variables(found.variables);
        found.diagnostics
    }

    /// Sets the defaults that depend on other settings.
    fn set_defaults(&mut self) {
        for settings in self.providers.values_mut() {
            if settings.is_simulated() && settings.models.is_empty() {
                settings.models.insert("any".into(), Model::default());
            }
            for (alias, model) in &mut settings.models {
                if model.name.is_empty() {
                    alias.as_str().clone_into(&mut model.name);
                }
                if model.price.is_none() && settings.base_url.is_none() {
                    let list = PriceList::built_in();
                    model.price = list.and_then(|list| list.price(settings.format, &model.name));
                    model.has_builtin_price = model.price.is_some();
                }
            }
        }
    }

    /// Sets `burst` and `concurrency` of models with their own limits to the account's, if they are not set.
    fn inherit_limits(&mut self, spans: &Spans<'_>) {
        for (name, settings) in &mut self.providers {
            for (alias, model) in &mut settings.models {
                let Some(own) = &mut model.limits else { continue };
                let is_set = |key| {
                    spans.contains(&["provider", name.as_str(), "models", alias.as_str(), "limits", key])
                };
                if !is_set("burst") {
                    own.burst = settings.limits.burst;
                }
                if !is_set("concurrency") {
                    own.concurrency = settings.limits.concurrency;
                }
            }
        }
    }
}

impl From<RawConfig> for Config {
    fn from(raw: RawConfig) -> Self {
        Self {
            providers: raw.provider,
            routes: raw.route,
            retry: raw.retry,
            defaults: raw.defaults,
            #[cfg(feature = "simulator")]
            simulator: raw.simulator,
            run: raw.run,
            files: raw.files,
            store: raw.store,
            budget: raw.budget,
            scopes: raw.scope,
            supervisor: raw.supervisor,
            serve: raw.serve,
            simulate: false,
            notes: Vec::new(),
            file: None,
            file_content: None,
            key_positions: KeyPositions::default(),
            written_keys: WrittenKeys::default(),
        }
    }
}
