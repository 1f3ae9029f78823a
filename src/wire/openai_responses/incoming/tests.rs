//! Tests of the requests of clients: read, and encoded again.

mod golden;
mod properties;

use serde_json::{Value, json};

use crate::types::{
    Class, FailureScope, Format, LengthLimit, Media, Message, Part, Prompt, Reasoning, ReasoningEffort,
    ResponseFormat, Role, Signature, Tool, ToolCall, ToolChoice, ToolResult, VendorFields,
};
use crate::wire::{Dialect, IncomingRequest};

fn read(body: &Value) -> IncomingRequest {
    Format::OpenaiResponses.read_request(body.to_string().as_bytes(), None).unwrap()
}

/// Returns the message of a refusal, which is about the request and not about one target.
fn refusal(body: &Value) -> String {
    let failure = Format::OpenaiResponses.read_request(body.to_string().as_bytes(), None).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Class), "{failure}");
    failure.message.into()
}

fn encoded(prompt: &Prompt) -> Value {
    let base_url = "https://api.openai.com/v1";
    let request =
        Format::OpenaiResponses.encode(prompt, "gpt-6-luna", base_url, &Dialect::default()).unwrap();
    serde_json::from_slice(&request.body).unwrap()
}

/// A request with these fields, and with one text unless they contain the input.
fn with(fields: Value) -> Value {
    let mut body = json!({ "model": "m", "input": "x" });
    let all = fields.as_object().cloned().unwrap();
    body.as_object_mut().unwrap().extend(all);
    body
}

fn input(items: Value) -> Value {
    with(json!({ "input": items }))
}

fn vendor_fields(prompt: &Prompt) -> Value {
    let all: Vec<&VendorFields> = prompt.vendor_fields.iter().collect();
    match all.as_slice() {
        [] => json!({}),
        [one] => {
            assert_eq!(one.format, Format::OpenaiResponses);
            Value::Object((*one.fields).clone())
        }
        several => panic!("{several:?}"),
    }
}

#[test]
fn every_setting_is_typed() {
    let schema = json!({ "type": "object", "properties": {}, "required": [], "additionalProperties": false });
    let body = with(json!({
        "instructions": "Be brief.",
        "max_output_tokens": 9,
        "temperature": 1,
        "top_p": 0.5,
        "reasoning": { "effort": "low", "summary": "auto" },
        "include": ["reasoning.encrypted_content"],
        "text": { "format": { "type": "json_schema", "name": "card", "strict": true, "schema": schema } },
        "tools": [
            { "type": "function", "name": "clock", "description": "d", "parameters": schema, "strict": false },
        ],
        "tool_choice": { "type": "function", "name": "clock" },
        "parallel_tool_calls": false,
        "user": "user-1",
        "store": false,
        "stream": true,
        "previous_response_id": null,
    }));
    let request = read(&body);
    assert_eq!((&*request.model, request.is_streamed, request.wants_usage), ("m", true, true));
    let expected = Prompt::text("x")
        .with_system("Be brief.")
        .with_max_tokens(9)
        .with_temperature(1.0)
        .with_top_p(0.5)
        .with_reasoning_effort(ReasoningEffort::Low)
        .with_keep_reasoning(true)
        .with_response_format(ResponseFormat::json(schema.clone()))
        .with_tool(Tool::new("clock", schema).with_description("d").with_strict(false))
        .with_tool_choice(ToolChoice::Tool("clock".into()))
        .with_parallel_tool_calls(false)
        .with_user("user-1")
        .with_length_limit(LengthLimit::Return);
    assert_eq!(request.prompt, expected);
    let plain = read(&with(json!({})));
    assert!(!plain.is_streamed);
    assert_eq!(plain.prompt, Prompt::text("x").with_length_limit(LengthLimit::Return));
}

#[test]
fn a_conversation_is_typed() {
    let reasoning = json!({
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{ "type": "summary_text", "text": "a" }, { "type": "summary_text", "text": "b" }],
        "encrypted_content": "gAAA=",
        "status": null,
    });
    let items = json!([
        { "role": "developer", "content": "c" },
        { "type": "message", "role": "user", "content": [
            { "type": "input_text", "text": "d" },
            { "type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto" },
            { "type": "input_file", "file_url": "https://example.com/a.pdf" },
            { "type": "input_file", "filename": "b.pdf", "file_data": "data:application/pdf;base64,AA==" },
        ] },
        reasoning,
        { "type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
            { "type": "output_text", "text": "e", "annotations": [], "logprobs": [] },
            { "type": "refusal", "refusal": "f" },
        ] },
        { "type": "message", "role": "assistant", "content": "g" },
        { "type": "function_call", "id": "fc_1", "call_id": "1", "name": "clock", "arguments": "{}" },
        { "type": "function_call", "call_id": "2", "name": "clock", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "2", "output": "h" },
        { "type": "function_call_output", "call_id": "1", "output": [
            { "type": "input_text", "text": "i" },
            { "type": "input_image", "image_url": "https://example.com/a.png" },
        ] },
        { "type": "reasoning", "id": "rs_2", "summary": [], "content": [{ "type": "reasoning_text", "text": "j" }] },
        { "role": "assistant", "content": "k" },
    ]);
    let prompt = read(&input(items)).prompt;
    let signature = Signature::new(Format::OpenaiResponses, reasoning.to_string());
    let call = |id| Part::ToolCall(ToolCall::new(id, "clock", "{}"));
    let user = [
        Part::text("d"),
        Part::Image(Media::base64("image/png", "AA==")),
        Part::Document(Media::url("application/pdf", "https://example.com/a.pdf")),
        Part::Document(Media::base64("application/pdf", "AA==").with_name("b.pdf")),
    ];
    let first = [
        Part::Reasoning(Reasoning::new("a\n\nb").with_signature(signature)),
        Part::text("e"),
        Part::text("f"),
    ];
    let image = Part::Image(Media::url("image/png", "https://example.com/a.png"));
    let expected = [
        Message::new(Role::System, [Part::text("c")]),
        Message::new(Role::User, user),
        Message::new(Role::Assistant, first),
        Message::new(Role::Assistant, [Part::text("g"), call("1"), call("2")]),
        Message::tool([ToolResult::new("2", "h"), ToolResult::new("1", "i").with_part(image)]),
        Message::new(Role::Assistant, [Part::Reasoning(Reasoning::new("j")), Part::text("k")]),
    ];
    assert_eq!(prompt.messages, expected);
    assert_eq!(prompt.check(), Ok(()));
    assert_eq!(encoded(&prompt)["input"][2], reasoning);
}

#[test]
fn reasoning_is_kept_if_the_client_asks_for_it() {
    let tools =
        json!([{ "type": "function", "name": "f", "parameters": { "type": "object" }, "strict": false }]);
    let include = json!(["reasoning.encrypted_content"]);
    for (fields, keeps) in [
        (json!({}), false),
        (json!({ "reasoning": { "effort": "low" } }), false),
        (json!({ "reasoning": { "summary": "auto" } }), true),
        (json!({ "include": include }), true),
        // The answer contains it because of the tools.
        (json!({ "include": include, "tools": tools }), false),
    ] {
        let prompt = read(&with(fields.clone())).prompt;
        assert_eq!((prompt.keep_reasoning, vendor_fields(&prompt)), (keeps, json!({})), "{fields}");
        let included = keeps || fields.get("tools").is_some();
        assert_eq!(encoded(&prompt).get("include").is_some(), included, "{fields}");
    }
    let detailed = read(&with(json!({ "reasoning": { "effort": "low", "summary": "detailed" } }))).prompt;
    assert!(detailed.keep_reasoning);
    assert_eq!(encoded(&detailed)["reasoning"], json!({ "effort": "low", "summary": "detailed" }));
}

#[test]
fn a_tool_is_strict_without_the_field_if_the_vendor_accepts_its_schema() {
    let strict = |parameters: Value, strict: Value| {
        let tool = json!({ "type": "function", "name": "f", "parameters": parameters, "strict": strict });
        read(&with(json!({ "tools": [tool] }))).prompt.tools[0].strict
    };
    let closed = json!({ "type": "object", "properties": {}, "required": [], "additionalProperties": false });
    assert_eq!(strict(closed.clone(), Value::Null), Some(true));
    assert_eq!(strict(closed, json!(false)), Some(false));
    assert_eq!(strict(json!({ "type": "object" }), Value::Null), None);
    assert_eq!(strict(json!({ "type": "object" }), json!(true)), Some(true));
}

#[test]
fn fields_without_a_typed_form_are_carried_unchanged() {
    let fields = json!({
        "metadata": { "job": "1" },
        "truncation": "auto",
        "service_tier": "flex",
        "background": false,
        "text": { "format": { "type": "json_object" }, "verbosity": "low" },
        "tools": [{ "type": "web_search" }],
        "tool_choice": { "type": "web_search" },
    });
    let prompt = read(&with(fields.clone())).prompt;
    assert_eq!(vendor_fields(&prompt), fields);
    let body = encoded(&prompt);
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
    let format =
        json!({ "type": "json_schema", "name": "a", "schema": { "type": "object" }, "description": "d" });
    let text = json!({ "format": format, "verbosity": "low" });
    let prompt = read(&with(json!({ "text": text }))).prompt;
    let schema = json!({ "type": "object", "description": "d" });
    assert_eq!(prompt.response_format, ResponseFormat::json(schema.clone()));
    let sent = json!({ "type": "json_schema", "name": "answer", "schema": schema });
    assert_eq!(encoded(&prompt)["text"], json!({ "format": sent, "verbosity": "low" }));
}

#[test]
fn what_nothing_can_carry_is_refused_by_name() {
    let user = |part: Value| input(json!([{ "role": "user", "content": [part] }]));
    for (body, expected) in [
        (with(json!({ "previous_response_id": "resp_1" })), "previous_response_id is not supported"),
        (with(json!({ "conversation": "conv_1" })), "conversation is not supported"),
        (with(json!({ "store": true })), "store is not supported"),
        (with(json!({ "background": true })), "background is not supported"),
        (
            with(json!({ "include": ["message.output_text.logprobs"] })),
            "include[0] \"message.output_text.logprobs\"",
        ),
        (with(json!({ "reasoning": { "generate_summary": "auto" } })), "reasoning.generate_summary"),
        (with(json!({ "reasoning": { "effort": "huge" } })), "reasoning.effort \"huge\" is not supported"),
        (with(json!({ "input": null })), "input is missing"),
        (with(json!({ "input": 1 })), "input must be a string or a list"),
        (input(json!([1])), "input[0] must be an object"),
        (input(json!([{ "content": "x" }])), "input[0] needs a type or a role"),
        (input(json!([{ "type": "message", "content": "x" }])), "input[0].role is missing"),
        (input(json!([{ "role": "tool", "content": "x" }])), "input[0].role \"tool\" is not supported"),
        (input(json!([{ "role": "user" }])), "input[0].content is missing"),
        (input(json!([{ "role": "user", "content": "x", "name": "Ann" }])), "input[0].name is not supported"),
        (input(json!([{ "type": "item_reference", "id": "msg_1" }])), "input[0].type \"item_reference\""),
        (input(json!([{ "type": "web_search_call" }])), "input[0].type \"web_search_call\" is not supported"),
        (input(json!([{ "type": "function_call", "name": "f" }])), "input[0].call_id is missing"),
        (input(json!([{ "type": "function_call_output", "call_id": "1" }])), "input[0].output is missing"),
        (input(json!([{ "type": "reasoning", "summary": [{}] }])), "input[0].summary[0].text is missing"),
        (user(json!({ "type": "input_audio" })), "input[0].content[0].type \"input_audio\" is not supported"),
        (
            user(json!({ "type": "input_image", "file_id": "f-1" })),
            "input[0].content[0].file_id is not supported",
        ),
        (
            user(json!({ "type": "input_file", "file_id": "f-1" })),
            "input[0].content[0].file_id is not supported",
        ),
        (user(json!({ "type": "input_file" })), "input[0].content[0].file_data is missing"),
        (
            user(json!({ "type": "input_image", "image_url": "https://example.com/a.png", "detail": "low" })),
            "input[0].content[0].detail \"low\" is not supported",
        ),
        (
            user(json!({ "type": "output_text", "text": "x" })),
            "input[0].content[0].type \"output_text\" is not supported",
        ),
        (
            input(json!([{ "role": "assistant", "content": [
                { "type": "output_text", "text": "x", "annotations": [{ "type": "url_citation" }] },
            ] }])),
            "input[0].content[0].annotations is not supported",
        ),
    ] {
        let message = refusal(&body);
        assert!(message.starts_with(expected), "{message}\n{expected}");
    }
    let failure = Format::OpenaiResponses.read_request(b"{\n \"model\": }", None).unwrap_err();
    assert!(failure.message.contains("line 2 column"), "{failure}");
}

#[test]
fn messages_that_follow_each_other_remain_apart() {
    let items = json!([
        { "role": "assistant", "content": [{ "type": "output_text", "text": "a" }] },
        { "type": "reasoning", "id": "rs_1", "summary": [] },
        { "role": "assistant", "content": [{ "type": "output_text", "text": "b" }] },
    ]);
    let prompt = read(&input(items)).prompt;
    let text = |text: &str| json!({ "role": "assistant", "content": text });
    assert_eq!(encoded(&prompt)["input"], json!([text("a"), text("b")]));
    let again = read(&input(json!([text("a"), text("b")]))).prompt;
    assert_eq!(again.messages, [Message::assistant("a"), Message::assistant("b")]);
    assert_eq!(encoded(&again), encoded(&prompt));
}

#[test]
fn the_texts_of_one_answer_become_messages_that_are_read_again() {
    let parts = json!([{ "type": "output_text", "text": "a" }, { "type": "output_text", "text": "b" }]);
    let prompt = read(&input(json!([{ "role": "assistant", "content": parts }]))).prompt;
    assert_eq!(prompt.messages, [Message::new(Role::Assistant, [Part::text("a"), Part::text("b")])]);
    let sent = encoded(&prompt)["input"].take();
    let text = |text: &str| json!({ "role": "assistant", "content": text });
    assert_eq!(sent, json!([text("a"), text("b")]));
    let again = read(&input(sent)).prompt;
    assert_eq!(again.messages, [Message::assistant("a"), Message::assistant("b")]);
    assert_eq!(encoded(&again), encoded(&prompt));
}

#[test]
fn a_conversation_may_have_ten_thousand_items() {
    let all: Vec<Value> = (0..10_000)
        .map(|at| json!({ "role": if at % 2 == 0 { "user" } else { "assistant" }, "content": format!("{at}") }))
        .collect();
    let prompt = read(&input(json!(all))).prompt;
    assert_eq!((prompt.messages.len(), &prompt.messages[9_999]), (10_000, &Message::assistant("9999")));
}
