//! `/providers`: their state, and what an operator does with them.

use actix_web::HttpRequest;
use actix_web::web::{self, Data, Json, Path, Payload, ServiceConfig};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::provider::Snapshot;
use crate::server::access::{Administrator, Reader};
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::problem::Problem;
use crate::types::{KeyLabel, TargetName};

use super::problems::{BodyProblems, Problems};

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/providers").route(web::get().to(list)))
        .service(web::resource("/providers/{name}").route(web::get().to(show)))
        .service(web::resource("/providers/{name}/breaker").route(web::post().to(set_breaker)))
        .service(web::resource("/providers/{name}/drain").route(web::post().to(drain)))
        .service(web::resource("/providers/{name}/resume").route(web::post().to(resume)))
        .service(web::resource("/providers/{name}/keys/reload").route(web::post().to(reload_keys)));
}

/// The body of a change of a breaker.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BreakerBody {
    /// The model, by its name in the configuration.
    model: String,
    /// `open`, until it is closed by hand; or `closed`.
    state: BreakerWord,
}

/// The state of a breaker that an operator may set.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BreakerWord {
    /// No calls.
    Open,
    /// Calls as usual.
    Closed,
}

/// The keys of a provider.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeysView {
    /// Their labels, in the order of preference. No key is shown.
    #[schema(value_type = Vec<String>)]
    keys: Vec<KeyLabel>,
}

/// Lists all usable providers: their health, limits and utilisation, breakers and keys.
#[utoipa::path(
    get,
    path = "/api/v1/providers",
    tag = "providers",
    operation_id = "list_providers",
    responses((status = 200, description = "The providers.", body = [Object]), Problems),
)]
pub(super) async fn list(_: Reader, state: Data<ApiState>) -> Json<Vec<Snapshot>> {
    Json(state.daemon.providers())
}

/// Shows the state of a provider.
#[utoipa::path(
    get,
    path = "/api/v1/providers/{name}",
    tag = "providers",
    operation_id = "show_provider",
    params(("name" = String, Path, description = "The name of the provider.")),
    responses(
        (status = 200, description = "The provider.", body = Object),
        (status = 404, description = "There is no such provider.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn show(
    _: Reader,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<Json<Snapshot>, Problem> {
    Ok(Json(state.daemon.provider(&name)?))
}

/// Opens or closes the breaker of a model.
///
/// An opened breaker stays open until it is closed by hand, or the daemon starts again.
#[utoipa::path(
    post,
    path = "/api/v1/providers/{name}/breaker",
    tag = "providers",
    operation_id = "set_breaker",
    params(("name" = String, Path, description = "The name of the provider.")),
    request_body(content = BreakerBody, content_type = "application/json"),
    responses(
        (status = 200, description = "The provider.", body = Object),
        (status = 404, description = "There is no such provider or model.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn set_breaker(
    Administrator(caller): Administrator,
    request: HttpRequest,
    state: Data<ApiState>,
    name: Path<String>,
    payload: Payload,
) -> Result<Json<Snapshot>, Problem> {
    let BreakerBody { model, state: wanted } = body::json(&request, payload, &state).await?;
    let target = TargetName { provider: name.as_str().into(), model: model.into() };
    let is_open = match wanted {
        BreakerWord::Open => true,
        BreakerWord::Closed => false,
    };
    Ok(Json(state.daemon.set_breaker(&target, is_open, &caller.name)?))
}

/// Takes a provider out of service.
///
/// It gets no new calls, its queued calls go to other targets, and its calls in flight end.
#[utoipa::path(
    post,
    path = "/api/v1/providers/{name}/drain",
    tag = "providers",
    operation_id = "drain_provider",
    params(("name" = String, Path, description = "The name of the provider.")),
    responses(
        (status = 200, description = "The provider.", body = Object),
        (status = 404, description = "There is no such provider.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn drain(
    Administrator(caller): Administrator,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<Json<Snapshot>, Problem> {
    Ok(Json(state.daemon.drain_provider(&name.as_str().into(), &caller.name)?))
}

/// Takes a provider into service again.
#[utoipa::path(
    post,
    path = "/api/v1/providers/{name}/resume",
    tag = "providers",
    operation_id = "resume_provider",
    params(("name" = String, Path, description = "The name of the provider.")),
    responses(
        (status = 200, description = "The provider.", body = Object),
        (status = 404, description = "There is no such provider.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn resume(
    Administrator(caller): Administrator,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<Json<Snapshot>, Problem> {
    Ok(Json(state.daemon.resume_provider(&name.as_str().into(), &caller.name)?))
}

/// Reads the keys of a provider again from their sources.
///
/// The next call uses them. If one cannot be read, the former keys stay in use.
#[utoipa::path(
    post,
    path = "/api/v1/providers/{name}/keys/reload",
    tag = "providers",
    operation_id = "reload_keys",
    params(("name" = String, Path, description = "The name of the provider.")),
    responses(
        (status = 200, description = "The labels of the keys.", body = KeysView),
        (status = 404, description = "There is no such provider.", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "A key cannot be read.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn reload_keys(
    Administrator(caller): Administrator,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<Json<KeysView>, Problem> {
    let keys = state.daemon.reload_provider_keys(&name.as_str().into(), &caller.name).await?;
    Ok(Json(KeysView { keys }))
}
