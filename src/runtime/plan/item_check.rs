//! Renders the templates of every item of an input without sending a request: finds what the items lack, and shows the
//! first prompts.
//!
//! Memory does not grow with the input: equal faults are counted, and the number of distinct ones is limited.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use crate::pipeline::{Attachment, CheckedStep, Pipeline, StepCheck, StepRequest, TemplateFault};
use crate::runtime::error::Error;
use crate::runtime::pointsman::Pointsman;
use crate::source::{self, Entry, Source};
use crate::types::{ItemKey, MediaData, Part, Prompt, StepName};

use super::plan::Plan;
use super::rendered_prompts::simulated_answer;

/// Most distinct faults that are kept.
const MAX_FAULTS: usize = 100;

/// Most bytes of a prompt that are kept.
const MAX_PROMPT_BYTES: usize = 16 << 10;

/// What was found when the templates of every item were rendered.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ItemCheck {
    /// The estimate of a run of these items.
    pub plan: Plan,
    /// Items for which a template cannot be rendered.
    pub failing_items: u64,
    /// Why, each reason once, in the order in which they were found.
    pub faults: Vec<ItemFault>,
    /// Whether there are more reasons than are kept.
    pub has_more_faults: bool,
    /// The first record of the input that is not a valid item, with the reason.
    pub first_reject: Option<String>,
    /// The first rendered prompts of each step, in the pipeline's order. None if the step has no request for any item.
    pub prompts: IndexMap<StepName, Vec<RenderedPrompt>>,
}

/// Why a template cannot be rendered for some items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ItemFault {
    /// The step whose template it was first.
    pub step: StepName,
    /// The path of the value that does not exist, such as `item.name`; `None` for another reason.
    pub undefined: Option<String>,
    /// The reason for the first item, with the step, the template and its line.
    pub message: String,
    /// How many items have it.
    pub items: u64,
    /// The line of the input on which the first item begins.
    pub first_line: u64,
    /// The key of the first item.
    pub first_key: ItemKey,
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RenderedPrompt {
    /// The line of the input on which the item begins.
    pub line: u64,
    /// The key of the item.
    pub key: ItemKey,
    /// The system prompt.
    pub system: Option<String>,
    /// The text of the prompt, or the text to embed. Only its beginning, if it is long.
    pub text: String,
    /// Bytes of the prompts that are left out.
    pub bytes_left_out: usize,
    /// The files and addresses to attach.
    pub attachments: Vec<String>,
    /// The steps whose answers are placeholders in it.
    pub placeholders: Vec<StepName>,
}

impl Pointsman {
    /// Reads an input to its end and renders the templates of every item. Answers that a template needs are placeholders.
    /// Keeps the first `show` prompts of each step. Sends no request, and loads no attachment.
    ///
    /// # Errors
    /// If the input cannot be read.
    #[doc(hidden)]
    pub async fn check_items(
        &self,
        pipeline: &Arc<Pipeline>,
        source: Source,
        show: usize,
    ) -> Result<ItemCheck, Error> {
        let mut findings = Findings::new(pipeline.clone(), show);
        let scan = self.scan_and_visit(pipeline, source, 0, |item| findings.add(item)).await?;
        let plan = self.plan(pipeline, &scan, None);
        Ok(ItemCheck {
            plan,
            failing_items: findings.failing_items,
            faults: findings.faults,
            has_more_faults: findings.has_more_faults,
            first_reject: scan.first_reject,
            prompts: findings.prompts,
        })
    }
}

/// Returns the columns that templates use and a table does not have, each with the reason, from its first row. Every row
/// of a table has the same columns. Returns nothing if the table has no row.
///
/// # Errors
/// If the input cannot be read.
#[doc(hidden)]
pub async fn unknown_columns(pipeline: &Pipeline, table: Source) -> Result<Vec<TemplateFault>, Error> {
    let mut reader = table.read().map_err(Error::Source)?;
    while let Some(entry) = reader.next().await {
        let Entry::Item(item) = entry.map_err(Error::Source)? else { continue };
        if pipeline.validate_item(&item.value).is_err() {
            continue;
        }
        let checked = pipeline.check_item(&item.value, |step| simulated_answer(step, item.number));
        let faults = checked.into_iter().flat_map(|checked| match checked.check {
            StepCheck::Failed(faults) => faults,
            StepCheck::Request(_) | StepCheck::Skipped => Vec::new(),
        });
        let is_column = |fault: &TemplateFault| {
            let name = fault.undefined.as_deref().and_then(|path| path.strip_prefix("item."));
            name.is_some_and(|name| !name.contains('.'))
        };
        return Ok(faults.filter(is_column).collect());
    }
    Ok(Vec::new())
}

/// What was found so far.
struct Findings {
    pipeline: Arc<Pipeline>,
    show: usize,
    failing_items: u64,
    faults: Vec<ItemFault>,
    has_more_faults: bool,
    prompts: IndexMap<StepName, Vec<RenderedPrompt>>,
}

impl Findings {
    fn new(pipeline: Arc<Pipeline>, show: usize) -> Self {
        let prompts = pipeline.steps().iter().map(|step| (step.name.clone(), Vec::new())).collect();
        Self { pipeline, show, failing_items: 0, faults: Vec::new(), has_more_faults: false, prompts }
    }

    fn add(&mut self, item: &source::Item) {
        let pipeline = self.pipeline.clone();
        let checked = pipeline.check_item(&item.value, |step| simulated_answer(step, item.number));
        let has_failed = checked.iter().any(|checked| matches!(checked.check, StepCheck::Failed(_)));
        self.failing_items += u64::from(has_failed);
        for CheckedStep { step, check } in checked {
            let Some(name) = pipeline.steps().get(step).map(|step| &step.name) else { continue };
            match check {
                // The prompts of an item that lacks a field have a placeholder for it.
                StepCheck::Request(_) if has_failed => {}
                StepCheck::Request(request) => self.show(name, item, &request),
                StepCheck::Skipped => {}
                StepCheck::Failed(faults) => {
                    faults.into_iter().for_each(|fault| self.count(name, item, fault));
                }
            }
        }
    }

    fn count(&mut self, step: &StepName, item: &source::Item, fault: TemplateFault) {
        let is_same = |known: &&mut ItemFault| match (&known.undefined, &fault.undefined) {
            (Some(one), Some(other)) => one == other,
            (None, None) => known.message == fault.message,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if let Some(known) = self.faults.iter_mut().find(is_same) {
            known.items += 1;
            return;
        }
        if self.faults.len() >= MAX_FAULTS {
            self.has_more_faults = true;
            return;
        }
        self.faults.push(ItemFault {
            step: step.clone(),
            undefined: fault.undefined,
            message: fault.message,
            items: 1,
            first_line: item.line,
            first_key: item.key.clone(),
        });
    }

    fn show(&mut self, name: &StepName, item: &source::Item, request: &StepRequest) {
        let placeholders = self.pipeline.needs(request.step).iter();
        let placeholders = placeholders.filter_map(|step| self.pipeline.steps().get(*step));
        let placeholders: Vec<StepName> = placeholders.map(|step| step.name.clone()).collect();
        let Some(shown) = self.prompts.get_mut(name).filter(|shown| shown.len() < self.show) else { return };
        let Prompt { system, .. } = &*request.prompt;
        let mut left_out = 0;
        let mut beginning = |text: &str| {
            let shown = &text[..text.floor_char_boundary(MAX_PROMPT_BYTES)];
            left_out += text.len() - shown.len();
            shown.to_owned()
        };
        let system = system.as_deref().map(&mut beginning);
        let text = beginning(&text_of(&request.prompt));
        shown.push(RenderedPrompt {
            line: item.line,
            key: item.key.clone(),
            system,
            text,
            bytes_left_out: left_out,
            attachments: request.attachments.iter().map(attachment_name).collect(),
            placeholders,
        });
    }
}

/// Returns the text of a prompt, or the text to embed.
fn text_of(prompt: &Prompt) -> String {
    let parts = prompt.messages.iter().flat_map(|message| &message.parts);
    let texts = parts.filter_map(|part| match part {
        Part::Text(text) => Some(&**text),
        // The prompt of a step has no other parts before its attachments are loaded.
        Part::Image(_)
        | Part::Document(_)
        | Part::Audio(_)
        | Part::Video(_)
        | Part::ToolCall(_)
        | Part::ToolResult(_)
        | Part::Reasoning(_) => None,
    });
    texts.collect()
}

/// Returns the path or the URL of an attachment, or its media type if the item contains it.
fn attachment_name(attachment: &Attachment) -> String {
    match attachment {
        Attachment::File(file) => file.path.display().to_string(),
        Attachment::Ready(
            Part::Image(media) | Part::Document(media) | Part::Audio(media) | Part::Video(media),
        ) => match &media.data {
            MediaData::Url(url) => url.to_string(),
            MediaData::Base64(_) => format!("inline {}", media.media_type),
        },
        Attachment::Ready(Part::Text(_) | Part::ToolCall(_) | Part::ToolResult(_) | Part::Reasoning(_)) => {
            "inline text".to_owned()
        }
    }
}
