//! Feels whether the machine keeps up: how long a question takes with which nothing is wrong.
//!
//! Judges no cell; it tells a machine that is late from a program that is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pointsman::runtime::Pointsman;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::stage::{ask, spawn};

/// From one question to the next.
const APART: Duration = Duration::from_millis(20);

/// A question takes some milliseconds. One that takes this long is late enough to spoil what is measured
/// meanwhile.
const LATE: Duration = Duration::from_millis(300);

/// Questions, one after the other, for as long as it lives.
pub(super) struct Pulse {
    asking: JoinHandle<()>,
    /// In milliseconds.
    slowest: Arc<AtomicU64>,
    felt: Instant,
}

impl Pulse {
    /// Begins to ask along the route `pulse`.
    pub(super) fn feel(pointsman: &Pointsman) -> Self {
        let (pointsman, slowest) = (pointsman.clone(), Arc::new(AtomicU64::new(0)));
        let noted = slowest.clone();
        let asking = spawn(async move {
            for number in 0.. {
                let began = Instant::now();
                sleep(APART).await;
                // Failing is being late, too: it takes a timeout.
                drop(ask(&pointsman, "pulse", &format!("Beat {number}?")).await);
                noted.fetch_max(began.elapsed().as_millis() as u64, Relaxed);
            }
        });
        Self { asking, slowest, felt: Instant::now() }
    }

    /// Ends, and says whether no question was late.
    pub(super) fn was_on_time(self) -> bool {
        self.asking.abort();
        // Without a single beat it is later than it can tell.
        let slowest = match self.slowest.load(Relaxed) {
            0 => self.felt.elapsed(),
            slowest => Duration::from_millis(slowest),
        };
        slowest < LATE
    }
}
