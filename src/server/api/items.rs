//! `/pipelines/{name}/items`: items one at a time.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::web::{self, Data, Path, Payload, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::daemon::{self, Caller, ItemProgress, StoredResponse, SubmittedItem};
use crate::server::access::{Runner, Viewer};
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::idempotency::{Checked, Execution, IDEMPOTENT_REPLAYED_TRUE, IdempotencyKey, to_its_end};
use crate::server::problem::Problem;
use crate::sink::Line;
use crate::store::RunNumber;
use crate::types::{ItemKey, duration};

use super::problems::{BodyProblems, Problems};

/// How long a caller waits that does not say it.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/pipelines/{name}/items").route(web::post().to(submit)))
        .service(web::resource("/pipelines/{name}/items/{key}").route(web::get().to(show)));
}

/// The query of a new item.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubmitQuery {
    /// How long to wait for the line, such as `30s`, which is the default; at most `max_wait` of `[serve]`. `0s` does not wait.
    wait: Option<String>,
}

/// An item and its line.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ItemAnswer {
    #[schema(value_type = i64)]
    run: RunNumber,
    #[schema(value_type = String)]
    key: ItemKey,
    /// `finished` or `pending`.
    status: &'static str,
    /// The line of a finished item, as in the results of its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    line: Option<Line>,
}

/// Processes one item, and waits for its line.
///
/// If the item has not finished within `wait`, the answer is 202 with a place to look.
#[utoipa::path(
    post,
    path = "/api/v1/pipelines/{name}/items",
    tag = "items",
    operation_id = "submit_item",
    params(("name" = String, Path, description = "The name of the pipeline."), SubmitQuery),
    request_body(content = Object, content_type = "application/json", description = "The fields of the item."),
    responses(
        (status = 200, description = "The item has finished.", body = ItemAnswer),
        (status = 202, description = "The item has not finished yet.", body = ItemAnswer,
            headers(("Location" = String, description = "The path of the item."))),
        (status = 404, description = "There is no such pipeline.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "Another item has this `id`, or a request with the same `Idempotency-Key` is in progress.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The pipeline cannot be run, or the item does not fit its input.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn submit(
    Runner(caller): Runner,
    request: HttpRequest,
    state: Data<ApiState>,
    pipeline: Path<String>,
    query: Query<SubmitQuery>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let pipeline = pipeline.into_inner();
    let max_wait = state.daemon.config().serve.max_wait;
    let wait = match query.wait.as_deref() {
        None => DEFAULT_WAIT,
        Some(text) => duration::parse_from_zero(text)
            .map_err(|error| Problem::bad_request(format!("`wait`: {error}")))?,
    };
    let mut reserved = IdempotencyKey::reserve(&request, &state, &caller).await?;
    let item: Map<String, Value> = body::json_with_key(&request, payload, &state, &mut reserved).await?;
    let execution = match reserved.check()? {
        Checked::New(execution) => execution,
        Checked::Known(earlier) => return submitted_before(&state, &pipeline, &earlier, &caller).await,
    };
    let submitted = submit_item(state.clone(), pipeline.clone(), item, caller, execution);
    let submitted = to_its_end(Box::pin(submitted)).await?;
    let SubmittedItem { run, key, .. } = &submitted;
    let run = *run;
    let key = key.clone();
    let mut stopping = state.daemon.stopping();
    let line = tokio::select! {
        line = timeout(wait.min(max_wait), state.daemon.item_line(submitted)) => match line {
            Ok(line) => line?,
            Err(_) => None,
        },
        // The item is on the disk, and is processed after the next start.
        () = stopping.stopped() => None,
    };
    let location = item_path(&state, &pipeline, &key);
    Ok(match line {
        Some(line) => {
            let answer = ItemAnswer { run, key, status: "finished", line: Some(line) };
            HttpResponse::Ok().insert_header((LOCATION, location)).json(answer)
        }
        None => {
            let answer = ItemAnswer { run, key, status: "pending", line: None };
            HttpResponse::Accepted().insert_header((LOCATION, location)).json(answer)
        }
    })
}

/// Submits an item, and stores for repeated requests which one it is.
async fn submit_item(
    state: Data<ApiState>,
    pipeline: String,
    item: Map<String, Value>,
    caller: Caller,
    execution: Execution,
) -> Result<SubmittedItem, Problem> {
    let submitted = match state.daemon.submit_item(&pipeline, item, &caller).await {
        Ok(submitted) => submitted,
        Err(error) => return Err(execution.fail(error).await),
    };
    let SubmittedItem { run, key, .. } = &submitted;
    let answer = ItemAnswer { run: *run, key: key.clone(), status: "pending", line: None };
    execution.record(StatusCode::ACCEPTED, &item_path(&state, &pipeline, key), &answer).await?;
    Ok(submitted)
}

/// Answers a repeated request with the present state of the item that the first one submitted.
async fn submitted_before(
    state: &ApiState,
    pipeline: &str,
    earlier: &StoredResponse,
    caller: &Caller,
) -> Result<HttpResponse, Problem> {
    let stored: EarlierAnswer = serde_json::from_str(&earlier.body).map_err(daemon::Error::json)?;
    let key = ItemKey::from(stored.key);
    let run = RunNumber(stored.run);
    let progress = state.daemon.item_progress(run, &key, caller).await?;
    let location = item_path(state, pipeline, &key);
    let (mut response, answer) = match progress {
        ItemProgress::Finished(line) => {
            (HttpResponse::Ok(), ItemAnswer { run, key, status: "finished", line: Some(*line) })
        }
        ItemProgress::Pending => {
            (HttpResponse::Accepted(), ItemAnswer { run, key, status: "pending", line: None })
        }
    };
    Ok(response.insert_header((LOCATION, location)).insert_header(IDEMPOTENT_REPLAYED_TRUE).json(answer))
}

/// What is stored of the response to the first request.
#[derive(Debug, Deserialize)]
struct EarlierAnswer {
    run: i64,
    key: String,
}

/// Shows an item, and its line if it has finished.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}/items/{key}",
    tag = "items",
    operation_id = "show_item",
    params(
        ("name" = String, Path, description = "The name of the pipeline."),
        ("key" = String, Path, description = "The key of the item: its `id`, or the hash of its content."),
    ),
    responses(
        (status = 200, description = "The item.", body = ItemAnswer),
        (status = 404, description = "There is no such item.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn show(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    let (pipeline, key) = path.into_inner();
    let key = ItemKey::from(key);
    let (run, progress) = state.daemon.find_item(&pipeline, &key, &caller).await?;
    let answer = match progress {
        ItemProgress::Finished(line) => ItemAnswer { run, key, status: "finished", line: Some(*line) },
        ItemProgress::Pending => ItemAnswer { run, key, status: "pending", line: None },
    };
    Ok(HttpResponse::Ok().json(answer))
}

fn item_path(state: &ApiState, pipeline: &str, key: &ItemKey) -> String {
    let segment = |text: &str| {
        let mut escaped = String::with_capacity(text.len());
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    escaped.push(char::from(byte))
                }
                byte => escaped.push_str(&format!("%{byte:02X}")),
            }
        }
        escaped
    };
    state.api_path(&format!("/pipelines/{}/items/{}", segment(pipeline), segment(key.as_str())))
}
