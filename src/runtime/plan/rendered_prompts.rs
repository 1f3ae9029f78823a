//! Estimates a run without a sample: prompts are rendered for some items, with simulated answers of earlier steps.

use std::sync::Arc;

use serde_json::Value;

use crate::pipeline::{ItemState, Pipeline, Step};
use crate::provider;
use crate::types::{Price, ResponseFormat, RouteName, StepName};

use super::plan::{NoCalls, StepPlan};
use super::range::{self, PROMPT_ESTIMATE_ERROR, Range};

/// Output tokens of the answer to a choice.
const CHOICE_ANSWER_TOKENS: f64 = 5.0;

/// Output tokens of any other answer without `max_tokens`.
const ANSWER_TOKENS: Range = Range { low: 60.0, likely: 300.0, high: 1_500.0 };

/// Dimensions of a simulated embedding: as many as the largest models have.
const EMBEDDING_DIMENSIONS: usize = 3_072;

/// The prompts of some items.
#[derive(Debug)]
pub(super) struct RenderedPrompts {
    pipeline: Arc<Pipeline>,
    items: u64,
    /// For each step: the number of requests, and the tokens of their prompts.
    steps: Vec<(u64, u64)>,
    /// The failed step of the first failed item, and its error.
    failed: Option<(StepName, String)>,
}

impl RenderedPrompts {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        let steps = vec![(0, 0); pipeline.steps().len()];
        Self { pipeline, items: 0, steps, failed: None }
    }

    /// Returns why no item makes a request.
    pub(super) fn no_calls(&self) -> NoCalls {
        match &self.failed {
            Some((step, message)) => NoCalls::AllFail { step: step.clone(), message: message.clone() },
            None => NoCalls::AllSkipped,
        }
    }

    /// Takes an item through the pipeline. The answers of a choice rotate, so that a condition is true for its
    /// share of the items if all answers are equally likely.
    pub(super) fn add(&mut self, number: u64, item: &Value) {
        self.items += 1;
        let mut item_state = ItemState::new(self.pipeline.clone(), item);
        loop {
            let due = item_state.ready_steps();
            if due.is_empty() {
                break;
            }
            for request in due {
                let (requests, tokens) = &mut self.steps[request.step];
                *requests += 1;
                *tokens += provider::prompt_tokens(&request.prompt);
                let step = &self.pipeline.steps()[request.step];
                item_state.restore(request.step, simulated_answer(step, number));
            }
        }
        if self.failed.is_none() {
            let error = item_state.finish().error;
            self.failed = error.map(|(step, failure)| (step, failure.message.to_string()));
        }
    }

    /// Estimates a step of `items` items, at this price.
    pub(super) fn step(&self, step: usize, route: &RouteName, items: u64, price: Option<Price>) -> StepPlan {
        let (requests, tokens) = self.steps[step];
        let share = requests as f64 / self.items.max(1) as f64;
        let definition = &self.pipeline.steps()[step];
        let likely = items as f64 * share;
        let is_certain = share == 1.0;
        let calls =
            if is_certain { Range::exactly(likely) } else { Range { low: 0.0, likely, high: items as f64 } };
        let each = tokens as f64 / requests.max(1) as f64;
        let times = |one: Range| Range {
            low: one.low * calls.low,
            likely: one.likely * calls.likely,
            high: one.high * calls.high,
        };
        let input = times(PROMPT_ESTIMATE_ERROR * each);
        let output = times(answer_tokens(definition));
        let cost_usd = price.map(|price| range::cost(&price, input, output, calls));
        StepPlan {
            route: route.clone(),
            calls,
            input,
            output,
            cost_usd,
            estimated_at: None,
            cache: None,
            joined: None,
        }
    }
}

fn answer_tokens(step: &Step) -> Range {
    if step.embedding.is_some() {
        return Range::default();
    }
    let max_tokens = step.max_tokens.map_or(f64::MAX, f64::from);
    let guess = match step.response_format() {
        ResponseFormat::Choice(_) => {
            Range { low: 1.0, likely: CHOICE_ANSWER_TOKENS, high: 3.0 * CHOICE_ANSWER_TOKENS }
        }
        ResponseFormat::Text | ResponseFormat::Json(_) => ANSWER_TOKENS,
    };
    Range {
        low: guess.low.min(max_tokens),
        likely: guess.likely.min(max_tokens),
        high: guess.high.min(max_tokens),
    }
}

/// Returns a simulated answer, for the prompts of later steps.
pub(super) fn simulated_answer(step: &Step, number: u64) -> Value {
    if let Some(options) = step.embedding {
        let requested = options.dimensions.map(|dimensions| dimensions.get() as usize);
        let dimensions = requested.unwrap_or(EMBEDDING_DIMENSIONS).min(EMBEDDING_DIMENSIONS);
        return Value::Array(vec![Value::from(0.012_345_678); dimensions]);
    }
    match step.response_format() {
        ResponseFormat::Choice(choices) => {
            let place = number % choices.len().max(1) as u64;
            usize::try_from(place)
                .ok()
                .and_then(|place| choices.get(place))
                .cloned()
                .map_or(Value::Null, Value::String)
        }
        #[cfg(feature = "simulator")]
        ResponseFormat::Json(schema) => crate::simulator::example(&schema, number),
        // About as many tokens as the likely value of `ANSWER_TOKENS`.
        _ => Value::String("some words of an answer ".repeat(50)),
    }
}
