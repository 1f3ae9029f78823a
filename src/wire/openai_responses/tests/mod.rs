//! Tests with recorded requests and responses: complete, cut and damaged.

mod fuzz;
mod reasoning;
mod request;
mod response;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde_json::json;
use sse_stream::SseByteStream;

use crate::types::{Completion, Failure, Format, Prompt, Tokens, Tool, Usage};
use crate::wire::{Dialect, Progress};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wire/", $name))
    };
}
use fixture;

const STREAM: &str = fixture!("openai_responses_stream.sse");
const CALL_STREAM: &str = fixture!("openai_responses_stream_function_call.sse");

type Event = (Option<String>, String);

/// A prompt that offers the tool of the recordings.
fn prompt_with_tool() -> Prompt {
    let parameters = json!({
        "type": "object",
        "properties": { "branch": { "type": "string" } },
        "required": ["branch"],
        "additionalProperties": false,
    });
    let tool = Tool::new("shelf_lookup", parameters).with_description("Count copies").with_strict(true);
    Prompt::text("x").with_tool(tool)
}

fn usage() -> Option<Usage> {
    Some(Usage { input: Tokens(61), output: Tokens(40), reasoning: Tokens(24), ..Usage::default() })
}

fn decode_body(body: &str, prompt: &Prompt) -> Result<Completion, Failure> {
    let mut decoder = Format::OpenaiResponses.decoder(prompt, &Dialect::default());
    decoder.push_body(body.as_bytes())?;
    decoder.finish()
}

/// Parses a recorded stream in pieces of these sizes with the parser of the transport.
fn events_in_pieces(recording: &str, sizes: &[usize]) -> Vec<Event> {
    let mut rest = recording.as_bytes();
    let mut sizes = sizes.iter().cycle();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| *size).clamp(1, rest.len());
        pieces.push(Ok::<_, std::io::Error>(Bytes::copy_from_slice(&rest[..size])));
        rest = &rest[size..];
    }
    let events = SseByteStream::new(stream::iter(pieces)).map(|event| event.unwrap());
    let events = events.map(|event| (event.event, event.data.unwrap_or_default())).collect();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(events)
}

fn events(recording: &str) -> Vec<Event> {
    events_in_pieces(recording, &[])
}

fn decode_events(events: &[Event], prompt: &Prompt) -> (Vec<Progress>, Result<Completion, Failure>) {
    let mut decoder = Format::OpenaiResponses.decoder(prompt, &Dialect::default());
    let mut progress = Vec::new();
    for (name, data) in events {
        match decoder.push_event(name.as_deref(), data) {
            Ok(step) => progress.push(step),
            Err(failure) => return (progress, Err(failure)),
        }
    }
    (progress, decoder.finish())
}

/// Decodes a stream of these `data:` lines, without names of events.
fn decode_data(lines: &[&str], prompt: &Prompt) -> Result<Completion, Failure> {
    decode_events(&lines.iter().map(|data| (None, (*data).to_owned())).collect::<Vec<_>>(), prompt).1
}
