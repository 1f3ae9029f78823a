//! Responses of OpenAI's responses: the response object, its items and its usage.

use serde_json::{Value, json};

use crate::simulator::completion::{Finish, GeneratedCall, GeneratedReasoning};
use crate::simulator::reasoning::signature;
use crate::simulator::response_data::ResponseData;

/// Renders a response without streaming.
pub(in crate::simulator) fn render_response(data: &ResponseData<'_>) -> Vec<u8> {
    final_response(data).to_string().into_bytes()
}

/// Returns the response object with all items.
pub(super) fn final_response(data: &ResponseData<'_>) -> Value {
    let completion = data.completion;
    let mut items = Vec::new();
    items.extend(completion.reasoning.as_ref().map(|reasoning| reasoning_item(data, reasoning)));
    if has_message(data) {
        items.push(message_item(data, item_status(data), vec![content_part(data, &completion.text)]));
    }
    items.extend(completion.calls.iter().map(|call| call_item(call, "completed", &call.arguments)));
    response_object(data, Stage::Final, items)
}

/// Returns whether the answer has a message. An answer without text has an empty one, unless it calls tools.
pub(super) fn has_message(data: &ResponseData<'_>) -> bool {
    !data.completion.text.is_empty() || data.completion.calls.is_empty()
}

/// Whether the response is complete.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    InProgress,
    Final,
}

/// Returns the status at the end.
pub(super) fn item_status(data: &ResponseData<'_>) -> &'static str {
    match data.completion.finish {
        Finish::Length => "incomplete",
        Finish::Stop
        | Finish::StopSequence(_)
        | Finish::Refusal
        | Finish::ToolCalls
        | Finish::MissingSignature => "completed",
    }
}

/// Returns the response object with these items.
pub(super) fn response_object(data: &ResponseData<'_>, stage: Stage, output: Vec<Value>) -> Value {
    let is_final = stage == Stage::Final;
    let status = if is_final { item_status(data) } else { "in_progress" };
    let is_incomplete = status == "incomplete";
    json!({
        "id": format!("resp_{:032x}", data.serial),
        "object": "response",
        "created_at": data.created,
        "status": status,
        "completed_at": (status == "completed").then_some(data.created),
        "background": false,
        "error": null,
        "incomplete_details": is_incomplete.then(|| json!({ "reason": "max_output_tokens" })),
        "instructions": null,
        "max_output_tokens": null,
        "max_tool_calls": null,
        "model": data.model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "prompt_cache_key": null,
        "reasoning": { "effort": null, "summary": null },
        "safety_identifier": null,
        "service_tier": "default",
        "store": false,
        "temperature": 1.0,
        "text": { "format": { "type": "text" }, "verbosity": "medium" },
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": is_final.then(|| usage(data)),
        "user": null,
        "metadata": {},
    })
}

fn usage(data: &ResponseData<'_>) -> Value {
    let input = data.input_tokens;
    let output = data.completion.output_tokens;
    json!({
        "input_tokens": input,
        "input_tokens_details": { "cached_tokens": data.cache_use.read, "cache_write_tokens": 0 },
        "output_tokens": output,
        "output_tokens_details": { "reasoning_tokens": data.completion.reasoning_tokens() },
        "total_tokens": input + output,
    })
}

/// Returns the id of the message.
pub(super) fn message_id(data: &ResponseData<'_>) -> String {
    format!("msg_{:032x}", data.serial)
}

/// Returns the id of the reasoning.
pub(super) fn reasoning_id(data: &ResponseData<'_>) -> String {
    format!("rs_{:032x}", data.serial)
}

/// Returns the id of the item of a call. The id of the call itself differs.
pub(super) fn call_item_id(call: &GeneratedCall) -> String {
    format!("fc_{}", call.id)
}

/// Returns the message with this content.
pub(super) fn message_item(data: &ResponseData<'_>, status: &str, content: Vec<Value>) -> Value {
    json!({ "id": message_id(data), "type": "message", "status": status, "role": "assistant", "content": content })
}

/// Returns the part of the message with this text.
pub(super) fn content_part(data: &ResponseData<'_>, text: &str) -> Value {
    if data.completion.finish == Finish::Refusal {
        json!({ "type": "refusal", "refusal": text })
    } else {
        json!({ "type": "output_text", "annotations": [], "logprobs": [], "text": text })
    }
}

/// Returns the reasoning with its summary and, if the request asks for it, with its encrypted content, which signs
/// the id.
pub(super) fn reasoning_item(data: &ResponseData<'_>, reasoning: &GeneratedReasoning) -> Value {
    let id = reasoning_id(data);
    let summary = summary_part(&reasoning.text);
    let summary = if reasoning.text.is_empty() { json!([]) } else { json!([summary]) };
    let mut item = json!({ "id": id, "type": "reasoning", "summary": summary });
    if reasoning.is_encrypted {
        item["encrypted_content"] = signature(&id).into();
    }
    item
}

/// Returns a part of the summary of the reasoning.
pub(super) fn summary_part(text: &str) -> Value {
    json!({ "type": "summary_text", "text": text })
}

/// Returns the item of a call with these arguments.
pub(super) fn call_item(call: &GeneratedCall, status: &str, arguments: &str) -> Value {
    json!({
        "id": call_item_id(call),
        "type": "function_call",
        "status": status,
        "call_id": format!("call_{}", call.id),
        "name": call.name,
        "arguments": arguments,
    })
}
