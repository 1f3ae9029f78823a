//! What one filling of a template may take: steps, memory, output and time.
//!
//! The engine counts instructions, but one instruction can build a text of any size. So every operator, filter and
//! output of a rewritten template reports here what it builds, before it builds it where that can be known. A filling
//! runs on one thread from its beginning to its end, so the meter belongs to the thread while a [`Metered`] lives.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use minijinja::{Error, ErrorKind};
use tokio::time::Instant;

/// What a filling may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Operations.
    steps: u64,
    /// Bytes of all texts and lists that are built on the way.
    memory: u64,
    time: Duration,
}

impl Allowance {
    /// What an actor's thread can wait for.
    pub(crate) const BRIEF: Self = Self { steps: 20_000, memory: 1 << 20, time: Duration::from_millis(5) };
    /// The most that a template may take. Far more than any prompt needs.
    pub(crate) const WHOLE: Self =
        Self { steps: 5_000_000, memory: 256 << 20, time: Duration::from_secs(10) };

    /// Returns whether a larger one may do where this does not.
    pub(crate) fn is_brief(self) -> bool {
        self.steps < Self::WHOLE.steps
    }
}

/// What a filling has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Steps,
    Memory,
    Time,
    Prompt,
    /// Nothing waits for the text any more.
    Cancelled,
}

impl Excess {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Steps => "the template takes too many steps",
            Self::Memory => "the template builds too much: texts and lists of more than 256 MiB in all",
            Self::Time => "the template takes longer than 10 seconds",
            Self::Cancelled => "the run stops",
            Self::Prompt => "the text is longer than `max_prompt_bytes` of [defaults]",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Meter {
    steps: u64,
    memory: u64,
    until: Instant,
    /// Steps left when the clock is read next.
    look_at: u64,
    none_is_empty: bool,
    excess: Option<Excess>,
}

thread_local! {
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
    static CANCELLED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Does `work` on this thread; once `cancelled` is set, what it fills ends.
pub(crate) fn cancellable<T>(cancelled: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    CANCELLED.set(Some(cancelled));
    let done = work();
    CANCELLED.set(None);
    done
}

fn is_cancelled() -> bool {
    CANCELLED.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)))
}

/// Steps between two looks at the clock.
const STEPS_PER_LOOK: u64 = 256;

/// Meters the fillings of this thread while it lives.
#[derive(Debug)]
pub(crate) struct Metered(());

impl Metered {
    /// Begins. With `none_is_empty`, `none` is written as nothing.
    pub(crate) fn begin(allowance: Allowance, none_is_empty: bool) -> Self {
        let Allowance { steps, memory, time } = allowance;
        let look_at = steps.saturating_sub(STEPS_PER_LOOK);
        let until = Instant::now() + time;
        METER.set(Some(Meter { steps, memory, until, look_at, none_is_empty, excess: None }));
        Self(())
    }

    /// Returns what has been exceeded.
    pub(crate) fn excess(&self) -> Option<Excess> {
        METER.get().and_then(|meter| meter.excess)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        METER.set(None);
    }
}

/// Takes `bytes` of memory and the steps that so many take.
///
/// # Errors
/// When there is no more.
pub(crate) fn take(bytes: usize) -> Result<(), Error> {
    let bytes = bytes as u64;
    let steps = 1 + bytes / 1024;
    let Some(mut meter) = METER.get() else { return Ok(()) };
    let mut excess = None;
    match meter.steps.checked_sub(steps) {
        Some(left) => meter.steps = left,
        None => excess = Some(Excess::Steps),
    }
    match meter.memory.checked_sub(bytes) {
        Some(left) => meter.memory = left,
        None => excess = Some(Excess::Memory),
    }
    if meter.steps <= meter.look_at {
        meter.look_at = meter.steps.saturating_sub(STEPS_PER_LOOK);
        if Instant::now() >= meter.until {
            excess = Some(Excess::Time);
        }
        if is_cancelled() {
            excess = Some(Excess::Cancelled);
        }
    }
    meter.excess = meter.excess.or(excess);
    METER.set(Some(meter));
    match excess {
        Some(excess) => Err(Error::new(ErrorKind::OutOfFuel, excess.message())),
        None => Ok(()),
    }
}

/// Takes the steps of looking at `count` values.
pub(crate) fn look(count: usize) -> Result<(), Error> {
    take(count.saturating_mul(8))
}

/// Returns whether `none` is to be written as nothing.
pub(crate) fn none_is_empty() -> bool {
    METER.get().is_some_and(|meter| meter.none_is_empty)
}

/// A text that grows no longer than it may.
#[derive(Debug)]
pub(crate) struct Bounded {
    pub(crate) text: Vec<u8>,
    limit: usize,
}

impl Bounded {
    pub(crate) fn new(limit: usize) -> Self {
        Self { text: Vec::new(), limit }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.text.len() {
            if let Some(meter) = METER.get() {
                METER.set(Some(Meter { excess: meter.excess.or(Some(Excess::Prompt)), ..meter }));
            }
            return Err(io::Error::other(Excess::Prompt.message()));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
