//! Writes the prompt of a step for one item.
//!
//! Sends nothing and loads no attachment.

use std::sync::Arc;
use std::time::Duration;

use minijinja::value::Value;

use crate::types::{Failure, Message, Part, Prompt, RouteName};

use super::Attachment;
use super::definition::{Filling, Pipeline, Step};
use super::meter::{Allowance, Excess};
use super::template::{Filled, Unfilled, failure};

/// A question to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// The step's place in the pipeline.
    pub step: usize,
    /// The question, still without `attach`.
    pub prompt: Arc<Prompt>,
    /// Who answers.
    pub route: RouteName,
    /// How long the step may take, re-asks included.
    pub deadline: Duration,
    /// What to send with it; give the parts to [`Walk::attach`](super::Walk::attach) before asking.
    pub attach: Vec<Attachment>,
}

/// What an answer leads to.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// It is the step's answer.
    Accepted,
    /// It failed its check: ask this, on the same route.
    Reask(Arc<Prompt>),
    /// It failed its check for the last time, and so did the step.
    Failed(Failure),
}

/// What a step comes to for one item.
pub(crate) enum Due {
    Skipped,
    Asked(Ask),
}

/// Why a step came to nothing yet.
pub(crate) enum Undecided {
    /// Its templates need more than the allowance.
    TooLong,
    /// It has failed.
    Failed(Failure),
}

/// Bytes of the text of an attachment, which may be the attachment itself: 50 MiB as base64, and its type.
const MAX_ATTACHMENT_TEXT: usize = 67 << 20;

impl Pipeline {
    /// Evaluates a step's condition and writes its prompt.
    pub(crate) fn decide(
        &self,
        index: usize,
        step: &Step,
        scope: &Value,
        allowance: Allowance,
    ) -> Result<Due, Undecided> {
        let undecided = |key: &str, why| match why {
            Unfilled::TooLong => Undecided::TooLong,
            Unfilled::Failed(why) => Undecided::Failed(failure(&step.name, key, &why)),
        };
        if let Some(when) = &step.when {
            let holds = self.templates.holds(when, scope, allowance).map_err(|why| undecided("when", why))?;
            if !holds {
                return Ok(Due::Skipped);
            }
        }
        let fill = |key: &str, filling: &Filling, most: usize| match filling {
            Filling::Fixed(text) if text.len() > most => {
                Err(undecided(key, Unfilled::Failed(Excess::Prompt.message().to_owned())))
            }
            Filling::Fixed(text) => Ok(text.clone()),
            Filling::Template(name) => {
                let how = Filled { allowance, most, none_is_empty: key == "attach" };
                let filled = self.templates.fill(name, scope, how);
                filled.map(Arc::from).map_err(|why| undecided(key, why))
            }
        };
        let text: Arc<str> = fill("prompt", &step.prompt, step.max_prompt_bytes)?;
        let system = match &step.system {
            Some(system) => {
                let most = step.max_prompt_bytes.saturating_sub(text.len());
                Some(fill("system", system, most)?).filter(|text| !text.trim().is_empty())
            }
            None => None,
        };
        let mut attach = Vec::new();
        for filling in &step.attach {
            let text = fill("attach", filling, MAX_ATTACHMENT_TEXT)?;
            let read = Attachment::read(&text, &self.folders);
            let read = read.map_err(|why| undecided("attach", Unfilled::Failed(why)))?;
            attach.extend(match filling {
                Filling::Fixed(_) => read.map(Attachment::written_out),
                Filling::Template(_) => read,
            });
        }
        if text.trim().is_empty() && attach.is_empty() {
            return Err(undecided("prompt", Unfilled::Failed("it comes out empty".to_owned())));
        }
        let prompt = Prompt {
            system,
            messages: vec![Message::user(text)],
            shape: step.check.shape(),
            max_tokens: step.max_tokens,
            temperature: step.temperature,
        };
        let (prompt, route) = (Arc::new(prompt), step.route.clone());
        Ok(Due::Asked(Ask { step: index, prompt, route, deadline: step.deadline, attach }))
    }
}

/// Adds attachments to a prompt, before its text: models read a question about a picture better so.
pub(crate) fn with_parts(prompt: &mut Arc<Prompt>, parts: Vec<Part>) {
    if let Some(first) = Arc::make_mut(prompt).messages.first_mut() {
        first.parts.splice(0..0, parts);
    }
}
