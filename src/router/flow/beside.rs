//! A second call beside one that is under way: when it may be sent, and where to.
//!
//! Either its user asked for it, or the provider has not said a word for so long that it may never answer.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::provider::Left;
use crate::router::lane::LaneHandle;
use crate::router::out::Out;

use super::Flow;

/// How long a call is out at least before it is looked at whether its target has fallen silent, and how often then.
const FIRST_LOOK: Duration = Duration::from_secs(5);
pub(super) const LOOK: Duration = Duration::from_secs(1);

impl Flow {
    /// Waits until a call has been out for so long that another lane may be asked beside it. Its time in the
    /// queue does not count: there another lane helps nobody but itself. Nor does the time in which its reply waits for memory.
    pub(super) fn takes_long(&self, out: &Out) -> impl Future<Output = ()> + use<> {
        let watched = self.hedging.as_ref().map(|(after, _)| (*after, self.lanes[out.sent.lane].clone()));
        let (left, departure) = (out.left(), out.departure());
        async move {
            if let Some((after, lane)) = watched {
                let Left { at, .. } = left.await;
                if let Some(wait) = after.wait(&lane) {
                    let paused =
                        || departure.as_ref().map(|departure| departure.paused()).unwrap_or_default();
                    let mut until = at + wait;
                    while Instant::now() < until {
                        sleep_until(until).await;
                        // A reply that waits for memory takes long for no reason of its target's.
                        until = at + wait + paused();
                    }
                    return;
                }
            }
            std::future::pending().await
        }
    }

    /// Asks another lane beside one that takes long, if there is one that can take it at once.
    pub(super) fn send_beside(&self, lane: usize) -> Option<Out> {
        let (_, hedges) = self.hedging.as_ref()?;
        let beside = self.free_beside(lane)?;
        hedges.take().then(|| self.hedge(beside))
    }

    /// Waits until a call has been out for so long without response headers that its provider may be one that accepts
    /// connections and never answers, or its target has fallen silent since the call left.
    /// Looks from `from` on.
    pub(super) fn stays_silent(&self, out: &Out, from: Instant) -> impl Future<Output = ()> + use<> {
        let watched = self.silence.as_ref().map(|(least, _)| (*least, self.lanes[out.sent.lane].clone()));
        let watched = watched.zip(out.departure());
        let left = out.left();
        async move {
            if let Some(((least, lane), departure)) = watched {
                let Left { at, .. } = left.await;
                let mut look = from.max(at + least.min(FIRST_LOOK));
                loop {
                    sleep_until(look).await;
                    let now = Instant::now();
                    look = now + least.min(LOOK);
                    if departure.has_word() {
                        break;
                    }
                    if lane.is_silent() || departure.hangs() || now >= at + long_silence(&lane, least) {
                        return;
                    }
                }
            }
            std::future::pending().await
        }
    }

    /// Asks another lane beside one that is silent, if there is one that can take it at once. Where the lane is known to
    /// have fallen silent since the call left, each such call is asked elsewhere: there are no more of them than were in
    /// flight then. Where it is not known, once for each provider until it has answered. Neither is bounded by the share
    /// of the calls that may be sent beside others.
    pub(super) fn send_beside_silent(&self, out: &Out) -> Option<Out> {
        let (least, _) = self.silence.as_ref().filter(|(_, hedges)| !hedges.is_draining())?;
        let lane = &self.lanes[out.sent.lane];
        let departure = out.departure()?;
        let left = departure.left()?.at;
        let is_known = lane.is_silent() || departure.hangs();
        if !is_known && Instant::now() < left + long_silence(lane, *least) {
            return None;
        }
        // One that hangs may wait for its turn elsewhere: it is older than most that wait there.
        let waits = || self.well_beside(out.sent.lane).filter(|_| is_known);
        // Where there is no other, the same one is asked again: as its probe, or once it works again.
        let again = || Some(out.sent.lane).filter(|_| departure.hangs() || lane.wants_probe(Instant::now()));
        let beside =
            self.free_beside(out.sent.lane).or_else(waits).or_else(|| again().filter(|_| is_known))?;
        (is_known || lane.provider.may_ask_beside()).then(|| self.hedge(beside))
    }

    /// Returns whether a call has left for a target that has fallen silent since, and has had no word.
    pub(super) fn hangs(&self, out: &Out) -> bool {
        let Some(departure) = out.departure() else { return false };
        departure.hangs()
            || !departure.has_word() && departure.left().is_some() && self.lanes[out.sent.lane].is_silent()
    }

    fn free_beside(&self, lane: usize) -> Option<usize> {
        let now = Instant::now();
        self.plan.beside(lane, now).into_iter().find(|beside| self.lanes[*beside].has_room(now))
    }

    fn well_beside(&self, lane: usize) -> Option<usize> {
        let now = Instant::now();
        self.plan.beside(lane, now).into_iter().find(|beside| self.lanes[*beside].is_well(now))
    }

    fn hedge(&self, lane: usize) -> Out {
        Out::send(lane, &self.lanes[lane], true, self.call(lane, false, false))
    }
}

/// Returns how long a call to `lane` is out without response headers before its provider may be one that never answers.
fn long_silence(lane: &LaneHandle, least: Duration) -> Duration {
    least.max(lane.provider.longest_silence() * 2)
}
