use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::types::{
    Class, FailureScope, Fingerprint, Media, MediaData, Message, Part, Reasoning, ResponseFormat, Role,
    SharedPrefix, Signature, Tool, ToolCall, ToolChoice, ToolResult, VendorFields,
};
use crate::wire::{StructuredOutput, fixtures};

fn body(prompt: &Prompt, dialect: &Dialect) -> Value {
    serde_json::from_slice(&encode(prompt, "gemini-3.8-flash", dialect).unwrap().body).unwrap()
}

fn media(media_type: &str, data: MediaData) -> Media {
    Media { media_type: media_type.into(), name: None, data }
}

fn refused(prompt: &Prompt) -> String {
    let failure = encode(prompt, "gemini-3.8-flash", &Dialect::default()).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Target), "{failure}");
    failure.message.into()
}

fn contents(messages: impl IntoIterator<Item = Message>) -> Value {
    let prompt = Prompt { messages: messages.into_iter().collect(), ..Prompt::default() };
    body(&prompt, &Dialect::default())["contents"].take()
}

fn dropping(parameters: &[DropParameter]) -> Dialect {
    Dialect { drop_parameters: parameters.to_vec(), ..Dialect::default() }
}

fn signed(value: &str) -> Signature {
    Signature::new(Format::Gemini, value)
}

fn tool() -> Tool {
    Tool::new("shelf_lookup", json!({ "type": "object" }))
}

#[test]
fn a_request_carries_everything_as_recorded() {
    let recorded = fixtures::json("gemini_generate_request.json");
    let pixel = recorded.pointer("/contents/0/parts/0/inlineData/data").unwrap().as_str().unwrap();
    let leaflet = recorded.pointer("/contents/0/parts/1/fileData/fileUri").unwrap().as_str().unwrap();
    let declaration = recorded.pointer("/tools/0/functionDeclarations/0").unwrap();
    let tool = Tool::new("shelf_lookup", declaration["parametersJsonSchema"].clone());
    // What only this vendor has.
    let fields = json!({
        "safetySettings": recorded["safetySettings"],
        "generationConfig": { "candidateCount": 1 },
    });
    let prompt = Prompt {
        messages: vec![Message {
            role: Role::User,
            parts: vec![
                Part::Image(media("image/png", MediaData::Base64(pixel.into()))),
                Part::Document(media("application/pdf", MediaData::Url(leaflet.into()))),
                Part::Text("File this cover.".into()),
            ],
        }],
        ..Prompt::default()
    }
    .with_system("You catalogue books for a village library.")
    .with_max_tokens(400)
    .with_temperature(0.2)
    .with_seed(7)
    .with_stop(["END"])
    .with_reasoning_effort(ReasoningEffort::Low)
    .with_tool(tool.with_description("Count copies"))
    .with_vendor_fields(VendorFields::new(Format::Gemini, fields.as_object().unwrap().clone()));
    assert_eq!(body(&prompt, &Dialect::default()), recorded);
}

#[test]
fn the_result_of_a_tool_is_sent_as_recorded() {
    let recorded = fixtures::json("gemini_generate_request_function_response.json");
    let call =
        ToolCall::new("fc1", "shelf_lookup", r#"{"branch":"Arden"}"#).with_signature(signed("Zml4dHVyZQ=="));
    let prompt = Prompt::text("Is it in Arden?")
        .with_message(Message::new(Role::Assistant, [Part::ToolCall(call)]))
        .with_message(Message::tool([ToolResult::new("fc1", r#"{"copies":2}"#)]));
    assert_eq!(prompt.check(), Ok(()));
    assert_eq!(body(&prompt, &Dialect::default()), recorded);
}

#[test]
fn a_result_is_an_object_with_the_name_of_its_call_and_media() {
    let call = || Message::new(Role::Assistant, [Part::ToolCall(ToolCall::new("a", "scan", "{}"))]);
    let response = |result| {
        let mut contents = contents([call(), Message::tool([result])]);
        contents[1]["parts"][0]["functionResponse"].take()
    };
    let json_file = media("application/json", MediaData::Base64("WzFd".into()));
    let scan = media("image/png", MediaData::Base64("iVBO".into()));
    let cases = [
        (ToolResult::new("a", "two"), json!({ "result": "two" })),
        (ToolResult::new("a", "[1]"), json!({ "result": "[1]" })),
        (ToolResult::new("a", r#"{"error":"x"}"#), json!({ "error": "x" })),
        (ToolResult::error("a", "no network"), json!({ "error": "no network" })),
        (ToolResult::error("a", r#"{"code":1}"#), json!({ "error": r#"{"code":1}"# })),
        (ToolResult::new("a", "two").with_part(Part::text("of 3")), json!({ "result": "two\n\nof 3" })),
        (
            ToolResult::new("a", "see:").with_part(Part::Document(json_file)),
            json!({ "result": "see:\n\n[1]" }),
        ),
    ];
    for (result, expected) in cases {
        assert_eq!(response(result), json!({ "id": "a", "name": "scan", "response": expected }));
    }
    assert_eq!(
        response(ToolResult::new("a", "{}").with_part(Part::Image(scan))),
        json!({
            "id": "a", "name": "scan", "response": {},
            "parts": [{ "inlineData": { "mimeType": "image/png", "data": "iVBO" } }],
        })
    );
    let linked = Part::Image(media("image/png", MediaData::Url("https://example.com/a.png".into())));
    let with = |result| Prompt::default().with_message(call()).with_message(Message::tool([result]));
    assert!(refused(&with(ToolResult::new("a", "x").with_part(linked))).contains("no URL in the result"));
    assert!(refused(&with(ToolResult::new("b", "x"))).contains("\"b\" follows no such call"));
}

#[test]
fn results_are_one_content_in_the_order_of_their_calls_without_generated_ids() {
    let call = |id: &str, name: &str| Part::ToolCall(ToolCall::new(id, name, "{}"));
    let calls = Message::new(Role::Assistant, [call("pointsman_call_0", "a"), call("pointsman_call_1", "b")]);
    let result = |id: &str| Message::tool([ToolResult::new(id, id)]);
    let function =
        |name: &str, id: &str| json!({ "functionResponse": { "name": name, "response": { "result": id } } });
    assert_eq!(
        contents([calls, result("pointsman_call_1"), result("pointsman_call_0"), Message::user("So?")]),
        json!([
            { "role": "model", "parts": [
                { "functionCall": { "name": "a", "args": {} } },
                { "functionCall": { "name": "b", "args": {} } },
            ] },
            { "role": "user", "parts": [function("a", "pointsman_call_0"), function("b", "pointsman_call_1")] },
            { "role": "user", "parts": [{ "text": "So?" }] },
        ])
    );
}

#[test]
fn reasoning_is_sent_with_its_own_signature_only() {
    let reasoning =
        |text: &str, value: &str| Part::Reasoning(Reasoning::new(text).with_signature(signed(value)));
    let unsigned = || Part::Reasoning(Reasoning::new("Hm."));
    let parts =
        [reasoning("", "s0"), reasoning("Hm.", "s1"), unsigned(), Part::text("1987."), reasoning("", "s2")];
    let parts =
        parts.into_iter().chain([reasoning("", "s3"), Part::text("So."), unsigned(), reasoning("", "s4")]);
    assert_eq!(
        contents([Message::new(Role::Assistant, parts), Message::new(Role::Assistant, [unsigned()])]),
        json!([{ "role": "model", "parts": [
            { "text": "", "thoughtSignature": "s0" },
            { "text": "Hm.", "thought": true, "thoughtSignature": "s1" },
            { "text": "1987.", "thoughtSignature": "s2" },
            { "text": "", "thoughtSignature": "s3" },
            { "text": "So." },
            { "text": "", "thoughtSignature": "s4" },
        ] }])
    );
    let other = || Signature::new(Format::Anthropic, "s");
    for part in [
        Part::Reasoning(Reasoning::new("Hm.").with_signature(other())),
        Part::ToolCall(ToolCall::new("a", "scan", "{}").with_signature(other())),
    ] {
        let prompt = Prompt::default().with_message(Message::new(Role::Assistant, [Part::text("So."), part]));
        assert!(refused(&prompt).contains("cannot express reasoning"));
        let dropped = body(&prompt, &dropping(&[DropParameter::Reasoning])).to_string();
        assert!(
            dropped.contains("So.") && !dropped.contains("Signature") && !dropped.contains("Hm."),
            "{dropped}"
        );
    }
    let call = ToolCall::new("a", "scan", "{}").with_signature(signed("kept"));
    let prompt = Prompt::default().with_message(Message::new(Role::Assistant, [Part::ToolCall(call)]));
    assert!(body(&prompt, &dropping(&[DropParameter::Reasoning])).to_string().contains("kept"));
}

#[test]
fn leading_system_messages_are_instructions_and_later_ones_are_refused() {
    let system = |text: &str| Message::new(Role::System, [Part::text(text)]);
    let mut prompt = Prompt { messages: vec![system("Two.")], ..Prompt::default() };
    prompt = prompt.with_system("One.").with_message(Message::user("Hi"));
    let sent = body(&prompt, &Dialect::default());
    assert_eq!(sent["systemInstruction"], json!({ "parts": [{ "text": "One." }, { "text": "Two." }] }));
    assert_eq!(sent["contents"], json!([{ "role": "user", "parts": [{ "text": "Hi" }] }]));
    assert!(refused(&prompt.with_message(system("Three."))).contains("only at the beginning"));
    let image = Part::Image(media("image/png", MediaData::Base64("iVBO".into())));
    let prompt = Prompt { messages: vec![Message::new(Role::System, [image])], ..Prompt::default() };
    assert!(refused(&prompt).contains("only text in system messages"));
}

#[test]
fn a_part_in_the_message_of_another_author_is_refused() {
    let call = || Part::ToolCall(ToolCall::new("a", "scan", "{}"));
    let broken = Part::ToolCall(ToolCall::new("a", "scan", "7"));
    for message in [
        Message::new(Role::User, [call()]),
        Message::new(Role::User, [Part::Reasoning(Reasoning::new("Hm."))]),
        Message::new(Role::Assistant, [Part::ToolResult(ToolResult::new("a", "x"))]),
        Message::new(Role::Tool, [Part::text("x")]),
        Message::new(Role::Assistant, [broken]),
    ] {
        refused(&Prompt::default().with_message(message));
    }
}

#[test]
fn a_tool_choice_is_a_mode() {
    let config = |prompt: Prompt| body(&prompt, &Dialect::default())["toolConfig"].take();
    let mode = |mode: &str| json!({ "functionCallingConfig": { "mode": mode } });
    let with = |choice| Prompt::text("x").with_tool(tool()).with_tool_choice(choice);
    assert_eq!(config(with(ToolChoice::Auto)), mode("AUTO"));
    assert_eq!(config(with(ToolChoice::None)), mode("NONE"));
    assert_eq!(config(with(ToolChoice::Required)), mode("ANY"));
    assert_eq!(
        config(with(ToolChoice::Tool("shelf_lookup".into()))),
        json!({ "functionCallingConfig": { "mode": "ANY", "allowedFunctionNames": ["shelf_lookup"] } })
    );
    for (strict, choice, expected) in [
        (true, ToolChoice::Auto, "VALIDATED"),
        (false, ToolChoice::Auto, "AUTO"),
        (true, ToolChoice::Required, "ANY"),
        (true, ToolChoice::None, "NONE"),
    ] {
        let prompt = Prompt::text("x").with_tool(tool().with_strict(strict)).with_tool_choice(choice);
        assert_eq!(config(prompt), mode(expected));
    }
    assert_eq!(config(Prompt::text("x")), Value::Null);
    assert_eq!(config(Prompt::text("x").with_tool_choice(ToolChoice::None)), Value::Null);
    let required = Prompt::text("x").with_tool_choice(ToolChoice::Required);
    assert!(refused(&required).contains("there are no tools for Gemini's format"));
    let fields = json!({ "tools": [{ "googleSearch": {} }] }).as_object().unwrap().clone();
    let of = |format| required.clone().with_vendor_fields(VendorFields::new(format, fields.clone()));
    assert_eq!(config(of(Format::Gemini)), mode("ANY"));
    assert!(refused(&of(Format::Openai)).contains("there are no tools for Gemini's format"));
}

#[test]
fn reasoning_is_configured_by_level_and_budget() {
    let thinking = |effort: ReasoningEffort, keep: bool| {
        let prompt = Prompt::text("x").with_reasoning_effort(effort).with_keep_reasoning(keep);
        body(&prompt, &Dialect::default())["generationConfig"]["thinkingConfig"].take()
    };
    for (effort, level) in [
        (ReasoningEffort::Minimal, "MINIMAL"),
        (ReasoningEffort::Low, "LOW"),
        (ReasoningEffort::Medium, "MEDIUM"),
        (ReasoningEffort::High, "HIGH"),
        (ReasoningEffort::XHigh, "XHIGH"),
    ] {
        assert_eq!(thinking(effort, false), json!({ "thinkingLevel": level }));
        assert_eq!(thinking(effort, true), json!({ "thinkingLevel": level, "includeThoughts": true }));
    }
    assert_eq!(thinking(ReasoningEffort::None, true), json!({ "thinkingBudget": 0 }));
    let kept = body(&Prompt::text("x").with_keep_reasoning(true), &Dialect::default());
    assert_eq!(kept["generationConfig"], json!({ "thinkingConfig": { "includeThoughts": true } }));
    let max = Prompt::text("x").with_reasoning_effort(ReasoningEffort::Max);
    assert!(refused(&max).contains("cannot express reasoning_effort"));
    let dropped = body(&max, &dropping(&[DropParameter::ReasoningEffort]));
    assert_eq!(dropped.get("generationConfig"), None);
}

#[test]
fn what_the_format_cannot_express_is_refused_by_name_or_dropped() {
    let user = Prompt::text("x").with_user("u1");
    assert!(refused(&user).contains("cannot express user"));
    let single = Prompt::text("x").with_parallel_tool_calls(false);
    assert!(refused(&single).contains("cannot express parallel_tool_calls"));
    let plain = body(&Prompt::text("x"), &Dialect::default());
    assert_eq!(body(&user, &dropping(&[DropParameter::User])), plain);
    assert_eq!(body(&single, &dropping(&[DropParameter::ParallelToolCalls])), plain);
    assert_eq!(body(&Prompt::text("x").with_parallel_tool_calls(true), &Dialect::default()), plain);
    assert!(refused(&Prompt::text("x").with_seed(1 << 31)).contains("2147483648"));
}

#[test]
fn sampling_settings_are_sent_unless_the_configuration_drops_them() {
    let prompt =
        Prompt::text("x").with_temperature(0.5).with_top_p(0.9).with_seed(-7).with_stop(["END", "STOP"]);
    let sent = |dropped: &[DropParameter]| body(&prompt, &dropping(dropped))["generationConfig"].take();
    let all = json!({ "temperature": 0.5, "topP": 0.9, "seed": -7, "stopSequences": ["END", "STOP"] });
    assert_eq!(sent(&[]), all);
    for (parameter, field) in [
        (DropParameter::Temperature, "temperature"),
        (DropParameter::TopP, "topP"),
        (DropParameter::Seed, "seed"),
        (DropParameter::Stop, "stopSequences"),
    ] {
        let mut expected = all.clone();
        expected.as_object_mut().unwrap().remove(field);
        assert_eq!(sent(&[parameter]), expected);
    }
}

#[test]
fn a_video_is_sent_as_its_content_or_its_url() {
    let video = |data| Message::new(Role::User, [Part::Video(media("video/mp4", data))]);
    assert_eq!(
        contents([
            video(MediaData::Base64("AAAA".into())),
            video(MediaData::Url("https://example.com/tide.mp4".into())),
        ]),
        json!([
            { "role": "user", "parts": [{ "inlineData": { "mimeType": "video/mp4", "data": "AAAA" } }] },
            { "role": "user", "parts": [
                { "fileData": { "mimeType": "video/mp4", "fileUri": "https://example.com/tide.mp4" } },
            ] },
        ])
    );
}

#[test]
fn a_schema_is_sent_as_recorded() {
    let recorded = fixtures::json("gemini_generate_request_structured.json");
    let schema = recorded.pointer("/generationConfig/responseJsonSchema").unwrap().clone();
    let prompt = Prompt {
        response_format: ResponseFormat::Json(Arc::new(schema)),
        ..Prompt::text("File 'The Salt Harvest' (1987).")
    };
    assert_eq!(body(&prompt, &Dialect::default()), recorded);
}

#[test]
fn json_mode_is_requested_by_mime_type_and_in_the_prompt() {
    let prompt = Prompt {
        response_format: ResponseFormat::Json(Arc::new(json!({"type": "object"}))),
        ..Prompt::text("Count.")
    };
    let body_with =
        |structured| body(&prompt, &Dialect { structured_output: structured, ..Dialect::default() });
    let json_only = body_with(StructuredOutput::Json);
    assert_eq!(json_only["generationConfig"], json!({"responseMimeType": "application/json"}));
    let instruction = json_only.pointer("/systemInstruction/parts/0/text").unwrap().as_str().unwrap();
    assert!(instruction.contains(r#"{"type":"object"}"#), "{instruction}");
    assert_eq!(body_with(StructuredOutput::Prompt).get("generationConfig"), None);
}

#[test]
fn a_text_document_that_the_vendor_rejects_as_a_file_is_sent_as_text() {
    let part = |media_type: &str| {
        let document = Part::Document(media(media_type, MediaData::Base64("TG93Lg==".into())));
        let message = Message { role: Role::User, parts: vec![document] };
        let body = body(&Prompt { messages: vec![message], ..Prompt::default() }, &Dialect::default());
        body["contents"][0]["parts"][0].clone()
    };
    for text in ["application/json", "application/xml", "text/markdown", "text/xml"] {
        assert_eq!(part(text), json!({ "text": "Low." }), "{text}");
    }
    for file in ["text/plain", "text/csv", "text/html", "application/pdf"] {
        assert_eq!(part(file)["inlineData"]["mimeType"], file);
    }
}

#[test]
fn a_conversation_keeps_its_messages_and_audio() {
    let audio = Part::Audio(media("audio/wav", MediaData::Base64("UklGRg==".into())));
    let prompt = Prompt {
        messages: vec![
            Message::user("Is it in Arden?"),
            Message::assistant("Let me look."),
            Message { role: Role::User, parts: vec![audio] },
        ],
        ..Prompt::default()
    };
    assert_eq!(
        body(&prompt, &Dialect::default()),
        json!({"contents": [
            {"role": "user", "parts": [{"text": "Is it in Arden?"}]},
            {"role": "model", "parts": [{"text": "Let me look."}]},
            {"role": "user", "parts": [{"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}]},
        ]})
    );
}

#[test]
fn the_path_contains_version_and_model() {
    let path = |model: &str, version: Option<&str>, stream| {
        let dialect = Dialect { api_version: version.map(str::to_owned), stream, ..Dialect::default() };
        encode(&Prompt::text("Hi"), model, &dialect).unwrap().path
    };
    let cases = [
        ("gemini-3.8-flash", None, "/v1beta/models/gemini-3.8-flash"),
        ("models/gemini-3.8-flash", Some("v1"), "/v1/models/gemini-3.8-flash"),
        ("tunedModels/mine", None, "/v1beta/tunedModels/mine"),
        ("a b?key=c#d:é", None, "/v1beta/models/a%20b%3Fkey%3Dc%23d%3A%C3%A9"),
        ("", None, "/v1beta/models/"),
    ];
    for (model, version, expected) in cases {
        let streamed = path(model, version, StreamSupport::Auto);
        assert_eq!(streamed, format!("{expected}:streamGenerateContent?alt=sse"));
        assert_eq!(path(model, version, StreamSupport::Never), format!("{expected}:generateContent"));
    }
}

#[test]
fn only_the_path_of_a_request_without_a_stream_differs() {
    let prompt = Prompt::text("Hi").with_tool(tool()).with_temperature(0.5);
    let whole = Dialect { stream: StreamSupport::Never, ..Dialect::default() };
    assert_eq!(body(&prompt, &whole), body(&prompt, &Dialect::default()));
}

#[test]
fn the_key_is_sensitive_and_must_be_valid_in_a_header() {
    let (name, value) = authorization(&Secret::from("AIza1".to_owned())).unwrap();
    assert_eq!(
        (name.as_str(), value.as_bytes(), value.is_sensitive()),
        ("x-goog-api-key", &b"AIza1"[..], true)
    );
    let failure = authorization(&Secret::from("AIza\n1".to_owned())).unwrap_err();
    assert_eq!(failure.class, Class::Auth);
    assert!(!failure.message.contains("AIza"));
}

#[test]
fn only_a_long_constant_text_before_attachments_changes_a_request() {
    let image = || Part::Image(media("image/png", MediaData::Base64("iVBO".into())));
    let prefix =
        |text_bytes, tokens| SharedPrefix::new(Fingerprint([1; 16]), tokens).with_text_bytes(text_bytes);
    let sent = |prompt: &Prompt| body(prompt, &Dialect::default());
    let long = "x".repeat(1024);
    let parts = [image(), Part::text(format!("{long} Hello.")), image()];
    let prompt = Prompt { messages: vec![Message::new(Role::User, parts)], ..Prompt::default() }
        .with_message(Message::assistant("A"))
        .with_message(Message::user("Sure?"));
    let plain = sent(&prompt);
    for (text_bytes, tokens) in [(1023, 4096), (1024, 4095), (0, 4096), (9999, 4096)] {
        assert_eq!(sent(&prompt.clone().with_shared_prefix(prefix(text_bytes, tokens))), plain);
    }
    let image = json!({ "inlineData": { "mimeType": "image/png", "data": "iVBO" } });
    let mut expected = plain;
    expected["contents"][0]["parts"] = json!([{ "text": long }, image, { "text": " Hello." }, image]);
    assert_eq!(sent(&prompt.with_shared_prefix(prefix(1024, 4096))), expected);

    let text = Prompt::text(format!("{long} Hello.")).with_system("Be brief.");
    assert_eq!(sent(&text.clone().with_shared_prefix(prefix(1024, 4096))), sent(&text));
}
