//! What the watchers of a run share: its view, which is rendered at most once a second while it has a watcher.
//!
//! A feed exists from its first watcher until its last, or until the run has ended. One task fills it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use crate::store::RunNumber;

/// A run as its watchers see it, in JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct RenderedRun {
    /// Its view; `None` until it is rendered for the first time.
    pub(super) view: Option<Bytes>,
    /// Its report; `None` until it has ended.
    pub(super) report: Option<Bytes>,
}

/// The feeds of the runs that are watched.
#[derive(Debug, Clone, Default)]
pub(super) struct ProgressFeeds(Arc<Mutex<Senders>>);

type Senders = HashMap<RunNumber, Arc<watch::Sender<RenderedRun>>>;

/// A feed, held by the task that fills it. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Feed {
    run: RunNumber,
    sender: Arc<watch::Sender<RenderedRun>>,
    feeds: ProgressFeeds,
}

impl ProgressFeeds {
    /// Returns what a watcher of a run reads, and the feed if the caller has to start the task that fills it.
    pub(super) fn watch(&self, run: RunNumber) -> (watch::Receiver<RenderedRun>, Option<Feed>) {
        let mut feeds = self.lock();
        if let Some(sender) = feeds.get(&run) {
            let mut watcher = sender.subscribe();
            // It begins with what the others have already.
            watcher.mark_changed();
            return (watcher, None);
        }
        let sender = Arc::new(watch::Sender::default());
        let watcher = sender.subscribe();
        feeds.insert(run, sender.clone());
        (watcher, Some(Feed { run, sender, feeds: self.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, Senders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// Returns the run.
    pub(super) fn run(&self) -> RunNumber {
        self.run
    }

    /// Shows the run to all watchers. One that is slow misses what is replaced.
    pub(super) fn publish(&self, rendered: RenderedRun) {
        self.sender.send_replace(rendered);
    }

    /// Waits until there is no watcher.
    pub(super) async fn unwatched(&self) {
        self.sender.closed().await;
    }

    /// Ends the feed if there is still no watcher. The next watcher then begins another.
    pub(super) fn end_if_unwatched(&self) -> bool {
        let mut feeds = self.feeds.lock();
        if self.sender.receiver_count() > 0 {
            return false;
        }
        self.remove(&mut feeds);
        true
    }

    fn remove(&self, feeds: &mut Senders) {
        if feeds.get(&self.run).is_some_and(|sender| Arc::ptr_eq(sender, &self.sender)) {
            feeds.remove(&self.run);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.remove(&mut self.feeds.lock());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(view: &'static str) -> RenderedRun {
        RenderedRun { view: Some(Bytes::from_static(view.as_bytes())), report: None }
    }

    #[test]
    fn a_run_has_one_feed_until_its_last_watcher_goes() {
        let feeds = ProgressFeeds::default();
        let (first, feed) = feeds.watch(RunNumber(1));
        let feed = feed.unwrap();
        feed.publish(rendered("a"));
        let (second, none) = feeds.watch(RunNumber(1));
        assert!(none.is_none());
        assert!(second.has_changed().unwrap());
        assert_eq!(second.borrow().view.as_deref(), Some(b"a".as_slice()));
        drop(first);
        assert!(!feed.end_if_unwatched());
        drop(second);
        assert!(feed.end_if_unwatched());
        assert!(feeds.watch(RunNumber(1)).1.is_some());
    }

    #[test]
    fn a_feed_whose_task_ends_does_not_remove_the_next_one() {
        let feeds = ProgressFeeds::default();
        let (watcher, feed) = feeds.watch(RunNumber(1));
        drop(watcher);
        let feed = feed.unwrap();
        assert!(feed.end_if_unwatched());
        let (mut next, next_feed) = feeds.watch(RunNumber(1));
        drop(feed);
        assert!(feeds.watch(RunNumber(1)).1.is_none());
        drop(next_feed);
        // Its watchers see the end.
        next.mark_unchanged();
        assert!(next.has_changed().is_err());
        assert!(feeds.0.lock().unwrap().is_empty());
    }
}
