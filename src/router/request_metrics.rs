//! Counts of requests: how they ended, how often they were sent again, and what Pointsman added to their time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::telemetry::{Bounds, Histogram, Samples, record_error, span_fields, table};
use crate::types::{Attempt, AttemptLog, Class, RequestError, Response};

use super::provider_time::TimedResult;
use super::request::Request;

/// The label of a request that was answered.
const ANSWERED: &str = "answered";

/// The requests of one Pointsman. Each is counted once, when it ends: for its caller, so that each member of a joined
/// request for embeddings counts. A request whose caller drops its future or its stream ends as cancelled; its retries,
/// failovers and hedges are not counted. A request of a run that its scope does not admit is not sent and does not count.
///
/// The overhead of a request is its time from the call of `send` until its result is returned, without the time in which
///
/// * one of its attempts was queued or in flight (attempts in parallel count once),
/// * it waited for a backoff, or for a provider or a budget before the next attempt,
/// * it waited for its scope, or for less than the maximum number of pending requests.
///
/// So it is the time of Pointsman's own work, of the scheduling of its tasks, and of the wait in which small requests for
/// embeddings are joined. A request whose waits are unknown has no overhead: one that its caller dropped, that was lost in a
/// panic or in a stop, or whose joined call was divided.
pub struct RequestMetrics {
    started: AtomicU64,
    answered: AtomicU64,
    failed: [AtomicU64; Class::ALL.len()],
    failovers: AtomicU64,
    hedges: AtomicU64,
    retries: AtomicU64,
    overhead: Histogram,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            started: AtomicU64::default(),
            answered: AtomicU64::default(),
            failed: Default::default(),
            failovers: AtomicU64::default(),
            hedges: AtomicU64::default(),
            retries: AtomicU64::default(),
            overhead: Histogram::new(Bounds::SHORT_SECONDS),
        }
    }
}

impl RequestMetrics {
    /// Adds its values to `samples`.
    pub fn report_metrics(&self, samples: &mut Samples) {
        // Read before the number of started requests, so that no more requests have ended than were started.
        let answered = self.answered.load(Relaxed);
        let failed = self.failed.each_ref().map(|count| count.load(Relaxed));
        let ended = answered + failed.iter().sum::<u64>();
        let pending = self.started.load(Relaxed).saturating_sub(ended);
        samples.counter(&table::REQUESTS, &[ANSWERED], answered);
        for (class, count) in Class::ALL.into_iter().zip(failed) {
            samples.counter(&table::REQUESTS, &[class.as_str()], count);
        }
        samples.gauge(&table::REQUESTS_PENDING, &[], pending as f64);
        samples.counter(&table::FAILOVERS, &[], self.failovers.load(Relaxed));
        samples.counter(&table::HEDGES, &[], self.hedges.load(Relaxed));
        samples.counter(&table::RETRIES, &[], self.retries.load(Relaxed));
        samples.histogram(&table::REQUEST_OVERHEAD_SECONDS, &[], self.overhead.snapshot());
    }

    fn record_end(&self, end: &TimedResult, total: Duration) {
        let attempts = match &end.result {
            Ok(response) => &response.attempts,
            Err(error) => &error.attempts,
        };
        self.record_attempts(attempts);
        if let Some(provider_time) = end.provider_time {
            self.overhead.record(total.saturating_sub(provider_time));
        }
        // Last, so that a scrape after the end of a request has all its values.
        match &end.result {
            Ok(_) => {
                self.answered.fetch_add(1, Relaxed);
            }
            Err(error) => self.count_failure(error.class()),
        }
    }

    fn count_failure(&self, class: Class) {
        let index = Class::ALL.into_iter().position(|other| other == class);
        if let Some(count) = index.and_then(|index| self.failed.get(index)) {
            count.fetch_add(1, Relaxed);
        }
    }

    fn record_attempts(&self, log: &AttemptLog) {
        let Moves { failovers, hedges, retries } = Moves::of(log);
        for (counter, count) in
            [(&self.failovers, failovers), (&self.hedges, hedges), (&self.retries, retries)]
        {
            if count > 0 {
                counter.fetch_add(count, Relaxed);
            }
        }
    }
}

impl fmt::Debug for RequestMetrics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RequestMetrics").field("started", &self.started).finish_non_exhaustive()
    }
}

/// How a request was sent again. Attempts that the log of another request counts are not in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moves {
    /// Moves to another target, as [`AttemptLog::failovers`].
    failovers: u64,
    /// Hedges that were sent.
    hedges: u64,
    /// Attempts to the target of the attempt that was sent before.
    retries: u64,
}

impl Moves {
    fn of(log: &AttemptLog) -> Self {
        let mut moves = Self::default();
        let mut last: Option<&Attempt> = None;
        let mut last_sent: Option<&Attempt> = None;
        for attempt in log.0.iter().filter(|attempt| !attempt.counted_elsewhere) {
            let is_sent = attempt.key.is_some();
            if attempt.hedged {
                moves.hedges += u64::from(is_sent);
                continue;
            }
            let is_same = |other: &Attempt| other.target == attempt.target;
            moves.failovers += u64::from(last.is_some_and(|last| !is_same(last)));
            last = Some(attempt);
            if is_sent {
                moves.retries += u64::from(last_sent.is_some_and(is_same));
                last_sent = Some(attempt);
            }
        }
        moves
    }
}

/// Measures and traces one request. If it is dropped before the end of the request, the request has ended as cancelled.
pub(super) struct RequestTimer {
    /// `None` without metrics, and after the end.
    metrics: Option<Arc<RequestMetrics>>,
    /// The span of the request; disabled after the end.
    span: Span,
    started_at: Instant,
}

impl RequestTimer {
    /// Starts to measure a request, if there are metrics, and to trace it.
    pub(super) fn start(metrics: Option<&Arc<RequestMetrics>>, request: &mut Request) -> Self {
        if let Some(metrics) = metrics {
            metrics.started.fetch_add(1, Relaxed);
        }
        Self { metrics: metrics.cloned(), span: request.start_span(), started_at: Instant::now() }
    }

    /// Records the end of the request, and returns its result.
    pub(super) fn end(mut self, end: TimedResult) -> Result<Response, Box<RequestError>> {
        let span = std::mem::replace(&mut self.span, Span::none());
        record_end_of_span(&span, &end.result);
        if let Some(metrics) = self.metrics.take() {
            metrics.record_end(&end, self.started_at.elapsed());
        }
        end.result
    }
}

/// Records how a request ended in its span.
fn record_end_of_span(span: &Span, result: &Result<Response, Box<RequestError>>) {
    if span.is_disabled() {
        return;
    }
    let (target, attempts) = match result {
        Ok(response) => (Some(&response.target), &response.attempts),
        Err(error) => (error.target.as_ref(), &error.attempts),
    };
    span.record(span_fields::ATTEMPTS, attempts.calls());
    if let Some(target) = target {
        span.record(span_fields::TARGET, tracing::field::display(target));
    }
    match result {
        Ok(response) => {
            span.record(span_fields::SIMULATED, response.simulated);
            if let Some(cost) = response.cost {
                span.record(span_fields::COST_USD, cost.dollars());
            }
        }
        Err(error) => record_error(span, error.class().as_str()),
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        if let Some(metrics) = self.metrics.take() {
            metrics.count_failure(Class::Cancelled);
        }
        record_error(&self.span, Class::Cancelled.as_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::text_of;
    use crate::types::{Failure, NanoUsd, Outcome};

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn request() -> Request {
        Request::new("default", "Hello")
    }

    fn attempt(target: &str, key: Option<&str>, hedged: bool) -> Attempt {
        let outcome = match key {
            Some(_) => Outcome::Failed(Failure::new(Class::ServerError, "down").into()),
            None => Outcome::Refused("its breaker is open".into()),
        };
        Attempt {
            target: target.parse().unwrap(),
            key: key.map(Into::into),
            queue_time: Duration::ZERO,
            duration: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: None,
            cache_savings: None,
            uncertain_cost: NanoUsd(0),
            forced: false,
            hedged,
            counted_elsewhere: false,
            reasoning: None,
            outcome,
        }
    }

    fn sent(target: &str) -> Attempt {
        attempt(target, Some("k"), false)
    }

    fn rejected(target: &str) -> Attempt {
        attempt(target, None, false)
    }

    fn moves(attempts: Vec<Attempt>) -> (u64, u64, u64) {
        let log = AttemptLog(attempts);
        let Moves { failovers, hedges, retries } = Moves::of(&log);
        if log.0.iter().all(|attempt| !attempt.counted_elsewhere) {
            assert_eq!((failovers, hedges), (log.failovers() as u64, log.hedges() as u64));
        }
        (failovers, hedges, retries)
    }

    /// Returns the value of a series in the text of the metrics.
    fn value(metrics: &RequestMetrics, series: &str) -> f64 {
        let mut samples = Samples::default();
        metrics.report_metrics(&mut samples);
        let text = text_of(&samples).replace("{}", "");
        let mut values = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.next().unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    fn failed(class: Class) -> TimedResult {
        TimedResult::from_failure(Failure::new(class, "no"))
    }

    #[test]
    fn an_attempt_is_a_failover_a_hedge_or_a_retry() {
        assert_eq!(moves(Vec::new()), (0, 0, 0));
        assert_eq!(moves(vec![sent("a/m")]), (0, 0, 0));
        assert_eq!(moves(vec![sent("a/m"), sent("a/m"), sent("b/m")]), (1, 0, 1));
        assert_eq!(moves(vec![sent("a/m"), sent("b/m"), sent("a/m")]), (2, 0, 0));
        assert_eq!(moves(vec![sent("a/m"), attempt("b/m", Some("k"), true), sent("a/m")]), (0, 1, 1));
        assert_eq!(
            moves(vec![attempt("b/m", None, true), sent("a/m")]),
            (0, 0, 0),
            "a hedge that was not sent"
        );
    }

    #[test]
    fn an_attempt_after_a_rejection_is_not_a_retry() {
        assert_eq!(moves(vec![rejected("a/m"), sent("a/m")]), (0, 0, 0));
        assert_eq!(moves(vec![rejected("a/m"), sent("b/m")]), (1, 0, 0));
        assert_eq!(moves(vec![sent("a/m"), rejected("a/m"), sent("a/m")]), (0, 0, 1));
    }

    #[test]
    fn the_attempts_of_a_joined_request_count_in_one_log() {
        let elsewhere = |target| Attempt { counted_elsewhere: true, ..sent(target) };
        assert_eq!(moves(vec![elsewhere("a/m"), elsewhere("a/m"), elsewhere("b/m")]), (0, 0, 0));
        assert_eq!(moves(vec![elsewhere("a/m"), sent("b/m"), sent("b/m")]), (0, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_overhead_of_a_request_is_its_time_without_that_of_providers() {
        let metrics = Arc::new(RequestMetrics::default());
        let timer = RequestTimer::start(Some(&metrics), &mut request());
        tokio::time::advance(ms(100)).await;
        let end = failed(Class::Deadline).after_wait(ms(95));
        assert!(timer.end(end).is_err());
        let snapshot = metrics.overhead.snapshot();
        assert_eq!((snapshot.count(), snapshot.sum), (1, 0.005));
        let timer = RequestTimer::start(Some(&metrics), &mut request());
        let lost = TimedResult::unknown(failed(Class::Internal).result);
        assert!(timer.end(lost).is_err());
        assert_eq!(metrics.overhead.snapshot().count(), 1, "the waits of a lost request are unknown");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_counts_once_by_its_outcome_and_is_pending_until_then() {
        let metrics = Arc::new(RequestMetrics::default());
        let first = RequestTimer::start(Some(&metrics), &mut request());
        let second = RequestTimer::start(Some(&metrics), &mut request());
        assert_eq!(value(&metrics, "pointsman_requests_pending"), 2.0);
        assert!(first.end(failed(Class::RateLimit)).is_err());
        assert_eq!(value(&metrics, r#"pointsman_requests_total{outcome="rate_limit"}"#), 1.0);
        assert_eq!(value(&metrics, r#"pointsman_requests_total{outcome="cancelled"}"#), 0.0);
        assert_eq!(value(&metrics, "pointsman_requests_pending"), 1.0);
        drop(second);
        assert_eq!(value(&metrics, r#"pointsman_requests_total{outcome="cancelled"}"#), 1.0);
        assert_eq!(value(&metrics, r#"pointsman_requests_total{outcome="answered"}"#), 0.0);
        assert_eq!(value(&metrics, "pointsman_requests_pending"), 0.0);
        assert_eq!(metrics.overhead.snapshot().count(), 1, "a dropped request has no overhead");
    }

    #[test]
    fn every_class_of_a_failure_has_a_counter() {
        let metrics = RequestMetrics::default();
        Class::ALL.into_iter().for_each(|class| metrics.count_failure(class));
        assert!(metrics.failed.iter().all(|count| count.load(Relaxed) == 1));
    }

    #[test]
    fn without_metrics_nothing_is_measured() {
        let timer = RequestTimer::start(None, &mut request());
        assert!(timer.metrics.is_none() && timer.span.is_disabled());
        assert!(timer.end(failed(Class::Auth)).is_err());
    }
}
