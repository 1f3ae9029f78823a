//! The four clocks of a call, and its deadline: which runs out next, and what that means.
//!
//! One alarm serves them all. It is set to the first that can run out and, when it rings, put off to the one that
//! does: to set an alarm anew for each piece of a reply costs more than to read most pieces.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::types::{Class, Failure};

use super::settings::Timeouts;

/// The clocks of one call. The one for connecting is the transport's own.
pub(super) struct Clocks<'a> {
    timeouts: &'a Timeouts,
    left: Instant,
    deadline: Instant,
    first_token: Option<Duration>,
    alarm: Pin<Box<Sleep>>,
}

/// What a wait ended on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    FirstToken,
    Idle,
    Total,
    Deadline,
}

impl<'a> Clocks<'a> {
    pub(super) fn start(timeouts: &'a Timeouts, deadline: Instant, now: Instant) -> Self {
        let shortest = timeouts.first_token.min(timeouts.idle).min(timeouts.total);
        let alarm = Box::pin(sleep_until(deadline.min(now + shortest)));
        Self { timeouts, left: now, deadline, first_token: None, alarm }
    }

    /// Notes that a piece of the answer has come.
    pub(super) fn answering(&mut self, now: Instant) {
        self.first_token.get_or_insert(now - self.left);
    }

    /// Returns how long the call has been out.
    pub(super) fn elapsed(&self) -> Duration {
        self.left.elapsed()
    }

    /// Returns how long the first piece of the answer took; `None` before it has come.
    pub(super) fn first_token(&self) -> Option<Duration> {
        self.first_token
    }

    /// Waits for `what`, for as long as the call may still be silent.
    ///
    /// # Errors
    /// `timeout`, or `deadline` when the time of the whole question was up first.
    pub(super) async fn wait<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Failure> {
        let now = Instant::now();
        let (at, limit) = self.next(now);
        let mut what = pin!(what);
        // The alarm is not looked at while there is always something to read.
        if at < now {
            return Err(self.failure(limit));
        }
        if at < self.alarm.deadline() {
            self.alarm.as_mut().reset(at);
        }
        loop {
            tokio::select! {
                biased;
                came = &mut what => return Ok(came),
                () = &mut self.alarm => {}
            }
            if at <= Instant::now() {
                return Err(self.failure(limit));
            }
            self.alarm.as_mut().reset(at);
        }
    }

    /// Waits for `what`, which is nothing that the provider owes: the call has as much more time. Returns how long it took,
    /// too.
    pub(super) async fn pause<T>(&mut self, what: impl Future<Output = T>) -> (T, Duration) {
        let began = Instant::now();
        let came = what.await;
        let took = began.elapsed();
        self.left += took;
        self.deadline += took;
        (came, took)
    }

    fn next(&self, now: Instant) -> (Instant, Limit) {
        let silent = match self.first_token {
            None => (self.left + self.timeouts.first_token, Limit::FirstToken),
            Some(_) => (now + self.timeouts.idle, Limit::Idle),
        };
        let total = (self.left + self.timeouts.total, Limit::Total);
        let deadline = (self.deadline, Limit::Deadline);
        let sooner =
            |one: (Instant, Limit), other: (Instant, Limit)| if other.0 < one.0 { other } else { one };
        sooner(sooner(deadline, total), silent)
    }

    fn failure(&self, limit: Limit) -> Failure {
        let deadline = self.deadline.saturating_duration_since(self.left);
        let (class, what, time) = match limit {
            Limit::FirstToken => (Class::Timeout, "had not begun to answer after", self.timeouts.first_token),
            Limit::Idle => {
                (Class::Timeout, "fell silent in the middle of its answer for", self.timeouts.idle)
            }
            Limit::Total => (Class::Timeout, "had not finished after", self.timeouts.total),
            Limit::Deadline => {
                (Class::Deadline, "had not finished when the step's deadline came, after", deadline)
            }
        };
        Failure::new(class, format!("the provider {what} {time:.1?}")).maybe_charged()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn ends(clocks: &mut Clocks<'_>) -> (Class, u64) {
        let started = Instant::now();
        let failure = clocks.wait(pending::<()>()).await.unwrap_err();
        (failure.class, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_silence_has_its_own_limit() {
        let timeouts =
            Timeouts { connect: SECOND, first_token: 20 * SECOND, idle: 5 * SECOND, total: 60 * SECOND };
        let now = Instant::now();
        let mut clocks = Clocks::start(&timeouts, now + 600 * SECOND, now);
        assert_eq!(ends(&mut clocks).await, (Class::Timeout, 20));
        clocks.answering(Instant::now());
        assert_eq!(ends(&mut clocks).await, (Class::Timeout, 5));
        tokio::time::advance(32 * SECOND).await;
        assert_eq!(ends(&mut clocks).await, (Class::Timeout, 3), "the whole call has a limit, too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_after_a_late_first_piece_is_as_short_as_any() {
        let timeouts =
            Timeouts { connect: SECOND, first_token: 120 * SECOND, idle: 5 * SECOND, total: 600 * SECOND };
        let now = Instant::now();
        let mut clocks = Clocks::start(&timeouts, now + 900 * SECOND, now);
        clocks.wait(tokio::time::sleep(50 * SECOND)).await.unwrap();
        clocks.answering(Instant::now());
        assert_eq!(ends(&mut clocks).await, (Class::Timeout, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_has_passed_ends_a_call_that_never_has_to_wait() {
        let timeouts = Timeouts { total: 60 * SECOND, ..Timeouts::default() };
        let now = Instant::now();
        for (passed, deadline, class) in [(50, 40, Class::Deadline), (61, 90, Class::Timeout)] {
            let start = now.checked_sub(passed * SECOND).unwrap();
            let mut clocks = Clocks::start(&timeouts, start + deadline * SECOND, start);
            clocks.answering(start + SECOND);
            let failure = clocks.wait(async {}).await.unwrap_err();
            assert_eq!(failure.class, class);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_the_question_ends_its_call() {
        let timeouts = Timeouts::default();
        let now = Instant::now();
        let mut clocks = Clocks::start(&timeouts, now + 7 * SECOND, now);
        assert_eq!(ends(&mut clocks).await, (Class::Deadline, 7));
    }
}
