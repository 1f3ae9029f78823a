//! `pointsman plan`: what a run is going to take, before it does.

use std::sync::Arc;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};

use crate::config::{Config, Inputs};
use crate::pipeline::Pipeline;
use crate::run::{Ended, Output, Report};
use crate::runtime::{Counted, Error, Keep, LanePlan, Plan, Pointsman, Range, Sample};
use crate::sink::{Format, Sink, Target};
use crate::types::ItemKey;

use super::args::{self, Run};
use super::exit::Exit;
use super::kept::{self, Said};
use super::live::{Live, Mode, say};
use super::pause::PauseArgs;
use super::print::{print, print_json};
use super::run::load;
use super::status::{count, money, numbered, seconds_text};
use super::watch::{End, watch};
use super::{log, place};

/// Foretells a run.
pub(super) fn plan(args: &args::Plan) -> Exit {
    let mode = if args.json { Mode::Json } else { Mode::Lines };
    let config = match load(args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(faults) => return mode.refuse(&faults),
    };
    let title =
        args.pipeline.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let live = Live::new(mode, &title);
    log::start(0, live.bar(), mode);
    // Only a sample needs the keys.
    let asks = args.sample.is_some_and(|number| number > 0);
    let pointsman = if asks { Pointsman::start(&config) } else { Pointsman::start_to_plan(&config) };
    let pointsman = match pointsman {
        Ok(pointsman) => pointsman,
        Err(Error::Faults(faults)) => return mode.refuse(&faults),
        Err(error) => return mode.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    let pipeline = match pointsman.pipeline(&args.pipeline) {
        Ok(pipeline) => pipeline,
        Err(faults) => return mode.refuse(&faults),
    };
    pointsman.notes().iter().for_each(|note| mode.note(note));
    let planned = pointsman.runtime().block_on(foretell(&pointsman, &config, args, pipeline, live));
    match planned.and_then(|plan| show(&plan, args.json)) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = error.downcast_ref::<NotSampled>().map_or(Exit::Broken, |error| error.exit);
            mode.fail(&error, exit)
        }
    }
}

/// The sample was not asked to its end.
#[derive(Debug, thiserror::Error)]
#[error("the sample was not asked to its end: {why}")]
struct NotSampled {
    why: String,
    exit: Exit,
}

impl NotSampled {
    fn of(report: &Report, gave_up: bool) -> Self {
        let errors = [&report.store_error, &report.output_error, &report.input_error];
        let error = errors.into_iter().flatten().next();
        let why = match (&report.paused, report.paused_class, error) {
            (Some(why), class, _) => {
                let class = class.map_or_else(String::new, |class| format!("{class}: "));
                format!("paused: {class}{why}; what was answered is kept, and the same command asks the rest")
            }
            (None, _, Some(error)) => error.clone(),
            (None, _, None) => "it was stopped; the same command asks the rest".to_owned(),
        };
        Self { why, exit: Exit::of(report, gave_up) }
    }
}

async fn foretell(
    pointsman: &Pointsman,
    config: &Config,
    args: &args::Plan,
    pipeline: Pipeline,
    mut live: Live,
) -> anyhow::Result<Plan> {
    let (run, number) = (as_run(args), args.sample.unwrap_or(0));
    let source = place::source(&run).context("--items")?;
    let pipeline = Arc::new(pipeline);
    let counted = pointsman.count(&pipeline, source, number).await?;
    if number == 0 || counted.picked() == 0 {
        return Ok(pointsman.plan(&pipeline, &counted, None));
    }
    live.note(&format!("asking {} for a sample", numbered(counted.picked() as u64, "item")));
    let sample = ask(pointsman, config, args, &pipeline, &counted, &mut live).await?;
    Ok(pointsman.plan(&pipeline, &counted, Some(&sample)))
}

/// Asks the sample, as a part of the run that is going to come.
async fn ask(
    pointsman: &Pointsman,
    config: &Config,
    args: &args::Plan,
    pipeline: &Arc<Pipeline>,
    counted: &Counted,
    live: &mut Live,
) -> anyhow::Result<Sample> {
    let url = kept::url(args.keep.store.as_ref(), config);
    let Some(store) = url.open().await? else {
        bail!("a sample that is not kept would be paid for twice: name a store with --store sqlite:FILE");
    };
    let said = Said::of(&as_run(args))?;
    let keep = Keep {
        places: serde_json::to_value(&said)?,
        accept_changes: args.keep.accept_changes,
        max_cost: args.keep.max_cost,
        pause: PauseArgs::default().options(&config.run),
        partly: true,
        keep_inputs: config.store.inputs == Inputs::All,
        ..Keep::new(store.clone(), said.identity())
    };
    let again = pointsman.pipeline(&args.pipeline).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let kept = pointsman.keep(&again, keep).await?;
    let steps: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let lines = Sink::results(Target::none(), Format::Jsonl, &steps)?;
    let mut run = pointsman.run_kept(again, counted.sample(), Output::new(lines), kept).await?;
    let watched = watch(pointsman, &mut run, live).await;
    live.clear();
    match watched {
        End::Reported(report, false) if report.ended == Ended::Whole => {}
        End::Reported(report, gave_up) => return Err(NotSampled::of(&report, gave_up).into()),
        End::Left => {
            return Err(NotSampled { why: "it was stopped".to_owned(), exit: Exit::Interrupted }.into());
        }
        End::Failed(error) => return Err(error.into()),
    }
    let number = run.number().context("the sample was not kept")?;
    let keys: Vec<ItemKey> = counted.keys();
    Ok(Sample::read(&*store, number, &keys).await?)
}

/// Returns the command that is planned.
fn as_run(args: &args::Plan) -> Run {
    Run {
        pipeline: args.pipeline.clone(),
        items: args.items.clone(),
        out: "-".into(),
        from: args.from,
        to: None,
        csv: args::Csv::default(),
        rejects: None,
        ordered: false,
        report: None,
        config: args.config.clone(),
        simulate: args.simulate,
        overwrite: false,
        keep: args.keep.clone(),
        pause: PauseArgs::default(),
        new: false,
        show: args::Show::default(),
    }
}

fn show(plan: &Plan, json: bool) -> anyhow::Result<()> {
    if json {
        return Ok(print_json(&serde_json::to_string_pretty(plan)?)?);
    }
    print(&words(plan))?;
    let advice = match plan.sampled {
        0 => "how long answers are is a guess; --sample 20 asks twenty items, which the run then has already"
            .to_owned(),
        sampled => format!("{} asked for this are a part of the run", numbered(sampled, "item")),
    };
    say(&advice);
    Ok(())
}

fn words(plan: &Plan) -> String {
    let mut text = vec![format!("{}: {}{}", plan.pipeline, numbered(plan.items, "item"), aside(plan))];
    text.extend(plan.no_calls.as_ref().map(|why| format!("no call is foreseen: {why}")));
    text.push(format!(
        "calls {}; tokens {} in, {} out",
        range(plan.calls),
        range(plan.input),
        range(plan.output)
    ));
    text.push(match (plan.cost_usd, plan.spent_usd) {
        (Some(cost), Some(spent)) => format!("cost {}, of which {} are spent", dollars(cost), money(spent)),
        (Some(cost), None) => format!("cost {}", dollars(cost)),
        (None, _) => "cost unknown: not every price or usage is known".to_owned(),
    });
    text.push(match plan.bounds.first() {
        Some(bound) => format!("time at least {}, by {} of {}", span(bound.seconds), bound.limit, bound.of),
        None => "time unknown: no limit is configured".to_owned(),
    });
    text.extend(
        plan.bounds
            .iter()
            .skip(1)
            .map(|bound| format!("  {} by {} of {}", span(bound.seconds), bound.limit, bound.of)),
    );
    text.push(steps(plan));
    for (route, lanes) in &plan.routes {
        text.push(format!("if one lane of route {route} answered everything:"));
        text.push(side_by_side(lanes));
    }
    text.join("\n")
}

fn aside(plan: &Plan) -> String {
    let mut text = String::new();
    if plan.rejected > 0 {
        text.push_str(&format!(", {} of the input are none", numbered(plan.rejected, "piece")));
    }
    if plan.sampled > 0 {
        text.push_str(&format!(", by a sample of {}", count(plan.sampled)));
    }
    if plan.sample_failed > 0 {
        text.push_str(&format!(" ({} of them failed)", count(plan.sample_failed)));
    }
    text
}

fn steps(plan: &Plan) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["step", "route", "calls", "tokens in", "out", "cost: low", "likely", "high"]);
    for (name, step) in &plan.steps {
        let cost =
            |of: fn(Range) -> f64| step.cost_usd.map_or_else(|| "unknown".into(), |cost| money(of(cost)));
        table.add_row([
            name.to_string(),
            step.route.to_string(),
            whole(step.calls.likely),
            whole(step.input.likely),
            whole(step.output.likely),
            cost(|cost| cost.low),
            cost(|cost| cost.likely),
            cost(|cost| cost.high),
        ]);
    }
    right(&mut table, 2)
}

fn side_by_side(lanes: &[LanePlan]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["lane", "price in", "out", "cost: low", "likely", "high", "had"]);
    for lane in lanes {
        let price =
            |dollars: Option<f64>| dollars.map_or_else(|| "unknown".into(), |dollars| dollars.to_string());
        let cost =
            |of: fn(Range) -> f64| lane.cost_usd.map_or_else(|| "unknown".into(), |cost| money(of(cost)));
        table.add_row([
            format!("{}{}", lane.lane, mark(lane)),
            price(lane.price.map(|price| price.input)),
            price(lane.price.map(|price| price.output)),
            cost(|cost| cost.low),
            cost(|cost| cost.likely),
            cost(|cost| cost.high),
            lane.share.map_or_else(String::new, |share| format!("{:.0}%", share * 100.0)),
        ]);
    }
    right(&mut table, 1)
}

fn mark(lane: &LanePlan) -> &'static str {
    match lane {
        LanePlan { practice: true, .. } => " [simulated]",
        LanePlan { usable: false, .. } => " [no key]",
        _ => "",
    }
}

fn right(table: &mut Table, from: usize) -> String {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn whole(number: f64) -> String {
    count(number.round().max(0.0) as u64)
}

/// Shows a range of counts; one that is certain as one number.
fn range(range: Range) -> String {
    match (whole(range.low), whole(range.likely), whole(range.high)) {
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
