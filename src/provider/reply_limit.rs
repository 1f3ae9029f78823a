//! What one reply may hold in memory, and the memory that it takes of that of the process.
//!
//! Counted after decompression: 61 KB of gzip can be 64 MiB. A reply that holds more than a small one waits for memory in
//! the middle of being read, so that its sender waits, too. In that time nothing is expected of the sender.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tracing::warn;

use crate::guard::ReplyMemory;
use crate::types::{Cause, Class, Failure, Reply, Shape};

use super::call::Departure;
use super::clocks::Clocks;

/// Most bytes that are held of one reply: of a whole body, or of the text of a streamed answer.
pub(super) const MAX_HELD_BYTES: usize = 16 << 20;

/// Most bytes of one event of a stream.
pub(super) const MAX_EVENT_BYTES: usize = 4 << 20;

/// Bytes of a reply that are not counted.
const FREE_BYTES: usize = 64 << 10;

/// How often a reply is in memory: as it came and as a text while it is read, and its answer then as a text, as a value,
/// for the templates and in the line.
const COPIES: usize = 4;

/// After how long a wait for memory its user is told.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// Whether that was said in this process.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// Values of a JSON answer that are counted: one of more is refused before it is read.
const MAX_VALUES: usize = 1_000_000;

/// The share of memory of one reply while it is read.
pub(super) struct ReplyLimit<'a> {
    memory: ReplyMemory,
    /// Where it is noted that the reply is not read for want of memory.
    departure: Option<&'a Departure>,
    /// What the answer takes until its item ends.
    answer: usize,
}

impl<'a> ReplyLimit<'a> {
    pub(super) fn new(memory: ReplyMemory, departure: Option<&'a Departure>) -> Self {
        Self { memory, departure, answer: 0 }
    }

    /// Takes note that so many bytes are held, and waits until there is memory for them. Returns how long it waited.
    ///
    /// # Errors
    /// `unreadable` when the reply is too large.
    pub(super) async fn hold(&mut self, bytes: usize, clocks: &mut Clocks<'_>) -> Result<Duration, Failure> {
        if bytes > MAX_HELD_BYTES {
            return Err(too_large("the reply", MAX_HELD_BYTES));
        }
        Ok(self.hold_copies_of(bytes, clocks).await)
    }

    /// Takes note of what a whole answer takes from now on, and waits until there is memory for it.
    pub(super) async fn hold_answer(&mut self, text: &str, shape: &Shape, clocks: &mut Clocks<'_>) {
        let bytes = match shape {
            Shape::Json(_) => tree_bytes(text),
            Shape::Text | Shape::Choice(_) => text.len(),
        };
        self.answer = bytes.saturating_mul(COPIES);
        self.hold_copies_of(bytes, clocks).await;
    }

    async fn hold_copies_of(&mut self, bytes: usize, clocks: &mut Clocks<'_>) -> Duration {
        let Some(counted) = bytes.checked_sub(FREE_BYTES) else { return Duration::ZERO };
        let bytes = counted.saturating_mul(COPIES);
        if self.memory.try_hold(bytes) {
            return Duration::ZERO;
        }
        let _pause = self.departure.map(Departure::pause);
        let ((), waited) = clocks.pause(self.memory.hold(bytes)).await;
        self.memory.waited(waited);
        if waited >= LONG_WAIT && !IS_TOLD.swap(true, Relaxed) {
            warn!(
                ?waited,
                "replies wait for memory: raise [run] max_memory, or lower the concurrency of the provider"
            );
        }
        waited
    }

    /// Ends the reply: what is left of it belongs to whoever asked.
    pub(super) fn end(self, result: &Result<Reply, Failure>) {
        let bytes = |text: &str| text.len().saturating_mul(COPIES);
        match result {
            Ok(_) => self.memory.keep(self.answer),
            Err(failure) => self.memory.fail(failure.text.as_deref().map_or(0, bytes)),
        }
    }
}

/// Returns about how many bytes a JSON text takes once it is read.
fn tree_bytes(text: &str) -> usize {
    /// With what keeps a number as its text.
    const VALUE: usize = size_of::<serde_json::Value>() + 24;
    /// The hash of a field's name, and its place in the index.
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
    text.len() + values.min(MAX_VALUES) * VALUE + fields.min(MAX_VALUES) * FIELD
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

/// Makes the failure of a reply of which a part is larger than anything that a model writes.
pub(super) fn too_large(what: &str, limit: usize) -> Failure {
    Failure::new(Class::Unreadable, format!("{what} is larger than {} MiB, unpacked", limit >> 20))
        .because(Cause::TooLarge)
        .maybe_charged()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use super::*;
    use crate::guard::MemoryBudget;
    use crate::provider::settings::Timeouts;

    #[tokio::test]
    async fn a_json_answer_is_counted_as_what_is_read_from_it() {
        let budget = Arc::new(MemoryBudget::new(1 << 30));
        let held = budget.take(0).await;
        let timeouts = Timeouts::default();
        let now = Instant::now();
        let mut clocks = Clocks::start(&timeouts, now + timeouts.total, now);
        let list = format!("[{}1]", "1,".repeat(50_000));
        let text = format!("[\"{}\"]", ",".repeat(100_000));
        let json = Shape::Json(Arc::default());
        for (said, shape, least, most) in [
            (&list, &json, 50_000 * size_of::<serde_json::Value>(), 50_000 * 200),
            (&text, &json, 100_000, 101_000),
            (&list, &Shape::Text, 100_000, 101_000),
        ] {
            let before = budget.used();
            let mut limit = ReplyLimit::new(held.reply(true), None);
            limit.hold_answer(said, shape, &mut clocks).await;
            assert!(budget.used() - before >= COPIES * (least - FREE_BYTES));
            limit.end(&Ok(Reply { text: said.clone(), usage: None, model: String::new(), request_id: None }));
            let kept = budget.used() - before;
            assert!((COPIES * least..=COPIES * most).contains(&kept), "{kept}");
        }
    }
}
