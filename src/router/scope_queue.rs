//! The requests of one scope that wait for its limits.
//!
//! Interactive requests go before batch requests, and after [`MAX_INTERACTIVE_IN_ROW`] of them one batch request that
//! waits. Within a priority the runs take turns, whatever the number of their requests; the requests without a run take
//! turns like one run. The requests of one run keep the order of their arrival, but those with [`QueuePlace::Front`] go
//! before the others. Pure: the queue decides who is next, and its owner does the waiting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::guard::Backlog;
use crate::types::{Priority, RunId};

/// How many interactive requests are admitted in a row while a batch request waits.
const MAX_INTERACTIVE_IN_ROW: u32 = 9;

/// The requests that share their turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueKey {
    pub(super) priority: Priority,
    /// The run; the default for requests without a run.
    pub(super) run: RunId,
}

/// Identifies a waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    key: QueueKey,
    position: Position,
}

/// Sort key of the requests of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    place: QueuePlace,
    /// The arrival number.
    number: u64,
}

/// Where a request waits among those of its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum QueuePlace {
    /// Before those at the back.
    Front,
    /// In the order of arrival.
    #[default]
    Back,
}

/// The waiting requests of a scope.
#[derive(Debug, Default)]
pub(super) struct ScopeQueue {
    interactive: Line,
    batch: Line,
    last_number: u64,
    interactive_in_row: u32,
}

/// The waiting requests of one priority.
#[derive(Debug, Default)]
struct Line {
    /// The runs with waiting requests. The first is next.
    order: BTreeMap<u64, RunId>,
    runs: HashMap<RunId, RunLine>,
    last_turn: u64,
    backlog: Backlog,
    /// How many requests count against the bound of the queue.
    bounded: usize,
}

/// The waiting requests of one run.
#[derive(Debug)]
struct RunLine {
    /// The number in the order of runs: of its last turn, or of its arrival.
    turn: u64,
    waiting: BTreeMap<Position, WaitingRequest>,
    backlog: Backlog,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct WaitingRequest {
    /// The tokens to reserve.
    pub(super) tokens: u64,
    /// Whether it counts against the bound of the queue.
    pub(super) bound: QueueBound,
    /// Wakes it.
    pub(super) wake: Arc<Notify>,
}

/// Whether a waiting request counts against the bound of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueBound {
    /// It counts.
    Counts,
    /// It does not, because something else bounds the number of such requests.
    Exempt,
}

impl ScopeQueue {
    /// Returns the number of waiting requests.
    pub(super) fn len(&self) -> usize {
        self.interactive.len() + self.batch.len()
    }

    /// Returns the number of waiting requests of a run.
    pub(super) fn len_of(&self, run: RunId) -> usize {
        self.interactive.len_of(run) + self.batch.len_of(run)
    }

    /// Returns the number of waiting requests of a priority that count against the bound of the queue.
    pub(super) fn bounded(&self, priority: Priority) -> usize {
        self.line(priority).bounded
    }

    /// Returns whether a request of this priority that arrives now is the next to be admitted.
    pub(super) fn would_be_next(&self, priority: Priority) -> bool {
        match priority {
            Priority::Interactive => self.interactive.is_empty() && !self.is_turn_of_batch(),
            Priority::Batch => {
                let is_turn = self.interactive.is_empty() || self.has_interactive_row();
                self.batch.is_empty() && is_turn
            }
        }
    }

    /// Returns the requests that are probably admitted before a request that arrives now.
    pub(super) fn ahead_of(&self, key: QueueKey, place: QueuePlace) -> Backlog {
        let ahead = self.line(key.priority).ahead_of(key.run, place);
        match key.priority {
            Priority::Interactive => ahead,
            Priority::Batch => self.interactive.backlog.plus(ahead),
        }
    }

    /// Adds a request.
    pub(super) fn push(&mut self, key: QueueKey, place: QueuePlace, request: WaitingRequest) -> Ticket {
        self.last_number += 1;
        let position = Position { place, number: self.last_number };
        self.line_mut(key.priority).push(key.run, position, request);
        Ticket { key, position }
    }

    /// Returns whether the request is the next to be admitted.
    pub(super) fn is_next(&self, ticket: Ticket) -> bool {
        self.next() == Some(ticket)
    }

    /// Returns whether the request is the first one of its run.
    pub(super) fn is_first_of_run(&self, ticket: Ticket) -> bool {
        self.line(ticket.key.priority).first_of(ticket.key.run) == Some(ticket.position)
    }

    /// Removes a request that was admitted, and wakes the next one. It was the turn of its run.
    pub(super) fn admit(&mut self, ticket: Ticket) {
        self.record_admitted(ticket.key.priority);
        self.line_mut(ticket.key.priority).record_turn(ticket.key.run);
        self.remove(ticket);
        // The records may have made another request the next one.
        self.wake_next();
    }

    /// Removes a request. If it was the next one, or the first one of its run, the one that takes its place is woken.
    /// Does nothing if it was removed before.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        let was_next = self.is_next(ticket);
        self.line_mut(ticket.key.priority).remove(ticket.key.run, ticket.position);
        if was_next {
            self.wake_next();
        }
    }

    /// Records that a request of this priority was admitted.
    pub(super) fn record_admitted(&mut self, priority: Priority) {
        self.interactive_in_row = match priority {
            Priority::Interactive if !self.batch.is_empty() => self.interactive_in_row.saturating_add(1),
            Priority::Interactive | Priority::Batch => 0,
        };
    }

    /// Wakes the request that is the next to be admitted.
    pub(super) fn wake_next(&self) {
        if let Some(next) = self.next_request() {
            next.wake.notify_one();
        }
    }

    /// Returns the tokens of the request that is the next to be admitted.
    pub(super) fn next_tokens(&self) -> Option<u64> {
        self.next_request().map(|next| next.tokens)
    }

    fn next_request(&self) -> Option<&WaitingRequest> {
        let Ticket { key, position } = self.next()?;
        self.line(key.priority).runs.get(&key.run)?.waiting.get(&position)
    }

    fn next(&self) -> Option<Ticket> {
        let priority = if self.is_turn_of_batch() || self.interactive.is_empty() {
            Priority::Batch
        } else {
            Priority::Interactive
        };
        let line = self.line(priority);
        let (_, run) = line.order.first_key_value()?;
        let position = line.first_of(*run)?;
        Some(Ticket { key: QueueKey { priority, run: *run }, position })
    }

    fn is_turn_of_batch(&self) -> bool {
        !self.batch.is_empty() && self.has_interactive_row()
    }

    fn has_interactive_row(&self) -> bool {
        self.interactive_in_row >= MAX_INTERACTIVE_IN_ROW
    }

    fn line(&self, priority: Priority) -> &Line {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    fn line_mut(&mut self, priority: Priority) -> &mut Line {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn len(&self) -> usize {
        self.runs.values().map(|of_run| of_run.waiting.len()).sum()
    }

    fn len_of(&self, run: RunId) -> usize {
        self.runs.get(&run).map_or(0, |of_run| of_run.waiting.len())
    }

    fn first_of(&self, run: RunId) -> Option<Position> {
        self.runs.get(&run)?.waiting.first_key_value().map(|(position, _)| *position)
    }

    /// Returns the requests of the run that precede a new one, and those that the other runs are admitted meanwhile.
    fn ahead_of(&self, run: RunId, place: QueuePlace) -> Backlog {
        let own = match place {
            QueuePlace::Front => Backlog::default(),
            QueuePlace::Back => self.runs.get(&run).map_or_else(Backlog::default, |of_run| of_run.backlog),
        };
        let others = self.runs.iter().filter(|(other, _)| **other != run);
        let turns = own.requests + 1;
        others.fold(own, |ahead, (_, other)| ahead.plus(other.backlog.first(turns)))
    }

    fn push(&mut self, run: RunId, position: Position, request: WaitingRequest) {
        self.backlog.add(request.tokens);
        self.bounded += usize::from(request.bound == QueueBound::Counts);
        let of_run = self.runs.entry(run).or_insert_with(|| {
            // Behind the runs that wait already: each of them has one turn before it.
            self.last_turn += 1;
            self.order.insert(self.last_turn, run);
            RunLine { turn: self.last_turn, waiting: BTreeMap::new(), backlog: Backlog::default() }
        });
        of_run.backlog.add(request.tokens);
        of_run.waiting.insert(position, request);
    }

    /// Moves the run behind all others.
    fn record_turn(&mut self, run: RunId) {
        if let Some(of_run) = self.runs.get_mut(&run) {
            self.last_turn += 1;
            self.order.remove(&of_run.turn);
            self.order.insert(self.last_turn, run);
            of_run.turn = self.last_turn;
        }
    }

    fn remove(&mut self, run: RunId, position: Position) {
        let was_first = self.first_of(run) == Some(position);
        let Some(of_run) = self.runs.get_mut(&run) else { return };
        let Some(removed) = of_run.waiting.remove(&position) else { return };
        self.backlog.remove(removed.tokens);
        self.bounded -= usize::from(removed.bound == QueueBound::Counts);
        of_run.backlog.remove(removed.tokens);
        if let Some((_, first)) = of_run.waiting.first_key_value() {
            if was_first {
                first.wake.notify_one();
            }
            return;
        }
        self.order.remove(&of_run.turn);
        self.runs.remove(&run);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn key(priority: Priority) -> QueueKey {
        QueueKey { priority, run: RunId::default() }
    }

    fn batch_of(run: RunId) -> QueueKey {
        QueueKey { priority: Priority::Batch, run }
    }

    fn waiting(tokens: u64) -> WaitingRequest {
        WaitingRequest { tokens, bound: QueueBound::Counts, wake: Arc::default() }
    }

    fn push(queue: &mut ScopeQueue, key: QueueKey) -> Ticket {
        queue.push(key, QueuePlace::Back, waiting(1))
    }

    /// Admits the next request and returns its ticket.
    fn admit_next(queue: &mut ScopeQueue) -> Option<Ticket> {
        let next = queue.next()?;
        queue.admit(next);
        Some(next)
    }

    #[test]
    fn one_of_ten_admitted_requests_is_batch_while_both_wait_and_each_line_keeps_its_order() {
        let mut queue = ScopeQueue::default();
        for number in 0..60 {
            let priority = if number % 2 == 0 { Priority::Batch } else { Priority::Interactive };
            push(&mut queue, key(priority));
        }
        let order: Vec<_> = std::iter::from_fn(|| admit_next(&mut queue)).collect();
        let batch =
            |part: &[Ticket]| part.iter().filter(|ticket| ticket.key.priority == Priority::Batch).count();
        assert_eq!((order.len(), batch(&order[..10]), batch(&order[10..20])), (60, 1, 1));
        for wanted in [Priority::Interactive, Priority::Batch] {
            let of_line = order.iter().filter(|ticket| ticket.key.priority == wanted);
            assert!(of_line.map(|ticket| ticket.position.number).is_sorted());
        }
    }

    #[test]
    fn only_a_request_that_nothing_precedes_would_be_next() {
        let mut queue = ScopeQueue::default();
        assert!(queue.would_be_next(Priority::Interactive) && queue.would_be_next(Priority::Batch));
        let first = queue.push(key(Priority::Batch), QueuePlace::Back, waiting(7));
        let exempt = WaitingRequest { bound: QueueBound::Exempt, ..waiting(1) };
        queue.push(key(Priority::Interactive), QueuePlace::Back, exempt);
        assert_eq!((queue.bounded(Priority::Batch), queue.bounded(Priority::Interactive)), (1, 0));
        let interactive = queue.next().unwrap();
        assert_eq!(interactive.key.priority, Priority::Interactive);
        queue.remove(interactive);
        assert!(queue.would_be_next(Priority::Interactive) && !queue.would_be_next(Priority::Batch));
        let ahead = |queue: &ScopeQueue, priority| queue.ahead_of(key(priority), QueuePlace::Back);
        assert_eq!(ahead(&queue, Priority::Interactive), Backlog::default());
        assert_eq!(ahead(&queue, Priority::Batch), Backlog { requests: 1, tokens: 7 });
        queue.remove(first);
        queue.remove(first);
        assert_eq!(ahead(&queue, Priority::Batch), Backlog::default());
    }

    #[test]
    fn a_run_with_many_requests_delays_the_first_request_of_another_by_one_turn() {
        let mut queue = ScopeQueue::default();
        let long = RunId::next();
        for _ in 0..1_000 {
            queue.push(batch_of(long), QueuePlace::Back, waiting(5));
        }
        let of_library = key(Priority::Batch);
        assert_eq!(queue.ahead_of(of_library, QueuePlace::Back), Backlog { requests: 1, tokens: 5 });
        push(&mut queue, of_library);
        assert_eq!(queue.ahead_of(of_library, QueuePlace::Back), Backlog { requests: 3, tokens: 11 });
        let own = Backlog { requests: 1_001, tokens: 5_001 };
        assert_eq!(queue.ahead_of(batch_of(long), QueuePlace::Back), own);
        let order: Vec<_> = (0..3).filter_map(|_| admit_next(&mut queue)).map(|next| next.key.run).collect();
        assert_eq!(order, [long, RunId::default(), long]);
        assert_eq!((queue.len(), queue.len_of(long)), (998, 998));
    }

    #[test]
    fn a_request_at_the_front_goes_before_the_others_of_its_run_only() {
        let mut queue = ScopeQueue::default();
        let runs = [RunId::next(), RunId::next()];
        for run in runs {
            push(&mut queue, batch_of(run));
            push(&mut queue, batch_of(run));
        }
        let probe = queue.push(batch_of(runs[1]), QueuePlace::Front, waiting(1));
        assert!(queue.is_first_of_run(probe) && !queue.is_next(probe));
        assert_eq!(admit_next(&mut queue).map(|next| next.key.run), Some(runs[0]));
        assert_eq!(admit_next(&mut queue), Some(probe));
    }

    proptest! {
        #[test]
        fn the_next_request_and_the_first_of_each_run_are_woken_whenever_another_leaves(
            arrivals in proptest::collection::vec((any::<bool>(), 0usize..3, any::<bool>()), 1..40),
            leavers in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..40),
        ) {
            let mut queue = ScopeQueue::default();
            let runs = [RunId::default(), RunId::next(), RunId::next()];
            let mut waiting: Vec<(Ticket, Arc<Notify>)> = Vec::new();
            for (is_interactive, run, is_at_front) in arrivals {
                let wake = Arc::new(Notify::new());
                let priority = if is_interactive { Priority::Interactive } else { Priority::Batch };
                let place = if is_at_front { QueuePlace::Front } else { QueuePlace::Back };
                let request = WaitingRequest { tokens: 1, bound: QueueBound::Counts, wake: wake.clone() };
                waiting.push((queue.push(QueueKey { priority, run: runs[run] }, place, request), wake));
            }
            for (leaver, is_admitted) in leavers {
                if waiting.is_empty() { break }
                let next = queue.next();
                let (ticket, _) = if is_admitted {
                    let index = waiting.iter().position(|(ticket, _)| Some(*ticket) == next);
                    waiting.remove(index.unwrap())
                } else {
                    waiting.remove(leaver.index(waiting.len()))
                };
                let was_next = queue.is_next(ticket);
                let was_first = queue.is_first_of_run(ticket);
                if is_admitted { queue.admit(ticket) } else { queue.remove(ticket) }
                let next = waiting.iter().find(|(ticket, _)| queue.is_next(*ticket));
                prop_assert_eq!(next.is_some(), !waiting.is_empty());
                let first = waiting.iter().find(|(other, _)| {
                    other.key == ticket.key && queue.is_first_of_run(*other)
                });
                let woken = [next.filter(|_| was_next), first.filter(|_| was_first)];
                // One request may be both.
                let mut tickets: Vec<Ticket> = Vec::new();
                for (ticket, wake) in woken.into_iter().flatten() {
                    if !tickets.contains(ticket) {
                        prop_assert!(wake.notified().now_or_never().is_some());
                        tickets.push(*ticket);
                    }
                }
                prop_assert_eq!(queue.len(), waiting.len());
                let bounded = queue.bounded(Priority::Interactive) + queue.bounded(Priority::Batch);
                prop_assert_eq!(bounded, waiting.len());
            }
        }

        #[test]
        fn runs_that_wait_together_are_never_more_than_one_turn_apart_and_no_request_is_lost(
            events in proptest::collection::vec((0usize..4, 0u8..4, any::<prop::sample::Index>()), 1..300),
        ) {
            let mut queue = ScopeQueue::default();
            let runs: [RunId; 4] = std::array::from_fn(|_| RunId::next());
            let mut waiting: Vec<Ticket> = Vec::new();
            // How many more turns one run had than another since both wait.
            let mut turns_more = [[0i32; 4]; 4];
            for (run, event, index) in events {
                match event {
                    0 | 1 => waiting.push(push(&mut queue, batch_of(runs[run]))),
                    2 if !waiting.is_empty() => queue.remove(waiting.remove(index.index(waiting.len()))),
                    _ => {
                        let Some(admitted) = admit_next(&mut queue) else { continue };
                        prop_assert!(waiting.contains(&admitted));
                        waiting.retain(|ticket| *ticket != admitted);
                        let run = runs.iter().position(|run| *run == admitted.key.run).unwrap();
                        turns_more[run].iter_mut().for_each(|more| *more += 1);
                        turns_more.iter_mut().for_each(|of_other| of_other[run] -= 1);
                    }
                }
                for (one, other) in (0..4).flat_map(|one| (0..4).map(move |other| (one, other))) {
                    if one == other || queue.len_of(runs[one]) == 0 || queue.len_of(runs[other]) == 0 {
                        turns_more[one][other] = 0;
                    }
                    prop_assert!(turns_more[one][other].abs() <= 1, "{one} {other}");
                }
                prop_assert_eq!(queue.len(), waiting.len());
            }
            while let Some(admitted) = admit_next(&mut queue) {
                prop_assert!(waiting.contains(&admitted));
                waiting.retain(|ticket| *ticket != admitted);
            }
            prop_assert!(waiting.is_empty() && queue.len() == 0);
        }
    }
}
