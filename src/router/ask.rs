//! A question to whichever provider is best.

use std::sync::Arc;

use actix::Message;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::counts::CallCounts;
use super::flow::Flow;
use crate::guard::Purse;
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
