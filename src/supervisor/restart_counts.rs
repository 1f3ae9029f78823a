//! Counts of restarts by kind of child. They include children that are gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::telemetry::{Samples, table};

/// Maximum number of kinds. Children of further kinds count as [`OTHER`].
const MAX_KINDS: usize = 16;

/// The kind of children without a kind of their own.
const OTHER: &str = "other";

/// The restarts of all children after unexpected exits, by kind. The kind of `provider a` and of `run 7` is the first
/// word of their names, so that the number of kinds does not depend on the number of children.
#[derive(Debug, Default)]
pub struct RestartCounts(Mutex<BTreeMap<String, u64>>);

impl RestartCounts {
    /// Adds its values to `samples`.
    pub fn report_metrics(&self, samples: &mut Samples) {
        let counts = self.lock().clone();
        for (kind, count) in counts {
            samples.counter(&table::ACTOR_RESTARTS, &[&kind], count);
        }
    }

    /// Counts a restart of the child with this name.
    pub fn record_restart(&self, child: &str) {
        self.add(child, 1);
    }

    /// Notes the kind of a child without counting a restart, so that it is reported before its first restart.
    pub(super) fn add_child(&self, child: &str) {
        self.add(child, 0);
    }

    fn add(&self, child: &str, restarts: u64) {
        let mut counts = self.lock();
        let kind = kind_of(child);
        let is_known = counts.len() < MAX_KINDS || counts.contains_key(kind);
        let kind = if is_known { kind } else { OTHER };
        match counts.get_mut(kind) {
            Some(count) => *count += restarts,
            None => {
                counts.insert(kind.to_owned(), restarts);
            }
        }
    }

    /// A panic while the lock was held leaves only numbers, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the kind of a child: its name up to the first character that is no letter.
fn kind_of(child: &str) -> &str {
    let end = child.find(|letter: char| !letter.is_alphabetic()).unwrap_or(child.len());
    if end == 0 { OTHER } else { &child[..end] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &RestartCounts) -> Vec<(String, u64)> {
        counts.lock().clone().into_iter().collect()
    }

    #[test]
    fn the_kind_of_a_child_is_the_first_word_of_its_name() {
        for (name, kind) in [
            ("router", "router"),
            ("provider my-openai", "provider"),
            ("run 17", "run"),
            ("run17", "run"),
            ("pool/3", "pool"),
            ("7", "other"),
            ("", "other"),
        ] {
            assert_eq!(kind_of(name), kind, "{name:?}");
        }
    }

    #[test]
    fn restarts_of_children_that_are_gone_stay_counted() {
        let restarts = RestartCounts::default();
        restarts.add_child("router");
        restarts.add_child("run 1");
        restarts.record_restart("run 1");
        restarts.record_restart("run 2");
        restarts.add_child("run 3");
        assert_eq!(counts(&restarts), [("router".to_owned(), 0), ("run".to_owned(), 2)]);
    }

    #[test]
    fn the_number_of_kinds_is_bounded() {
        let restarts = RestartCounts::default();
        for letter in 'a'..='z' {
            restarts.record_restart(&letter.to_string());
        }
        restarts.record_restart("a");
        let counts = counts(&restarts);
        assert_eq!(counts.len(), MAX_KINDS + 1);
        assert_eq!(counts[0], ("a".to_owned(), 2));
        assert!(counts.contains(&(OTHER.to_owned(), 10)));
    }

    #[test]
    fn the_counts_are_reported_by_kind() {
        let restarts = RestartCounts::default();
        restarts.add_child("router");
        restarts.record_restart("provider a");
        let mut samples = Samples::default();
        restarts.report_metrics(&mut samples);
        let text = crate::telemetry::text_of(&samples);
        assert!(text.contains("pointsman_actor_restarts_total{actor=\"provider\"} 1\n"), "{text}");
        assert!(text.contains("pointsman_actor_restarts_total{actor=\"router\"} 0\n"), "{text}");
    }
}
