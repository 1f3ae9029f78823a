//! Feeds bytes that nobody chose to everything that reads what others wrote, and checks what must
//! hold whatever the bytes are.
//!
//! Two owners include this file: the test suite, with a few thousand mutated recordings (`mod.rs`
//! beside it), and `tests/fuzz`, for as long as somebody likes. It names only what is public.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman::Config;
use pointsman::document::Document;
use pointsman::pipeline::{Defaults, Pipeline};
use pointsman::source::{Entry, Error, Format as Written, Limits, Source};
use pointsman::types::{Failure, Prompt, Reply, Usage};
use pointsman::wire::{Decoder, Dialect, Format, Hints, Progress};
use sse_stream::SseByteStream;

const FORMATS: [Format; 3] = [Format::Openai, Format::Anthropic, Format::Gemini];

/// No wait is longer; what says so is mistaken.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The headers of a response, one on each line.
pub fn headers(data: &[u8]) {
    let headers = headers_of(data);
    for format in FORMATS {
        let hints = format.read_hints(&headers, now());
        check_hints(&hints);
        check_failure(&format.read_error(429, &headers, b"", now()));
    }
}

/// A refusal: its status in the first byte, then its headers, an empty line, and its body.
pub fn error(data: &[u8]) {
    const STATUSES: [u16; 16] =
        [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529, 301];
    let Some((status, rest)) = data.split_first() else { return };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let blank = rest.windows(2).position(|pair| pair == b"\n\n");
    let (headers, body) = blank.map_or((&[][..], rest), |at| (&rest[..at], &rest[at + 2..]));
    for format in FORMATS {
        let failure = format.read_error(status, &headers_of(headers), body, now());
        check_failure(&failure);
        assert_eq!(failure.status, Some(status));
    }
}

/// A whole body that came as the answer.
pub fn whole(data: &[u8]) {
    for format in FORMATS {
        let mut decoder = decoder(format);
        check_reply(&decoder.whole(data).and_then(|()| decoder.finish()), format);
    }
}

/// The bytes of a stream, after one byte that says in which pieces they arrive.
///
/// How they were cut on the way must change nothing.
pub fn stream_in_pieces(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let size = usize::from(*size % 64) + 1;
    for format in FORMATS {
        let in_pieces = read_stream(format, data.chunks(size));
        check_reply(&in_pieces, format);
        let at_once = read_stream(format, [data].into_iter());
        assert_eq!(in_pieces, at_once, "{format:?} in pieces of {size}");
    }
}

/// Items: how they are written and how much is held in the first bytes, then the text.
pub fn items(data: &[u8]) {
    let [kind, size, text @ ..] = data else { return };
    let format = [None, Some(Written::Jsonl), Some(Written::Csv), Some(Written::Json)][usize::from(kind % 4)];
    let limits = Limits { item_bytes: 16 + usize::from(*size) * 8, ahead: 4, ahead_bytes: 1 << 16 };
    let piece = usize::from(*size % 16) + 1;
    let source = Source::reader("fuzz", Pieces { text: text.to_vec(), at: 0, piece }, format).limits(limits);
    let mut reader = source.read().unwrap();
    let (mut items, mut ended) = (0, false);
    while let Some(entry) = block_on(reader.next()) {
        assert!(!ended, "something came after an error");
        match entry {
            Ok(Entry::Item(item)) => {
                assert_eq!(item.number, items);
                assert!(item.line > 0 && item.value.is_object());
                items += 1;
            }
            Ok(Entry::Rejected(reject)) => {
                assert!(reject.line > 0 && !reject.reason.is_empty() && reject.text.len() < 4096);
            }
            Err(Error::Panicked { .. }) => panic!("the reading thread has panicked"),
            Err(_) => ended = true,
        }
    }
}

/// A TOML text, as a document, as a configuration and as a pipeline.
pub fn documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(document) = Document::parse("fuzz.toml", text) {
        document.places();
    }
    if let Ok(config) = Config::parse("config.toml", text, &|_| None) {
        config.lanes().for_each(drop);
    }
    // A schema may be a file: nothing outside is read here.
    if !text.contains('/') {
        drop(Pipeline::parse("pipeline.toml", text, Path::new("/nowhere"), &Defaults::default(), &[]));
    }
}

/// 2026-11-20T20:00:00Z, when the recorded headers arrived.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_204_800)
}

fn headers_of(data: &[u8]) -> HeaderMap {
    let lines = data.split(|byte| *byte == b'\n');
    let pair = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        Some((HeaderName::from_bytes(&line[..colon]).ok()?, value))
    };
    lines.filter_map(pair).take(64).collect()
}

fn check_hints(hints: &Hints) {
    let all = [hints.requests, hints.tokens, hints.input_tokens, hints.output_tokens];
    for left in all.into_iter().chain([hints.requests_per_day, hints.tokens_per_day]).flatten() {
        assert!(left.reset.is_none_or(|reset| reset <= LONGEST), "{left:?}");
        assert!(left.limit != Some(0), "{left:?}");
    }
    assert!(hints.retry_after.is_none_or(|wait| wait <= LONGEST), "{hints:?}");
    assert!(hints.until_open().is_none_or(|wait| wait <= LONGEST), "{hints:?}");
}

fn check_failure(failure: &Failure) {
    assert!(!failure.message.trim().is_empty(), "{failure:?}");
    assert!(failure.retry_after.is_none_or(|wait| wait <= LONGEST), "{failure:?}");
}

/// What a reply must be, whatever was read. It may be empty: its step checks that.
fn check_reply(reply: &Result<Reply, Failure>, format: Format) {
    match reply {
        Ok(reply) => {
            let is_sound = |usage: Usage| usage.cached <= usage.input && usage.reasoning <= usage.output;
            assert!(reply.usage.is_none_or(is_sound), "{reply:?}");
        }
        Err(failure) => {
            check_failure(failure);
            check_failure(&format.complete(failure.clone(), &HeaderMap::new(), now()));
        }
    }
}

fn decoder(format: Format) -> Decoder {
    format.decoder(&Prompt::default(), &Dialect::default())
}

/// Reads a stream as a provider does.
fn read_stream<'d>(format: Format, pieces: impl Iterator<Item = &'d [u8]>) -> Result<Reply, Failure> {
    let pieces: Vec<_> = pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
    let mut events = SseByteStream::new(stream::iter(pieces));
    let mut decoder = decoder(format);
    // Nothing here waits, so the first look at the future is the last.
    let next = move || events.next().now_or_never().flatten();
    for event in std::iter::from_fn(next) {
        let Ok(event) = event else { break };
        let Some(data) = &event.data else { continue };
        if decoder.event(event.event.as_deref(), data)? == Progress::Ended {
            break;
        }
    }
    decoder.finish()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Gives its text a few bytes at a time.
struct Pieces {
    text: Vec<u8>,
    at: usize,
    piece: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.text[self.at..];
        let size = rest.len().min(self.piece).min(buffer.len());
        buffer[..size].copy_from_slice(&rest[..size]);
        self.at += size;
        Ok(size)
    }
}
