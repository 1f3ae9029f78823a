//! The expected handling of every failure, one row each.
//!
//! A new fault of the simulator does not compile here until it has a row.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, RetryAfter};
use pointsman::types::Class::{self, *};

use super::cell::{Attempts, Delivery};
use super::failure_mode::FailureMode;

/// Whether failed calls cost money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    No,
    Maybe,
    /// They were answered, but the answer was invalid.
    Yes,
}
use Cost::{Maybe, No, Yes};

/// A [`RetryAction`](pointsman::types::RetryAction) without its wait. The durations show the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ActionKind {
    Retry,
    Failover,
    Fail,
}

/// The expected wait, independent of the speed of the machine.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExpectedWait {
    /// No wait.
    Zero,
    /// This long for every failed call.
    PerFailedCall(Duration),
    /// Between this minimum and maximum before every further call at the same target.
    BeforeEachRetry(Duration, Duration),
}

/// The action, and the attempts in four scenarios: one target with a permanent failure and with a single
/// failure, and the same with a second, healthy target. `None` is not measured.
type Expectation = (ActionKind, [Option<Attempts>; 4]);

/// Two attempts in each of three rounds. With a second target: two attempts, then failover.
const RETRIED: Expectation = (
    ActionKind::Retry,
    [
        Attempts::failed(6),
        Attempts::answered_by_first(2),
        Attempts::answered_by_second(2),
        Attempts::answered_by_first(2),
    ],
);
/// The same, but with immediate failover.
const FAILED_OVER: Expectation = (
    ActionKind::Failover,
    [
        Attempts::failed(6),
        Attempts::answered_by_first(2),
        Attempts::answered_by_second(1),
        Attempts::answered_by_second(1),
    ],
);
/// Immediate failover, and no further attempt at the target: a wrong key or model stays wrong.
const TARGET_EXCLUDED: Expectation = (
    ActionKind::Failover,
    [
        Attempts::failed(1),
        Attempts::failed(1),
        Attempts::answered_by_second(1),
        Attempts::answered_by_second(1),
    ],
);
/// No target would answer the request.
const NOT_RETRIED: Expectation = (ActionKind::Fail, [Attempts::failed(1); 4]);
/// Rate-limited attempts do not count: one attempt per advertised wait until the deadline of the request.
const RATE_LIMITED: Expectation = (
    ActionKind::Retry,
    [
        Attempts::failed(Attempts::MANY),
        Attempts::answered_by_first(2),
        Attempts::answered_by_second(Attempts::MANY),
        Attempts::answered_by_first(2),
    ],
);
/// Two attempts: the model may answer differently. There are no more, in no round, because each of these answers may
/// be charged. With a second target: two attempts, then failover, because another model may understand the request.
const ASKED_AGAIN: Expectation = (
    ActionKind::Retry,
    [
        Attempts::failed(2),
        Attempts::answered_by_first(2),
        Attempts::answered_by_second(2),
        Attempts::answered_by_first(2),
    ],
);
/// The pipeline sends two validation retries with the reason. Each is a new request to the first target.
const VALIDATION_RETRIED: Expectation =
    (ActionKind::Fail, [Attempts::failed(3), None, Attempts::failed(3), None]);

/// The timeout for silence of the provider, in rows that time out.
const SILENCE_TIMEOUT: Duration = Duration::from_millis(800);
const SHORT_TIMEOUTS: &str =
    r#"timeouts = { connect = "800ms", first_token = "800ms", idle = "800ms", total = "9s" }"#;
const SHORT_TOTAL_TIMEOUT: &str =
    r#"timeouts = { connect = "800ms", first_token = "800ms", idle = "800ms", total = "800ms" }"#;
const SHORT_CONNECT_TIMEOUT: &str =
    r#"timeouts = { connect = "800ms", first_token = "3s", idle = "3s", total = "9s" }"#;
pub(super) const LONG_TIMEOUTS: &str =
    r#"timeouts = { connect = "8s", first_token = "8s", idle = "8s", total = "20s" }"#;

const HALF_A_SECOND: Duration = Duration::from_millis(500);
const ONE_SECOND: Duration = Duration::from_secs(1);

/// How a stream of the answer ends that commits at its first piece, if the failure is permanent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// The target fails before its first piece, so the request is handled as without a stream.
    AsWithout,
    /// The target fails after its first piece, which ends the stream with an error after one attempt.
    ErrorAfterPiece,
    /// The answer is complete. Only a pipeline validates it.
    NotValidated,
}

/// A failure of the first target, and its expected handling. Arrays have the order of the formats in
/// [`FORMATS`](crate::support::FORMATS).
pub(super) struct Row {
    /// The name in the documentation.
    pub(super) name: String,
    pub(super) failure_mode: FailureMode,
    pub(super) class: [Class; 4],
    pub(super) cost: [Cost; 4],
    pub(super) action: ActionKind,
    /// The attempts in each scenario, without a stream.
    attempts: [Option<Attempts>; 4],
    pub(super) stream_end: StreamEnd,
    pub(super) expected_wait: ExpectedWait,
    pub(super) timeouts: &'static str,
    pub(super) deadline: Duration,
    /// Whether the request has a schema and, without a stream, is sent by a pipeline, which validates the answer.
    pub(super) checked: bool,
}

/// Returns all rows.
pub(super) fn all() -> Vec<Row> {
    FaultKind::ALL.into_iter().flat_map(rows_of_fault).chain(other_failures()).collect()
}

/// Returns the rows of a fault. Without a `_` arm a new fault does not compile until it has a row.
fn rows_of_fault(kind: FaultKind) -> Vec<Row> {
    use FaultKind as Kind;
    match kind {
        Kind::RateLimited => vec![
            // The deadline has time for two retries.
            fault_row(kind, [RateLimit; 4], [No; 4], RATE_LIMITED)
                .retried_after(ONE_SECOND, ONE_SECOND)
                .with_deadline(Duration::from_millis(2_900)),
            rate_limited_once("without a retry time", RetryAfter::Missing)
                .retried_after(HALF_A_SECOND, ONE_SECOND),
            rate_limited_once("with an absurd retry time", RetryAfter::Absurd)
                .retried_after(Duration::from_millis(25), ONE_SECOND),
            rate_limited_beyond_deadline(),
        ],
        Kind::ServerError => vec![fault_row(kind, [ServerError; 4], [Maybe; 4], RETRIED)],
        // Anthropic has an error type for overload and does not use it here.
        Kind::Unavailable => {
            vec![fault_row(
                kind,
                [Overloaded, Overloaded, ServerError, Overloaded],
                [No, No, Maybe, No],
                RETRIED,
            )]
        }
        Kind::Overloaded => vec![fault_row(kind, [Overloaded; 4], [No; 4], RETRIED)],
        Kind::Reset => vec![fault_row(kind, [NetworkError; 4], [Maybe; 4], FAILED_OVER)],
        Kind::Silent => vec![fault_row(kind, [Timeout; 4], [Maybe; 4], FAILED_OVER).timing_out()],
        Kind::SlowFirstToken => vec![fault_row(kind, [Timeout; 4], [Maybe; 4], FAILED_OVER).timing_out()],
        Kind::Cut => vec![fault_row(kind, [Unreadable; 4], [Maybe; 4], FAILED_OVER).failing_after_piece()],
        Kind::Stalled => {
            let row = fault_row(kind, [Timeout; 4], [Maybe; 4], FAILED_OVER);
            vec![row.timing_out().failing_after_piece()]
        }
        Kind::MalformedChunk => {
            vec![fault_row(kind, [Unreadable; 4], [Maybe; 4], FAILED_OVER).failing_after_piece()]
        }
        Kind::NoEnd => vec![fault_row(kind, [Unreadable; 4], [Maybe; 4], FAILED_OVER).failing_after_piece()],
        Kind::TruncatedJson => {
            vec![fault_row(kind, [ValidationError; 4], [Yes; 4], VALIDATION_RETRIED).with_validation()]
        }
        Kind::Html => vec![
            fault_row(kind, [Unreadable; 4], [Maybe; 4], FAILED_OVER),
            with_status(kind, 502, fault_row(kind, [ServerError; 4], [Maybe; 4], RETRIED)),
        ],
        Kind::WrongContent => {
            vec![fault_row(kind, [ValidationError; 4], [Yes; 4], VALIDATION_RETRIED).with_validation()]
        }
        Kind::Empty => {
            vec![fault_row(kind, [ValidationError; 4], [Yes; 4], VALIDATION_RETRIED).with_validation()]
        }
        Kind::UnofferedToolCall => vec![fault_row(kind, [ValidationError; 4], [Maybe; 4], ASKED_AGAIN)],
        Kind::Length => vec![fault_row(kind, [Truncated; 4], [Maybe; 4], NOT_RETRIED).failing_after_piece()],
        // No format sends a refusal as text of the answer.
        Kind::Refusal => vec![fault_row(kind, [ContentFilter; 4], [Maybe; 4], NOT_RETRIED)],
        Kind::Auth => vec![fault_row(kind, [Auth; 4], [No; 4], TARGET_EXCLUDED)],
        Kind::Quota => vec![fault_row(kind, [Quota; 4], [No; 4], TARGET_EXCLUDED)],
        Kind::NotFound => vec![fault_row(kind, [NotFound; 4], [No; 4], TARGET_EXCLUDED)],
        Kind::Firewall | Kind::FileForbidden | Kind::MaxTokensUnaffordable => {
            vec![fault_row(kind, [ApiError; 4], [No; 4], TARGET_EXCLUDED)]
        }
        // The key may be wrong. Other requests show whether it is, and this one is retried.
        Kind::Forbidden => vec![fault_row(kind, [ApiError; 4], [No; 4], FAILED_OVER)],
        Kind::ModelForbidden => vec![fault_row(kind, [Auth; 4], [No; 4], TARGET_EXCLUDED)],
        Kind::ErrorInStream => {
            let class = [ServerError, ServerError, Overloaded, Overloaded];
            vec![fault_row(kind, class, [Maybe; 4], RETRIED).failing_after_piece()]
        }
    }
}

/// Returns the rows of failures that are not faults of the simulator.
fn other_failures() -> Vec<Row> {
    let row_of = |name, failure_mode, class, cost| {
        row(name, failure_mode, [class; 4], [cost; 4], permanent_only(FAILED_OVER))
    };
    let failure_mode = FailureMode::FixedResponse("503 Service Unavailable", "retry-after: 1", "");
    let retry_after =
        row("503 with `Retry-After`", failure_mode, [Overloaded; 4], [No; 4], permanent_only(RETRIED));
    vec![
        retry_after.retried_after(ONE_SECOND, ONE_SECOND),
        row_of("connection refused", FailureMode::ConnectionRefused, NetworkError, No),
        row_of("host name that does not resolve", FailureMode::UnresolvableHost, NetworkError, No),
        row_of("`https` address of a server without TLS", FailureMode::ServerWithoutTls, NetworkError, No),
        row_of("TLS handshake without a response", FailureMode::SilentTlsHandshake, Timeout, No)
            .timing_out_with(SHORT_CONNECT_TIMEOUT),
        row_of("connection closed immediately", FailureMode::ClosedImmediately, NetworkError, Maybe),
        row_of(
            "200 with plain text",
            FailureMode::FixedResponse("200 OK", "content-type: text/plain", "Ok, wait."),
            Unreadable,
            Maybe,
        ),
        row_of(
            "200 without a body",
            FailureMode::FixedResponse("200 OK", "content-type: text/event-stream", ""),
            Unreadable,
            Maybe,
        ),
        row_of("200 with a stream labeled as JSON", FailureMode::StreamLabeledAsJson, Unreadable, Maybe),
        row_of("answer that never ends", FailureMode::EndlessResponse, Timeout, Maybe)
            .timing_out_with(SHORT_TOTAL_TIMEOUT)
            .failing_after_piece(),
    ]
}

fn row(
    name: &str,
    failure_mode: FailureMode,
    class: [Class; 4],
    cost: [Cost; 4],
    expectation: Expectation,
) -> Row {
    let (action, attempts) = expectation;
    Row {
        name: name.to_owned(),
        failure_mode,
        class,
        cost,
        action,
        attempts,
        stream_end: StreamEnd::AsWithout,
        expected_wait: ExpectedWait::Zero,
        timeouts: LONG_TIMEOUTS,
        deadline: Duration::from_secs(60),
        checked: false,
    }
}

fn fault_row(kind: FaultKind, class: [Class; 4], cost: [Cost; 4], expectation: Expectation) -> Row {
    let delay = (kind == FaultKind::SlowFirstToken).then_some(Duration::from_secs(20));
    let kind_name = serde_json::to_value(kind).unwrap();
    let name = format!("`{}`", kind_name.as_str().unwrap());
    row(
        &name,
        FailureMode::Simulated(Box::new(Fault { delay, ..Fault::new(kind) })),
        class,
        cost,
        expectation,
    )
}

fn with_status(kind: FaultKind, status: u16, row: Row) -> Row {
    let failure_mode = FailureMode::Simulated(Box::new(Fault { status: Some(status), ..Fault::new(kind) }));
    Row { name: format!("{} with status {status}", row.name), failure_mode, ..row }
}

fn rate_limited_once(note: &str, retry_after: RetryAfter) -> Row {
    let kind = FaultKind::RateLimited;
    let (action, [_, one_target, _, two_targets]) = RATE_LIMITED;
    let row = fault_row(kind, [RateLimit; 4], [No; 4], (action, [None, one_target, None, two_targets]));
    let failure_mode =
        FailureMode::Simulated(Box::new(Fault { retry_after: Some(retry_after), ..Fault::new(kind) }));
    Row { name: format!("{} {note}", row.name), failure_mode, ..row }
}

/// The advertised wait is one minute and exceeds the deadline, so the router does not wait.
fn rate_limited_beyond_deadline() -> Row {
    let expectation = (ActionKind::Retry, [Attempts::failed(1), None, Attempts::answered_by_second(1), None]);
    let name = "`rate_limited` for longer than the deadline";
    row(name, FailureMode::OneRequestPerMinute, [RateLimit; 4], [No; 4], expectation)
        .with_deadline(Duration::from_secs(15))
}

/// Leaves out the scenarios with a single failure, for a failure that is always permanent.
fn permanent_only((action, [one_target, _, two_targets, _]): Expectation) -> Expectation {
    (action, [one_target, None, two_targets, None])
}

impl Row {
    /// Returns the expected attempts of a cell; `None` if it is not measured. Streams are measured with a permanent
    /// failure, and with a single one in rows without a permanent one. A stream that commits at its end is measured
    /// where one that commits at its first piece differs from no stream.
    pub(super) fn expected_attempts(&self, scenario: usize, delivery: Delivery) -> Option<Attempts> {
        let unstreamed = self.attempts[scenario]?;
        let has_permanent = scenario % 2 == 1 && self.attempts[scenario - 1].is_some();
        match (delivery, self.stream_end) {
            (Delivery::Response, _) => Some(unstreamed),
            (Delivery::Live | Delivery::Whole, _) if has_permanent => None,
            (Delivery::Live, StreamEnd::AsWithout) | (Delivery::Whole, StreamEnd::ErrorAfterPiece) => {
                Some(unstreamed)
            }
            (Delivery::Live, StreamEnd::ErrorAfterPiece) => Attempts::failed(1),
            (Delivery::Live, StreamEnd::NotValidated) => Attempts::answered_by_first(1),
            (Delivery::Whole, StreamEnd::AsWithout | StreamEnd::NotValidated) => None,
        }
    }

    /// The target fails after the first piece of its answer.
    fn failing_after_piece(self) -> Self {
        Self { stream_end: StreamEnd::ErrorAfterPiece, ..self }
    }

    /// The router waits until a timeout.
    fn timing_out(self) -> Self {
        self.timing_out_with(SHORT_TIMEOUTS)
    }

    /// The router waits until the timeout that is short in `timeouts`.
    fn timing_out_with(self, timeouts: &'static str) -> Self {
        Self { expected_wait: ExpectedWait::PerFailedCall(SILENCE_TIMEOUT), timeouts, ..self }
    }

    /// The router waits between `min` and `max` before each retry.
    fn retried_after(self, min: Duration, max: Duration) -> Self {
        Self { expected_wait: ExpectedWait::BeforeEachRetry(min, max), ..self }
    }

    fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    fn with_validation(self) -> Self {
        Self { checked: true, stream_end: StreamEnd::NotValidated, ..self }
    }
}
