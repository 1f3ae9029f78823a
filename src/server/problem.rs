//! Errors of the API, as problem details (RFC 9457).

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::{Serialize, Serializer};

use crate::daemon::{self, Kind};
use crate::types::{Class, error_chain};

use super::request_id;

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error of the API. It is a response with this body.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct Problem {
    /// Identifies the kind of problem, as a URI reference: `/problems/` and the class.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: ProblemType,
    /// The status as a phrase.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened, for this request.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// The class, as in results and reports.
    #[schema(value_type = String)]
    pub class: Class,
    /// What the caller can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub advice: Option<Box<str>>,
    /// The faults of a configuration or a pipeline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<String>,
    /// The ID of the request, as in the logs.
    #[serde(skip_serializing_if = "str::is_empty")]
    #[schema(value_type = String)]
    pub request_id: Box<str>,
    /// How long to wait, in seconds.
    #[serde(skip)]
    retry_after: Option<u32>,
}

/// The kind of a problem: its class, as a URI reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemType(Class);

impl Serialize for ProblemType {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("/problems/{}", self.0))
    }
}

impl Problem {
    /// Creates a problem of this class.
    pub(super) fn new(status: StatusCode, class: Class, detail: impl Into<String>) -> Self {
        Self {
            kind: ProblemType(class),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into().into_boxed_str(),
            class,
            advice: None,
            diagnostics: Vec::new(),
            request_id: request_id::current().into_boxed_str(),
            retry_after: None,
        }
    }

    /// The request is wrong.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Class::ApiError, detail)
    }

    /// There is no such thing. The same for what a caller may not see.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Class::NotFound, detail)
    }

    /// The request has no valid token. It says nothing of what exists.
    pub(super) fn unauthorized() -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, Class::Auth, "the request has no valid token");
        problem.with_advice("send `Authorization: Bearer TOKEN`; `pointsman token new` creates a token")
    }

    /// The token does not allow the request. It says nothing of what exists.
    pub(super) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, Class::Auth, "the token does not allow this request")
    }

    #[must_use]
    pub(super) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into().into_boxed_str());
        self
    }

    #[must_use]
    pub(super) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(u32::try_from(seconds).unwrap_or(u32::MAX));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        response.insert_header((CONTENT_TYPE, PROBLEM_JSON));
        if let Some(seconds) = self.retry_after {
            response.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED.as_u16() {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_string(self).unwrap_or_default())
    }
}

impl From<daemon::Error> for Problem {
    fn from(error: daemon::Error) -> Self {
        let status = match error.kind() {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::Precondition => StatusCode::PRECONDITION_FAILED,
            Kind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
            Kind::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %error_chain(&error), "a request failed");
        }
        let detail = match error.diagnostics() {
            Some(diagnostics) => match diagnostics.0.len() {
                1 => "there is a fault".to_owned(),
                faults => format!("there are {faults} faults"),
            },
            None => error_chain(&error),
        };
        let mut problem = Self::new(status, error.class(), detail);
        problem.advice = error.advice().map(String::into_boxed_str);
        problem.diagnostics =
            error.diagnostics().iter().flat_map(|all| &all.0).map(ToString::to_string).collect();
        let retry_after = match &error {
            daemon::Error::Busy { retry_after, .. } => Some(*retry_after),
            daemon::Error::Stopping => Some(5),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            problem = problem.with_retry_after(seconds);
        }
        problem
    }
}
