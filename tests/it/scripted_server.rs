//! A server whose responses are written by the test, for invalid responses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::spawn;

/// A running server. It stops with the runtime of the test.
pub(crate) struct ScriptedServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl ScriptedServer {
    /// Starts a server that keeps connections open. `answer` maps the head and body of a request to the
    /// response bytes.
    pub(crate) async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_with(answer, true, Duration::ZERO).await
    }

    /// Like [`start`](Self::start), but closes the connection after each response.
    pub(crate) async fn start_closing(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::start_with(answer, false, Duration::ZERO).await
    }

    /// Like [`start`](Self::start), but waits for `delay` before each response.
    pub(crate) async fn start_late(
        delay: Duration,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(answer, true, delay).await
    }

    async fn start_with(
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
        keep_open: bool,
        delay: Duration,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        let server = Self { address, connections: Arc::default(), requests: Arc::default() };
        let connections = server.connections.clone();
        let requests = server.requests.clone();
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, SeqCst);
                spawn(serve_connection(stream, requests.clone(), answer.clone(), (keep_open, delay)));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    requests: Arc<AtomicUsize>,
    answer: Arc<impl Fn(&str) -> String + Send + Sync>,
    (keep_open, delay): (bool, Duration),
) {
    stream.set_nodelay(true).unwrap();
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        while read.len() < end + length {
            if matches!(stream.read_buf(&mut read).await, Ok(0) | Err(_)) {
                return;
            }
        }
        let request = String::from_utf8(read.drain(..end + length).collect()).unwrap();
        requests.fetch_add(1, SeqCst);
        tokio::time::sleep(delay).await;
        if stream.write_all(answer(&request).as_bytes()).await.is_err() || !keep_open {
            return;
        }
    }
}

/// Returns the value of a header.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find_map(|(header_name, value)| header_name.eq_ignore_ascii_case(name).then_some(value))
}

/// Returns a response with a `content-length` header.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// Returns an event stream with this `content-length`; `events` may be shorter.
pub(crate) fn stream_of_length(length: usize, events: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{events}")
}

/// Returns an event stream of one chunk. `last` adds the end of the stream.
pub(crate) fn stream(headers: &str, events: &str, last: bool) -> String {
    let end = if last { "0\r\n\r\n" } else { "" };
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{headers}transfer-encoding: chunked");
    format!("{head}\r\n\r\n{:x}\r\n{events}\r\n{end}", events.len())
}

/// A complete response of OpenAI, as an event stream.
pub(crate) const RESPONSE_STREAM: &str = concat!(
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello."},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\ndata: [DONE]\n\n",
);
