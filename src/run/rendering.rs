//! Fills templates that take longer than an actor's thread can wait, on threads of their own and two at a time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use tokio::time::sleep;

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

/// What came of filling the templates of the steps that are due.
pub(super) enum Rendered {
    /// What is asked now.
    Asks(Vec<Ask>),
    /// A step waited for its turn until its deadline, and has failed.
    Overdue,
    /// The run stops.
    Stopped,
}

/// Returns what `walk` asks now, and the walk. Dropped, it ends the filling soon.
pub(super) async fn due(walk: Walk, stop: StopSignal) -> (Walk, Rendered) {
    within_limits(&THREADS, walk, stop).await
}

async fn within_limits(threads: &'static Semaphore, mut walk: Walk, stop: StopSignal) -> (Walk, Rendered) {
    let mut stopped = pin!(stop.given());
    let time = walk.time_of_due();
    let permit = tokio::select! {
        biased;
        () = &mut stopped => return (walk, Rendered::Stopped),
        // The semaphore is never closed.
        permit = threads.acquire() => permit.ok(),
        () = sleep(time) => {
            walk.overdue(time);
            return (walk, Rendered::Overdue);
        }
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let cancel = Cancel(cancelled.clone());
    let work = move || {
        let due = meter::cancellable(cancelled, || walk.due_unless_cancelled());
        let due = due.map_or(Rendered::Stopped, Rendered::Asks);
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use serde_json::json;
    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::*;
    use crate::pipeline::{Defaults, Pipeline};
    use crate::types::Class;

    #[tokio::test(start_paused = true)]
    async fn a_template_that_waits_for_its_turn_fails_its_step_at_the_deadline() {
        static THREADS: Semaphore = Semaphore::const_new(1);
        let text = "name = \"p\"\n[[step]]\nname = \"soon\"\nprompt = \"{{ item.id }}\"\ndeadline = \"10s\"\n\
                    optional = true\n[[step]]\nname = \"late\"\nprompt = \"{{ item.id }}\"\ndeadline = \"1h\"\n";
        let defaults = Defaults::default();
        let pipeline =
            Pipeline::parse("p.toml", text, Path::new("."), &defaults, &["default".into()]).unwrap();
        let stop = watch::Sender::new(false);
        let place = THREADS.acquire().await.unwrap();
        let began = Instant::now();
        let walk = Walk::new(Arc::new(pipeline), &json!({ "id": 1 }));
        let (walk, rendered) = within_limits(&THREADS, walk, StopSignal::of(&stop)).await;
        assert!(matches!(rendered, Rendered::Overdue));
        assert_eq!(began.elapsed(), Duration::from_secs(10));
        drop(place);
        let (mut walk, rendered) = within_limits(&THREADS, walk, StopSignal::of(&stop)).await;
        let Rendered::Asks(asks) = rendered else { panic!("not asked") };
        assert_eq!(asks.iter().map(|ask| ask.step).collect::<Vec<_>>(), [1], "the other step has time");
        walk.answered(1, "yes");
        let settled = walk.settle();
        let crate::pipeline::walk::StepEnd::Failed(failure) = &settled.steps[0] else {
            panic!("{settled:?}")
        };
        assert_eq!(failure.class, Class::Deadline);
    }
}
