//! What a run has been told and has not dealt with: it outlives a panic of the run's actor.
//!
//! A paper stays on the desk until it is dealt with, so that one in the middle of which the actor panicked is
//! taken up again, once. Decides nothing about a paper itself.

use std::collections::VecDeque;

use super::keeping::Known;
use super::messages::{ItemSettled, StepAsked};
use crate::source::Entry;
use crate::supervisor::ChildExited;

/// Panics over one paper after which it is not tried again in the same way.
const ENOUGH: u32 = 2;

/// Something a run has to deal with.
pub(super) enum Paper {
    /// An entry of the source has come, with what earlier sessions left of it.
    Entry(Entry, Option<Box<Known>>),
    /// A question has been answered, or has not.
    Asked(StepAsked),
    /// An item has walked to its end.
    Settled(ItemSettled),
    /// The actor of an item is gone.
    Exited(ChildExited),
}

/// The papers, oldest first.
#[derive(Default)]
pub(super) struct Desk {
    papers: VecDeque<Paper>,
    /// Whether the first of them is being dealt with.
    open: bool,
    /// How often the actor has panicked over the first.
    panics: u32,
}

impl Desk {
    /// Lays a paper under the others.
    pub(super) fn lay(&mut self, paper: Paper) {
        self.papers.push_back(paper);
    }

    /// Opens the first paper, and says whether it cannot be dealt with in the usual way.
    pub(super) fn open(&mut self) -> Option<(&mut Paper, bool)> {
        self.open = !self.papers.is_empty();
        Some((self.papers.front_mut()?, self.panics >= ENOUGH))
    }

    /// Takes the first paper off: from here on it is dealt with.
    pub(super) fn take(&mut self) -> Option<Paper> {
        (self.open, self.panics) = (false, 0);
        self.papers.pop_front()
    }

    /// Learns that the actor has panicked.
    pub(super) fn panicked(&mut self) {
        self.panics += u32::from(std::mem::take(&mut self.open));
    }

    pub(super) fn len(&self) -> usize {
        self.papers.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.papers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{ChildId, Exit};

    fn desk(papers: u64) -> Desk {
        let mut desk = Desk::default();
        (0..papers).for_each(|id| {
            desk.lay(Paper::Exited(ChildExited { id: ChildId(id), life: 1, exit: Exit::Killed }))
        });
        desk
    }

    fn number(paper: &Paper) -> u64 {
        let Paper::Exited(exited) = paper else { panic!("another paper") };
        exited.id.0
    }

    fn first(desk: &mut Desk) -> Option<(u64, bool)> {
        desk.open().map(|(paper, hopeless)| (number(paper), hopeless))
    }

    #[test]
    fn a_paper_over_which_the_actor_panicked_is_tried_once_more_and_then_given_up() {
        let mut desk = desk(2);
        for hopeless in [false, false, true] {
            assert_eq!(first(&mut desk), Some((0, hopeless)));
            desk.panicked();
        }
        desk.take();
        assert_eq!(first(&mut desk), Some((1, false)), "the next one is innocent");
    }

    #[test]
    fn a_panic_over_something_else_is_not_held_against_a_paper() {
        let mut desk = desk(2);
        (0..5).for_each(|_| desk.panicked());
        assert_eq!(first(&mut desk), Some((0, false)));
        assert_eq!(desk.take().as_ref().map(number), Some(0));
        (0..5).for_each(|_| desk.panicked());
        assert_eq!(first(&mut desk), Some((1, false)));
        desk.take();
        assert!(desk.is_empty() && desk.open().is_none());
    }
}
