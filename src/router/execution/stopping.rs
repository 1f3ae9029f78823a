//! What a request does when its caller stops: which call is still awaited.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use crate::router::attempt;
use crate::router::pending_call::PendingCall;
use crate::router::stop_signal::wait_for_stop;
use crate::types::{Class, Failure};

use super::{Execution, MAX_WAIT_AFTER_STOP, log_attempt};

/// The failure message of a request whose call was in flight to an unresponsive target when the caller stopped.
const STOPPED_WHILE_HANGING: &str = "the run stops, and the call was in flight to an unresponsive target";

/// Interval between two checks whether a call hangs after the caller has stopped.
const HANG_CHECK_INTERVAL: Duration = Duration::from_millis(500);

impl Execution {
    /// Waits until the caller stops and the call is no longer awaited: because it is not sent within
    /// [`MAX_WAIT_AFTER_STOP`], or because it hangs.
    pub(super) fn abandoned_by_stop(&self, call: &PendingCall) -> impl Future<Output = ()> + use<> {
        let stop = wait_for_stop(self.request.stop.clone());
        let dispatched = call.wait_dispatched();
        let signal = call.dispatch_signal();
        let target = self.targets[call.meta.target].clone();
        async move {
            stop.await;
            let mut dispatched = pin!(dispatched);
            let queue_timeout = pin!(async {
                if !target.is_unresponsive() {
                    sleep(MAX_WAIT_AFTER_STOP).await;
                }
            });
            tokio::select! {
                biased;
                _ = dispatched.as_mut() => {}
                () = queue_timeout => return,
            }
            let is_hanging = || signal.as_ref().is_some_and(|signal| signal.is_hanging());
            // Calls queued at an unresponsive target are checked first, so that they are not sent in the place of
            // this one when it is aborted.
            loop {
                sleep(HANG_CHECK_INTERVAL).await;
                if target.is_unresponsive() || is_hanging() {
                    break;
                }
            }
            if signal.is_some_and(|signal| signal.has_headers()) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Aborts a hanging call after the caller has stopped, and returns the failure of the request. Otherwise the
    /// call would be awaited until its deadline.
    pub(super) fn abort_hanging(&mut self, call: PendingCall) -> Failure {
        let target = &self.targets[call.meta.target].name;
        let hedge = call.meta.hedge;
        let failure = Failure::new(Class::Cancelled, STOPPED_WHILE_HANGING).maybe_charged();
        if let Some(aborted) = call.abort() {
            let attempt = attempt::record_stopped(target, hedge, aborted, &failure);
            log_attempt(&self.request, &mut self.attempts, attempt);
        }
        failure
    }

    /// Returns whether the caller has stopped and the target is not healthy: a call to it would delay the stop.
    pub(super) fn must_stop_before(&self, target: usize) -> bool {
        let is_stopping = wait_for_stop(self.request.stop.clone()).now_or_never().is_some();
        is_stopping && !self.targets[target].is_healthy(Instant::now())
    }
}
