//! Plays recorded exchanges, whole, in pieces and broken, through the room's own face.

mod error;
mod odd;
mod reply;
mod request;

use std::time::SystemTime;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use sse_stream::SseStream;

use crate::types::{Failure, Prompt, Reply};
use crate::wire::{Dialect, Format, Progress};

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wire/", $name))
    };
}
use fixture;

fn whole(body: &str, prompt: &Prompt) -> Result<Reply, Failure> {
    let mut decoder = Format::Openai.decoder(prompt, &Dialect::default());
    decoder.whole(body.as_bytes())?;
    decoder.finish()
}

/// Reads a recorded stream with the reader that the transport uses.
fn events(recording: &str) -> Vec<(Option<String>, String)> {
    let body = stream::iter([Ok::<_, std::io::Error>(Bytes::from(recording.to_owned()))]);
    let events = SseStream::from_bytes_stream(body).map(|event| event.unwrap());
    let events = events.map(|event| (event.event, event.data.unwrap_or_default())).collect();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(events)
}

fn play(events: &[(Option<String>, String)]) -> (Vec<Progress>, Result<Reply, Failure>) {
    let mut decoder = Format::Openai.decoder(&Prompt::text("x"), &Dialect::default());
    let mut progress = Vec::new();
    for (name, data) in events {
        match decoder.event(name.as_deref(), data) {
            Ok(more) => progress.push(more),
            Err(failure) => return (progress, Err(failure)),
        }
    }
    (progress, decoder.finish())
}

/// Plays a stream of these `data:` lines.
fn lines(lines: &[&str]) -> Result<Reply, Failure> {
    play(&lines.iter().map(|data| (None, (*data).to_owned())).collect::<Vec<_>>()).1
}

fn read(status: u16, body: &str) -> Failure {
    Format::Openai.read_error(status, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH)
}
