//! The progress of a run as a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::watch;

use crate::run::Progress;

/// The progress of a run: the current one, then one about ten times a second, and one more at its end; then the
/// stream ends.
///
/// A reader that is slower gets the newest progress and misses those between. Any executor can poll it.
pub struct ProgressStream(Pin<Box<dyn Stream<Item = Progress> + Send>>);

impl ProgressStream {
    pub(super) fn of(mut progress: watch::Receiver<Progress>) -> Self {
        // The current progress is the first item: it may be the last one of the run.
        progress.mark_changed();
        let next = |mut progress: watch::Receiver<Progress>| async move {
            progress.changed().await.ok()?;
            let current = progress.borrow_and_update().clone();
            Some((current, progress))
        };
        Self(Box::pin(stream::unfold(progress, next)))
    }

    /// The stream of a run that has ended with this progress.
    pub(super) fn ended(last: Progress) -> Self {
        Self(Box::pin(stream::iter([last])))
    }

    /// Returns the next progress; `None` when the run has ended.
    pub async fn next(&mut self) -> Option<Progress> {
        self.0.next().await
    }
}

impl Stream for ProgressStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Progress>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for ProgressStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ProgressStream")
    }
}
