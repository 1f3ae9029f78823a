//! The requests of one item that are in flight.
//!
//! A request's future makes progress (for example, fails over to another target) only while it is polled. So all of
//! them are polled even while the item waits for something else. Independent of steps.

use std::collections::VecDeque;
use std::pin::pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Requests in flight, and results that have arrived.
pub(super) struct InFlight<F: Future> {
    pending: FuturesUnordered<F>,
    arrived: VecDeque<F::Output>,
}

impl<F: Future> InFlight<F> {
    pub(super) fn new() -> Self {
        Self { pending: FuturesUnordered::new(), arrived: VecDeque::new() }
    }

    pub(super) fn push(&mut self, request: F) {
        self.pending.push(request);
    }

    /// Returns whether the next result has not arrived yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.arrived.is_empty() && !self.pending.is_empty()
    }

    /// Returns the next result; `None` if no request is in flight.
    pub(super) async fn next(&mut self) -> Option<F::Output> {
        match self.arrived.pop_front() {
            Some(arrived) => Some(arrived),
            None => self.pending.next().await,
        }
    }

    /// Waits for `other` and polls the requests meanwhile. Results that arrive are kept for
    /// [`next`](Self::next).
    pub(super) async fn poll_while<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                ended = &mut other => return ended,
                Some(arrived) = self.pending.next(), if !self.pending.is_empty() => self.arrived.push_back(arrived),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_in_flight_progress_while_something_else_is_awaited() {
        let mut in_flight = InFlight::new();
        let started = Instant::now();
        // Like a request that fails over, it awaits more than one future.
        let request = |number: u64| async move {
            sleep(Duration::from_secs(number)).await;
            sleep(Duration::from_secs(number)).await;
            (number, started.elapsed().as_secs())
        };
        [1, 3, 10].into_iter().for_each(|number| in_flight.push(request(number)));
        in_flight.poll_while(sleep(Duration::from_secs(8))).await;
        assert_eq!([in_flight.next().await, in_flight.next().await], [Some((1, 2)), Some((3, 6))]);
        assert_eq!((in_flight.next().await, in_flight.next().await), (Some((10, 20)), None));
    }

    #[tokio::test]
    async fn next_returns_none_without_requests() {
        let mut in_flight = InFlight::<std::future::Ready<()>>::new();
        assert_eq!(in_flight.poll_while(ready(7)).await, 7);
        assert!(in_flight.next().now_or_never().unwrap().is_none());
    }
}
