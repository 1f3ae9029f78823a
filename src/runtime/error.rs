//! Errors of the runtime.

use crate::clock::ClockError;
use crate::diagnostics::Diagnostics;
use crate::pipeline::ManifestDiff;
use crate::provider;
use crate::source;
use crate::store::{self, RunNumber};
use crate::supervisor;
use crate::types::ProviderName;

/// An error of [`Pointsman`](super::Pointsman).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration or a pipeline is wrong.
    #[error("{0}")]
    Diagnostics(Diagnostics),
    /// A provider cannot be set up.
    #[error("cannot set up {provider}")]
    Provider {
        /// The provider.
        provider: ProviderName,
        /// The cause.
        source: provider::Error,
    },
    /// The system refused a thread, a socket or a file.
    #[error("cannot start {what}")]
    System {
        /// What could not be started.
        what: &'static str,
        /// The cause.
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
    /// The store refused an operation, or cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The pipeline, models or prices of a run have changed since it began.
    #[error(
        "run {run} has changed since it began: {changes}. Finished items: {finished}; answers that stay valid: {} of \
         {answers}. Accept the changes (--accept-changes) to resume it and to process only what they affect, or begin a new \
         run (--new)",
        if changes.removed_models.is_empty() || *still_valid == 0 {
            still_valid.to_string()
        } else {
            format!("at most {still_valid}")
        }
    )]
    Changed {
        /// The run.
        run: RunNumber,
        /// The changes.
        changes: Box<ManifestDiff>,
        /// Finished items of the run.
        finished: u64,
        /// Stored answers of the run.
        answers: u64,
        /// Stored answers that no change affects.
        still_valid: u64,
    },
    /// Another process started the run after this one had prepared it, and some of its items have
    /// finished.
    #[error(
        "another process has started run {run} in the meantime, and {finished} of its items have finished: \
         run the same command again to resume it"
    )]
    StartedElsewhere {
        /// The run.
        run: RunNumber,
        /// Finished items.
        finished: u64,
    },
    /// A run with real answers cannot be resumed as a simulated run.
    #[error(
        "run {0} has real answers and cannot be resumed with simulated ones: leave --simulate out, or begin a new run"
    )]
    RealRun(RunNumber),
    /// A simulated run cannot be resumed with real answers.
    #[error("run {0} is simulated and cannot be resumed with real answers: begin a new run")]
    SimulatedRun(RunNumber),
    /// The manifest of a run cannot be serialized.
    #[error("cannot serialize the run's manifest: {0}")]
    Manifest(String),
    /// A simulated provider is configured, and this build has no simulator.
    #[error("{0} is simulated, and this build has no simulator; build with the feature `server`")]
    NoSimulator(ProviderName),
    /// The system clock is out of range.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// Pointsman has stopped.
    #[error("pointsman has stopped")]
    Stopped,
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Diagnostics(diagnostics)
    }
}
