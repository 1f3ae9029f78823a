//! The roof over every room's settings: reads `config.toml` or the environment, and refuses what
//! makes no sense, every fault at once.
//!
//! Keys are read last and apart, by [`Config::usable`]: a configuration holds none.

mod budget;
mod byte_size;
mod check;
mod environment;
mod files;
mod hide;
mod key_places;
mod load;
mod prices;
mod run;
mod store;
mod supervisor;
mod usable;
mod vain;

pub use budget::{BudgetSettings, parse_cap};
pub use byte_size::ByteSize;
pub use files::FileSettings;
pub use load::Config;
pub use prices::{PriceList, Then, Vendor};
pub use run::{MaxHold, RunSettings};
pub use store::{Inputs, StoreSettings};
pub use supervisor::SupervisorSettings;
pub use usable::{ReadyProvider, Usable};

#[cfg(test)]
#[cfg(feature = "server")]
mod mistakes;
#[cfg(test)]
#[cfg(feature = "server")]
mod shipped;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
