//! One HTTP exchange: sends the request and reads the response, within the call's timeouts.
//!
//! Returns only complete answers: a response without its end marker is a failure. The caller decides what to do
//! next.

use std::num::{NonZeroU32, NonZeroU64};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, timeout, timeout_at};

use crate::chaos;
use crate::telemetry::TraceContext;
use crate::types::{Cause, Class, Completion, Failure, FailureScope, Format, Priority, Prompt};
use crate::wire::{Decoder, Dialect, Progress, StreamSupport, UnsupportedParameters, strip_echo};

use super::answer_output::AnswerOutput;
use super::attempt_trace::trace_headers;
use super::client_pool::PooledClient;
use super::event_stream::EventStream;
use super::redirect;
use super::response_limit::ResponseLimit;
use super::timeouts::CallTimeouts;
use super::transport::Response;
use crate::provider::admission::permit::Permit;
use crate::provider::admission::usage_bounds::UsageBounds;
use crate::provider::call::Call;
use crate::provider::keys::key::ReadyKey;
use crate::provider::keys::stream_redactor::StreamRedactor;
use crate::provider::model::Model;
use crate::provider::settings::Settings;
use crate::provider::state::State;
use crate::provider::unreported_usage::UnreportedUsage;

/// Maximum bytes of an error in which the text of the request is looked for.
const MAX_ECHO_BYTES: usize = 64 << 10;

/// Time to read the body of an error response: the status alone has most of the information.
const MAX_WAIT_FOR_ERROR_BODY: Duration = Duration::from_secs(1);

/// How often a call yields to other tasks before it waits for the end of the stream after its end marker. Mostly
/// the end was received with the marker, and the connection's task only has to deliver it. A timer as short as
/// [`MAX_WAIT_FOR_END`] wakes a thread each time.
const YIELDS_BEFORE_WAIT: usize = 2;

/// How long a call then waits for the end of the stream, so that the next call can reuse the connection.
const MAX_WAIT_FOR_END: Duration = Duration::from_millis(3);

/// How long a background task then waits for the end of the stream, so that the connection can be reused later.
const MAX_BACKGROUND_WAIT_FOR_END: Duration = Duration::from_secs(1);

/// How long a call waits for further events after an event that may be the last one of the answer. A server that
/// closes its streams needs a fraction of this time, and one that continues sends its next event within it.
const MAX_WAIT_AFTER_COMPLETE: Duration = Duration::from_secs(5);

/// The decompressed body of a response, in chunks.
trait BodyStream: Stream<Item = Result<Bytes, Failure>> + Unpin + Send + 'static {}

impl<T: Stream<Item = Result<Bytes, Failure>> + Unpin + Send + 'static> BodyStream for T {}

/// The request, as far as decoding its response depends on it.
struct RequestContents<'a> {
    format: Format,
    prompt: &'a Prompt,
    dialect: &'a Dialect,
}

impl RequestContents<'_> {
    fn decoder(&self) -> Decoder {
        self.format.decoder(self.prompt, self.dialect)
    }

    /// Classifies a failure again, by its `source` without the text of the request if the source repeats that: one
    /// request's text must not affect other requests. The message stays.
    fn classify_without_echo(
        &self,
        failure: Failure,
        source: &[u8],
        read: impl FnOnce(&[u8]) -> Option<Failure>,
    ) -> Failure {
        // The comparison takes a hundred times the size of its source. What is larger is no error of an API.
        if source.len() > MAX_ECHO_BYTES {
            return failure.with_scope(FailureScope::Class);
        }
        match strip_echo(source, self.prompt).and_then(|rest| read(&rest)) {
            Some(classified) => Failure { message: failure.message, text: failure.text, ..classified },
            None => failure,
        }
    }

    /// The same for an event of a stream.
    fn classify_event_without_echo(&self, failure: Failure, name: Option<&str>, data: &str) -> Failure {
        let usage = failure.usage.clone();
        let charged = failure.charged;
        let failure = self.classify_without_echo(failure, data.as_bytes(), |rest| {
            self.decoder().push_event(name, str::from_utf8(rest).ok()?).err()
        });
        Failure { usage, charged, ..failure }
    }
}

/// The result of an exchange.
pub(in crate::provider) struct ExchangeResult {
    pub(in crate::provider) result: Result<Completion, Failure>,
    pub(in crate::provider) first_token: Option<Duration>,
    /// The parameters that the request omitted because the model does not support them.
    pub(in crate::provider) omitted_parameters: UnsupportedParameters,
}

/// Sends `call` to `model` with `key` and reads the response. `trace` is sent with it.
///
/// # Errors
/// The failure of a request that the target cannot express. Nothing was sent.
pub(in crate::provider) async fn exchange(
    state: &State,
    client: &PooledClient,
    call: &Call,
    (settings, model): (&Settings, &Model),
    key: &ReadyKey,
    permit: &Permit,
    trace: Option<&TraceContext>,
) -> Result<ExchangeResult, Failure> {
    let transport = &client.transport;
    // The response to a request for embeddings is always whole.
    let is_for_embeddings = call.prompt.embedding.is_some();
    let stream = if is_for_embeddings { StreamSupport::Never } else { settings.dialect.stream };
    let mut timeouts = CallTimeouts::start(&settings.timeouts, stream, call.deadline, Instant::now());
    let omitted = state.unsupported_parameters(&call.model);
    let own_prompt = with_defaults(&call.prompt, model, omitted);
    let prompt = own_prompt.as_deref().unwrap_or(&call.prompt);
    let own_dialect = dialect_of_model(&settings.dialect, model, omitted);
    let dialect = own_dialect.as_deref().unwrap_or(&settings.dialect);
    let format = settings.format;
    chaos::point("call.encode");
    let encoded = format.encode(prompt, &model.name, state.base_url(), dialect);
    let mut request = encoded.map_err(|mut failure| {
        key.redact_failure(&mut failure);
        transport.redact(&mut failure);
        failure
    })?;
    request.headers.extend(trace.into_iter().flat_map(trace_headers));
    let bounds = UsageBounds::new(prompt, format, request.body.len());
    let usage = permit.usage();
    let contents = RequestContents { format, prompt, dialect };
    let mut limit = ResponseLimit::new(
        call.memory.response(call.priority == Priority::Batch),
        call.dispatch_signal.as_deref(),
    );
    if is_for_embeddings {
        limit.allow_embeddings(prompt.embedding_inputs().count());
    }
    let redactor = StreamRedactor::new(key, transport.redactors());
    let output = call.stream.as_ref();
    let mut output =
        output.map(|writer| AnswerOutput::new(writer, call.dispatch_signal.as_deref(), redactor));
    let mut result = async {
        chaos::point("call.send");
        let path = request.path.clone();
        // Pinned here: an argument of an async function is moved twice, and this future is large.
        let mut response = timeouts.wait(pin!(transport.post(request, key.header()))).await??;
        chaos::point("call.headers");
        state.header_latency.record(timeouts.elapsed());
        call.dispatch_signal.iter().for_each(|signal| signal.mark_headers_received());
        let rate_limits = format.read_rate_limit_headers(&response.headers, SystemTime::now());
        permit.on_headers(&rate_limits, response.is_success());
        if !response.is_success() {
            let redirect = redirect::failure(response.status, &response.headers, state.base_url(), &path);
            let Some(redirect) = redirect else {
                return Err(read_error(&contents, response, &mut timeouts).await);
            };
            return Err(redirect);
        }
        let request_id = response.request_id();
        let media_type = response.media_type();
        let is_event_stream = media_type == "text/event-stream";
        let headers = std::mem::take(&mut response.headers);
        let max_bytes = limit.max_bytes();
        let result = match media_type.as_str() {
            "text/html" => Err(html_failure(response, &mut timeouts).await),
            "application/json" => {
                let state = (&mut timeouts, &mut limit);
                read_json(&contents, response.stream(max_bytes), state, &usage).await
            }
            // A server may give a whole response any type. One that streams all the same says so.
            _ if !is_event_stream && !stream.asks_for_stream() => {
                let state = (&mut timeouts, &mut limit);
                read_json(&contents, response.stream(max_bytes), state, &usage).await
            }
            _ => {
                let output = output.as_mut();
                let state = (&mut timeouts, &mut limit);
                let body = response.stream(max_bytes);
                read_stream(&contents, body, state, &usage, output, &client.runtime).await
            }
        };
        let mut completion = result.map_err(|mut failure| {
            // An event stream, malformed or not, comes from an API and not from a web page.
            failure.cause = failure.cause.filter(|cause| *cause != Cause::NotAnApi || !is_event_stream);
            format.apply_headers(failure, &headers, SystemTime::now())
        })?;
        // Provider support needs the id in the header; the id in the body identifies the answer.
        completion.request_id = request_id.or(completion.request_id);
        limit.hold_answer(&completion, &prompt.response_format, &mut timeouts).await;
        if let Some(output) = &output {
            output.commit().map_err(|failure| failure.with_usage(completion.usage))?;
        }
        Ok(completion)
    }
    .await;
    bounds.apply(&mut result);
    match &mut result {
        Ok(completion) => {
            key.redact_completion(completion);
            transport.redact_completion(completion);
        }
        Err(failure) => {
            key.redact_failure(failure);
            transport.redact(failure);
            if failure.class == Class::Auth && key.header().is_none() {
                failure.message = format!("{} (no key is configured for it)", failure.message).into();
                failure.cause = Some(Cause::NoKeyConfigured);
            }
        }
    }
    limit.end(&result);
    Ok(ExchangeResult { result, first_token: timeouts.first_token(), omitted_parameters: omitted })
}

/// Returns the dialect of the model; `None` if it is that of its provider, as for most models. Boxed because the task
/// of a call is moved.
fn dialect_of_model(
    dialect: &Dialect,
    model: &Model,
    omitted: UnsupportedParameters,
) -> Option<Box<Dialect>> {
    let extra = model.extra.clone();
    let min_cache_tokens = model.min_cache_tokens.map(NonZeroU64::get);
    if extra.is_none() && min_cache_tokens.is_none() && omitted == UnsupportedParameters::default() {
        return None;
    }
    Some(Box::new(Dialect { extra, min_cache_tokens, ..omitted.apply_to(dialect) }))
}

/// Returns the prompt with the defaults of the model's settings and without parameters that the model does not
/// support; `None` if it is the same prompt. Boxed because the task of a call is moved.
fn with_defaults(prompt: &Prompt, model: &Model, omitted: UnsupportedParameters) -> Option<Box<Prompt>> {
    // Embeddings have neither.
    if prompt.embedding.is_some() {
        return None;
    }
    let max_tokens = prompt.max_tokens.or(model.max_tokens.map(NonZeroU32::get));
    let temperature = prompt.temperature.or(model.temperature);
    let temperature = temperature.filter(|_| !omitted.omits_temperature());
    if (max_tokens, temperature) == (prompt.max_tokens, prompt.temperature) {
        return None;
    }
    Some(Box::new(Prompt { max_tokens, temperature, ..prompt.clone() }))
}

async fn read_error(
    contents: &RequestContents<'_>,
    response: Response,
    timeouts: &mut CallTimeouts<'_>,
) -> Failure {
    let status = response.status;
    let headers = response.headers.clone();
    let body = timeouts.wait(response.error_body(MAX_WAIT_FOR_ERROR_BODY)).await.unwrap_or_default();
    let read = |body: &[u8]| contents.format.read_error(status, &headers, body, SystemTime::now());
    contents.classify_without_echo(read(&body), &body, |rest| Some(read(rest)))
}

async fn html_failure(response: Response, timeouts: &mut CallTimeouts<'_>) -> Failure {
    let body = timeouts.wait(response.error_body(MAX_WAIT_FOR_ERROR_BODY)).await.unwrap_or_default();
    let start: String = String::from_utf8_lossy(&body).chars().take(80).collect();
    let message = format!("received a web page instead of an answer: {start}");
    Failure::new(Class::Unreadable, message).with_cause(Cause::NotAnApi).maybe_charged()
}

async fn read_json(
    contents: &RequestContents<'_>,
    mut chunks: impl BodyStream,
    (timeouts, limit): (&mut CallTimeouts<'_>, &mut ResponseLimit<'_>),
    usage: &UnreportedUsage,
) -> Result<Completion, Failure> {
    let mut body = Vec::new();
    let mut decoder = contents.decoder();
    let has_output = contents.prompt.embedding.is_none();
    let mut content_bytes = 0;
    while let Some(chunk) = timeouts.wait(chunks.next()).await? {
        let chunk = chunk?;
        // Some servers send blank lines until a whole response is complete.
        if timeouts.stream().asks_for_stream() || !chunk.trim_ascii().is_empty() {
            timeouts.on_content(Instant::now());
        }
        if has_output {
            // How much of a body is output is known only at its end.
            content_bytes += chunk.trim_ascii().len();
            usage.record_output(content_bytes);
        }
        limit.hold(body.len() + chunk.len(), timeouts).await?;
        body.extend_from_slice(&chunk);
        consume_budget().await;
    }
    let read = decoder.push_body(&body);
    read.map_err(|failure| {
        contents.classify_without_echo(failure, &body, |rest| contents.decoder().push_body(rest).err())
    })?;
    usage.record_output(decoder.output_bytes());
    decoder.finish()
}

/// Reads an event stream. A small body can decompress to very many events: the task yields to other calls
/// between them, and checks the timeouts for each chunk, whether it has to wait for the chunk or not.
async fn read_stream(
    contents: &RequestContents<'_>,
    mut chunks: impl BodyStream,
    (timeouts, limit): (&mut CallTimeouts<'_>, &mut ResponseLimit<'_>),
    usage: &UnreportedUsage,
    mut output: Option<&mut AnswerOutput<'_>>,
    runtime: &Handle,
) -> Result<Completion, Failure> {
    let mut decoder = contents.decoder();
    let mut events = EventStream::default();
    // Once the answer may be complete: until when to wait for the end of the body.
    let mut wait_until = None;
    let is_ended = 'read: loop {
        let chunk = timeouts.wait(chunks.next());
        let chunk = match wait_until {
            None => chunk.await?,
            Some(until) => {
                let waited = timeout_at(until, chunk).await;
                // A connection that stays open does not delay a complete answer.
                let Ok(Ok(chunk)) = waited else { break false };
                chunk
            }
        };
        let Some(chunk) = chunk else { break false };
        events.push(chunk?)?;
        consume_budget().await;
        let waited = limit.hold(events.held_bytes() + decoder.buffered_bytes(), timeouts).await?;
        wait_until = wait_until.map(|until| until + waited);
        while let Some(event) = events.next()? {
            consume_budget().await;
            chaos::point("call.chunk");
            let Some(data) = &event.data else {
                events.on_other_event()?;
                continue;
            };
            let name = event.event.as_deref();
            let progress = decoder
                .push_event(name, data)
                .map_err(|failure| contents.classify_event_without_echo(failure, name, data))?;
            // Before the next wait: the call may be dropped there.
            usage.record_output(decoder.output_bytes());
            if let Some(output) = &mut output {
                output.pass_on(&mut decoder, timeouts).await?;
            }
            match progress {
                Progress::Waiting => events.on_other_event()?,
                Progress::Answering => {
                    wait_until = None;
                    timeouts.on_content(Instant::now());
                    events.on_content();
                }
                Progress::Complete => {
                    timeouts.on_content(Instant::now());
                    events.on_content();
                    wait_until = Some(Instant::now() + MAX_WAIT_AFTER_COMPLETE);
                }
                Progress::Ended => {
                    await_end(chunks, runtime).await;
                    break 'read true;
                }
            }
        }
    };
    if !is_ended {
        // The end of the body completes the last event even without an empty line. A truncated event is `unreadable`.
        events.finish()?;
        while let Some(event) = events.next()? {
            if let Some(data) = &event.data {
                let name = event.event.as_deref();
                decoder
                    .push_event(name, data)
                    .map_err(|failure| contents.classify_event_without_echo(failure, name, data))?;
                usage.record_output(decoder.output_bytes());
                if let Some(output) = &mut output {
                    output.pass_on(&mut decoder, timeouts).await?;
                }
            }
        }
    }
    // In formats without an end marker, the decoder detects the end by the last event.
    let passed_on = decoder.passed_on_text();
    let completion = decoder.finish()?;
    // Passes on what the reader of a stream does not have yet.
    if let Some(output) = output {
        let finished = output.finish(&completion, passed_on, timeouts).await;
        finished.map_err(|failure| failure.with_usage(completion.usage))?;
    }
    Ok(completion)
}

/// Waits for the end of the stream. The result only affects whether the connection is reused.
async fn await_end(mut chunks: impl BodyStream, runtime: &Handle) {
    for _ in 0..YIELDS_BEFORE_WAIT {
        if chunks.next().now_or_never().is_some() {
            return;
        }
        yield_now().await;
    }
    if timeout(MAX_WAIT_FOR_END, chunks.next()).await.is_err() {
        // The answer is complete: the caller does not wait for a slow server.
        drop(runtime.spawn(async move { drop(timeout(MAX_BACKGROUND_WAIT_FOR_END, chunks.next()).await) }));
    }
}

#[cfg(test)]
mod tests;
