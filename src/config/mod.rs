//! Configuration: reads `config.toml` or environment variables, combines the settings of all modules, checks
//! them, and reports all errors at once.
//!
//! API keys are read separately, by [`Config::resolve`]. A [`Config`] contains no keys.

mod budget;
mod builder;
mod byte_size;
mod check;
mod environment;
mod files;
mod key_positions;
mod lint;
mod load;
mod prices;
mod resolve;
mod run;
mod settings;
mod store;
mod supervisor;

pub use budget::{BudgetSettings, parse_cap};
pub use builder::{ConfigBuilder, ModelBuilder, ProviderBuilder};
pub use byte_size::ByteSize;
pub use files::FileSettings;
pub use prices::{PriceChange, PriceList, Vendor};
pub use resolve::{ResolvedConfig, ResolvedProvider};
pub use run::{MaxHold, RunSettings};
pub use settings::Config;
pub use store::{KeepInputs, StoreSettings};
pub use supervisor::SupervisorSettings;

#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
