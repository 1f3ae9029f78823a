//! Export of spans to an OpenTelemetry collector: OTLP, as protobuf over HTTP.
//!
//! ```text
//! spans --> layer of tracing-opentelemetry --> bounded queue --> thread: batches --> HTTP --> collector
//! ```
//!
//! A span that ends while the queue is full is dropped, and so is a batch that the collector does not accept. Both are
//! counted, and a warning with the counts is logged once a minute. Work never waits for the collector. The endpoint, the
//! headers and the limits come from the environment variables that OpenTelemetry defines.

mod queue;
mod settings;

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use self::queue::{ExportQueue, QueueProcessor};
use super::spans::TRACE_TARGET;

pub use self::settings::OtlpSettings;

/// The name of the service in exported spans, if the environment names none.
const SERVICE_NAME: &str = "pointsman";

/// Why no exporter could be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The address, the headers or another setting is not usable.
    #[error("the settings of the exporter of traces are not usable")]
    Settings(#[source] ExporterBuildError),
    /// The HTTP client could not be created.
    #[error("cannot set up HTTP for the export of traces")]
    Client(#[source] reqwest::Error),
    /// TLS could not be set up.
    #[error("cannot set up TLS for the export of traces")]
    Tls(#[source] rustls::Error),
    /// The thread of the exporter could not be started.
    #[error("cannot start the thread that exports traces")]
    Thread(#[source] std::io::Error),
}

/// Exports spans to a collector, on a thread of its own.
#[derive(Debug)]
pub struct OtlpExporter {
    provider: SdkTracerProvider,
    queue: ExportQueue,
}

impl OtlpExporter {
    /// Starts an exporter. It does not wait for the collector.
    ///
    /// # Errors
    /// If the settings are not usable, or the thread cannot be started.
    pub fn start(settings: &OtlpSettings) -> Result<Self, OtlpError> {
        let tls = crate::tls::client_config().map_err(OtlpError::Tls)?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .timeout(settings.timeout)
            // A redirect would send the headers, which may contain a key, to an address that is not configured.
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls);
        let mut builder = SpanExporter::builder()
            .with_http()
            .with_http_client(client.build().map_err(OtlpError::Client)?)
            .with_timeout(settings.timeout);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let mut exporter = builder.build().map_err(OtlpError::Settings)?;
        let resource = resource();
        opentelemetry_sdk::trace::SpanExporter::set_resource(&mut exporter, &resource);
        let queue = ExportQueue::start(exporter, settings).map_err(OtlpError::Thread)?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(QueueProcessor::new(queue.clone()))
            .build();
        Ok(Self { provider, queue })
    }

    /// Creates the layer of a subscriber that exports the spans of Pointsman.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(SERVICE_NAME))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            // The spans are never entered.
            .with_context_activation(false)
            .with_filter(Targets::new().with_target(TRACE_TARGET, LevelFilter::TRACE))
    }

    /// Exports the spans that have ended until now. Returns whether that was done in this time.
    pub fn flush(&self, time: Duration) -> bool {
        self.queue.flush(time)
    }

    /// Returns how many spans were not exported: the queue was full, or the collector did not accept them.
    pub fn lost_spans(&self) -> u64 {
        self.queue.lost_spans()
    }
}

/// Returns what all exported spans have in common. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` take precedence.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let is_named = |key: &'static str| {
        let value = detected.get(&Key::from_static_str(key));
        value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let mut builder = Resource::builder();
    if !is_named("service.name") {
        builder = builder.with_service_name(SERVICE_NAME);
    }
    if !is_named("service.version") {
        builder = builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    builder.build()
}
