//! Server-sent events of a streamed response, and the buffer of the incomplete event.
//!
//! Takes chunks and returns events, without waiting. The decoder interprets the events.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use sse_stream::{Sse, SseByteStream};

use crate::types::{Cause, Class, Failure};

use super::response_limit::{MAX_EVENT_BYTES, too_large};

/// Maximum bytes between two parts of the answer, such as pings. An hour of pings, one per second, may have a
/// kilobyte each.
const MAX_BYTES_WITHOUT_ANSWER: usize = 4 << 20;

/// Maximum events between two parts of the answer: a day of pings, one per second. Reading an event costs more
/// than its bytes suggest.
const MAX_EVENTS_WITHOUT_ANSWER: usize = 100_000;

/// Splits a stream into its events.
pub(in crate::provider) struct EventStream {
    next_chunk: NextChunk,
    events: SseByteStream<NextChunk>,
    /// Bytes since the end of the last event.
    incomplete_bytes: usize,
    /// Bytes since the last part of the answer.
    bytes_without_answer: usize,
    /// Events since the last part of the answer.
    events_without_answer: usize,
}

/// The chunk to read next.
#[derive(Clone, Default)]
struct NextChunk(Arc<Mutex<Option<Bytes>>>);

impl NextChunk {
    fn replace(&self, chunk: Option<Bytes>) -> Option<Bytes> {
        std::mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), chunk)
    }
}

impl Stream for NextChunk {
    type Item = Result<Bytes, std::convert::Infallible>;

    /// No task is woken: the stream is polled again after a chunk was added.
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.replace(None).map_or(Poll::Pending, |chunk| Poll::Ready(Some(Ok(chunk))))
    }
}

impl Default for EventStream {
    fn default() -> Self {
        let next_chunk = NextChunk::default();
        let events = SseByteStream::new(next_chunk.clone());
        Self { next_chunk, events, incomplete_bytes: 0, bytes_without_answer: 0, events_without_answer: 0 }
    }
}

impl EventStream {
    /// Adds the next chunk. The caller has taken all events before it.
    ///
    /// # Errors
    /// `unreadable` when the incomplete event exceeds [`MAX_EVENT_BYTES`].
    pub(in crate::provider) fn push(&mut self, chunk: Bytes) -> Result<(), Failure> {
        if self.incomplete_bytes > MAX_EVENT_BYTES {
            return Err(too_large("an event of the response", MAX_EVENT_BYTES));
        }
        self.incomplete_bytes += chunk.len();
        self.bytes_without_answer += chunk.len();
        self.next_chunk.replace(Some(chunk));
        Ok(())
    }

    /// Records the regular end of the body, which completes its last event. The caller has taken all events
    /// before it.
    ///
    /// # Errors
    /// `unreadable` when the last event exceeds [`MAX_EVENT_BYTES`].
    pub(in crate::provider) fn finish(&mut self) -> Result<(), Failure> {
        self.push(Bytes::from_static(b"\n\n"))
    }

    /// Returns the buffered bytes of the incomplete event.
    pub(in crate::provider) fn held_bytes(&self) -> usize {
        self.incomplete_bytes
    }

    /// Returns the next complete event.
    ///
    /// # Errors
    /// `unreadable` when the stream is malformed.
    pub(in crate::provider) fn next(&mut self) -> Result<Option<Sse>, Failure> {
        let Some(Some(event)) = self.events.next().now_or_never() else { return Ok(None) };
        self.incomplete_bytes = 0;
        self.events_without_answer += 1;
        let unreadable =
            |error| Failure::new(Class::Unreadable, format!("the stream is broken: {error}")).maybe_charged();
        event.map(Some).map_err(unreadable)
    }

    /// Records that the last event was a part of the answer.
    pub(in crate::provider) fn on_content(&mut self) {
        self.bytes_without_answer = 0;
        self.events_without_answer = 0;
    }

    /// Checks an event that was not a part of the answer.
    ///
    /// # Errors
    /// `unreadable` when too many bytes or events were received since the last part of the answer.
    pub(in crate::provider) fn on_other_event(&self) -> Result<(), Failure> {
        let exceeded = if self.bytes_without_answer > MAX_BYTES_WITHOUT_ANSWER {
            format!("{} MiB", MAX_BYTES_WITHOUT_ANSWER >> 20)
        } else if self.events_without_answer > MAX_EVENTS_WITHOUT_ANSWER {
            format!("{MAX_EVENTS_WITHOUT_ANSWER} events")
        } else {
            return Ok(());
        };
        let message = format!("more than {exceeded} came without a part of the answer, unpacked");
        Err(Failure::new(Class::Unreadable, message).with_cause(Cause::ResponseTooLarge).maybe_charged())
    }
}
