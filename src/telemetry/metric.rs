//! The definition of a metric.

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows. The text has its name with the suffix `_total`.
    Counter,
    /// A number at the time of the scrape.
    Gauge,
    /// A distribution, in buckets with upper bounds.
    Histogram,
}

/// A metric: its name without the suffix of a counter, what it measures, and its labels in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name, such as `pointsman_attempts`, with the unit as its last word where it has one.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence that says what is counted, without its period.
    pub help: &'static str,
}
