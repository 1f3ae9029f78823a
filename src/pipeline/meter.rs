//! Limits on the rendering of a template: steps, memory, output and time.
//!
//! The engine counts instructions, but one instruction can build a text of any size. So every operator, filter and
//! output of a rewritten template charges the meter for what it builds, in advance if the size is known. A
//! template is rendered on one thread, so the meter is thread-local and exists as long as a [`MeterGuard`].

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use minijinja::{Error, ErrorKind};
use tokio::time::Instant;

/// What the rendering of one template may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    /// Operations.
    steps: u64,
    /// Bytes of all texts and lists that are built.
    memory: u64,
    time: Duration,
}

impl Allowance {
    /// What may run on an actor's thread.
    pub(crate) const QUICK: Self = Self { steps: 20_000, memory: 1 << 20, time: Duration::from_millis(5) };
    /// The limit for any template. Far more than a prompt needs.
    pub(crate) const MAX: Self = Self { steps: 5_000_000, memory: 256 << 20, time: Duration::from_secs(10) };

    /// Returns whether a template that exceeds this allowance may succeed with a larger one.
    pub(crate) fn is_below_max(self) -> bool {
        self.steps < Self::MAX.steps
    }
}

/// The limit that a template exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Steps,
    Memory,
    Time,
    Prompt,
    /// The text is not needed any more.
    Cancelled,
}

impl Excess {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Steps => "the template needs too many steps",
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
    deadline: Instant,
    /// The clock is read when this many steps are left.
    check_clock_at: u64,
    none_is_empty: bool,
    excess: Option<Excess>,
}

thread_local! {
    static METER: Cell<Option<Meter>> = const { Cell::new(None) };
    static CANCELLED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
}

/// Runs `work` on this thread. Once `cancelled` is set, a template that it renders fails.
pub(crate) fn cancellable<T>(cancelled: Arc<AtomicBool>, work: impl FnOnce() -> T) -> T {
    CANCELLED.set(Some(cancelled));
    let result = work();
    CANCELLED.set(None);
    result
}

fn is_cancelled() -> bool {
    CANCELLED.with_borrow(|flag| flag.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)))
}

/// Steps between two reads of the clock.
const STEPS_PER_CLOCK_CHECK: u64 = 256;

/// Meters the templates that this thread renders, until the guard is dropped.
#[derive(Debug)]
pub(crate) struct MeterGuard(());

impl MeterGuard {
    /// Starts the meter. With `none_is_empty`, `none` is rendered as an empty text.
    pub(crate) fn start(allowance: Allowance, none_is_empty: bool) -> Self {
        let Allowance { steps, memory, time } = allowance;
        let check_clock_at = steps.saturating_sub(STEPS_PER_CLOCK_CHECK);
        let deadline = Instant::now() + time;
        METER.set(Some(Meter { steps, memory, deadline, check_clock_at, none_is_empty, excess: None }));
        Self(())
    }

    /// Returns the limit that was exceeded.
    pub(crate) fn excess(&self) -> Option<Excess> {
        METER.get().and_then(|meter| meter.excess)
    }
}

impl Drop for MeterGuard {
    fn drop(&mut self) {
        METER.set(None);
    }
}

/// Charges `bytes` of memory and the steps to build them.
///
/// # Errors
/// If a limit is exceeded.
pub(crate) fn charge(bytes: usize) -> Result<(), Error> {
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
    if meter.steps <= meter.check_clock_at {
        meter.check_clock_at = meter.steps.saturating_sub(STEPS_PER_CLOCK_CHECK);
        if Instant::now() >= meter.deadline {
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

/// Charges the steps to visit `count` values.
pub(crate) fn charge_visits(count: usize) -> Result<(), Error> {
    charge(count.saturating_mul(8))
}

/// Returns whether `none` is rendered as an empty text.
pub(crate) fn none_is_empty() -> bool {
    METER.get().is_some_and(|meter| meter.none_is_empty)
}

/// A writer into memory that fails beyond a limit.
#[derive(Debug)]
pub(crate) struct BoundedWriter {
    pub(crate) text: Vec<u8>,
    limit: usize,
}

impl BoundedWriter {
    pub(crate) fn new(limit: usize) -> Self {
        Self { text: Vec::new(), limit }
    }
}

impl io::Write for BoundedWriter {
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
