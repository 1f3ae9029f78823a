//! Remembers how often the same request came, so that its repetition draws anew.
//!
//! Two generations of bounded size: a request is forgotten only after tens of thousands of others came
//! without it. It never grows beyond that.

use std::collections::{HashMap, HashSet};

/// Requests in one generation.
const GENERATION: usize = 1 << 16;

/// How often each recent request came.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    current: HashMap<u64, u32>,
    previous: HashMap<u64, u32>,
}

impl Repeats {
    /// Counts a request and returns how often it came before.
    pub(super) fn count(&mut self, request: u64) -> u32 {
        if let Some(seen) = self.current.get_mut(&request) {
            *seen = seen.saturating_add(1);
            return *seen - 1;
        }
        if self.current.len() >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
        }
        let before = self.previous.remove(&request).unwrap_or(0);
        self.current.insert(request, before.saturating_add(1));
        before
    }
}

/// Which prompts were answered.
#[derive(Debug, Default)]
pub(super) struct Answered {
    once: HashSet<u64>,
    again: HashSet<u64>,
}

impl Answered {
    /// Notes that a prompt was answered.
    pub(super) fn note(&mut self, prompt: u64) {
        if !self.once.insert(prompt) {
            self.again.insert(prompt);
        }
    }

    /// Returns how many different prompts were answered.
    pub(super) fn distinct(&self) -> u64 {
        self.once.len() as u64
    }

    /// Returns how many of them were answered more than once.
    pub(super) fn repeated(&self) -> u64 {
        self.again.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_across_generations() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.count(1), 0);
        assert_eq!(repeats.count(1), 1);
        for other in 10..10 + GENERATION as u64 {
            repeats.count(other);
        }
        assert_eq!(repeats.count(1), 2);
        assert_eq!(repeats.count(1), 3);
    }

    #[test]
    fn a_million_requests_do_not_make_it_grow() {
        let mut repeats = Repeats::default();
        for request in 0..1_000_000 {
            repeats.count(request);
        }
        assert!(repeats.current.len() + repeats.previous.len() <= 2 * GENERATION);
    }
}
