//! One ask on its way: follows its plan over the lanes until somebody answers.
//!
//! Ends when its asker has gone, when its time is up, and when the router stops. Never glues two replies
//! together.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use crate::provider::{Call, Refused, Replied};
use crate::supervisor::Reply as ReplyTo;
use crate::types::{
    Answer, Attempt, Class, Failure, KeyLabel, LaneName, NanoUsd, Outcome, Reply, Trail, Unanswered,
};

use super::actor::LaneHandle;
use super::ask::Ask;
use super::plan::{KeyLeft, Plan, Probe, Step};
use super::settings::RetrySettings;

/// How long after its deadline a call is still waited for: one that is out ends at the deadline by itself
/// and knows what it cost.
const GRACE: Duration = Duration::from_millis(250);

type Answered = Result<Answer, Box<Unanswered>>;

/// Finds an answer to `ask` among `lanes` and sends it to `reply`; gives up when the other end of `open`
/// has gone.
pub(super) async fn answer(
    ask: Ask,
    lanes: Vec<LaneHandle>,
    retry: RetrySettings,
    mut open: watch::Receiver<()>,
    mut reply: ReplyTo<Answered>,
) {
    let mut trail = Trail::default();
    let ended = tokio::select! {
        ended = follow(&ask, &lanes, retry, &mut trail) => ended,
        () = reply.abandoned() => return debug!(route = %ask.route, "nobody waits for the answer any more"),
        _ = open.changed() => Err(Failure::new(Class::Cancelled, super::STOPPED).maybe_charged()),
    };
    reply.send(match ended {
        Ok(Ended { reply, lane, practice, cost }) => Ok(Answer { reply, lane, practice, cost, trail }),
        Err(failure) => Err(Box::new(Unanswered { failure, trail })),
    });
}

/// An answer whose trail is elsewhere.
struct Ended {
    reply: Reply,
    lane: LaneName,
    practice: bool,
    cost: Option<NanoUsd>,
}

async fn follow(
    ask: &Ask,
    lanes: &[LaneHandle],
    retry: RetrySettings,
    trail: &mut Trail,
) -> Result<Ended, Failure> {
    let mut plan = Plan::new(lanes.len(), retry, ask.deadline);
    loop {
        let lane = match plan.next(Instant::now(), fastrand::f64()) {
            Step::Call(lane) => lane,
            Step::Wait(until) => {
                sleep_until(until).await;
                continue;
            }
            Step::GiveUp(failure) => return Err(failure),
        };
        let asked = Instant::now();
        let LaneHandle { name, provider, .. } = &lanes[lane];
        match call(ask, &lanes[lane]).await {
            Called::Replied(Replied { key, waited, probe, took, first_token, cost, result }) => {
                let mut attempt = attempt(&lanes[lane], Some(key), waited, took);
                (attempt.first_token, attempt.cost) = (first_token, cost);
                match result {
                    Ok(reply) => {
                        attempt.usage = reply.usage;
                        trail.0.push(attempt);
                        let (lane, practice) = (name.clone(), provider.is_practice());
                        return Ok(Ended { reply, lane, practice, cost });
                    }
                    Err(failure) => {
                        attempt.usage = failure.usage.as_deref().copied();
                        attempt.outcome = Outcome::Failed(failure.clone());
                        trail.0.push(attempt);
                        let now = Instant::now();
                        let left = KeyLeft(provider.has_key(now));
                        plan.failed(lane, failure, (left, Probe(probe)), now, fastrand::f64());
                    }
                }
            }
            Called::Refused(refused) => {
                plan.refused(lane, &refused, Instant::now());
                note_refusal(trail, &lanes[lane], &refused, asked.elapsed());
            }
        }
    }
}

enum Called {
    Replied(Replied),
    Refused(Refused),
}

async fn call(ask: &Ask, lane: &LaneHandle) -> Called {
    let Some(provider) = lane.provider.slot().shared() else { return Called::Refused(Refused::Down) };
    let call = Call {
        prompt: ask.prompt.clone(),
        model: lane.name.model.clone(),
        priority: ask.priority,
        deadline: ask.deadline,
    };
    match timeout_at(ask.deadline + GRACE, provider.send(call)).await {
        Ok(Ok(Ok(replied))) => Called::Replied(replied),
        Ok(Ok(Err(refused))) => Called::Refused(refused),
        // The actor died with the message: what it had let leave would have been answered.
        Ok(Err(_)) => Called::Refused(Refused::Down),
        Err(_) => Called::Refused(Refused::Busy { until: Instant::now() }),
    }
}

fn attempt(lane: &LaneHandle, key: Option<KeyLabel>, waited: Duration, took: Duration) -> Attempt {
    let (first_token, usage, cost) = (None, None, None);
    Attempt {
        lane: lane.name.clone(),
        key,
        waited,
        took,
        first_token,
        usage,
        cost,
        outcome: Outcome::Answered,
    }
}

/// A lane that refuses again and again while an ask waits for it is one line of the trail.
fn note_refusal(trail: &mut Trail, lane: &LaneHandle, refused: &Refused, waited: Duration) {
    let outcome = Outcome::Refused(refused.to_string().into());
    if let Some(known) = trail
        .0
        .iter_mut()
        .rev()
        .take(4)
        .find(|attempt| attempt.lane == lane.name && attempt.outcome == outcome)
    {
        known.waited += waited;
        return;
    }
    let mut attempt = attempt(lane, None, waited, Duration::ZERO);
    attempt.outcome = outcome;
    trail.0.push(attempt);
}
