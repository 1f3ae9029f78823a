//! Shared by the tests: simulators, configurations, requests and runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use pointsman::config::Config;
use pointsman::provider::Snapshot;
use pointsman::router::Request;
use pointsman::run::{Report, RunOutput};
use pointsman::runtime::{Pointsman, RunHandle, RunOptions};
use pointsman::simulator::{Fault, Settings, Simulator, Vendor};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::types::{Attempt, AttemptLog, Class, Outcome, Priority, RequestError, Response};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The formats, and the vendor of each.
pub(crate) const FORMATS: [(&str, Vendor); 4] = [
    ("openai", Vendor::OpenAi),
    ("openai_responses", Vendor::OpenAi),
    ("anthropic", Vendor::Anthropic),
    ("gemini", Vendor::Gemini),
];

/// Timeouts that a busy machine meets, and a circuit breaker that does not open.
pub(crate) const LONG_TIMEOUTS: &str = r#"
timeouts = { connect = "2s", first_token = "2s", idle = "2s", total = "5s" }
breaker = { consecutive_failures = 1000, min_requests = 1000 }
"#;

/// Short timeouts, and a circuit breaker that opens after three failures for a short time.
pub(crate) const QUICK_BREAKER: &str = r#"
timeouts = { connect = "1s", first_token = "300ms", idle = "300ms", total = "5s" }
breaker = { consecutive_failures = 3, min_requests = 1000, open_duration = "200ms", max_open_duration = "300ms" }
"#;

/// Spawns a task on the runtime of the test.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    Handle::current().spawn(future)
}

/// Starts a simulator on the runtime of the test, on a free port.
pub(crate) fn start_simulator(settings: Settings) -> Simulator {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Simulator::start(settings, any_port, &Handle::current()).unwrap()
}

/// Starts a simulator with these faults.
pub(crate) fn start_faulty_simulator(faults: impl IntoIterator<Item = Fault>) -> Simulator {
    start_simulator(Settings { faults: faults.into_iter().collect(), ..Settings::default() })
}

/// Returns the configuration of a provider in OpenAI's format with one model, `m`.
pub(crate) fn provider_config(name: &str, simulator: &Simulator, more: &str) -> String {
    provider_config_at(name, &simulator.base_url(Vendor::OpenAi), more)
}

/// Returns the configuration of a provider with this base URL.
pub(crate) fn provider_config_at(name: &str, url: &str, more: &str) -> String {
    format!("[provider.{name}]\nbase_url = \"{url}\"\nmodels.m = {{}}\n{more}\n")
}

/// Starts the library with the keys `K1`, `K2`, and so on in the environment.
pub(crate) fn start_pointsman(config: &str) -> Pointsman {
    let config =
        Config::parse("test.toml", config, &lookup_key).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    Pointsman::start_blocking_with(&config, lookup_key).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the value of a key variable.
pub(crate) fn lookup_key(name: &str) -> Option<String> {
    name.starts_with('K').then(|| format!("sk-live-{name}-0123456789abcdef"))
}

/// Returns a batch request along `route` with this timeout.
pub(crate) fn new_request(route: &str, text: &str, timeout: Duration) -> Request {
    Request::new(route, text).with_priority(Priority::Batch).with_deadline(timeout)
}

/// Sends a request along `route` with a timeout of 20 s.
pub(crate) async fn send_request(
    pointsman: &Pointsman,
    route: &str,
    text: &str,
) -> Result<Response, Box<RequestError>> {
    pointsman.send(new_request(route, text, Duration::from_secs(20))).await
}

/// Sends `count` different requests concurrently, and returns their results.
pub(crate) async fn send_requests(
    pointsman: &Pointsman,
    route: &str,
    count: usize,
) -> Vec<Result<Response, Box<RequestError>>> {
    let requests = (0..count).map(|number| {
        let pointsman = pointsman.clone();
        let request = new_request(route, &format!("Request {number}."), Duration::from_secs(20));
        async move { pointsman.send(request).await }
    });
    futures_util::future::join_all(requests).await
}

/// Returns the attempt log of a result.
pub(crate) fn attempt_log(result: &Result<Response, Box<RequestError>>) -> &AttemptLog {
    match result {
        Ok(response) => &response.attempts,
        Err(error) => &error.attempts,
    }
}

/// Returns a short form of the attempt log, such as `a:server_error a:server_error b:ok`.
pub(crate) fn attempt_summary(result: &Result<Response, Box<RequestError>>) -> String {
    let summarize = |attempt: &Attempt| {
        let outcome = match &attempt.outcome {
            Outcome::Answered => "ok",
            Outcome::Failed(failure) => failure.class.as_str(),
            Outcome::Refused(_) => "refused",
            Outcome::Superseded => "superseded",
            Outcome::BrokenOff => "broken_off",
            Outcome::Lost(_) => "lost",
            _ => "unknown outcome",
        };
        format!("{}:{outcome}", attempt.target.provider)
    };
    attempt_log(result).0.iter().map(summarize).collect::<Vec<_>>().join(" ")
}

/// Returns the class of a failure; `None` for a response.
pub(crate) fn failure_class(result: &Result<Response, Box<RequestError>>) -> Option<Class> {
    result.as_ref().err().map(|error| error.failure.class)
}

/// Returns the state of a provider.
pub(crate) fn provider_snapshot(pointsman: &Pointsman, name: &str) -> Snapshot {
    let providers = pointsman.providers();
    providers.into_iter().find(|snapshot| snapshot.provider.as_str() == name).unwrap()
}

/// Waits until a condition is true, for five seconds at most. `what` names it.
pub(crate) async fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !is_true() {
        assert!(Instant::now() < end, "{what}: timed out");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Two rounds of two attempts, with short backoffs.
pub(crate) const QUICK_RETRY: &str =
    "[retry]\nattempts_per_target = 2\nmax_rounds = 2\ninitial_backoff = \"10ms\"\nmax_backoff = \"40ms\"\n";

/// A finished run.
pub(crate) struct FinishedRun {
    pub(crate) report: Report,
    pub(crate) lines: Vec<serde_json::Value>,
}

/// Runs `items` items, `item-0` and so on, through a pipeline of these steps.
pub(crate) async fn run_pipeline(pointsman: &Pointsman, steps: &str, items: usize) -> FinishedRun {
    run_pipeline_with(pointsman, steps, items, RunOptions::default()).await
}

/// Like [`run_pipeline`], with these options.
pub(crate) async fn run_pipeline_with(
    pointsman: &Pointsman,
    steps: &str,
    items: usize,
    options: RunOptions,
) -> FinishedRun {
    start_run(pointsman, steps, items, options).await.finish().await
}

/// A started run.
pub(crate) struct StartedRun {
    pub(crate) run: RunHandle,
    out: PathBuf,
    _folder: TempDir,
}

/// Starts the run of [`run_pipeline_with`].
pub(crate) async fn start_run(
    pointsman: &Pointsman,
    steps: &str,
    items: usize,
    options: RunOptions,
) -> StartedRun {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = folder.path().join("pipeline.toml");
    let out = folder.path().join("out.jsonl");
    std::fs::write(&pipeline, format!("name = \"test\"\n{steps}")).unwrap();
    let pipeline = pointsman.pipeline(&pipeline).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let names: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Destination::file(&out, &[]).unwrap(), Format::Jsonl, &names).unwrap();
    let values = (0..items).map(|number| serde_json::json!({ "id": format!("item-{number}") }));
    let source = Source::values("items", values);
    let run = pointsman.run_with(pipeline, source, RunOutput::new(sink), &options).await.unwrap();
    StartedRun { run, out, _folder: folder }
}

impl StartedRun {
    /// Waits for the end of the run.
    pub(crate) async fn finish(mut self) -> FinishedRun {
        let report = self.run.report().await.unwrap();
        let text = std::fs::read_to_string(&self.out).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        FinishedRun { report, lines }
    }
}
