//! The threads: one shared runtime, on it the system's thread and two arbiters, and beside it those of calls.
//!
//! Connections belong to the threads of calls, so they outlive any arbiter; a blocked actor stalls nobody's
//! HTTP. Knows nothing of what runs on them.

use std::io;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use actix::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::provider::CallThreads;
use crate::supervisor::panic_text;

use super::error::Error;

/// How long tasks that are still under way may take when everything stops.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// Most threads that make calls: each drives some twenty thousand calls a second, and has connections of its own.
const MOST_CALL_THREADS: usize = 4;

/// The arbiters and the runtime under them.
#[derive(Debug, Clone)]
pub(super) struct Arbiters {
    /// Where the Router and the Providers live.
    pub(super) core: ArbiterHandle,
    /// Where Runs and Items live.
    pub(super) items: ArbiterHandle,
    /// Where everything else runs.
    pub(super) runtime: Handle,
    /// Where calls run.
    pub(super) calls: CallThreads,
}

/// Keeps the threads; they stop when it is dropped.
#[derive(Debug)]
pub(super) struct Threads {
    _leash: oneshot::Sender<()>,
}

/// A thread that drives a runtime of its own.
struct CallThread {
    runtime: Handle,
    leash: oneshot::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl CallThread {
    fn start(number: usize) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::System { what: "a runtime for calls", source })?;
        let ((leash, slipped), handle) = (oneshot::channel::<()>(), runtime.handle().clone());
        let (ending, ended) = mpsc::channel();
        let main = move || {
            let _until_it_ends = ending;
            // Nothing is ever sent: it ends when the leash is dropped.
            drop(runtime.block_on(slipped));
            runtime.shutdown_timeout(LAST_TASKS);
        };
        let thread = thread::Builder::new().name(format!("pointsman-call-{number}")).spawn(main);
        drop(thread.map_err(|source| Error::System { what: "a thread for calls", source })?);
        Ok(Self { runtime: handle, leash, ended })
    }

    /// Lets it end; returns what is closed when it has.
    fn stop(self) -> mpsc::Receiver<()> {
        let Self { leash, ended, .. } = self;
        drop(leash);
        ended
    }
}

/// Starts the threads and `begin` on the system's own; returns what it gives. Blocks until then, which
/// takes milliseconds. What `begin` gives beside that is awaited on the same thread when the threads are
/// to stop, before any of them does.
pub(super) fn start<T, B, F, E>(begin: B) -> Result<(Threads, T), Error>
where
    T: Send + 'static,
    B: FnOnce(Arbiters) -> F + Send + 'static,
    F: Future<Output = Result<(T, E), Error>>,
    E: Future<Output = ()>,
{
    let (ready, begun) = mpsc::channel();
    // Whatever fails is let go of on this thread, and not on the caller's, which may be one of a runtime.
    let main = move || {
        let (runtime, first, others) = match start_runtimes() {
            Ok(started) => started,
            // Whoever asked for the start waits for it.
            Err(error) => return drop(ready.send(Err(error))),
        };
        let handles = others.iter().map(|thread| thread.runtime.clone()).collect();
        let calls = CallThreads::new(first.runtime.clone(), handles);
        let runner = {
            let runtime = runtime.clone();
            System::with_tokio_rt(move || runtime)
        };
        let arbiter = || {
            let runtime = runtime.clone();
            let arbiter = Arbiter::try_with_tokio_rt(move || Ok(runtime));
            arbiter.map_err(|source| Error::System { what: "a thread for actors", source })
        };
        let (core, items) = match runner.block_on(async { Ok((arbiter()?, arbiter()?)) }) {
            Ok(arbiters) => arbiters,
            Err(error) => {
                drop(runner);
                end_runtime(runtime);
                // Whoever asked for the start waits for it.
                return drop(ready.send(Err(error)));
            }
        };
        let shared = runtime.handle().clone();
        let arbiters = Arbiters { core: core.handle(), items: items.handle(), runtime: shared, calls };
        runner.block_on(async {
            let (leash, slipped) = oneshot::channel::<()>();
            match begin(arbiters).await {
                Ok((begun, end)) => {
                    // Whoever asked for the start waits for it.
                    drop(ready.send(Ok((Threads { _leash: leash }, begun))));
                    // Nothing is ever sent: it ends when the leash is dropped.
                    drop(slipped.await);
                    end.await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        for arbiter in [core, items] {
            arbiter.stop();
            // A thread that panicked has nothing more to stop.
            drop(arbiter.join());
        }
        // It holds the runtime too, and what lives on this thread.
        drop(runner);
        // All of them, before any is waited for; one that hangs is left behind.
        let threads: Vec<_> = others.into_iter().chain([first]).map(CallThread::stop).collect();
        let end = Instant::now() + LAST_TASKS;
        for ended in threads {
            // Nothing is ever sent: the thread drops its end when it ends.
            let _ = ended.recv_timeout(end.saturating_duration_since(Instant::now()));
        }
        end_runtime(runtime);
    };
    let thread = thread::Builder::new().name("pointsman".to_owned()).spawn(main);
    drop(thread.map_err(|source| Error::System { what: "a thread", source })?);
    begun.recv().unwrap_or(Err(Error::Stopped))
}

/// Starts the shared runtime and the threads of calls.
fn start_runtimes() -> Result<(Arc<Runtime>, CallThread, Vec<CallThread>), Error> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let of_calls = cores.min(MOST_CALL_THREADS);
    // Workers, calls, two arbiters and the watchdog.
    are_to_be_had(cores + of_calls + 3).map_err(|source| Error::System { what: "its threads", source })?;
    let mut builder = Builder::new_multi_thread();
    builder.thread_name("pointsman-work").worker_threads(cores).enable_all();
    // tokio panics where it cannot start a thread: others may have taken the last ones since they were counted.
    let built = catch_unwind(AssertUnwindSafe(|| builder.build()));
    let built = built.unwrap_or_else(|payload| Err(io::Error::other(panic_text(&*payload))));
    let runtime = Arc::new(built.map_err(|source| Error::System { what: "the runtime", source })?);
    let calls = || {
        let first = CallThread::start(0)?;
        let others: Vec<_> = (1..of_calls).map(CallThread::start).collect::<Result<_, _>>()?;
        Ok((first, others))
    };
    match calls() {
        Ok((first, others)) => Ok((runtime, first, others)),
        Err(error) => {
            end_runtime(runtime);
            Err(error)
        }
    }
}

/// Checks that so many threads can be started.
fn are_to_be_had(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // All of them wait until the last is there.
        let held = gate.lock();
        let wait = || drop(gate.lock());
        let started: io::Result<Vec<_>> =
            (0..threads).map(|_| thread::Builder::new().spawn_scoped(scope, wait)).collect();
        drop(held);
        started.map(drop)
    })
}

/// Ends the shared runtime. Nothing holds it any more but a thread that hangs, which is left behind.
fn end_runtime(runtime: Arc<Runtime>) {
    match Arc::into_inner(runtime) {
        Some(runtime) => runtime.shutdown_timeout(LAST_TASKS),
        None => tracing::error!("a thread hangs and keeps the runtime alive"),
    }
}
