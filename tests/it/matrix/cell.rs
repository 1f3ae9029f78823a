//! One request with one failure: its configuration, execution and measurement.

use std::fmt;
use std::time::Duration;

use pointsman::run::GroupReport;
use pointsman::runtime::Pointsman;
use pointsman::types::{
    Attribution, Cause, Charged, Class, Failure, FailureScope, Outcome, Prompt, ResponseFormat, RetryAction,
};
use pointsman::{Priority, Request, StreamMode};
use serde_json::json;
use tokio::time::Instant;

use super::rows::{ActionKind, Cost, ExpectedWait, Row, StreamEnd};
use super::stream_reader;
use crate::support::{FORMATS, attempt_log, failure_class, run_pipeline};

/// Maximum time in addition to the expected waits, on a busy machine.
const MAX_OVERHEAD: Duration = Duration::from_secs(2);

/// A step whose answer is validated.
const VALIDATED_STEP: &str = r#"
[[step]]
name = "verdict"
prompt = "Judge {{ item.id }}."
schema = { type = "object", properties = { good = { type = "boolean" }, why = { type = "string" } }, required = ["good", "why"], additionalProperties = false }
"#;

/// The number of calls at each target, and the target that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempts {
    calls: [usize; 2],
    answered_by: Option<usize>,
}

impl Attempts {
    /// As many calls as fit into the deadline.
    pub(super) const MANY: usize = usize::MAX;

    /// The request failed after this number of calls at the first target.
    pub(super) const fn failed(calls: usize) -> Option<Self> {
        Some(Self { calls: [calls, 0], answered_by: None })
    }

    /// The first target answered with this number of calls.
    pub(super) const fn answered_by_first(calls: usize) -> Option<Self> {
        Some(Self { calls: [calls, 0], answered_by: Some(0) })
    }

    /// The second target answered with one call, after this number of calls at the first target.
    pub(super) const fn answered_by_second(calls: usize) -> Option<Self> {
        Some(Self { calls: [calls, 1], answered_by: Some(1) })
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |calls: usize| if calls == Self::MANY { "many".to_owned() } else { calls.to_string() };
        let [first, second] = self.calls.map(count);
        match (self.calls[1], self.answered_by) {
            (0, Some(_)) => write!(out, "{first}"),
            (0, None) => write!(out, "fails after {first}"),
            (_, Some(_)) => write!(out, "{first} + {second}"),
            (_, None) => write!(out, "fails after {first} + {second}"),
        }
    }
}

/// How the caller gets the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As a response.
    Response,
    /// As a stream that commits at its first piece.
    Live,
    /// As a stream that commits at its end.
    Whole,
}

impl Delivery {
    pub(super) const ALL: [Self; 3] = [Self::Response, Self::Live, Self::Whole];
}

/// The position of a cell in the matrix, by index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) row: usize,
    pub(super) format: usize,
    /// Index of the scenario: one or two targets, and whether the failure is permanent or occurs once.
    pub(super) scenario: usize,
    pub(super) delivery: Delivery,
}

/// The measurement of a cell.
pub(super) struct Measurement {
    pub(super) cell: Cell,
    /// The kinds of failed calls, without repetitions.
    pub(super) failed: Vec<(Class, ActionKind, Cost)>,
    /// The effect on an item of a run whose requests all end like the first failed call.
    pub(super) item: Option<&'static str>,
    pub(super) attempts: Attempts,
    pub(super) calls: [usize; 2],
    /// The class of the last failure, if the request failed.
    pub(super) failure_class: Option<Class>,
    /// Whether the reader of a stream that failed got a piece of the answer.
    pub(super) failed_after_piece: bool,
    duration: Duration,
}

impl Cell {
    /// Returns whether the failure occurs only once.
    pub(super) fn fails_once(self) -> bool {
        self.scenario % 2 == 1
    }

    fn has_two_targets(self) -> bool {
        self.scenario >= 2
    }

    fn name(self) -> String {
        let suffix = match self.delivery {
            Delivery::Response => "",
            Delivery::Live => "_live",
            Delivery::Whole => "_whole",
        };
        format!("cell_{}_{}_{}{suffix}", self.row, self.format, self.scenario)
    }

    /// Returns the configuration of the provider and of the route of the cell.
    pub(super) fn config(self, row: &Row, base_url: &str) -> String {
        let name = self.name();
        let (format, _) = FORMATS[self.format];
        let second_target =
            if self.has_two_targets() { format!(", \"good_{format}/m\"") } else { String::new() };
        format!(
            "[provider.{name}]\nformat = \"{format}\"\nbase_url = \"{base_url}\"\nmodels.m = {{}}\n{}\n\
            breaker = {{ consecutive_failures = 1000, min_requests = 1000 }}\n[route.{name}]\ntargets = [\"{name}/m\"{second_target}]\n",
            row.timeouts
        )
    }

    /// Sends the request of the cell.
    pub(super) async fn measure(self, row: &Row, pointsman: &Pointsman) -> Measurement {
        let start = Instant::now();
        let mut measured = if row.checked && self.delivery == Delivery::Response {
            self.measure_pipeline(pointsman).await
        } else {
            self.measure_request(row, pointsman).await
        };
        measured.duration = start.elapsed();
        // The exact number depends on the machine. The duration shows that it was not too high.
        let expected = row.expected_attempts(self.scenario, self.delivery);
        let many = expected.is_some_and(|expected| expected.calls[0] == Attempts::MANY);
        if many && measured.calls[0] > 1 {
            measured.attempts.calls[0] = Attempts::MANY;
        }
        measured
    }

    async fn measure_request(self, row: &Row, pointsman: &Pointsman) -> Measurement {
        let name = self.name();
        let request = self.request(row);
        let (pieces, result) = match self.delivery {
            Delivery::Response => (0, pointsman.send(request).await),
            Delivery::Live => stream_reader::read(pointsman.stream(request)).await,
            Delivery::Whole => {
                let request = request.with_stream_mode(StreamMode::Whole);
                stream_reader::read(pointsman.stream(request)).await
            }
        };
        let attempts = &attempt_log(&result).0;
        let count_calls = |first: bool| {
            let sent = attempts.iter().filter(|attempt| attempt.key.is_some());
            sent.filter(|attempt| (attempt.target.provider.as_str() == name) == first).count()
        };
        let mut failed = Vec::new();
        for attempt in attempts {
            if let Outcome::Failed(failure) = &attempt.outcome {
                failed.push((failure.class, action_kind(failure), call_cost(failure)));
            }
        }
        failed.dedup();
        let failures = attempts.iter().filter_map(|attempt| match &attempt.outcome {
            Outcome::Failed(failure) => Some(&**failure),
            _ => None,
        });
        let item = failures.map(item).next();
        let answered_by =
            result.as_ref().ok().map(|response| usize::from(response.target.provider.as_str() != name));
        let calls = [count_calls(true), count_calls(false)];
        let failed_after_piece = result.is_err() && pieces > 0;
        let measurement = self.measurement(failed, calls, answered_by, failure_class(&result));
        Measurement { item, failed_after_piece, ..measurement }
    }

    /// Returns the request of the cell: with the schema of [`VALIDATED_STEP`] if a pipeline would validate the answer.
    fn request(self, row: &Row) -> Request {
        let name = self.name();
        let mut prompt = Prompt::text(format!("Say hello to {name}."));
        if row.checked {
            prompt = prompt.with_response_format(ResponseFormat::json(json!({
                "type": "object",
                "properties": { "good": { "type": "boolean" }, "why": { "type": "string" } },
                "required": ["good", "why"],
                "additionalProperties": false,
            })));
        }
        Request::new(name, prompt).with_priority(Priority::Batch).with_deadline(row.deadline)
    }

    /// Sends the request through a pipeline, which validates the answer.
    async fn measure_pipeline(self, pointsman: &Pointsman) -> Measurement {
        let name = self.name();
        let run = run_pipeline(pointsman, &format!("{VALIDATED_STEP}route = \"{name}\""), 1).await;
        let failure_class: Option<Class> =
            serde_json::from_value(run.lines[0]["error"]["class"].clone()).unwrap();
        let calls = |target: String| {
            run.report.targets.get(&target).map_or(0, |group: &GroupReport| group.calls as usize)
        };
        let calls = [calls(format!("{name}/m")), calls(format!("good_{}/m", FORMATS[self.format].0))];
        let cost = if run.report.calls.failed == 0 { Cost::Yes } else { Cost::Maybe };
        let failed = failure_class
            .iter()
            .map(|class| (*class, action_kind(&Failure::new(*class, "")), cost))
            .collect();
        let answered_by = failure_class.is_none().then_some(usize::from(calls[1] > 0));
        self.measurement(failed, calls, answered_by, failure_class)
    }

    fn measurement(
        self,
        failed: Vec<(Class, ActionKind, Cost)>,
        calls: [usize; 2],
        answered_by: Option<usize>,
        failure_class: Option<Class>,
    ) -> Measurement {
        let attempts = Attempts { calls, answered_by };
        let item = failed.first().map(|(class, _, _)| item(&Failure::new(*class, "")));
        Measurement {
            cell: self,
            failed,
            item,
            attempts,
            calls,
            failure_class,
            failed_after_piece: false,
            duration: Duration::ZERO,
        }
    }
}

impl Measurement {
    /// Returns the difference from the row, if there is one.
    pub(super) fn deviation(&self, row: &Row) -> Option<String> {
        let format = self.cell.format;
        let class = row.class[format];
        let delivery = self.cell.delivery;
        let is_live = delivery == Delivery::Live;
        let failed = match row.stream_end {
            StreamEnd::NotValidated if is_live => Vec::new(),
            StreamEnd::AsWithout | StreamEnd::ErrorAfterPiece | StreamEnd::NotValidated => {
                vec![(class, row.action, row.cost[format])]
            }
        };
        let attempts = row.expected_attempts(self.cell.scenario, delivery).unwrap();
        let failure_class = attempts.answered_by.is_none().then_some(class);
        let failed_after_piece = is_live && row.stream_end == StreamEnd::ErrorAfterPiece;
        let (min_wait, max_wait) = self.expected_wait(row);
        let on_time = (min_wait..=max_wait + MAX_OVERHEAD).contains(&self.duration);
        let is_as_expected = (&self.failed, self.attempts, self.failure_class, self.failed_after_piece)
            == (&failed, attempts, failure_class, failed_after_piece);
        if is_as_expected && on_time {
            return None;
        }
        let scenario = self.cell.scenario;
        let cell = format!("{}, {}, scenario {scenario}, {delivery:?}", row.name, FORMATS[format].0);
        let piece = |is_after_piece| if is_after_piece { "after a piece, " } else { "" };
        let expected = format!(
            "{failed:?}, {attempts}, {failure_class:?}, {}{min_wait:?} to {max_wait:?}",
            piece(failed_after_piece)
        );
        Some(format!(
            "{cell}: expected {expected}; found {:?}, {} ({:?}), {:?}, {}{:?}",
            self.failed,
            self.attempts,
            self.calls,
            self.failure_class,
            piece(self.failed_after_piece),
            self.duration
        ))
    }

    /// Returns the minimum and the maximum of the expected total wait.
    fn expected_wait(&self, row: &Row) -> (Duration, Duration) {
        let calls = self.calls[0] as u32;
        match row.expected_wait {
            ExpectedWait::Zero => (Duration::ZERO, Duration::ZERO),
            ExpectedWait::PerFailedCall(wait) => {
                let failed = calls - u32::from(self.attempts.answered_by == Some(0));
                (wait * failed, wait * failed)
            }
            ExpectedWait::BeforeEachRetry(min, max) => {
                (min * calls.saturating_sub(1), max * calls.saturating_sub(1))
            }
        }
    }
}

/// Returns the effect on an item of a run whose requests all end with this failure.
fn item(failure: &Failure) -> &'static str {
    match (failure.class, failure.class.attribution(), failure.cause, failure.scope) {
        // A wait does not help.
        (Class::NotFound | Class::Auth, ..) | (_, _, Some(Cause::NotAnApi), _) => "run pauses",
        // A key that is refused for every request is wrong, whatever the error messages are.
        (_, _, _, FailureScope::Unclear | FailureScope::KeyUnderRecheck) => "run pauses",
        (_, Attribution::Attempt | Attribution::Limit, ..) => "waits",
        (_, Attribution::Account, ..) => "run holds",
        (_, Attribution::Request | Attribution::Router, ..) => "fails",
    }
}

fn action_kind(failure: &Failure) -> ActionKind {
    match failure.retry_action() {
        RetryAction::Retry { .. } => ActionKind::Retry,
        RetryAction::Failover => ActionKind::Failover,
        action => {
            assert_eq!(action, RetryAction::Fail);
            ActionKind::Fail
        }
    }
}

fn call_cost(failure: &Failure) -> Cost {
    match failure.charged {
        Charged::No => Cost::No,
        charged => {
            assert_eq!(charged, Charged::Maybe);
            Cost::Maybe
        }
    }
}
