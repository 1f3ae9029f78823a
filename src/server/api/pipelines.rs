//! `/pipelines`: shows, checks and stores pipelines.
//!
//! A caller that can run a pipeline may read all of them. Only an administrator changes one: a pipeline decides what is sent to
//! which provider, for every caller.

use actix_web::http::header::{ETAG, LOCATION};
use actix_web::web::{self, Data, Json, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

use crate::daemon::{PipelineCheck, PipelineEntry, PipelineVersion};
use crate::server::access::{Administrator, Viewer};
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::etag;
use crate::server::problem::Problem;

use super::problems::{BodyProblems, Problems};

/// The media types of a text in TOML.
pub(super) const TOML_TYPES: [&str; 2] = ["application/toml", "text/plain"];

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    // The check is not a pipeline of this name: its route takes only POST.
    app.route("/pipelines/check", web::post().to(check))
        .service(web::resource("/pipelines").route(web::get().to(list)))
        .service(
            web::resource("/pipelines/{name}")
                .route(web::get().to(show))
                .route(web::put().to(put))
                .route(web::delete().to(delete)),
        )
        .service(web::resource("/pipelines/{name}/versions").route(web::get().to(versions)))
        .service(web::resource("/pipelines/{name}/versions/{version}").route(web::get().to(version)));
}

/// Lists all pipelines, without their texts.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines",
    tag = "pipelines",
    operation_id = "list_pipelines",
    responses((status = 200, description = "The pipelines by name.", body = [PipelineEntry]), Problems),
)]
pub(super) async fn list(_: Viewer, state: Data<ApiState>) -> Result<Json<Vec<PipelineEntry>>, Problem> {
    Ok(Json(state.daemon.pipelines().await?))
}

/// Shows a pipeline with its text.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}",
    tag = "pipelines",
    operation_id = "show_pipeline",
    params(
        ("name" = String, Path, description = "The name of the pipeline."),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of the version that the caller has."),
    ),
    responses(
        (status = 200, description = "The pipeline.", body = PipelineEntry,
            headers(("ETag" = String, description = "Identifies the text."))),
        (status = 304, description = "The caller has this version."),
        (status = 404, description = "There is no such pipeline.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn show(
    _: Viewer,
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    let entry = state.daemon.pipeline(&name).await?;
    let tag = (ETAG, etag::quoted(&entry.etag));
    if etag::is_known(&request, &entry.etag) {
        return Ok(HttpResponse::NotModified().insert_header(tag).finish());
    }
    Ok(HttpResponse::Ok().insert_header(tag).json(entry))
}

/// Stores a version of a pipeline.
///
/// The runs that begin from now on use it. The name in the text is the name in the path.
#[utoipa::path(
    put,
    path = "/api/v1/pipelines/{name}",
    tag = "pipelines",
    operation_id = "put_pipeline",
    params(
        ("name" = String, Path, description = "The name of the pipeline."),
        ("If-Match" = Option<String>, Header,
            description = "The ETag of the version to replace, or `*` for any that exists."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no pipeline of this name."),
    ),
    request_body(
        description = "The text of the pipeline, in TOML.",
        content((String = "application/toml"), (String = "text/plain")),
    ),
    responses(
        (status = 200, description = "A pipeline was replaced.", body = PipelineEntry,
            headers(("ETag" = String, description = "Identifies the new text."))),
        (status = 201, description = "A pipeline was created.", body = PipelineEntry,
            headers(
                ("ETag" = String, description = "Identifies the text."),
                ("Location" = String, description = "The path of the pipeline."),
            )),
        (status = 409, description = "The name belongs to a file.", body = Problem,
            content_type = "application/problem+json"),
        (status = 412, description = "Something else is there than what the headers expect.", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "The text has the faults in `diagnostics`.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn put(
    Administrator(caller): Administrator,
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let expected = etag::expected(&request)?;
    body::expect_type(&request, &TOML_TYPES)?;
    let text = body::text(&request, payload, &state).await?;
    let stored = state.daemon.put_pipeline(&name, &text, &caller.name, expected).await?;
    let mut response = if stored.is_new { HttpResponse::Created() } else { HttpResponse::Ok() };
    if stored.is_new {
        response.insert_header((LOCATION, state.api_path(&format!("/pipelines/{name}"))));
    }
    response.insert_header((ETAG, etag::quoted(&stored.entry.etag)));
    Ok(response.json(stored.entry))
}

/// Deletes a stored pipeline.
///
/// Its runs stay, and so do its versions.
#[utoipa::path(
    delete,
    path = "/api/v1/pipelines/{name}",
    tag = "pipelines",
    operation_id = "delete_pipeline",
    params(("name" = String, Path, description = "The name of the pipeline.")),
    responses(
        (status = 204, description = "The pipeline was deleted."),
        (status = 404, description = "There is no such pipeline.", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "The name belongs to a file.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn delete(
    Administrator(caller): Administrator,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    state.daemon.delete_pipeline(&name, &caller.name).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Checks the text of a pipeline, and stores nothing.
#[utoipa::path(
    post,
    path = "/api/v1/pipelines/check",
    tag = "pipelines",
    operation_id = "check_pipeline",
    request_body(
        description = "The text of the pipeline, in TOML.",
        content((String = "application/toml"), (String = "text/plain")),
    ),
    responses(
        (status = 200, description = "Whether it is valid, its steps, or all problems.", body = PipelineCheck),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn check(
    _: Viewer,
    request: HttpRequest,
    state: Data<ApiState>,
    payload: Payload,
) -> Result<Json<PipelineCheck>, Problem> {
    body::expect_type(&request, &TOML_TYPES)?;
    let text = body::text(&request, payload, &state).await?;
    Ok(Json(state.daemon.check_pipeline(&text).await?))
}

/// Lists the versions of a stored pipeline, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}/versions",
    tag = "pipelines",
    operation_id = "list_pipeline_versions",
    params(("name" = String, Path, description = "The name of the pipeline.")),
    responses(
        (status = 200, description = "The versions, without their texts.", body = [PipelineVersion]),
        (status = 404, description = "There is no such pipeline.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn versions(
    _: Viewer,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<Json<Vec<PipelineVersion>>, Problem> {
    Ok(Json(state.daemon.pipeline_versions(&name).await?))
}

/// Shows a version of a stored pipeline with its text.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}/versions/{version}",
    tag = "pipelines",
    operation_id = "show_pipeline_version",
    params(
        ("name" = String, Path, description = "The name of the pipeline."),
        ("version" = i64, Path, description = "The number of the version."),
    ),
    responses(
        (status = 200, description = "The version.", body = PipelineVersion),
        (status = 404, description = "There is no such version.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn version(
    _: Viewer,
    state: Data<ApiState>,
    path: Path<(String, i64)>,
) -> Result<Json<PipelineVersion>, Problem> {
    let (name, version) = path.into_inner();
    Ok(Json(state.daemon.pipeline_version(&name, version).await?))
}
