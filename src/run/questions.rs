//! The questions of one item that are out.
//!
//! Each follows its own way from lane to lane only as long as somebody looks after it: so they are looked after also
//! while their item waits for something else. Knows nothing of steps.

use std::collections::VecDeque;
use std::pin::pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

/// Questions that are out, and what has come of others.
pub(super) struct Questions<F: Future> {
    out: FuturesUnordered<F>,
    came: VecDeque<F::Output>,
}

impl<F: Future> Questions<F> {
    pub(super) fn new() -> Self {
        Self { out: FuturesUnordered::new(), came: VecDeque::new() }
    }

    pub(super) fn push(&mut self, question: F) {
        self.out.push(question);
    }

    /// Returns whether the next answer is one that has not come.
    pub(super) fn waits(&self) -> bool {
        self.came.is_empty() && !self.out.is_empty()
    }

    /// Returns the next answer; `None` when no question is out.
    pub(super) async fn next(&mut self) -> Option<F::Output> {
        match self.came.pop_front() {
            Some(came) => Some(came),
            None => self.out.next().await,
        }
    }

    /// Waits for something else, and keeps the answers that come meanwhile.
    pub(super) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                ended = &mut other => return ended,
                Some(came) = self.out.next(), if !self.out.is_empty() => self.came.push_back(came),
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
    async fn what_is_out_goes_on_while_something_else_is_waited_for() {
        let (mut questions, began) = (Questions::new(), Instant::now());
        // As one that fails over: it has more than one thing to wait for.
        let question = |number: u64| async move {
            sleep(Duration::from_secs(number)).await;
            sleep(Duration::from_secs(number)).await;
            (number, began.elapsed().as_secs())
        };
        [1, 3, 10].into_iter().for_each(|number| questions.push(question(number)));
        questions.beside(sleep(Duration::from_secs(8))).await;
        assert_eq!([questions.next().await, questions.next().await], [Some((1, 2)), Some((3, 6))]);
        assert_eq!((questions.next().await, questions.next().await), (Some((10, 20)), None));
    }

    #[tokio::test]
    async fn nothing_is_out_and_nothing_is_waited_for_in_vain() {
        let mut questions = Questions::<std::future::Ready<()>>::new();
        assert_eq!(questions.beside(ready(7)).await, 7);
        assert!(questions.next().now_or_never().unwrap().is_none());
    }
}
