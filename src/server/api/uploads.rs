//! `/runs/upload`: creates a run of a file of items, which is the body.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use actix_web::web::{self, Data, Payload, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use crate::daemon::{ItemsFrom, NewRun, RunView};
use crate::server::access::Runner;
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::idempotency::{Checked, IdempotencyKey, replayed, to_its_end};
use crate::server::problem::{Problem, ProblemType};

use super::money::dollars;
use super::problems::{BodyProblems, Problems};
use super::runs::create_run;

/// The media types of items, and the format of each.
const MEDIA_TYPES: [(&str, UploadFormat); 6] = [
    ("application/x-ndjson", UploadFormat::Jsonl),
    ("application/jsonl", UploadFormat::Jsonl),
    ("application/x-jsonlines", UploadFormat::Jsonl),
    ("text/csv", UploadFormat::Csv),
    ("application/json", UploadFormat::Json),
    ("text/tab-separated-values", UploadFormat::Tsv),
];

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/runs/upload").route(web::post().to(upload)));
}

/// The query of an upload.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadQuery {
    /// The name of the pipeline.
    pipeline: String,
    /// The format; if it is not given, `Content-Type` says it.
    #[param(value_type = Option<String>)]
    format: Option<UploadFormat>,
    /// The most that the run may spend.
    max_cost_usd: Option<f64>,
}

/// The formats of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UploadFormat {
    Jsonl,
    Json,
    Csv,
    Tsv,
}

impl UploadFormat {
    fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
        }
    }
}

/// Creates a run of the items in the body, which is streamed to the disk.
///
/// A body that ends early creates no run.
#[utoipa::path(
    post,
    path = "/api/v1/runs/upload",
    tag = "runs",
    operation_id = "upload_run",
    params(UploadQuery),
    request_body(
        description = "The items.",
        content(
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (String = "application/json"),
            (String = "text/tab-separated-values"),
        ),
    ),
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
pub(super) async fn upload(
    Runner(caller): Runner,
    request: HttpRequest,
    state: Data<ApiState>,
    query: Query<UploadQuery>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let UploadQuery { pipeline, format, max_cost_usd } = query.into_inner();
    let format = upload_format(&request, format)?;
    let max_cost = max_cost_usd.map(dollars).transpose()?;
    let mut key = IdempotencyKey::reserve(&request, &state, &caller).await?;
    if !key.is_given() {
        // Before a long body is read for nothing. The answer to a repeated request does not change.
        state.daemon.check_new_run(&pipeline).await?;
    }
    let slot = state.bodies.begin_upload(&caller)?;
    let spooled = body::spool(&request, payload, &state).await?;
    drop(slot);
    key.update(&spooled.sha256());
    let execution = match key.check()? {
        Checked::New(execution) => execution,
        Checked::Known(response) => return Ok(replayed(response)),
    };
    let mut new = NewRun::new(pipeline, ItemsFrom::Spooled(spooled, Some(format.as_str().to_owned())));
    new.max_cost = max_cost;
    to_its_end(create_run(state, new, caller, execution)).await
}

fn upload_format(request: &HttpRequest, given: Option<UploadFormat>) -> Result<UploadFormat, Problem> {
    let unsupported = |detail| Problem::new(ProblemType::UnsupportedMediaType, detail);
    let header = |name| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    };
    let encoding = header(CONTENT_ENCODING);
    if !matches!(encoding.as_str(), "" | "identity") {
        let problem = unsupported(format!("the body has the encoding {encoding:?}"));
        return Err(problem.with_advice("send the items uncompressed, without Content-Encoding"));
    }
    if let Some(format) = given {
        return Ok(format);
    }
    let media_type = header(CONTENT_TYPE);
    let found = MEDIA_TYPES.iter().find(|(name, _)| *name == media_type);
    found.map(|(_, format)| *format).ok_or_else(|| {
        let names: Vec<&str> = MEDIA_TYPES.iter().map(|(name, _)| *name).collect();
        unsupported(format!("the body has the media type {media_type:?}")).with_advice(format!(
            "add `format=jsonl`, `json`, `csv` or `tsv` to the URL, or send one of these in Content-Type: {}",
            names.join(", ")
        ))
    })
}
