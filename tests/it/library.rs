//! The library as used by a program that embeds it.

use std::time::Duration;

use pointsman::io::{Destination, SinkFormat};
use pointsman::{
    Class, Config, MaxFailures, PauseOptions, Pointsman, Request, ResumeOptions, RunHandle, RunOutcome,
    RunOutput, Sink, Source, Sqlite,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{provider_snapshot, spawn, wait_until};

const PIPELINE: &str = "
name = 'one'
[[step]]
name = 'answer'
prompt = 'Say something about {{ item.text }}'
";

fn start() -> Pointsman {
    let config = "[provider.simulated]\nbase_url = 'simulator'\n[run]\nmax_in_flight_items = 4";
    Pointsman::start_blocking(&Config::parse("config.toml", config, &|_| None).unwrap()).unwrap()
}

fn items(count: u64) -> Source {
    Source::values("items", (1..=count).map(|id| json!({ "id": id, "text": "points" })))
}

#[tokio::test]
async fn lines_and_rejects_are_received_through_channels() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (lines_sink, mut lines) = Sink::channel().unwrap();
    let (rejects_sink, mut rejects) = Sink::channel().unwrap();
    let source = Source::values("items", [json!({ "id": 1, "text": "points" }), json!("no item")]);
    let output = RunOutput::new(lines_sink).with_rejects(rejects_sink);
    let mut run = pointsman.run(pipeline, source, output).await.unwrap();
    let line = lines.recv().await.unwrap();
    assert_eq!((line.key.as_str(), line.simulated), ("1", true));
    assert!(matches!(&line.answers["answer"], Value::String(answer) if answer.contains("points")));
    assert_eq!(rejects.recv().await.unwrap().line, 2);
    assert!(lines.recv().await.is_none() && rejects.recv().await.is_none());
    let report = run.report().await.unwrap();
    assert_eq!((report.items.completed, report.items.rejected, report.items.unwritten), (1, 1, 0));
}

#[tokio::test]
async fn a_second_call_of_report_returns_the_same_report() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let sink = Sink::results(Destination::none(), SinkFormat::Jsonl, &[]).unwrap();
    let mut run = pointsman.run(pipeline, items(3), RunOutput::new(sink)).await.unwrap();
    let first = run.report().await.unwrap();
    assert_eq!((first.items.completed, first.outcome), (3, RunOutcome::Completed));
    assert_eq!(run.report().await.unwrap(), first);
}

#[tokio::test]
async fn a_run_stops_when_the_receiver_of_its_lines_is_dropped() {
    let pointsman = start();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, mut lines) = Sink::channel().unwrap();
    let mut run = pointsman.run(pipeline, items(1_000_000), RunOutput::new(sink)).await.unwrap();
    assert!(lines.recv().await.is_some());
    drop(lines);
    let report = run.report().await.unwrap();
    assert!(report.output_closed && report.items.finished() < 1_000_000, "{report:?}");
}

#[tokio::test]
async fn an_invalid_pipeline_text_is_refused_with_every_error() {
    let diagnostics = start().parse_pipeline("[[step]]\nname = 'a'\nroute = 'nowhere'").unwrap_err();
    let text = diagnostics.to_string();
    for word in ["no name", "no prompt", "pipeline:3:9: unknown route `nowhere`"] {
        assert!(text.contains(word), "{text}");
    }
}

/// Blocks on a future without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn a_program_without_a_runtime_receives_a_response_after_a_failover() {
    let config = "
        [provider.bad]
        base_url = 'simulator'
        models.m = {}
        [provider.good]
        base_url = 'simulator'
        models.m = {}
        [route.default]
        targets = ['bad/m', 'good/m']
        [simulator]
        faults = [{ kind = 'auth', times = 1 }]
        [run]
        max_in_flight_items = 4";
    let pointsman =
        Pointsman::start_blocking(&Config::parse("config.toml", config, &|_| None).unwrap()).unwrap();
    let response = block_on(pointsman.send(Request::new("default", "Hello?"))).unwrap();
    assert_eq!((response.resends, response.attempts.0.len()), (0, 2), "{:?}", response.attempts);
}

/// The longest that a test waits.
const MAX_TEST_WAIT: Duration = Duration::from_secs(60);

/// Starts Pointsman with a simulated provider that answers one request at a time, each after this time.
async fn start_slow(latency: &str) -> Pointsman {
    let text = format!(
        "[provider.simulated]\nbase_url = 'simulator'\nmodels.any = {{}}\nqueue = 10000\nlimits.concurrency = 1\n\
         [simulator]\nlatency = '{latency}'\n[run]\nmax_in_flight_items = 4"
    );
    Pointsman::start(&Config::from_toml(&text).unwrap()).await.unwrap()
}

async fn start_run(
    pointsman: &Pointsman,
    count: u64,
) -> (RunHandle, tokio::sync::mpsc::Receiver<pointsman::Line>) {
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let (sink, lines) = Sink::channel().unwrap();
    (pointsman.run(pipeline, items(count), sink).await.unwrap(), lines)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_bound_of_pending_requests_a_recipient_refuses_and_a_send_waits_until_its_deadline() {
    // No answer arrives before all requests are queued: from then on the queue is known to be too long for them.
    let pointsman = start_slow("5s").await;
    let router = pointsman.router();
    let request = || Request::new("default", "Hello?").with_deadline(MAX_TEST_WAIT);
    let send = || {
        let router = router.clone();
        spawn(async move { router.send(request()).await })
    };
    let pending: Vec<_> = (0..4096).map(|_| send()).collect();
    let count = || {
        let snapshot = provider_snapshot(&pointsman, "simulated");
        snapshot.in_flight + snapshot.queued + usize::try_from(snapshot.calls).unwrap()
    };
    wait_until("all requests are at the provider", || count() >= 4096).await;
    // Some of the first ones may have been answered by now.
    let more: Vec<_> = (0..100).map(|_| send()).collect();
    wait_until("the free places are taken", || router.recipient().connected() && count() >= 4096).await;
    let refused = timeout(MAX_TEST_WAIT, async {
        loop {
            let answer = spawn({
                let requests = router.recipient();
                async move { timeout(Duration::from_millis(50), requests.send(request())).await }
            });
            if let Ok(answer) = answer.await.unwrap() {
                return answer.unwrap();
            }
        }
    });
    let error = refused.await.unwrap().unwrap_err();
    assert_eq!(error.class(), Class::Overloaded, "{error}");
    assert!(error.failure.retry_after.is_some_and(|wait| wait > Duration::ZERO), "{error}");
    let at_once = timeout(MAX_TEST_WAIT, router.try_send(request())).await.unwrap().unwrap_err();
    assert_eq!(at_once.class(), Class::Overloaded, "{at_once}");
    assert!(at_once.failure.message.starts_with("4096 requests are pending"), "{at_once}");
    let late = router.send(request().with_deadline(Duration::from_millis(100))).await.unwrap_err();
    assert_eq!(late.class(), Class::Deadline);
    assert!(late.failure.message.contains("4096 other requests"), "{late}");
    let waiting = send();
    pending.iter().chain(&more).for_each(tokio::task::JoinHandle::abort);
    let response = timeout(MAX_TEST_WAIT, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(response.attempts.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_handle_is_dropped_is_cancelled_and_a_detached_run_continues() {
    let pointsman = start_slow("20ms").await;
    let (run, mut lines) = start_run(&pointsman, 1_000_000).await;
    assert!(lines.recv().await.is_some());
    drop(run);
    let rest = async { while lines.recv().await.is_some() {} };
    timeout(MAX_TEST_WAIT, rest).await.unwrap();
    let (run, mut lines) = start_run(&pointsman, 5).await;
    run.detach();
    let mut count = 0;
    while timeout(MAX_TEST_WAIT, lines.recv()).await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_progress_of_a_run_ends_with_its_final_counts_and_starts_with_them_after_its_end() {
    let pointsman = start_slow("20ms").await;
    let (mut run, mut lines) = start_run(&pointsman, 8).await;
    let reader = spawn(async move { while lines.recv().await.is_some() {} });
    let mut progress = run.progress();
    let mut finished = Vec::new();
    while let Some(now) = timeout(MAX_TEST_WAIT, progress.next()).await.unwrap() {
        finished.push(now.items.finished());
    }
    assert!(finished.is_sorted() && finished.last() == Some(&8), "{finished:?}");
    reader.await.unwrap();
    assert_eq!(run.report().await.unwrap().items.completed, 8);
    let mut late = run.progress();
    assert_eq!(late.next().await.unwrap().items.finished(), 8);
    assert!(late.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_run_has_an_id_and_its_options_are_set_with_methods() {
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Sqlite::open(&folder.path().join("runs.db")).await.unwrap());
    let pointsman = start_slow("0s").await;
    let options = ResumeOptions::new(store, "tickets")
        .with_pause(PauseOptions::new().with_max_failures(MaxFailures::Unlimited));
    for start_number in 0..2 {
        let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
        let prepared = pointsman.prepare_run(&pipeline, options.clone()).await.unwrap();
        let (sink, mut lines) = Sink::channel().unwrap();
        let mut run = pointsman.run_stored(pipeline, items(3), sink, prepared).await.unwrap();
        assert_eq!(run.id().unwrap().0, 1);
        while lines.recv().await.is_some() {}
        assert_eq!(run.report().await.unwrap().items.finished_before, 3 * start_number);
    }
}

#[test]
fn a_start_needs_no_runtime_and_its_key_command_blocks_no_thread_of_the_caller() {
    let config = "[provider.a]\nbase_url = 'http://127.0.0.1:9/v1'\nkeys = ['command:sleep 1; echo key']\nmodels.m = {}";
    let config = Config::from_toml(config).unwrap();
    let mut start = Box::pin(Pointsman::start(&config));
    let waker = std::task::Waker::noop();
    let first = start.as_mut().poll(&mut std::task::Context::from_waker(waker));
    assert!(first.is_pending());
    let pointsman = block_on(start).unwrap();
    assert_eq!(pointsman.providers().len(), 1);
}

#[test]
fn a_start_that_fails_returns_every_error() {
    let config = "[provider.a]\nbase_url = 'http://127.0.0.1:9/v1'\nkeys = ['command:exit 3', 'file:/nowhere/key']\nmodels.m = {}";
    let config = Config::from_toml(config).unwrap();
    let asynchronous = block_on(Pointsman::start(&config)).unwrap_err().to_string();
    let blocking = Pointsman::start_blocking(&config).unwrap_err().to_string();
    assert_eq!(asynchronous, blocking);
    assert_eq!(asynchronous.lines().count(), 2, "{asynchronous}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_refused_with_another_pipeline_than_it_was_prepared_with() {
    let folder = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Sqlite::open(&folder.path().join("runs.db")).await.unwrap());
    let pointsman = start_slow("0s").await;
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let prepared = pointsman.prepare_run(&pipeline, ResumeOptions::new(store, "tickets")).await.unwrap();
    let other = pointsman.parse_pipeline(&PIPELINE.replace("something", "nothing")).unwrap();
    let (sink, mut lines) = Sink::channel().unwrap();
    let refused = pointsman.run_stored(other, items(3), sink, prepared).await.unwrap_err();
    assert!(matches!(refused, pointsman::Error::OtherPipeline), "{refused}");
    assert!(lines.recv().await.is_none());
}

#[test]
fn a_program_without_a_runtime_prepares_a_run_and_drains() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::from_toml("[provider.simulated]\nbase_url = 'simulator'").unwrap();
    let pointsman = block_on(Pointsman::start(&config)).unwrap();
    let pipeline = pointsman.parse_pipeline(PIPELINE).unwrap();
    let path = folder.path().join("runs.db");
    let store = pointsman.runtime().block_on(async { Sqlite::open(&path).await.unwrap() });
    let options = ResumeOptions::new(std::sync::Arc::new(store), "tickets");
    assert!(block_on(pointsman.prepare_run(&pipeline, options)).unwrap().id().is_none());
    assert_eq!(block_on(pointsman.drain(Duration::from_secs(5))).killed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_a_route_without_a_key_says_which_key_is_missing() {
    let config = "
        [provider.a]
        base_url = 'simulator'
        models.m = {}
        [provider.b]
        base_url = 'http://127.0.0.1:9/v1'
        keys = ['env:POINTSMAN_TEST_NO_SUCH_KEY']
        models.m = {}
        [route.default]
        targets = ['a/m']
        [route.other]
        targets = ['b/m']";
    let pointsman = Pointsman::start(&Config::from_toml(config).unwrap()).await.unwrap();
    let message = async |route: &str| {
        pointsman.send(Request::new(route, "Hello?")).await.unwrap_err().failure.message.into_string()
    };
    assert!(message("other").await.contains("POINTSMAN_TEST_NO_SUCH_KEY"), "{}", message("other").await);
    assert_eq!(message("defualt").await, "there is no route `defualt`; known routes: default");
}
