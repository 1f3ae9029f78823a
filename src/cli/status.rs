//! `pointsman status`: the state of a daemon, or what a store shows without one.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::run::RunSummary;
use crate::terminal_text;

use super::args::Status;
use super::config::load;
use super::exit::Exit;
use super::open_store::fail;
use super::print::{print, print_json};
use super::progress::{Mode, eprint_line};
use super::progress_text::{count, counted, money, seconds_text, spent_of};
use super::remote::requests::Remote;
use super::remote::server_args::health_client;
use super::remote::server_url::ServerUrl;
use super::remote::views::{CooldownView, LimitView, ProviderView, StatusView, UnfinishedRunView};
use super::runs;

/// How long `/health` may take.
const MAX_HEALTH: Duration = Duration::from_secs(5);

/// How many runs of a store are shown.
const LATEST_RUNS: usize = 10;

/// Shows the state.
pub(super) fn status(args: &Status) -> Exit {
    if args.health {
        // Nothing is printed: the caller is a health check, which reads the exit code.
        return if is_healthy(args).unwrap_or(false) { Exit::Success } else { Exit::IoError };
    }
    show(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn is_healthy(args: &Status) -> anyhow::Result<bool> {
    let url = match &args.store.config {
        Some(file) => {
            ServerUrl::of(&load(Some(file), false)?.serve).context("the daemon takes any free port")?
        }
        None => args.store.server.url_or_local()?,
    };
    let client = health_client(url)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(client.is_healthy(MAX_HEALTH)))
}

fn show(args: &Status) -> anyhow::Result<()> {
    if let Some(remote) = args.store.remote()? {
        return show_daemon(&remote, remote.get("/status")?, args.json);
    }
    let named = args.store.store.is_none().then(|| configured_url(args.store.config.as_deref())).flatten();
    let Some(url) = named else { return show_store(args, "no daemon was asked") };
    let remote = args.store.server.at(url)?;
    let url = remote.url();
    if !remote.is_healthy(MAX_HEALTH) {
        return show_store(args, &format!("no daemon answers at {url}"));
    }
    match remote.get("/status") {
        Ok(value) => {
            eprint_line(&format!("asked the daemon at {url}, the address of `listen` in [serve]"));
            show_daemon(&remote, value, args.json)
        }
        Err(error) => {
            eprint_line(&error.to_string());
            show_store(args, &format!("the daemon at {url} has not shown its state"))
        }
    }
}

/// Returns the address at which the daemon of a configuration listens; `None` if it takes any free port.
fn configured_url(config: Option<&Path>) -> Option<ServerUrl> {
    // Without a provider the environment is no configuration. A faulty file is reported when the store is opened.
    let settings = load(config, false).map(|config| config.serve).unwrap_or_default();
    ServerUrl::of(&settings)
}

fn show_daemon(remote: &Remote, mut value: Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        if let Value::Object(fields) = &mut value {
            fields.insert("server".to_owned(), json!(remote.url().to_string()));
        }
        return Ok(print_json(&serde_json::to_string_pretty(&value)?)?);
    }
    let status: StatusView = remote.parse(value)?;
    print(&text(&remote.url().to_string(), &status))?;
    let program = env!("CARGO_PKG_VERSION");
    if status.version != program {
        eprint_line(&format!(
            "the daemon is of version {}, and this program of version {program}: some commands may not work",
            status.version
        ));
    }
    Ok(())
}

/// Returns the state of a daemon as text.
fn text(url: &str, status: &StatusView) -> String {
    let uptime = seconds_text(status.uptime_seconds);
    let ready = if status.ready { "ready" } else { "not ready" };
    let mut lines = vec![format!("pointsman {} at {url}, up {uptime}: {ready}", status.version)];
    lines.extend(status.reasons.iter().map(|reason| format!("not ready: {reason}")));
    let open = status.runs.open;
    let running = open.saturating_sub(status.runs.holding);
    let stuck = match status.runs.stuck {
        0 => String::new(),
        stuck => format!(", {stuck} stuck"),
    };
    lines.push(format!(
        "{} open ({running} running, {} holding), {} paused{stuck}",
        counted(open as u64, "run"),
        status.runs.holding,
        status.runs.paused
    ));
    lines.extend(status.unfinished_runs.iter().map(unfinished_run));
    let all = open + status.runs.paused + status.runs.stuck;
    if !status.unfinished_runs.is_empty() && all > status.unfinished_runs.len() {
        let more = counted((all - status.unfinished_runs.len()) as u64, "more run");
        lines.push(format!("{more}: `pointsman runs --server {url}` lists them"));
    }
    lines.push(format!("spent today (UTC): {}", money(status.spent_today_usd)));
    lines.extend(status.caps.iter().map(|cap| format!("cap: {}", spent_of(cap))));
    lines.extend(
        status.providers.iter().map(|provider| format!("{}: {}", provider.provider, health(provider))),
    );
    if status.providers.is_empty() {
        lines.push("no provider is usable".to_owned());
    }
    lines.join("\n")
}

/// Formats what a run waits for.
fn unfinished_run(run: &UnfinishedRunView) -> String {
    let UnfinishedRunView { run, pipeline, state, reason, waiting_for_scope } = run;
    let waiting = waiting_for_scope.as_ref().map(|wait| {
        let verb = if wait.requests == 1 { "waits" } else { "wait" };
        let requests = counted(wait.requests as u64, "request");
        format!("{requests} {verb} for scope {} ({})", wait.scope, wait.limit)
    });
    let why: Vec<String> = reason.iter().cloned().chain(waiting).collect();
    let text = if why.is_empty() {
        format!("run {run} ({pipeline}): {state}")
    } else {
        format!("run {run} ({pipeline}): {state}: {}", why.join("; "))
    };
    terminal_text::line(&text).into_owned()
}

/// Formats the state of a provider.
fn health(provider: &ProviderView) -> String {
    let mut parts: Vec<String> = provider.unavailable().map(str::to_owned).into_iter().collect();
    let breakers = provider.open_breakers();
    parts.push(if breakers.is_empty() {
        "breaker closed".to_owned()
    } else {
        format!("breaker of {}", breakers.join(", "))
    });
    parts.push(format!("{}/{} calls in flight", provider.in_flight, provider.concurrency));
    parts.push(format!("{} queued", count(provider.queued as u64)));
    parts.extend(provider.limit.as_ref().map(limit));
    if provider.throttled > 0 {
        parts.push(format!(
            "{} of {} throttled (429)",
            count(provider.throttled),
            counted(provider.calls, "call")
        ));
    }
    if !provider.held_for.is_zero() {
        parts.push(format!("backing off {}", seconds_text(provider.held_for.as_secs_f64())));
    }
    parts.extend(
        provider
            .keys_in_cooldown
            .iter()
            .map(|CooldownView { key, class }| format!("key {key} cooling down ({class})")),
    );
    let simulated = if provider.simulated { "  [simulated]" } else { "" };
    parts.join(", ") + simulated
}

fn limit(used: &LimitView) -> String {
    let whose = used.model.as_ref().map_or_else(String::new, |model| format!(" of {model}"));
    let share = (used.utilization * 100.0).min(100.0);
    format!("{share:.0}% of {} {}/min{whose}", count(used.per_minute.round() as u64), used.limit)
}

/// Shows the latest runs of the store. `why` no daemon has answered is said first.
fn show_store(args: &Status, why: &str) -> anyhow::Result<()> {
    let why = format!("{why}: name one with --server URL, or in POINTSMAN_SERVER");
    let runs = runs::stored_summaries(&args.store).context(why.clone())?;
    let latest: Vec<&RunSummary> = runs.iter().take(LATEST_RUNS).collect();
    if args.json {
        let value = json!({ "server": null, "runs": latest });
        return Ok(print_json(&serde_json::to_string_pretty(&value)?)?);
    }
    eprint_line(&format!("{why}; the latest runs of the store:"));
    if latest.is_empty() {
        eprint_line("no runs are stored");
        return Ok(());
    }
    Ok(print(&runs::table(&runs[..latest.len()]))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusView {
        serde_json::from_value(json!({
            "version": "9.9.9", "uptime_seconds": 7_300.0, "ready": false, "reasons": [{ "reason": "the store cannot be written", "detail": "the disk is full" }],
            "runs": { "open": 3, "holding": 1, "paused": 2, "stuck": 1 }, "unfinished_runs": [
                { "run": 7, "pipeline": "mail", "state": "crashed", "reason": "it could not be resumed:\nthe items are gone",
                    "class": null, "waiting_for_scope": null },
                { "run": 9, "pipeline": "mail", "state": "holding", "reason": "the key was rejected", "class": "auth",
                    "waiting_for_scope": null },
                { "run": 8, "pipeline": "mail", "state": "running", "reason": null, "class": null, "waiting_for_scope": {
                    "scope": "team-a", "limit": "60 requests per minute", "requests": 12, "requests_of_scope": 40,
                    "next_in_seconds": 1.0
                } }
            ], "spent_today_usd": 1.25, "caps": [{
                "scope": "day", "cap_usd": 5.0, "spent_usd": 1.25, "uncertain_usd": 0.0, "reserved_usd": 0.0,
                "overshoot_usd": 0.0, "reached": null
            }],
            "providers": [{
                "provider": "a", "simulated": true, "out_of_service": null, "draining": false, "up": true,
                "in_flight": 3, "concurrency": 10, "queued": 12_345, "calls": 100, "throttled": 2,
                "limit": { "model": null, "limit": "requests", "per_minute": 600.0, "utilization": 0.5 },
                "held_for_seconds": 4.0,
                "targets": [{ "model": "m", "breaker": "open", "forced_open": true }],
                "keys_in_cooldown": [{ "key": "main", "class": "quota", "message": "no credit" }],
                "a_field_of_another_version": 1
            }]
        }))
        .unwrap()
    }

    #[test]
    fn the_state_of_a_daemon_is_a_few_lines() {
        assert_eq!(
            text("http://127.0.0.1:7700", &status()),
            "pointsman 9.9.9 at http://127.0.0.1:7700, up 2h 01m: not ready\n\
             not ready: the store cannot be written: the disk is full\n\
             3 runs open (2 running, 1 holding), 2 paused, 1 stuck\n\
             run 7 (mail): crashed: it could not be resumed: the items are gone\n\
             run 9 (mail): holding: the key was rejected\n\
             run 8 (mail): running: 12 requests wait for scope team-a (60 requests per minute)\n\
             3 more runs: `pointsman runs --server http://127.0.0.1:7700` lists them\n\
             spent today (UTC): $1.25\n\
             cap: today $1.25 of $5.00\n\
             a: breaker of m forced open, 3/10 calls in flight, 12.3k queued, 50% of 600 requests/min, 2 of 100 calls \
             throttled (429), backing off 4.0s, key main cooling down (quota)  [simulated]"
        );
    }

    #[test]
    fn a_provider_without_an_actor_is_down() {
        let mut provider = status().providers.remove(0);
        provider.up = false;
        assert!(health(&provider).starts_with("down, breaker of m forced open"));
        provider.up = true;
        provider.draining = true;
        assert!(health(&provider).starts_with("draining, "));
    }
}
