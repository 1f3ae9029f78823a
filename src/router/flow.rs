//! One ask on its way: follows its plan over the lanes until somebody answers.
//!
//! Ends when its asker has gone, when its time is up, and when the router stops. Never glues two replies
//! together.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::chaos;
use crate::provider::{Awaited, Call, Departure, KeyId, Refused, State};
use crate::types::{
    Answer, Asker, Attempt, Class, FailedAttempt, Failure, LaneName, NanoUsd, Reply, Scope, Trail,
    Unanswered, Verdict,
};

use super::ask::{Ask, StopSignal, stops};
use super::attempt;
use super::hedge::{HedgeAfter, Hedges};
use super::lane::LaneHandle;
use super::others::Others;
use super::out::{End, Out, Sent};
use super::plan::{self, Candidate, KeyLeft, Plan, Probe, Step};
use super::settings::RetrySettings;
use super::unusable;

/// Calls of one ask that a panic of the provider's actor may cost before that counts as a failure.
const LOST_AT_MOST: u32 = 3;

/// How long a request may wait for its turn, all in all, once its asker stops. One that waits longer is given up.
const LAST_TURN: Duration = Duration::from_millis(500);

/// Why a question ended that had to wait.
const STOPPING: &str = "the run stops, and the call would have had to wait for its turn";

/// How often a question that waits looks whether there is money left for it.
const MONEY: Duration = Duration::from_secs(1);

pub(super) type Answered = Result<Answer, Box<Unanswered>>;

/// An ask on its way.
pub(super) struct Flow {
    ask: Ask,
    lanes: Vec<LaneHandle>,
    plan: Plan,
    trail: Trail,
    hedging: Option<(HedgeAfter, Arc<Hedges>)>,
    /// After how long without a word another lane is asked as well, whatever was configured.
    silence: Option<(Duration, Arc<Hedges>)>,
    first: Option<First>,
    /// Closed when the router stops; which waits for those that hold it.
    open: watch::Receiver<()>,
    /// Calls that a panic of a provider's actor has cost.
    lost: u32,
    /// The keys that it was refused with, by the number of their lane.
    refused_keys: Vec<(usize, KeyId)>,
    others: Others,
    /// Its attempts that failed.
    failed: Vec<FailedAttempt>,
    /// Until when it may wait, once its asker stops.
    last_turn: Option<Instant>,
}

/// A first call that is still to be sent, and where to.
pub(super) type FirstCall = (Arc<State>, Call);

/// The first call.
enum First {
    /// Its end comes here.
    Here(Out),
    /// Its end comes to the asker, who brings it.
    Brought(Sent, Option<Arc<Departure>>),
}

/// What an asker knows of the first call.
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once and never kept; a box would cost each call more"
)]
pub(super) enum FirstEnd {
    /// How it ended.
    Known(End),
    /// Nothing yet: its end is to be awaited here.
    Open(Awaited),
}

/// An answer whose trail is elsewhere.
struct Ended {
    reply: Reply,
    lane: LaneName,
    practice: bool,
    cost: Option<NanoUsd>,
}

impl Flow {
    /// Begins an ask: its first call is sent at once, by the router itself. Router and providers share a
    /// thread, so that costs no other thread's wake. With `brought` it is returned instead, to be sent last of all, and
    /// its end is brought by the asker; unless there is no call yet, or its end is to be awaited here.
    pub(super) fn begin(
        ask: Ask,
        lanes: Vec<LaneHandle>,
        retry: RetrySettings,
        (shared, open): (&Arc<Hedges>, watch::Receiver<()>),
        brought: bool,
    ) -> (Self, Option<FirstCall>) {
        // A run sends its requests again by itself. One that it has sent again takes one attempt, so that many take turns.
        let comes_back = ask.asker.step.is_some();
        let once = RetrySettings { attempts_per_lane: NonZeroU32::MIN, rounds: NonZeroU32::MIN, ..retry };
        let retry = if ask.asker.has_failed { once } else { retry };
        let plan = Plan::new(lanes.iter().map(candidate), retry, ask.deadline).coming_back(comes_back);
        let hedges = retry.hedge_after != HedgeAfter::Off && lanes.len() > 1;
        let hedging = hedges.then(|| (retry.hedge_after, shared.clone()));
        let silence = Some((retry.silent_after, shared.clone()));
        let (trail, refused_keys, others) = (Trail::default(), Vec::new(), Others::default());
        let (first, last_turn) = (None, None);
        let mut flow = Self {
            ask,
            lanes,
            plan,
            trail,
            hedging,
            silence,
            first,
            open,
            lost: 0,
            refused_keys,
            others,
            failed: Vec::new(),
            last_turn,
        };
        // Anything else than a call (there is no lane, time is up) the plan says again.
        let Step::Call(lane) = flow.plan.next(Instant::now(), 0.0) else { return (flow, None) };
        if !brought || flow.hedging.is_some() {
            flow.first = Some(First::Here(flow.send(lane)));
            return (flow, None);
        }
        let (to, call) = (flow.lanes[lane].provider.clone(), flow.main_call(lane));
        let sent = Sent { lane, hedge: false, asked: Instant::now() };
        flow.first = Some(First::Brought(sent, call.departure.clone()));
        (flow, Some((to, call)))
    }

    /// Finds an answer; `brought` is the end of the call whose reply the asker has given.
    pub(super) async fn answer(mut self, brought: Option<FirstEnd>) -> Answered {
        let mut open = self.open.clone();
        let ended = match brought.and_then(|end| self.take(end)) {
            Some(ended) => Ok(ended),
            None => tokio::select! {
                biased;
                _ = open.changed() => Err(Failure::new(Class::Cancelled, super::STOPPED).maybe_charged().into()),
                ended = self.follow() => ended,
            },
        };
        let (lanes, trail, failed) = (self.lanes, self.trail, self.failed);
        match ended {
            Ok(Ended { reply, lane, practice, cost }) => {
                Ok(Answer { reply, lane, practice, cost, trail, lost: 0 })
            }
            Err(plan::End { failure, lane }) => {
                let expected_wait = unusable::expected_wait(&lanes, &failure, Instant::now());
                let lane = lane.map(|lane| lanes[lane].name.clone());
                Err(Box::new(Unanswered { failure, lane, trail, lost: 0, failed, expected_wait }))
            }
        }
    }

    /// Takes the end of the first call from the asker, if it was his to await.
    fn take(&mut self, end: FirstEnd) -> Option<Ended> {
        match (self.first.take(), end) {
            (Some(First::Brought(sent, _)), FirstEnd::Known(end)) => {
                chaos::point("flow.plan");
                self.learn(sent, end, false)
            }
            (Some(First::Brought(sent, departure)), FirstEnd::Open(awaited)) => {
                let out = Out::taken_over(sent, self.ask.deadline, departure, awaited);
                self.first = Some(First::Here(out));
                None
            }
            (here, _) => {
                self.first = here;
                None
            }
        }
    }

    async fn follow(&mut self) -> Result<Ended, plan::End> {
        loop {
            chaos::point("flow.plan");
            let out = match self.first.take() {
                Some(First::Here(first)) => first,
                _ => match self.plan.next(Instant::now(), fastrand::f64()) {
                    Step::Call(lane) if self.stops_before(lane) => {
                        return Err(Failure::new(Class::Cancelled, STOPPING).into());
                    }
                    Step::Call(lane) => self.send(lane),
                    Step::Wait(until) => {
                        if let Some(end) = self.fails_fast(Instant::now()) {
                            return Err(end);
                        }
                        self.wait(until).await?;
                        continue;
                    }
                    Step::GiveUp(end) => return Err(end),
                },
            };
            if let Some(ended) = self.race(out).await? {
                return Ok(ended);
            }
        }
    }

    /// Waits until then, or fails as soon as there is no money left to go on with.
    async fn wait(&mut self, until: Instant) -> Result<(), Failure> {
        while Instant::now() < until {
            if let Some(met) = self.ask.purse.as_ref().and_then(|purse| purse.met()) {
                return Err(met);
            }
            // However many short waits there are, such as those of a provider that is down, together they end.
            let stops_now = Instant::now() + LAST_TURN;
            let is_given = self.ask.stop.as_ref().is_some_and(StopSignal::is_given);
            let last_turn = if is_given { *self.last_turn.get_or_insert(stops_now) } else { stops_now };
            let is_long = until > last_turn;
            tokio::select! {
                () = sleep_until(until.min(Instant::now() + MONEY)) => {}
                () = stops(self.ask.stop.clone()), if is_long => {
                    return Err(Failure::new(Class::Cancelled, STOPPING));
                }
            }
        }
        Ok(())
    }

    /// Waits for a call, and for another beside it once it takes long or stays silent; returns the first answer.
    ///
    /// # Errors
    /// When its asker stops before the call has left.
    async fn race(&mut self, mut first: Out) -> Result<Option<Ended>, Failure> {
        let mut long = pin!(self.takes_long(&first).fuse());
        let mut silent = pin!(self.stays_silent(&first, Instant::now()).fuse());
        let mut in_vain = pin!(self.waits_in_vain(&first).fuse());
        loop {
            let beside = tokio::select! {
                biased;
                end = first.end() => return Ok(self.learn(first.sent, end, false)),
                () = &mut long, if !long.is_terminated() => self.send_beside(first.sent.lane),
                () = &mut silent, if !silent.is_terminated() => {
                    let beside = self.send_beside_silent(&first);
                    // Another lane may be free in a moment.
                    if beside.is_none() {
                        silent.set(self.stays_silent(&first, Instant::now() + beside::LOOK).fuse());
                    }
                    beside
                }
                // Withdrawn, it never leaves. One that left in the last moment is in flight, and waited for.
                () = &mut in_vain, if !in_vain.is_terminated() => match first.withdraw() {
                    true => return Err(Failure::new(Class::Cancelled, STOPPING)),
                    false if self.hangs(&first) => return Err(self.stop_hung(first)),
                    false => None,
                },
            };
            if let Some(beside) = beside {
                return Ok(self.first_of(first, beside).await);
            }
        }
    }

    /// Waits for two calls, and returns the first answer.
    async fn first_of(&mut self, mut first: Out, mut beside: Out) -> Option<Ended> {
        let (end, ended, mut other) = tokio::select! {
            end = first.end() => (end, first, beside),
            end = beside.end() => (end, beside, first),
        };
        if matches!(&end, End::Replied(replied) if replied.result.is_ok()) {
            self.break_off(other);
            return self.learn(ended.sent, end, false);
        }
        self.learn(ended.sent, end, true);
        if self.plan.is_over() {
            self.break_off(other);
            return None;
        }
        // Where it hangs, it is followed as a first call is: yet another lane may be asked beside it.
        if self.hangs(&other) {
            self.first = Some(First::Here(other));
            return None;
        }
        let end = other.end().await;
        self.learn(other.sent, end, false)
    }

    fn send(&self, lane: usize) -> Out {
        if let Some((_, hedges)) = &self.hedging {
            hedges.called();
        }
        Out::send(lane, &self.lanes[lane], false, self.main_call(lane))
    }

    /// Makes the call that the plan asks for.
    fn main_call(&self, lane: usize) -> Call {
        let now = Instant::now();
        let alone = self.plan.is_alone(lane, now, |other| self.lanes[other].is_well(now));
        self.call(lane, alone, self.plan.is_last(lane))
    }

    fn call(&self, lane: usize, alone: bool, stay: bool) -> Call {
        let has_failed = self.ask.asker.has_failed || !self.failed.is_empty();
        Call {
            prompt: self.ask.prompt.clone(),
            model: self.lanes[lane].name.model.clone(),
            priority: self.ask.priority,
            asker: Asker { has_failed, ..self.ask.asker.clone() },
            retry: self.plan.is_retry(lane),
            alone,
            stay,
            not_with: self.keys_refused_at(lane),
            departure: Some(Arc::new(Departure::new())),
            purse: self.ask.purse.clone(),
            held: self.ask.held.clone(),
            deadline: self.ask.deadline,
        }
    }

    /// Returns the keys that this request was refused with at a lane.
    fn keys_refused_at(&self, lane: usize) -> Vec<KeyId> {
        self.refused_keys.iter().filter(|(at, _)| *at == lane).map(|(_, key)| key.clone()).collect()
    }

    /// Takes what a call brought; returns the answer, if it is one. `rival` is whether another call of this
    /// ask is still out.
    fn learn(&mut self, out: Sent, end: End, rival: bool) -> Option<Ended> {
        chaos::point("flow.told");
        let (now, LaneHandle { name, provider, .. }) = (Instant::now(), &self.lanes[out.lane]);
        let (failure, kind) = match end {
            End::Replied(replied) => {
                let (cost, probe, key) = (replied.cost, replied.probe, replied.key.clone());
                let number = replied.number;
                let (attempt, result) = attempt::came_back(name, out.hedge, replied);
                note(&self.ask, &mut self.trail, attempt);
                match result {
                    Ok(reply) => {
                        let (lane, practice) = (name.clone(), provider.is_practice());
                        return Some(Ended { reply, lane, practice, cost });
                    }
                    Err(mut failure) => {
                        self.others.failed(out.lane, &self.lanes);
                        self.failed.push(FailedAttempt { target: name.clone(), number });
                        if failure.class == Class::RateLimit && self.is_limited_alone(out.lane) {
                            failure.scope = Scope::Target;
                        }
                        let mut other = false;
                        if failure.may_take_another_key() {
                            self.refused_keys.push((out.lane, key));
                            let refused = self.keys_refused_at(out.lane);
                            other = provider.has_other_key(&name.model, &refused, now);
                        }
                        (failure, (KeyLeft(other), Probe(probe)))
                    }
                }
            }
            End::Refused(refused) => {
                attempt::note_refusal(&mut self.trail, name, &refused, out.asked.elapsed());
                match refused {
                    // The other may still answer: it has left already.
                    Refused::Budget { failure, .. } if rival => self.plan.close(out.lane, failure),
                    refused => self.plan.refused(out.lane, &refused, now, fastrand::f64()),
                }
                return None;
            }
            End::Late(gone) => {
                self.others.failed(out.lane, &self.lanes);
                self.failed.push(FailedAttempt { target: name.clone(), number: gone.number });
                let (attempt, failure) = attempt::late(name, out.hedge, gone);
                note(&self.ask, &mut self.trail, attempt);
                (failure, (KeyLeft(true), Probe(false)))
            }
            End::Lost(failure) => {
                self.trail.0.push(attempt::lost(name, out.hedge, out.asked.elapsed(), &failure));
                self.lost += 1;
                // Our own actor's death says nothing of the provider, and costs no attempt: it is back in a
                // moment, or down for good and then says so. But a question that kills it each time must end.
                if self.lost <= LOST_AT_MOST {
                    self.plan.refused(out.lane, &Refused::Down, now, fastrand::f64());
                    return None;
                }
                (failure, (KeyLeft(true), Probe(false)))
            }
        };
        if rival && out.hedge && failure.verdict() == Verdict::Never {
            // Without it the other would still have its chance.
            self.plan.close(out.lane, failure);
        } else {
            self.plan.failed(out.lane, failure, kind, now, fastrand::f64());
        }
        None
    }

    /// Breaks off a call that nobody waits for any more.
    fn break_off(&mut self, out: Out) {
        let (lane, hedge) = (&self.lanes[out.sent.lane].name, out.sent.hedge);
        if let Some(gone) = out.break_off() {
            note(&self.ask, &mut self.trail, attempt::beaten(lane, hedge, gone));
        }
    }
}

/// Writes down a call that has left and ended.
fn note(ask: &Ask, trail: &mut Trail, attempt: Attempt) {
    if let Some(counts) = &ask.counts {
        counts.count(&attempt);
    }
    trail.0.push(attempt);
}

fn candidate(lane: &LaneHandle) -> Candidate {
    let LaneName { provider, model } = &lane.name;
    Candidate { provider: provider.clone(), context: lane.provider.context(model) }
}

mod beside;
mod stopping;
mod targets;
