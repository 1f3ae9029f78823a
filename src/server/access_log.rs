//! Gives every request an ID, and logs how it ended.

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage};
use tokio::time::Instant;
use tracing::Level;

use crate::types::{NanoUsd, Response};

use super::access::CallerName;
use super::api_state::ApiState;
use super::request_id;

/// The header with the ID of a request, in both directions.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a handler adds to the access log of its request.
#[derive(Debug, Clone, Default)]
pub(super) struct LogFields {
    /// The target that answered, `provider/model`.
    pub(super) target: Option<String>,
    /// Tokens that the model read.
    pub(super) input_tokens: u64,
    /// Tokens that the model wrote.
    pub(super) output_tokens: u64,
    /// The cost, if it is known.
    pub(super) cost_usd: Option<f64>,
}

impl LogFields {
    /// Returns the fields of the response to a request.
    pub(super) fn of(response: &Response) -> Self {
        let usage = response.completion.usage.unwrap_or_default();
        Self {
            target: Some(response.target.to_string()),
            input_tokens: usage.input.0,
            output_tokens: usage.output.0,
            cost_usd: response.cost.map(NanoUsd::dollars),
        }
    }
}

/// Logs the end of an answer that was streamed. The log of its request was written when the stream began.
pub(super) fn log_stream_end(id: &str, fields: &LogFields) {
    tracing::info!(
        target: "pointsman::access",
        request_id = id,
        target = fields.target.as_deref().unwrap_or_default(),
        input_tokens = fields.input_tokens,
        output_tokens = fields.output_tokens,
        cost_usd = fields.cost_usd,
        "the stream of an answer ended"
    );
}

/// Handles a request with an ID, and logs its end. The log has the path without its query, because a query may hold data.
pub(super) async fn log_access(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let started = Instant::now();
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = given.and_then(request_id::accepted).unwrap_or_else(request_id::random);
    let handled = request_id::within(id.clone(), next.call(request)).await;
    let mut response = match handled {
        Ok(response) => response,
        Err(error) => return Err(error),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    log(&response, &id, started.elapsed());
    Ok(response)
}

/// Longest path in the log, in characters.
const MAX_PATH_CHARS: usize = 256;

/// Returns a path as the log has it.
fn shown_path(path: &str) -> &str {
    path.char_indices().nth(MAX_PATH_CHARS).map_or(path, |(end, _)| &path[..end])
}

/// Logs the end of a request at a level.
macro_rules! log_end {
    ($level:expr, $response:expr, $id:expr, $took:expr) => {{
        let request = $response.request();
        let extensions = request.extensions();
        let token = extensions.get::<CallerName>().map_or("", |name| name.0.as_str());
        let fields = extensions.get::<LogFields>().cloned().unwrap_or_default();
        tracing::event!(
            target: "pointsman::access",
            $level,
            request_id = $id,
            client = request.peer_addr().map(|address| tracing::field::display(address.ip())),
            method = %request.method(),
            path = shown_path(request.path()),
            status = $response.status().as_u16(),
            token,
            target = fields.target.as_deref().unwrap_or_default(),
            input_tokens = fields.input_tokens,
            output_tokens = fields.output_tokens,
            cost_usd = fields.cost_usd,
            duration_seconds = $took.as_secs_f64(),
            "request"
        );
    }};
}

fn log(response: &ServiceResponse<impl MessageBody>, id: &str, took: Duration) {
    // A level has to be constant.
    let request = response.request();
    let has_caller = request.extensions().contains::<CallerName>();
    let needs_tokens = request.app_data::<Data<ApiState>>().is_some_and(|state| state.options.needs_tokens);
    if is_minor(request.path(), response.status(), needs_tokens && !has_caller) {
        log_end!(Level::DEBUG, response, id, took);
    } else {
        log_end!(Level::INFO, response, id, took);
    }
}

/// Returns whether a request is logged only at the level DEBUG. `is_anonymous` is whether it has no valid token where one is
/// needed: anyone who reaches the server could fill the log. Refused tokens are logged as a sum.
fn is_minor(path: &str, status: StatusCode, is_anonymous: bool) -> bool {
    match status {
        StatusCode::OK if is_probe(path) => true,
        StatusCode::SERVICE_UNAVAILABLE if is_probe(path) => false,
        _ => is_anonymous,
    }
}

/// Returns whether a path is asked every few seconds by platforms and by Prometheus.
fn is_probe(path: &str) -> bool {
    matches!(path, "/health" | "/ready" | "/metrics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_cut_at_a_character() {
        assert_eq!(shown_path("/api/v1/runs"), "/api/v1/runs");
        let exact = "é".repeat(MAX_PATH_CHARS);
        assert_eq!(shown_path(&exact), exact);
        assert_eq!(shown_path(&format!("{exact}/more")), exact);
    }

    #[test]
    fn requests_of_anyone_and_probes_that_succeed_are_minor() {
        for (path, status, is_anonymous, expected) in [
            ("/api/v1/runs", 401, true, true),
            ("/x", 404, true, true),
            ("/login", 503, true, true),
            ("/metrics", 401, true, true),
            ("/ready", 200, true, true),
            ("/ready", 200, false, true),
            ("/ready", 503, true, false),
            ("/api/v1/runs", 200, false, false),
            ("/api/v1/runs", 403, false, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(is_minor(path, status, is_anonymous), expected, "{path} {status}");
        }
    }
}
