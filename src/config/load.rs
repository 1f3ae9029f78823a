//! Loads a configuration from a file, a string, or environment variables.
//!
//! Loading runs no command and reads no key.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::diagnostics::{Diagnostic, Diagnostics, Document, Spans};
use crate::files::read_at_most;
use crate::guard::ScopeSettings;
use crate::pipeline::Defaults;
use crate::provider::{self, Env, HeaderSource, KeySource, Model, process_env};
use crate::router::{RetrySettings, Route};
#[cfg(feature = "simulator")]
use crate::simulator;
use crate::store::StoreUrl;
use crate::types::{Advice, Fingerprint, ProviderName, Remedy, RouteName, ScopeName};

use super::check::Check;
use super::discover::{self, Discovered};
use super::dot_env::DotEnv;
use super::dotted_models;
use super::key_positions::KeyPositions;
use super::lint::Linter;
use super::only_model::OnlyModel;
use super::prices::PriceList;
use super::settings::Config;
use super::written_keys::WrittenKeys;
use super::{
    BudgetSettings, FileSettings, RunSettings, ServeSettings, StoreSettings, SupervisorSettings, environment,
};

/// The largest configuration file.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The name of a text without a file in diagnostics.
const TEXT: &str = "configuration";

/// Which configuration is loaded, and what replaces its settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions<'a> {
    file: Option<&'a Path>,
    pipeline: Option<&'a Path>,
    model: Option<&'a str>,
    simulate: bool,
    models_are_optional: bool,
}

impl<'a> LoadOptions<'a> {
    /// Loads what [`Config::load`] does.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads this file, if one is given.
    #[must_use]
    pub fn with_file(self, file: Option<&'a Path>) -> Self {
        Self { file, ..self }
    }

    /// Also looks for the configuration in the folder of this pipeline, after the working directory.
    #[must_use]
    pub fn with_pipeline(self, pipeline: Option<&'a Path>) -> Self {
        Self { pipeline, ..self }
    }

    /// Makes this model the only one of every step without a route. It is `provider/model`, or the name of a model whose
    /// vendor is configured or has its key in the environment.
    #[must_use]
    pub fn with_model(self, model: Option<&'a str>) -> Self {
        Self { model, ..self }
    }

    /// Simulates all targets, so that no key is needed.
    #[must_use]
    pub fn with_simulated_targets(self, simulate: bool) -> Self {
        Self { simulate, ..self }
    }

    /// Accepts providers without models, and vendors whose key is in the environment and no model: to list what they offer.
    #[must_use]
    pub fn with_optional_models(self) -> Self {
        Self { models_are_optional: true, ..self }
    }
}

/// What a configuration is loaded for.
#[derive(Debug, Clone, Copy)]
enum Purpose<'a> {
    /// To send requests.
    Requests,
    /// To send the requests of steps without a route to one model.
    OnlyModel(OnlyModel<'a>),
    /// To simulate the answers.
    Simulation,
    /// To list models: none needs to be configured.
    ModelList,
}

impl Purpose<'_> {
    /// Returns whether a vendor in the environment needs a model.
    fn needs_model(self) -> bool {
        match self {
            Self::Requests => true,
            Self::OnlyModel(_) | Self::Simulation | Self::ModelList => false,
        }
    }

    /// Returns whether a configured provider needs a model.
    fn needs_configured_model(self) -> bool {
        match self {
            Self::Requests | Self::OnlyModel(_) | Self::Simulation => true,
            Self::ModelList => false,
        }
    }
}

/// Returns what tells the content of a configuration in `folder`, and of its `.env` file, from another.
fn content_of(folder: &Path, bytes: &[u8]) -> Fingerprint {
    let variables = DotEnv::content(folder);
    Fingerprint::of([bytes, &variables])
}

/// Returns what tells the content of a configuration file, and of its `.env` file, from another; `None` if the file cannot
/// be read.
#[cfg(feature = "server")]
pub(crate) fn file_content(file: &Path) -> Option<Fingerprint> {
    let bytes = std::fs::read(file).ok()?;
    Some(content_of(file.parent().unwrap_or(Path::new("")), &bytes))
}

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
    /// Loads the configuration that is found without a name, and otherwise the environment variables.
    ///
    /// It is found in this order: the file that the variable `POINTSMAN_CONFIG` names; `pointsman.toml`, then `config.toml`
    /// in the working directory; `pointsman/config.toml` in `$XDG_CONFIG_HOME`, which is `~/.config` if it is not set. A
    /// `config.toml` without any table of a configuration belongs to another program. A `.env` file beside the
    /// configuration, or in the working directory if there is none, gives values to variables that are not set.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub fn load() -> Result<Self, Diagnostics> {
        Self::load_with(None, &process_env)
    }

    /// Loads the file at `path`. If it has no provider, the providers of the environment variables are used. Relative paths
    /// in the file are relative to its folder.
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

    /// Loads the file at `path`. Without a path, loads what [`load`](Self::load) does.
    ///
    /// # Errors
    /// All errors of the configuration.
    #[doc(hidden)]
    pub fn load_with(path: Option<&Path>, env: Env<'_>) -> Result<Self, Diagnostics> {
        Self::load_as(LoadOptions::new().with_file(path), env)
    }

    /// Loads a configuration as [`load_with`](Self::load_with) does, and makes `model` the only model of every step without a
    /// route. `model` is `provider/model`, or the name of a model whose vendor is configured or has its key in the
    /// environment. With `simulate`, no key is needed, and all targets are simulated.
    ///
    /// # Errors
    /// All errors of the configuration, or that the model is not known.
    #[doc(hidden)]
    pub fn load_only(
        path: Option<&Path>,
        model: &str,
        simulate: bool,
        env: Env<'_>,
    ) -> Result<Self, Diagnostics> {
        let options = LoadOptions::new().with_file(path).with_model(Some(model));
        Self::load_as(options.with_simulated_targets(simulate), env)
    }

    /// Loads the configuration that `options` describe, with variables from `env`.
    ///
    /// # Errors
    /// All errors of the configuration, or that the model is not known.
    pub fn load_as(options: LoadOptions<'_>, env: Env<'_>) -> Result<Self, Diagnostics> {
        let LoadOptions { file, pipeline, model, simulate, models_are_optional } = options;
        let purpose = match model {
            Some(name) => Purpose::OnlyModel(OnlyModel { name, simulate }),
            None if models_are_optional => Purpose::ModelList,
            None if simulate => Purpose::Simulation,
            None => Purpose::Requests,
        };
        let Discovered { file, is_from_variable, notes } = discover::find(file, pipeline, env);
        let mut config = match file {
            Some(path) => Self::load_file(&path, is_from_variable, purpose, env)?,
            None => Self::of_environment(purpose, DotEnv::read(Path::new(""))?.without(env)?, env)?,
        };
        config.notes.splice(0..0, notes);
        Ok(if simulate { config.simulated() } else { config })
    }

    /// Returns whether the environment names the configuration file.
    #[doc(hidden)]
    pub fn is_named_by_environment(env: Env<'_>) -> bool {
        let found = discover::find(None, None, env);
        found.is_from_variable
    }

    /// Returns the file that [`load_as`](Self::load_as) would load, whether it is valid or not. `None` if there is none.
    pub fn locate(options: LoadOptions<'_>, env: Env<'_>) -> Option<PathBuf> {
        discover::find(options.file, options.pipeline, env).file
    }

    fn load_file(
        path: &Path,
        is_from_variable: bool,
        purpose: Purpose<'_>,
        env: Env<'_>,
    ) -> Result<Self, Diagnostics> {
        let file = path.display().to_string();
        let read_error = |why: &dyn std::fmt::Display| {
            let named_by =
                if is_from_variable { format!(" of {}", discover::VARIABLE) } else { String::new() };
            let diagnostic =
                Diagnostic::new(format!("cannot read the configuration {file}{named_by}: {why}"));
            let help = Advice::from(Remedy::NameConfiguration).with_text(", or correct this one");
            Diagnostics(vec![diagnostic.with_help(help)])
        };
        let bytes = read_at_most(path, MAX_FILE_BYTES).map_err(|error| read_error(&error))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let content = content_of(folder, &bytes);
        let text = String::from_utf8(bytes).map_err(|error| read_error(&error.utf8_error()))?;
        let dot_env = DotEnv::read(folder)?.without(env)?;
        let config = Self::read(Document::parse(&file, &text), &text, folder, purpose, dot_env, env)?;
        Ok(Self { file: Some(path.to_owned()), file_content: Some(content), ..config })
    }

    /// Parses `text`. Diagnostics refer to it as `file`. If it has no provider, the providers of the environment
    /// variables are used.
    ///
    /// # Errors
    /// All errors of the configuration.
    #[doc(hidden)]
    pub fn parse(file: &str, text: &str, env: Env<'_>) -> Result<Self, Diagnostics> {
        let document = Document::parse(file, text);
        Self::read(document, text, Path::new(""), Purpose::Requests, DotEnv::default(), env)
    }

    /// Reads a text that the builder has written. Diagnostics name keys instead of positions.
    ///
    /// # Errors
    /// All errors of the configuration.
    pub(super) fn parse_generated(text: &str, env: Env<'_>) -> Result<Self, Diagnostics> {
        let document = Document::generated(text);
        let folder = Path::new("");
        let mut config = Self::read(document, text, folder, Purpose::Requests, DotEnv::default(), env)?;
        config.written_keys.set_generated();
        Ok(config)
    }

    /// Reads and checks a document, which was parsed from `text`. `folder` is that of its file; it is empty for a text
    /// without a file.
    fn read(
        document: Result<Document, Diagnostics>,
        text: &str,
        folder: &Path,
        purpose: Purpose<'_>,
        dot_env: DotEnv,
        env: Env<'_>,
    ) -> Result<Self, Diagnostics> {
        let env: Env<'_> = &|name| dot_env.value(env, name);
        let document = document.map_err(|mut diagnostics| {
            diagnostics.redact(&provider::guess_secrets(text));
            diagnostics
        })?;
        let document = document.with_dotted_names(dotted_models::MODEL_TABLES);
        let (raw, mut diagnostics) = document.read::<RawConfig>();
        let spans = document.spans();
        dotted_models::advise_quotes(&spans, &mut diagnostics);
        let mut config = Self::from(raw);
        config.written_keys = WrittenKeys::of(&spans);
        config.resolve_paths(folder, &spans);
        if !spans.contains(&["provider"]) {
            diagnostics.extend(config.use_environment(purpose, env));
        }
        diagnostics.extend(config.use_only_if(purpose, env));
        config.set_defaults();
        config.inherit_limits(&spans);
        let needs_models = purpose.needs_configured_model();
        let check = Check { config: &config, spans: &spans, parse_diagnostics: &diagnostics, needs_models };
        let more = check.run();
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
            if needs_models {
                diagnostics.extend(Check::check_default_route(&config, &spans));
            }
        }
        config.set_default_route();
        // Located last: the checks compare positions, and the diagnostics are sorted by them.
        let mut config = diagnostics.into_result(config).map_err(|mut diagnostics| {
            document.locate_by_key(&mut diagnostics);
            diagnostics.redact(&secrets);
            diagnostics
        })?;
        config.dot_env = dot_env;
        Ok(config)
    }

    /// Builds a configuration from environment variables such as `OPENAI_API_KEY`.
    ///
    /// # Errors
    /// All errors of the configuration.
    #[doc(hidden)]
    pub fn from_env_with(env: Env<'_>) -> Result<Self, Diagnostics> {
        Self::of_environment(Purpose::Requests, DotEnv::default(), env)
    }

    fn of_environment(purpose: Purpose<'_>, dot_env: DotEnv, env: Env<'_>) -> Result<Self, Diagnostics> {
        let env: Env<'_> = &|name| dot_env.value(env, name);
        let mut config = Self::default();
        let mut diagnostics = config.use_environment(purpose, env);
        diagnostics.extend(config.use_only_if(purpose, env));
        config.set_defaults();
        config.add_default_route();
        config.set_default_route();
        let mut config = diagnostics.into_result(config)?;
        config.dot_env = dot_env;
        Ok(config)
    }

    /// Uses the only model that a caller wants, if it wants one.
    fn use_only_if(&mut self, purpose: Purpose<'_>, env: Env<'_>) -> Diagnostics {
        let wrong = match purpose {
            Purpose::OnlyModel(only) => self.use_only(only, env).err(),
            Purpose::Requests | Purpose::Simulation | Purpose::ModelList => None,
        };
        Diagnostics(wrong.into_iter().collect())
    }

    fn use_environment(&mut self, purpose: Purpose<'_>, env: Env<'_>) -> Diagnostics {
        let mut found = environment::read(env, purpose.needs_model());
        match purpose {
            Purpose::Requests | Purpose::OnlyModel(_) | Purpose::Simulation => {}
            Purpose::ModelList => environment::add_vendors_without_models(env, &mut found),
        }
        self.providers = found.providers;
        self.notes = found.notes;
        self.written_keys.add_variables(found.variables);
        found.diagnostics
    }

    /// Makes relative paths relative to the folder of the file. The store that is not configured stays in the working
    /// directory: a configuration of the user must not gather the runs of all directories.
    fn resolve_paths(&mut self, folder: &Path, spans: &Spans<'_>) {
        self.serve.resolve_paths(folder);
        for allowed in &mut self.files.allow {
            *allowed = folder.join(&*allowed);
        }
        if spans.contains(&["store", "url"])
            && let StoreUrl::Sqlite(path) = &mut self.store.url
        {
            *path = folder.join(&*path);
        }
        for settings in self.providers.values_mut() {
            let of_headers = settings.headers.values_mut().filter_map(|header| match header {
                HeaderSource::Read(source) => Some(source),
                HeaderSource::Value(_) => None,
            });
            for source in settings.keys.iter_mut().chain(of_headers) {
                match source {
                    KeySource::File(path) => *path = folder.join(&*path),
                    KeySource::Env(_) | KeySource::Command(_) => {}
                }
            }
        }
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
            dot_env: DotEnv::default(),
            key_positions: KeyPositions::default(),
            written_keys: WrittenKeys::default(),
        }
    }
}
