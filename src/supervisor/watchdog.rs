//! Detects an arbiter whose thread is blocked.
//!
//! A handler that blocks stops its whole thread, and no panic isolation and no abort reaches it; only
//! another thread can detect that. Each arbiter increments a counter in a task of its own; the watchdog's
//! thread checks whether the counters still advance. It only reports: a thread cannot be killed, and
//! nothing is restarted here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use actix::ArbiterHandle;
use tokio::time::Instant;
use tracing::{info, warn};

/// A change in the liveness of an arbiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArbiterEvent {
    /// It has made no progress for this long.
    Stalled {
        /// The name given to the watchdog.
        arbiter: Arc<str>,
        /// Time since its last progress.
        stalled_for: Duration,
    },
    /// It makes progress again, after this long.
    Resumed {
        /// The name given to the watchdog.
        arbiter: Arc<str>,
        /// How long it was stalled.
        stalled_for: Duration,
    },
}

/// Watches arbiters until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    /// Dropping it wakes the thread, which then ends.
    _shutdown_tx: mpsc::Sender<()>,
    /// Arbiters that make no progress now.
    stalled: Arc<AtomicU64>,
}

impl Watchdog {
    /// Watches `arbiters`; an arbiter without progress for `threshold` is logged and reported, and again
    /// when it resumes. An arbiter that has stopped is no longer watched. `report` runs on the watchdog's
    /// own thread.
    ///
    /// Fails if the thread cannot be started.
    pub fn start<N: Into<Arc<str>>>(
        arbiters: impl IntoIterator<Item = (N, ArbiterHandle)>,
        threshold: Duration,
        mut report: impl FnMut(ArbiterEvent) + Send + 'static,
    ) -> std::io::Result<Self> {
        let interval = (threshold / 4).clamp(Duration::from_millis(1), Duration::from_secs(1));
        let mut watched: Vec<_> = arbiters
            .into_iter()
            .map(|(name, arbiter)| WatchedArbiter::new(name.into(), &arbiter, interval))
            .collect();
        let (shutdown_tx, shutdown_rx) = mpsc::channel::<()>();
        let stalled = Arc::<AtomicU64>::default();
        let count = stalled.clone();
        std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut last = Instant::now();
            while let Err(RecvTimeoutError::Timeout) = shutdown_rx.recv_timeout(interval) {
                let now = Instant::now();
                // If this thread itself was delayed, the machine or the process was suspended, not an
                // arbiter.
                let was_suspended = now.saturating_duration_since(last) >= threshold.max(interval * 4);
                last = now;
                watched.retain_mut(|arbiter| arbiter.check(now, threshold, was_suspended, &mut report));
                let stalled = watched.iter().filter(|arbiter| arbiter.is_stalled).count();
                count.store(stalled as u64, Ordering::Relaxed);
            }
        })?;
        Ok(Self { _shutdown_tx: shutdown_tx, stalled })
    }

    /// Returns whether an arbiter makes no progress now.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed) > 0
    }
}

/// One arbiter and its last observed progress.
struct WatchedArbiter {
    name: Arc<str>,
    counter: Arc<AtomicU64>,
    last_count: u64,
    last_progress: Instant,
    is_stalled: bool,
}

impl WatchedArbiter {
    fn new(name: Arc<str>, arbiter: &ArbiterHandle, interval: Duration) -> Self {
        let counter = Arc::new(AtomicU64::new(0));
        let task_counter = Arc::clone(&counter);
        arbiter.spawn(async move {
            // The last reference means that the watchdog is gone.
            while Arc::strong_count(&task_counter) > 1 {
                task_counter.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(interval).await;
            }
        });
        Self { name, counter, last_count: 0, last_progress: Instant::now(), is_stalled: false }
    }

    /// Reports a change. Returns whether the arbiter is still to be watched.
    fn check(
        &mut self,
        now: Instant,
        threshold: Duration,
        was_suspended: bool,
        report: &mut impl FnMut(ArbiterEvent),
    ) -> bool {
        // The last reference means that the arbiter's task is gone, and with it the arbiter.
        if Arc::strong_count(&self.counter) == 1 {
            return false;
        }
        let count = self.counter.load(Ordering::Relaxed);
        let stalled_for = now.saturating_duration_since(self.last_progress);
        if count != self.last_count {
            self.last_count = count;
            self.last_progress = now;
            if std::mem::take(&mut self.is_stalled) {
                info!(arbiter = %self.name, ?stalled_for, "arbiter resumed");
                report(ArbiterEvent::Resumed { arbiter: Arc::clone(&self.name), stalled_for });
            }
        } else if was_suspended && !self.is_stalled {
            self.last_progress = now;
        } else if stalled_for >= threshold && !self.is_stalled {
            self.is_stalled = true;
            warn!(arbiter = %self.name, ?stalled_for, "arbiter stalled: a handler blocks its thread");
            report(ArbiterEvent::Stalled { arbiter: Arc::clone(&self.name), stalled_for });
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
    const MAX_WAIT: Duration = Duration::from_secs(60);

    #[actix_web::test]
    async fn a_blocked_arbiter_is_reported_once_and_again_when_it_resumes() {
        let blocked = Arbiter::new();
        let healthy = Arbiter::new();
        let dead = Arbiter::new();
        let names = [("dead", dead.handle()), ("healthy", healthy.handle()), ("blocked", blocked.handle())];
        dead.stop();
        dead.join().unwrap();
        let (report, reports) = channel();
        let watchdog = Watchdog::start(names, THRESHOLD, move |event| {
            // The test may have dropped the receiver.
            let _ = report.send(event);
        });
        let (release, until) = channel::<()>();
        blocked.spawn_fn(move || {
            // An error is the release: the sender is dropped.
            let _ = until.recv();
        });
        let split = |event: ArbiterEvent| match event {
            ArbiterEvent::Stalled { arbiter, stalled_for } => (arbiter, "stalled", stalled_for),
            ArbiterEvent::Resumed { arbiter, stalled_for } => (arbiter, "resumed", stalled_for),
        };
        // A busy machine may stall the healthy arbiter as well; the dead one must never be reported.
        let next = || loop {
            let (arbiter, kind, stalled_for) = split(reports.recv_timeout(MAX_WAIT).unwrap());
            match &*arbiter {
                "blocked" => return (kind, stalled_for),
                other => assert_eq!(other, "healthy"),
            }
        };
        let (kind, stalled_for) = next();
        assert!(kind == "stalled" && stalled_for >= THRESHOLD, "{kind} {stalled_for:?}");
        drop(release);
        let (kind, stalled_for) = next();
        assert!(kind == "resumed" && stalled_for >= THRESHOLD, "{kind} {stalled_for:?}");
        drop(watchdog.unwrap());
    }

    #[actix_web::test]
    async fn a_dropped_watchdog_drops_its_report_callback() {
        let arbiter = Arbiter::new();
        let (report, reports) = channel::<ArbiterEvent>();
        let watchdog = Watchdog::start([("a", arbiter.handle())], MAX_WAIT, move |event| {
            // The test may have dropped the receiver.
            let _ = report.send(event);
        });
        drop(watchdog.unwrap());
        assert_eq!(reports.recv_timeout(MAX_WAIT), Err(RecvTimeoutError::Disconnected));
    }
}
