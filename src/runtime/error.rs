//! Why something could not be started.

use crate::clock::ClockError;
use crate::document::Faults;
use crate::pipeline::Changes;
use crate::provider;
use crate::source;
use crate::store::{self, RunNumber};
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
    /// The store refuses, or cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A run is not what it was when it began.
    #[error(
        "run {run} has changed since it began: {changes}. It has {settled} settled items; of {answers} answers {} stay \
         valid. Accept the changes (--accept-changes) to go on with it and to ask only what they reach, or begin a new \
         run (--new)",
        if changes.models_gone.is_empty() || *stay == 0 { stay.to_string() } else { format!("{stay} at most") }
    )]
    Changed {
        /// The run.
        run: RunNumber,
        /// What is another.
        changes: Box<Changes>,
        /// Items that it has settled.
        settled: u64,
        /// Answers that it has.
        answers: u64,
        /// Those of them that no changed step reaches.
        stay: u64,
    },
    /// Another process began the run after this start was prepared, and items of it have settled.
    #[error(
        "another process has begun run {run} since this start of it was prepared, and {settled} of its items have settled: \
         run the same command again to resume it"
    )]
    BegunMeanwhile {
        /// The run.
        run: RunNumber,
        /// Items that have settled.
        settled: u64,
    },
    /// A run of real answers was to go on with simulated ones.
    #[error(
        "run {0} has real answers, and a simulated run never goes on with it: leave --simulate out, or begin a run of its own"
    )]
    RealRun(RunNumber),
    /// A simulated run was to go on with real answers.
    #[error("run {0} is simulated, and real answers never go on with it: begin a run of its own")]
    SimulatedRun(RunNumber),
    /// What a run depends on could not be written down.
    #[error("cannot write down what the run depends on: {0}")]
    Grounds(String),
    /// A simulated provider is configured, and this build has no simulator.
    #[error("{0} is simulated by the simulator, which this build lacks; build with the feature `server`")]
    NoSimulator(ProviderName),
    /// The system's clock is wrong beyond use.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The threads have ended.
    #[error("pointsman has stopped")]
    Stopped,
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}
