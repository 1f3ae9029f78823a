//! Passes the pieces of an answer on to the reader of a stream, as they arrive.
//!
//! A piece at whose end a key may begin is held until more has arrived, so that a key that the provider repeats in
//! several pieces is redacted as well. Nothing else is held.

use std::pin::pin;
use std::task::Poll;

use futures_util::poll;

use crate::provider::answer_stream::{AnswerWriter, WriteError};
use crate::provider::call::DispatchSignal;
use crate::provider::keys::stream_redactor::StreamRedactor;
use crate::types::{Class, Completion, Failure, StreamEvent, ToolCallDelta};
use crate::wire::Decoder;

use super::timeouts::CallTimeouts;

/// Where the pieces of an answer go.
pub(in crate::provider) struct AnswerOutput<'a> {
    writer: &'a AnswerWriter,
    signal: Option<&'a DispatchSignal>,
    redactor: StreamRedactor<'a>,
    /// The end of the text that was passed on last, which may be the beginning of a key.
    held: Option<(Channel, String)>,
}

/// A text of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Text,
    Reasoning,
    /// The arguments of the tool call with this index.
    Arguments(usize),
}

impl<'a> AnswerOutput<'a> {
    pub(in crate::provider) fn new(
        writer: &'a AnswerWriter,
        signal: Option<&'a DispatchSignal>,
        redactor: StreamRedactor<'a>,
    ) -> Self {
        Self { writer, signal, redactor, held: None }
    }

    /// Passes on what has arrived since the last time.
    ///
    /// # Errors
    /// `cancelled` if another call answers the request or the reader is gone, `deadline` if the reader does not read.
    pub(in crate::provider) async fn pass_on(
        &mut self,
        decoder: &mut Decoder,
        timeouts: &mut CallTimeouts<'_>,
    ) -> Result<(), Failure> {
        for delta in decoder.take_deltas() {
            let (channel, piece) = match delta {
                StreamEvent::Text(text) => (Channel::Text, text),
                StreamEvent::Reasoning(text) => (Channel::Reasoning, text),
                StreamEvent::ToolCall(mut delta) => {
                    let piece = std::mem::take(&mut delta.arguments);
                    let channel = Channel::Arguments(delta.index);
                    if !delta.name.is_empty() {
                        self.redactor.redact(&mut delta.id);
                        self.redactor.redact(&mut delta.name);
                        self.write(StreamEvent::ToolCall(delta), timeouts).await?;
                    }
                    (channel, piece)
                }
                StreamEvent::Started { .. } | StreamEvent::Finished(_) => continue,
            };
            self.release_other(channel, timeouts).await?;
            if let Some(piece) = self.release(channel, piece) {
                self.write(event(channel, piece), timeouts).await?;
            }
        }
        Ok(())
    }

    /// Passes on what is held of another text: what follows does not continue it.
    async fn release_other(
        &mut self,
        channel: Channel,
        timeouts: &mut CallTimeouts<'_>,
    ) -> Result<(), Failure> {
        match self.held.take_if(|(held, _)| *held != channel) {
            Some((other, piece)) => self.write(event(other, piece), timeouts).await,
            None => Ok(()),
        }
    }

    /// Passes on the rest of a complete answer. `passed_on` is the number of bytes of its text that were passed on.
    /// An answer of which nothing was passed on is left to the caller, which gets it with the response.
    ///
    /// # Errors
    /// As [`Self::pass_on`].
    pub(in crate::provider) async fn finish(
        &mut self,
        completion: &Completion,
        passed_on: usize,
        timeouts: &mut CallTimeouts<'_>,
    ) -> Result<(), Failure> {
        if !self.writer.has_committed() && self.held.is_none() {
            return Ok(());
        }
        self.release_other(Channel::Text, timeouts).await?;
        let mut rest = self.held.take().map(|(_, held)| held).unwrap_or_default();
        rest.push_str(completion.text.get(passed_on..).unwrap_or_default());
        self.redactor.redact(&mut rest);
        if rest.is_empty() {
            return Ok(());
        }
        self.write(StreamEvent::Text(rest), timeouts).await
    }

    /// Returns what may be passed on of a text, with its keys redacted.
    fn release(&mut self, channel: Channel, piece: String) -> Option<String> {
        let mut text = match self.held.take() {
            Some((_, mut held)) => {
                held.push_str(&piece);
                held
            }
            None => piece,
        };
        let rest = text.split_off(text.len() - self.redactor.held_bytes(&text));
        if !rest.is_empty() {
            self.held = Some((channel, rest));
        }
        self.redactor.redact(&mut text);
        (!text.is_empty()).then_some(text)
    }

    /// Commits the stream to the call, which has a complete answer.
    ///
    /// # Errors
    /// `cancelled` if another call answers the request.
    pub(in crate::provider) fn commit(&self) -> Result<(), Failure> {
        if self.writer.commit() { Ok(()) } else { Err(cannot_write(WriteError::Superseded)) }
    }

    async fn write(&self, event: StreamEvent, timeouts: &mut CallTimeouts<'_>) -> Result<(), Failure> {
        let mut write = pin!(self.writer.write(event));
        let written = match poll!(&mut write) {
            Poll::Ready(written) => written,
            Poll::Pending => {
                // The provider is not slow in that time.
                let _pause = self.signal.map(DispatchSignal::pause);
                timeouts.wait_for_reader(write).await?
            }
        };
        written.map_err(cannot_write)
    }
}

fn cannot_write(error: WriteError) -> Failure {
    let message = match error {
        WriteError::Superseded => "another call answers the request",
        WriteError::ReaderGone => "the reader of the stream is gone",
    };
    Failure::new(Class::Cancelled, message).maybe_charged()
}

fn event(channel: Channel, piece: String) -> StreamEvent {
    match channel {
        Channel::Text => StreamEvent::Text(piece),
        Channel::Reasoning => StreamEvent::Reasoning(piece),
        Channel::Arguments(index) => {
            StreamEvent::ToolCall(ToolCallDelta { index, arguments: piece, ..ToolCallDelta::default() })
        }
    }
}
