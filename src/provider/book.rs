//! The numbers of a provider, and every decision about them.
//!
//! Pure: it is given `now`, and its owner holds the lock, sends the replies and makes the calls.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{Backoff, Breaker, BreakerState, Limits, Meter, Need, Pass, RateLimits};
use crate::types::{Class, Failure, ModelName, ProviderName};

use super::call::{Call, LaneHealth, Refused};
use super::key::{Keys, ReadyKey};
use super::lane::{ASSUMED_NEED, Lane, Learned};
use super::permit::{Ended, Taken};
use super::queue::Queue;
use super::settings::Settings;
use super::state::Waiting;

/// How long a provider is left alone that asked us to slow down without saying for how long.
const THROTTLED: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };

/// How long a provider is left alone at least that asked us to slow down, whatever it said: one that
/// says `0` and means it not would otherwise be asked in a circle.
const THROTTLED_AT_LEAST: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(10) };

/// A rate limit that asks for as long a wait as this, or for years, does not mean it: it would be
/// believed at the price of the whole provider.
const NONSENSE: Duration = Duration::from_hours(24);

/// A provider that asked us to stay away for longer than this is not the first choice meanwhile.
const SHORT_HOLD: Duration = Duration::from_secs(2);

/// Seconds a call is assumed to take before one has been seen.
const ASSUMED_SECONDS: f64 = 2.0;

/// Seconds without a word that say something about a provider, at least, and before one call has been
/// answered.
const SILENT_AT_LEAST: f64 = 1.0;
const SILENT_AT_FIRST: f64 = 5.0;

/// What a provider has counted.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) queue: Queue<Waiting>,
    pub(super) limits: Limits,
    pub(super) keys: Keys,
    lanes: HashMap<ModelName, Lane>,
    pub(super) in_flight: usize,
    throttled_in_a_row: u32,
    seconds: Learned,
    requests: (Meter, Option<NonZeroU64>),
    tokens: (Meter, Option<NonZeroU64>),
    pub(super) calls: u64,
    pub(super) throttled: u64,
}

/// What people should hear of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The router has to know.
    pub(super) health: bool,
    /// The lane's breaker has opened, or closed again.
    pub(super) moved_to: Option<BreakerState>,
    /// A key has come to rest that did not.
    pub(super) key_rests: bool,
}

/// What the queue allows.
pub(super) enum Turn {
    /// The first call leaves, with this key and this pass.
    Leave(Waiting, ReadyKey, Pass),
    /// The first call cannot leave at all.
    Refuse(Waiting, Refused),
    /// The first call may leave at that instant.
    Wait(Instant),
    /// Nobody waits, or nobody may leave before a call ends.
    Nothing,
}

impl Book {
    pub(super) fn new(settings: &Settings, keys: Keys, now: Instant) -> Self {
        let per_minute = &settings.limits;
        let wide = |limit: Option<NonZeroU32>| limit.map(NonZeroU64::from);
        let limits = RateLimits {
            requests: wide(per_minute.requests_per_minute),
            tokens: wide(per_minute.tokens_per_minute),
            input_tokens: wide(per_minute.input_tokens_per_minute),
            output_tokens: wide(per_minute.output_tokens_per_minute),
        };
        let lane = |name: &ModelName| (name.clone(), Lane::new(Breaker::new(settings.breaker.clone())));
        Self {
            queue: Queue::new(settings.queue.get()),
            limits: Limits::new(&limits, now),
            keys,
            lanes: settings.models.keys().map(lane).collect(),
            in_flight: 0,
            throttled_in_a_row: 0,
            seconds: Learned::default(),
            requests: (Meter::new(now), limits.requests),
            tokens: (Meter::new(now), limits.tokens.or(limits.input_tokens)),
            calls: 0,
            throttled: 0,
        }
    }

    /// Says whether a call may wait here, and what it will take.
    pub(super) fn admissible(
        &mut self,
        provider: &ProviderName,
        settings: &Settings,
        call: &Call,
        now: Instant,
    ) -> Result<Need, Refused> {
        let (Some(model), Some(lane)) = (settings.models.get(&call.model), self.lanes.get_mut(&call.model))
        else {
            let unknown = format!("{provider} has no model called {}", call.model);
            return Err(Refused::TooLarge(Failure::new(Class::NotFound, unknown)));
        };
        let need = lane.need(&call.prompt, model);
        let too_large = |message: String| Refused::TooLarge(Failure::new(Class::TooLong, message));
        if let Some(context) = model.context.filter(|context| need.input > context.get()) {
            let lane = format!("{provider}/{}", call.model);
            return Err(too_large(format!(
                "the prompt has about {} tokens, and {lane} takes {context}",
                need.input
            )));
        }
        self.limits.fits(need).map_err(|error| too_large(format!("the call {error} at {provider}")))?;
        if lane.breaker.state(now) == BreakerState::Open
            && let Err(until) = lane.breaker.admit(now, false)
        {
            return Err(lane.refusal(until));
        }
        self.keys.pick(now).map_err(Refused::NoKey)?;
        let concurrency = settings.limits.at_once();
        let until = self.turn(concurrency, self.queue.ahead_of(call.priority), need, now);
        if until > call.deadline {
            return Err(Refused::Busy { until });
        }
        if self.queue.is_full() {
            // It would fit in time and there is room soon: come back when a part of the queue has gone.
            return Err(Refused::Busy { until: self.turn(concurrency, self.queue.len() / 10, need, now) });
        }
        Ok(need)
    }

    /// Returns when a call would leave that has `ahead` others before it.
    fn turn(&self, concurrency: usize, ahead: usize, need: Need, now: Instant) -> Instant {
        let paced = self.limits.expected(ahead as u64, need, now);
        if self.in_flight + ahead < concurrency {
            return paced;
        }
        // As long as none has come back nobody knows, and a guess must not turn anyone away.
        let Some(seconds) = self.seconds.0 else { return paced };
        let waves = (ahead + self.in_flight) as f64 / concurrency as f64;
        // The calls that are out are half done, on average.
        let crowded = (waves - 0.5).max(0.0) * seconds;
        paced.max(now + Duration::from_secs_f64(crowded))
    }

    /// Decides about the first call of the queue.
    pub(super) fn next(&mut self, concurrency: usize, now: Instant) -> Turn {
        let Some(first) = self.queue.front() else { return Turn::Nothing };
        let (need, model) = (first.need, &first.call.model);
        if first.reply.is_abandoned() || first.call.deadline <= now {
            return self.refuse(Refused::Busy { until: now });
        }
        if self.in_flight >= concurrency {
            return Turn::Nothing;
        }
        let key = match self.keys.pick(now) {
            Ok(key) => key.clone(),
            Err(failure) => return self.refuse(Refused::NoKey(failure)),
        };
        let Some(lane) = self.lanes.get_mut(model) else { return self.refuse(Refused::Down) };
        let pass = match lane.breaker.admit(now, false) {
            Ok(pass) => pass,
            Err(until) => {
                let refusal = lane.refusal(until);
                return self.refuse(refusal);
            }
        };
        if let Err(ready) = self.limits.take(need, now) {
            lane.breaker.said_nothing(pass);
            return Turn::Wait(ready);
        }
        let Some(waiting) = self.queue.pop() else { return Turn::Nothing };
        lane.input.learn(need.input as f64);
        self.in_flight += 1;
        self.calls += 1;
        self.requests.0.add(1, now);
        self.tokens.0.add(need.input + if self.tokens_are_both() { need.output } else { 0 }, now);
        Turn::Leave(waiting, key, pass)
    }

    fn refuse(&mut self, refused: Refused) -> Turn {
        self.queue.pop().map_or(Turn::Nothing, |waiting| Turn::Refuse(waiting, refused))
    }

    /// Takes back what a call took; `None` is a call that died without an outcome.
    pub(super) fn settle(&mut self, taken: &Taken, ended: Option<&Ended<'_>>, now: Instant) -> News {
        let (health, state, out) = self.standing(&taken.model, now);
        self.take_back(taken, ended, now);
        let after = self.standing(&taken.model, now);
        let moved_to = state.zip(after.1).filter(|(state, after)| state != after);
        News {
            health: health != after.0,
            moved_to: moved_to.map(|(_, after)| after),
            key_rests: out != after.2,
        }
    }

    /// Returns all of a lane's state that news can be about.
    fn standing(&self, model: &ModelName, now: Instant) -> (LaneHealth, Option<BreakerState>, usize) {
        let lane = self.lanes.get(model);
        let health = lane.map_or(LaneHealth::Out, |lane| self.lane_health(lane, now));
        (health, lane.map(|lane| lane.breaker.state(now)), self.keys.resting(now).count())
    }

    fn take_back(&mut self, taken: &Taken, ended: Option<&Ended<'_>>, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let usual = self.seconds.0;
        let Some(lane) = self.lanes.get_mut(&taken.model) else { return };
        let Some(ended) = ended else { return lane.breaker.said_nothing(taken.pass) };
        match ended.result {
            Ok(_) => {
                lane.has_answered = true;
                lane.breaker.succeeded(taken.pass, now);
            }
            Err(failure) if is_providers_fault(failure.class) || is_silence(failure, ended, usual) => {
                lane.breaker.failed(taken.pass, now, fastrand::f64());
                lane.last = Some(failure.clone());
            }
            Err(_) => lane.breaker.said_nothing(taken.pass),
        }
        let usage = match ended.result {
            Ok(reply) => reply.usage,
            Err(failure) => failure.usage.as_deref().copied(),
        };
        match usage {
            Some(usage) => {
                lane.output.learn(usage.output.0 as f64);
                self.limits.settle(taken.need, Need { input: usage.input.0, output: usage.output.0 }, now);
            }
            // What was refused before any work used no tokens. Without a word on usage, believe the estimate.
            None if ended
                .result
                .as_ref()
                .is_err_and(|failure| failure.charged == crate::types::Charged::No) =>
            {
                self.limits.settle(taken.need, Need::default(), now);
            }
            None => {}
        }
        if ended.result.is_ok() {
            self.throttled_in_a_row = 0;
            self.seconds.learn(ended.took.as_secs_f64());
        }
        if let Err(failure) = ended.result {
            self.obey(taken, failure, now);
        }
        // As of when it was said: an answer may take a minute, and calls have come free since.
        if let Some((said, requests)) = ended.hints.and_then(|(said, hints)| Some((said, hints.requests?))) {
            self.limits.cap_requests(requests.remaining, said);
        }
    }

    /// Does what a failure asks of the whole provider.
    fn obey(&mut self, taken: &Taken, failure: &Failure, now: Instant) {
        if self.keys.rest(&taken.key, failure, now) {
            return;
        }
        if failure.class == Class::RateLimit {
            self.throttled += 1;
            // Calls that left together are refused together: that is one incident.
            if self.limits.held_for(now).is_zero() {
                self.throttled_in_a_row = self.throttled_in_a_row.saturating_add(1);
            }
            let jitter = fastrand::f64();
            let told = failure.retry_after.filter(|wait| *wait < NONSENSE);
            let wait = told.unwrap_or_else(|| THROTTLED.wait(self.throttled_in_a_row, jitter));
            self.limits.hold(now + wait.max(THROTTLED_AT_LEAST.wait(self.throttled_in_a_row, jitter)));
        } else if let (Class::Overloaded, Some(wait)) = (failure.class, failure.retry_after) {
            self.limits.hold(now + wait);
        }
    }

    /// Returns how every lane is doing.
    pub(super) fn health(&self, now: Instant) -> Vec<(ModelName, LaneHealth)> {
        self.lanes.iter().map(|(model, lane)| (model.clone(), self.lane_health(lane, now))).collect()
    }

    fn lane_health(&self, lane: &Lane, now: Instant) -> LaneHealth {
        if self.keys.are_out(now) {
            LaneHealth::Out
        } else if !lane.breaker.would_admit(now) || self.limits.held_for(now) > SHORT_HOLD {
            LaneHealth::Poor
        } else {
            LaneHealth::Good
        }
    }

    pub(super) fn lanes(&self, now: Instant) -> impl Iterator<Item = (&ModelName, BreakerState)> {
        self.lanes.iter().map(move |(model, lane)| (model, lane.breaker.state(now)))
    }

    /// Returns how many calls, out and waiting, keep the provider busy: those its limits let through
    /// in twice the time a call takes, so that some always wait.
    pub(super) fn capacity(&self, concurrency: usize) -> usize {
        let seconds = self.seconds.0.unwrap_or(ASSUMED_SECONDS).max(0.5);
        // The largest of the lanes: too small a window costs little, too large a one deadlines.
        let usual = self.lanes.values().filter_map(Lane::usual_need);
        let need = usual.max_by_key(|need| need.input + need.output).unwrap_or(ASSUMED_NEED);
        let paced = self.limits.calls_per_second(need).map_or(f64::MAX, |rate| rate * seconds * 2.0 + 2.0);
        paced.min(concurrency as f64 * 1.5 + 2.0).ceil() as usize
    }

    /// Returns the share of the tightest limit that the last ten seconds used.
    pub(super) fn limit_share(&self, now: Instant) -> Option<f64> {
        let share = |(meter, limit): &(Meter, Option<NonZeroU64>)| {
            Some(meter.per_second(now) * 60.0 / limit.as_ref()?.get() as f64)
        };
        [share(&self.requests), share(&self.tokens)].into_iter().flatten().reduce(f64::max)
    }

    fn tokens_are_both(&self) -> bool {
        self.limits.counts_both_directions()
    }
}

/// Whether a call was cut off by its ask's deadline and yet had got more than the time that calls usually
/// take without a word. Else nobody would ever learn that a provider is dark while all asks are short.
fn is_silence(failure: &Failure, ended: &Ended<'_>, usual: Option<f64>) -> bool {
    let patience = usual.map_or(SILENT_AT_FIRST, |seconds| (seconds * 3.0).max(SILENT_AT_LEAST));
    failure.class == Class::Deadline && !ended.began && ended.took.as_secs_f64() >= patience
}

/// Whether a failure says that the provider is not well. No `_` arm: a new class does not compile
/// until someone has decided.
fn is_providers_fault(class: Class) -> bool {
    match class {
        Class::Overloaded | Class::ServerError | Class::NetworkError | Class::Timeout | Class::Unreadable => {
            true
        }
        Class::RateLimit
        | Class::Quota
        | Class::Auth
        | Class::NotFound
        | Class::TooLong
        | Class::ContentFilter
        | Class::ApiError
        | Class::Truncated
        | Class::ValidationError
        | Class::TemplateError
        | Class::Budget
        | Class::Deadline
        | Class::Cancelled
        | Class::Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(limits: &str) -> Book {
        let text = format!("base_url = 'http://127.0.0.1:9'\nmodels.any = {{}}\nlimits = {{ {limits} }}");
        let settings: Settings = toml::from_str(&text).unwrap();
        let keys = Keys::new(settings.format, &[]).unwrap();
        Book::new(&settings, keys, Instant::now())
    }

    #[test]
    fn few_items_are_kept_in_flight_where_a_minute_has_room_for_few() {
        let mut few = book("tokens_per_minute = 30_000");
        // Before the first call as after many: else a whole window would wait beyond its deadline.
        assert!(few.capacity(64) <= 4, "{}", few.capacity(64));
        for lane in few.lanes.values_mut() {
            (0..200).for_each(|_| lane.input.learn(20_000.0));
        }
        assert!(few.capacity(64) <= 3, "{}", few.capacity(64));
        assert_eq!(book("concurrency = 64").capacity(64), 98);
        assert_eq!(book("requests_per_minute = 600").capacity(64), 42);
    }
}
