//! Whether more calls at once bring more answers, or only longer waits.
//!
//! By Little's law, calls that leave while `n` are out and take `t` seconds each make `n / t` answers a
//! second. So every call that is answered tells how much its lane gets done at that many at once, in a
//! rush as in a lull, and no clock has to run over a steady stretch. Calls are looked at in *cohorts*: some that
//! left one after another, of which the slowest tenth is not waited for. A cohort that left while half as
//! many again or more were out is compared with an earlier one, the *mark*. If the share by which more got
//! done is less than half the share by which more were out, growing has not paid: it is looked at once
//! more with the limit held, then taken back, and tried again after a while from a fresh mark. Where three times as many
//! brought next to nothing, it is taken back at once.
//!
//! Only ever takes growth back: time alone, however long the answers take, lowers nothing.

use std::time::Duration;

use tokio::time::Instant;

/// Growth that is judged, as a factor. At less the scatter of the times would decide: those of answers
/// differ by half their mean or more, and a cohort has few calls.
const TELLING: f64 = 1.5;

/// Growth that brings less than this gain is no matter of chance, however few calls a cohort has: one at a time is all
/// that the provider answers.
const CLEAR: f64 = 3.0;
const NO_GAIN: f64 = 1.15;

/// Growth that is nothing to judge even where there will be no more of it.
const NOTHING: f64 = 1.2;

/// Without a look at what it has brought, the limit grows to this many times the mark: at first, and
/// once growing has been found not to pay.
const BLIND: usize = 4;
const ONCE_STOPPED: usize = 2;

/// Calls of a cohort: half of those out, within these.
const COHORT: (usize, usize) = (16, 200);

/// Likewise of one that decides.
const DECIDING_COHORT: (usize, usize) = (100, 256);

/// Until growing is tried again for the first time, and at most.
const WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(240);

/// Says how far the limit of one lane may grow.
#[derive(Debug)]
pub(super) struct Payoff {
    stage: Stage,
    mark: Option<Sample>,
    /// The mark before it. By chance growing may have seemed to pay; against this one it shows.
    earlier: Option<Sample>,
    has_stopped: bool,
    cohort: Cohort,
    /// Until the next try after the next failure.
    wait: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Growing pays, as far as is known.
    Growing { from: usize },
    /// It did not seem to pay; held to look again.
    Doubting { at: usize },
    /// It did not pay.
    Stopped { at: usize, until: Instant },
    /// Growing a little, to see whether it pays by now.
    Trying { from: usize, to: usize },
}

/// What a cohort told.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Calls out, on average.
    out: f64,
    /// What they took, on average.
    seconds: f64,
    /// The largest limit that one of them left under.
    limit: usize,
    /// The limit when its first call left.
    began_at: usize,
}

/// Calls that are looked at together.
#[derive(Debug, Default)]
struct Cohort {
    number: u64,
    size: usize,
    joined: usize,
    answered: usize,
    out: usize,
    took: Duration,
    limit: usize,
    began_at: usize,
}

/// A place in a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member(u64);

impl Payoff {
    /// Lets the limit grow from `limit`.
    pub(super) fn new(limit: usize) -> Self {
        let mut payoff = Self {
            stage: Stage::Growing { from: limit },
            mark: None,
            earlier: None,
            has_stopped: false,
            cohort: Cohort::default(),
            wait: WAIT,
        };
        payoff.begin_cohort(limit);
        payoff
    }

    /// Returns how far the limit may grow.
    pub(super) fn most(&self) -> usize {
        match self.stage {
            Stage::Growing { from } => {
                let times = if self.has_stopped { ONCE_STOPPED } else { BLIND };
                self.mark.map_or(from, |mark| mark.limit.max(from)).saturating_mul(times)
            }
            Stage::Doubting { at } | Stage::Stopped { at, .. } => at,
            Stage::Trying { to, .. } => to,
        }
    }

    /// Gives a call that leaves a place in the cohort, if there is one.
    pub(super) fn left(&mut self) -> Option<Member> {
        let has_place = self.cohort.joined < self.cohort.size;
        self.cohort.joined += usize::from(has_place);
        has_place.then_some(Member(self.cohort.number))
    }

    /// Takes a place back: its call was not answered.
    pub(super) fn gone(&mut self, member: Member) {
        if member.0 == self.cohort.number {
            self.cohort.joined = self.cohort.joined.saturating_sub(1);
        }
    }

    /// Learns from a call that left with `out` calls out, itself included, under `then`, and has been
    /// answered under `limit`. Returns the limit to go back to, if growing has not paid.
    pub(super) fn answered(
        &mut self,
        member: Member,
        (out, then): (usize, usize),
        took: Duration,
        limit: usize,
        most: usize,
        now: Instant,
    ) -> Option<usize> {
        let cohort = &mut self.cohort;
        if member.0 != cohort.number {
            return None;
        }
        cohort.answered += 1;
        cohort.out += out;
        cohort.took += took;
        cohort.limit = cohort.limit.max(then);
        if cohort.joined < cohort.size || cohort.answered * 10 < cohort.size * 9 {
            return None;
        }
        let sample = cohort.sample();
        let back = self.weigh(sample, limit, most, now);
        self.begin_cohort(back.unwrap_or(limit));
        back
    }

    /// Forgets what was measured: the limit has been cut to `limit`, or is not what holds calls back.
    /// That growing beyond some limit did not pay stays known.
    pub(super) fn forget(&mut self, limit: usize) {
        if !matches!(self.stage, Stage::Stopped { .. }) {
            self.stage = Stage::Growing { from: limit };
            (self.mark, self.earlier) = (None, None);
        }
        self.begin_cohort(limit);
    }

    fn begin_cohort(&mut self, limit: usize) {
        let (least, most) = match self.stage {
            Stage::Growing { .. } => COHORT,
            Stage::Doubting { .. } | Stage::Stopped { .. } | Stage::Trying { .. } => DECIDING_COHORT,
        };
        let number = self.cohort.number + 1;
        let size = (limit / 2).clamp(least, most);
        self.cohort = Cohort { number, size, began_at: limit, ..Cohort::default() };
    }

    /// Draws the conclusion of a cohort.
    fn weigh(&mut self, sample: Sample, limit: usize, most: usize, now: Instant) -> Option<usize> {
        let Some(mark) = self.mark else {
            self.mark = Some(sample);
            return None;
        };
        let growth = sample.out / mark.out;
        match self.stage {
            // As long as there are no more calls out than at the mark, the newer one is the better mark.
            Stage::Growing { .. } if growth <= 1.0 => self.mark = Some(sample),
            Stage::Growing { .. } if growth < TELLING => {}
            Stage::Growing { .. } if growth >= CLEAR && gain(mark, sample) < NO_GAIN => {
                return Some(self.stop(worth_of(mark, sample).min(limit), now));
            }
            Stage::Growing { .. } if !has_paid(mark, sample) => self.stage = Stage::Doubting { at: limit },
            Stage::Growing { .. } => self.grow_on(sample, limit),
            Stage::Doubting { .. } if has_paid(mark, sample) => self.grow_on(sample, limit),
            Stage::Doubting { .. } => {
                let marks = [Some(mark), self.earlier].into_iter().flatten();
                let worth = marks.map(|mark| worth_of(mark, sample)).fold(limit, usize::min);
                return Some(self.stop(worth, now));
            }
            Stage::Stopped { until, .. } => {
                self.mark = Some(sample);
                if now >= until {
                    let to = (limit + limit.div_ceil(2)).min(most).max(limit);
                    self.stage = Stage::Trying { from: limit, to };
                }
            }
            // It has not grown that far yet.
            Stage::Trying { to, .. } if sample.began_at < to => {}
            Stage::Trying { .. } if growth < NOTHING || has_paid(mark, sample) => {
                self.wait = WAIT;
                self.grow_on(sample, limit);
            }
            Stage::Trying { from, .. } => return Some(self.stop(from, now)),
        }
        None
    }

    fn grow_on(&mut self, sample: Sample, limit: usize) {
        self.earlier = self.mark.replace(sample);
        self.stage = Stage::Growing { from: limit };
    }

    fn stop(&mut self, at: usize, now: Instant) -> usize {
        self.stage = Stage::Stopped { at, until: now + self.wait };
        (self.earlier, self.has_stopped) = (None, true);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        at
    }
}

impl Cohort {
    fn sample(&self) -> Sample {
        let calls = self.answered.max(1) as f64;
        Sample {
            out: self.out as f64 / calls,
            // Never zero: it is divided by.
            seconds: (self.took.as_secs_f64() / calls).max(1e-9),
            limit: self.limit,
            began_at: self.began_at,
        }
    }
}

/// Returns how many times as much got done as at the mark.
fn gain(mark: Sample, sample: Sample) -> f64 {
    (sample.out / sample.seconds) / (mark.out / mark.seconds)
}

fn has_paid(mark: Sample, sample: Sample) -> bool {
    let growth = sample.out / mark.out - 1.0;
    gain(mark, sample) >= 1.0 + growth / 2.0
}

/// Returns how many at once are enough for what `sample` got done, if each took as long as at the mark: by
/// Little's law, without the limit of the mark, which calls that left in a rush had not reached.
fn worth_of(mark: Sample, sample: Sample) -> usize {
    let enough = sample.out * mark.seconds / sample.seconds;
    (enough.ceil() as usize).max(mark.limit / 2)
}
