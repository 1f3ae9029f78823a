//! Puts a run's report into a table for people. Pure: it prints nothing.

use comfy_table::{CellAlignment, Table, presets};

use crate::pipeline::run::{Ended, ErrorCount, Part, Report};
use crate::types::Class;

use super::status::{count, money, seconds_text};

/// Returns the report as text.
pub(super) fn report(report: &Report) -> String {
    let mut text = vec![headline(report)];
    let parts = report.steps.iter().map(|(step, part)| (format!("step {step}"), part));
    let lanes = report.lanes.iter().map(|(lane, part)| (lane.clone(), part));
    let parts: Vec<(String, &Part)> = parts.chain(lanes).filter(|(_, part)| part.calls > 0).collect();
    if !parts.is_empty() {
        text.push(table_of(&parts));
    }
    for (title, errors) in [("items failed of", &report.errors), ("calls failed of", &report.failed_calls)] {
        if !errors.is_empty() {
            text.push(errors_of(title, errors.iter()));
        }
    }
    if let Some(reject) = &report.first_reject {
        text.push(format!("first rejected: {reject}"));
    }
    if report.practice {
        text.push(
            "PRACTICE: a played provider on this machine answered; the answers are made up.".to_owned(),
        );
    }
    for error in [&report.input_error, &report.output_error].into_iter().flatten() {
        text.push(format!("error: {error}"));
    }
    text.join("\n")
}

fn headline(report: &Report) -> String {
    let items = &report.items;
    let mut counts = Vec::new();
    for (number, what) in [
        (items.completed, "completed"),
        (items.failed, "failed"),
        (items.skipped, "skipped"),
        (items.rejected, "rejected"),
        (items.unfinished, "unfinished"),
        (items.unwritten, "unwritten"),
    ] {
        if number > 0 || what == "completed" {
            counts.push(format!("{} {what}", count(number)));
        }
    }
    let ended = match report.ended {
        Ended::Whole => "",
        Ended::Interrupted => " (interrupted)",
        Ended::Broken => " (broken off)",
    };
    let rate =
        items.success_rate().map_or_else(String::new, |rate| format!(" ({:.1}% success)", rate * 100.0));
    let calls = &report.calls;
    let unknown = match report.calls_of_unknown_cost {
        0 => String::new(),
        calls => format!(" (and {} calls of unknown cost)", count(calls)),
    };
    let twice = match calls.maybe_charged {
        0 => String::new(),
        calls => format!(", {} perhaps paid for nothing", count(calls)),
    };
    format!(
        "{}{ended}: {}{rate} in {}, {:.1} items/s\n{} calls: {} answered, {} failed ({} 429){twice}; {} failovers, {} re-asked\ntokens {} in ({} cached), {} out ({} reasoning); cost {}{unknown}\nitem time: average {}, p50 {}, p95 {}, p99 {}",
        report.pipeline,
        counts.join(", "),
        seconds_text(report.seconds),
        report.items_per_second,
        count(calls.made),
        count(calls.answered),
        count(calls.failed),
        count(calls.throttled),
        count(calls.failovers),
        count(calls.reasked),
        count(report.tokens.input.0),
        count(report.tokens.cached.0),
        count(report.tokens.output.0),
        count(report.tokens.reasoning.0),
        money(report.cost_usd),
        seconds_text(report.item_seconds.average),
        seconds_text(report.item_seconds.p50),
        seconds_text(report.item_seconds.p95),
        seconds_text(report.item_seconds.p99),
    )
}

fn table_of(parts: &[(String, &Part)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "",
        "calls",
        "failed",
        "average",
        "p50",
        "p95",
        "p99",
        "waited p95",
        "tokens in",
        "out",
        "cost",
    ]);
    for (name, part) in parts {
        let times = &part.seconds;
        table.add_row([
            name.clone() + if part.practice { " [practice]" } else { "" },
            count(part.calls),
            count(part.failed),
            seconds_text(times.average),
            seconds_text(times.p50),
            seconds_text(times.p95),
            seconds_text(times.p99),
            seconds_text(part.waited.p95),
            count(part.tokens.input.0),
            count(part.tokens.output.0),
            money(part.cost_usd),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn errors_of<'a>(title: &str, errors: impl Iterator<Item = (&'a Class, &'a ErrorCount)>) -> String {
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by_key(|(_, error)| std::cmp::Reverse(error.count));
    let lines = errors
        .iter()
        .map(|(class, error)| format!("\n  {} {class}, such as: {}", count(error.count), error.example));
    format!("{title}:{}", lines.collect::<String>())
}
