//! Metrics and traces: one table of all metrics and their text for Prometheus; the spans, the names of their attributes,
//! and their export.
//!
//! Counts are kept where the work is done, as plain numbers under a lock that is held anyway, or as atomic numbers. A
//! scrape reads them. So a metric costs an addition where it is counted, and no task runs between scrapes.
//!
//! The sets of labels are bounded: their values come from the configuration and the pipelines, never from items, callers or
//! answers. Spans have no such bound: they have the keys of items, but no text of prompts and answers.

mod exported_span;
mod histogram;
mod metric;
#[cfg(feature = "otel")]
mod otlp;
mod request_trace;
mod samples;
pub mod span_fields;
mod spans;
pub mod table;
mod text;
#[cfg(test)]
mod text_tests;
mod trace_context;

pub use histogram::{Bounds, Histogram, HistogramSnapshot};
pub use metric::{Kind, Metric};
#[cfg(feature = "otel")]
pub use otlp::{OtlpError, OtlpExporter, OtlpSettings};
pub use request_trace::RequestTrace;
pub use samples::Samples;
pub use spans::{
    CallTrace, NestedSpan, RequestAttributes, TRACE_TARGET, attempt_span, item_span, record_error, run_span,
    step_span,
};
pub use text::{CONTENT_TYPE, text_of};
pub use trace_context::{TraceContext, TraceContextError};
