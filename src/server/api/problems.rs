//! The error responses that operations may give, for the OpenAPI document.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::server::problem::{PROBLEM_JSON, Problem};

/// The statuses, each with its description. `default` stands for all others.
const STATUSES: [(&str, &str); 7] = [
    ("400", "The request is not what is expected."),
    ("401", "The request has no valid token."),
    (
        "403",
        "The token lacks the permission that `advice` names; or, without tokens, the request is for another host.",
    ),
    ("429", "The caller has to wait for the seconds in `Retry-After`."),
    ("500", "The daemon cannot do it. Its log says why."),
    ("503", "The daemon stops, or cannot do it now."),
    ("default", "Any other problem, such as 405 for a method that the resource does not have."),
];

/// The statuses that an operation with a body may give besides.
const BODY_STATUSES: [(&str, &str); 3] = [
    ("408", "The body, or the next part of it, did not arrive in time."),
    ("413", "The body is too large."),
    ("415", "The body has another media type, or is compressed."),
];

/// The error responses that every operation with a token may give.
pub(super) struct Problems;

/// The error responses that every operation with a body may give besides.
pub(super) struct BodyProblems;

/// The error responses of an operation that needs no token.
pub(super) struct AnyProblem;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&STATUSES)
    }
}

impl IntoResponses for BodyProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&BODY_STATUSES)
    }
}

impl IntoResponses for AnyProblem {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        BTreeMap::from([("default".to_owned(), response("Any problem."))])
    }
}

fn responses(all: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    all.iter().map(|(status, description)| ((*status).to_owned(), response(description))).collect()
}

fn response(description: &str) -> RefOr<Response> {
    let schema = Ref::from_schema_name(Problem::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    RefOr::T(ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build())
}
