//! Queued work of several flows in the order of fair queueing: flows take turns so that each gets the same amount,
//! counted in tokens.
//!
//! The discipline is self-clocked fair queueing (S. J. Golestani, "A self-clocked fair queueing scheme for broadband
//! applications", INFOCOM 1994). A flow has a *start*, which grows by the cost of each of its calls that is sent. Its
//! position is its *finish*: its start plus the cost of its next call. The lowest finish is first, and among equals
//! the flow that has waited longest. The virtual time of [`Shares`] is the last finish that was sent: a flow that
//! joins starts there, so it has neither saved up turns nor waits for the others' past.
//!
//! A scope is a flow of runs, and a run is a flow of calls; so the type of a flow's backlog is a parameter.

use std::collections::BTreeMap;

/// What a flow has queued.
pub(in crate::provider) trait Backlog: Default {
    /// Returns the cost of the call that is sent next; 0 if none is queued.
    fn next_cost(&self) -> u64;
    /// Returns the number of queued calls.
    fn len(&self) -> usize;
}

/// The position of a flow: the lowest is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::provider) struct Position {
    finish: i64,
    /// The number of the arrival or turn that gave it its position.
    number: u64,
}

/// The flows with queued calls of one model and one priority.
#[derive(Debug)]
pub(in crate::provider) struct FairQueue<K, B> {
    order: BTreeMap<Position, K>,
    flows: BTreeMap<K, Flow<B>>,
    /// How far virtual time has advanced while this queue could not be served. Starts and positions are relative to
    /// it, so that a queue that was blocked keeps its order and has not saved up turns.
    lag: i64,
    histogram: BacklogHistogram,
}

#[derive(Debug)]
struct Flow<B> {
    start: i64,
    position: Position,
    backlog: B,
}

impl<K, B> Default for FairQueue<K, B> {
    fn default() -> Self {
        Self {
            order: BTreeMap::new(),
            flows: BTreeMap::new(),
            lag: 0,
            histogram: BacklogHistogram::default(),
        }
    }
}

impl<K: Clone + Ord, B: Backlog> FairQueue<K, B> {
    pub(in crate::provider) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Returns the number of queued calls.
    pub(in crate::provider) fn len(&self) -> usize {
        self.histogram.calls
    }

    /// Returns the number of queued calls of a flow.
    pub(in crate::provider) fn len_of(&self, flow: &K) -> usize {
        self.get(flow).map_or(0, Backlog::len)
    }

    /// Returns how many calls of other flows are queued, counting at most `each` per flow. The result is up to twice
    /// too large if flows have about `each` calls.
    pub(in crate::provider) fn len_of_others(&self, flow: &K, each: usize) -> usize {
        self.histogram.capped_total(each, self.len_of(flow))
    }

    /// Returns the first flow with its position in virtual time.
    pub(in crate::provider) fn first(&self) -> Option<(Position, &K)> {
        self.order.first_key_value().map(|(position, flow)| (self.in_virtual_time(*position), flow))
    }

    /// Returns the start of a flow in virtual time.
    pub(in crate::provider) fn start(&self, flow: &K) -> Option<i64> {
        Some(self.flows.get(flow)?.start.saturating_add(self.lag))
    }

    /// Returns what a flow has queued.
    pub(in crate::provider) fn get(&self, flow: &K) -> Option<&B> {
        self.flows.get(flow).map(|flow| &flow.backlog)
    }

    pub(in crate::provider) fn keys(&self) -> impl Iterator<Item = &K> {
        self.flows.keys()
    }

    pub(in crate::provider) fn backlogs(&self) -> impl Iterator<Item = &B> {
        self.flows.values().map(|flow| &flow.backlog)
    }

    /// Adds to what a flow has queued. A flow without queued calls joins at `start`, in virtual time.
    pub(in crate::provider) fn push(&mut self, key: K, start: i64, number: u64, push: impl FnOnce(&mut B)) {
        let lag = self.lag;
        let flow = self.flows.entry(key.clone()).or_insert_with(|| Flow {
            start: start.saturating_sub(lag),
            position: Position { finish: i64::MIN, number },
            backlog: B::default(),
        });
        let before = flow.backlog.len();
        push(&mut flow.backlog);
        self.histogram.move_flow(before, flow.backlog.len());
        let finish = flow.start.saturating_add(tokens(flow.backlog.next_cost()));
        if before == 0 || flow.position.finish != finish {
            let before = flow.position;
            flow.position.finish = finish;
            replace(&mut self.order, before, flow.position, key);
        }
    }

    /// Changes what a flow has queued, and removes the flow if nothing is left.
    pub(in crate::provider) fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut B) -> R) -> Option<R> {
        let flow = self.flows.get_mut(key)?;
        let before = flow.backlog.len();
        let result = change(&mut flow.backlog);
        let len = flow.backlog.len();
        self.histogram.move_flow(before, len);
        if len == 0 {
            self.order.remove(&flow.position);
            self.flows.remove(key);
        } else {
            let position = flow.position;
            self.move_to(key, position.number);
        }
        Some(result)
    }

    /// Adds the cost of a call that is sent to the start of its flow, if it has queued calls. Among flows with the same
    /// finish it is the last.
    pub(in crate::provider) fn charge(&mut self, key: &K, cost: u64, number: u64) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.start = flow.start.saturating_add(tokens(cost));
            self.move_to(key, number);
        }
    }

    /// Corrects the start of a flow if it has queued calls: a call has used other tokens than expected.
    pub(in crate::provider) fn correct(&mut self, key: &K, difference: i64) {
        if let Some(flow) = self.flows.get_mut(key) {
            flow.start = flow.start.saturating_add(difference);
            let number = flow.position.number;
            self.move_to(key, number);
        }
    }

    /// Records that virtual time has advanced while this queue could not be served.
    pub(in crate::provider) fn add_lag(&mut self, advance: i64) {
        self.lag = self.lag.saturating_add(advance);
    }

    /// Returns what a flow has queued, for changes that affect neither its length nor its next call.
    pub(in crate::provider) fn backlog_mut(&mut self, key: &K) -> Option<&mut B> {
        self.flows.get_mut(key).map(|flow| &mut flow.backlog)
    }

    fn in_virtual_time(&self, position: Position) -> Position {
        Position { finish: position.finish.saturating_add(self.lag), ..position }
    }

    fn move_to(&mut self, key: &K, number: u64) {
        if let Some(flow) = self.flows.get_mut(key) {
            let finish = flow.start.saturating_add(tokens(flow.backlog.next_cost()));
            let position = Position { finish, number };
            if position != flow.position {
                replace(&mut self.order, flow.position, position, key.clone());
                flow.position = position;
            }
        }
    }
}

/// Moves a flow from one position to another. It is inserted first, because the removal of the last entry frees memory
/// that the insertion would have to allocate again.
fn replace<K>(order: &mut BTreeMap<Position, K>, from: Position, to: Position, key: K) {
    order.insert(to, key);
    if from != to {
        order.remove(&from);
    }
}

/// Converts a cost. Larger costs than 4 billion tokens count as that many, so that no sum overflows.
fn tokens(cost: u64) -> i64 {
    i64::from(u32::try_from(cost).unwrap_or(u32::MAX))
}

/// Returns where a call of this cost finishes.
pub(in crate::provider) fn finish(start: i64, cost: u64) -> i64 {
    start.saturating_add(tokens(cost))
}

/// Returns what a call has used more than expected.
pub(in crate::provider) fn difference(used: u64, expected: u64) -> i64 {
    tokens(used) - tokens(expected)
}

/// Virtual time, and what each flow has got in it: of all models of a provider, for one priority.
///
/// A flow is kept while it has queued calls or calls in flight, and after that while it is ahead of the others: else a
/// flow that sends one large call after the other would join as a new one each time.
#[derive(Debug)]
pub(in crate::provider) struct Shares<K, V> {
    time: i64,
    flows: BTreeMap<K, Share<V>>,
    /// The number of flows at which those are searched that can be forgotten.
    prune_at: usize,
    /// Counts how often all flows have started again as equals.
    epoch: u64,
}

#[derive(Debug)]
struct Share<V> {
    /// Where its last call that was sent has finished, in virtual time.
    finish: i64,
    /// Queued calls and calls in flight.
    calls: usize,
    /// The epoch in which `finish` was set.
    epoch: u64,
    /// The shares of what this flow consists of.
    inner: V,
}

/// Shares that can start again as equals.
pub(in crate::provider) trait Restart: Default {
    /// Starts again with equal flows.
    fn restart(&mut self);
}

impl Restart for () {
    fn restart(&mut self) {}
}

/// The smallest number of flows at which those are searched that can be forgotten.
const MIN_PRUNE_AT: usize = 64;

/// The largest number of flows without calls that are kept.
const MAX_FINISHED_FLOWS: usize = 10_000;

impl<K, V> Default for Shares<K, V> {
    fn default() -> Self {
        Self { time: 0, flows: BTreeMap::new(), prune_at: MIN_PRUNE_AT, epoch: 0 }
    }
}

impl<K: Clone + Ord, V: Restart> Restart for Shares<K, V> {
    /// Nothing is queued, so what a flow has got was withheld from no other. Each flow follows when it is used next.
    fn restart(&mut self) {
        self.epoch += 1;
    }
}

impl<K: Clone + Ord, V: Restart> Shares<K, V> {
    /// Counts a call that is queued. Returns where its flow starts if it has no others queued, and the shares of what
    /// the flow consists of.
    pub(in crate::provider) fn join(&mut self, flow: &K) -> (i64, &mut V) {
        if self.flows.len() >= self.prune_at {
            self.prune();
        }
        let time = self.time;
        let epoch = self.epoch;
        let new = || Share { finish: time, calls: 0, epoch, inner: V::default() };
        let share = self.flows.entry(flow.clone()).or_insert_with(new);
        share.follow(epoch, time);
        share.calls += 1;
        (share.finish.max(time), &mut share.inner)
    }

    /// Records that a call of a flow is sent that finishes there. Returns by how much virtual time has advanced, and
    /// the shares of what the flow consists of.
    pub(in crate::provider) fn sent(&mut self, flow: &K, finish: i64) -> (i64, Option<&mut V>) {
        let advance = finish.saturating_sub(self.time).max(0);
        self.time = self.time.saturating_add(advance);
        let epoch = self.epoch;
        let time = self.time;
        let share = self.flows.get_mut(flow).map(|share| {
            share.follow(epoch, time);
            share.finish = share.finish.max(finish);
            &mut share.inner
        });
        (advance, share)
    }

    /// Records that a call has ended or is no longer queued. `difference` is what it has used more than expected.
    /// Returns the shares of what the flow consists of.
    pub(in crate::provider) fn leave(&mut self, flow: &K, difference: i64) -> Option<&mut V> {
        let epoch = self.epoch;
        let time = self.time;
        let share = self.flows.get_mut(flow)?;
        share.follow(epoch, time);
        share.calls = share.calls.saturating_sub(1);
        share.finish = share.finish.saturating_add(difference);
        Some(&mut share.inner)
    }

    /// Removes a flow that has neither calls nor got more than the others.
    pub(in crate::provider) fn remove_if_done(&mut self, flow: &K) {
        let time = self.time;
        if self.flows.get(flow).is_some_and(|share| share.calls == 0 && share.finish <= time) {
            self.flows.remove(flow);
        }
    }

    /// Forgets flows without calls: those that are not ahead of the others, and all of them if there are too many.
    fn prune(&mut self) {
        let is_ahead = |share: &Share<V>| share.epoch == self.epoch && share.finish > self.time;
        let finished = self.flows.values().filter(|share| share.calls == 0 && is_ahead(share)).count();
        let are_too_many = finished > MAX_FINISHED_FLOWS;
        let is_kept = |share: &Share<V>| share.calls > 0 || !are_too_many && is_ahead(share);
        let forgotten: Vec<K> =
            self.flows.iter().filter(|(_, share)| !is_kept(share)).map(|(flow, _)| flow.clone()).collect();
        for flow in forgotten {
            self.flows.remove(&flow);
        }
        self.prune_at = (2 * self.flows.len()).max(MIN_PRUNE_AT);
    }

    #[cfg(test)]
    pub(in crate::provider) fn len(&self) -> usize {
        self.flows.len()
    }
}

impl<V: Restart> Share<V> {
    /// Starts again if all flows have, since this one was used last.
    fn follow(&mut self, epoch: u64, time: i64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.finish = self.finish.min(time);
            self.inner.restart();
        }
    }
}

/// Histogram of flows by their number of queued calls, in powers of two. It estimates how many calls precede
/// another without visiting every flow.
#[derive(Debug, Default)]
struct BacklogHistogram {
    /// The flows with 1 call, with 2 or 3, with 4 to 7, and so on.
    buckets: Vec<Bucket>,
    calls: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    flows: usize,
    calls: usize,
}

impl BacklogHistogram {
    /// Records that a flow that had `before` calls has `after` now.
    fn move_flow(&mut self, before: usize, after: usize) {
        if let Some(bucket) = bucket_index(before).and_then(|index| self.buckets.get_mut(index)) {
            bucket.flows -= 1;
            bucket.calls -= before;
            self.calls -= before;
        }
        if let Some(index) = bucket_index(after) {
            if self.buckets.len() <= index {
                self.buckets.resize(index + 1, Bucket::default());
            }
            self.buckets[index].flows += 1;
            self.buckets[index].calls += after;
            self.calls += after;
        }
    }

    /// Returns the number of calls if each flow counts for at most `each`, and one flow with `excluded` calls for
    /// none.
    fn capped_total(&self, each: usize, excluded: usize) -> usize {
        let excluded_bucket = bucket_index(excluded);
        let counted = self.buckets.iter().enumerate().map(|(index, bucket)| match excluded_bucket {
            Some(excluded_bucket) if excluded_bucket == index => {
                (bucket.calls - excluded).min((bucket.flows - 1).saturating_mul(each))
            }
            _ => bucket.calls.min(bucket.flows.saturating_mul(each)),
        });
        counted.sum()
    }
}

/// Returns the index of the bucket of flows with so many calls; `None` for 0 calls.
fn bucket_index(calls: usize) -> Option<usize> {
    calls.checked_ilog2().map(|index| index as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_backlog_histogram_is_right_within_a_factor_of_two(
            lengths in prop::collection::vec(1_usize..200, 1..20),
            each in 1_usize..300,
        ) {
            let mut histogram = BacklogHistogram::default();
            for length in &lengths {
                (0..*length).for_each(|before| histogram.move_flow(before, before + 1));
            }
            let exact: usize = lengths[1..].iter().map(|length| (*length).min(each)).sum();
            let estimated = histogram.capped_total(each, lengths[0]);
            prop_assert!(exact <= estimated && estimated <= 2 * exact, "{estimated} for {exact}");
            prop_assert_eq!(histogram.capped_total(200, 0), lengths.iter().sum::<usize>());
            lengths.iter().for_each(|length| histogram.move_flow(*length, 0));
            prop_assert_eq!((histogram.calls, histogram.capped_total(each, 0)), (0, 0));
        }
    }

    #[test]
    fn flows_that_are_not_ahead_are_forgotten_and_the_others_are_kept_until_time_has_passed_them() {
        let mut shares: Shares<usize, ()> = Shares::default();
        for flow in 0..1_000 {
            let (start, ()) = shares.join(&flow);
            shares.sent(&flow, start + 10);
            shares.leave(&flow, 0);
            shares.remove_if_done(&flow);
        }
        assert_eq!(shares.len(), 0);
        let (start, ()) = shares.join(&1);
        shares.sent(&1, start + 10);
        shares.leave(&1, 500);
        shares.remove_if_done(&1);
        assert_eq!(shares.join(&1).0, start + 510, "a call that has used more than expected counts");
        shares.leave(&1, 0);
        let (start, ()) = shares.join(&2);
        shares.sent(&2, start + 600);
        shares.remove_if_done(&1);
        assert_eq!(shares.len(), 1);
    }
}
