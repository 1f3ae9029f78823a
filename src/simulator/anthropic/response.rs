//! Responses of Anthropic's messages, and their streams.

use serde_json::Value;

use crate::simulator::completion::{Finish, GeneratedCall, GeneratedReasoning};
use crate::simulator::event_stream::{EventStream, text_chunks};
use crate::simulator::reasoning::signature;
use crate::simulator::response_data::{ResponseData, append, json_string};

fn stop_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::MissingSignature => "end_turn",
        Finish::StopSequence(_) => "stop_sequence",
        Finish::Length => "max_tokens",
        Finish::Refusal => "refusal",
        Finish::ToolCalls => "tool_use",
    }
}

/// Returns the fields `stop_reason`, `stop_sequence` and `stop_details` of a response or of the end of a stream.
fn stop_fields(finish: &Finish) -> String {
    let mut sequence = "null".to_owned();
    let mut details = "null";
    match finish {
        Finish::Stop | Finish::Length | Finish::ToolCalls | Finish::MissingSignature => {}
        Finish::StopSequence(stop) => sequence = Value::from(stop.as_str()).to_string(),
        Finish::Refusal => details = r#"{"type":"refusal","category":null,"explanation":null}"#,
    }
    let reason = stop_reason(finish);
    format!(r#""stop_reason":"{reason}","stop_sequence":{sequence},"stop_details":{details}"#)
}

/// Returns the text block. A refusal and an empty answer have none.
fn text_block<'a>(data: &ResponseData<'a>) -> Option<&'a str> {
    let completion = data.completion;
    let has_text = completion.finish != Finish::Refusal && !completion.text.is_empty();
    has_text.then_some(&*completion.text)
}

/// Renders a response without streaming.
pub(in crate::simulator) fn render_response(data: &ResponseData<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(600 + data.completion.text.len());
    message_start(&mut out, data);
    content(&mut out, data);
    append!(out, ",", stop_fields(&data.completion.finish), r#","container":null,"usage":"#);
    usage(&mut out, data, output_tokens(data), true);
    out.push(b'}');
    out
}

/// Appends the content blocks.
fn content(out: &mut Vec<u8>, data: &ResponseData<'_>) {
    let mut separator = "[";
    if let Some(reasoning) = &data.completion.reasoning {
        out.extend_from_slice(br#"[{"type":"thinking","thinking":"#);
        json_string(out, &reasoning.text);
        append!(out, r#","signature":""#, signature(&reasoning.text), r#""}"#);
        separator = ",";
    }
    if let Some(text) = text_block(data) {
        append!(out, separator, r#"{"type":"text","text":"#);
        json_string(out, text);
        out.extend_from_slice(br#","citations":null}"#);
        separator = ",";
    }
    for call in &data.completion.calls {
        append!(out, separator, r#"{"type":"tool_use","id":"toolu_01"#, call.id, r#"","name":"#);
        json_string(out, &call.name);
        append!(out, r#","input":"#, call.arguments, "}");
        separator = ",";
    }
    append!(out, if separator == "[" { "[]" } else { "]" });
}

fn output_tokens(data: &ResponseData<'_>) -> u64 {
    if data.completion.finish == Finish::Refusal { 1 } else { data.completion.output_tokens }
}

/// Appends a message up to its content.
fn message_start(out: &mut Vec<u8>, data: &ResponseData<'_>) {
    append!(out, r#"{"id":"msg_01"#, format_args!("{:022x}", data.serial));
    out.extend_from_slice(br#"","type":"message","role":"assistant","model":"#);
    json_string(out, data.model);
    out.extend_from_slice(br#","content":"#);
}

/// Appends the usage; at the end of an answer with its reasoning, if it has any.
fn usage(out: &mut Vec<u8>, data: &ResponseData<'_>, output: u64, is_end: bool) {
    out.push(b'{');
    input_usage(out, data);
    append!(out, r#","cache_creation":{"ephemeral_5m_input_tokens":"#, data.cache_use.written_five_minutes);
    append!(out, r#","ephemeral_1h_input_tokens":"#, data.cache_use.written_one_hour);
    append!(out, r#"},"output_tokens":"#, output, r#","service_tier":"standard","inference_geo":"global""#);
    if is_end {
        reasoning_usage(out, data);
    }
    out.push(b'}');
}

/// Appends the counts of input tokens. Those of the prompt cache are counted separately.
fn input_usage(out: &mut Vec<u8>, data: &ResponseData<'_>) {
    let cache_use = &data.cache_use;
    append!(out, r#""input_tokens":"#, cache_use.rest_of(data.input_tokens));
    append!(out, r#","cache_creation_input_tokens":"#, cache_use.written());
    append!(out, r#","cache_read_input_tokens":"#, cache_use.read);
}

fn reasoning_usage(out: &mut Vec<u8>, data: &ResponseData<'_>) {
    if let Some(reasoning) = &data.completion.reasoning {
        append!(out, r#","output_tokens_details":{"thinking_tokens":"#, reasoning.tokens, "}");
    }
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(in crate::simulator) fn render_stream(data: &ResponseData<'_>, max_chunks: usize) -> EventStream {
    let completion = data.completion;
    let text = text_block(data);
    let length = text.map_or(0, str::len);
    let mut events = EventStream::with_capacity(1_100 + 130 * max_chunks.min(length) + length * 5 / 4);
    events.push(|out| {
        out.extend_from_slice(b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
        message_start(out, data);
        out.extend_from_slice(
            br#"[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"usage":"#,
        );
        usage(out, data, 1, false);
        out.extend_from_slice(b"}}\n\n");
    });
    let mut index = 0;
    if let Some(reasoning) = &completion.reasoning {
        thinking_block(&mut events, index, reasoning, max_chunks);
        index += 1;
    }
    if text.is_some() {
        events.push(|out| {
            block_start(out, index, |out| out.extend_from_slice(br#""text","text":"""#));
            out.extend_from_slice(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
        });
    }
    events.begin_chunks();
    for chunk in text_chunks(text.unwrap_or_default(), max_chunks) {
        events.push(|out| block_delta(out, index, br#""text_delta","text":"#, chunk));
    }
    if completion.calls.is_empty() {
        events.end_chunks();
    }
    if text.is_some() {
        events.push(|out| block_stop(out, index));
        index += 1;
    }
    for (at, call) in completion.calls.iter().enumerate() {
        tool_use_start(&mut events, index, call, max_chunks);
        if at + 1 == completion.calls.len() {
            events.end_chunks();
        }
        events.push(|out| block_stop(out, index));
        index += 1;
    }
    events.push(|out| {
        append!(
            out,
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{",
            stop_fields(&completion.finish)
        );
        out.extend_from_slice(br#"},"usage":{"#);
        input_usage(out, data);
        append!(out, r#","output_tokens":"#, output_tokens(data));
        reasoning_usage(out, data);
        out.extend_from_slice(b"}}\n\n");
    });
    events.push(|out| out.extend_from_slice(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    events
}

fn thinking_block(events: &mut EventStream, index: usize, reasoning: &GeneratedReasoning, max_chunks: usize) {
    events.push(|out| {
        block_start(out, index, |out| {
            out.extend_from_slice(br#""thinking","thinking":"","signature":"""#);
        });
    });
    for chunk in text_chunks(&reasoning.text, max_chunks) {
        events.push(|out| block_delta(out, index, br#""thinking_delta","thinking":"#, chunk));
    }
    let signature = signature(&reasoning.text);
    events.push(|out| block_delta(out, index, br#""signature_delta","signature":"#, &signature));
    events.push(|out| block_stop(out, index));
}

/// Adds a tool call up to the last piece of its arguments. As at the vendor, the first piece is empty.
fn tool_use_start(events: &mut EventStream, index: usize, call: &GeneratedCall, max_chunks: usize) {
    events.push(|out| {
        block_start(out, index, |out| {
            append!(out, r#""tool_use","id":"toolu_01"#, call.id, r#"","name":"#);
            json_string(out, &call.name);
            out.extend_from_slice(br#","input":{}"#);
        });
    });
    for chunk in std::iter::once("").chain(text_chunks(&call.arguments, max_chunks)) {
        events.push(|out| block_delta(out, index, br#""input_json_delta","partial_json":"#, chunk));
    }
}

/// Appends the start of a content block. `write` appends its type and its fields.
fn block_start(out: &mut Vec<u8>, index: usize, write: impl FnOnce(&mut Vec<u8>)) {
    append!(
        out,
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
        index,
        r#","content_block":{"type":"#
    );
    write(out);
    out.extend_from_slice(b"}}\n\n");
}

/// Appends a piece of a content block. `field` is its type and the name of its field.
fn block_delta(out: &mut Vec<u8>, index: usize, field: &[u8], piece: &str) {
    append!(
        out,
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":",
        index,
        r#","delta":{"type":"#
    );
    out.extend_from_slice(field);
    json_string(out, piece);
    out.extend_from_slice(b"}}\n\n");
}

fn block_stop(out: &mut Vec<u8>, index: usize) {
    append!(
        out,
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":",
        index,
        "}\n\n"
    );
}
