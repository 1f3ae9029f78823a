//! Whether the daemon can take work.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// How long an answer is used again, so that callers cannot make the daemon write often.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The reason of a daemon that stops. It checks nothing else then.
pub(super) const STOPPING: &str = "the daemon is stopping";

/// The reason of a daemon whose store cannot be written.
pub(super) const STORE_UNWRITABLE: &str = "the store cannot be written";

/// Whether the daemon can take work, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Readiness {
    /// `ready` or `not_ready`.
    pub status: &'static str,
    /// Why it is not ready.
    pub reasons: Vec<Reason>,
}

/// A reason why a daemon is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Reason {
    /// What is wrong.
    pub reason: &'static str,
    /// More about it, for callers who may see everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The last answer.
#[derive(Debug, Default)]
pub(super) struct LastReadiness(Mutex<Option<(Instant, Readiness)>>);

impl LastReadiness {
    /// Returns the last answer, if it is recent.
    pub(super) fn recent(&self) -> Option<Readiness> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE).map(|(_, readiness)| readiness.clone())
    }

    pub(super) fn set(&self, readiness: Readiness) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), readiness));
    }
}

impl Readiness {
    pub(super) fn of(reasons: Vec<Reason>) -> Self {
        let status = if reasons.is_empty() { "ready" } else { "not_ready" };
        Self { status, reasons }
    }

    /// Returns whether the daemon can take work.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Returns whether the store can be written; `None` if it was not checked.
    pub(super) fn is_store_writable(&self) -> Option<bool> {
        let has = |reason: &str| self.reasons.iter().any(|found| found.reason == reason);
        if has(STOPPING) { None } else { Some(!has(STORE_UNWRITABLE)) }
    }

    /// Returns the same without details.
    #[must_use]
    pub fn without_details(mut self) -> Self {
        self.reasons.iter_mut().for_each(|reason| reason.detail = None);
        self
    }
}
