//! The time that the writer of an aborted run waits for the reader of the output.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long to wait, after the run was aborted, for an output that accepts no lines, such as a pipe whose
/// reader does not read. A file takes less.
const MAX_WAIT_AFTER_ABORT: Duration = Duration::from_secs(1);

/// How long to wait for lines that the reader does not take: without limit, until the run is aborted.
pub(super) struct AbortDeadline {
    aborted: watch::Receiver<bool>,
    end: Option<Instant>,
}

impl AbortDeadline {
    /// Creates a deadline that begins when `aborted` becomes true.
    pub(super) fn new(aborted: watch::Receiver<bool>) -> Self {
        Self { aborted, end: None }
    }

    /// Returns the result of `work`; `None` if it was not done in time.
    pub(super) async fn within_deadline<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.passed() => None,
        }
    }

    /// Returns whether the deadline has passed.
    pub(super) fn has_passed(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }

    async fn passed(&mut self) {
        let end = match self.end {
            Some(end) => end,
            None => {
                // A run whose actor is gone counts as aborted.
                let _ = self.aborted.wait_for(|aborted| *aborted).await;
                *self.end.insert(Instant::now() + MAX_WAIT_AFTER_ABORT)
            }
        };
        sleep_until(end).await;
    }
}
