//! Which waiting calls leave a provider that asked us to stay away for long.

use std::collections::HashMap;

use tokio::time::Instant;

use super::book::Book;
use super::lane::Lane;
use super::state::Waiting;
use crate::types::ModelName;

impl Book {
    /// Takes out what waits and could go elsewhere, of lanes that the provider has asked us to stay away from
    /// for long; says until when.
    pub(super) fn turn_away(&mut self, now: Instant) -> Vec<(Waiting, Instant)> {
        let held = |(model, lane): (&ModelName, &Lane)| Some((model.clone(), self.held_for_long(lane, now)?));
        let held: HashMap<ModelName, Instant> = self.lanes.iter().filter_map(held).collect();
        if held.is_empty() {
            return Vec::new();
        }
        let away =
            self.queue.take_unless(|waiting| waiting.call.stay || !held.contains_key(&waiting.call.model));
        away.into_iter()
            .filter_map(|waiting| Some((held.get(&waiting.call.model).copied()?, waiting)))
            .map(|(until, waiting)| (waiting, until))
            .collect()
    }
}
