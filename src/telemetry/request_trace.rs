//! The place of a request in its trace, which the request carries through the actors.

use std::sync::Arc;

use tracing::Span;

use super::exported_span;
use super::spans::{CallTrace, RequestAttributes, request_span};
use super::trace_context::TraceContext;

/// The place of a request in its trace.
#[derive(Debug, Clone)]
pub struct RequestTrace {
    /// Its span. Before that has started, and while it is disabled: the span of its step.
    span: Span,
    /// The trace of its caller, or the one that its calls are sent in.
    context: Option<Arc<TraceContext>>,
}

impl Default for RequestTrace {
    fn default() -> Self {
        Self { span: Span::none(), context: None }
    }
}

impl RequestTrace {
    /// Sets the parent of its span.
    pub fn set_parent(&mut self, parent: Span) {
        self.span = parent;
    }

    /// Sets the trace of its caller.
    pub fn set_context(&mut self, context: TraceContext) {
        self.context = Some(Arc::new(context));
    }

    /// Starts its span, and returns it.
    pub fn start(&mut self, attributes: &RequestAttributes<'_>) -> Span {
        let span = request_span(&self.span, attributes);
        if !span.is_disabled() {
            if let Some(context) = &self.context {
                exported_span::set_remote_parent(&span, context);
            }
            self.span = span.clone();
        }
        span
    }

    /// Chooses the trace of its calls, if it has none, so that all its calls are sent in the same one.
    pub fn ensure_context(&mut self) {
        if self.context.is_none() {
            self.context = Some(Arc::new(TraceContext::random()));
        }
    }

    /// Returns the place of its next call.
    pub fn call(&self, number: u64, is_hedge: bool) -> CallTrace {
        CallTrace { request: self.span.clone(), context: self.context.clone(), number, is_hedge }
    }
}

impl CallTrace {
    /// Returns the context that is sent with the call: that of its span if spans are exported, or else a new span in
    /// the trace of the request.
    pub fn outgoing(&self, attempt: &Span) -> TraceContext {
        exported_span::context(attempt).unwrap_or_else(|| match &self.context {
            Some(context) => context.child(),
            None => TraceContext::random(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_of_a_request_are_sent_in_one_trace_as_different_spans() {
        let mut trace = RequestTrace::default();
        trace.ensure_context();
        let first = trace.call(1, false).outgoing(&Span::none());
        let second = trace.call(2, true).outgoing(&Span::none());
        assert_eq!(first.trace_id(), second.trace_id());
        assert_ne!(first.span_id(), second.span_id());
    }

    #[test]
    fn the_trace_of_the_caller_is_kept_with_its_state() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut trace = RequestTrace::default();
        trace.set_context(TraceContext::parse(header).unwrap().with_state("a=1"));
        trace.ensure_context();
        let sent = trace.call(1, false).outgoing(&Span::none());
        assert_eq!(sent.traceparent()[..36], header[..36]);
        assert_eq!(sent.tracestate(), Some("a=1"));
        assert_ne!(sent.traceparent(), header);
    }
}
