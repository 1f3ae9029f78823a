//! The handle to the router for callers outside of runs.
//!
//! A handle survives restarts of the router. All clones together have a bounded number of pending requests. At the
//! bound, [`RouterHandle::send`] waits. [`RouterHandle::try_send`] and the [`Recipient`] for actors reject requests: a
//! mailbox would take any number of them. Requests that wait for the limits of their scope are not pending yet: the
//! queue of the scope bounds them. Scopes share the bound, so that one does not use it up
//! (`src/router/pending_requests.rs`).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use futures_util::future::Either;
use tokio::runtime::Handle as Runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::provider::AnswerStream;
use crate::supervisor::{Deferred, Slot, Supervisor};
use crate::types::{Class, Failure, RequestError, Response};

use super::actor::Router;
use super::client::{WaitBound, admit_request, settle};
use super::completion_interval::CompletionInterval;
use super::embedding::{EmbeddingRequest, Embeddings};
use super::embedding_batch::EmbeddingBatcher;
use super::pending_requests::{PendingPermit, PendingRequests};
use super::provider_time::TimedResult;
use super::request::{Request, StreamMode};
use super::request_metrics::{RequestMetrics, RequestTimer};
use super::response_stream::ResponseStream;
use super::scope::Scopes;
use super::shared_routes::SharedRoutes;
use super::stop_signal::wait_for_stop;

/// Maximum number of pending requests of all clones of a handle together. If several scopes want more, a tenth is added.
const MAX_PENDING_REQUESTS: usize = 4096;

/// Sends requests to the router, from any task or actor.
///
/// A clone is cheap. A handle survives restarts of the router, but does not keep
/// Pointsman running: once it has stopped, every request fails with
/// [`Class::Cancelled`].
///
/// About 4,096 requests of one Pointsman are pending at once, not counting those of runs. [Scopes](Request::with_scope)
/// share them: however many requests one scope sends, another finds a place.
///
/// A response contains the text as the model returned it. Only pipelines check that the text has the
/// [required format](crate::types::ResponseFormat) and ask again.
///
/// ```
/// # #[cfg(feature = "simulator")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use pointsman::{Config, Pointsman, Request};
///
/// let config = Config::from_toml("[provider.demo]\nbase_url = 'simulator'")?;
/// let pointsman = Pointsman::start_blocking(&config)?;
/// let router = pointsman.router();
/// pointsman.runtime().block_on(async move {
///     let request = Request::new("default", "Say hello.");
///     let response = router.send(request).await?;
///     println!("{}: {}", response.target, response.text());
///     Ok(())
/// })
/// # }
/// # #[cfg(not(feature = "simulator"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct RouterHandle {
    sender: Arc<Sender>,
    /// The actor behind [`recipient`](Self::recipient), started when it is first needed.
    intake: Arc<Mutex<Option<Addr<Intake>>>>,
}

/// What the handle and its actor send requests with.
struct Sender {
    router: Slot<Router>,
    supervisor: Addr<Supervisor>,
    /// Whether Pointsman is stopping for good.
    draining: Arc<AtomicBool>,
    runtime: Runtime,
    arbiter: ArbiterHandle,
    pending: Arc<PendingRequests>,
    embeddings: Arc<EmbeddingBatcher>,
    scopes: Arc<Scopes>,
    completions: CompletionInterval,
    metrics: Option<Arc<RequestMetrics>>,
}

/// What happens to a request while [`MAX_PENDING_REQUESTS`] are pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// It waits, until its deadline.
    Wait,
    /// It fails at once.
    Fail,
}

impl RouterHandle {
    /// Creates the handle of the router in `router`. Requests run on `runtime`; the actor behind
    /// [`recipient`](Self::recipient) runs on `arbiter`.
    #[doc(hidden)]
    pub fn new(
        router: Slot<Router>,
        supervisor: Addr<Supervisor>,
        draining: Arc<AtomicBool>,
        runtime: Runtime,
        arbiter: ArbiterHandle,
    ) -> Self {
        let pending = PendingRequests::new(MAX_PENDING_REQUESTS);
        let embeddings = EmbeddingBatcher::new(SharedRoutes::default());
        let scopes = Arc::default();
        let completions = CompletionInterval::new(Instant::now());
        let sender = Sender {
            router,
            supervisor,
            draining,
            runtime,
            arbiter,
            pending,
            embeddings,
            scopes,
            completions,
            metrics: None,
        };
        Self { sender: Arc::new(sender), intake: Arc::default() }
    }

    /// Joins requests for embeddings with `embeddings`. Without it, each is sent alone. It has no effect on a handle
    /// that was cloned.
    #[doc(hidden)]
    #[must_use]
    pub fn with_embedding_batcher(mut self, embeddings: Arc<EmbeddingBatcher>) -> Self {
        if let Some(sender) = Arc::get_mut(&mut self.sender) {
            sender.embeddings = embeddings;
        }
        self
    }

    /// Sets the limits and budgets of the scopes of requests. It has no effect on a handle that was cloned.
    #[doc(hidden)]
    #[must_use]
    pub fn with_scopes(mut self, scopes: Arc<Scopes>) -> Self {
        if let Some(sender) = Arc::get_mut(&mut self.sender) {
            sender.scopes = scopes;
        }
        self
    }

    /// Counts its requests in `metrics`. It has no effect on a handle that was cloned.
    #[doc(hidden)]
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<RequestMetrics>) -> Self {
        if let Some(sender) = Arc::get_mut(&mut self.sender) {
            sender.metrics = Some(metrics);
        }
        self
    }

    /// Sends a request and returns its response. While too many requests are pending, it waits, until the deadline
    /// of the request. A request that is lost in a panic is sent once more; the response counts these resends. If
    /// this future is dropped, the request is cancelled.
    ///
    /// If the [scope](Request::with_scope) of the request is at its limits, the request waits in the queue of the scope. It
    /// fails at once with [`Class::RateLimit`] if that queue is full or the expected wait exceeds the deadline.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn send(&self, request: Request) -> Result<Response, Box<RequestError>> {
        self.send_or(request, WaitBound::Deadline, WhenFull::Wait).await
    }

    /// Sends a request as [`send`](Self::send) does, but does not wait before it is sent. While too many requests are
    /// pending, it fails at once with [`Class::Overloaded`]. If the [scope](Request::with_scope) of the request does not
    /// admit it at once, it fails with [`Class::RateLimit`]. `retry_after` of the failure is the expected wait.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn try_send(&self, request: Request) -> Result<Response, Box<RequestError>> {
        self.send_or(request, WaitBound::NoWait, WhenFull::Fail).await
    }

    async fn send_or(
        &self,
        mut request: Request,
        wait_for_scope: WaitBound,
        when_full: WhenFull,
    ) -> Result<Response, Box<RequestError>> {
        let sender = &self.sender;
        let timer = sender.start_timer(&mut request);
        if sender.is_stopped() {
            return timer.end(TimedResult::from_failure(stopped()));
        }
        let request = sender.with_scope_limits(request);
        // The request runs on the router's runtime, because the caller's may have no timers or poll seldom. The
        // task ends when the caller drops this future.
        let mut task = JoinSet::new();
        match sender.try_acquire(&request) {
            Some(permit) => drop(task.spawn_on(sender.send_now(request, permit), &sender.runtime)),
            None => {
                let sending = sender.clone().send_when_possible(request, wait_for_scope, when_full);
                drop(task.spawn_on(sending, &sender.runtime));
            }
        }
        let timed = task.join_next().await.and_then(Result::ok);
        let lost = || TimedResult::unknown(Err(Box::new(stopped().maybe_charged().into())));
        timer.end(sender.after_stop(timed.unwrap_or_else(lost)))
    }

    /// Sends a request for embeddings and returns its vectors, as [`send`](Self::send) does.
    ///
    /// Requests with few inputs that arrive within 20 ms are joined into one call, if they have the same route, options,
    /// user and priority. Each gets its own vectors and its part of the tokens and the cost. If the provider refuses a
    /// joined call because of its contents, it is divided, so that only the request with the invalid input fails.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn embed(&self, request: EmbeddingRequest) -> Result<Embeddings, Box<RequestError>> {
        self.send(request.into()).await.map(Embeddings::from)
    }

    /// Sends a request and returns its answer as a stream. While too many requests are pending, it waits as
    /// [`send`](Self::send) does. Dropping the stream cancels the request.
    pub fn stream(&self, mut request: Request) -> ResponseStream {
        let sender = &self.sender;
        let timer = sender.start_timer(&mut request);
        let (writer, reader) = AnswerStream::new(request.stream_mode == StreamMode::Live);
        request.stream = Some(writer);
        let request = sender.with_scope_limits(request);
        let mut task = JoinSet::new();
        let sending = sender.clone();
        let is_stopped = sender.is_stopped();
        let permit = sender.try_acquire(&request);
        let answering = async move {
            let timed = match permit {
                _ if is_stopped => TimedResult::from_failure(stopped()),
                Some(permit) => sending.send_now(request, permit).await,
                None => {
                    let sending = sending.clone();
                    sending.send_when_possible(request, WaitBound::Deadline, WhenFull::Wait).await
                }
            };
            timer.end(sending.after_stop(timed))
        };
        task.spawn_on(answering, &sender.runtime);
        ResponseStream::new(reader, task)
    }

    /// Returns a recipient for actors, which answers as [`send`](Self::send) does. When too many requests are
    /// pending, it answers with [`Class::Overloaded`] instead of waiting, because the number of waiting messages
    /// would have no bound.
    ///
    /// The recipient survives restarts of the router. Once Pointsman has stopped, it answers with
    /// [`Class::Cancelled`] or is closed.
    ///
    /// ```
    /// use actix::prelude::*;
    /// use pointsman::{Request, RouterHandle};
    ///
    /// struct Greeter {
    ///     requests: Recipient<Request>,
    /// }
    ///
    /// impl Greeter {
    ///     fn new(router: &RouterHandle) -> Self {
    ///         Self { requests: router.recipient() }
    ///     }
    /// }
    /// ```
    pub fn recipient(&self) -> Recipient<Request> {
        let mut intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = intake.take().filter(Addr::connected);
        let address = connected.unwrap_or_else(|| {
            let sender = self.sender.clone();
            Intake::start_in_arbiter(&self.sender.arbiter, move |_| Intake { sender })
        });
        intake.insert(address).clone().recipient()
    }
}

impl fmt::Debug for RouterHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self.sender.pending.len();
        out.debug_struct("RouterHandle")
            .field("router", &self.sender.router)
            .field("pending", &pending)
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Starts to measure and to trace a request.
    fn start_timer(&self, request: &mut Request) -> RequestTimer {
        RequestTimer::start(self.metrics.as_ref(), request)
    }

    /// Returns whether no request is accepted any more. During a drain, a request could be lost in the router's
    /// mailbox, and it would not be known that it was never sent.
    fn is_stopped(&self) -> bool {
        self.draining.load(Relaxed) || self.has_stopped()
    }

    /// Returns whether the router has stopped permanently.
    fn has_stopped(&self) -> bool {
        self.router.is_retired() || !self.supervisor.connected()
    }

    /// Sends a request that has a permit. It is in the router's mailbox when this function returns, unless it is joined
    /// with others.
    fn send_now(
        self: &Arc<Self>,
        request: Request,
        permit: PendingPermit,
    ) -> impl Future<Output = TimedResult> + use<> {
        let response = self.embeddings.send_timed(&self.router, request);
        let sender = self.clone();
        async move {
            let timed = response.await;
            sender.completions.record_end(Instant::now());
            drop(permit);
            timed
        }
    }

    /// Sets the limits and the budget of the request's scope.
    fn with_scope_limits(&self, request: Request) -> Request {
        let scope_limits = self.scopes.get(&request.context.scope);
        request.with_scope_limits(scope_limits)
    }

    /// Returns a permit for a request that can be sent at once; `None` if too many are pending, or its scope must admit
    /// it first.
    fn try_acquire(&self, request: &Request) -> Option<PendingPermit> {
        match request.limited_scope() {
            Some(_) => None,
            None => self.pending.try_acquire(&request.context.scope),
        }
    }

    /// Sends a request as soon as its scope admits it and fewer requests are pending.
    async fn send_when_possible(
        self: Arc<Self>,
        mut request: Request,
        wait_for_scope: WaitBound,
        when_full: WhenFull,
    ) -> TimedResult {
        let waits_since = Instant::now();
        let admitted = admit_request(&self.router, &mut request, wait_for_scope).await;
        let waited = waits_since.elapsed();
        let scope_permit = match admitted {
            Ok(permit) => permit,
            Err(error) => return TimedResult { result: Err(error), provider_time: Some(waited) },
        };
        let timed = self.send_when_not_full(request, when_full).await;
        settle(scope_permit, &timed.result);
        timed.after_wait(waited)
    }

    /// Sends a request as soon as fewer requests are pending.
    async fn send_when_not_full(self: Arc<Self>, request: Request, when_full: WhenFull) -> TimedResult {
        let waits_since = Instant::now();
        let acquired = match self.pending.try_acquire(&request.context.scope) {
            Some(permit) => Ok(permit),
            None => match when_full {
                WhenFull::Wait => self.acquire(&request).await,
                WhenFull::Fail => Err(self.overloaded()),
            },
        };
        let waited = waits_since.elapsed();
        let timed = match acquired {
            Ok(_) if self.is_stopped() => TimedResult::from_failure(stopped()),
            Ok(permit) => self.send_now(request, permit).await,
            Err(failure) => TimedResult::from_failure(failure),
        };
        timed.after_wait(waited)
    }

    /// Waits until fewer requests are pending.
    async fn acquire(&self, request: &Request) -> Result<PendingPermit, Failure> {
        let permit = tokio::select! {
            permit = timeout_at(request.deadline, self.pending.acquire(&request.context.scope)) => permit,
            () = wait_for_stop(request.stop.clone()) => return Err(stopped()),
        };
        permit.map_err(|_| {
            let pending = self.pending.len();
            Failure::new(
                Class::Deadline,
                format!("the deadline passed while {pending} other requests were pending"),
            )
        })
    }

    /// Returns the failure of a request that is not accepted because too many are pending.
    fn overloaded(&self) -> Failure {
        let wait = self.completions.expected_wait();
        let message = format!(
            "{} requests are pending, and no more are accepted: expected wait {} ms",
            self.pending.len(),
            wait.as_millis()
        );
        Failure { retry_after: Some(wait), ..Failure::new(Class::Overloaded, message) }
    }

    /// Returns a result, with the failure of a request that was lost in the shutdown replaced.
    fn after_stop(&self, mut timed: TimedResult) -> TimedResult {
        let result = timed.result.as_mut().map_err(|error| &mut **error);
        if let Err(RequestError { failure, resends, .. }) = result
            && failure.class == Class::Internal
            && self.has_stopped()
        {
            *failure = if *resends > 0 { stopped().maybe_charged() } else { stopped() };
        }
        timed
    }
}

fn stopped() -> Failure {
    Failure::new(Class::Cancelled, "pointsman has stopped")
}

/// Receives the requests of actors. It has no state, so it needs no restart: the handle starts another one.
struct Intake {
    sender: Arc<Sender>,
}

impl Actor for Intake {
    type Context = Context<Self>;
}

impl Handler<Request> for Intake {
    type Result = Deferred<<Request as Message>::Result>;

    fn handle(&mut self, mut request: Request, _: &mut Self::Context) -> Self::Result {
        let sender = self.sender.clone();
        Deferred::new(move |mut responder| {
            let timer = sender.start_timer(&mut request);
            let request = sender.with_scope_limits(request);
            let response = if sender.is_stopped() {
                return responder.send(timer.end(TimedResult::from_failure(stopped())));
            } else if let Some(permit) = sender.try_acquire(&request) {
                Either::Left(sender.send_now(request, permit))
            } else if request.limited_scope().is_some() {
                let sender = sender.clone();
                Either::Right(sender.send_when_possible(request, WaitBound::Deadline, WhenFull::Fail))
            } else {
                return responder.send(timer.end(TimedResult::from_failure(sender.overloaded())));
            };
            let runtime = sender.runtime.clone();
            drop(runtime.spawn(async move {
                tokio::select! {
                    timed = response => responder.send(timer.end(sender.after_stop(timed))),
                    () = responder.closed() => {}
                }
            }));
        })
    }
}

#[cfg(test)]
mod tests;
