//! Parses texts of callers on threads that may block, few at once. A parse takes a processor and much memory for a moment.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::runtime::Pointsman;

use super::error::Error;

/// Longest text of a pipeline or of a configuration that is taken from a caller, in bytes.
pub(super) const MAX_TEXT_BYTES: usize = 256 << 10;

/// How many texts are parsed at once.
const MAX_AT_ONCE: usize = 2;

/// How long a text waits for those before it.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// When a caller that has waited so long tries again, in seconds.
const RETRY_AFTER: u64 = 5;

/// Parses texts, a few at once.
#[derive(Debug, Clone)]
pub(super) struct TextParser(Arc<Semaphore>);

impl TextParser {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_AT_ONCE)))
    }

    /// Does work that parses a text.
    ///
    /// # Errors
    /// If too many texts are parsed, or the daemon stops.
    pub(super) async fn parse<T: Send + 'static>(
        &self,
        pointsman: &Pointsman,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let permits = self.0.clone();
        // On the runtime of the actors, because the caller's may have no timers.
        let waited = pointsman.work(async move { timeout(MAX_WAIT, permits.acquire_owned()).await }).await?;
        let Ok(Ok(permit)) = waited else {
            return Err(Error::Busy {
                message: "too many pipelines and configurations are being read".to_owned(),
                retry_after: RETRY_AFTER,
            });
        };
        let work = move || {
            let parsed = work();
            // Not when the caller has what it waits for: it may be gone, and the work continues without it.
            drop(permit);
            parsed
        };
        pointsman.runtime().spawn_blocking(work).await.map_err(Error::ended_early)
    }
}

/// Returns why a text is too long; `None` if it is not.
pub(super) fn length_problem(text: &str) -> Option<String> {
    let is_long = text.len() > MAX_TEXT_BYTES;
    is_long.then(|| {
        format!(
            "the text has {} KiB; the maximum is {} KiB",
            text.len().div_ceil(1 << 10),
            MAX_TEXT_BYTES >> 10
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_above_the_maximum_is_too_long() {
        assert_eq!(length_problem(&"x".repeat(MAX_TEXT_BYTES)), None);
        let problem = length_problem(&"x".repeat(MAX_TEXT_BYTES + 1));
        assert_eq!(problem.as_deref(), Some("the text has 257 KiB; the maximum is 256 KiB"));
    }
}
