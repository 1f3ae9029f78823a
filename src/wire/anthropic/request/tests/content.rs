//! Tests of the turns of a conversation: tool calls and their results, reasoning, system messages.

use super::*;
use crate::types::{FailureScope, Reasoning as ReasoningPart, Signature, ToolCall, ToolResult};

fn with_messages(messages: impl IntoIterator<Item = Message>) -> Prompt {
    Prompt { messages: messages.into_iter().collect(), ..Prompt::default() }
}

fn turns(messages: impl IntoIterator<Item = Message>) -> Value {
    body(&with_messages(messages), &Dialect::default())["messages"].take()
}

fn refusal_of(prompt: &Prompt) -> String {
    let failure = encode(prompt, "m", &Dialect::default()).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Target));
    failure.message.into()
}

fn dropping(parameter: DropParameter) -> Dialect {
    Dialect { drop_parameters: vec![parameter], ..Dialect::default() }
}

fn assistant(parts: impl IntoIterator<Item = Part>) -> Message {
    Message::new(Role::Assistant, parts)
}

fn system(text: &str) -> Message {
    Message::new(Role::System, [Part::text(text)])
}

#[test]
fn a_tool_call_and_its_result_are_sent_as_recorded() {
    let mut recorded = fixtures::json("anthropic_messages_request_tool_result.json");
    let call = ToolCall::new("toolu_01Fix", "shelf_lookup", r#"{ "branch": "Arden" }"#);
    let prompt = Prompt::text("Is it in Arden?")
        .with_message(assistant([Part::text("Let me look."), Part::ToolCall(call)]))
        .with_message(Message::tool([ToolResult::new("toolu_01Fix", r#"{"copies":2}"#)]))
        .with_tool(Tool::new("shelf_lookup", recorded["tools"][0]["input_schema"].clone()))
        .with_max_tokens(300);
    let result = recorded["messages"][2]["content"][0].as_object_mut().unwrap();
    assert_eq!(result.remove("is_error"), Some(json!(false)));
    recorded["stream"] = json!(true);
    assert_eq!(body(&prompt, &Dialect::default()), recorded);
}

#[test]
fn the_results_of_parallel_calls_are_blocks_of_one_turn() {
    let pixel = Part::Image(media("image/png", MediaData::Base64("iVBO".into()), None));
    let leaflet = Part::Document(media("application/pdf", MediaData::Base64("JVBE".into()), None));
    let results = [
        ToolResult::new("b", "rain").with_part(pixel).with_part(leaflet),
        ToolResult::error("a", "no data"),
        ToolResult { parts: Vec::new(), ..ToolResult::new("c", "") },
    ];
    let calls = ["a", "b", "c"].map(|id| Part::ToolCall(ToolCall::new(id, "weather", "{}")));
    let sent =
        turns([Message::user("Umbrella?"), assistant(calls), Message::tool(results), Message::user("Well?")]);
    let third = json!({ "type": "tool_use", "id": "c", "name": "weather", "input": {} });
    assert_eq!(sent[1]["content"][2], third);
    let source =
        |media_type: &str, data: &str| json!({ "type": "base64", "media_type": media_type, "data": data });
    let expected = json!([
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "content": [
                { "type": "text", "text": "rain" },
                { "type": "image", "source": source("image/png", "iVBO") },
                { "type": "document", "source": source("application/pdf", "JVBE") },
            ],
        },
        { "type": "tool_result", "tool_use_id": "a", "content": "no data", "is_error": true },
        { "type": "tool_result", "tool_use_id": "c" },
    ]);
    assert_eq!(sent[2], json!({ "role": "user", "content": expected }));
    assert_eq!(sent[3], json!({ "role": "user", "content": "Well?" }));
}

#[test]
fn the_numbers_of_arguments_stay_as_written() {
    let sent = |arguments: &str| {
        let prompt = with_messages([assistant([Part::ToolCall(ToolCall::new("a", "f", arguments))])]);
        let request = encode(&prompt, "m", &Dialect::default()).unwrap();
        String::from_utf8(request.body.to_vec()).unwrap().contains(&format!("\"input\":{arguments}"))
    };
    assert!(sent(r#"{"n":18446744073709551615,"f":-1.5}"#));
    if cfg!(feature = "exact-numbers") {
        assert!(sent(r#"{"n":12345678901234567890123,"f":1.10}"#));
    }
}

#[test]
fn arguments_that_are_no_object_are_refused() {
    for arguments in ["", "[]", "{\"city\":"] {
        let call = Part::ToolCall(ToolCall::new("a", "weather", arguments));
        let message = refusal_of(&with_messages([assistant([call])]));
        assert_eq!(message, "the arguments of the call of \"weather\" are not a JSON object");
    }
}

#[test]
fn signed_reasoning_is_sent_back_unchanged_and_unsigned_reasoning_is_not_sent() {
    let signed = ReasoningPart::new("Hm.").with_signature(Signature::new(Format::Anthropic, "c2ln"));
    let omitted = ReasoningPart::new("").with_signature(Signature::new(Format::Anthropic, "b21p"));
    let redacted = ReasoningPart::new("").with_signature(Signature::redacted("aGlk"));
    let parts = [signed, omitted, redacted, ReasoningPart::new("only for the reader")].map(Part::Reasoning);
    let sent = turns([assistant(parts.into_iter().chain([Part::text("Yes.")]))]);
    let expected = json!([
        { "type": "thinking", "thinking": "Hm.", "signature": "c2ln" },
        { "type": "thinking", "thinking": "", "signature": "b21p" },
        { "type": "redacted_thinking", "data": "aGlk" },
        { "type": "text", "text": "Yes." },
    ]);
    assert_eq!(sent, json!([{ "role": "assistant", "content": expected }]));

    let unsigned = || Part::Reasoning(ReasoningPart::new("Hm."));
    let sent = turns([assistant([unsigned()]), assistant([unsigned(), Part::text("Yes.")])]);
    assert_eq!(sent, json!([{ "role": "assistant", "content": "Yes." }]));
}

#[test]
fn what_another_vendor_has_signed_is_refused_or_dropped() {
    for format in [Format::Openai, Format::OpenaiResponses, Format::Gemini] {
        let signature = || Signature::new(format, "opaque");
        let reasoning = Part::Reasoning(ReasoningPart::new("Hm.").with_signature(signature()));
        let call = Part::ToolCall(ToolCall::new("a", "weather", "{}").with_signature(signature()));
        for part in [reasoning.clone(), call.clone()] {
            let message = refusal_of(&with_messages([assistant([part])]));
            assert!(message.starts_with("Anthropic's format cannot express reasoning;"), "{message}");
        }
        let prompt = with_messages([assistant([reasoning, call])]);
        let sent = &body(&prompt, &dropping(DropParameter::Reasoning))["messages"][0]["content"];
        assert_eq!(*sent, json!([{ "type": "tool_use", "id": "a", "name": "weather", "input": {} }]));
    }
}

#[test]
fn leading_system_messages_are_added_to_the_system_prompt() {
    let prompt = |system_prompt: Option<&str>, leading: &[&str]| {
        let leading = leading.iter().map(|text| system(text));
        let messages = leading.chain([Message::user("Hi")]).collect();
        Prompt { system: system_prompt.map(Arc::from), messages, ..Prompt::default() }
    };
    let block = |text: &str| json!({ "type": "text", "text": text });
    for (system_prompt, leading, expected) in [
        (None, vec!["Be brief."], json!("Be brief.")),
        (Some("Be brief."), vec![], json!("Be brief.")),
        (
            Some("Be brief."),
            vec!["Be kind.", "Rhyme."],
            json!(["Be brief.", "Be kind.", "Rhyme."].map(block)),
        ),
    ] {
        let sent = body(&prompt(system_prompt, &leading), &Dialect::default());
        assert_eq!(sent["system"], expected);
        assert_eq!(sent["messages"], json!([{ "role": "user", "content": "Hi" }]));
    }
    assert_eq!(body(&prompt(None, &[]), &Dialect::default()).get("system"), None);

    let choice = ResponseFormat::choice(["A", "B"]);
    let choice = prompt(Some("Be brief."), &["Be kind."]).with_response_format(choice);
    let sent = body(&choice, &Dialect::default());
    let last = sent["system"][2]["text"].as_str().unwrap();
    assert!(last.ends_with("Answer with exactly one of: A, B"), "{last}");
}

#[test]
fn a_later_system_message_stays_in_its_place() {
    let later = Message::new(Role::System, [Part::text("Now in French."), Part::text("Briefly.")]);
    let prompt = with_messages([system("Be kind."), Message::user("Hi"), system("Hurry."), later]);
    let sent = body(&prompt, &Dialect::default());
    assert_eq!(sent["system"], "Be kind.");
    let expected = json!([
        { "role": "user", "content": "Hi" },
        { "role": "system", "content": "Hurry." },
        {
            "role": "system",
            "content": [
                { "type": "text", "text": "Now in French." },
                { "type": "text", "text": "Briefly." },
            ],
        },
    ]);
    assert_eq!(sent["messages"], expected);
}

#[test]
fn a_system_message_contains_only_text() {
    let image = || Part::Image(media("image/png", MediaData::Base64("iVBO".into()), None));
    let with_image = || Message::new(Role::System, [Part::text("See:"), image()]);
    for messages in [vec![with_image()], vec![Message::user("Hi"), with_image()]] {
        assert!(refusal_of(&with_messages(messages)).contains("only text in a system message"));
    }
}

#[test]
fn media_that_the_format_does_not_support_are_named() {
    for (part, name) in [
        (Part::Audio(media("audio/wav", MediaData::Base64("UklG".into()), None)), "audio"),
        (Part::Video(media("video/mp4", MediaData::Url("https://example.invalid/a".into()), None)), "video"),
    ] {
        let in_message = with_messages([Message::new(Role::User, [part.clone()])]);
        let in_result = with_messages([Message::tool([ToolResult::new("a", "x").with_part(part)])]);
        for prompt in [in_message, in_result] {
            let expected = format!("Anthropic's format does not support {name}; use another provider");
            assert_eq!(refusal_of(&prompt), expected);
        }
    }
}
