//! HTTP client of the daemon's API.
//!
//! It follows no redirect, because the token would go to another address, and uses no proxy for this machine.

use std::error::Error;
use std::io;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use reqwest::redirect::Policy;
use serde_json::Value;

use crate::types::Secret;

use super::error::{Refusal, RemoteError};
use super::server_url::ServerUrl;

/// How long a connection may take.
const MAX_CONNECT: Duration = Duration::from_secs(5);

/// The longest pause within an answer, and before it. A report reads all items of a run, and a deletion may clean up the
/// database.
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// Bytes of problem details that are read.
const MAX_PROBLEM_BYTES: usize = 1 << 20;

/// Bytes of any other answer that is read at once.
const MAX_BYTES: usize = 256 << 20;

/// The header that every answer of a daemon has.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header with the number of the last event that a watcher has.
#[cfg(feature = "tui")]
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// A client of one daemon. It is cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Client {
    http: reqwest::Client,
    url: ServerUrl,
    token: Option<HeaderValue>,
}

/// An answer that is read in pieces.
#[derive(Debug)]
pub(in crate::cli) struct Body {
    response: reqwest::Response,
    client: Client,
}

impl Client {
    /// Creates a client. Nothing is sent yet.
    pub(super) fn new(url: ServerUrl, token: Option<&Secret>) -> anyhow::Result<Self> {
        let tls = crate::tls::client_config().context("cannot set up TLS")?;
        Self::with_tls(url, token, tls)
    }

    /// Creates a client that asks only for the health of a daemon. On this machine it accepts every certificate, because that
    /// of the daemon is for its public name.
    pub(super) fn for_health(url: ServerUrl) -> anyhow::Result<Self> {
        let tls =
            if url.is_local() { crate::tls::health_client_config() } else { crate::tls::client_config() };
        Self::with_tls(url, None, tls.context("cannot set up TLS")?)
    }

    fn with_tls(url: ServerUrl, token: Option<&Secret>, tls: rustls::ClientConfig) -> anyhow::Result<Self> {
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(MAX_CONNECT)
            .read_timeout(MAX_PAUSE)
            .redirect(Policy::none())
            .tls_backend_preconfigured(tls);
        if url.is_local() {
            http = http.no_proxy();
        }
        let token = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
                .map_err(|_| anyhow::anyhow!("the token has characters that no token has"))?;
            value.set_sensitive(true);
            anyhow::Ok(value)
        });
        Ok(Self { http: http.build().context("cannot set up HTTP")?, url, token: token.transpose()? })
    }

    /// Returns the address of the daemon.
    pub(in crate::cli) fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Returns whether `/health` answers 200 within this time. It needs no token.
    pub(in crate::cli) async fn is_healthy(&self, within: Duration) -> bool {
        let request = self.http.get(format!("{}/health", self.url)).timeout(within);
        request.send().await.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    /// Reads a resource of the API, such as `/runs`.
    pub(in crate::cli) async fn get(&self, path: &str) -> Result<Value, RemoteError> {
        self.json(self.send(self.request(Method::GET, path)).await?).await
    }

    /// Reads a resource that has to come within this time.
    pub(in crate::cli) async fn get_within(
        &self,
        path: &str,
        within: Duration,
    ) -> Result<Value, RemoteError> {
        self.json(self.send(self.request(Method::GET, path).timeout(within)).await?).await
    }

    /// Creates or changes something. Returns the answer; null if it is empty.
    pub(in crate::cli) async fn post(&self, path: &str, body: &Value) -> Result<Value, RemoteError> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        self.json(self.send(request.body(body.to_string())).await?).await
    }

    /// Deletes something.
    pub(in crate::cli) async fn delete(&self, path: &str) -> Result<(), RemoteError> {
        self.send(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// Reads a resource in pieces.
    pub(in crate::cli) async fn stream(&self, path: &str) -> Result<Body, RemoteError> {
        let response = self.send(self.request(Method::GET, path)).await?;
        Ok(Body { response, client: self.clone() })
    }

    /// Reads the events after the one with this number, in pieces.
    #[cfg(feature = "tui")]
    pub(in crate::cli) async fn events(&self, last: u64) -> Result<Body, RemoteError> {
        let request = self.request(Method::GET, "/events").header(LAST_EVENT_ID, last);
        let response = self.send(request).await?;
        Ok(Body { response, client: self.clone() })
    }

    /// Returns the error of an answer of another form than expected.
    pub(in crate::cli) async fn other_version(&self, source: serde_json::Error) -> RemoteError {
        let status = self.get_within("/status", MAX_CONNECT).await.unwrap_or_default();
        let daemon = status.get("version").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        RemoteError::OtherVersion {
            url: self.url.to_string(),
            daemon,
            program: env!("CARGO_PKG_VERSION"),
            source,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.url));
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    /// Sends a request, and returns the answer if it is that of a daemon that did what it was asked.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, RemoteError> {
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        let url = || self.url.to_string();
        let has_token = self.token.is_some();
        if !response.headers().contains_key(REQUEST_ID) {
            return Err(RemoteError::NotPointsman { url: url(), status: status.as_u16() });
        }
        match status {
            _ if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED if has_token => Err(RemoteError::WrongToken { url: url() }),
            StatusCode::UNAUTHORIZED => Err(RemoteError::NoToken { url: url() }),
            StatusCode::FORBIDDEN => Err(match self.refusal(response).await {
                RemoteError::Refused(refusal) => RemoteError::Forbidden { url: url(), has_token, refusal },
                error => error,
            }),
            _ => Err(self.refusal(response).await),
        }
    }

    /// Returns the error of an answer with problem details.
    async fn refusal(&self, response: reqwest::Response) -> RemoteError {
        let status = response.status().as_u16();
        let bytes = match self.read(response, MAX_PROBLEM_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(refusal) => RemoteError::Refused(Box::new(refusal)),
            Err(_) => RemoteError::NotPointsman { url: self.url.to_string(), status },
        }
    }

    async fn json(&self, response: reqwest::Response) -> Result<Value, RemoteError> {
        let status = response.status().as_u16();
        let bytes = self.read(response, MAX_BYTES).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|_| RemoteError::NotPointsman { url: self.url.to_string(), status })
    }

    async fn read(&self, mut response: reqwest::Response, max: usize) -> Result<Vec<u8>, RemoteError> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if bytes.len() + piece.len() > max {
                let why = format!("the answer is larger than {max} bytes");
                return Err(RemoteError::Interrupted { url: self.url.to_string(), why });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    fn failed(&self, error: &reqwest::Error) -> RemoteError {
        let url = self.url.to_string();
        if is_not_tls(error) {
            return RemoteError::NotTls { url };
        }
        if error.is_connect() {
            return RemoteError::Connect { url, why: root_cause(error) };
        }
        if error.is_timeout() {
            return RemoteError::Timeout { url };
        }
        RemoteError::Interrupted { url, why: root_cause(error) }
    }
}

impl Body {
    /// Returns the next piece; `None` at the end.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        self.response.chunk().await.map_err(|error| self.client.failed(&error))
    }
}

/// Returns whether the server has answered the begin of a TLS connection with something else.
fn is_not_tls(error: &reqwest::Error) -> bool {
    matches!(tls_error(error), Some(rustls::Error::InvalidMessage(_)))
}

/// Returns the error of TLS among the causes of an error.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    // The source of an I/O error is not the error that it wraps, but the source of that.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => tls_error(wrapped),
        None => tls_error(error.source()?),
    }
}

/// Returns the message of the last cause, which does not repeat the address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
