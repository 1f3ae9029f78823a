//! What happened lately, for those who watch.
//!
//! Events have increasing numbers, also across restarts. A watcher that was disconnected names the last one that it has
//! seen and gets those after it, as far as they are remembered.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::clock;
use crate::store::RunNumber;
use crate::types::utc_time;

/// How many events are remembered.
const MAX_REMEMBERED: usize = 2_048;

/// How many events a slow watcher may be behind before it gets the notice that it has missed some.
const MAX_BEHIND: usize = 512;

/// The kind of an event. Watchers select by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A run was created.
    RunCreated,
    /// A session of a run began.
    RunStarted,
    /// A session of a run ended; its data has the outcome.
    RunEnded,
    /// A run could not be resumed; its data has the reason.
    RunFailed,
    /// A run was deleted.
    RunDeleted,
    /// A pipeline was changed or deleted.
    PipelineChanged,
    /// The configuration was reloaded, or a faulty one was refused.
    ConfigurationReloaded,
    /// A user changed the state of a provider: its breaker, its keys, or a drain.
    ProviderChanged,
    /// A token was created or revoked.
    TokenChanged,
    /// The daemon stops.
    Stopping,
}

impl EventKind {
    /// Returns the name in JSON and in event streams.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunCreated => "run_created",
            Self::RunStarted => "run_started",
            Self::RunEnded => "run_ended",
            Self::RunFailed => "run_failed",
            Self::RunDeleted => "run_deleted",
            Self::PipelineChanged => "pipeline_changed",
            Self::ConfigurationReloaded => "configuration_reloaded",
            Self::ProviderChanged => "provider_changed",
            Self::TokenChanged => "token_changed",
            Self::Stopping => "stopping",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Its number, larger than that of all events before it.
    pub number: u64,
    /// When, in milliseconds since 1970; a text in JSON.
    #[serde(with = "utc_time")]
    pub at: i64,
    /// What kind.
    pub kind: EventKind,
    /// The run, if it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunNumber>,
    /// More about it.
    pub data: Value,
}

/// The events of a daemon.
#[derive(Debug)]
pub struct EventLog {
    state: Mutex<State>,
    sender: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct State {
    remembered: VecDeque<Arc<Event>>,
    next: u64,
}

/// The events after a number, and those to come.
#[derive(Debug)]
pub struct EventsSince {
    /// The remembered events after it, in order.
    pub missed: Vec<Arc<Event>>,
    /// Whether `missed` is all that has happened since.
    pub is_complete: bool,
    /// The number of the last event before those to come.
    pub position: u64,
    /// Those to come.
    pub next: broadcast::Receiver<Arc<Event>>,
}

impl EventLog {
    pub(super) fn new() -> Self {
        // Events of this process come after those of every process before, unless there are more than 65 a millisecond.
        let next = u64::try_from(clock::milliseconds()).unwrap_or_default() << 6;
        let state = Mutex::new(State { remembered: VecDeque::new(), next });
        Self { state, sender: broadcast::Sender::new(MAX_BEHIND) }
    }

    pub(super) fn record(&self, kind: EventKind, run: Option<RunNumber>, data: Value) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        let event = Arc::new(Event { number, at: clock::milliseconds(), kind, run, data });
        state.remembered.push_back(event.clone());
        if state.remembered.len() > MAX_REMEMBERED {
            state.remembered.pop_front();
        }
        // Sent under the lock, so that watchers get events in order. An error means that there are no watchers.
        drop(self.sender.send(event));
    }

    /// Returns the events after the number `last`, or only those to come.
    pub fn since(&self, last: Option<u64>) -> EventsSince {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.sender.subscribe();
        let position = state.next.saturating_sub(1);
        let Some(last) = last else {
            return EventsSince { missed: Vec::new(), is_complete: true, position, next };
        };
        let missed = state.remembered.iter().filter(|event| event.number > last).cloned().collect();
        let first = state.remembered.front().map_or(state.next, |event| event.number);
        EventsSince { missed, is_complete: last.saturating_add(1) >= first, position, next }
    }

    /// Returns the number of the last event; the next has a larger one.
    pub fn last_number(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).next.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_gets_what_it_missed_and_is_told_when_that_is_not_all() {
        let log = EventLog::new();
        let start = log.last_number();
        for _ in 0..3 {
            log.record(EventKind::RunCreated, Some(RunNumber(1)), Value::Null);
        }
        let since = log.since(Some(start + 1));
        assert!(since.is_complete);
        assert_eq!(since.missed.iter().map(|event| event.number).collect::<Vec<_>>(), [start + 2, start + 3]);
        assert!(log.since(None).missed.is_empty());
        for _ in 0..MAX_REMEMBERED {
            log.record(EventKind::RunEnded, None, Value::Null);
        }
        let since = log.since(Some(start));
        assert_eq!((since.is_complete, since.missed.len()), (false, MAX_REMEMBERED));
        // Of an earlier process.
        assert!(!log.since(Some(0)).is_complete);
    }
}
