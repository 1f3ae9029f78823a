//! The way of a streamed answer from the call that gives it to the reader.
//!
//! Several calls may try to answer a request: retries, failovers and hedges. The first one that writes *commits* the
//! stream to itself. From then on no other call can write, and a failure of the call ends the request.
//!
//! The buffer is bounded by bytes. A call whose reader is slow waits at the bound and does not read its connection, so
//! that the provider's socket fills. Short answers fit into the buffer, so that a slow reader does not occupy a slot
//! of the provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{Semaphore, SetOnce, mpsc};

use crate::types::{StreamEvent, TargetName};

/// Maximum bytes that the reader of a stream has not taken: an answer of about 4,000 tokens, each in its own event.
const MAX_BUFFERED_BYTES: usize = 256 << 10;

/// What an event counts in addition to its text.
const EVENT_BYTES: usize = 64;

/// The writing end of a stream, shared by all calls of its request.
#[derive(Debug, Clone)]
pub struct AnswerStream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    events: mpsc::UnboundedSender<BufferedEvent>,
    /// The bytes that may still be buffered.
    free: Arc<Semaphore>,
    /// The call that answers.
    committed: SetOnce<u64>,
    last_writer: AtomicU64,
    is_live: bool,
}

#[derive(Debug)]
struct BufferedEvent {
    event: StreamEvent,
    bytes: u32,
}

/// The reading end of a stream.
#[derive(Debug)]
pub struct AnswerReader {
    events: mpsc::UnboundedReceiver<BufferedEvent>,
    free: Arc<Semaphore>,
}

/// Writes the answer of one call.
#[derive(Debug, Clone)]
pub struct AnswerWriter {
    stream: AnswerStream,
    /// The number of the call among those of its request.
    number: u64,
    target: TargetName,
}

/// Why a call cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteError {
    /// Another call of the request answers.
    Superseded,
    /// The reader has dropped the stream.
    ReaderGone,
}

impl AnswerStream {
    /// Creates a stream. One that `is_live` gets the pieces of the answer as they arrive; another one only commits at
    /// its end.
    pub fn new(is_live: bool) -> (Self, AnswerReader) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let free = Arc::new(Semaphore::new(MAX_BUFFERED_BYTES));
        let shared = Shared {
            events: sender,
            free: free.clone(),
            committed: SetOnce::new(),
            last_writer: AtomicU64::new(0),
            is_live,
        };
        (Self(Arc::new(shared)), AnswerReader { events: receiver, free })
    }

    /// Returns the writer of a new call; `None` if the stream commits only at its end.
    pub fn writer(&self, target: TargetName) -> Option<AnswerWriter> {
        let number = self.0.last_writer.fetch_add(1, Relaxed) + 1;
        self.0.is_live.then(|| AnswerWriter { stream: self.clone(), number, target })
    }

    /// Returns whether a call has begun to answer.
    pub fn is_committed(&self) -> bool {
        self.0.committed.initialized()
    }

    /// Returns the number of the call that has begun to answer.
    pub fn committed_number(&self) -> Option<u64> {
        self.0.committed.get().copied()
    }

    /// Waits until a call begins to answer, and returns its number.
    pub async fn committed(&self) -> u64 {
        *self.0.committed.wait().await
    }
}

impl AnswerWriter {
    /// Returns the number of the call.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether the stream is committed to this call.
    pub fn has_committed(&self) -> bool {
        self.stream.0.committed.get() == Some(&self.number)
    }

    /// Commits the stream to this call. Returns whether it is, and not to another one.
    pub fn commit(&self) -> bool {
        self.stream.0.committed.set(self.number).is_ok() || self.has_committed()
    }

    /// Writes a piece of the answer. Waits while too much is buffered.
    ///
    /// # Errors
    /// If the piece cannot reach the reader any more. The call then ends.
    pub async fn write(&self, event: StreamEvent) -> Result<(), WriteError> {
        let shared = &self.stream.0;
        match shared.committed.get() {
            Some(number) if *number == self.number => {}
            Some(_) => return Err(WriteError::Superseded),
            None => {
                if !self.commit() {
                    return Err(WriteError::Superseded);
                }
                self.send(StreamEvent::Started { target: self.target.clone() }).await?;
            }
        }
        self.send(event).await
    }

    async fn send(&self, event: StreamEvent) -> Result<(), WriteError> {
        let shared = &self.stream.0;
        // A piece that is larger than the buffer takes all of it.
        let bytes = (event.bytes() + EVENT_BYTES).min(MAX_BUFFERED_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let reader_gone = || WriteError::ReaderGone;
        tokio::select! {
            permits = shared.free.acquire_many(bytes) => permits.map_err(|_| reader_gone())?.forget(),
            () = shared.events.closed() => return Err(reader_gone()),
        }
        shared.events.send(BufferedEvent { event, bytes }).map_err(|_| reader_gone())
    }
}

impl AnswerReader {
    /// Returns the next event; `None` when all writers are gone and the buffer is empty.
    pub fn poll_next(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<StreamEvent>> {
        let polled = self.events.poll_recv(context);
        polled.map(|buffered| {
            let BufferedEvent { event, bytes } = buffered?;
            self.free.add_permits(bytes as usize);
            Some(event)
        })
    }

    /// Returns the next event if one is buffered.
    pub fn try_next(&mut self) -> Option<StreamEvent> {
        let BufferedEvent { event, bytes } = self.events.try_recv().ok()?;
        self.free.add_permits(bytes as usize);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    fn target() -> TargetName {
        "a/m".parse().unwrap()
    }

    fn text(bytes: usize) -> StreamEvent {
        StreamEvent::Text("x".repeat(bytes))
    }

    #[tokio::test]
    async fn the_first_call_that_writes_commits_the_stream_to_itself() {
        let (stream, mut reader) = AnswerStream::new(true);
        let first = stream.writer(target()).unwrap();
        let second = stream.writer("b/m".parse().unwrap()).unwrap();
        assert!(!stream.is_committed());
        second.write(text(1)).await.unwrap();
        assert_eq!(first.write(text(1)).await, Err(WriteError::Superseded));
        second.write(text(2)).await.unwrap();
        assert!(second.has_committed() && !first.has_committed());
        assert!(second.commit() && !first.commit(), "a complete answer of another call does not count");
        assert_eq!(stream.committed().await, second.number());
        let started = StreamEvent::Started { target: "b/m".parse().unwrap() };
        let received: Vec<_> = std::iter::from_fn(|| reader.try_next()).collect();
        assert_eq!(received, [started, text(1), text(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_stops_the_writer_at_the_bound() {
        let (stream, mut reader) = AnswerStream::new(true);
        let writer = stream.writer(target()).unwrap();
        let mut written = 0;
        while timeout(Duration::from_secs(1), writer.write(text(1_000))).await.is_ok() {
            written += 1_000;
        }
        assert!((200_000..=MAX_BUFFERED_BYTES).contains(&written), "{written}");
        while reader.try_next().is_some() {}
        // A piece that is larger than the buffer passes as well.
        assert_eq!(writer.write(text(10 * MAX_BUFFERED_BYTES)).now_or_never(), Some(Ok(())));
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_ends_a_writer_that_waits() {
        let (stream, reader) = AnswerStream::new(true);
        let writer = stream.writer(target()).unwrap();
        let waiting = async {
            loop {
                if let Err(error) = writer.write(text(10_000)).await {
                    return error;
                }
            }
        };
        let (error, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            drop(reader);
        });
        assert_eq!(error, WriteError::ReaderGone);
    }

    #[tokio::test]
    async fn a_stream_that_commits_at_its_end_has_no_writers() {
        let (stream, _reader) = AnswerStream::new(false);
        assert!(stream.writer(target()).is_none());
    }
}
