//! Admission with many queued calls and without a network, for `benches/admission.rs`.
//!
//! Not part of the API: compiled only with the feature `bench`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::supervisor::Responder;
use crate::types::{ModelName, Priority, Prompt, RequestContext, RunId, ScopeName};

use super::admission::decision::NextCall;
use super::admission::queue::{Queue, QueueKey};
use super::admission::queued_call::{CallReceiver, IncomingCall};
use super::call::Call;
use super::dispatch::transport;
use super::model::Model;
use super::settings::Settings;
use super::state::{Account, State};

/// The models of the queued calls.
const MODELS: [&str; 3] = ["a", "b", "c"];

/// A queue with a constant number of calls.
#[derive(Debug)]
pub struct QueueBench {
    queue: Queue<usize>,
    source: CallSource,
}

impl QueueBench {
    /// Creates a queue with `queued` calls of `runs` runs.
    pub fn new(queued: usize, runs: usize) -> Self {
        let mut bench = Self { queue: Queue::new(queued + 1), source: CallSource::new(runs) };
        (0..queued).for_each(|_| bench.push());
        bench
    }

    /// Adds one call and removes the next one, which is returned.
    pub fn cycle(&mut self) -> Option<usize> {
        self.push();
        let (ticket, _) = self.queue.next(|_| true)?;
        let (call, turn) = self.queue.take(ticket)?;
        self.queue.finish(&turn, 1);
        Some(call)
    }

    fn push(&mut self) {
        let key = self.source.next();
        self.queue.push(key, self.source.created);
    }
}

/// A provider with a constant number of queued calls.
#[derive(Debug)]
pub struct AdmissionBench {
    state: Arc<State>,
    source: CallSource,
    prompt: Arc<Prompt>,
    /// The receivers of the queued calls, in the order in which the calls are sent.
    receivers: VecDeque<CallReceiver>,
}

impl AdmissionBench {
    /// Creates a provider with `queued` queued calls of `runs` runs. It sends no HTTP requests.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(queued: usize, runs: usize, runtime: Handle) -> Result<Self, transport::Error> {
        let models = MODELS.map(|name| (ModelName::from(name), Model::default())).into();
        let queue = std::num::NonZeroUsize::MIN.saturating_add(queued);
        let settings = Settings { models, queue, ..Settings::default() };
        let account = Account {
            name: "bench".into(),
            settings,
            base_url: "http://127.0.0.1:9".to_owned(),
            keys: Vec::new(),
            headers: HeaderMap::new(),
            budgets: Vec::new(),
        };
        let state = State::new(account, runtime)?;
        let prompt = Arc::new(Prompt::text("How long is the queue?"));
        let mut bench = Self { state, source: CallSource::new(runs), prompt, receivers: VecDeque::new() };
        (0..queued).for_each(|_| bench.submit());
        Ok(bench)
    }

    /// Adds one call, dispatches another one and drops it. Returns whether one was dispatched.
    pub fn cycle(&mut self) -> bool {
        self.submit();
        let is_dispatched = matches!(self.state.next(Instant::now()), NextCall::Ready(_));
        self.receivers.pop_front();
        is_dispatched
    }

    fn submit(&mut self) {
        let QueueKey { model, priority, run, .. } = self.source.next();
        let now = Instant::now();
        let context = RequestContext { run, ..RequestContext::default() };
        let call = Call {
            prompt: self.prompt.clone(),
            model,
            priority,
            context,
            is_retry: false,
            only_option_now: false,
            only_option: true,
            excluded_keys: Vec::new(),
            dispatch_signal: None,
            stream: None,
            budget: None,
            scope_budget: None,
            memory: crate::guard::HeldMemory::default(),
            trace: crate::telemetry::CallTrace::default(),
            deadline: now + Duration::from_hours(24),
        };
        let (responder, receiver) = Responder::channel();
        self.state.enqueue(IncomingCall { call, responder, requested_at: now }, now);
        self.receivers.push_back(receiver);
    }
}

/// Creates calls of several runs in rotation, so that they are sent in the order of their creation.
#[derive(Debug)]
struct CallSource {
    runs: Vec<RunId>,
    models: [ModelName; 3],
    created: usize,
}

impl CallSource {
    fn new(runs: usize) -> Self {
        Self {
            runs: (0..runs).map(|_| RunId::next()).collect(),
            models: MODELS.map(ModelName::from),
            created: 0,
        }
    }

    fn next(&mut self) -> QueueKey {
        let run = self.runs[self.created % self.runs.len()];
        let model = self.models[self.created % self.models.len()].clone();
        self.created += 1;
        QueueKey { model, priority: Priority::Batch, scope: ScopeName::default(), run, rank: 0, tokens: 1 }
    }
}
