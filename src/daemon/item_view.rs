//! What the daemon shows of the items of a run: their fields, their answers and their attempt logs. Durations are in
//! seconds, money in US dollars.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::run::History;
use crate::store::{StepState, StoredItem, StoredStep};
use crate::types::{
    Attempt, Class, Failure, ItemKey, ItemStatus, KeyLabel, NanoUsd, Outcome, StepName, TargetName, Usage,
};

/// How far an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ItemState {
    /// It has not finished.
    Open,
    /// Every step whose condition was true has an answer.
    Completed,
    /// A required step failed.
    Failed,
    /// The condition of every step was false.
    Skipped,
}

impl ItemState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Open, Self::Completed, Self::Failed, Self::Skipped];

    /// Returns the name in JSON and in queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Returns the state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    pub(super) fn of(item: &StoredItem) -> Self {
        match item.outcome.as_ref().map(|outcome| outcome.status) {
            None => Self::Open,
            Some(ItemStatus::Completed) => Self::Completed,
            Some(ItemStatus::Failed) => Self::Failed,
            Some(ItemStatus::Skipped) => Self::Skipped,
        }
    }
}

/// A page of the items of a run.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct ItemPage {
    /// The items, in the order in which they started. There may be fewer than were asked for, even none.
    pub items: Vec<ItemView>,
    /// Where the next page begins; null for the last page.
    pub next_cursor: Option<String>,
}

/// An item of a run.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct ItemView {
    /// Its number in the run, in the order in which items started, from 1.
    pub number: i64,
    /// Its `id`, or else the hash of its content.
    #[schema(value_type = String)]
    pub key: ItemKey,
    /// The line of the input on which it begins, from 1.
    pub line: u64,
    /// How far it is.
    pub status: ItemState,
    /// Whether it finished before the pipeline changed: the next session processes it again if the change affects it.
    pub outdated: bool,
    /// Whether it was in the input when that was last read to its end.
    pub in_input: bool,
    /// Its fields; null if they are not stored.
    pub fields: Value,
    /// Why it failed.
    pub error: Option<FailureView>,
    /// How long it took from its start in the session in which it finished.
    pub duration_seconds: Option<f64>,
    /// What is stored of its steps, in the order of the sessions.
    pub steps: Vec<StepView>,
}

/// Why an item, a step or an attempt failed.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct FailureView {
    /// The class, such as `rate_limit`.
    #[schema(value_type = String)]
    pub class: Class,
    /// The step; null for an attempt.
    #[schema(value_type = Option<String>)]
    pub step: Option<StepName>,
    /// What happened, in the provider's words where there are any.
    pub message: String,
    /// The HTTP status, if it came with one.
    pub status: Option<u16>,
    /// What the model wrote, if a validation or a limit made that a failure.
    pub text: Option<String>,
}

/// A step of an item in one session.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct StepView {
    /// The step.
    #[schema(value_type = String)]
    pub step: StepName,
    /// The session, from 1.
    pub session: i64,
    /// `answered`, `failed`, `skipped`, or `open` while it has not ended.
    pub state: &'static str,
    /// Its answer; null if it has none.
    pub answer: Value,
    /// Why it failed.
    pub error: Option<FailureView>,
    /// Whether a simulated provider answered.
    pub simulated: bool,
    /// The earlier session whose answer was used again.
    pub restored_from: Option<i64>,
    /// All attempts of the session, the oldest first.
    pub attempts: Vec<AttemptView>,
}

/// One call to one target.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct AttemptView {
    /// The target, `provider/model`.
    #[schema(value_type = String)]
    pub target: TargetName,
    /// The label of the key; null if the call was not sent.
    #[schema(value_type = Option<String>)]
    pub key: Option<KeyLabel>,
    /// `answered`, `failed`, `refused`, `superseded`, `broken_off` or `lost`.
    pub outcome: &'static str,
    /// Why it failed or was lost.
    pub error: Option<FailureView>,
    /// Why it was not sent.
    pub refused: Option<String>,
    /// How long it waited until it was sent.
    pub queue_seconds: f64,
    /// How long it took after that.
    pub duration_seconds: f64,
    /// How long the first part of the answer took.
    pub first_token_seconds: Option<f64>,
    /// The tokens; null if the provider did not report them.
    #[schema(value_type = Option<Object>)]
    pub tokens: Option<Usage>,
    /// The cost; null if it is not known.
    pub cost_usd: Option<f64>,
    /// What may have been charged without a result.
    pub uncertain_cost_usd: f64,
    /// Whether it was sent although the breaker of its target was open.
    pub forced: bool,
    /// Whether it was sent in parallel to a slow call.
    pub hedged: bool,
    /// The reasoning of its answer, in a step with `keep_reasoning`.
    pub reasoning: Option<String>,
}

impl ItemView {
    /// Creates the view of an item of a run.
    pub(super) fn of(history: &History, item: &StoredItem) -> Self {
        let outcome = item.outcome.as_ref();
        let fields = item.head.input.as_deref().and_then(|input| serde_json::from_str(input).ok());
        Self {
            number: item.head.number.0,
            key: item.head.key.clone(),
            line: item.head.line,
            status: ItemState::of(item),
            outdated: history.is_outdated(item),
            in_input: history.is_in_input(item.head.number),
            fields: fields.unwrap_or(Value::Null),
            error: outcome
                .and_then(|outcome| outcome.error.as_ref())
                .map(|(step, failure)| FailureView::of(Some(step), failure)),
            duration_seconds: outcome.map(|outcome| outcome.duration.as_secs_f64()),
            steps: item.steps.iter().map(StepView::of).collect(),
        }
    }
}

impl FailureView {
    fn of(step: Option<&StepName>, failure: &Failure) -> Self {
        Self {
            class: failure.class,
            step: step.cloned(),
            message: failure.message.to_string(),
            status: failure.status,
            text: failure.text.as_deref().map(str::to_owned),
        }
    }
}

impl StepView {
    fn of(StoredStep { session, record, .. }: &StoredStep) -> Self {
        Self {
            step: record.step.clone(),
            session: *session,
            state: record.state.as_str(),
            answer: match record.state {
                StepState::Answered => record.answer.clone(),
                StepState::Failed | StepState::Skipped | StepState::Open => Value::Null,
            },
            error: record.failure.as_ref().map(|failure| FailureView::of(Some(&record.step), failure)),
            simulated: record.simulated,
            restored_from: record.restored_from,
            attempts: record.attempts.0.iter().map(AttemptView::of).collect(),
        }
    }
}

impl AttemptView {
    pub(super) fn of(attempt: &Attempt) -> Self {
        let (outcome, error, refused) = match &attempt.outcome {
            Outcome::Answered => ("answered", None, None),
            Outcome::Failed(failure) => ("failed", Some(&**failure), None),
            Outcome::Refused(reason) => ("refused", None, Some(reason.to_string())),
            Outcome::Superseded => ("superseded", None, None),
            Outcome::BrokenOff => ("broken_off", None, None),
            Outcome::Lost(failure) => ("lost", Some(&**failure), None),
        };
        Self {
            target: attempt.target.clone(),
            key: attempt.key.clone(),
            outcome,
            error: error.map(|failure| FailureView::of(None, failure)),
            refused,
            queue_seconds: attempt.queue_time.as_secs_f64(),
            duration_seconds: attempt.duration.as_secs_f64(),
            first_token_seconds: attempt.first_token.as_ref().map(Duration::as_secs_f64),
            tokens: attempt.usage,
            cost_usd: attempt.cost.map(NanoUsd::dollars),
            uncertain_cost_usd: attempt.uncertain_cost.dollars(),
            forced: attempt.forced,
            hedged: attempt.hedged,
            reasoning: attempt.reasoning.as_deref().map(str::to_owned),
        }
    }
}
