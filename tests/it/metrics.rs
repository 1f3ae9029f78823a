//! Metrics: their numbers are those of the report and of the provider, and `--metrics` writes and serves them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::time::Duration;

use pointsman::run::{Report, RunOutcome, RunOutput};
use pointsman::runtime::{Pointsman, RunOptions};
use pointsman::simulator::{Counts, Fault, FaultKind, RetryAfter, Settings, Simulator, Vendor};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use tokio::time::sleep;

use super::program::{ONE_STEP, RunningProgram, Workspace, start_program};
use super::support::*;

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// How long a client waits for a response: longer than idle connections may take the place of others.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The values of a text with metrics, by series.
#[derive(Debug, Clone, Default)]
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn parse(text: &str) -> Self {
        let values = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        });
        Self(values.collect())
    }

    async fn of(pointsman: &Pointsman) -> Self {
        Self::parse(&pointsman.metrics_text().await)
    }

    /// Returns the sum over all series of a metric with these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_wanted = |series: &str| {
            let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
            let has_label =
                |(label, value): &(&str, &str)| found_labels.contains(&format!("{label}=\"{value}\""));
            found == name && labels.iter().all(has_label)
        };
        self.0.iter().filter(|(series, _)| is_wanted(series)).map(|(_, value)| value).sum()
    }

    fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Returns the ended attempts at a provider with this outcome.
    fn attempts(&self, provider: &str, outcome: &str) -> u64 {
        self.count("pointsman_attempts_total", &[("provider", provider), ("outcome", outcome)])
    }

    fn items(&self, status: &str) -> u64 {
        self.count("pointsman_items_total", &[("status", status)])
    }

    /// Asserts that no counter, and no count of a histogram, is lower than before or missing.
    #[track_caller]
    fn assert_not_below(&self, earlier: &Self) {
        for (series, before) in &earlier.0 {
            let name = series.split('{').next().unwrap_or(series);
            if ["_total", "_bucket", "_count", "_sum"].iter().any(|suffix| name.ends_with(suffix)) {
                let now = self.0.get(series);
                assert!(now.is_some_and(|now| now >= before), "{series}: {before}, then {now:?}");
            }
        }
    }
}

fn assert_near(is: f64, should: f64, what: &str) {
    assert!((is - should).abs() < 1e-9, "{what}: {is}, and {should} is right");
}

/// Returns the configuration of a provider with a key and a price.
fn metered_provider(name: &str, simulator: &Simulator) -> String {
    let url = simulator.base_url(Vendor::OpenAi);
    let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
    format!("[provider.{name}]\nbase_url = \"{url}\"\nkeys = [\"env:K1\"]\n{price}\n{LONG_TIMEOUTS}\n")
}

/// Asserts that the attempts at a provider, by outcome, are the calls that it received, by fault.
#[track_caller]
fn assert_attempts_are_those_of(scrape: &Scrape, provider: &str, counts: &Counts) {
    let faults = |kinds: &[FaultKind]| kinds.iter().filter_map(|kind| counts.by_fault.get(kind)).sum::<u64>();
    let classes = [
        ("rate_limit", faults(&[FaultKind::RateLimited])),
        ("server_error", faults(&[FaultKind::ServerError, FaultKind::ErrorInStream])),
        ("overloaded", faults(&[FaultKind::Unavailable, FaultKind::Overloaded])),
        ("network_error", faults(&[FaultKind::Reset])),
        (
            "unreadable",
            faults(&[FaultKind::Html, FaultKind::Cut, FaultKind::MalformedChunk, FaultKind::NoEnd]),
        ),
        ("content_filter", faults(&[FaultKind::Refusal])),
        ("truncated", faults(&[FaultKind::Length])),
        ("answered", counts.answered),
        ("superseded", 0),
        ("cancelled", 0),
    ];
    for (outcome, calls) in classes {
        assert_eq!(scrape.attempts(provider, outcome), calls, "{provider} {outcome}: {counts:?}");
    }
    let of_provider = [("provider", provider)];
    assert_eq!(scrape.count("pointsman_attempts_total", &of_provider), counts.requests, "{provider}");
    assert_eq!(scrape.count("pointsman_attempt_duration_seconds_count", &of_provider), counts.requests);
    assert_eq!(scrape.count("pointsman_attempts_in_flight", &of_provider), 0, "{provider}");
    let throttled = counts.by_status.get(&429).copied().unwrap_or_default();
    assert_eq!(scrape.attempts(provider, "rate_limit"), throttled, "{provider}");
}

/// Asserts that items, attempts, tokens and cost are those of the report.
#[track_caller]
fn assert_equals_report(scrape: &Scrape, report: &Report) {
    let items = report.items;
    let by_status = ["completed", "failed", "skipped", "rejected"].map(|status| scrape.items(status));
    assert_eq!(by_status, [items.completed, items.failed, items.skipped, items.rejected]);
    assert_eq!(scrape.count("pointsman_item_duration_seconds_count", &[]), items.finished());
    assert_eq!(scrape.count("pointsman_items_in_progress", &[]), 0);
    let calls = report.calls;
    assert_eq!(scrape.count("pointsman_attempts_total", &[]), calls.sent);
    assert_eq!(scrape.count("pointsman_attempts_total", &[("outcome", "answered")]), calls.answered);
    assert_eq!(scrape.count("pointsman_attempts_total", &[("outcome", "rate_limit")]), calls.throttled);
    assert_eq!(scrape.count("pointsman_validation_retries_total", &[]), calls.validation_retries);
    let tokens = |kind| scrape.count("pointsman_tokens_total", &[("kind", kind)]);
    assert_eq!(tokens("input"), report.tokens.input.0);
    assert_eq!(tokens("output"), report.tokens.output.0);
    assert_near(scrape.sum("pointsman_cost_usd_total", &[]), report.cost_usd.unwrap(), "the cost");
    let uncertain = scrape.sum("pointsman_uncertain_cost_usd_total", &[]);
    assert_near(uncertain, report.uncertain_cost_usd, "the uncertain cost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_a_run_with_many_failures_are_those_of_its_report_and_of_the_providers() {
    let throttled = Fault { retry_after: Some(RetryAfter::Missing), ..Fault::new(FaultKind::RateLimited) };
    let kinds = [
        FaultKind::ServerError,
        FaultKind::Unavailable,
        FaultKind::Overloaded,
        FaultKind::Reset,
        FaultKind::Html,
        FaultKind::Cut,
        FaultKind::MalformedChunk,
        FaultKind::NoEnd,
        FaultKind::ErrorInStream,
        FaultKind::Refusal,
        FaultKind::Length,
    ];
    let first = start_faulty_simulator(
        kinds.into_iter().map(|kind| Fault::new(kind).share(0.02)).chain([throttled.share(0.01)]),
    );
    // Faults before any token, so that every token of the provider is one of an answer.
    let second = start_faulty_simulator(
        [FaultKind::ServerError, FaultKind::Reset, FaultKind::Html].map(|kind| Fault::new(kind).share(0.03)),
    );
    let pointsman = start_pointsman(&format!(
        "{QUICK_RETRY}[defaults]\nroute = \"r\"\n[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        metered_provider("a", &first),
        metered_provider("b", &second)
    ));
    let step = "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"\n";
    let run = start_run(&pointsman, step, 500, RunOptions::default()).await;
    let mut finished = pin!(run.finish());
    let mut last = Scrape::default();
    let report = loop {
        let text = pointsman.metrics_text().await;
        for secret in ["sk-live", "item-", "Greet"] {
            assert!(!text.contains(secret), "{secret} is in\n{text}");
        }
        let scrape = Scrape::parse(&text);
        scrape.assert_not_below(&last);
        last = scrape;
        tokio::select! {
            finished = &mut finished => break finished.report,
            () = sleep(Duration::from_millis(20)) => {}
        }
    };
    assert_eq!((report.outcome, report.items.finished()), (RunOutcome::Completed, 500));
    wait_until("every call has ended", || {
        first.counts().in_flight + second.counts().in_flight == 0
            && pointsman.providers().iter().all(|provider| provider.in_flight == 0)
    })
    .await;
    let scrape = Scrape::of(&pointsman).await;
    scrape.assert_not_below(&last);
    assert_equals_report(&scrape, &report);
    assert_attempts_are_those_of(&scrape, "a", &first.counts());
    assert_attempts_are_those_of(&scrape, "b", &second.counts());
    assert!(first.counts().by_fault.len() > 8, "{:?}", first.counts());
    let of_second = |kind| scrape.count("pointsman_tokens_total", &[("provider", "b"), ("kind", kind)]);
    assert_eq!(of_second("input"), second.counts().input_tokens);
    assert_eq!(of_second("output"), second.counts().output_tokens);
    let steps = scrape.count("pointsman_step_duration_seconds_count", &[("step", "greeting")]);
    assert_eq!(steps, 500);
    assert_eq!(scrape.count("pointsman_failovers_total", &[]), report.calls.failovers);
    assert_eq!(scrape.count("pointsman_requests_pending", &[]), 0);
    let answered = scrape.count("pointsman_requests_total", &[("outcome", "answered")]);
    assert_eq!(answered, report.items.completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_validation_retry_is_counted() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::WrongContent).share(0.4)]);
    let pointsman = start_pointsman(&metered_provider("a", &simulator));
    let step = "[[step]]\nname = \"kind\"\nprompt = \"What is {{ item.id }}?\"\nchoice = [\"A\", \"B\"]\n";
    let finished = run_pipeline(&pointsman, step, 20).await;
    assert!(finished.report.calls.validation_retries > 0, "{:?}", finished.report.calls);
    let scrape = Scrape::of(&pointsman).await;
    assert_equals_report(&scrape, &finished.report);
    assert_eq!(scrape.count("pointsman_attempts_total", &[]), simulator.counts().requests);
    assert_eq!(scrape.count("pointsman_step_duration_seconds_count", &[]), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_attempts_have_an_outcome_and_their_items_are_no_longer_in_progress() {
    const ITEMS: usize = 4;
    let simulator = start_simulator(toml::from_str("latency = \"60s\"").unwrap());
    let long_timeouts = LONG_TIMEOUTS.replace("2s", "50s").replace("total = \"5s\"", "total = \"2m\"");
    let config = metered_provider("a", &simulator).replace(LONG_TIMEOUTS, &long_timeouts);
    let pointsman = start_pointsman(&config);
    let step = "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"\n";
    let run = start_run(&pointsman, step, ITEMS, RunOptions::default()).await;
    // An attempt that is cancelled on its way would be counted here and not there.
    wait_until("all calls have arrived", || simulator.counts().in_flight == ITEMS as u64).await;
    let during = Scrape::of(&pointsman).await;
    for gauge in ["pointsman_items_in_progress", "pointsman_attempts_in_flight", "pointsman_requests_pending"]
    {
        assert_eq!(during.count(gauge, &[]), ITEMS as u64, "{gauge}");
    }
    assert_eq!(during.count("pointsman_open_runs", &[]), 1);
    assert_eq!(during.count("pointsman_attempts_total", &[]), 0);
    run.run.cancel();
    let report = run.finish().await.report;
    assert_eq!(report.items.unfinished, ITEMS as u64);
    wait_until("every call has ended", || provider_snapshot(&pointsman, "a").in_flight == 0).await;
    let after = Scrape::of(&pointsman).await;
    assert_eq!(after.attempts("a", "cancelled"), ITEMS as u64);
    assert_eq!(after.count("pointsman_attempts_total", &[]), simulator.counts().requests);
    assert_eq!(after.count("pointsman_possibly_charged_attempts_total", &[]), ITEMS as u64);
    assert_eq!(after.count("pointsman_items_total", &[]), 0);
    for gauge in ["pointsman_items_in_progress", "pointsman_attempts_in_flight", "pointsman_open_runs"] {
        assert_eq!(after.count(gauge, &[]), 0, "{gauge}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_holds_is_counted_until_it_continues() {
    let outage = Fault { until: Some(Duration::from_millis(1_500)), ..Fault::new(FaultKind::ServerError) };
    let simulator = start_faulty_simulator([outage]);
    let config = provider_config("a", &simulator, QUICK_BREAKER) + QUICK_RETRY;
    let pointsman = start_pointsman(&config);
    let step = "[[step]]\nname = \"greeting\"\nprompt = \"Greet {{ item.id }}.\"\n";
    let run = start_run(&pointsman, step, 50, RunOptions::default()).await;
    let mut finished = pin!(run.finish());
    let mut has_held = false;
    let report = loop {
        let scrape = Scrape::of(&pointsman).await;
        has_held |= scrape.count("pointsman_holding_runs", &[("pipeline", "test")]) == 1;
        tokio::select! {
            finished = &mut finished => break finished.report,
            () = sleep(Duration::from_millis(20)) => {}
        }
    };
    assert_eq!(report.items.completed, 50);
    let scrape = Scrape::of(&pointsman).await;
    assert!(has_held && scrape.count("pointsman_holds_total", &[("pipeline", "test")]) > 0);
    assert_eq!(scrape.count("pointsman_holding_runs", &[]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pipelines_have_at_most_a_hundred_and_one_labels() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS));
    for number in 0..300 {
        let step = "[[step]]\nname = \"answer\"\nprompt = \"{{ item.id }}\"\n";
        let pipeline = pointsman.parse_pipeline(&format!("name = \"pipeline-{number}\"\n{step}")).unwrap();
        let output = RunOutput::new(Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap());
        let source = Source::values("items", [serde_json::json!({ "id": number })]);
        let mut run = pointsman.run(pipeline, source, output).await.unwrap();
        assert_eq!(run.report().await.unwrap().items.completed, 1);
    }
    let scrape = Scrape::of(&pointsman).await;
    assert_eq!(scrape.items("completed"), 300);
    let counted = |series: &&String| series.starts_with("pointsman_item_duration_seconds_count{");
    assert_eq!(scrape.0.keys().filter(counted).count(), 101);
    let other = [("pipeline", "other"), ("status", "completed")];
    assert_eq!(scrape.count("pointsman_items_total", &other), 200);
}

#[test]
fn a_file_has_the_final_metrics_of_each_session() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 7 \" }]");
    let two_steps = format!(
        "{}[[step]]\nname = \"reply\"\nprompt = \"Reply politely to {{{{ answer }}}}\"\n",
        ONE_STEP.replace("{{ item.text }}", "{{ item.text }} .")
    );
    workspace.write("pipeline.toml", &two_steps);
    let run = |options: &str, code: i32| {
        workspace.run(&format!("{RUN} --metrics m.prom {options}")).expect_code(code);
        Scrape::parse(&workspace.read("m.prom"))
    };
    workspace.write_items(20);
    let first = run("", 1);
    assert_eq!((first.items("completed"), first.items("failed")), (19, 1));
    assert_eq!(first.count("pointsman_restored_answers_total", &[]), 0);
    assert_eq!(first.count("pointsman_requests_total", &[("outcome", "answered")]), 38);
    assert!(first.count("pointsman_commits_total", &[]) > 0);
    // Items that finished before are not counted again.
    workspace.write_items(25);
    let second = run("", 1);
    assert_eq!((second.items("completed"), second.items("failed")), (5, 0));
    workspace.write("pipeline.toml", two_steps.replace("politely", "briefly"));
    let third = run("--accept-changes", 1);
    assert_eq!(third.count("pointsman_restored_answers_total", &[]), 24);
    assert_eq!(third.items("completed"), 24);
    let left: Vec<_> = std::fs::read_dir(workspace.path("")).unwrap().flatten().collect();
    assert!(left.iter().all(|file| !file.file_name().to_string_lossy().contains(".new")), "{left:?}");
}

#[test]
fn a_target_of_metrics_that_cannot_be_used_is_refused_before_the_run_starts() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    let items = workspace.read("items.jsonl");
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    let in_use = format!("--metrics: cannot listen at {address}");
    for (target, code, words) in [
        (&*address, 4, &*in_use),
        ("no/such/m.prom", 4, "--metrics: cannot write no/such/m.prom"),
        (".", 4, "is a folder"),
        ("items.jsonl", 4, "name another file"),
        ("o.jsonl", 4, "name another file"),
        (":9100", 2, "127.0.0.1:9100"),
        ("localhost:9100", 2, "127.0.0.1:9100"),
    ] {
        workspace.run(&format!("{RUN} --metrics {target}")).expect_stderr(code, &[words]);
        assert!(!workspace.path("o.jsonl").exists(), "{target}");
    }
    workspace.write("notes.txt", "kept");
    workspace.run(&format!("{RUN} --metrics notes.txt")).expect_stderr(4, &["--overwrite"]);
    assert_eq!((workspace.read("notes.txt"), workspace.read("items.jsonl")), ("kept".to_owned(), items));
}

/// Sends a request and returns the whole response.
fn exchange(address: SocketAddr, request_line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    stream.write_all(format!("{request_line} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Starts a run whose calls take long, and returns it with the address of its metrics.
fn start_served(workspace: &Workspace) -> (RunningProgram, SocketAddr) {
    workspace.write_config("[simulator]\nlatency = \"60s\"");
    workspace.write_items(2);
    let mut running = start_program(workspace.command(&format!("{RUN} --metrics 127.0.0.1:0")));
    let line = running.wait_for_line("metrics at http://");
    let (_, address) = line.split_once("http://").unwrap();
    // From here on it handles signals.
    running.wait_for_line("2 in flight");
    (running, address.trim().trim_end_matches("/metrics").parse().unwrap())
}

/// Stops a run although its items are in flight.
fn stop(mut running: RunningProgram) {
    running.signal("INT");
    running.wait_for_line("press Ctrl-C again to stop now");
    running.signal("INT");
    running.wait().expect_code(130);
}

#[test]
#[cfg(unix)]
fn metrics_are_served_while_the_run_runs() {
    let workspace = Workspace::new("");
    let (running, address) = start_served(&workspace);
    let response = exchange(address, "GET /metrics");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let scrape = Scrape::parse(body);
    assert!(scrape.sum("pointsman_uptime_seconds", &[]) > 0.0, "{body}");
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(scrape.0.keys().any(|series| series.contains(version)), "{scrape:?}");
    assert!(exchange(address, "GET /").starts_with("HTTP/1.1 404"));
    let refused = exchange(address, "POST /metrics");
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET"), "{refused}");
    stop(running);
}

#[test]
#[cfg(unix)]
fn clients_that_send_nothing_delay_others_only_until_their_connections_are_closed() {
    let workspace = Workspace::new("");
    let (running, address) = start_served(&workspace);
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(exchange(address, "GET /metrics").starts_with("HTTP/1.1 200"));
    let more: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(exchange(address, "GET /metrics").starts_with("HTTP/1.1 200"));
    drop((idle, more));
    let mut endless = TcpStream::connect(address).unwrap();
    endless.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
    // The head is too large. The connection may be closed while it is being sent.
    let head = format!("GET /metrics HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(1 << 20));
    let _ = endless.write_all(head.as_bytes());
    let mut response = String::new();
    let _ = endless.read_to_string(&mut response);
    assert!(!response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(exchange(address, "GET /metrics").starts_with("HTTP/1.1 200"));
    stop(running);
}
