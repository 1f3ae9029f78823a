//! Walks one item through its pipeline: asks the router, checks the answers, reports to its run.
//!
//! Lives only while its item is in flight, and holds one future. Writes nothing down: its run does.

use std::sync::Arc;

use actix::prelude::*;
use tokio::time::Instant;

use crate::chaos;
use crate::guard::Purse;
use crate::router::{CallCounts, Router, StopSignal};
use crate::store::FileStamp;
use crate::supervisor::{ChildId, Slot, Stop};
use crate::types::{
    self, Answer, Class, Failure, LaneName, MediaData, Part, Priority, Prompt, RunId, Trail, Unanswered,
};

use super::actor::Run;
use super::gate::Gate;
use super::keeping::Kept;
use super::load_attachment::load_all;
use super::messages::{ItemLeft, ItemSettled, LedgerBroken, StepAsked};
use super::off_thread::{Limits, Unchecked, check_answer};
use super::questions::Questions;
use super::rendering::{self, Rendered};
use super::step_request::{Again, Asked, Request, is_for_later, lives_without_own_failure, question};
use super::steps::Steps;
use super::walked::Walked;
use crate::pipeline::ask::{Ask, Next};
use crate::pipeline::definition::Pipeline;
use crate::pipeline::protected::ProtectedFiles;
use crate::pipeline::template::Input;
use crate::pipeline::walk::Walk;
use crate::source;

/// The actor of one item in flight.
pub(super) struct Item {
    job: Arc<Job>,
    id: ChildId,
    /// Shared by all items of the run: to clone an address itself costs two allocations.
    run: Arc<Addr<Run>>,
}

/// What an item needs for its walk; a second life starts from it anew.
pub(super) struct Job {
    pub(super) pipeline: Arc<Pipeline>,
    /// The files that it may not attach.
    pub(super) protected: Arc<ProtectedFiles>,
    pub(super) item: source::Item,
    pub(super) router: Slot<Router>,
    pub(super) priority: Priority,
    pub(super) run: RunId,
    /// Where the calls of the run are counted as they end.
    pub(super) counts: Arc<CallCounts>,
    /// Tells that the run stops.
    pub(super) stop: StopSignal,
    /// Whose money its questions spend.
    pub(super) purse: Arc<Purse>,
    /// Where its answers are kept, if they are.
    pub(super) kept: Option<Kept>,
    /// Where its requests wait while the run holds.
    pub(super) gate: Arc<Gate>,
}

impl Input for Job {
    fn item(&self) -> &serde_json::Value {
        &self.item.value
    }
}

impl Item {
    pub(super) fn new(job: Arc<Job>, id: ChildId, run: Arc<Addr<Run>>) -> Self {
        Self { job, id, run }
    }
}

impl Actor for Item {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        chaos::point("item.started");
        let walk = walk(self.job.clone(), self.run.clone());
        let walk = walk.into_actor(self).map(|end, item, ctx| {
            let id = item.id;
            match end {
                End::Walked(walked) => item.run.do_send(ItemSettled { id, walked }),
                End::Left(why) => item.run.do_send(ItemLeft { id, why }),
            }
            chaos::point("item.settled");
            ctx.stop();
        });
        ctx.spawn(walk);
    }
}

impl Handler<Stop> for Item {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

/// How a walk ended.
enum End {
    Walked(Box<Walked>),
    /// What could still be asked would cost too much, or nobody takes questions any more.
    Left(Box<Failure>),
}

/// Walks to the end, or until nothing more can be asked and nothing is out any more; never comes back once answers
/// cannot be kept any more, which its run then knows.
async fn walk(job: Arc<Job>, run: Arc<Addr<Run>>) -> End {
    let started = Instant::now();
    let mut walk = Walk::with(job.pipeline.clone(), job.clone());
    let mut steps = Steps::new(&job);
    let mut asked = Questions::new();
    let mut questions = 0;
    let mut left = None;
    loop {
        chaos::point("item.asks");
        let mut recalled = false;
        let due = match left {
            Some(_) => Vec::new(),
            None => match walk.due_briefly() {
                Some(due) => due,
                None => {
                    let (walked, due) = asked.beside(rendering::due(walk, job.stop.clone())).await;
                    walk = walked;
                    match due {
                        Rendered::Asks(due) => due,
                        // The steps that could not wait have failed: others may be due now.
                        Rendered::Overdue => continue,
                        Rendered::Stopped => {
                            left = Some(stopped("a template was filled"));
                            Vec::new()
                        }
                    }
                }
            },
        };
        for ask in due {
            match asked.beside(attach(&mut walk, &ask, &job.protected)).await {
                Ok((prompt, files)) => match steps.recall(ask.step, &prompt, files) {
                    Some(answer) => {
                        walk.recalled(ask.step, answer);
                        recalled = true;
                    }
                    None => {
                        // As a prompt, as a request and in the connection.
                        job.item.held.add(prompt_bytes(&prompt).saturating_mul(COPIES));
                        let deadline = Instant::now() + job.pipeline.steps()[ask.step].deadline;
                        asked.push(question(
                            &job,
                            Request {
                                step: ask.step,
                                prompt,
                                deadline,
                                waited: job.item.held.waited(),
                                is_reask: false,
                            },
                            None,
                        ));
                    }
                },
                Err(failure) => walk.failed(ask.step, failure),
            }
        }
        if recalled {
            continue;
        }
        if asked.waits() {
            // Its next reply may need memory, or a place among the calls, that those of other items have.
            job.item.held.park();
        }
        let Some(Asked { request, outcome, open, sent_again, given_up }) = asked.next().await else {
            if walk.is_settled() {
                break;
            }
            // A step that failed before it was asked can have set others free.
            let Some(why) = left.take() else { continue };
            return End::Left(why);
        };
        chaos::point("item.answered");
        let Request { step, deadline, waited, is_reask, .. } = request;
        // Time in which a reply waits for memory is none of the step's.
        let deadline = deadline + job.item.held.waited().saturating_sub(waited);
        let lives = match given_up {
            true => None,
            false => lives_without_own_failure(&job, (step, is_reask), &outcome, open.as_ref()),
        };
        if let (Some(lives), Err(unanswered)) = (lives, &outcome) {
            let Unanswered { failure, trail, lost, lane, .. } = (**unanswered).clone();
            steps.wait(step, &trail);
            let (held, lost) = (true, lost.into());
            run.do_send(StepAsked { step, trail, practice: false, reasked: false, held, lost });
            if left.is_none() {
                asked.push(question(
                    &job,
                    request.again(&job),
                    Some(Again::after(lives, (failure, lane), open)),
                ));
            }
            drop(sent_again);
            continue;
        }
        drop((open, sent_again));
        questions += 1;
        let (trail, practice, lost, next, lane) = match outcome {
            Ok(answer) => {
                // Its memory is counted since it was read.
                let text = &answer.reply.text;
                let limits = Limits { deadline, stop: job.stop.clone() };
                let next = match asked.beside(check_answer(&job.pipeline, step, text, limits)).await {
                    Ok(checked) => walk.checked(step, text, checked),
                    Err(Unchecked::Failed(failure)) => {
                        walk.failed(step, failure.clone());
                        Next::Failed(failure)
                    }
                    Err(Unchecked::Stopped) => {
                        let Answer { trail, practice, lost, .. } = answer;
                        steps.pause(step, &trail, practice);
                        let (reasked, held, lost) = (false, false, lost.into());
                        run.do_send(StepAsked { step, trail, practice, reasked, held, lost });
                        left.get_or_insert(stopped("an answer waited for its check"));
                        continue;
                    }
                };
                (answer.trail, answer.practice, answer.lost, next, Some(answer.lane))
            }
            Err(unanswered) if is_for_later(&unanswered.failure) => {
                let Unanswered { failure, trail, lost, .. } = *unanswered;
                steps.pause(step, &trail, false);
                let (practice, reasked, held, lost) = (false, false, false, lost.into());
                run.do_send(StepAsked { step, trail, practice, reasked, held, lost });
                left.get_or_insert(Box::new(failure));
                continue;
            }
            Err(unanswered) => {
                let Unanswered { failure, lane, trail, lost, .. } = *unanswered;
                let failure = with_lane(with_refusals(failure, &trail), lane.as_ref());
                walk.failed(step, failure.clone());
                (trail, false, lost, Next::Failed(failure), None)
            }
        };
        let reasked = matches!(next, Next::Reask(_));
        if let (Next::Reask(prompt), None) = (&next, &left) {
            // Of the first prompt its attachments and texts are shared.
            job.item.held.add(reask_bytes(prompt).saturating_mul(COPIES));
            // The step's deadline includes its re-asks.
            asked.push(question(
                &job,
                Request {
                    step,
                    prompt: prompt.clone(),
                    deadline,
                    waited: job.item.held.waited(),
                    is_reask: true,
                },
                None,
            ));
        }
        steps.spend(step, &trail, practice);
        run.do_send(StepAsked { step, trail, practice, reasked, held: false, lost: lost.into() });
        // What is still to come needs nothing that is not durable. The last answer goes with the settlement.
        if let Err(unkept) = asked.beside(steps.keep(step, &next, lane.as_ref(), &walk)).await {
            run.do_send(LedgerBroken(unkept));
            std::future::pending::<()>().await;
        }
    }
    let (settled, spent, took) = (walk.settle(), steps.spent, started.elapsed());
    End::Walked(Box::new(Walked { settled, spent, took, questions }))
}

/// Makes the reason why an item is unfinished that waited for its turn when its run stopped.
fn stopped(meanwhile: &str) -> Box<Failure> {
    Box::new(Failure::new(Class::Cancelled, format!("the run stopped while {meanwhile}")))
}

/// How often a prompt is in memory.
const COPIES: usize = 4;

fn prompt_bytes(prompt: &Prompt) -> usize {
    let part = |part: &Part| match part {
        Part::Text(text) => text.len(),
        Part::Image(media) | Part::Audio(media) | Part::Document(media) => match &media.data {
            MediaData::Base64(text) | MediaData::Url(text) => text.len(),
        },
    };
    let parts = prompt.messages.iter().flat_map(|message| &message.parts);
    prompt.system.as_ref().map_or(0, |text| text.len()) + parts.map(part).sum::<usize>()
}

/// Returns the bytes that a re-ask adds to the first prompt: the quoted answer and the request.
fn reask_bytes(prompt: &Prompt) -> usize {
    let added = prompt.messages.iter().skip(1).flat_map(|message| &message.parts);
    added.map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum()
}

/// Says why no lane took the question, where its time ran out before any did.
fn with_refusals(failure: Failure, trail: &Trail) -> Failure {
    if failure.class != Class::Deadline {
        return failure;
    }
    let mut refusals = Vec::new();
    for attempt in &trail.0 {
        if let types::Outcome::Refused(why) = &attempt.outcome {
            let refusal = format!("{}: {why}", attempt.lane);
            if !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
    }
    if refusals.is_empty() {
        return failure;
    }
    Failure { message: format!("{}; {}", failure.message, refusals.join(", ")).into(), ..failure }
}

/// Says whose failure it was, where it is that of one lane: of many lanes, or of a question that no call has left for,
/// the line names it nowhere else.
fn with_lane(failure: Failure, lane: Option<&LaneName>) -> Failure {
    match lane {
        Some(lane) => Failure { message: format!("{lane}: {}", failure.message).into(), ..failure },
        None => failure,
    }
}

/// Returns the prompt of `ask` with everything that is attached to it, and the files that were read for it.
async fn attach(
    walk: &mut Walk,
    ask: &Ask,
    protected: &Arc<ProtectedFiles>,
) -> Result<(Arc<Prompt>, Vec<FileStamp>), Failure> {
    if ask.attach.is_empty() {
        return Ok((ask.prompt.clone(), Vec::new()));
    }
    let (parts, files) = load_all(&ask.attach, protected).await?;
    Ok((walk.attach(ask.step, parts).unwrap_or_else(|| ask.prompt.clone()), files))
}
