//! A channel from a blocking thread to an async task, bounded by number of messages and by bytes.
//!
//! A sender that has reached the bound is woken when half of it is free again, so a busy reader does not pay
//! for one wake-up per message. A message larger than the whole bound passes when the queue is empty. Neither
//! side holds the lock while it waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The receiver was dropped.
#[derive(Debug)]
pub(super) struct Disconnected;

/// Creates a channel that holds up to `capacity` messages and about `max_bytes` bytes.
pub(super) fn channel<T>(capacity: usize, max_bytes: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        queue: VecDeque::new(),
        bytes: 0,
        is_sender_waiting: false,
        is_sender_dropped: false,
        is_receiver_dropped: false,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        capacity,
        max_bytes,
        has_space: Condvar::new(),
        ready: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

pub(super) struct Sender<T>(Arc<Shared<T>>);

pub(super) struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    max_bytes: usize,
    has_space: Condvar,
    ready: Notify,
}

struct State<T> {
    queue: VecDeque<(T, usize)>,
    bytes: usize,
    /// Whether the sender waits for space.
    is_sender_waiting: bool,
    /// Whether the sender was dropped: no more messages will arrive.
    is_sender_dropped: bool,
    /// Whether the receiver was dropped.
    is_receiver_dropped: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Waits for space and sends `message`, which takes about `bytes` of memory. Blocks the thread.
    pub(super) fn send(&self, message: T, bytes: usize) -> Result<(), Disconnected> {
        let shared = &*self.0;
        let mut state = shared.lock();
        while !state.is_receiver_dropped && state.is_full(shared, bytes) {
            state.is_sender_waiting = true;
            state = shared.has_space.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_sender_waiting = false;
        if state.is_receiver_dropped {
            return Err(Disconnected);
        }
        let was_empty = state.queue.is_empty();
        state.queue.push_back((message, bytes));
        state.bytes += bytes;
        drop(state);
        if was_empty {
            shared.ready.notify_one();
        }
        Ok(())
    }
}

impl<T> State<T> {
    fn is_full(&self, shared: &Shared<T>, bytes: usize) -> bool {
        let exceeds_bytes = self.bytes.saturating_add(bytes) > shared.max_bytes;
        !self.queue.is_empty() && (self.queue.len() >= shared.capacity || exceeds_bytes)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().is_sender_dropped = true;
        self.0.ready.notify_one();
    }
}

impl<T> Receiver<T> {
    /// Returns the next message, or `None` when the sender was dropped and everything was received.
    /// Cancel-safe.
    pub(super) async fn recv(&mut self) -> Option<T> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some((message, bytes)) = state.queue.pop_front() {
                    state.bytes -= bytes;
                    let half_free =
                        state.queue.len() <= self.0.capacity / 2 && state.bytes <= self.0.max_bytes / 2;
                    let wake = state.is_sender_waiting && half_free;
                    drop(state);
                    if wake {
                        self.0.has_space.notify_one();
                    }
                    return Some(message);
                }
                if state.is_sender_dropped {
                    return None;
                }
            }
            // A message that arrived since the lock was released has stored a permit here.
            self.0.ready.notified().await;
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_receiver_dropped = true;
        let rest = std::mem::take(&mut state.queue);
        drop(state);
        self.0.has_space.notify_one();
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn every_message_arrives_once_and_in_order() {
        let (to, mut from) = channel(7, 100);
        let thread = thread::spawn(move || {
            for number in 0..10_000_usize {
                // Some messages take more than the whole bound.
                to.send(number, if number % 97 == 0 { 1000 } else { number % 40 }).unwrap();
            }
        });
        for number in 0..10_000 {
            assert_eq!(from.recv().await, Some(number));
        }
        assert_eq!(from.recv().await, None);
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn no_more_messages_are_queued_than_the_bound_allows() {
        let (to, mut from) = channel(1000, 100);
        let waiting = Arc::new(AtomicUsize::new(0));
        let sent = waiting.clone();
        let thread = thread::spawn(move || {
            for _ in 0..500 {
                to.send((), 30).unwrap();
                sent.fetch_add(1, SeqCst);
            }
        });
        let mut received = 0;
        while from.recv().await.is_some() {
            received += 1;
            // Three of 30 bytes fit; one more may have been counted just after it was received.
            assert!(waiting.load(SeqCst) <= received + 3);
        }
        assert_eq!(received, 500);
        thread.join().unwrap();
    }

    #[test]
    fn a_waiting_sender_fails_when_the_receiver_is_dropped() {
        let (to, from) = channel(1, 100);
        to.send(1, 1).unwrap();
        let thread = thread::spawn(move || to.send(2, 1).is_err());
        drop(from);
        assert!(thread.join().unwrap());
    }
}
