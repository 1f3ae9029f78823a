//! `/`: runs, providers, money, load and failures.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::Data;
use maud::{Markup, html};

use crate::daemon::{CountedRun, Overview, ProcessView};
use crate::guard::BreakerState;
use crate::provider::{KeySnapshot, LimitSnapshot, OutOfService, Snapshot, TargetSnapshot};
use crate::run::{Cap, CapScope};
use crate::server::api_state::ApiState;
use crate::types::NanoUsd;

use super::charts::charts;
use super::fragment::Fragment;
use super::layout::respond;
use super::run_parts::{fact, failures, known_cost, progress, state};
use super::shown;
use super::visitor::{PageError, Visitor};

/// Shows the overview.
pub(super) async fn show(visitor: Visitor, state: Data<ApiState>) -> Result<HttpResponse, PageError> {
    let overview = state.daemon.overview(&visitor.caller).await.map_err(|error| visitor.error(error))?;
    let prefix = &visitor.prefix;
    let content = html! {
        h1 { "Overview" }
        @for fragment in fragments(&overview, prefix) { (fragment.section()) }
    };
    let live = format!("{prefix}/events");
    Ok(respond(StatusCode::OK, visitor.layout("Overview", Some(&live)).page(&content)))
}

/// Returns the parts of the page that change.
pub(super) fn fragments(overview: &Overview, prefix: &str) -> Vec<Fragment> {
    let mut fragments = vec![
        Fragment::status("summary", summary(overview)),
        Fragment::new("runs", "Runs", runs(&overview.runs, prefix)),
    ];
    if let Some(process) = &overview.process {
        fragments.extend([
            Fragment::new("providers", "Providers", providers(&process.providers)),
            Fragment::new("spending", "Spending today", spending(process)),
            Fragment::new("load", "Load", load(process)),
            Fragment::new("failures", "Failures", failures(&process.failures, prefix, true)),
        ]);
    }
    fragments
}

fn is_unfinished(summary: &CountedRun) -> bool {
    matches!(summary.run.state, "running" | "holding" | "paused" | "io_error" | "crashed")
}

/// Says in a sentence what matters. It changes seldom, so that it can be read out.
fn summary(overview: &Overview) -> Markup {
    let with_state = |word: &str| overview.runs.iter().filter(|summary| summary.run.state == word).count();
    let notices = overview.process.as_ref().map(|process| process.notices.as_slice()).unwrap_or_default();
    html! {
        p {
            (with_state("running")) " running, " (with_state("holding")) " holding, " (with_state("paused")) " paused."
        }
        @for notice in notices {
            p .warning { (shown::inline(notice)) }
        }
    }
}

fn runs(runs: &[CountedRun], prefix: &str) -> Markup {
    let (unfinished, ended): (Vec<&CountedRun>, Vec<&CountedRun>) =
        runs.iter().partition(|summary| is_unfinished(summary));
    html! {
        @if runs.is_empty() {
            p { "There are no runs yet." }
        }
        @if !unfinished.is_empty() {
            ul .cards {
                @for summary in unfinished {
                    li .card {
                        h3 {
                            (run_link(summary, prefix)) " "
                            (shown::inline(&summary.run.pipeline)) " "
                            (state(summary.run.state))
                        }
                        (progress(summary))
                    }
                }
            }
        }
        @if !ended.is_empty() {
            h3 { "Ended" }
            div #ended-runs .wide tabindex="0" role="region" aria-label="Runs that have ended" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Run" }
                            th scope="col" { "Pipeline" }
                            th scope="col" { "State" }
                            th scope="col" .number { "Done" }
                            th scope="col" .number { "Failed" }
                            th scope="col" .number { "Rejected" }
                            th scope="col" .number { "Cost" }
                            th scope="col" { "Changed" }
                        }
                    }
                    tbody {
                        @for summary in ended { (ended_row(summary, prefix)) }
                    }
                }
            }
        }
    }
}

fn ended_row(summary: &CountedRun, prefix: &str) -> Markup {
    let totals = summary.totals.unwrap_or_default();
    let unknown = totals.usage.calls_of_unknown_cost;
    let known = totals.known_cost().map(NanoUsd::dollars);
    html! {
        tr {
            th scope="row" { (run_link(summary, prefix)) }
            td { (shown::inline(&summary.run.pipeline)) }
            td { (state(summary.run.state)) }
            td .number { (shown::count(totals.completed)) }
            td .number { (shown::count(totals.failed)) }
            td .number { (shown::count(summary.run.items.rejected)) }
            td .number { (known_cost(known, unknown)) }
            td { (shown::time(summary.run.updated_at)) }
        }
    }
}

fn run_link(summary: &CountedRun, prefix: &str) -> Markup {
    let number = summary.run.run.0;
    html! { a id={ "run-" (number) } href={ (prefix) "/runs/" (number) } { "Run " (number) } }
}

fn providers(providers: &[Snapshot]) -> Markup {
    html! {
        @if providers.is_empty() {
            p { "No provider can be used." }
        }
        ul .cards {
            @for provider in providers {
                li .card { (self::provider(provider)) }
            }
        }
    }
}

fn provider(provider: &Snapshot) -> Markup {
    let name = provider.provider.as_str();
    html! {
        h3 { (shown::inline(name)) " " (state_of_provider(provider)) }
        p .note { (shown::inline(&provider.base_host)) @if provider.simulated { ", simulated" } }
        dl .facts {
            (fact("In flight", &format!("{} of {}", provider.in_flight, provider.concurrency)))
            (fact("Queued", &shown::count(provider.queued as u64)))
            (fact("Calls", &shown::count(provider.calls)))
            (fact("429 responses", &shown::count(provider.throttled)))
            @if !provider.held_for.is_zero() { (fact("Waits", &wait(provider.held_for))) }
            @if !provider.retry_budget_wait.is_zero() { (fact("Retries wait", &wait(provider.retry_budget_wait))) }
        }
        (limits(&provider.limits))
        @for target in &provider.targets { (self::target(target)) }
        (keys(&provider.keys))
    }
}

fn wait(duration: Duration) -> String {
    shown::seconds(duration.as_secs_f64())
}

fn state_of_provider(provider: &Snapshot) -> Markup {
    let is_open = |target: &TargetSnapshot| target.forced_open || target.breaker == BreakerState::Open;
    let (mark, word) = match provider.out_of_service {
        _ if !provider.up => ("✗", "not running"),
        Some(OutOfService::Drained) => ("⏸", "drained"),
        Some(OutOfService::Removed | OutOfService::Replaced) => ("–", "removed"),
        Some(OutOfService::ModelRemoved | OutOfService::BreakerForcedOpen) => ("⏸", "out of service"),
        None if !provider.targets.is_empty() && provider.targets.iter().all(is_open) => ("✗", "unavailable"),
        None if provider.targets.iter().any(is_open) || !provider.keys_in_cooldown.is_empty() => {
            ("◷", "degraded")
        }
        None => ("✓", "healthy"),
    };
    html! { span class={ "state state-" (word.replace(' ', "-")) } { span aria-hidden="true" { (mark) " " } (word) } }
}

fn limits(limits: &[LimitSnapshot]) -> Markup {
    html! {
        @if !limits.is_empty() {
            ul .limits {
                @for limit in limits {
                    li {
                        span {
                            (limit.limit) ", " (shown::decimal(limit.effective))
                            @if limit.limit != "requests per day" { " per minute" }
                        }
                        meter min="0" max="1" high="0.9" value=(format!("{:.3}", limit.utilization.clamp(0.0, 1.0)))
                            aria-label={ "Used part of " (limit.limit) } {}
                        span { (shown::percent(limit.utilization)) " used" }
                    }
                }
            }
        }
    }
}

fn target(target: &TargetSnapshot) -> Markup {
    let breaker = if target.forced_open { "opened by hand" } else { target.breaker.as_str() };
    html! {
        section .target {
            h4 { (shown::inline(target.model.as_str())) @if target.retired { " (no longer configured)" } }
            dl .facts {
                (fact("Breaker", breaker))
                (fact("In flight", &format!("{} of {}", target.in_flight, target.concurrency)))
                (fact("Queued", &shown::count(target.queued as u64)))
                @if target.throttled > 0 { (fact("429 responses", &shown::count(target.throttled))) }
                @if let Some(before) = target.reduced_from { (fact("Limit before", &before.to_string())) }
                @if !target.probed_in.is_zero() { (fact("Next probe", &format!("in {}", wait(target.probed_in)))) }
            }
            @if let Some((class, message)) = &target.last_failure {
                p .warning { (class.as_str().replace('_', " ")) ": " (shown::inline(message)) }
            }
            (limits(&target.limits))
        }
    }
}

fn keys(keys: &[KeySnapshot]) -> Markup {
    let resting: Vec<&KeySnapshot> =
        keys.iter().filter(|key| !key.usable || !key.models_in_cooldown.is_empty()).collect();
    html! {
        @if !keys.is_empty() {
            p .note { (keys.len() - resting.len()) " of " (keys.len()) " keys can be used for all models." }
        }
        @for key in resting {
            p .warning {
                "Key " (shown::inline(key.key.as_str()))
                @if key.usable { " rests for some models" } @else { " rests" }
                @if !key.usable_in.is_zero() { ", for " (wait(key.usable_in)) }
                @if let Some(class) = key.class { ": " (class.as_str().replace('_', " ")) }
                @if let Some(message) = &key.message { ", " (shown::inline(message)) }
            }
        }
    }
}

fn load(process: &ProcessView) -> Markup {
    let sum = |value: fn(&Snapshot) -> usize| process.providers.iter().map(value).sum::<usize>() as u64;
    let throttled: u64 = process.providers.iter().map(|provider| provider.throttled).sum();
    html! {
        dl .facts {
            (fact("Calls in flight", &shown::count(sum(|provider| provider.in_flight))))
            (fact("Calls queued", &shown::count(sum(|provider| provider.queued))))
            (fact("429 responses", &shown::count(throttled)))
        }
        (charts(&process.samples))
    }
}

fn spending(process: &ProcessView) -> Markup {
    html! {
        dl .facts {
            @match process.spent_today {
                Some(spent) => {
                    (fact("Spent", &shown::usd(spent.cost_usd)))
                    @if spent.uncertain_usd > 0.0 { (fact("Possibly charged", &shown::usd(spent.uncertain_usd))) }
                }
                None => { (fact("Spent", "unknown")) }
            }
        }
        @if process.caps.is_empty() {
            p { "No cap is set for a day." }
        } @else {
            ul .limits {
                @for cap in &process.caps { li { (self::cap(cap)) } }
            }
        }
    }
}

fn cap(cap: &Cap) -> Markup {
    let used = if cap.cap_usd > 0.0 { (cap.spent_usd + cap.reserved_usd) / cap.cap_usd } else { 1.0 };
    html! {
        span {
            @match cap.scope {
                CapScope::Run => { "Run" }
                CapScope::Day => { "All together" }
                CapScope::Provider => {
                    "Provider " @if let Some(provider) = &cap.provider { (shown::inline(provider.as_str())) }
                }
                CapScope::Scope => { @if let Some(scope) = &cap.scope_name { (shown::inline(scope.as_str())) } }
            }
            ": " (shown::usd(cap.spent_usd)) " of " (shown::usd(cap.cap_usd))
            @if cap.reserved_usd > 0.0 { ", and " (shown::usd(cap.reserved_usd)) " reserved" }
        }
        meter min="0" max="1" high="0.9" value=(format!("{:.3}", used.clamp(0.0, 1.0))) aria-label="Used part of the cap" {}
        span { (shown::percent(used)) @if cap.reached.is_some() { ", reached" } }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::daemon::{HistorySample, ItemCounts, RunView, SpentToday};
    use crate::provider::KeyCooldown;
    use crate::run::{Holding, Progress};
    use crate::store::RunNumber;
    use crate::types::{Class, Format};

    use super::*;

    const HOSTILE: &str = "<script>alert(1)</script>\" onload=\"alert(2)\u{202e}";

    fn target(name: &str) -> TargetSnapshot {
        TargetSnapshot {
            model: name.into(),
            breaker: BreakerState::Open,
            forced_open: false,
            retired: true,
            throttled: 3,
            limits: Vec::new(),
            in_flight: 1,
            concurrency: 4,
            queued: 7,
            reduced_from: Some(8),
            probed_in: Duration::from_secs(12),
            last_failure: Some((Class::Timeout, name.into())),
        }
    }

    fn snapshot(name: &str) -> Snapshot {
        let limit = LimitSnapshot {
            limit: "requests",
            configured: Some(600.0),
            advertised: None,
            effective: 600.0,
            utilization: 0.5,
        };
        let key = KeySnapshot {
            key: name.into(),
            usable: false,
            models_in_cooldown: Vec::new(),
            usable_in: Duration::from_secs(30),
            class: Some(Class::Auth),
            message: Some(name.into()),
        };
        Snapshot {
            provider: name.into(),
            simulated: true,
            format: Format::Openai,
            base_host: name.to_owned(),
            out_of_service: None,
            draining: false,
            up: true,
            in_flight: 1,
            concurrency: 4,
            queued: 7,
            capacity: 8,
            calls: 1_234,
            throttled: 3,
            limits: vec![limit],
            limit: None,
            held_for: Duration::from_secs(3),
            retry_budget_wait: Duration::ZERO,
            targets: vec![target(name)],
            keys_in_cooldown: vec![KeyCooldown {
                key: name.into(),
                class: Class::Auth,
                message: name.into(),
            }],
            keys: vec![key],
        }
    }

    fn holding_run(text: &str) -> CountedRun {
        let holding = Holding {
            route: text.into(),
            target: Some(text.to_owned()),
            class: Class::RateLimit,
            message: text.into(),
            duration_seconds: 5.0,
            retry_in_seconds: 12.0,
            until_in_seconds: Some(30.0),
        };
        let progress = Progress { holding: Some(holding), input_fraction: Some(0.25), ..Progress::default() };
        let run = RunView {
            run: RunNumber(3),
            pipeline: text.to_owned(),
            pipeline_version: None,
            state: "holding",
            reason: Some(text.to_owned()),
            class: Some(Class::RateLimit),
            created_by: text.to_owned(),
            created_at: 0,
            updated_at: 0,
            sessions: 1,
            one_at_a_time: false,
            items: ItemCounts::default(),
            cost_usd: None,
            progress: Some(progress),
            summary: None,
        };
        CountedRun { run, totals: None }
    }

    fn rendered(text: &str) -> String {
        let sample = HistorySample {
            at: 3_600_000,
            items_per_second: 2.0,
            requests_per_second: 3.0,
            p50_seconds: Some(0.5),
            p95_seconds: None,
        };
        let process = ProcessView {
            notices: vec![text.to_owned()],
            providers: vec![snapshot(text)],
            caps: Vec::new(),
            spent_today: Some(SpentToday { cost_usd: 1.5, uncertain_usd: 0.0 }),
            samples: vec![sample],
            failures: Arc::default(),
        };
        let overview = Overview { runs: vec![holding_run(text)], process: Some(process) };
        fragments(&overview, "/llm").iter().map(|fragment| fragment.section().into_string()).collect()
    }

    #[test]
    fn an_overview_shows_texts_of_others_as_texts() {
        let page = rendered(HOSTILE);
        for forbidden in ["<script>", "\" onload", "\u{202e}"] {
            assert!(!page.contains(forbidden), "{forbidden:?} in {page}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert!(rendered(&"a".repeat(1 << 20)).len() < 50_000);
    }

    #[test]
    fn a_run_that_has_ended_shows_how_many_records_were_rejected() {
        let mut ended = holding_run("it");
        ended.run.state = "completed";
        ended.run.progress = None;
        ended.run.items.rejected = 7_531;
        let overview = Overview { runs: vec![ended], process: None };
        let page: String = fragments(&overview, "").iter().map(|part| part.section().into_string()).collect();
        let count = format!(">{}</td>", shown::count(7_531));
        for part in [">Rejected</th>", &count] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn an_overview_says_why_a_run_holds_and_how_providers_are() {
        let page = rendered("it");
        for part in [
            "0 running, 1 holding, 0 paused.",
            "href=\"/llm/runs/3\"",
            "Holds: rate limit: <bdi>it</bdi>",
            "The next attempt is in 12.0 s.",
            "accepts requests in 30.0 s.",
            "value=\"25.0\"",
            "unavailable",
            "50% used",
            "0 of 1 keys",
            "$1.5000",
            "Throughput in the last hour. items: now 2.00/s",
            "Nothing has failed.",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
