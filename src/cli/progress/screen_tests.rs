//! The display of a run in five states, in terminals of several widths. The lines are also written to `target/screens`, to
//! be looked at.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::line::columns;
use super::screen;
use crate::cli::next_command::NextCommand;
use crate::cli::table;
use crate::guard::BreakerState;
use crate::provider::{LimitUtilization, Snapshot, TargetSnapshot};
use crate::run::{
    Cap, CapScope, ErrorCount, GroupReport, Holding, Progress, Report, RunOutcome, WaitingForScope,
    empty_report,
};
use crate::store::RunNumber;
use crate::terminal_text;
use crate::types::{Class, Format, Tokens};

/// Widths of terminals.
const WIDTHS: [usize; 4] = [60, 80, 120, 200];

/// Names of a pipeline and a provider, plain and with wide, joined and combining characters.
const NAMES: [(&str, &str); 4] = [
    ("feedback", "openai"),
    ("請求書-二〇二六年十一月二十八日-株式会社山田商事", "株式会社山田商事"),
    ("👩‍👩‍👧👍🏽🇫🇷👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧👩‍👩‍👧", "👩‍👩‍👧👍🏽🇫🇷👩‍👩‍👧"),
    ("e\u{301}te\u{301}\u{1b}[2J\u{202e}", "e\u{301}\u{327}\u{301}te\u{301}"),
];

fn now() -> Timestamp {
    "2026-11-28T22:00:00Z".parse().unwrap()
}

fn target(model: &str) -> TargetSnapshot {
    TargetSnapshot {
        model: model.into(),
        breaker: BreakerState::Closed,
        forced_open: false,
        retired: false,
        throttled: 0,
        limits: Vec::new(),
        in_flight: 12,
        concurrency: 32,
        queued: 3,
        reduced_from: None,
        probed_in: Duration::ZERO,
        last_failure: None,
    }
}

fn provider(name: &str, targets: Vec<TargetSnapshot>) -> Snapshot {
    Snapshot {
        provider: name.into(),
        simulated: false,
        format: Format::Openai,
        base_host: "localhost".to_owned(),
        out_of_service: None,
        draining: false,
        up: true,
        in_flight: 0,
        concurrency: 32,
        queued: 0,
        capacity: 64,
        calls: 0,
        throttled: 0,
        limits: Vec::new(),
        limit: None,
        held_for: Duration::ZERO,
        retry_budget_wait: Duration::ZERO,
        targets,
        keys_in_cooldown: Vec::new(),
        keys: Vec::new(),
    }
}

fn run_cap(cap_usd: f64, spent_usd: f64) -> Cap {
    Cap {
        scope: CapScope::Run,
        provider: None,
        scope_name: None,
        cap_usd,
        spent_usd,
        uncertain_usd: 0.0,
        reserved_usd: 0.0,
        overshoot_usd: 0.0,
        reached: None,
    }
}

/// A run whose items are not counted, before its first answer.
fn start(name: &str) -> Progress {
    Progress {
        in_flight: 12,
        caps: vec![run_cap(5.0, 0.0)],
        input_fraction: Some(0.012),
        elapsed_seconds: 0.3,
        providers: vec![
            Snapshot { in_flight: 12, ..provider(name, vec![target("gpt-6-luna")]) },
            provider("claude", vec![target("haiku")]),
        ],
        ..Progress::default()
    }
}

/// A run with some failures, of which one provider does not answer.
fn middle(name: &str) -> Progress {
    let mut progress = start(name);
    progress.items.completed = 2_901;
    progress.items.failed = 7;
    progress.items.rejected = 2;
    progress.failed_items = [(Class::Timeout, 5), (Class::ContentFilter, 2)].into();
    progress.input_items = Some(10_000);
    progress.calls.sent = 3_012;
    progress.calls.answered = 2_950;
    progress.calls.failed = 62;
    progress.calls.throttled = 14;
    progress.calls.failovers = 9;
    progress.items_per_second = 41.2;
    progress.calls_per_second = 44.6;
    progress.elapsed_seconds = 70.0;
    progress.remaining_seconds = Some(171.0);
    progress.caps = vec![run_cap(5.0, 1.23)];
    progress.cost_usd = Some(1.23);
    progress.cost_forecast_usd = Some(4.1);
    progress.tokens.input = Tokens(1_200_000);
    progress.tokens.output = Tokens(85_300);
    progress.oldest_item = Some(("mail-0013-請求書".into(), 12.0));
    let [first, second] = progress.providers.as_mut_slice() else { unreachable!() };
    first.queued = 3;
    first.throttled = 14;
    first.limit = Some(LimitUtilization {
        model: Some("gpt-6-luna".into()),
        limit: "output tokens",
        per_minute: 60_000.0,
        utilization: 0.93,
    });
    second.targets = vec![
        TargetSnapshot {
            breaker: BreakerState::Open,
            probed_in: Duration::from_secs(12),
            ..target("claude-haiku-4-5")
        },
        target("claude-opus-5"),
    ];
    second.limit =
        Some(LimitUtilization { model: None, limit: "requests", per_minute: 50.0, utilization: 0.03 });
    progress
}

/// A run that waits for a quota.
fn holding(name: &str) -> Progress {
    let mut progress = middle(name);
    progress.holding = Some(Holding {
        route: "default".into(),
        target: Some(format!("{}/gpt-6-luna", progress.providers[0].provider)),
        class: Class::Quota,
        message: "You exceeded your current quota, please check your plan and billing details".into(),
        duration_seconds: 3.0,
        retry_in_seconds: 240.0,
        until_in_seconds: Some(4.0 * 3600.0),
    });
    progress.waiting_for_scope = Some(WaitingForScope {
        scope: "team-a".into(),
        limit: "60 requests per minute".to_owned(),
        requests: 12,
        requests_of_scope: 40,
        next_in_seconds: 1.0,
    });
    progress.remaining_seconds = None;
    progress.items_per_second = 0.0;
    progress
}

/// A run whose user stops it, and whose providers are all unusable.
fn failure(name: &str) -> Progress {
    let mut progress = middle(name);
    progress.stopping = true;
    progress.simulated = true;
    progress.items.failed = 1_204;
    progress.failed_items = [(Class::Timeout, 1_100), (Class::ServerError, 80), (Class::Auth, 17)].into();
    progress.caps = vec![run_cap(5.0, 4.98)];
    let [first, second] = progress.providers.as_mut_slice() else { unreachable!() };
    first.up = false;
    second.held_for = Duration::from_secs(3);
    second.targets = vec![target("claude-haiku-4-5")];
    progress
}

/// The report of a run with some failures.
fn report() -> Report {
    let error = |count, example: &str| ErrorCount { count, example: example.to_owned() };
    let group = |calls| GroupReport { calls, failed: 62, cost_usd: Some(4.12), ..GroupReport::default() };
    let mut report = empty_report("feedback", RunOutcome::Completed, Duration::from_secs(241));
    report.run = Some(RunNumber(7));
    report.stored = true;
    report.items.completed = 9_991;
    report.items.failed = 7;
    report.items.rejected = 2;
    report.calls.sent = 10_062;
    report.calls.answered = 10_000;
    report.calls.failed = 62;
    report.calls.throttled = 14;
    report.cost_usd = Some(4.12);
    report.caps = vec![run_cap(5.0, 4.12)];
    report.steps.insert("label".into(), group(10_062));
    report.targets.insert("openai/gpt-6-luna".to_owned(), group(9_000));
    report.targets.insert("claude/claude-haiku-4-5".to_owned(), group(1_062));
    let message = "step label: openai/gpt-6-luna: no response within the deadline of the step, which is 60 s";
    report.errors = [(Class::Timeout, error(5, message)), (Class::ContentFilter, error(2, message))].into();
    report.failed_calls =
        [(Class::RateLimit, error(14, message)), (Class::Timeout, error(48, message))].into();
    report.first_reject = Some("line 17: has 3 fields, the header has 2".to_owned());
    report
}

/// Returns the text after a run.
fn end(width: usize) -> String {
    let report = report();
    let next = NextCommand {
        run: RunNumber(7),
        place: "sqlite:pointsman.db",
        store_option: "",
        retry: None,
        is_from_stdin: false,
        is_cancelled: false,
        has_give_up: true,
    };
    let shown = table::report_in(&report, Some(width));
    format!("{shown}\nresults in labelled.csv\n{}", next.of(&report).unwrap())
}

/// Returns the lines of the display in a terminal of this width and 24 rows.
fn shown(title: &str, progress: &Progress, width: usize) -> Vec<String> {
    let lines = screen::lines(title, progress, now(), (23, width - 1));
    lines.iter().map(|line| line.to_live(false).text).collect()
}

fn states(name: &str) -> [(&'static str, Progress); 4] {
    [("start", start(name)), ("middle", middle(name)), ("holding", holding(name)), ("failure", failure(name))]
}

#[test]
fn each_line_fits_into_any_terminal_with_any_name() {
    for (title, name) in NAMES {
        for (state, progress) in states(name) {
            for width in WIDTHS.into_iter().chain([1, 2, 3, 10, 20, 40]) {
                for line in shown(title, &progress, width) {
                    assert!(columns(&line) < width, "{state}, {width}: {line}");
                    assert!(console::measure_text_width(&line) < width, "{state}, {width}: {line}");
                    assert_eq!(terminal_text::line(&line), line);
                }
            }
        }
    }
}

#[test]
fn the_display_has_no_more_lines_than_the_terminal() {
    for rows in 0..12 {
        let lines = screen::lines("feedback", &holding("openai"), now(), (rows, 79));
        assert!(lines.len() <= rows, "{rows}: {lines:?}");
    }
    let three = screen::lines("feedback", &holding("openai"), now(), (3, 79));
    assert_eq!(three[2].to_live(false).text, "  and 8 more lines");
}

#[test]
fn the_display_shows_what_a_user_asks_for_at_any_width() {
    for width in WIDTHS {
        let text = shown("feedback", &start("openai"), width).join("\n");
        for words in ["feedback", "0 done", " 0%", "no response yet", "$5.00", "12/32", "░░░"] {
            assert!(text.contains(words), "{width}: {words}: {text}");
        }
        let text = shown("feedback", &middle("openai"), width).join("\n");
        for words in [
            "2,910/10,000",
            "29%",
            "2m 51s left",
            "41.2 items/s",
            "$1.23 of $5.00",
            "7 failed: 5 timeout, 2 content_filter",
            "12/32",
            "93%",
            "14",
            "open",
        ] {
            assert!(text.contains(words), "{width}: {words}: {text}");
        }
        let text = shown("feedback", &holding("openai"), width).join("\n");
        for words in ["holding: openai/gpt", "until 02:00 UTC (retrying in 4m 00s)", "team-a"] {
            assert!(text.contains(words), "{width}: {words}: {text}");
        }
        let text = shown("feedback", &failure("openai"), width).join("\n");
        for words in ["stopping", "1,204 failed: 1,100 timeout", "$4.98 of $5.00", "down"] {
            assert!(text.contains(words), "{width}: {words}: {text}");
        }
    }
    let wide = shown("feedback", &middle("openai"), 200).join("\n");
    for words in [
        "93% of 60.0k output tokens/min of gpt-6-luna",
        "breaker open, probe in 12s: claude-haiku-4-5",
        "3% of 50 requests/min",
        "oldest mail-0013-請求書 12s",
        "in all about $4.10",
        "2 records of the input rejected",
    ] {
        assert!(wide.contains(words), "{words}: {wide}");
    }
}

#[test]
fn a_narrow_display_truncates_the_reason_of_a_hold_and_never_its_time() {
    for (title, width) in [("email", 77), ("請求書", 77), ("a-long-name-of-a-pipeline", 80)] {
        let shown = shown(title, &holding("a"), width);
        let line = shown.iter().find(|line| line.contains("holding: a/gpt-6-luna: ")).unwrap();
        assert!(line.ends_with(" UTC (retrying in 4m 00s)") && line.contains("… until "), "{line}");
    }
}

#[test]
fn the_columns_of_the_providers_begin_where_their_headers_do() {
    for (title, name) in NAMES {
        for width in WIDTHS {
            let lines = shown(title, &middle(name), width);
            let [.., header, first, second] = lines.as_slice() else { panic!("{lines:?}") };
            let at = |line: &str, words: &str| columns(&line[..line.find(words).unwrap()]);
            let health = at(header, "health");
            assert_eq!(
                [at(first, "ok"), at(second, if width < 120 { "open" } else { "breaker" })],
                [health; 2]
            );
            assert_eq!([at(first, "93%"), at(second, "3%")], [at(header, "limit used"); 2], "{lines:?}");
            assert!(columns(first) <= columns(header) && columns(second) <= columns(header), "{lines:?}");
        }
    }
}

#[test]
fn the_health_of_a_provider_is_the_most_severe_of_what_prevents_its_calls() {
    let health = |change: fn(&mut Progress)| {
        let mut progress = middle("openai");
        change(&mut progress);
        shown("feedback", &progress, 200).pop().unwrap()
    };
    assert!(health(|progress| progress.providers[1].up = false).contains("down"));
    assert!(
        health(|progress| progress.providers[1].targets[0].forced_open = true).contains("opened by hand")
    );
    let half_open = health(|progress| progress.providers[1].targets[0].breaker = BreakerState::HalfOpen);
    assert!(half_open.contains("breaker half-open: claude-haiku-4-5"), "{half_open}");
    let closed = health(|progress| progress.providers[1].targets.clear());
    assert!(closed.contains("  ok  "), "{closed}");
    let waits = health(|progress| {
        progress.providers[1].targets.clear();
        progress.providers[1].held_for = Duration::from_secs(3);
    });
    assert!(waits.contains("backing off 3.0s"), "{waits}");
}

#[test]
fn colors_change_no_column() {
    let lines = screen::lines("feedback", &failure("openai"), now(), (23, 79));
    for line in lines {
        let plain = line.to_live(false);
        let colored = line.to_live(true);
        assert!(!plain.text.contains('\u{1b}'));
        assert_eq!(console::strip_ansi_codes(&colored.text), plain.text);
        assert_eq!(colored.columns, plain.columns);
    }
}

#[test]
fn the_screens_are_written_to_be_looked_at() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screens");
    fs::create_dir_all(&folder).unwrap();
    for width in WIDTHS {
        for (state, progress) in states("openai") {
            let text = shown("feedback", &progress, width).join("\n");
            fs::write(folder.join(format!("{state}-{width}.txt")), text + "\n").unwrap();
        }
        fs::write(folder.join(format!("end-{width}.txt")), end(width) + "\n").unwrap();
    }
    let text = end(80);
    for words in ["9,991 completed, 7 failed, 2 rejected", "4m 01s", "$4.12 of $5.00", "`pointsman retry 7`"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}
