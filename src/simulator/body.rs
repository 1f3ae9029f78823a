//! Body of a response: sent at once, or step by step with waits and with the endings of faults.
//!
//! The body owns the [`RequestScope`] of its call, so the call is in flight until its last byte is passed to
//! hyper.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::request_scope::RequestScope;

/// One step of a body that is not sent at once.
#[derive(Debug)]
pub(super) enum BodyStep {
    /// Waits until this instant.
    WaitUntil(Instant),
    /// Sends these bytes.
    Send(Bytes),
    /// Aborts the connection after the bytes sent so far.
    Abort,
    /// Keeps the connection open without sending anything.
    Stall,
}

/// Body of a response.
pub(super) struct Body {
    content: Payload,
    /// Content-Length of the header. A body that is cut by a fault is shorter.
    length: Option<u64>,
    scope: Option<RequestScope>,
}

enum Payload {
    Once(Option<Bytes>),
    Script { steps: std::vec::IntoIter<BodyStep>, sleep: Option<Pin<Box<Sleep>>>, flushed: bool },
}

/// Error that makes hyper abort the connection.
#[derive(Debug)]
pub(super) struct ConnectionAborted;

impl fmt::Display for ConnectionAborted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the simulator aborted the connection as configured")
    }
}

impl std::error::Error for ConnectionAborted {}

impl From<Infallible> for ConnectionAborted {
    fn from(infallible: Infallible) -> Self {
        match infallible {}
    }
}

impl Body {
    /// Creates a body of known length.
    pub(super) fn full(bytes: impl Into<Bytes>, scope: Option<RequestScope>) -> Self {
        let bytes = bytes.into();
        let length = Some(bytes.len() as u64);
        Self { content: Payload::Once(Some(bytes)), length, scope }
    }

    /// Creates a body of unknown length that is sent at once.
    pub(super) fn stream(bytes: Bytes, scope: RequestScope) -> Self {
        Self { content: Payload::Once(Some(bytes)), length: None, scope: Some(scope) }
    }

    /// Creates a body that executes `steps`. `length` is the Content-Length of the header.
    pub(super) fn scripted(steps: Vec<BodyStep>, length: Option<u64>, scope: RequestScope) -> Self {
        let content = Payload::Script { steps: steps.into_iter(), sleep: None, flushed: false };
        Self { content, length, scope: Some(scope) }
    }

    fn finish(&mut self) {
        if let Some(scope) = self.scope.take() {
            scope.finish();
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = ConnectionAborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionAborted>>> {
        let this = &mut *self;
        let sent = match &mut this.content {
            Payload::Once(bytes) => bytes.take(),
            Payload::Script { steps, sleep, flushed } => loop {
                if let Some(timer) = sleep {
                    ready!(timer.as_mut().poll(cx));
                    *sleep = None;
                }
                match steps.as_slice().first() {
                    None => break None,
                    Some(BodyStep::WaitUntil(deadline)) => {
                        *sleep = Some(Box::pin(tokio::time::sleep_until(*deadline)))
                    }
                    Some(BodyStep::Stall) => return Poll::Pending,
                    Some(BodyStep::Abort) if !*flushed => {
                        // Bytes sent before must reach the client: hyper flushes when a body is pending.
                        *flushed = true;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Some(BodyStep::Abort) => return Poll::Ready(Some(Err(ConnectionAborted))),
                    Some(BodyStep::Send(_)) => {}
                }
                if let Some(BodyStep::Send(bytes)) = steps.next() {
                    break Some(bytes);
                }
            },
        };
        let is_last = match &this.content {
            Payload::Once(_) => true,
            Payload::Script { steps, .. } => steps.as_slice().is_empty(),
        };
        if is_last {
            // Before the last bytes are sent, so that a client that received all of them is already counted.
            this.finish();
        } else if let Some(scope) = this.scope.as_mut().filter(|_| sent.is_some()) {
            scope.charge_until(Instant::now());
        }
        Poll::Ready(sent.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Payload::Once(bytes) => bytes.is_none(),
            Payload::Script { steps, .. } => steps.as_slice().is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
