//! Bounded queue of calls, fair between scopes and then between the runs of each scope, counted in tokens;
//! interactive calls precede batch calls.
//!
//! A call counts for the tokens that it is expected to use, and from its end on for those that it has used
//! ([`Queue::finish`]). Its turn counts for every model that could have been served instead. So two scopes that wait for
//! the same models are never more than a call apart, whatever the number and the size of their calls; and a model that
//! was blocked keeps its order: its scopes have neither saved up turns nor lost their positions. Within a run, calls are
//! ordered by rank, then by arrival. While both priorities wait, batch has one turn in ten.
//!
//! A model that cannot take a call blocks no other. Adding and removing cost the logarithm of the queue length,
//! for each model. The queue exceeds its bound only if several scopes wait, by at most a tenth. About scopes and runs
//! without queued calls and calls in flight it keeps nothing but what they have got more than others that wait.

use indexmap::IndexMap;

use crate::guard::has_room;
use crate::types::{ModelName, Priority, RunId, ScopeName};

use super::fair_queue::{self, FairQueue, Restart, Shares};
use super::run_queue::{Order, RunQueue, ScopeQueue};

/// Interactive turns for each batch turn while both wait.
const INTERACTIVE_PER_BATCH: usize = 9;

/// A bounded queue over the models of a provider.
#[derive(Debug)]
pub(in crate::provider) struct Queue<T> {
    /// A model stays once added, so that its index is stable; a provider has a fixed number of models.
    targets: IndexMap<ModelName, TargetQueue<T>>,
    interactive_shares: Shares<ScopeName, Shares<RunId, ()>>,
    batch_shares: Shares<ScopeName, Shares<RunId, ()>>,
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
    pub(in crate::provider) scope: ScopeName,
    pub(in crate::provider) run: RunId,
    /// Its rank within its run.
    pub(in crate::provider) rank: u64,
    /// The tokens that it is expected to use.
    pub(in crate::provider) tokens: u64,
}

/// The right to remove one call: the call that was next when the queue was read.
#[derive(Debug)]
pub(in crate::provider) struct Ticket {
    target: usize,
    priority: Priority,
    scope: ScopeName,
    run: RunId,
    order: Order,
    /// Where its scope and its run start, in virtual time.
    scope_start: i64,
    run_start: i64,
    /// The indices of the models that could not take a call, sorted.
    blocked: Vec<usize>,
}

/// What a call in flight counts for. The caller passes it to [`Queue::finish`] when the call has ended.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Turn {
    priority: Priority,
    scope: ScopeName,
    run: RunId,
    tokens: u64,
}

impl Turn {
    /// Returns the tokens that the call was expected to use.
    pub(in crate::provider) fn tokens(&self) -> u64 {
        self.tokens
    }
}

/// The scopes with queued calls of one model and one priority.
type PriorityQueue<T> = FairQueue<ScopeName, ScopeQueue<T>>;

#[derive(Debug)]
struct TargetQueue<T> {
    interactive: PriorityQueue<T>,
    batch: PriorityQueue<T>,
    /// Turns of the other priority while this one waited here and the model could take a call.
    interactive_lost_turns: usize,
    batch_lost_turns: usize,
}

impl<T> Queue<T> {
    pub(in crate::provider) fn new(bound: usize) -> Self {
        Self {
            targets: IndexMap::new(),
            interactive_shares: Shares::default(),
            batch_shares: Shares::default(),
            len: 0,
            bound,
            last_number: 0,
        }
    }

    /// Sets how many calls may be queued. Calls beyond it stay.
    pub(in crate::provider) fn set_bound(&mut self, bound: usize) {
        self.bound = bound;
    }

    /// Returns whether calls of a model are queued.
    pub(in crate::provider) fn has_calls_of(&self, model: &ModelName) -> bool {
        self.targets.get(model).is_some_and(|target| !target.is_empty())
    }

    pub(in crate::provider) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::provider) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether a scope may queue no more calls. The scopes share the bound ([`has_room`]): one alone may queue as
    /// many calls, and the calls of one do not keep out those of another.
    pub(in crate::provider) fn is_full(&self, scope: &ScopeName) -> bool {
        // Below the bound every scope has room.
        if self.len < self.bound {
            return false;
        }
        let scopes = self.targets.values().flat_map(|target| [&target.interactive, &target.batch]);
        let of_scope = scopes.map(|scopes| scopes.len_of(scope)).sum();
        !has_room(self.bound, of_scope, self.len)
    }

    /// Returns every model with queued calls, and their number.
    pub(in crate::provider) fn waiting_by_model(&self) -> impl Iterator<Item = (&ModelName, usize)> {
        let len = |target: &TargetQueue<T>| target.interactive.len() + target.batch.len();
        self.targets.iter().map(move |(name, target)| (name, len(target))).filter(|(_, len)| *len > 0)
    }

    /// Returns all calls, in no particular order.
    pub(in crate::provider) fn calls(&self) -> impl Iterator<Item = &T> {
        let scopes = self.targets.values().flat_map(|target| [&target.interactive, &target.batch]);
        let runs = scopes.flat_map(FairQueue::backlogs);
        runs.flat_map(FairQueue::backlogs).flat_map(RunQueue::calls)
    }

    /// Estimates how many calls would precede a new one, counting models that can take calls.
    ///
    /// From its own run, the calls of its rank and below precede it; from any other run of its scope, as many as that
    /// run has turns until then; from any other scope, as many as its own scope has turns until then; and the share of
    /// the other priority. The estimate is rather too high than too low: runs that wait for several models count for
    /// each, and runs with about as many calls as its own count up to twice. It assumes that calls are equally large.
    /// Later arrivals are not included.
    pub(in crate::provider) fn ahead_of(
        &self,
        key: &QueueKey,
        mut can_take: impl FnMut(&ModelName) -> bool,
    ) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut is_counted = |name: &ModelName, target: &TargetQueue<T>| {
            !target.is_empty() && (*name == key.model || can_take(name))
        };
        let counted = self.targets.iter().filter(|(name, target)| is_counted(name, target));
        let counted: Vec<&TargetQueue<T>> = counted.map(|(_, target)| target).collect();
        let scopes = || counted.iter().map(|target| target.scopes(key.priority));
        let own_scope = || scopes().filter_map(|scopes| scopes.get(&key.scope));
        let own: usize = own_scope().filter_map(|runs| Some(runs.get(&key.run)?.len_before(key.rank))).sum();
        let of_scope = own + own_scope().map(|runs| runs.len_of_others(&key.run, own + 1)).sum::<usize>();
        let of_others = scopes().map(|scopes| scopes.len_of_others(&key.scope, of_scope + 1));
        let ahead = of_scope + of_others.sum::<usize>();
        let rest = |priority| counted.iter().map(|target| target.scopes(priority).len()).sum::<usize>();
        ahead
            + match key.priority {
                Priority::Interactive => rest(Priority::Batch).min(ahead / INTERACTIVE_PER_BATCH),
                Priority::Batch => rest(Priority::Interactive).min((ahead + 1) * INTERACTIVE_PER_BATCH),
            }
    }

    /// Returns whether calls wait for other models.
    pub(in crate::provider) fn other_models_wait(&self, model: &ModelName) -> bool {
        self.targets.iter().any(|(name, target)| name != model && !target.is_empty())
    }

    /// Returns whether calls of other runs wait for the same model.
    pub(in crate::provider) fn other_runs_wait(&self, key: &QueueKey) -> bool {
        let Some(target) = self.targets.get(&key.model) else { return false };
        [Priority::Interactive, Priority::Batch].into_iter().any(|priority| {
            let scopes = target.scopes(priority);
            let of_run = scopes.get(&key.scope).map_or(0, |runs| runs.len_of(&key.run));
            scopes.len() > of_run
        })
    }

    /// Returns whether calls of other scopes wait for the same model.
    pub(in crate::provider) fn other_scopes_wait(&self, key: &QueueKey) -> bool {
        let Some(target) = self.targets.get(&key.model) else { return false };
        [Priority::Interactive, Priority::Batch].into_iter().any(|priority| {
            let scopes = target.scopes(priority);
            scopes.len() > scopes.len_of(&key.scope)
        })
    }

    /// Adds a call to its run. The caller checks [`Self::is_full`] before.
    pub(in crate::provider) fn push(&mut self, key: QueueKey, call: T) {
        let QueueKey { model, priority, scope, run, rank, tokens } = key;
        let arrival = self.next_number();
        // A flow that waits for another model is no new one.
        let others = self.targets.iter().filter(|(name, _)| **name != model);
        let waiting = others.filter_map(|(_, target)| {
            let scopes = target.scopes(priority);
            let of_run = scopes.get(&scope).and_then(|runs| runs.start(&run));
            Some((scopes.start(&scope)?, of_run))
        });
        let waiting = waiting.reduce(|one, other| (one.0.max(other.0), one.1.max(other.1)));
        let (mut scope_start, runs) = self.shares_mut(priority).join(&scope);
        let (mut run_start, ()) = runs.join(&run);
        if let Some((of_scope, of_run)) = waiting {
            scope_start = of_scope;
            run_start = of_run.unwrap_or(run_start);
        }
        let target = self.targets.entry(model).or_insert_with(TargetQueue::new);
        target.scopes_mut(priority).push(scope, scope_start, arrival, |runs| {
            runs.push(run, run_start, arrival, |calls| calls.push(Order { rank, arrival }, tokens, call));
        });
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
        let scopes = || self.available(&blocked).map(|(number, target)| (number, target.scopes(priority)));
        let first_scopes = scopes().filter_map(|(_, scopes)| {
            let (position, scope) = scopes.first()?;
            Some((position, scope, scopes.start(scope)?))
        });
        let (_, scope, scope_start) = first_scopes.min_by_key(|(position, ..)| *position)?;
        let runs = || scopes().filter_map(|(number, scopes)| Some((number, scopes.get(scope)?)));
        let first_runs = runs().filter_map(|(_, runs)| {
            let (position, run) = runs.first()?;
            Some((position, run, runs.start(run)?))
        });
        let (_, run, run_start) = first_runs.min_by_key(|(position, ..)| *position)?;
        let calls = runs().filter_map(|(number, runs)| {
            let (order, call) = runs.get(run)?.next()?;
            Some((order, number, call))
        });
        let (order, target, call) = calls.min_by_key(|(order, ..)| *order)?;
        let scope = scope.clone();
        Some((Ticket { target, priority, scope, run: *run, order, scope_start, run_start, blocked }, call))
    }

    /// Removes a call that is sent and uses the turn of its scope and its run; `None` if the call is no longer queued.
    pub(in crate::provider) fn take(&mut self, ticket: Ticket) -> Option<(T, Turn)> {
        let (tokens, call) = self.pop(&ticket)?;
        let Ticket { priority, scope, run, scope_start, run_start, blocked, .. } = ticket;
        let number = self.next_number();
        let scope_finish = fair_queue::finish(scope_start, tokens);
        let (advance, runs) = self.shares_mut(priority).sent(&scope, scope_finish);
        let run_advance = runs.map_or(0, |runs| runs.sent(&run, fair_queue::finish(run_start, tokens)).0);
        for (index, target) in self.targets.values_mut().enumerate() {
            let scopes = target.scopes_mut(priority);
            if blocked.binary_search(&index).is_ok() {
                scopes.add_lag(advance);
                if let Some(runs) = scopes.backlog_mut(&scope) {
                    runs.add_lag(run_advance);
                }
            } else {
                scopes.update(&scope, |runs| runs.charge(&run, tokens, number));
                scopes.charge(&scope, tokens, number);
                target.count_turn(priority);
            }
        }
        if self.is_empty() {
            // Nothing waits, so what some have got more was taken from no others.
            self.interactive_shares.restart();
            self.batch_shares.restart();
        }
        Some((call, Turn { priority, scope, run, tokens }))
    }

    /// Removes a call that is not sent; its run keeps the turn. `None` as in [`Self::take`].
    pub(in crate::provider) fn discard(&mut self, ticket: &Ticket) -> Option<T> {
        let (_, call) = self.pop(ticket)?;
        self.leave(ticket.priority, &ticket.scope, ticket.run, 0);
        Some(call)
    }

    /// Records that a call that was taken has ended. `used` are the tokens that it has used, as far as that is known.
    pub(in crate::provider) fn finish(&mut self, turn: &Turn, used: u64) {
        let Turn { priority, scope, run, tokens } = turn;
        let difference = fair_queue::difference(used, *tokens);
        if difference != 0 {
            for target in self.targets.values_mut() {
                let scopes = target.scopes_mut(*priority);
                scopes.update(scope, |runs| runs.correct(run, difference));
                scopes.correct(scope, difference);
            }
        }
        self.leave(*priority, scope, *run, difference);
    }

    /// Removes all calls for which `keep` is false: the interactive calls, then the batch calls, each in order
    /// of arrival.
    pub(in crate::provider) fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed_calls = Vec::new();
        for priority in [Priority::Interactive, Priority::Batch] {
            let mut removed = Vec::new();
            for target in self.targets.values_mut() {
                take_unless(target.scopes_mut(priority), &keep, &mut removed);
            }
            removed.sort_unstable_by_key(|removed| removed.arrival);
            for Removed { scope, run, call, .. } in removed {
                self.leave(priority, &scope, run, 0);
                removed_calls.push(call);
            }
        }
        self.len -= removed_calls.len();
        removed_calls
    }

    /// Removes the call of a ticket, and returns it with its tokens.
    fn pop(&mut self, ticket: &Ticket) -> Option<(u64, T)> {
        let scopes = self.targets.get_index_mut(ticket.target)?.1.scopes_mut(ticket.priority);
        let popped =
            scopes.update(&ticket.scope, |runs| runs.update(&ticket.run, |calls| calls.pop(ticket.order)));
        let popped = popped.flatten().flatten()?;
        self.len -= 1;
        Some(popped)
    }

    /// Records that a call is neither queued nor in flight any more.
    fn leave(&mut self, priority: Priority, scope: &ScopeName, run: RunId, difference: i64) {
        let shares = self.shares_mut(priority);
        if let Some(runs) = shares.leave(scope, difference) {
            runs.leave(&run, difference);
            runs.remove_if_done(&run);
        }
        shares.remove_if_done(scope);
    }

    fn shares_mut(&mut self, priority: Priority) -> &mut Shares<ScopeName, Shares<RunId, ()>> {
        match priority {
            Priority::Interactive => &mut self.interactive_shares,
            Priority::Batch => &mut self.batch_shares,
        }
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
            interactive: FairQueue::default(),
            batch: FairQueue::default(),
            interactive_lost_turns: 0,
            batch_lost_turns: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.batch.is_empty()
    }

    fn scopes(&self, priority: Priority) -> &PriorityQueue<T> {
        match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        }
    }

    fn scopes_mut(&mut self, priority: Priority) -> &mut PriorityQueue<T> {
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

/// A call that was removed from the queue.
struct Removed<T> {
    arrival: u64,
    scope: ScopeName,
    run: RunId,
    call: T,
}

/// Removes the calls for which `keep` is false.
fn take_unless<T>(scopes: &mut PriorityQueue<T>, keep: &impl Fn(&T) -> bool, removed: &mut Vec<Removed<T>>) {
    // Usually nothing is removed, and the check moves nothing.
    let is_affected = |scope: &&ScopeName| {
        scopes.get(scope).is_some_and(|runs| !runs.backlogs().all(|calls| calls.all(keep)))
    };
    let affected: Vec<ScopeName> = scopes.keys().filter(is_affected).cloned().collect();
    for scope in affected {
        scopes.update(&scope, |runs| {
            let all: Vec<RunId> = runs.keys().copied().collect();
            for run in all {
                let calls = runs.update(&run, |calls| calls.take_unless(keep)).unwrap_or_default();
                let of_run = calls.into_iter().map(|(arrival, call)| Removed {
                    arrival,
                    scope: scope.clone(),
                    run,
                    call,
                });
                removed.extend(of_run);
            }
        });
    }
}

#[cfg(test)]
mod tests;
