//! Decides whether a step is skipped for an item, and renders its request.
//!
//! Sends nothing and loads no attachments.

use std::sync::Arc;
use std::time::Duration;

use minijinja::value::Value;

use crate::types::{Failure, Message, Part, Prompt, RouteName};

use super::Attachment;
use super::answer_settings::AnswerSettings;
use super::definition::{Pipeline, Step, TextTemplate};
use super::meter::{Allowance, Excess};
use super::template::{RenderError, RenderOptions, template_failure};

/// A request of a step, to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRequest {
    /// The step's index in the pipeline.
    pub step: usize,
    /// The prompt, without `attachments`.
    pub prompt: Arc<Prompt>,
    /// The route of the request.
    pub route: RouteName,
    /// How long the step may take, including validation retries.
    pub deadline: Duration,
    /// What to send with it. Pass the loaded parts to [`ItemState::attach`](super::ItemState::attach) before
    /// sending.
    pub attachments: Vec<Attachment>,
}

/// The result of validating a response.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerCheck {
    /// The response is valid and is the step's answer.
    Accepted,
    /// The response is invalid: send this prompt on the same route.
    Retry(Arc<Prompt>),
    /// The response is invalid and no retries are left, so the step failed.
    Failed(Failure),
}

/// What to do with a step for one item.
pub(crate) enum StepDecision {
    Skip,
    Request(StepRequest),
}

/// Why a step could not be decided.
pub(crate) enum DecisionError {
    /// Rendering its templates needs more than the allowance.
    AllowanceExceeded,
    /// The step has failed.
    Failed(Failure),
    /// The step has failed because a template uses a value that does not exist.
    Undefined {
        /// The path of the value, such as `item.sender.name`.
        path: String,
        failure: Failure,
    },
}

/// Longest text that an attachment template may render. It may be a `data:` URL: 50 MiB as base64, and its type.
const MAX_ATTACHMENT_BYTES: usize = 67 << 20;

impl Pipeline {
    /// Evaluates a step's condition and renders its request.
    pub(crate) fn decide(
        &self,
        index: usize,
        step: &Step,
        scope: &Value,
        allowance: Allowance,
    ) -> Result<StepDecision, DecisionError> {
        let to_error = |key: &str, error| match error {
            RenderError::AllowanceExceeded => DecisionError::AllowanceExceeded,
            RenderError::Failed(error) => DecisionError::Failed(template_failure(&step.name, key, &error)),
            RenderError::Undefined { path, reason } => {
                DecisionError::Undefined { path, failure: template_failure(&step.name, key, &reason) }
            }
        };
        if let Some(condition) = &step.condition {
            let is_met = self
                .templates
                .evaluate_condition(condition, scope, allowance)
                .map_err(|error| to_error("when", error))?;
            if !is_met {
                return Ok(StepDecision::Skip);
            }
        }
        let render = |key: &str, template: &TextTemplate, max_bytes: usize| match template {
            TextTemplate::Literal(text) if text.len() > max_bytes => {
                Err(to_error(key, RenderError::Failed(Excess::Prompt.message().to_owned())))
            }
            TextTemplate::Literal(text) => Ok(text.clone()),
            TextTemplate::Template(name) => {
                let options = RenderOptions { allowance, max_bytes, none_is_empty: key == "attach" };
                let rendered = self.templates.render(name, scope, options);
                rendered.map(Arc::from).map_err(|error| to_error(key, error))
            }
        };
        if let Some(options) = step.embedding {
            let text = render("embed", &step.prompt, step.max_prompt_bytes)?;
            if text.trim().is_empty() {
                let message = "it is empty, and no provider makes an embedding of an empty text";
                return Err(to_error("embed", RenderError::Failed(message.to_owned())));
            }
            return Ok(StepDecision::Request(StepRequest {
                step: index,
                prompt: Arc::new(Prompt::embeddings([text], options)),
                route: step.route.clone(),
                deadline: step.deadline,
                attachments: Vec::new(),
            }));
        }
        let text: Arc<str> = render("prompt", &step.prompt, step.max_prompt_bytes)?;
        let system = match &step.system {
            Some(system) => {
                let remaining = step.max_prompt_bytes.saturating_sub(text.len());
                Some(render("system", system, remaining)?).filter(|text| !text.trim().is_empty())
            }
            None => None,
        };
        let mut attachments = Vec::new();
        for template in &step.attachments {
            let text = render("attach", template, MAX_ATTACHMENT_BYTES)?;
            let attachment = Attachment::parse(&text, &self.attachment_sources);
            let attachment = attachment.map_err(|error| to_error("attach", RenderError::Failed(error)))?;
            attachments.extend(match template {
                TextTemplate::Literal(_) => attachment.map(Attachment::into_literal),
                TextTemplate::Template(_) => attachment,
            });
        }
        if text.trim().is_empty() && attachments.is_empty() {
            return Err(to_error("prompt", RenderError::Failed("it is empty".to_owned())));
        }
        let shared_prefix = step.shared_prefix.as_ref().and_then(|prefix| prefix.of_text(&text));
        let prompt =
            Prompt { system, messages: vec![Message::user(text)], shared_prefix, ..step.prompt_settings() };
        Ok(StepDecision::Request(StepRequest {
            step: index,
            prompt: Arc::new(prompt),
            route: step.route.clone(),
            deadline: step.deadline,
            attachments,
        }))
    }
}

impl Step {
    /// Returns a prompt without text that has the settings of the step.
    pub(crate) fn prompt_settings(&self) -> Prompt {
        let AnswerSettings { top_p, stop, seed, reasoning_effort, keep_reasoning } = &self.settings;
        Prompt {
            response_format: self.validator.response_format(),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: *top_p,
            stop: stop.clone(),
            seed: *seed,
            reasoning_effort: *reasoning_effort,
            keep_reasoning: *keep_reasoning,
            ..Prompt::default()
        }
    }
}

/// Adds attachments before the text of a prompt. Models answer questions about an image better if the image
/// precedes the question.
pub(crate) fn prepend_parts(prompt: &mut Arc<Prompt>, parts: Vec<Part>) {
    if let Some(first) = Arc::make_mut(prompt).messages.first_mut() {
        first.parts.splice(0..0, parts);
    }
}
