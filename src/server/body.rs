//! Reads the bodies of requests within their limits of size and time.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Bytes, Payload};
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::daemon::{self, SpooledFile};

use super::api_state::ApiState;
use super::body_limits::{BodyBuffer, BodyLimits};
use super::idempotency::IdempotencyKey;
use super::json_error;
use super::problem::{Problem, ProblemType};

/// How many times `read_timeout` a body that is buffered may take in all.
const TOTAL_READ_TIMEOUTS: u32 = 4;

/// The least time that such a body has in all.
const MIN_TOTAL_TIME: Duration = Duration::from_secs(60);

/// The greatest size of a body.
#[derive(Debug, Clone, Copy)]
struct MaxSize {
    bytes: u64,
    /// The key of `[serve]` that sets it; `None` if it is fixed.
    setting: Option<&'static str>,
}

/// Reads a JSON body.
///
/// # Errors
/// If it is too large or too slow, is not JSON, or has not the expected fields. The message names the place.
pub(super) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    state: &ApiState,
) -> Result<T, Problem> {
    expect_type(request, &["application/json"])?;
    json_error::parse(read(request, payload, state).await?.bytes())
}

/// Reads a JSON body, and adds it to what is compared for an idempotency key.
///
/// # Errors
/// As [`json`].
pub(super) async fn json_with_key<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    state: &ApiState,
    key: &mut IdempotencyKey,
) -> Result<T, Problem> {
    expect_type(request, &["application/json"])?;
    let body = read(request, payload, state).await?;
    key.update(body.bytes());
    json_error::parse(body.bytes())
}

/// Reads a JSON body, or the default if it is empty.
///
/// # Errors
/// As [`json`].
pub(super) async fn json_or_default<T: DeserializeOwned + Default>(
    request: &HttpRequest,
    payload: Payload,
    state: &ApiState,
) -> Result<T, Problem> {
    let is_empty = request.headers().get(CONTENT_TYPE).is_none()
        && request.headers().get("content-length").is_none_or(|length| length == "0")
        && request.headers().get("transfer-encoding").is_none();
    if is_empty { Ok(T::default()) } else { json(request, payload, state).await }
}

/// Reads a body of text.
///
/// # Errors
/// If it is too large or too slow, or is not UTF-8.
pub(super) async fn text(
    request: &HttpRequest,
    payload: Payload,
    state: &ApiState,
) -> Result<String, Problem> {
    utf8(read(request, payload, state).await?)
}

/// Reads a body of text that has at most `max` bytes, whatever `max_body` is.
///
/// # Errors
/// As [`text`].
pub(super) async fn short_text(
    request: &HttpRequest,
    mut payload: Payload,
    state: &ApiState,
    max: usize,
) -> Result<String, Problem> {
    let size = MaxSize { bytes: max as u64, setting: None };
    refuse_length(request, size)?;
    utf8(read_within(&mut payload, &state.bodies, size, state.daemon.config().serve.read_timeout).await?)
}

fn utf8(body: BodyBuffer<'_>) -> Result<String, Problem> {
    String::from_utf8(body.into_bytes()).map_err(|_| Problem::bad_request("the body is not UTF-8"))
}

/// How many bytes of an upload are written at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Writes a body to a file of the daemon, which is removed unless a run is created of it.
///
/// # Errors
/// If it is too large or too slow, or ends early, or if the disk fails.
pub(super) async fn spool(
    request: &HttpRequest,
    mut payload: Payload,
    state: &ApiState,
) -> Result<SpooledFile, Problem> {
    let serve = &state.daemon.config().serve;
    let max = MaxSize { bytes: serve.max_upload.0 as u64, setting: Some("max_upload") };
    refuse_length(request, max)?;
    let daemon = state.daemon.clone();
    let mut file = on_blocking_thread(move || daemon.data().spool()).await?;
    let mut block = Vec::new();
    let mut bytes: u64 = 0;
    while let Some(chunk) = next_chunk(&mut payload, serve.read_timeout).await? {
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > max.bytes {
            return Err(too_large(max));
        }
        block.extend_from_slice(&chunk);
        if block.len() >= BLOCK_BYTES {
            file = append(file, std::mem::take(&mut block)).await?;
        }
    }
    append(file, block).await
}

async fn append(mut file: SpooledFile, block: Vec<u8>) -> Result<SpooledFile, Problem> {
    on_blocking_thread(move || file.write(&block).map(|()| file)).await
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, daemon::Error> + Send + 'static,
) -> Result<T, Problem> {
    match web::block(work).await {
        Ok(done) => Ok(done?),
        // The thread is gone.
        Err(_) => Err(daemon::Error::Stopping.into()),
    }
}

/// Refuses a body of another media type.
///
/// # Errors
/// 415 with the types that are accepted.
pub(super) fn expect_type(request: &HttpRequest, accepted: &[&str]) -> Result<(), Problem> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(media_type)) {
        return Ok(());
    }
    let detail = match media_type {
        "" => "the body has no media type".to_owned(),
        media_type => format!("the body has the media type {media_type:?}"),
    };
    let problem = Problem::new(ProblemType::UnsupportedMediaType, detail);
    Err(problem.with_advice(format!("send Content-Type: {}", accepted.join(" or "))))
}

async fn read<'s>(
    request: &HttpRequest,
    mut payload: Payload,
    state: &'s ApiState,
) -> Result<BodyBuffer<'s>, Problem> {
    let serve = &state.daemon.config().serve;
    let max = MaxSize { bytes: serve.max_body.0 as u64, setting: Some("max_body") };
    refuse_length(request, max)?;
    read_within(&mut payload, &state.bodies, max, serve.read_timeout).await
}

/// Reads a body into memory, within its limits and those of all bodies.
async fn read_within<'l>(
    payload: &mut (impl Stream<Item = Result<Bytes, PayloadError>> + Unpin),
    limits: &'l BodyLimits,
    max: MaxSize,
    read_timeout: Duration,
) -> Result<BodyBuffer<'l>, Problem> {
    let reading = async {
        let mut body = limits.buffer();
        while let Some(chunk) = next_chunk(payload, read_timeout).await? {
            if body.len().saturating_add(chunk.len()) as u64 > max.bytes {
                return Err(too_large(max));
            }
            body.extend(&chunk)?;
        }
        Ok(body)
    };
    // A caller that sends a byte from time to time would otherwise keep its part of the memory for days.
    let total = read_timeout.saturating_mul(TOTAL_READ_TIMEOUTS).max(MIN_TOTAL_TIME);
    timeout(total, reading).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} seconds", total.as_secs());
        Err(Problem::new(ProblemType::Timeout, detail))
    })
}

/// Refuses a body whose announced length is above `max`, before it is read.
fn refuse_length(request: &HttpRequest, max: MaxSize) -> Result<(), Problem> {
    let length = request.headers().get("content-length").and_then(|value| value.to_str().ok());
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > max.bytes => Err(too_large(max)),
        Some(_) | None => Ok(()),
    }
}

/// Returns the next piece of a body; `None` at its end.
async fn next_chunk(
    payload: &mut (impl Stream<Item = Result<Bytes, PayloadError>> + Unpin),
    wait: Duration,
) -> Result<Option<Bytes>, Problem> {
    match timeout(wait, payload.next()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(chunk))) => Ok(Some(chunk)),
        Ok(Some(Err(error))) => Err(Problem::bad_request(format!("the body ended early: {error}"))),
        Err(_) => {
            let detail = format!("no part of the body arrived for {} seconds", wait.as_secs());
            Err(Problem::new(ProblemType::Timeout, detail))
        }
    }
}

/// The problem of a body above `max`.
fn too_large(max: MaxSize) -> Problem {
    let detail = format!("the body is larger than the limit of {} bytes", max.bytes);
    let problem = Problem::new(ProblemType::TooLarge, detail);
    match max.setting {
        Some(setting) => problem.with_advice(format!("send less at once, or raise {setting} of [serve]")),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::time::{Instant, sleep};

    use super::*;

    const MAX: MaxSize = MaxSize { bytes: 10_000, setting: Some("max_body") };

    const READ_TIMEOUT: Duration = Duration::from_secs(30);

    /// A body of `count` pieces of `size` bytes, each after a pause.
    fn pieces(
        count: usize,
        size: usize,
        pause: Duration,
    ) -> impl Stream<Item = Result<Bytes, PayloadError>> + Unpin {
        Box::pin(stream::iter(0..count).then(move |_| async move {
            sleep(pause).await;
            Ok(Bytes::from(vec![b'x'; size]))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_a_total_time_and_each_pause_a_bound() {
        let limits = BodyLimits::new();
        let start = Instant::now();
        let mut slow = pieces(10_000, 1, READ_TIMEOUT / 2);
        let problem = read_within(&mut slow, &limits, MAX, READ_TIMEOUT).await.unwrap_err();
        assert_eq!((problem.status, start.elapsed().as_secs()), (408, 120));
        assert_eq!(&*problem.detail, "the body did not arrive within 120 seconds");
        let mut paused = pieces(2, 1, 2 * READ_TIMEOUT);
        let problem = read_within(&mut paused, &limits, MAX, READ_TIMEOUT).await.unwrap_err();
        assert_eq!(&*problem.detail, "no part of the body arrived for 30 seconds");
        // A short timeout leaves a slow connection a minute.
        let mut slow = pieces(58, 1, Duration::from_secs(1));
        let body = read_within(&mut slow, &limits, MAX, Duration::from_secs(2)).await.unwrap();
        assert_eq!(body.len(), 58);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_unknown_length_is_counted_while_it_is_read() {
        let limits = BodyLimits::with_bytes(8 << 10);
        let small = MaxSize { bytes: 1_000, setting: None };
        let mut long = pieces(usize::MAX, 100, Duration::ZERO);
        let problem = read_within(&mut long, &limits, small, READ_TIMEOUT).await.unwrap_err();
        assert_eq!((problem.status, problem.advice), (413, None));
        let mut long = pieces(usize::MAX, 100, Duration::ZERO);
        let problem = read_within(&mut long, &limits, MAX, READ_TIMEOUT).await.unwrap_err();
        assert_eq!(problem.status, 503);
        let mut whole = pieces(80, 100, Duration::ZERO);
        assert_eq!(read_within(&mut whole, &limits, MAX, READ_TIMEOUT).await.unwrap().len(), 8_000);
    }
}
