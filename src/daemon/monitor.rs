//! Resumes runs that wait for something that has come: a new day for a budget, a disk that accepts writes again, or items
//! that were missing. It also removes what deleted runs have left.

use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::types::Day;

use super::daemon::{Daemon, Stopping, WeakDaemon};

/// How often it is checked.
const INTERVAL: Duration = Duration::from_secs(30);

/// How many checks lie between two attempts to resume runs that failed or could not be resumed.
const CHECKS_PER_RETRY: u32 = 4;

/// How many checks lie between two times at which files of unknown runs are removed.
const CHECKS_PER_CLEANUP: u32 = 120;

/// How long ago a file of an unknown run was written before it is removed: until then, the run may be being created.
const MIN_FILE_AGE: Duration = Duration::from_secs(3_600);

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
        if checks.is_multiple_of(CHECKS_PER_RETRY) {
            daemon.retry().await;
        }
        if checks.is_multiple_of(CHECKS_PER_CLEANUP) {
            daemon.clean_up().await;
        }
    }
}

impl Daemon {
    /// Resumes runs that failed or could not be resumed, and makes the store smaller, if it can be written.
    async fn retry(&self) {
        if self.store().check_writable().await.is_err() {
            return;
        }
        self.resume_after_io_error().await;
        self.resume_after_problem().await;
        self.shrink_store().await;
    }

    /// Removes the files of runs that another process has deleted.
    async fn clean_up(&self) {
        if let Some(before) = SystemTime::now().checked_sub(MIN_FILE_AGE) {
            self.remove_unknown_files(before).await;
        }
    }
}
