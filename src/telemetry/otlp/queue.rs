//! The bounded queue of ended spans, and the thread that exports them in batches.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use opentelemetry::{Array, Context, StringValue, Value};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::settings::OtlpSettings;
use crate::telemetry::span_fields;

/// How often lost spans are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How often a flush tries again to enter a queue that is full.
const FLUSH_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// An entry of the queue.
enum Entry {
    /// A span that has ended.
    Span(Box<SpanData>),
    /// Everything before it is exported, and then this is reported.
    Flush(SyncSender<()>),
}

/// The queue of ended spans.
#[derive(Debug, Clone)]
pub(super) struct ExportQueue {
    entries: Sender<Entry>,
    lost: Arc<LostSpans>,
}

/// Counts of spans that were not exported.
#[derive(Debug, Default)]
struct LostSpans {
    /// Those that ended while the queue was full.
    dropped: AtomicU64,
    /// Those of batches that the collector did not accept.
    refused: AtomicU64,
}

impl LostSpans {
    fn total(&self) -> u64 {
        self.dropped.load(Relaxed) + self.refused.load(Relaxed)
    }
}

impl ExportQueue {
    /// Creates the queue, and starts the thread that exports what is in it. The thread ends with the last handle.
    pub(super) fn start(exporter: SpanExporter, settings: &OtlpSettings) -> io::Result<Self> {
        let (sender, entries) = channel(settings.queue.max(1));
        let lost = Arc::<LostSpans>::default();
        let worker = ExportWorker {
            exporter,
            entries,
            lost: lost.clone(),
            batch: settings.batch.max(1),
            delay: settings.delay,
            last_logged: None,
            logged: 0,
        };
        // With a runtime of its own, so that neither busy threads of the program nor its end delay the export.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("pointsman-otlp".to_owned())
            .spawn(move || runtime.block_on(worker.run()))?;
        Ok(Self { entries: sender, lost })
    }

    /// Adds a span, or drops and counts it if the queue is full.
    fn push(&self, span: SpanData) {
        if self.entries.try_send(Entry::Span(Box::new(span))).is_err() {
            self.lost.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until what is in the queue now is exported or refused. Returns whether that was in this time.
    pub(super) fn flush(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let (done, is_done) = sync_channel(1);
        let mut entry = Entry::Flush(done);
        loop {
            entry = match self.entries.try_send(entry) {
                Ok(()) => break,
                Err(TrySendError::Full(entry)) if Instant::now() < deadline => entry,
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => return false,
            };
            thread::park_timeout(FLUSH_POLL_INTERVAL);
        }
        is_done.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    pub(super) fn lost_spans(&self) -> u64 {
        self.lost.total()
    }
}

/// Puts ended spans into the queue.
#[derive(Debug)]
pub(super) struct QueueProcessor {
    queue: ExportQueue,
}

impl QueueProcessor {
    pub(super) fn new(queue: ExportQueue) -> Self {
        Self { queue }
    }
}

impl SpanProcessor for QueueProcessor {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        // The convention wants a list, and a field of `tracing` cannot be one.
        let mut attributes = span.attributes.iter_mut();
        let reasons = attributes.find(|attribute| attribute.key.as_str() == span_fields::FINISH_REASONS);
        if let Some(reasons) = reasons {
            let reason: StringValue = reasons.value.as_str().into_owned().into();
            reasons.value = Value::Array(Array::String(vec![reason]));
        }
        self.queue.push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.shutdown()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        if self.queue.flush(timeout) { Ok(()) } else { Err(OTelSdkError::Timeout(timeout)) }
    }
}

/// Exports the spans of the queue in batches.
struct ExportWorker {
    exporter: SpanExporter,
    entries: Receiver<Entry>,
    lost: Arc<LostSpans>,
    batch: usize,
    delay: Duration,
    last_logged: Option<Instant>,
    /// The number of lost spans that was logged last.
    logged: u64,
}

impl ExportWorker {
    /// Exports until the last handle of the queue is dropped.
    async fn run(mut self) {
        let mut open = true;
        while open {
            let mut spans = Vec::new();
            let mut flushes = Vec::new();
            open = self.collect(&mut spans, &mut flushes).await;
            if !spans.is_empty() {
                let count = spans.len() as u64;
                if self.exporter.export(spans).await.is_err() {
                    self.lost.refused.fetch_add(count, Relaxed);
                }
            }
            self.log_lost(!flushes.is_empty() || !open);
            for flush in flushes {
                // The caller may have stopped waiting.
                let _ = flush.try_send(());
            }
        }
    }

    /// Waits for a batch: until it is full, its first span has waited for `delay`, or a flush arrives. Returns whether
    /// more may come.
    async fn collect(&mut self, spans: &mut Vec<SpanData>, flushes: &mut Vec<SyncSender<()>>) -> bool {
        let mut until = Instant::now() + LOG_INTERVAL;
        while spans.len() < self.batch {
            match timeout_at(until, self.entries.recv()).await {
                Ok(Some(Entry::Span(span))) => {
                    if spans.is_empty() {
                        until = Instant::now() + self.delay;
                    }
                    spans.push(*span);
                }
                Ok(Some(Entry::Flush(done))) => {
                    flushes.push(done);
                    return true;
                }
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
        true
    }

    /// Logs how many spans were lost: `dropped` because the queue was full, `refused` because the collector did not accept
    /// them. Once a minute, and at the end.
    fn log_lost(&mut self, is_end: bool) {
        let lost = self.lost.total();
        let is_due = self.last_logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if lost > self.logged && (is_due || is_end) {
            let dropped = self.lost.dropped.load(Relaxed);
            let refused = self.lost.refused.load(Relaxed);
            warn!(dropped, refused, "spans were not exported");
            self.last_logged = Some(Instant::now());
            self.logged = lost;
        }
    }
}
