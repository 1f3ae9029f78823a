//! Writes the prompt of a step for one item, and the prompt that asks again.
//!
//! Sends nothing and loads no attachment.

use std::sync::Arc;
use std::time::Duration;

use minijinja::value::Value;

use crate::types::{Class, Failure, Message, Part, Prompt, RouteName};

use super::Attachment;
use super::definition::{Filling, Pipeline, Step};
use super::template::failure;

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
pub(super) enum Due {
    Skipped,
    Asked(Ask),
}

impl Pipeline {
    /// Evaluates a step's condition and writes its prompt.
    pub(super) fn decide(&self, index: usize, step: &Step, scope: &Value) -> Result<Due, Failure> {
        if let Some(when) = &step.when {
            let holds = self.templates.holds(when, scope).map_err(|why| failure(&step.name, "when", &why))?;
            if !holds {
                return Ok(Due::Skipped);
            }
        }
        let text = self.fill(step, "prompt", &step.prompt, scope)?;
        let system = match &step.system {
            Some(system) => {
                Some(self.fill(step, "system", system, scope)?).filter(|text| !text.trim().is_empty())
            }
            None => None,
        };
        let attach = self.attachments(step, scope)?;
        if text.trim().is_empty() && attach.is_empty() {
            return Err(failure(&step.name, "prompt", "it comes out empty"));
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

    fn fill(&self, step: &Step, key: &str, filling: &Filling, scope: &Value) -> Result<Arc<str>, Failure> {
        match filling {
            Filling::Fixed(text) => Ok(text.clone()),
            Filling::Template(name) => {
                let filled =
                    self.templates.fill(name, scope).map_err(|why| failure(&step.name, key, &why))?;
                Ok(filled.into())
            }
        }
    }

    fn attachments(&self, step: &Step, scope: &Value) -> Result<Vec<Attachment>, Failure> {
        let mut attachments = Vec::new();
        for filling in &step.attach {
            let text = self.fill(step, "attach", filling, scope)?;
            let read = Attachment::read(&text, &self.folders);
            attachments.extend(read.map_err(|why| failure(&step.name, "attach", &why))?);
        }
        Ok(attachments)
    }
}

/// Adds attachments to a prompt, before its text: models read a question about a picture better so.
pub(super) fn with_parts(prompt: &mut Arc<Prompt>, parts: Vec<Part>) {
    if let Some(first) = Arc::make_mut(prompt).messages.first_mut() {
        first.parts.splice(0..0, parts);
    }
}

/// Goes on with a conversation: what the model said, and why that is no answer.
pub(super) fn ask_again(prompt: &mut Arc<Prompt>, step: &Step, said: &str, reason: &str) {
    let request = format!("Your answer was not accepted: {reason}. {}", step.check.wanted());
    let messages = &mut Arc::make_mut(prompt).messages;
    match messages.last_mut() {
        // Providers refuse an empty turn, and two turns of one speaker.
        Some(last) if said.trim().is_empty() => last.parts.push(Part::Text(request.into())),
        _ => messages.extend([Message::assistant(said), Message::user(request)]),
    }
}

/// Makes the failure of a step whose answer was refused for the last time.
pub(super) fn refused(step: &Step, said: &str, reason: &str) -> Failure {
    let tries = u64::from(step.reasks) + 1;
    let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
    let message = format!("the answer of step `{}` was refused {times}; at last because {reason}", step.name);
    Failure::new(Class::ValidationError, message).with_text(said)
}
