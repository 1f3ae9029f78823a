//! The lines of the output: the public format of results and rejects.
//!
//! Names and meanings of the fields are a promise to whoever reads the files. Plain data; nothing
//! here writes.

use std::time::Duration;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::types::{
    Attempt, Charged, Class, Failure, ItemKey, ItemStatus, KeyLabel, ModelName, NanoUsd, Outcome,
    ProviderName, StepName, Trail, Usage,
};

/// One settled item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The item's `id`, else the hash of its content.
    pub key: ItemKey,
    /// The line of the input on which the item begins, from 1.
    pub line: u64,
    /// How it ended.
    pub status: ItemStatus,
    /// Whether a played provider had a part in it, so that answers are made up.
    pub practice: bool,
    /// Every step's answer by the step's name: text, or JSON where the step has a schema; null when
    /// there is none, for which `steps` has the reason.
    pub answers: Map<String, Value>,
    /// Why the item failed; null unless it did.
    pub error: Option<LineError>,
    /// What each step took, by the step's name, in the pipeline's order.
    #[serde(serialize_with = "as_map")]
    pub steps: Vec<(StepName, StepLine)>,
    /// Tokens of all calls, as far as the providers told them.
    pub tokens: TokenCount,
    /// What all calls cost in US dollars; null when a price or a usage is unknown.
    #[serde(rename = "cost_usd", serialize_with = "as_dollars")]
    pub cost: Option<NanoUsd>,
    /// Seconds from the item's start until it settled.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub took: Duration,
    /// Calls that were made for it.
    pub attempts: u64,
}

impl Line {
    /// Makes a line whose totals are the sums over `steps`.
    pub fn new(
        key: ItemKey,
        line: u64,
        status: ItemStatus,
        took: Duration,
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
        let practice = each().any(|step| step.practice);
        let (answers, error) = (Map::new(), None);
        Self { key, line, status, practice, answers, error, steps, tokens, cost, took, attempts }
    }
}

/// Why an item or a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LineError {
    /// The class, such as `rate_limit`.
    pub class: Class,
    /// The step that failed; null when it was no step's doing.
    pub step: Option<StepName>,
    /// What happened, in the provider's words where there are any.
    pub message: String,
}

/// Tokens that were read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
pub enum StepStatus {
    /// With an answer that passed its check.
    Completed,
    /// Without one.
    Failed,
    /// It was not due: its condition was false.
    Skipped,
    /// It was not asked, or its answer was not waited for, because the item had failed.
    Unfinished,
}

/// What one step of one item took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepLine {
    /// How it ended.
    pub status: StepStatus,
    /// The provider that answered, or was asked last; null when none was asked.
    pub provider: Option<ProviderName>,
    /// Its model, by its name in the configuration; null when none was asked.
    pub model: Option<ModelName>,
    /// The label of the key that was used, such as `env:OPENAI_API_KEY`; never the key itself.
    pub key: Option<KeyLabel>,
    /// Whether a played provider answered, so that the answer is made up.
    pub practice: bool,
    /// Calls that were made, re-asks and failovers included.
    pub attempts: u64,
    /// Tokens of all its calls; null when a provider did not tell.
    pub tokens: Option<TokenCount>,
    /// What its calls cost in US dollars; null when that is not known for all of them.
    #[serde(rename = "cost_usd", serialize_with = "as_dollars")]
    pub cost: Option<NanoUsd>,
    /// Seconds its calls took, waiting for a permit included.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub took: Duration,
    /// Why it failed; null unless it did.
    pub error: Option<StepError>,
    /// What was unusual about its calls, each once; empty mostly.
    pub notes: Vec<String>,
}

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepError {
    /// The class, such as `rate_limit`.
    pub class: Class,
    /// What happened, in the provider's words where there are any.
    pub message: String,
}

impl StepLine {
    /// Makes the line of a step that was not due.
    pub fn skipped() -> Self {
        Self {
            status: StepStatus::Skipped,
            provider: None,
            model: None,
            key: None,
            practice: false,
            attempts: 0,
            tokens: Some(TokenCount::default()),
            cost: Some(NanoUsd(0)),
            took: Duration::ZERO,
            error: None,
            notes: Vec::new(),
        }
    }

    /// Makes the line of a step that was answered, by way of `trail`.
    pub fn completed(trail: &Trail, practice: bool) -> Self {
        Self { status: StepStatus::Completed, practice, ..Self::of(trail) }
    }

    /// Names the attempt that gave the answer.
    #[must_use]
    pub fn answered_by(mut self, attempt: &Attempt) -> Self {
        self.provider = Some(attempt.lane.provider.clone());
        self.model = Some(attempt.lane.model.clone());
        self.key.clone_from(&attempt.key);
        self
    }

    /// Makes the line of a step that failed with `failure`, by way of `trail`.
    pub fn failed(trail: &Trail, failure: &Failure, practice: bool) -> Self {
        let error = Some(StepError { class: failure.class, message: failure.message.to_string() });
        Self { status: StepStatus::Failed, practice, error, ..Self::of(trail) }
    }

    /// Makes the line of a step whose item failed before its answer came, by way of `trail` so far.
    pub fn unfinished(trail: &Trail) -> Self {
        Self { status: StepStatus::Unfinished, ..Self::of(trail) }
    }

    fn of(trail: &Trail) -> Self {
        let mut line = Self { attempts: trail.calls() as u64, ..Self::skipped() };
        for attempt in &trail.0 {
            line.took += attempt.waited + attempt.took;
            line.notes.extend(attempt.note().filter(|note| !line.notes.contains(note)));
            // What was refused before any work is free even when the provider does not say so; what has not left
            // is, anyhow.
            let free = match &attempt.outcome {
                Outcome::Refused(_) => true,
                Outcome::Failed(failure) | Outcome::Lost(failure) => failure.charged == Charged::No,
                Outcome::Answered | Outcome::Superseded | Outcome::BrokenOff => false,
            };
            let tokens = attempt.usage.map(TokenCount::from).or(free.then(TokenCount::default));
            let cost = attempt.cost.or((free && attempt.usage.is_none()).then_some(NanoUsd(0)));
            line.cost = line.cost.zip(cost).map(|(sum, more)| sum + more);
            line.tokens = line.tokens.zip(tokens).map(|(sum, more)| TokenCount {
                input: sum.input.saturating_add(more.input),
                output: sum.output.saturating_add(more.output),
            });
        }
        if let Some(last) = trail.0.last() {
            line.provider = Some(last.lane.provider.clone());
            line.model = Some(last.lane.model.clone());
            line.key = last.key.clone();
        }
        line
    }
}

/// One piece of the input that was no valid item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectLine {
    /// The line of the input on which it begins, from 1.
    pub line: u64,
    /// What is wrong with it, to be read after "line N".
    pub reason: String,
    /// Its key, when it got as far as having one; else null.
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

/// Returns seconds to the millisecond.
pub(super) fn seconds(took: Duration) -> f64 {
    took.as_millis() as f64 / 1e3
}
