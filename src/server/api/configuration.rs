//! `/config`, `/prices`, `/spending` and `/caps`.

use actix_web::http::header::ETAG;
use actix_web::web::{self, Data, Json, Payload, Query, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use crate::clock;
use crate::daemon::{ConfigCheck, ConfigView, PricesView, Reloaded, SpendingKey, SpendingRow};
use crate::run::Cap;
use crate::server::access::{Administrator, Reader};
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::etag;
use crate::server::problem::Problem;
use crate::types::Day;

use super::pipelines::TOML_TYPES;
use super::problems::{BodyProblems, Problems};

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/config").route(web::get().to(show)))
        .service(web::resource("/config/check").route(web::post().to(check)))
        .service(web::resource("/config/reload").route(web::post().to(reload)))
        .service(web::resource("/prices").route(web::get().to(prices)))
        .service(web::resource("/spending").route(web::get().to(spending)))
        .service(web::resource("/caps").route(web::get().to(caps)));
}

/// The days and the groups of a list of spending.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SpendingQuery {
    /// The first day, UTC, as YYYY-MM-DD. Without it, today.
    from: Option<String>,
    /// The last day, UTC, as YYYY-MM-DD. Without it, today.
    to: Option<String>,
    /// What the rows are grouped by: `day`, `provider`, `token` and `pipeline`, joined by commas. Not by `provider` and
    /// `token` together.
    by: Option<String>,
}

/// Shows the configuration in use, with the source of each value.
///
/// A value comes from a line of the file, an environment variable, the list of prices, or is a default. Secrets are `***`.
#[utoipa::path(
    get,
    path = "/api/v1/config",
    tag = "configuration",
    operation_id = "show_config",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag of the version that the caller has.")),
    responses(
        (status = 200, description = "The configuration.", body = ConfigView,
            headers(("ETag" = String, description = "Identifies the values."))),
        (status = 304, description = "The caller has this version."),
        Problems,
    ),
)]
pub(super) async fn show(_: Reader, request: HttpRequest, state: Data<ApiState>) -> HttpResponse {
    let view = state.daemon.configuration();
    let tag = (ETAG, etag::quoted(&view.etag));
    if etag::is_known(&request, &view.etag) {
        return HttpResponse::NotModified().insert_header(tag).finish();
    }
    HttpResponse::Ok().insert_header(tag).json(view)
}

/// Checks a candidate for the configuration, and changes nothing.
///
/// No file that it names is read, and none of its commands is run.
#[utoipa::path(
    post,
    path = "/api/v1/config/check",
    tag = "configuration",
    operation_id = "check_config",
    request_body(
        description = "The text of the configuration, in TOML.",
        content((String = "application/toml"), (String = "text/plain")),
    ),
    responses(
        (status = 200, description = "Whether it is valid, its notes, or all its problems.", body = ConfigCheck),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn check(
    _: Administrator,
    request: HttpRequest,
    state: Data<ApiState>,
    payload: Payload,
) -> Result<Json<ConfigCheck>, Problem> {
    body::expect_type(&request, &TOML_TYPES)?;
    let text = body::text(&request, payload, &state).await?;
    Ok(Json(state.daemon.check_configuration(&text).await?))
}

/// Loads the configuration again and applies it.
///
/// Requests in progress continue. A faulty configuration changes nothing.
#[utoipa::path(
    post,
    path = "/api/v1/config/reload",
    tag = "configuration",
    operation_id = "reload_config",
    responses(
        (status = 200, description = "What was changed.", body = Reloaded),
        (status = 422, description = "The configuration has the faults in `diagnostics`. Nothing was changed.",
            body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn reload(
    Administrator(caller): Administrator,
    state: Data<ApiState>,
) -> Result<Json<Reloaded>, Problem> {
    Ok(Json(state.daemon.reload(&caller.name).await?))
}

/// Lists the prices of the configured models.
#[utoipa::path(
    get,
    path = "/api/v1/prices",
    tag = "money",
    operation_id = "list_prices",
    responses((status = 200, description = "The prices.", body = PricesView), Problems),
)]
pub(super) async fn prices(_: Reader, state: Data<ApiState>) -> Json<PricesView> {
    Json(state.daemon.prices())
}

/// Lists what was spent.
#[utoipa::path(
    get,
    path = "/api/v1/spending",
    tag = "money",
    operation_id = "list_spending",
    params(SpendingQuery),
    responses((status = 200, description = "The spend of each group.", body = [SpendingRow]), Problems),
)]
pub(super) async fn spending(
    _: Reader,
    state: Data<ApiState>,
    query: Query<SpendingQuery>,
) -> Result<Json<Vec<SpendingRow>>, Problem> {
    let SpendingQuery { from, to, by } = query.into_inner();
    let from = day(from.as_deref(), "from")?;
    let to = day(to.as_deref(), "to")?;
    let words = by.as_deref().unwrap_or_default().split(',').filter(|word| !word.trim().is_empty());
    let keys: Result<Vec<SpendingKey>, _> = words.map(str::parse).collect();
    let keys = keys.map_err(|error| Problem::bad_request(format!("`by`: {error}")))?;
    Ok(Json(state.daemon.spending(from, to, &keys).await?))
}

fn day(text: Option<&str>, field: &str) -> Result<Day, Problem> {
    match text {
        None => Ok(Day::at(clock::milliseconds())),
        Some(text) => text.parse().map_err(|error| Problem::bad_request(format!("`{field}`: {error}"))),
    }
}

/// Lists the caps of the day, and what counts against each.
#[utoipa::path(
    get,
    path = "/api/v1/caps",
    tag = "money",
    operation_id = "list_caps",
    responses((status = 200, description = "The caps.", body = [Object]), Problems),
)]
pub(super) async fn caps(_: Reader, state: Data<ApiState>) -> Json<Vec<Cap>> {
    Json(state.daemon.caps())
}
