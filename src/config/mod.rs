//! Configuration: finds and reads its file or environment variables, combines the settings of all modules, checks
//! them, and reports all errors at once.
//!
//! API keys are read separately, by [`Config::resolve`]. A [`Config`] contains no keys, except in the variables of its
//! `.env` file, which it never shows.

mod budget;
mod builder;
mod byte_size;
mod check;
mod discover;
mod dot_env;
mod dotted_models;
mod effective;
mod effective_toml;
mod environment;
mod files;
mod glob;
mod key_positions;
mod lint;
mod load;
mod only_model;
mod prices;
mod resolve;
mod run;
mod serve;
mod settings;
mod starter;
mod store;
mod supervisor;
mod written_keys;

pub use budget::{BudgetSettings, parse_cap};
pub use builder::{ConfigBuilder, ModelBuilder, ProviderBuilder};
pub use byte_size::ByteSize;
pub(crate) use check::suggest;
#[cfg(feature = "cli")]
pub(crate) use discover::FILE_NAMES;
pub use effective::{EffectiveValue, ValueSource};
pub use files::FileSettings;
pub use load::LoadOptions;
#[cfg(feature = "server")]
pub(crate) use load::file_content;
pub use prices::{PriceChange, PriceList, Vendor};
pub use resolve::{ResolvedConfig, ResolvedProvider};
pub use run::{MaxHold, RunSettings};
pub use serve::{ServeSettings, TlsSettings, TokenMode};
pub use settings::Config;
pub use starter::Starter;
pub use store::{KeepInputs, StoreSettings};
pub use supervisor::SupervisorSettings;

#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests;
