//! The numbers of a provider, and which call may leave.
//!
//! Pure: it is given `now`, and its owner holds the lock, sends the replies and makes the calls. What calls
//! teach when they end is in `outcome.rs`, what others see of it in `standing.rs`.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::guard::{Breaker, BreakerSettings, BreakerState, Limits, Need, Pass, RetryBudget, Trouble};
use crate::types::{Cause, Class, Failure, ModelName, ProviderName};

use super::call::{Call, Refused};
use super::estimate::Estimate;
use super::key::ReadyKey;
use super::keys::{Keys, NoKey};
use super::lane::{Lane, Learned};
use super::limit_use::Lately;
use super::money::{Money, NoMoney, Spending};
use super::permit::Taken;
use super::queue::{Queue, Ticket};
use super::reached::Reached;
use super::settings::Settings;
use super::state::Waiting;
use super::times::Times;
use super::unheard::Unheard;

/// How soon a call looks again for money that other providers' calls may have left over; those of its own are
/// told at once.
const MONEY: Duration = Duration::from_millis(50);

/// What a provider has counted.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) queue: Queue<Waiting>,
    pub(super) limits: Limits,
    pub(super) keys: Keys,
    /// For faults that are every lane's: nobody there, or nobody to be trusted.
    pub(super) door: Breaker,
    /// The last failure that counted against the door.
    pub(super) at_the_door: Option<Failure>,
    /// What was heard of the provider while connections failed.
    pub(super) reached: Reached,
    /// Whether the shared breaker has closed with a first word, and the router is to be told.
    pub(super) door_has_closed: bool,
    pub(super) retries: RetryBudget,
    /// Whether retries have run out, and people know.
    pub(super) retries_ran_out: bool,
    pub(super) spending: Spending,
    pub(super) lanes: HashMap<ModelName, Lane>,
    pub(super) in_flight: usize,
    /// Most attempts in flight to all models together; `None` is no bound beside each model's own.
    pub(super) max_in_flight: Option<usize>,
    pub(super) seconds: Learned,
    pub(super) lately: Lately,
    pub(super) calls: u64,
    pub(super) throttled: u64,
    /// Whether it has taken over the calls of a day that a store had counted.
    pub(super) has_restored_day: bool,
    /// Whether calls wait for limits, and not for others to end.
    pub(super) paced: bool,
}

/// What the queue allows.
pub(super) enum Turn {
    /// The call whose turn it is leaves, with this key, what it took, and its money.
    Leave(Box<(Waiting, ReadyKey, Taken, Money)>),
    /// It cannot leave at all.
    Refuse(Box<Waiting>, Refused),
    /// It may leave at that instant.
    Wait(Instant),
    /// Nobody waits, or nobody may leave before a call ends.
    Nothing,
}

/// What keeps a call from leaving.
enum Held {
    /// All calls, until then.
    All(Instant),
    /// Those of its lane.
    Lane,
    /// It cannot leave at all.
    Refused(Refused),
}

impl Book {
    pub(super) fn new(settings: &Settings, keys: Keys, now: Instant) -> Self {
        let lane = |(name, model): (&ModelName, _)| (name.clone(), Lane::new(settings, model, now));
        Self {
            queue: Queue::new(settings.queue.get()),
            limits: Limits::new(&settings.limits.rates(), now),
            keys,
            door: Breaker::new(at_the_door(&settings.breaker)),
            at_the_door: None,
            reached: Reached::default(),
            door_has_closed: false,
            retries: RetryBudget::new(settings.retries.clone(), now),
            retries_ran_out: false,
            spending: Spending::default(),
            lanes: settings.models.iter().map(lane).collect(),
            in_flight: 0,
            max_in_flight: settings.max_concurrency.map(|bound| bound.get() as usize),
            seconds: Learned::default(),
            lately: Lately::new(now),
            calls: 0,
            throttled: 0,
            has_restored_day: false,
            paced: false,
        }
    }

    /// Says whether a call may wait here.
    pub(super) fn admissible(
        &self,
        provider: &ProviderName,
        settings: &Settings,
        call: &Call,
        estimate: Estimate,
        now: Instant,
    ) -> Result<(), Refused> {
        let (Some(model), Some(lane)) = (settings.models.get(&call.model), self.lanes.get(&call.model))
        else {
            let unknown = format!("{provider} has no model called {}", call.model);
            return Err(Refused::TooLarge(Failure::new(Class::NotFound, unknown)));
        };
        if let Some(met) = self.spending.met(call) {
            return Err(met);
        }
        let too_large = |message: String| Refused::TooLarge(Failure::new(Class::TooLong, message));
        let least = lane.sizes.least_input(estimate.input);
        if let Some(context) = model.context.filter(|context| least > context.get()) {
            let (lane_name, about) = (format!("{provider}/{}", call.model), lane.sizes.input(estimate.input));
            return Err(too_large(format!(
                "the prompt has about {about} tokens, and {lane_name} takes {context}"
            )));
        }
        for limits in [&self.limits, &lane.limits] {
            lane.reservations.fits(provider, limits, &lane.sizes, estimate).map_err(too_large)?;
        }
        let reserved = lane.reservations.of(&lane.sizes, call.asker.step.as_ref(), estimate);
        // While a probe is due or under way, waiting for it is worth more than going away.
        // Where it is silent, a probe takes as long as it takes.
        let is_open = |breaker: &Breaker| {
            let is_silent = breaker.trouble() == Some(Trouble::Silence);
            breaker.state(now) == BreakerState::Open || is_silent && !breaker.would_admit(now)
        };
        if is_open(&self.door) || is_open(&lane.breaker) {
            self.check(lane, call.alone, now)?;
        }
        if let Err(NoKey::Resting(failure)) = self.keys.pick(&call.model, &call.not_with, now) {
            return Err(Refused::NoKey(failure));
        }
        let spent = [&lane.limits, &self.limits].into_iter().find_map(|limits| limits.day_is_spent(now));
        if let Some((limit, until)) = spent.filter(|(_, until)| *until > call.deadline) {
            return Err(Refused::NoKey(spent_day(provider, limit, until, now)));
        }
        if let Some(until) = self.held_for_long(lane, now).filter(|_| !call.stay) {
            return Err(Refused::Busy { until });
        }
        // Those of lanes that take none now will not go before it.
        let ahead = self.queue.ahead_of(&call.place(), |model| self.may(model, now));
        let own = self.queue.ahead_of(&call.place(), |_| false);
        let until = self.turn(lane, (ahead, own), reserved.foretold(), now);
        if until > call.deadline {
            return Err(Refused::Busy { until });
        }
        if self.queue.is_full() {
            // It would fit in time and there is room soon: come back when a part of the queue has gone.
            let part = self.queue.len() / 10;
            let until = self.turn(lane, (part, part), reserved.foretold(), now);
            return Err(Refused::Busy { until });
        }
        Ok(())
    }

    /// Asks the breakers, and takes no pass.
    pub(super) fn check(&self, lane: &Lane, alone: bool, now: Instant) -> Result<(), Refused> {
        if let Err(until) = self.door.check(now, alone) {
            return Err(match &self.at_the_door {
                // Patience is for what has worked before, be it another model's.
                Some(last) if !self.lanes.values().any(|lane| lane.has_answered) => {
                    Refused::NeverAnswered(last.clone())
                }
                _ => Refused::Open { until },
            });
        }
        lane.breaker.check(now, alone).map_err(|until| lane.refusal(until))
    }

    /// Returns when a call would leave that has so many others before it, of all lanes and of its own.
    fn turn(&self, lane: &Lane, (ahead, own): (usize, usize), need: Need, now: Instant) -> Instant {
        let shared = self.limits.expected(ahead as u64, need, now);
        let paced = shared.max(lane.limits.expected(own as u64, need, now));
        let at_once = lane.concurrency.reachable(lane.is_paced(&self.limits));
        let of_lane = (lane.concurrency.counted() + own) as f64 / at_once as f64;
        let of_all = self.max_in_flight.map_or(0.0, |max| (self.in_flight + ahead) as f64 / max as f64);
        let waves = of_lane.max(of_all);
        // As long as none has come back nobody knows, and a guess must not turn anyone away.
        let Some(seconds) = self.seconds.0.filter(|_| waves >= 1.0) else { return paced };
        // The calls that are out are half done, on average.
        paced.max(now + Duration::from_secs_f64((waves - 0.5) * seconds))
    }

    /// Returns whether a lane's calls are to be looked at now.
    pub(super) fn may(&self, model: &ModelName, now: Instant) -> bool {
        // Those in flight can tell, soon, whether the provider cannot be reached or only single requests fail.
        if self.reached.in_doubt_until(now).is_some() && self.door.is_doubtful() {
            return false;
        }
        let is_shut = self.door.trouble() == Some(Trouble::Row);
        self.lanes.get(model).is_none_or(|lane| lane.may(&self.limits, is_shut, now))
    }

    /// Decides about the call whose turn it is.
    pub(super) fn next(&mut self, now: Instant) -> Turn {
        self.paced = false;
        let mut full = Vec::new(); // Models whose call has to wait for another's end.
        loop {
            let next = self.queue.next(|model| !full.contains(model) && self.may(model, now));
            let Some((ticket, first)) = next else { return self.wait_for_a_lane(now) };
            // Nobody would get the answer. A panic may have cost the asker after the call was queued, too.
            if first.reply.is_abandoned() || first.call.deadline <= now {
                return self.refuse(&ticket, Refused::Busy { until: now });
            }
            if self.needs_room(&first.call, now) {
                full.push(first.call.model.clone());
                continue;
            }
            let (call, estimate) = (first.call.clone(), first.estimate);
            match self.admit(&call, estimate, now) {
                Ok((key, taken, money)) => {
                    let Some(waiting) = self.queue.take(ticket) else {
                        self.settle(&taken, None, now);
                        return Turn::Nothing;
                    };
                    return Turn::Leave(Box::new((waiting, key, taken, money)));
                }
                Err(Held::Lane) => {}
                Err(Held::All(ready)) => {
                    self.paced = true;
                    return Turn::Wait(ready);
                }
                Err(Held::Refused(refused)) => return self.refuse(&ticket, refused),
            }
        }
    }

    /// Returns whether a call has to wait because as many are in flight as all models together may have; but what a
    /// breaker refuses, or probes with, does not wait for calls that hang.
    fn needs_room(&self, call: &Call, now: Instant) -> bool {
        let Some(max) = self.max_in_flight else { return false };
        let Some(lane) = self.lanes.get(&call.model) else { return self.in_flight >= max };
        if lane.breaker.trouble().is_none() && self.door.trouble().is_none() {
            return !self.has_room_for_all();
        }
        let passes = |alone| self.check(lane, alone, now).is_ok();
        self.in_flight >= max && call.alone && passes(true) && !passes(false)
    }

    /// Returns whether fewer attempts are in flight than all models together may have. Those to a model that has
    /// fallen silent do not count: they may hang for minutes, and the other models must not wait for them.
    pub(super) fn has_room_for_all(&self) -> bool {
        let counted = |lane: &Lane| if lane.is_silent() { 0 } else { lane.concurrency.counted() };
        self.max_in_flight.is_none_or(|max| self.lanes.values().map(counted).sum::<usize>() < max)
    }

    /// Lets a call leave, with all that it takes; or takes nothing.
    fn admit(
        &mut self,
        call: &Call,
        estimate: Estimate,
        now: Instant,
    ) -> Result<(ReadyKey, Taken, Money), Held> {
        let key = match self.keys.pick(&call.model, &call.not_with, now) {
            Ok(key) => key.clone(),
            Err(NoKey::Soon(by)) => return Err(Held::All(by)),
            Err(NoKey::Resting(failure)) => return Err(Held::Refused(Refused::NoKey(failure))),
        };
        let lane = self.lanes.get(&call.model).ok_or(Held::Refused(Refused::Down))?;
        self.check(lane, call.alone, now).map_err(Held::Refused)?;
        // Given back by itself where the call does not leave.
        let money = self.money(call, estimate, now)?;
        let Some(lane) = self.lanes.get_mut(&call.model) else { return Err(Held::Refused(Refused::Down)) };
        // Only now: answers that came while it waited have taught something.
        let reserved = lane.reservations.of(&lane.sizes, call.asker.step.as_ref(), estimate);
        let own = lane.take(&reserved, now).map_err(|_| Held::Lane)?;
        let shared = self.limits.take(reserved.need, reserved.usual, now).map_err(|ready| {
            lane.limits.stayed(reserved.need, &own);
            Held::All(ready)
        })?;
        let passes = match counted(&mut self.retries, call.retry, now) {
            Ok(()) => passes(&mut self.door, &mut lane.breaker, call.alone, now),
            Err(refused) => Err(refused),
        };
        let (door, pass) = match passes {
            Ok(passes) => passes,
            Err(refused) => {
                lane.limits.stayed(reserved.need, &own);
                self.limits.stayed(reserved.need, &shared);
                return Err(Held::Refused(refused));
            }
        };
        if door.is_probe() {
            self.reached.probes(door, now);
        }
        if self.limits.counts_day() || lane.limits.counts_day() {
            lane.uncounted += 1;
        }
        lane.took(&reserved);
        lane.output_habit.sent(&reserved, now);
        let ticket = lane.concurrency.left(lane.is_paced(&self.limits), now);
        self.in_flight += 1;
        self.calls += 1;
        let (step, departure) = (call.asker.step.clone(), call.departure.clone());
        lane.waits_for_word(self.calls, Unheard { left: now, pass, step, departure });
        let is_first = !call.retry && !call.asker.has_failed;
        if is_first {
            lane.first_attempts.left(self.calls, call.asker.item());
        }
        lane.lately.left(reserved.usual, now);
        self.lately.left(reserved.usual, now);
        let (model, step) = (call.model.clone(), call.asker.step.clone());
        let (id, number, is_retry) = (key.id.clone(), self.calls, call.retry);
        let request = Arc::downgrade(&call.prompt);
        let taken = Taken {
            model,
            key: id,
            request,
            number,
            door,
            pass,
            ticket,
            is_retry,
            is_first,
            step,
            reserved,
            shared,
            own,
        };
        Ok((key, taken, money))
    }

    /// Reserves what a call is likely to cost.
    fn money(&mut self, call: &Call, estimate: Estimate, now: Instant) -> Result<Money, Held> {
        let Some(lane) = self.lanes.get_mut(&call.model) else { return Err(Held::Refused(Refused::Down)) };
        let need = lane.sizes.likely(call.asker.step.as_ref(), estimate);
        let until = now + MONEY;
        self.spending.reserve(call, lane.price, need).map_err(|why| match why {
            NoMoney::Refused(refused) => Held::Refused(refused),
            // One run's money must not hold up another's calls: it comes back.
            NoMoney::Busy { of_run: true } if self.queue.others_wait(&call.place()) => {
                Held::Refused(Refused::Busy { until })
            }
            NoMoney::Busy { .. } => {
                lane.held_back = Some(until);
                Held::Lane
            }
        })
    }

    /// Returns when the first lane that calls wait for is worth asking again.
    fn wait_for_a_lane(&mut self, now: Instant) -> Turn {
        let waiting =
            self.queue.lanes_waiting().filter_map(|(model, _)| self.lanes.get(model)?.looked_at_again());
        let ready = waiting.chain(self.reached.in_doubt_until(now)).filter(|ready| *ready > now).min();
        self.paced = ready.is_some();
        ready.map_or(Turn::Nothing, Turn::Wait)
    }

    /// Returns the times that calls to a model take.
    pub(super) fn times(&mut self, model: &ModelName) -> Option<&mut Times> {
        self.lanes.get_mut(model).map(|lane| &mut lane.times)
    }

    fn refuse(&mut self, ticket: &Ticket, refused: Refused) -> Turn {
        self.queue.discard(ticket).map_or(Turn::Nothing, |waiting| Turn::Refuse(Box::new(waiting), refused))
    }
}

/// A connection that fails leaves less room for doubt than an answer that does.
fn at_the_door(settings: &BreakerSettings) -> BreakerSettings {
    let failures = settings.failures.get().saturating_mul(2).div_ceil(5);
    BreakerSettings { failures: NonZeroU32::new(failures).unwrap_or(NonZeroU32::MIN), ..settings.clone() }
}

/// Says that the requests of a day are used up, and until when by the clock.
fn spent_day(provider: &ProviderName, limit: u64, until: Instant, now: Instant) -> Failure {
    let wait = until.saturating_duration_since(now);
    let room = clock::now().saturating_add(wait).unwrap_or(jiff::Timestamp::MAX);
    let message = format!(
        "requests_per_day = {limit} of provider {provider} is used up: there is room again at {} UTC",
        room.strftime("%Y-%m-%d %H:%M")
    );
    let failure = Failure::new(Class::Quota, message).because(Cause::ConfiguredLimit);
    Failure { retry_after: Some(wait), ..failure }
}

/// Counts a call, or takes it from the retries.
fn counted(retries: &mut RetryBudget, is_retry: bool, now: Instant) -> Result<(), Refused> {
    if is_retry {
        return retries.take(now).map_err(|until| Refused::RetriesSpent { until });
    }
    retries.called(now);
    Ok(())
}

/// Takes the passes of both breakers; asked before, they give them.
fn passes(
    door: &mut Breaker,
    lane: &mut Breaker,
    alone: bool,
    now: Instant,
) -> Result<(Pass, Pass), Refused> {
    let shared = door.admit(now, alone).map_err(|until| Refused::Open { until })?;
    let own = lane.admit(now, alone).map_err(|until| {
        door.said_nothing(shared);
        Refused::Open { until }
    })?;
    Ok((shared, own))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
