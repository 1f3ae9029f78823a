//! Bounded queue of calls, fair between runs; interactive calls precede batch calls.
//!
//! Runs take turns: after its turn, a run moves to the end for every model that could have been served instead.
//! So two runs that wait for the same models are never more than one call apart, and a model that was blocked
//! keeps its order: it has neither accumulated turns nor lost its position. Within a run, calls are ordered by
//! rank, then by arrival. While both priorities wait, batch has one turn in ten.
//!
//! A model that cannot take a call blocks no other. Adding and removing cost the logarithm of the queue length,
//! for each model. The queue never exceeds its bound and keeps nothing about runs without queued calls.

use indexmap::IndexMap;

use crate::types::{ModelName, Priority, RunId};

use super::run_queue::{Order, RunQueue};

/// Interactive turns for each batch turn while both wait.
const INTERACTIVE_PER_BATCH: usize = 9;

/// A bounded queue over the models of a provider.
#[derive(Debug)]
pub(in crate::provider) struct Queue<T> {
    /// A model stays once added, so that its index is stable; a provider has a fixed number of models.
    targets: IndexMap<ModelName, TargetQueue<T>>,
    len: usize,
    bound: usize,
    /// The last number of an arrival or a turn.
    last_number: u64,
}

/// The position of a call in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::provider) struct QueueKey {
    pub(in crate::provider) model: ModelName,
    pub(in crate::provider) priority: Priority,
    pub(in crate::provider) run: RunId,
    /// Its rank within its run.
    pub(in crate::provider) rank: u64,
}

/// The right to remove one call: the call that was next when the queue was read.
#[derive(Debug)]
pub(in crate::provider) struct Ticket {
    target: usize,
    priority: Priority,
    run: RunId,
    order: Order,
    /// The indices of the models that could not take a call, sorted.
    blocked: Vec<usize>,
}

#[derive(Debug)]
struct TargetQueue<T> {
    interactive: RunQueue<T>,
    batch: RunQueue<T>,
    /// Turns of the other priority while this one waited here and the model could take a call.
    interactive_lost_turns: usize,
    batch_lost_turns: usize,
}

impl<T> Queue<T> {
    pub(in crate::provider) fn new(bound: usize) -> Self {
        Self { targets: IndexMap::new(), len: 0, bound, last_number: 0 }
    }

    pub(in crate::provider) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::provider) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(in crate::provider) fn is_full(&self) -> bool {
        self.len >= self.bound
    }

    /// Returns every model with queued calls, and their number.
    pub(in crate::provider) fn waiting_by_model(&self) -> impl Iterator<Item = (&ModelName, usize)> {
        let len = |target: &TargetQueue<T>| target.interactive.len() + target.batch.len();
        self.targets.iter().map(move |(name, target)| (name, len(target))).filter(|(_, len)| *len > 0)
    }

    /// Estimates how many calls would precede a new one, counting models that can take calls.
    ///
    /// From its own run, the calls of its rank and below precede it; from any other run, as many as that run
    /// has turns until then, plus the share of the other priority. The estimate is rather too high than too
    /// low: runs that wait for several models count for each, and runs with about as many calls as its own
    /// count up to twice. Later arrivals are not included.
    pub(in crate::provider) fn ahead_of(
        &self,
        key: &QueueKey,
        mut can_take: impl FnMut(&ModelName) -> bool,
    ) -> usize {
        let counted = self.targets.iter().filter(|(name, _)| **name == key.model || can_take(name));
        let counted: Vec<&TargetQueue<T>> = counted.map(|(_, target)| target).collect();
        let run_queue =
            |target: &&'_ TargetQueue<T>| target.run_queue(key.priority).len_before(key.run, key.rank);
        let own: usize = counted.iter().map(run_queue).sum();
        let others =
            |target: &&TargetQueue<T>| target.run_queue(key.priority).len_of_others(key.run, own + 1);
        let ahead = own + counted.iter().map(others).sum::<usize>();
        let rest = |priority| counted.iter().map(|target| target.run_queue(priority).len()).sum::<usize>();
        ahead
            + match key.priority {
                Priority::Interactive => rest(Priority::Batch).min(ahead / INTERACTIVE_PER_BATCH),
                Priority::Batch => rest(Priority::Interactive).min((ahead + 1) * INTERACTIVE_PER_BATCH),
            }
    }

    /// Returns whether calls of other runs wait for the same model.
    pub(in crate::provider) fn other_runs_wait(&self, key: &QueueKey) -> bool {
        let Some(target) = self.targets.get(&key.model) else { return false };
        [Priority::Interactive, Priority::Batch]
            .into_iter()
            .any(|priority| target.run_queue(priority).len_of_others(key.run, 1) > 0)
    }

    /// Adds a call to its run. The caller checks [`Self::is_full`] before.
    pub(in crate::provider) fn push(&mut self, key: QueueKey, call: T) {
        let arrival = self.next_number();
        let target = self.targets.entry(key.model).or_insert_with(TargetQueue::new);
        target.run_queue_mut(key.priority).push(key.run, Order { rank: key.rank, arrival }, call);
        self.len += 1;
    }

    /// Returns the next call of the models that can take one; `None` if no call waits for those. Calls
    /// `can_take` once for each model with queued calls.
    pub(in crate::provider) fn next(
        &self,
        mut can_take: impl FnMut(&ModelName) -> bool,
    ) -> Option<(Ticket, &T)> {
        let targets = self.targets.iter().enumerate();
        let blocked = targets.filter(|(_, (name, target))| !target.is_empty() && !can_take(name));
        let blocked: Vec<usize> = blocked.map(|(number, _)| number).collect();
        let priority = self.next_priority(&blocked)?;
        let run_queues =
            || self.available(&blocked).map(|(number, target)| (number, target.run_queue(priority)));
        let (_, run) = run_queues().filter_map(|(_, run_queue)| run_queue.first()).min()?;
        let next = run_queues().filter_map(|(target, run_queue)| {
            run_queue.next_of(run).map(|(order, call)| (order, target, call))
        });
        let (order, target, call) = next.min_by_key(|(order, ..)| *order)?;
        Some((Ticket { target, priority, run, order, blocked }, call))
    }

    /// Removes a call that is sent and uses the turn of its run; `None` if the call is no longer queued.
    pub(in crate::provider) fn take(&mut self, ticket: Ticket) -> Option<T> {
        let Ticket { priority, run, .. } = ticket;
        let call = self.pop(&ticket)?;
        let position = self.next_number();
        for (number, target) in self.targets.values_mut().enumerate() {
            if ticket.blocked.binary_search(&number).is_err() {
                target.run_queue_mut(priority).move_to(run, position);
                target.count_turn(priority);
            }
        }
        Some(call)
    }

    /// Removes a call that is not sent; its run keeps the turn. `None` as in [`Self::take`].
    pub(in crate::provider) fn discard(&mut self, ticket: &Ticket) -> Option<T> {
        self.pop(ticket)
    }

    /// Removes all calls for which `keep` is false: the interactive calls, then the batch calls, each in order
    /// of arrival.
    pub(in crate::provider) fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed_calls = Vec::new();
        for priority in [Priority::Interactive, Priority::Batch] {
            let run_queues = self.targets.values_mut().map(|target| target.run_queue_mut(priority));
            let mut removed: Vec<_> = run_queues.flat_map(|run_queue| run_queue.take_unless(&keep)).collect();
            removed.sort_unstable_by_key(|(arrival, _)| *arrival);
            removed_calls.extend(removed.into_iter().map(|(_, call)| call));
        }
        self.len -= removed_calls.len();
        removed_calls
    }

    fn pop(&mut self, ticket: &Ticket) -> Option<T> {
        let run_queue = self.targets.get_index_mut(ticket.target)?.1.run_queue_mut(ticket.priority);
        run_queue.next_of(ticket.run).filter(|(order, _)| *order == ticket.order)?;
        let call = run_queue.pop(ticket.run)?;
        self.len -= 1;
        Some(call)
    }

    /// Returns the priority of the next turn. It depends on the turns that each priority lost while its model
    /// could take a call: by the number of turns alone, a model that becomes available in step with the other
    /// priority's turns would never get its own.
    fn next_priority(&self, blocked: &[usize]) -> Option<Priority> {
        let available = || self.available(blocked).map(|(_, target)| target);
        let interactive = available()
            .filter(|target| !target.interactive.is_empty())
            .map(|target| target.interactive_lost_turns)
            .max();
        let batch =
            available().filter(|target| !target.batch.is_empty()).map(|target| target.batch_lost_turns).max();
        match (interactive, batch) {
            (Some(interactive), Some(batch)) if batch >= INTERACTIVE_PER_BATCH * (interactive + 1) => {
                Some(Priority::Batch)
            }
            (Some(_), _) => Some(Priority::Interactive),
            (None, batch) => batch.map(|_| Priority::Batch),
        }
    }

    fn available(&self, blocked: &[usize]) -> impl Iterator<Item = (usize, &TargetQueue<T>)> {
        self.targets.values().enumerate().filter(|(number, _)| blocked.binary_search(number).is_err())
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl<T> TargetQueue<T> {
    fn new() -> Self {
        Self {
            interactive: RunQueue::new(),
            batch: RunQueue::new(),
            interactive_lost_turns: 0,
            batch_lost_turns: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.batch.is_empty()
    }

    fn run_queue(&self, priority: Priority) -> &RunQueue<T> {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    fn run_queue_mut(&mut self, priority: Priority) -> &mut RunQueue<T> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }

    /// Counts a turn while the model could take a call. A priority without queued calls loses nothing.
    fn count_turn(&mut self, priority: Priority) {
        match priority {
            Priority::Interactive => {
                self.interactive_lost_turns = 0;
                self.batch_lost_turns = if self.batch.is_empty() { 0 } else { self.batch_lost_turns + 1 };
            }
            Priority::Batch => {
                self.batch_lost_turns = 0;
                self.interactive_lost_turns =
                    if self.interactive.is_empty() { 0 } else { self.interactive_lost_turns + 1 };
            }
        }
    }
}

#[cfg(test)]
mod tests;
