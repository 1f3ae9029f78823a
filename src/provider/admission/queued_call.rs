//! A call on its way through the provider: from the inbox into the queue, with the responder for its result.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::supervisor::Responder;

use super::estimate::Estimate;
use crate::provider::call::{Call, CallResult, Rejection};

/// What the caller receives. The result is boxed because it is moved through several futures.
pub type CallReply = Result<Box<CallResult>, Rejection>;

/// Receives the result of a call. Dropping it aborts the call. It is closed without a result if the call was not
/// sent, or if a panic of the actor lost the call before it was sent.
pub type CallReceiver = oneshot::Receiver<CallReply>;

/// Sends the result of a call to its [`CallReceiver`].
pub type CallResponder = Responder<CallReply>;

/// A call in the inbox.
#[derive(Debug)]
pub(in crate::provider) struct IncomingCall {
    pub(in crate::provider) call: Call,
    pub(in crate::provider) responder: CallResponder,
    pub(in crate::provider) requested_at: Instant,
}

/// A queued call.
#[derive(Debug)]
pub(in crate::provider) struct QueuedCall {
    /// Shared with the scheduler while it decides about the call.
    pub(in crate::provider) call: Arc<Call>,
    pub(in crate::provider) responder: CallResponder,
    pub(in crate::provider) requested_at: Instant,
    pub(in crate::provider) estimate: Estimate,
}
