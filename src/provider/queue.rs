//! The calls that wait for their turn: bounded, fair between runs, people before batches.
//!
//! Runs take turns: whoever was served goes to the back of the line, in every lane that could have been
//! served instead. So two runs that wait for the same are never more than one call apart, and a lane that
//! was held up comes back with its line as it was: it has neither gathered turns nor lost its place.
//! Within a run calls go in order of their ranks, then of arrival. While people and batches both wait, a batch has one turn in
//! ten.
//!
//! A lane that cannot take a call holds up no other. Pushing and taking cost a logarithm of what waits, for
//! each lane. Never grows past its bound, and remembers nobody who waits no longer.

use indexmap::IndexMap;

use crate::types::{ModelName, Priority, RunId};

use super::line::{Line, Order};

/// Turns of people for each turn of a batch, while both wait.
const PEOPLE_PER_BATCH: usize = 9;

/// A bounded queue over the lanes of a provider.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// A lane once seen stays, so that its number does; a provider has as many as models.
    lanes: IndexMap<ModelName, Lane<T>>,
    len: usize,
    bound: usize,
    /// Numbers arrivals and turns.
    last: u64,
}

/// Where a call waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lane: ModelName,
    pub(super) priority: Priority,
    pub(super) run: RunId,
    /// Its rank within its run.
    pub(super) rank: u64,
}

/// The right to take out one call: the one whose turn it was when the queue was asked.
#[derive(Debug)]
pub(super) struct Ticket {
    lane: usize,
    priority: Priority,
    run: RunId,
    order: Order,
    /// The lanes that could not take a call; sorted.
    held_up: Vec<usize>,
}

#[derive(Debug)]
struct Lane<T> {
    interactive: Line<T>,
    batch: Line<T>,
    /// Turns that went to the other priority while this one waited here and the lane could take a call.
    interactive_lost: usize,
    batch_lost: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        Self { lanes: IndexMap::new(), len: 0, bound, last: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.bound
    }

    /// Returns every lane that calls wait for, and how many.
    pub(super) fn lanes_waiting(&self) -> impl Iterator<Item = (&ModelName, usize)> {
        let len = |lane: &Lane<T>| lane.interactive.len() + lane.batch.len();
        self.lanes.iter().map(move |(name, lane)| (name, len(lane))).filter(|(_, len)| *len > 0)
    }

    /// Estimates how many would go before one that came now, as far as their lanes may.
    ///
    /// Of its own run's those of its rank and below go first, and of any other run as many as it has turns until then, plus the share of
    /// the other priority. Rather too many than too few: runs that wait in several lanes count in each, and
    /// those with about as many calls as the own run up to twice. Who comes later is not foreseen.
    pub(super) fn ahead_of(&self, place: &Place, mut may: impl FnMut(&ModelName) -> bool) -> usize {
        let counted = self.lanes.iter().filter(|(name, _)| **name == place.lane || may(name));
        let counted: Vec<&Lane<T>> = counted.map(|(_, lane)| lane).collect();
        let line = |lane: &&'_ Lane<T>| lane.line(place.priority).len_before(place.run, place.rank);
        let own: usize = counted.iter().map(line).sum();
        let others = |lane: &&Lane<T>| lane.line(place.priority).len_of_others(place.run, own + 1);
        let equals = own + counted.iter().map(others).sum::<usize>();
        let rest = |priority| counted.iter().map(|lane| lane.line(priority).len()).sum::<usize>();
        equals
            + match place.priority {
                Priority::Interactive => rest(Priority::Batch).min(equals / PEOPLE_PER_BATCH),
                Priority::Batch => rest(Priority::Interactive).min((equals + 1) * PEOPLE_PER_BATCH),
            }
    }

    /// Returns whether calls of other runs wait in the same lane.
    pub(super) fn others_wait(&self, place: &Place) -> bool {
        let Some(lane) = self.lanes.get(&place.lane) else { return false };
        [Priority::Interactive, Priority::Batch]
            .into_iter()
            .any(|priority| lane.line(priority).len_of_others(place.run, 1) > 0)
    }

    /// Puts a call among its run's. Its owner asks [`Self::is_full`] before.
    pub(super) fn push(&mut self, place: Place, call: T) {
        let arrival = self.number();
        let lane = self.lanes.entry(place.lane).or_insert_with(Lane::new);
        lane.line_mut(place.priority).push(place.run, Order { rank: place.rank, arrival }, call);
        self.len += 1;
    }

    /// Returns the call whose turn it is in the lanes that may take one; `None` when nobody waits for
    /// those. Asks `may` once for each lane that calls wait for.
    pub(super) fn next(&self, mut may: impl FnMut(&ModelName) -> bool) -> Option<(Ticket, &T)> {
        let lanes = self.lanes.iter().enumerate();
        let held_up = lanes.filter(|(_, (name, lane))| !lane.is_empty() && !may(name));
        let held_up: Vec<usize> = held_up.map(|(number, _)| number).collect();
        let priority = self.priority(&held_up)?;
        let lines = || self.open(&held_up).map(|(number, lane)| (number, lane.line(priority)));
        let (_, run) = lines().filter_map(|(_, line)| line.first()).min()?;
        let next =
            lines().filter_map(|(lane, line)| line.next_of(run).map(|(order, call)| (order, lane, call)));
        let (order, lane, call) = next.min_by_key(|(order, ..)| *order)?;
        Some((Ticket { lane, priority, run, order, held_up }, call))
    }

    /// Takes out a call that leaves, and with it the turn of its run; `None` when it is not there any more.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<T> {
        let Ticket { priority, run, .. } = ticket;
        let call = self.pop(&ticket)?;
        let place = self.number();
        for (number, lane) in self.lanes.values_mut().enumerate() {
            if ticket.held_up.binary_search(&number).is_err() {
                lane.line_mut(priority).move_to(run, place);
                lane.count_turn(priority);
            }
        }
        Some(call)
    }

    /// Takes out a call that will not be made; its run keeps the turn. `None` as in [`Self::take`].
    pub(super) fn discard(&mut self, ticket: &Ticket) -> Option<T> {
        self.pop(ticket)
    }

    /// Takes out everything that is not worth keeping: people's calls, then the batches', each in order of
    /// arrival.
    pub(super) fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for priority in [Priority::Interactive, Priority::Batch] {
            let lines = self.lanes.values_mut().map(|lane| lane.line_mut(priority));
            let mut gone: Vec<_> = lines.flat_map(|line| line.take_unless(&keep)).collect();
            gone.sort_unstable_by_key(|(arrival, _)| *arrival);
            taken.extend(gone.into_iter().map(|(_, call)| call));
        }
        self.len -= taken.len();
        taken
    }

    fn pop(&mut self, ticket: &Ticket) -> Option<T> {
        let line = self.lanes.get_index_mut(ticket.lane)?.1.line_mut(ticket.priority);
        line.next_of(ticket.run).filter(|(order, _)| *order == ticket.order)?;
        let call = line.pop(ticket.run)?;
        self.len -= 1;
        Some(call)
    }

    /// Returns whose turn it is. What counts is what each has lost while its lane could take a call: by
    /// turns alone, a lane that opens in step with the other's turns would never see its own.
    fn priority(&self, held_up: &[usize]) -> Option<Priority> {
        let open = || self.open(held_up).map(|(_, lane)| lane);
        let people =
            open().filter(|lane| !lane.interactive.is_empty()).map(|lane| lane.interactive_lost).max();
        let batch = open().filter(|lane| !lane.batch.is_empty()).map(|lane| lane.batch_lost).max();
        match (people, batch) {
            (Some(people), Some(batch)) if batch >= PEOPLE_PER_BATCH * (people + 1) => Some(Priority::Batch),
            (Some(_), _) => Some(Priority::Interactive),
            (None, batch) => batch.map(|_| Priority::Batch),
        }
    }

    fn open(&self, held_up: &[usize]) -> impl Iterator<Item = (usize, &Lane<T>)> {
        self.lanes.values().enumerate().filter(|(number, _)| held_up.binary_search(number).is_err())
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl<T> Lane<T> {
    fn new() -> Self {
        Self { interactive: Line::new(), batch: Line::new(), interactive_lost: 0, batch_lost: 0 }
    }

    fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.batch.is_empty()
    }

    fn line(&self, priority: Priority) -> &Line<T> {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    fn line_mut(&mut self, priority: Priority) -> &mut Line<T> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        }
    }

    /// Notes whose turn it was while the lane could take a call. Who does not wait loses nothing.
    fn count_turn(&mut self, priority: Priority) {
        match priority {
            Priority::Interactive => {
                self.interactive_lost = 0;
                self.batch_lost = if self.batch.is_empty() { 0 } else { self.batch_lost + 1 };
            }
            Priority::Batch => {
                self.batch_lost = 0;
                self.interactive_lost =
                    if self.interactive.is_empty() { 0 } else { self.interactive_lost + 1 };
            }
        }
    }
}

#[cfg(test)]
mod tests;
