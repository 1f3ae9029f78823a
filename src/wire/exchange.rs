//! What goes out for a prompt, and what a piece of its reply means.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

/// A request without its address and without its key. The method is POST, the body JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What follows the base address, beginning with a slash; may hold a query.
    pub path: String,
    /// Headers of the format itself, such as its version.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The JSON body.
    pub body: Bytes,
}

/// What an event meant for the call's clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing of the answer yet: a ping, an opening, an empty delta.
    Waiting,
    /// A piece of the answer (or of the reasoning before it) has come.
    Answering,
    /// The answer is complete unless more comes: a finish reason is here, and the format has no end mark.
    Complete,
    /// The end mark has come; nothing more is expected.
    Ended,
}
