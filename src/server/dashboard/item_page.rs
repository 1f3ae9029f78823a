//! `/runs/{run}/items/{key}`: an item, its answers and its attempt log.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Path, Query};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use crate::daemon::{AttemptView, FailureView, ItemView, StepView};
use crate::server::api_state::ApiState;
use crate::store::RunNumber;

use super::layout::respond;
use super::run_page::number;
use super::run_parts::{fact, state as shown_state};
use super::shown;
use super::visitor::{PageError, Visitor};

/// The key of an item, where it cannot be a part of the path.
#[derive(Debug, Deserialize)]
pub(super) struct KeyQuery {
    key: String,
}

/// Shows the item with the key in the path.
pub(super) async fn show(
    visitor: Visitor,
    state: Data<ApiState>,
    path: Path<(String, String)>,
) -> Result<HttpResponse, PageError> {
    let (run, key) = path.into_inner();
    page(&visitor, &state, &run, &key).await
}

/// Shows the item with the key in the query.
pub(super) async fn show_by_query(
    visitor: Visitor,
    state: Data<ApiState>,
    path: Path<String>,
    query: Query<KeyQuery>,
) -> Result<HttpResponse, PageError> {
    page(&visitor, &state, &path, &query.key).await
}

async fn page(visitor: &Visitor, state: &ApiState, run: &str, key: &str) -> Result<HttpResponse, PageError> {
    let run = number(run, visitor)?;
    let item =
        state.daemon.run_item(run, key, &visitor.caller).await.map_err(|error| visitor.error(error))?;
    let title = format!("Item {} of run {run}", shown::plain(key));
    Ok(respond(StatusCode::OK, visitor.layout(&title, None).page(&content(run, &item, &visitor.prefix))))
}

fn content(run: RunNumber, item: &ItemView, prefix: &str) -> Markup {
    html! {
        p { a href={ (prefix) "/runs/" (run) } { "Run " (run) } }
        h1 { "Item " (shown::inline(item.key.as_str())) }
        p { (shown_state(item.status.as_str())) }
        dl .facts {
            (fact("Number", &item.number.to_string()))
            (fact("Line of the input", &item.line.to_string()))
            @if let Some(took) = item.duration_seconds { (fact("Duration", &shown::seconds(took))) }
        }
        @if item.outdated { p .note { "The item finished before the pipeline changed." } }
        @if !item.in_input { p .note { "The item is not in the input any more." } }
        @if let Some(error) = &item.error { (failure(error)) }
        section aria-labelledby="input-heading" {
            h2 #input-heading { "Input" }
            @if item.fields.is_null() {
                p { "The input is not stored." }
            } @else {
                (value("Input of the item", "input", &item.fields))
            }
        }
        section aria-labelledby="steps-heading" {
            h2 #steps-heading { "Answers and attempts" }
            @if item.steps.is_empty() { p { "No step has ended yet." } }
            @for (index, step) in item.steps.iter().enumerate() { (self::step(index, step)) }
        }
    }
}

fn step(index: usize, step: &StepView) -> Markup {
    html! {
        article {
            h3 { "Step " (shown::inline(step.step.as_str())) ", session " (step.session) " " (shown_state(step.state)) }
            @if step.simulated { p .note { "A simulated provider answered." } }
            @if let Some(session) = step.restored_from { p .note { "The answer is that of session " (session) "." } }
            @if !step.answer.is_null() {
                (value("Answer", &format!("answer-{index}"), &step.answer))
            }
            @if let Some(error) = &step.error {
                (failure(error))
                @if let Some(text) = &error.text {
                    p { "The model wrote:" }
                    (shown::block("What the model wrote", &format!("written-{index}"), text))
                }
            }
            @if !step.attempts.is_empty() { (attempts(index, &step.attempts)) }
            @for (number, attempt) in step.attempts.iter().enumerate() {
                @if let Some(reasoning) = &attempt.reasoning {
                    p { "Reasoning of attempt " (number + 1) ":" }
                    (shown::block("Reasoning", &format!("reasoning-{index}-{number}"), reasoning))
                }
            }
        }
    }
}

fn attempts(index: usize, attempts: &[AttemptView]) -> Markup {
    html! {
        div id={ "attempts-" (index) } .wide tabindex="0" role="region" aria-label="Attempts" {
            table {
                thead {
                    tr {
                        th scope="col" .number { "Attempt" }
                        th scope="col" { "Target" }
                        th scope="col" { "Outcome" }
                        th scope="col" .number { "Queued" }
                        th scope="col" .number { "Duration" }
                        th scope="col" .number { "First token" }
                        th scope="col" .number { "Tokens" }
                        th scope="col" .number { "Cost" }
                        th scope="col" { "Key" }
                        th scope="col" { "Details" }
                    }
                }
                tbody {
                    @for (number, attempt) in attempts.iter().enumerate() { (self::attempt(number + 1, attempt)) }
                }
            }
        }
    }
}

fn attempt(number: usize, attempt: &AttemptView) -> Markup {
    html! {
        tr {
            th scope="row" .number { (number) }
            td { (shown::inline(&attempt.target.to_string())) }
            td { (attempt.outcome.replace('_', " ")) }
            td .number { (shown::seconds(attempt.queue_seconds)) }
            td .number { (shown::seconds(attempt.duration_seconds)) }
            td .number { @if let Some(first) = attempt.first_token_seconds { (shown::seconds(first)) } }
            td .number {
                @if let Some(tokens) = &attempt.tokens {
                    (shown::count(tokens.input.0)) " in, " (shown::count(tokens.output.0)) " out"
                }
            }
            td .number {
                @match attempt.cost_usd { Some(cost) => { (shown::usd(cost)) } None => { "unknown" } }
                @if attempt.uncertain_cost_usd > 0.0 { ", possibly " (shown::usd(attempt.uncertain_cost_usd)) }
            }
            td { @if let Some(key) = &attempt.key { (shown::inline(key.as_str())) } }
            td {
                @if attempt.hedged { "in parallel to a slow call; " }
                @if attempt.forced { "although the breaker was open; " }
                @if let Some(refused) = &attempt.refused { (shown::inline(refused)) }
                @if let Some(error) = &attempt.error {
                    (error.class.as_str().replace('_', " "))
                    @if let Some(status) = error.status { " (" (status) ")" }
                    ": " (shown::inline(&error.message))
                }
            }
        }
    }
}

fn failure(error: &FailureView) -> Markup {
    html! {
        p .warning {
            (error.class.as_str().replace('_', " "))
            @if let Some(step) = &error.step { " in step " (shown::inline(step.as_str())) }
            @if let Some(status) = error.status { " (" (status) ")" }
            ": " (shown::inline(&error.message))
        }
    }
}

/// Shows a value: a text as it is, everything else as JSON.
fn value(name: &str, id: &str, value: &Value) -> Markup {
    match value {
        Value::String(text) => shown::block(name, id, text),
        other => shown::block(name, id, &serde_json::to_string_pretty(other).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::daemon::ItemState;
    use crate::types::Class;

    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script>\" onload=\"alert(2)\u{202e}\u{0}";

    /// Fails if a page has a part of a hostile text that a browser would act on.
    fn assert_harmless(page: &str) {
        for forbidden in ["<script>alert", "\" onload", "\u{202e}", "\u{0}"] {
            assert!(!page.contains(forbidden), "{forbidden:?} in {page}");
        }
    }

    fn item(text: &str) -> ItemView {
        let failure = || FailureView {
            class: Class::ValidationError,
            step: Some(text.into()),
            message: text.to_owned(),
            status: Some(400),
            text: Some(text.to_owned()),
        };
        let attempt = AttemptView {
            target: crate::types::TargetName { provider: text.into(), model: text.into() },
            key: Some(text.into()),
            outcome: "failed",
            error: Some(failure()),
            refused: Some(text.to_owned()),
            queue_seconds: 0.1,
            duration_seconds: 1.0,
            first_token_seconds: None,
            tokens: None,
            cost_usd: None,
            uncertain_cost_usd: 0.5,
            forced: true,
            hedged: true,
            reasoning: Some(text.to_owned()),
        };
        let step = StepView {
            step: text.into(),
            session: 1,
            state: "failed",
            answer: json!({ text: [text] }),
            error: Some(failure()),
            simulated: true,
            restored_from: Some(1),
            attempts: vec![attempt],
        };
        ItemView {
            number: 1,
            key: text.into(),
            line: 1,
            status: ItemState::Failed,
            outdated: true,
            in_input: false,
            fields: json!({ text: text }),
            error: Some(failure()),
            duration_seconds: Some(2.0),
            steps: vec![step],
        }
    }

    #[test]
    fn an_item_shows_texts_of_others_as_texts() {
        let page = content(RunNumber(1), &item(HOSTILE), "").into_string();
        assert_harmless(&page);
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
        assert!(page.contains("⟨U+202E⟩"), "{page}");
    }

    #[test]
    fn a_long_item_is_cut() {
        let page = content(RunNumber(1), &item(&"a".repeat(1 << 20)), "").into_string();
        assert!(page.len() < 200_000, "{}", page.len());
        assert!(page.contains("more characters are not shown"), "{page}");
    }
}
