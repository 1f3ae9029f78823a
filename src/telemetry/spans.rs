//! The spans: run, item, step, request and attempt, each with the one before as its parent.
//!
//! Work crosses actors and threads, so each span is created with an explicit parent and is never entered. Their target
//! is [`TRACE_TARGET`], so that a subscriber can select them and a log can leave them out. While no subscriber wants
//! them, a span costs the check of one atomic number, and no value of an attribute is computed.
//!
//! No attribute contains text of a prompt, of an answer, or of an error message.

use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Level, Span, span};

use super::span_fields as fields;
use super::trace_context::TraceContext;

/// The target of all spans.
pub const TRACE_TARGET: &str = "pointsman::trace";

/// A span whose children have its parent as their parent while the span itself is disabled, such as that of a step
/// while a subscriber wants only the level INFO.
#[derive(Debug, Clone)]
pub struct NestedSpan {
    own: Span,
    parent: Span,
}

impl NestedSpan {
    fn new(own: Span, parent: &Span) -> Self {
        Self { own, parent: parent.clone() }
    }

    /// Returns the span.
    pub fn own(&self) -> &Span {
        &self.own
    }

    /// Returns the parent of spans below this one.
    pub fn for_children(&self) -> &Span {
        if self.own.is_disabled() { &self.parent } else { &self.own }
    }
}

/// Starts the span of a run. `number` is that of a stored run.
pub fn run_span(pipeline: &str, number: Option<i64>) -> Span {
    let span = span!(
        target: TRACE_TARGET,
        parent: None,
        Level::INFO,
        "run",
        { fields::PIPELINE } = pipeline,
        { fields::RUN } = Empty,
        { fields::RUN_OUTCOME } = Empty,
        { fields::RUN_ITEMS } = Empty,
        { fields::OTEL_STATUS } = Empty,
        { fields::ERROR_TYPE } = Empty,
    );
    if let Some(number) = number {
        span.record(fields::RUN, number);
    }
    span
}

/// Starts the span of an item.
pub fn item_span(run: &Span, key: &str) -> NestedSpan {
    let span = span!(
        target: TRACE_TARGET,
        parent: run,
        Level::DEBUG,
        "item",
        { fields::ITEM_KEY } = key,
        { fields::ITEM_STATUS } = Empty,
        { fields::OTEL_STATUS } = Empty,
        { fields::ERROR_TYPE } = Empty,
    );
    NestedSpan::new(span, run)
}

/// Starts the span of a step of an item.
pub fn step_span(item: &NestedSpan, step: &str, route: &str) -> NestedSpan {
    let parent = item.for_children();
    let span = span!(
        target: TRACE_TARGET,
        parent: parent,
        Level::DEBUG,
        "step",
        { fields::STEP } = step,
        { fields::ROUTE } = route,
        { fields::OTEL_STATUS } = Empty,
        { fields::ERROR_TYPE } = Empty,
    );
    NestedSpan::new(span, parent)
}

/// Starts the span of a request. Its parent is `parent`, or the current span if that is disabled.
pub(super) fn request_span(parent: &Span, request: &RequestAttributes<'_>) -> Span {
    let RequestAttributes { operation, route, scope } = *request;
    if parent.is_disabled() {
        return span!(
            target: TRACE_TARGET,
            Level::INFO,
            "request",
            { fields::OPERATION } = operation,
            { fields::ROUTE } = route,
            { fields::SCOPE } = scope,
            { fields::TARGET } = Empty,
            { fields::ATTEMPTS } = Empty,
            { fields::COST_USD } = Empty,
            { fields::SIMULATED } = Empty,
            { fields::OTEL_STATUS } = Empty,
            { fields::ERROR_TYPE } = Empty,
        );
    }
    span!(
        target: TRACE_TARGET,
        parent: parent,
        Level::INFO,
        "request",
        { fields::OPERATION } = operation,
        { fields::ROUTE } = route,
        { fields::SCOPE } = scope,
        { fields::TARGET } = Empty,
        { fields::ATTEMPTS } = Empty,
        { fields::COST_USD } = Empty,
        { fields::SIMULATED } = Empty,
        { fields::OTEL_STATUS } = Empty,
        { fields::ERROR_TYPE } = Empty,
    )
}

/// What is known of a request when its span starts.
#[derive(Debug, Clone, Copy)]
pub struct RequestAttributes<'a> {
    /// `chat` or `embeddings`.
    pub operation: &'static str,
    /// Its route.
    pub route: &'a str,
    /// Its scope; `None` if it has none.
    pub scope: Option<&'a str>,
}

/// Starts the span of an attempt. Its attributes are recorded by its owner, while it is not disabled.
pub fn attempt_span(call: &CallTrace) -> Span {
    span!(
        target: TRACE_TARGET,
        parent: &call.request,
        Level::INFO,
        "attempt",
        { fields::OTEL_KIND } = "client",
        { fields::OTEL_NAME } = Empty,
        { fields::OTEL_STATUS } = Empty,
        { fields::OPERATION } = Empty,
        { fields::PROVIDER } = Empty,
        { fields::REQUEST_MODEL } = Empty,
        { fields::REQUEST_MAX_TOKENS } = Empty,
        { fields::REQUEST_STREAM } = Empty,
        { fields::SERVER_ADDRESS } = Empty,
        { fields::SERVER_PORT } = Empty,
        { fields::TARGET } = Empty,
        { fields::KEY } = Empty,
        { fields::ATTEMPT_NUMBER } = call.number,
        { fields::HEDGE } = call.is_hedge,
        { fields::QUEUE_SECONDS } = Empty,
        { fields::ATTEMPT_OUTCOME } = Empty,
        { fields::ERROR_TYPE } = Empty,
        { fields::RESPONSE_MODEL } = Empty,
        { fields::RESPONSE_ID } = Empty,
        { fields::FINISH_REASONS } = Empty,
        { fields::INPUT_TOKENS } = Empty,
        { fields::OUTPUT_TOKENS } = Empty,
        { fields::CACHED_INPUT_TOKENS } = Empty,
        { fields::REASONING_OUTPUT_TOKENS } = Empty,
        { fields::COST_USD } = Empty,
        { fields::POSSIBLY_CHARGED } = Empty,
        { fields::SIMULATED } = Empty,
    )
}

/// Records that what a span describes has failed, and the class of the failure.
pub fn record_error(span: &Span, class: &str) {
    if !span.is_disabled() {
        span.record(fields::ERROR_TYPE, class);
        span.record(fields::OTEL_STATUS, "error");
    }
}

/// The place of a call in the trace of its request.
#[derive(Debug, Clone)]
pub struct CallTrace {
    /// The span of the request, or of its step if that of the request is disabled.
    pub request: Span,
    /// The trace that the call is sent in; `None` for that of the exported span, or a new one.
    pub context: Option<Arc<TraceContext>>,
    /// The number of the call in its request, from 1.
    pub number: u64,
    /// Whether it is a hedge of another call.
    pub is_hedge: bool,
}

impl Default for CallTrace {
    fn default() -> Self {
        Self { request: Span::none(), context: None, number: 1, is_hedge: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_subscriber_every_span_is_disabled() {
        let run = run_span("p", Some(1));
        let item = item_span(&run, "k");
        let step = step_span(&item, "s", "r");
        let request = RequestAttributes { operation: "chat", route: "r", scope: None };
        let request = request_span(step.for_children(), &request);
        let attempt = attempt_span(&CallTrace { request: request.clone(), ..CallTrace::default() });
        record_error(&attempt, "timeout");
        for span in [&run, item.own(), step.own(), &request, &attempt] {
            assert!(span.is_disabled());
        }
    }
}
