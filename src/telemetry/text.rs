//! The text of metrics in the Prometheus text format, version 0.0.4.
//!
//! Every version of Prometheus reads this format, and so does the textfile collector of node_exporter.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::metric::Kind;
use super::samples::{Family, Samples, Value};

/// The content type of the text of [`text_of`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Returns the text of all samples, sorted by the name of the metric and by labels. A metric without samples is left
/// out.
pub fn text_of(samples: &Samples) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(samples.clone()));
    let mut text = String::new();
    let encoded = prometheus_text::encode(&mut text, &registry);
    debug_assert!(encoded.is_ok(), "a String accepts every write");
    text
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.by_metric.values().try_for_each(|family| family.encode(&mut encoder))
    }
}

impl Family {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let metric_type = match self.metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let mut family = encoder.encode_descriptor(self.metric.name, self.metric.help, None, metric_type)?;
        for (labels, value) in &self.values {
            let labels = labels.iter().map(String::as_str);
            let labels: Vec<(&str, &str)> = self.metric.labels.iter().copied().zip(labels).collect();
            let mut encoder = family.encode_family(&labels)?;
            match value {
                Value::Counter(count) => encoder.encode_counter::<NoLabelSet, _, u64>(count, None)?,
                Value::RealCounter(amount) => encoder.encode_counter::<NoLabelSet, _, u64>(amount, None)?,
                Value::Gauge(value) => encoder.encode_gauge(value)?,
                Value::Histogram(snapshot) => encoder.encode_histogram::<NoLabelSet>(
                    snapshot.sum,
                    snapshot.count(),
                    &snapshot.buckets,
                    None,
                )?,
            }
        }
        Ok(())
    }
}
