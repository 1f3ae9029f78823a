//! What the overview and the page of a run show of a run.

use maud::{Markup, html};

use crate::daemon::{CountedRun, FailureExample, FailureGroup};
use crate::run::{Holding, Progress, WaitingForScope};
use crate::types::NanoUsd;

use super::shown;

/// The most bytes of a key of which a link is made. Longer paths are refused by some clients.
const MAX_LINKED_KEY: usize = 1_000;

/// Shows the state of a run as a word with a mark, so that it does not depend on colours.
pub(super) fn state(word: &str) -> Markup {
    let mark = match word {
        "running" => "▶",
        "holding" => "◷",
        "paused" | "stopped" => "⏸",
        "completed" => "✓",
        "cancelled" | "empty" => "–",
        // `crashed`, `io_error`, and those of items.
        "failed" | "crashed" | "io_error" => "✗",
        _ => "•",
    };
    html! {
        span class={ "state state-" (word) } { span aria-hidden="true" { (mark) " " } (word.replace('_', " ")) }
    }
}

/// Shows how far a run is: its facts, why it holds, and what it waits for.
pub(super) fn progress(summary: &CountedRun) -> Markup {
    let run = &summary.run;
    html! {
        @if let Some(reason) = &run.reason {
            p .warning {
                @if run.state == "holding" { "Holds: " }
                @if let Some(class) = run.class { (class.as_str().replace('_', " ")) ": " }
                (shown::inline(reason))
            }
        }
        @match (&run.progress, summary.totals) {
            (Some(progress), _) => { (live_progress(progress)) }
            (None, Some(totals)) => {
                dl .facts {
                    (fact("Done", &shown::count(totals.completed)))
                    (fact("Failed", &shown::count(totals.failed)))
                    @if totals.skipped > 0 { (fact("Skipped", &shown::count(totals.skipped))) }
                    @if run.items.rejected > 0 { (fact("Rejected", &shown::count(run.items.rejected))) }
                    @if totals.open > 0 { (fact("Unfinished", &shown::count(totals.open))) }
                    (fact("Cost", &cost(totals.usage.cost, totals.usage.calls_of_unknown_cost)))
                }
            }
            (None, None) => {}
        }
    }
}

fn live_progress(progress: &Progress) -> Markup {
    let items = &progress.items;
    html! {
        @if let Some(part) = progress.input_fraction {
            p .meter {
                progress max="100" value=(format!("{:.1}", part * 100.0)) aria-label="Input read" {}
                " " (shown::percent(part)) " of the input read"
            }
        }
        dl .facts {
            (fact("Done", &shown::count(items.completed)))
            (fact("Failed", &shown::count(items.failed)))
            @if items.skipped > 0 { (fact("Skipped", &shown::count(items.skipped))) }
            @if items.rejected > 0 { (fact("Rejected", &shown::count(items.rejected))) }
            (fact("In flight", &format!("{} of {}", shown::count(progress.in_flight), progress.max_in_flight)))
            (fact("Items per second", &shown::decimal(progress.items_per_second)))
            (fact("Cost so far", &known_cost(progress.cost_usd, progress.calls_of_unknown_cost)))
            @if let Some(forecast) = progress.cost_forecast_usd { (fact("Cost forecast", &shown::usd(forecast))) }
            @if let Some(left) = progress.remaining_seconds { (fact("Time left", &shown::seconds(left))) }
        }
        @if let Some(holding) = &progress.holding { (holds(holding)) }
        @if let Some(waiting) = &progress.waiting_for_scope { (waits(waiting)) }
        @if progress.simulated { p .note { "Answers of this run are simulated." } }
        @if progress.stopping { p .note { "The run reads no more items." } }
    }
}

fn holds(holding: &Holding) -> Markup {
    html! {
        p .note {
            "It has held for " (shown::seconds(holding.duration_seconds))
            " on route " (shown::inline(holding.route.as_str()))
            @if let Some(target) = &holding.target { ", which waits for " (shown::inline(target)) }
            ". The next attempt is in " (shown::seconds(holding.retry_in_seconds)) "."
            @if let Some(until) = holding.until_in_seconds {
                " The provider accepts requests in " (shown::seconds(until)) "."
            }
        }
    }
}

fn waits(waiting: &WaitingForScope) -> Markup {
    html! {
        p .note {
            (shown::count(waiting.requests as u64))
            " requests wait for the limits of " (shown::inline(waiting.scope.as_str()))
            ": " (shown::inline(&waiting.limit)) ". The next is admitted in " (shown::seconds(waiting.next_in_seconds)) "."
        }
    }
}

/// Shows a name and a value of a description list.
pub(super) fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// Returns a known cost, or what is known of it.
pub(super) fn known_cost(cost: Option<f64>, calls_of_unknown_cost: u64) -> String {
    match (cost, calls_of_unknown_cost) {
        (None, _) => "unknown".to_owned(),
        (Some(cost), 0) => shown::usd(cost),
        (Some(cost), _) => format!("at least {}", shown::usd(cost)),
    }
}

fn cost(cost: NanoUsd, calls_of_unknown_cost: u64) -> String {
    let known = (calls_of_unknown_cost == 0 || cost.0 > 0).then(|| cost.dollars());
    known_cost(known, calls_of_unknown_cost)
}

/// Returns the path of the page of an item; `None` if its key is too long for one.
pub(super) fn item_path(prefix: &str, run: i64, key: &str) -> Option<String> {
    if key.len() > MAX_LINKED_KEY {
        return None;
    }
    Some(match key {
        // A browser would remove these segments from a path.
        "" | "." | ".." => format!("{prefix}/runs/{run}/item?key={}", shown::url_segment(key)),
        key => format!("{prefix}/runs/{run}/items/{}", shown::url_segment(key)),
    })
}

/// Shows why requests and items failed. `with_requests` is whether requests of all callers are counted, too.
pub(super) fn failures(groups: &[FailureGroup], prefix: &str, with_requests: bool) -> Markup {
    html! {
        @if groups.is_empty() {
            p { "Nothing has failed." }
        } @else {
            div #failures-table .wide tabindex="0" role="region" aria-label="Failures by class" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Class" }
                            @if with_requests { th scope="col" .number { "Requests since the start" } }
                            th scope="col" .number { @if with_requests { "Items of the latest runs" } @else { "Items" } }
                            th scope="col" { "Example" }
                        }
                    }
                    tbody {
                        @for group in groups {
                            tr {
                                th scope="row" { (group.class.as_str().replace('_', " ")) }
                                @if with_requests { td .number { (shown::count(group.requests)) } }
                                td .number { (shown::count(group.items)) @if group.has_more_items { " or more" } }
                                td {
                                    @match &group.example {
                                        Some(example) => { (self::example(example, prefix)) }
                                        None => { "none" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn example(example: &FailureExample, prefix: &str) -> Markup {
    let run = example.run.0;
    let key = example.key.as_str();
    html! {
        @match item_path(prefix, run, key) {
            Some(path) => {
                a id={ "example-" (run) "-" (shown::url_segment(key)) } href=(path) { "Item " (shown::inline(key)) }
            }
            None => { "Item " (shown::inline(key)) }
        }
        " of run " (run)
        @if let Some(step) = &example.step { ", step " (shown::inline(step.as_str())) }
        ": " (shown::inline(&example.message))
    }
}

#[cfg(test)]
mod tests {
    use crate::store::RunNumber;
    use crate::types::Class;

    use super::*;

    #[test]
    fn the_path_of_an_item_is_one_segment() {
        assert_eq!(item_path("/llm", 3, "a/b").as_deref(), Some("/llm/runs/3/items/a%2Fb"));
        assert_eq!(item_path("", 3, "..").as_deref(), Some("/runs/3/item?key=.."));
        assert_eq!(item_path("", 3, &"a".repeat(2_000)), None);
    }

    #[test]
    fn a_state_is_a_word_and_not_only_a_colour() {
        for word in ["running", "holding", "io_error", "odd"] {
            let shown = state(word).into_string();
            assert!(shown.contains(&format!("</span>{}</span>", word.replace('_', " "))), "{shown}");
        }
    }

    #[test]
    fn a_failure_shows_the_message_of_a_provider_as_text() {
        let hostile = "<img src=x onerror=alert(1)>\u{202e}";
        let example = FailureExample {
            run: RunNumber(1),
            key: "\"><script>".into(),
            step: None,
            message: hostile.to_owned(),
        };
        let group = FailureGroup {
            class: Class::ApiError,
            requests: 2,
            items: 1,
            has_more_items: true,
            example: Some(example),
        };
        let shown = failures(&[group], "", true).into_string();
        assert!(
            !shown.contains("<img") && !shown.contains("<script") && !shown.contains('\u{202e}'),
            "{shown}"
        );
        assert!(
            shown.contains("1 or more") && shown.contains("href=\"/runs/1/items/%22%3E%3Cscript%3E\""),
            "{shown}"
        );
        assert!(failures(&[], "", false).into_string().contains("Nothing has failed"));
    }
}
