//! One question under one fault: how it is configured, asked, and measured.

use std::fmt;
use std::time::Duration;

use pointsman::run::Part;
use pointsman::runtime::Pointsman;
use pointsman::types::{Cause, Charged, Class, Failure, Outcome, Scope, Verdict, Whose};
use tokio::time::Instant;

use super::rows::{Cost, Due, Row, Word};
use crate::stage::{FORMATS, class, question, run, trail};

/// A busy machine's own time, on top of what is waited for.
const NOISE: Duration = Duration::from_secs(2);

/// A step whose answer is checked.
const CHECKED_STEP: &str = r#"
[[step]]
name = "verdict"
prompt = "Judge {{ item.id }}."
schema = { type = "object", properties = { good = { type = "boolean" }, why = { type = "string" } }, required = ["good", "why"], additionalProperties = false }
"#;

/// What follows: calls at each lane, and which of them answered in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Follows {
    calls: [usize; 2],
    answered: Option<usize>,
}

impl Follows {
    /// As many calls as fit into the time there is.
    pub(super) const MANY: usize = usize::MAX;

    /// Given up after so many calls at lane one.
    pub(super) const fn lost(calls: usize) -> Option<Self> {
        Some(Self { calls: [calls, 0], answered: None })
    }

    /// Answered by lane one in so many calls.
    pub(super) const fn first(calls: usize) -> Option<Self> {
        Some(Self { calls: [calls, 0], answered: Some(0) })
    }

    /// Answered by lane two in one call, after so many at lane one.
    pub(super) const fn second(calls: usize) -> Option<Self> {
        Some(Self { calls: [calls, 1], answered: Some(1) })
    }
}

impl fmt::Display for Follows {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |calls: usize| if calls == Self::MANY { "many".to_owned() } else { calls.to_string() };
        let [first, second] = self.calls.map(count);
        match (self.calls[1], self.answered) {
            (0, Some(_)) => write!(out, "{first}"),
            (0, None) => write!(out, "fails after {first}"),
            (_, Some(_)) => write!(out, "{first} + {second}"),
            (_, None) => write!(out, "fails after {first} + {second}"),
        }
    }
}

/// The place of a cell in the matrix, all by number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) row: usize,
    pub(super) format: usize,
    /// Which of a row's four courses: one lane or two, and whether the fault stays or comes once.
    pub(super) course: usize,
}

/// What happened in a cell.
pub(super) struct Measured {
    pub(super) cell: Cell,
    /// What every failed call was, each kind once.
    pub(super) failed: Vec<(Class, Word, Cost)>,
    /// What becomes of an item of a run whose requests all end like the first failed call.
    pub(super) item: Option<&'static str>,
    pub(super) follows: Follows,
    pub(super) calls: [usize; 2],
    /// The class of the last failure, if the question was not answered.
    pub(super) lost: Option<Class>,
    took: Duration,
}

impl Cell {
    /// Returns whether the fault comes only once.
    pub(super) fn is_once(self) -> bool {
        self.course % 2 == 1
    }

    fn has_two_lanes(self) -> bool {
        self.course >= 2
    }

    fn name(self) -> String {
        format!("cell_{}_{}_{}", self.row, self.format, self.course)
    }

    /// Writes the cell's own provider, and its route.
    pub(super) fn config(self, row: &Row, base_url: &str) -> String {
        let (name, (format, _)) = (self.name(), FORMATS[self.format]);
        let more = if self.has_two_lanes() { format!(", \"good_{format}/m\"") } else { String::new() };
        format!(
            "[provider.{name}]\nformat = \"{format}\"\nbase_url = \"{base_url}\"\nmodels.m = {{}}\n{}\n\
            breaker = {{ failures = 1000, min_calls = 1000 }}\n[route.{name}]\nlanes = [\"{name}/m\"{more}]\n",
            row.timeouts
        )
    }

    /// Asks the cell's question.
    pub(super) async fn measure(self, row: &Row, pointsman: &Pointsman) -> Measured {
        let began = Instant::now();
        let mut measured =
            if row.checked { self.checked(pointsman).await } else { self.plain(row, pointsman).await };
        measured.took = began.elapsed();
        // How many exactly is the machine's affair; the time shows that they were not too many.
        let many = row.follows[self.course].is_some_and(|expected| expected.calls[0] == Follows::MANY);
        if many && measured.calls[0] > 1 {
            measured.follows.calls[0] = Follows::MANY;
        }
        measured
    }

    async fn plain(self, row: &Row, pointsman: &Pointsman) -> Measured {
        let name = self.name();
        let asked = question(&name, &format!("Is all well in {name}?"), row.deadline);
        let answered = pointsman.send(asked).await;
        let attempts = &trail(&answered).0;
        let at = |first: bool| {
            let left = attempts.iter().filter(|attempt| attempt.key.is_some());
            left.filter(|attempt| (attempt.lane.provider.as_str() == name) == first).count()
        };
        let mut failed = Vec::new();
        for attempt in attempts {
            if let Outcome::Failed(failure) = &attempt.outcome {
                failed.push((failure.class, word(failure), cost(failure)));
            }
        }
        failed.dedup();
        let failures = attempts.iter().filter_map(|attempt| match &attempt.outcome {
            Outcome::Failed(failure) => Some(failure),
            _ => None,
        });
        let item = failures.map(item).next();
        let by = answered.as_ref().ok().map(|answer| usize::from(answer.lane.provider.as_str() != name));
        let calls = [at(true), at(false)];
        Measured { item, ..self.measured(failed, calls, by, class(&answered)) }
    }

    /// Asks through a pipeline, which checks the answer.
    async fn checked(self, pointsman: &Pointsman) -> Measured {
        let name = self.name();
        let ran = run(pointsman, &format!("{CHECKED_STEP}route = \"{name}\""), 1).await;
        let lost: Option<Class> = serde_json::from_value(ran.lines[0]["error"]["class"].clone()).unwrap();
        let calls = |lane: String| ran.report.lanes.get(&lane).map_or(0, |part: &Part| part.calls as usize);
        let calls = [calls(format!("{name}/m")), calls(format!("good_{}/m", FORMATS[self.format].0))];
        let paid = if ran.report.calls.failed == 0 { Cost::Yes } else { Cost::Maybe };
        let failed = lost.iter().map(|class| (*class, word(&Failure::new(*class, "")), paid)).collect();
        let by = lost.is_none().then_some(usize::from(calls[1] > 0));
        self.measured(failed, calls, by, lost)
    }

    fn measured(
        self,
        failed: Vec<(Class, Word, Cost)>,
        calls: [usize; 2],
        answered: Option<usize>,
        lost: Option<Class>,
    ) -> Measured {
        let follows = Follows { calls, answered };
        let item = failed.first().map(|(class, _, _)| item(&Failure::new(*class, "")));
        Measured { cell: self, failed, item, follows, calls, lost, took: Duration::ZERO }
    }
}

impl Measured {
    /// Says what is not as the row has it.
    pub(super) fn complaint(&self, row: &Row) -> Option<String> {
        let format = self.cell.format;
        let class = row.class[format];
        let failed = vec![(class, row.verdict, row.cost[format])];
        let follows = row.follows[self.cell.course].unwrap();
        let lost = follows.answered.is_none().then_some(class);
        let (least, most) = self.due(row);
        let on_time = (least..=most + NOISE).contains(&self.took);
        if (&self.failed, self.follows, self.lost) == (&failed, follows, lost) && on_time {
            return None;
        }
        let place = format!("{}, {}, course {}", row.name, FORMATS[format].0, self.cell.course);
        let expected = format!("{failed:?}, {follows}, {lost:?}, {least:?} to {most:?}");
        Some(format!(
            "{place}: expected {expected}; found {:?}, {} ({:?}), {:?}, {:?}",
            self.failed, self.follows, self.calls, self.lost, self.took
        ))
    }

    /// Returns how long the waits take that are due.
    fn due(&self, row: &Row) -> (Duration, Duration) {
        let calls = self.calls[0] as u32;
        match row.due {
            Due::Nothing => (Duration::ZERO, Duration::ZERO),
            Due::Failure(wait) => {
                let failed = calls - u32::from(self.follows.answered == Some(0));
                (wait * failed, wait * failed)
            }
            Due::Return(least, most) => (least * calls.saturating_sub(1), most * calls.saturating_sub(1)),
        }
    }
}

/// Says what becomes of an item of a run whose requests all end so.
fn item(failure: &Failure) -> &'static str {
    match (failure.class, failure.class.whose(), failure.cause, failure.scope) {
        // Waiting does not help.
        (Class::NotFound | Class::Auth, ..) | (_, _, Some(Cause::NoApi), _) => "run pauses",
        // A key that is refused for every request is wrong, whatever each of them is told.
        (_, _, _, Scope::Unclear | Scope::Doubtful) => "run pauses",
        (_, Whose::Attempt | Whose::Limit, ..) => "waits",
        (_, Whose::Account, ..) => "run holds",
        (_, Whose::Request | Whose::Ours, ..) => "fails",
    }
}

fn word(failure: &Failure) -> Word {
    match failure.verdict() {
        Verdict::Again { .. } => Word::Again,
        Verdict::Elsewhere => Word::Elsewhere,
        Verdict::Never => Word::Never,
    }
}

fn cost(failure: &Failure) -> Cost {
    match failure.charged {
        Charged::No => Cost::No,
        Charged::Maybe => Cost::Maybe,
    }
}
