//! Processing of items: requests, responses, retries and outcomes.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::types::{Class, Failure, ItemStatus, Part, Prompt, Role};

use super::super::{AnswerCheck, Attachment, ItemOutcome, ItemState, Pipeline, StepOutcome, StepRequest};
use super::pipeline;

fn text(request: &StepRequest) -> &str {
    let Some(Part::Text(text)) = request.prompt.messages[0].parts.last() else { panic!("no text") };
    text
}

fn indices(requests: &[StepRequest]) -> Vec<usize> {
    requests.iter().map(|request| request.step).collect()
}

fn new_item(pipeline: &Arc<Pipeline>, item: Value) -> ItemState {
    ItemState::new(pipeline.clone(), &item)
}

/// Returns the answer of each step, by its name.
fn answers(outcome: &ItemOutcome) -> Map<String, Value> {
    outcome.steps.iter().map(|step| (step.name.to_string(), step.answer.clone())).collect()
}

fn email() -> Arc<Pipeline> {
    pipeline(
        "name = 'email'\n[defaults]\nsystem = 'You help {{ item.owner | default(\"us\") }}.'\n\
        [[step]]\nname = 'category'\nprompt = '{{ item.content }}'\nchoice = ['URGENT', 'MARKETING']\nmax_validation_retries = 1\n\
        [[step]]\nname = 'tasks'\nprompt = 'Tasks: {{ item.content }}'\nschema = { type = 'array' }\noptional = true\n\
        [[step]]\nname = 'reply'\nwhen = \"category != 'MARKETING'\"\nprompt = 'Reply: {{ tasks | join(\", \") }}'\n\
        [[step]]\nname = 'send'\nprompt = 'Send {{ reply }}?'\nwhen = 'reply is not none'\n",
    )
}

#[test]
fn the_answer_of_a_step_with_embed_is_a_list_of_numbers() {
    let pipeline = pipeline(
        "name = 'search'\n[[step]]\nname = 'vector'\nembed = '{{ item.text }}'\ndimensions = 2\n\
        [[step]]\nname = 'note'\nprompt = '{{ vector | length }}: {{ vector | tojson }}'\n",
    );
    let mut item = new_item(&pipeline, json!({ "text": "low tide" }));
    assert_eq!(indices(&item.ready_steps()), [0]);
    assert_eq!(item.record_response(0, "[0.1,-2.5]"), AnswerCheck::Accepted);
    assert_eq!(text(&item.ready_steps()[0]).replace(' ', ""), "2:[0.1,-2.5]");
    assert_eq!(item.answer(0), Some(&json!([0.1, -2.5])));

    let mut item = new_item(&pipeline, json!({ "text": "low tide" }));
    item.ready_steps();
    let AnswerCheck::Failed(failure) = item.record_response(0, "[0.1]") else { panic!("it is refused") };
    assert_eq!(failure.class, Class::ValidationError);
    assert!(failure.message.contains("it has 1 dimensions instead of 2"), "{failure}");

    let mut item = new_item(&pipeline, json!({ "text": " " }));
    assert_eq!(item.ready_steps(), []);
    let (_, failure) = item.finish().error.unwrap();
    assert_eq!(failure.class, Class::TemplateError);
    assert!(failure.message.contains("the `embed` of step `vector`"), "{failure}");
    assert!(failure.message.contains("it is empty"), "{failure}");
}

#[test]
fn independent_steps_are_requested_together_and_dependent_steps_after_them() {
    let mut item = new_item(&email(), json!({ "content": "Help!" }));
    let requests = item.ready_steps();
    assert_eq!(indices(&requests), [0, 1]);
    assert_eq!((text(&requests[0]), requests[0].prompt.system.as_deref()), ("Help!", Some("You help us.")));
    assert_eq!(item.ready_steps(), []);
    assert_eq!(item.record_response(0, "urgent"), AnswerCheck::Accepted);
    assert_eq!(item.ready_steps(), []);
    assert_eq!(item.record_response(1, r#"["call", "write"]"#), AnswerCheck::Accepted);
    let requests = item.ready_steps();
    assert_eq!((indices(&requests), text(&requests[0])), (vec![2], "Reply: call, write"));
    assert_eq!(item.record_response(2, "Yes."), AnswerCheck::Accepted);
    assert_eq!(text(&item.ready_steps()[0]), "Send Yes.?");
    assert!(!item.is_finished());
    assert_eq!(item.record_response(3, "ok"), AnswerCheck::Accepted);
    assert!(item.is_finished());
    let outcome = item.finish();
    assert_eq!(outcome.status, ItemStatus::Completed);
    assert_eq!(
        Value::Object(answers(&outcome)).to_string(),
        r#"{"category":"URGENT","tasks":["call","write"],"reply":"Yes.","send":"ok"}"#
    );
}

#[test]
fn a_skipped_step_is_none_for_the_steps_that_need_it() {
    let mut item = new_item(&email(), json!({ "content": "Buy!" }));
    item.ready_steps();
    item.record_response(0, "MARKETING");
    item.record_response(1, "[]");
    assert_eq!(item.ready_steps(), []);
    let outcome = item.finish();
    assert_eq!(outcome.status, ItemStatus::Completed);
    let [_, _, reply, send] = &outcome.steps[..] else { panic!("not four steps") };
    assert_eq!([&reply.outcome, &send.outcome], [&StepOutcome::Skipped; 2]);
    assert_eq!((reply.name.as_str(), &reply.answer), ("reply", &Value::Null));
}

#[test]
fn an_optional_step_that_fails_is_none_and_the_item_continues() {
    let mut item = new_item(&email(), json!({ "content": "Help!" }));
    item.ready_steps();
    item.record_response(0, "URGENT");
    item.record_failure(1, Failure::new(Class::Timeout, "silent"));
    assert_eq!(text(&item.ready_steps()[0]), "Reply: ");
    item.record_response(2, "Yes.");
    item.ready_steps();
    item.record_response(3, "ok");
    let outcome = item.finish();
    assert_eq!((outcome.status, outcome.error), (ItemStatus::Completed, None));
    assert!(
        matches!(&outcome.steps[1].outcome, StepOutcome::Failed(failure) if failure.class == Class::Timeout)
    );
}

#[test]
fn a_failed_step_fails_its_item_and_answers_in_flight_are_kept() {
    let mut item = new_item(&email(), json!({ "content": "Help!" }));
    item.ready_steps();
    item.record_failure(0, Failure::new(Class::Auth, "no key"));
    assert_eq!(item.ready_steps(), []);
    assert!(!item.is_finished());
    assert_eq!(item.record_response(1, "[1]"), AnswerCheck::Accepted);
    assert!(item.is_finished());
    let outcome = item.finish();
    assert_eq!((outcome.status, &answers(&outcome)["tasks"]), (ItemStatus::Failed, &json!([1])));
    assert_eq!(outcome.error.unwrap().0.as_str(), "category");
    assert_eq!(outcome.steps[2].outcome, StepOutcome::Unfinished);
}

#[test]
fn an_invalid_response_is_retried_with_the_reason_and_then_fails_with_its_text() {
    let mut item = new_item(&email(), json!({ "content": "Help!" }));
    let first = item.ready_steps().remove(0).prompt;
    let AnswerCheck::Retry(retry) = item.record_response(0, "It depends.") else { panic!("no retry") };
    let roles: Vec<Role> = retry.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User]);
    assert_eq!((&retry.messages[0], &retry.system), (&first.messages[0], &first.system));
    let Part::Text(reason) = &retry.messages[2].parts[0] else { panic!("no text") };
    assert!(reason.contains("URGENT, MARKETING"), "{reason}");
    let AnswerCheck::Failed(failure) = item.record_response(0, "Still unsure.") else { panic!("not failed") };
    assert_eq!((failure.class, failure.text.as_deref()), (Class::ValidationError, Some("Still unsure.")));
    assert!(failure.message.contains("`category` was invalid 2 times"), "{failure}");
}

/// Returns the text of a prompt's last message.
fn last_text(prompt: &Prompt) -> &str {
    let Some(Part::Text(text)) = prompt.messages.last().and_then(|last| last.parts.last()) else {
        panic!("no text")
    };
    text
}

#[test]
fn a_retry_quotes_only_the_latest_invalid_response_and_a_long_one_by_its_beginning_and_end() {
    let choice = pipeline(
        "name = 'n'\n[[step]]\nname = 'a'\nprompt = 'p'\nchoice = ['yes', 'no']\nmax_validation_retries = 3\n",
    );
    let mut item = new_item(&choice, json!({}));
    item.ready_steps();
    let long = format!("It depends: {}. So yes or no.", "very much ".repeat(1_500_000));
    for response in [&long, "Neither.", &long] {
        let AnswerCheck::Retry(retry) = item.record_response(0, response) else { panic!("no retry") };
        let roles: Vec<Role> = retry.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::User]);
        assert!(retry.text_bytes() < 10_000, "{} bytes", retry.text_bytes());
        let Part::Text(quoted) = &retry.messages[1].parts[0] else { panic!("no text") };
        assert_eq!(response == "Neither.", &**quoted == "Neither.", "{quoted}");
        assert!(response == "Neither." || quoted.contains("bytes omitted"), "{quoted}");
        assert!(last_text(&retry).ends_with("Answer with exactly one of the choices and nothing else."));
    }
    // An empty response is not quoted, and the prompt contains no earlier response.
    let mut item = new_item(&choice, json!({}));
    item.ready_steps();
    for _ in 0..3 {
        let AnswerCheck::Retry(retry) = item.record_response(0, "") else { panic!("no retry") };
        assert_eq!((retry.messages.len(), retry.messages[0].parts.len()), (1, 2));
    }
}

#[test]
fn a_retry_whose_prompt_would_be_too_long_is_not_sent() {
    let limited = pipeline(
        "name = 'n'\n[defaults]\nmax_prompt_bytes = 300\n\
         [[step]]\nname = 'a'\nprompt = '{{ item.text }}'\nchoice = ['yes', 'no']\nmax_validation_retries = 2\n",
    );
    let mut item = new_item(&limited, json!({ "text": "x" }));
    item.ready_steps();
    assert!(matches!(item.record_response(0, "Neither."), AnswerCheck::Retry(_)));
    let AnswerCheck::Failed(failure) = item.record_response(0, &"maybe ".repeat(50)) else {
        panic!("not failed")
    };
    assert_eq!(failure.class, Class::ValidationError);
    for part in
        ["was invalid 2 times; the last time because", "yes, no", "was not repeated", "`max_prompt_bytes`"]
    {
        assert!(failure.message.contains(part), "{failure}");
    }
}

#[test]
fn an_empty_response_is_retried_without_an_empty_message() {
    let mut item = new_item(&email(), json!({ "content": "Help!" }));
    item.ready_steps();
    let AnswerCheck::Retry(retry) = item.record_response(0, " ") else { panic!("no retry") };
    assert_eq!((retry.messages.len(), retry.messages[0].parts.len()), (1, 2));
}

#[test]
fn an_item_that_lacks_a_field_fails_before_any_request() {
    let email = email();
    let mut item = new_item(&email, json!({ "subject": "no content" }));
    assert_eq!(item.ready_steps(), []);
    assert!(item.is_finished());
    let outcome = item.finish();
    let (step, failure) = outcome.error.unwrap();
    assert_eq!((step.as_str(), failure.class), ("category", Class::TemplateError));
    assert_eq!(
        &*failure.message,
        "the `prompt` of step `category` cannot be rendered: line 1: `item.content` is undefined; the item has \
         `subject`"
    );
    assert_eq!(new_item(&email, json!({ "content": "x" })).ready_steps().len(), 2);
}

#[test]
fn no_request_is_returned_if_another_ready_step_fails_to_render() {
    let both = pipeline(
        "name='x'\n[[step]]\nname='a'\nprompt='{{ item.a }}'\n[[step]]\nname='b'\nwhen='item.b.c.d > 1'\nprompt='p'\n",
    );
    let mut item = new_item(&both, json!({ "a": "fine", "b": {} }));
    assert_eq!(item.ready_steps(), []);
    let outcome = item.finish();
    assert_eq!(outcome.steps[0].outcome, StepOutcome::Unfinished);
    assert!(outcome.error.unwrap().1.message.starts_with("the `when` of step `b`"));
}

#[test]
fn an_item_whose_steps_are_all_skipped_is_skipped() {
    let never = pipeline("name='x'\n[[step]]\nname='a'\nprompt='p'\nwhen='item.go'\n");
    let mut item = new_item(&never, json!({ "go": false }));
    assert_eq!(item.ready_steps(), []);
    assert!(item.is_finished());
    assert_eq!(item.finish().status, ItemStatus::Skipped);
}

#[test]
fn an_empty_prompt_is_never_sent() {
    let mut item = new_item(&email(), json!({ "content": " \n" }));
    assert_eq!(item.ready_steps(), []);
    assert!(item.finish().error.unwrap().1.message.contains("it is empty"));
}

#[test]
fn a_retry_contains_the_attachments() {
    let photos = pipeline(
        "name='x'\n[[step]]\nname='a'\nprompt='What?'\nchoice=['cat','dog']\n\
        attach=['{{ item.photo }}', '{{ item.more | default(\"\") }}']\n",
    );
    let mut item = new_item(&photos, json!({ "photo": "cat.png" }));
    let request = item.ready_steps().remove(0);
    let [Attachment::File(file)] = &request.attachments[..] else { panic!("no file") };
    assert_eq!(file.path, std::path::Path::new("/pipelines/cat.png"));
    let complete = item.attach(0, vec![file.part(b"abc")]).unwrap();
    assert!(matches!(complete.messages[0].parts[..], [Part::Image(_), Part::Text(_)]));
    let AnswerCheck::Retry(retry) = item.record_response(0, "a bird") else { panic!("no retry") };
    assert_eq!(retry.messages[0], complete.messages[0]);
    let mut unsupported = new_item(&photos, json!({ "photo": "cat.exe" }));
    assert_eq!(unsupported.ready_steps(), []);
    assert_eq!(unsupported.finish().error.unwrap().1.class, Class::TemplateError);
}

#[test]
fn an_unexpected_response_or_failure_changes_nothing() {
    let mut item = new_item(&email(), json!({ "content": "Help!" }));
    item.ready_steps();
    item.record_response(0, "URGENT");
    for step in [0, 2, 99] {
        assert!(
            matches!(item.record_response(step, "again"), AnswerCheck::Failed(failure) if failure.class == Class::Internal)
        );
    }
    item.record_failure(0, Failure::new(Class::Timeout, "late"));
    item.record_failure(99, Failure::new(Class::Timeout, "late"));
    assert_eq!(item.attach(0, vec![]), None);
    assert_eq!(item.in_flight_steps().collect::<Vec<_>>(), [1]);
    assert_eq!(answers(&item.finish())["category"], "URGENT");
}

#[test]
fn an_unfinished_item_has_failed_as_cancelled() {
    let mut item = new_item(&email(), json!({ "content": "Help!" }));
    item.ready_steps();
    item.record_response(0, "URGENT");
    let outcome = item.finish();
    assert_eq!(outcome.status, ItemStatus::Failed);
    assert_eq!(outcome.error.unwrap().1.class, Class::Cancelled);
}

#[test]
fn a_step_needs_every_step_that_its_templates_reference() {
    for template in [
        "{{ category | default('OTHER') }}",
        "{% with category = category | default('OTHER') %}{{ category }}{% endwith %}",
        "{% set other = category | default('OTHER') %}{{ other }}",
        "{% set other %}{{ category | default('OTHER') }}{% endset %}{{ other }}",
        "{% set a, b = 1, category %}{{ b }}",
        "{% macro m(category=category) %}x{% endmacro %}{{ m() }}{{ category }}",
        "{% macro m() %}{{ category }}{% endmacro %}{{ m() }}",
        "{% for category in [category] %}{{ category }}{% endfor %}",
    ] {
        let two = format!(
            "name = 'two'\n[[step]]\nname = 'category'\nprompt = 'p'\n\
             [[step]]\nname = 'reply'\nprompt = \"\"\"Reply: {template}\"\"\"\n"
        );
        assert_eq!(pipeline(&two).needs(1), [0], "{template}");
    }
}

#[test]
fn comparing_the_missing_answer_of_an_optional_step_fails() {
    let mut item = new_item(
        &pipeline(
            "name = 'n'\n[[step]]\nname = 'score'\nprompt = 'p'\nschema = { type = 'number' }\noptional = true\n\
             [[step]]\nname = 'b'\nprompt = 'p'\nwhen = 'score < 5'\n",
        ),
        json!({}),
    );
    item.ready_steps();
    item.record_failure(0, Failure::new(Class::Timeout, "late"));
    assert!(item.ready_steps().is_empty());
    let Some((step, failure)) = item.finish().error else { panic!("it was evaluated") };
    assert_eq!((step.as_str(), failure.class), ("b", Class::TemplateError));
    assert!(failure.message.contains("test `is none` or `is not none` first"), "{failure:?}");
}

#[test]
fn none_attaches_nothing() {
    let mut item = new_item(
        &pipeline(
            "name = 'n'\n[[step]]\nname = 'a'\nprompt = 'p'\nattach = ['{{ item.photo }}', '{{ item.b }}']\n",
        ),
        json!({ "photo": null, "b": "b.png" }),
    );
    let requests = item.ready_steps();
    assert!(matches!(&requests[0].attachments[..], [Attachment::File(_)]), "{requests:?}");
}

#[test]
fn a_prompt_and_its_system_prompt_share_one_limit() {
    let attempt = |length: usize| {
        let input = json!({ "text": "x".repeat(length) });
        let limited = "name = 'n'\n[defaults]\nmax_prompt_bytes = 100\nsystem = '0123456789'\n\
             [[step]]\nname = 'a'\nprompt = '{{ item.text }}'\n";
        let mut item = new_item(&pipeline(limited), input);
        (item.ready_steps().len(), item.finish().error.map(|(_, failure)| failure.message))
    };
    assert_eq!(attempt(90).0, 1);
    let (requests, failure) = attempt(91);
    assert_eq!(requests, 0);
    assert!(failure.unwrap().contains("`max_prompt_bytes`"));
}
