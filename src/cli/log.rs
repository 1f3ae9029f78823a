//! Writes the library's log to stderr, above the progress display.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Scope};
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock;
use crate::telemetry::TRACE_TARGET;
use crate::types::error_chain;

use super::args::{LogArgs, LogFormat};
use super::print::{eprint_json_line, eprint_log};
use super::progress::{Mode, eprint_json};

/// Starts logging: warnings, and more with `-v`. In JSON mode a line is
/// `{"log": ...}`, with a text or, if the log has the format JSON, with an object.
pub(super) fn start(args: LogArgs, mode: Mode) {
    start_at(args, Level::WARN, mode);
}

/// Starts the log of a command without a progress display.
pub(super) fn start_without_display(args: LogArgs) {
    start_at(args, Level::WARN, Mode::Lines);
}

/// Starts the log of a daemon, which has no progress display: also what happens in normal operation, such as the access
/// log.
#[cfg(feature = "server")]
pub(super) fn start_daemon(args: LogArgs) {
    start_at(args, Level::INFO, Mode::Lines);
}

/// Starts logging from `level` on, and more with `-v`.
fn start_at(args: LogArgs, level: Level, mode: Mode) {
    let level = match args.verbose {
        0 => level,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let ours = Targets::new()
        .with_target("pointsman", level)
        // Spans are for traces, and no part of the log.
        .with_target(TRACE_TARGET, LevelFilter::OFF)
        .with_default(Level::ERROR);
    let writer = LogWriter { format: args.format, is_wrapped: mode == Mode::Json };
    #[cfg(feature = "otel")]
    let exporter = super::otlp::start();
    #[cfg(feature = "otel")]
    if let Ok(Some(exporter)) = exporter {
        return start_with_traces(args.format, ours, writer, exporter);
    }
    let registry = tracing_subscriber::registry().with(ours);
    let started = match args.format {
        LogFormat::Text => registry.with(text_layer(writer)).try_init(),
        LogFormat::Json => registry.with(json_layer(writer)).try_init(),
    };
    // If logging has started before in this process, the first logger stays.
    drop(started);
    #[cfg(feature = "otel")]
    if let Err(error) = exporter {
        tracing::warn!(error = error_chain(&error), "traces are not exported");
    }
}

/// Starts logging, and gives the spans to the exporter.
#[cfg(feature = "otel")]
fn start_with_traces(
    format: LogFormat,
    ours: Targets,
    writer: LogWriter,
    exporter: &crate::telemetry::OtlpExporter,
) {
    let lines: Box<dyn Layer<tracing_subscriber::Registry> + Send + Sync> = match format {
        LogFormat::Text => Box::new(text_layer(writer)),
        LogFormat::Json => Box::new(json_layer(writer)),
    };
    let registry = tracing_subscriber::registry().with(lines.with_filter(ours)).with(exporter.layer());
    // If logging has started before in this process, the first logger stays.
    drop(registry.try_init());
}

/// Returns a layer that writes lines to read in a terminal.
fn text_layer<S, W>(writer: W) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_target(false)
        .without_time()
        // If the log had colors, escape sequences in a field could not be recognized and removed.
        .with_ansi(false)
}

/// Returns a layer that writes one JSON object per line.
fn json_layer<S, W>(writer: W) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(JsonLine)
        .with_ansi(false)
        .with_writer(writer)
}

/// Formats an event as a JSON object: `timestamp`, `level`, `module` and `message`, then the fields of the event, and
/// the `spans` around it, the outermost first. Its module is not called `target`, because a target is a model at a
/// provider.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = JsonVisitor(Map::new());
        event.record(&mut fields);
        let JsonVisitor(mut fields) = fields;
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), format!("{:.6}", clock::now()).into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("module".to_owned(), metadata.target().into());
        line.insert("message".to_owned(), fields.shift_remove("message").unwrap_or_default());
        for (name, value) in fields {
            let is_taken = line.contains_key(&name) || name == "spans";
            line.insert(if is_taken { format!("{name}_") } else { name }, value);
        }
        let spans: Vec<Value> = context
            .event_scope()
            .into_iter()
            .flat_map(Scope::from_root)
            .map(|span| {
                let mut object = Map::from_iter([("name".to_owned(), span.name().into())]);
                let extensions = span.extensions();
                let formatted = extensions.get::<FormattedFields<N>>().map(|fields| fields.fields.as_str());
                // `JsonFields` writes an object.
                let fields = formatted.and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
                object.extend(fields.unwrap_or_default());
                Value::Object(object)
            })
            .collect();
        if !spans.is_empty() {
            line.insert("spans".to_owned(), spans.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Collects the fields of an event.
struct JsonVisitor(Map<String, Value>);

impl JsonVisitor {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for JsonVisitor {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.insert(field, error_chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

struct LogWriter {
    format: LogFormat,
    /// Whether a line is the value of `log` in an object, because the other lines are objects too.
    is_wrapped: bool,
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine { around: self, text: Vec::new() }
    }
}

/// Collects a line and writes it at once when it is dropped.
struct LogLine<'a> {
    around: &'a LogWriter,
    text: Vec<u8>,
}

impl Write for LogLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        let LogWriter { format, is_wrapped } = self.around;
        let text = String::from_utf8_lossy(&self.text);
        let text = text.trim_end();
        match (format, is_wrapped) {
            (LogFormat::Text, false) => eprint_log(text),
            (LogFormat::Text, true) => eprint_json("log", &text.trim_start()),
            (LogFormat::Json, false) => eprint_json_line(text),
            (LogFormat::Json, true) => eprint_json_line(&format!("{{\"log\":{text}}}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info_span, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the JSON lines that are logged during `work`.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::registry().with(json_layer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_an_object_with_its_fields_and_the_spans_around_it() {
        let lines = logged(|| {
            let run = info_span!("run", run = 7, state = tracing::field::Empty);
            let _run = run.enter();
            run.record("state", "holding");
            let _item = info_span!("item", item = "a\nb").entered();
            let error = io::Error::other("no\u{1b}[2J space");
            let error: &dyn std::error::Error = &error;
            let wait = [1];
            let late = true;
            warn!(target = "p/m", count = 3, share = 0.5, late, ?wait, error, level = "x", "target is late");
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.ends_with('Z') && timestamp.len() == "2026-01-01T00:00:00.000000Z".len());
        let expected = serde_json::json!({
            "timestamp": timestamp,
            "level": "WARN",
            "module": module_path!(),
            "message": "target is late",
            "target": "p/m",
            "count": 3,
            "share": 0.5,
            "late": true,
            "wait": "[1]",
            "error": "no\u{1b}[2J space",
            "level_": "x",
            "spans": [{ "name": "run", "run": 7, "state": "holding" }, { "name": "item", "item": "a\nb" }],
        });
        assert_eq!(line, &expected);
    }

    #[test]
    fn a_line_stays_one_line_whatever_its_fields_contain() {
        let lines = logged(|| {
            warn!(text = "a\nb\r\"}\u{2028}", "first");
            warn!("second");
        });
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["text"], "a\nb\r\"}\u{2028}");
        assert_eq!(lines[1].as_object().unwrap().len(), 4);
    }
}
