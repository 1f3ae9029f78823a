//! `pointsman check --items`: renders the templates of every item, without a request.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::runtime::{Error, ItemCheck, ItemFault, Pointsman, RenderedPrompt};
use crate::types::StepName;

use super::args::{self, Check, LogArgs, StoredRunArgs};
use super::cache_args::CacheArgs;
use super::exit::Exit;
use super::io;
use super::plan::{plan_text, run_args};
use super::print::print;
use super::progress::{Mode, eprint_line};
use super::progress_text::{count, counted};

/// Most characters of a prompt that are shown.
const MAX_SHOWN_CHARACTERS: usize = 4_000;

/// Most faults that are shown.
const MAX_SHOWN_FAULTS: usize = 20;

/// Why the items could not be checked.
pub(super) enum Failed {
    /// The configuration or the pipeline has problems.
    Faulty(Diagnostics),
    /// Something else failed.
    Other(anyhow::Error, Exit),
}

impl From<Diagnostics> for Failed {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Faulty(diagnostics)
    }
}

impl Failed {
    /// Shows it as text.
    pub(super) fn show(&self) -> Exit {
        match self {
            Self::Faulty(diagnostics) => Mode::Lines.report_diagnostics(diagnostics),
            Self::Other(error, exit) => Mode::Lines.fail(error, *exit),
        }
    }
}

/// What was found in the items.
pub(super) struct CheckedItems {
    pub(super) checked: ItemCheck,
    /// A note on a prompt that is the same for every item.
    pub(super) note: Option<String>,
}

/// Checks the items of a file against a pipeline.
pub(super) fn check_items(
    args: &Check,
    config: &Config,
    pipeline: Option<&Path>,
    items: &Path,
) -> Result<CheckedItems, Failed> {
    let pointsman = Pointsman::start_to_plan(config).map_err(|error| match error {
        Error::Diagnostics(diagnostics) => Failed::Faulty(diagnostics),
        error => Failed::Other(error.into(), Exit::Configuration),
    })?;
    let pipeline = Arc::new(pointsman.pipeline_with(pipeline, &args.step.overrides(config))?);
    let source = io::source(&run_args(&plan_args(args, items))).context("--items");
    let source = source.map_err(|error| Failed::Other(error, Exit::IoError))?;
    let for_csv = pipeline.csv_diagnostics();
    if source.is_csv() && !for_csv.0.is_empty() {
        Mode::Lines.note("the items are CSV, in which every field is a string");
        return Err(for_csv.clone().into());
    }
    let checked = pointsman.runtime().block_on(pointsman.check_items(&pipeline, source, args.show));
    let checked = checked.map_err(|error| Failed::Other(error.into(), Exit::IoError))?;
    Ok(CheckedItems { checked, note: args.step.constant_prompt_note(&pipeline) })
}

/// Shows what a run would send, and what the items lack. Returns the exit code.
pub(super) fn show_items(args: &Check, checked: &ItemCheck, items: &Path) -> Exit {
    if let Err(error) = show(checked, args.show) {
        return Mode::Lines.fail(&error, Exit::IoError);
    }
    conclude(checked, items);
    exit_code(checked)
}

/// Returns the exit code of a check.
pub(super) fn exit_code(checked: &ItemCheck) -> Exit {
    if checked.failing_items > 0 || checked.plan.rejected > 0 { Exit::ItemsFailed } else { Exit::Success }
}

/// Returns the arguments of a plan for the same items.
fn plan_args(args: &Check, items: &Path) -> args::Plan {
    args::Plan {
        pipeline: args.pipelines.first().cloned(),
        items: items.to_owned(),
        input_format: args.input_format,
        sample: None,
        config: args.config.clone(),
        simulate: args.simulate,
        stored: StoredRunArgs::default(),
        json: false,
        log: LogArgs::default(),
        input: args.input.clone(),
        step: args.step.clone(),
        cache: CacheArgs::default(),
    }
}

/// Prints the prompts and the estimate.
fn show(checked: &ItemCheck, prompts: usize) -> anyhow::Result<()> {
    for (step, shown) in checked.prompts.iter().filter(|_| prompts > 0) {
        if shown.is_empty() {
            print(&format!("step {step}: no prompt, because its condition is false or every item fails"))?;
        }
        for prompt in shown {
            print(&prompt_text(step, prompt))?;
        }
    }
    print(&plan_text(&checked.plan))?;
    Ok(())
}

/// Formats a prompt under a line that says whose it is.
fn prompt_text(step: &StepName, prompt: &RenderedPrompt) -> String {
    let RenderedPrompt { line, key, .. } = prompt;
    let mut text = format!("step {step}, line {line}, item {key}");
    if !prompt.placeholders.is_empty() {
        let steps: Vec<&str> = prompt.placeholders.iter().map(StepName::as_str).collect();
        text.push_str(&format!(", with a placeholder for the answer of {}", steps.join(", ")));
    }
    text.push(':');
    let mut left_out = prompt.bytes_left_out;
    let mut add = |title: &str, content: &str| {
        let shown: String = content.chars().take(MAX_SHOWN_CHARACTERS).collect();
        left_out += content.len() - shown.len();
        text.push_str(&format!("\n  [{title}]"));
        shown.lines().for_each(|line| text.push_str(&format!("\n  {line}")));
    };
    prompt.system.iter().for_each(|system| add("system", system));
    prompt.attachments.iter().for_each(|attachment| add("attached", attachment));
    add("prompt", &prompt.text);
    if left_out > 0 {
        text.push_str(&format!("\n  … ({} more)", counted(left_out as u64, "byte")));
    }
    text
}

/// Shows what the items lack.
fn conclude(checked: &ItemCheck, items: &Path) {
    let plan = &checked.plan;
    for fault in checked.faults.iter().take(MAX_SHOWN_FAULTS) {
        eprint_line(&fault_text(fault));
    }
    let more = checked.faults.len().saturating_sub(MAX_SHOWN_FAULTS);
    match (more, checked.has_more_faults) {
        (0, false) => {}
        (more, false) => eprint_line(&format!("and {}", counted(more as u64, "more reason"))),
        (more, true) => eprint_line(&format!("and more than {}", counted(more as u64, "more reason"))),
    }
    if let Some(reject) = &checked.first_reject {
        let rejected = counted(plan.rejected, "record");
        eprint_line(&format!("{rejected} of the input would be rejected, such as {reject}"));
    }
    let items = items.display();
    let of = counted(plan.items, "item");
    if checked.failing_items > 0 {
        let failing = count(checked.failing_items);
        eprint_line(&format!("{items}: {failing} of {of} would fail before a request"));
    } else {
        eprint_line(&format!("{items}: {of}, all templates can be rendered"));
    }
}

/// Formats a fault with the number of its items.
fn fault_text(fault: &ItemFault) -> String {
    let items = counted(fault.items, "item");
    let ItemFault { message, first_line, first_key, .. } = fault;
    format!("error: {message} ({items}, the first on line {first_line}: {first_key})")
}
