//! `Idempotency-Key`: a caller that repeats a request that creates something gets the response of the first one.
//!
//! ```text
//! reserve(key) -> update(body) -> check() -> Known(response)
//!                                    `-----> New(execution) -> identity() -> (create) -> respond() or fail()
//! ```
//!
//! Everything after the check runs [to its end](to_its_end), also if the caller goes away, so that a repeated request never
//! meets one that is half executed.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use crate::daemon::{self, Caller, IdempotencyGuard, Idempotent, RequestDigest, ReservedKey, StoredResponse};

use super::api_state::ApiState;
use super::problem::Problem;
use super::request_id;

/// The header with the key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Tells the caller that a response is that of an earlier request.
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The same, as a header with its value.
pub(super) const IDEMPOTENT_REPLAYED_TRUE: (HeaderName, &str) = (IDEMPOTENT_REPLAYED, "true");

/// The key of a request, if it has one, and the digest of what was read of the request.
#[derive(Debug)]
pub(super) struct IdempotencyKey(Option<(ReservedKey, RequestDigest)>);

/// What the key says about the request.
#[derive(Debug)]
pub(super) enum Checked {
    /// Execute it.
    New(Execution),
    /// It was answered with this. [`replayed`] makes a response of it.
    Known(StoredResponse),
}

/// The execution of a request that creates something.
#[derive(Debug)]
pub(super) struct Execution(Option<IdempotencyGuard>);

impl IdempotencyKey {
    /// Reserves the key of a request, before its body is read.
    ///
    /// # Errors
    /// If a request with this key is in progress, or the key is invalid.
    pub(super) async fn reserve(
        request: &HttpRequest,
        state: &ApiState,
        caller: &Caller,
    ) -> Result<Self, Problem> {
        let mut given = request.headers().get_all(IDEMPOTENCY_KEY);
        let Some(key) = given.next() else { return Ok(Self(None)) };
        if given.next().is_some() {
            return Err(Problem::bad_request("the request has more than one `Idempotency-Key`"));
        }
        // What is not ASCII is refused as an invalid key.
        let reserved = state.daemon.reserve_key(caller, &String::from_utf8_lossy(key.as_bytes())).await?;
        let path = format!("{}?{}", request.path(), request.query_string());
        Ok(Self(Some((reserved, RequestDigest::new(request.method().as_str(), &path)))))
    }

    /// Returns whether the request has a key: it may have been answered already.
    pub(super) fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a part of the body, or its digest.
    pub(super) fn update(&mut self, part: &[u8]) {
        if let Some((_, digest)) = &mut self.0 {
            digest.update(part);
        }
    }

    /// Compares the request with the one for which the key was used.
    ///
    /// # Errors
    /// If the key was used for another request.
    pub(super) fn check(self) -> Result<Checked, Problem> {
        let Some((reserved, digest)) = self.0 else { return Ok(Checked::New(Execution(None))) };
        match reserved.check(digest.finish())? {
            Idempotent::New(guard) => Ok(Checked::New(Execution(Some(guard)))),
            Idempotent::Known(response) => Ok(Checked::Known(response)),
        }
    }
}

/// Returns the response of an earlier request again.
pub(super) fn replayed(StoredResponse { status, location, body, .. }: StoredResponse) -> HttpResponse {
    let mut response = HttpResponse::build(StatusCode::from_u16(status).unwrap_or(StatusCode::OK));
    response.insert_header((CONTENT_TYPE, "application/json")).insert_header((IDEMPOTENT_REPLAYED, "true"));
    if let Some(location) = location {
        response.insert_header((LOCATION, location));
    }
    response.body(body)
}

impl Execution {
    /// Returns the identity of what the request creates; `None` if the request has no key.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(super) async fn identity(&mut self) -> Result<Option<String>, Problem> {
        match &mut self.0 {
            Some(guard) => Ok(Some(guard.identity().await?)),
            None => Ok(None),
        }
    }

    /// Stores the response for repeated requests, and returns it.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(super) async fn respond(
        self,
        status: StatusCode,
        location: &str,
        body: &impl Serialize,
    ) -> Result<HttpResponse, Problem> {
        let body = serde_json::to_string(body).map_err(daemon::Error::json)?;
        if let Some(guard) = self.0 {
            guard.finish(status.as_u16(), Some(location), &body).await?;
        }
        let mut response = HttpResponse::build(status);
        response.insert_header((CONTENT_TYPE, "application/json")).insert_header((LOCATION, location));
        Ok(response.body(body))
    }

    /// Stores a response for repeated requests. The present request may get a later one.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub(super) async fn record(
        self,
        status: StatusCode,
        location: &str,
        body: &impl Serialize,
    ) -> Result<(), Problem> {
        let Some(guard) = self.0 else { return Ok(()) };
        let body = serde_json::to_string(body).map_err(daemon::Error::json)?;
        Ok(guard.finish(status.as_u16(), Some(location), &body).await?)
    }

    /// Returns the problem of a request that had no effect. Its key may be used for another request.
    pub(super) async fn fail(self, problem: impl Into<Problem>) -> Problem {
        if let Some(guard) = self.0 {
            guard.fail().await;
        }
        problem.into()
    }
}

/// Does work to its end, also if the caller goes away meanwhile.
///
/// # Errors
/// Those of the work, and if the server stops.
pub(super) async fn to_its_end<T: 'static>(
    work: impl Future<Output = Result<T, Problem>> + 'static,
) -> Result<T, Problem> {
    let work = request_id::within(request_id::current(), work);
    match actix_web::rt::spawn(work).await {
        Ok(done) => done,
        Err(_) => Err(daemon::Error::Stopping.into()),
    }
}
