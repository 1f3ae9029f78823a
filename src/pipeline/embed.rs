//! A step with `embed`: its answer is the embedding of a text.

use serde_json::json;

use crate::types::{EmbeddingOptions, Fingerprint, RouteName, StepName};

use super::Defaults;
use super::answer_settings::AnswerSettings;
use super::definition::{Step, TextTemplate};
use super::raw::RawStep;
use super::source_diagnostics::SourceDiagnostics;
use super::validate::AnswerValidator;

/// Reports the keys of a step that have no meaning beside `embed`.
pub(super) fn refuse_other_keys(index: usize, step: &RawStep, diagnostics: &mut SourceDiagnostics<'_>) {
    if step.prompt.is_some() {
        let help = "remove one of them; a request for an answer and one for an embedding are two steps";
        diagnostics.push_at_step(index, &["prompt"], "a step has `prompt` or `embed`, not both", help);
    }
    for (key, is_set) in [
        ("system", step.system.is_some()),
        ("choice", step.choice.is_some()),
        ("schema", step.schema.is_some()),
        ("attach", !step.attach.is_empty()),
        ("max_tokens", step.max_tokens.is_some()),
        ("temperature", step.temperature.is_some()),
        ("top_p", step.top_p.is_some()),
        ("stop", step.stop.is_some()),
        ("seed", step.seed.is_some()),
        ("reasoning_effort", step.reasoning_effort.is_some()),
        ("keep_reasoning", step.keep_reasoning.is_some()),
        ("prompt_cache", step.prompt_cache.is_some()),
        ("max_validation_retries", step.max_validation_retries.is_some()),
    ] {
        if is_set {
            let message = format!("a step with `embed` has no `{key}`: its answer is a list of numbers");
            let help = format!("remove `{key}`, or write `prompt` instead of `embed`");
            diagnostics.push_at_step(index, &[key], message, &help);
        }
    }
}

/// Creates a step whose answer is the embedding of `text`. The defaults for answers do not apply to it.
pub(super) fn embedding_step(
    raw: &RawStep,
    defaults: &Defaults,
    (name, route): (StepName, RouteName),
    (text, condition): (TextTemplate, Option<Box<str>>),
) -> Step {
    let options = EmbeddingOptions::new(raw.dimensions);
    Step {
        name,
        fingerprint: fingerprint(raw),
        route,
        optional: raw.optional,
        // The same request has the same answer.
        max_validation_retries: 0,
        deadline: raw.deadline.or(defaults.deadline).unwrap_or(Defaults::DEADLINE),
        max_tokens: None,
        temperature: None,
        settings: AnswerSettings::default(),
        embedding: Some(options),
        max_prompt_bytes: defaults.max_prompt_bytes(),
        validator: AnswerValidator::Embedding(options),
        prompt: text,
        system: None,
        condition,
        attachments: Vec::new(),
        shared_prefix: None,
    }
}

/// Returns the fingerprint of everything that affects the step's answers or decides whether it is skipped.
fn fingerprint(raw: &RawStep) -> Fingerprint {
    let parts = json!(["embed", raw.embed, raw.dimensions, raw.when, raw.optional]);
    Fingerprint::of([parts.to_string().as_bytes()])
}
