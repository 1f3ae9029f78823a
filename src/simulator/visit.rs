//! What the simulator remembers, and one call's place in it.
//!
//! A visit ends exactly once, however its call does; counters are never paired by hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::account::{Account, Cost, Refusal, Standing};
use super::draw::mix;
use super::repeats::{Answered, Repeats};
use super::writing::Writing;
use super::{Counts, FaultKind, Limits, Settings, Vendor};

/// Accounts before those that nobody uses are forgotten.
const MANY_ACCOUNTS: usize = 4_096;

/// What all connections share.
pub(super) struct Shared {
    pub(super) settings: ArcSwap<Settings>,
    state: Mutex<State>,
    serial: AtomicU64,
}

struct State {
    epoch: Instant,
    counts: Counts,
    repeats: Repeats,
    answered: Answered,
    accounts: HashMap<AccountId, Account>,
}

/// Whose limits a call counts towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AccountId {
    pub(super) vendor: Vendor,
    pub(super) key: u64,
    pub(super) model: u64,
}

impl AccountId {
    /// Drops what `limits` do not tell apart.
    fn under(self, limits: &Limits) -> Self {
        let (key, model) = (u64::from(!limits.shared), u64::from(limits.per_model));
        Self { vendor: self.vendor, key: self.key * key, model: self.model * model }
    }
}

impl State {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            counts: Counts::default(),
            repeats: Repeats::default(),
            answered: Answered::default(),
            accounts: HashMap::new(),
        }
    }

    fn account(&mut self, id: AccountId, limits: &Limits, now: Instant) -> &mut Account {
        if self.accounts.len() >= MANY_ACCOUNTS && !self.accounts.contains_key(&id) {
            self.accounts.retain(|_, account| !account.is_idle(now));
        }
        self.accounts.entry(id).or_insert_with(|| Account::new(limits, now))
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    /// Charges what an answer has grown by.
    fn write(&mut self, account: Option<AccountId>, output: u64, now: Instant) {
        if output == 0 {
            return;
        }
        self.counts.wrote(self.second(now), output);
        // It may have been forgotten by a reset; what it owed is then forgotten, too.
        if let Some(account) = account.and_then(|id| self.accounts.get_mut(&id)) {
            account.write(now, output);
        }
    }
}

impl Shared {
    /// Makes what a new simulator remembers: nothing.
    pub(super) fn new(settings: Settings) -> Self {
        let serial = AtomicU64::new(mix(settings.seed) >> 16);
        Self { settings: ArcSwap::from_pointee(settings), state: Mutex::new(State::new()), serial }
    }

    // A panic under this lock would leave sound numbers behind: every change is a plain addition.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a number that no other call has.
    pub(super) fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes other settings on, from the next call on. What accounts have used stays used.
    pub(super) fn set(&self, settings: Settings) {
        let now = Instant::now();
        let mut state = self.state();
        for account in state.accounts.values_mut() {
            account.change(&settings.limits, now);
        }
        self.settings.store(Arc::new(settings));
    }

    /// Begins anew: counts, clock, repetitions and accounts are as at the start. Calls in flight and
    /// connections stay so.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        let Counts { in_flight, connections, .. } = state.counts;
        *state = State::new();
        let counts = &mut state.counts;
        (counts.in_flight, counts.peak_in_flight) = (in_flight, in_flight);
        (counts.connections, counts.peak_connections) = (connections, connections);
    }

    /// Notes that a connection was opened, until what it returns is dropped.
    pub(super) fn connect(self: &Arc<Self>) -> Connection {
        self.state().counts.connected();
        Connection(Arc::clone(self))
    }

    /// Returns the counts as they stand.
    pub(super) fn counts(&self) -> Counts {
        let tracked = self.settings.load().track_prompts;
        let state = self.state();
        let mut counts = state.counts.clone();
        counts.elapsed_ms = u64::try_from(state.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        if tracked {
            counts.distinct_prompts = Some(state.answered.distinct());
            counts.repeated_prompts = Some(state.answered.repeated());
        }
        counts
    }

    /// Notes that a call has come, and returns its visit, how often the same call came before, and how long
    /// the simulator had run by then.
    pub(super) fn arrive(
        self: &Arc<Self>,
        vendor: Vendor,
        request: u64,
        now: Instant,
    ) -> (Visit, u32, Duration) {
        let mut state = self.state();
        let others = state.counts.in_flight;
        state.counts.arrived(vendor);
        let occurrence = state.repeats.count(request);
        state.counts.most_repeated = state.counts.most_repeated.max(occurrence.saturating_add(1));
        let elapsed = now.saturating_duration_since(state.epoch);
        drop(state);
        (
            Visit {
                shared: Arc::clone(self),
                others,
                account: None,
                writing: Writing::nothing(now),
                spoilt: false,
                prompt: None,
                finished: false,
            },
            occurrence,
            elapsed,
        )
    }
}

/// An open connection.
pub(super) struct Connection(Arc<Shared>);

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.counts.connections = state.counts.connections.saturating_sub(1);
    }
}

/// One call, from its arrival to the last byte of its answer.
pub(super) struct Visit {
    shared: Arc<Shared>,
    /// How many other calls were being answered when it came.
    others: u64,
    /// What its answer is charged to; `None` without limits.
    account: Option<AccountId>,
    writing: Writing,
    /// Whether the reply is an error or a fault.
    spoilt: bool,
    prompt: Option<u64>,
    finished: bool,
}

impl Visit {
    /// Returns how many other calls were being answered when it came.
    pub(super) fn others(&self) -> u64 {
        self.others
    }

    /// Admits the call by its account's limits, and returns how they stand then. The answer's own tokens
    /// are charged by [`Self::writes`], unless `cost` holds them.
    pub(super) fn admit(
        &mut self,
        id: AccountId,
        cost: Cost,
        now: Instant,
    ) -> (Standing, Result<(), Refusal>) {
        let mut state = self.shared.state();
        // Read under the lock: an account made from settings that have just changed would keep the old limits.
        let settings = self.shared.settings.load();
        let limits = &settings.limits;
        let limited = limits.requests_per_minute.is_some()
            || limits.tokens_per_minute.is_some()
            || limits.input_tokens_per_minute.is_some()
            || limits.output_tokens_per_minute.is_some();
        let (standing, verdict) = if limited {
            let id = id.under(limits);
            let account = state.account(id, limits, now);
            let verdict = account.admit(now, cost);
            self.account = Some(id);
            (account.standing(), verdict)
        } else {
            (Standing::default(), Ok(()))
        };
        let second = state.second(now);
        match verdict {
            Ok(()) => state.counts.admitted(second, cost.input, cost.output),
            Err(_) => state.counts.refused(second),
        }
        (standing, verdict)
    }

    /// Notes the reply that the call gets: its status, if it gets one, and the fault in it, if there is one.
    pub(super) fn reply(&mut self, status: Option<u16>, fault: Option<FaultKind>) {
        let mut state = self.shared.state();
        if let Some(status) = status {
            state.counts.replied(status);
        }
        if let Some(kind) = fault {
            state.counts.faulted(kind);
        }
        self.spoilt = fault.is_some_and(|kind| kind != FaultKind::SlowFirstToken) || status != Some(200);
    }

    /// Remembers what its answer is going to cost, and when.
    pub(super) fn writes(&mut self, writing: Writing) {
        self.writing = writing;
    }

    /// Charges what was written until now.
    pub(super) fn charge(&mut self, now: Instant) {
        let output = self.writing.until(now);
        self.shared.state().write(self.account, output, now);
    }

    /// Remembers which prompt it answers.
    pub(super) fn answers(&mut self, prompt: u64) {
        self.prompt = Some(prompt);
    }

    /// Ends the visit: its last byte is on the way.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let now = Instant::now();
        // Who leaves early is charged what was written till then.
        let output = if self.finished { self.writing.rest() } else { self.writing.until(now) };
        let mut state = self.shared.state();
        state.write(self.account, output, now);
        state.counts.in_flight = state.counts.in_flight.saturating_sub(1);
        match (self.finished, self.spoilt) {
            (true, false) => {
                state.counts.answered += 1;
                if let Some(prompt) = self.prompt {
                    state.answered.note(prompt);
                }
            }
            (false, false) => state.counts.abandoned += 1,
            (_, true) => {}
        }
    }
}
