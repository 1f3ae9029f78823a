//! Renders templates that take too long for an actor's thread, on separate threads and at most two at a time.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::pipeline::item_state::ItemState;
use crate::pipeline::meter;
use crate::pipeline::step_request::StepRequest;
use crate::router::StopSignal;

/// Threads that render templates at once: each may use the memory that one template may.
static THREADS: Semaphore = Semaphore::const_new(2);

/// Cancels rendering when it is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Result of rendering the templates of the steps that are ready.
pub(super) enum Rendered {
    /// The requests to send.
    Requests(Vec<StepRequest>),
    /// A step waited for its turn until its deadline and has failed.
    DeadlinePassed,
    /// The run is stopping.
    Stopped,
}

/// Renders the templates of the ready steps and returns the state and the requests. If it is dropped, rendering
/// is cancelled soon.
pub(super) async fn render_ready_steps<D: Send + 'static>(
    state: ItemState<D>,
    stop: StopSignal,
) -> (ItemState<D>, Rendered) {
    within_limits(&THREADS, state, stop).await
}

async fn within_limits<D: Send + 'static>(
    threads: &'static Semaphore,
    mut state: ItemState<D>,
    stop: StopSignal,
) -> (ItemState<D>, Rendered) {
    let mut stopped = pin!(stop.wait());
    let time = state.shortest_ready_deadline();
    let permit = tokio::select! {
        biased;
        () = &mut stopped => return (state, Rendered::Stopped),
        // The semaphore is never closed.
        permit = threads.acquire() => permit.ok(),
        () = sleep(time) => {
            state.fail_overdue_steps(time);
            return (state, Rendered::DeadlinePassed);
        }
    };
    let cancelled = Arc::new(AtomicBool::new(false));
    let cancel = CancelOnDrop(cancelled.clone());
    let work = move || {
        let requests = meter::cancellable(cancelled, || state.ready_steps_unless_cancelled());
        let requests = requests.map_or(Rendered::Stopped, Rendered::Requests);
        // Held until the memory is free again, even if nothing waits for the result any more.
        drop(permit);
        (state, requests)
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
            // The runtime is shutting down.
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
    async fn a_template_that_waits_for_a_thread_fails_its_step_at_the_deadline() {
        static THREADS: Semaphore = Semaphore::const_new(1);
        let text = "name = \"p\"\n[[step]]\nname = \"soon\"\nprompt = \"{{ item.id }}\"\ndeadline = \"10s\"\n\
                    optional = true\n[[step]]\nname = \"late\"\nprompt = \"{{ item.id }}\"\ndeadline = \"1h\"\n";
        let defaults = Defaults::default();
        let pipeline =
            Pipeline::parse("p.toml", text, Path::new("."), &defaults, &["default".into()]).unwrap();
        let stop = watch::Sender::new(false);
        let permit = THREADS.acquire().await.unwrap();
        let started = Instant::now();
        let state = ItemState::new(Arc::new(pipeline), &json!({ "id": 1 }));
        let (state, rendered) = within_limits(&THREADS, state, StopSignal::new(&stop)).await;
        assert!(matches!(rendered, Rendered::DeadlinePassed));
        assert_eq!(started.elapsed(), Duration::from_secs(10));
        drop(permit);
        let (mut state, rendered) = within_limits(&THREADS, state, StopSignal::new(&stop)).await;
        let Rendered::Requests(requests) = rendered else { panic!("no requests") };
        assert_eq!(
            requests.iter().map(|request| request.step).collect::<Vec<_>>(),
            [1],
            "the other step has time"
        );
        state.record_response(1, "yes");
        let outcome = state.finish();
        let crate::pipeline::item_state::StepOutcome::Failed(failure) = &outcome.steps[0].outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(failure.class, Class::Deadline);
    }
}
