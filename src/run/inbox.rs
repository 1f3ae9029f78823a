//! The inbox of a run: events that are not handled yet. It survives a panic of the run's actor.
//!
//! An event stays in the inbox until it is handled. If the actor panics while it handles an event, the event is
//! handled once more. After a second panic it is poisoned, and the caller handles it differently.

use std::collections::VecDeque;

use super::messages::{ItemFinished, RequestEnded};
use super::persistence::EarlierItem;
use crate::source::Entry;
use crate::supervisor::ChildExited;

/// Panics over one event after which it is poisoned.
const MAX_PANICS_PER_EVENT: u32 = 2;

/// An event that a run has to handle.
pub(super) enum Event {
    /// An entry of the source, with what earlier sessions have stored about it.
    Entry(Entry, Option<Box<EarlierItem>>),
    /// A request has ended or will be sent again.
    RequestEnded(RequestEnded),
    /// An item has finished.
    ItemFinished(ItemFinished),
    /// The actor of an item has exited.
    ItemExited(ChildExited),
}

/// The events, oldest first.
#[derive(Default)]
pub(super) struct Inbox {
    events: VecDeque<Event>,
    /// Whether the first event is being handled.
    is_handling: bool,
    /// How often the actor has panicked over the first event.
    panics: u32,
}

impl Inbox {
    /// Adds an event.
    pub(super) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Returns the first event and whether it is poisoned, and marks it as being handled.
    pub(super) fn first(&mut self) -> Option<(&mut Event, bool)> {
        self.is_handling = !self.events.is_empty();
        Some((self.events.front_mut()?, self.panics >= MAX_PANICS_PER_EVENT))
    }

    /// Removes the first event: from here on it is handled.
    pub(super) fn pop(&mut self) -> Option<Event> {
        self.is_handling = false;
        self.panics = 0;
        self.events.pop_front()
    }

    /// Records that the actor has panicked.
    pub(super) fn panicked(&mut self) {
        self.panics += u32::from(std::mem::take(&mut self.is_handling));
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
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

    fn number(event: &Event) -> u64 {
        let Event::ItemExited(exited) = event else { panic!("unexpected event") };
        exited.id.0
    }

    fn first_number(inbox: &mut Inbox) -> Option<(u64, bool)> {
        inbox.first().map(|(event, is_poisoned)| (number(event), is_poisoned))
    }

    #[test]
    fn an_event_is_handled_again_after_one_panic_and_is_poisoned_after_two() {
        let mut inbox = inbox(2);
        for is_poisoned in [false, false, true] {
            assert_eq!(first_number(&mut inbox), Some((0, is_poisoned)));
            inbox.panicked();
        }
        inbox.pop();
        assert_eq!(first_number(&mut inbox), Some((1, false)), "the next event is not poisoned");
    }

    #[test]
    fn a_panic_outside_event_handling_does_not_count_for_an_event() {
        let mut inbox = inbox(2);
        (0..5).for_each(|_| inbox.panicked());
        assert_eq!(first_number(&mut inbox), Some((0, false)));
        assert_eq!(inbox.pop().as_ref().map(number), Some(0));
        (0..5).for_each(|_| inbox.panicked());
        assert_eq!(first_number(&mut inbox), Some((1, false)));
        inbox.pop();
        assert!(inbox.is_empty() && inbox.first().is_none());
    }
}
