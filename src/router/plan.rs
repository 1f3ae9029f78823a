//! What happens next to one ask: which lane, when, and when to give up.
//!
//! Four limits hold together: attempts at each lane, lanes, rounds over all lanes, and the deadline.
//! Pure: it is given `now` and never calls anybody.

use tokio::time::Instant;

use crate::guard::Backoff;
use crate::provider::Refused;
use crate::types::{Class, Failure, Verdict};

use super::settings::RetrySettings;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Call the lane of this number.
    Call(usize),
    /// Do nothing before that instant, then ask the plan again.
    Wait(Instant),
    /// Nothing more can be done.
    GiveUp(Failure),
}

/// Whether the provider has a key left to try instead of the one that was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLeft(pub bool);

/// Whether the call was the probe of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe(pub bool);

/// The plan of one ask over the lanes of its route, by their numbers.
#[derive(Debug)]
pub struct Plan {
    retry: RetrySettings,
    deadline: Instant,
    lanes: Vec<Tried>,
    /// The lane that is to be asked again before any other.
    again: Option<usize>,
    round: u32,
    last: Option<Failure>,
    over: Option<Failure>,
}

#[derive(Debug, Default)]
struct Tried {
    /// Calls that failed in this round.
    attempts: u32,
    /// Whether it has ever been called.
    called: bool,
    /// Not to be called any more in this round.
    exhausted: bool,
    /// Whether it has ever kept silent; another lane then goes first.
    silent: bool,
    /// Not to be called any more at all.
    out: Option<Failure>,
    not_before: Option<Instant>,
}

impl Plan {
    /// Makes a plan over `lanes` lanes, in the order of their numbers.
    pub fn new(lanes: usize, retry: RetrySettings, deadline: Instant) -> Self {
        let lanes = (0..lanes).map(|_| Tried::default()).collect();
        Self { retry, deadline, lanes, again: None, round: 1, last: None, over: None }
    }

    /// Returns what to do at `now`. `jitter` lies in `0.0..1.0` and spreads the waits.
    pub fn next(&mut self, now: Instant, jitter: f64) -> Step {
        if let Some(failure) = self.over.take() {
            return Step::GiveUp(failure);
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
        let due = (0..self.lanes.len()).filter(|lane| self.is_open(*lane) && self.is_due(*lane, now));
        if let Some(lane) = due.min_by_key(|lane| self.lanes[*lane].silent) {
            return self.call(lane);
        }
        // Lanes that could not take it will: theirs is only a queue or a breaker. But one that failed may
        // be worth another try before that.
        let open = (0..self.lanes.len()).filter(|lane| self.is_open(*lane));
        let first = open.filter_map(|lane| self.lanes[lane].not_before).min();
        match (first, self.round_at(now, jitter)) {
            (Some(first), Some(round)) if round < first => self.next_round(round),
            (Some(first), _) => self.wait(first),
            (None, Some(round)) => self.next_round(round),
            (None, None) => self.give_up(),
        }
    }

    /// Learns that a lane did not take the call.
    pub fn refused(&mut self, lane: usize, refused: &Refused, now: Instant) {
        self.again = None;
        let tried = &mut self.lanes[lane];
        match refused {
            Refused::Busy { until }
            | Refused::RetriesSpent { until }
            | Refused::Open { until: Some(until) } => {
                // A moment at least: whoever asks in a circle learns nothing new.
                tried.not_before = Some((*until).max(now + self.retry.base));
            }
            Refused::Open { until: None } | Refused::Down => {
                tried.not_before = Some(now + self.retry.base * 2)
            }
            // Patience is for what has worked before: this costs a round, of which there are few.
            Refused::NeverAnswered(failure) => {
                tried.exhausted = true;
                self.last.get_or_insert_with(|| failure.clone());
            }
            Refused::NoKey(failure) | Refused::TooLarge(failure) => {
                tried.out = Some(failure.clone());
                self.last.get_or_insert_with(|| failure.clone());
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
        let others = (0..self.lanes.len()).any(|other| other != lane && self.is_open(other));
        let tried = &mut self.lanes[lane];
        tried.called = true;
        tried.silent |= failure.class == Class::Timeout;
        match (failure.verdict(), failure.class) {
            (Verdict::Never, _) => self.over = Some(failure.clone()),
            // The lane was known to be unwell, and this call went to see for all of them: that costs no
            // attempt, or whoever is left alone in an outage would be the first to be lost. The lane's
            // breaker is open again and says until when.
            (
                _,
                Class::Overloaded
                | Class::ServerError
                | Class::NetworkError
                | Class::Timeout
                | Class::Unreadable,
            ) if probe => tried.not_before = Some(now + self.retry.base),
            // The provider itself holds its calls back now, which costs no attempt: nothing was wrong with
            // the call.
            (Verdict::Again { .. }, Class::RateLimit) => self.again = Some(lane),
            (Verdict::Again { .. }, _) => self.again_or_exhausted(lane, now, jitter),
            (Verdict::Elsewhere, Class::Auth | Class::Quota) if key_left => self.again = Some(lane),
            (Verdict::Elsewhere, Class::Auth | Class::Quota | Class::NotFound | Class::TooLong) => {
                tried.out = Some(failure.clone());
            }
            (Verdict::Elsewhere, _) if others => tried.exhausted = true,
            (Verdict::Elsewhere, _) => self.again_or_exhausted(lane, now, jitter),
        }
        self.last = Some(failure);
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
    fn round_at(&self, now: Instant, jitter: f64) -> Option<Instant> {
        let some = self.lanes.iter().any(|tried| tried.exhausted && tried.out.is_none());
        // The rounds' waits go on where those of a lane's attempts ended.
        let waits = self.round + self.retry.attempts_per_lane.get();
        (some && self.round < self.retry.rounds.get()).then(|| now + self.backoff().wait(waits, jitter))
    }

    /// Starts over with every lane that is not out for good.
    fn next_round(&mut self, at: Instant) -> Step {
        self.round += 1;
        for tried in &mut self.lanes {
            (tried.attempts, tried.exhausted) = (0, false);
            tried.not_before = tried.not_before.max(Some(at));
        }
        self.wait(at)
    }

    fn call(&mut self, lane: usize) -> Step {
        self.again = None;
        self.lanes[lane].not_before = None;
        Step::Call(lane)
    }

    fn wait(&mut self, until: Instant) -> Step {
        if until >= self.deadline { self.give_up() } else { Step::Wait(until) }
    }

    /// What went wrong last says more than that time is up.
    fn give_up(&mut self) -> Step {
        let nobody = || Failure::new(Class::Deadline, "no lane could take the call before its deadline");
        Step::GiveUp(self.last.take().unwrap_or_else(nobody))
    }

    fn is_open(&self, lane: usize) -> bool {
        let tried = &self.lanes[lane];
        let called = self.lanes.iter().filter(|tried| tried.called).count();
        let new_allowed = called < self.retry.lanes_per_ask.get() as usize;
        tried.out.is_none() && !tried.exhausted && (tried.called || new_allowed)
    }

    fn is_due(&self, lane: usize, now: Instant) -> bool {
        self.lanes[lane].not_before.is_none_or(|at| at <= now)
    }

    fn backoff(&self) -> Backoff {
        Backoff { base: self.retry.base, max: self.retry.max }
    }
}

#[cfg(test)]
mod tests;
