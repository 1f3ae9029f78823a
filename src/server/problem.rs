//! Errors of the API, as problem details (RFC 9457).

use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::{Serialize, Serializer};

use crate::daemon::{self, Kind, Permission};
use crate::diagnostics::Diagnostics;
use crate::types::{Class, bounded_text, error_chain};

use super::request_id;
use super::request_status::status_of;

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// Longest text of a problem, in bytes. A text may quote what the caller has sent.
const MAX_TEXT_BYTES: usize = 2 << 10;

/// The most diagnostics of a problem: 100, and one that there are more.
const MAX_DIAGNOSTICS: usize = 101;

/// An error of the API. It is a response with this body.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct Problem {
    /// Identifies the kind of problem, as a URI reference: `/problems/` and the class, or `/problems/request/` and the class if
    /// a request to a provider failed.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "/problems/not_found")]
    pub kind: ProblemType,
    /// The status as a phrase.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened, for this request.
    #[schema(value_type = String)]
    pub detail: Box<str>,
    /// The class: the last part of `type`. If a request to a provider failed, it is as in results and reports.
    #[schema(example = "not_found")]
    pub class: &'static str,
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

/// The kind of a problem. It decides the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemType {
    /// The request is not what is expected.
    BadRequest,
    /// The request has no valid token.
    Unauthorized,
    /// The token lacks a permission, or the request comes from a page of another site or is for another host.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The resource does not have the method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    Timeout,
    /// The request contradicts the present state.
    Conflict,
    /// Changes since a run began affect its stored answers.
    Changed,
    /// Something else is there than what the request expects.
    PreconditionFailed,
    /// The body is too large.
    TooLarge,
    /// The body has another media type or encoding.
    UnsupportedMediaType,
    /// The content cannot be used.
    Unprocessable,
    /// The caller has to wait.
    TooManyRequests,
    /// The daemon cannot do it.
    Internal,
    /// The daemon cannot do it now.
    Unavailable,
    /// A request to a provider failed.
    Request(Class),
}

impl ProblemType {
    /// Returns the class: the last part of `type`.
    pub fn class(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::Conflict => "conflict",
            Self::Changed => "changed",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::Request(class) => class.as_str(),
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict | Self::Changed => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Request(class) => status_of(class),
        }
    }
}

impl Serialize for ProblemType {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // A provider's `not_found` and `timeout` are not those of the daemon.
        let group = if matches!(self, Self::Request(_)) { "request/" } else { "" };
        to.collect_str(&format_args!("/problems/{group}{}", self.class()))
    }
}

impl Problem {
    /// Creates a problem of this kind.
    pub(super) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        let status = kind.status();
        Self {
            kind,
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: bounded_text(detail.into(), MAX_TEXT_BYTES).into_boxed_str(),
            class: kind.class(),
            advice: None,
            diagnostics: Vec::new(),
            request_id: request_id::current().into_boxed_str(),
            retry_after: None,
        }
    }

    /// The request is wrong.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::BadRequest, detail)
    }

    /// There is no such thing. The same for what a caller may not see.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(ProblemType::NotFound, detail)
    }

    /// The request has no valid token. It says nothing of what exists.
    pub(super) fn unauthorized() -> Self {
        let problem = Self::new(ProblemType::Unauthorized, "the request has no valid token");
        problem.with_advice("send `Authorization: Bearer TOKEN`; `pointsman token new` creates a token")
    }

    /// The token has none of the permissions of which the request needs one. It says nothing of what exists.
    pub(super) fn forbidden(needed: &[Permission]) -> Self {
        let names: Vec<String> = needed.iter().map(|permission| format!("`{permission}`")).collect();
        let problem = Self::new(ProblemType::Forbidden, "the token does not allow this request");
        problem.with_advice(format!("the token needs the permission {}", names.join(" or ")))
    }

    /// A page of another site has made a browser send the request, or may have.
    pub(super) fn from_other_site() -> Self {
        let detail = "the request may come from a page of another site";
        let advice = "send it without the help of a browser, or from a page of this server";
        Self::new(ProblemType::Forbidden, detail).with_advice(advice)
    }

    /// The request names another host or origin than this server, which answers only requests to `hosts`.
    pub(super) fn of_other_host(hosts: &[String]) -> Self {
        let detail = "the Host or Origin of the request is not that of this server";
        let advice = format!("without tokens, this server answers only requests to {}", hosts.join(" or "));
        Self::new(ProblemType::Forbidden, detail).with_advice(advice)
    }

    #[must_use]
    pub(super) fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(bounded_text(advice.into(), MAX_TEXT_BYTES).into_boxed_str());
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
        let kind = match error.kind() {
            Kind::NotFound => ProblemType::NotFound,
            Kind::Conflict => ProblemType::Conflict,
            Kind::Changed => ProblemType::Changed,
            Kind::Precondition => ProblemType::PreconditionFailed,
            Kind::Invalid => ProblemType::Unprocessable,
            Kind::Forbidden => ProblemType::Forbidden,
            Kind::Busy => ProblemType::TooManyRequests,
            Kind::Stopping => ProblemType::Unavailable,
            Kind::Internal => ProblemType::Internal,
        };
        if kind == ProblemType::Internal {
            tracing::error!(error = %error_chain(&error), "a request failed");
        }
        let detail = match error.diagnostics() {
            Some(diagnostics) => match diagnostics.0.len() {
                1 => "there is a fault".to_owned(),
                faults => format!("there are {faults} faults"),
            },
            None => error_chain(&error),
        };
        let mut problem = Self::new(kind, detail);
        if let Some(advice) = error.advice() {
            problem = problem.with_advice(advice);
        }
        problem.diagnostics = error.diagnostics().map(Diagnostics::texts).unwrap_or_default();
        problem.diagnostics.truncate(MAX_DIAGNOSTICS);
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

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [ProblemType; 15] = [
        ProblemType::BadRequest,
        ProblemType::Unauthorized,
        ProblemType::Forbidden,
        ProblemType::NotFound,
        ProblemType::MethodNotAllowed,
        ProblemType::Timeout,
        ProblemType::Conflict,
        ProblemType::Changed,
        ProblemType::PreconditionFailed,
        ProblemType::TooLarge,
        ProblemType::UnsupportedMediaType,
        ProblemType::Unprocessable,
        ProblemType::TooManyRequests,
        ProblemType::Internal,
        ProblemType::Unavailable,
    ];

    /// Returns the `type` and the `class` of a problem in JSON.
    fn shown(kind: ProblemType) -> (String, String) {
        let problem = serde_json::to_value(Problem::new(kind, "x")).unwrap();
        let text = |field: &str| problem[field].as_str().unwrap().to_owned();
        (text("type"), text("class"))
    }

    #[test]
    fn the_class_is_the_last_part_of_the_type_and_no_type_has_two_meanings() {
        let of_requests = Class::ALL.into_iter().map(ProblemType::Request);
        let mut types = std::collections::BTreeSet::new();
        for kind in OWN.into_iter().chain(of_requests) {
            let (uri, class) = shown(kind);
            assert_eq!(uri.rsplit('/').next(), Some(class.as_str()));
            assert!(types.insert(uri), "{class}");
            assert!(kind.status().as_u16() >= 400, "{class}");
        }
        assert_eq!(shown(ProblemType::NotFound).0, "/problems/not_found");
        assert_eq!(shown(ProblemType::Request(Class::NotFound)).0, "/problems/request/not_found");
    }

    #[test]
    fn a_missing_permission_is_named() {
        let problem = Problem::forbidden(&[Permission::Run, Permission::Admin]);
        assert_eq!(problem.advice.as_deref(), Some("the token needs the permission `run` or `admin`"));
    }

    #[test]
    fn what_a_problem_quotes_is_cut_at_a_character() {
        let exact = "x".repeat(MAX_TEXT_BYTES);
        assert_eq!(*Problem::bad_request(exact.as_str()).detail, *exact);
        let long = "é".repeat(3 << 20);
        let problem = Problem::bad_request(long.as_str()).with_advice(long.as_str());
        for text in [&problem.detail, &problem.advice.unwrap()] {
            assert!((MAX_TEXT_BYTES - 4..=MAX_TEXT_BYTES).contains(&text.len()), "{}", text.len());
            assert!(text.ends_with("é…"));
        }
        let missing = Problem::from(daemon::Error::Conflict { message: long });
        assert!(missing.detail.len() <= MAX_TEXT_BYTES);
    }

    #[test]
    fn an_error_of_the_daemon_has_a_class_of_its_own() {
        let conflict = Problem::from(daemon::Error::Conflict { message: "in progress".to_owned() });
        assert_eq!((conflict.status, conflict.class), (409, "conflict"));
        let changed = Problem::from(daemon::Error::Changed { message: "a price has changed".to_owned() });
        assert_eq!((changed.status, changed.class), (409, "changed"));
        assert!(changed.advice.unwrap().contains("{\"accept_changes\": true}"));
    }
}
