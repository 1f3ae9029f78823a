//! What a daemon does at intervals: it records the spend of requests, the use of tokens and samples for charts, and removes
//! idempotency keys that have expired and answers beyond the limits of the answer cache.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::types::error_chain;

use super::daemon::Daemon;

/// How often the spend of requests is recorded.
const TICK: Duration = Duration::from_secs(1);

/// How many ticks lie between two samples for charts.
const TICKS_PER_SAMPLE: u64 = 10;

/// How many ticks lie between two times at which tokens are read.
const TICKS_PER_TOKEN_READ: u64 = 5;

/// How many ticks lie between two times at which the use of tokens is recorded.
const TICKS_PER_TOKEN_USE: u64 = 60;

/// How many ticks lie between two times at which expired idempotency keys and old cached answers are removed.
const TICKS_PER_CLEANUP: u64 = 3_600;

impl Daemon {
    /// Begins what is done at intervals, until [`end_upkeep`](Self::end_upkeep) or until the last handle is dropped. It
    /// continues while the daemon stops, because requests in flight still spend.
    pub(super) fn start_upkeep(&self) {
        let daemon = self.downgrade();
        let has_ended = self.upkeep_ended().clone();
        let work = async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut number: u64 = 0;
            loop {
                ticks.tick().await;
                let has_ended = has_ended.lock().await;
                if *has_ended {
                    return;
                }
                let Some(daemon) = daemon.upgrade() else { return };
                let runtime = daemon.pointsman().runtime().clone();
                // A task of its own, so that a panic ends only this time.
                if let Err(error) = runtime.spawn(async move { daemon.upkeep(number).await }).await {
                    tracing::error!(%error, "the upkeep of the daemon failed");
                }
                number = number.wrapping_add(1);
            }
        };
        drop(self.pointsman().runtime().spawn(work));
    }

    /// Ends it when all requests have ended, and records what is not in the store yet. No task holds the daemon after that.
    pub(super) async fn end_upkeep(&self) {
        *self.upkeep_ended().lock().await = true;
        self.record_request_spending().await;
        let daemon = self.clone();
        // On the runtime of the actors, because the caller's may have no timers. It has ended if it panicked.
        drop(self.pointsman().runtime().spawn(async move { daemon.store_token_uses().await }).await);
    }

    async fn upkeep(&self, tick: u64) {
        self.record_request_spending().await;
        if tick.is_multiple_of(TICKS_PER_TOKEN_READ) {
            // Another process may have revoked one. An error is returned to those who present a token.
            drop(self.refresh_tokens().await);
        }
        if tick.is_multiple_of(TICKS_PER_SAMPLE) {
            self.record_sample();
        }
        if tick % TICKS_PER_TOKEN_USE == TICKS_PER_TOKEN_USE - 1 {
            self.store_token_uses().await;
        }
        if tick.is_multiple_of(TICKS_PER_CLEANUP) {
            match self.idempotency_keys().remove_expired().await {
                Ok(0) => {}
                Ok(removed) => tracing::debug!(removed, "expired idempotency keys were removed"),
                Err(error) => {
                    tracing::warn!(error = %error_chain(&error), "expired idempotency keys cannot be removed");
                }
            }
            let limits = self.config().store.cache_limits();
            if let Err(error) = self.store().prune_cache(limits).await {
                tracing::warn!(error = %error_chain(&error), "the answer cache cannot be pruned");
            }
        }
    }
}
