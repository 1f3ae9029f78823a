//! Restores the token statistics of earlier sessions of a run: the output tokens of each step.
//!
//! Without them the first calls of a session would reserve the default for unknown answers. A run with little left
//! under its cap would pause although thousands of its answers show that they cost less.

use std::collections::BTreeMap;

use crate::provider::State;
use crate::store::{self, ItemNumber, RunNumber, Store, StoredItem};
use crate::types::{Outcome, ScopeName, StepName, TargetName};

use super::pointsman::Pointsman;

/// How many of the latest items are read.
const MAX_ITEMS_READ: u32 = 200;

type OutputTokens = BTreeMap<(TargetName, StepName), Vec<u64>>;

impl Pointsman {
    /// Gives the providers the output tokens of the latest answers of a run of this scope; `last` is its last item.
    pub(super) async fn restore_token_stats(
        &self,
        store: &dyn Store,
        run: RunNumber,
        scope: &ScopeName,
        last: ItemNumber,
    ) -> Result<(), store::Error> {
        if last == ItemNumber(0) {
            return Ok(());
        }
        let after = ItemNumber(last.0.saturating_sub(i64::from(MAX_ITEMS_READ)));
        let answers = output_tokens(&store.items(run, after, MAX_ITEMS_READ).await?);
        let providers = &self.current().providers;
        for ((target, step), written) in answers {
            if let Some(provider) = providers.get(&target.provider) {
                State::restore_token_stats(provider, &target.model, scope, &step, written);
            }
        }
        Ok(())
    }
}

/// Returns the output tokens of every answer, by target and step.
fn output_tokens(items: &[StoredItem]) -> OutputTokens {
    let mut answers = OutputTokens::new();
    for record in items.iter().flat_map(|item| &item.steps).map(|known| &known.record) {
        let answered = record.attempts.0.iter().filter(|attempt| attempt.outcome == Outcome::Answered);
        for attempt in answered {
            let Some(usage) = attempt.usage else { continue };
            let of = (attempt.target.clone(), record.step.clone());
            answers.entry(of).or_default().push(usage.output.0);
        }
    }
    answers
}
