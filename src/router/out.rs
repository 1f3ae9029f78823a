//! One call on its way to a lane, as its ask sees it.
//!
//! Whoever drops it breaks the call off. Learns nothing from how it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::MailboxError;
use actix::prelude::Request;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use crate::provider::{Call, Departure, Left, Provider, Refused, Replied};
use crate::types::{Class, Failure, KeyLabel};

use super::lane::LaneHandle;

/// How long after its deadline a call is still waited for: one that is out ends at the deadline by itself
/// and knows what it cost.
const GRACE: Duration = Duration::from_millis(250);

/// A call that was sent to a provider.
pub(super) struct Out {
    /// The number of its lane.
    pub(super) lane: usize,
    /// Whether it was sent beside another.
    pub(super) hedge: bool,
    pub(super) asked: Instant,
    deadline: Instant,
    departure: Option<Arc<Departure>>,
    /// `None` when the provider is down.
    request: Option<Pin<Box<Request<Provider, Call>>>>,
}

/// How a call ended.
pub(super) enum End {
    /// It left and came back.
    Replied(Replied),
    /// It did not leave.
    Refused(Refused),
    /// Nobody knows whether it left.
    Lost(Failure),
}

/// A call that had left when it was broken off.
pub(super) struct Gone {
    pub(super) key: KeyLabel,
    /// From asking until it left.
    pub(super) waited: Duration,
    /// From leaving until it was broken off.
    pub(super) took: Duration,
}

impl Out {
    /// Sends `call` to a lane, by its number.
    pub(super) fn send(lane: usize, to: &LaneHandle, hedge: bool, call: Call) -> Self {
        let (asked, deadline, departure) = (Instant::now(), call.deadline, call.departure.clone());
        let request = to.provider.slot().shared().map(|provider| Box::pin(provider.send(call)));
        Self { lane, hedge, asked, deadline, departure, request }
    }

    /// Waits for its end.
    pub(super) async fn end(&mut self) -> End {
        match &mut self.request {
            Some(request) => fate(timeout_at(self.deadline + GRACE, request).await),
            None => End::Refused(Refused::Down),
        }
    }

    /// Returns what becomes true when the call leaves, for ever false where it is not told.
    pub(super) fn left(&self) -> impl Future<Output = Left> + use<> {
        let departure = self.departure.clone();
        async move {
            match departure {
                Some(departure) => departure.wait().await.clone(),
                None => std::future::pending().await,
            }
        }
    }

    /// Breaks it off; `None` when it had not left.
    pub(super) fn break_off(self) -> Option<Gone> {
        let Self { asked, departure, request, .. } = self;
        // First, so that a call that has not left by now does not.
        drop(request);
        let left = departure.as_ref()?.get()?;
        let waited = left.at.saturating_duration_since(asked);
        Some(Gone { key: left.key.clone(), waited, took: left.at.elapsed() })
    }
}

fn fate(came: Result<Result<Result<Replied, Refused>, MailboxError>, Elapsed>) -> End {
    match came {
        Ok(Ok(Ok(replied))) => End::Replied(replied),
        Ok(Ok(Err(refused))) => End::Refused(refused),
        // What the actor had let leave is answered by its own task, so mostly it had not left. But nobody
        // can tell, and a call that is paid twice must not look as if it were not.
        Ok(Err(MailboxError::Closed | MailboxError::Timeout)) => {
            let lost = "the provider's actor died with the call; nobody knows whether it had left";
            End::Lost(Failure::new(Class::NetworkError, lost).maybe_charged())
        }
        Err(_) => End::Refused(Refused::Busy { until: Instant::now() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Charged;

    #[test]
    fn a_call_whose_actor_died_may_have_been_executed() {
        let End::Lost(failure) = fate(Ok(Err(MailboxError::Closed))) else { panic!("it is taken for known") };
        assert_eq!((failure.class, failure.charged), (Class::NetworkError, Charged::Maybe));
    }

    #[test]
    fn a_call_that_was_refused_was_not_lost() {
        assert!(matches!(fate(Ok(Ok(Err(Refused::Down)))), End::Refused(Refused::Down)));
    }
}
