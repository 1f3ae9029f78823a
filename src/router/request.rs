//! A request to the targets of a route.

use std::sync::Arc;

use actix::Message;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::guard::{HeldMemory, SharedBudget};
use crate::types::{Priority, Prompt, RequestContext, RequestError, Response, RouteName};

use super::counts::CallCounts;

/// The failure message of a request that arrives while the router stops.
pub(super) const STOPPING_MESSAGE: &str = "pointsman is stopping and accepts no more requests";

/// A request to the router: one prompt, answered by one target of a route.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// The route whose targets may answer.
    pub route: RouteName,
    /// The priority. An interactive request must not be delayed.
    pub priority: Priority,
    /// The run, item and step, for fairness between runs and for statistics.
    pub context: RequestContext,
    /// The time after which the response is useless.
    pub deadline: Instant,
    /// Counts its calls when they end; `None` if they are not counted.
    pub counts: Option<Arc<CallCounts>>,
    /// The budget that its calls spend; `None` if spending is not counted for a run.
    pub budget: Option<Arc<SharedBudget>>,
    /// The memory allowance that its responses take from. By default they take from that of the process until the
    /// request has ended.
    pub memory: HeldMemory,
    /// Signals that the caller stops. A call that is not sent soon after that is withdrawn.
    pub stop: Option<StopSignal>,
}

/// Signals to requests that their caller stops. A request with a call in flight awaits the end of that call. A
/// request that is queued or waits for a limit ends as cancelled.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Creates a signal that is set as soon as `stop` holds `true`.
    pub fn new(stop: &watch::Sender<bool>) -> Self {
        Self(stop.subscribe())
    }

    /// Returns whether the caller stops.
    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the caller stops.
    pub(crate) async fn wait(mut self) {
        if self.0.wait_for(|is_stopping| *is_stopping).await.is_err() {
            // The sender was dropped without a stop. The caller will drop the request.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until `stop` is set; forever if there is none.
pub(super) async fn wait_for_stop(stop: Option<StopSignal>) {
    match stop {
        Some(stop) => stop.wait().await,
        None => std::future::pending().await,
    }
}

impl Message for Request {
    type Result = Result<Response, Box<RequestError>>;
}
