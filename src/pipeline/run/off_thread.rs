//! Checks answers against their schemas, away from the actors' threads where that can take long.
//!
//! Few large checks run at once in the whole process. One that takes too long fails its item; it keeps its place
//! until it ends, so that slow checks never gather threads.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::pipeline::definition::Pipeline;

/// Large checks that run at once in this process.
static LARGE_CHECKS: Semaphore = Semaphore::const_new(MAX_LARGE_CHECKS);

const MAX_LARGE_CHECKS: usize = 2;

/// How long one large check may take, once it has begun.
const MAX_CHECK: Duration = Duration::from_secs(20);

/// Checks the text of a model against what its step asked for.
///
/// # Errors
/// Why it is not accepted, in words for the model.
pub(super) async fn check_answer(pipeline: &Arc<Pipeline>, step: usize, text: &str) -> Result<Value, String> {
    if pipeline.is_quick_answer(step, text) {
        return pipeline.check_answer(step, text);
    }
    let (pipeline, text) = (pipeline.clone(), text.to_owned());
    let checked = within_limits(move || pipeline.check_answer(step, &text)).await;
    checked.unwrap_or_else(|why| Err(format!("it cannot be checked: {why}")))
}

/// Runs a check on a thread for work that blocks, within the limits on number and time.
async fn within_limits<T: Send + 'static>(check: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let Ok(place) = LARGE_CHECKS.acquire().await else { return Err("the checks have ended".to_owned()) };
    let checking = spawn_blocking(move || {
        let checked = check();
        drop(place);
        checked
    });
    match timeout(MAX_CHECK, checking).await {
        Ok(Ok(checked)) => Ok(checked),
        Ok(Err(_)) => Err("the check panicked".to_owned()),
        Err(_) => Err(format!("the check takes longer than {} seconds", MAX_CHECK.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_check_that_does_not_end_fails_and_keeps_its_place_until_it_ends() {
        let (release, released) = mpsc::channel::<()>();
        let endless = within_limits(move || released.recv().is_ok());
        let (endless, ()) = tokio::join!(endless, async {
            // While a thread blocks, the paused clock does not run by itself.
            while LARGE_CHECKS.available_permits() == MAX_LARGE_CHECKS {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(MAX_CHECK * 2).await;
        });
        assert_eq!(endless, Err("the check takes longer than 20 seconds".to_owned()));
        assert_eq!(within_limits(|| 7).await, Ok(7), "others are checked meanwhile");
        release.send(()).unwrap();
        assert_eq!(
            within_limits(|| panic!("as planned")).await,
            Err::<(), _>("the check panicked".to_owned())
        );
    }
}
