//! Writes messages to stderr, and never waits long for a reader.
//!
//! Where stderr is a pipe or a socket its reader can stop to read: `2>&1 | less`, or a log shipper that hangs. A thread
//! writes there, and messages wait for it in a queue. A message that finds no room waits a second; from then on, until
//! something is read again, messages are left out, and their number is written as soon as the reader goes on. A file or
//! a terminal is written to directly.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of messages that may wait.
const WAITING: usize = 1 << 20;

/// How long a message waits for room, and the end of the program for the last messages.
const PATIENCE: Duration = Duration::from_secs(1);

/// Messages on their way to a reader.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    texts: VecDeque<String>,
    /// Bytes of `texts`, and of the text that is being written.
    bytes: usize,
    /// Messages that were left out since something was last read.
    left_out: u64,
}

/// The queue of the process; `None` where stderr is written to directly.
static QUEUE: OnceLock<Option<Queue>> = OnceLock::new();

/// Writes `text` and the end of its line.
pub(super) fn write_line(text: &str) {
    let queue = QUEUE.get_or_init(|| has_reader().then(Queue::default));
    match queue {
        Some(queue) if queue.has_thread() => queue.push(format!("{text}\n")),
        // There is nowhere left to say that stderr is closed.
        _ => drop(writeln!(io::stderr(), "{text}")),
    }
}

/// Waits until every message is read, but not for a reader that reads nothing.
pub(super) fn finish() {
    if let Some(Some(queue)) = QUEUE.get() {
        queue.drain();
    }
}

/// Returns whether a process has to read what is written to stderr.
fn has_reader() -> bool {
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let kind = stderr.and_then(|file| file.metadata()).map(|metadata| metadata.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
}

impl Queue {
    /// Returns whether a thread writes what waits; starts it at the first call.
    fn has_thread(&'static self) -> bool {
        static STARTED: OnceLock<bool> = OnceLock::new();
        *STARTED.get_or_init(|| {
            let work = move || self.write_to(&mut io::stderr());
            thread::Builder::new().name("stderr".into()).spawn(work).is_ok()
        })
    }

    fn push(&self, text: String) {
        let mut state = self.lock();
        let has_room = |state: &State| state.texts.is_empty() || state.bytes + text.len() <= WAITING;
        if !has_room(&state) && state.left_out == 0 {
            let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| !has_room(state));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if !has_room(&state) {
            state.left_out += 1;
            return;
        }
        state.bytes += text.len();
        state.texts.push_back(text);
        self.changed.notify_all();
    }

    /// Writes what waits to `out`, for ever.
    fn write_to(&self, out: &mut impl Write) {
        loop {
            let state = self.changed.wait_while(self.lock(), |state| state.texts.is_empty());
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            let Some(text) = state.texts.pop_front() else { continue };
            drop(state);
            // There is nowhere left to say that stderr is closed.
            drop(out.write_all(text.as_bytes()));
            let mut state = self.lock();
            state.bytes -= text.len();
            let left_out = std::mem::take(&mut state.left_out);
            if left_out > 0 {
                let messages = if left_out == 1 { "message was" } else { "messages were" };
                let note = format!("{left_out} {messages} left out here: stderr was not read in time\n");
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
            let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| state.bytes == before);
            let timeout;
            (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
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
    fn a_reader_that_stops_costs_messages_and_learns_how_many() {
        let queue: &Queue = Box::leak(Box::default());
        let long = format!("{}\n", "x".repeat(WAITING / 2 - 1));
        for _ in 0..5 {
            queue.push(long.clone());
        }
        assert_eq!(queue.lock().left_out, 3);
        let (reader, mut writer) = io::pipe().unwrap();
        thread::spawn(move || queue.write_to(&mut writer));
        let lines: Vec<_> = BufReader::new(reader).lines().take(3).map(Result::unwrap).collect();
        assert_eq!(lines[..2], [long.trim_end(), long.trim_end()]);
        assert_eq!(lines[2], "3 messages were left out here: stderr was not read in time");
        queue.push("again\n".to_owned());
        queue.drain();
        assert_eq!(queue.lock().bytes, 0);
    }
}
