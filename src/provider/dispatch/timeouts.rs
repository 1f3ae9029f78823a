//! The timeouts and the deadline of a call: which expires next, and the failure that results.
//!
//! One timer serves all of them. It is set to the earliest possible expiry. When it fires early, it is reset to
//! the actual expiry. Resetting a timer for each chunk of a response costs more than reading most chunks.

use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::types::{Class, Failure};
use crate::wire::StreamSupport;

use crate::provider::settings::Timeouts;

/// How long a call waits for the reader of its answer: meanwhile it occupies a slot of the provider.
const MAX_WAIT_FOR_READER: Duration = Duration::from_secs(60);

/// The timeouts of one call. The transport enforces the connect timeout.
///
/// Nothing of a whole response arrives before the answer is complete. Only `total` and the deadline bound the time
/// until then.
pub(in crate::provider) struct CallTimeouts<'a> {
    timeouts: &'a Timeouts,
    stream: StreamSupport,
    sent_at: Instant,
    deadline: Instant,
    first_token: Option<Duration>,
    timer: Pin<Box<Sleep>>,
}

/// The limit that expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeoutKind {
    FirstToken,
    Idle,
    Total,
    Deadline,
}

impl<'a> CallTimeouts<'a> {
    /// Starts the timeouts of a call that is sent `now`. `stream` is whether its request asks for a stream.
    pub(in crate::provider) fn start(
        timeouts: &'a Timeouts,
        stream: StreamSupport,
        deadline: Instant,
        now: Instant,
    ) -> Self {
        let shortest = match stream {
            StreamSupport::Auto => timeouts.first_token.min(timeouts.idle).min(timeouts.total),
            StreamSupport::Never => timeouts.total,
        };
        let timer = Box::pin(sleep_until(deadline.min(now + shortest)));
        Self { timeouts, stream, sent_at: now, deadline, first_token: None, timer }
    }

    /// Records that a part of the answer was received.
    pub(in crate::provider) fn on_content(&mut self, now: Instant) {
        self.first_token.get_or_insert(now - self.sent_at);
    }

    /// Returns whether the request asked for a stream.
    pub(in crate::provider) fn stream(&self) -> StreamSupport {
        self.stream
    }

    /// Returns the time since the call was sent.
    pub(in crate::provider) fn elapsed(&self) -> Duration {
        self.sent_at.elapsed()
    }

    /// Returns the time to the first part of the answer; `None` before it was received.
    pub(in crate::provider) fn first_token(&self) -> Option<Duration> {
        self.first_token
    }

    /// Waits for `future` until a timeout expires.
    ///
    /// # Errors
    /// `timeout`, or `deadline` when the deadline of the request expires first.
    pub(in crate::provider) async fn wait<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let now = Instant::now();
        let (at, limit) = self.next_expiry(now);
        let mut future = pin!(future);
        // The timer is not polled while data is always ready.
        if at < now {
            return Err(self.failure(limit));
        }
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Ok(output),
                () = &mut self.timer => {}
            }
            if at <= Instant::now() {
                return Err(self.failure(limit));
            }
            self.timer.as_mut().reset(at);
        }
    }

    /// Waits for `future`, which does not depend on the provider, and extends the deadline by the same time.
    /// Returns that time, too.
    pub(in crate::provider) async fn pause<T>(&mut self, future: impl Future<Output = T>) -> (T, Duration) {
        let began = Instant::now();
        let output = future.await;
        let took = began.elapsed();
        self.sent_at += took;
        self.deadline += took;
        (output, took)
    }

    /// Waits until the reader of the answer has read enough, which does not depend on the provider, for a minute and until the
    /// deadline of the request at most.
    ///
    /// # Errors
    /// `deadline`.
    pub(in crate::provider) async fn wait_for_reader<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let Ok(output) = timeout_at(self.deadline.min(began + MAX_WAIT_FOR_READER), future).await else {
            let message = format!("the reader of the stream did not read for {:.1?}", began.elapsed());
            return Err(Failure::new(Class::Deadline, message).maybe_charged());
        };
        // The timeouts of the provider do not run in that time; the deadline does.
        self.sent_at += began.elapsed();
        Ok(output)
    }

    fn next_expiry(&self, now: Instant) -> (Instant, TimeoutKind) {
        let total = (self.sent_at + self.timeouts.total, TimeoutKind::Total);
        let idle = match (self.first_token, self.stream) {
            (None, StreamSupport::Auto) => {
                (self.sent_at + self.timeouts.first_token, TimeoutKind::FirstToken)
            }
            (None, StreamSupport::Never) => total,
            (Some(_), StreamSupport::Auto | StreamSupport::Never) => {
                (now + self.timeouts.idle, TimeoutKind::Idle)
            }
        };
        let deadline = (self.deadline, TimeoutKind::Deadline);
        let earlier = |one: (Instant, TimeoutKind), other: (Instant, TimeoutKind)| {
            if other.0 < one.0 { other } else { one }
        };
        earlier(earlier(deadline, total), idle)
    }

    fn failure(&self, limit: TimeoutKind) -> Failure {
        let deadline = self.deadline.saturating_duration_since(self.sent_at);
        let (class, what, time) = match limit {
            TimeoutKind::FirstToken => {
                (Class::Timeout, "had not started to answer after", self.timeouts.first_token)
            }
            TimeoutKind::Idle => {
                (Class::Timeout, "sent nothing in the middle of its answer for", self.timeouts.idle)
            }
            TimeoutKind::Total => (Class::Timeout, "had not finished after", self.timeouts.total),
            TimeoutKind::Deadline => {
                (Class::Deadline, "had not finished at the step's deadline, after", deadline)
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

    async fn next_failure(timeouts: &mut CallTimeouts<'_>) -> (Class, u64) {
        let started = Instant::now();
        let failure = timeouts.wait(pending::<()>()).await.unwrap_err();
        (failure.class, started.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_token_and_later_chunks_have_separate_timeouts() {
        let timeouts =
            Timeouts { connect: SECOND, first_token: 20 * SECOND, idle: 5 * SECOND, total: 60 * SECOND };
        let now = Instant::now();
        let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + 600 * SECOND, now);
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 20));
        call.on_content(Instant::now());
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 5));
        tokio::time::advance(32 * SECOND).await;
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 3), "the total timeout");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_first_token_does_not_change_the_idle_timeout() {
        let timeouts =
            Timeouts { connect: SECOND, first_token: 120 * SECOND, idle: 5 * SECOND, total: 600 * SECOND };
        let now = Instant::now();
        let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + 900 * SECOND, now);
        call.wait(tokio::time::sleep(50 * SECOND)).await.unwrap();
        call.on_content(Instant::now());
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_total_timeout_bounds_the_time_before_a_whole_response() {
        let timeouts =
            Timeouts { connect: SECOND, first_token: 20 * SECOND, idle: 5 * SECOND, total: 60 * SECOND };
        let now = Instant::now();
        let mut call = CallTimeouts::start(&timeouts, StreamSupport::Never, now + 600 * SECOND, now);
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 60));
        let now = Instant::now();
        let mut call = CallTimeouts::start(&timeouts, StreamSupport::Never, now + 600 * SECOND, now);
        call.wait(tokio::time::sleep(50 * SECOND)).await.unwrap();
        call.on_content(Instant::now());
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 5), "once the body has begun");
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 5), "the total timeout");
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_limit_ends_a_call_whose_data_is_always_ready() {
        let timeouts = Timeouts { total: 60 * SECOND, ..Timeouts::default() };
        let now = Instant::now();
        for (passed, deadline, class) in [(50, 40, Class::Deadline), (61, 90, Class::Timeout)] {
            let start = now.checked_sub(passed * SECOND).unwrap();
            let mut call =
                CallTimeouts::start(&timeouts, StreamSupport::Auto, start + deadline * SECOND, start);
            call.on_content(start + SECOND);
            let failure = call.wait(async {}).await.unwrap_err();
            assert_eq!(failure.class, class);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_a_minute_for_its_reader_and_not_beyond_its_deadline() {
        let timeouts = Timeouts { idle: 5 * SECOND, total: 10 * SECOND, ..Timeouts::default() };
        for (deadline, expected) in [(600, 60), (20, 20)] {
            let now = Instant::now();
            let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + deadline * SECOND, now);
            let failure = call.wait_for_reader(pending::<()>()).await.unwrap_err();
            assert_eq!((failure.class, now.elapsed().as_secs()), (Class::Deadline, expected));
        }
        // The time does not count toward the timeouts of the provider.
        let now = Instant::now();
        let mut call = CallTimeouts::start(&timeouts, StreamSupport::Auto, now + 600 * SECOND, now);
        call.on_content(now);
        call.wait_for_reader(tokio::time::sleep(50 * SECOND)).await.unwrap();
        call.wait(tokio::time::sleep(4 * SECOND)).await.unwrap();
        assert_eq!(next_failure(&mut call).await, (Class::Timeout, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_the_request_ends_its_call() {
        let timeouts = Timeouts::default();
        for stream in [StreamSupport::Auto, StreamSupport::Never] {
            let now = Instant::now();
            let mut call = CallTimeouts::start(&timeouts, stream, now + 7 * SECOND, now);
            assert_eq!(next_failure(&mut call).await, (Class::Deadline, 7), "{stream:?}");
        }
    }
}
