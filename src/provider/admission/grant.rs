//! What a call takes from the provider's state, and how it ends.
//!
//! Data only: the scheduler grants and releases it, and a permit holds it meanwhile.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::{BreakerToken, InFlightToken, SentCall, TokenCost};
use crate::types::{Charged, Completion, Failure, ModelName, Prompt, ScopeName, Spend, StepName};

use super::queue::Turn;
use super::reservation::Reservation;
use crate::provider::keys::key::KeyId;

/// The resources that a call took from the provider's state when it was sent.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Grant {
    pub(in crate::provider) model: ModelName,
    pub(in crate::provider) key: KeyId,
    /// Its prompt.
    pub(in crate::provider) request: Weak<Prompt>,
    /// Its number among the provider's calls.
    pub(in crate::provider) number: u64,
    /// Token of the endpoint breaker, which all targets share.
    pub(in crate::provider) endpoint_token: BreakerToken,
    /// Token of its target's breaker.
    pub(in crate::provider) target_token: BreakerToken,
    pub(in crate::provider) in_flight: InFlightToken,
    /// Whether it was withdrawn from the retry budget.
    pub(in crate::provider) is_retry: bool,
    /// Whether it is the first attempt of its request.
    pub(in crate::provider) is_first: bool,
    pub(in crate::provider) scope: ScopeName,
    pub(in crate::provider) step: Option<StepName>,
    pub(in crate::provider) reservation: Reservation,
    /// What it took from the account's limits, and from its model's own.
    pub(in crate::provider) shared: SentCall,
    pub(in crate::provider) own: SentCall,
    /// The turn of its scope and run that it has used; `None` until it is removed from the queue.
    pub(in crate::provider) turn: Option<Turn>,
    /// Whether the call was not sent after all, because its target cannot express the request.
    pub(in crate::provider) is_unsent: bool,
    /// When it was sent; `None` before that.
    pub(in crate::provider) sent: Option<SendTime>,
    /// Why its caller dropped it; `None` if the caller did not.
    pub(in crate::provider) abort: Option<Abort>,
    /// What was booked for it.
    pub(in crate::provider) spend: Spend,
    /// The tokens of its answer that were received, as estimated when the call ends.
    pub(in crate::provider) received_output: u64,
}

/// When a call was sent.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct SendTime {
    pub(in crate::provider) at: Instant,
    /// Time from submission to sending.
    pub(in crate::provider) queue_time: Duration,
}

/// Why a caller dropped a call that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum Abort {
    /// Another call has answered the request.
    Superseded,
    /// The caller no longer needs an answer.
    Cancelled,
}

impl Grant {
    /// Returns what the call is charged; `None` is a call that died without an outcome. A call that was broken off is
    /// charged at least what was received of its answer.
    pub(in crate::provider) fn charged(&self, result: Option<&Result<Completion, Failure>>) -> TokenCost {
        let charged = self.reservation.charged(result);
        let received = match result {
            // Its usage is known, or is estimated from its whole content.
            Some(Ok(_)) => 0,
            Some(Err(failure)) if failure.usage.is_some() => 0,
            // Refused before any work.
            Some(Err(failure)) if failure.charged == Charged::No => 0,
            Some(Err(_)) | None => self.received_output,
        };
        TokenCost { output: charged.output.max(received), ..charged }
    }
}

/// How a call ended, for the provider's state.
pub(in crate::provider) struct CallOutcome<'a> {
    pub(in crate::provider) result: &'a Result<Completion, Failure>,
    pub(in crate::provider) took: Duration,
    /// Time from sending to the first part of the answer; `None` if the answer had not begun.
    pub(in crate::provider) first_token: Option<Duration>,
}
