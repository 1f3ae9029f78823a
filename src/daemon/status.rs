//! The state of the daemon as a whole, for operators.

use futures_util::future::join_all;
use serde::Serialize;

use crate::clock;
use crate::provider::Snapshot;
use crate::run::Cap;
use crate::store::StoredRun;
use crate::types::Day;

use super::daemon::Daemon;
use super::error::Error;
use super::readiness::Reason;
use super::unfinished_runs::{StoredCounts, UnfinishedRun};

/// The state of a daemon.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct DaemonStatus {
    /// The version of the program.
    pub version: &'static str,
    /// How long it has run, in seconds.
    pub uptime_seconds: f64,
    /// Whether it can take work.
    pub ready: bool,
    /// Why it cannot take work.
    pub reasons: Vec<Reason>,
    /// Its runs by state.
    pub runs: RunCounts,
    /// What its runs wait for that have not ended: first those that nothing continues, then those that wait for their user,
    /// at most 20.
    pub unfinished_runs: Vec<UnfinishedRun>,
    /// The state of all usable providers.
    #[cfg_attr(feature = "server", schema(value_type = Vec<Object>))]
    pub providers: Vec<Snapshot>,
    /// What was spent today (UTC), in US dollars.
    pub spent_today_usd: f64,
    /// The caps of the day, and what counts against each.
    #[cfg_attr(feature = "server", schema(value_type = Vec<Object>))]
    pub caps: Vec<Cap>,
}

/// How many runs are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct RunCounts {
    /// Runs on which the daemon works.
    pub open: usize,
    /// Of those, runs that wait by themselves for an account or a provider.
    pub holding: usize,
    /// Runs that wait for their user.
    pub paused: usize,
    /// Other runs that have not ended, on which nothing works: they were stopped, their process ended, or an input, an output
    /// or the store failed.
    pub stuck: usize,
}

impl Daemon {
    /// Returns the state of the daemon.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn status(&self) -> Result<DaemonStatus, Error> {
        let readiness = self.readiness().await;
        let today = Day::at(clock::milliseconds());
        let unfinished = self.unfinished_runs().await?;
        let runs = self.run_counts(&unfinished).await;
        let spending = self.spending(today, today, &[]).await?;
        Ok(DaemonStatus {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.uptime().as_secs_f64(),
            ready: readiness.is_ready(),
            reasons: readiness.reasons,
            runs,
            unfinished_runs: self.most_urgent(unfinished).await?,
            providers: self.providers(),
            spent_today_usd: spending.iter().fold(0.0, |sum, row| sum + row.cost_usd),
            caps: self.caps(),
        })
    }

    async fn run_counts(&self, unfinished: &[StoredRun]) -> RunCounts {
        let stored = StoredCounts::of(&**self.store(), unfinished);
        let numbers = self.open_runs().numbers();
        // Together: each run in progress takes a moment to publish its progress.
        let progress = join_all(numbers.iter().map(|run| self.open_runs().progress(*run))).await;
        let open = progress.iter().flatten();
        let holding = open.filter(|progress| progress.holding.is_some()).count();
        RunCounts { open: numbers.len(), holding, paused: stored.paused, stuck: stored.stuck() }
    }
}
