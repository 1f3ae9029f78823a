//! What a provider learns from its calls: when their headers come, and when they end.
//!
//! Pure, as the rest of the book: it is given `now`.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{self, Backoff, BreakerState, Hearing, Standing, Standings};
use crate::types::{Class, Failure, ModelName, Reply, Scope};
use crate::wire::{Hints, Remaining};

use super::book::Book;
use super::call::LaneHealth;
use super::keys::Blame;
use super::lane::{ConcurrencyNews, Lane};
use super::permit::{Ended, Taken};
use super::reached::Unreachable;
use super::suspicion::RefusedAttempt;

/// How long a provider is left alone that asked us to slow down without saying for how long.
const THROTTLED: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };

/// How long a provider is left alone at least that asked us to slow down, whatever it said: one that
/// says `0` and means it not would otherwise be asked in a circle.
const THROTTLED_AT_LEAST: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(10) };

/// A rate limit that asks for as long a wait as this, or for years, does not mean it: it would be
/// believed at the price of the whole provider.
const NONSENSE: Duration = Duration::from_hours(24);

/// Seconds without a word that say something about a provider, at least, and before one call has been
/// answered.
const SILENT_AT_LEAST: f64 = 1.0;
const SILENT_AT_FIRST: f64 = 5.0;

/// What people should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    /// The router has to know.
    pub(super) health: bool,
    /// The lane's breaker, or the door's, has opened, or closed again.
    pub(super) moved_to: Option<BreakerState>,
    /// A key has come to rest that did not.
    pub(super) key_rests: bool,
    /// Whether the call failed because of its key.
    pub(super) blame: Blame,
    /// The provider has turned out to count `max_tokens`.
    pub(super) counts_max_tokens: bool,
    /// Every request is refused because there is no such model.
    pub(super) model_is_missing: bool,
    /// The lane's concurrency has become much smaller, or is as before.
    pub(super) concurrency: Option<ConcurrencyNews>,
    /// Retries are there again after they had run out.
    pub(super) retries_are_back: bool,
}

/// Whom response headers are news for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Calls that wait may now leave.
    pub(super) calls: bool,
    /// The router has to know.
    pub(super) health: bool,
}

/// About whom an ended call says something.
enum Says {
    /// The lane answered.
    Well,
    /// The lane failed.
    Lane,
    /// The whole provider could not be reached.
    Door,
    /// Nothing: the caller was at fault, or left.
    Nothing,
}

impl Book {
    /// Believes what the headers of a response say, as soon as they are here. Returns whom to tell.
    pub(super) fn heard(&mut self, taken: &Taken, hints: &Hints, accepted: bool, now: Instant) -> Heard {
        self.was_reached(taken, now);
        let Some(lane) = self.lanes.get_mut(&taken.model) else { return Heard::default() };
        let had_room = lane.concurrency.has_room(lane.is_paced(&self.limits));
        let was_ill = lane.breaker.trouble().is_some();
        let mut said = standings(hints);
        if accepted {
            said = said.borne_out_by(lane.sizes.least_input(taken.reserved.estimate.input));
        }
        lane.had_word(taken.number, now);
        if accepted && taken.pass.is_probe() {
            lane.works_again(taken.number);
        }
        let hearing = if lane.has_limits { Hearing::OwnNumbers } else { Hearing::All };
        self.limits.hear(&said, &taken.shared, hearing, now);
        if lane.has_limits {
            lane.limits.hear(&said, &taken.own, lane.hearing(), now);
        }
        if accepted {
            self.keys.let_in(&taken.key, &taken.model);
            self.limits.went_through(&taken.shared, now);
            lane.limits.went_through(&taken.own, now);
            lane.concurrency.accepted(taken.ticket, now);
            lane.took_on(taken.ticket.left(), now);
            lane.missing.let_in();
        }
        lane.held_back = None;
        let is_well = was_ill && lane.breaker.trouble().is_none();
        let has_room = !had_room && lane.concurrency.has_room(lane.is_paced(&self.limits));
        let health = is_well || std::mem::take(&mut self.door_has_closed);
        Heard { calls: !self.queue.is_empty() && (self.paced || has_room), health }
    }

    /// Notes that the provider can be reached: the answer to a call has begun, whatever it says.
    fn was_reached(&mut self, taken: &Taken, now: Instant) {
        let mut has_closed = false;
        if self.reached.heard(taken.number, taken.ticket.left(), now) {
            has_closed = self.door.succeeded(taken.door, now);
        }
        // Another probe may have left meanwhile.
        has_closed |= taken.door.is_probe() && self.door.works_again();
        if has_closed {
            self.door_has_closed = true;
            for lane in self.lanes.values_mut() {
                lane.works_again(taken.number);
                lane.concurrency.restart(now);
            }
        }
    }

    /// Counts a connection that failed.
    fn was_not_reached(&mut self, taken: &Taken, now: Instant) {
        let jitter = fastrand::f64();
        match self.reached.judge(taken.ticket.left(), self.seconds.0, now) {
            Unreachable::Request => self.door.failed_alone(taken.door, now, jitter),
            Unreachable::Unclear => {
                self.door.overloaded(taken.door, now, jitter);
                self.reached.doubt(now);
            }
            Unreachable::Provider => {
                self.door.failed(taken.door, now, jitter);
                self.reached.doubt(now);
            }
        }
    }

    /// Lets lanes rest that have fallen silent, and returns them.
    pub(super) fn look_for_silence(&mut self, now: Instant) -> Vec<ModelName> {
        let usual = self.seconds.0;
        if let Some((probe, left)) = self.reached.take_connected_probe(now) {
            self.door.silent(probe, left, now, fastrand::f64());
        }
        let lanes = self.lanes.iter_mut();
        lanes.filter_map(|(model, lane)| lane.look_for_silence(usual, now).then(|| model.clone())).collect()
    }

    /// Takes back what a call took; `None` is a call that died without an outcome.
    pub(super) fn settle(&mut self, taken: &Taken, ended: Option<&Ended<'_>>, now: Instant) -> News {
        // First of all: should anything here panic, no place is lost for good.
        self.in_flight = self.in_flight.saturating_sub(1);
        let (health, state, out) = self.state_of(&taken.model, now);
        let blame = self.take_back(taken, ended, now);
        let after = self.state_of(&taken.model, now);
        let moved_to = state.zip(after.1).filter(|(state, after)| state != after);
        let lane = self.lanes.get_mut(&taken.model);
        let counts_max_tokens = lane.is_some_and(|lane| lane.output_habit.take_news());
        let model_is_missing = self.lanes.get_mut(&taken.model).is_some_and(Lane::take_missing_news);
        let retries_are_back = self.retries_ran_out && self.retries.is_half_full(now);
        self.retries_ran_out &= !retries_are_back;
        News {
            concurrency: self.lanes.get_mut(&taken.model).and_then(Lane::concurrency_news),
            retries_are_back,
            health: health != after.0,
            moved_to: moved_to.map(|(_, after)| after),
            key_rests: out != after.2,
            blame,
            counts_max_tokens,
            model_is_missing,
        }
    }

    /// Returns all of a lane's state that news can be about.
    fn state_of(&self, model: &ModelName, now: Instant) -> (LaneHealth, Option<BreakerState>, usize) {
        (self.health_of(model, now), self.breaker_of(model, now), self.keys.resting(now).count())
    }

    fn take_back(&mut self, taken: &Taken, ended: Option<&Ended<'_>>, now: Instant) -> Blame {
        let result = ended.map(|ended| ended.result);
        let used = taken.reserved.used(result);
        self.limits.settle(taken.reserved.need, used, now);
        let usual = self.seconds.0;
        let says = ended.map_or(Says::Nothing, |ended| says(ended, usual));
        // Its pass of the shared breaker was given back with its first word, if it had one.
        let holds_pass = self.reached.ended(taken.number);
        let Some(lane) = self.lanes.get_mut(&taken.model) else { return Blame::NotTheKey };
        lane.limits.settle(taken.reserved.need, used, now);
        match ended {
            Some(ended) => {
                let failure = ended.result.as_ref().err().map(|failure| failure.class);
                lane.counts.count(failure);
                if failure.is_some() {
                    lane.first_attempts.failed(taken.number);
                }
                if taken.is_first {
                    lane.first_attempts.ended(taken.number, failure);
                }
            }
            None => lane.first_attempts.says_nothing(taken.number),
        }
        lane.held_back = None;
        if ended.is_none() {
            lane.was_given_up(taken.number, now);
        }
        let hung = lane.waits_no_more(taken.number);
        // What a known limit refuses is for the pace to learn from, not for how many calls may be out.
        let paced = lane.is_paced(&self.limits);
        // The end of one that hung is about an outage that is over.
        let how = if hung { guard::Ended::Other } else { how(ended, &says, paced) };
        let was_too_many = lane.concurrency.ended(taken.ticket, how, now);
        let mut door_closed = false;
        match says {
            Says::Well => {
                lane.has_answered = true;
                lane.in_doubt_until = None;
                self.retries.answered(taken.is_retry, now);
                if lane.breaker.succeeded(taken.pass, now) {
                    lane.concurrency.restart(now);
                }
                door_closed = holds_pass && self.door.succeeded(taken.door, now);
            }
            Says::Lane => {
                lane.failed(taken.pass, result, was_too_many, taken.ticket.left(), now);
                lane.last = result.and_then(|result| result.as_ref().err()).cloned();
                let was_reached = was_reached(result);
                door_closed = holds_pass && was_reached && self.door.succeeded(taken.door, now);
                if holds_pass && !was_reached {
                    self.door.said_nothing(taken.door);
                }
            }
            Says::Door => {
                // The lane's next probe must not follow this one at once.
                if taken.pass.is_probe() {
                    lane.breaker.failed(taken.pass, now, fastrand::f64());
                } else {
                    lane.breaker.said_nothing(taken.pass);
                }
                if holds_pass {
                    self.was_not_reached(taken, now);
                }
                self.at_the_door = result.and_then(|result| result.as_ref().err()).cloned();
            }
            Says::Nothing => {
                lane.breaker.said_nothing(taken.pass);
                if holds_pass && was_reached(result) {
                    door_closed = self.door.succeeded(taken.door, now);
                } else if holds_pass {
                    self.door.said_nothing(taken.door);
                }
            }
        }
        if door_closed {
            self.lanes.values_mut().for_each(|lane| lane.concurrency.restart(now));
        }
        ended.map_or(Blame::NotTheKey, |ended| self.learn(taken, ended, now))
    }

    fn learn(&mut self, taken: &Taken, ended: &Ended<'_>, now: Instant) -> Blame {
        let Some(lane) = self.lanes.get_mut(&taken.model) else { return Blame::NotTheKey };
        taken.reserved.teach(&mut lane.sizes, taken.step.as_ref(), ended.result);
        match ended.result {
            Ok(_) => {
                lane.throttled_in_a_row = 0;
                lane.times.answered(ended.took);
                lane.step_times.answered(taken.step.as_ref(), ended.took);
                self.seconds.learn(ended.took.as_secs_f64());
                self.keys.answered(&taken.key, &taken.model);
                Blame::NotTheKey
            }
            Err(failure) => self.obey(taken, failure, now),
        }
    }

    /// Does what a failure asks of the lane, or of the whole provider.
    fn obey(&mut self, taken: &Taken, failure: &Failure, now: Instant) -> Blame {
        let attempt = RefusedAttempt {
            request: &taken.request,
            is_certain: failure.scope != Scope::Unclear,
            oldest_waiting: self.lanes.values().filter_map(Lane::oldest_waiting).min(),
            latest: self.calls,
        };
        let blame = self.keys.refused(&taken.key, &taken.model, failure, attempt, now);
        if blame != Blame::NotTheKey {
            return blame;
        }
        let Some(lane) = self.lanes.get_mut(&taken.model) else { return blame };
        if failure.class == Class::NotFound {
            lane.was_missing(failure, taken.pass.is_probe(), attempt, now);
        }
        let others_are_taken = lane.accepted.is_some_and(|accepted| accepted >= taken.ticket.left());
        let told = failure.retry_after.filter(|wait| *wait < NONSENSE);
        // Vendors limit each model. Only where all we know is of the account it must be the account.
        let token_limits = lane.token_limits(&self.limits);
        let is_accounts = self.limits.is_known() && !lane.limits.is_known();
        let (limits, left) = if is_accounts || !lane.has_limits {
            (&mut self.limits, &taken.shared)
        } else {
            (&mut lane.limits, &taken.own)
        };
        match (failure.class, told) {
            (Class::RateLimit, told) => {
                self.throttled += 1;
                lane.asked_to_wait = None;
                // It waits by itself, and the target is there for others.
                if lane.refused_requests.add(&taken.request, lane.accepted, now) {
                    return blame;
                }
                // Calls that left together are refused together: that is one incident.
                if limits.held_for(now).is_zero() {
                    lane.throttled_in_a_row = lane.throttled_in_a_row.saturating_add(1);
                }
                let (times, jitter) = (lane.throttled_in_a_row, fastrand::f64());
                let counts_max_tokens =
                    lane.output_habit.refused(&taken.reserved, token_limits, failure.limited, now);
                if counts_max_tokens {
                    lane.reservations.count_max_tokens();
                }
                let unnamed = if counts_max_tokens {
                    None
                } else {
                    limits.refused_unexplained(left, failure.limited, told, now)
                };
                // Spread a little, as several processes may share the limit.
                let unnamed = unnamed.map(|pause| pause.mul_f64(0.8 + 0.2 * jitter));
                let wait = match (told, unnamed) {
                    (Some(told), unnamed) => told + unnamed.unwrap_or_default(),
                    (None, Some(unnamed)) => unnamed,
                    (None, None) => THROTTLED.wait(times, jitter),
                };
                let until = now + wait.max(THROTTLED_AT_LEAST.wait(times, jitter));
                limits.refused(left, until, now);
                lane.breaker.not_before(until);
            }
            // What is told to one of many calls, while others are taken, is for that one.
            (Class::Overloaded | Class::ServerError, Some(wait)) if !others_are_taken => {
                limits.hold(now + wait);
                lane.breaker.not_before(now + wait);
                lane.asked_to_wait = Some(failure.clone());
            }
            _ => {}
        }
        blame
    }
}

/// Says about whom a call's end says something.
fn says(ended: &Ended<'_>, usual: Option<f64>) -> Says {
    let Err(failure) = ended.result else { return Says::Well };
    match failure.class {
        Class::NetworkError => Says::Door,
        Class::Deadline if is_silence(ended, usual) => Says::Lane,
        class if class.is_providers_fault() => Says::Lane,
        _ => Says::Nothing,
    }
}

/// Whether a call was cut off by its ask's deadline and yet had got more than the time that calls usually
/// take without a word. Else nobody would ever learn that a provider is dark while all asks are short.
fn is_silence(ended: &Ended<'_>, usual: Option<f64>) -> bool {
    let patience = usual.map_or(SILENT_AT_FIRST, |seconds| (seconds * 3.0).max(SILENT_AT_LEAST));
    !ended.began && ended.took.as_secs_f64() >= patience
}

/// Whether somebody answered at all, whatever he said.
fn was_reached(result: Option<&Result<Reply, Failure>>) -> bool {
    match result {
        Some(Ok(_)) => true,
        Some(Err(failure)) => failure.status.is_some(),
        None => false,
    }
}

/// What a call's end says about how many may be out at once.
fn how(ended: Option<&Ended<'_>>, says: &Says, limit_is_known: bool) -> guard::Ended {
    let class = ended.and_then(|ended| ended.result.as_ref().err()).map(|failure| failure.class);
    match (class, says) {
        (None, Says::Well) => guard::Ended::Answered,
        (Some(Class::RateLimit), _) if !limit_is_known => guard::Ended::Throttled,
        (Some(Class::Overloaded), _) => guard::Ended::Throttled,
        (Some(Class::Timeout | Class::Deadline), Says::Lane) => guard::Ended::TimedOut,
        _ => guard::Ended::Other,
    }
}

fn standings(hints: &Hints) -> Standings {
    let standing = |told: Option<Remaining>| {
        told.map(|Remaining { limit, remaining, reset, window }| Standing { limit, remaining, reset, window })
    };
    Standings {
        requests: standing(hints.requests),
        requests_per_second: standing(hints.requests_per_second),
        tokens: standing(hints.tokens),
        input_tokens: standing(hints.input_tokens),
        output_tokens: standing(hints.output_tokens),
    }
}
