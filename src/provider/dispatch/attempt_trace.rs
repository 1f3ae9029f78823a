//! The span of an attempt: a call of a model, in the terms of OpenTelemetry.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use tracing::{Span, field};

use crate::provider::call::Call;
use crate::provider::keys::key::ReadyKey;
use crate::provider::model::Model;
use crate::provider::state::State;
use crate::telemetry::{TraceContext, attempt_span, record_error, span_fields as fields};
use crate::types::{Charged, Class, Completion, Failure, Format, NanoUsd};

/// The longest name of a model or id of a request that is recorded: the provider chooses them.
const MAX_RECORDED_BYTES: usize = 256;

/// The span of an attempt in flight. If it is dropped without an end (by a panic), the attempt has ended as lost.
pub(super) struct AttemptTrace {
    /// Disabled after the end.
    span: Span,
}

impl AttemptTrace {
    /// Starts the span of a call that is about to be sent. `waited` is its time in the queue.
    pub(super) fn start(state: &State, call: &Call, model: &Model, key: &ReadyKey, waited: Duration) -> Self {
        let span = attempt_span(&call.trace);
        if !span.is_disabled() {
            record_start(&span, state, call, model);
            if key.header().is_some() {
                span.record(fields::KEY, key.id.label.as_str());
            }
            span.record(fields::QUEUE_SECONDS, waited.as_secs_f64());
        }
        Self { span }
    }

    /// Returns the context that is sent with the call.
    pub(super) fn outgoing(&self, call: &Call) -> TraceContext {
        call.trace.outgoing(&self.span)
    }

    /// Ends the span with the result of the call.
    pub(super) fn end(mut self, result: &Result<Completion, Failure>, cost: Option<NanoUsd>) {
        let span = self.take();
        if span.is_disabled() {
            return;
        }
        if let Some(cost) = cost {
            span.record(fields::COST_USD, cost.dollars());
        }
        let usage = match result {
            Ok(completion) => {
                span.record(fields::ATTEMPT_OUTCOME, "answered");
                span.record(fields::FINISH_REASONS, completion.finish_reason.as_str());
                record_short(&span, fields::RESPONSE_MODEL, &completion.model);
                let request_id = completion.request_id.as_deref().unwrap_or_default();
                record_short(&span, fields::RESPONSE_ID, request_id);
                completion.usage
            }
            Err(failure) => {
                span.record(fields::ATTEMPT_OUTCOME, failure.class.as_str());
                span.record(fields::POSSIBLY_CHARGED, failure.charged == Charged::Maybe);
                record_error(&span, failure.class.as_str());
                failure.usage.as_deref().copied()
            }
        };
        if let Some(usage) = usage {
            span.record(fields::INPUT_TOKENS, usage.input.0);
            span.record(fields::OUTPUT_TOKENS, usage.output.0);
            span.record(fields::CACHED_INPUT_TOKENS, usage.cached.0);
            span.record(fields::REASONING_OUTPUT_TOKENS, usage.reasoning.0);
        }
    }

    /// Ends the span of a call whose caller has dropped it: another call has answered, or the request was cancelled.
    pub(super) fn end_aborted(mut self, is_superseded: bool) {
        let span = self.take();
        if is_superseded {
            span.record(fields::ATTEMPT_OUTCOME, "superseded");
            span.record(fields::POSSIBLY_CHARGED, true);
        } else {
            record_lost(&span, Class::Cancelled);
        }
    }

    /// Ends the span of a call that the target cannot express.
    pub(super) fn end_unsent(mut self, failure: &Failure) {
        let span = self.take();
        span.record(fields::ATTEMPT_OUTCOME, "not_sent");
        record_error(&span, failure.class.as_str());
    }

    fn take(&mut self) -> Span {
        std::mem::replace(&mut self.span, Span::none())
    }
}

impl Drop for AttemptTrace {
    fn drop(&mut self) {
        record_lost(&self.span, Class::NetworkError);
    }
}

/// Records an end without a result.
fn record_lost(span: &Span, class: Class) {
    span.record(fields::ATTEMPT_OUTCOME, class.as_str());
    span.record(fields::POSSIBLY_CHARGED, true);
    record_error(span, class.as_str());
}

fn record_start(span: &Span, state: &State, call: &Call, model: &Model) {
    let operation = if call.prompt.embedding.is_some() { "embeddings" } else { "chat" };
    span.record(fields::OTEL_NAME, field::display(format_args!("{operation} {}", model.name)));
    span.record(fields::OPERATION, operation);
    span.record(fields::PROVIDER, vendor(state.settings().format));
    span.record(fields::REQUEST_MODEL, model.name.as_str());
    if let Some(max_tokens) = call.prompt.max_tokens.or(model.max_tokens.map(std::num::NonZeroU32::get)) {
        span.record(fields::REQUEST_MAX_TOKENS, u64::from(max_tokens));
    }
    span.record(fields::REQUEST_STREAM, call.stream.is_some());
    span.record(fields::TARGET, field::display(format_args!("{}/{}", state.name(), call.model)));
    if state.is_simulated() {
        span.record(fields::SIMULATED, true);
    }
    // Host and port only: the rest of an address may contain a key.
    if let Ok(url) = state.base_url().parse::<Uri>()
        && let Some(host) = url.host()
    {
        let default_port = if url.scheme_str() == Some("https") { 443 } else { 80 };
        span.record(fields::SERVER_ADDRESS, host);
        span.record(fields::SERVER_PORT, u64::from(url.port_u16().unwrap_or(default_port)));
    }
}

/// Returns the name that OpenTelemetry gives the vendor of a format.
fn vendor(format: Format) -> &'static str {
    match format {
        Format::Openai | Format::OpenaiResponses => "openai",
        Format::Anthropic => "anthropic",
        Format::Gemini => "gcp.gemini",
    }
}

fn record_short(span: &Span, name: &str, value: &str) {
    if !value.is_empty() && value.len() <= MAX_RECORDED_BYTES {
        span.record(name, value);
    }
}

/// Returns the headers that pass on a trace.
pub(super) fn trace_headers(trace: &TraceContext) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
    let parent = HeaderValue::try_from(trace.traceparent()).ok();
    let state = trace.tracestate().and_then(|state| HeaderValue::from_str(state).ok());
    let headers = [("traceparent", parent), ("tracestate", state)].into_iter();
    headers.filter_map(|(name, value)| Some((HeaderName::from_static(name), value?)))
}
