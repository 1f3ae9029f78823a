//! Fills templates that take longer than an actor's thread can wait, on threads of their own and two at a time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use crate::pipeline::ask::Ask;
use crate::pipeline::meter;
use crate::pipeline::walk::Walk;
use crate::router::StopSignal;

/// Threads that fill templates at once: each may take the memory that one template may.
static THREADS: Semaphore = Semaphore::const_new(2);

/// Ends the filling when nothing waits for it any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns what `walk` asks now, and the walk; nothing where `stop` is given before that is known. Dropped, it ends
/// the filling soon.
pub(super) async fn due(mut walk: Walk, stop: StopSignal) -> (Walk, Option<Vec<Ask>>) {
    let mut stopped = pin!(stop.given());
    let permit = tokio::select! {
        biased;
        () = &mut stopped => return (walk, None),
        // The semaphore is never closed.
        permit = THREADS.acquire() => permit.ok(),
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let cancel = Cancel(cancelled.clone());
    let work = move || {
        let due = meter::cancellable(cancelled, || walk.due_unless_cancelled());
        // Held until the memory is free again, also when nothing waits any more.
        drop(permit);
        (walk, due)
    };
    let mut working = tokio::task::spawn_blocking(work);
    let done = tokio::select! {
        done = &mut working => done,
        () = &mut stopped => {
            drop(cancel);
            working.await
        }
    };
    match done {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}
