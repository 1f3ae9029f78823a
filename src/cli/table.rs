//! Puts a run's report into a table for people. Pure: it prints nothing.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use crate::run::{Cap, CapOf, Ended, ErrorCount, NotBegun, Part, Report};
use crate::screen;
use crate::types::Class;

use super::status::{cost, count, money, numbered, seconds_text, spent_of};

/// Columns of a terminal that a report has to fit.
const WIDTH: u16 = 100;

/// Returns the report as text.
pub(super) fn report(report: &Report) -> String {
    let mut text = vec![headline(report)];
    let steps = report.steps.iter().map(|(step, part)| (step.to_string(), part));
    let lanes = report
        .lanes
        .iter()
        .map(|(lane, part)| (format!("{lane}{}", if part.practice { " [simulated]" } else { "" }), part));
    let parts: Vec<(String, &Part)> = steps.chain(lanes).filter(|(_, part)| part.calls > 0).collect();
    if !parts.is_empty() {
        text.push(table_of(&parts));
    }
    if !report.failed_calls.is_empty() {
        text.push(errors_of("calls failed of", report.failed_calls.iter()));
    }
    if report.practice {
        text.push("SIMULATED: the simulator on this machine answered; no answer is real.".to_owned());
    }
    // Last, where the eye is.
    text.extend(problems(report));
    text.join("\n")
}

/// Returns what went wrong for items and files; nothing when all went well.
pub(super) fn problems(report: &Report) -> Vec<String> {
    let mut problems = Vec::new();
    if !report.errors.is_empty() {
        problems.push(errors_of("items failed of", report.errors.iter()));
    }
    if let Some(reject) = &report.first_reject {
        let rejected = numbered(report.items.rejected, "piece");
        problems.push(format!("{rejected} of the input rejected, such as {}", screen::line(reject)));
    }
    if report.items.gone > 0 {
        let items = numbered(report.items.gone, "item");
        problems.push(format!(
            "{items} that this run had before {} not in its input any more, and {} no line",
            if report.items.gone == 1 { "is" } else { "are" },
            if report.items.gone == 1 { "has" } else { "have" },
        ));
    }
    if report.items.left > 0 {
        let items = numbered(report.items.left, "item");
        problems.push(format!("{items} new or changed since they settled, and not asked"));
    }
    if report.items.unfinished > 0 {
        let items = numbered(report.items.unfinished, "item");
        problems.push(format!("{items} given up half-way, without a line; calls under way may be charged"));
    }
    if let Some(why) = &report.paused {
        problems.push(paused(why, report));
    }
    if let Some(rest) = &report.not_begun {
        problems.push(not_begun(rest));
    }
    if let Some(name) = &report.output_left_before {
        problems.push(format!(
            "{name} is as it was before: this session ended before it had written again what was in it. Go on with \
             the run, or write what is settled with `pointsman results`"
        ));
    }
    if let Some(unkept) = &report.unkept {
        let (items, cost) = (numbered(unkept.items, "item"), money(unkept.cost_usd));
        let was = if unkept.items == 1 { "was" } else { "were" };
        problems.push(format!(
            "{items} {was} answered and could not be stored, at a known cost of {cost}: they are asked again when the run \
             is resumed"
        ));
    }
    let broken = [&report.input_error, &report.output_error, &report.store_error].into_iter().flatten();
    problems.extend(broken.map(|error| format!("error: {}", screen::line(error))));
    problems
}

/// Says why the run paused, and what helps.
fn paused(why: &str, report: &Report) -> String {
    let shown = screen::line(why);
    if let Some(class) = report.paused_class.filter(|class| *class != Class::Budget) {
        let kept = if report.kept {
            "what was answered is kept, and the run can be resumed"
        } else {
            "nothing was kept, so this run cannot be resumed: begin it again"
        };
        return format!("paused: {class}: {shown}; {kept}");
    }
    let higher = if is_of_run(report) {
        "a higher cap (--max-cost)"
    } else {
        "a higher cap in [budget], or tomorrow (UTC)"
    };
    if report.kept {
        format!("paused: {shown}; what was answered is kept, and the run goes on with {higher}")
    } else {
        format!("paused: {shown}; nothing was kept, so this run cannot go on: begin it anew with {higher}")
    }
}

/// Returns whether the run paused for money.
fn is_of_money(report: &Report) -> bool {
    report.paused_class.is_none_or(|class| class == Class::Budget)
}

/// Returns whether it is the run's own cap that was met.
pub(super) fn is_of_run(report: &Report) -> bool {
    report.caps.iter().any(|cap| cap.of == CapOf::Run && cap.met.is_some())
}

/// Shows a cap and what came of it.
fn cap(cap: &Cap) -> String {
    let mut text = format!("cap: {}", spent_of(cap));
    if let Some(met) = &cap.met {
        text.push_str(&match met.calls_in_flight {
            0 => "; met with no call out".to_owned(),
            calls => {
                let (calls, reserved) = (numbered(calls, "call"), money(met.in_flight_usd));
                format!("; met with {calls} out, for which {reserved} was reserved")
            }
        });
    }
    if cap.overshoot_usd > 0.0 {
        text.push_str(&format!("; {} more than the cap", money(cap.overshoot_usd)));
    }
    text
}

/// Says how much of the input was not begun, as far as anybody knows.
fn not_begun(rest: &NotBegun) -> String {
    match (rest.share, rest.about) {
        (Some(share), _) if share <= 0.0 => "all of the input was begun".to_owned(),
        (Some(share), Some(about)) => {
            let about = numbered(about.max(1), "item");
            format!("{} of the input was not begun, about {about}; they have no line", percent(share))
        }
        (Some(share), None) => format!("{} of the input was not begun", percent(share)),
        (None, _) => "how much of the input was not begun is not known: its length is not".to_owned(),
    }
}

/// Shows a share; only nothing is 0%, and only all is 100%.
fn percent(share: f64) -> String {
    match (share * 100.0).round() as u64 {
        0 => "less than 1%".to_owned(),
        100 if share < 1.0 => "more than 99%".to_owned(),
        percent => format!("{percent}%"),
    }
}

/// Returns in one line what became of the items; of simulated answers it says so.
pub(super) fn summary(report: &Report) -> String {
    let items = &report.items;
    let mut counts = Vec::new();
    for (number, what) in [
        (items.completed, "completed"),
        (items.failed, "failed"),
        (items.skipped, "skipped"),
        (items.rejected, "rejected"),
        (items.paused, if is_of_money(report) { "waiting for money" } else { "waiting" }),
        (items.unfinished, "unfinished"),
        (items.unwritten, "unwritten"),
    ] {
        if number > 0 || what == "completed" {
            counts.push(format!("{} {what}", exact(number)));
        }
    }
    if items.settled_before > 0 {
        counts.push(format!("{} of them in earlier sessions", exact(items.settled_before)));
    }
    let ended = match report.ended {
        Ended::Whole => "",
        Ended::Interrupted => " (interrupted)",
        Ended::Paused => " (paused)",
        Ended::Broken => " (broken off)",
    };
    // Rounded down: one failure in ten thousand is no 100%.
    let rate = items
        .success_rate()
        .map_or_else(String::new, |rate| format!(" ({:.1}% success)", (rate * 1e3).floor() / 10.0));
    let simulated = if report.practice { " [simulated]" } else { "" };
    format!(
        "{}{simulated}{ended}: {}{rate} in {}, {:.1} items/s",
        screen::line(&report.pipeline),
        counts.join(", "),
        seconds_text(report.seconds),
        report.items_per_second,
    )
}

fn headline(report: &Report) -> String {
    let mut lines = vec![summary(report)];
    if report.calls.made > 0 {
        lines.push(calls(report));
        lines.push(spent(report));
        lines.extend(unknown_costs(report));
        if report.perhaps_cost_usd > 0.0 {
            let perhaps = money(report.perhaps_cost_usd);
            lines.push(format!(
                "  perhaps {perhaps} more, for calls that may have been charged: what was reserved for them"
            ));
        }
        lines.extend(report.caps.iter().map(cap));
        let times = &report.item_seconds;
        lines.push(format!(
            "item time, waiting included: average {}, p50 {}, p95 {}, p99 {}",
            seconds_text(times.average),
            seconds_text(times.p50),
            seconds_text(times.p95),
            seconds_text(times.p99),
        ));
    }
    lines.join("\n")
}

fn calls(report: &Report) -> String {
    let calls = &report.calls;
    let now = if report.items.settled_before > 0 { " in this session" } else { "" };
    let mut text = format!("{}{now}: {} answered", numbered(calls.made, "call"), count(calls.answered));
    for (number, what) in [
        (calls.failed.saturating_sub(calls.throttled), "failed"),
        (calls.throttled, "throttled (429)"),
        (calls.maybe_charged, "perhaps paid for nothing"),
        (calls.failovers, "failed over"),
        (calls.forced, "sent through an open breaker"),
        (calls.lost, "lost"),
        (calls.reasked, "re-asked"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {} {what}", count(number)));
        }
    }
    if calls.hedged > 0 {
        text.push_str(&format!(", {} asked beside another lane", count(calls.hedged)));
    }
    if calls.beaten > 0 {
        let dollars =
            report.beaten_cost_usd.map_or_else(String::new, |cost| format!(", about {}", money(cost)));
        text.push_str(&format!(", {} not needed in the end (perhaps paid{dollars})", count(calls.beaten)));
    }
    text
}

fn spent(report: &Report) -> String {
    let some = |tokens: u64, what: &str| match tokens {
        0 => String::new(),
        tokens => format!(" ({} {what})", count(tokens)),
    };
    format!(
        "tokens {} in{}, {} out{}; cost {}",
        count(report.tokens.input.0),
        some(report.tokens.cached.0, "cached"),
        count(report.tokens.output.0),
        some(report.tokens.reasoning.0, "reasoning"),
        cost(report.cost_usd, report.calls_of_unknown_cost),
    )
}

/// Shows every digit, in threes: of how many items became what nobody wants to know about.
fn exact(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Says of which calls the cost is not known, why, and what helps.
fn unknown_costs(report: &Report) -> Vec<String> {
    let (mut lines, mut told) = (Vec::new(), 0);
    for (lane, part) in &report.lanes {
        let Part { calls_without_price: unpriced, calls_without_usage: unused, .. } = *part;
        told += unpriced + unused;
        if unpriced > 0 {
            let advice = if part.practice {
                "its answers are simulated".to_owned()
            } else {
                format!("set price = {{ input = .., output = .. }} in {}", table_name(lane))
            };
            lines.push(format!("  no price of {lane}, for {}: {advice}", numbered(unpriced, "call")));
        }
        if unused > 0 {
            let calls = numbered(unused, "call");
            lines.push(format!("  {calls} of {lane} ended without a word on the tokens used"));
        }
    }
    let lost = report.calls_of_unknown_cost.saturating_sub(told);
    if lost > 0 {
        lines.push(format!("  {} lost: nobody knows whether they left", numbered(lost, "call")));
    }
    lines
}

/// Returns the table of a configuration that a lane's model has.
fn table_name(lane: &str) -> String {
    let (provider, model) = lane.split_once('/').unwrap_or((lane, ""));
    let bare = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let quoted = |name: &str| if bare(name) { name.to_owned() } else { format!("{name:?}") };
    format!("[provider.{}.models.{}]", quoted(provider), quoted(model))
}

fn table_of(parts: &[(String, &Part)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header([
        "step or\nlane",
        "\ncalls",
        "\nfailed",
        "time\naverage",
        "\np50",
        "\np95",
        "\np99",
        "waited\np95",
        "tokens\nin",
        "\nout",
        "\ncost",
    ]);
    for (name, part) in parts {
        let times = &part.seconds;
        table.add_row([
            screen::line(name).into_owned(),
            count(part.calls),
            count(part.failed),
            seconds_text(times.average),
            seconds_text(times.p50),
            seconds_text(times.p95),
            seconds_text(times.p99),
            seconds_text(part.waited.p95),
            count(part.tokens.input.0),
            count(part.tokens.output.0),
            short_cost(part),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
        // What is too long is broken in the names; half a number is none.
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.trim_fmt()
}

/// Shows a cost in a column; `≥` is one that is known in part.
fn short_cost(part: &Part) -> String {
    cost(part.cost_usd, part.calls_of_unknown_cost).replace("at least ", "≥")
}

fn errors_of<'a>(title: &str, errors: impl Iterator<Item = (&'a Class, &'a ErrorCount)>) -> String {
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by_key(|(_, error)| std::cmp::Reverse(error.count));
    let lines = errors.iter().map(|(class, error)| {
        format!("\n  {} {class}, such as: {}", count(error.count), screen::line(&error.example))
    });
    format!("{title}:{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Items;

    #[test]
    fn the_rest_of_the_input_is_told_as_far_as_it_is_known() {
        let told = |share, about| not_begun(&NotBegun { share, about });
        assert_eq!(
            told(Some(0.662), Some(132)),
            "66% of the input was not begun, about 132 items; they have no line"
        );
        assert_eq!(
            told(Some(0.9999), Some(7_000)),
            "more than 99% of the input was not begun, about 7000 items; they have no line"
        );
        assert_eq!(told(Some(0.0), Some(0)), "all of the input was begun");
        assert!(told(None, None).ends_with("its length is not"));
    }

    #[test]
    fn rejected_pieces_are_no_success() {
        let items = Items { completed: 2, rejected: 8, ..Items::default() };
        assert_eq!(items.success_rate(), Some(0.2));
    }

    #[test]
    fn items_are_counted_to_the_last_one() {
        assert_eq!(
            [0, 999, 1_000, 19_999, 1_234_567].map(exact),
            ["0", "999", "1,000", "19,999", "1,234,567"]
        );
    }

    #[test]
    fn the_table_of_a_model_is_named_as_it_has_to_be_written() {
        assert_eq!(table_name("claude/haiku"), "[provider.claude.models.haiku]");
        assert_eq!(table_name("local/llama3.2"), "[provider.local.models.\"llama3.2\"]");
    }
}
