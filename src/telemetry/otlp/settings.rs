//! The settings of the export of spans, from the environment variables that OpenTelemetry defines.

use std::env;
use std::time::Duration;

/// How long the export of a batch may take, if the environment says nothing else.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many ended spans wait for their export, if the environment says nothing else. A fast run ends thousands a
/// second.
const DEFAULT_QUEUE: usize = 32_768;

/// The most spans that may wait, whatever the environment says: they take about a kilobyte each.
const MAX_QUEUE: usize = 1 << 20;

/// The most spans of a batch, if the environment says nothing else.
const DEFAULT_BATCH: usize = 512;

/// How long a span waits for others of its batch, if the environment says nothing else.
const DEFAULT_DELAY: Duration = Duration::from_secs(1);

/// The variables that name a collector.
const ENDPOINT_VARIABLES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// The settings of an exporter.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OtlpSettings {
    /// The address to which spans are sent, with its path; `None` takes it from the environment.
    pub endpoint: Option<String>,
    /// How long the export of a batch may take.
    pub timeout: Duration,
    /// How many ended spans wait for their export. Others are dropped.
    pub queue: usize,
    /// The most spans of a batch.
    pub batch: usize,
    /// How long a span waits for others of its batch.
    pub delay: Duration,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            timeout: DEFAULT_TIMEOUT,
            queue: DEFAULT_QUEUE,
            batch: DEFAULT_BATCH,
            delay: DEFAULT_DELAY,
        }
    }
}

impl OtlpSettings {
    /// Reads the settings from environment variables; `None` if they name no collector, or disable traces. A value that
    /// is not a number is ignored.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let is = |name: &str, value: &str| {
            variable(name).is_some_and(|found| found.trim().eq_ignore_ascii_case(value))
        };
        let names_collector = |name: &&str| variable(name).is_some_and(|found| !found.trim().is_empty());
        let is_disabled = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
        if is_disabled || !ENDPOINT_VARIABLES.iter().any(names_collector) {
            return None;
        }
        let number = |name: &str| -> Option<u64> { variable(name)?.trim().parse().ok().filter(|n| *n > 0) };
        let size = |name: &str| number(name).and_then(|number| usize::try_from(number).ok());
        let timeout =
            number("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or_else(|| number("OTEL_EXPORTER_OTLP_TIMEOUT"));
        let queue = size("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(DEFAULT_QUEUE).min(MAX_QUEUE);
        Some(Self {
            endpoint: None,
            timeout: timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis),
            queue,
            batch: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(DEFAULT_BATCH).min(queue),
            delay: number("OTEL_BSP_SCHEDULE_DELAY").map_or(DEFAULT_DELAY, Duration::from_millis),
        })
    }

    /// Reads the settings from the environment of the process, as [`from_variables`](Self::from_variables) does.
    pub fn from_environment() -> Option<Self> {
        Self::from_variables(|name| env::var(name).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Option<OtlpSettings> {
        let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
        OtlpSettings::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn without_a_collector_nothing_is_exported() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        assert!(settings(&[]).is_none());
        assert!(settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).is_none());
        assert!(settings(&[collector, ("OTEL_SDK_DISABLED", "true")]).is_none());
        assert!(settings(&[collector, ("OTEL_TRACES_EXPORTER", "none")]).is_none());
        assert!(settings(&[collector]).is_some());
        assert!(settings(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/x")]).is_some());
    }

    #[test]
    fn the_limits_are_read_from_their_variables() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let read = settings(&[
            collector,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "x"),
        ]);
        let read = read.unwrap();
        assert_eq!((read.queue, read.batch), (100, 100), "a batch is at most the queue");
        assert_eq!((read.timeout, read.delay), (Duration::from_millis(2500), DEFAULT_DELAY));
        let huge = settings(&[collector, ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999")]).unwrap();
        assert_eq!(huge.queue, MAX_QUEUE);
    }
}
