//! Errors of the runtime.

use crate::clock::ClockError;
use crate::diagnostics::Diagnostics;
use crate::pipeline::ManifestDiff;
use crate::provider;
use crate::sink;
use crate::source;
use crate::store::{self, RunNumber};
use crate::supervisor;
use crate::types::{Advice, ProviderName, Remedy, ScopeNameError, TargetName};

/// An error of [`Pointsman`](super::Pointsman).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
        "run {run} has changed since it began: {changes}. Finished items: {finished}; {}. {}",
        valid_answers(changes, *still_valid, *answers, *has_earlier_versions),
        changed_advice()
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
        /// Whether changes were accepted before: answers from before them may be valid again.
        has_earlier_versions: bool,
    },
    /// Another process started the run after this one had prepared it, and some of its items have
    /// finished.
    #[error(
        "another process has started run {run} in the meantime, and {finished} of its items have finished: \
         start it again to resume it"
    )]
    StartedElsewhere {
        /// The run.
        run: RunNumber,
        /// Finished items.
        finished: u64,
    },
    /// A run with real answers cannot be resumed as a simulated run.
    #[error(
        "run {run} has real answers and cannot be resumed with simulated ones: {advice}",
        run = .0,
        advice = real_run_advice()
    )]
    RealRun(RunNumber),
    /// The pipeline is not the one with which the run was prepared.
    #[error(
        "the run was prepared with another pipeline: prepare it with the pipeline that it is started with"
    )]
    OtherPipeline,
    /// A simulated run cannot be resumed with real answers.
    #[error(
        "run {run} is simulated and cannot be resumed with real answers: {advice}",
        run = .0,
        advice = Remedy::BeginNewRun
    )]
    SimulatedRun(RunNumber),
    /// The manifest of a run cannot be serialized.
    #[error("cannot serialize the run's manifest: {0}")]
    Manifest(String),
    /// A simulated provider is configured, and this build has no simulator.
    #[error("{0} is simulated, and this build has no simulator; build with the feature `simulator`")]
    NoSimulator(ProviderName),
    /// There is no such provider in the configuration in use.
    #[error("there is no provider `{name}`; {help}")]
    UnknownProvider {
        /// The name.
        name: ProviderName,
        /// A similar name, or the known ones.
        help: String,
    },
    /// There is no such target in the configuration in use.
    #[error("there is no target `{name}`; {help}")]
    UnknownTarget {
        /// The name.
        name: TargetName,
        /// A similar name, or the known ones.
        help: String,
    },
    /// The scope of a run has a name that no scope may have.
    #[error(transparent)]
    ScopeName(#[from] ScopeNameError),
    /// The system clock is out of range.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The results of a run cannot have the fields of its items.
    #[error(
        "the fields of {} of its finished items are not stored (`keep_inputs` of `[store]`), and its input cannot be read or \
         has these items no more: the results cannot have the columns of the input; {}",
        items,
        Remedy::MinimalColumns
    )]
    FieldsNotStored {
        /// How many items.
        items: u64,
    },
    /// The results of a run cannot be written.
    #[error(transparent)]
    Output(sink::Error),
    /// Pointsman has stopped.
    #[error("pointsman has stopped")]
    Stopped,
}

fn valid_answers(changes: &ManifestDiff, valid: u64, answers: u64, has_earlier_versions: bool) -> String {
    let at_most = if changes.removed_models.is_empty() || valid == 0 { "" } else { "at most " };
    if has_earlier_versions {
        format!(
            "answers of the last version that stay valid: {at_most}{valid} of {answers}; answers of earlier versions that \
             are valid again are reused too"
        )
    } else {
        format!("answers that stay valid: {at_most}{valid} of {answers}")
    }
}

fn changed_advice() -> Advice {
    Advice::from("To resume it and to process only what is affected, ")
        .with_remedy(Remedy::AcceptChanges)
        .with_text("; otherwise, ")
        .with_remedy(Remedy::BeginNewRun)
}

fn real_run_advice() -> Advice {
    Advice::from(Remedy::UseRealAnswers).with_text(", or ").with_remedy(Remedy::BeginNewRun)
}

impl Error {
    /// Returns what the user can do about it, with which its message ends. That of an error with a `source` and
    /// the help of [`Diagnostics`] are not included.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::Changed { .. } => Some(changed_advice()),
            Self::RealRun(_) => Some(real_run_advice()),
            Self::SimulatedRun(_) => Some(Remedy::BeginNewRun.into()),
            Self::FieldsNotStored { .. } => Some(Remedy::MinimalColumns.into()),
            Self::Output(error) => error.advice(),
            Self::Store(error) => error.advice(),
            Self::Diagnostics(_)
            | Self::Provider { .. }
            | Self::System { .. }
            | Self::Actor(_)
            | Self::Restart(_)
            | Self::Source(_)
            | Self::StartedElsewhere { .. }
            | Self::Manifest(_)
            | Self::OtherPipeline
            | Self::NoSimulator(_)
            | Self::UnknownProvider { .. }
            | Self::UnknownTarget { .. }
            | Self::ScopeName(_)
            | Self::Clock(_)
            | Self::Stopped => None,
        }
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Diagnostics(diagnostics)
    }
}
