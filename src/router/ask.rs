//! A question to whichever provider is best.

use std::sync::Arc;

use actix::Message;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::counts::CallCounts;
use super::flow::Flow;
use crate::guard::{HeldMemory, Purse};
use crate::provider::ReplyToCall;
use crate::types::{Answer, Asker, Failure, Priority, Prompt, RouteName, Unanswered};

/// Asks the router for an answer.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What to ask.
    pub prompt: Arc<Prompt>,
    /// Along which route.
    pub route: RouteName,
    /// Who is waiting.
    pub priority: Priority,
    /// For what, where it matters to fairness and to what is learned.
    pub asker: Asker,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// Where its calls are counted as they end, if anybody wants to see that.
    pub counts: Option<Arc<CallCounts>>,
    /// Whose money its calls spend; `None` where nobody's in particular is counted.
    pub purse: Option<Arc<Purse>>,
    /// Whose memory its replies take; by default they take that of the process until the answer is given.
    pub held: HeldMemory,
    /// Tells that its asker stops: a call that has not left by then is not waited for.
    pub stop: Option<StopSignal>,
}

/// Tells questions that their asker stops. Those whose call is out wait for its end; those that wait for their turn or
/// for a limit end as cancelled.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Makes the signal that is given once `stop` holds true.
    pub fn of(stop: &watch::Sender<bool>) -> Self {
        Self(stop.subscribe())
    }

    /// Returns whether it is given.
    pub(super) fn is_given(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is given.
    pub(crate) async fn given(mut self) {
        if self.0.wait_for(|stops| *stops).await.is_err() {
            // Its asker has gone without stopping, and will drop the question.
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until `stop` is given; for ever where there is none.
pub(super) async fn stops(stop: Option<StopSignal>) {
    match stop {
        Some(stop) => stop.given().await,
        None => std::future::pending().await,
    }
}

impl Message for Ask {
    type Result = Result<Answer, Box<Unanswered>>;
}

/// Asks the router to begin with an ask, which its asker then follows by himself: that costs no task and no wake.
///
/// The first call is sent with `first`, after `flow`. Until that call has ended nothing but its end is awaited; where
/// there is none, or it is the flow's to await, `first` is dropped at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Begin {
    pub(super) ask: Ask,
    pub(super) first: ReplyToCall,
    pub(super) flow: oneshot::Sender<Result<Box<Flow>, Failure>>,
}
