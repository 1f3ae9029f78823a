//! The signal that the caller of requests stops.

use tokio::sync::watch;

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
