//! Reads the bodies of requests within their limits of size and time.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Bytes, BytesMut, Payload};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::daemon::{self, SpooledFile};

use super::api_state::ApiState;
use super::idempotency::IdempotencyKey;
use super::json_error;
use super::problem::{Problem, ProblemType};

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
    json_error::parse(&read(request, payload, state).await?)
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
    let bytes = read(request, payload, state).await?;
    key.update(&bytes);
    json_error::parse(&bytes)
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
    let bytes = read(request, payload, state).await?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::bad_request("the body is not UTF-8"))
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
    let max = serve.max_upload.0 as u64;
    refuse_length(request, max)?;
    let daemon = state.daemon.clone();
    let mut file = on_blocking_thread(move || daemon.data().spool()).await?;
    let mut block = Vec::new();
    let mut bytes: u64 = 0;
    while let Some(chunk) = next_chunk(&mut payload, serve.read_timeout).await? {
        bytes = bytes.saturating_add(chunk.len() as u64);
        if bytes > max {
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

async fn read(request: &HttpRequest, mut payload: Payload, state: &ApiState) -> Result<Bytes, Problem> {
    let serve = &state.daemon.config().serve;
    let max = serve.max_body.0;
    refuse_length(request, max as u64)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut payload, serve.read_timeout).await? {
        if body.len().saturating_add(chunk.len()) > max {
            return Err(too_large(max as u64));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Refuses a body whose announced length is above `max`, before it is read.
///
/// # Errors
/// 413 with the limit.
pub(super) fn refuse_length(request: &HttpRequest, max: u64) -> Result<(), Problem> {
    let length = request.headers().get("content-length").and_then(|value| value.to_str().ok());
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > max => Err(too_large(max)),
        Some(_) | None => Ok(()),
    }
}

/// Returns the next piece of a body; `None` at its end.
///
/// # Errors
/// If it does not come in time, or the connection ends early.
pub(super) async fn next_chunk(payload: &mut Payload, wait: Duration) -> Result<Option<Bytes>, Problem> {
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

/// The problem of a body above `max` bytes.
pub(super) fn too_large(max: u64) -> Problem {
    let detail = format!("the body is larger than the limit of {max} bytes");
    let problem = Problem::new(ProblemType::TooLarge, detail);
    problem.with_advice("send less at once, or raise max_body or max_upload of [serve]")
}
