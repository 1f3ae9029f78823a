//! The events of a streamed reply, and what is held of the one whose end has not come.
//!
//! Pieces go in, events come out; it never waits. Decides nothing about what an event means.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use sse_stream::{Sse, SseByteStream};

use crate::types::{Cause, Class, Failure};

use super::reply_limit::{MAX_EVENT_BYTES, too_large};

/// Most bytes that come between two parts of the answer, such as pings. Beside an hour of pings, one a second, each
/// may have a kilobyte.
const MAX_BYTES_WITHOUT_ANSWER: usize = 4 << 20;

/// Most events that come between two parts of the answer: a day of pings, one a second. To read an event costs more than
/// its bytes.
const MAX_EVENTS_WITHOUT_ANSWER: usize = 100_000;

/// Cuts a stream into its events.
pub(super) struct Events {
    next_piece: NextPiece,
    events: SseByteStream<NextPiece>,
    /// Bytes since the end of the last event.
    unfinished: usize,
    /// Bytes since the last part of the answer.
    without_answer: usize,
    /// Events since then.
    events_without_answer: usize,
}

/// The piece that is to be read next.
#[derive(Clone, Default)]
struct NextPiece(Arc<Mutex<Option<Bytes>>>);

impl NextPiece {
    fn replace(&self, piece: Option<Bytes>) -> Option<Bytes> {
        std::mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), piece)
    }
}

impl Stream for NextPiece {
    type Item = Result<Bytes, std::convert::Infallible>;

    /// Nobody is woken: it is looked at again when a piece was added.
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.replace(None).map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(piece))))
    }
}

impl Default for Events {
    fn default() -> Self {
        let next_piece = NextPiece::default();
        let events = SseByteStream::new(next_piece.clone());
        Self { next_piece, events, unfinished: 0, without_answer: 0, events_without_answer: 0 }
    }
}

impl Events {
    /// Takes the next piece. The events before it have all been taken out.
    ///
    /// # Errors
    /// `unreadable` when the event that it belongs to is longer than any.
    pub(super) fn add(&mut self, piece: Bytes) -> Result<(), Failure> {
        if self.unfinished > MAX_EVENT_BYTES {
            return Err(too_large("an event of the reply", MAX_EVENT_BYTES));
        }
        self.unfinished += piece.len();
        self.without_answer += piece.len();
        self.next_piece.replace(Some(piece));
        Ok(())
    }

    /// Notes that the body has ended as it should, which ends its last event. The events before it have all been taken
    /// out.
    ///
    /// # Errors
    /// `unreadable` when the event is longer than any.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        self.add(Bytes::from_static(b"\n\n"))
    }

    /// Returns how many bytes are held of an event whose end has not come.
    pub(super) fn held_bytes(&self) -> usize {
        self.unfinished
    }

    /// Returns the next event that is there whole.
    ///
    /// # Errors
    /// `unreadable` when the stream is broken.
    pub(super) fn next(&mut self) -> Result<Option<Sse>, Failure> {
        let Some(Some(event)) = self.events.next().now_or_never() else { return Ok(None) };
        self.unfinished = 0;
        self.events_without_answer += 1;
        let broken =
            |error| Failure::new(Class::Unreadable, format!("the stream is broken: {error}")).maybe_charged();
        event.map(Some).map_err(broken)
    }

    /// Notes that the last event was a part of the answer.
    pub(super) fn answered(&mut self) {
        self.without_answer = 0;
        self.events_without_answer = 0;
    }

    /// Notes that the last event was no part of the answer.
    ///
    /// # Errors
    /// `unreadable` when too much has come since the last that was.
    pub(super) fn waited(&self) -> Result<(), Failure> {
        let most = if self.without_answer > MAX_BYTES_WITHOUT_ANSWER {
            format!("{} MiB", MAX_BYTES_WITHOUT_ANSWER >> 20)
        } else if self.events_without_answer > MAX_EVENTS_WITHOUT_ANSWER {
            format!("{MAX_EVENTS_WITHOUT_ANSWER} events")
        } else {
            return Ok(());
        };
        let message = format!("more than {most} came without a part of the answer, unpacked");
        Err(Failure::new(Class::Unreadable, message).because(Cause::TooLarge).maybe_charged())
    }
}
