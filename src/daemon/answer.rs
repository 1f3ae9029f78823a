//! The answer to a request as JSON.

use serde::Serialize;
use serde_json::Value;

use crate::types::{Attempt, Class, Completion, FinishReason, Part, Response, Usage};

use super::item_view::AttemptView;
use super::message_json::part_json;

/// The answer to a request.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Answer {
    /// The text.
    pub text: String,
    /// All parts: texts, tool calls and reasoning. They can be sent back in a message of the role `assistant`.
    #[cfg_attr(feature = "server", schema(value_type = Vec<Object>))]
    pub parts: Vec<Value>,
    /// Why the model stopped: `stop`, `length` or `tool_calls`.
    #[cfg_attr(feature = "server", schema(value_type = String))]
    pub finish_reason: FinishReason,
    /// The tokens used by the attempt that answered; null if the provider did not report them.
    #[cfg_attr(feature = "server", schema(value_type = Option<Object>))]
    pub usage: Option<Usage>,
    /// The cost in US dollars of the attempt that answered; null if the price or the usage is unknown.
    pub cost_usd: Option<f64>,
    /// The target that answered, `provider/model`.
    pub target: String,
    /// The model that answered, as the provider names it; empty if it did not.
    pub model: String,
    /// The provider's ID of the request.
    pub provider_request_id: Option<String>,
    /// Whether a simulated provider answered: its text is generated.
    pub simulated: bool,
    /// All attempts, the successful one last.
    pub attempts: Vec<AttemptView>,
}

impl Answer {
    /// Returns the JSON form of a response.
    pub fn of(response: Response) -> Self {
        let Response { completion, target, simulated, cost, attempts, resends: _ } = response;
        let parts = parts_of(&completion);
        let Completion { text, parts: _, embeddings: _, finish_reason, usage, model, request_id } =
            completion;
        Self {
            text,
            parts,
            finish_reason,
            usage,
            cost_usd: cost.map(|cost| cost.dollars()),
            target: target.to_string(),
            model,
            provider_request_id: request_id,
            simulated,
            attempts: attempts.0.iter().map(attempt_of_caller).collect(),
        }
    }
}

fn parts_of(completion: &Completion) -> Vec<Value> {
    if completion.parts.is_empty() && !completion.text.is_empty() {
        return vec![part_json(&Part::text(completion.text.as_str()))];
    }
    completion.parts.iter().map(part_json).collect()
}

/// Returns an attempt without what concerns only the operator: the label of its key, and what a provider says of the
/// account.
fn attempt_of_caller(attempt: &Attempt) -> AttemptView {
    let mut view = AttemptView::of(attempt);
    view.key = None;
    if let Some(error) = view.error.as_mut().filter(|error| is_of_account(error.class)) {
        error.message = "the provider refused the account".to_owned();
        error.text = None;
    }
    view
}

fn is_of_account(class: Class) -> bool {
    matches!(class, Class::Auth | Class::Quota)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{Failure, Outcome};

    #[test]
    fn an_answer_shows_nothing_of_the_account() {
        let text = r#"{"target":"p/m","key":"env:KEY","queue_time":{"secs":1,"nanos":0},
            "duration":{"secs":0,"nanos":500000000},"outcome":"answered"}"#;
        let mut attempt: Attempt = serde_json::from_str(text).unwrap();
        attempt.queue_time = Duration::from_secs(1);
        attempt.outcome =
            Outcome::Failed(Box::new(Failure::new(Class::Quota, "organization org-1 has no credit")));
        let shown = serde_json::to_string(&attempt_of_caller(&attempt)).unwrap();
        assert!(
            !shown.contains("org-1") && !shown.contains("env:KEY") && shown.contains("\"quota\""),
            "{shown}"
        );
    }

    #[test]
    fn a_text_is_a_part_as_well() {
        let mut completion = Completion::new("Bern.");
        assert_eq!(parts_of(&completion), [serde_json::json!({ "type": "text", "text": "Bern." })]);
        completion.text.clear();
        assert!(parts_of(&completion).is_empty());
    }
}
