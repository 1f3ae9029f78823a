//! One ask on its way: follows its plan over the lanes until somebody answers.
//!
//! Ends when its asker has gone, when its time is up, and when the router stops. Never glues two replies
//! together.

use std::time::Duration;

use actix::prelude::Request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::debug;

use crate::chaos;
use crate::provider::{Call, Provider, Refused, Replied};
use crate::supervisor::Reply as ReplyTo;
use crate::types::{
    Answer, Attempt, Class, Failure, KeyLabel, LaneName, NanoUsd, Outcome, Reply, Trail, Unanswered,
};

use super::ask::Ask;
use super::lane::LaneHandle;
use super::plan::{KeyLeft, Plan, Probe, Step};
use super::settings::RetrySettings;

/// How long after its deadline a call is still waited for: one that is out ends at the deadline by itself
/// and knows what it cost.
const GRACE: Duration = Duration::from_millis(250);

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

/// An answer whose trail is elsewhere.
struct Ended {
    reply: Reply,
    lane: LaneName,
    practice: bool,
    cost: Option<NanoUsd>,
}

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

    /// Finds an answer and sends it to `reply`; gives up when the other end of `open` has gone.
    pub(super) async fn answer(mut self, mut open: watch::Receiver<()>, mut reply: ReplyTo<Answered>) {
        let ended = tokio::select! {
            ended = self.follow() => ended,
            () = reply.abandoned() => return debug!("nobody waits for the answer any more"),
            _ = open.changed() => Err(Failure::new(Class::Cancelled, super::STOPPED).maybe_charged()),
        };
        let trail = self.trail;
        reply.send(match ended {
            Ok(Ended { reply, lane, practice, cost }) => Ok(Answer { reply, lane, practice, cost, trail }),
            Err(failure) => Err(Box::new(Unanswered { failure, trail })),
        });
    }

    fn send(&self, lane: usize) -> Sent {
        let LaneHandle { name, provider, .. } = &self.lanes[lane];
        let call = Call {
            prompt: self.ask.prompt.clone(),
            model: name.model.clone(),
            priority: self.ask.priority,
            asker: self.ask.asker.clone(),
            retry: false,
            alone: false,
            deadline: self.ask.deadline,
        };
        Some(provider.slot().shared()?.send(call))
    }

    async fn follow(&mut self) -> Result<Ended, Failure> {
        loop {
            chaos::point("flow.plan");
            let (lane, sent) = match self.first.take() {
                Some(first) => first,
                None => match self.plan.next(Instant::now(), fastrand::f64()) {
                    Step::Call(lane) => (lane, self.send(lane)),
                    Step::Wait(until) => {
                        sleep_until(until).await;
                        continue;
                    }
                    Step::GiveUp(failure) => return Err(failure),
                },
            };
            let asked = Instant::now();
            let outcome = outcome(sent, self.ask.deadline).await;
            chaos::point("flow.told");
            match outcome {
                Ok(replied) => {
                    if let Some(ended) = self.replied(lane, replied) {
                        return Ok(ended);
                    }
                }
                Err(refused) => {
                    self.plan.refused(lane, &refused, Instant::now());
                    note_refusal(&mut self.trail, &self.lanes[lane], &refused, asked.elapsed());
                }
            }
        }
    }

    /// Takes what a call brought; returns the answer, if it is one.
    fn replied(&mut self, lane: usize, replied: Replied) -> Option<Ended> {
        let Replied { key, waited, probe, forced, took, first_token, cost, result } = replied;
        let LaneHandle { name, provider, .. } = &self.lanes[lane];
        let mut attempt = attempt(&self.lanes[lane], Some(key), waited, took);
        (attempt.first_token, attempt.cost, attempt.forced) = (first_token, cost, forced);
        match result {
            Ok(reply) => {
                attempt.usage = reply.usage;
                self.trail.0.push(attempt);
                let (lane, practice) = (name.clone(), provider.is_practice());
                Some(Ended { reply, lane, practice, cost })
            }
            Err(failure) => {
                attempt.usage = failure.usage.as_deref().copied();
                attempt.outcome = Outcome::Failed(failure.clone());
                self.trail.0.push(attempt);
                let now = Instant::now();
                let left = KeyLeft(provider.has_key(now));
                self.plan.failed(lane, failure, (left, Probe(probe)), now, fastrand::f64());
                None
            }
        }
    }
}

async fn outcome(sent: Sent, deadline: Instant) -> Result<Replied, Refused> {
    let Some(sent) = sent else { return Err(Refused::Down) };
    match timeout_at(deadline + GRACE, sent).await {
        Ok(Ok(replied)) => replied,
        // The actor died with the message: what it had let leave would have been answered.
        Ok(Err(_)) => Err(Refused::Down),
        Err(_) => Err(Refused::Busy { until: Instant::now() }),
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
        forced: false,
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
