//! Validates answers against their schemas, on separate threads if that can take long.
//!
//! The number of large checks that run at once in the process is limited. A check that takes too long fails its
//! step. It keeps its permit until it ends, so slow checks never accumulate threads. An answer that cannot be
//! checked is not treated as invalid: its request is not sent again.

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
use crate::types::{Class, Completion, Failure};

/// Large checks that run at once in this process.
static LARGE_CHECKS: Semaphore = Semaphore::const_new(2);

/// How long one large check may take once it has started.
const MAX_CHECK_DURATION: Duration = Duration::from_secs(20);

/// Why an answer was not checked.
#[derive(Debug, PartialEq)]
pub(super) enum CheckError {
    /// The run stopped while the check waited for a permit. The request is sent again when the run is resumed.
    Stopped,
    /// The check has failed, which shows nothing about the answer.
    Failed(Failure),
}

/// What limits the wait for a check.
pub(super) struct CheckLimits {
    /// The deadline of the step.
    pub(super) deadline: Instant,
    pub(super) stop: StopSignal,
}

/// Returns the vector of a response to one input as a JSON list, with the fewest digits that identify each number;
/// empty if there is none.
pub(super) fn embedding_text(completion: &Completion) -> String {
    let vector = completion.embeddings.first().map(|vector| serde_json::to_string(&vector[..]));
    vector.and_then(Result::ok).unwrap_or_default()
}

/// Validates a model's text against the requirements of its step. The inner error is the reason for a
/// rejection, written for the model, because the validation retry quotes it.
///
/// # Errors
/// If the answer could not be checked.
pub(super) async fn check_answer(
    pipeline: &Arc<Pipeline>,
    step: usize,
    text: &str,
    limits: CheckLimits,
) -> Result<Result<Value, String>, CheckError> {
    if pipeline.is_quick_to_validate(step, text) {
        return Ok(pipeline.validate_response(step, text));
    }
    let pipeline = pipeline.clone();
    let answer = text.to_owned();
    let check = move || {
        chaos::point("answer.check");
        pipeline.validate_response(step, &answer)
    };
    within_limits(&LARGE_CHECKS, check, limits).await.map_err(|error| match error {
        CheckError::Failed(failure) => CheckError::Failed(failure.with_text(text)),
        CheckError::Stopped => CheckError::Stopped,
    })
}

/// Runs a check on a thread for blocking work, within the limits on number and time.
async fn within_limits<T: Send + 'static>(
    permits: &'static Semaphore,
    check: impl FnOnce() -> T + Send + 'static,
    limits: CheckLimits,
) -> Result<T, CheckError> {
    let failed = |class, message: String| Err(CheckError::Failed(Failure::new(class, message)));
    let mut stopped = pin!(limits.stop.wait());
    let permit = tokio::select! {
        biased;
        // A check that does not have to wait is made even if the run stops: its answer is paid for. The
        // semaphore is never closed.
        permit = permits.acquire() => permit.ok(),
        () = &mut stopped => return Err(CheckError::Stopped),
        () = sleep_until(limits.deadline) => {
            let message = "the deadline passed while the answer waited for validation: other large checks took \
                           too long";
            return failed(Class::Deadline, message.to_owned());
        }
    };
    let checking = spawn_blocking(move || {
        let checked = check();
        drop(permit);
        checked
    });
    match timeout(MAX_CHECK_DURATION, checking).await {
        Ok(Ok(checked)) => Ok(checked),
        Ok(Err(error)) if error.is_panic() => {
            failed(Class::Internal, "the check of the answer panicked".to_owned())
        }
        // The runtime is shutting down.
        Ok(Err(_)) => std::future::pending().await,
        Err(_) => {
            let message =
                format!("the check of the answer takes longer than {} seconds", MAX_CHECK_DURATION.as_secs());
            failed(Class::Internal, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::watch;

    use super::*;

    const ONE_HOUR: Duration = Duration::from_secs(3_600);

    fn limits(stop: &watch::Sender<bool>, time: Duration) -> CheckLimits {
        CheckLimits { deadline: Instant::now() + time, stop: StopSignal::new(stop) }
    }

    fn class<T: std::fmt::Debug>(checked: Result<T, CheckError>) -> Class {
        match checked {
            Err(CheckError::Failed(failure)) => failure.class,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_vector_is_written_with_the_fewest_digits_that_identify_each_number() {
        let embeddings = vec![[0.1, -2.0, 3.5e-8, 0.333_333_34].into()];
        let text = embedding_text(&Completion { embeddings, ..Completion::default() });
        assert_eq!(text, "[0.1,-2.0,3.5e-8,0.33333334]");
        let numbers: Vec<f32> = serde_json::from_str(&text).unwrap();
        assert_eq!(numbers, [0.1, -2.0, 3.5e-8, 0.333_333_34]);
        assert_eq!(embedding_text(&Completion::default()), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_does_not_end_fails_and_keeps_its_permit_until_it_ends() {
        static PERMITS: Semaphore = Semaphore::const_new(2);
        let stop = watch::Sender::new(false);
        let (release, released) = mpsc::channel::<()>();
        let endless = within_limits(&PERMITS, move || released.recv().is_ok(), limits(&stop, ONE_HOUR));
        let (endless, ()) = tokio::join!(endless, async {
            // While a thread blocks, the paused clock does not advance by itself.
            while PERMITS.available_permits() == 2 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(MAX_CHECK_DURATION * 2).await;
        });
        assert_eq!(class(endless), Class::Internal);
        assert_eq!(
            within_limits(&PERMITS, || 7, limits(&stop, ONE_HOUR)).await,
            Ok(7),
            "other checks run meanwhile"
        );
        release.send(()).unwrap();
        let panicked =
            within_limits(&PERMITS, || -> bool { panic!("as planned") }, limits(&stop, ONE_HOUR)).await;
        assert_eq!(class(panicked), Class::Internal);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_waits_for_a_permit_ends_at_the_deadline_and_when_the_run_stops() {
        static PERMITS: Semaphore = Semaphore::const_new(1);
        let stop = watch::Sender::new(false);
        let permit = PERMITS.acquire().await.unwrap();
        let started = Instant::now();
        let minute = Duration::from_secs(60);
        let late = within_limits(&PERMITS, || 7, limits(&stop, minute)).await;
        assert_eq!((class(late), started.elapsed()), (Class::Deadline, minute));
        let waits = within_limits(&PERMITS, || 7, limits(&stop, ONE_HOUR));
        let (stopped, ()) = tokio::join!(waits, async {
            tokio::time::sleep(minute).await;
            stop.send_replace(true);
        });
        assert_eq!((stopped, started.elapsed()), (Err(CheckError::Stopped), minute * 2));
        drop(permit);
        assert_eq!(within_limits(&PERMITS, || 7, limits(&stop, ONE_HOUR)).await, Ok(7), "no wait");
    }
}
