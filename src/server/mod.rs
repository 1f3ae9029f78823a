//! The HTTP API of a [`Daemon`](crate::daemon::Daemon), and the dashboard.
//!
//! [`routes()`] mounts them in any actix-web app; [`serve()`] runs a server of their own. Nothing is decided here: a handler
//! reads a request, calls the daemon, and writes the response.
//!
//! ```text
//! connection -> limits -> request id, access log -> token -> handler -> daemon
//! ```

mod access;
mod access_log;
mod api;
mod api_state;
mod body;
mod body_limits;
mod dashboard;
mod describe_errors;
mod etag;
mod head_request;
mod idempotency;
mod json_error;
mod problem;
mod request_id;
mod request_problem;
mod request_status;
mod routes;
mod serve;
mod session_cookie;
mod sse;
mod tls;

pub use api_state::ServerOptions;
pub use problem::Problem;
pub use routes::routes;
pub use serve::{BoundServer, RunningServer, ServeError, check_certificate, serve};
