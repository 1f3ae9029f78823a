//! Responses of Gemini's generateContent, and their streams.

use crate::simulator::completion::{Completion, Finish, GeneratedCall};
use crate::simulator::event_stream::{EventStream, text_chunks};
use crate::simulator::parsed_request::tokens;
use crate::simulator::reasoning::signature;
use crate::simulator::response_data::{ResponseData, append, json_string};

use super::tools::SIGNED_CALL_PREFIX;

fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::ToolCalls => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::Refusal => "SAFETY",
        Finish::MissingSignature => "MISSING_THOUGHT_SIGNATURE",
    }
}

/// A part of the content. As at the vendor, the first call or, without a call, the end of the text has the signature
/// of the reasoning.
enum Part<'a> {
    Thought(&'a str),
    Text { text: &'a str, is_signed: bool },
    Call { call: &'a GeneratedCall, is_signed: bool },
}

/// The candidate of a response, or of one chunk of a stream.
struct Candidate<'a> {
    parts: Vec<Part<'a>>,
    finish: Option<&'a Finish>,
    /// Output tokens so far, without those of the reasoning.
    output: u64,
}

fn write_part(out: &mut Vec<u8>, part: &Part<'_>) {
    match part {
        Part::Thought(text) => {
            out.extend_from_slice(br#"{"text":"#);
            json_string(out, text);
            out.extend_from_slice(br#","thought":true}"#);
        }
        Part::Text { text, is_signed } => {
            out.extend_from_slice(br#"{"text":"#);
            json_string(out, text);
            if *is_signed {
                append!(out, r#","thoughtSignature":""#, signature(text), '"');
            }
            out.push(b'}');
        }
        Part::Call { call, is_signed } => {
            let prefix = if *is_signed { SIGNED_CALL_PREFIX } else { "fc_" };
            let id = format!("{prefix}{}", call.id);
            append!(out, r#"{"functionCall":{"id":""#, id, r#"","name":"#);
            json_string(out, &call.name);
            append!(out, r#","args":"#, call.arguments, '}');
            if *is_signed {
                append!(out, r#","thoughtSignature":""#, signature(&id), '"');
            }
            out.push(b'}');
        }
    }
}

fn candidate(out: &mut Vec<u8>, data: &ResponseData<'_>, candidate: &Candidate<'_>) {
    out.extend_from_slice(br#"{"candidates":[{"#);
    if candidate.finish == Some(&Finish::Refusal) {
        // A response that is blocked by the safety filters has no content.
        out.extend_from_slice(br#""finishReason":"SAFETY","index":0,"safetyRatings":[{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","probability":"HIGH","blocked":true}]"#);
    } else {
        out.extend_from_slice(br#""content":{"#);
        for (index, part) in candidate.parts.iter().enumerate() {
            append!(out, if index == 0 { r#""parts":["# } else { "," });
            write_part(out, part);
        }
        if !candidate.parts.is_empty() {
            out.extend_from_slice(b"],");
        }
        out.extend_from_slice(br#""role":"model"},"#);
        if let Some(finish) = candidate.finish {
            append!(out, r#""finishReason":""#, finish_reason(finish), r#"","#);
        }
        out.extend_from_slice(br#""index":0"#);
    }
    let input = data.input_tokens;
    let reasoning = data.completion.reasoning_tokens();
    append!(out, r#"}],"usageMetadata":{"promptTokenCount":"#, input);
    // As at the vendor, a count of 0 is omitted.
    if candidate.output > 0 {
        append!(out, r#","candidatesTokenCount":"#, candidate.output);
    }
    if reasoning > 0 {
        append!(out, r#","thoughtsTokenCount":"#, reasoning);
    }
    if data.cache_use.read > 0 {
        append!(out, r#","cachedContentTokenCount":"#, data.cache_use.read);
    }
    append!(out, r#","totalTokenCount":"#, input + candidate.output + reasoning);
    append!(
        out,
        r#","promptTokensDetails":[{"modality":"TEXT","tokenCount":"#,
        input,
        r#"}]},"modelVersion":"#
    );
    json_string(out, data.model);
    append!(out, r#","responseId":"simulated-"#, format_args!("{:016x}", data.serial), "\"}");
}

/// Returns the output tokens of the whole answer, without those of the reasoning.
fn output_tokens(completion: &Completion) -> u64 {
    if completion.finish == Finish::Refusal {
        0
    } else {
        completion.output_tokens.saturating_sub(completion.reasoning_tokens())
    }
}

/// Returns the text of the reasoning, if the request asks for it.
fn thought(completion: &Completion) -> Option<Part<'_>> {
    let reasoning = completion.reasoning.as_ref()?;
    (!reasoning.text.is_empty()).then_some(Part::Thought(&reasoning.text))
}

/// Returns the calls. Only the first one is signed.
fn calls(completion: &Completion) -> impl Iterator<Item = Part<'_>> {
    let is_reasoned = completion.reasoning.is_some();
    let calls = completion.calls.iter().enumerate();
    calls.map(move |(index, call)| Part::Call { call, is_signed: is_reasoned && index == 0 })
}

/// Returns whether the end of the text is signed.
fn is_text_signed(completion: &Completion) -> bool {
    completion.reasoning.is_some() && completion.calls.is_empty()
}

/// Renders a response without streaming.
pub(in crate::simulator) fn render_response(data: &ResponseData<'_>) -> Vec<u8> {
    let completion = data.completion;
    let mut out = Vec::with_capacity(500 + completion.text.len());
    let mut parts = Vec::new();
    parts.extend(thought(completion));
    if !completion.text.is_empty() {
        parts.push(Part::Text { text: &completion.text, is_signed: is_text_signed(completion) });
    }
    parts.extend(calls(completion));
    let output = output_tokens(completion);
    candidate(&mut out, data, &Candidate { parts, finish: Some(&completion.finish), output });
    out
}

/// Renders a stream of at most `max_chunks` text chunks.
pub(in crate::simulator) fn render_stream(data: &ResponseData<'_>, max_chunks: usize) -> EventStream {
    let completion = data.completion;
    let text = if completion.finish == Finish::Refusal { "" } else { &completion.text };
    let mut events = EventStream::with_capacity(350 * (max_chunks.min(text.len()) + 1) + text.len() * 5 / 4);
    let push_event = |events: &mut EventStream, part: &Candidate<'_>| {
        events.push(|out| {
            out.extend_from_slice(b"data: ");
            candidate(out, data, part);
            out.extend_from_slice(b"\r\n\r\n");
        });
    };
    if let Some(thought) = thought(completion) {
        push_event(&mut events, &Candidate { parts: vec![thought], finish: None, output: 0 });
        events.begin_chunks();
    }
    let all = output_tokens(completion);
    let mut sent = 0;
    for chunk in text_chunks(text, max_chunks) {
        sent += chunk.len();
        let parts = vec![Part::Text { text: chunk, is_signed: false }];
        push_event(&mut events, &Candidate { parts, finish: None, output: tokens(sent).min(all) });
    }
    for call in calls(completion) {
        push_event(&mut events, &Candidate { parts: vec![call], finish: None, output: all });
    }
    events.end_chunks();
    let end = Part::Text { text: "", is_signed: is_text_signed(completion) };
    let parts = if text.is_empty() { Vec::new() } else { vec![end] };
    push_event(&mut events, &Candidate { parts, finish: Some(&completion.finish), output: all });
    events
}
