//! Responses of OpenAI's chat completions, and their streams.

use crate::simulator::completion::{Finish, GeneratedCall};
use crate::simulator::event_stream::{EventStream, text_chunks};
use crate::simulator::response_data::{ResponseData, append, json_string};

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::Refusal | Finish::MissingSignature => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

/// Renders a response without streaming.
pub(in crate::simulator) fn render_response(data: &ResponseData<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(800 + data.completion.text.len());
    append!(out, r#"{"id":"chatcmpl-"#, format_args!("{:024x}", data.serial));
    append!(out, r#"","object":"chat.completion","created":"#, data.created, r#","model":"#);
    json_string(&mut out, data.model);
    out.extend_from_slice(br#","choices":[{"index":0,"message":{"role":"assistant","content":"#);
    if data.completion.finish == Finish::Refusal {
        out.extend_from_slice(br#"null,"refusal":"#);
        json_string(&mut out, &data.completion.text);
    } else {
        content(&mut out, data, &data.completion.text);
        out.extend_from_slice(br#","refusal":null"#);
    }
    out.extend_from_slice(br#","annotations":[]"#);
    for (index, call) in data.completion.calls.iter().enumerate() {
        append!(out, if index == 0 { r#","tool_calls":["# } else { "," });
        append!(out, r#"{"id":"call_"#, call.id, r#"","type":"function","function":{"name":"#);
        json_string(&mut out, &call.name);
        out.extend_from_slice(br#","arguments":"#);
        json_string(&mut out, &call.arguments);
        out.extend_from_slice(b"}}");
    }
    if !data.completion.calls.is_empty() {
        out.push(b']');
    }
    append!(out, r#"},"logprobs":null,"finish_reason":""#, finish_reason(&data.completion.finish));
    out.extend_from_slice(br#""}],"usage":"#);
    usage(&mut out, data);
    out.extend_from_slice(br#","service_tier":"default","system_fingerprint":null}"#);
    out
}

fn usage(out: &mut Vec<u8>, data: &ResponseData<'_>) {
    let input = data.input_tokens;
    let output = data.completion.output_tokens;
    append!(out, r#"{"prompt_tokens":"#, input, r#","completion_tokens":"#, output);
    append!(out, r#","total_tokens":"#, input + output);
    append!(out, r#","prompt_tokens_details":{"cached_tokens":"#, data.cache_use.read);
    out.extend_from_slice(
        br#","cache_write_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":"#,
    );
    append!(out, data.completion.reasoning_tokens());
    out.extend_from_slice(
        br#","audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
    );
}

/// Appends the content of a message: null if the message consists of tool calls.
fn content(out: &mut Vec<u8>, data: &ResponseData<'_>, text: &str) {
    let completion = data.completion;
    if completion.text.is_empty() && !completion.calls.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        json_string(out, text);
    }
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(in crate::simulator) fn render_stream(
    data: &ResponseData<'_>,
    max_chunks: usize,
    include_usage: bool,
) -> EventStream {
    let mut start = Vec::with_capacity(200);
    append!(start, r#"data: {"id":"chatcmpl-"#, format_args!("{:024x}", data.serial));
    append!(start, r#"","object":"chat.completion.chunk","created":"#, data.created, r#","model":"#);
    json_string(&mut start, data.model);
    start.extend_from_slice(br#","service_tier":"default","system_fingerprint":null,"choices":["#);
    let end: &[u8] = if include_usage {
        b"],\"usage\":null,\"obfuscation\":\"kQ9z\"}\n\n"
    } else {
        b"],\"obfuscation\":\"kQ9z\"}\n\n"
    };
    let text = &data.completion.text;
    let mut events = EventStream::with_capacity(
        (start.len() + 150) * (max_chunks.min(text.len()) + 3) + text.len() * 5 / 4,
    );
    let push_choice = |events: &mut EventStream, delta: &dyn Fn(&mut Vec<u8>), finish: Option<&Finish>| {
        events.push(|out| {
            out.extend_from_slice(&start);
            out.extend_from_slice(br#"{"index":0,"delta":{"#);
            delta(out);
            out.extend_from_slice(br#"},"logprobs":null,"finish_reason":"#);
            match finish {
                None => out.extend_from_slice(b"null}"),
                Some(finish) => append!(out, '"', finish_reason(finish), "\"}"),
            }
            out.extend_from_slice(end);
        });
    };
    push_choice(
        &mut events,
        &|out| {
            out.extend_from_slice(br#""role":"assistant","content":"#);
            content(out, data, "");
            out.extend_from_slice(br#","refusal":null"#);
        },
        None,
    );
    events.begin_chunks();
    let field: &[u8] =
        if data.completion.finish == Finish::Refusal { br#""refusal":"# } else { br#""content":"# };
    for chunk in text_chunks(text, max_chunks) {
        let delta = |out: &mut Vec<u8>| {
            out.extend_from_slice(field);
            json_string(out, chunk);
        };
        push_choice(&mut events, &delta, None);
    }
    for (index, call) in data.completion.calls.iter().enumerate() {
        push_choice(&mut events, &|out| call_start(out, index, call), None);
        for chunk in text_chunks(&call.arguments, max_chunks) {
            let delta = |out: &mut Vec<u8>| {
                append!(out, r#""tool_calls":[{"index":"#, index, r#","function":{"arguments":"#);
                json_string(out, chunk);
                out.extend_from_slice(b"}}]");
            };
            push_choice(&mut events, &delta, None);
        }
    }
    events.end_chunks();
    push_choice(&mut events, &|_| {}, Some(&data.completion.finish));
    if include_usage {
        events.push(|out| {
            out.extend_from_slice(&start);
            out.extend_from_slice(br#"],"usage":"#);
            usage(out, data);
            out.extend_from_slice(b"}\n\n");
        });
    }
    events.push(|out| out.extend_from_slice(b"data: [DONE]\n\n"));
    events
}

/// Appends the first piece of a tool call, which names it.
fn call_start(out: &mut Vec<u8>, index: usize, call: &GeneratedCall) {
    append!(out, r#""tool_calls":[{"index":"#, index, r#","function":{"arguments":"","name":"#);
    json_string(out, &call.name);
    append!(out, r#"},"id":"call_"#, call.id, r#"","type":"function"}]"#);
}
