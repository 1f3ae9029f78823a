//! A reply's body: sent at once, or piece by piece with waits, and with the ends that faults want.
//!
//! It holds the visit that it answers, so a call counts as in flight until its last byte was handed over.
//! It never starts a task.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::visit::Visit;

/// What happens next in a body that is not sent at once.
#[derive(Debug)]
pub(super) enum Step {
    /// Waits until then.
    Until(Instant),
    /// Sends these bytes.
    Send(Bytes),
    /// Breaks the connection after what was sent.
    Break,
    /// Keeps the connection open for ever.
    Hang,
}

/// A body.
pub(super) struct Body {
    content: Content,
    /// The length that the head promises, which a cut body does not keep.
    length: Option<u64>,
    visit: Option<Visit>,
}

enum Content {
    Once(Option<Bytes>),
    Script { steps: std::vec::IntoIter<Step>, sleep: Option<Pin<Box<Sleep>>>, flushed: bool },
}

/// The connection is to be broken now.
#[derive(Debug)]
pub(super) struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the simulator broke the connection on purpose")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Body {
    /// Makes a body of known length.
    pub(super) fn whole(bytes: impl Into<Bytes>, visit: Option<Visit>) -> Self {
        let bytes = bytes.into();
        let length = Some(bytes.len() as u64);
        Self { content: Content::Once(Some(bytes)), length, visit }
    }

    /// Makes a body of unknown length that is there at once.
    pub(super) fn stream(bytes: Bytes, visit: Visit) -> Self {
        Self { content: Content::Once(Some(bytes)), length: None, visit: Some(visit) }
    }

    /// Makes a body that follows a script; `length` is what the head promises.
    pub(super) fn script(steps: Vec<Step>, length: Option<u64>, visit: Visit) -> Self {
        let content = Content::Script { steps: steps.into_iter(), sleep: None, flushed: false };
        Self { content, length, visit: Some(visit) }
    }

    fn finish(&mut self) {
        if let Some(visit) = self.visit.take() {
            visit.finish();
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let sent = match &mut this.content {
            Content::Once(bytes) => bytes.take(),
            Content::Script { steps, sleep, flushed } => loop {
                if let Some(timer) = sleep {
                    ready!(timer.as_mut().poll(cx));
                    *sleep = None;
                }
                match steps.as_slice().first() {
                    None => break None,
                    Some(Step::Until(then)) => *sleep = Some(Box::pin(tokio::time::sleep_until(*then))),
                    Some(Step::Hang) => return Poll::Pending,
                    Some(Step::Break) if !*flushed => {
                        // What was sent before must reach the client: hyper flushes when a body has nothing.
                        *flushed = true;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Some(Step::Break) => return Poll::Ready(Some(Err(Broken))),
                    Some(Step::Send(_)) => {}
                }
                if let Some(Step::Send(bytes)) = steps.next() {
                    break Some(bytes);
                }
            },
        };
        let last = match &this.content {
            Content::Once(_) => true,
            Content::Script { steps, .. } => steps.as_slice().is_empty(),
        };
        if last {
            // Before the bytes leave, so that a client that has them all finds itself counted.
            this.finish();
        } else if let Some(visit) = this.visit.as_mut().filter(|_| sent.is_some()) {
            visit.charge(Instant::now());
        }
        Poll::Ready(sent.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Once(bytes) => bytes.is_none(),
            Content::Script { steps, .. } => steps.as_slice().is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
