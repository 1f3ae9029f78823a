//! A second call beside one that is under way: when it may be sent, and where to.
//!
//! Either its user asked for it, or the provider has not said a word for so long that it may never answer.

use tokio::time::{Instant, sleep_until};

use crate::provider::Left;
use crate::router::out::Out;

use super::Flow;

impl Flow {
    /// Waits until a call has been out for so long that another lane may be asked beside it. Its time in the
    /// queue does not count: there another lane helps nobody but itself.
    pub(super) fn takes_long(&self, out: &Out) -> impl Future<Output = ()> + use<> {
        let watched = self.hedging.as_ref().map(|(after, _)| (*after, self.lanes[out.sent.lane].clone()));
        let left = out.left();
        async move {
            if let Some((after, lane)) = watched {
                let Left { at, .. } = left.await;
                if let Some(wait) = after.wait(&lane) {
                    return sleep_until(at + wait).await;
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
    /// connections and never answers.
    pub(super) fn stays_silent(&self, out: &Out) -> impl Future<Output = ()> + use<> {
        let watched = self.silence.as_ref().map(|(least, _)| (*least, self.lanes[out.sent.lane].clone()));
        let watched = watched.zip(out.departure());
        let left = out.left();
        async move {
            if let Some(((least, lane), departure)) = watched {
                let Left { at, .. } = left.await;
                sleep_until(at + least.max(lane.provider.longest_silence() * 2)).await;
                if !departure.has_word() {
                    return;
                }
            }
            std::future::pending().await
        }
    }

    /// Asks another lane beside one that is silent, if there is one that can take it at once: once for each provider
    /// until it has answered, whatever share of the calls may be sent beside others.
    pub(super) fn send_beside_silent(&self, lane: usize) -> Option<Out> {
        let (_, hedges) = self.silence.as_ref()?;
        let beside = self.free_beside(lane).filter(|_| !hedges.is_draining())?;
        self.lanes[lane].provider.may_ask_beside().then(|| self.hedge(beside))
    }

    fn free_beside(&self, lane: usize) -> Option<usize> {
        let now = Instant::now();
        self.plan.beside(lane, now).into_iter().find(|beside| self.lanes[*beside].has_room(now))
    }

    fn hedge(&self, lane: usize) -> Out {
        Out::send(lane, &self.lanes[lane], true, self.call(lane, false, false))
    }
}
