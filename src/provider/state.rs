//! Shared state of a provider (its inbox, queue, limits, keys, breakers and counters), and the fields of its actor.
//!
//! All incarnations of the actor share the state, so that a restart loses nothing, and calls that outlive an
//! incarnation still count. The lock is held only while a decision is made.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use actix::{Message, SpawnHandle};
use arc_swap::ArcSwap;
use http::{HeaderMap, Uri};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::chaos;
use crate::guard::{BreakerState, ReductionCause, SharedBudget};
use crate::supervisor::Slot;
use crate::types::{
    AttemptCounts, Class, EmbeddingLimits, Failure, KeyLabel, ModelName, Parameter, ProviderName, ScopeName,
    StepName, TargetName,
};
use crate::wire::{RateLimitHeaders, UnsupportedParameters};

use super::admission::budget::Budgets;
use super::admission::grant::{CallOutcome, Grant};
use super::admission::inbox::Inbox;
use super::admission::outcome::StateChange;
use super::admission::scheduler::Scheduler;
use super::call::HealthChanged;
use super::dispatch::client_pool::{ClientPool, IoThreads};
use super::dispatch::transport;
use super::health::first_attempts::FirstAttempts;
use super::health::header_latency::HeaderLatency;
use super::health::outage::Outage;
use super::health::snapshot::{KeyCooldown, Snapshot, TargetSnapshot};
use super::health::utilization::limit_snapshots;
use super::keys::key::KeyId;
use super::keys::key_set::{KeyFault, Keys};
use super::keys::key_source::Key;
use super::out_of_service::OutOfService;
use super::settings::Settings;
use super::target::{ConcurrencyChange, Target};

/// What a provider's state is made from.
#[derive(Debug, Clone)]
pub struct Account {
    /// The provider's name.
    pub name: ProviderName,
    /// Its settings.
    pub settings: Settings,
    /// Its base URL; the address of a simulated provider is known only once it listens.
    pub base_url: String,
    /// Its keys, preferred first; none for a server that needs none.
    pub keys: Vec<Key>,
    /// Headers that are sent with every call.
    pub headers: HeaderMap,
    /// The budgets that its calls spend, in addition to their runs': its own daily budget and the global one.
    pub budgets: Vec<Arc<SharedBudget>>,
}

/// The state of one provider.
#[derive(Debug)]
pub struct State {
    name: ProviderName,
    is_simulated: bool,
    base_url: String,
    /// Replaced by a reload. A call that has begun keeps those with which it began.
    settings: ArcSwap<Settings>,
    clients: ArcSwap<ClientPool>,
    /// The state that has taken its place.
    successor: OnceLock<Arc<State>>,
    slot: Slot<Provider>,
    pub(super) inbox: Inbox,
    pub(super) header_latency: HeaderLatency,
    scheduler: Mutex<Scheduler>,
    /// At most one task reads key files: a disk that hangs must not accumulate threads.
    pub(super) key_file_reader: Arc<Semaphore>,
    /// The number of runs that share its capacity.
    pub(super) active_runs: Arc<AtomicUsize>,
}

/// Receives the health of the provider's targets, for the router.
pub type HealthSink = Arc<dyn Fn(HealthChanged) + Send + Sync>;

/// The actor of one provider; `actor.rs` has its handlers. It is defined beside the state because the state holds
/// the slot of its actor.
pub struct Provider {
    pub(super) state: Arc<State>,
    pub(super) health_sink: HealthSink,
    pub(super) last_reported: Option<HealthChanged>,
    pub(super) dispatch_timer: Option<(Instant, SpawnHandle)>,
    /// Reports health when it changes by the passage of time alone.
    pub(super) health_timer: Option<SpawnHandle>,
}

/// Reports that another call may be sent, if no dispatch worker continues with the next call.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct CapacityReleased {
    /// Whether the end of that call changed the provider's health.
    pub(super) health_changed: bool,
}

impl State {
    /// Creates the state of a provider; its calls run on `threads`.
    ///
    /// # Errors
    /// If no HTTP client can be created, or a key is not a valid header value.
    pub fn new(account: Account, threads: impl Into<IoThreads>) -> Result<Arc<Self>, transport::Error> {
        let Account { name, settings, base_url, keys, headers, budgets } = account;
        let clients = ClientPool::new(threads.into(), &settings, &base_url, &headers)?;
        let now = Instant::now();
        let keys = Keys::new(settings.format, &keys, settings.rotate_every, now);
        let mut scheduler = Scheduler::new(&settings, keys.map_err(transport::Error::Key)?, now);
        let slot = Slot::default();
        let is_simulated = settings.is_simulated();
        let inbox = Inbox::new(settings.queue.get());
        scheduler.budgets = Budgets::new(name.clone(), is_simulated, budgets);
        Ok(Arc::new(Self {
            name,
            is_simulated,
            base_url,
            settings: ArcSwap::from_pointee(settings),
            clients: ArcSwap::from_pointee(clients),
            successor: OnceLock::new(),
            slot,
            inbox,
            header_latency: HeaderLatency::default(),
            scheduler: Mutex::new(scheduler),
            key_file_reader: Arc::new(Semaphore::new(1)),
            active_runs: Arc::default(),
        }))
    }

    /// Returns the provider's name.
    pub fn name(&self) -> &ProviderName {
        &self.name
    }

    /// Returns whether the provider is simulated.
    pub fn is_simulated(&self) -> bool {
        self.is_simulated
    }

    /// Returns the slot with the address of the running actor.
    pub fn slot(&self) -> &Slot<Provider> {
        &self.slot
    }

    /// Returns how much one joined request for embeddings may contain; `None` if its format has no embeddings.
    pub fn embedding_limits(&self) -> Option<EmbeddingLimits> {
        self.settings().embedding_limits(Some(&self.base_url))
    }

    /// Returns how many tokens the beginning of a prompt needs to be cached for this model; `None` if it is unknown.
    pub fn min_cached(&self, model: &ModelName) -> Option<u64> {
        let settings = self.settings();
        Some(settings.models.get(model)?.min_cached(settings.format))
    }

    /// Returns whether its calls carry the trace of their request.
    pub fn sends_traceparent(&self) -> bool {
        self.settings.load().traceparent
    }

    /// Returns the settings in use.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Replaces the settings from the next call on.
    pub(super) fn set_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Returns the HTTP clients in use.
    pub(super) fn clients(&self) -> Arc<ClientPool> {
        self.clients.load_full()
    }

    /// Replaces the HTTP clients from the next call on.
    pub(super) fn set_clients(&self, clients: Arc<ClientPool>) {
        self.clients.store(clients);
    }

    /// Returns the state that has taken its place, if one has.
    pub(super) fn successor(&self) -> Option<&Arc<Self>> {
        self.successor.get()
    }

    /// Sets the state that takes its place. Only the first one counts.
    pub(super) fn set_successor(&self, successor: Arc<Self>) {
        drop(self.successor.set(successor));
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(super) fn runtime(&self) -> Handle {
        self.clients.load().runtime().clone()
    }

    /// Applies the response headers of a call; other calls may become ready.
    pub(super) fn on_headers(&self, grant: &Grant, headers: &RateLimitHeaders, accepted: bool, now: Instant) {
        let mut scheduler = self.lock();
        let effects = scheduler.on_headers(grant, headers, accepted, now);
        drop(scheduler);
        if effects.wakes_queue || effects.health_changed {
            self.notify_actor(effects.health_changed);
        }
    }

    /// Releases the grant of a call unless that is done; `None` is a call that died without an outcome. Returns
    /// whether its key is at fault.
    pub(super) fn release_grant(
        self: &Arc<Self>,
        grant: &mut Option<Box<Grant>>,
        outcome: Option<&CallOutcome<'_>>,
        now: Instant,
    ) -> KeyFault {
        let mut scheduler = self.lock();
        if outcome.is_some() {
            chaos::point("state.settle");
        }
        let Some(grant) = &grant.take() else { return KeyFault::NotAtFault };
        let change = scheduler.release(grant, outcome, fastrand::f64, now);
        let failed = outcome.is_some_and(|outcome| outcome.result.is_err());
        let evicted = if failed || change.health_changed { scheduler.evict(now) } else { Vec::new() };
        // After a call that has ended normally, its worker checks the queue.
        let wake = change.health_changed || outcome.is_none() && !scheduler.queue.is_empty();
        let are_keys_doubtful = scheduler.keys.needs_recheck(now);
        drop(scheduler);
        evicted.into_iter().for_each(|(waiting, rejection)| waiting.responder.send(Err(rejection)));
        self.log_changes(change, grant, outcome);
        if are_keys_doubtful {
            self.read_key_files(now);
        }
        if wake {
            self.notify_actor(change.health_changed);
        }
        change.key_fault
    }

    /// Notifies the actor that queued calls may be ready, or that the provider's health has changed.
    pub(super) fn notify_actor(&self, health_changed: bool) {
        if let Some(actor) = self.slot.shared() {
            actor.do_send(CapacityReleased { health_changed });
        }
    }

    fn log_changes(&self, change: StateChange, grant: &Grant, outcome: Option<&CallOutcome<'_>>) {
        let provider = &self.name;
        let model = &grant.model;
        let key = &grant.key.label;
        let failure = outcome.and_then(|outcome| outcome.result.as_ref().err());
        match (change.breaker_moved_to, failure) {
            (_, Some(failure)) if change.model_not_found => {
                warn!(
                    %provider, %model, %failure,
                    "the provider refuses this model for every request, opening its breaker; check the model's \
                     name and what the key may use"
                );
            }
            (Some(BreakerState::Open), Some(failure)) if failure.class != Class::NotFound => {
                warn!(%provider, %model, %failure, "target keeps failing, opening its breaker");
            }
            (Some(BreakerState::Closed), _) => info!(%provider, %model, "target is healthy again"),
            _ => {}
        }
        if change.counts_max_tokens {
            warn!(
                %provider, %model,
                "provider counts max_tokens when a call arrives: reserving it from now on; write \
                 output_reservation = \"max_tokens\" to do so from the start, or lower max_tokens"
            );
        }
        match change.concurrency {
            Some(ConcurrencyChange::Reduced { to, from, cause }) => match cause {
                ReductionCause::Overload => {
                    warn!(
                        %provider, %model, to, from,
                        "provider objects to the concurrency, lowering the limit"
                    );
                }
                ReductionCause::NoResponse => {
                    warn!(
                        %provider, %model, to, from,
                        "concurrent calls have no response, lowering the limit"
                    );
                }
                ReductionCause::Throughput => {
                    warn!(
                        %provider, %model, to, from,
                        "more concurrency brings no throughput, lowering the limit"
                    );
                }
            },
            Some(ConcurrencyChange::Restored(to)) => {
                info!(%provider, %model, to, "concurrency limit restored")
            }
            None => {}
        }
        if change.retry_budget_recovered {
            info!(%provider, "retry budget recovered");
        }
        if let (true, Some(failure)) = (change.key_cools_down, failure) {
            if failure.class == Class::Quota {
                warn!(
                    %provider, %key, %failure,
                    "account's quota is exhausted, starting the key's cool-down"
                );
            } else {
                warn!(%provider, %key, %failure, "key was rejected, starting its cool-down");
            }
        }
    }

    /// Returns the parameters that requests to `model` leave out.
    pub(super) fn unsupported_parameters(&self, model: &ModelName) -> UnsupportedParameters {
        self.lock().targets.get(model).map(|target| target.unsupported_parameters).unwrap_or_default()
    }

    /// Records that a model does not accept a parameter. Returns whether the next request leaves out other
    /// parameters than the refused one, which left out `omitted`.
    pub(super) fn record_unsupported_parameter(
        &self,
        model: &ModelName,
        parameter: Parameter,
        omitted: UnsupportedParameters,
    ) -> bool {
        let mut scheduler = self.lock();
        let Some(target) = scheduler.targets.get_mut(model) else { return false };
        if target.unsupported_parameters != omitted {
            return true;
        }
        let is_new = target.unsupported_parameters.record(parameter);
        drop(scheduler);
        if is_new {
            let provider = &self.name;
            let parameter = parameter.as_str();
            warn!(%provider, %model, parameter, "the model does not accept this parameter, leaving it out");
        }
        is_new
    }

    /// Returns whether there is a key for `model` other than those that a request was refused with.
    pub fn has_other_key(&self, model: &ModelName, excluded_keys: &[KeyId], now: Instant) -> bool {
        self.lock().keys.has_other(model, excluded_keys, now)
    }

    /// Returns why `model` cannot answer any request within `max_wait`; `None` if it may.
    pub fn outage(&self, model: &ModelName, max_wait: Duration, now: Instant) -> Option<Outage> {
        match self.successor() {
            // A request that began before the change continues there.
            Some(successor) => successor.outage(model, max_wait, now),
            None => self.lock().outage(model, max_wait, now),
        }
    }

    /// Returns whether `model` is unresponsive, its probe is due, and no queued call could be that probe.
    pub fn needs_probe(&self, model: &ModelName, now: Instant) -> bool {
        let scheduler = self.lock();
        let has_queued_call = scheduler.queue.waiting_by_model().any(|(waiting, _)| waiting == model);
        !has_queued_call
            && scheduler
                .targets
                .get(model)
                .is_some_and(|target| target.is_unresponsive() && target.breaker.would_admit(now))
    }

    /// Returns whether `model` is unresponsive: since this was detected, no call has had a response. A call that
    /// was sent earlier than the others has waited longer.
    pub fn is_unresponsive(&self, model: &ModelName) -> bool {
        self.lock().targets.get(model).is_some_and(Target::is_unresponsive)
    }

    /// Returns the counts of attempts at `model` by result.
    pub fn attempt_counts(&self, model: &ModelName) -> AttemptCounts {
        self.lock().targets.get(model).map(|target| target.counts).unwrap_or_default()
    }

    /// Reads the results of the first attempts of requests at `model`.
    pub fn with_first_attempts<T>(
        &self,
        model: &ModelName,
        look: impl FnOnce(&FirstAttempts) -> T,
    ) -> Option<T> {
        self.lock().targets.get(model).map(|target| look(&target.first_attempts))
    }

    /// Returns when the oldest attempt at `model` without response headers was sent.
    pub fn oldest_pending_sent_at(&self, model: &ModelName) -> Option<Instant> {
        self.lock().targets.get(model)?.oldest_pending_sent_at()
    }

    pub(super) fn health(&self, now: Instant) -> HealthChanged {
        let scheduler = self.lock();
        if scheduler.out_of_service.is_some_and(OutOfService::is_final) {
            // The targets of its successor may have the same names.
            return HealthChanged { targets: Vec::new() };
        }
        let health = scheduler.health(now).into_iter();
        let target = |model| TargetName { provider: self.name.clone(), model };
        HealthChanged { targets: health.map(|(model, health)| (target(model), health)).collect() }
    }

    /// Returns the current state for display.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let mut snapshot = self.snapshot_of(&self.lock(), now);
        snapshot.targets.retain(|target| !target.retired || target.in_flight + target.queued > 0);
        snapshot
    }

    /// The same with the lock of the scheduler held.
    pub(super) fn snapshot_of(&self, scheduler: &Scheduler, now: Instant) -> Snapshot {
        let in_inbox = self.inbox.len();
        let waiting: HashMap<_, _> = scheduler.queue.waiting_by_model().collect();
        let targets = scheduler.targets.iter().map(|(model, target)| TargetSnapshot {
            model: model.clone(),
            breaker: scheduler.breaker_state(model, now).unwrap_or(BreakerState::Closed),
            forced_open: target.is_forced_open,
            retired: target.is_retired,
            throttled: target.metrics.throttled(),
            limits: limit_snapshots(&target.recent_usage, &target.limits, now),
            in_flight: target.concurrency.in_flight(),
            concurrency: target.concurrency.effective_limit(target.is_rate_limited(&scheduler.limits)),
            queued: waiting.get(model).copied().unwrap_or(0),
            reduced_from: target.concurrency.reduced_from(),
            probed_in: scheduler.open_for(target, now),
            last_failure: scheduler.last_failure_of(target).map(|last| (last.class, last.message.clone())),
        });
        Snapshot {
            provider: self.name.clone(),
            simulated: self.is_simulated,
            format: self.settings.load().format,
            base_host: host_of(&self.base_url),
            out_of_service: scheduler.out_of_service,
            draining: scheduler.out_of_service.is_some(),
            up: self.is_up(),
            in_flight: scheduler.in_flight,
            concurrency: scheduler.concurrency(),
            queued: scheduler.queue.len() + in_inbox,
            capacity: scheduler.capacity(Duration::MAX, now),
            calls: scheduler.calls_sent,
            throttled: scheduler.throttled,
            limits: limit_snapshots(&scheduler.recent_usage, &scheduler.limits, now),
            limit: scheduler.limit_utilization(now),
            held_for: scheduler.longest_hold(now),
            retry_budget_wait: scheduler.retry_budget.wait(now),
            targets: targets.collect(),
            keys_in_cooldown: scheduler.keys.cooling_down(now).map(key_cooldown).collect(),
            keys: scheduler.keys.snapshots(now),
        }
    }

    /// Returns until when a call with these tokens would wait.
    #[cfg(test)]
    pub(super) fn expected(&self, need: crate::guard::TokenCost, now: Instant) -> Instant {
        self.lock().limits.expected_at(0, need, now)
    }

    /// Restores the output tokens of the answers by a model, to a step of a run of this scope, from an earlier session.
    pub fn restore_token_stats(
        &self,
        model: &ModelName,
        scope: &ScopeName,
        step: &StepName,
        outputs: impl IntoIterator<Item = u64>,
    ) {
        if let Some(target) = self.lock().targets.get_mut(model) {
            target.token_stats.restore(scope, step, outputs);
        }
    }

    /// A panic while the lock was held leaves valid numbers, so a poisoned lock is used as it is.
    pub(super) fn lock(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the host and the port of an address. An address contains no password.
fn host_of(base_url: &str) -> String {
    let authority = base_url.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
    authority.unwrap_or_default()
}

fn key_cooldown((key, failure): (&KeyLabel, &Failure)) -> KeyCooldown {
    KeyCooldown { key: key.clone(), class: failure.class, message: failure.message.clone() }
}

#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod unreachable;
#[cfg(test)]
mod unresponsive;
