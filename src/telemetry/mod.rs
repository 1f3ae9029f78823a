//! Metrics: one table of all metrics, and their text for Prometheus.
//!
//! Counts are kept where the work is done, as plain numbers under a lock that is held anyway, or as atomic numbers. A
//! scrape reads them. So a metric costs an addition where it is counted, and no task runs between scrapes.
//!
//! The sets of labels are bounded: their values come from the configuration and the pipelines, never from items, callers or
//! answers.

mod histogram;
mod metric;
mod samples;
pub mod table;
mod text;
#[cfg(test)]
mod text_tests;

pub use histogram::{Bounds, Histogram, HistogramSnapshot};
pub use metric::{Kind, Metric};
pub use samples::Samples;
pub use text::{CONTENT_TYPE, text_of};
