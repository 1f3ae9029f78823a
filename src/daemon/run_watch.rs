//! Watches a run: its view about once a second, its events, and its report at the end.
//!
//! ```text
//! store, run --> feed task (one per watched run) --> watcher, watcher, watcher
//! EventLog -------------------------------------------^
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::run::History;
use crate::store::RunNumber;

use super::caller::Caller;
use super::daemon::Daemon;
use super::error::Error;
use super::event_watch::{EventUpdate, EventWatch};
use super::events::Event;
use super::progress_feeds::{Feed, RenderedRun};

/// How often the view of a run is rendered while it is watched.
const RENDER_INTERVAL: Duration = Duration::from_secs(1);

/// Watches a run. All watchers of a run share what is rendered.
#[derive(Debug)]
pub struct RunWatch {
    events: EventWatch,
    feed: watch::Receiver<RenderedRun>,
    pending: VecDeque<RunUpdate>,
    has_ended: bool,
}

/// What a watcher of a run gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RunUpdate {
    /// Events were missed that are not remembered.
    Reset,
    /// The run as it is now: its [`RunView`](super::RunView) in JSON.
    View(Bytes),
    /// Something happened.
    Event(Arc<Event>),
    /// The run has ended or is paused: its [`Report`](crate::run::Report) in JSON. It is the last update.
    End(Bytes),
}

impl Daemon {
    /// Watches a run: its events after the number `last`, or only those to come, and its view.
    ///
    /// # Errors
    /// If there is no such run, or the caller may not see it.
    pub async fn watch_run(
        &self,
        run: RunNumber,
        last: Option<u64>,
        caller: &Caller,
    ) -> Result<RunWatch, Error> {
        self.stored_run(run, caller).await?;
        let events = EventWatch::new(self, Some(run), last);
        let (feed, to_fill) = self.feeds().watch(run);
        if let Some(to_fill) = to_fill {
            let daemon = self.clone();
            drop(self.pointsman().runtime().spawn(async move { daemon.fill(&to_fill).await }));
        }
        Ok(RunWatch { events, feed, pending: VecDeque::new(), has_ended: false })
    }

    /// Renders a run until it has ended, it has no watcher, or the daemon stops.
    async fn fill(&self, feed: &Feed) {
        let run = feed.run();
        let mut stopping = self.stopping();
        let mut events = self.events().since(None).next;
        loop {
            let rendered = match self.render(run).await {
                Ok(rendered) => rendered,
                Err(error) => {
                    // It was deleted, or the store cannot be read. The streams of its watchers end.
                    tracing::debug!(%run, %error, "a watched run cannot be shown");
                    return;
                }
            };
            let has_ended = rendered.report.is_some();
            feed.publish(rendered);
            if has_ended {
                return;
            }
            let next = Instant::now() + RENDER_INTERVAL;
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    () = feed.unwatched() => if feed.end_if_unwatched() { return },
                    event = events.recv() => match event {
                        Ok(event) if event.run == Some(run) => break,
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return,
                    },
                    () = stopping.stopped() => return,
                }
            }
        }
    }

    async fn render(&self, run: RunNumber) -> Result<RenderedRun, Error> {
        // Before the run is read: what is read after its end is final.
        let is_open = self.open_runs().control(run).is_some();
        let stored = self.store().run(run).await?;
        let view = json(&self.view(&stored).await?)?;
        let report = if is_open {
            None
        } else {
            let report = History::of(self.store().clone(), run).await?.report().await?;
            Some(json(&report)?)
        };
        Ok(RenderedRun { view: Some(view), report })
    }
}

fn json(value: &impl Serialize) -> Result<Bytes, Error> {
    Ok(serde_json::to_vec(value).map_err(Error::json)?.into())
}

impl RunWatch {
    /// Returns the number of the last event before those that are to come.
    pub fn position(&self) -> u64 {
        self.events.position()
    }

    /// Returns the next update; `None` after the end, and when the daemon stops. It may be called again after it was
    /// aborted.
    pub async fn next(&mut self) -> Option<RunUpdate> {
        loop {
            if let Some(update) = self.pending.pop_front() {
                return Some(update);
            }
            if self.has_ended {
                return None;
            }
            tokio::select! {
                changed = self.feed.changed() => match changed {
                    Ok(()) => self.take_view(),
                    Err(_) => self.has_ended = true,
                },
                update = self.events.next() => match update {
                    Some(update) => return Some(update.into()),
                    None => self.has_ended = true,
                },
            }
        }
    }

    fn take_view(&mut self) {
        let RenderedRun { view, report } = self.feed.borrow_and_update().clone();
        self.pending.extend(view.map(RunUpdate::View));
        let Some(report) = report else { return };
        // The events of the end come before it.
        while let Some(update) = self.events.try_next() {
            self.pending.push_back(update.into());
        }
        self.pending.push_back(RunUpdate::End(report));
        self.has_ended = true;
    }
}

impl From<EventUpdate> for RunUpdate {
    fn from(update: EventUpdate) -> Self {
        match update {
            EventUpdate::Reset => Self::Reset,
            EventUpdate::Event(event) => Self::Event(event),
        }
    }
}
