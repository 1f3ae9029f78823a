//! The inbox of a run: events that are not handled yet. It survives a panic of the run's actor.
//!
//! The part of the handling that may panic [keeps](Inbox::keep_on_panic) its event: if the actor panics, the event
//! returns to the inbox and is handled once more. After a second panic it is poisoned, and the caller handles it
//! differently.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::messages::{ItemFinished, RequestEnded};
use super::persistence::EarlierItem;
use crate::source::Entry;
use crate::supervisor::ChildExited;

/// An event that a run has to handle.
pub(super) enum Event {
    /// An entry of the source has arrived.
    Entry(EntryRead),
    /// A request has ended or will be sent again.
    RequestEnded(RequestEnded),
    /// An item has finished.
    ItemFinished(ItemFinished),
    /// The actor of an item has exited.
    ItemExited(ChildExited),
}

/// An entry of the source.
pub(super) struct EntryRead {
    pub(super) entry: Entry,
    /// What earlier sessions have stored about it.
    pub(super) earlier: Option<Box<EarlierItem>>,
}

/// Whether the actor has panicked over an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventState {
    /// It has not.
    New,
    /// Once: the event is handled once more.
    PanickedOnce,
    /// Twice: the event is handled differently.
    Poisoned,
}

/// The events, oldest first.
#[derive(Default)]
pub(super) struct Inbox(VecDeque<(Event, EventState)>);

impl EventState {
    fn after_panic(self) -> Self {
        match self {
            Self::New => Self::PanickedOnce,
            Self::PanickedOnce | Self::Poisoned => Self::Poisoned,
        }
    }
}

impl Inbox {
    /// Adds an event.
    pub(super) fn push(&mut self, event: Event) {
        self.0.push_back((event, EventState::New));
    }

    /// Removes the first event: from here on it is handled, unless it is [kept](Self::keep_on_panic).
    pub(super) fn pop(&mut self) -> Option<(Event, EventState)> {
        self.0.pop_front()
    }

    /// Does a part of the handling of an event. If `work` panics, the event, made by `event` of its content,
    /// becomes the first of the inbox again, and the panic continues.
    pub(super) fn keep_on_panic<T, R>(
        &mut self,
        event: impl FnOnce(T) -> Event,
        mut content: T,
        state: EventState,
        work: impl FnOnce(&mut T) -> R,
    ) -> (T, R) {
        // The content stays usable: the next incarnation does the same work with it again.
        match catch_unwind(AssertUnwindSafe(|| work(&mut content))) {
            Ok(result) => (content, result),
            Err(panic) => {
                self.0.push_front((event(content), state.after_panic()));
                resume_unwind(panic)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{ChildId, Exit};

    fn inbox(events: u64) -> Inbox {
        let mut inbox = Inbox::default();
        (0..events).for_each(|id| {
            inbox.push(Event::ItemExited(ChildExited { id: ChildId(id), incarnation: 1, exit: Exit::Killed }))
        });
        inbox
    }

    /// Handles the first event, with a panic or without one. Returns its number and its state before.
    fn handle_first(inbox: &mut Inbox, panics: bool) -> Option<(u64, EventState)> {
        let (event, state) = inbox.pop()?;
        let Event::ItemExited(exited) = event else { panic!("unexpected event") };
        let number = exited.id.0;
        let handling = AssertUnwindSafe(|| {
            inbox.keep_on_panic(Event::ItemExited, exited, state, |_| assert!(!panics, "a test panics")).0
        });
        assert_eq!(catch_unwind(handling).map(|handled| handled.id.0).ok(), (!panics).then_some(number));
        Some((number, state))
    }

    #[test]
    fn an_event_is_handled_again_after_one_panic_and_is_poisoned_after_two() {
        let mut inbox = inbox(2);
        for state in [EventState::New, EventState::PanickedOnce, EventState::Poisoned, EventState::Poisoned] {
            assert_eq!(handle_first(&mut inbox, true), Some((0, state)));
            assert_eq!(inbox.len(), 2);
        }
        assert_eq!(handle_first(&mut inbox, false), Some((0, EventState::Poisoned)));
        assert_eq!(
            handle_first(&mut inbox, true),
            Some((1, EventState::New)),
            "the next event is not poisoned"
        );
    }

    #[test]
    fn a_panic_outside_event_handling_does_not_count_for_an_event() {
        let mut inbox = inbox(2);
        let panic_outside = |inbox: &mut Inbox| {
            let outside = AssertUnwindSafe(|| assert!(inbox.is_empty(), "a test panics"));
            assert!(catch_unwind(outside).is_err());
        };
        (0..5).for_each(|_| panic_outside(&mut inbox));
        assert_eq!(handle_first(&mut inbox, false), Some((0, EventState::New)));
        (0..5).for_each(|_| panic_outside(&mut inbox));
        assert_eq!(handle_first(&mut inbox, false), Some((1, EventState::New)));
        assert!(inbox.is_empty() && inbox.pop().is_none());
    }
}
