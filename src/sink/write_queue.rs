//! A queue and the thread that works it off, which is there only while something waits.
//!
//! An output that is open and idle costs no thread. At most one thread works at a time; it takes the work with
//! it and puts it back when it ends. Knows nothing of lines and files.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::Error;

/// How far a thread has come.
pub(super) enum Progress<E> {
    /// Nothing waits, and more may come.
    Idle,
    /// Everything is done, and so it ended.
    Over(E),
}

type WorkOff<T, E> = Box<dyn FnMut(&mut mpsc::Receiver<T>) -> Result<Progress<E>, Error> + Send>;

/// Where things are handed in.
pub(super) struct WriteQueue<T, E> {
    /// `None` once nothing more will come.
    to: Option<mpsc::Sender<T>>,
    end: oneshot::Receiver<E>,
    shared: Arc<Shared<T, E>>,
}

struct Shared<T, E> {
    name: String,
    /// `None` while a thread has it, and when the queue is over.
    work: Mutex<Option<Work<T, E>>>,
    is_busy: AtomicBool,
    failure: OnceLock<Error>,
}

struct Work<T, E> {
    from: mpsc::Receiver<T>,
    work_off: WorkOff<T, E>,
    ended: oneshot::Sender<E>,
}

impl<T: Send + 'static, E: Send + 'static> WriteQueue<T, E> {
    /// Makes a queue in which `waiting` things may wait; `work_off` works off what waits, and is called again when more
    /// has come.
    pub(super) fn new(
        name: String,
        waiting: usize,
        work_off: impl FnMut(&mut mpsc::Receiver<T>) -> Result<Progress<E>, Error> + Send + 'static,
    ) -> Self {
        let (to, from) = mpsc::channel(waiting);
        let (ended, end) = oneshot::channel();
        let work = Mutex::new(Some(Work { from, work_off: Box::new(work_off), ended }));
        let shared = Shared { name, work, is_busy: AtomicBool::new(false), failure: OnceLock::new() };
        Self { to: Some(to), end, shared: Arc::new(shared) }
    }

    /// Hands something in, and waits while too much waits. An error may be that of something earlier.
    pub(super) async fn send(&self, thing: T) -> Result<(), Error> {
        let sent = match &self.to {
            Some(to) => to.send(thing).await.is_ok(),
            None => false,
        };
        if !sent {
            return Err(self.shared.why());
        }
        self.shared.wake()
    }

    /// Waits until everything is worked off. Cancelling it changes nothing.
    pub(super) async fn finish(&mut self) -> Result<E, Error> {
        if self.to.take().is_some() {
            self.shared.wake()?;
        }
        (&mut self.end).await.map_err(|_| self.shared.why())
    }
}

impl<T: Send + 'static, E: Send + 'static> Shared<T, E> {
    /// Starts a thread, unless one is at work.
    fn wake(self: &Arc<Self>) -> Result<(), Error> {
        if self.is_busy.swap(true, SeqCst) {
            return Ok(());
        }
        let shared = self.clone();
        let thread = thread::Builder::new().name("sink".into()).spawn(move || shared.run());
        thread.map(drop).map_err(|source| {
            let error = Error::Thread { name: self.name.clone(), source: Arc::new(source) };
            // Without a thread nothing is worked off: the queue is over.
            drop(self.failure.set(error.clone()));
            drop(self.work().take());
            error
        })
    }

    fn run(&self) {
        loop {
            let Some(mut work) = self.work().take() else { return };
            match (work.work_off)(&mut work.from) {
                Ok(Progress::Idle) => {}
                Ok(Progress::Over(end)) => {
                    let Work { from, work_off, ended } = work;
                    // Files and locks are released before the end is told: the next writer may open them at once.
                    drop((from, work_off));
                    // The receiver is gone when the queue was dropped without `finish`.
                    return drop(ended.send(end));
                }
                // Told before the queue closes, so that a sender that finds it closed also finds out why.
                Err(error) => return drop(self.failure.set(error)),
            }
            *self.work() = Some(work);
            self.is_busy.store(false, SeqCst);
            // What came between the last look and now started no thread.
            let is_due = |work: &Work<T, E>| !work.from.is_empty() || work.from.is_closed();
            if !self.work().as_ref().is_some_and(is_due) || self.is_busy.swap(true, SeqCst) {
                return;
            }
        }
    }

    fn why(&self) -> Error {
        self.failure.get().cloned().unwrap_or_else(|| Error::Panicked { name: self.name.clone() })
    }

    fn work(&self) -> MutexGuard<'_, Option<Work<T, E>>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_queue_holds_is_released_before_its_end_is_told() {
        for _ in 0..1_000 {
            let held = Arc::new(());
            let holds = held.clone();
            let mut queue = WriteQueue::new("out".to_owned(), 1, move |from: &mut mpsc::Receiver<u8>| {
                let _ = &holds;
                Ok(if from.is_closed() { Progress::Over(()) } else { Progress::Idle })
            });
            queue.finish().await.unwrap();
            assert_eq!(Arc::strong_count(&held), 1);
        }
    }
}
