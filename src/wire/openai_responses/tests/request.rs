//! Tests of the encoded requests.

use std::time::SystemTime;

use http::HeaderMap;
use serde_json::{Map, Value, json};

use crate::types::{
    Class, FailureScope, Fingerprint, Format, Media, Message, Parameter, Part, Prompt, Reasoning,
    ReasoningEffort, ResponseFormat, Role, SharedPrefix, Signature, Tool, ToolCall, ToolChoice, ToolResult,
    VendorFields,
};
use crate::wire::{Dialect, DropParameter, StreamSupport, StructuredOutput, UnsupportedParameters};

use super::{fixture, prompt_with_tool};

const OPENAI: &str = "https://api.openai.com/v1";
const LOCAL: &str = "http://localhost:11434/v1";

fn encode_with(prompt: &Prompt, base_url: &str, dialect: &Dialect) -> Value {
    let request = Format::OpenaiResponses.encode(prompt, "gpt-6-luna", base_url, dialect).unwrap();
    assert_eq!((request.path.as_str(), request.headers.len()), ("/responses", 0));
    serde_json::from_slice(&request.body).unwrap()
}

fn encode(prompt: &Prompt) -> Value {
    encode_with(prompt, OPENAI, &Dialect::default())
}

/// Returns the message of a refusal, which is about this target only.
fn refusal(prompt: &Prompt) -> String {
    let failure = Format::OpenaiResponses.encode(prompt, "m", OPENAI, &Dialect::default()).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Target), "{failure}");
    failure.message.into()
}

fn dropping(parameters: &[DropParameter]) -> Dialect {
    Dialect { drop_parameters: parameters.to_vec(), ..Dialect::default() }
}

#[test]
fn a_request_with_media_a_schema_and_a_tool_is_sent_as_recorded() {
    let mut recorded: Value = serde_json::from_str(fixture!("openai_responses_request.json")).unwrap();
    let image = recorded["input"][0]["content"][1]["image_url"].as_str().unwrap();
    let image = image.strip_prefix("data:image/png;base64,").unwrap();
    let schema = recorded["text"]["format"]["schema"].clone();
    let parts = [
        Part::text("File this cover."),
        Part::Image(Media::base64("image/png", image)),
        Part::Document(Media::base64("application/pdf", "JVBERi0xLjQK").with_name("leaflet.pdf")),
    ];
    let prompt = Prompt { messages: vec![Message::new(Role::User, parts)], ..prompt_with_tool() }
        .with_system("You catalogue books.")
        .with_response_format(ResponseFormat::json(schema))
        .with_max_tokens(400)
        .with_reasoning_effort(ReasoningEffort::Low);
    // What our prompts do not contain, the name that we choose, and what every request of ours sets.
    assert_eq!(recorded["input"][0]["content"][1]["detail"], "low");
    recorded["input"][0]["content"][1]["detail"] = json!("auto");
    recorded["input"][0]["content"][2].as_object_mut().unwrap().remove("detail");
    recorded["text"]["format"]["name"] = json!("answer");
    recorded["include"] = json!(["reasoning.encrypted_content"]);
    recorded["stream"] = json!(true);
    assert_eq!(encode(&prompt), recorded);
}

#[test]
fn every_setting_is_sent_under_its_name() {
    let prompt = Prompt::text("x")
        .with_temperature(0.5)
        .with_top_p(0.9)
        .with_max_tokens(9)
        .with_user("user-1")
        .with_reasoning_effort(ReasoningEffort::XHigh)
        .with_keep_reasoning(true)
        .with_tool(Tool::new("clock", json!({ "type": "object" })))
        .with_parallel_tool_calls(false);
    let expected = json!({
        "model": "gpt-6-luna",
        "input": [{ "role": "user", "content": "x" }],
        "tools": [
            { "type": "function", "name": "clock", "strict": false, "parameters": { "type": "object" } },
        ],
        "parallel_tool_calls": false,
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning": { "effort": "xhigh", "summary": "auto" },
        "include": ["reasoning.encrypted_content"],
        "user": "user-1",
        "store": false,
        "stream": true,
    });
    assert_eq!(encode(&prompt), expected);
    let plain = json!({
        "model": "gpt-6-luna",
        "input": [{ "role": "user", "content": "x" }],
        "store": false,
        "stream": true,
    });
    assert_eq!(encode(&Prompt::text("x")), plain);
    let all = [
        DropParameter::Temperature,
        DropParameter::TopP,
        DropParameter::User,
        DropParameter::ReasoningEffort,
        DropParameter::ParallelToolCalls,
    ];
    let mut dropped = plain;
    dropped["max_output_tokens"] = json!(9);
    dropped["tools"] = expected["tools"].clone();
    assert_eq!(encode_with(&prompt, OPENAI, &dropping(&all)), dropped);
}

#[test]
fn a_model_that_rejected_encrypted_reasoning_is_not_asked_for_it_again() {
    let body = r#"{"error":{"message":"Encrypted content is not supported with this model.",
        "type":"invalid_request_error","param":"include","code":null}}"#;
    let failure =
        Format::OpenaiResponses.read_error(400, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH);
    assert_eq!(failure.scope, FailureScope::Parameter(Parameter::EncryptedReasoning), "{failure}");
    let mut unsupported = UnsupportedParameters::default();
    assert!(unsupported.record(Parameter::EncryptedReasoning));
    let prompt = prompt_with_tool().with_keep_reasoning(true);
    let body = encode_with(&prompt, OPENAI, &unsupported.apply_to(&Dialect::default()));
    assert_eq!((body.get("include"), body.get("reasoning")), (None, None));
    let prompt = prompt.with_reasoning_effort(ReasoningEffort::Low);
    let body = encode_with(&prompt, OPENAI, &unsupported.apply_to(&Dialect::default()));
    assert_eq!(body["reasoning"], json!({ "effort": "low" }));
}

#[test]
fn a_tool_choice_is_sent_unless_the_model_decides() {
    for (choice, expected) in [
        (ToolChoice::Auto, None),
        (ToolChoice::None, Some(json!("none"))),
        (ToolChoice::Required, Some(json!("required"))),
        (
            ToolChoice::Tool("shelf_lookup".into()),
            Some(json!({ "type": "function", "name": "shelf_lookup" })),
        ),
    ] {
        let body = encode(&prompt_with_tool().with_tool_choice(choice));
        assert_eq!(body.get("tool_choice").cloned(), expected);
    }
}

#[test]
fn a_conversation_with_calls_keeps_the_order_of_its_parts() {
    let item = r#"{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"gAAA=","n":1.50}"#;
    let reasoning = Reasoning::new("Hm.").with_signature(Signature::new(Format::OpenaiResponses, item));
    let image = Part::Image(Media::url("image/png", "https://example.invalid/a.png"));
    let answer = [
        Part::Reasoning(reasoning),
        Part::text("Let me look."),
        Part::text("One moment."),
        Part::ToolCall(ToolCall::new("a", "shelf_lookup", r#"{"branch":"Arden"}"#)),
        Part::Reasoning(Reasoning::new("for the reader")),
        Part::ToolCall(ToolCall::new("b", "shelf_lookup", "{}")),
        Part::text("Done."),
    ];
    let prompt = prompt_with_tool()
        .with_message(Message::new(Role::System, [Part::text("Be brief."), Part::text("Be kind.")]))
        .with_message(Message::new(Role::Assistant, answer))
        .with_message(Message::tool([
            ToolResult::new("b", "none").with_part(image),
            ToolResult::error("a", "closed"),
        ]));
    let input_text = |text: &str| json!({ "type": "input_text", "text": text });
    let call = |id: &str, arguments: &str| json!({ "type": "function_call", "call_id": id, "name": "shelf_lookup", "arguments": arguments });
    let image = json!({ "type": "input_image", "image_url": "https://example.invalid/a.png" });
    let expected = json!([
        { "role": "user", "content": "x" },
        { "role": "system", "content": [input_text("Be brief."), input_text("Be kind.")] },
        serde_json::from_str::<Value>(item).unwrap(),
        { "role": "assistant", "content": "Let me look." },
        { "role": "assistant", "content": "One moment." },
        call("a", r#"{"branch":"Arden"}"#),
        call("b", "{}"),
        { "role": "assistant", "content": "Done." },
        { "type": "function_call_output", "call_id": "b", "output": [input_text("none"), image] },
        { "type": "function_call_output", "call_id": "a", "output": "closed" },
    ]);
    assert_eq!(encode(&prompt)["input"], expected);
}

#[test]
fn an_earlier_answer_is_a_text_because_a_list_of_its_parts_would_need_the_id_of_a_response() {
    let prompt = Prompt::text("Where is it?")
        .with_message(Message::assistant("In Arden."))
        .with_message(Message::user("And now?"));
    let expected = json!([
        { "role": "user", "content": "Where is it?" },
        { "role": "assistant", "content": "In Arden." },
        { "role": "user", "content": "And now?" },
    ]);
    assert_eq!(encode(&prompt)["input"], expected);
}

#[test]
fn an_image_has_its_detail_in_a_message_and_not_in_the_result_of_a_tool() {
    let image = || Part::Image(Media::base64("image/png", "AA=="));
    let call = Part::ToolCall(ToolCall::new("a", "shelf_lookup", "{}"));
    let prompt = prompt_with_tool()
        .with_part(image())
        .with_message(Message::new(Role::Assistant, [call]))
        .with_message(Message::tool([ToolResult::new("a", "see").with_part(image())]));
    let sent = &encode(&prompt)["input"];
    let mut expected = json!({ "type": "input_image", "image_url": "data:image/png;base64,AA==" });
    assert_eq!(sent[2]["output"][1], expected);
    expected["detail"] = json!("auto");
    assert_eq!(sent[0]["content"][1], expected);
}

#[test]
fn reasoning_and_calls_that_another_vendor_signed_are_refused_or_dropped() {
    let signature = || Signature::new(Format::Anthropic, "sig");
    let with = |part| Prompt::text("x").with_message(Message::new(Role::Assistant, [part]));
    let reasoning = with(Part::Reasoning(Reasoning::new("Hm.").with_signature(signature())));
    let call = with(Part::ToolCall(ToolCall::new("a", "f", "{}").with_signature(signature())));
    for prompt in [&reasoning, &call] {
        assert!(refusal(prompt).contains("cannot express reasoning"));
    }
    let dialect = dropping(&[DropParameter::Reasoning]);
    let input = |prompt| encode_with(prompt, OPENAI, &dialect)["input"].clone();
    assert_eq!(input(&reasoning), json!([{ "role": "user", "content": "x" }]));
    let expected = json!({ "type": "function_call", "call_id": "a", "name": "f", "arguments": "{}" });
    assert_eq!(input(&call)[1], expected);
    let invalid = Reasoning::new("").with_signature(Signature::new(Format::OpenaiResponses, "[1]"));
    assert!(refusal(&with(Part::Reasoning(invalid))).contains("not the item of a response"));
}

#[test]
fn what_the_format_cannot_express_is_refused_by_name_or_dropped() {
    let prompt = Prompt::text("x").with_stop(["END"]).with_seed(7);
    assert!(refusal(&Prompt::text("x").with_stop(["END"])).contains("cannot express stop"));
    assert!(refusal(&Prompt::text("x").with_seed(7)).contains("cannot express seed"));
    let body = encode_with(&prompt, OPENAI, &dropping(&[DropParameter::Stop, DropParameter::Seed]));
    assert_eq!(body, encode(&Prompt::text("x")));

    let media = |media_type| Media::base64(media_type, "AA==");
    let user = |part| Prompt::text("x").with_part(part);
    assert!(refusal(&user(Part::Audio(media("audio/wav")))).contains("audio is not possible"));
    assert!(refusal(&user(Part::Video(media("video/mp4")))).contains("video is not possible"));
    let of = |role| Prompt::default().with_message(Message::new(role, [Part::Image(media("image/png"))]));
    assert!(refusal(&of(Role::Assistant)).contains("an assistant message"));
    assert!(refusal(&of(Role::System)).contains("a system message"));
    assert!(refusal(&of(Role::Tool)).contains("a tool message"));
}

#[test]
fn documents_are_sent_as_text_as_data_or_as_a_url() {
    let prompt = Prompt::text("When?")
        .with_part(Part::Document(Media::base64("text/plain", "TG93IGF0IGRhd24u").with_name("tides")))
        .with_part(Part::Document(Media::base64("application/pdf", "JVBERi0=")))
        .with_part(Part::Document(Media::url("application/pdf", "https://example.invalid/a.pdf")));
    let expected = json!([
        { "type": "input_text", "text": "When?" },
        { "type": "input_text", "text": "tides:\n\nLow at dawn." },
        {
            "type": "input_file",
            "filename": "document.pdf",
            "file_data": "data:application/pdf;base64,JVBERi0=",
        },
        { "type": "input_file", "file_url": "https://example.invalid/a.pdf" },
    ]);
    assert_eq!(encode(&prompt)["input"][0]["content"], expected);
    for (media_type, name) in [
        ("Application/PDF", "document.pdf"),
        ("application/pdf;name=a.pdf", "document.pdf"),
        ("application/zip", "document"),
    ] {
        let prompt = Prompt::text("x").with_part(Part::Document(Media::base64(media_type, "JVBERi0=")));
        assert_eq!(encode(&prompt)["input"][0]["content"][1]["filename"], name, "{media_type}");
    }
}

#[test]
fn a_response_format_is_requested_as_the_dialect_specifies() {
    let open = json!({ "type": "object", "properties": { "a": { "type": "string", "minLength": 1 } } });
    let prompt = Prompt::text("x").with_response_format(ResponseFormat::json(open.clone()));
    let with = |structured| Dialect { structured_output: structured, ..Dialect::default() };

    let body = encode_with(&prompt, LOCAL, &with(StructuredOutput::Schema));
    let expected = json!({ "type": "json_schema", "name": "answer", "schema": open });
    assert_eq!((&body["text"]["format"], body.get("instructions")), (&expected, None));

    let body = encode_with(&prompt, LOCAL, &with(StructuredOutput::Json));
    assert_eq!(body["text"]["format"], json!({ "type": "json_object" }));
    assert!(body["instructions"].as_str().unwrap().contains("JSON Schema"));

    let body = encode_with(&prompt, LOCAL, &with(StructuredOutput::Prompt));
    assert_eq!(body.get("text"), None);
    assert!(body["instructions"].as_str().unwrap().contains("JSON Schema"));

    let list = json!({ "type": "array", "items": { "type": "string" } });
    let prompt = Prompt::text("x").with_response_format(ResponseFormat::json(list.clone()));
    let sent = &encode(&prompt)["text"]["format"];
    assert_eq!((&sent["strict"], &sent["schema"]["properties"]["answer"]), (&json!(true), &list));

    let prompt = Prompt::text("x").with_response_format(ResponseFormat::choice(["A", "B"]));
    let body = encode(&prompt);
    assert_eq!(body.get("text"), None);
    assert!(body["instructions"].as_str().unwrap().ends_with("\nAnswer with exactly one of: A, B"));
}

#[test]
fn fields_of_the_vendor_are_added_and_a_stored_conversation_is_refused() {
    let with = |fields: &Value| {
        let fields: Map<String, Value> = fields.as_object().unwrap().clone();
        Prompt::text("x")
            .with_reasoning_effort(ReasoningEffort::Low)
            .with_vendor_fields(VendorFields::new(Format::OpenaiResponses, fields))
    };
    let fields = json!({ "service_tier": "flex", "reasoning": { "summary": "detailed" }, "store": false });
    let body = encode(&with(&fields));
    assert_eq!(body["service_tier"], "flex");
    assert_eq!(body["reasoning"], json!({ "effort": "low", "summary": "detailed" }));
    assert!(refusal(&with(&json!({ "previous_response_id": "resp_1" }))).contains("previous_response_id"));
    assert!(refusal(&with(&json!({ "conversation": "conv_1" }))).contains("conversation"));
    assert!(refusal(&with(&json!({ "store": true }))).contains("store"));
}

#[test]
fn a_whole_response_is_requested_without_other_changes() {
    let whole = Dialect { stream: StreamSupport::Never, ..Dialect::default() };
    let prompt = prompt_with_tool().with_reasoning_effort(ReasoningEffort::Low);
    let mut expected = encode(&prompt);
    assert_eq!(expected["stream"], true);
    expected["stream"] = json!(false);
    assert_eq!(encode_with(&prompt, OPENAI, &whole), expected);
}

#[test]
fn a_shared_prefix_is_sent_as_a_cache_key_to_openai_only() {
    let plain = || Prompt::text("Sort this: Hello.").with_system("Be brief.");
    let prompt = |tokens| {
        let prefix = SharedPrefix::new(Fingerprint([0x1f; 16]), tokens).with_text_bytes(11);
        plain().with_shared_prefix(prefix)
    };
    let mut expected = encode(&plain());
    assert_eq!(encode(&prompt(1023)), expected);
    expected["prompt_cache_key"] = json!("1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f");
    assert_eq!(encode(&prompt(1024)), expected);
    let default = Dialect::default();
    assert_eq!(encode_with(&prompt(9999), LOCAL, &default), encode_with(&plain(), LOCAL, &default));

    let fields = json!({ "prompt_cache_key": "mine" }).as_object().cloned().unwrap();
    let own = VendorFields::new(Format::OpenaiResponses, fields.clone());
    assert_eq!(encode(&prompt(1024).with_vendor_fields(own))["prompt_cache_key"], "mine");
    let configured = Dialect { extra: Some(fields.into()), ..Dialect::default() };
    assert_eq!(encode_with(&prompt(1024), OPENAI, &configured)["prompt_cache_key"], "mine");
}
