//! Serves the metrics over HTTP, to several clients at once. A slow client costs one connection for a few seconds.

use std::convert::Infallible;
use std::net::{self, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::runtime::Pointsman;
use crate::telemetry::CONTENT_TYPE;

/// Maximum number of open connections. More wait to be accepted.
const MAX_CONNECTIONS: usize = 32;

/// Time in which the head of a request must arrive.
const MAX_HEAD_TIME: Duration = Duration::from_secs(5);

/// Time after which a connection is closed.
const MAX_CONNECTION_TIME: Duration = Duration::from_secs(10);

/// Maximum size of the head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Wait after a failed accept, for example without free file descriptors. It prevents a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Listens at `address`. Port 0 selects a free port.
pub(super) fn listen(address: SocketAddr) -> anyhow::Result<net::TcpListener> {
    let listen = || {
        let listener = net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(listener)
    };
    listen().with_context(|| format!("cannot listen at {address}"))
}

/// Serves the metrics until `stopped`.
///
/// One task owns all connections, so none is left when it ends.
pub(super) async fn serve(
    listener: net::TcpListener,
    pointsman: Pointsman,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the metrics cannot be served"),
    };
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => connections.push(serve_connection(stream, pointsman.clone())),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(()) = connections.next() => {}
        }
    }
}

/// Serves one request.
async fn serve_connection(stream: TcpStream, pointsman: Pointsman) {
    let service = service_fn(move |request: Request<Incoming>| {
        let pointsman = pointsman.clone();
        async move { Ok::<_, Infallible>(respond(&pointsman, request.method(), request.uri().path()).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(MAX_HEAD_TIME)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // An error is expected if the client disconnects early or sends no HTTP.
    let _ = timeout(MAX_CONNECTION_TIME, connection).await;
}

async fn respond(pointsman: &Pointsman, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if path != "/metrics" {
        return text_response(StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned());
    }
    if method != Method::GET {
        let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let mut response = text_response(StatusCode::OK, pointsman.metrics_text().await);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    response
}

fn text_response(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
