//! `/health`, `/ready` and `/metrics`.

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Data;
use serde_json::json;

use crate::daemon::Readiness;
use crate::server::access::Reader;
use crate::server::api_state::ApiState;
use crate::server::problem::{Problem, ProblemType};

use super::problems::{AnyProblem, Problems};

/// The media type of metrics as Prometheus reads them.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers as long as the process responds.
#[utoipa::path(
    get,
    path = "/health",
    tag = "operation",
    operation_id = "health",
    security(()),
    responses(
        (status = 200, description = "The process responds.", body = Object),
        (status = 503, description = "A thread of the process is blocked.", body = Problem, content_type = "application/problem+json"),
        AnyProblem,
    ),
)]
pub(in crate::server) async fn health(state: Data<ApiState>) -> Result<HttpResponse, Problem> {
    if state.daemon.pointsman().is_stalled() {
        let detail = "a thread of the process is blocked";
        return Err(Problem::new(ProblemType::Unavailable, detail));
    }
    Ok(HttpResponse::Ok().json(json!({ "status": "ok" })))
}

/// Answers whether the daemon can take work, and if not, why.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "operation",
    operation_id = "ready",
    security(()),
    responses(
        (status = 200, description = "The daemon can take work.", body = Readiness),
        (status = 503, description = "The daemon cannot take work, for these reasons.", body = Readiness),
        AnyProblem,
    ),
)]
pub(in crate::server) async fn ready(reader: Option<Reader>, state: Data<ApiState>) -> HttpResponse {
    let readiness = state.daemon.readiness().await;
    // A probe has no token. Details may name files, routes and providers.
    let readiness = if reader.is_some() { readiness } else { readiness.without_details() };
    let mut response =
        if readiness.is_ready() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.json(readiness)
}

/// Returns the metrics of the process, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    operation_id = "metrics",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain"),
        Problems,
    ),
)]
pub(in crate::server) async fn metrics(_: Reader, state: Data<ApiState>) -> Result<HttpResponse, Problem> {
    let text = state.daemon.metrics_text().await;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, PROMETHEUS_TEXT)).body(text))
}
