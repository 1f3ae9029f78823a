//! The door to the network: the only file that knows reqwest.
//!
//! Connections belong to the threads of calls and outlive every actor. Never interprets a body.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use crate::types::{Cause, Class, Failure, Reply};
use crate::wire::Request;

use super::header_mask::HeaderMasks;
use super::this_machine::{self, is_this_machine};

/// Streams that one HTTP/2 connection carries without waiting, as most servers allow; a client
/// opens one connection per host, so more calls at once need more clients.
const STREAMS_PER_CLIENT: usize = 100;

/// Bytes of one HTTP/2 stream that come before they are read: nothing else bounds what is held of a reply that waits for
/// memory. Enough for 640 KB a second over 200 ms.
const STREAM_WINDOW: u32 = 128 << 10;

/// The same of all streams of one connection: replies that are not read, because they wait for memory, keep no other reply
/// of their connection back.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 2 * STREAMS_PER_CLIENT as u32;

/// Most bytes of one reply that are read, unpacked: no model writes more, a broken server may.
const MOST_BYTES: usize = 64 << 20;

/// Most bytes of an error's body that are read, about: it is read as a tree, which takes up to forty times its memory. Of a
/// longer one the status says what it is.
const MOST_ERROR_BYTES: usize = 64 << 10;

/// Most characters that are kept of a provider's own id of a request.
const MAX_ID: usize = 256;

/// The headers that carry a provider's own id of a request.
const REQUEST_IDS: [&str; 2] = ["x-request-id", "request-id"];

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
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
    /// The address is none.
    #[error("{url:?} is no address")]
    Address {
        /// What was given.
        url: String,
    },
}

/// Sends requests to one base address.
#[derive(Debug)]
pub(super) struct Transport {
    clients: Vec<Client>,
    base_url: String,
    headers: HeaderMap,
    masks: HeaderMasks,
    /// Addresses by path, parsed once: there is one for each model at most.
    urls: RwLock<HashMap<String, Url>>,
}

/// A client, and its requests that are not over: each holds a share of `busy` until its body is read.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    busy: Arc<()>,
}

/// A response whose body has not been read.
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    inner: reqwest::Response,
    busy: Arc<()>,
}

impl Transport {
    pub(super) fn new(
        base_url: &str,
        headers: HeaderMap,
        is_secret: impl Fn(&HeaderName) -> bool,
        connect: Duration,
        concurrency: usize,
    ) -> Result<Self, Error> {
        let url = Url::parse(base_url).map_err(|_| Error::Address { url: base_url.to_owned() })?;
        let tls = TLS.clone().map_err(Error::Tls)?;
        let client = || {
            let mut client = reqwest::Client::builder()
                .user_agent(concat!("pointsman/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(connect)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                // A redirect would carry prompt and key to an address that nobody has configured.
                .redirect(reqwest::redirect::Policy::none())
                .tls_backend_preconfigured(tls.clone());
            let host = url.host_str().unwrap_or_default();
            if is_this_machine(host) {
                client = client.no_proxy();
            }
            if let Some(addresses) = this_machine::addresses(host) {
                client = client.resolve_to_addrs(host, &addresses);
            }
            Ok(Client { http: client.build().map_err(Error::Client)?, busy: Arc::new(()) })
        };
        let masks = HeaderMasks::of(&headers, is_secret);
        let mut headers = headers;
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self {
            masks,
            urls: RwLock::default(),
            clients: (0..concurrency.div_ceil(STREAMS_PER_CLIENT))
                .map(|_| client())
                .collect::<Result<_, _>>()?,
            base_url: base_url.trim_end_matches('/').to_owned(),
            headers,
        })
    }

    /// Sends `request` and returns when the response's headers are there.
    pub(super) async fn post(
        &self,
        request: Request,
        key: Option<(HeaderName, HeaderValue)>,
    ) -> Result<Response, Failure> {
        let (client, busy) = self.client()?;
        let mut headers = self.headers.clone();
        headers.extend(request.headers.into_iter().chain(key));
        let mut post = reqwest::Request::new(Method::POST, self.url(request.path)?);
        *post.headers_mut() = headers;
        *post.body_mut() = Some(request.body.into());
        let mut inner = client.execute(post).await.map_err(|error| failure(&error))?;
        let headers = std::mem::take(inner.headers_mut());
        Ok(Response { status: inner.status().as_u16(), headers, inner, busy })
    }

    /// Returns the first client that has a stream left, so that few calls share few connections; where all
    /// are full the one with the fewest.
    fn client(&self) -> Result<(&reqwest::Client, Arc<()>), Failure> {
        let requests = |client: &&Client| Arc::strong_count(&client.busy) - 1;
        let free = self.clients.iter().find(|client| requests(client) < STREAMS_PER_CLIENT);
        let client = free.or_else(|| self.clients.iter().min_by_key(requests));
        let client = client.ok_or_else(|| Failure::new(Class::Internal, "there is no HTTP client"))?;
        Ok((&client.http, client.busy.clone()))
    }

    fn url(&self, path: String) -> Result<Url, Failure> {
        if let Some(url) = self.urls.read().unwrap_or_else(PoisonError::into_inner).get(&path) {
            return Ok(url.clone());
        }
        let url = format!("{}{path}", self.base_url);
        let url = Url::parse(&url)
            .map_err(|error| Failure::new(Class::ApiError, format!("{url:?} is no address: {error}")))?;
        self.urls.write().unwrap_or_else(PoisonError::into_inner).insert(path, url.clone());
        Ok(url)
    }

    /// Covers the values of extra headers, which may be tokens, in a provider's words.
    pub(super) fn cover(&self, failure: &mut Failure) {
        self.masks.cover_failure(failure);
    }

    /// Covers the values of extra headers that are secrets in an answer.
    pub(super) fn cover_reply(&self, reply: &mut Reply) {
        self.masks.cover_reply(reply);
    }
}

impl Response {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the provider's own id of the request, where it sends one.
    pub(super) fn request_id(&self) -> Option<String> {
        let value = |name| self.headers.get(name)?.to_str().ok().filter(|id| !id.is_empty());
        REQUEST_IDS.into_iter().find_map(value).map(|id| id.chars().take(MAX_ID).collect())
    }

    /// Returns the media type without its parameters, in lower case; empty when there is none.
    pub(super) fn media_type(&self) -> String {
        let value = self.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.split(';').next()).unwrap_or("").trim().to_ascii_lowercase()
    }

    /// Returns the body piece by piece; fails once it is larger than any reply.
    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, Failure>> + Send + Unpin {
        let (mut seen, busy) = (0, self.busy);
        self.inner.bytes_stream().map_err(|error| failure(&error)).map(move |piece| {
            let _until_read = &busy;
            let piece = piece?;
            seen += piece.len();
            if seen > MOST_BYTES {
                let failure = Failure::new(Class::Unreadable, "the reply is larger than 64 MiB");
                return Err(failure.because(Cause::TooLarge).maybe_charged());
            }
            Ok(piece)
        })
    }

    /// Reads as much of an error's body as is needed, and comes within `time`; what cannot be read is left out.
    pub(super) async fn error_body(self, time: Duration) -> Vec<u8> {
        let mut stream = self.stream();
        let mut body = Vec::new();
        let end = Instant::now() + time;
        while let Ok(Some(Ok(piece))) = timeout_at(end, stream.next()).await {
            body.extend_from_slice(&piece);
            if body.len() >= MOST_ERROR_BYTES {
                break;
            }
        }
        body
    }
}

/// Read once: the system's certificates take tens of milliseconds.
static TLS: LazyLock<Result<rustls::ClientConfig, rustls::Error>> = LazyLock::new(tls);

/// Trusts what the system trusts, and the roots that Mozilla trusts: a container without
/// certificates of its own can still call a provider.
fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // A certificate of the system that cannot be read is one that is not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Names where a call went by host and port alone: the rest can hold a key.
fn place(url: Option<&Url>) -> String {
    let named = |url: &Url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?));
    url.and_then(named).map_or_else(|| "its address".to_owned(), |(host, port)| format!("{host}:{port}"))
}

/// Tells the error of a server whose first bytes are no TLS.
fn is_no_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // An error of the network holds the one that it is made of beside its sources.
    let mut inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let mut of_tls = error.downcast_ref();
    while let (None, Some(error)) = (of_tls, inner) {
        of_tls = error.downcast_ref();
        inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    }
    matches!(of_tls, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// Says what broke, with the whole chain of causes: "connection refused" stands at its end.
fn failure(error: &reqwest::Error) -> Failure {
    let mut message = String::new();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    let mut speaks_no_tls = false;
    while let Some(error) = cause {
        let told = error.to_string();
        speaks_no_tls |= is_no_tls(error);
        // Says no more than that it could not connect, which is said already.
        if told != "client error (Connect)" {
            message.push_str(if message.is_empty() { "" } else { ": " });
            message.push_str(&told);
        }
        cause = error.source();
    }
    if speaks_no_tls {
        let place = place(error.url());
        let message = format!("{place} does not speak TLS: write http:// instead of https:// in base_url");
        return Failure::new(Class::NetworkError, message).because(Cause::NoTls);
    }
    if error.is_connect() {
        let class = if error.is_timeout() { Class::Timeout } else { Class::NetworkError };
        return Failure::new(class, format!("cannot connect to {}: {message}", place(error.url())));
    }
    if error.is_builder() {
        return Failure::new(Class::ApiError, format!("cannot make the request: {message}"));
    }
    if error.is_body() || error.is_decode() {
        return Failure::new(Class::Unreadable, format!("the reply broke off: {message}")).maybe_charged();
    }
    Failure::new(Class::NetworkError, format!("the connection broke: {message}")).maybe_charged()
}
