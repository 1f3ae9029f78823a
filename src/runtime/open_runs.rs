//! The runs of a process that are open: none begins once everything stops, and a drain waits until each is closed.
//!
//! Knows nothing of a run but that it is there: what a phase means for it, the run's own task decides.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::Error;

/// How long runs whose items were given up may take to be closed: calls that were broken off are booked, lines
/// that somebody takes are written, and the last commit reaches the disk.
const CLOSING: Duration = Duration::from_secs(10);

/// What runs may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everything.
    Open,
    /// No item begins; those in flight may end.
    Draining,
    /// Items in flight are given up.
    GivingUp,
}

/// The open runs.
#[derive(Debug)]
pub(super) struct OpenRuns(watch::Sender<Phase>);

/// A run that is open. It counts until it is dropped.
#[derive(Debug)]
pub(super) struct OpenRun(watch::Receiver<Phase>);

impl OpenRuns {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Phase::Open))
    }

    /// Counts a run that is to begin.
    ///
    /// # Errors
    /// When everything is being stopped.
    pub(super) fn enter(&self) -> Result<OpenRun, Error> {
        let phase = self.0.subscribe();
        // Looked at only once it counts: a drain that begins in between waits for it.
        let is_open = *phase.borrow() == Phase::Open;
        if is_open { Ok(OpenRun(phase)) } else { Err(Error::Stopped) }
    }

    /// Lets no run begin any more, gives up at `by` what is in flight then, and returns when every run is closed.
    /// One that cannot be closed is waited for no longer than that may take.
    pub(super) async fn close(&self, by: Instant) {
        self.turn_to(Phase::Draining);
        if timeout_at(by, self.0.closed()).await.is_ok() {
            return;
        }
        self.turn_to(Phase::GivingUp);
        if timeout(CLOSING, self.0.closed()).await.is_err() {
            let runs = self.0.receiver_count();
            tracing::error!(runs, "runs could not be closed in time; what they spent may not be booked");
        }
    }

    fn turn_to(&self, next: Phase) {
        self.0.send_if_modified(|phase| {
            let later = next > *phase;
            *phase = next.max(*phase);
            later
        });
    }
}

impl OpenRun {
    /// Waits for a later phase than `now`, and returns it; never when nothing stops.
    pub(super) async fn after(&mut self, now: Phase) -> Phase {
        let later = self.0.wait_for(|phase| *phase > now).await.map(|phase| *phase);
        match later {
            Ok(later) => later,
            // Everything that could stop it has gone: it goes on to its own end.
            Err(_) => std::future::pending().await,
        }
    }

    /// Returns whether everything is being stopped.
    pub(super) fn is_stopping(&self) -> bool {
        *self.0.borrow() > Phase::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_is_open_gives_it_up_in_time_and_lets_nothing_begin() {
        let runs = OpenRuns::new();
        let mut run = runs.enter().unwrap();
        let began = Instant::now();
        let closed = async {
            runs.close(began + Duration::from_secs(30)).await;
            began.elapsed()
        };
        let told = async {
            let first = run.after(Phase::Open).await;
            assert!(matches!(runs.enter(), Err(Error::Stopped)));
            let second = run.after(first).await;
            let at = began.elapsed();
            drop(run);
            (first, second, at)
        };
        let (closed, told) = tokio::join!(closed, told);
        let thirty = Duration::from_secs(30);
        assert_eq!((told, closed), ((Phase::Draining, Phase::GivingUp, thirty), thirty));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_drain_brings_the_end_forward_and_one_that_hangs_is_left_behind() {
        let runs = OpenRuns::new();
        let _hangs = runs.enter().unwrap();
        let began = Instant::now();
        let late = runs.close(began + Duration::from_secs(3_600));
        let soon = runs.close(began);
        let ended = tokio::select! {
            () = late => "late",
            () = soon => "soon",
        };
        assert_eq!((ended, began.elapsed()), ("soon", CLOSING));
    }
}
