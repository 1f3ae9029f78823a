//! Sending of calls: HTTP, streams, timeouts, proxies and addresses.
//!
//! [`worker`] runs the admitted calls; [`exchange`] makes one HTTP call; [`transport`] is the only file that uses reqwest.

mod answer_output;
mod attempt_trace;
pub(super) mod base_url;
pub(super) mod client_pool;
pub(super) mod event_stream;
pub(super) mod exchange;
pub(super) mod loopback;
pub(super) mod proxy;
pub(super) mod redirect;
pub(super) mod response_limit;
pub(super) mod timeouts;
pub(super) mod transport;
pub(super) mod worker;
