//! A scheduler with everything that its state and its actor do, in virtual time.
//!
//! Checks the invariants for every call that is sent and after every event.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::super::*;
use super::strategies::{CallEnd, Event, TestCall};
use crate::clock;
use crate::guard::{BreakerState, TokenCost};
use crate::provider::admission::grant::{Abort, CallOutcome, SendTime};
use crate::provider::admission::queue::Turn;
use crate::provider::admission::queued_call::CallReceiver;
use crate::provider::keys::key_set::KeyFault;
use crate::provider::keys::key_source::Key;
use crate::supervisor::Responder;
use crate::types::{Charged, Class, FailureScope, KeyLabel, Prompt, RequestContext, RunId, Secret, Usage};
use crate::wire::RateLimitHeaders;

/// Time from sending a call to its answer at a healthy provider.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// Minimum time without response headers after which a call counts as unresponsive.
const MIN_UNRESPONSIVE: Duration = Duration::from_secs(5);

/// After this time another probe of the endpoint breaker may be sent.
const MAX_CONNECT_TIME: Duration = Duration::from_secs(1);

pub(super) struct Harness {
    pub(super) scheduler: Scheduler,
    pub(super) settings: Settings,
    pub(super) now: Instant,
    pub(super) in_flight: Vec<InFlightCall>,
    /// The receivers of the queued calls, by the number of the call.
    pub(super) receivers: HashMap<u64, CallReceiver>,
    pub(super) submitted: u64,
    /// The rejections of calls that were not sent.
    pub(super) rejected: Vec<(u64, Rejection)>,
    pub(super) sent: Vec<SentCall>,
    pub(super) ended: Vec<EndedCall>,
    pub(super) timer: Option<Instant>,
    runs: Vec<RunId>,
    /// Until when a model's calls must not be sent, as its provider has requested.
    held_until: HashMap<ModelName, Instant>,
    /// When a model last accepted a call.
    accepted_at: HashMap<ModelName, Instant>,
    /// Until when a key must not be used for a model; without a model, for all models.
    cooldowns: HashMap<(KeyLabel, Option<ModelName>), Instant>,
    /// The keys with which a call was answered.
    working_keys: HashSet<KeyLabel>,
    /// Calls that were not sent after all.
    withdrawn: u64,
    /// What the metrics of each model must have.
    metrics: HashMap<ModelName, ExpectedMetrics>,
}

/// What the metrics of a model must have.
#[derive(Default)]
struct ExpectedMetrics {
    outcomes: BTreeMap<&'static str, u64>,
    usage: Usage,
    possibly_charged: u64,
}

/// A call in flight.
pub(super) struct InFlightCall {
    id: u64,
    pub(super) grant: Grant,
    pub(super) sent_at: Instant,
    has_headers: bool,
    /// Whether another probe may be sent although it is one: of the target's breaker, of the endpoint breaker.
    superseded: (bool, bool),
}

/// A call that was sent.
#[derive(Debug, Clone)]
pub(super) struct SentCall {
    pub(super) id: u64,
    pub(super) at: Instant,
    pub(super) model: ModelName,
    pub(super) cost: TokenCost,
    /// The tokens that count for its run until it has ended.
    pub(super) expected: u64,
}

/// A call that has ended, and the tokens that count for its run from then on.
pub(super) struct EndedCall {
    pub(super) id: u64,
    pub(super) used: u64,
}

impl Harness {
    pub(super) fn new(settings: Settings, keys: usize) -> Self {
        let now = Instant::now();
        let key = |number: usize| Key {
            label: number.to_string().as_str().into(),
            secret: Secret::from(format!("secret-{number}")),
            file: None,
        };
        let keys: Vec<Key> = (0..keys).map(key).collect();
        let keys = Keys::new(settings.format, &keys, settings.rotate_every, now).unwrap();
        Self {
            scheduler: Scheduler::new(&settings, keys, now),
            settings,
            now,
            in_flight: Vec::new(),
            receivers: HashMap::new(),
            submitted: 0,
            rejected: Vec::new(),
            sent: Vec::new(),
            ended: Vec::new(),
            timer: None,
            runs: (0..3).map(|_| RunId::next()).collect(),
            held_until: HashMap::new(),
            accepted_at: HashMap::new(),
            cooldowns: HashMap::new(),
            working_keys: HashSet::new(),
            withdrawn: 0,
            metrics: HashMap::new(),
        }
    }

    pub(super) fn model(&self, number: usize) -> ModelName {
        self.settings.models.get_index(number % self.settings.models.len()).unwrap().0.clone()
    }

    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Submit(test_call) => self.submit(&test_call),
            Event::Advance(time) => self.advance(time),
            Event::Headers { which, headers, accepted } => self.receive_headers(which, &headers, accepted),
            Event::End { which, end } => self.end_call(which, end),
            Event::CallerGone { which } => {
                let mut queued: Vec<u64> = self.receivers.keys().copied().collect();
                queued.sort_unstable();
                if !queued.is_empty() {
                    self.receivers.remove(&queued[which % queued.len()]);
                }
            }
            Event::Sweep => self.sweep(),
        }
        self.assert_consistent();
    }

    pub(super) fn submit(&mut self, test_call: &TestCall) {
        let TestCall { input, max_tokens, priority, is_retry, only_option_now, only_option, .. } = *test_call;
        let model = self.model(test_call.model);
        let id = self.submitted;
        self.submitted += 1;
        let prompt = Prompt { system: Some(id.to_string().as_str().into()), ..Prompt::text("Hello") };
        let step = test_call.step.map(|step| step.to_string().as_str().into());
        let context = RequestContext { run: self.runs[test_call.run], step, ..RequestContext::default() };
        let call = Call {
            prompt: Arc::new(prompt),
            model,
            priority,
            context,
            is_retry,
            only_option_now,
            only_option,
            excluded_keys: Vec::new(),
            dispatch_signal: None,
            stream: None,
            budget: None,
            scope_budget: None,
            memory: crate::guard::HeldMemory::default(),
            trace: crate::telemetry::CallTrace::default(),
            deadline: self.now + test_call.max_wait,
        };
        let model_max_tokens = self.settings.models[&call.model].max_tokens.map(|max| u64::from(max.get()));
        let estimate = Estimate { input, max_tokens: max_tokens.or(model_max_tokens) };
        let admissible = self.scheduler.check_admissible(
            &"p".into(),
            &self.settings,
            &call,
            estimate,
            self.now,
            clock::now(),
        );
        match admissible {
            Ok(expected) => {
                let (responder, receiver) = Responder::channel();
                self.receivers.insert(id, receiver);
                let key = call.queue_key(expected.total());
                self.scheduler.queue.push(
                    key,
                    QueuedCall { call: Arc::new(call), responder, requested_at: self.now, estimate },
                );
            }
            Err(rejection) => self.rejected.push((id, rejection)),
        }
        self.dispatch_ready();
    }

    /// Advances the clock and fires the timer that is due meanwhile.
    pub(super) fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(timer) = self.timer.filter(|timer| *timer <= end) {
            self.fire_timer(timer);
        }
        self.now = end;
    }

    fn fire_timer(&mut self, timer: Instant) {
        self.now = timer.max(self.now);
        self.timer = None;
        self.dispatch_ready();
    }

    pub(super) fn dispatch_ready(&mut self) {
        loop {
            match self.scheduler.next(fastrand::f64, self.now) {
                Decision::Dispatch(ready) => {
                    let (queued, key, grant, _budget) = *ready;
                    self.record_sent(queued, &key, *grant);
                }
                Decision::Reject(queued, rejection) => self.record_rejection(&queued, rejection),
                Decision::Wait(until) => {
                    assert!(until > self.now, "the scheduler would be polled in a loop");
                    if self.timer.is_none_or(|set| set > until || set <= self.now) {
                        self.timer = Some(until);
                    }
                    return;
                }
                Decision::Idle => return,
            }
        }
    }

    fn record_rejection(&mut self, queued: &QueuedCall, rejection: Rejection) {
        let id = id(&queued.call);
        let was_queued = self.receivers.remove(&id).is_some();
        assert!(was_queued || queued.responder.is_closed(), "{id} was already answered");
        self.rejected.push((id, rejection));
    }

    fn record_sent(&mut self, queued: QueuedCall, key: &ReadyKey, mut grant: Grant) {
        let now = self.now;
        grant.sent = Some(SendTime { at: now, queue_time: now - queued.requested_at });
        let call = queued.call;
        let id = id(&call);
        assert!(self.receivers.remove(&id).is_some(), "{id} was sent without a receiver");
        assert!(now < call.deadline, "{id} was sent after its deadline");
        let hold = self.held_until.get(&call.model).copied();
        assert!(
            hold.is_none_or(|until| until <= now),
            "{id} was sent during a wait that the provider requested"
        );
        for model in [None, Some(call.model.clone())] {
            let cooldown = self.cooldowns.get(&(key.id.label.clone(), model)).copied();
            assert!(
                cooldown.is_none_or(|until| until <= now),
                "{id} was sent with a key that has a cooldown"
            );
        }
        let target_token = grant.target_token;
        let endpoint_token = grant.endpoint_token;
        assert!(
            call.only_option_now || !target_token.is_forced() && !endpoint_token.is_forced(),
            "{id} was forced although it had another option"
        );
        let target = &self.scheduler.targets[&call.model];
        let is_down = |breaker: &Breaker| breaker.trip_reason() == Some(TripReason::ConsecutiveFailures);
        assert!(
            !target_token.is_forced() || !is_down(&target.breaker),
            "{id} was forced at a target that is down"
        );
        assert!(
            !endpoint_token.is_forced() || !is_down(&self.scheduler.endpoint_breaker),
            "{id} was forced at an endpoint that is down"
        );
        let is_target_probe = |attempt: &&InFlightCall| {
            attempt.grant.model == call.model && attempt.grant.target_token.is_probe()
        };
        if target_token.is_probe() {
            assert!(
                self.in_flight.iter().filter(is_target_probe).all(|attempt| attempt.superseded.0),
                "{id} is a second probe"
            );
        }
        if endpoint_token.is_probe() {
            let mut probes = self.in_flight.iter().filter(|attempt| attempt.grant.endpoint_token.is_probe());
            assert!(probes.all(|attempt| attempt.superseded.1), "{id} is a second probe of the endpoint");
        }
        let is_exempt = target_token.is_probe() || endpoint_token.is_probe();
        let is_unresponsive =
            |target: &Target| target.breaker.trip_reason() == Some(TripReason::Unresponsive);
        // Calls that hang are in flight but do not count against the limit.
        let hung = |target: &Target| target.concurrency.in_flight() - target.concurrency.active();
        let exempt_calls = |target: &Target| {
            if is_unresponsive(target) { target.concurrency.in_flight() } else { hung(target) }
        };
        let exempt_calls: usize = self.scheduler.targets.values().map(exempt_calls).sum();
        let not_counted =
            if target_token.is_forced() || endpoint_token.is_forced() { 0 } else { exempt_calls };
        let bound = self.scheduler.max_in_flight.unwrap_or(usize::MAX);
        assert!(
            is_exempt || self.scheduler.in_flight - not_counted <= bound,
            "{id} exceeds the limit of the provider"
        );
        let limit = target.concurrency.effective_limit(target.is_rate_limited(&self.scheduler.limits));
        assert!(is_exempt || target.concurrency.active() <= limit, "{id} exceeds the limit of its target");
        let model = call.model.clone();
        let cost = grant.reservation.reserved;
        let expected = grant.turn.as_ref().map(Turn::tokens).unwrap();
        self.sent.push(SentCall { id, at: now, model, cost, expected });
        self.in_flight.push(InFlightCall {
            id,
            grant,
            sent_at: now,
            has_headers: false,
            superseded: (false, false),
        });
    }

    pub(super) fn receive_headers(&mut self, which: usize, headers: &RateLimitHeaders, accepted: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let which = which % self.in_flight.len();
        if std::mem::replace(&mut self.in_flight[which].has_headers, true) {
            return;
        }
        if accepted {
            self.accepted_at.insert(self.in_flight[which].grant.model.clone(), self.now);
        }
        let change = self.scheduler.on_headers(&self.in_flight[which].grant, headers, accepted, self.now);
        let target = &self.scheduler.targets[&self.in_flight[which].grant.model];
        assert_ne!(target.breaker.trip_reason(), Some(TripReason::Unresponsive), "it has sent headers");
        self.update_superseded();
        if change.wakes_queue || change.health_changed {
            self.dispatch_ready();
        }
    }

    pub(super) fn end_call(&mut self, which: usize, end: CallEnd) {
        if self.in_flight.is_empty() {
            return;
        }
        let mut attempt = self.in_flight.swap_remove(which % self.in_flight.len());
        // A call is withdrawn only at once.
        let end = match end {
            CallEnd::Withdrawn if attempt.has_headers || attempt.sent_at != self.now => CallEnd::Lost,
            end => end,
        };
        match end {
            CallEnd::Answered(_) | CallEnd::Failed(_) | CallEnd::Lost => {}
            CallEnd::Aborted(abort) => attempt.grant.abort = Some(abort),
            CallEnd::Withdrawn => attempt.grant.is_unsent = true,
        }
        let is_unsent = attempt.grant.is_unsent;
        let result = end.clone().result();
        let charged = attempt.grant.reservation.charged(result.as_ref()).total();
        let is_answered = matches!(result, Some(Ok(_)));
        let expected = attempt.grant.turn.as_ref().map_or(0, Turn::tokens);
        let used = match (is_unsent, is_answered) {
            (true, _) => 0,
            (false, true) => charged,
            (false, false) => charged.max(expected),
        };
        self.ended.push(EndedCall { id: attempt.id, used });
        let took = self.now - attempt.sent_at;
        let has_begun = attempt.has_headers && matches!(result, Some(Ok(_)));
        let first_token = has_begun.then_some(took);
        let ended = result.as_ref().map(|result| CallOutcome { result, took, first_token });
        let change = self.scheduler.release(&attempt.grant, ended.as_ref(), fastrand::f64, self.now);
        self.record_expected_metrics(&attempt.grant.model, &end, change.key_fault);
        let failed = matches!(result, Some(Err(_)));
        if let Some(Err(failure)) = &result {
            self.record_required_wait(&attempt, failure, change.key_fault);
        }
        if let Some(Ok(_)) = &result {
            self.working_keys.insert(attempt.grant.key.label.clone());
            self.assert_closed_by_probe(&attempt);
        }
        self.update_superseded();
        if failed || change.health_changed {
            self.evict();
        }
        if change.health_changed || !self.scheduler.queue.is_empty() {
            self.dispatch_ready();
        }
    }

    /// Records what the end of a call adds to the metrics of its model.
    fn record_expected_metrics(&mut self, model: &ModelName, end: &CallEnd, key_fault: KeyFault) {
        let (outcome, is_possibly_charged) = match end {
            CallEnd::Answered(_) => ("answered", false),
            CallEnd::Failed(failure) => {
                let is_refusal = failure.scope == FailureScope::Unclear && key_fault == KeyFault::Undecided;
                let class = if is_refusal { Class::ApiError } else { failure.class };
                (class.as_str(), failure.charged == Charged::Maybe)
            }
            CallEnd::Lost => ("network_error", true),
            CallEnd::Aborted(Abort::Superseded) => ("superseded", true),
            CallEnd::Aborted(Abort::Cancelled) => ("cancelled", true),
            CallEnd::Withdrawn => {
                self.withdrawn += 1;
                return;
            }
        };
        let expected = self.metrics.entry(model.clone()).or_default();
        *expected.outcomes.entry(outcome).or_default() += 1;
        expected.possibly_charged += u64::from(is_possibly_charged);
        expected.usage += match end.clone().result() {
            Some(Ok(completion)) => completion.usage.unwrap_or_default(),
            Some(Err(failure)) => failure.usage.as_deref().copied().unwrap_or_default(),
            None => Usage::default(),
        };
    }

    /// Asserts that every attempt that was sent and has ended counts with exactly one outcome.
    fn assert_metrics(&self) {
        let mut ended = 0;
        for (model, target) in &self.scheduler.targets {
            let metrics = target.metrics.snapshot();
            let outcomes: BTreeMap<_, _> = metrics.sums.outcomes().filter(|(_, count)| *count > 0).collect();
            let of_target: u64 = outcomes.values().sum();
            assert_eq!((metrics.durations.count(), metrics.queue_times.count()), (of_target, of_target));
            ended += of_target;
            let none = ExpectedMetrics::default();
            let expected = self.metrics.get(model).unwrap_or(&none);
            assert_eq!(outcomes, expected.outcomes, "{model}");
            assert_eq!(metrics.sums.usage, expected.usage, "{model}");
            assert_eq!(metrics.sums.possibly_charged, expected.possibly_charged, "{model}");
        }
        let in_flight = self.in_flight.len() as u64;
        let sent = self.scheduler.calls_sent - self.withdrawn;
        assert_eq!(ended, sent - in_flight, "each attempt counts once");
    }

    /// Records the wait or the cooldown that a failure requires.
    fn record_required_wait(&mut self, attempt: &InFlightCall, failure: &Failure, fault: KeyFault) {
        let grant = &attempt.grant;
        let others_are_accepted = self.accepted_at.get(&grant.model).is_some_and(|at| *at >= attempt.sent_at);
        let day = Duration::from_hours(24);
        let label = &grant.key.label;
        // The verdict on the key may be undecided: if it has worked before, or while other calls with it are in
        // flight.
        if failure.class == Class::Auth && fault == KeyFault::Undecided {
            return;
        }
        let (key, cooldown) = match (failure.class, failure.retry_after) {
            (Class::Quota, Some(wait)) => ((label.clone(), Some(grant.model.clone())), wait.min(day)),
            (Class::Auth | Class::Quota, wait) => {
                ((label.clone(), None), wait.unwrap_or_default().clamp(Duration::from_secs(5), day))
            }
            // While other calls are accepted, the wait applies only to the refused call.
            (Class::Overloaded | Class::ServerError, _) if others_are_accepted => return,
            (Class::RateLimit | Class::Overloaded | Class::ServerError, Some(wait)) if wait < day => {
                let hold = self.held_until.entry(grant.model.clone()).or_insert(self.now);
                *hold = (*hold).max(self.now + wait);
                return;
            }
            _ => return,
        };
        let until = self.cooldowns.entry(key).or_insert(self.now);
        *until = (*until).max(self.now + cooldown);
    }

    fn assert_closed_by_probe(&self, attempt: &InFlightCall) {
        let target = &self.scheduler.targets[&attempt.grant.model];
        if attempt.grant.target_token.is_probe() && !attempt.superseded.0 {
            assert_eq!(target.breaker.state(self.now), BreakerState::Closed, "its probe was answered");
            assert_eq!(target.breaker.trip_reason(), None);
        }
        if attempt.grant.endpoint_token.is_probe() && !attempt.superseded.1 {
            assert_eq!(
                self.scheduler.endpoint_breaker.state(self.now),
                BreakerState::Closed,
                "its probe was answered"
            );
            assert_eq!(self.scheduler.endpoint_breaker.trip_reason(), None);
        }
    }

    pub(super) fn sweep(&mut self) {
        let now = self.now;
        let is_live = |queued: &QueuedCall| !queued.responder.is_closed() && queued.call.deadline > now;
        for queued in self.scheduler.queue.take_unless(is_live) {
            self.record_rejection(&queued, Rejection::Busy { until: now });
        }
        self.scheduler.detect_unresponsive(fastrand::f64, now);
        self.evict();
        for attempt in &mut self.in_flight {
            attempt.superseded.0 |= !attempt.has_headers && now - attempt.sent_at >= MIN_UNRESPONSIVE;
            // The call has connected, or it would have failed.
            attempt.superseded.1 |= now - attempt.sent_at >= MAX_CONNECT_TIME;
        }
        self.update_superseded();
        self.dispatch_ready();
    }

    fn evict(&mut self) {
        for (queued, rejection) in self.scheduler.evict(self.now) {
            assert!(!queued.call.only_option, "it has no other option");
            self.record_rejection(&queued, rejection);
        }
        // No call with another option stays queued for a target whose breaker rejects it.
        for model in self.scheduler.targets.keys().cloned().collect::<Vec<_>>() {
            let target = &self.scheduler.targets[&model];
            let is_rejected = self.scheduler.check_breakers(target, false, self.now).is_err();
            let stuck = self.scheduler.queue.take_unless(|queued| {
                !is_rejected
                    || queued.call.model != model
                    || queued.call.only_option_now
                    || queued.call.only_option
            });
            assert!(stuck.is_empty(), "{} calls are stuck in the queue for {model}", stuck.len());
        }
    }

    /// Marks the probes of closed breakers as superseded.
    fn update_superseded(&mut self) {
        let is_closed = |breaker: &Breaker| breaker.trip_reason().is_none();
        for attempt in &mut self.in_flight {
            attempt.superseded.0 |= is_closed(&self.scheduler.targets[&attempt.grant.model].breaker);
            attempt.superseded.1 |= is_closed(&self.scheduler.endpoint_breaker);
        }
    }

    /// Asserts that the counters match the calls.
    fn assert_consistent(&self) {
        assert_eq!(self.scheduler.in_flight, self.in_flight.len());
        for (model, target) in &self.scheduler.targets {
            let count = self.in_flight.iter().filter(|attempt| attempt.grant.model == *model).count();
            assert_eq!(target.concurrency.in_flight(), count, "{model}");
        }
        assert!(self.scheduler.queue.len() >= self.receivers.len(), "calls were lost");
        assert!(self.scheduler.queue.len() <= self.settings.queue.get(), "the queue exceeds its limit");
        assert_eq!(self.scheduler.queue.calls().count(), self.scheduler.queue.len());
        self.assert_metrics();
    }

    /// Answers all calls until none is queued or in flight, without sweep. Returns the time that this takes.
    pub(super) fn drain(&mut self) -> Duration {
        let began = self.now;
        while !self.scheduler.queue.is_empty() || !self.in_flight.is_empty() {
            let first = self.in_flight.iter().enumerate().min_by_key(|(_, attempt)| attempt.sent_at);
            let due = first.map(|(which, attempt)| (which, (attempt.sent_at + ROUND_TRIP).max(self.now)));
            match (due, self.timer) {
                (Some((_, at)), Some(timer)) if timer < at => self.fire_timer(timer),
                (Some((which, at)), _) => {
                    self.now = at;
                    self.receive_headers(which, &RateLimitHeaders::default(), true);
                    // The headers may cause further calls to be sent, which are added behind this one.
                    self.end_call(which, CallEnd::Answered(Some((10, 10))));
                }
                (None, Some(timer)) => self.fire_timer(timer),
                (None, None) => {
                    panic!("{} calls are queued, and no timer is set", self.scheduler.queue.len())
                }
            }
            self.assert_consistent();
        }
        self.now - began
    }
}

fn id(call: &Call) -> u64 {
    call.prompt.system.as_deref().unwrap().parse().unwrap()
}
