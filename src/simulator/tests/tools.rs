//! Tool calls, their results, and stop sequences, in every wire format.

use crate::simulator::wire_format::WireFormat;
use crate::simulator::{Fault, FaultKind};

use super::exchange::*;
use super::*;

fn names(answer: &ReadAnswer) -> Vec<&str> {
    answer.calls.iter().map(|call| call.name.as_str()).collect()
}

/// Adds the parameter that requires a call.
fn requiring_a_call(format: WireFormat, mut body: Value) -> Value {
    match format {
        WireFormat::OpenAiChat | WireFormat::OpenAiResponses => body["tool_choice"] = json!("required"),
        WireFormat::Anthropic => body["tool_choice"] = json!({ "type": "any" }),
        WireFormat::Gemini => body["toolConfig"] = json!({ "functionCallingConfig": { "mode": "ANY" } }),
    }
    body
}

fn finish_of_calls(format: WireFormat) -> &'static str {
    match format {
        WireFormat::OpenAiChat => "tool_calls",
        WireFormat::OpenAiResponses => "completed",
        WireFormat::Anthropic => "tool_use",
        WireFormat::Gemini => "STOP",
    }
}

#[tokio::test]
async fn an_instruction_gets_valid_calls_and_their_results_get_a_text() {
    let simulator = start(Settings::default());
    for format in FORMATS {
        for stream in [false, true] {
            let one = question(format, "Where is it? Call the tool look_up.");
            let one = with_tools(format, one, &["look_up", "count"]);
            let read = answer(&simulator, format, stream, &one).await;
            assert_eq!(names(&read), ["look_up"], "{format:?}");
            assert_eq!((read.text.as_str(), read.finish.as_str()), ("", finish_of_calls(format)));
            let arguments: Value = serde_json::from_str(&read.calls[0].arguments).unwrap();
            assert!(jsonschema::is_valid(&parameters(), &arguments), "{format:?}: {arguments}");
            let several = question(format, "Where is it? Call the tools look_up and count");
            let several = with_tools(format, several, &["look_up", "count"]);
            let read = answer(&simulator, format, stream, &several).await;
            assert_eq!(names(&read), ["look_up", "count"], "{format:?}");
            assert_ne!(read.calls[0].id, read.calls[1].id);
            let next = with_results(format, several, &read);
            let read = answer(&simulator, format, stream, &next).await;
            assert!(read.calls.is_empty(), "{format:?}");
            assert_eq!(read.text, "[simulated] Where is it? Call the tools look_up and count", "{format:?}");
        }
    }
}

#[tokio::test]
async fn a_whole_answer_and_a_stream_have_the_same_calls() {
    // The random values depend on the body of a request, and in Gemini's format on its path.
    let schema =
        json!({ "type": "object", "properties": { "kind": { "const": "book" } }, "required": ["kind"] });
    let simulator = start(Settings::default());
    for format in FORMATS {
        let mut body = with_tools(format, question(format, "Call the tool look_up"), &["look_up"]);
        match format {
            WireFormat::OpenAiChat => body["tools"][0]["function"]["parameters"] = schema.clone(),
            WireFormat::OpenAiResponses => {
                body["tools"][0]["parameters"] = schema.clone();
                body["tools"][0]["strict"] = json!(false);
            }
            WireFormat::Anthropic => body["tools"][0]["input_schema"] = schema.clone(),
            WireFormat::Gemini => {
                body["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] = schema.clone();
            }
        }
        let mut whole = answer(&simulator, format, false, &body).await;
        let stream = answer(&simulator, format, true, &body).await;
        whole.calls[0].id.clone_from(&stream.calls[0].id);
        assert_eq!(whole, stream, "{format:?}");
        assert_eq!(whole.calls[0].arguments, r#"{"kind":"book"}"#);
    }
}

#[tokio::test]
async fn a_call_is_required_or_forbidden_by_the_tool_choice() {
    let simulator = start(Settings::default());
    for format in FORMATS {
        let body = with_tools(format, question(format, "Hello"), &["look_up", "count"]);
        let read = answer(&simulator, format, false, &body).await;
        assert!(read.calls.is_empty() && read.text == "[simulated] Hello", "{format:?}");
        let required = requiring_a_call(format, body);
        assert_eq!(answer(&simulator, format, false, &required).await.calls.len(), 1, "{format:?}");
        let mut none = with_tools(format, question(format, "Call the tool count"), &["count"]);
        match format {
            WireFormat::OpenAiChat | WireFormat::OpenAiResponses => none["tool_choice"] = json!("none"),
            WireFormat::Anthropic => none["tool_choice"] = json!({ "type": "none" }),
            WireFormat::Gemini => none["toolConfig"] = json!({ "functionCallingConfig": { "mode": "NONE" } }),
        }
        let read = answer(&simulator, format, false, &none).await;
        assert_eq!((read.text.as_str(), read.calls.len()), ("[simulated] Call the tool count", 0));
    }
}

#[tokio::test]
async fn parallel_calls_can_be_disabled() {
    let simulator = start(Settings::default());
    for format in [WireFormat::OpenAiChat, WireFormat::OpenAiResponses, WireFormat::Anthropic] {
        let mut body = question(format, "Call the tools count and look_up");
        if format == WireFormat::Anthropic {
            body["tool_choice"] = json!({ "type": "auto", "disable_parallel_tool_use": true });
        } else {
            body["parallel_tool_calls"] = json!(false);
        }
        let body = with_tools(format, body, &["look_up", "count"]);
        assert_eq!(names(&answer(&simulator, format, true, &body).await), ["count"], "{format:?}");
    }
}

#[tokio::test]
async fn the_vendors_requests_and_answers_with_tools_have_the_same_structure() {
    let simulator = start(Settings::default());
    for (format, name) in [
        (WireFormat::OpenAiChat, "openai_chat_request_tools.json"),
        (WireFormat::OpenAiResponses, "openai_responses_request.json"),
        (WireFormat::Anthropic, "anthropic_messages_request_tool_result.json"),
        (WireFormat::Gemini, "gemini_generate_request_function_response.json"),
    ] {
        let (status, body) = post(&simulator, format, false, &without_stream(fixture_json(name))).await;
        assert_eq!(status, 200, "{name}: {body}");
    }
    for (format, name) in [
        (WireFormat::OpenAiChat, "openai_chat_response_tool_calls.json"),
        (WireFormat::Gemini, "gemini_generate_response_function_call.json"),
    ] {
        let mut body = with_tools(format, question(format, "Call the tools a and b"), &["a", "b"]);
        if format == WireFormat::Gemini {
            body["generationConfig"] = json!({ "thinkingConfig": {} });
        }
        let (_, response) = post(&simulator, format, false, &body).await;
        let real = shape_without_arguments(&fixture_json(name));
        assert_eq!(shape_without_arguments(&serde_json::from_str(&response).unwrap()), real, "{name}");
    }
}

fn without_stream(mut body: Value) -> Value {
    body.as_object_mut().unwrap().retain(|key, _| !key.starts_with("stream"));
    body
}

fn shape_without_arguments(value: &Value) -> BTreeSet<String> {
    shape(value).into_iter().filter(|path| !path.contains(".args.")).collect()
}

#[tokio::test]
async fn definitions_calls_and_results_count_as_input() {
    let simulator = start(Settings::default());
    for format in FORMATS {
        let plain = question(format, "Call the tool look_up");
        let without = answer(&simulator, format, false, &plain).await.input_tokens;
        let body = with_tools(format, plain, &["look_up"]);
        let definitions = body["tools"].to_string().len() as u64;
        let read = answer(&simulator, format, false, &body).await;
        let with = read.input_tokens;
        let bytes = "Call the tool look_up".len() as u64 + definitions;
        assert_eq!((without, with), (6, bytes.div_ceil(4)), "{format:?}");
        let call = (read.calls[0].name.len() + read.calls[0].arguments.len()) as u64;
        assert_eq!(read.output_tokens, call.div_ceil(4), "{format:?}");
        let next = with_results(format, body, &read);
        let result = if format == WireFormat::Gemini { r#"{"result":"found it"}"#.len() } else { 8 } as u64;
        let read = answer(&simulator, format, false, &next).await;
        assert_eq!(read.input_tokens, (bytes + call + result).div_ceil(4), "{format:?}");
    }
}

#[tokio::test]
async fn a_request_that_the_vendor_rejects_is_rejected() {
    let simulator = start(Settings::default());
    let rejected = async |format, body: &Value| post(&simulator, format, false, body).await.0 == 400;
    for format in FORMATS {
        let named = with_tools(format, question(format, "Hello"), &["look up"]);
        assert!(rejected(format, &named).await, "{format:?}: the name");
        let offering = with_tools(format, question(format, "Call the tool look_up"), &["look_up"]);
        let read = answer(&simulator, format, false, &offering).await;
        let complete = with_results(format, offering, &read);
        let mut without_call = complete.clone();
        messages(format, &mut without_call).remove(1);
        assert!(rejected(format, &without_call).await, "{format:?}: a result without its call");
        let mut without_result = complete.clone();
        *messages(format, &mut without_result).last_mut().unwrap() = if format == WireFormat::Gemini {
            json!({ "role": "user", "parts": [{ "text": "Hello" }] })
        } else {
            json!({ "role": "user", "content": "Hello" })
        };
        assert!(rejected(format, &without_result).await, "{format:?}: a call without its result");
        assert!(!rejected(format, &complete).await, "{format:?}");
    }
    for format in [WireFormat::OpenAiChat, WireFormat::OpenAiResponses] {
        let names: Vec<String> = (0..129).map(|number| format!("tool_{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(rejected(format, &with_tools(format, question(format, "Hello"), &names)).await);
        assert!(!rejected(format, &with_tools(format, question(format, "Hello"), &names[1..])).await);
    }
}

#[tokio::test]
async fn an_unoffered_call_comes_with_text_or_without() {
    for with_text in [None, Some(true)] {
        let fault = Fault { with_text, ..Fault::new(FaultKind::UnofferedToolCall) };
        let simulator = start(Settings { faults: vec![fault], ..Settings::default() });
        for format in FORMATS {
            for stream in [false, true] {
                for body in [
                    question(format, "Hello"),
                    with_tools(format, question(format, "Hello"), &["look_up", "simulated_unoffered_tool"]),
                ] {
                    let is_offering = body.get("tools").is_some();
                    let read = answer(&simulator, format, stream, &body).await;
                    let name =
                        if is_offering { "simulated_unoffered_tool_" } else { "simulated_unoffered_tool" };
                    assert_eq!(names(&read), [name], "{format:?}");
                    assert_eq!(read.calls[0].arguments, r#"{"simulated":true}"#);
                    let text = if with_text == Some(true) { "[simulated] Hello" } else { "" };
                    assert_eq!((read.text.as_str(), read.finish.as_str()), (text, finish_of_calls(format)));
                }
            }
        }
        let count = simulator.counts().by_fault[&FaultKind::UnofferedToolCall];
        assert_eq!(count, 16);
    }
}

#[tokio::test]
async fn an_answer_ends_before_a_stop_sequence() {
    let simulator = start(Settings::default());
    for (format, key, finish) in [
        (WireFormat::OpenAiChat, "stop", "stop"),
        (WireFormat::Anthropic, "stop_sequences", "stop_sequence"),
        (WireFormat::Gemini, "generationConfig", "STOP"),
    ] {
        let mut body = question(format, "one two three four");
        let stop = json!(["four", "three"]);
        body[key] = if format == WireFormat::Gemini { json!({ "stopSequences": stop }) } else { stop };
        for stream in [false, true] {
            let read = answer(&simulator, format, stream, &body).await;
            assert_eq!((read.text.as_str(), read.finish.as_str()), ("[simulated] one two ", finish));
        }
    }
    let mut body = question(WireFormat::OpenAiChat, "one two three four");
    body["stop"] = json!("two");
    body["seed"] = json!(7);
    body["top_p"] = json!(0.5);
    let read = answer(&simulator, WireFormat::OpenAiChat, false, &body).await;
    assert_eq!(read.text, "[simulated] one ");
    body["stop"] = json!(["a", "b", "c", "d", "e"]);
    assert_eq!(post(&simulator, WireFormat::OpenAiChat, false, &body).await.0, 400);
    let mut anthropic = question(WireFormat::Anthropic, "one two three four");
    anthropic["top_p"] = json!(0.5);
    let (status, response) = post(&simulator, WireFormat::Anthropic, false, &anthropic).await;
    assert!(status == 400 && response.contains("top_p: Extra inputs are not permitted"), "{response}");
}
