//! One ask on its way: follows its plan over the lanes until somebody answers.
//!
//! Ends when its asker has gone. Never glues two replies together.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::provider::{Call, Refused, Replied};
use crate::supervisor::Reply as ReplyTo;
use crate::types::{Answer, Attempt, Class, Failure, KeyLabel, Outcome, Trail, Unanswered};

use super::actor::LaneHandle;
use super::ask::Ask;
use super::plan::{Plan, Step};
use super::settings::RetrySettings;

type Answered = Result<Answer, Box<Unanswered>>;

/// Finds an answer to `ask` among `lanes` and sends it to `reply`.
pub(super) async fn answer(
    ask: Ask,
    lanes: Vec<LaneHandle>,
    retry: RetrySettings,
    mut reply: ReplyTo<Answered>,
) {
    let answered = tokio::select! {
        answered = follow(&ask, &lanes, retry) => answered,
        () = reply.abandoned() => return debug!(route = %ask.route, "nobody waits for the answer any more"),
    };
    reply.send(answered);
}

async fn follow(ask: &Ask, lanes: &[LaneHandle], retry: RetrySettings) -> Answered {
    let mut plan = Plan::new(lanes.len(), retry, ask.deadline);
    let mut trail = Trail::default();
    loop {
        let lane = match plan.next(Instant::now(), fastrand::f64()) {
            Step::Call(lane) => lane,
            Step::Wait(until) => {
                sleep_until(until).await;
                continue;
            }
            Step::GiveUp(failure) => return Err(Box::new(Unanswered { failure, trail })),
        };
        let asked = Instant::now();
        let LaneHandle { name, provider, .. } = &lanes[lane];
        match call(ask, &lanes[lane]).await {
            Called::Replied(Replied { key, waited, took, first_token, cost, result }) => {
                let mut attempt = attempt(&lanes[lane], Some(key), waited, took);
                (attempt.first_token, attempt.cost) = (first_token, cost);
                match result {
                    Ok(reply) => {
                        attempt.usage = reply.usage;
                        trail.0.push(attempt);
                        let (lane, practice) = (name.clone(), provider.is_practice());
                        return Ok(Answer { reply, lane, practice, cost, trail });
                    }
                    Err(failure) => {
                        attempt.usage = failure.usage.as_deref().copied();
                        attempt.outcome = Outcome::Failed(failure.clone());
                        trail.0.push(attempt);
                        let now = Instant::now();
                        plan.failed(lane, failure, provider.has_key(now), now, fastrand::f64());
                    }
                }
            }
            Called::Refused(refused) => {
                plan.refused(lane, &refused, Instant::now());
                note_refusal(&mut trail, &lanes[lane], &refused, asked.elapsed());
            }
            Called::Lost => {
                // It died before it took the call, or half-way: nobody can tell.
                let lost = "the call was lost with the actor or task that made it";
                let failure = Failure::new(Class::NetworkError, lost).maybe_charged();
                let mut attempt = attempt(&lanes[lane], None, Duration::ZERO, asked.elapsed());
                attempt.outcome = Outcome::Failed(failure.clone());
                trail.0.push(attempt);
                plan.failed(lane, failure, true, Instant::now(), fastrand::f64());
            }
        }
    }
}

enum Called {
    Replied(Replied),
    Refused(Refused),
    Lost,
}

async fn call(ask: &Ask, lane: &LaneHandle) -> Called {
    let Some(provider) = lane.provider.slot().shared() else { return Called::Refused(Refused::Down) };
    let call = Call {
        prompt: ask.prompt.clone(),
        model: lane.name.model.clone(),
        priority: ask.priority,
        deadline: ask.deadline,
    };
    match provider.send(call).await {
        Ok(Ok(replied)) => Called::Replied(replied),
        Ok(Err(refused)) => Called::Refused(refused),
        Err(_) => Called::Lost,
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
