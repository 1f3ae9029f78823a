//! Keeps one provider at the edge of its limits and never over it.

mod key_source;
mod model;
mod settings;

pub use key_source::{Env, HeaderSource, Key, KeyError, KeySource};
pub use model::Model;
pub use settings::{Limits, Settings, Timeouts, parse_base_url};
