//! Describes the errors that actix answers without a body.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::{PathError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::{PathConfig, QueryConfig};
use actix_web::{Error, HttpRequest, HttpResponse, ResponseError};

use super::problem::{Problem, ProblemType};

/// Gives the response to a wrong method the body of a problem. It has the methods that are allowed.
pub(super) async fn describe_errors(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let method = request.method().clone();
    let response = next.call(request).await?.map_into_boxed_body();
    let is_described = response.headers().contains_key(CONTENT_TYPE);
    if response.status() != StatusCode::METHOD_NOT_ALLOWED || is_described {
        return Ok(response);
    }
    let allowed = response.headers().get(ALLOW).and_then(|methods| methods.to_str().ok());
    // What can be read has HEAD, too.
    let allowed = allowed.map(|methods| {
        let is_readable = methods.split(", ").any(|name| name == "GET");
        if is_readable { format!("{methods}, HEAD") } else { methods.to_owned() }
    });
    let (request, _) = response.into_parts();
    let methods = allowed.as_deref().unwrap_or("another method");
    let detail = format!("the resource does not have the method {method}");
    let problem = Problem::new(ProblemType::MethodNotAllowed, detail);
    let mut response = problem.with_advice(format!("use {methods}")).error_response();
    if let Some(Ok(allowed)) = allowed.map(|methods| HeaderValue::from_str(&methods)) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    Ok(ServiceResponse::new(request, response))
}

/// Returns what answers a path whose parts are not what a handler expects, such as the number of a run.
pub(super) fn path_config() -> PathConfig {
    PathConfig::default().error_handler(|_: PathError, _: &HttpRequest| no_resource().into())
}

/// Returns what answers a query that is not what a handler expects.
pub(super) fn query_config() -> QueryConfig {
    QueryConfig::default().error_handler(|error: QueryPayloadError, _: &HttpRequest| {
        Problem::bad_request(format!("the query of the URL is not what is expected: {error}")).into()
    })
}

/// Answers a path that leads to nothing.
pub(super) async fn no_route() -> Result<HttpResponse, Problem> {
    Err(no_resource())
}

/// Answers a path outside the API that leads to nothing.
pub(super) async fn no_page() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found("there is no such resource").with_advice(
        "the API is below /api/v1, and /api/openapi.json lists all; there is no endpoint in the format of a provider, such as \
         /v1/chat/completions",
    ))
}

fn no_resource() -> Problem {
    Problem::not_found("there is no such resource").with_advice("/api/openapi.json lists all")
}
