//! Scopes: the limits and the budget of the requests of one tenant or token.
//!
//! A request of a limited scope is admitted before it is sent. If the limits do not admit it, it waits in the scope's
//! queue. Only the request that is next waits for the limits; it wakes the one behind it. When a permit is dropped, the
//! next request is woken. The first waiting request of each run with a cap also checks that cap once a second. If it
//! fails, it wakes the one behind it, which finds the cap reached as well.
//!
//! ```text
//! request             Scope                    permit of another request
//!   | admit             |                         |
//!   | ----------------> | (refused: waits)        |
//!   |                   | <------ dropped ------- |
//!   | <---- woken ----- |                         |
//!   | admit             |                         |
//!   | ----------------> |                         |
//!   | <---- permit ---- |                         |
//!   | (is sent, ends)   |                         |
//!   | settle, drop ---> | (wakes the next)        |
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::clock;
use crate::guard::{NotYet, ScopeLimiter, ScopeSettings, SharedBudget};
use crate::provider::prompt_tokens;
use crate::types::{
    Attempt, Cause, Charged, Class, Day, Failure, Outcome, Priority, Prompt, RequestError, Response, RunId,
    ScopeName, Usage,
};

use super::live_log::LiveLog;
use super::scope_queue::{QueueBound, QueueKey, QueuePlace, ScopeQueue, Ticket, WaitingRequest};
use super::stop_signal::{StopSignal, wait_for_stop};

/// The failure message of a request that is not sent because the caller stops.
const STOPPED_WHILE_WAITING: &str = "the caller stops, and the request waited for its scope";

/// Interval between two checks of the budget of a run while its requests wait.
const BUDGET_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The limits and the budget of a scope.
#[derive(Debug)]
pub struct Scope {
    name: ScopeName,
    is_limited: AtomicBool,
    /// The requests of each priority that may wait.
    max_waiting: AtomicUsize,
    budget: ArcSwapOption<SharedBudget>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limiter: ScopeLimiter,
    queue: ScopeQueue,
}

/// A request that asks a scope for admission.
#[derive(Debug, Clone, Default)]
pub(super) struct AdmissionRequest {
    /// The priority of the request.
    pub(super) priority: Priority,
    /// Its run; the default for a request without a run.
    pub(super) run: RunId,
    /// The tokens to reserve. At most a minute's worth is reserved.
    pub(super) tokens: u64,
    /// What happens if the limits do not admit it at once.
    pub(super) when_limited: WhenLimited,
    /// Where it waits among the requests of its run.
    pub(super) place: QueuePlace,
    /// The time after which the response is useless; `None` for the requests of runs, whose wait does not count. They
    /// are not refused when the queue is full, because the number of items in progress bounds them.
    pub(super) deadline: Option<Instant>,
    /// Signals that the caller stops.
    pub(super) stop: Option<StopSignal>,
    /// The budget of the run. The wait ends when its cap is reached.
    pub(super) budget: Option<Arc<SharedBudget>>,
}

/// What happens to a request that the limits of its scope do not admit at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum WhenLimited {
    /// It waits.
    #[default]
    Wait,
    /// It fails.
    Fail,
}

/// The waiting requests of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeWait {
    /// The scope whose limits they wait for.
    pub scope: ScopeName,
    /// The limit for which the next request of the scope waits longest, such as "60 requests per minute".
    pub limit: String,
    /// How many requests of the run wait.
    pub requests: usize,
    /// How many requests of the scope wait.
    pub requests_of_scope: usize,
    /// How long it probably takes until the next request of the scope is admitted.
    pub next_in: Duration,
}

/// All scopes with limits or a budget, by name. They may change at any time; a request keeps the scope with which it began.
#[derive(Debug, Default)]
pub struct Scopes(ArcSwap<HashMap<ScopeName, Arc<Scope>>>);

impl Scopes {
    /// Creates the scopes of these limits and budgets.
    pub fn new<'a>(
        settings: impl IntoIterator<Item = (&'a ScopeName, &'a ScopeSettings)>,
        budgets: &BTreeMap<ScopeName, Arc<SharedBudget>>,
    ) -> Self {
        let scope = |name: &ScopeName, settings: &ScopeSettings| {
            (name.clone(), Arc::new(Scope::new(name.clone(), settings, budgets.get(name).cloned())))
        };
        let unlimited = ScopeSettings::new();
        let mut scopes: HashMap<_, _> = budgets.keys().map(|name| scope(name, &unlimited)).collect();
        scopes.extend(settings.into_iter().map(|(name, settings)| scope(name, settings)));
        Self(ArcSwap::from_pointee(scopes))
    }

    /// Adds a scope, or changes one. What an existing scope has used stays used, and its waiting requests keep their order.
    pub fn set(&self, name: &ScopeName, settings: &ScopeSettings, budget: Option<Arc<SharedBudget>>) {
        if let Some(scope) = self.get(name) {
            return scope.set(settings, budget);
        }
        let scope = Arc::new(Scope::new(name.clone(), settings, budget));
        self.0.rcu(|scopes| {
            let mut scopes = HashMap::clone(scopes);
            scopes.insert(name.clone(), scope.clone());
            scopes
        });
    }

    /// Removes the scopes for which `keep` is false. Their waiting requests continue to wait for their limits.
    pub fn retain(&self, keep: impl Fn(&ScopeName) -> bool) {
        self.0.rcu(|scopes| {
            let mut scopes = HashMap::clone(scopes);
            scopes.retain(|name, _| keep(name));
            scopes
        });
    }

    /// Returns the scope with this name; `None` if it has neither limits nor a budget.
    pub fn get(&self, name: &ScopeName) -> Option<Arc<Scope>> {
        // Most requests have no scope.
        if name.is_empty() { None } else { self.0.load().get(name).cloned() }
    }
}

impl Scope {
    /// Creates a scope that has admitted nothing.
    pub fn new(name: ScopeName, settings: &ScopeSettings, budget: Option<Arc<SharedBudget>>) -> Self {
        let limiter = ScopeLimiter::new(settings, Instant::now());
        Self {
            name,
            is_limited: AtomicBool::new(settings.is_limited()),
            max_waiting: AtomicUsize::new(max_waiting(settings)),
            budget: ArcSwapOption::new(budget),
            state: Mutex::new(State { limiter, queue: ScopeQueue::default() }),
        }
    }

    /// Changes its limits and its budget.
    fn set(&self, settings: &ScopeSettings, budget: Option<Arc<SharedBudget>>) {
        self.budget.store(budget);
        self.max_waiting.store(max_waiting(settings), Relaxed);
        self.is_limited.store(settings.is_limited(), Relaxed);
        let mut state = self.lock();
        state.limiter.set_limits(settings, Instant::now());
        state.queue.wake_next();
    }

    /// Returns whether its requests need a permit.
    pub fn is_limited(&self) -> bool {
        self.is_limited.load(Relaxed)
    }

    /// Returns the budget of its day.
    pub fn budget(&self) -> Option<Arc<SharedBudget>> {
        self.budget.load_full()
    }

    /// Returns the failure that reports that the cap of its day is reached; `None` while it is not reached.
    pub(super) fn cap_failure(&self) -> Option<Failure> {
        let budget = self.budget()?;
        // Without a call since midnight no provider has begun the new day.
        budget.roll_over(Day::at(clock::milliseconds()));
        budget.cap_failure()
    }

    /// Estimates the tokens to reserve for a prompt; 0 if tokens are not limited.
    pub(super) fn tokens_of(&self, prompt: &Prompt) -> u64 {
        if !self.lock().limiter.limits_tokens() {
            return 0;
        }
        let input = prompt_tokens(prompt);
        if prompt.embedding.is_some() {
            return input;
        }
        let output = self.lock().limiter.expected_output(prompt.max_tokens.map(u64::from));
        input.saturating_add(output)
    }

    /// Returns the number of requests that wait, and of those that are in flight.
    pub fn load(&self) -> (usize, u32) {
        let state = self.lock();
        (state.queue.len(), state.limiter.in_flight())
    }

    /// Returns the requests of a run that wait; `None` if there are none.
    pub fn wait_of(&self, run: RunId) -> Option<ScopeWait> {
        let (requests_of_scope, _) = self.load();
        let now = Instant::now();
        let state = self.lock();
        let requests = state.queue.len_of(run);
        if requests == 0 {
            return None;
        }
        let (limit, at) = state.limiter.tightest(state.queue.next_tokens()?, now)?;
        let next_in = at.saturating_duration_since(now);
        Some(ScopeWait { scope: self.name.clone(), limit, requests, requests_of_scope, next_in })
    }

    /// Waits until the limits admit the request, and reserves its tokens.
    ///
    /// # Errors
    /// At once if it would have to wait and must not, if the queue is full, if the expected wait exceeds the deadline, or
    /// if a cap is reached. Later if the deadline passes, a cap is reached or the caller stops.
    pub(super) async fn admit(self: &Arc<Self>, request: AdmissionRequest) -> Result<ScopePermit, Failure> {
        if let Some(failure) = self.cap_failure() {
            return Err(failure);
        }
        match self.enter(&request)? {
            Entry::Admitted(permit) => Ok(permit),
            Entry::Waiting(position) => position.wait(request).await,
        }
    }

    /// Admits a request at once or adds it to the queue.
    fn enter(self: &Arc<Self>, request: &AdmissionRequest) -> Result<Entry, Failure> {
        let AdmissionRequest { priority, run, tokens, when_limited, place, deadline, .. } = *request;
        let now = Instant::now();
        let mut state = self.lock();
        let State { limiter, queue } = &mut *state;
        let tokens = limiter.reservable(tokens);
        let key = QueueKey { priority, run };
        if queue.would_be_next(priority) && limiter.try_admit(tokens, now).is_ok() {
            queue.record_admitted(priority);
            return Ok(Entry::Admitted(self.permit(tokens, now)));
        }
        let expected_wait = || {
            let expected = limiter.expected_at(queue.ahead_of(key, place), tokens, now);
            expected.saturating_duration_since(now)
        };
        match when_limited {
            WhenLimited::Fail => return Err(self.refusal(Refusal::MustNotWait, expected_wait())),
            WhenLimited::Wait => {}
        }
        if let Some(deadline) = deadline {
            let wait = expected_wait();
            let waiting = queue.bounded(priority);
            if waiting >= self.max_waiting.load(Relaxed) {
                return Err(self.refusal(Refusal::QueueFull { waiting }, wait));
            }
            if wait > deadline.saturating_duration_since(now) {
                return Err(self.refusal(Refusal::TooLate, wait));
            }
        }
        let wake = Arc::new(Notify::new());
        let bound = if deadline.is_some() { QueueBound::Counts } else { QueueBound::Exempt };
        let ticket = queue.push(key, place, WaitingRequest { tokens, bound, wake: wake.clone() });
        Ok(Entry::Waiting(QueuePosition { scope: self.clone(), ticket, tokens, wake }))
    }

    fn refusal(&self, reason: Refusal, wait: Duration) -> Failure {
        // Rounded up, so that no wait reads as 0 s.
        let seconds = wait.as_secs_f64().ceil();
        let name = &self.name;
        let limits = format!("scope {name} is at its limits");
        let message = match reason {
            Refusal::MustNotWait => format!("{limits}: expected wait {seconds} s"),
            Refusal::QueueFull { waiting } => {
                let max = self.max_waiting.load(Relaxed);
                let queue = format!("scope {name} has {waiting} requests waiting (queue = {max})");
                format!("{queue}: expected wait {seconds} s")
            }
            Refusal::TooLate => {
                format!("{limits}, and the deadline is sooner than the expected wait of {seconds} s")
            }
        };
        Failure {
            retry_after: Some(wait),
            ..Failure::new(Class::RateLimit, message).with_cause(Cause::ConfiguredLimit)
        }
    }

    fn permit(self: &Arc<Self>, tokens: u64, now: Instant) -> ScopePermit {
        let used = Some(tokens);
        ScopePermit { scope: self.clone(), reserved: tokens, admitted_at: now, used, live_log: None }
    }

    /// A panic while the lock was held leaves only numbers, which stay usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn max_waiting(settings: &ScopeSettings) -> usize {
    usize::try_from(settings.queue.get()).unwrap_or(usize::MAX)
}

/// Why a request does not wait.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    MustNotWait,
    QueueFull {
        /// The number of waiting requests.
        waiting: usize,
    },
    /// The deadline is sooner than the expected admission.
    TooLate,
}

/// What happened to a request that asked for admission.
enum Entry {
    Admitted(ScopePermit),
    Waiting(QueuePosition),
}

/// The position of a waiting request. It leaves the queue when this is dropped.
struct QueuePosition {
    scope: Arc<Scope>,
    ticket: Ticket,
    tokens: u64,
    wake: Arc<Notify>,
}

/// Whether a waiting request is admitted.
enum Turn {
    Admitted(ScopePermit),
    /// Not before this instant.
    Until(Instant),
    /// When it is woken.
    WhenWoken,
}

impl QueuePosition {
    async fn wait(self, request: AdmissionRequest) -> Result<ScopePermit, Failure> {
        let AdmissionRequest { deadline, stop, budget, .. } = request;
        let stopped = wait_for_stop(stop);
        tokio::pin!(stopped);
        let budget = budget.filter(|budget| budget.is_capped());
        loop {
            let run_cap_reached = || budget.as_ref().and_then(|budget| budget.cap_failure());
            if let Some(failure) = self.scope.cap_failure().or_else(run_cap_reached) {
                return Err(failure);
            }
            let now = Instant::now();
            let ready = match self.check(now) {
                Turn::Admitted(permit) => return Ok(permit),
                Turn::Until(ready) => Some(ready),
                Turn::WhenWoken => None,
            };
            // The others of the run are woken when the first one leaves.
            let checks_budget = budget.is_some() && self.is_first_of_run();
            let next_check = checks_budget.then(|| now + BUDGET_CHECK_INTERVAL);
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                () = &mut stopped => return Err(Failure::new(Class::Cancelled, STOPPED_WHILE_WAITING)),
                () = sleep_until_some(deadline) => {
                    let name = &self.scope.name;
                    let message = format!("the deadline passed while the request waited for scope {name}");
                    return Err(Failure::new(Class::Deadline, message));
                }
                () = sleep_until_some(ready) => {}
                () = sleep_until_some(next_check) => {}
            }
        }
    }

    /// Admits the request if it is next and the limits admit it.
    fn check(&self, now: Instant) -> Turn {
        let mut state = self.scope.lock();
        let State { limiter, queue } = &mut *state;
        if !queue.is_next(self.ticket) {
            return Turn::WhenWoken;
        }
        match limiter.try_admit(self.tokens, now) {
            Ok(()) => {
                queue.admit(self.ticket);
                Turn::Admitted(self.scope.permit(self.tokens, now))
            }
            Err(NotYet::Until(ready)) => Turn::Until(ready),
            Err(NotYet::AtNextEnd) => Turn::WhenWoken,
        }
    }

    fn is_first_of_run(&self) -> bool {
        self.scope.lock().queue.is_first_of_run(self.ticket)
    }
}

impl Drop for QueuePosition {
    fn drop(&mut self) {
        self.scope.lock().queue.remove(self.ticket);
    }
}

/// Waits until an instant; forever if there is none.
async fn sleep_until_some(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// The permission to send one request. When it is dropped, the request has ended, and the next one is woken.
///
/// If it is dropped without [`settle`](Self::settle), the use of the request is unknown: an attempt may have been sent.
/// Its tokens then count as used, or those that were received if they are more.
#[derive(Debug)]
pub struct ScopePermit {
    scope: Arc<Scope>,
    reserved: u64,
    admitted_at: Instant,
    /// The tokens that were used; `None` if no attempt was sent.
    used: Option<u64>,
    /// The attempts of the request, as long as their use is unknown.
    live_log: Option<Arc<LiveLog>>,
}

impl ScopePermit {
    /// Returns whether tokens are reserved for the request.
    pub(super) fn has_tokens(&self) -> bool {
        self.reserved > 0
    }

    /// Counts what the attempts in this log receive if their usage stays unknown.
    pub(super) fn observe(&mut self, live_log: Arc<LiveLog>) {
        self.live_log = Some(live_log);
    }

    /// Replaces the reserved tokens by those that the request used. An attempt that may have been charged and whose
    /// usage is unknown counts with the reserved tokens, or with what was received if that is more.
    pub fn settle(mut self, result: &Result<Response, Box<RequestError>>) {
        // Known usage is exact.
        let live_log = self.live_log.take().filter(|_| has_unknown_usage(result));
        let received = live_log.map_or(0, |live_log| live_log.received_tokens());
        let used = match result {
            Ok(response) => {
                let completion = &response.completion;
                let answer = completion.usage.as_ref();
                // Vectors have no output. A mean with them would be too low for the answers.
                if let Some(usage) = answer.filter(|_| completion.embeddings.is_empty()) {
                    self.scope.lock().limiter.record_output(usage.output.0);
                }
                let of_answer = answer.map_or(self.reserved, total_tokens);
                let of_attempts = tokens_of_attempts(&response.attempts.0, of_answer, self.reserved);
                Some(of_attempts.unwrap_or(of_answer))
            }
            Err(error) if error.attempts.calls() == 0 && error.failure.charged == Charged::No => None,
            Err(error) => {
                let unknown = match error.failure.charged {
                    Charged::Maybe => self.reserved,
                    Charged::No => 0,
                };
                Some(tokens_of_attempts(&error.attempts.0, self.reserved, self.reserved).unwrap_or(unknown))
            }
        };
        self.used = used.map(|used| used.max(received));
    }
}

/// Returns whether a request may have been charged for tokens that no usage reports.
fn has_unknown_usage(result: &Result<Response, Box<RequestError>>) -> bool {
    let is_unknown = |attempt: &Attempt| {
        let is_charged = attempt.outcome == Outcome::Answered || attempt.is_possibly_charged();
        is_charged && attempt.usage.is_none()
    };
    match result {
        Ok(response) => response.attempts.0.iter().any(is_unknown),
        // A call that was in flight when Pointsman stopped is not in the log.
        Err(error) if error.failure.charged == Charged::Maybe && error.failure.usage.is_none() => true,
        Err(error) => error.attempts.0.iter().any(is_unknown),
    }
}

/// Returns the tokens that attempts have used; `None` if no attempt used any. Without a known usage an answer counts
/// with `of_answer`, and an attempt that may have been charged with `reserved`.
fn tokens_of_attempts(attempts: &[Attempt], of_answer: u64, reserved: u64) -> Option<u64> {
    let tokens_of = |attempt: &Attempt| match &attempt.usage {
        Some(usage) => Some(total_tokens(usage)),
        None if attempt.outcome == Outcome::Answered => Some(of_answer),
        None => attempt.is_possibly_charged().then_some(reserved),
    };
    attempts.iter().filter_map(tokens_of).reduce(u64::saturating_add)
}

fn total_tokens(usage: &Usage) -> u64 {
    usage.input.0.saturating_add(usage.output.0)
}

impl Drop for ScopePermit {
    fn drop(&mut self) {
        if let (Some(used), Some(live_log)) = (self.used, self.live_log.take()) {
            self.used = Some(used.max(live_log.received_tokens()));
        }
        let now = Instant::now();
        let mut state = self.scope.lock();
        let State { limiter, queue } = &mut *state;
        limiter.settle(self.reserved, self.used.unwrap_or(0), now);
        if self.used.is_none() {
            limiter.give_back_request();
        }
        limiter.release(now.saturating_duration_since(self.admitted_at));
        queue.wake_next();
    }
}

#[cfg(test)]
mod tests;
