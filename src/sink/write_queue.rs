//! A bounded queue and a thread that processes it. The thread exists only while something is queued.
//!
//! An open and idle output costs no thread. At most one thread runs at a time: it takes the worker out of the
//! queue and puts it back when it ends. This file is independent of lines and files.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::Error;

/// Result of one pass over the queue.
pub(super) enum Progress<E> {
    /// Nothing is queued, and more may arrive.
    Idle,
    /// Everything is processed. Holds the result.
    Finished(E),
}

type Process<T, E> = Box<dyn FnMut(&mut mpsc::Receiver<T>) -> Result<Progress<E>, Error> + Send>;

/// The sending side of the queue.
pub(super) struct WriteQueue<T, E> {
    /// `None` once nothing more will be sent.
    to: Option<mpsc::Sender<T>>,
    end: oneshot::Receiver<E>,
    shared: Arc<Shared<T, E>>,
}

struct Shared<T, E> {
    name: String,
    /// `None` while a thread has taken it, and after the queue has ended.
    worker: Mutex<Option<Worker<T, E>>>,
    is_busy: AtomicBool,
    failed: OnceLock<Error>,
}

struct Worker<T, E> {
    from: mpsc::Receiver<T>,
    process: Process<T, E>,
    end_sender: oneshot::Sender<E>,
}

impl<T: Send + 'static, E: Send + 'static> WriteQueue<T, E> {
    /// Creates a queue that holds up to `capacity` values. `process` handles what is queued and is called again
    /// when more has arrived.
    pub(super) fn new(
        name: String,
        capacity: usize,
        process: impl FnMut(&mut mpsc::Receiver<T>) -> Result<Progress<E>, Error> + Send + 'static,
    ) -> Self {
        let (to, from) = mpsc::channel(capacity);
        let (end_sender, end) = oneshot::channel();
        let worker = Mutex::new(Some(Worker { from, process: Box::new(process), end_sender }));
        let shared = Shared { name, worker, is_busy: AtomicBool::new(false), failed: OnceLock::new() };
        Self { to: Some(to), end, shared: Arc::new(shared) }
    }

    /// Sends a value. Waits while the queue is full. An error may be that of an earlier value.
    pub(super) async fn send(&self, value: T) -> Result<(), Error> {
        let sent = match &self.to {
            Some(to) => to.send(value).await.is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.shared.failure_reason());
        }
        self.shared.wake()
    }

    /// Waits until everything is processed. Cancel-safe.
    pub(super) async fn finish(&mut self) -> Result<E, Error> {
        if self.to.take().is_some() {
            self.shared.wake()?;
        }
        (&mut self.end).await.map_err(|_| self.shared.failure_reason())
    }
}

impl<T: Send + 'static, E: Send + 'static> Shared<T, E> {
    /// Starts a thread unless one is running.
    fn wake(self: &Arc<Self>) -> Result<(), Error> {
        if self.is_busy.swap(true, SeqCst) {
            return Ok(());
        }
        let shared = self.clone();
        let thread = thread::Builder::new().name("sink".into()).spawn(move || shared.run());
        thread.map(drop).map_err(|source| {
            let error = Error::Thread { name: self.name.clone(), source: Arc::new(source) };
            // Without a thread nothing is processed: the queue has ended.
            drop(self.failed.set(error.clone()));
            drop(self.lock_worker().take());
            error
        })
    }

    fn run(&self) {
        loop {
            let Some(mut worker) = self.lock_worker().take() else { return };
            match (worker.process)(&mut worker.from) {
                Ok(Progress::Idle) => {}
                Ok(Progress::Finished(end)) => {
                    let Worker { from, process, end_sender } = worker;
                    // Files and locks are released before the end is reported: the next writer may open them at
                    // once.
                    drop((from, process));
                    // The receiver is gone if the queue was dropped without `finish`.
                    return drop(end_sender.send(end));
                }
                // Set before the queue closes, so that a sender that finds it closed also finds the error.
                Err(error) => return drop(self.failed.set(error)),
            }
            *self.lock_worker() = Some(worker);
            self.is_busy.store(false, SeqCst);
            // A value that arrived between the last check and now has started no thread.
            let has_more = |worker: &Worker<T, E>| !worker.from.is_empty() || worker.from.is_closed();
            if !self.lock_worker().as_ref().is_some_and(has_more) || self.is_busy.swap(true, SeqCst) {
                return;
            }
        }
    }

    fn failure_reason(&self) -> Error {
        self.failed.get().cloned().unwrap_or_else(|| Error::Panicked { name: self.name.clone() })
    }

    fn lock_worker(&self) -> MutexGuard<'_, Option<Worker<T, E>>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_queue_holds_is_released_before_its_end_is_reported() {
        for _ in 0..1_000 {
            let held = Arc::new(());
            let holds = held.clone();
            let mut queue = WriteQueue::new("out".to_owned(), 1, move |from: &mut mpsc::Receiver<u8>| {
                let _ = &holds;
                Ok(if from.is_closed() { Progress::Finished(()) } else { Progress::Idle })
            });
            queue.finish().await.unwrap();
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }
}
