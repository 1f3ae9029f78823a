//! The calls that wait for their turn: people before batches, each in order of arrival.
//!
//! Never grows past its bound.

use std::collections::VecDeque;

use crate::types::Priority;

/// A bounded queue of two priorities.
#[derive(Debug)]
pub(super) struct Queue<T> {
    interactive: VecDeque<T>,
    batch: VecDeque<T>,
    bound: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(bound: usize) -> Self {
        Self { interactive: VecDeque::new(), batch: VecDeque::new(), bound }
    }

    pub(super) fn len(&self) -> usize {
        self.interactive.len() + self.batch.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many would go before one that came now; `None` when it could not come.
    pub(super) fn ahead_of(&self, priority: Priority) -> Option<usize> {
        match priority {
            _ if self.len() >= self.bound => None,
            Priority::Interactive => Some(self.interactive.len()),
            Priority::Batch => Some(self.len()),
        }
    }

    pub(super) fn push(&mut self, priority: Priority, waiting: T) {
        match priority {
            Priority::Interactive => self.interactive.push_back(waiting),
            Priority::Batch => self.batch.push_back(waiting),
        }
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.interactive.front().or_else(|| self.batch.front())
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.interactive.pop_front().or_else(|| self.batch.pop_front())
    }

    /// Drops everything that is not worth keeping.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.interactive.retain(&keep);
        self.batch.retain(&keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_goes_before_a_batch() {
        let mut queue = Queue::new(10);
        queue.push(Priority::Batch, 1);
        queue.push(Priority::Batch, 2);
        queue.push(Priority::Interactive, 3);
        assert_eq!(queue.ahead_of(Priority::Interactive), Some(1));
        assert_eq!(queue.ahead_of(Priority::Batch), Some(3));
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn a_full_queue_takes_nobody() {
        let mut queue = Queue::new(1);
        queue.push(Priority::Batch, ());
        assert_eq!(queue.ahead_of(Priority::Interactive), None);
    }
}
