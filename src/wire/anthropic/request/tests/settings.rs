//! Tests of the settings of a request: sampling, tools, reasoning, and the fields of the vendor.

use super::*;
use crate::types::{FailureScope, ToolChoice, VendorFields};
use crate::wire::StreamSupport;

fn prompt() -> Prompt {
    Prompt::text("Hi")
}

fn weather() -> Prompt {
    prompt().with_tool(Tool::new("weather", json!({ "type": "object" })))
}

fn dropping(parameter: DropParameter) -> Dialect {
    Dialect { drop_parameters: vec![parameter], ..Dialect::default() }
}

/// Returns a field of the body; `Null` if it is not sent.
fn field(prompt: &Prompt, name: &str) -> Value {
    body(prompt, &Dialect::default())[name].take()
}

fn vendor_tools() -> VendorFields {
    let fields = json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] });
    VendorFields::new(Format::Anthropic, fields.as_object().unwrap().clone())
}

#[test]
fn a_tool_choice_has_the_name_of_the_vendor() {
    let choice = |choice| field(&weather().with_tool_choice(choice), "tool_choice");
    assert_eq!(choice(ToolChoice::Auto), Value::Null);
    assert_eq!(choice(ToolChoice::None), json!({ "type": "none" }));
    assert_eq!(choice(ToolChoice::Required), json!({ "type": "any" }));
    assert_eq!(choice(ToolChoice::Tool("weather".into())), json!({ "type": "tool", "name": "weather" }));
}

#[test]
fn parallel_calls_are_disabled_in_the_tool_choice() {
    let single = |choice| weather().with_parallel_tool_calls(false).with_tool_choice(choice);
    for (choice, expected) in [
        (ToolChoice::Auto, json!({ "type": "auto", "disable_parallel_tool_use": true })),
        (ToolChoice::Required, json!({ "type": "any", "disable_parallel_tool_use": true })),
        (
            ToolChoice::Tool("weather".into()),
            json!({ "type": "tool", "name": "weather", "disable_parallel_tool_use": true }),
        ),
        (ToolChoice::None, json!({ "type": "none" })),
    ] {
        assert_eq!(field(&single(choice), "tool_choice"), expected);
    }
    assert_eq!(field(&weather().with_parallel_tool_calls(true), "tool_choice"), Value::Null);
    let dropped = body(&single(ToolChoice::Auto), &dropping(DropParameter::ParallelToolCalls));
    assert_eq!(dropped.get("tool_choice"), None);
}

#[test]
fn a_tool_choice_without_tools_is_not_sent() {
    for choice in [ToolChoice::Auto, ToolChoice::None] {
        let prompt = prompt().with_parallel_tool_calls(false).with_tool_choice(choice);
        assert_eq!(field(&prompt, "tool_choice"), Value::Null);
        assert_eq!(field(&prompt, "tools"), Value::Null);
        assert!(field(&prompt.with_vendor_fields(vendor_tools()), "tool_choice").is_object());
    }
}

#[test]
fn a_tool_without_description_and_strictness_has_only_its_name_and_schema() {
    let expected = json!([{ "name": "weather", "input_schema": { "type": "object" } }]);
    assert_eq!(field(&weather(), "tools"), expected);
    let loose = prompt().with_tool(Tool::new("weather", json!({ "type": "object" })).with_strict(false));
    assert_eq!(field(&loose, "tools")[0]["strict"], json!(false));
}

#[test]
fn an_effort_enables_adaptive_thinking() {
    for (effort, name) in [
        (ReasoningEffort::Low, "low"),
        (ReasoningEffort::Medium, "medium"),
        (ReasoningEffort::High, "high"),
        (ReasoningEffort::XHigh, "xhigh"),
        (ReasoningEffort::Max, "max"),
    ] {
        let prompt = prompt().with_reasoning_effort(effort);
        assert_eq!(field(&prompt, "output_config"), json!({ "effort": name }));
        assert_eq!(field(&prompt, "thinking"), json!({ "type": "adaptive" }));
        let kept = prompt.with_keep_reasoning(true);
        assert_eq!(field(&kept, "thinking"), json!({ "type": "adaptive", "display": "summarized" }));
    }
    let none = prompt().with_reasoning_effort(ReasoningEffort::None).with_keep_reasoning(true);
    assert_eq!(field(&none, "thinking"), json!({ "type": "disabled" }));
    assert_eq!(field(&none, "output_config"), Value::Null);
    assert_eq!(field(&prompt().with_keep_reasoning(true), "thinking"), Value::Null);
}

#[test]
fn a_setting_that_the_format_cannot_express_is_refused_or_dropped() {
    for (prompt, parameter) in [
        (prompt().with_seed(7), DropParameter::Seed),
        (prompt().with_reasoning_effort(ReasoningEffort::Minimal), DropParameter::ReasoningEffort),
    ] {
        let failure = encode(&prompt, "m", &Dialect::default()).unwrap_err();
        assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Target));
        let expected = format!("Anthropic's format cannot express {};", parameter.as_str());
        assert!(failure.message.starts_with(&expected), "{failure}");
        assert_eq!(body(&prompt, &dropping(parameter)), body(&Prompt::text("Hi"), &Dialect::default()));
    }
}

#[test]
fn every_dropped_setting_is_omitted() {
    let all = prompt()
        .with_temperature(0.5)
        .with_top_p(0.9)
        .with_stop(["END"])
        .with_user("u-17")
        .with_reasoning_effort(ReasoningEffort::Low);
    let sent = body(&all, &Dialect::default());
    assert_eq!((&sent["temperature"], &sent["top_p"]), (&json!(0.5), &json!(0.9)));
    for (parameter, fields) in [
        (DropParameter::Temperature, vec!["temperature"]),
        (DropParameter::TopP, vec!["top_p"]),
        (DropParameter::Stop, vec!["stop_sequences"]),
        (DropParameter::User, vec!["metadata"]),
        (DropParameter::ReasoningEffort, vec!["thinking", "output_config"]),
    ] {
        let mut expected = sent.clone();
        for field in fields {
            assert!(expected.as_object_mut().unwrap().shift_remove(field).is_some(), "{field}");
        }
        assert_eq!(body(&all, &dropping(parameter)), expected);
    }
}

#[test]
fn nucleus_sampling_is_never_omitted_silently() {
    let prompt = prompt().with_top_p(0.9);
    let failure = encode(&prompt, "m", &version("2026-10-21")).unwrap_err();
    assert_eq!(
        &*failure.message,
        "API version 2026-10-21 does not support top_p; remove it or use 2023-06-01"
    );
    let dialect = Dialect { drop_parameters: vec![DropParameter::TopP], ..version("2026-10-21") };
    assert_eq!(body(&prompt, &dialect).get("top_p"), None);
}

#[test]
fn a_whole_response_is_requested_without_other_changes() {
    let whole = Dialect { stream: StreamSupport::Never, ..Dialect::default() };
    let prompt = weather().with_reasoning_effort(ReasoningEffort::Low);
    let mut expected = body(&prompt, &Dialect::default());
    assert_eq!(expected["stream"], true);
    expected["stream"] = json!(false);
    assert_eq!(body(&prompt, &whole), expected);
}

#[test]
fn the_fields_of_the_vendor_are_added() {
    let fields = json!({ "service_tier": "standard_only", "output_config": { "task_budget": 1 } });
    let fields = VendorFields::new(Format::Anthropic, fields.as_object().unwrap().clone());
    let prompt = prompt().with_reasoning_effort(ReasoningEffort::Low).with_vendor_fields(fields);
    let sent = body(&prompt, &Dialect::default());
    assert_eq!(sent["service_tier"], "standard_only");
    assert_eq!(sent["output_config"], json!({ "effort": "low", "task_budget": 1 }));

    let own = weather().with_vendor_fields(vendor_tools());
    let failure = encode(&own, "m", &Dialect::default()).unwrap_err();
    assert!(failure.message.contains("\"tools\" is set by the request itself"), "{failure}");
}
