//! Tests of the requests of clients: read, and encoded again.

mod golden;
mod properties;

use serde_json::{Value, json};

use crate::types::{
    Class, FailureScope, Format, LengthLimit, Media, Message, Part, Prompt, Reasoning, ReasoningEffort,
    ResponseFormat, Role, Tool, ToolCall, ToolChoice, ToolResult, VendorFields,
};
use crate::wire::{Dialect, IncomingRequest};

fn read(body: &Value) -> IncomingRequest {
    Format::Openai.read_request(body.to_string().as_bytes(), None).unwrap()
}

/// Returns the message of a refusal, which is about the request and not about one target.
fn refusal(body: &Value) -> String {
    let failure = Format::Openai.read_request(body.to_string().as_bytes(), None).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Class), "{failure}");
    failure.message.into()
}

/// Reads a body and encodes it again.
fn encoded(prompt: &Prompt) -> Value {
    let base_url = "https://api.openai.com/v1";
    let request = Format::Openai.encode(prompt, "gpt-6-luna", base_url, &Dialect::default()).unwrap();
    serde_json::from_slice(&request.body).unwrap()
}

/// A request with these fields, and with one user message unless they contain messages.
fn with(fields: Value) -> Value {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }] });
    let all = fields.as_object().cloned().unwrap();
    body.as_object_mut().unwrap().extend(all);
    body
}

fn messages(messages: Value) -> Value {
    with(json!({ "messages": messages }))
}

fn vendor_fields(prompt: &Prompt) -> Value {
    let all: Vec<&VendorFields> = prompt.vendor_fields.iter().collect();
    match all.as_slice() {
        [] => json!({}),
        [one] => {
            assert_eq!(one.format, Format::Openai);
            Value::Object((*one.fields).clone())
        }
        several => panic!("{several:?}"),
    }
}

#[test]
fn every_setting_is_typed() {
    let function = json!({ "name": "clock", "parameters": { "type": "object" }, "strict": false });
    let body = with(json!({
        "max_completion_tokens": 9,
        "temperature": 1,
        "top_p": 0.5,
        "stop": ["END", "\n"],
        "seed": -7,
        "reasoning_effort": "xhigh",
        "tools": [{ "type": "function", "function": function }],
        "tool_choice": { "type": "function", "function": { "name": "clock" } },
        "parallel_tool_calls": false,
        "user": "user-1",
        "stream": true,
        "stream_options": { "include_usage": true },
        "logit_bias": null,
    }));
    let request = read(&body);
    assert_eq!((&*request.model, request.is_streamed, request.wants_usage), ("m", true, true));
    let expected = Prompt::text("x")
        .with_max_tokens(9)
        .with_temperature(1.0)
        .with_top_p(0.5)
        .with_stop(["END", "\n"])
        .with_seed(-7)
        .with_reasoning_effort(ReasoningEffort::XHigh)
        .with_tool(Tool::new("clock", json!({ "type": "object" })).with_strict(false))
        .with_tool_choice(ToolChoice::Tool("clock".into()))
        .with_parallel_tool_calls(false)
        .with_user("user-1")
        .with_length_limit(LengthLimit::Return);
    assert_eq!(request.prompt, expected);
    let plain = read(&with(json!({})));
    assert_eq!((plain.is_streamed, plain.wants_usage), (false, false));
    assert_eq!(plain.prompt, Prompt::text("x").with_length_limit(LengthLimit::Return));
}

#[test]
fn a_setting_may_have_two_forms() {
    let prompt = |fields| read(&with(fields)).prompt;
    assert_eq!(prompt(json!({ "max_tokens": 5 })).max_tokens, Some(5));
    assert_eq!(prompt(json!({ "max_tokens": 5, "max_completion_tokens": 5 })).max_tokens, Some(5));
    let differ = refusal(&with(json!({ "max_tokens": 5, "max_completion_tokens": 6 })));
    assert!(differ.contains("max_tokens and max_completion_tokens differ"), "{differ}");
    assert_eq!(prompt(json!({ "stop": "END" })).stop, ["END".into()]);
    assert!(prompt(json!({ "stop": [] })).stop.is_empty());
    assert_eq!(refusal(&with(json!({ "stop": [1] }))), "stop must be a string or a list of strings");
    for (choice, expected) in
        [("auto", ToolChoice::Auto), ("none", ToolChoice::None), ("required", ToolChoice::Required)]
    {
        assert_eq!(prompt(json!({ "tool_choice": choice })).tool_choice, expected);
    }
    assert_eq!(refusal(&with(json!({ "tool_choice": "any" }))), "tool_choice \"any\" is not supported");
    let effort = refusal(&with(json!({ "reasoning_effort": "huge" })));
    assert_eq!(effort, "reasoning_effort \"huge\" is not supported");
}

#[test]
fn a_conversation_is_typed() {
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "clock", "arguments": "{\"a\": 1}" } });
    let body = messages(json!([
        { "role": "developer", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
        { "role": "system", "content": "c" },
        { "role": "user", "content": [{ "type": "text", "text": "d" }, { "type": "text", "text": "e" }] },
        {
            "role": "assistant",
            "content": null,
            "reasoning_content": "Hm.",
            "reasoning": "Hm.",
            "refusal": null,
            "annotations": [],
            "tool_calls": [call("1"), call("2")],
        },
        { "role": "tool", "tool_call_id": "2", "content": "f", "name": "clock" },
        { "role": "tool", "tool_call_id": "1", "content": [{ "type": "text", "text": "g" }] },
        { "role": "assistant", "content": [{ "type": "text", "text": "h" }, { "type": "refusal", "refusal": "i" }] },
        { "role": "assistant", "content": "", "refusal": "j" },
        { "role": "developer", "content": "k" },
        { "role": "user", "content": "l" },
    ]));
    let prompt = read(&body).prompt;
    let typed_call = |id| Part::ToolCall(ToolCall::new(id, "clock", "{\"a\": 1}"));
    let reasoning = Part::Reasoning(Reasoning::new("Hm."));
    assert_eq!(prompt.system.as_deref(), Some("a\n\nb"));
    let expected = [
        Message::new(Role::System, [Part::text("c")]),
        Message::new(Role::User, [Part::text("d"), Part::text("e")]),
        Message::new(Role::Assistant, [reasoning, typed_call("1"), typed_call("2")]),
        Message::tool([ToolResult::new("2", "f"), ToolResult::new("1", "g")]),
        Message::new(Role::Assistant, [Part::text("h"), Part::text("i")]),
        Message::assistant("j"),
        Message::new(Role::System, [Part::text("k")]),
        Message::user("l"),
    ];
    assert_eq!(prompt.messages, expected);
    assert_eq!(prompt.check(), Ok(()));
}

#[test]
fn media_are_data_or_urls() {
    let body = messages(json!([{ "role": "user", "content": [
        { "type": "image_url", "image_url": { "url": "data:image/png;base64,AA==", "detail": "auto" } },
        { "type": "image_url", "image_url": { "url": "https://example.com/a.webp?b" } },
        { "type": "image_url", "image_url": { "url": "https://example.com/a" } },
        { "type": "input_audio", "input_audio": { "data": "AA==", "format": "wav" } },
        { "type": "input_audio", "input_audio": { "data": "AA==", "format": "mp3" } },
        { "type": "file", "file": { "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA==" } },
        { "type": "file", "file": { "file_data": "data:text/plain;base64,eA==" } },
    ] }]));
    let expected = [
        Part::Image(Media::base64("image/png", "AA==")),
        Part::Image(Media::url("image/webp", "https://example.com/a.webp?b")),
        Part::Image(Media::url("image/*", "https://example.com/a")),
        Part::Audio(Media::base64("audio/wav", "AA==")),
        Part::Audio(Media::base64("audio/mpeg", "AA==")),
        Part::Document(Media::base64("application/pdf", "AA==").with_name("a.pdf")),
        Part::Document(Media::base64("text/plain", "eA==")),
    ];
    assert_eq!(read(&body).prompt.messages, [Message::new(Role::User, expected)]);
}

#[test]
fn a_response_format_is_typed_if_it_has_a_schema() {
    let prompt = |format: Value| read(&with(json!({ "response_format": format }))).prompt;
    let schema = |fields: Value| {
        let mut all = json!({ "name": "card", "schema": { "type": "object" } });
        all.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
        json!({ "type": "json_schema", "json_schema": all })
    };
    assert_eq!(prompt(json!({ "type": "text" })).response_format, ResponseFormat::Text);
    let typed = prompt(schema(json!({ "strict": true })));
    assert_eq!(typed.response_format, ResponseFormat::json(json!({ "type": "object" })));
    assert_eq!(vendor_fields(&typed), json!({}));
    let described = |text: &str| ResponseFormat::json(json!({ "type": "object", "description": text }));
    assert_eq!(prompt(schema(json!({ "description": "A card." }))).response_format, described("A card."));
    let own = json!({ "description": "A card.", "schema": { "type": "object", "description": "Own." } });
    assert_eq!(prompt(schema(own)).response_format, described("A card.\n\nOwn."));
    let object = json!({ "type": "json_object" });
    let untyped = prompt(object.clone());
    assert_eq!(untyped.response_format, ResponseFormat::Text);
    assert_eq!(vendor_fields(&untyped), json!({ "response_format": object }));
    assert_eq!(encoded(&untyped)["response_format"], object);
}

#[test]
fn fields_without_a_typed_form_are_carried_unchanged() {
    let fields = json!({
        "metadata": { "job": "1", "none": null },
        "logit_bias": { "50256": -100 },
        "service_tier": "flex",
        "n": 1,
        "modalities": ["text"],
        "stream_options": { "include_obfuscation": false },
        "tools": [{ "type": "custom", "custom": { "name": "shell" } }],
        "tool_choice": { "type": "custom", "custom": { "name": "shell" } },
    });
    let prompt = read(&with(fields.clone())).prompt;
    assert_eq!(vendor_fields(&prompt), fields);
    let body = encoded(&prompt);
    for (name, value) in fields.as_object().unwrap() {
        if name == "stream_options" {
            assert_eq!(body[name], json!({ "include_obfuscation": false, "include_usage": true }));
        } else {
            assert_eq!(&body[name], value, "{name}");
        }
    }
}

#[test]
fn what_nothing_can_carry_is_refused_by_name() {
    let function = json!({ "type": "function", "function": { "name": "f" } });
    for (body, expected) in [
        (with(json!({ "n": 2 })), "n must be 1"),
        (with(json!({ "logprobs": true })), "logprobs is not supported"),
        (with(json!({ "modalities": ["text", "audio"] })), "modalities must be text only"),
        (with(json!({ "audio": { "voice": "alloy" } })), "audio is not supported"),
        (with(json!({ "functions": [] })), "functions is not supported; use tools"),
        (with(json!({ "max_tokens": -1 })), "max_tokens must be a whole number"),
        (with(json!({ "seed": 0.5 })), "seed must be a whole number"),
        (
            with(json!({ "tools": [function, { "type": "custom" }] })),
            "tools[1].type \"custom\" is not supported beside functions",
        ),
        (with(json!({ "messages": null })), "messages is missing"),
        (messages(json!(["x"])), "messages[0] must be an object"),
        (messages(json!([{ "content": "x" }])), "messages[0].role is missing"),
        (messages(json!([{ "role": "function", "content": "x" }])), "messages[0].role \"function\""),
        (messages(json!([{ "role": "user" }])), "messages[0].content is missing"),
        (messages(json!([{ "role": "user", "content": "x", "name": "Ann" }])), "messages[0].name"),
        (
            messages(json!([{ "role": "user", "content": [{ "type": "input_video", "video": "x" }] }])),
            "messages[0].content[0].type \"input_video\" is not supported",
        ),
        (
            messages(json!([{ "role": "user", "content": [
                { "type": "image_url", "image_url": { "url": "https://example.com/a.png", "detail": "high" } },
            ] }])),
            "messages[0].content[0].image_url.detail \"high\" is not supported",
        ),
        (
            messages(
                json!([{ "role": "user", "content": [{ "type": "file", "file": { "file_id": "f-1" } }] }]),
            ),
            "messages[0].content[0].file.file_id is not supported",
        ),
        (
            messages(json!([{ "role": "user", "content": [
                { "type": "file", "file": { "file_data": "https://example.com/a.pdf" } },
            ] }])),
            "messages[0].content[0].file.file_data must be a data URL",
        ),
        (
            messages(json!([{ "role": "user", "content": [
                { "type": "input_audio", "input_audio": { "data": "AA==", "format": "flac" } },
            ] }])),
            "messages[0].content[0].input_audio.format \"flac\" is not supported",
        ),
        (
            messages(json!([{ "role": "assistant", "content": "x", "annotations": [{}] }])),
            "messages[0].annotations is not supported",
        ),
        (
            messages(json!([{ "role": "assistant", "tool_calls": [{ "id": "1", "type": "custom" }] }])),
            "messages[0].tool_calls[0].type \"custom\" is not supported",
        ),
        (messages(json!([{ "role": "tool", "content": "x" }])), "messages[0].tool_call_id is missing"),
    ] {
        let message = refusal(&body);
        assert!(message.starts_with(expected), "{message}\n{expected}");
    }
    let failure = Format::Openai.read_request(b"{\n \"model\": }", None).unwrap_err();
    assert!(failure.message.contains("line 2 column"), "{failure}");
}

#[test]
fn the_name_in_a_result_must_be_that_of_the_called_tool() {
    let call = json!({ "id": "1", "function": { "name": "clock", "arguments": "{}" } });
    let body = messages(json!([
        { "role": "assistant", "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "1", "content": "x", "name": "weather" },
    ]));
    assert_eq!(refusal(&body), "messages[1].name is not that of the called tool");
}

#[test]
fn a_function_without_parameters_has_none() {
    let tools = json!([{ "type": "function", "function": { "name": "f", "description": "d" } }]);
    let expected = Tool::new("f", json!({ "type": "object", "properties": {} })).with_description("d");
    assert_eq!(read(&with(json!({ "tools": tools }))).prompt.tools, [expected]);
}

#[test]
fn a_conversation_may_have_ten_thousand_messages() {
    let all: Vec<Value> = (0..10_000)
        .map(|at| json!({ "role": if at % 2 == 0 { "user" } else { "assistant" }, "content": format!("{at}") }))
        .collect();
    let prompt = read(&messages(json!(all))).prompt;
    assert_eq!((prompt.messages.len(), &prompt.messages[9_999]), (10_000, &Message::assistant("9999")));
}
