//! `pointsman plan`: estimates the calls, tokens, cost and duration of a run.

use std::sync::Arc;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};

use crate::config::{Config, KeepInputs};
use crate::pipeline::Pipeline;
use crate::run::{Report, ResultPreview, RunOutcome, RunOutput};
use crate::runtime::{Error, InputScan, Plan, Pointsman, Range, ResumeOptions, Sample, StepPlan, TargetPlan};
use crate::sink::{Destination, Format, Sink};
use crate::types::{ItemKey, StepName};

use super::answer_table::{self, TableTarget};
use super::args::{self, Run};
use super::config::{load_for, scope_note};
use super::exit::Exit;
use super::limit::LimitArgs;
use super::metrics::target::MetricsArgs;
use super::open_store::store_url;
use super::output_args::OutputArgs;
use super::pause::PauseArgs;
use super::print::{print, print_json};
use super::progress::{Mode, ProgressDisplay, eprint_line};
use super::progress_format::ProgressFormat;
use super::progress_text::{count, counted, money, seconds_text};
use super::saved_args::SavedArgs;
use super::step_args::{check_step, missing_pipeline};
use super::watch::{WatchEnd, watch};
use super::{io, log, table};

/// Estimates a run.
pub(super) fn plan(args: &args::Plan) -> Exit {
    let mode = if args.json { Mode::Json } else { Mode::Lines };
    let pipeline = args.pipeline.as_deref();
    if let Err(error) = check_step(&args.step, pipeline, &args.items) {
        return mode.fail(&error, Exit::Usage);
    }
    let config = match load_for(&args.step, pipeline, args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(diagnostics) => {
            return mode.report_diagnostics(&missing_pipeline(pipeline).unwrap_or(diagnostics));
        }
    };
    let title = args::title(args.pipeline.as_deref());
    let display = ProgressDisplay::new(mode, ProgressFormat::Auto, &title);
    log::start(args.log, mode);
    // Only a sample needs the keys.
    let has_sample = args.sample.is_some_and(|number| number > 0);
    let pointsman =
        if has_sample { Pointsman::start_blocking(&config) } else { Pointsman::start_to_plan(&config) };
    let pointsman = match pointsman {
        Ok(pointsman) => pointsman,
        Err(Error::Diagnostics(diagnostics)) => {
            return mode.report_diagnostics(&missing_pipeline(pipeline).unwrap_or(diagnostics));
        }
        Err(error) => return mode.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    let overrides = args.step.overrides(&config);
    let pipeline = match pointsman.pipeline_with(args.pipeline.as_deref(), &overrides) {
        Ok(pipeline) => pipeline,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
    };
    let notes = pointsman.notes();
    let notes = notes.iter().map(String::as_str);
    notes.chain(scope_note(&config)).for_each(|note| mode.note(note));
    args.step.constant_prompt_note(&pipeline).iter().for_each(|note| mode.note(note));
    let has_answers = pipeline.steps().iter().any(|step| step.embedding.is_none());
    let planned = pointsman.runtime().block_on(estimate(&pointsman, &config, args, pipeline, display));
    match planned.and_then(|estimate| show(&estimate, has_answers, args.json)) {
        Ok(()) => Exit::Success,
        Err(error) => {
            let exit = error.downcast_ref::<SampleIncomplete>().map_or(Exit::IoError, |error| error.exit);
            mode.fail(&error, exit)
        }
    }
}

/// The run of the sample did not complete.
#[derive(Debug, thiserror::Error)]
#[error("the sample did not complete: {why}")]
struct SampleIncomplete {
    why: String,
    exit: Exit,
}

impl SampleIncomplete {
    fn of(report: &Report, has_fatal_error: bool) -> Self {
        let errors = [&report.store_error, &report.output_error, &report.input_error];
        let error = errors.into_iter().flatten().next();
        let why = match (&report.paused, report.paused_class, error) {
            (Some(why), class, _) => {
                let class = class.map_or_else(String::new, |class| format!("{class}: "));
                let same = if table::run_cap_reached(report) {
                    "the same command with a higher cap (--max-cost)"
                } else {
                    "the same command"
                };
                format!("paused: {class}{why}; the answers are stored, and {same} processes the rest")
            }
            (None, _, Some(error)) => error.clone(),
            (None, _, None) => "it was stopped; the same command processes the rest".to_owned(),
        };
        Self { why, exit: Exit::of(report, has_fatal_error) }
    }
}

/// A plan, with the answers of its sample.
struct Estimate {
    plan: Plan,
    answers: Option<ResultPreview>,
}

async fn estimate(
    pointsman: &Pointsman,
    config: &Config,
    args: &args::Plan,
    pipeline: Pipeline,
    mut display: ProgressDisplay,
) -> anyhow::Result<Estimate> {
    let run = run_args(args);
    let number = args.sample.unwrap_or(0);
    let source = io::source(&run).context("--items")?;
    let pipeline = Arc::new(pipeline);
    let scan = pointsman.scan_input(&pipeline, source, number).await?;
    if number == 0 || scan.sample_size() == 0 {
        return Ok(Estimate { plan: pointsman.plan(&pipeline, &scan, None), answers: None });
    }
    display.note(&format!("processing {} as a sample", counted(scan.sample_size() as u64, "item")));
    let answers = answer_table::preview(scan.sample_size() as u64);
    let sample = run_sample(pointsman, config, args, &pipeline, &scan, &answers, &mut display).await?;
    Ok(Estimate { plan: pointsman.plan(&pipeline, &scan, Some(&sample)), answers: Some(answers) })
}

/// Processes the sample, as a part of the later run.
async fn run_sample(
    pointsman: &Pointsman,
    config: &Config,
    args: &args::Plan,
    pipeline: &Arc<Pipeline>,
    scan: &InputScan,
    answers: &ResultPreview,
    display: &mut ProgressDisplay,
) -> anyhow::Result<Sample> {
    let url = store_url(args.stored.store.as_ref(), config);
    let Some(store) = url.open().await? else {
        bail!("a sample that is not stored would be paid for twice: name a store with --store sqlite:FILE");
    };
    let saved = SavedArgs::of(&run_args(args))?;
    let options = ResumeOptions {
        command: serde_json::to_value(&saved)?,
        accept_changes: args.stored.accept_changes,
        max_cost: args.stored.max_cost,
        pause: PauseArgs::default().options(&config.run),
        partial: true,
        keep_inputs: config.store.keep_inputs == KeepInputs::All,
        cache: args.cache.mode(&config.run),
        cache_limits: config.store.cache_limits(),
        ..ResumeOptions::new(store.clone(), saved.identity())
    };
    let run_pipeline = pointsman.pipeline_with(args.pipeline.as_deref(), &args.step.overrides(config));
    let mut run_pipeline = run_pipeline.map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
    io::protect(&mut run_pipeline, &run_args(args));
    let prepared = pointsman.prepare_run(&run_pipeline, options).await?;
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let lines = Sink::results(Destination::none(), Format::Jsonl, &steps)?;
    let output = RunOutput::new(lines).with_preview(answers.clone());
    let mut run = pointsman.run_stored(run_pipeline, scan.sample(), output, prepared).await?;
    let watched = watch(pointsman, &mut run, display).await;
    display.clear();
    match watched {
        WatchEnd::Reported(report, false) if report.outcome == RunOutcome::Completed => {}
        WatchEnd::Reported(report, has_fatal_error) => {
            return Err(SampleIncomplete::of(&report, has_fatal_error).into());
        }
        WatchEnd::Abandoned => {
            return Err(SampleIncomplete { why: "it was stopped".to_owned(), exit: Exit::Interrupted }.into());
        }
        WatchEnd::Failed(error) => return Err(error.into()),
    }
    let number = run.id().context("the sample was not stored")?;
    let keys: Vec<ItemKey> = scan.keys();
    Ok(Sample::read(&*store, number, &keys).await?)
}

/// Returns the arguments of the run that is planned.
pub(super) fn run_args(args: &args::Plan) -> Run {
    Run {
        pipeline: args.pipeline.clone(),
        items: args.items.clone(),
        out: "-".into(),
        input: args.input.clone(),
        input_format: args.input_format,
        output_format: None,
        csv: args::Csv::default(),
        output: OutputArgs::default(),
        rejects: None,
        ordered: false,
        report: None,
        config: args.config.clone(),
        simulate: args.simulate,
        overwrite: false,
        stored: args.stored.clone(),
        pause: PauseArgs::default(),
        new: false,
        metrics: MetricsArgs::default(),
        show: args::Show::default(),
        step: args.step.clone(),
        limit: LimitArgs::default(),
        cache: args.cache,
    }
}

/// Prints the plan. `has_answers` is whether any step has an answer with output tokens: an embedding has none.
fn show(estimate: &Estimate, has_answers: bool, json: bool) -> anyhow::Result<()> {
    let plan = &estimate.plan;
    if json {
        return Ok(print_json(&serde_json::to_string_pretty(plan)?)?);
    }
    print(&plan_text(plan))?;
    if let Some(answers) =
        estimate.answers.as_ref().and_then(|answers| answer_table::text(answers, TableTarget::Stdout))
    {
        print(&format!("answers of the sample:\n{answers}"))?;
    }
    let advice = match plan.sampled {
        0 => {
            let guess =
                if has_answers { "the length of the answers is a guess" } else { "the tokens are estimated" };
            format!("{guess}; --sample 20 processes 20 items, which become part of the run")
        }
        sampled => format!("{} of the sample are part of the run", counted(sampled, "item")),
    };
    eprint_line(&advice);
    Ok(())
}

pub(super) fn plan_text(plan: &Plan) -> String {
    let mut text = vec![format!("{}: {}{}", plan.pipeline, counted(plan.items, "item"), input_notes(plan))];
    text.extend(plan.no_calls.as_ref().map(|why| format!("no call is expected: {why}")));
    text.push(format!(
        "calls {}{}; tokens {} in, {} out",
        range(plan.calls),
        joined_note(plan),
        range(plan.input),
        range(plan.output)
    ));
    text.push(match (plan.cost_usd, plan.spent_usd) {
        (Some(cost), Some(spent)) => format!("cost {}, of which {} is spent", dollars(cost), money(spent)),
        (Some(cost), None) => format!("cost {}", dollars(cost)),
        (None, _) => "cost unknown: not every price or usage is known".to_owned(),
    });
    text.push(match plan.bounds.first() {
        Some(bound) => {
            format!("time at least {}, by {} of {}", span(bound.seconds), bound.limit, bound.limit_of)
        }
        None => "time unknown: no limit is configured".to_owned(),
    });
    text.extend(
        plan.bounds
            .iter()
            .skip(1)
            .map(|bound| format!("  {} by {} of {}", span(bound.seconds), bound.limit, bound.limit_of)),
    );
    text.push(step_table(plan));
    text.extend(plan.steps.iter().filter_map(|(name, step)| unusable_line(plan, name, step)));
    text.extend(plan.steps.iter().filter_map(|(name, step)| cache_line(name, step)));
    text.extend(plan.steps.iter().filter_map(|(name, step)| joined_line(name, step)));
    for (route, targets) in &plan.routes {
        text.push(format!("if one target of route {route} answered all requests:"));
        text.push(target_table(targets));
    }
    text.join("\n")
}

fn input_notes(plan: &Plan) -> String {
    let mut text = String::new();
    if plan.rejected > 0 {
        text.push_str(&format!(", {} of the input rejected", counted(plan.rejected, "record")));
    }
    if plan.sampled > 0 {
        text.push_str(&format!(", from a sample of {}", count(plan.sampled)));
    }
    if plan.sample_failed > 0 {
        text.push_str(&format!(" ({} of them failed)", count(plan.sample_failed)));
    }
    text
}

fn step_table(plan: &Plan) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["step", "route", "calls", "tokens in", "out", "cost: low", "likely", "high"]);
    for (name, step) in &plan.steps {
        let cost =
            |of: fn(Range) -> f64| step.cost_usd.map_or_else(|| "unknown".into(), |cost| money(of(cost)));
        table.add_row([
            name.to_string(),
            step.route.to_string(),
            rounded(step.calls.likely),
            rounded(step.input.likely),
            rounded(step.output.likely),
            cost(|cost| cost.low),
            cost(|cost| cost.likely),
            cost(|cost| cost.high),
        ]);
    }
    right_aligned(&mut table, 2)
}

/// Returns that no target of a step has a key, so that its cost is that of the first one; `None` if any has.
fn unusable_line(plan: &Plan, name: &StepName, step: &StepPlan) -> Option<String> {
    let at = step.estimated_at.as_ref()?;
    let target = plan.routes.get(&step.route)?.iter().find(|target| target.target == *at)?;
    (!target.usable).then(|| format!("no target of step {name} has a key: its cost is that of {at}"))
}

/// Returns how the requests of a step use the provider's cache; `None` if they share too little.
fn cache_line(name: &StepName, step: &StepPlan) -> Option<String> {
    let cache = step.cache.as_ref()?;
    let tokens = count(cache.shared_tokens);
    let shared = format!("the requests of step {name} share {tokens} tokens");
    Some(match (cache.cached, cache.min_tokens) {
        (true, _) => {
            let cost = step.cost_usd.zip(cache.uncached_cost_usd);
            let cost = cost
                .map(|(with, without)| format!(": cost {} instead of {}", dollars(with), dollars(without)));
            format!("{shared}, which are cached{}", cost.unwrap_or_default())
        }
        (false, Some(min_tokens)) if cache.shared_tokens < min_tokens => {
            format!("{shared}, which are not cached: the provider needs {}", count(min_tokens))
        }
        (false, _) => format!("{shared}, which are not cached"),
    })
}

/// Returns the fewest calls of a plan with joined requests; empty without any.
fn joined_note(plan: &Plan) -> String {
    if plan.steps.values().all(|step| step.joined.is_none()) {
        return String::new();
    }
    let min_calls = plan.steps.values().map(StepPlan::min_calls).sum();
    format!(", at least {} when joined", range(min_calls))
}

/// Returns how the requests of a step for embeddings are joined; `None` if none are.
fn joined_line(name: &StepName, step: &StepPlan) -> Option<String> {
    let joined = step.joined?;
    let texts = counted(joined.max_inputs, "text");
    let calls = range(joined.min_calls);
    Some(format!(
        "the requests of step {name} are joined into calls of at most {texts}: {calls} if each call is full, \
         more if fewer items are ready at the same time"
    ))
}

fn target_table(targets: &[TargetPlan]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["target", "price in", "out", "cost: low", "likely", "high", "share"]);
    for target in targets {
        let price =
            |dollars: Option<f64>| dollars.map_or_else(|| "unknown".into(), |dollars| dollars.to_string());
        let cost =
            |of: fn(Range) -> f64| target.cost_usd.map_or_else(|| "unknown".into(), |cost| money(of(cost)));
        table.add_row([
            format!("{}{}", target.target, target_note(target)),
            price(target.price.map(|price| price.input)),
            price(target.price.map(|price| price.output)),
            cost(|cost| cost.low),
            cost(|cost| cost.likely),
            cost(|cost| cost.high),
            target.share.map_or_else(String::new, |share| format!("{:.0}%", share * 100.0)),
        ]);
    }
    right_aligned(&mut table, 1)
}

fn target_note(target: &TargetPlan) -> &'static str {
    match target {
        TargetPlan { simulated: true, .. } => " [simulated]",
        TargetPlan { usable: false, .. } => " [no key]",
        _ => "",
    }
}

fn right_aligned(table: &mut Table, from: usize) -> String {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn rounded(number: f64) -> String {
    count(number.round().max(0.0) as u64)
}

/// Formats a range of counts; a certain one as one number.
fn range(range: Range) -> String {
    match (rounded(range.low), rounded(range.likely), rounded(range.high)) {
        (low, likely, high) if low == high => likely,
        (low, likely, high) => format!("{likely} ({low} to {high})"),
    }
}

fn dollars(range: Range) -> String {
    match (money(range.low), money(range.likely), money(range.high)) {
        (low, likely, high) if low == high => likely,
        (low, likely, high) => format!("{likely} ({low} to {high})"),
    }
}

fn span(range: Range) -> String {
    match (seconds_text(range.low), seconds_text(range.likely), seconds_text(range.high)) {
        (low, likely, high) if low == high => likely,
        (low, likely, high) => format!("{likely} ({low} to {high})"),
    }
}
