//! A question to a router that may die under it.
//!
//! The router begins it and sends its first call; all else happens where it is asked. One that was lost is asked
//! anew, as often as that may be an accident; nobody knows how far it had come, so the answer says how often it was.
//! Knows nothing of lanes.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::provider::Awaited;
use crate::supervisor::{Reply as ReplyTo, Slot};
use crate::types::{Answer, Class, Failure, Unanswered};

use super::actor::Router;
use super::ask::{Ask, Begin, stops};
use super::flow::{Answered, FirstEnd, Flow};
use super::out;

/// How often a question is asked that is lost with the router or on its way. Twice is no accident any more.
const ASKED_AT_MOST: u32 = 2;

/// How long a question waits for a router that is not there: one that was killed is back in less.
const ROUTER_GONE: Duration = Duration::from_secs(2);

/// How long a question waits for its first call by itself. From then on its flow does, which knows what to do about a
/// provider that stays silent; most calls end sooner.
const BY_ITSELF: Duration = Duration::from_secs(1);

/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// A question that is on its way to the router, or beyond.
struct Asked {
    first: Awaited,
    flow: oneshot::Receiver<Result<Box<Flow>, Failure>>,
}

/// Was lost with the router, or panicked.
struct Lost;

/// Asks a question, which is sent before this returns if there is a router, and asks it anew if it is lost.
pub fn question(
    router: &Slot<Router>,
    ask: Ask,
) -> impl Future<Output = Result<Answer, Box<Unanswered>>> + use<> {
    let (mut asked, router) = (send(router, &ask), router.clone());
    async move {
        let mut lost = 0;
        while lost < ASKED_AT_MOST {
            if asked.is_none() {
                asked = send_soon(&router, &ask).await;
            }
            let Some(asked) = asked.take() else { break };
            // Caught where it happens: whoever asks must not die of one question.
            let answered = AssertUnwindSafe(asked.answer(&router, &ask)).catch_unwind().await;
            match answered.unwrap_or(Err(Lost)) {
                Ok(Ok(answer)) => return Ok(Answer { lost, ..answer }),
                Ok(Err(unanswered)) => return Err(Box::new(Unanswered { lost, ..*unanswered })),
                Err(Lost) => lost += 1,
            }
        }
        // That a router has died for good is known a moment after its mailbox has gone.
        if lost > 0 && router.shared().is_none() {
            let _ = timeout(ROUTER_GONE, router.retired()).await;
        }
        let failure = match lost {
            _ if router.is_retired() => Failure::new(Class::Cancelled, super::STOPPED),
            0 => Failure::new(Class::Internal, "there is no router"),
            _ => Failure::new(Class::Internal, "the question was lost with the router, or on its way"),
        };
        let failure = if lost > 0 { failure.maybe_charged() } else { failure };
        Err(Box::new(Unanswered { lost, ..Unanswered::from(failure) }))
    }
}

impl Asked {
    /// Follows the question to its end.
    async fn answer(mut self, router: &Slot<Router>, ask: &Ask) -> Result<Answered, Lost> {
        let (deadline, stop) = (ask.deadline, ask.stop.clone());
        let retired = router.retired();
        let late = sleep_until(deadline + ROUTER_GONE);
        tokio::pin!(retired);
        let first = tokio::select! {
            biased;
            came = &mut self.first => Some(FirstEnd::Known(out::fate(came))),
            () = &mut retired => return Ok(unanswered(Failure::new(Class::Cancelled, super::STOPPED))),
            // What follows then the flow knows: whether the call has left.
            () = stops(stop) => None,
            () = sleep_until(deadline.min(Instant::now() + BY_ITSELF)) => None,
        };
        let first = first.unwrap_or(FirstEnd::Open(self.first));
        // It has come before the call was sent, but where there was none.
        let flow = tokio::select! {
            biased;
            flow = self.flow => flow,
            () = retired => return Ok(unanswered(Failure::new(Class::Cancelled, super::STOPPED))),
            () = late => return Ok(unanswered(Failure::new(Class::Deadline, "the router said nothing in time"))),
        };
        match flow {
            Ok(Ok(flow)) => Ok(flow.answer(Some(first)).await),
            Ok(Err(failure)) => Ok(Err(Box::new(failure.into()))),
            Err(_) => Err(Lost),
        }
    }
}

/// Gives up a question of which nobody knows how far it has come.
fn unanswered(failure: Failure) -> Answered {
    Err(Box::new(failure.maybe_charged().into()))
}

fn send(router: &Slot<Router>, ask: &Ask) -> Option<Asked> {
    let router = router.shared()?;
    let ((reply, first), (begun, flow)) = (ReplyTo::awaited(), oneshot::channel());
    // Without a bound: what is under way is bounded by its askers.
    router.do_send(Begin { ask: ask.clone(), first: reply, flow: begun });
    Some(Asked { first, flow })
}

/// Sends as soon as there is a router; `None` when none comes.
async fn send_soon(router: &Slot<Router>, ask: &Ask) -> Option<Asked> {
    let end = ask.deadline.min(Instant::now() + ROUTER_GONE);
    loop {
        match send(router, ask) {
            Some(asked) => return Some(asked),
            None if Instant::now() >= end || router.is_retired() => return None,
            None => sleep(LOOK).await,
        }
    }
}
