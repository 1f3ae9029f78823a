//! The configuration in use, candidates for it, and the prices of its models.

use serde::Serialize;

use crate::config::{EffectiveValue, PriceList};
use crate::provider::process_env;
use crate::runtime;
use crate::types::{Fingerprint, Price};

use super::daemon::Daemon;
use super::error::Error;
use super::text_parser::length_problem;

/// The configuration in use. No value is secret.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct ConfigView {
    /// The file; null if there is none.
    pub file: Option<String>,
    /// Identifies the values.
    pub etag: String,
    /// Why the last reload changed nothing; null if it was applied.
    pub reload_fault: Option<String>,
    /// A line for each provider that is left out or simulated, and hints.
    pub notes: Vec<String>,
    /// All values that are set or have a default.
    pub values: Vec<EffectiveValue>,
}

/// The result of the check of a candidate for the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct ConfigCheck {
    /// Whether it can be used.
    pub valid: bool,
    /// What is wrong with it, all of it; empty if it is valid.
    pub problems: Vec<String>,
    /// A line for each provider that would be left out or simulated, and hints; empty if it is not valid.
    pub notes: Vec<String>,
}

/// The prices of the models.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct PricesView {
    /// When the list that is built in was read; null if it cannot be read.
    pub built_in_list_of: Option<String>,
    /// The prices of all models.
    pub prices: Vec<PriceView>,
}

/// The price of a model.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct PriceView {
    /// The target, `provider/model`.
    pub target: String,
    /// In US dollars per million tokens; null if it is unknown.
    #[schema(value_type = Option<Object>)]
    pub price: Option<Price>,
    /// `configuration`, `built_in_list`, `simulated` or `unknown`.
    pub source: &'static str,
}

impl Daemon {
    /// Returns the configuration in use.
    pub fn configuration(&self) -> ConfigView {
        let config = self.config();
        let values = config.effective();
        let notes = self.pointsman().notes();
        let text = serde_json::to_string(&(&values, &notes)).unwrap_or_default();
        ConfigView {
            file: config.file().map(|file| file.display().to_string()),
            etag: Fingerprint::of([text.as_bytes()]).to_string(),
            reload_fault: self.reload_fault(),
            notes,
            values,
        }
    }

    /// Checks a candidate for the configuration. It reads no file that the candidate names, and runs none of its commands.
    ///
    /// # Errors
    /// If too many texts are being read, or the daemon stops.
    pub async fn check_configuration(&self, text: &str) -> Result<ConfigCheck, Error> {
        let faulty = |problems| ConfigCheck { valid: false, problems, notes: Vec::new() };
        if let Some(problem) = length_problem(text) {
            return Ok(faulty(vec![problem]));
        }
        let text = text.to_owned();
        let config = self.config();
        let env = move |name: &str| config.variable(&process_env, name);
        let check = move || match runtime::check_text(&text, &env) {
            Ok(notes) => ConfigCheck { valid: true, problems: Vec::new(), notes },
            Err(diagnostics) => faulty(diagnostics.texts()),
        };
        self.catalogue().given().parse(self.pointsman(), check).await
    }

    /// Returns the prices of the configured models.
    pub fn prices(&self) -> PricesView {
        let config = self.config();
        let models = config.providers.iter().flat_map(|(provider, settings)| {
            settings.models.iter().map(move |(name, model)| PriceView {
                target: format!("{provider}/{name}"),
                price: model.price,
                source: match model.price {
                    Some(_) if model.has_builtin_price => "built_in_list",
                    Some(_) => "configuration",
                    None if settings.is_simulated() => "simulated",
                    None => "unknown",
                },
            })
        });
        PricesView {
            built_in_list_of: PriceList::built_in().map(|list| list.read.to_string()),
            prices: models.collect(),
        }
    }
}
