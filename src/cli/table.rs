//! Formats a run's report as text. Pure: it prints nothing.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use console::truncate_str;

use crate::run::{CacheReport, Cap, CapScope, ErrorCount, GroupReport, Report, RunOutcome, Unprocessed};
use crate::terminal_text;
use crate::types::Class;

use super::progress_text::{cost, count, counted, money, seconds_text, spent_of, with_separators};

/// The most columns of a report's table.
const TABLE_WIDTH: u16 = 100;

/// The columns of a report's table that a narrower terminal does not show.
const WIDE_COLUMNS: [&str; 3] = ["\np50", "\np99", "queued\np95"];

/// Returns the report as text.
pub(super) fn report(report: &Report) -> String {
    report_in(report, None)
}

/// Returns the report as text, for a terminal of this width if one is given: there the table has fewer columns, and the
/// messages of failures are truncated.
pub(super) fn report_in(report: &Report, width: Option<usize>) -> String {
    let mut text = vec![headline(report)];
    let steps = report.steps.iter().map(|(step, group)| (step.to_string(), group));
    let targets = report.targets.iter().map(|(target, group)| {
        (format!("{target}{}", if group.simulated { " [simulated]" } else { "" }), group)
    });
    let groups: Vec<(String, &GroupReport)> =
        steps.chain(targets).filter(|(_, group)| group.calls > 0).collect();
    if !groups.is_empty() {
        text.push(group_table(&groups, width));
    }
    if !report.failed_calls.is_empty() {
        text.push(error_list("failed calls by class", report.failed_calls.iter(), width));
    }
    if report.simulated {
        text.push("SIMULATED: the simulator on this machine answered; no answer is real.".to_owned());
    }
    // Last, next to the prompt of the shell.
    text.extend(problems_in(report, width));
    text.join("\n")
}

/// Returns the problems with items and files.
pub(super) fn problems(report: &Report) -> Vec<String> {
    problems_in(report, None)
}

fn problems_in(report: &Report, width: Option<usize>) -> Vec<String> {
    let mut problems = Vec::new();
    if !report.errors.is_empty() {
        problems.push(error_list("failed items by class", report.errors.iter(), width));
    }
    if let Some(reject) = &report.first_reject {
        let rejected = counted(report.items.rejected, "record");
        problems.push(format!("{rejected} of the input rejected, such as {}", terminal_text::line(reject)));
    }
    if report.items.missing_from_input > 0 {
        let items = counted(report.items.missing_from_input, "item");
        problems.push(format!(
            "{items} of earlier sessions {} not in the input any more, and {} no line",
            if report.items.missing_from_input == 1 { "is" } else { "are" },
            if report.items.missing_from_input == 1 { "has" } else { "have" },
        ));
    }
    if report.items.not_processed > 0 {
        let items = counted(report.items.not_processed, "item");
        problems
            .push(format!("{items} not processed yet: new, changed since they finished, or never started"));
    }
    if report.items.unfinished > 0 && !is_end_unknown(report) {
        let items = counted(report.items.unfinished, "item");
        problems.push(format!("{items} {}", cancelled(report.calls.possibly_charged)));
    }
    if let Some(why) = &report.paused {
        problems.push(paused(why, report));
    }
    // The user limited the run, and knows that there is more.
    if let Some(rest) = report.unprocessed.as_ref().filter(|_| report.outcome != RunOutcome::Limited) {
        problems.push(if is_end_unknown(report) {
            "it is not known how much of the input was not started".to_owned()
        } else {
            unprocessed(rest, report.input_error.is_some())
        });
    }
    if report.lost_session {
        let text = "the end of a session is not stored: its last calls are not recorded, and its duration is not known";
        problems.push(text.to_owned());
    }
    if let Some(name) = &report.unreplaced_output {
        let advice = if report.stored {
            "Resume the run, or write the finished items with `pointsman results`"
        } else {
            "Nothing was stored: run the items again"
        };
        problems.push(format!(
            "{name} is unchanged: this session ended before it had written all the lines that were in it. {advice}"
        ));
    }
    if let Some(unsaved) = &report.unsaved {
        let items = counted(unsaved.items, "item");
        let cost = money(unsaved.cost_usd);
        let was = if unsaved.items == 1 { "was" } else { "were" };
        problems.push(format!(
            "{items} {was} answered and could not be stored, at a known cost of {cost}: they are processed again when the \
             run is resumed"
        ));
    }
    problems.extend(io_errors(report).map(|error| format!("error: {}", terminal_text::line(error))));
    if report.output_error.is_some() && !report.stored && !report.output_closed {
        problems.push(
            "nothing was stored: a new start needs --overwrite, and processes every item again".to_owned(),
        );
    }
    problems
}

/// Returns what became of items that were aborted, of whose calls `possibly_charged` may be charged.
fn cancelled(possibly_charged: u64) -> &'static str {
    if possibly_charged > 0 {
        "cancelled in progress, without a line; their calls may be charged"
    } else {
        "cancelled in progress, without a line"
    }
}

/// Returns the errors of the input, the output and the store.
pub(super) fn io_errors(report: &Report) -> impl Iterator<Item = &String> {
    [&report.input_error, &report.output_error, &report.store_error].into_iter().flatten()
}

/// Returns whether the report is of a stored run whose last session has not stored its end, or that has none.
fn is_end_unknown(report: &Report) -> bool {
    matches!(report.state, Some("running" | "crashed" | "empty"))
}

/// Returns why the run paused, with advice.
fn paused(why: &str, report: &Report) -> String {
    let shown = terminal_text::line(why);
    if let Some(class) = report.paused_class.filter(|class| *class != Class::Budget) {
        let advice = if report.stored {
            "the answers are stored, and the run can be resumed"
        } else {
            "nothing was stored, so this run cannot be resumed: begin it again"
        };
        let limit = if report.max_failures_reached { " (--max-failures sets another limit)" } else { "" };
        return format!("paused: {class}: {shown}; {advice}{limit}");
    }
    let higher = if run_cap_reached(report) {
        "a higher cap (--max-cost)"
    } else {
        "a higher cap in [budget], or tomorrow (UTC) if the whole cap suffices"
    };
    if report.stored {
        format!("paused: {shown}; the answers are stored, and the run can be resumed with {higher}")
    } else {
        format!(
            "paused: {shown}; nothing was stored, so this run cannot be resumed: begin it again with {higher}"
        )
    }
}

/// Returns whether the run paused because a budget was exhausted.
fn paused_for_budget(report: &Report) -> bool {
    report.paused_class.is_none_or(|class| class == Class::Budget)
}

/// Returns whether the run's own cap was reached.
pub(super) fn run_cap_reached(report: &Report) -> bool {
    report.caps.iter().any(|cap| cap.scope == CapScope::Run && cap.reached.is_some())
}

/// Formats a cap with its use.
fn cap(cap: &Cap) -> String {
    let mut text = format!("cap: {}", spent_of(cap));
    if let Some(hit) = &cap.reached {
        text.push_str(&match hit.calls_in_flight {
            0 => "; reached with no call in flight".to_owned(),
            calls => {
                let calls = counted(calls, "call");
                let reserved = money(hit.in_flight_usd);
                format!("; reached with {calls} in flight, for which {reserved} was reserved")
            }
        });
    }
    if cap.overshoot_usd > 0.0 {
        text.push_str(&format!("; {} over the cap", money(cap.overshoot_usd)));
    }
    text
}

/// Formats how much of the input was not started, as far as that is known. What follows an error of the input is not
/// known.
fn unprocessed(rest: &Unprocessed, is_input_broken: bool) -> String {
    match (rest.fraction, rest.estimated_items) {
        (Some(share), _) if share <= 0.0 && is_input_broken => {
            "all items that could be read were started; the rest of the input is not known".to_owned()
        }
        (Some(share), _) if share <= 0.0 => "all of the input was started".to_owned(),
        (Some(share), Some(about)) => {
            let about = counted(about.max(1), "item");
            format!("{} of the input was not started, about {about}; they have no line", percent(share))
        }
        (Some(share), None) => format!("{} of the input was not started", percent(share)),
        (None, _) => "an unknown part of the input was not started: its length is not known".to_owned(),
    }
}

/// Formats a share. Only 0 is 0%, and only 1 is 100%.
pub(super) fn percent(share: f64) -> String {
    match (share * 100.0).round() as u64 {
        0 => "less than 1%".to_owned(),
        100 if share < 1.0 => "more than 99%".to_owned(),
        percent => format!("{percent}%"),
    }
}

/// Returns a line with the results of the items, marked if answers are simulated.
pub(super) fn summary(report: &Report) -> String {
    let items = &report.items;
    let mut counts = Vec::new();
    for (number, what) in [
        (items.completed, "completed"),
        (items.failed, "failed"),
        (items.skipped, "skipped"),
        (items.rejected, "rejected"),
        (items.paused, if paused_for_budget(report) { "waiting for budget" } else { "waiting" }),
        (items.unfinished, "unfinished"),
        (items.unwritten, "unwritten"),
    ] {
        if number > 0 || what == "completed" {
            counts.push(format!("{} {what}", with_separators(number)));
        }
    }
    if items.finished_before > 0 {
        counts.push(format!("{} of them in earlier sessions", with_separators(items.finished_before)));
    }
    let ended = match (report.outcome, report.state) {
        (RunOutcome::Completed, _) => String::new(),
        // The word of the list of runs.
        (_, Some(state)) => format!(" ({state})"),
        (RunOutcome::Running, None) => " (running)".to_owned(),
        (RunOutcome::Limited, None) => " (limited)".to_owned(),
        (RunOutcome::Interrupted, None) => " (interrupted)".to_owned(),
        (RunOutcome::Paused, None) => " (paused)".to_owned(),
        (RunOutcome::IoFailed, None) => " (I/O error)".to_owned(),
    };
    let duration =
        report.duration_seconds.map_or_else(String::new, |seconds| format!(" in {}", seconds_text(seconds)));
    let pace = report.items_per_second.map_or_else(String::new, |pace| format!(", {pace:.1} items/s"));
    // Rounded down, so that one failure in ten thousand is not 100%.
    let rate = items
        .success_rate()
        .map_or_else(String::new, |rate| format!(" ({:.1}% success)", (rate * 1e3).floor() / 10.0));
    let simulated = if report.simulated { " [simulated]" } else { "" };
    format!(
        "{}{simulated}{ended}: {}{rate}{duration}{pace}",
        terminal_text::line(&report.pipeline),
        counts.join(", "),
    )
}

fn headline(report: &Report) -> String {
    let mut lines = vec![summary(report)];
    lines.extend(report.cache.as_ref().map(answer_cache));
    if report.calls.sent > 0 {
        lines.push(calls(report));
        lines.push(spent(report));
        lines.extend(unknown_costs(report));
        if report.uncertain_cost_usd > 0.0 {
            let uncertain = money(report.uncertain_cost_usd);
            lines.push(format!(
                "  uncertain: up to {uncertain} more, reserved for calls that may have been charged"
            ));
        }
        lines.extend(report.caps.iter().map(cap));
        let times = &report.item_duration_seconds;
        lines.push(format!(
            "item time, including queueing: average {}, p50 {}, p95 {}, p99 {}",
            seconds_text(times.average),
            seconds_text(times.p50),
            seconds_text(times.p95),
            seconds_text(times.p99),
        ));
    }
    lines.join("\n")
}

/// Formats what the answer cache answered.
fn answer_cache(cache: &CacheReport) -> String {
    let answers = count(cache.answers);
    let requests = counted(cache.requests, "request");
    format!("cache: {answers} of {requests} answered from the store, {} saved", money(cache.saved_usd))
}

fn calls(report: &Report) -> String {
    let calls = &report.calls;
    let now = if report.items.finished_before > 0 { " in this session" } else { "" };
    let mut text = format!("{}{now}: {} answered", counted(calls.sent, "call"), count(calls.answered));
    for (number, what) in [
        (calls.failed.saturating_sub(calls.throttled), "failed"),
        (calls.throttled, "throttled (429)"),
        (calls.possibly_charged, "possibly billed without a result"),
        (calls.failovers, "failed over"),
        (calls.forced, "sent through an open breaker"),
        (calls.lost, "lost"),
        (calls.validation_retries, "validation retries"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {} {what}", count(number)));
        }
    }
    if calls.hedged > 0 {
        text.push_str(&format!(", {} hedged", count(calls.hedged)));
    }
    if calls.superseded > 0 {
        let dollars =
            report.superseded_cost_usd.map_or_else(String::new, |cost| format!(", about {}", money(cost)));
        text.push_str(&format!(", {} superseded (possibly billed{dollars})", count(calls.superseded)));
    }
    text
}

fn spent(report: &Report) -> String {
    let tokens = &report.tokens;
    format!(
        "tokens {} in{}, {} out{}; cost {}{}",
        count(tokens.input.0),
        parts(&[(tokens.cached.0, "cached"), (tokens.cache_write.0, "written to a cache")]),
        count(tokens.output.0),
        parts(&[(tokens.reasoning.0, "reasoning")]),
        cost(report.cost_usd, report.calls_of_unknown_cost + u64::from(report.lost_session)),
        cache_saved(report.cache_saved_usd),
    )
}

/// Formats the parts of a number of tokens that are not zero.
fn parts(parts: &[(u64, &str)]) -> String {
    let parts = parts.iter().filter(|(tokens, _)| *tokens > 0);
    let parts: Vec<_> = parts.map(|(tokens, what)| format!("{} {what}", count(*tokens))).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// Formats what the providers' caches saved; empty if they were not used.
fn cache_saved(dollars: Option<f64>) -> String {
    match dollars {
        None => String::new(),
        Some(dollars) if dollars < 0.0 => format!("; caching cost {} more than it saved", money(-dollars)),
        Some(dollars) => format!("; caching saved {}", money(dollars)),
    }
}

/// Returns the calls of unknown cost by target, with the reason and advice.
fn unknown_costs(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    let mut explained = 0;
    for (target, group) in &report.targets {
        let GroupReport { calls_without_price: unpriced, calls_without_usage: unused, .. } = *group;
        explained += unpriced + unused;
        if unpriced > 0 {
            let advice = if group.simulated {
                "its answers are simulated".to_owned()
            } else {
                format!("set price = {{ input = .., output = .. }} in {}", config_table(target))
            };
            lines.push(format!("  no price of {target}, for {}: {advice}", counted(unpriced, "call")));
        }
        if unused > 0 {
            let calls = counted(unused, "call");
            lines.push(format!("  {calls} of {target} ended without token usage in the response"));
        }
    }
    let lost = report.calls_of_unknown_cost.saturating_sub(explained);
    if lost > 0 {
        lines.push(format!("  {} lost: it is not known whether they were sent", counted(lost, "call")));
    }
    lines
}

/// Returns the name of the configuration table of a target's model.
fn config_table(target: &str) -> String {
    let (provider, model) = target.split_once('/').unwrap_or((target, ""));
    let bare = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let quoted = |name: &str| if bare(name) { name.to_owned() } else { format!("{name:?}") };
    format!("[provider.{}.models.{}]", quoted(provider), quoted(model))
}

fn group_table(groups: &[(String, &GroupReport)], width: Option<usize>) -> String {
    let width = width.map_or(TABLE_WIDTH, |width| u16::try_from(width).unwrap_or(u16::MAX).min(TABLE_WIDTH));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let header = [
        "step or\ntarget",
        "\ncalls",
        "\nfailed",
        "time\naverage",
        "\np50",
        "\np95",
        "\np99",
        "queued\np95",
        "tokens\nin",
        "\nout",
        "\ncost",
    ];
    let is_shown = |index: usize| width >= TABLE_WIDTH || !WIDE_COLUMNS.contains(&header[index]);
    let shown = |index: usize, text: String| is_shown(index).then_some(text);
    table.set_header(header.iter().enumerate().filter_map(|(index, name)| shown(index, (*name).to_owned())));
    for (name, group) in groups {
        let times = &group.duration_seconds;
        let row = [
            terminal_text::line(name).into_owned(),
            count(group.calls),
            count(group.failed),
            seconds_text(times.average),
            seconds_text(times.p50),
            seconds_text(times.p95),
            seconds_text(times.p99),
            seconds_text(group.queued_seconds.p95),
            count(group.tokens.input.0),
            count(group.tokens.output.0),
            short_cost(group),
        ];
        table.add_row(row.into_iter().enumerate().filter_map(|(index, text)| shown(index, text)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
        // Names may wrap, numbers may not.
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.trim_fmt()
}

/// Formats a cost for a column; `≥` marks one that is only partly known.
fn short_cost(group: &GroupReport) -> String {
    cost(group.cost_usd, group.calls_of_unknown_cost).replace("at least ", "≥")
}

fn error_list<'a>(
    title: &str,
    errors: impl Iterator<Item = (&'a Class, &'a ErrorCount)>,
    width: Option<usize>,
) -> String {
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by_key(|(_, error)| std::cmp::Reverse(error.count));
    let lines = errors.iter().map(|(class, error)| {
        let line =
            format!("  {} {class}, such as: {}", count(error.count), terminal_text::line(&error.example));
        format!("\n{}", truncate_str(&line, width.unwrap_or(usize::MAX), "…"))
    });
    format!("{title}:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::{Items, empty_report};

    #[test]
    fn the_unprocessed_input_is_shown_as_far_as_it_is_known() {
        let rest = |share, about| Unprocessed { fraction: share, estimated_items: about };
        let shown = |share, about| unprocessed(&rest(share, about), false);
        assert_eq!(
            shown(Some(0.662), Some(132)),
            "66% of the input was not started, about 132 items; they have no line"
        );
        assert_eq!(
            shown(Some(0.9999), Some(7_000)),
            "more than 99% of the input was not started, about 7000 items; they have no line"
        );
        assert_eq!(shown(Some(0.0), Some(0)), "all of the input was started");
        assert!(shown(None, None).ends_with("its length is not known"));
        let broken = unprocessed(&rest(Some(0.0), Some(0)), true);
        assert_eq!(broken, "all items that could be read were started; the rest of the input is not known");
    }

    #[test]
    fn cancelled_items_may_be_charged_only_if_a_call_may_be() {
        assert!(!cancelled(0).contains("charged"));
        assert!(cancelled(1).ends_with("without a line; their calls may be charged"));
    }

    #[test]
    fn rejected_records_reduce_the_success_rate() {
        let items = Items { completed: 2, rejected: 8, ..Items::default() };
        assert_eq!(items.success_rate(), Some(0.2));
    }

    #[test]
    fn what_caching_saved_is_shown_only_if_a_cache_was_used() {
        assert_eq!(cache_saved(None), "");
        assert_eq!(cache_saved(Some(1.5)), "; caching saved $1.50");
        assert_eq!(cache_saved(Some(-0.25)), "; caching cost $0.25 more than it saved");
        assert_eq!(parts(&[(0, "cached"), (0, "written to a cache")]), "");
        assert_eq!(parts(&[(0, "cached"), (7, "written to a cache")]), " (7 written to a cache)");
        let both = parts(&[(9, "cached"), (7, "written to a cache")]);
        assert_eq!(both, " (9 cached, 7 written to a cache)");
    }

    #[test]
    fn item_counts_are_exact() {
        assert_eq!(
            [0, 999, 1_000, 19_999, 1_234_567].map(with_separators),
            ["0", "999", "1,000", "19,999", "1,234,567"]
        );
    }

    #[test]
    fn a_report_fits_into_a_narrow_terminal() {
        let error = ErrorCount { count: 7, example: "the model refused: ".repeat(20) };
        let group = GroupReport { calls: 12_345, failed: 12_345, ..GroupReport::default() };
        let report = Report {
            errors: [(Class::ContentFilter, error.clone())].into(),
            failed_calls: [(Class::ContentFilter, error)].into(),
            targets: [("openrouter/a-model-with-a-long-name-2026-11-28".to_owned(), group)].into(),
            ..empty_report("feedback", RunOutcome::Completed, Duration::from_secs(3))
        };
        for width in [60, 80, 100] {
            for line in report_in(&report, Some(width)).lines() {
                assert!(console::measure_text_width(line) <= width, "{width}: {line}");
            }
        }
        let wide = super::report(&report);
        assert!(wide.contains("p99") && wide.lines().any(|line| line.len() > 300), "{wide}");
        assert!(!report_in(&report, Some(80)).contains("p99"));
    }

    #[test]
    fn the_name_of_a_models_table_is_valid_toml() {
        assert_eq!(config_table("claude/haiku"), "[provider.claude.models.haiku]");
        assert_eq!(config_table("local/llama3.2"), "[provider.local.models.\"llama3.2\"]");
    }
}
