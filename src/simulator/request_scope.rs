//! State shared by all connections, and the scope of one call.
//!
//! A [`RequestScope`] ends exactly once, when it is dropped, so counters of calls in flight always match.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::account::{Account, Cost, LimitStatuses, Rejection};
use super::duplicates::{AnsweredPrompts, DuplicateCounter};
use super::prompt_cache::{CacheUse, CacheWrite, PromptCache, PromptToCache};
use super::rng::mix;
use super::token_stream::TokenStream;
use super::{AccountLimits, Counts, FaultKind, Settings, Vendor};

/// Number of accounts at which idle accounts are removed.
const MAX_ACCOUNTS_BEFORE_CLEANUP: usize = 4_096;

/// State shared by all connections.
pub(super) struct Shared {
    pub(super) settings: ArcSwap<Settings>,
    state: Mutex<State>,
    serial: AtomicU64,
}

struct State {
    epoch: Instant,
    counts: Counts,
    duplicates: DuplicateCounter,
    answered_prompts: AnsweredPrompts,
    accounts: HashMap<AccountId, Account>,
    prompt_cache: PromptCache,
}

/// Account whose limits a call is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AccountId {
    pub(super) vendor: Vendor,
    pub(super) key: u64,
    pub(super) model: u64,
}

impl AccountId {
    /// Removes the parts of the identity that `limits` do not distinguish.
    fn for_limits(self, limits: &AccountLimits) -> Self {
        Self {
            vendor: self.vendor,
            key: if limits.shared_across_keys { 0 } else { self.key },
            model: if limits.per_model { self.model } else { 0 },
        }
    }
}

impl State {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            counts: Counts::default(),
            duplicates: DuplicateCounter::default(),
            answered_prompts: AnsweredPrompts::default(),
            accounts: HashMap::new(),
            prompt_cache: PromptCache::default(),
        }
    }

    fn account(&mut self, id: AccountId, limits: &AccountLimits, now: Instant) -> &mut Account {
        if self.accounts.len() >= MAX_ACCOUNTS_BEFORE_CLEANUP && !self.accounts.contains_key(&id) {
            self.accounts.retain(|_, account| !account.is_idle(now));
        }
        self.accounts.entry(id).or_insert_with(|| Account::new(limits, now))
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_secs()
    }

    /// Charges newly generated output tokens.
    fn charge_output(&mut self, account: Option<AccountId>, output: u64, now: Instant) {
        if output == 0 {
            return;
        }
        self.counts.record_output(self.second(now), output);
        // A reset may have removed the account. Its debt is then removed as well.
        if let Some(account) = account.and_then(|id| self.accounts.get_mut(&id)) {
            account.charge_output(now, output);
        }
    }
}

impl Shared {
    /// Creates the state of a new simulator.
    pub(super) fn new(settings: Settings) -> Self {
        let serial = AtomicU64::new(mix(settings.seed) >> 16);
        Self { settings: ArcSwap::from_pointee(settings), state: Mutex::new(State::new()), serial }
    }

    // A poisoned lock is safe to use: every change is a plain addition.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a number that is unique to a call.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Replaces the settings from the next call on. The usage of accounts is kept.
    pub(super) fn set(&self, settings: Settings) {
        let now = Instant::now();
        let mut state = self.state();
        for account in state.accounts.values_mut() {
            account.set_limits(&settings.limits, now);
        }
        self.settings.store(Arc::new(settings));
    }

    /// Resets counts, clock, repetitions, accounts and the prompt cache to the initial state. Calls in flight and
    /// connections continue.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        let Counts { in_flight, connections, .. } = state.counts;
        *state = State::new();
        state.counts = Counts {
            in_flight,
            peak_in_flight: in_flight,
            connections,
            peak_connections: connections,
            ..Counts::default()
        };
    }

    /// Counts a connection as open until the returned guard is dropped.
    pub(super) fn open_connection(self: &Arc<Self>) -> ConnectionGuard {
        self.state().counts.record_connection();
        ConnectionGuard(Arc::clone(self))
    }

    /// Returns the current counts.
    pub(super) fn counts(&self) -> Counts {
        let track_prompts = self.settings.load().track_prompts;
        let state = self.state();
        let mut counts = state.counts.clone();
        counts.elapsed_ms = u64::try_from(state.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        if track_prompts {
            counts.distinct_prompts = Some(state.answered_prompts.distinct());
            counts.repeated_prompts = Some(state.answered_prompts.repeated());
        }
        counts
    }

    /// Records the arrival of a call. Returns its scope, the number of earlier calls with the same content, and
    /// the time since the start or the last reset.
    pub(super) fn begin_request(
        self: &Arc<Self>,
        vendor: Vendor,
        request: u64,
        now: Instant,
    ) -> (RequestScope, u32, Duration) {
        let mut state = self.state();
        let concurrent_requests = state.counts.in_flight;
        state.counts.record_arrival(vendor);
        let occurrence = state.duplicates.count(request);
        state.counts.most_repeated = state.counts.most_repeated.max(occurrence.saturating_add(1));
        let elapsed = now.saturating_duration_since(state.epoch);
        drop(state);
        (
            RequestScope {
                shared: Arc::clone(self),
                concurrent_requests,
                account: None,
                token_stream: TokenStream::empty(now),
                has_failed: false,
                prompt: None,
                cache_write: None,
                finished: false,
            },
            occurrence,
            elapsed,
        )
    }
}

/// An open connection.
pub(super) struct ConnectionGuard(Arc<Shared>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.counts.connections = state.counts.connections.saturating_sub(1);
    }
}

/// One call, from its arrival to the last byte of its response.
pub(super) struct RequestScope {
    shared: Arc<Shared>,
    /// Number of other calls in flight on arrival.
    concurrent_requests: u64,
    /// Account to which the output is charged; `None` without limits.
    account: Option<AccountId>,
    token_stream: TokenStream,
    /// Whether the response is an error or contains a fault.
    has_failed: bool,
    prompt: Option<u64>,
    /// What the response writes to the prompt cache when it begins.
    cache_write: Option<CacheWrite>,
    finished: bool,
}

impl RequestScope {
    /// Returns the number of other calls in flight on arrival.
    pub(super) fn concurrent_requests(&self) -> u64 {
        self.concurrent_requests
    }

    /// Checks the call against its account's limits, and returns their status afterwards. Output tokens that
    /// `cost` does not include are charged by [`Self::set_token_stream`].
    pub(super) fn admit(
        &mut self,
        id: AccountId,
        cost: Cost,
        now: Instant,
    ) -> (LimitStatuses, Result<(), Rejection>) {
        let mut state = self.shared.state();
        // Read under the lock: otherwise a new account could get the limits of replaced settings.
        let settings = self.shared.settings.load();
        let limits = &settings.limits;
        let limited = limits.requests_per_minute.is_some()
            || limits.tokens_per_minute.is_some()
            || limits.input_tokens_per_minute.is_some()
            || limits.output_tokens_per_minute.is_some();
        let (limit_statuses, admission) = if limited {
            let id = id.for_limits(limits);
            let account = state.account(id, limits, now);
            let admission = account.admit(now, cost);
            self.account = Some(id);
            (account.limit_statuses(), admission)
        } else {
            (LimitStatuses::default(), Ok(()))
        };
        let second = state.second(now);
        match admission {
            Ok(()) => state.counts.record_admitted(second, cost.input, cost.output),
            Err(_) => state.counts.record_rejected(second),
        }
        (limit_statuses, admission)
    }

    /// Returns what the call reads from the prompt cache and writes to it, if it is admitted.
    pub(super) fn look_up_prompt(&self, prompt: &PromptToCache, now: Instant) -> CacheUse {
        self.shared.state().prompt_cache.look_up(prompt, now)
    }

    /// Refreshes what the admitted call reads from the prompt cache, and writes to it when the response begins.
    pub(super) fn use_prompt_cache(
        &mut self,
        prompt: &PromptToCache,
        cache_use: &CacheUse,
        now: Instant,
        begins_at: Instant,
        serial: u64,
    ) {
        let mut state = self.shared.state();
        state.counts.record_cache_use(cache_use);
        self.cache_write = Some(state.prompt_cache.use_prompt(prompt, now, begins_at, serial));
    }

    /// Records the status of the response and its fault, if any.
    pub(super) fn record_response(&mut self, status: Option<u16>, fault: Option<FaultKind>) {
        let mut state = self.shared.state();
        if let Some(status) = status {
            state.counts.record_status(status);
        }
        if let Some(kind) = fault {
            state.counts.record_fault(kind);
        }
        self.has_failed = fault.is_some_and(|kind| kind != FaultKind::SlowFirstToken) || status != Some(200);
    }

    /// Sets the schedule by which output tokens are charged.
    pub(super) fn set_token_stream(&mut self, token_stream: TokenStream) {
        self.token_stream = token_stream;
    }

    /// Charges the tokens generated until `now`.
    pub(super) fn charge_until(&mut self, now: Instant) {
        let output = self.token_stream.take_until(now);
        self.shared.state().charge_output(self.account, output, now);
    }

    /// Sets the hash of the prompt, to count repeated prompts.
    pub(super) fn set_prompt(&mut self, prompt: u64) {
        self.prompt = Some(prompt);
    }

    /// Marks the call as completed: its last byte is being sent.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for RequestScope {
    fn drop(&mut self) {
        let now = Instant::now();
        // A client that disconnects early is charged for the tokens generated until then.
        let output =
            if self.finished { self.token_stream.take_rest() } else { self.token_stream.take_until(now) };
        let mut state = self.shared.state();
        state.charge_output(self.account, output, now);
        if let Some(write) = self.cache_write {
            state.prompt_cache.cancel(write, now);
        }
        state.counts.in_flight = state.counts.in_flight.saturating_sub(1);
        match (self.finished, self.has_failed) {
            (true, false) => {
                state.counts.answered += 1;
                if let Some(prompt) = self.prompt {
                    state.answered_prompts.record(prompt);
                }
            }
            (false, false) => state.counts.abandoned += 1,
            (_, true) => {}
        }
    }
}
