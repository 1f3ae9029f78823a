//! Listens, and keeps the connections.
//!
//! One task accepts and owns all connections, so dropping the simulator ends every one of them. It never
//! looks into a request.

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

use super::door::serve;
use super::line::{Line, ResetSwitch};
use super::visit::Shared;
use super::{Counts, Settings, Vendor};

/// Connections that may wait to be accepted: a client opens all of its own at once.
const BACKLOG: u32 = 4_096;
/// Wait after a failed accept, such as for want of file descriptors; without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A running simulator. Dropping it ends it and every connection.
pub struct Simulator {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Simulator {
    /// Starts a simulator on `runtime`. Port 0 takes any free one; [`Self::addr`] tells which.
    pub fn start(settings: Settings, address: SocketAddr, runtime: &Handle) -> io::Result<Self> {
        let listener = {
            let _inside = runtime.enter();
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)?
        };
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings));
        let task = runtime.spawn(accept(listener, Arc::clone(&shared), runtime.clone())).abort_handle();
        Ok(Self { address, shared, task })
    }

    /// Returns the address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns what a client of `vendor` takes for its base URL.
    pub fn base_url(&self, vendor: Vendor) -> String {
        match vendor {
            Vendor::OpenAi => format!("http://{}/v1", self.address),
            Vendor::Anthropic | Vendor::Gemini => format!("http://{}", self.address),
        }
    }

    /// Returns what it saw since its start or the last [`Self::reset`].
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// Returns the settings in force.
    pub fn settings(&self) -> Settings {
        Settings::clone(&self.shared.settings.load())
    }

    /// Changes the settings from the next call on. Counts go on, and what accounts have used stays used.
    pub fn set(&self, settings: Settings) {
        self.shared.set(settings);
    }

    /// Begins anew: counts, the clock of faults, repetitions and buckets are as at the start.
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
                    connections.spawn_on(converse(stream, Arc::clone(&shared)), &runtime);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Finished connections are taken out, or the set would grow with their number.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    // Without it a small reply may wait 40 ms for an acknowledgement; where it cannot be set, so be it.
    let _ = stream.set_nodelay(true);
    let _open = shared.connect();
    let switch = ResetSwitch::default();
    let line = TokioIo::new(Line::new(stream, switch.clone()));
    let service = service_fn(move |request| serve(Arc::clone(&shared), switch.clone(), request));
    // It ends with an error when a client leaves early or a fault breaks it; neither is news.
    let _ = http1::Builder::new().serve_connection(line, service).await;
}
