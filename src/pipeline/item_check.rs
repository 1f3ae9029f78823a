//! Renders the templates of an item without sending anything, to find what the item lacks before it costs money.
//!
//! Steps that need answers are rendered with placeholders. Pure.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::definition::{Pipeline, Step};
use super::meter::Allowance;
use super::step_request::{DecisionError, StepDecision, StepRequest};
use super::template::Scope;

/// Most missing fields that are found in one step of one item.
const MAX_MISSING_FIELDS: usize = 20;

/// The result of rendering one step of an item.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedStep {
    /// The step's index in the pipeline.
    pub step: usize,
    /// What would happen.
    pub check: StepCheck,
}

/// What a step would do for an item.
#[derive(Debug, Clone, PartialEq)]
pub enum StepCheck {
    /// It would send this request.
    Request(StepRequest),
    /// Its condition is false.
    Skipped,
    /// It would fail for each of these reasons.
    Failed(Vec<TemplateFault>),
}

/// Why a template of a step cannot be rendered for an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    /// The path of the value that does not exist, such as `item.sender.name`; `None` for another reason.
    pub undefined: Option<String>,
    /// The reason, with the step, the template and its line.
    pub message: String,
}

impl Pipeline {
    /// Renders every step for an item, each once the steps that it needs have their placeholder from `answer`. A field
    /// that is missing is reported once, at the first step that uses it, and then replaced so that more are found.
    #[doc(hidden)]
    pub fn check_item(&self, item: &Value, answer: impl Fn(&Step) -> Value) -> Vec<CheckedStep> {
        let mut checked = Vec::with_capacity(self.steps.len());
        let mut answers: Vec<(usize, Value)> = Vec::new();
        let item = Arc::new(item.clone());
        let mut completed_item = item.clone();
        let mut missing: Vec<String> = Vec::new();
        let mut scope = self.scope_with((&completed_item, &item), &answers);
        for index in self.graph.order().iter().copied() {
            let Some(step) = self.steps.get(index) else { continue };
            let mut faults: Vec<TemplateFault> = Vec::new();
            let mut additions = 0;
            let decision = loop {
                let view = scope.view(self.graph.needs(index));
                match self.decide(index, step, &view, Allowance::MAX) {
                    Ok(decision) => break Some(decision),
                    Err(DecisionError::Undefined { path, failure }) => {
                        let is_within = |missing: &String| {
                            path.strip_prefix(missing.as_str()).is_some_and(|rest| rest.starts_with('.'))
                        };
                        // A field of a missing field is no fault of its own.
                        if !missing.iter().any(is_within) {
                            faults.push(TemplateFault {
                                undefined: Some(path.clone()),
                                message: failure.message.to_string(),
                            });
                        }
                        additions += 1;
                        if additions >= MAX_MISSING_FIELDS || !add_field(&mut completed_item, &path) {
                            break None;
                        }
                        missing.push(path);
                        scope = self.scope_with((&completed_item, &item), &answers);
                    }
                    Err(DecisionError::Failed(failure)) => {
                        // A replaced field may be the reason for a failure that follows it.
                        if missing.is_empty() && faults.is_empty() {
                            let message = failure.message.to_string();
                            faults.push(TemplateFault { undefined: None, message });
                        }
                        break None;
                    }
                    // Not with the largest allowance, unless the work was cancelled.
                    Err(DecisionError::AllowanceExceeded) => break None,
                }
            };
            let value = match &decision {
                Some(StepDecision::Skip) => Value::Null,
                Some(StepDecision::Request(_)) | None => answer(step),
            };
            if self.graph.is_needed(index) {
                scope.set_answer(index, &value);
                answers.push((index, value));
            }
            let check = match decision {
                _ if !faults.is_empty() => StepCheck::Failed(faults),
                Some(StepDecision::Request(request)) => StepCheck::Request(request),
                Some(StepDecision::Skip) | None => StepCheck::Skipped,
            };
            checked.push(CheckedStep { step: index, check });
        }
        checked
    }

    /// Returns the variables of an item whose steps have these answers. Errors name the fields of `original`.
    fn scope_with(
        &self,
        (item, original): (&Arc<Value>, &Arc<Value>),
        answers: &[(usize, Value)],
    ) -> Arc<Scope> {
        let scope = Scope::new(self.names.clone(), item.clone());
        let scope = Arc::new(scope.with_original(original.clone()));
        answers.iter().for_each(|(step, answer)| scope.set_answer(*step, answer));
        scope
    }
}

/// The value of a missing field.
const PLACEHOLDER: &str = "placeholder";

/// Adds a placeholder at a path such as `item.sender.name`. Returns whether it was added: it is not if the path does not
/// begin at the item, or if a part of it is not a map.
fn add_field(item: &mut Arc<Value>, path: &str) -> bool {
    let mut names = path.split('.');
    if names.next() != Some("item") {
        return false;
    }
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    let mut names = names.peekable();
    let mut place = Arc::make_mut(item);
    while let Some(name) = names.next() {
        if place.as_str() == Some(PLACEHOLDER) {
            *place = Value::Object(Map::new());
        }
        let Some(fields) = place.as_object_mut().filter(|_| is_name(name)) else { return false };
        if names.peek().is_none() {
            let is_new = !fields.contains_key(name);
            fields.insert(name.to_owned(), Value::String(PLACEHOLDER.to_owned()));
            return is_new;
        }
        place = fields.entry(name).or_insert_with(|| Value::Object(Map::new()));
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::pipeline::Defaults;
    use crate::types::Message;

    fn check(pipeline: &str, item: &Value) -> Vec<CheckedStep> {
        let routes = ["default".into()];
        let defaults = Defaults { route: Some("default".into()), ..Defaults::default() };
        let pipeline =
            Pipeline::parse("p.toml", pipeline, Path::new("/pipelines"), &defaults, &routes).unwrap();
        pipeline.check_item(item, |_| Value::from("an answer"))
    }

    fn missing(checked: &CheckedStep) -> Vec<&str> {
        match &checked.check {
            StepCheck::Failed(faults) => {
                faults.iter().filter_map(|fault| fault.undefined.as_deref()).collect()
            }
            StepCheck::Request(_) | StepCheck::Skipped => Vec::new(),
        }
    }

    #[test]
    fn every_missing_field_is_found_at_once() {
        let pipeline = "name = \"p\"\n[[step]]\nname = \"a\"\nsystem = \"{{ item.role }}\"\n\
                        prompt = \"{{ item.txt }} {{ item.sender.name }} {{ item.nick | default('-') }}\"\n\
                        [[step]]\nname = \"b\"\nprompt = \"{{ a }} {{ item.txt }} {{ item.date }}\"\n";
        let checked = check(pipeline, &json!({ "text": "x", "sender": {} }));
        assert_eq!(missing(&checked[0]), ["item.txt", "item.sender.name", "item.role"]);
        let StepCheck::Failed(faults) = &checked[0].check else { panic!("{checked:?}") };
        assert!(faults[0].message.ends_with("did you mean `text`?"), "{}", faults[0].message);
        let has = "`item.role` is undefined; the item has `text`, `sender`";
        assert!(faults[2].message.ends_with(has), "{faults:?}");
        // A field of a missing field is not reported.
        let nested = "name = \"p\"\n[[step]]\nname = \"a\"\n\
                      prompt = \"{{ item.sender.name }} {{ item.sender.mail.host }} {{ item.txt }}\"\n";
        assert_eq!(missing(&check(nested, &json!({}))[0]), ["item.sender", "item.txt"]);
        // A field is reported at the first step that uses it.
        assert_eq!(missing(&checked[1]), ["item.date"]);
    }

    #[test]
    fn a_step_that_needs_an_answer_is_rendered_with_a_placeholder() {
        let pipeline = "name = \"p\"\n[[step]]\nname = \"a\"\nprompt = \"{{ item.text }}\"\n\
                        [[step]]\nname = \"b\"\nprompt = \"about {{ a }}\"\n\
                        [[step]]\nname = \"c\"\nwhen = \"item.text == 'other'\"\nprompt = \"x\"\n";
        let checked = check(pipeline, &json!({ "text": "x" }));
        let StepCheck::Request(request) = &checked[1].check else { panic!("{checked:?}") };
        assert_eq!(request.prompt.messages, [Message::user("about an answer")]);
        assert_eq!(checked[2].check, StepCheck::Skipped);
    }
}
