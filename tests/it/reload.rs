//! The configuration of a running Pointsman changes: no request and no item is lost, and what was used stays used.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use pointsman::ScopeSettings;
use pointsman::config::Config;
use pointsman::guard::BreakerState;
use pointsman::run::RunOutcome;
use pointsman::runtime::{AppliedAs, Error, Pointsman, ReloadReport, RunOptions};
use pointsman::simulator::{Settings, Simulator};
use pointsman::types::{
    Class, NanoUsd, Priority, ProviderName, RequestError, Response, ScopeName, TargetName,
};
use tokio::time::{Instant, sleep};

use super::support::*;

const STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";

fn parse(config: &str) -> Config {
    Config::parse("test.toml", config, &lookup_key).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

async fn reload(pointsman: &Pointsman, config: &str) -> ReloadReport {
    pointsman.reload(&parse(config)).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns how each change was applied, by its path.
fn applied(report: &ReloadReport) -> Vec<(&str, AppliedAs)> {
    report.diff.changes.iter().map(|change| (change.what.as_str(), change.applied)).collect()
}

fn simulate(settings: &str) -> Simulator {
    start_simulator(toml::from_str(settings).unwrap())
}

fn route(targets: &str) -> String {
    format!("[route.default]\ntargets = [{targets}]\n")
}

fn target_of(result: &Result<Response, Box<RequestError>>) -> String {
    match result {
        Ok(response) => response.target.to_string(),
        Err(error) => panic!("{error}"),
    }
}

fn target(name: &str) -> TargetName {
    name.parse().unwrap()
}

/// Sends requests until one is answered by this target.
async fn wait_for_target(pointsman: &Pointsman, name: &str) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let answered_by = target_of(&send_request(pointsman, "default", "Which one?").await);
        if answered_by == name {
            return;
        }
        assert!(Instant::now() < end, "{answered_by} answers instead of {name}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_change_in_place_and_what_was_used_stays_used() {
    let simulator = simulate("");
    let config = |per_minute: u32| {
        let limits = format!("limits = {{ requests_per_minute = {per_minute}, burst = \"10s\" }}");
        provider_config("a", &simulator, &format!("{limits}\n{LONG_TIMEOUTS}"))
    };
    // A burst of 100, and 10 a second.
    let pointsman = start_pointsman(&config(600));
    let began = Instant::now();
    assert!(send_requests(&pointsman, "default", 80).await.iter().all(Result::is_ok));
    // A burst of 200, and 20 a second. Of the burst, 80 less what was refilled is used.
    let report = reload(&pointsman, &config(1_200)).await;
    let refilled = 10.0 * began.elapsed().as_secs_f64();
    assert_eq!(applied(&report), [("provider.a.limits.requests_per_minute", AppliedAs::InPlace)]);
    let began = Instant::now();
    assert!(send_requests(&pointsman, "default", 160).await.iter().all(Result::is_ok));
    let least = (160.0 - (200.0 - 80.0 + refilled) - 2.0) / 20.0;
    assert!(began.elapsed().as_secs_f64() >= least, "{:?}, at least {least} s", began.elapsed());
    let snapshot = provider_snapshot(&pointsman, "a");
    assert_eq!((snapshot.calls, snapshot.throttled), (240, 0));
    let limit = snapshot.limits.iter().find(|limit| limit.limit == "requests").unwrap();
    assert_eq!((limit.configured, limit.effective), (Some(1_200.0), 1_200.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_added_provider_starts_and_a_removed_one_ends_its_calls() {
    let first = simulate("latency = \"700ms\"");
    let second = simulate("");
    let one = provider_config("a", &first, LONG_TIMEOUTS) + &route("\"a/m\"");
    let other = provider_config("b", &second, LONG_TIMEOUTS) + &route("\"b/m\"");
    let pointsman = start_pointsman(&one);
    let in_flight = spawn({
        let pointsman = pointsman.clone();
        async move { send_request(&pointsman, "default", "It takes a while.").await }
    });
    wait_until("the call is in flight", || provider_snapshot(&pointsman, "a").in_flight == 1).await;
    let report = reload(&pointsman, &other).await;
    let changes = applied(&report);
    assert!(changes.contains(&("provider.a", AppliedAs::Draining)), "{changes:?}");
    assert!(changes.contains(&("provider.b", AppliedAs::Started)), "{changes:?}");
    assert!(provider_snapshot(&pointsman, "a").draining, "it is shown until its last call has ended");
    assert_eq!(target_of(&send_request(&pointsman, "default", "Who is it?").await), "b/m");
    assert_eq!(target_of(&in_flight.await.unwrap()), "a/m");
    wait_until("its actor has stopped", || pointsman.providers().len() == 1).await;
    let children = pointsman.children().await;
    assert!(!children.iter().any(|child| &*child.name == "provider a"), "{children:?}");
    // Back again: the name is free.
    reload(&pointsman, &one).await;
    assert_eq!(target_of(&send_request(&pointsman, "default", "Again?").await), "a/m");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_with_another_address_is_replaced_and_its_calls_in_flight_end() {
    let first = simulate("latency = \"500ms\"");
    let second = simulate("");
    let pointsman = start_pointsman(&provider_config("a", &first, LONG_TIMEOUTS));
    let in_flight = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "default", 10).await }
    });
    wait_until("the calls are in flight", || first.counts().requests == 10).await;
    let report = reload(&pointsman, &provider_config("a", &second, LONG_TIMEOUTS)).await;
    assert_eq!(applied(&report), [("provider.a.base_url", AppliedAs::Replaced)]);
    assert!(send_requests(&pointsman, "default", 5).await.iter().all(Result::is_ok));
    assert!(in_flight.await.unwrap().iter().all(Result::is_ok));
    assert_eq!((first.counts().requests, second.counts().requests), (10, 5));
    // The sums continue.
    assert_eq!(provider_snapshot(&pointsman, "a").calls, 15);
    let answered = "pointsman_attempts_total{provider=\"a\",model=\"m\",outcome=\"answered\"} 15";
    let end = Instant::now() + Duration::from_secs(5);
    while !pointsman.metrics_text().await.contains(answered) {
        assert!(Instant::now() < end, "{}", pointsman.metrics_text().await);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_key_is_used_for_the_next_attempt_and_calls_in_flight_end_with_the_old_one() {
    let settings: Settings = toml::from_str("latency = \"400ms\"").unwrap();
    let keys = vec![lookup_key("K1").unwrap(), lookup_key("K2").unwrap()];
    let simulator = start_simulator(Settings { keys, ..settings.clone() });
    let config =
        |key: &str| provider_config("a", &simulator, &format!("keys = [\"env:{key}\"]\n{LONG_TIMEOUTS}"));
    let pointsman = start_pointsman(&config("K1"));
    let in_flight = spawn({
        let pointsman = pointsman.clone();
        async move { send_request(&pointsman, "default", "With the old key.").await }
    });
    wait_until("the call is in flight", || simulator.counts().requests == 1).await;
    let report = reload(&pointsman, &config("K2")).await;
    assert_eq!(report.changes, ["provider.a.keys changes from env:K1 to env:K2"]);
    simulator.set(Settings { keys: vec![lookup_key("K2").unwrap()], ..settings });
    let key_of = |result: &Result<Response, Box<RequestError>>| {
        attempt_log(result).0.last().and_then(|attempt| attempt.key.as_ref().map(ToString::to_string))
    };
    let after = send_request(&pointsman, "default", "With the new key.").await;
    let before = in_flight.await.unwrap();
    assert!(before.is_ok() && after.is_ok(), "{before:?} {after:?}");
    assert_eq!((key_of(&before).as_deref(), key_of(&after).as_deref()), (Some("env:K1"), Some("env:K2")));
    let shown = format!("{report:?} {}", serde_json::to_string(&report).unwrap());
    assert!(!shown.contains("sk-live"), "{shown}");
    let keys = provider_snapshot(&pointsman, "a").keys;
    assert_eq!((keys.len(), keys[0].key.as_str(), keys[0].usable), (1, "env:K2", true));
    let labels = pointsman.reload_keys(&ProviderName::from("a")).await.unwrap();
    assert_eq!(labels.iter().map(|label| label.as_str()).collect::<Vec<_>>(), ["env:K2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_without_a_key_is_left_out_until_a_reload_brings_one() {
    let simulator = simulate("");
    let config = |key: &str| {
        provider_config("a", &simulator, &format!("keys = [\"env:{key}\"]\n{LONG_TIMEOUTS}"))
            + &provider_config("b", &simulator, LONG_TIMEOUTS)
            + &route("\"a/m\", \"b/m\"")
    };
    let pointsman = start_pointsman(&config("K1"));
    assert_eq!(target_of(&send_request(&pointsman, "default", "Who?").await), "a/m");
    let report = reload(&pointsman, &config("OTHER_KEY")).await;
    let is_skipped = |note: &String| note == "a: skipped, OTHER_KEY is not set";
    assert!(report.notes.iter().any(is_skipped), "{:?}", report.notes);
    assert!(applied(&report).contains(&("provider.a", AppliedAs::Draining)), "{report:?}");
    assert_eq!(target_of(&send_request(&pointsman, "default", "Who?").await), "b/m");
    let found = |name: &str| (name == "OTHER_KEY").then(|| "sk-other-0123456789".to_owned());
    let report = pointsman.reload_with(&parse(&config("OTHER_KEY")), found).await.unwrap();
    assert_eq!(applied(&report), [("provider.a", AppliedAs::Started)]);
    wait_for_target(&pointsman, "a/m").await;
    // The source of keys stays in use.
    let report = reload(&pointsman, &config("OTHER_KEY")).await;
    assert!(report.diff.is_empty() && !report.notes.iter().any(is_skipped), "{report:?}");
}

/// The number of reloads under load, and how many of them are between two faulty ones.
const RELOADS: usize = 100;
const FAULTY_EVERY: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_fails_because_of_a_hundred_reloads_of_which_every_fifth_is_faulty() {
    let first = simulate("latency = \"5ms\"");
    let second = simulate("latency = \"5ms\"");
    let limited = format!("limits = {{ requests_per_minute = 600_000 }}\n{LONG_TIMEOUTS}");
    let both = provider_config("a", &first, LONG_TIMEOUTS) + &provider_config("b", &second, &limited);
    let variants = [
        provider_config("a", &first, LONG_TIMEOUTS) + &route("\"a/m\""),
        both.clone() + &route("\"b/m\", \"a/m\""),
        provider_config("b", &second, LONG_TIMEOUTS) + &route("\"b/m\""),
        // At another address.
        provider_config("b", &first, LONG_TIMEOUTS) + &route("\"b/m\""),
        both + &route("\"a/m\", \"b/m\"") + QUICK_RETRY,
    ];
    let faulty = provider_config("c", &first, "keys = [\"file:/no/such/file\"]") + &route("\"c/m\"");
    let pointsman = start_pointsman(&variants[0]);
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..16)
        .map(|task| {
            let pointsman = pointsman.clone();
            let stop = stop.clone();
            let answered = answered.clone();
            spawn(async move {
                let mut number = 0;
                while !stop.load(Relaxed) {
                    let text = format!("Request {number} of {task}.");
                    let request = new_request("default", &text, Duration::from_secs(20));
                    let priority = if task % 2 == 0 { Priority::Interactive } else { Priority::Batch };
                    if let Err(error) = pointsman.send(request.with_priority(priority)).await {
                        return Err(format!("{error}: {:?}", error.attempts));
                    }
                    number += 1;
                    answered.fetch_add(1, Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    let mut in_use = 0;
    for number in 1..=RELOADS {
        let before = answered.load(Relaxed);
        if number % FAULTY_EVERY == 0 {
            let error = pointsman.reload(&parse(&faulty)).await.unwrap_err();
            assert!(matches!(error, Error::Diagnostics(_)), "{error}");
            assert!(pointsman.diff(&parse(&variants[in_use])).is_empty(), "a faulty reload changes nothing");
        } else {
            in_use = number % variants.len();
            reload(&pointsman, &variants[in_use]).await;
        }
        // Requests begin and end with each configuration.
        wait_until("requests are answered", || answered.load(Relaxed) >= before + 20).await;
    }
    stop.store(true, Relaxed);
    for task in load {
        task.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    }
    wait_until("removed providers have stopped", || {
        pointsman.providers().iter().all(|provider| !provider.draining)
    })
    .await;
    assert_eq!(first.counts().requests + second.counts().requests, answered.load(Relaxed) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_reloads_at_once_are_applied_one_after_the_other() {
    let simulator = simulate("");
    let config = |queue: usize| provider_config("a", &simulator, &format!("queue = {queue}"));
    let pointsman = start_pointsman(&config(100));
    let reloads = (1..=8).map(|number| {
        let pointsman = pointsman.clone();
        let config = parse(&config(100 + number));
        async move { pointsman.reload(&config).await }
    });
    let reports = futures_util::future::join_all(reloads).await;
    let mut last = "100".to_owned();
    let mut changes: Vec<_> =
        reports.into_iter().map(|report| report.unwrap().diff.changes.remove(0)).collect();
    // Each begins with the value of another one.
    while !changes.is_empty() {
        let at = changes.iter().position(|change| change.before.as_deref() == Some(&last)).unwrap();
        last = changes.remove(at).after.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_target_is_removed_holds_and_continues_when_it_is_back() {
    let first = simulate("latency = \"20ms\"");
    let second = simulate("latency = \"20ms\"");
    let with_route = provider_config("a", &first, LONG_TIMEOUTS) + &route("\"a/m\"");
    let without = provider_config("b", &second, LONG_TIMEOUTS) + "[route.other]\ntargets = [\"b/m\"]\n";
    let back = provider_config("b", &second, LONG_TIMEOUTS) + &route("\"b/m\"");
    let pointsman = start_pointsman(&with_route);
    let started = start_run(&pointsman, STEP, 3_000, RunOptions::default()).await;
    let progress = started.run.watch_progress();
    wait_until("some items are complete", || progress.borrow().items.finished() >= 50).await;
    reload(&pointsman, &without).await;
    wait_until("the run holds", || progress.borrow().holding.is_some()).await;
    let holding = progress.borrow().holding.clone().unwrap();
    assert_eq!((holding.route.as_str(), holding.class), ("default", Class::NetworkError));
    assert!(holding.message.contains("no usable target for route `default`"), "{}", holding.message);
    // Requests outside of runs are refused, as for a route that never existed.
    let refused = send_request(&pointsman, "default", "Is anybody there?").await;
    assert_eq!(failure_class(&refused), Some(Class::ApiError));
    reload(&pointsman, &back).await;
    let finished = started.finish().await;
    assert_eq!(finished.report.outcome, RunOutcome::Completed);
    let items = &finished.report.items;
    assert_eq!((items.completed, items.failed, finished.lines.len()), (3_000, 0, 3_000));
    assert!(first.counts().requests >= 50 && second.counts().requests > 0);
    assert_eq!(finished.report.calls.failed, 0, "the hold costs no attempt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_that_is_opened_by_hand_stays_open_until_it_is_closed() {
    let first = simulate("");
    let second = simulate("");
    let config = provider_config("a", &first, QUICK_BREAKER)
        + &provider_config("b", &second, QUICK_BREAKER)
        + &route("\"a/m\", \"b/m\"");
    let pointsman = start_pointsman(&config);
    wait_for_target(&pointsman, "a/m").await;
    pointsman.open_breaker(&target("a/m")).unwrap();
    // Longer than the pause of the breaker: no probe is sent.
    let end = Instant::now() + Duration::from_millis(600);
    let before = first.counts().requests;
    while Instant::now() < end {
        assert_eq!(target_of(&send_request(&pointsman, "default", "Who?").await), "b/m");
    }
    assert_eq!(first.counts().requests, before);
    let snapshot = provider_snapshot(&pointsman, "a");
    assert!(snapshot.targets[0].forced_open && snapshot.targets[0].breaker == BreakerState::Open);
    // A reload of other settings does not close it.
    reload(&pointsman, &config.replace("[provider.a]", "[provider.a]\nqueue = 77")).await;
    assert!(provider_snapshot(&pointsman, "a").targets[0].forced_open);
    pointsman.close_breaker(&target("a/m")).unwrap();
    wait_for_target(&pointsman, "a/m").await;
    assert!(!provider_snapshot(&pointsman, "a").targets[0].forced_open);

    let unknown = pointsman.open_breaker(&target("a/n")).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no target `a/n`; did you mean `a/m`?");
    let unknown = pointsman.drain_provider(&ProviderName::from("zeta")).unwrap_err();
    assert_eq!(unknown.to_string(), "there is no provider `zeta`; known providers: a, b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_provider_ends_its_calls_and_gets_no_new_ones_until_it_is_resumed() {
    let first = simulate("latency = \"500ms\"");
    let second = simulate("");
    let config = provider_config("a", &first, &format!("limits.concurrency = 2\n{LONG_TIMEOUTS}"))
        + &provider_config("b", &second, LONG_TIMEOUTS)
        + &route("\"a/m\", \"b/m\"");
    let pointsman = start_pointsman(&config);
    let started = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "default", 6).await }
    });
    wait_until("two calls are in flight, and the others queued", || {
        let snapshot = provider_snapshot(&pointsman, "a");
        snapshot.in_flight == 2 && snapshot.queued > 0
    })
    .await;
    let name = ProviderName::from("a");
    pointsman.drain_provider(&name).unwrap();
    assert!(provider_snapshot(&pointsman, "a").draining);
    let results = started.await.unwrap();
    let of_first = results.iter().filter(|result| target_of(result) == "a/m").count();
    assert_eq!((of_first, first.counts().requests), (2, 2), "queued calls go to the other target");
    assert_eq!(target_of(&send_request(&pointsman, "default", "Who?").await), "b/m");
    pointsman.resume_provider(&name).unwrap();
    assert!(!provider_snapshot(&pointsman, "a").draining);
    wait_for_target(&pointsman, "a/m").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_holds_while_its_only_provider_is_drained() {
    let simulator = simulate("latency = \"10ms\"");
    let pointsman = start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS));
    let started = start_run(&pointsman, STEP, 2_000, RunOptions::default()).await;
    let progress = started.run.watch_progress();
    wait_until("some items are complete", || progress.borrow().items.finished() >= 50).await;
    let name = ProviderName::from("a");
    pointsman.drain_provider(&name).unwrap();
    wait_until("the run holds", || progress.borrow().holding.is_some()).await;
    let message = progress.borrow().holding.clone().unwrap().message;
    assert!(message.contains("is drained"), "{message}");
    pointsman.resume_provider(&name).unwrap();
    let finished = started.finish().await;
    assert_eq!(finished.report.outcome, RunOutcome::Completed);
    assert_eq!((finished.report.items.completed, finished.report.items.failed), (2_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scope_that_was_added_at_run_time_keeps_its_state_and_survives_a_reload() {
    let simulator = simulate("");
    let config = provider_config("a", &simulator, LONG_TIMEOUTS);
    let pointsman = start_pointsman(&config);
    let scope = ScopeName::from("token:ci");
    let settings = ScopeSettings::new().with_requests_per_minute(NonZeroU64::MIN);
    pointsman.set_scope(&scope, settings.clone(), None).unwrap();
    let send = || {
        let request = new_request("default", "Hello.", Duration::from_secs(20)).with_scope("token:ci");
        pointsman.try_send(request)
    };
    let class = |result: Result<Response, Box<RequestError>>| failure_class(&result);
    assert_eq!(class(send().await), None);
    assert_eq!(class(send().await), Some(Class::RateLimit));
    // The minute is used, whatever else changes.
    let queue = NonZeroU32::new(7).unwrap();
    pointsman.set_scope(&scope, settings.with_queue(queue), None).unwrap();
    assert_eq!(class(send().await), Some(Class::RateLimit));
    let more = format!("{config}[scope.team-a]\nconcurrency = 3\n");
    let report = reload(&pointsman, &more).await;
    assert!(report.changes.iter().all(|change| !change.contains("token:ci")), "{:?}", report.changes);
    assert_eq!(class(send().await), Some(Class::RateLimit));
    assert!(pointsman.remove_scope(&scope) && !pointsman.remove_scope(&scope));
    assert_eq!(class(send().await), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_apply_at_the_start_are_reported_and_keep_their_value() {
    let simulator = simulate("");
    let config = provider_config("a", &simulator, LONG_TIMEOUTS);
    let pointsman = start_pointsman(&config);
    let changed = format!("{config}[supervisor]\nrun_restarts = 9\n[budget]\nday = 5.0\n");
    let planned = pointsman.diff(&parse(&changed));
    let report = reload(&pointsman, &changed).await;
    assert_eq!(planned, report.diff);
    assert_eq!(
        applied(&report),
        [("budget.day", AppliedAs::InPlace), ("supervisor.run_restarts", AppliedAs::NeedsRestart)]
    );
    assert!(report.has_new_caps);
    let in_use = pointsman.config();
    assert_eq!(in_use.budget.day, Some(NanoUsd(5_000_000_000)));
    assert_eq!(in_use.supervisor, parse(&config).supervisor);
    assert_eq!(applied(&reload(&pointsman, &config).await), [("budget.day", AppliedAs::InPlace)]);
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_a_model_that_a_reload_changes_are_not_taken_for_those_of_the_one_before() {
    use pointsman::runtime::ResumeOptions;
    use pointsman::sink::{Destination, Format, Sink};
    use pointsman::source::Source;
    use pointsman::store::Sqlite;

    let simulator = simulate("latency = \"30ms\"");
    let config = |model: &str| {
        format!(
            "[provider.a]\nbase_url = \"{}\"\nmodels.m = {{ name = \"{model}\" }}\n[run]\nmax_in_flight_items = 1\n",
            simulator.base_url(pointsman::simulator::Vendor::OpenAi)
        )
    };
    let pointsman = start_pointsman(&config("first"));
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(&folder.path().join("a.db")).await.unwrap());
    let pipeline = || pointsman.parse_pipeline(&format!("name = \"p\"\n{STEP}")).unwrap();
    let start = async || {
        let options = ResumeOptions::new(store.clone(), "p on items").with_accept_changes(true);
        let prepared = pointsman.prepare_run(&pipeline(), options).await.unwrap();
        let lines = Sink::results(Destination::none(), Format::Jsonl, &["s".into()]).unwrap();
        let items = (0..20).map(|id| serde_json::json!({ "id": id }));
        pointsman.run_stored(pipeline(), Source::values("items", items), lines, prepared).await.unwrap()
    };
    let mut run = start().await;
    wait_until("some items are answered", || simulator.counts().requests >= 5).await;
    let report = reload(&pointsman, &config("second")).await;
    assert_eq!(applied(&report), [("provider.a.models.m.name", AppliedAs::InPlace)]);
    let note = "the model of a/m changes from first to second while run 1 uses it: items that have ended keep the answers of \
                the former";
    assert!(report.notes.iter().any(|found| found == note), "{:?}", report.notes);
    assert_eq!(run.report().await.unwrap().items.completed, 20);
    assert_eq!(simulator.counts().requests, 20);

    // The first model is back, as if nothing had changed. The answers of the second are not valid any more.
    let report = reload(&pointsman, &config("first")).await;
    assert!(!report.notes.iter().any(|note| note.contains("run 1")), "no run uses it: {:?}", report.notes);
    let report = start().await.report().await.unwrap();
    assert_eq!(report.items.completed, 20);
    let repeated = simulator.counts().requests - 20;
    assert!((1..20).contains(&repeated), "{repeated} items were processed again");

    // Now all answers are of the first.
    start().await.report().await.unwrap();
    assert_eq!(simulator.counts().requests - 20, repeated);
}
