//! What is expected of everything that can go wrong, one row each.
//!
//! A fault that the simulator learns does not compile here before somebody has written its row.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, RetryAfter};
use pointsman::types::Class::{self, *};

use super::cell::Follows;
use super::trouble::Trouble;

/// Whether failed calls cost money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    No,
    Maybe,
    /// They were answered, only not as they should have been.
    Yes,
}
use Cost::{Maybe, No, Yes};

/// A [`Verdict`](pointsman::types::Verdict) without its wait, which the times show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Again,
    Elsewhere,
    Never,
}

/// How long is waited, at least and at most, however fast the machine is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Due {
    /// Not at all.
    Nothing,
    /// For every call that fails.
    Failure(Duration),
    /// Before every further call at the same lane.
    Return(Duration, Duration),
}

/// What follows a verdict: with one lane when the fault stays and when it comes once, and the same with a
/// second lane that is well. `None` is not played.
type Course = (Word, [Option<Follows>; 4]);

/// Twice at one lane in each of three rounds; with a second lane twice, then elsewhere.
const AGAIN: Course =
    (Word::Again, [Follows::lost(6), Follows::first(2), Follows::second(2), Follows::first(2)]);
/// The same, but elsewhere at once.
const ELSEWHERE: Course =
    (Word::Elsewhere, [Follows::lost(6), Follows::first(2), Follows::second(1), Follows::second(1)]);
/// Elsewhere at once, and never again there: neither key nor model grows right by asking.
const LANE_OUT: Course =
    (Word::Elsewhere, [Follows::lost(1), Follows::lost(1), Follows::second(1), Follows::second(1)]);
/// Nobody would answer this.
const GIVEN_UP: Course = (Word::Never, [Follows::lost(1); 4]);
/// No attempt is counted: as often as the wait that is asked for fits into the question's deadline.
const THROTTLED: Course = (
    Word::Again,
    [Follows::lost(Follows::MANY), Follows::first(2), Follows::second(Follows::MANY), Follows::first(2)],
);
/// The pipeline asks again with the reason, twice; a question of its own each time, at the first lane.
const CHECKED: Course = (Word::Never, [Follows::lost(3), None, Follows::lost(3), None]);

/// How long a provider of these tests may be silent where a row waits for just that.
const SILENCE: Duration = Duration::from_millis(800);
const SHORT: &str =
    r#"timeouts = { connect = "800ms", first_token = "800ms", idle = "800ms", total = "9s" }"#;
const SHORT_TOTAL: &str =
    r#"timeouts = { connect = "800ms", first_token = "800ms", idle = "800ms", total = "800ms" }"#;
const SHORT_CONNECT: &str =
    r#"timeouts = { connect = "800ms", first_token = "3s", idle = "3s", total = "9s" }"#;
pub(super) const PATIENT: &str =
    r#"timeouts = { connect = "8s", first_token = "8s", idle = "8s", total = "20s" }"#;

const HALF_A_SECOND: Duration = Duration::from_millis(500);
const ONE_SECOND: Duration = Duration::from_secs(1);

/// Something that goes wrong at lane one, and what is expected to follow. Lists go by format: OpenAI,
/// Anthropic, Gemini.
pub(super) struct Row {
    /// What the documentation calls it.
    pub(super) name: String,
    pub(super) trouble: Trouble,
    pub(super) class: [Class; 3],
    pub(super) cost: [Cost; 3],
    pub(super) verdict: Word,
    pub(super) follows: [Option<Follows>; 4],
    pub(super) due: Due,
    pub(super) timeouts: &'static str,
    pub(super) deadline: Duration,
    /// Whether an answer by a schema is asked for, so that a pipeline checks it.
    pub(super) checked: bool,
}

/// Returns all rows.
pub(super) fn all() -> Vec<Row> {
    FaultKind::ALL.into_iter().flat_map(of).chain(beyond_the_simulator()).collect()
}

/// Returns the rows of a fault. No `_` arm: a new fault does not compile until someone has decided.
fn of(kind: FaultKind) -> Vec<Row> {
    use FaultKind as Kind;
    match kind {
        Kind::RateLimited => vec![
            // Time for two returns.
            fault(kind, [RateLimit; 3], [No; 3], THROTTLED)
                .returning(ONE_SECOND, ONE_SECOND)
                .until(Duration::from_millis(2_900)),
            throttled_once("without a word on when to return", RetryAfter::Missing)
                .returning(HALF_A_SECOND, ONE_SECOND),
            throttled_once("with an absurd word on when to return", RetryAfter::Absurd)
                .returning(Duration::from_millis(25), ONE_SECOND),
            throttled_for_too_long(),
        ],
        Kind::ServerError => vec![fault(kind, [ServerError; 3], [Maybe; 3], AGAIN)],
        // Anthropic has a word for being overloaded and does not use it here.
        Kind::Unavailable => {
            vec![fault(kind, [Overloaded, ServerError, Overloaded], [No, Maybe, No], AGAIN)]
        }
        Kind::Overloaded => vec![fault(kind, [Overloaded; 3], [No; 3], AGAIN)],
        Kind::Reset => vec![fault(kind, [NetworkError; 3], [Maybe; 3], ELSEWHERE)],
        Kind::Silent => vec![fault(kind, [Timeout; 3], [Maybe; 3], ELSEWHERE).silent()],
        Kind::SlowFirstToken => vec![fault(kind, [Timeout; 3], [Maybe; 3], ELSEWHERE).silent()],
        Kind::Cut => vec![fault(kind, [Unreadable; 3], [Maybe; 3], ELSEWHERE)],
        Kind::Stalled => vec![fault(kind, [Timeout; 3], [Maybe; 3], ELSEWHERE).silent()],
        Kind::MalformedChunk => vec![fault(kind, [Unreadable; 3], [Maybe; 3], ELSEWHERE)],
        Kind::NoEnd => vec![fault(kind, [Unreadable; 3], [Maybe; 3], ELSEWHERE)],
        Kind::TruncatedJson => vec![fault(kind, [ValidationError; 3], [Yes; 3], CHECKED).checked()],
        Kind::Html => vec![
            fault(kind, [Unreadable; 3], [Maybe; 3], ELSEWHERE),
            with_status(kind, 502, fault(kind, [ServerError; 3], [Maybe; 3], AGAIN)),
        ],
        Kind::WrongContent => vec![fault(kind, [ValidationError; 3], [Yes; 3], CHECKED).checked()],
        Kind::Empty => vec![fault(kind, [ValidationError; 3], [Yes; 3], CHECKED).checked()],
        Kind::Length => vec![fault(kind, [Truncated; 3], [Maybe; 3], GIVEN_UP)],
        Kind::Refusal => vec![fault(kind, [ContentFilter; 3], [Maybe; 3], GIVEN_UP)],
        Kind::Auth => vec![fault(kind, [Auth; 3], [No; 3], LANE_OUT)],
        Kind::Quota => vec![fault(kind, [Quota; 3], [No; 3], LANE_OUT)],
        Kind::NotFound => vec![fault(kind, [NotFound; 3], [No; 3], LANE_OUT)],
        Kind::Firewall | Kind::FileForbidden | Kind::MaxTokensUnaffordable => {
            vec![fault(kind, [ApiError; 3], [No; 3], LANE_OUT)]
        }
        // It may be the key: other requests show it meanwhile, and this one is asked again.
        Kind::Forbidden => vec![fault(kind, [ApiError; 3], [No; 3], ELSEWHERE)],
        Kind::ModelForbidden => vec![fault(kind, [Auth; 3], [No; 3], LANE_OUT)],
        Kind::ErrorInStream => {
            vec![fault(kind, [ServerError, Overloaded, Overloaded], [Maybe; 3], AGAIN)]
        }
    }
}

/// Returns the rows of what is no provider's doing, or of no provider in its right mind.
fn beyond_the_simulator() -> Vec<Row> {
    let other = |name, trouble, class, cost| row(name, trouble, [class; 3], [cost; 3], always(ELSEWHERE));
    let soon = Trouble::Says("503 Service Unavailable", "retry-after: 1", "");
    let soon = row("503 with `Retry-After`", soon, [Overloaded; 3], [No; 3], always(AGAIN));
    vec![
        soon.returning(ONE_SECOND, ONE_SECOND),
        other("connection refused", Trouble::NobodyListens, NetworkError, No),
        other("name that does not resolve", Trouble::NoName, NetworkError, No),
        other("no TLS behind `https`", Trouble::NoTls, NetworkError, No),
        other("TLS handshake without an answer", Trouble::MuteTls, Timeout, No).silent_within(SHORT_CONNECT),
        other("connection closed at once", Trouble::HangsUp, NetworkError, Maybe),
        other(
            "plain words in a 200",
            Trouble::Says("200 OK", "content-type: text/plain", "Ok, wait."),
            Unreadable,
            Maybe,
        ),
        other(
            "200 without a body",
            Trouble::Says("200 OK", "content-type: text/event-stream", ""),
            Unreadable,
            Maybe,
        ),
        other("stream that says it is JSON", Trouble::MislabelledStream, Unreadable, Maybe),
        other("answer without an end", Trouble::Trickles, Timeout, Maybe).silent_within(SHORT_TOTAL),
    ]
}

fn row(name: &str, trouble: Trouble, class: [Class; 3], cost: [Cost; 3], course: Course) -> Row {
    let (verdict, follows) = course;
    let (due, timeouts, deadline) = (Due::Nothing, PATIENT, Duration::from_secs(60));
    Row {
        name: name.to_owned(),
        trouble,
        class,
        cost,
        verdict,
        follows,
        due,
        timeouts,
        deadline,
        checked: false,
    }
}

fn fault(kind: FaultKind, class: [Class; 3], cost: [Cost; 3], course: Course) -> Row {
    let delay = (kind == FaultKind::SlowFirstToken).then_some(Duration::from_secs(20));
    let word = serde_json::to_value(kind).unwrap();
    let name = format!("`{}`", word.as_str().unwrap());
    row(&name, Trouble::Played(Box::new(Fault { delay, ..Fault::new(kind) })), class, cost, course)
}

fn with_status(kind: FaultKind, status: u16, row: Row) -> Row {
    let trouble = Trouble::Played(Box::new(Fault { status: Some(status), ..Fault::new(kind) }));
    Row { name: format!("{} with status {status}", row.name), trouble, ..row }
}

fn throttled_once(note: &str, retry_after: RetryAfter) -> Row {
    let kind = FaultKind::RateLimited;
    let (word, [_, one_lane, _, two_lanes]) = THROTTLED;
    let row = fault(kind, [RateLimit; 3], [No; 3], (word, [None, one_lane, None, two_lanes]));
    let trouble = Trouble::Played(Box::new(Fault { retry_after: Some(retry_after), ..Fault::new(kind) }));
    Row { name: format!("{} {note}", row.name), trouble, ..row }
}

/// A minute, and the question has less: nobody waits for that.
fn throttled_for_too_long() -> Row {
    let course = (Word::Again, [Follows::lost(1), None, Follows::second(1), None]);
    let name = "`rate_limited` for longer than there is time";
    row(name, Trouble::OneRequestAMinute, [RateLimit; 3], [No; 3], course).until(Duration::from_secs(15))
}

/// Leaves out what a trouble that never passes cannot play.
fn always((word, [one_lane, _, two_lanes, _]): Course) -> Course {
    (word, [one_lane, None, two_lanes, None])
}

impl Row {
    /// Is waited for in vain.
    fn silent(self) -> Self {
        self.silent_within(SHORT)
    }

    /// Is waited for in vain, for as long as the one of the four limits says that is meant.
    fn silent_within(self, timeouts: &'static str) -> Self {
        Self { due: Due::Failure(SILENCE), timeouts, ..self }
    }

    /// Asks to come back after a while.
    fn returning(self, least: Duration, most: Duration) -> Self {
        Self { due: Due::Return(least, most), ..self }
    }

    fn until(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    fn checked(self) -> Self {
        Self { checked: true, ..self }
    }
}
