//! Threads of the process: one shared runtime, with the threads of the actix System and of two arbiters, and
//! separate threads for calls.
//!
//! Connections belong to the call threads, so they outlive any arbiter, and a blocked actor does not delay HTTP.

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

use crate::provider::IoThreads;
use crate::supervisor::panic_text;

use super::error::Error;

/// How long running tasks may take to end at the shutdown.
const MAX_TASK_SHUTDOWN: Duration = Duration::from_millis(500);

/// Maximum number of threads for calls. Each has its own connections and handles about 20,000 calls a second.
const MAX_CALL_THREADS: usize = 4;

/// The arbiters and the runtime under them.
#[derive(Debug, Clone)]
pub(super) struct Arbiters {
    /// The arbiter of the router and the providers.
    pub(super) core: ArbiterHandle,
    /// The arbiter of the runs and their items.
    pub(super) items: ArbiterHandle,
    /// The runtime of everything else.
    pub(super) runtime: Handle,
    /// The threads for calls.
    pub(super) calls: IoThreads,
}

/// Owns the threads, which stop when it is dropped.
#[derive(Debug)]
pub(super) struct Threads {
    _shutdown_tx: oneshot::Sender<()>,
}

/// A thread with a runtime of its own.
struct CallThread {
    runtime: Handle,
    shutdown_tx: oneshot::Sender<()>,
    ended: mpsc::Receiver<()>,
}

impl CallThread {
    fn start(number: usize) -> Result<Self, Error> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::System { what: "a runtime for calls", source })?;
        let (shutdown_tx, shutdown_rx) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let (ending, ended) = mpsc::channel();
        let main = move || {
            let _until_it_ends = ending;
            // Nothing is sent: the wait ends when the sender is dropped.
            drop(runtime.block_on(shutdown_rx));
            runtime.shutdown_timeout(MAX_TASK_SHUTDOWN);
        };
        let thread = thread::Builder::new().name(format!("pointsman-call-{number}")).spawn(main);
        drop(thread.map_err(|source| Error::System { what: "a thread for calls", source })?);
        Ok(Self { runtime: handle, shutdown_tx, ended })
    }

    /// Stops the thread; returns a channel that is closed when it has ended.
    fn stop(self) -> mpsc::Receiver<()> {
        let Self { shutdown_tx, ended, .. } = self;
        drop(shutdown_tx);
        ended
    }
}

/// Starts the threads, runs `begin` on the system's thread and passes its result to `started`, on that thread. The
/// future that `begin` returns is awaited on the same thread at the shutdown, before any thread stops.
///
/// # Errors
/// If the system's thread cannot be started. `started` is then dropped.
pub(super) fn start<T, B, F, E>(
    begin: B,
    started: impl FnOnce(Result<(Threads, T), Error>) + Send + 'static,
) -> Result<(), Error>
where
    T: Send + 'static,
    B: FnOnce(Arbiters) -> F + Send + 'static,
    F: Future<Output = Result<(T, E), Error>>,
    E: Future<Output = ()>,
{
    // A failed start is dropped on this thread: the caller's thread may belong to a runtime, where it must not
    // block.
    let main = move || {
        let (runtime, first, others) = match start_runtimes() {
            Ok(runtimes) => runtimes,
            Err(error) => return started(Err(error)),
        };
        let handles = others.iter().map(|thread| thread.runtime.clone()).collect();
        let calls = IoThreads::new(first.runtime.clone(), handles);
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
                return started(Err(error));
            }
        };
        let shared = runtime.handle().clone();
        let arbiters = Arbiters { core: core.handle(), items: items.handle(), runtime: shared, calls };
        runner.block_on(async {
            let (shutdown_tx, shutdown_rx) = oneshot::channel::<()>();
            match begin(arbiters).await {
                Ok((begun, end)) => {
                    started(Ok((Threads { _shutdown_tx: shutdown_tx }, begun)));
                    // Nothing is sent: the wait ends when the sender is dropped.
                    drop(shutdown_rx.await);
                    end.await;
                }
                Err(error) => started(Err(error)),
            }
        });
        for arbiter in [core, items] {
            arbiter.stop();
            // A thread that panicked has already stopped.
            drop(arbiter.join());
        }
        // The runner holds the runtime, and everything that belongs to this thread.
        drop(runner);
        // All are stopped before the first is awaited; a thread that hangs is abandoned.
        let threads: Vec<_> = others.into_iter().chain([first]).map(CallThread::stop).collect();
        let end = Instant::now() + MAX_TASK_SHUTDOWN;
        for ended in threads {
            // Nothing is sent: the thread drops the sender when it ends.
            let _ = ended.recv_timeout(end.saturating_duration_since(Instant::now()));
        }
        end_runtime(runtime);
    };
    let thread = thread::Builder::new().name("pointsman".to_owned()).spawn(main);
    thread.map(drop).map_err(|source| Error::System { what: "a thread", source })
}

/// Starts the shared runtime and the threads of calls.
fn start_runtimes() -> Result<(Arc<Runtime>, CallThread, Vec<CallThread>), Error> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let of_calls = cores.min(MAX_CALL_THREADS);
    // Threads for workers and calls, two arbiters and the watchdog.
    check_threads_available(cores + of_calls + 3)
        .map_err(|source| Error::System { what: "its threads", source })?;
    let mut builder = Builder::new_multi_thread();
    builder.thread_name("pointsman-work").worker_threads(cores).enable_all();
    // tokio panics where it cannot start a thread: other processes may have taken the last ones since the check.
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

/// Checks that this number of threads can be started.
fn check_threads_available(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // All of them wait until the last one has started.
        let held = gate.lock();
        let wait = || drop(gate.lock());
        let started: io::Result<Vec<_>> =
            (0..threads).map(|_| thread::Builder::new().spawn_scoped(scope, wait)).collect();
        drop(held);
        started.map(drop)
    })
}

/// Ends the shared runtime. Only a thread that hangs can still hold it; such a thread is abandoned.
fn end_runtime(runtime: Arc<Runtime>) {
    match Arc::into_inner(runtime) {
        Some(runtime) => runtime.shutdown_timeout(MAX_TASK_SHUTDOWN),
        None => tracing::error!("a thread hangs and keeps the runtime alive"),
    }
}
