//! The connection between spans and the traces that a layer of OpenTelemetry exports: ours, or one of the host.

use tracing::Span;

use super::trace_context::TraceContext;

/// Returns the context of an exported span; `None` if no layer of OpenTelemetry records it.
#[cfg(feature = "otel")]
pub(super) fn context(span: &Span) -> Option<TraceContext> {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    if span.is_disabled() {
        return None;
    }
    let exported = span.context();
    let exported = exported.span().span_context().clone();
    let trace = exported.trace_id().to_bytes();
    let context =
        TraceContext::from_parts(trace, exported.span_id().to_bytes(), exported.trace_flags().to_u8())?;
    let state = exported.trace_state().header();
    Some(if state.is_empty() { context } else { context.with_state(&state) })
}

/// Makes a span of the caller, in another process or not, the parent of an exported span that has just started.
#[cfg(feature = "otel")]
pub(super) fn set_remote_parent(span: &Span, parent: &TraceContext) {
    use opentelemetry::Context;
    use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let state: Option<TraceState> = parent.tracestate().and_then(|state| state.parse().ok());
    let remote = SpanContext::new(
        TraceId::from_bytes(parent.trace_id()),
        SpanId::from_bytes(parent.span_id()),
        TraceFlags::new(parent.flags()),
        true,
        state.unwrap_or_default(),
    );
    // It fails if no layer of OpenTelemetry records the span.
    drop(span.set_parent(Context::new().with_remote_span_context(remote)));
}

/// Without the feature `otel` no context of a span is known.
#[cfg(not(feature = "otel"))]
pub(super) fn context(_: &Span) -> Option<TraceContext> {
    None
}

/// Without the feature `otel` no span is exported.
#[cfg(not(feature = "otel"))]
pub(super) fn set_remote_parent(_: &Span, _: &TraceContext) {}
