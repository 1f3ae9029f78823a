//! Guesses a run from its prompts alone: rendered for some items, with answers that are made up.

use std::sync::Arc;

use serde_json::Value;

use crate::pipeline::{Pipeline, Step, Walk};
use crate::provider::{self, Model};
use crate::types::{Price, RouteName, Shape, StepName};

use super::range::{self, Range};
use super::{NoCalls, StepPlan};

/// Tokens of the answer to a choice.
const CHOICE: f64 = 5.0;

/// Tokens of any other answer, as few, as likely, and as many as it may have where nothing caps it.
const ANSWER: Range = Range { low: 60.0, likely: 300.0, high: 1_500.0 };

/// How far the estimate of a prompt may be off, before a provider has counted one.
const ESTIMATE: Range = Range { low: 0.8, likely: 1.0, high: 1.25 };

/// What a played provider costs.
const NOTHING: Price = Price { input: 0.0, output: 0.0, cached: None, cache_write: None, long: None };

/// Returns what a lane's tokens cost; `None` is not known.
pub(super) fn price(settings: &provider::Settings, model: &Model) -> Option<Price> {
    // One that has a price all the same rehearses it.
    model.price.or(settings.is_practice().then_some(NOTHING))
}

/// The prompts of some items.
#[derive(Debug)]
pub(super) struct Rendered {
    pipeline: Arc<Pipeline>,
    items: u64,
    /// For each step: the questions, and the tokens of their prompts.
    steps: Vec<(u64, u64)>,
    /// The step that failed the first item which failed, and why.
    failed: Option<(StepName, String)>,
}

impl Rendered {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        let steps = vec![(0, 0); pipeline.steps().len()];
        Self { pipeline, items: 0, steps, failed: None }
    }

    /// Says why no item asks anything.
    pub(super) fn no_calls(&self) -> NoCalls {
        match &self.failed {
            Some((step, message)) => NoCalls::AllFail { step: step.clone(), message: message.clone() },
            None => NoCalls::AllSkipped,
        }
    }

    /// Takes an item through the pipeline. Of a choice each answer comes in turn, so that conditions are true for
    /// their share of the items if all answers are alike.
    pub(super) fn add(&mut self, number: u64, item: &Value) {
        self.items += 1;
        let mut walk = Walk::new(self.pipeline.clone(), item);
        loop {
            let due = walk.due();
            if due.is_empty() {
                break;
            }
            for ask in due {
                let (questions, tokens) = &mut self.steps[ask.step];
                *questions += 1;
                *tokens += provider::prompt_tokens(&ask.prompt);
                let step = &self.pipeline.steps()[ask.step];
                walk.recalled(ask.step, made_up(step, number));
            }
        }
        if self.failed.is_none() {
            let error = walk.settle().error;
            self.failed = error.map(|(step, failure)| (step, failure.message.to_string()));
        }
    }

    /// Foretells a step of `items` items, at this price.
    pub(super) fn step(&self, step: usize, route: &RouteName, items: u64, price: Option<Price>) -> StepPlan {
        let (questions, tokens) = self.steps[step];
        let share = questions as f64 / self.items.max(1) as f64;
        let definition = &self.pipeline.steps()[step];
        let likely = items as f64 * share;
        let is_certain = share == 1.0;
        let calls =
            if is_certain { Range::exactly(likely) } else { Range { low: 0.0, likely, high: items as f64 } };
        let each = tokens as f64 / questions.max(1) as f64;
        let times = |one: Range| Range {
            low: one.low * calls.low,
            likely: one.likely * calls.likely,
            high: one.high * calls.high,
        };
        let (input, output) = (times(ESTIMATE * each), times(answer(definition)));
        let cost_usd = price.map(|price| range::cost(&price, input, output, calls));
        StepPlan { route: route.clone(), calls, input, output, cost_usd }
    }
}

fn answer(step: &Step) -> Range {
    let most = step.max_tokens.map_or(f64::MAX, f64::from);
    let guess = match step.shape() {
        Shape::Choice(_) => Range { low: 1.0, likely: CHOICE, high: 3.0 * CHOICE },
        Shape::Text | Shape::Json(_) => ANSWER,
    };
    Range { low: guess.low.min(most), likely: guess.likely.min(most), high: guess.high.min(most) }
}

/// Makes an answer up, for the prompts of the steps that need it.
fn made_up(step: &Step, number: u64) -> Value {
    match step.shape() {
        Shape::Choice(choices) => {
            let place = number % choices.len().max(1) as u64;
            usize::try_from(place)
                .ok()
                .and_then(|place| choices.get(place))
                .cloned()
                .map_or(Value::Null, Value::String)
        }
        #[cfg(feature = "server")]
        Shape::Json(schema) => crate::simulator::example(&schema, number),
        // About as many tokens as an answer is guessed to have.
        _ => Value::String("some words of an answer ".repeat(50)),
    }
}
