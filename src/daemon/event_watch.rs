//! Watches the events of a daemon, or those of one run, until the daemon stops.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::store::RunNumber;

use super::daemon::{Daemon, Stopping};
use super::events::{Event, EventsSince};

/// Watches events. It costs nothing while nothing happens.
#[derive(Debug)]
pub struct EventWatch {
    missed: VecDeque<EventUpdate>,
    next: broadcast::Receiver<Arc<Event>>,
    run: Option<RunNumber>,
    position: u64,
    stopping: Stopping,
}

/// What a watcher gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventUpdate {
    /// Events were missed that are not remembered: the watcher has to read the present state.
    Reset,
    /// Something happened.
    Event(Arc<Event>),
}

impl Daemon {
    /// Watches all events: those after the number `last`, or only those to come.
    pub fn watch_events(&self, last: Option<u64>) -> EventWatch {
        EventWatch::new(self, None, last)
    }
}

impl EventWatch {
    /// Watches the events of a daemon, or only those of `run`.
    pub(super) fn new(daemon: &Daemon, run: Option<RunNumber>, last: Option<u64>) -> Self {
        let EventsSince { missed, is_complete, position, next } = daemon.events().since(last);
        let reset = (!is_complete).then_some(EventUpdate::Reset);
        let missed = missed.into_iter().filter(|event| concerns(run, event)).map(EventUpdate::Event);
        Self {
            missed: reset.into_iter().chain(missed).collect(),
            next,
            run,
            position,
            stopping: daemon.stopping(),
        }
    }

    /// Returns the number of the last event before those that are to come.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next update; `None` when the daemon stops. It may be called again after it was aborted.
    pub async fn next(&mut self) -> Option<EventUpdate> {
        loop {
            if let Some(update) = self.try_next() {
                return Some(update);
            }
            tokio::select! {
                // What happened before the stop comes first.
                biased;
                received = self.next.recv() => match received {
                    Ok(event) if concerns(self.run, &event) => return Some(EventUpdate::Event(event)),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return Some(EventUpdate::Reset),
                    Err(RecvError::Closed) => return None,
                },
                () = self.stopping.stopped() => return None,
            }
        }
    }

    /// Returns the next update if it has happened already.
    pub(super) fn try_next(&mut self) -> Option<EventUpdate> {
        if let Some(update) = self.missed.pop_front() {
            return Some(update);
        }
        loop {
            match self.next.try_recv() {
                Ok(event) if concerns(self.run, &event) => return Some(EventUpdate::Event(event)),
                Ok(_) => {}
                Err(TryRecvError::Lagged(_)) => return Some(EventUpdate::Reset),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }
}

fn concerns(run: Option<RunNumber>, event: &Event) -> bool {
    run.is_none() || event.run == run
}
