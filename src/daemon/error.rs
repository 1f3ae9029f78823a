//! Errors of the daemon, each with its kind and what the caller can do.

use tokio::task::JoinError;

use crate::diagnostics::Diagnostics;
use crate::runtime;
use crate::store;

/// An error of a [`Daemon`](super::Daemon).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such thing, or its caller may not see it.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// What it is, such as `pipeline`.
        what: &'static str,
        /// The name by which it was looked up.
        name: String,
    },
    /// The request contradicts the present state.
    #[error("{message}")]
    Conflict {
        /// What contradicts it, with advice.
        message: String,
    },
    /// Changes since a run began affect its stored answers.
    #[error("{message}")]
    Changed {
        /// What has changed.
        message: String,
    },
    /// Something else than what the request expects to find is there.
    #[error("{message}")]
    Precondition {
        /// What is there, with advice.
        message: String,
    },
    /// The request is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong, with advice.
        message: String,
    },
    /// A configuration or a pipeline is wrong.
    #[error("{0}")]
    Diagnostics(Diagnostics),
    /// The caller may see it and not change it.
    #[error("the run belongs to another token: only that one and tokens with `admin` may change it")]
    Forbidden,
    /// The caller has to wait.
    #[error("{message}")]
    Busy {
        /// For what.
        message: String,
        /// How long, in whole seconds.
        retry_after: u64,
    },
    /// A file of the daemon cannot be read or written.
    #[error("cannot {doing}")]
    Io {
        /// What failed, such as `write the items`.
        doing: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The store refused an operation, or cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The runtime refused an operation.
    #[error(transparent)]
    Runtime(runtime::Error),
    /// The daemon stops and takes no more work.
    #[error("the daemon is stopping")]
    Stopping,
}

/// What kind of error it is. It decides how a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Kind {
    /// There is no such thing.
    NotFound,
    /// The request contradicts the present state.
    Conflict,
    /// Changes since a run began affect its stored answers.
    Changed,
    /// Something else than what the request expects to find is there.
    Precondition,
    /// The request is wrong.
    Invalid,
    /// The caller may not do it.
    Forbidden,
    /// The caller has to wait.
    Busy,
    /// The daemon stops.
    Stopping,
    /// The daemon cannot do it: the disk, the store, or an internal error.
    Internal,
}

impl Error {
    /// Returns the kind of the error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::NotFound,
            Self::Conflict { .. } => Kind::Conflict,
            Self::Changed { .. } => Kind::Changed,
            Self::Precondition { .. } => Kind::Precondition,
            Self::Invalid { .. } | Self::Diagnostics(_) => Kind::Invalid,
            Self::Forbidden => Kind::Forbidden,
            Self::Busy { .. } => Kind::Busy,
            Self::Stopping => Kind::Stopping,
            Self::Io { .. } => Kind::Internal,
            Self::Store(error) => kind_of_store_error(error),
            Self::Runtime(error) => kind_of_runtime_error(error),
        }
    }

    /// Returns the diagnostics of a configuration or a pipeline, if it has any.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        match self {
            Self::Diagnostics(diagnostics) => Some(diagnostics),
            Self::Runtime(runtime::Error::Diagnostics(diagnostics)) => Some(diagnostics),
            _ => None,
        }
    }

    /// Returns what the caller can do about it, if its message does not say so already.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Stopping => Some("send the request again when the daemon has started again".to_owned()),
            Self::Changed { .. } => Some(
                "send {\"accept_changes\": true} to process only what the changes affect, or create a new run"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::Conflict { message: message.into() }
    }

    pub(super) fn precondition(message: impl Into<String>) -> Self {
        Self::Precondition { message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into() }
    }

    /// Something could not be written as JSON.
    pub(crate) fn json(error: serde_json::Error) -> Self {
        Self::Io { doing: "write JSON".to_owned(), source: error.into() }
    }

    /// A task has no result: the runtime has stopped, or the task panicked.
    pub(super) fn ended_early(error: JoinError) -> Self {
        if error.is_cancelled() { Self::Stopping } else { Self::io("finish an operation")(error.into()) }
    }

    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

fn kind_of_store_error(error: &store::Error) -> Kind {
    match error {
        store::Error::NoRun(_) => Kind::NotFound,
        store::Error::Busy { .. } => Kind::Conflict,
        store::Error::VersionConflict { .. } => Kind::Precondition,
        store::Error::DocumentTooLarge { .. }
        | store::Error::DocumentTooDeep { .. }
        | store::Error::TooMuchSpending { .. } => Kind::Invalid,
        _ => Kind::Internal,
    }
}

fn kind_of_runtime_error(error: &runtime::Error) -> Kind {
    match error {
        runtime::Error::Diagnostics(_) | runtime::Error::Source(_) | runtime::Error::ScopeName(_) => {
            Kind::Invalid
        }
        runtime::Error::Changed { .. } => Kind::Changed,
        runtime::Error::StartedElsewhere { .. }
        | runtime::Error::RealRun(_)
        | runtime::Error::SimulatedRun(_)
        | runtime::Error::OtherPipeline => Kind::Conflict,
        runtime::Error::UnknownProvider { .. } | runtime::Error::UnknownTarget { .. } => Kind::NotFound,
        runtime::Error::Store(error) => kind_of_store_error(error),
        runtime::Error::Stopped => Kind::Stopping,
        _ => Kind::Internal,
    }
}

/// Returns the message of an error without its advice, with which it ends and which is about the library.
fn without_advice(error: &runtime::Error) -> String {
    let message = error.to_string();
    let advice = error.advice().map(|advice| advice.to_string()).unwrap_or_default();
    message.strip_suffix(&advice).unwrap_or(&message).trim_end().trim_end_matches('.').to_owned()
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Diagnostics(diagnostics)
    }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Self {
        match error {
            runtime::Error::Stopped => Self::Stopping,
            runtime::Error::Store(error) => Self::Store(error),
            runtime::Error::Diagnostics(diagnostics) => Self::Diagnostics(diagnostics),
            error @ runtime::Error::Changed { .. } => Self::Changed { message: without_advice(&error) },
            error => Self::Runtime(error),
        }
    }
}
