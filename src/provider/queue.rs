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

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.bound
    }

    /// Returns how many would go before one that came now.
    pub(super) fn ahead_of(&self, priority: Priority) -> usize {
        match priority {
            Priority::Interactive => self.interactive.len(),
            Priority::Batch => self.len(),
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

    /// Takes out everything that is not worth keeping, in order.
    pub(super) fn take_unless(&mut self, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for queue in [&mut self.interactive, &mut self.batch] {
            // Mostly there is nothing to take, and looking moves nothing.
            if queue.iter().all(&keep) {
                continue;
            }
            let (kept, gone): (Vec<T>, Vec<T>) = std::mem::take(queue).into_iter().partition(&keep);
            *queue = kept.into();
            taken.extend(gone);
        }
        taken
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
        assert_eq!((queue.ahead_of(Priority::Interactive), queue.ahead_of(Priority::Batch)), (1, 3));
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [3, 1, 2]);
    }

    #[test]
    fn a_queue_is_full_at_its_bound() {
        let mut queue = Queue::new(1);
        assert!(!queue.is_full());
        queue.push(Priority::Batch, ());
        assert!(queue.is_full());
    }

    #[test]
    fn what_is_taken_out_leaves_the_others_in_their_order() {
        let mut queue = Queue::new(10);
        for number in 0..6 {
            queue.push(if number < 3 { Priority::Batch } else { Priority::Interactive }, number);
        }
        assert_eq!(queue.take_unless(|number| number % 2 == 0), [3, 5, 1]);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [4, 0, 2]);
    }
}
