//! Fuzz functions: they feed arbitrary bytes to every parser of foreign input, and check its invariants.
//!
//! The file is part of two crates: the test suite runs it with a few thousand mutated recordings (`mod.rs` in
//! this folder), and `tests/fuzz` with cargo-fuzz. So it uses only public items.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman::Config;
use pointsman::diagnostics::Document;
use pointsman::pipeline::{Defaults, Pipeline};
use pointsman::source::{Entry, Error, Format as ItemFormat, Limits, Source};
use pointsman::types::{Completion, Failure, Format, Prompt, Usage};
use pointsman::wire::{Decoder, Dialect, Progress, RateLimitHeaders};
use sse_stream::SseByteStream;

const FORMATS: [Format; 4] = Format::ALL;

/// The maximum wait that a parser may return.
const MAX_WAIT: Duration = Duration::from_secs(366 * 86_400);

/// Input: the headers of a response, one per line.
pub fn headers(data: &[u8]) {
    let headers = headers_of(data);
    for format in FORMATS {
        let rate_limits = format.read_rate_limit_headers(&headers, now());
        check_rate_limit_headers(&rate_limits);
        check_failure(&format.read_error(429, &headers, b"", now()));
    }
}

/// Input: an error response. The first byte selects the status; headers, an empty line and the body follow.
pub fn error(data: &[u8]) {
    const STATUSES: [u16; 16] =
        [400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529, 301];
    let Some((status, rest)) = data.split_first() else { return };
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let blank = rest.windows(2).position(|pair| pair == b"\n\n");
    let (headers, body) =
        blank.map_or((&[][..], rest), |position| (&rest[..position], &rest[position + 2..]));
    for format in FORMATS {
        let failure = format.read_error(status, &headers_of(headers), body, now());
        check_failure(&failure);
        assert_eq!(failure.status, Some(status));
    }
}

/// Input: a JSON response.
pub fn response_body(data: &[u8]) {
    for format in FORMATS {
        let mut decoder = decoder(format);
        check_completion(&decoder.push_body(data).and_then(|()| decoder.finish()), format);
    }
}

/// Input: one byte for the size of the pieces, then the bytes of an event stream.
///
/// The size of the pieces must not change the result.
pub fn stream_in_pieces(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let size = usize::from(*size % 64) + 1;
    for format in FORMATS {
        let in_pieces = read_stream(format, data.chunks(size));
        check_completion(&in_pieces, format);
        let at_once = read_stream(format, [data].into_iter());
        assert_eq!(in_pieces, at_once, "{format:?} in pieces of {size}");
    }
}

/// Input: one byte for the format of the items, one byte for the limits, then the text of the items.
pub fn items(data: &[u8]) {
    let [kind, size, text @ ..] = data else { return };
    let format =
        [None, Some(ItemFormat::Jsonl), Some(ItemFormat::Csv), Some(ItemFormat::Json)][usize::from(kind % 4)];
    let item_bytes = 16 + usize::from(*size) * 8;
    let limits = Limits::new().with_item_bytes(item_bytes).with_ahead(4).with_ahead_bytes(1 << 16);
    let read_size = usize::from(*size % 16) + 1;
    let source = Source::reader("fuzz", SmallReads { text: text.to_vec(), position: 0, read_size }, format)
        .with_limits(limits);
    let mut reader = source.read().unwrap();
    let mut items = 0;
    let mut ended = false;
    while let Some(entry) = block_on(reader.next()) {
        assert!(!ended, "an entry followed an error");
        match entry {
            Ok(Entry::Item(item)) => {
                assert_eq!(item.number, items);
                assert!(item.line > 0 && item.value.is_object());
                items += 1;
            }
            Ok(Entry::Rejected(reject)) => {
                assert!(reject.line > 0 && !reject.reason.is_empty() && reject.text.len() < 4096);
            }
            Err(Error::Panicked { .. }) => panic!("the reader thread panicked"),
            Err(_) => ended = true,
        }
    }
}

/// Input: TOML text. It is parsed as a document, as a configuration and as a pipeline.
pub fn documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(document) = Document::parse("fuzz.toml", text) {
        document.spans();
    }
    if let Ok(config) = Config::parse("config.toml", text, &|_| None) {
        config.targets().for_each(drop);
    }
    // A schema may be a path. Without `/` no file outside the folder is read.
    if !text.contains('/') {
        drop(Pipeline::parse("pipeline.toml", text, Path::new("/nowhere"), &Defaults::default(), &[]));
    }
}

/// Returns 2026-11-20T20:00:00Z, the time of the recorded headers.
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

fn check_rate_limit_headers(rate_limits: &RateLimitHeaders) {
    let all = [rate_limits.requests, rate_limits.tokens, rate_limits.input_tokens, rate_limits.output_tokens];
    for limit in all.into_iter().chain([rate_limits.requests_per_day, rate_limits.tokens_per_day]).flatten() {
        assert!(limit.reset.is_none_or(|reset| reset <= MAX_WAIT), "{limit:?}");
        assert!(limit.limit != Some(0), "{limit:?}");
    }
    assert!(rate_limits.retry_after.is_none_or(|wait| wait <= MAX_WAIT), "{rate_limits:?}");
    assert!(rate_limits.wait_until_reset().is_none_or(|wait| wait <= MAX_WAIT), "{rate_limits:?}");
}

fn check_failure(failure: &Failure) {
    assert!(!failure.message.trim().is_empty(), "{failure:?}");
    assert!(failure.retry_after.is_none_or(|wait| wait <= MAX_WAIT), "{failure:?}");
}

/// Checks the invariants of a completion. It may be empty: the step validates that.
fn check_completion(completion: &Result<Completion, Failure>, format: Format) {
    match completion {
        Ok(completion) => {
            let is_sound = |usage: Usage| usage.cached <= usage.input && usage.reasoning <= usage.output;
            assert!(completion.usage.is_none_or(is_sound), "{completion:?}");
        }
        Err(failure) => {
            check_failure(failure);
            check_failure(&format.apply_headers(failure.clone(), &HeaderMap::new(), now()));
        }
    }
}

fn decoder(format: Format) -> Decoder {
    format.decoder(&Prompt::default(), &Dialect::default())
}

/// Reads an event stream as the provider module does.
fn read_stream<'d>(format: Format, pieces: impl Iterator<Item = &'d [u8]>) -> Result<Completion, Failure> {
    let pieces: Vec<_> = pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
    let mut events = SseByteStream::new(stream::iter(pieces));
    let mut decoder = decoder(format);
    // The stream never waits, so one poll is enough.
    let next = move || events.next().now_or_never().flatten();
    for event in std::iter::from_fn(next) {
        let Ok(event) = event else { break };
        let Some(data) = &event.data else { continue };
        if decoder.push_event(event.event.as_deref(), data)? == Progress::Ended {
            break;
        }
    }
    decoder.finish()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A reader that returns a few bytes per read.
struct SmallReads {
    text: Vec<u8>,
    position: usize,
    read_size: usize,
}

impl Read for SmallReads {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.text[self.position..];
        let size = rest.len().min(self.read_size).min(buffer.len());
        buffer[..size].copy_from_slice(&rest[..size]);
        self.position += size;
        Ok(size)
    }
}
