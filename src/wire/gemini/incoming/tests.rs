//! Tests of the requests of clients.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::types::{
    FailureScope, Media, Message, Part, Reasoning, Role, Signature, Tool, ToolCall, ToolChoice, ToolResult,
    VendorFields,
};
use crate::wire::gemini::encode;
use crate::wire::incoming::equivalence;
use crate::wire::incoming::mutations::{self, UNKNOWN_FIELD};
use crate::wire::incoming::strategies::{self, Abilities};
use crate::wire::{Dialect, fixtures};

const MODEL: &str = "gemini-3.8-flash";

fn encoded(prompt: &Prompt) -> Value {
    serde_json::from_slice(&encode(prompt, MODEL, &Dialect::default()).unwrap().body).unwrap()
}

fn read(body: &Value) -> Result<IncomingRequest, Failure> {
    read_request(body.to_string().as_bytes(), Some(MODEL))
}

/// Reads a request with these fields beside the contents.
fn read_with(fields: Value) -> Result<IncomingRequest, Failure> {
    let mut body = json!({ "contents": [{ "parts": [{ "text": "Hi" }] }] });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    read(&body)
}

fn prompt_with(fields: Value) -> Prompt {
    read_with(fields).unwrap().prompt
}

fn messages(contents: Value) -> Vec<Message> {
    read(&json!({ "contents": contents })).unwrap().prompt.messages
}

fn refusal(result: Result<IncomingRequest, Failure>) -> String {
    let failure = result.unwrap_err();
    assert_eq!(failure.scope, FailureScope::Class);
    failure.message.into()
}

/// Returns the vendor's fields of a prompt.
fn vendor_of(prompt: &Prompt) -> Value {
    let fields = prompt.vendor_fields.first();
    fields.map_or(Value::Null, |fields| Value::Object((*fields.fields).clone()))
}

fn signed(text: &str, value: &str) -> Part {
    Part::Reasoning(Reasoning::new(text).with_signature(Signature::new(Format::Gemini, value)))
}

#[test]
fn the_recorded_requests_are_written_again_as_they_were_read() {
    for name in [
        "gemini_generate_request.json",
        "gemini_generate_request_function_response.json",
        "gemini_generate_request_structured.json",
    ] {
        let recorded = fixtures::json(name);
        let request = read(&recorded).unwrap();
        assert_eq!((&*request.model, request.wants_usage), (MODEL, true));
        assert_eq!(request.prompt.length_limit, LengthLimit::Return);
        assert_eq!(request.prompt.check(), Ok(()));
        assert_eq!(encoded(&request.prompt), recorded, "{name}");
    }
}

#[test]
fn the_path_names_the_model_and_the_method() {
    let body = json!({ "contents": [] });
    let read =
        |path| read_request(body.to_string().as_bytes(), path).map(|read| (read.model, read.is_streamed));
    for (path, model, is_streamed) in [
        ("models/gemini-3.8-flash:streamGenerateContent", MODEL, true),
        ("gemini-3.8-flash:generateContent", MODEL, false),
        ("gemini-3.8-flash", MODEL, false),
        ("tunedModels/mine:streamGenerateContent", "tunedModels/mine", true),
        ("models/a:b", "a:b", false),
    ] {
        assert_eq!(read(Some(path)), Ok((model.to_owned(), is_streamed)), "{path}");
    }
    assert!(read(None).is_err());
    assert_eq!(read_with(json!({ "model": "models/gemini-3.8-flash" })).unwrap().model, MODEL);
    assert!(refusal(read_with(json!({ "model": "models/other" }))).contains("differs from the model"));
}

#[test]
fn names_in_snake_case_are_the_same_fields() {
    let camel = json!({
        "systemInstruction": { "role": "system", "parts": [{ "text": "A" }, { "text": "B" }] },
        "contents": [
            { "role": "user", "parts": [
                { "inlineData": { "mimeType": "audio/wav", "data": "AA==" } },
                { "fileData": { "mimeType": "video/mp4", "fileUri": "u" } },
            ] },
            { "role": "model", "parts": [{ "functionCall": { "name": "f" }, "thoughtSignature": "s" }] },
            { "role": "function", "parts": [{ "functionResponse": { "name": "f", "response": { "n": 1 } } }] },
        ],
        "tools": [{ "functionDeclarations": [{ "name": "f", "parametersJsonSchema": { "type": "object" } }] }],
        "toolConfig": { "functionCallingConfig": { "mode": "ANY", "allowedFunctionNames": ["f"] } },
        "generationConfig": {
            "temperature": 1, "topP": 0.5, "maxOutputTokens": 9, "stopSequences": ["E"], "seed": -7,
            "thinkingConfig": { "thinkingLevel": "low", "includeThoughts": true, "thinkingBudget": null },
            "responseMimeType": "application/json", "responseSchema": { "type": "OBJECT" },
        },
    });
    let names = [
        "systemInstruction",
        "inlineData",
        "mimeType",
        "fileData",
        "fileUri",
        "functionCall",
        "thoughtSignature",
        "functionResponse",
        "functionDeclarations",
        "parametersJsonSchema",
        "toolConfig",
        "functionCallingConfig",
        "allowedFunctionNames",
        "generationConfig",
        "topP",
        "maxOutputTokens",
        "stopSequences",
        "thinkingConfig",
        "thinkingLevel",
        "includeThoughts",
        "thinkingBudget",
        "responseMimeType",
        "responseSchema",
    ];
    let mut snake = camel.to_string();
    for name in names {
        // The quotes keep `functionCall` apart from `functionCallingConfig`.
        snake = snake.replace(&format!("\"{name}\""), &format!("\"{}\"", names::snake_case(name)));
    }
    let request = read(&camel).unwrap();
    assert_eq!(read_request(snake.as_bytes(), Some(MODEL)).unwrap(), request);
    let id = "pointsman_call_0";
    let call = ToolCall::new(id, "f", "{}").with_signature(Signature::new(Format::Gemini, "s"));
    let expected = Prompt {
        system: Some("A".into()),
        messages: vec![
            Message::new(Role::System, [Part::text("B")]),
            Message::new(
                Role::User,
                [Part::Audio(Media::base64("audio/wav", "AA==")), Part::Video(Media::url("video/mp4", "u"))],
            ),
            Message::new(Role::Assistant, [Part::ToolCall(call)]),
            Message::tool([ToolResult::new(id, "{\"n\":1}")]),
        ],
        response_format: ResponseFormat::json(json!({ "type": "object" })),
        max_tokens: Some(9),
        temperature: Some(1.0),
        top_p: Some(0.5),
        stop: vec!["E".into()],
        seed: Some(-7),
        reasoning_effort: Some(ReasoningEffort::Low),
        keep_reasoning: true,
        tools: vec![Tool::new("f", json!({ "type": "object" }))],
        tool_choice: ToolChoice::Tool("f".into()),
        length_limit: LengthLimit::Return,
        ..Prompt::default()
    };
    assert_eq!(request.prompt, expected);
}

#[test]
fn signatures_stay_at_their_parts() {
    let contents = json!([{ "role": "model", "parts": [
        { "text": "", "thoughtSignature": "s0" },
        { "text": "Hm.", "thought": true, "thoughtSignature": "s1" },
        { "text": "Ah.", "thought": true },
        { "text": "1987.", "thoughtSignature": "s2", "thought": false },
        { "text": "", "thoughtSignature": "s3" },
        { "text": "So." },
        { "text": "", "thoughtSignature": "s4" },
        { "functionCall": { "id": "a", "name": "f", "args": { "n": 1 } }, "thoughtSignature": "s5" },
    ] }]);
    let read = messages(contents.clone());
    let call = ToolCall::new("a", "f", "{\"n\":1}").with_signature(Signature::new(Format::Gemini, "s5"));
    let expected = [
        signed("", "s0"),
        signed("Hm.", "s1"),
        Part::Reasoning(Reasoning::new("Ah.")),
        Part::text("1987."),
        signed("", "s2"),
        signed("", "s3"),
        Part::text("So."),
        Part::Reasoning(Reasoning::new("")),
        signed("", "s4"),
        Part::ToolCall(call),
    ];
    assert_eq!(read, [Message::new(Role::Assistant, expected)]);
    let mut sent = contents;
    let parts = sent[0]["parts"].as_array_mut().unwrap();
    // Reasoning without a signature is never sent.
    parts.remove(2);
    parts[2].as_object_mut().unwrap().remove("thought");
    assert_eq!(encoded(&Prompt { messages: read, ..Prompt::default() })["contents"], sent);
}

#[test]
fn the_responses_of_functions_become_a_message_before_the_rest_of_their_content() {
    let call = |name: &str| json!({ "functionCall": { "name": name, "args": {} } });
    let response =
        |name: &str, response: Value| json!({ "functionResponse": { "name": name, "response": response } });
    let read = messages(json!([
        { "role": "model", "parts": [call("f"), call("g"), call("f"), call("f"), call("f")] },
        { "role": "user", "parts": [
            { "text": "Well?" },
            response("g", json!({ "result": "two" })),
            response("f", json!({ "error": "no" })),
            response("f", json!({ "result": "{}" })),
            response("f", json!({ "error": "no", "code": 1 })),
            { "functionResponse": { "name": "f", "parts": [
                { "inlineData": { "mimeType": "image/png", "data": "AA==" } },
                { "inlineData": { "mimeType": "application/pdf", "data": "-_8" } },
            ] } },
        ] },
    ]));
    let id = |number: usize| format!("pointsman_call_{number}");
    let results = [
        ToolResult::new(id(1), "two"),
        ToolResult::error(id(0), "no"),
        ToolResult::new(id(2), "{\"result\":\"{}\"}"),
        ToolResult::new(id(3), "{\"error\":\"no\",\"code\":1}"),
        ToolResult::new(id(4), "{}")
            .with_part(Part::Image(Media::base64("image/png", "AA==")))
            .with_part(Part::Document(Media::base64("application/pdf", "+/8="))),
    ];
    assert_eq!(read[1..], [Message::tool(results), Message::user("Well?")]);
}

#[test]
fn a_mode_is_a_tool_choice() {
    let tools = json!([
        { "functionDeclarations": [{ "name": "f" }] },
        { "functionDeclarations": [{ "name": "g", "description": "d", "parameters": { "type": "OBJECT" } }] },
    ]);
    let read = |config: Value| {
        read_with(json!({ "tools": tools, "toolConfig": { "functionCallingConfig": config } }))
    };
    let f = Tool::new("f", json!({ "type": "object", "properties": {} }));
    let g = Tool::new("g", json!({ "type": "object" })).with_description("d");
    for (config, choice, strict) in [
        (json!({}), ToolChoice::Auto, None),
        (json!({ "mode": "MODE_UNSPECIFIED" }), ToolChoice::Auto, None),
        (json!({ "mode": "AUTO", "allowedFunctionNames": [] }), ToolChoice::Auto, None),
        (json!({ "mode": "VALIDATED" }), ToolChoice::Auto, Some(true)),
        (json!({ "mode": "NONE" }), ToolChoice::None, None),
        (json!({ "mode": "ANY" }), ToolChoice::Required, None),
        (json!({ "mode": "ANY", "allowedFunctionNames": ["g"] }), ToolChoice::Tool("g".into()), None),
        (json!({ "mode": "ANY", "allowedFunctionNames": ["g", "f"] }), ToolChoice::Required, None),
    ] {
        let prompt = read(config).unwrap().prompt;
        assert_eq!(prompt.tool_choice, choice);
        assert_eq!(prompt.tools, [Tool { strict, ..f.clone() }, Tool { strict, ..g.clone() }]);
    }
    let path = "toolConfig.functionCallingConfig";
    let names = "allowedFunctionNames is supported only for one function, or all, and the mode ANY";
    for (config, expected) in [
        (json!({ "mode": "AUTO", "allowedFunctionNames": ["f"] }), format!("{path}.{names}")),
        (json!({ "mode": "VALIDATED", "allowedFunctionNames": ["f"] }), format!("{path}.{names}")),
        (json!({ "mode": "ANY", "allowedFunctionNames": ["f", "h"] }), format!("{path}.{names}")),
        (
            json!({ "mode": "ANY", "allowedFunctionNames": [1] }),
            format!("{path}.allowedFunctionNames[0] must be a string"),
        ),
        (json!({ "mode": "SOME" }), format!("{path}.mode \"SOME\" is not supported")),
    ] {
        assert_eq!(refusal(read(config)), expected);
    }
}

#[test]
fn only_the_reasoning_that_encoding_writes_is_typed() {
    let read = |thinking: &Value| prompt_with(json!({ "generationConfig": { "thinkingConfig": thinking } }));
    for (thinking, effort, keeps) in [
        (json!({ "thinkingLevel": "XHIGH" }), Some(ReasoningEffort::XHigh), false),
        (
            json!({ "thinkingLevel": "minimal", "includeThoughts": false }),
            Some(ReasoningEffort::Minimal),
            false,
        ),
        (json!({ "thinkingBudget": 0 }), Some(ReasoningEffort::None), false),
        (json!({ "includeThoughts": true }), None, true),
    ] {
        let prompt = read(&thinking);
        assert_eq!((prompt.reasoning_effort, prompt.keep_reasoning), (effort, keeps), "{thinking}");
        assert_eq!(vendor_of(&prompt), Value::Null);
    }
    for (thinking, rest) in [
        (json!({ "thinkingBudget": 1024, "includeThoughts": true }), json!({ "thinkingBudget": 1024 })),
        (json!({ "thinkingBudget": 0, "includeThoughts": true }), json!({ "thinkingBudget": 0 })),
        (json!({ "thinkingBudget": -1 }), json!({ "thinkingBudget": -1 })),
        (json!({ "thinkingLevel": "MAX" }), json!({ "thinkingLevel": "MAX" })),
    ] {
        let prompt = read(&thinking);
        assert_eq!(prompt.reasoning_effort, None);
        assert_eq!(vendor_of(&prompt), json!({ "generationConfig": { "thinkingConfig": rest } }));
        assert_eq!(encoded(&prompt)["generationConfig"]["thinkingConfig"], thinking);
    }
}

#[test]
fn what_only_the_vendor_has_stays_with_its_fields() {
    let fields = json!({
        "safetySettings": [{ "category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF" }],
        "cachedContent": "cachedContents/1",
        "tools": [{ "googleSearch": {} }],
        "toolConfig": { "functionCallingConfig": { "mode": "ANY" }, "retrievalConfig": { "languageCode": "de" } },
        "generationConfig": { "topK": 3, "responseMimeType": "text/x.enum", "responseSchema": { "type": "STRING" } },
    });
    let prompt = prompt_with(fields.clone());
    assert_eq!(
        prompt.vendor_fields,
        [VendorFields::new(Format::Gemini, fields.as_object().unwrap().clone())]
    );
    let sent = encoded(&prompt);
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(sent[name], *value);
    }
    let json_mode = json!({ "generationConfig": { "responseMimeType": "application/json" } });
    let prompt = prompt_with(json_mode.clone());
    assert_eq!((prompt.response_format.clone(), vendor_of(&prompt)), (ResponseFormat::Text, json_mode));
    let rest = json!({ "toolConfig": { "retrievalConfig": { "languageCode": "de" } } });
    assert_eq!(vendor_of(&prompt_with(rest.clone())), rest);
    let in_snake_case = prompt_with(json!({ "generation_config": { "top_k": 3, "top_p": 0.5 } }));
    assert_eq!(vendor_of(&in_snake_case), json!({ "generationConfig": { "top_k": 3 } }));
}

#[test]
fn what_cannot_be_carried_is_refused_by_its_place() {
    for (fields, expected) in [
        (json!({ "contents": null }), "contents is missing"),
        (json!({ "contents": "Hi" }), "contents must be a list"),
        (json!({ "contents": ["Hi"] }), "contents[0] must be an object"),
        (json!({ "systemInstruction": "Hi" }), "systemInstruction must be an object"),
        (json!({ "systemInstruction": { "parts": [{}] } }), "systemInstruction.parts[0].text is missing"),
        (json!({ "systemInstruction": { "x": 1 } }), "systemInstruction.x is not supported; remove it"),
        (json!({ "generationConfig": { "topP": "x" } }), "generationConfig.topP must be a number"),
        (
            json!({ "generationConfig": { "stopSequences": [1] } }),
            "generationConfig.stopSequences[0] must be a string",
        ),
        (
            json!({ "generationConfig": { "topP": 1, "top_p": 1 } }),
            "generationConfig.topP is there twice: the other name is top_p",
        ),
        (
            json!({ "generation_config": { "candidate_count": 2 } }),
            "candidateCount must be 1; send one request per answer",
        ),
        (
            json!({ "tools": [{ "functionDeclarations": [{ "name": "f" }] }, { "googleSearch": {} }] }),
            "tools[1].googleSearch is not supported; remove it",
        ),
        (
            json!({ "tools": [{ "functionDeclarations": [{ "name": "f", "behavior": "NON_BLOCKING" }] }] }),
            "tools[0].functionDeclarations[0].behavior is not supported; remove it",
        ),
        (
            json!({ "tools": [{ "functionDeclarations": [
                { "name": "f", "parameters": {}, "parametersJsonSchema": {} },
            ] }] }),
            "tools[0].functionDeclarations[0].parameters is not supported; remove it",
        ),
    ] {
        assert_eq!(refusal(read_with(fields)), expected);
    }
    for (role, part, expected) in [
        ("tool", json!({ "text": "x" }), "role \"tool\" is not supported"),
        ("user", json!({}), "parts[0].text is missing"),
        ("user", json!({ "executableCode": {} }), "parts[0].executableCode is not supported; remove it"),
        ("user", json!({ "text": "x", "thought": true }), "parts[0].thought is not supported; remove it"),
        (
            "user",
            json!({ "text": "x", "thoughtSignature": "s" }),
            "parts[0].thoughtSignature is not supported; remove it",
        ),
        ("user", json!({ "text": "x", "fileData": {} }), "parts[0].fileData is not supported; remove it"),
        ("user", json!({ "fileData": { "fileUri": "u" } }), "parts[0].fileData.mimeType is missing"),
        (
            "user",
            json!({ "inlineData": { "mimeType": "video/mp4", "data": "AA==" }, "videoMetadata": { "fps": 1 } }),
            "parts[0].videoMetadata is not supported; remove it",
        ),
        (
            "user",
            json!({ "inlineData": { "mimeType": "a/b", "data": "AA==", "displayName": "x" } }),
            "parts[0].inlineData.displayName is not supported; remove it",
        ),
        (
            "user",
            json!({ "functionCall": { "name": "f" } }),
            "parts[0].functionCall is not supported; remove it",
        ),
        (
            "user",
            json!({ "functionResponse": { "name": "f", "response": {} } }),
            "parts[0].functionResponse.name \"f\" belongs to no call of a function before it",
        ),
        (
            "model",
            json!({ "functionCall": { "name": "f", "args": [] } }),
            "parts[0].functionCall.args must be an object",
        ),
        (
            "model",
            json!({ "inlineData": { "mimeType": "a/b", "data": "AA==" }, "thoughtSignature": "s" }),
            "parts[0].thoughtSignature is not supported; remove it",
        ),
        ("model", json!({ "functionResponse": {} }), "parts[0].functionResponse is not supported; remove it"),
    ] {
        let body =
            json!({ "contents": [{ "parts": [{ "text": "Hi" }] }, { "role": role, "parts": [part] }] });
        assert_eq!(refusal(read(&body)), format!("contents[1].{expected}"));
    }
}

fn reasoning() -> BoxedStrategy<Reasoning> {
    let signature = || strategies::text().prop_map(|value| Signature::new(Format::Gemini, value));
    let thought = (strategies::text(), signature())
        .prop_map(|(text, signature)| Reasoning::new(text).with_signature(signature));
    let of_text = signature().prop_map(|signature| Reasoning::new("").with_signature(signature));
    prop_oneof![strategies::unsigned_reasoning(), thought, of_text].boxed()
}

fn abilities() -> Abilities {
    Abilities {
        audio: true,
        video: true,
        document_urls: true,
        media_results: true,
        stop: true,
        reasoning_efforts: &[
            ReasoningEffort::None,
            ReasoningEffort::Minimal,
            ReasoningEffort::Low,
            ReasoningEffort::Medium,
            ReasoningEffort::High,
            ReasoningEffort::XHigh,
        ],
        reasoning,
        ..Abilities::common(Format::Gemini)
    }
}

/// Returns prompts that the format can express: system messages are at the beginning, and a seed has 32 bits.
fn prompts() -> impl Strategy<Value = Prompt> {
    (strategies::prompt(abilities()), prop::option::of(any::<i32>())).prop_map(|(mut prompt, seed)| {
        let mut is_leading = true;
        prompt.messages.retain(|message| {
            is_leading &= message.role == Role::System;
            is_leading || message.role != Role::System
        });
        Prompt { seed: seed.map(i64::from), ..prompt }
    })
}

/// Returns a prompt in the form in which the format expresses it.
fn canonical(mut prompt: Prompt) -> Prompt {
    equivalence::drop_unsigned_reasoning(&mut prompt);
    equivalence::merge_system(&mut prompt);
    let mut messages: Vec<Message> = Vec::new();
    for mut message in prompt.messages {
        message.parts.iter_mut().for_each(canonical_part);
        match messages.last_mut() {
            Some(last) if last.role == Role::Tool && message.role == Role::Tool => {
                last.parts.extend(message.parts)
            }
            _ => messages.push(message),
        }
    }
    prompt.messages = messages;
    if prompt.reasoning_effort == Some(ReasoningEffort::None) {
        prompt.keep_reasoning = false;
    }
    if prompt.tools.is_empty() {
        prompt.tool_choice = ToolChoice::Auto;
    }
    // The schemas of all tools are enforced, or of none.
    let is_strict =
        prompt.tool_choice == ToolChoice::Auto && prompt.tools.iter().any(|tool| tool.strict == Some(true));
    prompt.tools.iter_mut().for_each(|tool| tool.strict = is_strict.then_some(true));
    prompt
}

fn canonical_part(part: &mut Part) {
    match part {
        // The format has no names of files.
        Part::Document(media) | Part::Image(media) | Part::Audio(media) | Part::Video(media) => {
            media.name = None
        }
        Part::ToolResult(result) => {
            result.parts.iter_mut().for_each(canonical_part);
            let text_of =
                |part: &Part| if let Part::Text(text) = part { Some(text.to_string()) } else { None };
            let texts = result.parts.iter().filter_map(text_of);
            let text = texts.collect::<Vec<_>>().join("\n\n");
            let text = match serde_json::from_str(&text) {
                Ok(Value::Object(object)) if !result.is_error => Value::Object(object).to_string(),
                _ => text,
            };
            result.parts.retain(|part| !matches!(part, Part::Text(_)));
            result.parts.insert(0, Part::text(text));
        }
        Part::Text(_) | Part::ToolCall(_) | Part::Reasoning(_) => {}
    }
}

const NAMES: &[&str] = &[
    "contents",
    "role",
    "parts",
    "user",
    "model",
    "function",
    "text",
    "thought",
    "thoughtSignature",
    "thought_signature",
    "inlineData",
    "inline_data",
    "fileData",
    "mimeType",
    "mime_type",
    "fileUri",
    "data",
    "image/png",
    "functionCall",
    "function_call",
    "functionResponse",
    "id",
    "name",
    "args",
    "response",
    "result",
    "error",
    "systemInstruction",
    "system_instruction",
    "tools",
    "functionDeclarations",
    "parameters",
    "parametersJsonSchema",
    "type",
    "OBJECT",
    "properties",
    "nullable",
    "propertyOrdering",
    "toolConfig",
    "functionCallingConfig",
    "mode",
    "ANY",
    "VALIDATED",
    "allowedFunctionNames",
    "generationConfig",
    "generation_config",
    "topP",
    "top_p",
    "seed",
    "thinkingConfig",
    "thinkingLevel",
    "thinkingBudget",
    "includeThoughts",
    "responseMimeType",
    "application/json",
    "responseSchema",
    "responseJsonSchema",
    "pointsman_call_0",
];

proptest! {
    #[test]
    fn a_prompt_is_read_as_it_was_written(prompt in prompts()) {
        let sent = encode(&prompt, MODEL, &Dialect::default()).unwrap();
        let path = sent.path.strip_prefix("/v1beta/").and_then(|path| path.strip_suffix("?alt=sse"));
        let request = read_request(&sent.body, path).unwrap();
        prop_assert_eq!((&*request.model, request.is_streamed), (MODEL, true));
        prop_assert_eq!(encoded(&request.prompt), encoded(&prompt));
        prop_assert_eq!(canonical(request.prompt), canonical(prompt));
    }

    #[test]
    fn an_unknown_field_is_carried_or_refused_by_name(prompt in prompts(), at in any::<Index>()) {
        let mut body = encoded(&prompt);
        mutations::add_field(&mut body, at);
        match read(&body) {
            Ok(request) => prop_assert!(encoded(&request.prompt).to_string().contains(UNKNOWN_FIELD), "{body}"),
            Err(failure) => prop_assert!(failure.message.contains(UNKNOWN_FIELD), "{failure}"),
        }
    }

    #[test]
    fn a_changed_body_never_panics(
        prompt in prompts(),
        changes in prop::collection::vec((any::<Index>(), prop::option::of(mutations::json(NAMES))), 1..4),
    ) {
        let mut body = encoded(&prompt);
        for (at, value) in changes {
            mutations::change(&mut body, at, value);
        }
        match read(&body) {
            Ok(request) => {
                let _ = encode(&request.prompt, &request.model, &Dialect::default());
            }
            Err(failure) => prop_assert!(!failure.message.is_empty()),
        }
    }

    #[test]
    fn random_json_never_panics(body in mutations::json(NAMES), bytes in any::<Vec<u8>>(), path in "\\PC{0,9}") {
        let _ = read(&body);
        let _ = read_request(&bytes, Some(&path));
        openapi::to_json_schema(body);
    }
}
