//! Runs a server of its own for a daemon: its sockets, its limits and its threads.

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use actix_web::dev::{Extensions, ServerHandle};
use actix_web::rt::net::TcpStream;
use actix_web::{App, HttpServer};
use rustls::ServerConfig;

use crate::config::Config;
use crate::daemon::Daemon;

use super::api_state::ServerOptions;
use super::routes::{elsewhere, routes};
use super::tls;

/// The most threads that serve connections.
const MAX_WORKERS: usize = 4;

/// How much of a response the system holds for a client. A client that is 100 ms away gets 5 MiB a second.
#[cfg(unix)]
const SEND_BUFFER_BYTES: usize = 512 << 10;

/// How long responses may take to be sent when the server stops. The daemon was drained before.
const SHUTDOWN_SECONDS: u64 = 3;

/// How many connections the system queues until they are accepted.
const BACKLOG: u32 = 1024;

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be used.
    #[error("cannot listen at {address}: {}", listen_error(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use the certificate of [serve.tls] ({})", .0.advice())]
    Tls(#[source] tls::Error),
    /// The system refused a thread.
    #[error("cannot start the server")]
    Thread(#[source] io::Error),
}

/// The socket and the certificate of a server. They are taken before its daemon starts, so that an address in use is known
/// before anything else begins.
#[derive(Debug)]
pub struct BoundServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<ServerConfig>,
}

/// A server that is running. Dropping it stops it at once.
#[derive(Debug)]
pub struct RunningServer {
    address: SocketAddr,
    is_tls: bool,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl RunningServer {
    /// Returns the address at which it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Takes no more connections, lets responses that are under way be sent, and stops. The daemon is drained
    /// before.
    pub async fn stop(mut self) {
        self.handle.stop(true).await;
        self.thread = None;
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Sends the command; the server's own thread executes it.
            drop(self.handle.stop(false));
        }
    }
}

impl BoundServer {
    /// Listens at the address of a configuration, and reads its certificate. Connections wait until [`start`](Self::start).
    ///
    /// # Errors
    /// If the address or the certificate cannot be used.
    pub fn bind(config: &Config) -> Result<Self, ServeError> {
        let address = config.serve.listen;
        let tls = server_tls(config)?;
        let listener = bind(address).map_err(|source| ServeError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| ServeError::Listen { address, source })?;
        Ok(Self { listener, address, tls })
    }

    /// Serves `daemon`, on threads of its own.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(self, daemon: &Daemon, options: ServerOptions) -> Result<RunningServer, ServeError> {
        start(self, daemon, options)
    }
}

/// Checks that a server can use the certificate of a configuration, if it has one.
///
/// # Errors
/// If the certificate or its key cannot be used.
#[doc(hidden)]
pub fn check_certificate(config: &Config) -> Result<(), ServeError> {
    server_tls(config).map(drop)
}

fn server_tls(config: &Config) -> Result<Option<ServerConfig>, ServeError> {
    let files = config.serve.tls.files();
    let tls = files.map(|(certificate, key)| tls::server_config(certificate, key));
    tls.transpose().map_err(ServeError::Tls)
}

/// Starts a server for `daemon` at the address of its configuration, on threads of its own.
///
/// # Errors
/// If the address or the certificate cannot be used.
pub fn serve(daemon: &Daemon, options: ServerOptions) -> Result<RunningServer, ServeError> {
    BoundServer::bind(&daemon.config())?.start(daemon, options)
}

fn start(bound: BoundServer, daemon: &Daemon, options: ServerOptions) -> Result<RunningServer, ServeError> {
    let BoundServer { listener, address, tls } = bound;
    let is_tls = tls.is_some();
    let config = daemon.config();
    let settings = &config.serve;
    let workers = thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
    let connections = settings.max_connections.get().div_ceil(workers);
    let read_timeout = settings.read_timeout;
    let idle_timeout = settings.idle_timeout;
    let daemon = daemon.clone();
    let (handle_tx, handle_rx) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name("http".into()).spawn(move || {
        actix_rt::System::new().block_on(async move {
            let mount = routes(&daemon, options);
            let server =
                HttpServer::new(move || App::new().configure(mount.clone()).default_service(elsewhere()))
                    .workers(workers)
                    .max_connections(connections)
                    .backlog(BACKLOG)
                    .client_request_timeout(read_timeout)
                    .client_disconnect_timeout(Duration::from_secs(5))
                    .keep_alive(idle_timeout)
                    .shutdown_timeout(SHUTDOWN_SECONDS)
                    .on_connect(limit_send_buffer)
                    .disable_signals();
            let server = match tls {
                Some(tls) => server.listen_rustls_0_23(listener, tls)?,
                None => server.listen(listener)?,
            };
            let server = server.run();
            // The receiver waits for it.
            drop(handle_tx.send(server.handle()));
            server.await
        })
    });
    let thread = thread.map_err(ServeError::Thread)?;
    let handle = handle_rx
        .recv()
        .map_err(|_| ServeError::Thread(io::Error::other("the server ended before it had started")))?;
    Ok(RunningServer { address, is_tls, handle, thread: Some(thread) })
}

/// Limits how much of a response the system holds for a client that does not read. Without it, Linux lets the buffer grow to
/// several MiB, and a thousand such clients make the daemon read a thousand whole responses. A connection with TLS keeps the
/// system's buffer: its type belongs to a crate that this one does not depend on.
fn limit_send_buffer(connection: &dyn Any, _: &mut Extensions) {
    let socket = connection.downcast_ref::<TcpStream>();
    #[cfg(unix)]
    if let Some(socket) = socket
        && let Err(error) = rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES)
    {
        tracing::debug!(%error, "the send buffer of a connection was not limited");
    }
    #[cfg(not(unix))]
    let _ = socket;
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn listen_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or set another `listen` in [serve]".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "the system does not permit it; ports below 1024 need a permission, so use a higher one"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; use 127.0.0.1 or 0.0.0.0".to_owned()
        }
        _ => error.to_string(),
    }
}
