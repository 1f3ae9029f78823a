//! Detects whether too many attempts are in flight, from the share of overload responses.
//!
//! A *round* is as many attempts as may be in flight, in the order in which they were sent: one round trip
//! of a full target. An overload response counts in the round in which its attempt was sent, however late
//! it arrives; so the share is that of attempts made at one concurrency, not that of the responses that
//! happened to arrive first. A round is *significant* once it has more overload responses than chance
//! explains, given the baseline share. (*Overload response* includes an attempt without a response in
//! time.)
//!
//! Some overload responses are unrelated to the concurrency: a share of all attempts is rejected at random.
//! This baseline share is measured. If overload continues after the limit was lowered, a *trial* is made
//! with half as many in flight: if its share is about the same, that share becomes the baseline.
//!
//! The detector reads no clock and does not decide the limit; `concurrency.rs` does.

use std::collections::VecDeque;

/// Minimum number of attempts in a round: with fewer, no share can be measured.
const MIN_ROUND_ATTEMPTS: usize = 32;

/// A round counts as idle if fewer than the limit divided by this were in flight.
const IDLE_DIVISOR: usize = 2;

/// Rounds that are stored. A response that arrives later than this many rounds shows nothing about the
/// present.
const MAX_ROUNDS: usize = 32;

/// The baseline share at first, and its minimum.
const INITIAL_BASELINE: f64 = 0.05;
const MIN_BASELINE: f64 = 0.005;

/// The largest baseline share that is learned without a trial.
const MAX_BASELINE_WITHOUT_TRIAL: f64 = 0.15;

/// Weight with which a round with a smaller share lowers the baseline.
const BASELINE_EWMA_WEIGHT: f64 = 1.0 / 16.0;

/// A number of overload responses is significant if it exceeds the expected number by this many standard
/// deviations plus `SIGNIFICANT_EXCESS`.
const SIGNIFICANT_DEVIATIONS: f64 = 3.0;
const SIGNIFICANT_EXCESS: f64 = 2.0;

/// Up to this limit, `MIN_OVERLOADS_AT_CEILING` responses show that a known ceiling persists. A round is much
/// longer than the limit there, and most of its attempts were sent below the ceiling.
const MAX_SMALL_LIMIT: usize = 8;

/// Overload responses at a known ceiling that confirm it, if chance does not explain them.
const MIN_OVERLOADS_AT_CEILING: usize = 2;

/// Consecutive significant rounds before a trial, the latest of them below the ceiling that an earlier one
/// has set.
const MIN_ROUNDS_BEFORE_TRIAL: u32 = 2;

/// Overload responses that a trial would have if the concurrency made no difference.
const EXPECTED_TRIAL_OVERLOADS: f64 = 16.0;

/// Minimum number of attempts in flight for a trial with half as many.
const MIN_IN_FLIGHT_FOR_TRIAL: usize = 8;

/// If the share of a trial is below this fraction of the reference share, fewer attempts in flight cause
/// less overload. Example: at four times the number that a provider accepts, halving gives two thirds of
/// the share.
const MIN_SIMILAR_RATIO: f64 = 0.75;

/// A share below which half as many in flight would cause no overload at all.
const MAX_SHARE_SOLVED_BY_HALVING: f64 = 0.4;

/// The largest share for which a trial is conclusive, for that reason.
const MAX_TRIAL_SHARE: f64 = 0.75;

/// The rounds of one target.
#[derive(Debug)]
pub(super) struct OverloadDetector {
    /// Oldest first; attempts that are being sent join the last one.
    rounds: VecDeque<Round>,
    /// Number of the oldest round.
    first_number: u64,
    /// The share of overload responses that does not depend on the concurrency, as far as known.
    baseline: f64,
    /// Number of reductions so far, and of consecutive significant rounds.
    reductions: u64,
    consecutive_significant: u32,
    /// Attempts sent since the last reduction, and how many of those met overload.
    since_reduction: AttemptCounts,
    /// Those of them that were sent with as many in flight as the known ceiling, or more.
    at_ceiling: AttemptCounts,
    /// The round with which the latest trial is compared.
    trial_reference: Option<TrialReference>,
    /// Whether that trial has not begun yet.
    is_trial_due: bool,
    /// The latest trial that made no difference.
    baseline_round: Option<u64>,
}

/// Attempts, and how many of them met overload.
#[derive(Debug, Clone, Copy, Default)]
struct AttemptCounts {
    sent: usize,
    overloaded: usize,
}

/// The round that caused a trial.
#[derive(Debug, Clone, Copy)]
struct TrialReference {
    round: u64,
    /// Its share among the responses that have arrived.
    share: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// The largest limit while it lasted.
    limit: usize,
    /// Largest number in flight when one of its attempts was sent.
    max_in_flight: usize,
    /// Number of reductions when it began.
    reductions: u64,
    sent: usize,
    overloaded: usize,
    /// Smallest number in flight, the attempt included, when an attempt was sent that met overload.
    min_overloaded_at: usize,
    ended: usize,
    is_significant: bool,
    /// Its number of attempts, if it is a trial.
    trial_size: Option<usize>,
}

/// What an overload response means for the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OverloadVerdict {
    /// Too many attempts were in flight.
    TooMany {
        /// How many there were, as far as the limit allowed them.
        in_flight: usize,
        /// How many of them were too many.
        excess: usize,
        /// Smallest number in flight at which an attempt met overload.
        min_overloaded_at: usize,
        /// Whether this response made its round significant.
        is_first_of_round: bool,
    },
    /// Reductions have not lowered the overload share so far: try half as many.
    TryHalf { in_flight: usize },
    /// Half as many did not help either: the concurrency does not matter.
    Unrelated,
}

impl OverloadDetector {
    pub(super) fn new() -> Self {
        Self {
            rounds: VecDeque::new(),
            first_number: 0,
            baseline: INITIAL_BASELINE,
            reductions: 0,
            consecutive_significant: 0,
            since_reduction: AttemptCounts::default(),
            at_ceiling: AttemptCounts::default(),
            trial_reference: None,
            is_trial_due: false,
            baseline_round: None,
        }
    }

    /// Counts an attempt that is being sent under `limit` as the `in_flight`th in flight. `ceiling` is the
    /// known one. Returns the number of its round.
    pub(super) fn record_sent(&mut self, limit: usize, in_flight: usize, ceiling: Option<usize>) -> u64 {
        let reductions = self.reductions;
        if self.rounds.back().is_none_or(|round| round.is_full() || round.reductions != reductions) {
            let is_trial = std::mem::take(&mut self.is_trial_due);
            let reference = self.trial_reference.filter(|_| is_trial);
            let trial_size = reference.map(|reference| trial_size(reference.share));
            self.rounds.push_back(Round { limit, reductions, trial_size, ..Round::default() });
        }
        self.since_reduction.sent += 1;
        self.at_ceiling.sent += usize::from(is_at(ceiling, in_flight));
        if let Some(round) = self.rounds.back_mut() {
            round.sent += 1;
            round.limit = round.limit.max(limit);
            round.max_in_flight = round.max_in_flight.max(in_flight);
        }
        self.first_number + self.rounds.len() as u64 - 1
    }

    /// Returns whether a trial is due or running: the limit must not grow meanwhile.
    pub(super) fn is_trial_pending(&self) -> bool {
        let is_open = |round: &Round| {
            round.trial_size.is_some() && !round.is_full() && round.reductions == self.reductions
        };
        self.is_trial_due || self.rounds.back().is_some_and(is_open)
    }

    /// Counts an overload response to an attempt of this round that was sent as the `in_flight`th in
    /// flight. Returns what it means if its round is significant. `ceiling` is the known one.
    pub(super) fn record_overload(
        &mut self,
        number: u64,
        in_flight: usize,
        ceiling: Option<usize>,
    ) -> Option<OverloadVerdict> {
        let reductions = self.reductions;
        let round = self.round_mut(number)?;
        round.min_overloaded_at =
            if round.overloaded == 0 { in_flight } else { round.min_overloaded_at.min(in_flight) };
        round.overloaded += 1;
        let round = *round;
        self.since_reduction.overloaded += usize::from(round.reductions == reductions);
        self.at_ceiling.overloaded +=
            usize::from(round.reductions == reductions && is_at(ceiling, in_flight));
        if let Some(reference) = self.trial_reference.as_mut().filter(|reference| reference.round == number) {
            reference.share = reference.share.max(round.share());
        }
        if round.trial_size.is_some()
            && let Some(reference) = self.trial_reference
        {
            if !self.is_similar(&round, reference) {
                return None;
            }
            self.trial_reference = None;
            if reference.share <= MAX_TRIAL_SHARE {
                self.baseline = reference.share;
                self.consecutive_significant = 0;
                self.baseline_round = Some(number);
                return Some(OverloadVerdict::Unrelated);
            }
        }
        if self.baseline_round == Some(number) {
            self.baseline = self.baseline.max(round.share());
        }
        // Overload with few attempts in flight is not caused by their number.
        let is_idle = round.max_in_flight * IDLE_DIVISOR < round.limit;
        (!is_idle && self.is_significant(&round, ceiling.is_some()))
            .then(|| self.judge(number, round, ceiling))
    }

    /// Returns whether a round has more overload responses than chance explains. If a ceiling is known, a
    /// number that is too small in each round may be significant over all of them.
    fn is_significant(&self, round: &Round, has_ceiling: bool) -> bool {
        let exceeds_chance = |counts: AttemptCounts, excess: f64| {
            counts.overloaded as f64 > max_by_chance(self.baseline, counts.sent) + excess
        };
        let of_round = AttemptCounts { sent: round.sent, overloaded: round.overloaded };
        let confirms_ceiling = || {
            round.limit <= MAX_SMALL_LIMIT
                && self.at_ceiling.overloaded >= MIN_OVERLOADS_AT_CEILING
                && exceeds_chance(self.at_ceiling, 0.0)
        };
        exceeds_chance(of_round, SIGNIFICANT_EXCESS)
            || has_ceiling
                && round.reductions == self.reductions
                && (exceeds_chance(self.since_reduction, SIGNIFICANT_EXCESS) || confirms_ceiling())
    }

    /// Returns whether a trial has so much overload that half as many in flight have made no difference. If
    /// the reference share was small, clearly more than the baseline is enough: if too many had been in
    /// flight, the trial would have none.
    fn is_similar(&self, trial: &Round, reference: TrialReference) -> bool {
        let attempts = trial.size().max(trial.sent);
        let expected = self.baseline * attempts as f64;
        let is_clear = trial.overloaded as f64 > expected + 2.0 * expected.sqrt() + 1.0;
        let share = trial.overloaded as f64 / attempts as f64;
        share >= reference.share * MIN_SIMILAR_RATIO
            || is_clear && reference.share < MAX_SHARE_SOLVED_BY_HALVING
    }

    fn judge(&mut self, number: u64, round: Round, ceiling: Option<usize>) -> OverloadVerdict {
        let is_first_of_round = !round.is_significant && round.reductions == self.reductions;
        if let Some(round) = self.round_mut(number) {
            round.is_significant = true;
        }
        let in_flight = round.in_flight();
        let excess = round.excess();
        let min_overloaded_at = round.min_overloaded_at.clamp(in_flight.saturating_sub(excess), in_flight);
        let too_many = OverloadVerdict::TooMany { in_flight, excess, min_overloaded_at, is_first_of_round };
        if !is_first_of_round {
            return too_many;
        }
        self.reductions += 1;
        self.consecutive_significant += 1;
        self.since_reduction = AttemptCounts::default();
        self.at_ceiling = AttemptCounts::default();
        let share = round.share();
        let is_below_ceiling = ceiling.is_some_and(|ceiling| round.limit < ceiling);
        let continues = self.consecutive_significant >= MIN_ROUNDS_BEFORE_TRIAL && is_below_ceiling;
        if continues && share <= MAX_TRIAL_SHARE && in_flight >= MIN_IN_FLIGHT_FOR_TRIAL {
            self.consecutive_significant = 0;
            self.is_trial_due = true;
            self.trial_reference = Some(TrialReference { round: number, share });
            return OverloadVerdict::TryHalf { in_flight };
        }
        too_many
    }

    /// Counts the end of an attempt of this round, whatever its outcome. If the round is over and was not
    /// significant, returns its number in flight. Overload at a known `ceiling` or above it does not raise
    /// the baseline.
    pub(super) fn record_end(&mut self, number: u64, ceiling: Option<usize>) -> Option<usize> {
        if let Some(round) = self.round_mut(number) {
            round.ended += 1;
        }
        let mut accepted = None;
        while let Some(round) = self.rounds.front().copied() {
            let is_over = self.rounds.len() > 1 && round.ended >= round.sent;
            if !is_over && self.rounds.len() <= MAX_ROUNDS {
                break;
            }
            self.rounds.pop_front();
            self.first_number += 1;
            accepted = self.close_round(round, ceiling).max(accepted);
        }
        accepted
    }

    /// Discards all rounds, after an outage. The baseline is kept.
    pub(super) fn reset(&mut self) {
        self.first_number += self.rounds.len() as u64;
        self.rounds.clear();
        self.consecutive_significant = 0;
        self.is_trial_due = false;
        self.trial_reference = None;
        self.since_reduction = AttemptCounts::default();
        self.at_ceiling = AttemptCounts::default();
    }

    fn close_round(&mut self, round: Round, ceiling: Option<usize>) -> Option<usize> {
        if round.is_significant {
            return None;
        }
        let is_below = ceiling.is_none_or(|ceiling| round.limit < ceiling);
        if round.share() < self.baseline || is_below && round.share() < MAX_BASELINE_WITHOUT_TRIAL {
            self.baseline =
                (self.baseline + (round.share() - self.baseline) * BASELINE_EWMA_WEIGHT).max(MIN_BASELINE);
        }
        if round.reductions != self.reductions {
            return None;
        }
        self.consecutive_significant = 0;
        (round.sent >= round.limit).then_some(round.in_flight())
    }

    fn round_mut(&mut self, number: u64) -> Option<&mut Round> {
        let index = usize::try_from(number.checked_sub(self.first_number)?).ok()?;
        self.rounds.get_mut(index)
    }
}

impl Round {
    fn is_full(&self) -> bool {
        self.sent >= self.size()
    }

    fn size(&self) -> usize {
        self.trial_size.unwrap_or(self.limit.max(MIN_ROUND_ATTEMPTS))
    }

    fn share(&self) -> f64 {
        self.overloaded as f64 / self.sent.max(1) as f64
    }

    /// Returns how many were in flight, as far as the limit allowed them.
    fn in_flight(&self) -> usize {
        self.limit.min(self.max_in_flight)
    }

    /// Returns how many of those in flight were too many: the number of overload responses, or in
    /// proportion if the round has more attempts than were in flight at once.
    fn excess(&self) -> usize {
        let in_flight = self.in_flight();
        if self.sent <= in_flight {
            return self.overloaded;
        }
        (self.overloaded * in_flight).div_ceil(self.sent)
    }
}

/// Returns the number of attempts of a trial that is compared with this share.
fn trial_size(share: f64) -> usize {
    ((EXPECTED_TRIAL_OVERLOADS / share) as usize).max(MIN_ROUND_ATTEMPTS)
}

/// Returns whether an attempt that was sent as the `in_flight`th reached a known ceiling.
fn is_at(ceiling: Option<usize>, in_flight: usize) -> bool {
    ceiling.is_some_and(|ceiling| in_flight >= ceiling)
}

/// Returns how many of `sent` attempts may meet overload by chance, without `SIGNIFICANT_EXCESS`. `baseline` is
/// the share that does.
fn max_by_chance(baseline: f64, sent: usize) -> f64 {
    let expected = baseline * sent as f64;
    expected + SIGNIFICANT_DEVIATIONS * (expected * (1.0 - baseline)).sqrt()
}
