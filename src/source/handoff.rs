//! Hands messages from a thread that blocks to a task that awaits, with a bound on number and bytes.
//!
//! Both sides work in stretches: a sender that met the bound is woken when half of it is free again,
//! so that a busy reader does not pay for a wake-up per message. A message larger than the whole
//! bound passes when nothing else waits. Neither side ever holds the lock while it waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The other side is gone.
#[derive(Debug)]
pub(super) struct Gone;

/// Makes the two ends.
pub(super) fn handoff<T>(number: usize, bytes: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { queue: VecDeque::new(), bytes: 0, waiting: false, ended: false, gone: false };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        number,
        bytes,
        room: Condvar::new(),
        ready: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

pub(super) struct Sender<T>(Arc<Shared<T>>);

pub(super) struct Receiver<T>(Arc<Shared<T>>);

struct Shared<T> {
    state: Mutex<State<T>>,
    number: usize,
    bytes: usize,
    room: Condvar,
    ready: Notify,
}

struct State<T> {
    queue: VecDeque<(T, usize)>,
    bytes: usize,
    /// The sender waits for room.
    waiting: bool,
    /// The sender is gone: what is in the queue is all there will be.
    ended: bool,
    /// The receiver is gone.
    gone: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Waits for room and hands over `message`, which weighs about `bytes`. Blocks its thread.
    pub(super) fn send(&self, message: T, bytes: usize) -> Result<(), Gone> {
        let shared = &*self.0;
        let mut state = shared.lock();
        while !state.gone && state.full(shared, bytes) {
            state.waiting = true;
            state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting = false;
        if state.gone {
            return Err(Gone);
        }
        let first = state.queue.is_empty();
        state.queue.push_back((message, bytes));
        state.bytes += bytes;
        drop(state);
        if first {
            shared.ready.notify_one();
        }
        Ok(())
    }
}

impl<T> State<T> {
    fn full(&self, shared: &Shared<T>, bytes: usize) -> bool {
        let heavy = self.bytes.saturating_add(bytes) > shared.bytes;
        !self.queue.is_empty() && (self.queue.len() >= shared.number || heavy)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.ready.notify_one();
    }
}

impl<T> Receiver<T> {
    /// Returns the next message, or `None` when the sender is gone and everything was received.
    /// Cancelling it loses nothing.
    pub(super) async fn recv(&mut self) -> Option<T> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some((message, bytes)) = state.queue.pop_front() {
                    state.bytes -= bytes;
                    let half_free = state.queue.len() <= self.0.number / 2 && state.bytes <= self.0.bytes / 2;
                    let wake = state.waiting && half_free;
                    drop(state);
                    if wake {
                        self.0.room.notify_one();
                    }
                    return Some(message);
                }
                if state.ended {
                    return None;
                }
            }
            // A message that came since the lock was released has left its permit here.
            self.0.ready.notified().await;
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone = true;
        let rest = std::mem::take(&mut state.queue);
        drop(state);
        self.0.room.notify_one();
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
        let (to, mut from) = handoff(7, 100);
        let thread = thread::spawn(move || {
            for number in 0..10_000_usize {
                // Now and then one that weighs more than the whole bound.
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
    async fn no_more_wait_than_the_bound_allows() {
        let (to, mut from) = handoff(1000, 100);
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
    fn a_sender_that_waits_learns_that_nobody_receives_any_more() {
        let (to, from) = handoff(1, 100);
        to.send(1, 1).unwrap();
        let thread = thread::spawn(move || to.send(2, 1).is_err());
        drop(from);
        assert!(thread.join().unwrap());
    }
}
