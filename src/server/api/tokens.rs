//! `/tokens`: creates, lists and revokes tokens.
//!
//! An idempotency key has no effect here: the response has the text of the token, which is stored nowhere. A name that is
//! used is refused, so a repeated request creates no second token.

use std::num::{NonZeroU32, NonZeroU64};

use actix_web::http::header::{CACHE_CONTROL, LOCATION};
use actix_web::web::{self, Data, Json, Path, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::daemon::{NewToken, Permission, TokenLimits, TokenView, parse_lifetime};
use crate::server::access::Administrator;
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::problem::Problem;

use super::money;
use super::problems::{BodyProblems, Problems};

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/tokens").route(web::get().to(list)).route(web::post().to(create)))
        .service(web::resource("/tokens/{name}").route(web::delete().to(revoke)));
}

/// A token to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTokenBody {
    /// Its name.
    name: String,
    /// What its holder may do: `read`, `run`, `request` or `admin`.
    #[schema(value_type = Vec<String>)]
    permissions: Vec<Permission>,
    /// Requests that may begin in a minute.
    #[schema(value_type = Option<u64>, minimum = 1)]
    requests_per_minute: Option<NonZeroU64>,
    /// Requests in progress at once.
    #[schema(value_type = Option<u32>, minimum = 1)]
    concurrency: Option<NonZeroU32>,
    /// What its requests may spend in a day, UTC, in US dollars.
    budget_usd: Option<f64>,
    /// How long it is valid, such as `720h`. Without it, until it is revoked.
    expires_in: Option<String>,
}

/// A token that was created.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedToken {
    /// The text of the token, which is shown only here.
    token: String,
    #[serde(flatten)]
    view: TokenView,
}

/// Lists all tokens. No text of a token is shown.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    operation_id = "list_tokens",
    responses((status = 200, description = "The tokens.", body = [TokenView]), Problems),
)]
pub(super) async fn list(_: Administrator, state: Data<ApiState>) -> Result<Json<Vec<TokenView>>, Problem> {
    Ok(Json(state.daemon.tokens().await?))
}

/// Creates a token. Its text is in the response, and is not shown again.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    operation_id = "create_token",
    request_body(content = NewTokenBody, content_type = "application/json"),
    responses(
        (status = 201, description = "The token.", body = CreatedToken),
        (status = 409, description = "A token has this name.", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "The name or the permissions are invalid.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn create(
    Administrator(caller): Administrator,
    request: HttpRequest,
    state: Data<ApiState>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let body: NewTokenBody = body::json(&request, payload, &state).await?;
    let mut limits = TokenLimits::new();
    limits.requests_per_minute = body.requests_per_minute;
    limits.concurrency = body.concurrency;
    limits.budget = body.budget_usd.map(|dollars| money::amount("budget_usd", dollars)).transpose()?;
    let mut new = NewToken::new(body.name, body.permissions).with_limits(limits);
    if let Some(text) = body.expires_in {
        let lifetime = parse_lifetime(&text);
        new = new.with_expires_in(
            lifetime.map_err(|error| Problem::bad_request(format!("`expires_in`: {error}")))?,
        );
    }
    let (view, secret) = state.daemon.create_token(&new, &caller.name).await?;
    let location = state.api_path(&format!("/tokens/{}", view.name));
    let created = CreatedToken { token: secret.expose().to_owned(), view };
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, location))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(created))
}

/// Revokes a token.
///
/// It is refused from now on. Requests in progress continue.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{name}",
    tag = "tokens",
    operation_id = "revoke_token",
    params(("name" = String, Path, description = "The name of the token.")),
    responses(
        (status = 204, description = "The token was revoked."),
        (status = 404, description = "There is no such token.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn revoke(
    Administrator(caller): Administrator,
    state: Data<ApiState>,
    name: Path<String>,
) -> Result<HttpResponse, Problem> {
    state.daemon.revoke_token(&name, &caller.name).await?;
    Ok(HttpResponse::NoContent().finish())
}
