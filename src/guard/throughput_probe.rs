//! Detects whether more concurrency raises the throughput, or only the latency.
//!
//! By Little's law, calls that are sent while `n` are in flight and take `t` seconds each complete at `n /
//! t` per second. So every answered call shows the throughput of its target at that concurrency, under
//! changing load too, and no measurement interval is needed. Calls are evaluated in *cohorts* of calls sent
//! one after another, whose slowest tenth is not waited for. A cohort sent with at least half as many more
//! in flight is compared with an earlier one, the *baseline*. If the relative gain in throughput is less
//! than half the relative growth in concurrency, the growth was not worthwhile: it is evaluated once more
//! with the limit held, then undone, and retried after a while from a fresh baseline. If three times the
//! concurrency brought almost nothing, the growth is undone at once.
//!
//! The probe only undoes growth: time alone, however long answers take, lowers nothing.

use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

/// Growth that is evaluated, as a factor. With less, the scatter of the latencies would decide: latencies
/// of answers vary by half their mean or more, and a cohort has few calls.
const MIN_JUDGED_GROWTH: f64 = 1.5;

/// Growth of at least `MIN_CLEAR_GROWTH` with a throughput ratio below `MIN_CLEAR_GAIN` is no coincidence,
/// however few calls a cohort has: the provider answers one call at a time.
const MIN_CLEAR_GROWTH: f64 = 3.0;
const MIN_CLEAR_GAIN: f64 = 1.15;

/// Growth below this is not evaluated even if there will be no more of it.
const MIN_TRIAL_GROWTH: f64 = 1.2;

/// Without an evaluation, the limit grows to this multiple of the baseline: at first, and once growth has
/// been found not worthwhile.
const MAX_UNVERIFIED_GROWTH: usize = 4;
const MAX_UNVERIFIED_GROWTH_AFTER_STOP: usize = 2;

/// Calls of a cohort: half of those in flight, within these bounds.
const COHORT_SIZE: RangeInclusive<usize> = 16..=200;

/// The same for a cohort that decides.
const DECIDING_COHORT_SIZE: RangeInclusive<usize> = 100..=256;

/// Time until growth is retried for the first time, and its maximum.
const INITIAL_RETRIAL_WAIT: Duration = Duration::from_secs(30);
const MAX_RETRIAL_WAIT: Duration = Duration::from_secs(240);

/// Determines how far the concurrency limit of one target may grow.
#[derive(Debug)]
pub(super) struct ThroughputProbe {
    stage: Stage,
    baseline: Option<Sample>,
    /// The baseline before this one. Growth may seem worthwhile by chance; compared with this baseline it
    /// shows.
    previous_baseline: Option<Sample>,
    has_stopped: bool,
    cohort: Cohort,
    /// Time until the next retrial after the next failed one.
    next_retrial_wait: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Growth is worthwhile as far as is known.
    Growing { from: usize },
    /// Growth did not seem worthwhile; the limit is held for a second evaluation.
    Verifying { at: usize },
    /// Growth was not worthwhile.
    Stopped { at: usize, until: Instant },
    /// Growing slightly, to see whether it is worthwhile now.
    Retrying { from: usize, to: usize },
}

/// Result of a cohort.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Mean number of calls in flight.
    in_flight: f64,
    /// Mean latency in seconds.
    mean_seconds: f64,
    /// Largest limit under which one of its calls was sent.
    limit: usize,
    /// The limit when its first call was sent.
    limit_at_start: usize,
}

/// Calls that are evaluated together.
#[derive(Debug, Default)]
struct Cohort {
    number: u64,
    size: usize,
    joined: usize,
    answered: usize,
    in_flight_sum: usize,
    latency_sum: Duration,
    limit: usize,
    limit_at_start: usize,
}

/// A place in a cohort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SampleSlot(u64);

/// A call with a place in the cohort that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnsweredCall {
    pub(super) slot: SampleSlot,
    /// Calls in flight when it was sent, itself included.
    pub(super) in_flight: usize,
    /// The limit when it was sent.
    pub(super) limit: usize,
    pub(super) latency: Duration,
}

impl ThroughputProbe {
    /// Lets the limit grow from `limit`.
    pub(super) fn new(limit: usize) -> Self {
        let mut probe = Self {
            stage: Stage::Growing { from: limit },
            baseline: None,
            previous_baseline: None,
            has_stopped: false,
            cohort: Cohort::default(),
            next_retrial_wait: INITIAL_RETRIAL_WAIT,
        };
        probe.begin_cohort(limit);
        probe
    }

    /// Returns how far the limit may grow.
    pub(super) fn max_limit(&self) -> usize {
        match self.stage {
            Stage::Growing { from } => {
                let times =
                    if self.has_stopped { MAX_UNVERIFIED_GROWTH_AFTER_STOP } else { MAX_UNVERIFIED_GROWTH };
                self.baseline.map_or(from, |baseline| baseline.limit.max(from)).saturating_mul(times)
            }
            Stage::Verifying { at } | Stage::Stopped { at, .. } => at,
            Stage::Retrying { to, .. } => to,
        }
    }

    /// Gives a call that is being sent a place in the cohort, if there is one.
    pub(super) fn reserve_slot(&mut self) -> Option<SampleSlot> {
        let has_place = self.cohort.joined < self.cohort.size;
        self.cohort.joined += usize::from(has_place);
        has_place.then_some(SampleSlot(self.cohort.number))
    }

    /// Frees a place whose call was not answered.
    pub(super) fn release_slot(&mut self, slot: SampleSlot) {
        if slot.0 == self.cohort.number {
            self.cohort.joined = self.cohort.joined.saturating_sub(1);
        }
    }

    /// Records the answer to a call, with the limit now at `limit`. Returns the limit to return to if growth
    /// was not worthwhile.
    pub(super) fn record_answer(
        &mut self,
        call: AnsweredCall,
        limit: usize,
        max: usize,
        now: Instant,
    ) -> Option<usize> {
        let cohort = &mut self.cohort;
        if call.slot.0 != cohort.number {
            return None;
        }
        cohort.answered += 1;
        cohort.in_flight_sum += call.in_flight;
        cohort.latency_sum += call.latency;
        cohort.limit = cohort.limit.max(call.limit);
        if cohort.joined < cohort.size || cohort.answered * 10 < cohort.size * 9 {
            return None;
        }
        let sample = cohort.sample();
        let lowered = self.evaluate(sample, limit, max, now);
        self.begin_cohort(lowered.unwrap_or(limit));
        lowered
    }

    /// Discards the measurements: the limit has been reduced to `limit`, or something else limits the
    /// calls. A result that growth beyond some limit is not worthwhile is kept.
    pub(super) fn reset(&mut self, limit: usize) {
        if !matches!(self.stage, Stage::Stopped { .. }) {
            self.stage = Stage::Growing { from: limit };
            self.baseline = None;
            self.previous_baseline = None;
        }
        self.begin_cohort(limit);
    }

    fn begin_cohort(&mut self, limit: usize) {
        let sizes = match self.stage {
            Stage::Growing { .. } => COHORT_SIZE,
            Stage::Verifying { .. } | Stage::Stopped { .. } | Stage::Retrying { .. } => DECIDING_COHORT_SIZE,
        };
        let number = self.cohort.number + 1;
        let size = (limit / 2).clamp(*sizes.start(), *sizes.end());
        self.cohort = Cohort { number, size, limit_at_start: limit, ..Cohort::default() };
    }

    /// Compares a cohort with the baseline. Returns the limit to return to if growth was not worthwhile.
    fn evaluate(&mut self, sample: Sample, limit: usize, max: usize, now: Instant) -> Option<usize> {
        let Some(baseline) = self.baseline else {
            self.baseline = Some(sample);
            return None;
        };
        let growth = sample.in_flight / baseline.in_flight;
        match self.stage {
            // With no more calls in flight than at the baseline, the newer cohort is the better baseline.
            Stage::Growing { .. } if growth <= 1.0 => self.baseline = Some(sample),
            Stage::Growing { .. } if growth < MIN_JUDGED_GROWTH => {}
            Stage::Growing { .. }
                if growth >= MIN_CLEAR_GROWTH && throughput_ratio(baseline, sample) < MIN_CLEAR_GAIN =>
            {
                return Some(self.stop(sufficient_limit(baseline, sample).min(limit), now));
            }
            Stage::Growing { .. } if !is_worthwhile(baseline, sample) => {
                self.stage = Stage::Verifying { at: limit }
            }
            Stage::Growing { .. } => self.continue_growing(sample, limit),
            Stage::Verifying { .. } if is_worthwhile(baseline, sample) => {
                self.continue_growing(sample, limit)
            }
            Stage::Verifying { .. } => {
                let baselines = [Some(baseline), self.previous_baseline].into_iter().flatten();
                let sufficient = baselines.map(|baseline| sufficient_limit(baseline, sample));
                return Some(self.stop(sufficient.fold(limit, usize::min), now));
            }
            Stage::Stopped { until, .. } => {
                self.baseline = Some(sample);
                if now >= until {
                    let to = (limit + limit.div_ceil(2)).min(max).max(limit);
                    self.stage = Stage::Retrying { from: limit, to };
                }
            }
            // The limit has not grown that far yet.
            Stage::Retrying { to, .. } if sample.limit_at_start < to => {}
            Stage::Retrying { .. } if growth < MIN_TRIAL_GROWTH || is_worthwhile(baseline, sample) => {
                self.next_retrial_wait = INITIAL_RETRIAL_WAIT;
                self.continue_growing(sample, limit);
            }
            Stage::Retrying { from, .. } => return Some(self.stop(from, now)),
        }
        None
    }

    fn continue_growing(&mut self, sample: Sample, limit: usize) {
        self.previous_baseline = self.baseline.replace(sample);
        self.stage = Stage::Growing { from: limit };
    }

    fn stop(&mut self, at: usize, now: Instant) -> usize {
        self.stage = Stage::Stopped { at, until: now + self.next_retrial_wait };
        self.previous_baseline = None;
        self.has_stopped = true;
        self.next_retrial_wait = (self.next_retrial_wait * 2).min(MAX_RETRIAL_WAIT);
        at
    }
}

impl Cohort {
    fn sample(&self) -> Sample {
        let calls = self.answered.max(1) as f64;
        Sample {
            in_flight: self.in_flight_sum as f64 / calls,
            // Never zero, because it is a divisor.
            mean_seconds: (self.latency_sum.as_secs_f64() / calls).max(1e-9),
            limit: self.limit,
            limit_at_start: self.limit_at_start,
        }
    }
}

/// Returns the throughput of the sample as a multiple of the baseline's.
fn throughput_ratio(baseline: Sample, sample: Sample) -> f64 {
    (sample.in_flight / sample.mean_seconds) / (baseline.in_flight / baseline.mean_seconds)
}

fn is_worthwhile(baseline: Sample, sample: Sample) -> bool {
    let growth = sample.in_flight / baseline.in_flight - 1.0;
    throughput_ratio(baseline, sample) >= 1.0 + growth / 2.0
}

/// Returns the concurrency that suffices for the throughput of `sample` at the latency of the baseline, by
/// Little's law. The limit of the baseline is not used, because calls sent in a burst had not reached it.
fn sufficient_limit(baseline: Sample, sample: Sample) -> usize {
    let sufficient = sample.in_flight * baseline.mean_seconds / sample.mean_seconds;
    (sufficient.ceil() as usize).max(baseline.limit / 2)
}
