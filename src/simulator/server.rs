//! TCP listener and connections of the simulator.
//!
//! One task accepts and owns all connections, so dropping the simulator closes all of them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};

use super::connection::{Connection, ResetSwitch};
use super::request_scope::Shared;
use super::routes::serve;
use super::{Counts, Settings, Vendor};

/// Length of the accept queue. A client opens many connections at the same time.
const ACCEPT_BACKLOG: u32 = 4_096;
/// Wait after a failed accept, for example without free file descriptors. It prevents a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A running simulator. Dropping it stops it and closes all connections.
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Simulator {
    /// Starts a simulator on `runtime`. Port 0 selects a free port; [`Self::addr`] returns it.
    pub fn start(settings: Settings, address: SocketAddr, runtime: &Handle) -> io::Result<Self> {
        let listener = {
            let _guard = runtime.enter();
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(ACCEPT_BACKLOG)?
        };
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings));
        let task = runtime.spawn(accept(listener, Arc::clone(&shared), runtime.clone())).abort_handle();
        Ok(Self { address, shared, task })
    }

    /// Returns the address on which the simulator listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL for a client of `vendor`.
    pub fn base_url(&self, vendor: Vendor) -> String {
        match vendor {
            Vendor::OpenAi => format!("http://{}/v1", self.address),
            Vendor::Anthropic | Vendor::Gemini => format!("http://{}", self.address),
        }
    }

    /// Returns the counts since the start or the last [`Self::reset`].
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Returns the current settings.
    pub fn settings(&self) -> Settings {
        Settings::clone(&self.shared.settings.load())
    }

    /// Replaces the settings from the next call on. Counts and the usage of accounts are kept.
    pub fn set(&self, settings: Settings) {
        self.shared.set(settings);
    }

    /// Resets counts, the clock of faults, repetitions and buckets to the initial state.
    pub fn reset(&self) {
        self.shared.reset();
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Simulator").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, runtime: Handle) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn_on(serve_connection(stream, Arc::clone(&shared)), &runtime);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Remove finished connections, or the set would grow without bound.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without TCP_NODELAY a small response may wait 40 ms for an acknowledgement. An error is harmless.
    let _ = stream.set_nodelay(true);
    let _connection_guard = shared.open_connection();
    let reset_switch = ResetSwitch::default();
    let connection = TokioIo::new(Connection::new(stream, reset_switch.clone()));
    let service = service_fn(move |request| serve(Arc::clone(&shared), reset_switch.clone(), request));
    // An error is expected if the client disconnects early or a fault aborts the connection.
    let _ = http1::Builder::new().serve_connection(connection, service).await;
}
