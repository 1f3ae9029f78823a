//! Messages between the router and a provider: calls, results, rejections and health.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Message;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::guard::{HeldMemory, SharedBudget};
use crate::telemetry::CallTrace;
use crate::types::{
    Completion, Failure, KeyLabel, ModelName, NanoUsd, Priority, Prompt, RequestContext, Savings, TargetName,
};

use super::admission::queue::QueueKey;
use super::answer_stream::AnswerWriter;
use super::keys::key::KeyId;
use super::unreported_usage::UnreportedUsage;

/// One call, which the provider sends when its limits admit it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// The model, by its name in the configuration.
    pub model: ModelName,
    /// The priority of the request.
    pub priority: Priority,
    /// The run, item and step of the request.
    pub context: RequestContext,
    /// Whether this provider has already failed the same request. The call then takes from the retry budget.
    pub is_retry: bool,
    /// Whether no other target is usable for the request now. A breaker that is open because of its failure rate
    /// then admits the call.
    pub only_option_now: bool,
    /// Whether no other target is usable for the request, now or later. The call then stays queued even if the
    /// provider has requested a long wait. Otherwise it is rejected, and the router uses another target.
    pub only_option: bool,
    /// The keys that the provider refused for the same request. They are used only if there is no other key.
    pub excluded_keys: Vec<KeyId>,
    /// Records that the call is sent; `None` if the caller does not need it.
    pub dispatch_signal: Option<Arc<DispatchSignal>>,
    /// The budget of the run; `None` if spending is not counted for a run.
    pub budget: Option<Arc<SharedBudget>>,
    /// The budget of the scope's day; `None` if the scope has none.
    pub scope_budget: Option<Arc<SharedBudget>>,
    /// The memory allowance that the response takes from; empty for that of the process.
    pub memory: HeldMemory,
    /// Where the answer is streamed to; `None` if only the whole answer counts.
    pub stream: Option<AnswerWriter>,
    /// Its place in the trace of the request.
    pub trace: CallTrace,
    /// The time after which the answer is useless.
    pub deadline: Instant,
}

impl Call {
    /// Returns the key by which the call is queued. `tokens` is what it is expected to use.
    pub(super) fn queue_key(&self, tokens: u64) -> QueueKey {
        QueueKey {
            model: self.model.clone(),
            priority: self.priority,
            scope: self.context.scope.clone(),
            run: self.context.run,
            rank: self.context.rank,
            tokens,
        }
    }
}

/// Whether a call was sent, or withdrawn before it was sent. The first of the two is final.
#[derive(Debug, Default)]
pub struct DispatchSignal {
    dispatched: SetOnce<Option<Dispatched>>,
    /// Whether response headers were received.
    headers_received: AtomicBool,
    /// Whether a later call has shown that the model works again after an outage.
    hanging: AtomicBool,
    /// Whether another call has answered the request.
    superseded: AtomicBool,
    pauses: Mutex<ReadPauses>,
}

/// Time during which the call waited for memory instead of reading its response.
#[derive(Debug, Default)]
struct ReadPauses {
    past: Duration,
    since: Option<Instant>,
}

impl DispatchSignal {
    /// Creates the signal of a call that is neither sent nor withdrawn.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that the call is sent. Returns `false` if it was withdrawn; then it must not be sent.
    pub fn try_dispatch(&self, call: Dispatched) -> bool {
        self.dispatched.set(Some(call)).is_ok()
    }

    /// Withdraws the call. Returns `false` if it was already sent; then it stays in flight.
    pub fn withdraw(&self) -> bool {
        self.dispatched.set(None).is_ok() || self.dispatched().is_none()
    }

    /// Returns the data of the sent call; `None` if it was not sent.
    pub fn dispatched(&self) -> Option<&Dispatched> {
        self.dispatched.get().and_then(Option::as_ref)
    }

    /// Records that response headers were received.
    pub fn mark_headers_received(&self) {
        self.headers_received.store(true, Relaxed);
    }

    /// Returns whether response headers were received.
    pub fn has_headers(&self) -> bool {
        self.headers_received.load(Relaxed)
    }

    /// Records that a later call has shown that the model works again: this call will probably not be answered.
    pub fn mark_hanging(&self) {
        self.hanging.store(true, Relaxed);
    }

    /// Returns whether the call hangs: marked as hanging and without response headers.
    pub fn is_hanging(&self) -> bool {
        self.hanging.load(Relaxed) && !self.has_headers()
    }

    /// Records that another call has answered the request. The caller records it before it drops the receiver of this
    /// call.
    pub fn mark_superseded(&self) {
        self.superseded.store(true, Relaxed);
    }

    /// Returns whether another call has answered the request.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Relaxed)
    }

    /// Records that the call does not read its response until the guard is dropped.
    pub(crate) fn pause(&self) -> ReadPause<'_> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).since = Some(Instant::now());
        ReadPause(self)
    }

    /// Returns the time until now in which the call did not read its response. In that time it did not wait for
    /// the provider.
    pub fn paused_for(&self) -> Duration {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.past + pauses.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits until the call is sent; forever if it was withdrawn.
    pub async fn wait_dispatched(&self) -> &Dispatched {
        match self.dispatched.wait().await {
            Some(call) => call,
            None => std::future::pending().await,
        }
    }
}

/// A pause in which a call does not read its response.
pub(crate) struct ReadPause<'a>(&'a DispatchSignal);

impl Drop for ReadPause<'_> {
    fn drop(&mut self) {
        let mut pauses = self.0.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = pauses.since.take() {
            pauses.past += since.elapsed();
        }
    }
}

/// A call that was sent.
#[derive(Debug, Clone)]
pub struct Dispatched {
    /// The time of dispatch.
    pub at: Instant,
    /// Its sequence number at the provider.
    pub number: u64,
    /// The key that was used.
    pub key: KeyLabel,
    /// What it has used, as long as its provider has not reported it.
    pub usage: Arc<UnreportedUsage>,
}

/// The result of a call that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct CallResult {
    /// Its sequence number at the provider.
    pub number: u64,
    /// The key that was used.
    pub key: KeyId,
    /// Time from submission to dispatch.
    pub waited: Duration,
    /// Whether it was a probe of a breaker.
    pub is_probe: bool,
    /// Whether an open breaker admitted it because no other target was usable.
    pub is_forced: bool,
    /// Time from dispatch to its end.
    pub took: Duration,
    /// Time from dispatch to the first part of the answer.
    pub first_token: Option<Duration>,
    /// Its cost; `None` if the price or the usage is unknown.
    pub cost: Option<NanoUsd>,
    /// What the provider's cache saved; `None` if it was not used or the price is unknown.
    pub cache_savings: Option<Savings>,
    /// Cost that the provider may have charged, booked as an estimate because the real cost is unknown.
    pub uncertain_cost: NanoUsd,
    /// The completion or the failure.
    pub result: Result<Completion, Failure>,
}

/// Why a call was not sent. It cost nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejection {
    /// The wait would exceed the deadline, or the queue is full.
    #[error("the wait would exceed the deadline")]
    Busy {
        /// When the call could be sent.
        until: Instant,
    },
    /// The retry budget is exhausted.
    #[error("its retry budget is exhausted")]
    RetryBudgetExhausted {
        /// When the budget admits a retry again.
        until: Instant,
    },
    /// The breaker is open.
    #[error("its breaker is open")]
    BreakerOpen {
        /// When it will admit a probe; `None` while a probe is in flight.
        until: Option<Instant>,
    },
    /// The breaker is open, and no target has answered since the start. Probably the address is wrong, and the
    /// provider is not just temporarily unavailable.
    #[error("it has never answered: {0}")]
    NeverAnswered(Failure),
    /// The model has not answered a request yet, and the provider refused several because the model does not
    /// exist.
    #[error("the model does not exist: {0}")]
    ModelNotFound(Failure),
    /// No key is usable: the provider refused it, or its quota is exhausted.
    #[error("no key is usable: {0}")]
    NoUsableKey(Failure),
    /// The call exceeds the context of the model or the limit of a whole minute.
    #[error("{0}")]
    TooLarge(Failure),
    /// The target cannot express the request.
    #[error("{}", .0.message)]
    Unsupported(Failure),
    /// A spending cap is reached, or spending is capped and the target has no price.
    #[error("{failure}")]
    Budget {
        /// The cap and its state.
        failure: Failure,
        /// Whether the cap applies to all other targets, too.
        for_all_targets: bool,
    },
    /// The actor is restarting and will be back soon.
    #[error("its actor is restarting")]
    ActorRestarting,
    /// An operator or a reload has taken the target out of service.
    #[error("{0}")]
    OutOfService(Failure),
    /// The actor has been down for a long time, or its restarts are exhausted.
    #[error("{0}")]
    ActorDown(Failure),
}

/// Reports the health of a provider to the router.
#[derive(Debug, Clone, PartialEq, Message)]
#[rtype(result = "()")]
pub struct HealthChanged {
    /// All targets of the provider.
    pub targets: Vec<(TargetName, TargetHealth)>,
}

/// The health of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetHealth {
    /// It admits calls.
    Healthy,
    /// It rejects calls, or they would wait for a long time.
    Degraded,
    /// It cannot admit calls: no key is usable.
    Unavailable,
}
