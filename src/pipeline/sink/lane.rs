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

type Work<T, E> = Box<dyn FnMut(&mut mpsc::Receiver<T>) -> Result<Progress<E>, Error> + Send>;

/// Where things are handed in.
pub(super) struct Lane<T, E> {
    /// `None` once nothing more will come.
    to: Option<mpsc::Sender<T>>,
    end: oneshot::Receiver<E>,
    shared: Arc<Shared<T, E>>,
}

struct Shared<T, E> {
    name: String,
    /// `None` while a thread has it, and once it is over.
    bench: Mutex<Option<Bench<T, E>>>,
    is_busy: AtomicBool,
    failure: OnceLock<Error>,
}

struct Bench<T, E> {
    from: mpsc::Receiver<T>,
    work: Work<T, E>,
    ended: oneshot::Sender<E>,
}

impl<T: Send + 'static, E: Send + 'static> Lane<T, E> {
    /// Makes a lane in which `waiting` things may wait; `work` works off what waits, and is called again when more
    /// has come.
    pub(super) fn new(
        name: String,
        waiting: usize,
        work: impl FnMut(&mut mpsc::Receiver<T>) -> Result<Progress<E>, Error> + Send + 'static,
    ) -> Self {
        let (to, from) = mpsc::channel(waiting);
        let (ended, end) = oneshot::channel();
        let bench = Mutex::new(Some(Bench { from, work: Box::new(work), ended }));
        let shared = Shared { name, bench, is_busy: AtomicBool::new(false), failure: OnceLock::new() };
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
        let thread = thread::Builder::new().name("sink".into()).spawn(move || shared.work());
        thread.map(drop).map_err(|source| {
            let error = Error::Thread { name: self.name.clone(), source: Arc::new(source) };
            // Without a thread nothing is worked off: the lane is over.
            drop(self.failure.set(error.clone()));
            drop(self.bench().take());
            error
        })
    }

    fn work(&self) {
        loop {
            let Some(mut bench) = self.bench().take() else { return };
            match (bench.work)(&mut bench.from) {
                Ok(Progress::Idle) => {}
                // When nobody waits for the end, nobody needs to know.
                Ok(Progress::Over(end)) => return drop(bench.ended.send(end)),
                // Told before the queue closes, so that whoever finds it closed also finds out why.
                Err(error) => return drop(self.failure.set(error)),
            }
            *self.bench() = Some(bench);
            self.is_busy.store(false, SeqCst);
            // What came between the last look and now has woken nobody.
            let is_due = |bench: &Bench<T, E>| !bench.from.is_empty() || bench.from.is_closed();
            if !self.bench().as_ref().is_some_and(is_due) || self.is_busy.swap(true, SeqCst) {
                return;
            }
        }
    }

    fn why(&self) -> Error {
        self.failure.get().cloned().unwrap_or_else(|| Error::Panicked { name: self.name.clone() })
    }

    fn bench(&self) -> MutexGuard<'_, Option<Bench<T, E>>> {
        self.bench.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
