//! The handle to the router for callers outside of runs.
//!
//! A handle survives restarts of the router. All clones together have a bounded number of pending requests. At the
//! bound, [`RouterHandle::send`] waits, and the [`Recipient`] for actors rejects requests: a mailbox would take
//! any number of them.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::provider::AnswerStream;
use crate::supervisor::{Deferred, Slot, Supervisor};
use crate::types::{Class, Failure, RequestError, Response};

use super::actor::Router;
use super::client::send_request;
use super::embedding::{EmbeddingRequest, Embeddings};
use super::request::{Request, StreamMode, wait_for_stop};
use super::response_stream::ResponseStream;

/// Maximum number of pending requests of all clones of a handle together.
const MAX_PENDING_REQUESTS: usize = 4096;

/// Sends requests to the router, from any task or actor.
///
/// A clone is cheap. A handle survives restarts of the router, but does not keep
/// Pointsman running: once it has stopped, every request fails with
/// [`Class::Cancelled`].
///
/// At most 4,096 requests of one Pointsman are pending at once, not counting those of runs.
///
/// A response contains the text as the model returned it. Only pipelines check that the text has the
/// [required format](crate::types::ResponseFormat) and ask again.
///
/// ```
/// # #[cfg(feature = "server")]
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
/// # #[cfg(not(feature = "server"))]
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
    pending: Arc<Semaphore>,
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
        let pending = Arc::new(Semaphore::new(MAX_PENDING_REQUESTS));
        let sender = Sender { router, supervisor, draining, runtime, arbiter, pending };
        Self { sender: Arc::new(sender), intake: Arc::default() }
    }

    /// Sends a request and returns its response. While too many requests are pending, it waits, until the deadline
    /// of the request. A request that is lost in a panic is sent once more; the response counts these resends. If
    /// this future is dropped, the request is cancelled.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn send(&self, request: Request) -> Result<Response, Box<RequestError>> {
        let sender = &self.sender;
        if sender.is_stopped() {
            return Err(Box::new(stopped().into()));
        }
        // The request runs on the router's runtime, because the caller's may have no timers or poll seldom. The
        // task ends when the caller drops this future.
        let mut task = JoinSet::new();
        match sender.pending.clone().try_acquire_owned() {
            Ok(permit) => drop(task.spawn_on(sender.send_now(request, permit), &sender.runtime)),
            Err(_) => drop(task.spawn_on(sender.clone().send_when_possible(request), &sender.runtime)),
        }
        let result = task.join_next().await.and_then(Result::ok);
        let result = result.unwrap_or_else(|| Err(Box::new(stopped().maybe_charged().into())));
        sender.after_stop(result)
    }

    /// Sends a request for embeddings and returns its vectors, as [`send`](Self::send) does.
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
        let (writer, reader) = AnswerStream::new(request.stream_mode == StreamMode::Live);
        request.stream = Some(writer);
        let mut task = JoinSet::new();
        let sending = sender.clone();
        let is_stopped = sender.is_stopped();
        let permit = sender.pending.clone().try_acquire_owned();
        let answering = async move {
            let result = match permit {
                _ if is_stopped => Err(Box::new(stopped().into())),
                Ok(permit) => sending.send_now(request, permit).await,
                Err(_) => sending.clone().send_when_possible(request).await,
            };
            sending.after_stop(result)
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
        let pending = MAX_PENDING_REQUESTS - self.sender.pending.available_permits();
        out.debug_struct("RouterHandle")
            .field("router", &self.sender.router)
            .field("pending", &pending)
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Returns whether no request is accepted any more. During a drain, a request could be lost in the router's
    /// mailbox, and it would not be known that it was never sent.
    fn is_stopped(&self) -> bool {
        self.draining.load(Relaxed) || self.has_stopped()
    }

    /// Returns whether the router has stopped permanently.
    fn has_stopped(&self) -> bool {
        self.router.is_retired() || !self.supervisor.connected()
    }

    /// Sends a request that has a permit. It is in the router's mailbox when this function returns.
    fn send_now(
        &self,
        request: Request,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = Result<Response, Box<RequestError>>> + use<> {
        let response = send_request(&self.router, request);
        async move {
            let result = response.await;
            drop(permit);
            result
        }
    }

    /// Sends a request as soon as fewer requests are pending.
    async fn send_when_possible(self: Arc<Self>, request: Request) -> Result<Response, Box<RequestError>> {
        let permit = tokio::select! {
            permit = timeout_at(request.deadline, self.pending.clone().acquire_owned()) => permit,
            () = wait_for_stop(request.stop.clone()) => return Err(Box::new(stopped().into())),
        };
        match permit {
            Ok(Ok(_)) if self.is_stopped() => Err(Box::new(stopped().into())),
            Ok(Ok(permit)) => self.send_now(request, permit).await,
            // The semaphore is never closed.
            Ok(Err(_)) => Err(Box::new(stopped().into())),
            Err(_) => {
                let message =
                    format!("the deadline passed while {MAX_PENDING_REQUESTS} other requests were pending");
                Err(Box::new(Failure::new(Class::Deadline, message).into()))
            }
        }
    }

    /// Returns `result`, with the failure of a request that was lost in the shutdown replaced.
    fn after_stop(
        &self,
        mut result: Result<Response, Box<RequestError>>,
    ) -> Result<Response, Box<RequestError>> {
        if let Err(RequestError { failure, resends, .. }) = result.as_mut().map_err(|error| &mut **error)
            && failure.class == Class::Internal
            && self.has_stopped()
        {
            *failure = if *resends > 0 { stopped().maybe_charged() } else { stopped() };
        }
        result
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

    fn handle(&mut self, request: Request, _: &mut Self::Context) -> Self::Result {
        let sender = self.sender.clone();
        Deferred::new(move |mut responder| {
            let failure = if sender.is_stopped() {
                stopped()
            } else if let Ok(permit) = sender.pending.clone().try_acquire_owned() {
                let response = sender.send_now(request, permit);
                let runtime = sender.runtime.clone();
                drop(runtime.spawn(async move {
                    tokio::select! {
                        result = response => responder.send(sender.after_stop(result)),
                        () = responder.closed() => {}
                    }
                }));
                return;
            } else {
                let message =
                    format!("{MAX_PENDING_REQUESTS} requests are pending, and no more are accepted");
                Failure::new(Class::Overloaded, message)
            };
            responder.send(Err(Box::new(failure.into())));
        })
    }
}
