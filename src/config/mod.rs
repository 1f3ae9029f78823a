//! Configuration: reads `config.toml` or environment variables, combines the settings of all modules, checks
//! them, and reports all errors at once.
//!
//! API keys are read separately, by [`Config::resolve`]. A [`Config`] contains no keys.

mod budget;
mod builder;
mod byte_size;
mod check;
mod effective;
mod environment;
mod files;
mod glob;
mod key_positions;
mod lint;
mod load;
mod prices;
mod resolve;
mod run;
mod serve;
mod settings;
mod store;
mod supervisor;
mod written_keys;

pub use budget::{BudgetSettings, parse_cap};
pub use builder::{ConfigBuilder, ModelBuilder, ProviderBuilder};
pub use byte_size::ByteSize;
pub(crate) use check::suggest;
pub use effective::{EffectiveValue, ValueSource};
pub use files::FileSettings;
#[cfg(all(feature = "cli", feature = "server"))]
pub(crate) use load::DEFAULT_FILE;
pub use prices::{PriceChange, PriceList, Vendor};
pub use resolve::{ResolvedConfig, ResolvedProvider};
pub use run::{MaxHold, RunSettings};
pub use serve::{ServeSettings, TlsSettings, TokenMode};
pub use settings::Config;
pub use store::{KeepInputs, StoreSettings};
pub use supervisor::SupervisorSettings;

#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests;
