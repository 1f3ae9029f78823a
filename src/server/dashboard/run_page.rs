//! `/runs/{run}`: one run, and the forms that control it.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use serde::Deserialize;

use crate::daemon::{ItemPage, ItemQuery, ItemState, ItemView, RunDetails};
use crate::run::{GroupReport, Report};
use crate::server::api_state::ApiState;
use crate::server::problem::Problem;
use crate::store::RunNumber;

use super::fragment::Fragment;
use super::layout::respond;
use super::login::{read_form, redirect};
use super::run_parts::{fact, failures, item_path, known_cost, progress, state as shown_state};
use super::shown;
use super::visitor::{FormSender, PageError, Visitor};

/// How many items a page has.
const ITEMS_PER_PAGE: u32 = 50;

/// Which items the page shows.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ItemsQuery {
    status: Option<String>,
    cursor: Option<String>,
}

/// The form that resumes a run, or retries its failed items.
#[derive(Debug, Default, Deserialize)]
struct ResumeForm {
    accept_changes: Option<String>,
}

/// Shows a run.
pub(super) async fn show(
    visitor: Visitor,
    state: Data<ApiState>,
    path: Path<String>,
    query: Query<ItemsQuery>,
) -> Result<HttpResponse, PageError> {
    let run = number(&path, &visitor)?;
    let details =
        state.daemon.run_details(run, &visitor.caller).await.map_err(|error| visitor.error(error))?;
    let status = match query.status.as_deref() {
        None | Some("") => None,
        Some(word) => Some(ItemState::parse(word).ok_or_else(|| visitor.missing())?),
    };
    let mut wanted = ItemQuery::new();
    wanted.state = status;
    wanted.cursor = query.cursor.clone();
    wanted.limit = ITEMS_PER_PAGE;
    let items =
        state.daemon.run_items(run, wanted, &visitor.caller).await.map_err(|error| visitor.error(error))?;
    let prefix = &visitor.prefix;
    let pipeline = &details.summary.run.pipeline;
    let content = html! {
        h1 { "Run " (run) ": " (shown::inline(pipeline)) }
        @for fragment in fragments(&details, prefix, visitor.can_control) { (fragment.section()) }
        (downloads(run, prefix))
        (item_list(run, &items, status, prefix))
    };
    let title = format!("Run {run}: {}", shown::plain(pipeline));
    let live = format!("{prefix}/runs/{run}/events");
    Ok(respond(StatusCode::OK, visitor.layout(&title, Some(&live)).page(&content)))
}

pub(super) async fn hold(
    FormSender(visitor): FormSender,
    state: Data<ApiState>,
    path: Path<String>,
) -> Result<HttpResponse, PageError> {
    let run = number(&path, &visitor)?;
    state.daemon.hold_run(run, &visitor.caller).await.map_err(|error| visitor.error(error))?;
    Ok(to_run(&state, run))
}

pub(super) async fn resume(
    FormSender(visitor): FormSender,
    request: HttpRequest,
    state: Data<ApiState>,
    path: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, PageError> {
    let run = number(&path, &visitor)?;
    let form: ResumeForm =
        read_form(&request, payload, &state).await.map_err(|problem: Problem| visitor.error(problem))?;
    let accepts = form.accept_changes.is_some();
    let resumed = state.daemon.resume_run(run, accepts, None, &visitor.caller).await;
    resumed.map_err(|error| visitor.error(error))?;
    Ok(to_run(&state, run))
}

pub(super) async fn cancel(
    FormSender(visitor): FormSender,
    state: Data<ApiState>,
    path: Path<String>,
) -> Result<HttpResponse, PageError> {
    let run = number(&path, &visitor)?;
    state.daemon.cancel_run(run, &visitor.caller).await.map_err(|error| visitor.error(error))?;
    Ok(to_run(&state, run))
}

pub(super) async fn retry(
    FormSender(visitor): FormSender,
    request: HttpRequest,
    state: Data<ApiState>,
    path: Path<String>,
    payload: Payload,
) -> Result<HttpResponse, PageError> {
    let run = number(&path, &visitor)?;
    let form: ResumeForm =
        read_form(&request, payload, &state).await.map_err(|problem: Problem| visitor.error(problem))?;
    let accepts = form.accept_changes.is_some();
    let retried = state.daemon.retry_run(run, Vec::new(), accepts, &visitor.caller).await;
    retried.map_err(|error| visitor.error(error))?;
    Ok(to_run(&state, run))
}

fn to_run(state: &ApiState, run: RunNumber) -> HttpResponse {
    redirect(state, &format!("/runs/{run}"), None)
}

/// Returns the number of a run in a path.
///
/// # Errors
/// If it is none.
pub(super) fn number(text: &str, visitor: &Visitor) -> Result<RunNumber, PageError> {
    text.parse().map_err(|_| visitor.missing())
}

/// Returns the parts of the page that change.
pub(super) fn fragments(details: &RunDetails, prefix: &str, can_control: bool) -> Vec<Fragment> {
    let mut fragments =
        vec![Fragment::status("run-status", html! { p { (shown_state(details.summary.run.state)) } })];
    if can_control {
        fragments.push(Fragment::new("run-actions", "Actions", actions(details, prefix)));
    }
    fragments.push(Fragment::new("run-progress", "Progress", facts(details)));
    let report = html! {
        @match &details.report {
            Some(report) => { (self::report(report)) }
            None => { p { "The report follows when the run ends or pauses." } }
        }
    };
    fragments.push(Fragment::new("run-report", "Report", report));
    fragments.push(Fragment::new("failures", "Failures", failures(&details.failures, prefix, false)));
    fragments
}

fn facts(details: &RunDetails) -> Markup {
    let run = &details.summary.run;
    html! {
        (progress(&details.summary))
        dl .facts {
            div { dt { "Created" } dd { (shown::time(run.created_at)) } }
            div { dt { "Changed" } dd { (shown::time(run.updated_at)) } }
            @if !run.created_by.is_empty() { div { dt { "Created by" } dd { (shown::inline(&run.created_by)) } } }
            @if let Some(version) = run.pipeline_version { (fact("Version of the pipeline", &version.to_string())) }
            (fact("Sessions", &run.sessions.to_string()))
            @if run.one_at_a_time { (fact("Items", "one at a time")) }
        }
    }
}

/// Shows what can be done with a run in its state. It does not change while the state stays, so that a button stays where
/// it is.
fn actions(details: &RunDetails, prefix: &str) -> Markup {
    let run = details.summary.run.run.0;
    let path = |action: &str| format!("{prefix}/runs/{run}/{action}");
    let is_open = matches!(details.summary.run.state, "running" | "holding");
    let is_complete = details.summary.run.state == "completed";
    let can_cancel = !matches!(details.summary.run.state, "completed" | "cancelled");
    let has_failed = details.summary.totals.is_some_and(|totals| totals.failed > 0);
    if is_complete && !has_failed {
        return html! { p { "The run is complete: there is nothing to control." } };
    }
    html! {
        div .actions {
            @if is_open {
                form method="post" action=(path("hold")) { button #hold type="submit" { "Hold" } }
            }
            @if !is_open && !is_complete {
                form method="post" action=(path("resume")) {
                    button #resume type="submit" { "Resume" }
                    label {
                        input #accept-changes type="checkbox" name="accept_changes" value="yes";
                        " although its models have changed"
                    }
                }
            }
            @if !is_open && has_failed {
                form method="post" action=(path("retry")) {
                    button #retry type="submit" { "Retry failed items" }
                    label {
                        input #retry-accept-changes type="checkbox" name="accept_changes" value="yes";
                        " although its models have changed"
                    }
                }
            }
            @if can_cancel {
                details #cancel {
                    summary #cancel-summary { "Cancel" }
                    form method="post" action=(path("cancel")) {
                        p { "The run takes no more items, and aborts those in flight. What is finished stays." }
                        button #cancel-now type="submit" { "Cancel run " (run) }
                    }
                }
            }
        }
    }
}

fn report(report: &Report) -> Markup {
    let items = &report.items;
    let calls = &report.calls;
    let durations = &report.item_duration_seconds;
    html! {
        dl .facts {
            (fact("Outcome", &report.outcome.as_str().replace('_', " ")))
            (fact("Completed", &shown::count(items.completed)))
            (fact("Failed", &shown::count(items.failed)))
            (fact("Skipped", &shown::count(items.skipped)))
            (fact("Rejected", &shown::count(items.rejected)))
            @if items.unfinished + items.paused > 0 { (fact("Unfinished", &shown::count(items.unfinished + items.paused))) }
            @if let Some(took) = report.duration_seconds { (fact("Duration", &shown::seconds(took))) }
            @if let Some(rate) = report.items_per_second { (fact("Items per second", &shown::decimal(rate))) }
            (fact("Item, median", &shown::seconds(durations.p50)))
            (fact("Item, 95th percentile", &shown::seconds(durations.p95)))
            (fact("Calls", &shown::count(calls.sent)))
            (fact("Failed calls", &shown::count(calls.failed)))
            (fact("429 responses", &shown::count(calls.throttled)))
            (fact("Input tokens", &shown::count(report.tokens.input.0)))
            (fact("Output tokens", &shown::count(report.tokens.output.0)))
            (fact("Cost", &known_cost(report.cost_usd, report.calls_of_unknown_cost)))
            @if report.uncertain_cost_usd > 0.0 { (fact("Possibly charged", &shown::usd(report.uncertain_cost_usd))) }
        }
        @if report.simulated { p .note { "Answers of this run are simulated." } }
        @if report.lost_session { p .warning { "A session did not store its end, so that the cost is a lower bound." } }
        @for error in [&report.input_error, &report.output_error, &report.store_error].into_iter().flatten() {
            p .warning { (shown::inline(error)) }
        }
        @if let Some(reject) = &report.first_reject { p { "The first reject: " (shown::inline(reject)) } }
        (groups("steps-table", "Step", report.steps.iter().map(|(step, group)| (step.as_str(), group))))
        (groups("targets-table", "Target", report.targets.iter().map(|(target, group)| (target.as_str(), group))))
    }
}

fn groups<'r>(id: &str, what: &str, groups: impl Iterator<Item = (&'r str, &'r GroupReport)>) -> Markup {
    html! {
        div id=(id) .wide tabindex="0" role="region" aria-label={ "Calls by " (what.to_lowercase()) } {
            table {
                thead {
                    tr {
                        th scope="col" { (what) }
                        th scope="col" .number { "Calls" }
                        th scope="col" .number { "Failed" }
                        th scope="col" .number { "Median" }
                        th scope="col" .number { "95th percentile" }
                        th scope="col" .number { "Queued, median" }
                        th scope="col" .number { "Cost" }
                    }
                }
                tbody {
                    @for (name, group) in groups {
                        tr {
                            th scope="row" { (shown::inline(name)) }
                            td .number { (shown::count(group.calls)) }
                            td .number { (shown::count(group.failed)) }
                            td .number { (shown::seconds(group.duration_seconds.p50)) }
                            td .number { (shown::seconds(group.duration_seconds.p95)) }
                            td .number { (shown::seconds(group.queued_seconds.p50)) }
                            td .number { (known_cost(group.cost_usd, group.calls_of_unknown_cost)) }
                        }
                    }
                }
            }
        }
    }
}

fn downloads(run: RunNumber, prefix: &str) -> Markup {
    let path = |part: &str| format!("{prefix}/api/v1/runs/{run}/{part}");
    html! {
        section aria-labelledby="downloads-heading" {
            h2 #downloads-heading { "Files" }
            ul .links {
                li { a href=(path("results?format=jsonl")) { "Results (JSONL)" } }
                li { a href=(path("results?format=csv")) { "Results (CSV)" } }
                li { a href=(path("failures")) { "Failed items (JSONL)" } }
                li { a href=(path("rejects")) { "Rejects (JSONL)" } }
                li { a href=(path("report")) { "Report (JSON)" } }
            }
        }
    }
}

fn item_list(run: RunNumber, page: &ItemPage, status: Option<ItemState>, prefix: &str) -> Markup {
    let path = |query: &str| format!("{prefix}/runs/{run}{query}#items-heading");
    let with_status = |state: ItemState| path(&format!("?status={}", state.as_str()));
    html! {
        section aria-labelledby="items-heading" {
            h2 #items-heading { "Items" }
            nav aria-label="Status of items" {
                ul .links {
                    li { a href=(path("")) aria-current=[status.is_none().then_some("true")] { "All" } }
                    @for state in ItemState::ALL {
                        li {
                            a href=(with_status(state)) aria-current=[(status == Some(state)).then_some("true")] {
                                (state.as_str())
                            }
                        }
                    }
                }
            }
            @if page.items.is_empty() {
                p { "There are no such items on this page." }
            } @else {
                div #items-table .wide tabindex="0" role="region" aria-label="Items" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Item" }
                                th scope="col" .number { "Line" }
                                th scope="col" { "Status" }
                                th scope="col" .number { "Duration" }
                                th scope="col" { "Result" }
                            }
                        }
                        tbody { @for item in &page.items { (item_row(run, item, prefix)) } }
                    }
                }
            }
            @if let Some(cursor) = &page.next_cursor {
                p {
                    a rel="next" href=(path(&format!(
                        "?status={}&cursor={}",
                        status.map_or("", ItemState::as_str),
                        shown::url_segment(cursor)
                    ))) { "Next items" }
                }
            }
        }
    }
}

fn item_row(run: RunNumber, item: &ItemView, prefix: &str) -> Markup {
    let key = item.key.as_str();
    html! {
        tr {
            th scope="row" {
                @match item_path(prefix, run.0, key) {
                    Some(path) => { a href=(path) { (shown::inline(if key.is_empty() { "(empty)" } else { key })) } }
                    None => { (shown::inline(key)) }
                }
            }
            td .number { (item.line) }
            td { (shown_state(item.status.as_str())) }
            td .number { @if let Some(took) = item.duration_seconds { (shown::seconds(took)) } }
            td { (result(item)) }
        }
    }
}

/// Shows why an item failed, or its last answer.
fn result(item: &ItemView) -> Markup {
    let answers = item.steps.iter().rev().filter(|step| !step.answer.is_null());
    html! {
        @if let Some(error) = &item.error {
            (error.class.as_str().replace('_', " ")) ": " (shown::inline(&error.message))
        } @else if let Some(step) = answers.into_iter().next() {
            @match step.answer.as_str() {
                Some(text) => { (shown::inline(text)) }
                None => { (shown::inline(&step.answer.to_string())) }
            }
        }
    }
}
