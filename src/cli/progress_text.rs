//! Formats a run's progress, numbers and costs as text. Pure: it prints nothing.

use std::fmt::Write;

use console::measure_text_width;
use jiff::{SignedDuration, Timestamp};

use crate::clock::now;
use crate::guard::BreakerState;
use crate::provider::{KeyCooldown, LimitUtilization, Snapshot};
use crate::run::{Cap, CapScope, Holding, Progress, WaitingForScope};
use crate::terminal_text;
use crate::types::NanoUsd;

/// The most columns of a provider's message in the display; the report has the complete message.
const MAX_MESSAGE_WIDTH: usize = 120;

/// A time further away is shown as this one.
const MAX_SHOWN_SECONDS: f64 = 366.0 * 86_400.0;

/// Returns everything in one line, for a log.
pub(super) fn line(title: &str, progress: &Progress) -> String {
    let providers = progress.providers.iter().filter(|provider| provider.calls > 0 || !provider.up);
    let providers: Vec<String> =
        providers.map(|provider| format!("{}: {}", provider.provider, health(provider))).collect();
    let mut parts = vec![items(progress), speed(progress), calls(progress), spent(progress)];
    parts.extend(progress.holding.iter().map(|held| holding(held, now(), usize::MAX)));
    parts.extend(progress.waiting_for_scope.iter().map(|wait| waiting_for_scope(wait, usize::MAX)));
    parts.extend(providers);
    format!("{title}: {}", parts.join(" | "))
}

fn items(progress: &Progress) -> String {
    let items = &progress.items;
    let mut text = format!("{} done", counted(items.completed + items.skipped, "item"));
    if items.failed > 0 {
        let _ = write!(text, ", {} failed", count(items.failed));
    }
    if items.rejected > 0 {
        let _ = write!(text, ", {} rejected", count(items.rejected));
    }
    let _ = write!(text, ", {} in flight", count(progress.in_flight));
    if let Some((key, seconds)) = &progress.oldest_item {
        let _ = write!(text, " (oldest {}, {})", short(key.as_str()), seconds_text(*seconds));
    }
    text.push_str(&completion(progress));
    if progress.stopping {
        text.push_str(", stopping");
    }
    if progress.simulated {
        text.push_str("  [simulated]");
    }
    text
}

/// Formats why a run holds and until when, such as "holding: claude/haiku: quota: spent until 02:00 UTC (retrying
/// in 4m 00s)". `now` is the time of day in UTC. If there are too few `columns`, the reason is truncated and not
/// the time.
pub(super) fn holding(held: &Holding, now: Timestamp, columns: usize) -> String {
    let target = held.target.as_ref().map_or_else(String::new, |target| format!("{target}: "));
    let until = held.until_in_seconds.map_or_else(String::new, |seconds| {
        let at = now.checked_add(SignedDuration::from_secs_f64(seconds.min(MAX_SHOWN_SECONDS)));
        at.map_or_else(|_| String::new(), |at| format!(" until {}", time_of_day(at, seconds)))
    });
    let next = if held.retry_in_seconds > 0.0 {
        format!(" (retrying in {})", seconds_text(held.retry_in_seconds))
    } else {
        // No request is sent before the requests in flight have ended.
        " (waiting for a response)".to_owned()
    };
    let time = until + &next;
    let reason =
        terminal_text::line(&format!("holding: {target}{}: {}", held.class, cut(&held.message))).into_owned();
    let free_columns = columns.saturating_sub(measure_text_width(&time));
    console::truncate_str(&reason, free_columns, "…").into_owned() + &time
}

/// Formats the wait for a scope, such as "12 requests wait for scope team-a (60 requests per minute), next in 1.0s".
/// What does not fit into `columns` is truncated.
pub(super) fn waiting_for_scope(wait: &WaitingForScope, columns: usize) -> String {
    let WaitingForScope { scope, limit, requests, requests_of_scope: _, next_in_seconds } = wait;
    let verb = if *requests == 1 { "waits" } else { "wait" };
    let requests = counted(*requests as u64, "request");
    let next = seconds_text(*next_in_seconds);
    let text = format!("{requests} {verb} for scope {scope} ({limit}), next in {next}");
    console::truncate_str(&terminal_text::line(&text), columns, "…").into_owned()
}

/// Formats a time in UTC, with its date if it is a day or more away.
fn time_of_day(at: Timestamp, seconds: f64) -> String {
    let format = if seconds < 86_400.0 { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    at.strftime(format).to_string()
}

/// How much of a run is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Completion {
    /// Items and rejected records that are done.
    done: u64,
    /// All of them, once they are counted.
    total: Option<u64>,
    /// The part that is done, from 0 to 1: of the items, or of the bytes of the input until the items are counted.
    fraction: Option<f64>,
}

impl Completion {
    /// Returns it for the progress of a run.
    pub(super) fn of(progress: &Progress) -> Self {
        let done = progress.items.finished() + progress.items.rejected;
        let started = done + progress.in_flight;
        // The file may have grown since it was counted.
        let total = progress.input_items.map(|total| total.max(started));
        let fraction = match total {
            Some(0) => None,
            Some(total) => Some(done as f64 / total as f64),
            None if started == 0 => progress.input_fraction.map(|_| 0.0),
            // What was read is not done yet.
            None => progress.input_fraction.map(|read| read * (done as f64 / started as f64)),
        };
        Self { done, total, fraction: fraction.map(|fraction| fraction.clamp(0.0, 1.0)) }
    }

    /// Returns how many are done, such as "2,910/10,000".
    pub(super) fn count_text(&self) -> String {
        let done = with_separators(self.done);
        match self.total {
            Some(total) => format!("{done}/{}", with_separators(total)),
            None => format!("{done} done"),
        }
    }

    /// Returns the part that is done; `None` if the size of the input is not known.
    pub(super) fn fraction(&self) -> Option<f64> {
        self.fraction
    }

    /// Returns the part that is done in per cent, rounded down: only all of it is 100.
    pub(super) fn percent(&self) -> Option<u64> {
        self.fraction.map(|fraction| (fraction * 100.0) as u64)
    }

    /// Returns whether all of the input is done.
    pub(super) fn is_done(&self) -> bool {
        self.total == Some(self.done)
    }
}

/// Returns how much is done, for a log; empty if the size of the input is not known.
fn completion(progress: &Progress) -> String {
    let completion = Completion::of(progress);
    let percent = completion.percent().map_or_else(String::new, |percent| format!(", {percent}% of "));
    match completion.total {
        _ if percent.is_empty() => String::new(),
        Some(total) => percent + &with_separators(total),
        None => percent + "the input",
    }
}

/// Returns how fast a run is, what is in flight, and the time so far.
pub(super) fn pace(progress: &Progress) -> String {
    format!(
        "{:.1} items/s, {:.1} calls/s, {} in flight, {} elapsed",
        progress.items_per_second,
        progress.calls_per_second,
        count(progress.in_flight),
        seconds_text(progress.elapsed_seconds)
    )
}

fn speed(progress: &Progress) -> String {
    let mut text = format!(
        "{:.1} items/s, {:.1} calls/s, {} elapsed",
        progress.items_per_second,
        progress.calls_per_second,
        seconds_text(progress.elapsed_seconds)
    );
    if let Some(left) = progress.remaining_seconds.filter(|left| *left >= 0.5) {
        let _ = write!(text, ", about {} left", seconds_text(left));
    }
    text
}

/// Returns the calls that did not simply succeed; `None` if there were none.
pub(super) fn retries(progress: &Progress) -> Option<String> {
    let calls = calls(progress);
    calls.contains(", ").then_some(calls)
}

fn calls(progress: &Progress) -> String {
    let calls = &progress.calls;
    let mut text = counted(calls.sent, "call");
    for (number, what) in [
        (calls.throttled, "throttled (429)"),
        (calls.failed.saturating_sub(calls.throttled), "failed"),
        (calls.superseded, "superseded"),
        (calls.failovers, "failed over"),
        (calls.validation_retries, "validation retries"),
    ] {
        if number > 0 {
            let _ = write!(text, ", {} {what}", count(number));
        }
    }
    text
}

fn spent(progress: &Progress) -> String {
    if progress.calls.sent == 0 {
        return "no response yet".to_owned();
    }
    format!(
        "tokens {} in, {} out; {}",
        count(progress.tokens.input.0),
        count(progress.tokens.output.0),
        money_so_far(progress)
    )
}

/// Formats the cost so far, and in all, such as "cost $0.42 of $1.00, in all about $3.00".
pub(super) fn money_so_far(progress: &Progress) -> String {
    let mut text = format!("cost {}", so_far(progress));
    let own_cap = progress.caps.iter().find(|cap| cap.scope == CapScope::Run);
    // What is spent of a cap includes the uncertain cost, and the forecast does not.
    let spent = own_cap.map_or(0.0, |cap| cap.spent_usd);
    if let Some(forecast) = progress.cost_forecast_usd.filter(|forecast| *forecast > spent) {
        let of = if progress.caps.is_empty() { " of about" } else { ", in all about" };
        let _ = write!(text, "{of} {}", money(forecast));
    }
    text
}

/// Formats the cost so far. Where the run has a cap, the cost includes its earlier sessions.
fn so_far(progress: &Progress) -> String {
    let (own, shared): (Vec<&Cap>, Vec<&Cap>) =
        progress.caps.iter().partition(|cap| cap.scope == CapScope::Run);
    let known = || cost(progress.cost_usd, progress.calls_of_unknown_cost);
    let mut text = own.first().map_or_else(known, |cap| spent_of(cap));
    for cap in shared {
        let _ = write!(text, ", {}", spent_of(cap));
    }
    text
}

/// Formats how much of a cap is spent, such as "$0.42 of $1.00".
pub(super) fn spent_of(cap: &Cap) -> String {
    let spent = format!("{} of {}", money(cap.spent_usd), money(cap.cap_usd));
    match (&cap.scope, &cap.provider, &cap.scope_name) {
        (CapScope::Run, _, _) => spent,
        (CapScope::Provider, Some(provider), _) => format!("{provider} today {spent}"),
        (CapScope::Scope, _, Some(scope)) => format!("scope {scope} today {spent}"),
        (CapScope::Day | CapScope::Provider | CapScope::Scope, _, _) => format!("today {spent}"),
    }
}

fn health(provider: &Snapshot) -> String {
    if !provider.up {
        return "down".to_owned();
    }
    let mut text = String::new();
    let worst = provider.targets.iter().filter(|target| target.breaker != BreakerState::Closed);
    let worst: Vec<String> =
        worst.map(|target| format!("{} {}", target.model, target.breaker.as_str())).collect();
    // A breaker is closed when calls flow; a bare "closed" reads like the opposite.
    text.push_str(if worst.is_empty() { "breaker closed" } else { "breaker of " });
    text.push_str(&worst.join(", "));
    let _ = write!(
        text,
        ", {}/{} calls in flight, {} queued",
        provider.in_flight,
        provider.concurrency,
        count(provider.queued as u64)
    );
    if let Some(used) = &provider.limit {
        let _ = write!(text, ", {}", limit(used));
    }
    if provider.throttled > 0 {
        let _ = write!(text, ", {} throttled (429)", count(provider.throttled));
    }
    if !provider.held_for.is_zero() {
        let _ = write!(text, ", backing off {}", seconds_text(provider.held_for.as_secs_f64()));
    }
    for KeyCooldown { key, class, .. } in &provider.keys_in_cooldown {
        // The provider's message may be long; the report has all of it.
        let _ = write!(text, ", key {key} cooling down ({class})");
    }
    if provider.simulated {
        text.push_str("  [simulated]");
    }
    text
}

/// Formats how much of a limit the last ten seconds used.
pub(super) fn limit(used: &LimitUtilization) -> String {
    let of = format!("{} {}/min", count(used.per_minute.round() as u64), used.limit);
    let whose = used.model.as_ref().map_or_else(String::new, |model| format!(" of {model}"));
    // The unused rest of a minute may be used at once: that is a burst within the limit.
    match used.utilization {
        share if share >= 1.25 => format!("a burst at {share:.1} times {of}{whose}"),
        share => format!("{:.0}% of {of}{whose}", (share * 100.0).min(100.0)),
    }
}

/// Formats a number of things, such as "1 call" and "12 calls".
pub(super) fn counted(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Truncates a provider's message.
fn cut(message: &str) -> String {
    console::truncate_str(&terminal_text::line(message), MAX_MESSAGE_WIDTH, "…").into_owned()
}

/// Truncates a long key to 20 columns; a key made from an item's content has 64 digits.
fn short(key: &str) -> String {
    console::truncate_str(&terminal_text::line(key), 20, "…").into_owned()
}

/// Formats a number with all its digits, in groups of three.
pub(super) fn with_separators(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Formats a number in at most six characters.
pub(super) fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..999_950 => format!("{:.1}k", number as f64 / 1e3),
        999_950..999_995_000 => format!("{:.2}M", number as f64 / 1e6),
        _ => format!("{:.2}G", number as f64 / 1e9),
    }
}

pub(super) fn money(dollars: f64) -> String {
    NanoUsd((dollars * 1e9).round() as u64).to_string()
}

/// Formats the known part of a cost; an unknown cost is never shown as zero.
pub(super) fn cost(dollars: Option<f64>, calls_of_unknown_cost: u64) -> String {
    match (dollars, calls_of_unknown_cost) {
        (None, _) => "unknown".to_owned(),
        (Some(dollars), 0) => money(dollars),
        (Some(dollars), _) => format!("at least {}", money(dollars)),
    }
}

/// Formats a duration.
pub(super) fn seconds_text(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0 if seconds > 0.0 && seconds < 0.9995 => format!("{:.0}ms", seconds * 1e3),
        1 if seconds < 0.9995 => format!("{:.0}ms", seconds * 1e3),
        0..10 => format!("{seconds:.1}s"),
        10..60 => format!("{whole}s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([count(9_999), count(12_345), count(1_234_567)], ["9999", "12.3k", "1.23M"]);
        assert_eq!([seconds_text(0.0), seconds_text(0.034), seconds_text(0.9)], ["0.0s", "34ms", "900ms"]);
        assert_eq!(
            [seconds_text(3.12), seconds_text(75.0), seconds_text(7_300.0)],
            ["3.1s", "1m 15s", "2h 01m"]
        );
    }

    #[test]
    fn a_limit_is_shown_with_its_unit_and_never_above_100_percent() {
        let used = |share, model: Option<&str>| LimitUtilization {
            model: model.map(Into::into),
            limit: "requests",
            per_minute: 600.0,
            utilization: share,
        };
        assert_eq!(limit(&used(0.314, None)), "31% of 600 requests/min");
        assert_eq!(limit(&used(1.2, Some("haiku"))), "100% of 600 requests/min of haiku");
        assert_eq!(limit(&used(3.21, None)), "a burst at 3.2 times 600 requests/min");
    }

    #[test]
    fn a_cost_is_shown_with_its_caps() {
        let cap = |of, provider: Option<&str>, cap_usd| Cap {
            scope: of,
            provider: provider.map(Into::into),
            scope_name: (of == CapScope::Scope).then(|| "team-a".into()),
            cap_usd,
            spent_usd: 0.42,
            uncertain_usd: 0.0,
            reserved_usd: 0.1,
            overshoot_usd: 0.0,
            reached: None,
        };
        let caps = vec![cap(CapScope::Run, None, 1.0), cap(CapScope::Provider, Some("claude"), 10.0)];
        let mut progress =
            Progress { caps, cost_usd: Some(0.4), cost_forecast_usd: Some(3.0), ..Progress::default() };
        progress.calls.sent = 7;
        let shown =
            "tokens 0 in, 0 out; cost $0.42 of $1.00, claude today $0.42 of $10.00, in all about $3.00";
        assert_eq!(spent(&progress), shown);
        assert_eq!(spent_of(&cap(CapScope::Scope, None, 5.0)), "scope team-a today $0.42 of $5.00");
    }

    #[test]
    fn a_holding_run_shows_the_reason_and_the_time() {
        let at: Timestamp = "2026-11-28T22:00:00Z".parse().unwrap();
        let mut held = Holding {
            route: "default".into(),
            target: Some("claude/haiku".to_owned()),
            class: crate::types::Class::Quota,
            message: "You exceeded your current quota".into(),
            duration_seconds: 3.0,
            retry_in_seconds: 240.0,
            until_in_seconds: Some(4.0 * 3600.0),
        };
        let shown = holding(&held, at, usize::MAX);
        let expected = "holding: claude/haiku: quota: You exceeded your current quota until 02:00 UTC (retrying in 4m 00s)";
        assert_eq!(shown, expected);
        held.until_in_seconds = Some(30.0 * 3600.0);
        assert!(holding(&held, at, usize::MAX).contains(" until 2026-11-30 04:00 UTC "));
        held.until_in_seconds = Some(f64::MAX);
        held.target = None;
        held.message = "x".repeat(10_000).into();
        assert!(holding(&held, at, usize::MAX).len() < 250);
    }

    #[test]
    fn a_hold_that_waits_for_requests_in_flight_is_shown_as_such() {
        let held = Holding {
            route: "default".into(),
            target: Some("a/m".to_owned()),
            class: crate::types::Class::Timeout,
            message: "the provider accepts requests and does not answer".into(),
            duration_seconds: 90.0,
            retry_in_seconds: 0.0,
            until_in_seconds: None,
        };
        let shown = holding(&held, Timestamp::UNIX_EPOCH, usize::MAX);
        let expected = "holding: a/m: timeout: the provider accepts requests and does not answer (waiting for a response)";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_run_that_waits_for_its_scope_shows_the_limit_and_the_time() {
        let wait = WaitingForScope {
            scope: "team-a".into(),
            limit: "60 requests per minute".to_owned(),
            requests: 12,
            requests_of_scope: 40,
            next_in_seconds: 1.0,
        };
        let progress = Progress { waiting_for_scope: Some(wait), ..Progress::default() };
        let expected = "12 requests wait for scope team-a (60 requests per minute), next in 1.0s";
        assert!(line("email", &progress).contains(expected), "{}", line("email", &progress));
    }

    #[test]
    fn what_is_done_is_counted_in_items_or_else_in_bytes() {
        let mut progress = Progress { in_flight: 10, input_fraction: Some(0.5), ..Progress::default() };
        let shown = |progress: &Progress| {
            let completion = Completion::of(progress);
            (completion.count_text(), completion.percent(), super::completion(progress))
        };
        assert_eq!(shown(&progress), ("0 done".to_owned(), Some(0), ", 0% of the input".to_owned()));
        progress.items.completed = 25;
        progress.items.rejected = 5;
        // Of the half that was read, 30 of 40 are done.
        assert_eq!(shown(&progress), ("30 done".to_owned(), Some(37), ", 37% of the input".to_owned()));
        progress.input_items = Some(1_000);
        assert_eq!(shown(&progress), ("30/1,000".to_owned(), Some(3), ", 3% of 1,000".to_owned()));
        // The file has grown.
        progress.input_items = Some(20);
        assert_eq!(shown(&progress), ("30/40".to_owned(), Some(75), ", 75% of 40".to_owned()));
        progress.in_flight = 0;
        progress.items.completed = 9_994;
        progress.input_items = Some(10_000);
        // One of ten thousand is missing: that is not all.
        assert_eq!(shown(&progress).1, Some(99));
        assert!(!Completion::of(&progress).is_done());
        progress.items.completed = 9_995;
        assert_eq!(shown(&progress).1, Some(100));
        assert!(Completion::of(&progress).is_done());
        let nothing = Progress { input_items: Some(0), ..Progress::default() };
        assert_eq!(shown(&nothing), ("0/0".to_owned(), None, String::new()));
        assert_eq!(shown(&Progress::default()), ("0 done".to_owned(), None, String::new()));
    }

    #[test]
    fn a_run_that_has_just_begun_shows_zeros() {
        let shown = line("email", &Progress::default());
        assert!(
            shown.starts_with(
                "email: 0 items done, 0 in flight | 0.0 items/s, 0.0 calls/s, 0.0s elapsed | 0 calls"
            ),
            "{shown}"
        );
    }
}
