//! Servers that fail in a given way, for all formats.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pointsman::simulator::{Fault, Settings, Simulator};
use tokio::net::{TcpListener, TcpSocket};

use crate::scripted_server::{RESPONSE_STREAM, ScriptedServer, response};
use crate::support::{FORMATS, spawn, start_simulator};

/// A failure of the first target.
pub(super) enum FailureMode {
    /// A fault of the simulator.
    Simulated(Box<Fault>),
    /// A rate limit that is exhausted for the first minute, with rate-limit headers.
    OneRequestPerMinute,
    /// The port refuses connections.
    ConnectionRefused,
    /// The host name does not resolve.
    UnresolvableHost,
    /// The URL is `https`, and the server has no TLS.
    ServerWithoutTls,
    /// The server accepts the connection and does not respond to the TLS handshake.
    SilentTlsHandshake,
    /// The server closes every connection immediately.
    ClosedImmediately,
    /// The server sends this status, header and body to every call.
    FixedResponse(&'static str, &'static str, &'static str),
    /// An event stream with the content type of a JSON response.
    StreamLabeledAsJson,
    /// A stream that lasts longer than the total timeout of a call.
    EndlessResponse,
}

/// A running server with a failure mode. It stops when it is dropped.
pub(super) struct FaultyServer {
    base_urls: [String; FORMATS.len()],
    backend: Backend,
}

enum Backend {
    Simulator(Simulator),
    /// The calls are not valid HTTP, so the simulator does not count them.
    SimulatorWithoutCounts {
        _kept: Simulator,
    },
    Scripted(ScriptedServer),
    Listener(Arc<AtomicUsize>),
    /// A reserved port without a listener.
    Port {
        _kept: TcpSocket,
    },
    None,
}

impl FaultyServer {
    /// Starts a server that fails always, or only on the first call of each request.
    pub(super) async fn start(failure_mode: &FailureMode, once: bool) -> Self {
        match failure_mode {
            FailureMode::Simulated(fault) => {
                let fault = Fault { times: once.then_some(1), ..Fault::clone(fault) };
                Self::simulated(Settings { faults: vec![fault], ..Settings::default() })
            }
            FailureMode::OneRequestPerMinute => Self::simulated(
                toml::from_str("limits = { requests_per_minute = 1, starts_full = false }").unwrap(),
            ),
            // 75 ms between two chunks.
            FailureMode::EndlessResponse => Self::simulated(
                toml::from_str(
                    "latency = \"30s\"\nfirst_token = \"50ms\"\nanswer_tokens = 400\nchunks = 400",
                )
                .unwrap(),
            ),
            FailureMode::ServerWithoutTls => {
                let server = Self::simulated(Settings::default());
                let base_urls = server.base_urls.map(|url| url.replace("http:", "https:"));
                let Backend::Simulator(_kept) = server.backend else { unreachable!() };
                Self { base_urls, backend: Backend::SimulatorWithoutCounts { _kept } }
            }
            FailureMode::ConnectionRefused => {
                // The socket stays open, so that no other server of these tests gets the same port.
                let port = TcpSocket::new_v4().unwrap();
                port.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
                let url = format!("http://{}", port.local_addr().unwrap());
                Self::with_url(url, Backend::Port { _kept: port })
            }
            // The label is longer than the maximum of 63 bytes, so it is rejected without a DNS query.
            FailureMode::UnresolvableHost => {
                Self::with_url(format!("http://{}.test", "n".repeat(64)), Backend::None)
            }
            FailureMode::SilentTlsHandshake => Self::with_listener("https", true).await,
            FailureMode::ClosedImmediately => Self::with_listener("http", false).await,
            FailureMode::FixedResponse(status, header, body) => {
                Self::with_fixed_response(status, header, body).await
            }
            FailureMode::StreamLabeledAsJson => {
                Self::with_fixed_response("200 OK", "content-type: application/json", RESPONSE_STREAM).await
            }
        }
    }

    /// Returns the base URL for the format with this index.
    pub(super) fn base_url(&self, format: usize) -> &str {
        &self.base_urls[format]
    }

    /// Returns the number of received calls, if the server counts them.
    pub(super) fn request_count(&self) -> Option<usize> {
        match &self.backend {
            Backend::Simulator(simulator) => Some(simulator.counts().requests as usize),
            Backend::Scripted(scripted) => Some(scripted.requests()),
            Backend::Listener(connections) => Some(connections.load(SeqCst)),
            Backend::SimulatorWithoutCounts { .. } | Backend::Port { .. } | Backend::None => None,
        }
    }

    fn simulated(settings: Settings) -> Self {
        let simulator = start_simulator(settings);
        let base_urls = FORMATS.map(|(_, vendor)| simulator.base_url(vendor));
        Self { base_urls, backend: Backend::Simulator(simulator) }
    }

    async fn with_fixed_response(status: &'static str, header: &str, body: &'static str) -> Self {
        let header = format!("{header}\r\n");
        let scripted = ScriptedServer::start(move |_| response(status, &header, body)).await;
        Self::with_url(scripted.url(), Backend::Scripted(scripted))
    }

    async fn with_listener(scheme: &str, keep_open: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        spawn(async move {
            let mut open_connections = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                open_connections.extend(keep_open.then_some(connection));
            }
        });
        Self::with_url(url, Backend::Listener(connections))
    }

    fn with_url(url: String, backend: Backend) -> Self {
        Self { base_urls: FORMATS.map(|_| url.clone()), backend }
    }
}
