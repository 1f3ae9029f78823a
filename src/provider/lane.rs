//! One model of a provider: whether it is well, how many calls it takes, and what they take.
//!
//! Knows nothing of the other models, nor of the account that they share.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{Breaker, Concurrency, Hearing, Left, Limits, Need, Pass, RateLimits, Trouble};
use crate::types::{AttemptCounts, Class, Failure, Price, Reply};
use crate::wire::LeftOut;

use super::call::Refused;
use super::first_attempts::FirstAttempts;
use super::limit_use::Lately;
use super::model::Model;
use super::output_habit::{OutputHabit, TokenLimits};
use super::patience::Patience;
use super::refused_requests::RefusedRequests;
use super::reservation::{Reservation, Reservations};
use super::settings::Settings;
use super::sizes::{ASSUMED_OUTPUT, Sizes};
use super::step_times::StepTimes;
use super::suspicion::{RefusedAttempt, Suspicion};
use super::times::Times;
use super::unheard::{AllUnheard, Unheard};

/// What a call is assumed to take before there was one.
pub(super) const ASSUMED_NEED: Need = Need { input: 500, output: ASSUMED_OUTPUT };

/// The share of the calls that a call has to outlast before its having had no word says something, and after
/// how many such calls in a row the lane counts as silent.
const LONG: f64 = 0.95;
const GIVEN_UP: u32 = 3;

/// How long a lane is in doubt after a failure.
const DOUBT: Duration = Duration::from_secs(1);

/// What a provider knows of one of its models.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) breaker: Breaker,
    pub(super) concurrency: Concurrency,
    /// Its own limits, configured or learned from headers.
    pub(super) limits: Limits,
    /// Whether what headers say is about its own limits, rather than the account's.
    pub(super) has_limits: bool,
    /// Until when its own limits let nothing through.
    pub(super) held_back: Option<Instant>,
    /// Until when no further call leaves after a failure, unless one is answered.
    pub(super) in_doubt_until: Option<Instant>,
    pub(super) reservations: Reservations,
    /// Whether its provider counts `max_tokens`, as far as refusals show it.
    pub(super) output_habit: OutputHabit,
    pub(super) refused_requests: RefusedRequests,
    /// What its tokens cost, if that is known.
    pub(super) price: Option<Price>,
    pub(super) has_answered: bool,
    /// What requests to it leave out, because it refused it.
    pub(super) left_out: LeftOut,
    /// How its attempts have ended.
    pub(super) counts: AttemptCounts,
    /// How the first attempts of requests have ended.
    pub(super) first_attempts: FirstAttempts,
    /// The last failure that counted against it.
    pub(super) last: Option<Failure>,
    /// The requests that were refused because there is no such model.
    pub(super) missing: Suspicion,
    missing_news: bool,
    /// Times in a row that it asked us to slow down.
    pub(super) throttled_in_a_row: u32,
    /// The failure with which it asked to wait last, where that was no refusal for a rate limit.
    pub(super) asked_to_wait: Option<Failure>,
    /// Tokens that a call of it reads, by estimate.
    input: Learned,
    /// Output tokens that its calls reserve for good, where they do.
    kept: Learned,
    /// What is known of its calls.
    pub(super) sizes: Sizes,
    /// Calls to it that have left since a store last counted them, where limits of a day do.
    pub(super) uncounted: u64,
    /// What of its limits its calls used lately.
    pub(super) lately: Lately,
    /// How long its latest calls took.
    pub(super) times: Times,
    /// How long those of each step took.
    pub(super) step_times: StepTimes,
    /// How long it may say nothing at all before others do better elsewhere.
    patience: Patience,
    /// Calls that have had no word yet.
    unheard: AllUnheard,
    /// When anything was last heard of it.
    heard: Instant,
    /// When it last took a call.
    pub(super) accepted: Option<Instant>,
    /// When the latest of the calls that it took had left.
    latest_accepted: Option<Instant>,
    /// Whether people know that its concurrency is much smaller than it was.
    is_known_reduced: bool,
    /// Calls in a row that nobody waited for any longer when they had been out for long without a word.
    given_up: u32,
}

/// How a lane's concurrency has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConcurrencyNews {
    /// Its provider objected to so many in flight: they are half as many now, or fewer.
    Reduced { to: usize, from: usize },
    /// It is where it was before, or nearly.
    Restored(usize),
}

/// An average that forgets slowly.
#[derive(Debug, Default)]
pub(super) struct Learned(pub(super) Option<f64>);

impl Learned {
    pub(super) fn learn(&mut self, seen: f64) {
        self.0 = Some(self.0.map_or(seen, |known| known + (seen - known) / 20.0));
    }
}

impl Lane {
    pub(super) fn new(settings: &Settings, model: &Model, now: Instant) -> Self {
        let own = model.limits.as_ref();
        let rates = own.map(super::Limits::rates).unwrap_or_default();
        let rates = RateLimits { burst: own.map_or(settings.limits.burst, |own| own.burst), ..rates };
        let concurrency = own.map_or(settings.limits.concurrency, |own| own.concurrency);
        let narrowest = settings.limits.rates().narrowed(&rates);
        Self {
            breaker: Breaker::new(settings.breaker.clone()),
            concurrency: Concurrency::new(concurrency),
            limits: Limits::new(&rates, now),
            has_limits: own.is_some() || settings.models.len() > 1,
            held_back: None,
            in_doubt_until: None,
            reservations: Reservations::new(settings.reserve, narrowest),
            output_habit: OutputHabit::new(now),
            refused_requests: RefusedRequests::default(),
            price: model.price,
            has_answered: false,
            left_out: LeftOut::default(),
            counts: AttemptCounts::default(),
            first_attempts: FirstAttempts::default(),
            last: None,
            missing: Suspicion::default(),
            missing_news: false,
            throttled_in_a_row: 0,
            asked_to_wait: None,
            input: Learned::default(),
            kept: Learned::default(),
            sizes: Sizes::default(),
            uncounted: 0,
            lately: Lately::new(now),
            times: Times::default(),
            step_times: StepTimes::default(),
            patience: settings.patience,
            unheard: AllUnheard::default(),
            heard: now,
            accepted: None,
            latest_accepted: None,
            is_known_reduced: false,
            given_up: 0,
        }
    }

    /// Returns whether a call of it is to be looked at now, as far as its own limits go. Whether a breaker
    /// refuses, or lets its probe through, must not depend on calls that hang; `is_shut` is whether the
    /// provider's does.
    pub(super) fn may(&self, shared: &Limits, is_shut: bool, now: Instant) -> bool {
        let whatever_is_out = match self.breaker.trouble() {
            Some(Trouble::Row) => true,
            // Where calls may be forced through, only the probe goes beyond what may be out.
            Some(Trouble::Share | Trouble::Silence) => self.breaker.would_admit(now),
            None => is_shut,
        };
        self.held_back.is_none_or(|until| until <= now)
            && (whatever_is_out || !self.is_in_doubt(now) && self.concurrency.has_room(self.is_paced(shared)))
    }

    fn is_in_doubt(&self, now: Instant) -> bool {
        // Those that are out may have come back meanwhile.
        self.in_doubt_until.is_some_and(|until| until > now) && self.breaker.is_doubtful()
    }

    /// Returns when its calls that wait are to be looked at again, where that is known.
    pub(super) fn looked_at_again(&self) -> Option<Instant> {
        self.held_back.max(self.in_doubt_until)
    }

    /// Notes a failure of a call that left at `left` and counts against it. While the calls that are out can tell
    /// whether it is down, no further one is spent on that, for a moment: they may hang. Where a call that left later
    /// was accepted, the failure is old news.
    pub(super) fn has_failed(&mut self, left: Instant, now: Instant) {
        if self.latest_accepted.is_some_and(|latest| latest > left) {
            return;
        }
        self.in_doubt_until = self.breaker.is_doubtful().then_some(now + DOUBT);
    }

    /// Returns whether its calls keep to a limit, known or estimated: its own, or the account's.
    pub(super) fn is_paced(&self, shared: &Limits) -> bool {
        self.limits.is_paced() || shared.is_paced()
    }

    /// Returns the token limits that are known, its own or the account's.
    pub(super) fn token_limits(&self, shared: &Limits) -> TokenLimits {
        let [own, shared] = [&self.limits, shared].map(Limits::known_tokens);
        let narrower = |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::min);
        TokenLimits { tokens: narrower(own.0, shared.0), output: narrower(own.1, shared.1) }
    }

    /// Takes from its limits.
    ///
    /// # Errors
    /// When it is worth asking again; other lanes need not wait for it.
    pub(super) fn take(&mut self, reserved: &Reservation, now: Instant) -> Result<Left, Instant> {
        let taken = self.limits.take(reserved.need, reserved.usual, now);
        self.held_back = taken.as_ref().err().copied();
        taken
    }

    /// Returns how its own limits hear what headers say.
    pub(super) fn hearing(&self) -> Hearing {
        if self.has_limits { Hearing::All } else { Hearing::OwnNumbers }
    }

    /// Notes that the call of this number has left.
    pub(super) fn waits_for_word(&mut self, number: u64, attempt: Unheard) {
        self.unheard.left(number, attempt);
    }

    /// Notes that a call has had its first word, and that the lane therefore lives.
    pub(super) fn had_word(&mut self, number: u64, now: Instant) {
        self.waits_no_more(number);
        self.heard = now;
        self.given_up = 0;
        if self.is_silent() {
            self.works_again(number);
        }
        // What was only a pause, and no probe has found to be more, is no reason to begin anew.
        if self.breaker.spoke() {
            self.concurrency.restart(now);
        }
    }

    /// Notes that a call has shown that the lane works again after an outage. Calls that left before it and have had
    /// no word take no room from others: they may hang for minutes.
    pub(super) fn works_again(&mut self, number: u64) {
        self.concurrency.hang(self.unheard.hang_before(number));
    }

    /// Returns whether it has fallen silent.
    pub(super) fn is_silent(&self) -> bool {
        self.breaker.trouble() == Some(Trouble::Silence)
    }

    /// Notes that it took a call that had left at `left`.
    pub(super) fn took_on(&mut self, left: Instant, now: Instant) {
        self.accepted = Some(now);
        self.latest_accepted = self.latest_accepted.max(Some(left));
    }

    /// Returns whether its concurrency has become much smaller than it was, or is as before; each once.
    pub(super) fn concurrency_news(&mut self) -> Option<ConcurrencyNews> {
        let to = self.concurrency.limit();
        match (self.is_known_reduced, self.concurrency.reduced_from()) {
            // After an outage it begins with a part, and nothing was objected to.
            (false, Some(from)) if to * 2 <= from && !self.concurrency.is_recovering() => {
                self.is_known_reduced = true;
                Some(ConcurrencyNews::Reduced { to, from })
            }
            (true, from) if from.is_none_or(|from| to * 10 >= from * 9) => {
                self.is_known_reduced = false;
                Some(ConcurrencyNews::Restored(to))
            }
            _ => None,
        }
    }

    /// Forgets a call that has ended, or had its first word. Returns whether it counted as one that hangs.
    pub(super) fn waits_no_more(&mut self, number: u64) -> bool {
        self.unheard.remove(number);
        let hung = self.unheard.remove_hung(number);
        if hung {
            self.concurrency.hangs_no_more();
        }
        hung
    }

    /// Learns from a call that nobody waited for any longer. One that had been out for as long as nearly none
    /// are, with no word since it left, is a hint that the lane is silent: else nobody would ever learn it
    /// where others are asked beside it and answer first. Some in a row are proof.
    pub(super) fn was_given_up(&mut self, number: u64, now: Instant) {
        let Some(Unheard { left, pass, step, .. }) = self.unheard.remove(number) else { return };
        // What is long for one step is usual for another.
        let long = match &step {
            Some(step) => self.step_times.usual(Some(step), LONG),
            None => self.times.usual(LONG),
        };
        if self.heard >= left || long.is_none_or(|long| now.saturating_duration_since(left) < long) {
            return;
        }
        self.given_up = self.given_up.saturating_add(1);
        if self.given_up >= GIVEN_UP || self.is_silent() {
            self.breaker.silent(pass, left, now, fastrand::f64());
        }
    }

    /// Looks for calls that have waited for a word for too long, with nobody else having had one since.
    /// `usual` is how long calls of the provider take, in seconds. Returns whether the lane now rests for it.
    pub(super) fn look_for_silence(&mut self, usual: Option<f64>, now: Instant) -> bool {
        let was = self.breaker.trouble();
        let (times, patience) = (&self.step_times, self.patience);
        let is_silent = self.is_silent();
        let for_one = |attempt: &Unheard| {
            let known = patience.of(times, attempt.step.as_ref(), usual);
            // The next probe does not wait for one that may be as silent; its word still counts when it comes.
            if is_silent && attempt.pass.is_probe() { known.min(patience.at_least) } else { known }
        };
        for Unheard { left, pass, .. } in self.unheard.become_overdue(for_one, now) {
            if self.heard <= left {
                self.breaker.silent(pass, left, now, fastrand::f64());
            }
        }
        was.is_none() && self.is_silent()
    }

    /// Learns that a request was refused because there is no such model. As long as it has never answered, and several
    /// different requests in a row were refused so, it is the configuration that is wrong, and it rests.
    pub(super) fn was_missing(
        &mut self,
        failure: &Failure,
        is_probe: bool,
        attempt: RefusedAttempt<'_>,
        now: Instant,
    ) {
        // A provider says the same to a request that names a file of its own.
        let attempt = RefusedAttempt { is_certain: false, ..attempt };
        let is_refused = !self.has_answered && (self.missing.refused(attempt) || is_probe);
        if is_refused && self.breaker.rest_lane(now, fastrand::f64()) {
            self.missing_news = self.last.as_ref().is_none_or(|last| last.class != Class::NotFound);
            self.last = Some(failure.clone());
        }
    }

    /// Returns whether it has turned out that there is no such model, once.
    pub(super) fn take_missing_news(&mut self) -> bool {
        std::mem::take(&mut self.missing_news)
    }

    /// Counts a failure of the lane. `was_too_many` is a refusal that concurrency has answered already: fewer calls
    /// leave, and whether the provider works on those says the breaker nothing yet.
    pub(super) fn failed(
        &mut self,
        pass: Pass,
        result: Option<&Result<Reply, Failure>>,
        was_too_many: bool,
        left: Instant,
        now: Instant,
    ) {
        let class = result.and_then(|result| result.as_ref().err()).map(|failure| failure.class);
        match class {
            Some(Class::Overloaded) if was_too_many && !pass.is_probe() => {
                return self.breaker.said_nothing(pass);
            }
            Some(Class::Overloaded) => self.breaker.overloaded(pass, now, fastrand::f64()),
            _ => self.breaker.failed(pass, now, fastrand::f64()),
        }
        self.has_failed(left, now);
    }

    /// Says why the breaker refuses a call.
    pub(super) fn refusal(&self, until: Option<Instant>) -> Refused {
        match &self.last {
            Some(last) if !self.has_answered && last.class == Class::NotFound => {
                Refused::NoModel(last.clone())
            }
            Some(last) if !self.has_answered => Refused::NeverAnswered(last.clone()),
            _ => Refused::Open { until },
        }
    }

    /// Notes that a call has left.
    pub(super) fn took(&mut self, reserved: &Reservation) {
        self.input.learn(reserved.need.input as f64);
        if reserved.kept {
            self.kept.learn(reserved.need.output as f64);
        }
    }

    /// Returns what a call of it takes on average; `None` before there was one.
    pub(super) fn usual_need(&self) -> Option<Need> {
        let kept = self.kept.0.map(|output| output as u64);
        let output = kept.or_else(|| self.sizes.usual(None)).unwrap_or(ASSUMED_OUTPUT);
        self.input.0.map(|input| Need { input: input as u64, output })
    }

    /// Returns the number of the oldest call that waits for its first word.
    pub(super) fn oldest_waiting(&self) -> Option<u64> {
        self.unheard.oldest_waiting()
    }

    /// Returns when the oldest call left that waits for its first word.
    pub(super) fn oldest_unheard(&self) -> Option<Instant> {
        self.unheard.oldest_left()
    }

    /// Returns how many calls wait for their first word.
    #[cfg(test)]
    pub(super) fn calls_unheard(&self) -> usize {
        self.unheard.len()
    }

    /// Makes as if calls had read so many tokens on average.
    #[cfg(test)]
    pub(super) fn has_read(&mut self, tokens: f64) {
        self.input.0 = Some(tokens);
    }
}
