//! Requests outside of runs. What they spend is recorded in the store.

use crate::router::{Request, ResponseStream};
use crate::types::{Class, Failure, RequestError, Response, error_chain};

use super::caller::Caller;
use super::daemon::Daemon;

impl Daemon {
    /// Sends a request of a caller, within the limits of its token. It does not wait for these limits: it fails at once, and
    /// `retry_after` of the failure is the expected wait.
    ///
    /// # Errors
    /// The failure that ended the request, with every attempt.
    pub async fn send(&self, request: Request, caller: &Caller) -> Result<Response, Box<RequestError>> {
        if self.is_stopping() {
            let failure =
                Failure::new(Class::Cancelled, "the daemon is stopping and accepts no more requests");
            return Err(Box::new(failure.into()));
        }
        self.pointsman().try_send(self.accounted(request, caller)).await
    }

    /// Sends a request of a caller and returns its answer as a stream. It waits for the limits of the caller's token, until
    /// its deadline.
    pub fn stream(&self, request: Request, caller: &Caller) -> ResponseStream {
        self.pointsman().stream(self.accounted(request, caller))
    }

    /// Records in the store what requests outside of runs have spent since the last time.
    pub(super) async fn record_request_spending(&self) {
        let daemon = self.clone();
        // A task of its own, which runs to its end: a caller that leaves in between would leave it half recorded.
        let recording =
            self.pointsman().runtime().spawn(async move { daemon.request_spending().record().await });
        match recording.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = %error_chain(&error), "the spend of requests cannot be recorded");
            }
            Err(error) => tracing::error!(%error, "the spend of requests was not recorded"),
        }
    }

    fn accounted(&self, request: Request, caller: &Caller) -> Request {
        let budget = self.request_spending().budget_of(&caller.scope);
        request.with_scope(caller.scope.clone()).with_budget(budget)
    }
}
