//! A request whose asker stops: what of it is still waited for.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use crate::router::ask::stops;
use crate::router::attempt;
use crate::router::out::Out;
use crate::types::{Class, Failure};

use super::{Flow, LAST_TURN, note};

/// Why a request ended whose call was out at a target that says nothing.
const HANGING: &str = "the run stops, and the call was in flight to a target that has fallen silent";

/// How often a request whose asker stops looks whether its call hangs.
const LOOKS_FOR_SILENCE: Duration = Duration::from_millis(500);

impl Flow {
    /// Waits until the asker stops and the call is none that is about to leave, or hangs.
    pub(super) fn waits_in_vain(&self, out: &Out) -> impl Future<Output = ()> + use<> {
        let stop = stops(self.ask.stop.clone());
        let (left, departure) = (out.left(), out.departure());
        let lane = self.lanes[out.sent.lane].clone();
        async move {
            stop.await;
            let mut left = pin!(left);
            let last_turn = pin!(async {
                if !lane.is_silent() {
                    sleep(LAST_TURN).await;
                }
            });
            tokio::select! {
                biased;
                _ = left.as_mut() => {}
                () = last_turn => return,
            }
            let hangs = || departure.as_ref().is_some_and(|departure| departure.hangs());
            // Those that wait for its turn at a silent target look first, and do not leave once this one is broken off.
            loop {
                sleep(LOOKS_FOR_SILENCE).await;
                if lane.is_silent() || hangs() {
                    break;
                }
            }
            if departure.is_some_and(|departure| departure.has_word()) {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends a request whose asker stops while its call hangs: it would be waited for until its time is up.
    pub(super) fn stop_hung(&mut self, out: Out) -> Failure {
        let (lane, hedge) = (&self.lanes[out.sent.lane].name, out.sent.hedge);
        let failure = Failure::new(Class::Cancelled, HANGING).maybe_charged();
        if let Some(gone) = out.break_off() {
            note(&self.ask, &mut self.trail, attempt::stopped(lane, hedge, gone, &failure));
        }
        failure
    }

    /// Returns whether the asker stops and a lane is none to send another call to: it would keep the asker waiting.
    pub(super) fn stops_before(&self, lane: usize) -> bool {
        let stops = stops(self.ask.stop.clone()).now_or_never().is_some();
        stops && !self.lanes[lane].is_well(Instant::now())
    }
}
