//! Tests of requests with tools, their results, reasoning, and all settings.

use serde_json::{Value, json};

use crate::types::{
    Class, Failure, FailureScope, Format, Message, Part, Prompt, Reasoning, ReasoningEffort, Role, Signature,
    Tool, ToolCall, ToolChoice, ToolResult,
};
use crate::wire::{Dialect, DropParameter};

use super::fixture;
use super::request::{LOCAL, OPENAI, encode, media, vendor_fields};

fn body(prompt: &Prompt) -> Value {
    encode(prompt, LOCAL, &Dialect::default())
}

fn refused(prompt: &Prompt) -> Failure {
    let failure = Format::Openai.encode(prompt, "m", LOCAL, &Dialect::default()).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Target), "{failure}");
    failure
}

fn with_tool() -> Prompt {
    Prompt::text("x").with_tool(Tool::new("clock", json!({ "type": "object" })))
}

/// A conversation with one call and this result of it.
fn with_result(result: ToolResult) -> Prompt {
    let call = Part::ToolCall(ToolCall::new("a", "clock", "{}"));
    with_tool().with_message(Message::new(Role::Assistant, [call])).with_message(Message::tool([result]))
}

#[test]
fn a_conversation_with_tools_is_sent_as_recorded() {
    let recorded: Value = serde_json::from_str(fixture!("openai_chat_request_tools.json")).unwrap();
    let parameters = recorded["tools"][0]["function"]["parameters"].clone();
    let tool =
        Tool::new("shelf_lookup", parameters).with_description("Count copies on the shelf").with_strict(true);
    let arguments = r#"{"branch":"Arden","title":"The Salt Harvest"}"#;
    let call = Part::ToolCall(ToolCall::new("call_Ar1", "shelf_lookup", arguments));
    let prompt = Prompt::text("Is 'The Salt Harvest' on the shelf in Arden and in Bray?")
        .with_message(Message::new(Role::Assistant, [call]))
        .with_message(Message::tool([ToolResult::new("call_Ar1", r#"{"copies":2}"#)]))
        .with_tool(tool)
        .with_parallel_tool_calls(true)
        // The default, which a request does not send.
        .with_vendor_fields(vendor_fields(&json!({ "tool_choice": "auto" })));
    assert_eq!(encode(&prompt, OPENAI, &Dialect::default()), recorded);
}

#[test]
fn every_setting_is_sent() {
    let prompt = with_tool()
        .with_temperature(0.5)
        .with_top_p(0.9)
        .with_stop(["END", "\n\n"])
        .with_seed(-7)
        .with_reasoning_effort(ReasoningEffort::XHigh)
        .with_tool_choice(ToolChoice::Tool("clock".into()))
        .with_parallel_tool_calls(false)
        .with_user("user-1")
        .with_vendor_fields(vendor_fields(&json!({ "service_tier": "flex" })));
    let function = json!({ "name": "clock", "parameters": { "type": "object" } });
    let tool = json!({ "type": "function", "function": function });
    let expected = json!({
        "model": "gpt-6-luna",
        "messages": [{ "role": "user", "content": "x" }],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END", "\n\n"],
        "seed": -7,
        "reasoning_effort": "xhigh",
        "tools": [tool],
        "tool_choice": { "type": "function", "function": { "name": "clock" } },
        "parallel_tool_calls": false,
        "user": "user-1",
        "service_tier": "flex",
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    assert_eq!(body(&prompt), expected);

    let dropped = [
        (DropParameter::Temperature, "temperature"),
        (DropParameter::TopP, "top_p"),
        (DropParameter::Stop, "stop"),
        (DropParameter::Seed, "seed"),
        (DropParameter::ReasoningEffort, "reasoning_effort"),
        (DropParameter::ParallelToolCalls, "parallel_tool_calls"),
        (DropParameter::User, "user"),
    ];
    for (parameter, name) in dropped {
        let dialect = Dialect { drop_parameters: vec![parameter], ..Dialect::default() };
        let mut without = expected.clone();
        without.as_object_mut().unwrap().remove(name);
        assert_eq!(encode(&prompt, LOCAL, &dialect), without, "{name}");
    }
}

#[test]
fn a_tool_choice_is_sent_where_it_has_an_effect() {
    let choice = |prompt: Prompt, choice| body(&prompt.with_tool_choice(choice)).get("tool_choice").cloned();
    assert_eq!(choice(with_tool(), ToolChoice::Auto), None);
    assert_eq!(choice(with_tool(), ToolChoice::None), Some(json!("none")));
    assert_eq!(choice(with_tool(), ToolChoice::Required), Some(json!("required")));
    // OpenAI refuses both fields in a request without tools.
    let plain = || Prompt::text("x").with_parallel_tool_calls(true);
    assert_eq!(choice(plain(), ToolChoice::None), None);
    assert_eq!(body(&plain()).get("parallel_tool_calls"), None);
    // The tools may be among the fields of the vendor.
    let tools = vendor_fields(&json!({ "tools": [{ "type": "custom", "custom": { "name": "shell" } }] }));
    let custom = plain().with_vendor_fields(tools);
    assert_eq!(choice(custom.clone(), ToolChoice::None), Some(json!("none")));
    assert_eq!(body(&custom)["parallel_tool_calls"], true);
}

#[test]
fn a_system_message_stays_in_its_place() {
    let prompt = Prompt::text("a")
        .with_system("Be brief.")
        .with_message(Message::assistant("b"))
        .with_message(Message::new(Role::System, [Part::text("Now"), Part::text("in French.")]))
        .with_message(Message::user("c"));
    let expected = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": "b" },
        { "role": "system", "content": "Now\n\nin French." },
        { "role": "user", "content": "c" },
    ]);
    assert_eq!(body(&prompt)["messages"], expected);
}

#[test]
fn each_result_of_a_tool_is_a_message_of_text() {
    let call = |id: &str| Part::ToolCall(ToolCall::new(id, "clock", "{}"));
    let document = Part::Document(media("text/csv", None, "TG93IGF0IGRhd24u"));
    let results = [
        ToolResult::error("b", "no clock"),
        ToolResult::new("a", "noon").with_part(document),
        ToolResult { parts: Vec::new(), ..ToolResult::new("c", "") },
    ];
    let answer = [Part::text("Let me look."), call("a"), call("b"), call("c")];
    let prompt =
        with_tool().with_message(Message::new(Role::Assistant, answer)).with_message(Message::tool(results));
    let function = json!({ "name": "clock", "arguments": "{}" });
    let sent = |id: &str| json!({ "id": id, "type": "function", "function": function });
    let expected = json!([
        { "role": "user", "content": "x" },
        { "role": "assistant", "content": "Let me look.", "tool_calls": [sent("a"), sent("b"), sent("c")] },
        { "role": "tool", "tool_call_id": "b", "content": "no clock" },
        { "role": "tool", "tool_call_id": "a", "content": "noon\n\nLow at dawn." },
        { "role": "tool", "tool_call_id": "c", "content": "" },
    ]);
    assert_eq!(body(&prompt)["messages"], expected);
    for part in [
        Part::Image(media("image/png", None, "AA==")),
        Part::Document(media("application/pdf", None, "AA==")),
        Part::Audio(media("audio/wav", None, "AA==")),
    ] {
        let failure = refused(&with_result(ToolResult::new("a", "x").with_part(part)));
        assert!(failure.message.contains("result of a tool can contain only text"), "{failure}");
    }
}

#[test]
fn parts_in_messages_of_other_authors_are_refused() {
    let call = || Part::ToolCall(ToolCall::new("a", "clock", "{}"));
    let result = || Part::ToolResult(ToolResult::new("a", "x"));
    let reasoning = || Part::Reasoning(Reasoning::new("Hm."));
    for (role, parts) in [
        (Role::System, vec![call(), result(), reasoning()]),
        (Role::User, vec![call(), result(), reasoning()]),
        (Role::Assistant, vec![result()]),
        (Role::Tool, vec![call(), reasoning(), Part::text("x")]),
    ] {
        for part in parts {
            let failure = refused(&Prompt::default().with_message(Message::new(role, [part])));
            let prefix = "OpenAI's chat format does not support this prompt: ";
            assert!(failure.message.starts_with(prefix), "{failure}");
        }
    }
}

#[test]
fn reasoning_is_not_sent_and_a_message_without_the_rest_is_left_out() {
    let reasoning = || Part::Reasoning(Reasoning::new("Hm."));
    let prompt = with_tool()
        .with_message(Message::new(Role::Assistant, [reasoning()]))
        .with_message(Message::new(Role::Assistant, [reasoning(), Part::text("b")]))
        .with_message(Message::new(Role::Assistant, []));
    let expected = json!([
        { "role": "user", "content": "x" },
        { "role": "assistant", "content": "b" },
        { "role": "assistant", "content": "" },
    ]);
    assert_eq!(body(&prompt)["messages"], expected);
}

#[test]
fn what_another_vendor_has_signed_is_refused_or_dropped() {
    let signature = || Signature::new(Format::Anthropic, "sign");
    let reasoning = Part::Reasoning(Reasoning::new("Hm.").with_signature(signature()));
    let call = Part::ToolCall(ToolCall::new("a", "clock", "{}").with_signature(signature()));
    let dialect = Dialect { drop_parameters: vec![DropParameter::Reasoning], ..Dialect::default() };
    for (part, sent) in [(reasoning, 1), (call, 2)] {
        let prompt = with_tool().with_message(Message::new(Role::Assistant, [part]));
        assert!(refused(&prompt).message.contains("cannot express reasoning"));
        let messages = encode(&prompt, LOCAL, &dialect)["messages"].clone();
        assert_eq!(messages.as_array().unwrap().len(), sent);
        assert!(!messages.to_string().contains("sign"));
    }
}
