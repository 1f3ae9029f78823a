//! Why something could not be started.

use crate::document::Faults;
use crate::pipeline::source;
use crate::provider;
use crate::supervisor;
use crate::types::ProviderName;

/// Why something could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration or a pipeline is wrong.
    #[error("{0}")]
    Faults(Faults),
    /// A provider cannot be set up.
    #[error("cannot set up {provider}")]
    Provider {
        /// Which.
        provider: ProviderName,
        /// Why.
        source: provider::Error,
    },
    /// No thread, or no socket for the simulator, could be had.
    #[error("cannot start {what}")]
    System {
        /// What was to be started.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// An actor was not started.
    #[error("cannot start an actor")]
    Actor(#[source] supervisor::Error),
    /// An actor was not restarted.
    #[error("cannot restart an actor")]
    Restart(#[source] supervisor::Error),
    /// The source cannot be read.
    #[error("cannot read the items")]
    Source(#[source] source::Error),
    /// A played provider is configured, and this build has no simulator.
    #[error("{0} is played by the simulator, which this build lacks; build with the feature `server`")]
    NoSimulator(ProviderName),
    /// The threads have ended.
    #[error("pointsman has stopped")]
    Stopped,
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}
