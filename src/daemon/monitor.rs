//! Resumes runs that wait for something that has come: a new day for a budget, or a disk that accepts writes again.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::types::Day;

use super::daemon::{Stopping, WeakDaemon};

/// How often it is checked.
const INTERVAL: Duration = Duration::from_secs(30);

/// How many checks lie between two attempts to resume runs whose store or input failed.
const CHECKS_PER_RETRY: u32 = 4;

/// Checks until the daemon stops.
pub(super) async fn watch(daemon: WeakDaemon, mut stopping: Stopping) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut day = Day::at(clock::milliseconds());
    let mut checks: u32 = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stopping.stopped() => return,
        }
        let Some(daemon) = daemon.upgrade() else { return };
        let today = Day::at(clock::milliseconds());
        if today != day {
            day = today;
            daemon.resume_after_budget().await;
        }
        checks = checks.wrapping_add(1);
        if checks.is_multiple_of(CHECKS_PER_RETRY) && daemon.store().check_writable().await.is_ok() {
            daemon.resume_after_io_error().await;
        }
    }
}
