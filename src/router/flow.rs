//! One ask on its way: follows its plan over the lanes until somebody answers.
//!
//! Ends when its asker has gone. Never glues two replies together.

use std::time::Duration;

use actix::prelude::Request;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::provider::{Call, Provider, Refused, Replied};
use crate::supervisor::Reply as ReplyTo;
use crate::types::{Answer, Attempt, Class, Failure, KeyLabel, Outcome, Trail, Unanswered};

use super::ask::Ask;
use super::lane::LaneHandle;
use super::plan::{Plan, Step};
use super::settings::RetrySettings;

type Answered = Result<Answer, Box<Unanswered>>;

/// An ask on its way.
pub(super) struct Flow {
    ask: Ask,
    lanes: Vec<LaneHandle>,
    plan: Plan,
    trail: Trail,
    first: Option<(usize, Sent)>,
}

/// A call that was sent to a provider; `None` when the provider is down.
type Sent = Option<Request<Provider, Call>>;

impl Flow {
    /// Begins an ask: its first call is sent at once, by the router itself. Router and providers share a
    /// thread, so that costs no other thread's wake.
    pub(super) fn begin(ask: Ask, lanes: Vec<LaneHandle>, retry: RetrySettings) -> Self {
        let plan = Plan::new(lanes.len(), retry, ask.deadline);
        let mut flow = Self { ask, lanes, plan, trail: Trail::default(), first: None };
        // Anything else than a call (there is no lane, time is up) the plan says again.
        if let Step::Call(lane) = flow.plan.next(Instant::now(), 0.0) {
            flow.first = Some((lane, flow.send(lane)));
        }
        flow
    }

    /// Finds an answer and sends it to `reply`.
    pub(super) async fn answer(mut self, mut reply: ReplyTo<Answered>) {
        let answered = tokio::select! {
            answered = self.follow() => answered,
            () = reply.abandoned() => return debug!("nobody waits for the answer any more"),
        };
        reply.send(answered);
    }

    fn send(&self, lane: usize) -> Sent {
        let LaneHandle { name, provider, .. } = &self.lanes[lane];
        let call = Call {
            prompt: self.ask.prompt.clone(),
            model: name.model.clone(),
            priority: self.ask.priority,
            deadline: self.ask.deadline,
        };
        Some(provider.slot().shared()?.send(call))
    }

    async fn follow(&mut self) -> Answered {
        loop {
            let (lane, sent) = match self.first.take() {
                Some(first) => first,
                None => match self.plan.next(Instant::now(), fastrand::f64()) {
                    Step::Call(lane) => (lane, self.send(lane)),
                    Step::Wait(until) => {
                        sleep_until(until).await;
                        continue;
                    }
                    Step::GiveUp(failure) => {
                        let trail = std::mem::take(&mut self.trail);
                        return Err(Box::new(Unanswered { failure, trail }));
                    }
                },
            };
            let asked = Instant::now();
            match outcome(sent).await {
                Called::Replied(replied) => {
                    if let Some(answer) = self.replied(lane, replied) {
                        return Ok(answer);
                    }
                }
                Called::Refused(refused) => {
                    self.plan.refused(lane, &refused, Instant::now());
                    note_refusal(&mut self.trail, &self.lanes[lane], &refused, asked.elapsed());
                }
                Called::Lost => self.lost(lane, asked.elapsed()),
            }
        }
    }

    /// Takes what a call brought; returns the answer, if it is one.
    fn replied(&mut self, lane: usize, replied: Replied) -> Option<Answer> {
        let Replied { key, waited, took, first_token, cost, result } = replied;
        let LaneHandle { name, provider, .. } = &self.lanes[lane];
        let mut attempt = attempt(&self.lanes[lane], Some(key), waited, took);
        (attempt.first_token, attempt.cost) = (first_token, cost);
        match result {
            Ok(reply) => {
                attempt.usage = reply.usage;
                self.trail.0.push(attempt);
                let (lane, practice) = (name.clone(), provider.is_practice());
                Some(Answer { reply, lane, practice, cost, trail: std::mem::take(&mut self.trail) })
            }
            Err(failure) => {
                attempt.usage = failure.usage.as_deref().copied();
                attempt.outcome = Outcome::Failed(failure.clone());
                self.trail.0.push(attempt);
                let now = Instant::now();
                self.plan.failed(lane, failure, provider.has_key(now), now, fastrand::f64());
                None
            }
        }
    }

    /// The actor or the task died before it took the call, or half-way: nobody can tell.
    fn lost(&mut self, lane: usize, took: Duration) {
        let lost = "the call was lost with the actor or task that made it";
        let failure = Failure::new(Class::NetworkError, lost).maybe_charged();
        let mut attempt = attempt(&self.lanes[lane], None, Duration::ZERO, took);
        attempt.outcome = Outcome::Failed(failure.clone());
        self.trail.0.push(attempt);
        self.plan.failed(lane, failure, true, Instant::now(), fastrand::f64());
    }
}

enum Called {
    Replied(Replied),
    Refused(Refused),
    Lost,
}

async fn outcome(sent: Sent) -> Called {
    match sent {
        None => Called::Refused(Refused::Down),
        Some(sent) => match sent.await {
            Ok(Ok(replied)) => Called::Replied(replied),
            Ok(Err(refused)) => Called::Refused(refused),
            Err(_) => Called::Lost,
        },
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
