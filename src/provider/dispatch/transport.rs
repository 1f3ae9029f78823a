//! HTTP transport: the only file that uses reqwest.
//!
//! Connections belong to the I/O threads and outlive every actor. Bodies are not interpreted here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use crate::types::{Cause, Class, Completion, Failure};
use crate::wire::{HttpRequest, ModelListRequest};

use super::loopback::{self, is_loopback_host};
use crate::provider::keys::header_redactor::HeaderRedactor;

/// Streams that one HTTP/2 connection carries without waiting, as most servers allow. A client opens one
/// connection per host, so more concurrent calls need more clients.
const STREAMS_PER_CLIENT: usize = 100;

/// Bytes of one HTTP/2 stream that arrive before they are read: nothing else bounds the memory of a response
/// that waits for memory. Enough for 640 KB a second over 200 ms.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;

/// The same for all streams of one connection: responses that are not read, because they wait for memory, block
/// no other response on their connection.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * 2 * STREAMS_PER_CLIENT as u32;

/// Maximum decompressed bytes of one response: no model generates more, but a broken server may.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Maximum bytes of an error body that are read, approximately: it is parsed as a tree, which takes up to forty
/// times its size. The status alone classifies an error with a longer body.
const MAX_ERROR_BODY_BYTES: usize = 64 << 10;

/// Maximum length of a provider's request ID.
const MAX_REQUEST_ID_CHARS: usize = 256;

/// The headers that carry a provider's request ID.
const REQUEST_ID_HEADERS: [&str; 2] = ["x-request-id", "request-id"];

/// Why no client could be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client's settings or the system's certificates are unusable.
    #[error("cannot set up HTTP")]
    Client(#[source] reqwest::Error),
    /// TLS could not be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// A key cannot be sent.
    #[error("cannot use a key")]
    Key(#[source] Failure),
    /// The address is invalid.
    #[error("{url:?} is not an address")]
    Address {
        /// The given address.
        url: String,
    },
}

/// Sends requests to one base address.
#[derive(Debug)]
pub(in crate::provider) struct Transport {
    clients: Vec<Client>,
    base_url: String,
    headers: HeaderMap,
    redactors: HeaderRedactor,
    /// Parsed addresses by path; there is at most one per model.
    urls: RwLock<HashMap<String, Url>>,
}

/// A client and its open requests: each holds a reference to `in_use` until its body is read.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    in_use: Arc<()>,
}

/// A response whose body has not been read.
pub(in crate::provider) struct Response {
    pub(in crate::provider) status: u16,
    pub(in crate::provider) headers: HeaderMap,
    inner: reqwest::Response,
    in_use: Arc<()>,
}

impl Transport {
    pub(in crate::provider) fn new(
        base_url: &str,
        headers: HeaderMap,
        is_secret: impl Fn(&HeaderName) -> bool,
        connect: Duration,
        concurrency: usize,
    ) -> Result<Self, Error> {
        let url = Url::parse(base_url).map_err(|_| Error::Address { url: base_url.to_owned() })?;
        let tls = crate::tls::client_config().map_err(Error::Tls)?;
        let client = || {
            let mut client = reqwest::Client::builder()
                .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(connect)
                .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
                .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                // A redirect would send the prompt and the key to an address that is not configured.
                .redirect(reqwest::redirect::Policy::none())
                .tls_backend_preconfigured(tls.clone());
            let host = url.host_str().unwrap_or_default();
            if is_loopback_host(host) {
                client = client.no_proxy();
            }
            if let Some(addresses) = loopback::localhost_addresses(host) {
                client = client.resolve_to_addrs(host, &addresses);
            }
            Ok(Client { http: client.build().map_err(Error::Client)?, in_use: Arc::new(()) })
        };
        let redactors = HeaderRedactor::new(&headers, is_secret);
        let mut headers = headers;
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self {
            redactors,
            urls: RwLock::default(),
            clients: (0..concurrency.div_ceil(STREAMS_PER_CLIENT))
                .map(|_| client())
                .collect::<Result<_, _>>()?,
            base_url: base_url.trim_end_matches('/').to_owned(),
            headers,
        })
    }

    /// Sends `request` and returns when the response headers have arrived.
    pub(in crate::provider) async fn post(
        &self,
        request: HttpRequest,
        key: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Response, Failure> {
        let mut post = reqwest::Request::new(Method::POST, self.url(request.path)?);
        *post.headers_mut() = self.headers.clone();
        post.headers_mut().extend(request.headers.into_iter().chain(key));
        *post.body_mut() = Some(request.body.into());
        self.execute(post).await
    }

    /// Asks for the list of models, and returns when the response headers have arrived.
    pub(in crate::provider) async fn get(
        &self,
        request: ModelListRequest,
        key: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Response, Failure> {
        let mut get = reqwest::Request::new(Method::GET, self.url(request.path)?);
        *get.headers_mut() = self.headers.clone();
        get.headers_mut().remove(http::header::CONTENT_TYPE);
        get.headers_mut().extend(request.headers.into_iter().chain(key));
        self.execute(get).await
    }

    async fn execute(&self, request: reqwest::Request) -> Result<Response, Failure> {
        let (client, in_use) = self.client()?;
        let mut inner = client.execute(request).await.map_err(|error| failure(&error))?;
        let headers = std::mem::take(inner.headers_mut());
        Ok(Response { status: inner.status().as_u16(), headers, inner, in_use })
    }

    /// Returns the first client with a free stream, so that few calls share few connections; if all are full,
    /// the one with the fewest requests.
    fn client(&self) -> Result<(&reqwest::Client, Arc<()>), Failure> {
        let requests = |client: &&Client| Arc::strong_count(&client.in_use) - 1;
        let free = self.clients.iter().find(|client| requests(client) < STREAMS_PER_CLIENT);
        let client = free.or_else(|| self.clients.iter().min_by_key(requests));
        let client = client.ok_or_else(|| Failure::new(Class::Internal, "there is no HTTP client"))?;
        Ok((&client.http, client.in_use.clone()))
    }

    fn url(&self, path: String) -> Result<Url, Failure> {
        if let Some(url) = self.urls.read().unwrap_or_else(PoisonError::into_inner).get(&path) {
            return Ok(url.clone());
        }
        let url = format!("{}{path}", self.base_url);
        let url = Url::parse(&url)
            .map_err(|error| Failure::new(Class::ApiError, format!("{url:?} is not an address: {error}")))?;
        self.urls.write().unwrap_or_else(PoisonError::into_inner).insert(path, url.clone());
        Ok(url)
    }

    /// Redacts the values of extra headers, which may be tokens, in a provider's error.
    pub(in crate::provider) fn redact(&self, failure: &mut Failure) {
        self.redactors.redact_failure(failure);
    }

    /// Returns what redacts the values of extra headers.
    pub(in crate::provider) fn redactors(&self) -> &HeaderRedactor {
        &self.redactors
    }

    /// Redacts the values of secret extra headers in an answer.
    pub(in crate::provider) fn redact_completion(&self, completion: &mut Completion) {
        self.redactors.redact_completion(completion);
    }
}

impl Response {
    pub(in crate::provider) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the provider's request ID, if it sends one.
    pub(in crate::provider) fn request_id(&self) -> Option<String> {
        let value = |name| self.headers.get(name)?.to_str().ok().filter(|id| !id.is_empty());
        // A header value that converts to text is ASCII.
        REQUEST_ID_HEADERS
            .into_iter()
            .find_map(value)
            .map(|id| id.get(..MAX_REQUEST_ID_CHARS).unwrap_or(id).to_owned())
    }

    /// Returns the media type without its parameters, in lower case; empty if there is none.
    pub(in crate::provider) fn media_type(&self) -> String {
        let value = self.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.split(';').next()).unwrap_or("").trim().to_ascii_lowercase()
    }

    /// Returns the body in pieces; fails once it exceeds the maximum size, which is at least that of any answer.
    pub(in crate::provider) fn stream(
        self,
        max_bytes: usize,
    ) -> impl Stream<Item = Result<Bytes, Failure>> + Send + Unpin {
        let max_bytes = max_bytes.max(MAX_RESPONSE_BYTES);
        let mut seen = 0;
        let in_use = self.in_use;
        self.inner.bytes_stream().map_err(|error| failure(&error)).map(move |piece| {
            let _until_read = &in_use;
            let piece = piece?;
            seen += piece.len();
            if seen > max_bytes {
                let message = format!("the response is larger than {} MiB", max_bytes >> 20);
                let failure = Failure::new(Class::Unreadable, message);
                return Err(failure.with_cause(Cause::ResponseTooLarge).maybe_charged());
            }
            Ok(piece)
        })
    }

    /// Reads the start of an error body that arrives within `time`; the rest is ignored.
    pub(in crate::provider) async fn error_body(self, time: Duration) -> Vec<u8> {
        let mut stream = self.stream(MAX_ERROR_BODY_BYTES);
        let mut body = Vec::new();
        let end = Instant::now() + time;
        while let Ok(Some(Ok(piece))) = timeout_at(end, stream.next()).await {
            body.extend_from_slice(&piece);
            if body.len() >= MAX_ERROR_BODY_BYTES {
                break;
            }
        }
        body
    }
}

/// Returns host and port of a call's address: the rest may contain a key.
fn host_and_port(url: Option<&Url>) -> String {
    let named = |url: &Url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?));
    url.and_then(named).map_or_else(|| "its address".to_owned(), |(host, port)| format!("{host}:{port}"))
}

/// Returns whether this is the error of a server whose first bytes are not TLS.
fn is_not_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // An I/O error holds its inner error separately from its sources.
    let mut inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let mut of_tls = error.downcast_ref();
    while let (None, Some(error)) = (of_tls, inner) {
        of_tls = error.downcast_ref();
        inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    }
    matches!(of_tls, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// Returns the failure with the whole chain of causes: "connection refused" is its last part.
fn failure(error: &reqwest::Error) -> Failure {
    let mut message = String::new();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    let mut is_plain_http = false;
    while let Some(error) = cause {
        let text = error.to_string();
        is_plain_http |= is_not_tls(error);
        // Repeats only that the connection failed, which the message already contains.
        if text != "client error (Connect)" {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(&text);
        }
        cause = error.source();
    }
    if is_plain_http {
        let host_and_port = host_and_port(error.url());
        let message =
            format!("{host_and_port} does not speak TLS: write http:// instead of https:// in base_url");
        return Failure::new(Class::NetworkError, message).with_cause(Cause::NoTls);
    }
    if error.is_connect() {
        let class = if error.is_timeout() { Class::Timeout } else { Class::NetworkError };
        return Failure::new(class, format!("cannot connect to {}: {message}", host_and_port(error.url())));
    }
    if error.is_builder() {
        return Failure::new(Class::ApiError, format!("cannot make the request: {message}"));
    }
    if error.is_body() || error.is_decode() {
        return Failure::new(Class::Unreadable, format!("the response broke off: {message}")).maybe_charged();
    }
    Failure::new(Class::NetworkError, format!("the connection broke: {message}")).maybe_charged()
}
