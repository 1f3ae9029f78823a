//! What the steps of one item took so far, and what of it is kept.

use serde_json::Value;

use super::item::Job;
use super::keeping::unanswered;
use super::walked::Spent;
use crate::ledger::Unkept;
use crate::pipeline::ask::Next;
use crate::pipeline::walk::Walk;
use crate::store::{FileStamp, StepRecord, StepState};
use crate::types::{Attempt, Fingerprint, LaneName, Outcome, Prompt, Trail};

/// The steps of an item on its way.
pub(super) struct Steps<'a> {
    job: &'a Job,
    pub(super) spent: Vec<Spent>,
    /// The question of each step that has been asked, where answers are kept.
    questions: Vec<Option<Fingerprint>>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(job: &'a Job) -> Self {
        let steps = job.pipeline.steps();
        let spent = steps.iter().map(|step| {
            let trails = job.kept.as_ref().map(|kept| kept.trails(&step.name));
            let (before, trail) = trails.unwrap_or_default();
            Spent { before, trail, ..Spent::default() }
        });
        Self { job, spent: spent.collect(), questions: vec![None; steps.len()] }
    }

    /// Returns the answer that this question had before, if a model gave it that would be asked now.
    pub(super) fn recall(&mut self, step: usize, prompt: &Prompt, files: Vec<FileStamp>) -> Option<Value> {
        let kept = self.job.kept.as_ref()?;
        let definition = &self.job.pipeline.steps()[step];
        let question = kept.question(&definition.name, prompt);
        self.questions[step] = Some(question);
        let spent = &mut self.spent[step];
        spent.files = files;
        let known = kept.recall(&definition.name, &definition.route, question)?;
        spent.recall(&known, kept.is_of_this_session(&known));
        if !spent.kept {
            kept.note_recalled(&known);
        }
        Some(known.record.answer)
    }

    /// Adds what a question took.
    pub(super) fn spend(&mut self, step: usize, trail: &Trail, practice: bool) {
        let spent = &mut self.spent[step];
        spent.practice |= practice;
        spent.trail.0.extend_from_slice(&trail.0);
    }

    /// Adds what was attempted for a request that waits and is sent again; where answers are kept, so is that.
    pub(super) fn wait(&mut self, step: usize, trail: &Trail) {
        let spent = &mut self.spent[step];
        spent.trail.0.extend_from_slice(&trail.0);
        let Some(kept) = self.job.kept.as_ref().filter(|_| trail.calls() > 0) else { return };
        let name = self.job.pipeline.steps()[step].name.clone();
        // It was perhaps paid for. No step needs it.
        drop(kept.keep(unanswered(name, None, spent.practice, spent.trail.clone())));
    }

    /// Keeps what was attempted for a question that is left for later; it is asked again when the run goes on.
    pub(super) fn pause(&mut self, step: usize, trail: &Trail, practice: bool) {
        let is_refused = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Refused(_));
        let Some(kept) = self.job.kept.as_ref().filter(|_| !trail.0.iter().all(is_refused)) else { return };
        let (name, spent) = (self.job.pipeline.steps()[step].name.clone(), &mut self.spent[step]);
        spent.practice |= practice;
        spent.trail.0.extend_from_slice(&trail.0);
        // Nobody needs it before the run ends, which waits for it.
        drop(kept.keep(unanswered(name, None, spent.practice, spent.trail.clone())));
    }

    /// Keeps what has come of a question, and waits until that is durable if others are going to need it. What
    /// ends the item is kept with its settlement.
    pub(super) async fn keep(
        &mut self,
        step: usize,
        next: &Next,
        lane: Option<&LaneName>,
        walk: &Walk,
    ) -> Result<(), Unkept> {
        let Some(kept) = &self.job.kept else { return Ok(()) };
        let (name, spent) = (self.job.pipeline.steps()[step].name.clone(), &mut self.spent[step]);
        spent.shaped = match next {
            Next::Accepted => {
                self.questions[step].zip(lane).and_then(|(asked, lane)| kept.shaped(asked, lane))
            }
            Next::Reask(_) | Next::Failed(_) => None,
        };
        if walk.is_settled() {
            return Ok(());
        }
        let (practice, trail, files) = (spent.practice, spent.trail.clone(), spent.files.clone());
        match next {
            Next::Accepted => {
                let answer = walk.answer(step).cloned().unwrap_or_default();
                let (state, shaped, failure) = (StepState::Answered, spent.shaped, None);
                spent.kept = true;
                let (step, recalled) = (name, None);
                let record =
                    StepRecord { step, state, shaped, answer, failure, practice, trail, recalled, files };
                kept.keep(record).await
            }
            // Nobody needs it, but it was paid for. That the ledger is broken is heard with the next answer.
            Next::Reask(_) => {
                drop(kept.keep(unanswered(name, None, practice, trail)));
                Ok(())
            }
            Next::Failed(failure) => {
                drop(kept.keep(unanswered(name, Some(failure.clone()), practice, trail)));
                Ok(())
            }
        }
    }
}
