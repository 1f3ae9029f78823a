//! A value for each step that was used recently.
//!
//! Bounded, however many steps there are: the least recently used step is evicted. Reads no clock.

use std::collections::BTreeMap;

/// Maximum number of steps, unless another is set.
pub(in crate::provider) const MAX_STEPS: usize = 256;

/// The values of at most `MAX` steps; `K` identifies a step.
#[derive(Debug)]
pub(in crate::provider) struct RecentSteps<K, V, const MAX: usize = MAX_STEPS> {
    steps: BTreeMap<K, Entry<V>>,
    /// Uses so far; serves as the time of the last use of a step.
    uses: u64,
}

#[derive(Debug, Default)]
struct Entry<V> {
    value: V,
    last_used: u64,
}

impl<K, V, const MAX: usize> Default for RecentSteps<K, V, MAX> {
    fn default() -> Self {
        Self { steps: BTreeMap::new(), uses: 0 }
    }
}

impl<K: Clone + Ord, V: Default, const MAX: usize> RecentSteps<K, V, MAX> {
    /// Returns the value of a step that is being used. A new step begins with the default.
    pub(in crate::provider) fn use_step(&mut self, step: K) -> &mut V {
        if self.steps.len() >= MAX && !self.steps.contains_key(&step) {
            let least_recent = self.steps.iter().min_by_key(|(_, entry)| entry.last_used);
            let least_recent = least_recent.map(|(step, _)| step.clone());
            least_recent.and_then(|least_recent| self.steps.remove(&least_recent));
        }
        self.uses += 1;
        let entry = self.steps.entry(step).or_default();
        entry.last_used = self.uses;
        &mut entry.value
    }

    /// Returns the value of a step; `None` if it was not used recently.
    pub(in crate::provider) fn get(&self, step: &K) -> Option<&V> {
        self.steps.get(step).map(|entry| &entry.value)
    }

    pub(in crate::provider) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    #[cfg(test)]
    pub(in crate::provider) fn len(&self) -> usize {
        self.steps.len()
    }
}
