//! Two providers, of which the preferred one goes dark for a while: every question is answered all the same.

use std::collections::VecDeque;
use std::time::Duration;

use pointsman::Pointsman;
use pointsman::router::Ask;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::{Answer, Asker, Attempt, Outcome, Priority, Prompt, Unanswered};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::rows::{Dark, Row};
use super::score::Measured;
use super::stage::{Stage, start};

/// Between two questions.
const EVERY: Duration = Duration::from_secs(4);
/// Time before the outage.
const BEFORE: Duration = Duration::from_secs(12);
/// How long the provider's return is waited for, and then the last answer.
const PATIENCE: Duration = Duration::from_secs(180);

type Answered = Result<Answer, Box<Unanswered>>;

/// A question, and how long it took.
type Timed = (Answered, Duration);

/// What became of the questions.
struct Answers {
    /// Calls to the first provider that failed.
    failed: u64,
    /// Questions without an answer.
    lost: u64,
    /// Seconds that the slowest question took, from being asked to its end.
    slowest: f64,
}

pub(crate) async fn play(stage: &Stage, row: &Row, how: Dark) -> anyhow::Result<Measured> {
    let (first, second) = (stage.play(row)?, stage.play(row)?);
    let pointsman = start(row, &first, Some(&second))?;
    let mut asked = VecDeque::new();
    ask_for(BEFORE, &pointsman, &mut asked).await;
    let address = first.addr();
    let settings = first.settings();
    let dark = go_dark(first, how);
    ask_for(stage.measured_for, &pointsman, &mut asked).await;
    // Whatever still hangs was asked before the return.
    let dark_calls = dark.as_ref().map(|first| first.counts().by_fault.values().sum::<u64>());
    let first = match dark {
        Some(first) => {
            first.set(settings);
            first.reset();
            first
        }
        None => stage.play_at(settings, address)?,
    };
    let seconds = used_again(&first, &pointsman, &mut asked).await;
    let Answers { failed, lost, slowest } = answers(asked).await;
    Ok(Measured {
        used: None,
        refused: None,
        // A provider that is gone counts nothing; there each attempt says by itself where it went.
        calls: dark_calls.unwrap_or(failed),
        lost,
        seconds: Some(seconds),
        slowest: Some(slowest),
        attempts: None,
    })
}

fn go_dark(first: Simulator, how: Dark) -> Option<Simulator> {
    match how {
        Dark::Silent => {
            first.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..first.settings() });
            Some(first)
        }
        Dark::Gone => None,
    }
}

/// Asks one question after the other for so long.
async fn ask_for(how_long: Duration, pointsman: &Pointsman, asked: &mut VecDeque<JoinHandle<Timed>>) {
    let end = Instant::now() + how_long;
    while Instant::now() < end {
        asked.push_back(ask(pointsman, asked.len()));
        sleep(EVERY.min(end - Instant::now())).await;
    }
}

fn ask(pointsman: &Pointsman, number: usize) -> JoinHandle<Timed> {
    let ask = Ask {
        prompt: Prompt::text(format!("Is question {number} answered?")).into(),
        route: "default".into(),
        priority: Priority::Interactive,
        asker: Asker::default(),
        deadline: Instant::now() + Duration::from_secs(600),
        counts: None,
        purse: None,
        held: pointsman::guard::HeldMemory::default(),
        stop: None,
    };
    let asking = pointsman.clone();
    let began = Instant::now();
    pointsman.runtime().spawn(async move { (asking.send(ask).await, began.elapsed()) })
}

/// Goes on asking, and returns after how many seconds the provider that is back admitted a call.
async fn used_again(
    first: &Simulator,
    pointsman: &Pointsman,
    asked: &mut VecDeque<JoinHandle<Timed>>,
) -> f64 {
    let returned = Instant::now();
    while returned.elapsed() < PATIENCE {
        asked.push_back(ask(pointsman, asked.len()));
        let next = Instant::now() + EVERY;
        while Instant::now() < next {
            if first.counts().admitted > 0 {
                return returned.elapsed().as_secs_f64();
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    f64::INFINITY
}

async fn answers(asked: VecDeque<JoinHandle<Timed>>) -> Answers {
    let end = Instant::now() + PATIENCE;
    let mut sum = Answers { failed: 0, lost: 0, slowest: 0.0 };
    for question in asked {
        let Ok(Ok((answered, took))) = timeout_at(end, question).await else {
            (sum.lost, sum.slowest) = (sum.lost + 1, f64::INFINITY);
            continue;
        };
        sum.slowest = sum.slowest.max(took.as_secs_f64());
        sum.lost += u64::from(answered.is_err());
        let trail = match &answered {
            Ok(answer) => &answer.trail,
            Err(unanswered) => &unanswered.trail,
        };
        sum.failed += trail.0.iter().filter(|attempt| failed_at_first(attempt)).count() as u64;
    }
    sum
}

fn failed_at_first(attempt: &Attempt) -> bool {
    attempt.lane.provider.as_str() == "first" && matches!(attempt.outcome, Outcome::Failed(_))
}
