//! Requests with tools and reasoning in every wire format, and what their answers contain.

use crate::simulator::wire_format::WireFormat;

use super::*;

pub(super) const FORMATS: [WireFormat; 4] =
    [WireFormat::OpenAiChat, WireFormat::OpenAiResponses, WireFormat::Anthropic, WireFormat::Gemini];

/// A call in an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ReadCall {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
    /// Gemini's signature.
    pub(super) signature: Option<String>,
}

/// What an answer contains.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ReadAnswer {
    pub(super) text: String,
    pub(super) reasoning: String,
    /// Anthropic's signature of the reasoning, or Gemini's of the text.
    pub(super) signature: Option<String>,
    pub(super) calls: Vec<ReadCall>,
    pub(super) finish: String,
    pub(super) reasoning_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) input_tokens: u64,
}

/// A JSON Schema of a tool's arguments.
pub(super) fn parameters() -> Value {
    json!({ "type": "object", "properties": { "branch": { "type": "string" },
        "copies": { "type": "integer", "minimum": 3, "maximum": 9 } }, "required": ["branch", "copies"],
        "additionalProperties": false })
}

/// Returns a request with one user message.
pub(super) fn question(format: WireFormat, prompt: &str) -> Value {
    let messages = json!([{ "role": "user", "content": prompt }]);
    match format {
        WireFormat::OpenAiChat => json!({ "model": "m", "messages": messages }),
        WireFormat::OpenAiResponses => json!({ "model": "m", "input": messages }),
        WireFormat::Anthropic => json!({ "model": "m", "max_tokens": 4_000, "messages": messages }),
        WireFormat::Gemini => json!({ "contents": [{ "role": "user", "parts": [{ "text": prompt }] }] }),
    }
}

/// Adds tools with these names.
pub(super) fn with_tools(format: WireFormat, mut body: Value, names: &[&str]) -> Value {
    let tools = names.iter().map(|name| match format {
        WireFormat::OpenAiChat => {
            json!({ "type": "function", "function": { "name": name, "parameters": parameters() } })
        }
        WireFormat::OpenAiResponses => {
            json!({ "type": "function", "name": name, "strict": true, "parameters": parameters() })
        }
        WireFormat::Anthropic => json!({ "name": name, "input_schema": parameters() }),
        WireFormat::Gemini => json!({ "name": name, "parametersJsonSchema": parameters() }),
    });
    let tools: Vec<Value> = tools.collect();
    body["tools"] = match format {
        WireFormat::Gemini => json!([{ "functionDeclarations": tools }]),
        WireFormat::OpenAiChat | WireFormat::OpenAiResponses | WireFormat::Anthropic => json!(tools),
    };
    body
}

/// Returns the messages of a request.
pub(super) fn messages(format: WireFormat, body: &mut Value) -> &mut Vec<Value> {
    let key = match format {
        WireFormat::OpenAiChat | WireFormat::Anthropic => "messages",
        WireFormat::OpenAiResponses => "input",
        WireFormat::Gemini => "contents",
    };
    body[key].as_array_mut().unwrap()
}

/// Adds the calls of an answer, with its reasoning, and a result of each call.
pub(super) fn with_results(format: WireFormat, mut body: Value, answer: &ReadAnswer) -> Value {
    let calls = &answer.calls;
    let parsed = |call: &ReadCall| serde_json::from_str::<Value>(&call.arguments).unwrap();
    let mut added = Vec::new();
    match format {
        WireFormat::OpenAiChat => {
            let tool_calls = calls.iter().map(|call| {
                json!({ "id": call.id, "type": "function",
                    "function": { "name": call.name, "arguments": call.arguments } })
            });
            let tool_calls: Vec<Value> = tool_calls.collect();
            added.push(json!({ "role": "assistant", "content": null, "tool_calls": tool_calls }));
            added.extend(
                calls
                    .iter()
                    .map(|call| json!({ "role": "tool", "tool_call_id": call.id, "content": "found it" })),
            );
        }
        WireFormat::OpenAiResponses => {
            added.extend(calls.iter().map(|call| {
                json!({ "type": "function_call", "call_id": call.id, "name": call.name,
                    "arguments": call.arguments })
            }));
            added.extend(calls.iter().map(
                |call| json!({ "type": "function_call_output", "call_id": call.id, "output": "found it" }),
            ));
        }
        WireFormat::Anthropic => {
            let mut blocks = Vec::new();
            if let Some(signature) = &answer.signature {
                let thinking = &answer.reasoning;
                blocks.push(json!({ "type": "thinking", "thinking": thinking, "signature": signature }));
            }
            blocks.extend(calls.iter().map(
                |call| json!({ "type": "tool_use", "id": call.id, "name": call.name, "input": parsed(call) }),
            ));
            let results = calls
                .iter()
                .map(|call| json!({ "type": "tool_result", "tool_use_id": call.id, "content": "found it" }));
            let results: Vec<Value> = results.collect();
            added.push(json!({ "role": "assistant", "content": blocks }));
            added.push(json!({ "role": "user", "content": results }));
        }
        WireFormat::Gemini => {
            let parts = calls.iter().map(|call| {
                let function = json!({ "id": call.id, "name": call.name, "args": parsed(call) });
                let mut part = json!({ "functionCall": function });
                if let Some(signature) = &call.signature {
                    part["thoughtSignature"] = json!(signature);
                }
                part
            });
            let parts: Vec<Value> = parts.collect();
            let results = calls.iter().map(|call| {
                json!({ "functionResponse": { "name": call.name, "response": { "result": "found it" } } })
            });
            let results: Vec<Value> = results.collect();
            added.push(json!({ "role": "model", "parts": parts }));
            added.push(json!({ "role": "user", "parts": results }));
        }
    }
    messages(format, &mut body).extend(added);
    body
}

/// Sends a request. Returns the status and the body of the response.
pub(super) async fn post(
    simulator: &Simulator,
    format: WireFormat,
    stream: bool,
    body: &Value,
) -> (u16, String) {
    let path = match (format, stream) {
        (WireFormat::OpenAiChat, _) => "/v1/chat/completions",
        (WireFormat::OpenAiResponses, _) => "/v1/responses",
        (WireFormat::Anthropic, _) => "/v1/messages",
        (WireFormat::Gemini, false) => "/v1beta/models/m:generateContent",
        (WireFormat::Gemini, true) => "/v1beta/models/m:streamGenerateContent?alt=sse",
    };
    let mut body = body.clone();
    if stream && format != WireFormat::Gemini {
        body["stream"] = json!(true);
    }
    if stream && format == WireFormat::OpenAiChat {
        body["stream_options"] = json!({ "include_usage": true });
    }
    let request = client().post(format!("http://{}{path}", simulator.addr()));
    let request = request.header("anthropic-version", "2026-10-21").body(body.to_string());
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// Sends a request that is answered, and reads the answer.
pub(super) async fn answer(
    simulator: &Simulator,
    format: WireFormat,
    stream: bool,
    body: &Value,
) -> ReadAnswer {
    let (status, response) = post(simulator, format, stream, body).await;
    assert_eq!(status, 200, "{format:?}: {response}");
    if stream {
        read_stream(format, &response)
    } else {
        read(format, &serde_json::from_str(&response).unwrap())
    }
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn read_usage(answer: &mut ReadAnswer, usage: &Value) {
    let first = |names: &[&str]| names.iter().find_map(|name| usage[*name].as_u64()).unwrap_or_default();
    answer.input_tokens = first(&["prompt_tokens", "input_tokens", "promptTokenCount"]);
    answer.output_tokens = first(&["completion_tokens", "output_tokens", "candidatesTokenCount"]);
    let details = [
        &usage["completion_tokens_details"]["reasoning_tokens"],
        &usage["output_tokens_details"]["reasoning_tokens"],
        &usage["output_tokens_details"]["thinking_tokens"],
        &usage["thoughtsTokenCount"],
    ];
    answer.reasoning_tokens = details.into_iter().find_map(Value::as_u64).unwrap_or_default();
    // Only Gemini counts them separately.
    if usage["thoughtsTokenCount"].is_u64() {
        answer.output_tokens += answer.reasoning_tokens;
    }
}

/// Reads a whole response.
pub(super) fn read(format: WireFormat, response: &Value) -> ReadAnswer {
    let mut answer = ReadAnswer::default();
    match format {
        WireFormat::OpenAiChat => {
            let message = &response["choices"][0]["message"];
            answer.text = string(&message["content"]);
            answer.finish = string(&response["choices"][0]["finish_reason"]);
            answer.calls.extend(list(&message["tool_calls"]).iter().map(|call| ReadCall {
                id: string(&call["id"]),
                name: string(&call["function"]["name"]),
                arguments: string(&call["function"]["arguments"]),
                signature: None,
            }));
            read_usage(&mut answer, &response["usage"]);
        }
        WireFormat::OpenAiResponses => {
            answer.finish = string(&response["status"]);
            for item in list(&response["output"]) {
                answer.text += &string(&item["content"][0]["text"]);
                answer.reasoning += &string(&item["summary"][0]["text"]);
                if let Some(encrypted) = item["encrypted_content"].as_str() {
                    answer.signature = Some(encrypted.to_owned());
                }
                if item["type"] == "function_call" {
                    answer.calls.push(ReadCall {
                        id: string(&item["call_id"]),
                        name: string(&item["name"]),
                        arguments: string(&item["arguments"]),
                        signature: None,
                    });
                }
            }
            read_usage(&mut answer, &response["usage"]);
        }
        WireFormat::Anthropic => {
            answer.finish = string(&response["stop_reason"]);
            list(&response["content"]).iter().for_each(|block| read_block(&mut answer, block));
            read_usage(&mut answer, &response["usage"]);
        }
        WireFormat::Gemini => read_candidate(&mut answer, response),
    }
    answer
}

fn read_block(answer: &mut ReadAnswer, block: &Value) {
    answer.text += &string(&block["text"]);
    answer.reasoning += &string(&block["thinking"]);
    if let Some(signature) = block["signature"].as_str() {
        answer.signature = Some(signature.to_owned());
    }
    if block["type"] == "tool_use" {
        answer.calls.push(ReadCall {
            id: string(&block["id"]),
            name: string(&block["name"]),
            arguments: block["input"].to_string(),
            signature: None,
        });
    }
}

fn read_candidate(answer: &mut ReadAnswer, response: &Value) {
    let candidate = &response["candidates"][0];
    for part in list(&candidate["content"]["parts"]) {
        let signature = part["thoughtSignature"].as_str().map(str::to_owned);
        if part["thought"] == true {
            answer.reasoning += &string(&part["text"]);
        } else if part["functionCall"].is_object() {
            let call = &part["functionCall"];
            answer.calls.push(ReadCall {
                id: string(&call["id"]),
                name: string(&call["name"]),
                arguments: call["args"].to_string(),
                signature,
            });
        } else {
            answer.text += &string(&part["text"]);
            answer.signature = signature;
        }
    }
    answer.finish = string(&candidate["finishReason"]);
    read_usage(answer, &response["usageMetadata"]);
}

/// Reads a stream.
fn read_stream(format: WireFormat, body: &str) -> ReadAnswer {
    let mut answer = ReadAnswer::default();
    let events = events(body);
    match format {
        WireFormat::OpenAiChat => {
            for event in &events {
                let delta = &event["choices"][0]["delta"];
                answer.text += &string(&delta["content"]);
                for call in list(&delta["tool_calls"]) {
                    let index = call["index"].as_u64().unwrap() as usize;
                    if index == answer.calls.len() {
                        answer.calls.push(ReadCall {
                            id: string(&call["id"]),
                            name: string(&call["function"]["name"]),
                            ..ReadCall::default()
                        });
                    }
                    answer.calls[index].arguments += &string(&call["function"]["arguments"]);
                }
                if let Some(finish) = event["choices"][0]["finish_reason"].as_str() {
                    answer.finish = finish.to_owned();
                }
            }
            read_usage(&mut answer, &events.last().unwrap()["usage"]);
        }
        WireFormat::OpenAiResponses => {
            answer = read(format, &events.last().unwrap()["response"]);
            let deltas = |kind: &str| -> String {
                let of_kind = events.iter().filter(|event| event["type"] == kind);
                of_kind.map(|event| string(&event["delta"])).collect()
            };
            assert_eq!(deltas("response.output_text.delta"), answer.text);
            assert_eq!(deltas("response.reasoning_summary_text.delta"), answer.reasoning);
            let arguments: String = answer.calls.iter().map(|call| call.arguments.as_str()).collect();
            assert_eq!(deltas("response.function_call_arguments.delta"), arguments);
        }
        WireFormat::Anthropic => {
            let mut pieces = String::new();
            for event in &events {
                let delta = &event["delta"];
                read_block(&mut answer, &event["content_block"]);
                read_block(&mut answer, delta);
                pieces += &string(&delta["partial_json"]);
                if event["type"] == "content_block_stop" && !pieces.is_empty() {
                    answer.calls.last_mut().unwrap().arguments = std::mem::take(&mut pieces);
                }
                if let Some(finish) = delta["stop_reason"].as_str() {
                    answer.finish = finish.to_owned();
                    read_usage(&mut answer, &event["usage"]);
                }
            }
        }
        WireFormat::Gemini => events.iter().for_each(|event| read_candidate(&mut answer, event)),
    }
    answer
}
