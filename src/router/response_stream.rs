//! The stream of an answer, as its reader sees it.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::Stream;
use tokio::task::JoinSet;

use crate::provider::AnswerReader;
use crate::types::{Class, Completion, Failure, Part, RequestError, Response, StreamEvent, ToolCallDelta};

use super::execution::RequestResult;

/// An answer that arrives in pieces.
///
/// Until the first event, a failed call is repeated or sent to another target, and the reader does not notice. From
/// [`StreamEvent::Started`] on the stream is committed to one target: a failure is an error, which is the last item.
/// An answer that ends without [`StreamEvent::Finished`] is not complete.
///
/// At most 256 KiB are buffered. Then the call waits for the reader and does not read its connection, so that the provider
/// waits, too; meanwhile it counts as in flight. After a minute without a read, or at its deadline, the request ends with
/// an error of the class `deadline`. Dropping the stream cancels the call.
///
/// ```no_run
/// use futures_util::StreamExt;
/// use pointsman::{Pointsman, Request, StreamEvent};
///
/// # async fn example(pointsman: Pointsman) -> Result<(), Box<dyn std::error::Error>> {
/// let mut stream = pointsman.stream(Request::new("default", "Write a poem."));
/// while let Some(event) = stream.next().await {
///     match event? {
///         StreamEvent::Text(text) => print!("{text}"),
///         StreamEvent::Finished(response) => println!("\n{} answered.", response.target),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct ResponseStream {
    reader: AnswerReader,
    request: JoinSet<RequestResult>,
    /// The items after the end of the request.
    last_items: VecDeque<Result<StreamEvent, Box<RequestError>>>,
    has_started: bool,
    has_ended: bool,
}

impl ResponseStream {
    /// Creates the stream of a request whose answer is written to `reader`.
    pub(super) fn new(reader: AnswerReader, request: JoinSet<RequestResult>) -> Self {
        Self { reader, request, last_items: VecDeque::new(), has_started: false, has_ended: false }
    }

    /// Reads the stream to its end and returns the response.
    ///
    /// # Errors
    /// The failure that ended the request.
    pub async fn response(mut self) -> Result<Response, Box<RequestError>> {
        loop {
            match std::future::poll_fn(|context| Pin::new(&mut self).poll_next(context)).await {
                Some(Ok(StreamEvent::Finished(response))) => return Ok(*response),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(Box::new(lost().into())),
            }
        }
    }

    /// Takes the events that are still buffered, then the end of the request.
    fn end(&mut self, result: RequestResult) {
        while let Some(event) = self.reader.try_next() {
            self.has_started |= matches!(event, StreamEvent::Started { .. });
            self.last_items.push_back(Ok(event));
        }
        match result {
            Ok(response) => {
                if !self.has_started {
                    let target = response.target.clone();
                    self.last_items.push_back(Ok(StreamEvent::Started { target }));
                    self.last_items.extend(whole(&response.completion).map(Ok));
                }
                self.last_items.push_back(Ok(StreamEvent::Finished(Box::new(response))));
            }
            Err(error) => self.last_items.push_back(Err(error)),
        }
    }
}

impl Stream for ResponseStream {
    type Item = Result<StreamEvent, Box<RequestError>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.has_ended {
            if let Poll::Ready(Some(event)) = self.reader.poll_next(context) {
                self.has_started |= matches!(event, StreamEvent::Started { .. });
                return Poll::Ready(Some(Ok(event)));
            }
            let Poll::Ready(result) = self.request.poll_join_next(context) else { return Poll::Pending };
            self.has_ended = true;
            // The request was lost in a panic, or Pointsman has stopped.
            let result = result.and_then(Result::ok).unwrap_or_else(|| Err(Box::new(lost().into())));
            self.end(result);
        }
        Poll::Ready(self.last_items.pop_front())
    }
}

impl fmt::Debug for ResponseStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ResponseStream")
            .field("has_started", &self.has_started)
            .field("has_ended", &self.has_ended)
            .finish_non_exhaustive()
    }
}

fn lost() -> Failure {
    Failure::new(Class::Cancelled, "pointsman has stopped").maybe_charged()
}

/// Returns the events of an answer that arrived at once.
fn whole(completion: &Completion) -> impl Iterator<Item = StreamEvent> {
    let text = completion.parts.is_empty() && !completion.text.is_empty();
    let text = text.then(|| StreamEvent::Text(completion.text.clone()));
    let mut calls = 0;
    let parts = completion.parts.iter().filter_map(move |part| match part {
        Part::Text(text) => Some(StreamEvent::Text(text.as_ref().to_owned())),
        Part::Reasoning(reasoning) if reasoning.text.is_empty() => None,
        Part::Reasoning(reasoning) => Some(StreamEvent::Reasoning(reasoning.text.as_ref().to_owned())),
        Part::ToolCall(call) => {
            calls += 1;
            Some(StreamEvent::ToolCall(ToolCallDelta {
                index: calls - 1,
                id: call.id.as_ref().to_owned(),
                name: call.name.as_ref().to_owned(),
                arguments: call.arguments.as_ref().to_owned(),
            }))
        }
        Part::Image(_) | Part::Document(_) | Part::Audio(_) | Part::Video(_) | Part::ToolResult(_) => None,
    });
    text.into_iter().chain(parts)
}
