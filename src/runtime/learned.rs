//! Restores what the earlier sessions of a run have learned: how long the answers of each step are.
//!
//! Without it the first calls of a session would reserve what is assumed of unknown answers, and a run with little left
//! under its cap would pause although thousands of its answers show that they cost less.

use std::collections::BTreeMap;

use crate::provider::State;
use crate::store::{self, ItemNumber, KnownItem, RunNumber, Store};
use crate::types::{LaneName, Outcome, StepName};

use super::pointsman::Pointsman;

/// The latest items that are read for it.
const ITEMS: u32 = 200;

type Answers = BTreeMap<(LaneName, StepName), Vec<u64>>;

impl Pointsman {
    /// Tells the providers how long the latest answers of a run were, of which `last` is the last item.
    pub(super) async fn restore_sizes(
        &self,
        store: &dyn Store,
        run: RunNumber,
        last: ItemNumber,
    ) -> Result<(), store::Error> {
        if last == ItemNumber(0) {
            return Ok(());
        }
        let after = ItemNumber(last.0.saturating_sub(i64::from(ITEMS)));
        let answers = answers(&store.items(run, after, ITEMS).await?);
        let (providers, ..) = self.parts();
        for ((target, step), written) in answers {
            if let Some(provider) = providers.get(&target.provider) {
                State::restore(provider, &target.model, &step, written);
            }
        }
        Ok(())
    }
}

/// Returns the tokens of every answer, by who gave it to which step.
fn answers(items: &[KnownItem]) -> Answers {
    let mut answers = Answers::new();
    for record in items.iter().flat_map(|item| &item.steps).map(|known| &known.record) {
        let answered = record.trail.0.iter().filter(|attempt| attempt.outcome == Outcome::Answered);
        for attempt in answered {
            let Some(usage) = attempt.usage else { continue };
            let of = (attempt.lane.clone(), record.step.clone());
            answers.entry(of).or_default().push(usage.output.0);
        }
    }
    answers
}
