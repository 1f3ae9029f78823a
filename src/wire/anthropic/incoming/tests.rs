//! Tests of the requests of clients.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::types::{
    CacheTtl, FailureScope, Media, MediaData, Message, Part, Reasoning, Role, Signature, ToolCall,
    ToolResult, VendorFields,
};
use crate::wire::anthropic::encode;
use crate::wire::incoming::equivalence;
use crate::wire::incoming::mutations::{self, UNKNOWN_FIELD};
use crate::wire::incoming::strategies::{self, Abilities};
use crate::wire::{Dialect, fixtures};

fn encoded(prompt: &Prompt) -> Value {
    serde_json::from_slice(&encode(prompt, "claude-haiku-5-5", &Dialect::default()).unwrap().body).unwrap()
}

fn read(body: &Value) -> Result<IncomingRequest, Failure> {
    read_request(body.to_string().as_bytes(), None)
}

/// Reads a request with these fields beside the model and the messages.
fn read_with(fields: Value) -> Result<IncomingRequest, Failure> {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }] });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    read(&body)
}

fn prompt_with(fields: Value) -> Prompt {
    read_with(fields).unwrap().prompt
}

fn with_messages(messages: Value) -> Value {
    json!({ "model": "m", "messages": messages })
}

fn messages(messages: Value) -> Vec<Message> {
    read(&with_messages(messages)).unwrap().prompt.messages
}

fn refusal(result: Result<IncomingRequest, Failure>) -> String {
    let failure = result.unwrap_err();
    assert_eq!(failure.scope, FailureScope::Class);
    failure.message.into()
}

fn vendor(fields: &Value) -> Vec<VendorFields> {
    vec![VendorFields::new(Format::Anthropic, fields.as_object().unwrap().clone())]
}

/// Returns the vendor's fields of a prompt.
fn vendor_of(prompt: &Prompt) -> Value {
    let fields = prompt.vendor_fields.first();
    fields.map_or(Value::Null, |fields| Value::Object((*fields.fields).clone()))
}

#[test]
fn the_recorded_requests_are_written_again_as_they_were_read() {
    let mut recorded = fixtures::json("anthropic_messages_request.json");
    assert_eq!(refusal(read(&recorded)), "messages[0].content[3].citations is not supported; remove it");
    recorded["messages"][0]["content"][3].as_object_mut().unwrap().remove("citations");
    let request = read(&recorded).unwrap();
    assert_eq!(
        (&*request.model, request.is_streamed, request.wants_usage),
        ("claude-haiku-5-5", false, true)
    );
    assert_eq!(request.prompt.length_limit, LengthLimit::Return);
    assert_eq!(request.prompt.check(), Ok(()));
    // Five minutes are the vendor's default.
    recorded["system"][0]["cache_control"].as_object_mut().unwrap().remove("ttl");
    recorded["stream"] = json!(true);
    assert_eq!(encoded(&request.prompt), recorded);

    let mut recorded = fixtures::json("anthropic_messages_request_structured.json");
    let request = read(&recorded).unwrap();
    recorded["stream"] = json!(true);
    assert_eq!(encoded(&request.prompt), recorded);

    let mut recorded = fixtures::json("anthropic_messages_request_tool_result.json");
    let request = read(&recorded).unwrap();
    assert_eq!(request.prompt.check(), Ok(()));
    recorded["messages"][2]["content"][0].as_object_mut().unwrap().remove("is_error");
    recorded["stream"] = json!(true);
    assert_eq!(encoded(&request.prompt), recorded);
}

#[test]
fn the_results_of_tools_become_a_message_before_the_rest_of_their_turn() {
    let caller = json!({ "type": "direct" });
    let call = |id: &str| json!({ "type": "tool_use", "id": id, "name": "f", "input": { "n": 1 }, "caller": caller });
    let read = messages(json!([
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": [
            { "type": "thinking", "thinking": "Hm.", "signature": "s1" },
            { "type": "redacted_thinking", "data": "d1" },
            { "type": "thinking", "thinking": "Ah.", "signature": "" },
            { "type": "text", "text": "Wait.", "citations": null },
            call("a"), call("b"),
        ] },
        { "role": "user", "content": [
            { "type": "text", "text": "Well?", "citations": [] },
            { "type": "tool_result", "tool_use_id": "b" },
            { "type": "tool_result", "tool_use_id": "a", "is_error": true, "content": [
                { "type": "text", "text": "no" },
                { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AA==" } },
            ] },
        ] },
        { "role": "system", "content": [{ "type": "text", "text": "Be brief." }] },
    ]));
    let reasoning = |text: &str| Reasoning::new(text);
    let expected = [
        Message::user("Hi"),
        Message::new(
            Role::Assistant,
            [
                Part::Reasoning(reasoning("Hm.").with_signature(Signature::new(Format::Anthropic, "s1"))),
                Part::Reasoning(reasoning("").with_signature(Signature::redacted("d1"))),
                Part::Reasoning(reasoning("Ah.")),
                Part::text("Wait."),
                Part::ToolCall(ToolCall::new("a", "f", "{\"n\":1}")),
                Part::ToolCall(ToolCall::new("b", "f", "{\"n\":1}")),
            ],
        ),
        Message::tool([
            ToolResult { parts: Vec::new(), ..ToolResult::new("b", "") },
            ToolResult::error("a", "no").with_part(Part::Image(Media::base64("image/png", "AA=="))),
        ]),
        Message::user("Well?"),
        Message::new(Role::System, [Part::text("Be brief.")]),
    ];
    assert_eq!(read, expected);
}

#[test]
fn documents_and_images_have_the_type_of_their_source() {
    let read = messages(json!([{ "role": "user", "content": [
        { "type": "image", "source": { "type": "url", "url": "https://example.com/a" } },
        { "type": "document", "source": { "type": "url", "url": "https://example.com/a" }, "title": "a" },
        { "type": "document", "source": { "type": "text", "media_type": "text/plain", "data": "é" },
          "citations": { "enabled": false }, "context": null },
    ] }]));
    let url = || MediaData::Url("https://example.com/a".into());
    let expected = [
        Part::Image(Media { media_type: "image/*".into(), name: None, data: url() }),
        Part::Document(Media { media_type: "application/pdf".into(), name: Some("a".into()), data: url() }),
        Part::Document(Media::bytes("text/plain", "é".as_bytes())),
    ];
    assert_eq!(read, [Message::new(Role::User, expected)]);
}

#[test]
fn the_blocks_of_the_system_prompt_stay_apart() {
    assert_eq!(prompt_with(json!({ "system": "A" })).system.as_deref(), Some("A"));
    let block = |text: &str| json!({ "type": "text", "text": text });
    let prompt = prompt_with(json!({ "system": [block("A"), block("B"), block("C")] }));
    assert_eq!(prompt.system.as_deref(), Some("A"));
    assert_eq!(prompt.messages[0], Message::new(Role::System, [Part::text("B"), Part::text("C")]));
    assert_eq!(encoded(&prompt)["system"], json!([block("A"), block("B"), block("C")]));
    assert_eq!(prompt_with(json!({ "system": [] })), prompt_with(json!({})));
}

#[test]
fn the_marks_of_the_cache_are_kept_at_the_shared_beginning_and_at_the_end() {
    let mark = json!({ "type": "ephemeral" });
    let hour = json!({ "type": "ephemeral", "ttl": "1h" });
    let block = |text: &str, mark: &Value| json!({ "type": "text", "text": text, "cache_control": mark });
    let plain = |text: &str| json!({ "type": "text", "text": text });
    let schema = json!({ "type": "object" });
    let tool = |mark: &Value| json!([{ "name": "f", "input_schema": schema, "cache_control": mark }]);
    let user = |content: Value| json!({ "role": "user", "content": content });
    let answer = json!({ "role": "assistant", "content": "A" });

    // The tools, the system prompt, or the first text.
    let kept = [
        json!({ "model": "m", "tools": tool(&hour), "messages": [user(json!("Hi"))] }),
        json!({ "model": "m", "system": [plain("A"), block("B", &mark)], "messages": [user(json!("Hi"))] }),
        json!({ "model": "m", "messages": [user(json!([block("A", &hour), plain("B")]))] }),
        json!({ "model": "m", "messages": [user(json!([block("A", &hour)]))] }),
        json!({ "model": "m", "cache_control": mark, "messages": [user(json!("Hi"))] }),
    ];
    for mut body in kept {
        let request = read(&body).unwrap();
        body["model"] = json!("claude-haiku-5-5");
        body["max_tokens"] = json!(4096);
        body["stream"] = json!(true);
        assert_eq!(encoded(&request.prompt), body);
    }

    // The system prompt, and the end of the conversation.
    for content in [json!([block("Hi", &mark)]), json!([plain("A"), block("Hi", &mark)])] {
        let body = json!({ "model": "m", "system": [block("A", &hour)], "messages": [user(content)] });
        let prompt = read(&body).unwrap().prompt;
        let prefix = prompt.shared_prefix.unwrap();
        assert_eq!((prefix.ttl, prefix.text_bytes), (CacheTtl::OneHour, 0));
        assert_eq!(vendor_of(&prompt), json!({ "cache_control": mark }));
    }

    // The first text of a longer conversation; the end has no mark, and the marks between are dropped.
    let body = json!({ "model": "m", "system": [block("A", &mark)], "messages": [
        user(json!([block("Long.", &hour), plain("Hi")])), answer, user(json!([block("B", &mark)])), answer,
    ] });
    let prompt = read(&body).unwrap().prompt;
    assert_eq!(prompt.shared_prefix.unwrap().text_bytes, 5);
    assert_eq!(prompt.shared_prefix.unwrap().ttl, CacheTtl::OneHour);
    assert_eq!(vendor_of(&prompt), Value::Null);

    // A mark that encoding would put elsewhere.
    for body in [
        json!({ "model": "m", "system": [block("A", &mark), plain("B")], "messages": [user(json!("Hi"))] }),
        json!({ "model": "m", "system": "A", "tools": tool(&mark), "messages": [user(json!("Hi"))] }),
    ] {
        assert_eq!(read(&body).unwrap().prompt.shared_prefix, None);
    }
    let last = user(json!([block("B", &mark)]));
    let own = json!({ "model": "m", "cache_control": hour, "messages": [user(json!("A")), answer, last] });
    assert_eq!(vendor_of(&read(&own).unwrap().prompt), json!({ "cache_control": hour }));
    for (control, expected) in [
        (json!({ "type": "other" }), "type \"other\" is not supported"),
        (json!({ "type": "ephemeral", "ttl": "2h" }), "ttl \"2h\" is not supported"),
        (json!({ "type": "ephemeral", "scope": 1 }), "scope is not supported; remove it"),
    ] {
        let message = refusal(read(&with_messages(json!([user(json!([block("A", &control)]))]))));
        assert_eq!(message, format!("messages[0].content[0].cache_control.{expected}"));
    }
}

#[test]
fn only_the_reasoning_that_encoding_writes_is_typed() {
    for (fields, effort, keeps) in [
        (json!({ "thinking": { "type": "disabled" } }), Some(ReasoningEffort::None), false),
        (
            json!({ "thinking": { "type": "adaptive", "display": null }, "output_config": { "effort": "max" } }),
            Some(ReasoningEffort::Max),
            false,
        ),
        (
            json!({
                "thinking": { "type": "adaptive", "display": "summarized" },
                "output_config": { "effort": "low" },
            }),
            Some(ReasoningEffort::Low),
            true,
        ),
    ] {
        let prompt = prompt_with(fields);
        assert_eq!((prompt.reasoning_effort, prompt.keep_reasoning), (effort, keeps));
        assert_eq!(prompt.vendor_fields, []);
    }
    for (fields, keeps) in [
        (json!({ "thinking": { "type": "enabled", "budget_tokens": 2000 } }), true),
        (json!({ "thinking": { "type": "adaptive" } }), true),
        (
            json!({ "thinking": { "type": "adaptive", "display": "omitted" }, "output_config": { "effort": "low" } }),
            false,
        ),
        (json!({ "thinking": { "type": "disabled" }, "output_config": { "effort": "low" } }), false),
        (json!({ "thinking": { "type": "adaptive" }, "output_config": { "effort": "minimal" } }), true),
        (json!({ "output_config": { "effort": "high" } }), false),
    ] {
        let prompt = prompt_with(fields.clone());
        assert_eq!((prompt.reasoning_effort, prompt.keep_reasoning), (None, keeps), "{fields}");
        assert_eq!(prompt.vendor_fields, vendor(&fields));
    }
}

#[test]
fn what_only_the_vendor_has_stays_with_its_fields() {
    let fields = json!({
        "service_tier": "auto",
        "top_k": 3,
        "metadata": { "other": 1 },
        "output_config": { "task_budget": 1, "format": { "type": "grammar" } },
        "tools": [{ "type": "web_search_20250305", "name": "web_search" }],
        "tool_choice": { "type": "tool", "name": "web_search" },
    });
    let prompt = prompt_with(fields.clone());
    assert_eq!(prompt.vendor_fields, vendor(&fields));
    let sent = encoded(&prompt);
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(sent[name], *value);
    }
    let user = prompt_with(json!({ "metadata": { "user_id": "u", "other": 1 } }));
    assert_eq!((user.user.as_deref(), vendor_of(&user)), (Some("u"), json!({ "metadata": { "other": 1 } })));
}

#[test]
fn a_tool_choice_and_a_tool_are_typed() {
    let tool = json!({
        "type": "custom", "name": "f", "description": "d", "strict": false, "input_schema": { "type": "object" },
        "defer_loading": false, "eager_input_streaming": false, "allowed_callers": ["direct"],
    });
    let read = |choice: Value| prompt_with(json!({ "tools": [tool], "tool_choice": choice }));
    let expected = Tool::new("f", json!({ "type": "object" })).with_description("d").with_strict(false);
    assert_eq!(read(json!({ "type": "auto" })).tools, [expected]);
    for (choice, expected, parallel) in [
        (json!(null), ToolChoice::Auto, None),
        (json!({ "type": "auto", "disable_parallel_tool_use": false }), ToolChoice::Auto, Some(true)),
        (json!({ "type": "any", "disable_parallel_tool_use": true }), ToolChoice::Required, Some(false)),
        (json!({ "type": "none" }), ToolChoice::None, None),
        (json!({ "type": "tool", "name": "f" }), ToolChoice::Tool("f".into()), None),
    ] {
        let prompt = read(choice);
        assert_eq!((prompt.tool_choice, prompt.parallel_tool_calls), (expected, parallel));
    }
}

#[test]
fn what_cannot_be_carried_is_refused_by_its_place() {
    let tool = |fields: Value| {
        let mut tool = json!({ "name": "f", "input_schema": { "type": "object" } });
        tool.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        tool
    };
    let server_tool = json!({ "type": "web_search_20250305", "name": "web_search" });
    for (fields, expected) in [
        (json!({ "model": null }), "model is missing"),
        (json!({ "messages": null }), "messages is missing"),
        (json!({ "messages": "Hi" }), "messages must be a list"),
        (json!({ "max_tokens": -1 }), "max_tokens must be a whole number from 0 to 4294967295"),
        (json!({ "stream": "yes" }), "stream must be true or false"),
        (json!({ "stop_sequences": ["a", 1] }), "stop_sequences[1] must be a string"),
        (json!({ "metadata": { "user_id": 7 } }), "metadata.user_id must be a string"),
        (json!({ "system": [{ "type": "image" }] }), "system[0].type \"image\" is not supported"),
        (json!({ "tool_choice": { "type": "some" } }), "tool_choice.type \"some\" is not supported"),
        (json!({ "tool_choice": { "type": "auto", "x": 1 } }), "tool_choice.x is not supported; remove it"),
        (
            json!({ "tools": [tool(json!({ "input_schema": [] }))] }),
            "tools[0].input_schema must be an object",
        ),
        (json!({ "tools": [tool(json!({ "input_schema": null }))] }), "tools[0].input_schema is missing"),
        (
            json!({ "tools": [tool(json!({ "defer_loading": true }))] }),
            "tools[0].defer_loading is not supported; remove it",
        ),
        (
            json!({ "tools": [tool(json!({})), server_tool] }),
            "tools[1]: a tool of the vendor is not supported beside other tools; use either",
        ),
        (json!({ "output_config": 1 }), "output_config must be an object"),
        (
            json!({ "output_config": { "format": { "type": "json_schema" } } }),
            "output_config.format.schema is missing",
        ),
        (json!({ "thinking": "adaptive" }), "thinking must be an object"),
    ] {
        assert_eq!(refusal(read_with(fields)), expected);
    }
    let source = |kind: &str| {
        let source = json!({ "type": kind, "media_type": "application/zip", "data": "x" });
        json!({ "type": "document", "source": source })
    };
    for (role, block, expected) in [
        ("user", json!({ "type": "search_result" }), "content[0].type \"search_result\" is not supported"),
        ("user", json!({ "type": "tool_use" }), "content[0].type \"tool_use\" is not supported"),
        ("user", json!({ "type": "thinking" }), "content[0].type \"thinking\" is not supported"),
        ("assistant", json!({ "type": "tool_result" }), "content[0].type \"tool_result\" is not supported"),
        (
            "assistant",
            json!({ "type": "server_tool_use" }),
            "content[0].type \"server_tool_use\" is not supported",
        ),
        (
            "assistant",
            json!({ "type": "tool_use", "id": "a", "name": "f", "input": "{}" }),
            "content[0].input must be an object",
        ),
        (
            "assistant",
            json!({ "type": "tool_use", "id": "a", "name": "f", "input": {}, "caller": { "type": "code" } }),
            "content[0].caller is not supported; remove it",
        ),
        (
            "assistant",
            json!({ "type": "text", "text": "x", "citations": [1] }),
            "content[0].citations is not supported; remove it",
        ),
        ("user", json!({ "text": "x" }), "content[0].type is missing"),
        ("user", source("file"), "content[0].source.type \"file\" is not supported"),
        ("user", source("text"), "content[0].source.media_type \"application/zip\" is not supported"),
        (
            "user",
            json!({ "type": "tool_result", "tool_use_id": "a", "content": [{ "type": "tool_result" }] }),
            "content[0].content[0].type \"tool_result\" is not supported",
        ),
        ("system", json!({ "type": "image" }), "content[0].type \"image\" is not supported"),
    ] {
        let body =
            with_messages(json!([{ "role": "user", "content": "Hi" }, { "role": role, "content": [block] }]));
        assert_eq!(refusal(read(&body)), format!("messages[1].{expected}"));
    }
    for (message, expected) in [
        (json!({ "role": "tool", "content": "x" }), "messages[0].role \"tool\" is not supported"),
        (json!({ "role": "user" }), "messages[0].content is missing"),
        (json!({ "role": "user", "content": 7 }), "messages[0].content must be a string or a list"),
        (
            json!({ "role": "user", "content": "x", "name": "n" }),
            "messages[0].name is not supported; remove it",
        ),
    ] {
        assert_eq!(refusal(read(&with_messages(json!([message])))), expected);
    }
}

fn reasoning() -> BoxedStrategy<Reasoning> {
    let signature = || strategies::text().prop_map(|value| Signature::new(Format::Anthropic, value));
    let signed = (strategies::text(), signature())
        .prop_map(|(text, signature)| Reasoning::new(text).with_signature(signature));
    let omitted = signature().prop_map(|signature| Reasoning::new("").with_signature(signature));
    let redacted =
        strategies::text().prop_map(|data| Reasoning::new("").with_signature(Signature::redacted(data)));
    prop_oneof![strategies::unsigned_reasoning(), signed, omitted, redacted].boxed()
}

fn abilities() -> Abilities {
    Abilities {
        document_urls: true,
        media_results: true,
        stop: true,
        user: true,
        parallel_tool_calls: true,
        reasoning_efforts: &[
            ReasoningEffort::None,
            ReasoningEffort::Low,
            ReasoningEffort::Medium,
            ReasoningEffort::High,
            ReasoningEffort::XHigh,
            ReasoningEffort::Max,
        ],
        reasoning,
        ..Abilities::common(Format::Anthropic)
    }
}

/// Returns a prompt in the form in which the format expresses it.
fn canonical(mut prompt: Prompt) -> Prompt {
    equivalence::drop_unsigned_reasoning(&mut prompt);
    equivalence::merge_system(&mut prompt);
    // The vendor requires a limit.
    prompt.max_tokens.get_or_insert(4096);
    // Reasoning is kept by a setting beside the effort.
    if matches!(prompt.reasoning_effort, None | Some(ReasoningEffort::None)) {
        prompt.keep_reasoning = false;
    }
    // A choice is sent only with tools. Several calls are the vendor's default.
    if prompt.tools.is_empty() {
        prompt.tool_choice = ToolChoice::Auto;
    }
    let has_choice = !prompt.tools.is_empty() && prompt.tool_choice != ToolChoice::None;
    prompt.parallel_tool_calls = prompt.parallel_tool_calls.filter(|is_parallel| has_choice && !is_parallel);
    prompt
}

const NAMES: &[&str] = &[
    "model",
    "messages",
    "system",
    "role",
    "content",
    "type",
    "text",
    "user",
    "assistant",
    "image",
    "document",
    "source",
    "base64",
    "url",
    "media_type",
    "data",
    "title",
    "tool_use",
    "tool_result",
    "tool_use_id",
    "id",
    "name",
    "input",
    "is_error",
    "thinking",
    "signature",
    "redacted_thinking",
    "tools",
    "input_schema",
    "tool_choice",
    "any",
    "max_tokens",
    "temperature",
    "stop_sequences",
    "output_config",
    "effort",
    "format",
    "json_schema",
    "schema",
    "metadata",
    "user_id",
    "stream",
    "cache_control",
    "ephemeral",
    "ttl",
    "citations",
];

proptest! {
    #[test]
    fn a_prompt_is_read_as_it_was_written(prompt in strategies::prompt(abilities())) {
        let body = encoded(&prompt);
        let request = read(&body).unwrap();
        prop_assert_eq!((&*request.model, request.is_streamed), ("claude-haiku-5-5", true));
        // A system message at the beginning becomes instructions.
        if body["messages"][0]["role"] != "system" {
            prop_assert_eq!(encoded(&request.prompt), body);
        }
        prop_assert_eq!(canonical(request.prompt), canonical(prompt));
    }

    #[test]
    fn an_unknown_field_is_carried_or_refused_by_name(
        prompt in strategies::prompt(abilities()),
        at in any::<Index>(),
    ) {
        let mut body = encoded(&prompt);
        mutations::add_field(&mut body, at);
        match read(&body) {
            Ok(request) => prop_assert!(encoded(&request.prompt).to_string().contains(UNKNOWN_FIELD), "{body}"),
            Err(failure) => prop_assert!(failure.message.contains(UNKNOWN_FIELD), "{failure}"),
        }
    }

    #[test]
    fn a_changed_body_never_panics(
        prompt in strategies::prompt(abilities()),
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
    fn random_json_never_panics(body in mutations::json(NAMES), bytes in any::<Vec<u8>>()) {
        let _ = read(&body);
        let _ = read_request(&bytes, Some("m"));
    }
}
