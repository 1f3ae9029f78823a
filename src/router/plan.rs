//! What happens next to one ask: which lane, when, and when to give up.
//!
//! Four limits hold together: attempts at each lane, lanes, rounds over all lanes, and the deadline.
//! Pure: it is given `now` and never calls anybody.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Backoff;
use crate::provider::Refused;
use crate::types::{Class, Failure, Scope, Verdict};

use super::settings::RetrySettings;
pub(super) use end::End;
pub use step::{Candidate, KeyLeft, Probe, Step};

/// A provider that asks for a longer wait than this is waited for only where nobody else is there.
const PATIENCE: Duration = Duration::from_secs(2);

/// Times that a lane may ask one question to come again later while another lane is free.
const THROTTLED_AT_MOST: u32 = 3;

/// A provider that asks for as long a wait as this, or for years, does not mean it.
const NONSENSE: Duration = Duration::from_hours(24);

/// The plan of one ask over the lanes of its route, by their numbers.
#[derive(Debug)]
pub struct Plan {
    retry: RetrySettings,
    deadline: Instant,
    lanes: Vec<Tried>,
    /// The lane that is to be asked again before any other.
    again: Option<usize>,
    round: u32,
    /// When the next round begins, once that is decided.
    round_due: Option<Instant>,
    last: Option<End>,
    over: Option<End>,
    /// Whether its asker sends the request again: it comes back rather than wait for a lane that it found down.
    comes_back: bool,
}

#[derive(Debug)]
struct Tried {
    candidate: Candidate,
    /// Calls that failed in this round.
    attempts: u32,
    /// Whether it has ever been called.
    called: bool,
    /// Not to be called any more in this round.
    exhausted: bool,
    /// Whether it has ever kept silent; it is not asked again while there is any other.
    silent: bool,
    /// Whether it has failed and its provider was at fault.
    at_fault: bool,
    /// Times that it asked us to slow down.
    throttled: u32,
    /// How it failed last, or why it took no call.
    failure: Option<Failure>,
    /// Whether it has failed, and its breaker was open after that.
    is_down: bool,
    /// Not to be called any more at all.
    out: Option<Failure>,
    not_before: Option<Instant>,
}

impl Plan {
    /// Makes a plan over lanes, in their order and numbered from 0.
    pub fn new(lanes: impl IntoIterator<Item = Candidate>, retry: RetrySettings, deadline: Instant) -> Self {
        let lanes = lanes.into_iter().map(Tried::new).collect();
        Self {
            retry,
            deadline,
            lanes,
            again: None,
            round: 1,
            round_due: None,
            last: None,
            over: None,
            comes_back: false,
        }
    }

    /// Makes a plan that ends where it would wait for lanes that are known to be down and that have failed it: others
    /// that have not failed find out whether those are well again.
    #[must_use]
    pub fn coming_back(self, comes_back: bool) -> Self {
        Self { comes_back, ..self }
    }

    /// Returns what to do at `now`. `jitter` lies in `0.0..1.0` and spreads the waits.
    pub fn next(&mut self, now: Instant, jitter: f64) -> Step {
        if let Some(end) = self.over.take() {
            return Step::GiveUp(end);
        }
        if now >= self.deadline {
            return self.give_up();
        }
        if let Some(lane) = self.again {
            return match self.lanes[lane].not_before.filter(|at| *at > now) {
                Some(at) => self.wait(at),
                None => self.call(lane),
            };
        }
        if let Some(lane) = (0..self.lanes.len()).find(|lane| self.is_ready(*lane, now)) {
            return self.call(lane);
        }
        // Lanes that could not take it will: theirs is only a queue or a breaker. But one that failed may
        // be worth another try before that.
        let open = (0..self.lanes.len()).filter(|lane| self.is_open(*lane));
        let first = open.filter_map(|lane| self.lanes[lane].not_before).min();
        match (first, self.round_at(now, jitter)) {
            (Some(first), Some(round)) if round < first => self.next_round(round, now, jitter),
            (Some(_), _) if self.comes_back && self.only_down_lanes_are_left() => self.give_up(),
            (Some(first), _) => self.wait(first),
            (None, Some(round)) => self.next_round(round, now, jitter),
            (None, None) => self.give_up(),
        }
    }

    /// Returns whether nothing more is to be done.
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Returns whether a call to a lane asks its provider once more what it has failed before.
    pub fn is_retry(&self, lane: usize) -> bool {
        let provider = &self.lanes[lane].candidate.provider;
        self.lanes.iter().any(|tried| tried.at_fault && tried.candidate.provider == *provider)
    }

    /// Returns whether no other lane is left at `now`, of those that are `well`.
    pub fn is_alone(&self, lane: usize, now: Instant, well: impl Fn(usize) -> bool) -> bool {
        !self.others(lane).any(|other| self.is_ready(other, now) && !self.lanes[other].silent && well(other))
    }

    /// Returns whether no other lane is left, now or later: none that has never kept silent.
    pub fn is_last(&self, lane: usize) -> bool {
        !self.others_remain(lane)
    }

    /// Returns the lanes that may be asked at `now` beside one that is being asked: first those of other
    /// providers, which are not slow for the same reason.
    pub fn beside(&self, lane: usize, now: Instant) -> Vec<usize> {
        let Tried { candidate, called, .. } = &self.lanes[lane];
        let room = self.called() + usize::from(!called) < self.retry.lanes_per_ask.get() as usize;
        let may = |other: &usize| {
            let tried = &self.lanes[*other];
            self.is_ready(*other, now) && !tried.silent && (room || tried.called)
        };
        let mut beside: Vec<usize> = self.others(lane).filter(may).collect();
        beside.sort_by_key(|other| self.lanes[*other].candidate.provider == candidate.provider);
        beside
    }

    /// Asks a lane no more, for this reason.
    pub fn close(&mut self, lane: usize, failure: Failure) {
        self.lanes[lane].out = Some(failure);
    }

    /// Learns that a lane did not take the call. `jitter` lies in `0.0..1.0`: those who wait for the same
    /// instant do not all come at it.
    pub fn refused(&mut self, lane: usize, refused: &Refused, now: Instant, jitter: f64) {
        self.again = None;
        let tried = &mut self.lanes[lane];
        match refused {
            // A moment at least: whoever asks in a circle learns nothing new.
            Refused::Busy { until } | Refused::RetriesSpent { until } => {
                let spread = self.retry.base.mul_f64(jitter.clamp(0.0, 1.0) / 2.0);
                tried.not_before = Some((*until).max(now + self.retry.base) + spread);
            }
            Refused::Open { until: Some(until) } => {
                tried.is_down = tried.at_fault;
                tried.not_before = Some((*until).max(now + self.retry.base));
            }
            Refused::Open { until: None } => {
                tried.is_down = tried.at_fault;
                tried.not_before = Some(now + self.retry.base * 2);
            }
            Refused::Down => tried.not_before = Some(now + self.retry.base * 2),
            // Patience is for what has worked before: this costs a round, of which there are few.
            // So is it for an actor that is being restarted, and not for one that has died too often.
            Refused::NeverAnswered(failure) | Refused::Gone(failure) => {
                tried.exhausted = true;
                tried.failure = Some(failure.clone());
                self.last.get_or_insert_with(|| End::of(lane, failure));
            }
            // Nobody has money for it, here or elsewhere.
            Refused::Budget { failure, all: true } => self.over = Some(failure.clone().into()),
            Refused::Budget { failure, all: false } => tried.out = Some(failure.clone()),
            Refused::NoKey(failure) | Refused::NoModel(failure) | Refused::TooLarge(failure) => {
                tried.out = Some(failure.clone());
                let is_open = |end: &End| end.lane == Some(lane) && end.failure.scope.is_open();
                self.last = self.last.take().filter(|last| !is_open(last));
                self.last.get_or_insert_with(|| End::of(lane, failure));
            }
        }
    }

    /// Learns that a call failed.
    pub fn failed(
        &mut self,
        lane: usize,
        failure: Failure,
        (KeyLeft(key_left), Probe(probe)): (KeyLeft, Probe),
        now: Instant,
        jitter: f64,
    ) {
        self.again = None;
        let others = self.others(lane).any(|other| self.is_open(other));
        let after = failure.retry_after.filter(|wait| *wait < NONSENSE);
        let others_now = self.others(lane).any(|other| self.is_ready(other, now));
        let backoff = self.backoff();
        let tried = &mut self.lanes[lane];
        tried.called = true;
        tried.failure = Some(failure.clone());
        tried.silent |= failure.class == Class::Timeout;
        tried.at_fault |= failure.class.is_providers_fault();
        tried.throttled += u32::from(failure.class == Class::RateLimit);
        match (failure.verdict(), failure.class) {
            // The same model refuses the same question again; another may not.
            (Verdict::Never, Class::ContentFilter) if self.retry.failover_refusals => {
                tried.out = Some(failure.clone());
            }
            (Verdict::Never, _) => self.over = Some(End::of(lane, &failure)),
            // The lane was known to be unwell, and this call went to see for all of them: that costs no
            // attempt, or whoever is left alone in an outage would be the first to be lost. The lane's
            // breaker is open again and says until when.
            (_, class) if probe && class.is_providers_fault() => {
                tried.is_down = true;
                tried.not_before = Some(now + self.retry.base);
            }
            // The provider itself holds its calls back now, which costs no attempt: nothing was wrong with
            // the call.
            (Verdict::Again { .. }, Class::RateLimit) => match after {
                Some(wait) if wait > PATIENCE && others => tried.not_before = Some(now + wait),
                // Short waits add up, too.
                _ if tried.throttled > THROTTLED_AT_MOST && others_now => {
                    tried.not_before = Some(now + after.unwrap_or(self.retry.base));
                }
                // The wait that was asked for does not suffice for this request: it leaves room for others.
                _ if tried.throttled > 1 && !others_now => {
                    let wait = backoff.wait(tried.throttled - 1, jitter);
                    tried.not_before = Some(now + wait.max(after.unwrap_or_default()));
                    self.again = Some(lane);
                }
                _ => self.again = Some(lane),
            },
            // No room for this request, whatever else this target and others take.
            (Verdict::Elsewhere, Class::RateLimit | Class::TooLong) if failure.scope == Scope::Target => {
                tried.out = Some(failure.clone());
            }
            // It is asked without what the model does not take: another request, of which there are few.
            (Verdict::Again { .. }, Class::ApiError) => self.again = Some(lane),
            (Verdict::Again { .. }, _) => {
                self.again_or_exhausted(lane, now, jitter);
                if let Some(wait) = after {
                    let tried = &mut self.lanes[lane];
                    tried.not_before = tried.not_before.max(Some(now + wait));
                    self.again = self.again.filter(|_| !(wait > PATIENCE && others));
                }
            }
            (Verdict::Elsewhere, Class::Auth | Class::Quota | Class::ApiError) if key_left => {
                self.again = Some(lane);
            }
            // The same target refuses the same request again; unless it is open whether the key or only this
            // request is refused, which other requests show meanwhile.
            (
                Verdict::Elsewhere,
                Class::Auth | Class::Quota | Class::NotFound | Class::ApiError | Class::ContentFilter,
            ) if !failure.scope.is_open() => {
                tried.out = Some(failure.clone());
            }
            (Verdict::Elsewhere, Class::TooLong) => self.close_up_to(lane, &failure),
            (Verdict::Elsewhere, _) if others => tried.exhausted = true,
            (Verdict::Elsewhere, _) => self.again_or_exhausted(lane, now, jitter),
        }
        self.last = Some(End::of(lane, &failure));
    }

    /// Closes a lane that the prompt is too long for, and those that are known to take no more.
    fn close_up_to(&mut self, lane: usize, failure: &Failure) {
        let most = self.lanes[lane].candidate.context;
        let takes_no_more =
            |tried: &Tried| tried.candidate.context.zip(most).is_some_and(|(takes, most)| takes <= most);
        for (number, tried) in self.lanes.iter_mut().enumerate() {
            if tried.out.is_none() && (number == lane || takes_no_more(tried)) {
                tried.out = Some(failure.clone());
            }
        }
    }

    fn again_or_exhausted(&mut self, lane: usize, now: Instant, jitter: f64) {
        let backoff = self.backoff();
        let tried = &mut self.lanes[lane];
        tried.attempts += 1;
        if tried.attempts < self.retry.attempts_per_lane.get() {
            tried.not_before = Some(now + backoff.wait(tried.attempts, jitter));
            self.again = Some(lane);
        } else {
            tried.exhausted = true;
        }
    }

    /// Returns when the lanes that failed could be tried once more; `None` when there is none, or no
    /// further round.
    fn round_at(&mut self, now: Instant, jitter: f64) -> Option<Instant> {
        let worth_it = |lane: usize| {
            let Tried { exhausted, out, silent, .. } = &self.lanes[lane];
            *exhausted && out.is_none() && !(*silent && self.others_remain(lane))
        };
        let some = (0..self.lanes.len()).any(worth_it);
        // The rounds' waits go on where those of a lane's attempts ended.
        let waits = self.round + self.retry.attempts_per_lane.get();
        if !some || self.round >= self.retry.rounds.get() {
            return None;
        }
        // Decided once: a lane that is asked again and again meanwhile, and cannot take it, must not put it off.
        let at = now + self.backoff().wait(waits, jitter);
        Some(*self.round_due.get_or_insert(at))
    }

    /// Starts over with every lane that is not out for good.
    fn next_round(&mut self, at: Instant, now: Instant, jitter: f64) -> Step {
        self.round += 1;
        self.round_due = None;
        for tried in &mut self.lanes {
            (tried.attempts, tried.exhausted) = (0, false);
            tried.not_before = tried.not_before.max(Some(at));
        }
        // It may have been due while a lane was asked.
        if at <= now { self.next(now, jitter) } else { self.wait(at) }
    }

    fn call(&mut self, lane: usize) -> Step {
        self.again = None;
        self.lanes[lane].not_before = None;
        self.lanes[lane].is_down = false;
        Step::Call(lane)
    }

    fn wait(&mut self, until: Instant) -> Step {
        if until >= self.deadline { self.give_up() } else { Step::Wait(until) }
    }

    /// What went wrong last says more than that time is up.
    fn give_up(&mut self) -> Step {
        let late = || Failure::new(Class::Deadline, "no lane could take the call before its deadline").into();
        let end = self.unpaid().or_else(|| self.larger()).or_else(|| self.last.take());
        Step::GiveUp(end.unwrap_or_else(late))
    }

    /// Returns why there was no money, where no lane is left and one only for that: with more money it would
    /// answer.
    fn unpaid(&self) -> Option<End> {
        let outs: Option<Vec<&Failure>> = self.lanes.iter().map(|tried| tried.out.as_ref()).collect();
        let unpaid = outs?.into_iter().enumerate().find(|(_, failure)| failure.class == Class::Budget);
        unpaid.map(|(lane, failure)| End::of(lane, failure))
    }

    /// Returns why a lane that may take a longer prompt has not answered, where the others take none that long.
    fn larger(&self) -> Option<End> {
        self.last.as_ref().filter(|last| last.failure.class == Class::TooLong)?;
        let is_too_small = |tried: &Tried| tried.out.as_ref().is_some_and(|why| why.class == Class::TooLong);
        let was_known = |lane: usize| self.lanes[lane].failure.is_some() || self.is_allowed(lane);
        let lane =
            (0..self.lanes.len()).find(|lane| !is_too_small(&self.lanes[*lane]) && was_known(*lane))?;
        let busy = || Failure::new(Class::Deadline, "no lane that takes as much was free in time").into();
        Some(self.lanes[lane].failure.as_ref().map_or_else(busy, |failure| End::of(lane, failure)))
    }

    fn only_down_lanes_are_left(&self) -> bool {
        let mut open = (0..self.lanes.len()).filter(|lane| self.is_open(*lane));
        open.all(|lane| self.lanes[lane].is_down)
    }

    fn is_open(&self, lane: usize) -> bool {
        let tried = &self.lanes[lane];
        !tried.exhausted && self.is_allowed(lane) && !(tried.silent && self.others_remain(lane))
    }

    fn is_allowed(&self, lane: usize) -> bool {
        let tried = &self.lanes[lane];
        let new_allowed = self.called() < self.retry.lanes_per_ask.get() as usize;
        tried.out.is_none() && (tried.called || new_allowed)
    }

    /// Returns whether another lane that has never kept silent may still be asked, in this round or a later
    /// one.
    fn others_remain(&self, lane: usize) -> bool {
        self.others(lane).any(|other| {
            let tried = &self.lanes[other];
            let later = !tried.exhausted || self.round < self.retry.rounds.get();
            let in_time = tried.not_before.is_none_or(|at| at < self.deadline);
            !tried.silent && later && in_time && self.is_allowed(other)
        })
    }

    fn others(&self, lane: usize) -> impl Iterator<Item = usize> {
        (0..self.lanes.len()).filter(move |other| *other != lane)
    }

    fn called(&self) -> usize {
        self.lanes.iter().filter(|tried| tried.called).count()
    }

    fn is_ready(&self, lane: usize, now: Instant) -> bool {
        self.is_open(lane) && self.is_due(lane, now)
    }

    fn is_due(&self, lane: usize, now: Instant) -> bool {
        self.lanes[lane].not_before.is_none_or(|at| at <= now)
    }

    fn backoff(&self) -> Backoff {
        Backoff { base: self.retry.base, max: self.retry.max }
    }
}

impl Tried {
    fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            attempts: 0,
            called: false,
            exhausted: false,
            silent: false,
            at_fault: false,
            throttled: 0,
            failure: None,
            is_down: false,
            out: None,
            not_before: None,
        }
    }
}

mod end;
mod step;
#[cfg(test)]
mod tests;
