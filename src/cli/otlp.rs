//! Export of traces, if the environment names an OpenTelemetry collector.

use std::sync::OnceLock;
use std::time::Duration;

use crate::telemetry::{OtlpError, OtlpExporter, OtlpSettings};

/// How long the program waits at its end for the export of its last spans.
const MAX_FLUSH_TIME: Duration = Duration::from_secs(5);

static EXPORTER: OnceLock<OtlpExporter> = OnceLock::new();

/// Starts the exporter; `None` if the environment names no collector.
///
/// # Errors
/// If the settings in the environment are not usable.
pub(super) fn start() -> Result<Option<&'static OtlpExporter>, OtlpError> {
    let Some(settings) = OtlpSettings::from_environment() else { return Ok(None) };
    if let Some(running) = EXPORTER.get() {
        return Ok(Some(running));
    }
    let exporter = OtlpExporter::start(&settings)?;
    Ok(Some(EXPORTER.get_or_init(|| exporter)))
}

/// Exports the last spans, if there is an exporter. If the collector is away, they are lost after a few seconds.
pub(super) fn finish() {
    if let Some(exporter) = EXPORTER.get() {
        exporter.flush(MAX_FLUSH_TIME);
    }
}
