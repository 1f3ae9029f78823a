//! May this call leave now?

mod settings;

pub use settings::BreakerSettings;
