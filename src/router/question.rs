//! A question to a router that may die under it.
//!
//! One that was lost is asked anew, as often as that may be an accident; nobody knows how far it had come, so
//! the answer says how often it was. Knows nothing of lanes.

use std::time::Duration;

use actix::prelude::Request;
use tokio::time::{Instant, sleep};

use crate::supervisor::Slot;
use crate::types::{Answer, Class, Failure, Trail, Unanswered};

use super::actor::Router;
use super::ask::Ask;

/// How often a question is asked that is lost with the router or with the task that follows it. Twice is no
/// accident any more.
const ASKED_AT_MOST: u32 = 2;

/// How long a question waits for a router that is not there: one that was killed is back in less.
const ROUTER_GONE: Duration = Duration::from_secs(2);

/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Asks a question, which is sent before this returns if there is a router, and asks it anew if it is lost.
pub fn question(
    router: &Slot<Router>,
    ask: Ask,
) -> impl Future<Output = Result<Answer, Box<Unanswered>>> + use<> {
    let (mut sent, router) = (send(router, &ask), router.clone());
    async move {
        let mut lost = 0;
        while lost < ASKED_AT_MOST {
            if sent.is_none() {
                sent = send_soon(&router, &ask).await;
            }
            let Some(sent) = sent.take() else { break };
            match sent.await {
                Ok(Ok(answer)) => return Ok(Answer { lost, ..answer }),
                Ok(Err(unanswered)) => return Err(Box::new(Unanswered { lost, ..*unanswered })),
                // The router, or the task that followed the ask, is gone.
                Err(_) => lost += 1,
            }
        }
        let failure = match lost {
            0 => Failure::new(Class::Internal, "there is no router"),
            _ => {
                let why = "the question was lost with the actor or task that followed it";
                Failure::new(Class::Internal, why).maybe_charged()
            }
        };
        Err(Box::new(Unanswered { failure, trail: Trail::default(), lost }))
    }
}

fn send(router: &Slot<Router>, ask: &Ask) -> Option<Request<Router, Ask>> {
    Some(router.shared()?.send(ask.clone()))
}

/// Sends as soon as there is a router; `None` when none comes.
async fn send_soon(router: &Slot<Router>, ask: &Ask) -> Option<Request<Router, Ask>> {
    let end = ask.deadline.min(Instant::now() + ROUTER_GONE);
    loop {
        match send(router, ask) {
            Some(sent) => return Some(sent),
            None if Instant::now() >= end || router.is_retired() => return None,
            None => sleep(LOOK).await,
        }
    }
}
