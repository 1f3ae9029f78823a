//! One call on its way to a lane, as its ask sees it.
//!
//! Whoever drops it breaks the call off. Learns nothing from how it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::error::RecvError;
use tokio::time::{Instant, timeout_at};

use crate::provider::{Awaited, Call, Departure, Left, Refused, Replied};
use crate::supervisor::Reply as ReplyTo;
use crate::types::{Class, Failure, KeyLabel, NanoUsd};

use super::lane::LaneHandle;

/// How long after its deadline a call is still waited for: one that is out ends at the deadline by itself
/// and knows what it cost.
const GRACE: Duration = Duration::from_millis(250);

/// What an ask knows of a call that it has sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// The number of its lane.
    pub(super) lane: usize,
    /// Whether it was sent beside another.
    pub(super) hedge: bool,
    pub(super) asked: Instant,
}

/// A call that was sent to a provider.
pub(super) struct Out {
    pub(super) sent: Sent,
    deadline: Instant,
    departure: Option<Arc<Departure>>,
    awaited: Awaited,
}

/// How a call ended.
pub(super) enum End {
    /// It left and came back.
    Replied(Replied),
    /// It did not leave.
    Refused(Refused),
    /// A panic of the provider's actor cost it. It had not left.
    Lost(Failure),
    /// It left, and its time was up before anything of its end was known.
    Late(Gone),
}

/// A call that had left when it was broken off.
pub(super) struct Gone {
    /// Its number among the provider's calls.
    pub(super) number: u64,
    pub(super) key: KeyLabel,
    /// From asking until it left.
    pub(super) waited: Duration,
    /// From leaving until it was broken off.
    pub(super) took: Duration,
    /// What it may have cost.
    pub(super) likely: NanoUsd,
}

impl Out {
    /// Sends `call` to a lane, by its number.
    pub(super) fn send(lane: usize, to: &LaneHandle, hedge: bool, call: Call) -> Self {
        let (sent, deadline) = (Sent { lane, hedge, asked: Instant::now() }, call.deadline);
        let ((reply, awaited), departure) = (ReplyTo::awaited(), call.departure.clone());
        to.provider.call_for(call, reply);
        Self { sent, deadline, departure, awaited }
    }

    /// Takes over a call whose end somebody else has awaited until now.
    pub(super) fn taken_over(
        sent: Sent,
        deadline: Instant,
        departure: Option<Arc<Departure>>,
        awaited: Awaited,
    ) -> Self {
        Self { sent, deadline, departure, awaited }
    }

    /// Waits for its end.
    pub(super) async fn end(&mut self) -> End {
        let came = loop {
            // A reply that waits for memory has as much more time.
            let paused = self.paused();
            let came = timeout_at(self.deadline + paused + GRACE, &mut self.awaited).await;
            if came.is_ok() || self.paused() == paused {
                break came;
            }
        };
        match came {
            Ok(came) => fate(came),
            Err(_) if self.withdraw() => End::Refused(Refused::Busy { until: Instant::now() }),
            Err(_) => self.gone().map_or(End::Refused(Refused::Busy { until: Instant::now() }), End::Late),
        }
    }

    fn paused(&self) -> Duration {
        self.departure.as_ref().map(|departure| departure.paused()).unwrap_or_default()
    }

    /// Withdraws it. Returns whether that was in time: then it never leaves.
    pub(super) fn withdraw(&self) -> bool {
        self.departure.as_ref().is_some_and(|departure| departure.withdraw())
    }

    /// Returns what is known of it if it has left.
    fn gone(&self) -> Option<Gone> {
        let left = self.departure.as_ref()?.left()?;
        let waited = left.at.saturating_duration_since(self.sent.asked);
        Some(Gone {
            number: left.number,
            key: left.key.clone(),
            waited,
            took: left.at.elapsed(),
            likely: left.likely,
        })
    }

    /// Returns what is told of the call on its way.
    pub(super) fn departure(&self) -> Option<Arc<Departure>> {
        self.departure.clone()
    }

    /// Returns what becomes true when the call leaves, for ever false where it is not told.
    pub(super) fn left(&self) -> impl Future<Output = Left> + use<> {
        let departure = self.departure.clone();
        async move {
            match departure {
                Some(departure) => departure.has_left().await.clone(),
                None => std::future::pending().await,
            }
        }
    }

    /// Breaks it off; `None` when it had not left.
    pub(super) fn break_off(mut self) -> Option<Gone> {
        if self.withdraw() {
            return None;
        }
        self.awaited.close();
        self.gone()
    }
}

/// Returns how a call ended whose end has come.
pub(super) fn fate(came: Result<Result<Replied, Refused>, RecvError>) -> End {
    match came {
        Ok(Ok(replied)) => End::Replied(replied),
        Ok(Err(refused)) => End::Refused(refused),
        // What the actor has let leave is answered by its own task, whatever becomes of either.
        Err(_) => {
            let lost = "the provider's actor panicked over the call, before it left";
            End::Lost(Failure::new(Class::NetworkError, lost))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Charged;

    #[tokio::test]
    async fn a_call_that_a_panic_cost_before_it_left_was_not_paid() {
        let (reply, awaited) = crate::supervisor::Reply::awaited();
        drop(reply);
        let End::Lost(failure) = fate(awaited.await) else { panic!("it is taken for known") };
        assert_eq!((failure.class, failure.charged), (Class::NetworkError, Charged::No));
    }

    #[test]
    fn a_call_that_was_refused_was_not_lost() {
        assert!(matches!(fate(Ok(Err(Refused::Down))), End::Refused(Refused::Down)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_withdrawn_never_leaves_and_one_that_has_left_is_not_withdrawn() {
        let left = || Left { at: Instant::now(), number: 1, key: "k".into(), likely: NanoUsd(7) };
        let (early, late) = (Departure::new(), Departure::new());
        assert!(early.withdraw() && !early.leave(left()) && early.left().is_none());
        assert!(late.leave(left()) && !late.withdraw() && late.left().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_out_when_its_time_is_up_keeps_what_it_may_have_cost() {
        let (reply, awaited) = crate::supervisor::Reply::awaited();
        let _still_out = reply;
        let departure = Arc::new(Departure::new());
        let sent = Sent { lane: 0, hedge: false, asked: Instant::now() };
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut out = Out::taken_over(sent, deadline, Some(departure.clone()), awaited);
        let left = Left { at: Instant::now(), number: 1, key: "k".into(), likely: NanoUsd(7) };
        assert!(departure.leave(left));
        let End::Late(gone) = out.end().await else { panic!("it is taken for one that never left") };
        assert_eq!((gone.key.as_str(), gone.likely), ("k", NanoUsd(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_reply_waits_for_memory_is_waited_for_beyond_its_deadline() {
        let (reply, awaited) = crate::supervisor::Reply::awaited();
        let departure = Arc::new(Departure::new());
        let sent = Sent { lane: 0, hedge: false, asked: Instant::now() };
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut out = Out::taken_over(sent, deadline, Some(departure.clone()), awaited);
        assert!(departure.leave(Left { at: Instant::now(), number: 1, key: "k".into(), likely: NanoUsd(7) }));
        let (end, ()) = tokio::join!(out.end(), async {
            let pause = departure.pause();
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(pause);
            tokio::time::sleep(Duration::from_millis(500)).await;
            reply.send(Err(Refused::Down));
        });
        assert!(matches!(end, End::Refused(Refused::Down)));
    }
}
