//! Items on their way.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::types::{Class, Failure, ItemStatus, Part, Prompt, Role};

use super::super::{Ask, Attachment, Next, Pipeline, StepEnd, Walk};
use super::pipeline;

fn text(ask: &Ask) -> &str {
    let Some(Part::Text(text)) = ask.prompt.messages[0].parts.last() else { panic!("no text") };
    text
}

fn places(asks: &[Ask]) -> Vec<usize> {
    asks.iter().map(|ask| ask.step).collect()
}

fn start(pipeline: &Arc<Pipeline>, item: Value) -> Walk {
    Walk::new(pipeline.clone(), &item)
}

fn email() -> Arc<Pipeline> {
    pipeline(
        "name = 'email'\n[defaults]\nsystem = 'You help {{ item.owner | default(\"us\") }}.'\n\
        [[step]]\nname = 'category'\nprompt = '{{ item.content }}'\nchoice = ['URGENT', 'MARKETING']\nreasks = 1\n\
        [[step]]\nname = 'tasks'\nprompt = 'Tasks: {{ item.content }}'\nschema = { type = 'array' }\noptional = true\n\
        [[step]]\nname = 'reply'\nwhen = \"category != 'MARKETING'\"\nprompt = 'Reply: {{ tasks | join(\", \") }}'\n\
        [[step]]\nname = 'send'\nprompt = 'Send {{ reply }}?'\nwhen = 'reply is not none'\n",
    )
}

#[test]
fn independent_steps_go_together_and_dependent_ones_after() {
    let mut walk = start(&email(), json!({ "content": "Help!" }));
    let asks = walk.due();
    assert_eq!(places(&asks), [0, 1]);
    assert_eq!((text(&asks[0]), asks[0].prompt.system.as_deref()), ("Help!", Some("You help us.")));
    assert_eq!(walk.due(), []);
    assert_eq!(walk.answered(0, "urgent"), Next::Accepted);
    assert_eq!(walk.due(), []);
    assert_eq!(walk.answered(1, r#"["call", "write"]"#), Next::Accepted);
    let asks = walk.due();
    assert_eq!((places(&asks), text(&asks[0])), (vec![2], "Reply: call, write"));
    assert_eq!(walk.answered(2, "Yes."), Next::Accepted);
    assert_eq!(text(&walk.due()[0]), "Send Yes.?");
    assert!(!walk.is_settled());
    assert_eq!(walk.answered(3, "ok"), Next::Accepted);
    assert!(walk.is_settled());
    let settled = walk.settle();
    assert_eq!(settled.status, ItemStatus::Completed);
    assert_eq!(
        Value::Object(settled.answers).to_string(),
        r#"{"category":"URGENT","tasks":["call","write"],"reply":"Yes.","send":"ok"}"#
    );
}

#[test]
fn a_skipped_step_is_none_to_those_after_it() {
    let mut walk = start(&email(), json!({ "content": "Buy!" }));
    walk.due();
    walk.answered(0, "MARKETING");
    walk.answered(1, "[]");
    assert_eq!(walk.due(), []);
    let settled = walk.settle();
    assert_eq!(settled.status, ItemStatus::Completed);
    assert_eq!(settled.steps[2..], [StepEnd::Skipped, StepEnd::Skipped]);
    assert_eq!(settled.answers["reply"], Value::Null);
}

#[test]
fn an_optional_step_that_fails_is_none_and_the_item_goes_on() {
    let mut walk = start(&email(), json!({ "content": "Help!" }));
    walk.due();
    walk.answered(0, "URGENT");
    walk.failed(1, Failure::new(Class::Timeout, "silent"));
    assert_eq!(text(&walk.due()[0]), "Reply: ");
    walk.answered(2, "Yes.");
    walk.due();
    walk.answered(3, "ok");
    let settled = walk.settle();
    assert_eq!((settled.status, settled.error), (ItemStatus::Completed, None));
    assert!(matches!(&settled.steps[1], StepEnd::Failed(failure) if failure.class == Class::Timeout));
}

#[test]
fn a_failed_step_fails_its_item_but_answers_under_way_are_kept() {
    let mut walk = start(&email(), json!({ "content": "Help!" }));
    walk.due();
    walk.failed(0, Failure::new(Class::Auth, "no key"));
    assert_eq!(walk.due(), []);
    assert!(!walk.is_settled());
    assert_eq!(walk.answered(1, "[1]"), Next::Accepted);
    assert!(walk.is_settled());
    let settled = walk.settle();
    assert_eq!((settled.status, &settled.answers["tasks"]), (ItemStatus::Failed, &json!([1])));
    assert_eq!(settled.error.unwrap().0.as_str(), "category");
    assert_eq!(settled.steps[2], StepEnd::Unfinished);
}

#[test]
fn a_refused_answer_is_asked_again_with_the_reason_and_then_fails_with_its_text() {
    let mut walk = start(&email(), json!({ "content": "Help!" }));
    let first = walk.due().remove(0).prompt;
    let Next::Reask(again) = walk.answered(0, "It depends.") else { panic!("no re-ask") };
    let roles: Vec<Role> = again.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User]);
    assert_eq!((&again.messages[0], &again.system), (&first.messages[0], &first.system));
    let Part::Text(reason) = &again.messages[2].parts[0] else { panic!("no text") };
    assert!(reason.contains("URGENT, MARKETING"), "{reason}");
    let Next::Failed(failure) = walk.answered(0, "Still unsure.") else { panic!("not failed") };
    assert_eq!((failure.class, failure.text.as_deref()), (Class::ValidationError, Some("Still unsure.")));
    assert!(failure.message.contains("`category` was refused 2 times"), "{failure}");
}

/// Returns the text of a prompt's last message.
fn request(prompt: &Prompt) -> &str {
    let Some(Part::Text(text)) = prompt.messages.last().and_then(|last| last.parts.last()) else {
        panic!("no text")
    };
    text
}

#[test]
fn a_reask_quotes_only_the_latest_refused_answer_and_of_a_long_one_its_beginning_and_end() {
    let patient =
        pipeline("name = 'n'\n[[step]]\nname = 'a'\nprompt = 'p'\nchoice = ['yes', 'no']\nreasks = 3\n");
    let mut walk = start(&patient, json!({}));
    walk.due();
    let long = format!("It depends: {}. So yes or no.", "very much ".repeat(1_500_000));
    for said in [&long, "Neither.", &long] {
        let Next::Reask(again) = walk.answered(0, said) else { panic!("no re-ask") };
        let roles: Vec<Role> = again.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles, [Role::User, Role::Assistant, Role::User]);
        assert!(again.text_bytes() < 10_000, "{} bytes", again.text_bytes());
        let Part::Text(quoted) = &again.messages[1].parts[0] else { panic!("no text") };
        assert_eq!(said == "Neither.", &**quoted == "Neither.", "{quoted}");
        assert!(said == "Neither." || quoted.contains("bytes are left out here"), "{quoted}");
        assert!(request(&again).ends_with("Answer with exactly one of the choices and nothing else."));
    }
    // Of an empty answer nothing is quoted, and nothing is left of earlier ones.
    let mut walk = start(&patient, json!({}));
    walk.due();
    for _ in 0..3 {
        let Next::Reask(again) = walk.answered(0, "") else { panic!("no re-ask") };
        assert_eq!((again.messages.len(), again.messages[0].parts.len()), (1, 2));
    }
}

#[test]
fn a_reask_that_would_be_longer_than_a_prompt_may_be_is_not_sent() {
    let limited = pipeline(
        "name = 'n'\n[defaults]\nmax_prompt_bytes = 300\n\
         [[step]]\nname = 'a'\nprompt = '{{ item.text }}'\nchoice = ['yes', 'no']\nreasks = 2\n",
    );
    let mut walk = start(&limited, json!({ "text": "x" }));
    walk.due();
    assert!(matches!(walk.answered(0, "Neither."), Next::Reask(_)));
    let Next::Failed(failure) = walk.answered(0, &"maybe ".repeat(50)) else { panic!("not failed") };
    assert_eq!(failure.class, Class::ValidationError);
    for said in
        ["was refused 2 times; at last because", "yes, no", "not asked for again", "`max_prompt_bytes`"]
    {
        assert!(failure.message.contains(said), "{failure}");
    }
}

#[test]
fn an_empty_answer_is_asked_again_without_an_empty_turn() {
    let mut walk = start(&email(), json!({ "content": "Help!" }));
    walk.due();
    let Next::Reask(again) = walk.answered(0, " ") else { panic!("no re-ask") };
    assert_eq!((again.messages.len(), again.messages[0].parts.len()), (1, 2));
}

#[test]
fn an_item_that_lacks_a_field_fails_alone_and_before_anything_is_asked() {
    let email = email();
    let mut walk = start(&email, json!({ "subject": "no content" }));
    assert_eq!(walk.due(), []);
    assert!(walk.is_settled());
    let settled = walk.settle();
    let (step, failure) = settled.error.unwrap();
    assert_eq!((step.as_str(), failure.class), ("category", Class::TemplateError));
    assert_eq!(
        &*failure.message,
        "the `prompt` of step `category` cannot be filled: line 1: `item.content` is undefined"
    );
    assert_eq!(start(&email, json!({ "content": "x" })).due().len(), 2);
}

#[test]
fn nothing_is_sent_beside_a_step_that_cannot_be_written() {
    let both = pipeline(
        "name='x'\n[[step]]\nname='a'\nprompt='{{ item.a }}'\n[[step]]\nname='b'\nwhen='item.b.c.d > 1'\nprompt='p'\n",
    );
    let mut walk = start(&both, json!({ "a": "fine", "b": {} }));
    assert_eq!(walk.due(), []);
    let settled = walk.settle();
    assert_eq!(settled.steps[0], StepEnd::Unfinished);
    assert!(settled.error.unwrap().1.message.starts_with("the `when` of step `b`"));
}

#[test]
fn an_item_for_which_no_step_is_due_is_skipped() {
    let never = pipeline("name='x'\n[[step]]\nname='a'\nprompt='p'\nwhen='item.go'\n");
    let mut walk = start(&never, json!({ "go": false }));
    assert_eq!(walk.due(), []);
    assert!(walk.is_settled());
    assert_eq!(walk.settle().status, ItemStatus::Skipped);
}

#[test]
fn an_empty_prompt_is_never_sent() {
    let mut walk = start(&email(), json!({ "content": " \n" }));
    assert_eq!(walk.due(), []);
    assert!(walk.settle().error.unwrap().1.message.contains("comes out empty"));
}

#[test]
fn attachments_stay_with_the_question_when_it_is_asked_again() {
    let photos = pipeline(
        "name='x'\n[[step]]\nname='a'\nprompt='What?'\nchoice=['cat','dog']\n\
        attach=['{{ item.photo }}', '{{ item.more | default(\"\") }}']\n",
    );
    let mut walk = start(&photos, json!({ "photo": "cat.png" }));
    let ask = walk.due().remove(0);
    let [Attachment::File(file)] = &ask.attach[..] else { panic!("no file") };
    assert_eq!(file.path, std::path::Path::new("/pipelines/cat.png"));
    let whole = walk.attach(0, vec![file.part(b"abc")]).unwrap();
    assert!(matches!(whole.messages[0].parts[..], [Part::Image(_), Part::Text(_)]));
    let Next::Reask(again) = walk.answered(0, "a bird") else { panic!("no re-ask") };
    assert_eq!(again.messages[0], whole.messages[0]);
    let mut wrong = start(&photos, json!({ "photo": "cat.exe" }));
    assert_eq!(wrong.due(), []);
    assert_eq!(wrong.settle().error.unwrap().1.class, Class::TemplateError);
}

#[test]
fn a_stray_word_changes_nothing() {
    let mut walk = start(&email(), json!({ "content": "Help!" }));
    walk.due();
    walk.answered(0, "URGENT");
    for stray in [0, 2, 99] {
        assert!(
            matches!(walk.answered(stray, "again"), Next::Failed(failure) if failure.class == Class::Internal)
        );
    }
    walk.failed(0, Failure::new(Class::Timeout, "late"));
    walk.failed(99, Failure::new(Class::Timeout, "late"));
    assert_eq!(walk.attach(0, vec![]), None);
    assert_eq!(walk.asked().collect::<Vec<_>>(), [1]);
    assert_eq!(walk.settle().answers["category"], "URGENT");
}

#[test]
fn a_walk_that_is_cut_short_has_failed_as_cancelled() {
    let mut walk = start(&email(), json!({ "content": "Help!" }));
    walk.due();
    walk.answered(0, "URGENT");
    let settled = walk.settle();
    assert_eq!(settled.status, ItemStatus::Failed);
    assert_eq!(settled.error.unwrap().1.class, Class::Cancelled);
}

#[test]
fn a_step_waits_for_every_step_that_its_templates_name_wherever_they_name_it() {
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
fn an_optional_number_that_failed_satisfies_no_condition() {
    let mut walk = start(
        &pipeline(
            "name = 'n'\n[[step]]\nname = 'score'\nprompt = 'p'\nschema = { type = 'number' }\noptional = true\n\
             [[step]]\nname = 'b'\nprompt = 'p'\nwhen = 'score < 5'\n",
        ),
        json!({}),
    );
    walk.due();
    walk.failed(0, Failure::new(Class::Timeout, "late"));
    assert!(walk.due().is_empty());
    let Some((step, failure)) = walk.settle().error else { panic!("it decided") };
    assert_eq!((step.as_str(), failure.class), ("b", Class::TemplateError));
    assert!(failure.message.contains("ask `is none` or `is not none` first"), "{failure:?}");
}

#[test]
fn none_attaches_nothing() {
    let mut walk = start(
        &pipeline(
            "name = 'n'\n[[step]]\nname = 'a'\nprompt = 'p'\nattach = ['{{ item.photo }}', '{{ item.b }}']\n",
        ),
        json!({ "photo": null, "b": "b.png" }),
    );
    let asks = walk.due();
    assert!(matches!(&asks[0].attach[..], [Attachment::File(_)]), "{asks:?}");
}

#[test]
fn a_prompt_and_its_system_prompt_share_one_limit() {
    let text = |length: usize| {
        let item = json!({ "text": "x".repeat(length) });
        let limited = "name = 'n'\n[defaults]\nmax_prompt_bytes = 100\nsystem = '0123456789'\n\
             [[step]]\nname = 'a'\nprompt = '{{ item.text }}'\n";
        let mut walk = start(&pipeline(limited), item);
        (walk.due().len(), walk.settle().error.map(|(_, failure)| failure.message))
    };
    assert_eq!(text(90).0, 1);
    let (asked, failure) = text(91);
    assert_eq!(asked, 0);
    assert!(failure.unwrap().contains("`max_prompt_bytes`"));
}
