//! The lines of the output: the public format of results and rejects.
//!
//! The names and meanings of the fields are a compatibility promise to readers of the files. Plain data;
//! nothing here writes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::types::{
    Attempt, AttemptLog, Charged, Class, Failure, ItemKey, ItemStatus, KeyLabel, ModelName, NanoUsd, Outcome,
    ProviderName, StepName, Usage,
};

/// One finished item.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Line {
    /// The item's `id`, else the hash of its content.
    pub key: ItemKey,
    /// The line of the input on which the item begins, from 1.
    pub line: u64,
    /// How it ended.
    pub status: ItemStatus,
    /// Whether a simulated provider answered one of its requests, so that answers are simulated.
    pub simulated: bool,
    /// The answer of every step by the step's name: text, or JSON if the step has a schema. Null if there is
    /// none; `steps` has the reason.
    pub answers: Map<String, Value>,
    /// Why the item failed; null unless it failed.
    pub error: Option<LineError>,
    /// What each step used, by the step's name, in the pipeline's order.
    #[serde(serialize_with = "as_map")]
    pub steps: Vec<(StepName, StepLine)>,
    /// Tokens of all attempts, as far as the providers reported them.
    pub tokens: TokenCount,
    /// Cost of all attempts in US dollars; null if a price or a usage is unknown.
    #[serde(rename = "cost_usd", serialize_with = "as_dollars")]
    pub cost: Option<NanoUsd>,
    /// Seconds from the item's start until it finished.
    #[serde(rename = "duration_seconds", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Attempts that were made for it.
    pub attempts: u64,
    /// The fields of the item; left out if the output has no use for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Value>,
}

impl Line {
    /// Creates a line whose totals are the sums over `steps`.
    #[doc(hidden)]
    pub fn new(
        key: ItemKey,
        line: u64,
        status: ItemStatus,
        duration: Duration,
        steps: Vec<(StepName, StepLine)>,
    ) -> Self {
        let each = || steps.iter().map(|(_, step)| step);
        let known = || each().filter_map(|step| step.tokens);
        let tokens = TokenCount {
            input: known().map(|tokens| tokens.input).sum(),
            output: known().map(|tokens| tokens.output).sum(),
        };
        let cost = each().map(|step| step.cost).sum();
        let attempts = each().map(|step| step.attempts).sum();
        let simulated = each().any(|step| step.simulated);
        let answers = Map::new();
        let error = None;
        let item = None;
        Self { key, line, status, simulated, answers, error, steps, tokens, cost, duration, attempts, item }
    }
}

/// Why an item or a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LineError {
    /// The class, such as `rate_limit`.
    pub class: Class,
    /// The step that failed; null if the failure belongs to no step.
    pub step: Option<StepName>,
    /// What happened, in the provider's words where there are any.
    pub message: String,
}

/// Tokens that were read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TokenCount {
    /// Tokens that the model read.
    pub input: u64,
    /// Tokens that the model wrote.
    pub output: u64,
}

impl From<Usage> for TokenCount {
    fn from(usage: Usage) -> Self {
        Self { input: usage.input.0, output: usage.output.0 }
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepStatus {
    /// With an answer that passed validation.
    Completed,
    /// Without an answer.
    Failed,
    /// Its condition was false.
    Skipped,
    /// It was not requested, or its answer was not awaited, because the item had failed.
    Unfinished,
}

/// What one step of one item used.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StepLine {
    /// How it ended.
    pub status: StepStatus,
    /// The provider that answered, or that got the last attempt; null if there was no attempt.
    pub provider: Option<ProviderName>,
    /// Its model, by its name in the configuration; null if there was no attempt.
    pub model: Option<ModelName>,
    /// The label of the key that was used, such as `env:OPENAI_API_KEY`; never the key itself.
    pub key: Option<KeyLabel>,
    /// Whether a simulated provider answered, so that the answer is simulated.
    pub simulated: bool,
    /// Attempts that were made, including re-asks and failovers.
    pub attempts: u64,
    /// Tokens of all its attempts; null if a provider did not report them.
    pub tokens: Option<TokenCount>,
    /// Cost of its attempts in US dollars; null if it is not known for all of them.
    #[serde(rename = "cost_usd", serialize_with = "as_dollars")]
    pub cost: Option<NanoUsd>,
    /// Seconds that its attempts took, including the time in the queue.
    #[serde(rename = "duration_seconds", serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Why it failed; null unless it failed.
    pub error: Option<StepError>,
    /// Unusual facts about its attempts, each once; usually empty.
    pub notes: Vec<String>,
    /// The reasoning of the answer. Left out if the step has no `keep_reasoning`, or the provider showed none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Arc<str>>,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StepError {
    /// The class, such as `rate_limit`.
    pub class: Class,
    /// What happened, in the provider's words where there are any.
    pub message: String,
}

impl StepLine {
    /// Creates the line of a step whose condition was false.
    #[doc(hidden)]
    pub fn skipped() -> Self {
        Self {
            status: StepStatus::Skipped,
            provider: None,
            model: None,
            key: None,
            simulated: false,
            attempts: 0,
            tokens: Some(TokenCount::default()),
            cost: Some(NanoUsd(0)),
            duration: Duration::ZERO,
            error: None,
            notes: Vec::new(),
            reasoning: None,
        }
    }

    /// Creates the line of a step that was answered.
    #[doc(hidden)]
    pub fn completed(attempts: &AttemptLog, simulated: bool) -> Self {
        Self { status: StepStatus::Completed, simulated, ..Self::of(attempts) }
    }

    /// Sets the attempt that gave the answer, and its reasoning.
    #[must_use]
    #[doc(hidden)]
    pub fn answered_by(mut self, attempt: &Attempt) -> Self {
        self.provider = Some(attempt.target.provider.clone());
        self.model = Some(attempt.target.model.clone());
        self.key.clone_from(&attempt.key);
        self.reasoning.clone_from(&attempt.reasoning);
        self
    }

    /// Creates the line of a step that failed with `failure`.
    #[doc(hidden)]
    pub fn failed(attempts: &AttemptLog, failure: &Failure, simulated: bool) -> Self {
        let error = Some(StepError { class: failure.class, message: failure.message.to_string() });
        Self { status: StepStatus::Failed, simulated, error, ..Self::of(attempts) }
    }

    /// Creates the line of a step whose item failed before its answer arrived.
    #[doc(hidden)]
    pub fn unfinished(attempts: &AttemptLog) -> Self {
        Self { status: StepStatus::Unfinished, ..Self::of(attempts) }
    }

    fn of(attempts: &AttemptLog) -> Self {
        let mut line = Self { attempts: attempts.calls() as u64, ..Self::skipped() };
        for attempt in &attempts.0 {
            line.duration += attempt.queue_time + attempt.duration;
            line.notes.extend(attempt.note().filter(|note| !line.notes.contains(note)));
            // An attempt that was rejected before any work is free even if the provider does not report so. An
            // attempt that was not sent is free, too.
            let is_free = match &attempt.outcome {
                Outcome::Refused(_) => true,
                Outcome::Failed(failure) | Outcome::Lost(failure) => failure.charged == Charged::No,
                Outcome::Answered | Outcome::Superseded | Outcome::BrokenOff => false,
            };
            let tokens = attempt.usage.map(TokenCount::from).or(is_free.then(TokenCount::default));
            let cost = attempt.cost.or((is_free && attempt.usage.is_none()).then_some(NanoUsd(0)));
            line.cost = line.cost.zip(cost).map(|(sum, more)| sum + more);
            line.tokens = line.tokens.zip(tokens).map(|(sum, more)| TokenCount {
                input: sum.input.saturating_add(more.input),
                output: sum.output.saturating_add(more.output),
            });
        }
        if let Some(last) = attempts.0.last() {
            line.provider = Some(last.target.provider.clone());
            line.model = Some(last.target.model.clone());
            line.key = last.key.clone();
        }
        line
    }
}

/// One piece of the input that was not a valid item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RejectLine {
    /// The line of the input on which it begins, from 1.
    pub line: u64,
    /// What is wrong with it, to be read after "line N".
    pub reason: String,
    /// Its key, if it was determined; else null.
    pub key: Option<ItemKey>,
    /// The beginning of its text.
    pub text: String,
}

fn as_map<S: Serializer>(steps: &[(StepName, StepLine)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(steps.iter().map(|(name, step)| (name, step)))
}

fn as_dollars<S: Serializer>(cost: &Option<NanoUsd>, to: S) -> Result<S::Ok, S::Error> {
    cost.map(NanoUsd::dollars).serialize(to)
}

fn as_seconds<S: Serializer>(took: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(seconds(*took))
}

/// Returns seconds, rounded down to the millisecond.
pub(super) fn seconds(took: Duration) -> f64 {
    took.as_millis() as f64 / 1e3
}
