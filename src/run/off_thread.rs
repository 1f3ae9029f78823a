//! Checks answers against their schemas, away from the actors' threads where that can take long.
//!
//! Few large checks run at once in the whole process. One that takes too long fails its step; it keeps its place
//! until it ends, so that slow checks never gather threads. An answer that cannot be checked is not wrong: its question
//! is not sent again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use crate::chaos;
use crate::pipeline::definition::Pipeline;
use crate::router::StopSignal;
use crate::types::{Class, Failure};

/// Large checks that run at once in this process.
static LARGE_CHECKS: Semaphore = Semaphore::const_new(2);

/// How long one large check may take, once it has begun.
const MAX_CHECK: Duration = Duration::from_secs(20);

/// Why an answer was not checked.
#[derive(Debug, PartialEq)]
pub(super) enum Unchecked {
    /// The run stopped while the check waited for its turn: the question is asked again when the run is resumed.
    Stopped,
    /// The check has failed, which says nothing about the answer.
    Failed(Failure),
}

/// What a check waits for.
pub(super) struct Limits {
    /// When the step's time is over.
    pub(super) deadline: Instant,
    pub(super) stop: StopSignal,
}

/// Checks the text of a model against what its step asked for. The inner error is why it is not accepted, in words for
/// the model.
///
/// # Errors
/// When it is not known whether it is accepted.
pub(super) async fn check_answer(
    pipeline: &Arc<Pipeline>,
    step: usize,
    text: &str,
    limits: Limits,
) -> Result<Result<Value, String>, Unchecked> {
    if pipeline.is_quick_answer(step, text) {
        return Ok(pipeline.check_answer(step, text));
    }
    let (pipeline, said) = (pipeline.clone(), text.to_owned());
    let check = move || {
        chaos::point("answer.check");
        pipeline.check_answer(step, &said)
    };
    within_limits(&LARGE_CHECKS, check, limits).await.map_err(|unchecked| match unchecked {
        Unchecked::Failed(failure) => Unchecked::Failed(failure.with_text(text)),
        Unchecked::Stopped => Unchecked::Stopped,
    })
}

/// Runs a check on a thread for work that blocks, within the limits on number and time.
async fn within_limits<T: Send + 'static>(
    places: &'static Semaphore,
    check: impl FnOnce() -> T + Send + 'static,
    limits: Limits,
) -> Result<T, Unchecked> {
    let failed = |class, why: String| Err(Unchecked::Failed(Failure::new(class, why)));
    let mut stopped = pin!(limits.stop.given());
    let place = tokio::select! {
        biased;
        // A check that need not wait is made, also when the run stops: its answer is paid for.
        // The semaphore is never closed.
        place = places.acquire() => place.ok(),
        () = &mut stopped => return Err(Unchecked::Stopped),
        () = sleep_until(limits.deadline) => {
            let why = "the deadline passed while the answer waited for its check: other large checks took too long";
            return failed(Class::Deadline, why.to_owned());
        }
    };
    let checking = spawn_blocking(move || {
        let checked = check();
        drop(place);
        checked
    });
    match timeout(MAX_CHECK, checking).await {
        Ok(Ok(checked)) => Ok(checked),
        Ok(Err(error)) if error.is_panic() => {
            failed(Class::Internal, "the check of the answer panicked".to_owned())
        }
        // The runtime ends.
        Ok(Err(_)) => std::future::pending().await,
        Err(_) => {
            let why = format!("the check of the answer takes longer than {} seconds", MAX_CHECK.as_secs());
            failed(Class::Internal, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::watch;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn limits(stop: &watch::Sender<bool>, time: Duration) -> Limits {
        Limits { deadline: Instant::now() + time, stop: StopSignal::of(stop) }
    }

    fn class<T: std::fmt::Debug>(checked: Result<T, Unchecked>) -> Class {
        match checked {
            Err(Unchecked::Failed(failure)) => failure.class,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_does_not_end_fails_and_keeps_its_place_until_it_ends() {
        static PLACES: Semaphore = Semaphore::const_new(2);
        let stop = watch::Sender::new(false);
        let (release, released) = mpsc::channel::<()>();
        let endless = within_limits(&PLACES, move || released.recv().is_ok(), limits(&stop, LONG));
        let (endless, ()) = tokio::join!(endless, async {
            // While a thread blocks, the paused clock does not run by itself.
            while PLACES.available_permits() == 2 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(MAX_CHECK * 2).await;
        });
        assert_eq!(class(endless), Class::Internal);
        assert_eq!(
            within_limits(&PLACES, || 7, limits(&stop, LONG)).await,
            Ok(7),
            "others are checked meanwhile"
        );
        release.send(()).unwrap();
        let panicked = within_limits(&PLACES, || -> bool { panic!("as planned") }, limits(&stop, LONG)).await;
        assert_eq!(class(panicked), Class::Internal);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_waits_for_its_turn_ends_at_the_deadline_and_when_the_run_stops() {
        static PLACES: Semaphore = Semaphore::const_new(1);
        let stop = watch::Sender::new(false);
        let place = PLACES.acquire().await.unwrap();
        let began = Instant::now();
        let minute = Duration::from_secs(60);
        let late = within_limits(&PLACES, || 7, limits(&stop, minute)).await;
        assert_eq!((class(late), began.elapsed()), (Class::Deadline, minute));
        let waits = within_limits(&PLACES, || 7, limits(&stop, LONG));
        let (stopped, ()) = tokio::join!(waits, async {
            tokio::time::sleep(minute).await;
            stop.send_replace(true);
        });
        assert_eq!((stopped, began.elapsed()), (Err(Unchecked::Stopped), minute * 2));
        drop(place);
        assert_eq!(within_limits(&PLACES, || 7, limits(&stop, LONG)).await, Ok(7), "it need not wait");
    }
}
