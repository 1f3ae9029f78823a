//! `/runs`: creates, shows and controls runs.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Json, Path, Payload, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use serde_json::Value;

use crate::daemon::{Caller, ItemsFrom, NewRun, RunPage, RunQuery, RunView, ShownState};
use crate::server::access::{Runner, Viewer};
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::idempotency::{Checked, Execution, IdempotencyKey, replayed, to_its_end};
use crate::server::problem::Problem;
use crate::store::RunNumber;
use crate::types::Class;

use super::money::dollars;
use super::problems::{BodyProblems, Problems};

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/runs").route(web::get().to(list)).route(web::post().to(create)))
        .service(web::resource("/runs/{run}").route(web::get().to(show)).route(web::delete().to(delete)))
        .service(web::resource("/runs/{run}/hold").route(web::post().to(hold)))
        .service(web::resource("/runs/{run}/resume").route(web::post().to(resume)))
        .service(web::resource("/runs/{run}/cancel").route(web::post().to(cancel)))
        .service(web::resource("/runs/{run}/retry").route(web::post().to(retry)));
}

/// The query of a list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only runs in this state: `running`, `holding`, `paused`, `completed`, `stopped`, `cancelled`, `io_error`, `crashed` or
    /// `empty`.
    state: Option<String>,
    /// Only runs of this pipeline.
    pipeline: Option<String>,
    /// Where the page begins: `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many runs it has at most.
    #[serde(default)]
    limit: u32,
    /// Whether each run has `summary`: its counts and its cost over all sessions.
    #[serde(default)]
    summary: bool,
}

/// The body of a new run.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = NewRunBody)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateBody {
    pipeline: String,
    #[schema(value_type = Option<Vec<Object>>)]
    items: Option<Vec<Value>>,
    items_path: Option<String>,
    format: Option<String>,
    max_cost_usd: Option<f64>,
}

/// The body of a resume.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ResumeBody {
    /// Whether the run continues with its models and prices as they are now.
    accept_changes: bool,
    /// The most that the run may spend from now on, what it has spent included.
    max_cost_usd: Option<f64>,
}

/// The body of a retry.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RetryBody {
    /// Only items that failed with one of these classes; without it, all.
    #[schema(value_type = Vec<String>)]
    classes: Vec<Class>,
    /// Whether the run continues with its models and prices as they are now.
    accept_changes: bool,
}

/// Lists runs, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/runs",
    tag = "runs",
    operation_id = "list_runs",
    params(ListQuery),
    responses(
        (status = 200, description = "The runs, the newest first.", body = RunPage),
        Problems,
    ),
)]
pub(super) async fn list(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    query: Query<ListQuery>,
) -> Result<Json<RunPage>, Problem> {
    let ListQuery { state: wanted, pipeline, cursor, limit, summary } = query.into_inner();
    let mut query = RunQuery::new();
    query.state = wanted.as_deref().map(run_state).transpose()?;
    query.pipeline = pipeline;
    query.cursor = cursor;
    query.limit = limit;
    query.with_summary = summary;
    Ok(Json(state.daemon.runs(&query, &caller).await?))
}

/// Creates a run, and begins it.
///
/// The run is durable when this is answered.
#[utoipa::path(
    post,
    path = "/api/v1/runs",
    tag = "runs",
    operation_id = "create_run",
    request_body(content = CreateBody, content_type = "application/json"),
    responses(
        (status = 201, description = "The run.", body = RunView,
            headers(("Location" = String, description = "The path of what was created."))),
        (status = 404, description = "There is no such pipeline.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "A request with the same `Idempotency-Key` is in progress.", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "The pipeline or the items cannot be used.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn create(
    Runner(caller): Runner,
    request: HttpRequest,
    state: Data<ApiState>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let mut key = IdempotencyKey::reserve(&request, &state, &caller).await?;
    let body: CreateBody = body::json_with_key(&request, payload, &state, &mut key).await?;
    let execution = match key.check()? {
        Checked::New(execution) => execution,
        Checked::Known(response) => return Ok(replayed(response)),
    };
    let items = match (body.items, body.items_path) {
        (Some(items), None) => {
            if body.format.is_some() {
                return Err(Problem::bad_request(
                    "`format` belongs to `items_path`; items in the body are JSON",
                ));
            }
            ItemsFrom::Values(items)
        }
        (None, Some(path)) => ItemsFrom::Path(path.into(), body.format),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Problem::bad_request("the body has either `items` or `items_path`"));
        }
    };
    let mut new = NewRun::new(body.pipeline, items);
    new.max_cost = body.max_cost_usd.map(dollars).transpose()?;
    to_its_end(create_run(state, new, caller, execution)).await
}

/// Creates a run, and returns the response to its caller.
pub(super) async fn create_run(
    state: Data<ApiState>,
    mut new: NewRun,
    caller: Caller,
    mut execution: Execution,
) -> Result<HttpResponse, Problem> {
    new.identity = execution.identity().await?;
    let run = match state.daemon.create_run(new, &caller).await {
        Ok(run) => run,
        Err(error) => return Err(execution.fail(error).await),
    };
    let location = state.api_path(&format!("/runs/{}", run.run));
    execution.respond(StatusCode::CREATED, &location, &run).await
}

/// Shows a run with its progress.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}",
    tag = "runs",
    operation_id = "show_run",
    params(("run" = i64, Path, description = "The number of the run.")),
    responses(
        (status = 200, description = "The run.", body = RunView),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn show(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(state.daemon.run(RunNumber(run.into_inner()), &caller).await?))
}

/// Deletes a run with its items, answers and files.
#[utoipa::path(
    delete,
    path = "/api/v1/runs/{run}",
    tag = "runs",
    operation_id = "delete_run",
    params(("run" = i64, Path, description = "The number of the run.")),
    responses(
        (status = 204, description = "The run was deleted."),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The run is in progress.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn delete(
    Runner(caller): Runner,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<HttpResponse, Problem> {
    state.daemon.delete_run(RunNumber(run.into_inner()), &caller).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Pauses a run until it is resumed. Calls in flight are finished.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{run}/hold",
    tag = "runs",
    operation_id = "hold_run",
    params(("run" = i64, Path, description = "The number of the run.")),
    responses(
        (status = 200, description = "The run.", body = RunView),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The run has ended.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn hold(
    Runner(caller): Runner,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(state.daemon.hold_run(RunNumber(run.into_inner()), &caller).await?))
}

/// Resumes a run.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{run}/resume",
    tag = "runs",
    operation_id = "resume_run",
    params(("run" = i64, Path, description = "The number of the run.")),
    request_body(content = ResumeBody, content_type = "application/json", description = "It may be empty."),
    responses(
        (status = 200, description = "The run.", body = RunView),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The run is in progress or complete, or changes affect its stored answers.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn resume(
    Runner(caller): Runner,
    request: HttpRequest,
    state: Data<ApiState>,
    run: Path<i64>,
    payload: Payload,
) -> Result<Json<RunView>, Problem> {
    let body: ResumeBody = body::json_or_default(&request, payload, &state).await?;
    let max_cost = body.max_cost_usd.map(dollars).transpose()?;
    let run = RunNumber(run.into_inner());
    Ok(Json(state.daemon.resume_run(run, body.accept_changes, max_cost, &caller).await?))
}

/// Cancels a run. What is finished stays.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{run}/cancel",
    tag = "runs",
    operation_id = "cancel_run",
    params(("run" = i64, Path, description = "The number of the run.")),
    responses(
        (status = 200, description = "The run.", body = RunView),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The run has ended.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn cancel(
    Runner(caller): Runner,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<Json<RunView>, Problem> {
    Ok(Json(state.daemon.cancel_run(RunNumber(run.into_inner()), &caller).await?))
}

/// Processes the failed items of a run again: those of these classes, or all.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{run}/retry",
    tag = "runs",
    operation_id = "retry_run",
    params(("run" = i64, Path, description = "The number of the run.")),
    request_body(content = RetryBody, content_type = "application/json", description = "It may be empty."),
    responses(
        (status = 200, description = "The run.", body = RunView),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The run is in progress, or changes affect its stored answers.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn retry(
    Runner(caller): Runner,
    request: HttpRequest,
    state: Data<ApiState>,
    run: Path<i64>,
    payload: Payload,
) -> Result<Json<RunView>, Problem> {
    let body: RetryBody = body::json_or_default(&request, payload, &state).await?;
    let run = RunNumber(run.into_inner());
    Ok(Json(state.daemon.retry_run(run, body.classes, body.accept_changes, &caller).await?))
}

fn run_state(word: &str) -> Result<ShownState, Problem> {
    ShownState::parse(word).ok_or_else(|| {
        let words = ShownState::ALL.map(ShownState::as_str).join(", ");
        Problem::bad_request(format!("`state`: there is no state {word:?}"))
            .with_advice(format!("use one of these: {words}"))
    })
}
