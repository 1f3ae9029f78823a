//! The open runs of a process. No run begins after the shutdown has started, and a drain waits until each is
//! closed.
//!
//! This module only counts runs: each run's task decides what a phase means for it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::Error;

/// How long runs may take to close after their items were cancelled: cancelled calls are recorded, lines are
/// written, and the last commit reaches the disk.
const MAX_CLOSING_TIME: Duration = Duration::from_secs(10);

/// What runs may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShutdownPhase {
    /// Everything.
    Running,
    /// No item begins; items in flight may end.
    Draining,
    /// Items in flight are cancelled.
    Aborting,
}

/// The open runs.
#[derive(Debug)]
pub(super) struct OpenRuns(watch::Sender<ShutdownPhase>);

/// An open run. It counts as open until it is dropped.
#[derive(Debug)]
pub(super) struct OpenRun(watch::Receiver<ShutdownPhase>);

impl OpenRuns {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(ShutdownPhase::Running))
    }

    /// Registers a run that is about to begin.
    ///
    /// # Errors
    /// If the shutdown has started.
    pub(super) fn register(&self) -> Result<OpenRun, Error> {
        let phase = self.0.subscribe();
        // The phase is read after the run was counted, so that a drain which begins in between waits for it.
        let is_open = *phase.borrow() == ShutdownPhase::Running;
        if is_open { Ok(OpenRun(phase)) } else { Err(Error::Stopped) }
    }

    /// Returns the number of open runs.
    pub(super) fn count(&self) -> usize {
        self.0.receiver_count()
    }

    /// Lets no run begin any more, cancels at `by` what is then in flight, and returns when every run is closed,
    /// or `MAX_CLOSING_TIME` after `by`.
    pub(super) async fn close(&self, by: Instant) {
        self.advance_to(ShutdownPhase::Draining);
        if timeout_at(by, self.0.closed()).await.is_ok() {
            return;
        }
        self.advance_to(ShutdownPhase::Aborting);
        if timeout(MAX_CLOSING_TIME, self.0.closed()).await.is_err() {
            let runs = self.0.receiver_count();
            tracing::error!(
                runs,
                "runs could not be closed in time; some of their spend may not be recorded"
            );
        }
    }

    fn advance_to(&self, next: ShutdownPhase) {
        self.0.send_if_modified(|phase| {
            let later = next > *phase;
            *phase = next.max(*phase);
            later
        });
    }
}

impl OpenRun {
    /// Waits for a later phase than `now`, and returns it. Does not return without a shutdown.
    pub(super) async fn next_phase(&mut self, now: ShutdownPhase) -> ShutdownPhase {
        let later = self.0.wait_for(|phase| *phase > now).await.map(|phase| *phase);
        match later {
            Ok(later) => later,
            // The sender is dropped, so nothing can stop the run any more: it runs to its end.
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns whether the shutdown has started.
    pub(super) fn is_stopping(&self) -> bool {
        *self.0.borrow() > ShutdownPhase::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_open_runs_cancels_them_in_time_and_lets_no_run_begin() {
        let runs = OpenRuns::new();
        let mut run = runs.register().unwrap();
        let started = Instant::now();
        let closed = async {
            runs.close(started + Duration::from_secs(30)).await;
            started.elapsed()
        };
        let observed = async {
            let first = run.next_phase(ShutdownPhase::Running).await;
            assert!(matches!(runs.register(), Err(Error::Stopped)));
            let second = run.next_phase(first).await;
            let at = started.elapsed();
            drop(run);
            (first, second, at)
        };
        let (closed, observed) = tokio::join!(closed, observed);
        let thirty = Duration::from_secs(30);
        assert_eq!((observed, closed), ((ShutdownPhase::Draining, ShutdownPhase::Aborting, thirty), thirty));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_drain_shortens_the_first_and_a_run_that_hangs_is_abandoned() {
        let runs = OpenRuns::new();
        let _hangs = runs.register().unwrap();
        let started = Instant::now();
        let close_later = runs.close(started + Duration::from_secs(3_600));
        let close_now = runs.close(started);
        let ended = tokio::select! {
            () = close_later => "late",
            () = close_now => "soon",
        };
        assert_eq!((ended, started.elapsed()), ("soon", MAX_CLOSING_TIME));
    }
}
