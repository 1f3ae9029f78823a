//! Notices an arbiter that no longer turns.
//!
//! A handler that blocks stops its whole thread, and no net and no abort reaches it; only another thread can
//! see that. Each arbiter counts up in a task of its own; a thread looks whether the counts still move.
//! It only reports: a thread cannot be killed, and nothing is restarted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use actix::ArbiterHandle;
use tokio::time::Instant;
use tracing::{info, warn};

/// What the watchdog saw of an arbiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turning {
    /// It has not turned for this long.
    Stalled {
        /// The arbiter, as it was named to the watchdog.
        arbiter: Arc<str>,
        /// Since it was last seen turning.
        silent: Duration,
    },
    /// It turns again, after this long.
    Resumed {
        /// The arbiter.
        arbiter: Arc<str>,
        /// How long it stood still.
        silent: Duration,
    },
}

/// Watches arbiters until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    /// Dropping it wakes the thread, which then ends.
    _leash: mpsc::Sender<()>,
}

impl Watchdog {
    /// Watches `arbiters`; one that has not turned for `threshold` is logged and reported, and again when it
    /// turns. An arbiter that has stopped is watched no longer. `report` runs on the watchdog's own thread.
    ///
    /// Fails if the thread cannot be started.
    pub fn start<N: Into<Arc<str>>>(
        arbiters: impl IntoIterator<Item = (N, ArbiterHandle)>,
        threshold: Duration,
        mut report: impl FnMut(Turning) + Send + 'static,
    ) -> std::io::Result<Self> {
        let beat = (threshold / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let mut watched: Vec<_> =
            arbiters.into_iter().map(|(name, arbiter)| Watched::new(name.into(), &arbiter, beat)).collect();
        let (leash, slipped) = mpsc::channel::<()>();
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut last = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = slipped.recv_timeout(beat) {
                let now = Instant::now();
                // If this very thread was held up, the machine or the process slept, not an arbiter.
                let slept = now.saturating_duration_since(last) >= threshold.max(beat * 4);
                last = now;
                watched.retain_mut(|arbiter| arbiter.look(now, threshold, slept, &mut report));
            }
        })?;
        Ok(Self { _leash: leash })
    }
}

/// One arbiter and what was last seen of it.
struct Watched {
    name: Arc<str>,
    beats: Arc<AtomicU64>,
    seen: u64,
    moved: Instant,
    stalled: bool,
}

impl Watched {
    fn new(name: Arc<str>, arbiter: &ArbiterHandle, beat: Duration) -> Self {
        let beats = Arc::new(AtomicU64::new(0));
        let heart = Arc::clone(&beats);
        arbiter.spawn(async move {
            // Alone with the count, nobody watches any more.
            while Arc::strong_count(&heart) > 1 {
                heart.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(beat).await;
            }
        });
        Self { name, beats, seen: 0, moved: Instant::now(), stalled: false }
    }

    /// Returns whether to go on watching.
    fn look(
        &mut self,
        now: Instant,
        threshold: Duration,
        slept: bool,
        report: &mut impl FnMut(Turning),
    ) -> bool {
        // Alone with the count, its task is gone, and with it the arbiter.
        if Arc::strong_count(&self.beats) == 1 {
            return false;
        }
        let beats = self.beats.load(Ordering::Relaxed);
        let silent = now.saturating_duration_since(self.moved);
        if beats != self.seen {
            self.seen = beats;
            self.moved = now;
            if std::mem::take(&mut self.stalled) {
                info!(arbiter = %self.name, ?silent, "arbiter turns again");
                report(Turning::Resumed { arbiter: Arc::clone(&self.name), silent });
            }
        } else if slept && !self.stalled {
            self.moved = now;
        } else if silent >= threshold && !self.stalled {
            self.stalled = true;
            warn!(arbiter = %self.name, ?silent, "arbiter does not turn: something blocks its thread");
            report(Turning::Stalled { arbiter: Arc::clone(&self.name), silent });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use actix::Arbiter;

    use super::*;

    const THRESHOLD: Duration = Duration::from_millis(40);
    const LONG: Duration = Duration::from_secs(60);

    #[actix_web::test]
    async fn a_blocked_arbiter_is_reported_once_and_again_when_it_turns() {
        let (blocked, healthy, dead) = (Arbiter::new(), Arbiter::new(), Arbiter::new());
        let names = [("dead", dead.handle()), ("healthy", healthy.handle()), ("blocked", blocked.handle())];
        dead.stop();
        dead.join().unwrap();
        let (report, reports) = channel();
        let watchdog = Watchdog::start(names, THRESHOLD, move |turning| {
            let _ = report.send(turning);
        });
        let (release, until) = channel::<()>();
        blocked.spawn_fn(move || {
            let _ = until.recv();
        });
        let of = |turning: Turning| match turning {
            Turning::Stalled { arbiter, silent } => (arbiter, "stalled", silent),
            Turning::Resumed { arbiter, silent } => (arbiter, "resumed", silent),
        };
        // A busy machine may hold the healthy one up as well; the dead one is never to be seen.
        let next = || loop {
            let (arbiter, what, silent) = of(reports.recv_timeout(LONG).unwrap());
            match &*arbiter {
                "blocked" => return (what, silent),
                other => assert_eq!(other, "healthy"),
            }
        };
        let (what, silent) = next();
        assert!(what == "stalled" && silent >= THRESHOLD, "{what} {silent:?}");
        drop(release);
        let (what, silent) = next();
        assert!(what == "resumed" && silent >= THRESHOLD, "{what} {silent:?}");
        drop(watchdog.unwrap());
    }

    #[actix_web::test]
    async fn a_dropped_watchdog_lets_go_of_its_report_and_its_arbiters() {
        let arbiter = Arbiter::new();
        let (report, reports) = channel::<Turning>();
        let watchdog = Watchdog::start([("a", arbiter.handle())], LONG, move |turning| {
            let _ = report.send(turning);
        });
        drop(watchdog.unwrap());
        assert_eq!(reports.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
    }
}
