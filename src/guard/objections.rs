//! Which share of the attempts in flight a provider objects to, round by round, and whether that is because of how
//! many are in flight.
//!
//! A *round* is as many attempts as may be in flight, in the order in which they left: one round trip of a full
//! target. An objection counts in the round that its attempt left in, however late it comes; so the share is that of
//! the attempts made at one concurrency, not that of the answers which happened to come back first. A round is
//! *telling* once it has significantly more objections than are usual.
//!
//! Some objections have nothing to do with the concurrency: a share of all attempts is refused at random. What is
//! usual is not guessed. Where objections go on although places have been taken away, a *trial* is made with half as
//! many in flight: if its share is about the same, it becomes the usual one.
//!
//! Knows no clock and decides nothing about the limit: `concurrency.rs` does.

use std::collections::VecDeque;

/// Attempts of a round at least: of fewer no share can be told.
const MIN_ROUND: usize = 32;

/// A round counts as idle where fewer were in flight than this part of its limit.
const IDLE: usize = 2;

/// Rounds that are remembered. An objection that comes later than so many rounds says nothing of now.
const MAX_ROUNDS: usize = 32;

/// The share of objections that is taken for usual at first, and at least.
const USUAL_AT_FIRST: f64 = 0.05;
const USUAL_AT_LEAST: f64 = 0.005;

/// The most that is learned to be usual without a trial.
const USUAL_UNTRIED: f64 = 0.15;

/// How far the usual share falls towards that of a round with less.
const FORGETS: f64 = 1.0 / 16.0;

/// Objections are telling so many standard deviations, and so many more, beyond those that are usual.
const DEVIATIONS: f64 = 3.0;
const STRAY: f64 = 2.0;

/// Telling rounds in a row before a trial, the latest below the ceiling that an earlier one has set.
const IN_A_ROW: u32 = 2;

/// Objections that a trial would have if nothing changed.
const OF_A_TRIAL: f64 = 16.0;

/// Attempts in flight from which on half as many can be tried.
const OF_A_TRIAL_AT_LEAST: usize = 8;

/// A trial with less than this part of the share has shown that fewer attempts in flight are objected to less. Where
/// four times as many are in flight as a provider takes, half of them are objected to two thirds as much.
const ALIKE: f64 = 0.75;

/// A share that is small enough for half as many in flight to have no objections at all.
const FEW: f64 = 0.4;

/// The largest share that a trial can tell anything about, for that reason.
const NEARLY_ALL: f64 = 0.75;

/// The rounds of one target.
#[derive(Debug)]
pub(super) struct Objections {
    /// Oldest first; the last one takes the attempts that leave.
    rounds: VecDeque<Round>,
    /// Number of the oldest.
    first: u64,
    /// The share that does not depend on the concurrency, as far as it is known.
    usual: f64,
    /// Telling rounds there have been, and how many of them in a row.
    cuts: u64,
    in_a_row: u32,
    /// Attempts that left since the last of them, and how many of those were objected to.
    since: Counted,
    /// What the latest trial is compared with.
    before: Option<Before>,
    /// Whether that trial is still to begin.
    is_due: bool,
    /// The latest trial that made no difference.
    learns_from: Option<u64>,
}

/// Attempts, and how many of them were objected to.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    left: usize,
    objected: usize,
}

/// The round for which a trial is made.
#[derive(Debug, Clone, Copy)]
struct Before {
    round: u64,
    /// As far as its objections have come.
    share: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// The largest limit while it lasted.
    limit: usize,
    /// Most attempts in flight when one of it left.
    most: usize,
    /// The telling rounds there had been when it began.
    cuts: u64,
    left: usize,
    objected: usize,
    /// Fewest attempts in flight, the one that leaves included, when one left that was objected to.
    fewest: usize,
    ended: usize,
    is_telling: bool,
    /// How many attempts it has, if it is a trial.
    trial: Option<usize>,
}

/// What an objection means for the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    /// Too many were in flight.
    TooMany {
        /// How many there were, as far as they were allowed.
        at: usize,
        /// How many of them were too many.
        by: usize,
        /// The fewest of them that an attempt was objected to with.
        fewest: usize,
        /// Whether its round has become telling just now.
        is_new: bool,
    },
    /// Taking places away does not help so far: half of these are to be tried.
    TryHalf { at: usize },
    /// Half of them did not help either: how many are in flight does not matter.
    Unrelated,
}

impl Objections {
    pub(super) fn new() -> Self {
        Self {
            rounds: VecDeque::new(),
            first: 0,
            usual: USUAL_AT_FIRST,
            cuts: 0,
            in_a_row: 0,
            since: Counted::default(),
            before: None,
            is_due: false,
            learns_from: None,
        }
    }

    /// Counts an attempt that leaves under `limit` as the `out`th in flight, and returns the number of its round.
    pub(super) fn left(&mut self, limit: usize, out: usize) -> u64 {
        let cuts = self.cuts;
        if self.rounds.back().is_none_or(|round| round.is_full() || round.cuts != cuts) {
            let is_trial = std::mem::take(&mut self.is_due);
            let trial = self.before.filter(|_| is_trial).map(|before| trial_of(before.share));
            self.rounds.push_back(Round { limit, cuts, trial, ..Round::default() });
        }
        self.since.left += 1;
        if let Some(round) = self.rounds.back_mut() {
            round.left += 1;
            round.limit = round.limit.max(limit);
            round.most = round.most.max(out);
        }
        self.first + self.rounds.len() as u64 - 1
    }

    /// Returns whether a trial is to be made or under way: the limit must not grow meanwhile.
    pub(super) fn is_trying(&self) -> bool {
        let is_open = |round: &Round| round.trial.is_some() && !round.is_full() && round.cuts == self.cuts;
        self.is_due || self.rounds.back().is_some_and(is_open)
    }

    /// Counts an objection to an attempt of that round, which left as the `out`th in flight. Returns what it means, if
    /// its round is telling. `ceiling` is the one that is known.
    pub(super) fn objected(&mut self, number: u64, out: usize, ceiling: Option<usize>) -> Option<Telling> {
        let cuts = self.cuts;
        let round = self.round(number)?;
        round.fewest = if round.objected == 0 { out } else { round.fewest.min(out) };
        round.objected += 1;
        let round = *round;
        self.since.objected += usize::from(round.cuts == cuts);
        if let Some(before) = self.before.as_mut().filter(|before| before.round == number) {
            before.share = before.share.max(round.share());
        }
        if round.trial.is_some()
            && let Some(before) = self.before
        {
            if !self.is_alike(&round, before) {
                return None;
            }
            self.before = None;
            if before.share <= NEARLY_ALL {
                self.usual = before.share;
                (self.in_a_row, self.learns_from) = (0, Some(number));
                return Some(Telling::Unrelated);
            }
        }
        if self.learns_from == Some(number) {
            self.usual = self.usual.max(round.share());
        }
        // Whatever is objected to while few are in flight, it is not how many they are.
        let is_idle = round.most * IDLE < round.limit;
        (!is_idle && self.is_telling(&round, ceiling.is_some())).then(|| self.tell(number, round, ceiling))
    }

    /// Returns whether a round has more objections than chance brings. Where a ceiling is known, too few in every round
    /// may be too many in all of them.
    fn is_telling(&self, round: &Round, is_suspect: bool) -> bool {
        let is_much = |objected: usize, left| objected as f64 > chance(self.usual, left);
        is_much(round.objected, round.left)
            || is_suspect && round.cuts == self.cuts && is_much(self.since.objected, self.since.left)
    }

    /// Returns whether a trial has so many objections that half as many in flight have made no difference. Of few before
    /// it is enough that there are clearly more than usual: if it had been too many, there would be none.
    fn is_alike(&self, trial: &Round, before: Before) -> bool {
        let all = trial.size().max(trial.left);
        let usual = self.usual * all as f64;
        let is_clear = trial.objected as f64 > usual + 2.0 * usual.sqrt() + 1.0;
        let share = trial.objected as f64 / all as f64;
        share >= before.share * ALIKE || is_clear && before.share < FEW
    }

    fn tell(&mut self, number: u64, round: Round, ceiling: Option<usize>) -> Telling {
        let is_new = !round.is_telling && round.cuts == self.cuts;
        if let Some(round) = self.round(number) {
            round.is_telling = true;
        }
        let (at, by) = (round.at(), round.too_many());
        let fewest = round.fewest.clamp(at.saturating_sub(by), at);
        if !is_new {
            return Telling::TooMany { at, by, fewest, is_new };
        }
        self.cuts += 1;
        self.in_a_row += 1;
        self.since = Counted::default();
        let share = round.share();
        let goes_on = self.in_a_row >= IN_A_ROW && ceiling.is_some_and(|ceiling| round.limit < ceiling);
        if goes_on && share <= NEARLY_ALL && at >= OF_A_TRIAL_AT_LEAST {
            (self.in_a_row, self.is_due, self.before) = (0, true, Some(Before { round: number, share }));
            return Telling::TryHalf { at };
        }
        Telling::TooMany { at, by, fewest, is_new }
    }

    /// Counts the end of an attempt of that round, whatever it was. Returns how many were in flight in a round that is
    /// over and was not telling. Objections at a known `ceiling` or above it are not learned to be usual.
    pub(super) fn ended(&mut self, number: u64, ceiling: Option<usize>) -> Option<usize> {
        if let Some(round) = self.round(number) {
            round.ended += 1;
        }
        let mut taken = None;
        while let Some(round) = self.rounds.front().copied() {
            let is_over = self.rounds.len() > 1 && round.ended >= round.left;
            if !is_over && self.rounds.len() <= MAX_ROUNDS {
                break;
            }
            self.rounds.pop_front();
            self.first += 1;
            taken = self.is_over(round, ceiling).max(taken);
        }
        taken
    }

    /// Forgets all rounds, after an outage. What is usual stays known.
    pub(super) fn forget(&mut self) {
        self.first += self.rounds.len() as u64;
        self.rounds.clear();
        (self.in_a_row, self.is_due, self.before) = (0, false, None);
        self.since = Counted::default();
    }

    fn is_over(&mut self, round: Round, ceiling: Option<usize>) -> Option<usize> {
        if round.is_telling {
            return None;
        }
        let is_below = ceiling.is_none_or(|ceiling| round.limit < ceiling);
        if round.share() < self.usual || is_below && round.share() < USUAL_UNTRIED {
            self.usual = (self.usual + (round.share() - self.usual) * FORGETS).max(USUAL_AT_LEAST);
        }
        if round.cuts != self.cuts {
            return None;
        }
        self.in_a_row = 0;
        (round.left >= round.limit).then_some(round.at())
    }

    fn round(&mut self, number: u64) -> Option<&mut Round> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.rounds.get_mut(index)
    }
}

impl Round {
    fn is_full(&self) -> bool {
        self.left >= self.size()
    }

    fn size(&self) -> usize {
        self.trial.unwrap_or(self.limit.max(MIN_ROUND))
    }

    fn share(&self) -> f64 {
        self.objected as f64 / self.left.max(1) as f64
    }

    /// Returns how many were in flight, as far as they were allowed.
    fn at(&self) -> usize {
        self.limit.min(self.most)
    }

    /// Returns how many of those in flight were too many: as many as objections, and their share of them where the
    /// round has more attempts than were in flight at once.
    fn too_many(&self) -> usize {
        let at = self.at();
        if self.left <= at { self.objected } else { (self.objected * at).div_ceil(self.left) }
    }
}

/// Returns how many attempts a trial has that is compared with this share.
fn trial_of(share: f64) -> usize {
    ((OF_A_TRIAL / share) as usize).max(MIN_ROUND)
}

/// Returns how many of `left` attempts may draw an objection by chance, where `usual` is the share that does.
fn chance(usual: f64, left: usize) -> f64 {
    let expected = usual * left as f64;
    expected + DEVIATIONS * (expected * (1.0 - usual)).sqrt() + STRAY
}
