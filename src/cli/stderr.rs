//! Writes messages to stderr without waiting long for its reader.
//!
//! Where stderr is a pipe or a socket, its reader may stop reading, as with `2>&1 | less` or a log shipper that
//! hangs. In this case a thread writes the messages from a queue. When the queue is full, a message waits one
//! second; then messages are dropped until the reader continues, and their number is written. A file or a terminal
//! is written to directly.
//!
//! The progress of a run may be shown as lines at the end of the terminal. A message is printed above them, in one piece
//! with the lines that are drawn again below it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use console::Term;
use tokio::time::Instant;

use super::live_lines::{LiveLine, LiveLines};

/// The most bytes of queued messages.
const MAX_QUEUED_BYTES: usize = 1 << 20;

/// How long a message waits for space in the queue, and the end of the program for each of the last messages.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The queue of messages.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    texts: VecDeque<String>,
    /// The bytes of `texts` and of the text that is being written.
    bytes: usize,
    /// Messages that were dropped since the last read.
    dropped: u64,
}

/// The queue of the process; `None` if stderr is written to directly.
static QUEUE: OnceLock<Option<Queue>> = OnceLock::new();

/// The lines at the end of the terminal of the process.
static LIVE: Mutex<Live> = Mutex::new(Live { lines: LiveLines::new(), redraws: Redraws::new() });

/// The lines at the end of the terminal.
struct Live {
    lines: LiveLines,
    redraws: Redraws,
}

/// Limits how often the lines are drawn because something else was written to the terminal. Beyond that they are hidden
/// until they change.
struct Redraws {
    /// The start of the interval; `None` before the first drawing.
    start: Option<Instant>,
    /// Drawings in the interval.
    count: u32,
}

impl Redraws {
    /// The most drawings in an interval.
    const MAX: u32 = 10;

    const INTERVAL: Duration = Duration::from_secs(1);

    const fn new() -> Self {
        Self { start: None, count: 0 }
    }

    /// Counts a drawing, and returns whether it is within the limit.
    fn count(&mut self, now: Instant) -> bool {
        if self.start.is_none_or(|start| now - start >= Self::INTERVAL) {
            *self = Self { start: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= Self::MAX
    }
}

/// Writes `text` and a newline.
pub(super) fn write_line(text: &str) {
    let text = format!("{text}\n");
    let mut live = live();
    if !live.lines.is_shown() {
        // Threads that write at the same time do not wait for each other here.
        drop(live);
        write(text);
    } else if live.redraws.count(Instant::now()) {
        write(live.lines.print_above(&text, size().1));
    } else {
        write(live.lines.hide(size().1) + &text);
    }
}

/// Draws lines at the end of the terminal, in place of those that were drawn before.
pub(super) fn draw(lines: Vec<LiveLine>) {
    let mut live = live();
    let text = live.lines.replace(lines, size().1);
    if !text.is_empty() {
        live.redraws.count(Instant::now());
        write(text);
    }
}

/// Removes the lines at the end of the terminal.
pub(super) fn clear() {
    clear_lines(&mut live());
}

/// Removes the lines at the end of the terminal, unless they are being changed: the panic may be there.
pub(super) fn clear_before_panic() {
    if let Ok(mut live) = LIVE.try_lock() {
        clear_lines(&mut live);
    }
}

fn clear_lines(live: &mut Live) {
    if live.lines.is_shown() {
        write(live.lines.hide(size().1));
    }
    live.lines = LiveLines::new();
}

/// Runs `print`, which writes to the same terminal, without the lines at its end.
pub(super) fn above<R>(print: impl FnOnce() -> R) -> R {
    let mut live = live();
    if !live.lines.is_shown() {
        drop(live);
        return print();
    }
    write(live.lines.hide(size().1));
    let result = print();
    if live.redraws.count(Instant::now()) {
        write(live.lines.show());
    }
    result
}

/// Returns whether stderr is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Returns the rows and columns of the terminal, or else 24 and 80.
pub(super) fn size() -> (usize, usize) {
    let (rows, columns) = Term::stderr().size();
    (usize::from(rows), usize::from(columns))
}

fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(text: String) {
    let queue = QUEUE.get_or_init(|| has_reader().then(Queue::default));
    match queue {
        Some(queue) if queue.has_thread() => queue.push(text),
        // A closed stderr cannot be reported anywhere.
        _ => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until every message is read; a reader that reads nothing is not waited for.
pub(super) fn finish() {
    if let Some(Some(queue)) = QUEUE.get() {
        queue.drain();
    }
}

/// Returns whether stderr is read by another process.
fn has_reader() -> bool {
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let kind = stderr.and_then(|file| file.metadata()).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
}

impl Queue {
    /// Returns whether a thread writes the queue; starts it at the first call.
    fn has_thread(&'static self) -> bool {
        static STARTED: OnceLock<bool> = OnceLock::new();
        *STARTED.get_or_init(|| {
            let work = move || self.write_to(&mut io::stderr());
            thread::Builder::new().name("stderr".into()).spawn(work).is_ok()
        })
    }

    fn push(&self, text: String) {
        let mut state = self.lock();
        let has_space =
            |state: &State| state.texts.is_empty() || state.bytes + text.len() <= MAX_QUEUED_BYTES;
        if !has_space(&state) && state.dropped == 0 {
            let waited = self.changed.wait_timeout_while(state, MAX_WAIT, |state| !has_space(state));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !has_space(&state) {
            state.dropped += 1;
            return;
        }
        state.bytes += text.len();
        state.texts.push_back(text);
        self.changed.notify_all();
    }

    /// Writes the queued messages to `out`, without end.
    fn write_to(&self, out: &mut impl Write) {
        loop {
            let state = self.changed.wait_while(self.lock(), |state| state.texts.is_empty());
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            let Some(text) = state.texts.pop_front() else { continue };
            drop(state);
            // A closed stderr cannot be reported anywhere.
            drop(out.write_all(text.as_bytes()));
            let mut state = self.lock();
            state.bytes -= text.len();
            let dropped = std::mem::take(&mut state.dropped);
            if dropped > 0 {
                let messages = if dropped == 1 { "message was" } else { "messages were" };
                let note = format!("{dropped} {messages} dropped here: stderr was not read in time\n");
                state.bytes += note.len();
                state.texts.push_back(note);
            }
            self.changed.notify_all();
        }
    }

    fn drain(&self) {
        let mut state = self.lock();
        while state.bytes > 0 {
            let before = state.bytes;
            let waited = self.changed.wait_timeout_while(state, MAX_WAIT, |state| state.bytes == before);
            let (locked, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = locked;
            if timeout.timed_out() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn the_lines_are_drawn_at_most_ten_times_a_second_for_what_is_written_above_them() {
        let mut redraws = Redraws::new();
        let start = Instant::now();
        let drawn = |redraws: &mut Redraws, millis: u64| {
            let times = (0..30).map(|number: u64| start + Duration::from_millis(millis + number));
            times.filter(|now| redraws.count(*now)).count()
        };
        assert_eq!(drawn(&mut redraws, 0), 10);
        assert_eq!(drawn(&mut redraws, 900), 0);
        assert_eq!(drawn(&mut redraws, 1_000), 10);
    }

    #[test]
    fn a_reader_that_stops_gets_the_number_of_dropped_messages() {
        let queue: &Queue = Box::leak(Box::default());
        let long = format!("{}\n", "x".repeat(MAX_QUEUED_BYTES / 2 - 1));
        for _ in 0..5 {
            queue.push(long.clone());
        }
        assert_eq!(queue.lock().dropped, 3);
        let (reader, mut writer) = io::pipe().unwrap();
        thread::spawn(move || queue.write_to(&mut writer));
        let lines: Vec<_> = BufReader::new(reader).lines().take(3).map(Result::unwrap).collect();
        assert_eq!(lines[..2], [long.trim_end(), long.trim_end()]);
        assert_eq!(lines[2], "3 messages were dropped here: stderr was not read in time");
        queue.push("again\n".to_owned());
        queue.drain();
        assert_eq!(queue.lock().bytes, 0);
    }
}
