//! Limits on the memory of one response, and its share of the memory budget of the process.
//!
//! Counted after decompression: 61 KB of gzip can be 64 MiB. A response that exceeds a small size waits for
//! memory while it is read, so that its sender waits, too. Timeouts of the sender do not run in that time.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tracing::warn;

use crate::guard::ResponseMemory;
use crate::types::{Cause, Class, Completion, Failure, ResponseFormat};

use super::timeouts::CallTimeouts;
use crate::provider::call::DispatchSignal;

/// Maximum bytes held of one response: of a whole body, or of the text of a streamed answer.
pub(in crate::provider) const MAX_HELD_BYTES: usize = 16 << 20;

/// Maximum bytes of the response to a request for embeddings, per input: 4,096 numbers in a JSON list with line ends.
const MAX_BYTES_PER_EMBEDDING: usize = 128 << 10;

/// Maximum bytes of one event of a stream.
pub(in crate::provider) const MAX_EVENT_BYTES: usize = 4 << 20;

/// Bytes of a response that are not counted.
const UNCOUNTED_BYTES: usize = 64 << 10;

/// How many copies of a response are in memory: the raw bytes and the text while it is read; then its answer as
/// a text, as a value, for the templates and in the output line.
const COPIES_PER_RESPONSE: usize = 4;

/// A longer wait for memory is logged as a warning.
const MEMORY_WAIT_WARNING: Duration = Duration::from_secs(10);

/// Whether the warning was logged in this process.
static IS_WAIT_REPORTED: AtomicBool = AtomicBool::new(false);

/// Maximum number of values of a JSON answer that are counted: an answer with more is refused before it is
/// parsed.
const MAX_JSON_VALUES: usize = 1_000_000;

/// The memory of one response while it is read.
pub(in crate::provider) struct ResponseLimit<'a> {
    memory: ResponseMemory,
    max_bytes: usize,
    /// Where it is recorded that the response is not read for lack of memory.
    signal: Option<&'a DispatchSignal>,
    /// Bytes of the answer until its item ends.
    answer: usize,
}

impl<'a> ResponseLimit<'a> {
    pub(in crate::provider) fn new(memory: ResponseMemory, signal: Option<&'a DispatchSignal>) -> Self {
        Self { memory, max_bytes: MAX_HELD_BYTES, signal, answer: 0 }
    }

    /// Allows the size that embeddings of so many inputs have.
    pub(in crate::provider) fn allow_embeddings(&mut self, inputs: usize) {
        self.max_bytes = inputs.saturating_mul(MAX_BYTES_PER_EMBEDDING).max(MAX_HELD_BYTES);
    }

    /// Returns the maximum bytes of the response.
    pub(in crate::provider) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Accounts for so many held bytes, and waits until there is memory for them. Returns how long it waited.
    ///
    /// # Errors
    /// `unreadable` if the response is too large.
    pub(in crate::provider) async fn hold(
        &mut self,
        bytes: usize,
        timeouts: &mut CallTimeouts<'_>,
    ) -> Result<Duration, Failure> {
        if bytes > self.max_bytes {
            return Err(too_large("the response", self.max_bytes));
        }
        Ok(self.hold_copies_of(bytes, timeouts).await)
    }

    /// Accounts for a complete answer from now on, and waits until there is memory for it.
    pub(in crate::provider) async fn hold_answer(
        &mut self,
        completion: &Completion,
        format: &ResponseFormat,
        timeouts: &mut CallTimeouts<'_>,
    ) {
        let text = &completion.text;
        let text_bytes = match format {
            ResponseFormat::Json(_) => json_tree_bytes(text),
            ResponseFormat::Text | ResponseFormat::Choice(_) => text.len(),
        };
        let bytes = text_bytes.saturating_add(completion.bytes().saturating_sub(text.len()));
        self.answer = bytes.saturating_mul(COPIES_PER_RESPONSE);
        self.hold_copies_of(bytes, timeouts).await;
    }

    async fn hold_copies_of(&mut self, bytes: usize, timeouts: &mut CallTimeouts<'_>) -> Duration {
        let Some(counted) = bytes.checked_sub(UNCOUNTED_BYTES) else { return Duration::ZERO };
        let bytes = counted.saturating_mul(COPIES_PER_RESPONSE);
        if self.memory.try_hold(bytes) {
            return Duration::ZERO;
        }
        let _pause = self.signal.map(DispatchSignal::pause);
        let ((), waited) = timeouts.pause(self.memory.hold(bytes)).await;
        self.memory.record_wait(waited);
        if waited >= MEMORY_WAIT_WARNING && !IS_WAIT_REPORTED.swap(true, Relaxed) {
            warn!(
                ?waited,
                "responses wait for memory: raise [run] max_memory, or lower the concurrency of the provider"
            );
        }
        waited
    }

    /// Ends the response: its remaining memory belongs to the caller.
    pub(in crate::provider) fn end(self, result: &Result<Completion, Failure>) {
        let bytes = |text: &str| text.len().saturating_mul(COPIES_PER_RESPONSE);
        match result {
            Ok(_) => self.memory.keep(self.answer),
            Err(failure) => self.memory.fail(failure.text.as_deref().map_or(0, bytes)),
        }
    }
}

/// Estimates how many bytes a JSON text takes once it is parsed.
fn json_tree_bytes(text: &str) -> usize {
    /// Including the text of a number.
    const VALUE: usize = size_of::<serde_json::Value>() + 24;
    /// The hash of a field's name, and its entry in the index.
    const FIELD: usize = 48;
    let mut bytes = text.bytes();
    let mut values = 1_usize;
    let mut fields = 0_usize;
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b',' | b'[' | b'{' => values += 1,
            b':' => fields += 1,
            _ => {}
        }
    }
    text.len() + values.min(MAX_JSON_VALUES) * VALUE + fields.min(MAX_JSON_VALUES) * FIELD
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// Returns the failure of a response with a part that is larger than anything that a model generates.
pub(in crate::provider) fn too_large(what: &str, limit: usize) -> Failure {
    Failure::new(Class::Unreadable, format!("{what} is larger than {} MiB, decompressed", limit >> 20))
        .with_cause(Cause::ResponseTooLarge)
        .maybe_charged()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::guard::MemoryBudget;
    use crate::provider::settings::Timeouts;
    use crate::types::{Part, Reasoning, ToolCall};
    use crate::wire::StreamSupport;

    #[tokio::test]
    async fn a_json_answer_is_counted_with_its_parsed_size() {
        let budget = Arc::new(MemoryBudget::new(1 << 30));
        let held = budget.take(0).await;
        let settings = Timeouts::default();
        let now = Instant::now();
        let mut timeouts = CallTimeouts::start(&settings, StreamSupport::Auto, now + settings.total, now);
        let list = format!("[{}1]", "1,".repeat(50_000));
        let text = format!("[\"{}\"]", ",".repeat(100_000));
        let json = ResponseFormat::Json(Arc::default());
        for (answer, format, min, max) in [
            (&list, &json, 50_000 * size_of::<serde_json::Value>(), 50_000 * 200),
            (&text, &json, 100_000, 101_000),
            (&list, &ResponseFormat::Text, 100_000, 101_000),
        ] {
            let before = budget.used();
            let mut limit = ResponseLimit::new(held.response(true), None);
            let completion = Completion::new(answer.clone());
            limit.hold_answer(&completion, format, &mut timeouts).await;
            assert!(budget.used() - before >= COPIES_PER_RESPONSE * (min - UNCOUNTED_BYTES));
            limit.end(&Ok(completion));
            let held_after = budget.used() - before;
            assert!(
                (COPIES_PER_RESPONSE * min..=COPIES_PER_RESPONSE * max).contains(&held_after),
                "{held_after}"
            );
        }
    }

    #[tokio::test]
    async fn embeddings_may_be_larger_than_an_answer_but_not_without_a_bound() {
        let budget = Arc::new(MemoryBudget::new(1 << 30));
        let held = budget.take(0).await;
        let settings = Timeouts::default();
        let now = Instant::now();
        let mut timeouts = CallTimeouts::start(&settings, StreamSupport::Auto, now + settings.total, now);
        let mut limit = ResponseLimit::new(held.response(true), None);
        assert!(limit.hold(MAX_HELD_BYTES + 1, &mut timeouts).await.is_err());
        limit.allow_embeddings(1);
        assert!(limit.hold(MAX_HELD_BYTES + 1, &mut timeouts).await.is_err());
        limit.allow_embeddings(256);
        assert!(limit.hold(2 * MAX_HELD_BYTES, &mut timeouts).await.is_ok());
        assert!(limit.hold(2 * MAX_HELD_BYTES + 1, &mut timeouts).await.is_err());
        limit.allow_embeddings(usize::MAX);
        assert!(limit.hold(2 * MAX_HELD_BYTES + 1, &mut timeouts).await.is_ok());
    }

    #[tokio::test]
    async fn tool_calls_and_reasoning_of_an_answer_are_counted() {
        let budget = Arc::new(MemoryBudget::new(1 << 30));
        let held = budget.take(0).await;
        let settings = Timeouts::default();
        let now = Instant::now();
        let mut timeouts = CallTimeouts::start(&settings, StreamSupport::Auto, now + settings.total, now);
        let arguments = format!("{{\"note\":\"{}\"}}", "a".repeat(100_000));
        let parts = vec![
            Part::Reasoning(Reasoning::new("b".repeat(100_000))),
            Part::ToolCall(ToolCall::new("a", "note", arguments)),
        ];
        let completion = Completion { parts, ..Completion::default() };
        let before = budget.used();
        let mut limit = ResponseLimit::new(held.response(true), None);
        limit.hold_answer(&completion, &ResponseFormat::Text, &mut timeouts).await;
        limit.end(&Ok(completion));
        let held_after = budget.used() - before;
        assert!((COPIES_PER_RESPONSE * 200_000..=COPIES_PER_RESPONSE * 201_000).contains(&held_after));
    }
}
