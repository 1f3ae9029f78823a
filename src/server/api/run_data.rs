//! `/runs/{run}/…`: what a run has produced. Everything can be read while the run is in progress.

use actix_web::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use actix_web::web::{self, Bytes, Data, Json, Path, Query, ServiceConfig};
use actix_web::{HttpResponse, HttpResponseBuilder};
use futures_util::stream::{self, Stream, StreamExt};
use serde::Deserialize;
use tokio::time::timeout;

use crate::daemon::{self, ItemPage, ItemQuery, ItemState, ItemView, LineStream, RejectStream, ResultsFrom};
use crate::run::Report;
use crate::server::access::Viewer;
use crate::server::api_state::ApiState;
use crate::server::problem::{Problem, ProblemType};
use crate::sink::{Format, FormulaCells, LineOptions, OutputColumns};
use crate::store::RunNumber;

use super::problems::Problems;

/// The media type of JSON lines.
const JSONL: &str = "application/x-ndjson";

/// The media type of CSV.
const CSV: &str = "text/csv; charset=utf-8";

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/runs/{run}/report").route(web::get().to(report)))
        .service(web::resource("/runs/{run}/results").route(web::get().to(results)))
        .service(web::resource("/runs/{run}/failures").route(web::get().to(failures)))
        .service(web::resource("/runs/{run}/rejects").route(web::get().to(rejects)))
        .service(web::resource("/runs/{run}/items").route(web::get().to(items)))
        .service(web::resource("/runs/{run}/items/{key}").route(web::get().to(item)));
}

/// The query of results.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ResultsQuery {
    /// The format; JSON lines if it is not given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    format: ResultsFormat,
    /// How CSV cells are written that a spreadsheet would run as formulas: `neutral`, with an apostrophe, or `keep`.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    formulas: Formulas,
    /// The columns of CSV: `default`, the fields of the input, the answers, `status` and `error`; `minimal`, the key and the
    /// answers; `full`, also the targets, tokens, cost and duration.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    columns: ResultsColumns,
    /// Whether JSON lines have the fields of their item, under `item`.
    #[serde(default)]
    item: bool,
    /// Begins after the item with this number.
    after: Option<i64>,
    /// Begins after the item with this key, such as that of the last line that arrived.
    after_key: Option<String>,
}

/// How cells with formulas are written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Formulas {
    #[default]
    Neutral,
    Keep,
}

impl Formulas {
    fn cells(self) -> FormulaCells {
        match self {
            Self::Neutral => FormulaCells::Escaped,
            Self::Keep => FormulaCells::Verbatim,
        }
    }
}

/// The columns of results in CSV.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ResultsColumns {
    #[default]
    Default,
    Minimal,
    Full,
}

impl ResultsColumns {
    fn columns(self) -> OutputColumns {
        match self {
            Self::Default => OutputColumns::Default,
            Self::Minimal => OutputColumns::Minimal,
            Self::Full => OutputColumns::Full,
        }
    }
}

/// The formats of results.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ResultsFormat {
    #[default]
    Jsonl,
    Csv,
}

/// The query of a page of items.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ItemsQuery {
    /// Only items in this state: `open`, `completed`, `failed` or `skipped`.
    status: Option<String>,
    /// Where the page begins: `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many items it has at most.
    #[serde(default)]
    limit: u32,
}

/// Shows the report of a run, also while it is in progress.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/report",
    tag = "runs",
    operation_id = "show_report",
    params(("run" = i64, Path, description = "The number of the run.")),
    responses(
        (status = 200, description = "The report.", body = Object),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn report(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<Json<Report>, Problem> {
    let report = state.daemon.run_report(RunNumber(run.into_inner()), &caller);
    match timeout(state.daemon.config().serve.max_wait, report).await {
        Ok(report) => Ok(Json(report?)),
        Err(_) => {
            let detail = "the report of so many items takes longer than `max_wait` of [serve]";
            Err(Problem::new(ProblemType::Unavailable, detail))
        }
    }
}

/// Streams the results of a run, also while it is in progress.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/results",
    tag = "runs",
    operation_id = "list_results",
    params(("run" = i64, Path, description = "The number of the run."), ResultsQuery),
    responses(
        (status = 200, description = "The results.", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn results(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    run: Path<i64>,
    query: Query<ResultsQuery>,
) -> Result<HttpResponse, Problem> {
    let ResultsQuery { format, formulas, columns, item, after, after_key } = query.into_inner();
    let options = LineOptions::new().with_columns(columns.columns()).with_item(item);
    let from = match (after, after_key) {
        (None, None) => ResultsFrom::Start,
        (Some(number), None) => ResultsFrom::Number(number),
        (None, Some(key)) => ResultsFrom::Key(key),
        (Some(_), Some(_)) => return Err(Problem::bad_request("give either `after` or `after_key`")),
    };
    let run = RunNumber(run.into_inner());
    match format {
        ResultsFormat::Jsonl => {
            let lines = state.daemon.run_results(run, Format::Jsonl, options, from, &caller).await?;
            download(lines, JSONL, &format!("run-{run}.jsonl")).await
        }
        ResultsFormat::Csv => {
            let format = Format::Csv(formulas.cells());
            let lines = state.daemon.run_results(run, format, options, from, &caller).await?;
            download(lines, CSV, &format!("run-{run}.csv")).await
        }
    }
}

/// Streams the lines of the failed items of a run.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/failures",
    tag = "runs",
    operation_id = "list_failures",
    params(("run" = i64, Path, description = "The number of the run.")),
    responses(
        (status = 200, description = "The lines of the failed items.", body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn failures(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<HttpResponse, Problem> {
    let run = RunNumber(run.into_inner());
    let lines = state.daemon.run_failures(run, &caller).await?;
    download(lines, JSONL, &format!("run-{run}-failures.jsonl")).await
}

/// Streams the records of the input that are not items.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/rejects",
    tag = "runs",
    operation_id = "list_rejects",
    params(("run" = i64, Path, description = "The number of the run.")),
    responses(
        (status = 200, description = "The rejects.", body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn rejects(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<HttpResponse, Problem> {
    let run = RunNumber(run.into_inner());
    let pieces = file_pieces(state.daemon.run_rejects(run, &caller).await?);
    Ok(attachment(JSONL, &format!("run-{run}-rejects.jsonl")).streaming(pieces))
}

/// Lists the items of a run with their attempt logs.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/items",
    tag = "runs",
    operation_id = "list_items",
    params(("run" = i64, Path, description = "The number of the run."), ItemsQuery),
    responses(
        (status = 200, description = "A page of items.", body = ItemPage),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn items(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    run: Path<i64>,
    query: Query<ItemsQuery>,
) -> Result<Json<ItemPage>, Problem> {
    let ItemsQuery { status, cursor, limit } = query.into_inner();
    let mut query = ItemQuery::new();
    query.state = status.as_deref().map(item_state).transpose()?;
    query.cursor = cursor;
    query.limit = limit;
    Ok(Json(state.daemon.run_items(RunNumber(run.into_inner()), query, &caller).await?))
}

/// Shows an item of a run with its attempt log.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/items/{key}",
    tag = "runs",
    operation_id = "show_run_item",
    params(
        ("run" = i64, Path, description = "The number of the run."),
        ("key" = String, Path, description = "The key of the item."),
    ),
    responses(
        (status = 200, description = "The item.", body = ItemView),
        (status = 404, description = "There is no such item.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn item(
    Viewer(caller): Viewer,
    state: Data<ApiState>,
    path: Path<(i64, String)>,
) -> Result<Json<ItemView>, Problem> {
    let (run, key) = path.into_inner();
    Ok(Json(state.daemon.run_item(RunNumber(run), &key, &caller).await?))
}

fn item_state(word: &str) -> Result<ItemState, Problem> {
    ItemState::parse(word).ok_or_else(|| {
        Problem::bad_request(format!("there is no status {word:?}"))
            .with_advice("use open, completed, failed or skipped")
    })
}

/// Returns the response with lines. What fails before the first of them is a problem; what fails later ends the connection,
/// so that the client sees that lines are missing.
async fn download(
    mut lines: LineStream,
    media_type: &'static str,
    file: &str,
) -> Result<HttpResponse, Problem> {
    let first = lines.next().await?.map(|piece| Ok(Bytes::from(piece)));
    let others = stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next().await {
            Ok(piece) => Some((Ok(Bytes::from(piece?)), Some(lines))),
            Err(error) => Some((Err(Problem::from(error)), None)),
        }
    });
    Ok(attachment(media_type, file).streaming(stream::iter(first).chain(others)))
}

fn file_pieces(rejects: RejectStream) -> impl Stream<Item = Result<Bytes, Problem>> {
    stream::unfold(Some(rejects), |rejects| async move {
        let mut rejects = rejects?;
        let read = web::block(move || rejects.next_piece().map(|piece| (piece, rejects))).await;
        match read {
            Ok(Ok((piece, rejects))) => Some((Ok(Bytes::from(piece?)), Some(rejects))),
            Ok(Err(error)) => Some((Err(Problem::from(error)), None)),
            Err(_) => Some((Err(daemon::Error::Stopping.into()), None)),
        }
    })
}

fn attachment(media_type: &'static str, file: &str) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((CONTENT_TYPE, media_type))
        .insert_header((CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")));
    response
}
