//! Counts repeated requests, so that a repetition gets new random values, and repeated prompts.
//!
//! Requests are kept in two generations of at most 65,536 requests each. A request is removed only after a whole
//! generation without it.

use std::collections::{HashMap, HashSet};

/// Maximum number of requests in one generation.
const MAX_REQUESTS_PER_GENERATION: usize = 1 << 16;

/// Number of occurrences of each recent request.
#[derive(Debug, Default)]
pub(super) struct DuplicateCounter {
    current: HashMap<u64, u32>,
    previous: HashMap<u64, u32>,
}

impl DuplicateCounter {
    /// Counts a request and returns the number of its earlier occurrences.
    pub(super) fn count(&mut self, request: u64) -> u32 {
        if let Some(occurrences) = self.current.get_mut(&request) {
            *occurrences = occurrences.saturating_add(1);
            return *occurrences - 1;
        }
        if self.current.len() >= MAX_REQUESTS_PER_GENERATION {
            self.previous = std::mem::take(&mut self.current);
        }
        let before = self.previous.remove(&request).unwrap_or(0);
        self.current.insert(request, before.saturating_add(1));
        before
    }
}

/// Hashes of the answered prompts.
#[derive(Debug, Default)]
pub(super) struct AnsweredPrompts {
    seen: HashSet<u64>,
    repeated: HashSet<u64>,
}

impl AnsweredPrompts {
    /// Records an answered prompt.
    pub(super) fn record(&mut self, prompt: u64) {
        if !self.seen.insert(prompt) {
            self.repeated.insert(prompt);
        }
    }

    /// Returns the number of distinct answered prompts.
    pub(super) fn distinct(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Returns the number of prompts that were answered more than once.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_across_generations() {
        let mut duplicates = DuplicateCounter::default();
        assert_eq!(duplicates.count(1), 0);
        assert_eq!(duplicates.count(1), 1);
        for other in 10..10 + MAX_REQUESTS_PER_GENERATION as u64 {
            duplicates.count(other);
        }
        assert_eq!(duplicates.count(1), 2);
        assert_eq!(duplicates.count(1), 3);
    }

    #[test]
    fn the_counter_is_bounded() {
        let mut duplicates = DuplicateCounter::default();
        for request in 0..1_000_000 {
            duplicates.count(request);
        }
        assert!(duplicates.current.len() + duplicates.previous.len() <= 2 * MAX_REQUESTS_PER_GENERATION);
    }
}
