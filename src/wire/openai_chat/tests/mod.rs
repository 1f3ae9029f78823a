//! Tests with recorded requests and responses: complete, cut and damaged.

mod error;
mod fuzz;
mod request;
mod response;
mod tool_calls;
mod tool_request;

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use sse_stream::SseStream;

use crate::types::{Completion, Failure, Format, Prompt, Tokens, Usage};
use crate::wire::{Dialect, Progress};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wire/", $name))
    };
}
use fixture;

fn decode_body(body: &str, prompt: &Prompt) -> Result<Completion, Failure> {
    let mut decoder = Format::Openai.decoder(prompt, &Dialect::default());
    decoder.push_body(body.as_bytes())?;
    decoder.finish()
}

/// Parses a recorded stream with the parser of the transport.
fn events(recording: &str) -> Vec<(Option<String>, String)> {
    events_in_pieces(vec![Bytes::from(recording.to_owned())])
}

/// Parses a stream that is received in these pieces.
fn events_in_pieces(pieces: Vec<Bytes>) -> Vec<(Option<String>, String)> {
    let body = stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
    let events = SseStream::from_bytes_stream(body).map(|event| event.unwrap());
    let events = events.map(|event| (event.event, event.data.unwrap_or_default())).collect();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(events)
}

fn decode_events(events: &[(Option<String>, String)]) -> (Vec<Progress>, Result<Completion, Failure>) {
    decode_events_for(&Prompt::text("x"), events)
}

fn decode_events_for(
    prompt: &Prompt,
    events: &[(Option<String>, String)],
) -> (Vec<Progress>, Result<Completion, Failure>) {
    let mut decoder = Format::Openai.decoder(prompt, &Dialect::default());
    let mut progress = Vec::new();
    for (name, data) in events {
        match decoder.push_event(name.as_deref(), data) {
            Ok(step) => progress.push(step),
            Err(failure) => return (progress, Err(failure)),
        }
    }
    (progress, decoder.finish())
}

/// Decodes a stream of these `data:` lines.
fn decode_data(lines: &[&str]) -> Result<Completion, Failure> {
    decode_data_for(&Prompt::text("x"), lines)
}

fn decode_data_for(prompt: &Prompt, lines: &[&str]) -> Result<Completion, Failure> {
    let events: Vec<_> = lines.iter().map(|data| (None, (*data).to_owned())).collect();
    decode_events_for(prompt, &events).1
}

fn usage(input: u64, cached: u64, output: u64, reasoning: u64) -> Option<Usage> {
    Some(Usage {
        input: Tokens(input),
        cached: Tokens(cached),
        cache_write: Tokens(0),
        cache_write_1h: Tokens(0),
        output: Tokens(output),
        reasoning: Tokens(reasoning),
    })
}

fn read(status: u16, body: &str) -> Failure {
    Format::Openai.read_error(status, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH)
}
