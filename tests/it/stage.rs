//! What every test needs: simulators, a configuration over them, and questions.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pointsman::config::Config;
use pointsman::provider::Snapshot;
use pointsman::router::Ask;
use pointsman::run::{Output, Report};
use pointsman::runtime::{Pointsman, RunHandle, RunOptions};
use pointsman::simulator::{Fault, Settings, Simulator, Vendor};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::types::{Answer, Asker, Attempt, Class, Outcome, Priority, Prompt, Trail, Unanswered};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The formats, and who speaks them.
pub(crate) const FORMATS: [(&str, Vendor); 3] =
    [("openai", Vendor::OpenAi), ("anthropic", Vendor::Anthropic), ("gemini", Vendor::Gemini)];

/// Waits that a busy machine keeps, and a breaker that stays out of the way.
pub(crate) const PATIENT: &str = r#"
timeouts = { connect = "2s", first_token = "2s", idle = "2s", total = "5s" }
breaker = { failures = 1000, min_calls = 1000 }
"#;

/// Short waits, and a breaker that opens after three failures and comes back soon.
pub(crate) const WARY: &str = r#"
timeouts = { connect = "1s", first_token = "300ms", idle = "300ms", total = "5s" }
breaker = { failures = 3, min_calls = 1000, pause = "200ms", max_open_duration = "300ms" }
"#;

/// Spawns on this test's runtime.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    Handle::current().spawn(future)
}

/// Plays on this test's runtime, on a port of its own.
pub(crate) fn play(settings: Settings) -> Simulator {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Simulator::start(settings, anywhere, &Handle::current()).unwrap()
}

/// Plays with these faults.
pub(crate) fn faulty(faults: impl IntoIterator<Item = Fault>) -> Simulator {
    play(Settings { faults: faults.into_iter().collect(), ..Settings::default() })
}

/// Writes an OpenAI-speaking provider with one model, `m`.
pub(crate) fn provider(name: &str, simulator: &Simulator, more: &str) -> String {
    provider_at(name, &simulator.base_url(Vendor::OpenAi), more)
}

/// Writes a provider at an address.
pub(crate) fn provider_at(name: &str, url: &str, more: &str) -> String {
    format!("[provider.{name}]\nbase_url = \"{url}\"\nmodels.m = {{}}\n{more}\n")
}

/// Starts with keys `K1`, `K2`, .. in the environment.
pub(crate) fn start(config: &str) -> Pointsman {
    let config = Config::parse("test.toml", config, &key).unwrap_or_else(|faults| panic!("{faults}"));
    Pointsman::start_with(&config, &key).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the text of a key.
pub(crate) fn key(name: &str) -> Option<String> {
    name.starts_with('K').then(|| format!("sk-live-{name}-0123456789abcdef"))
}

/// Makes a question along `route` whose answer is worth this long a wait.
pub(crate) fn question(route: &str, text: &str, wait: Duration) -> Ask {
    Ask {
        prompt: Arc::new(Prompt::text(text)),
        route: route.into(),
        priority: Priority::Batch,
        asker: Asker::default(),
        deadline: Instant::now() + wait,
        counts: None,
        purse: None,
        held: pointsman::guard::HeldMemory::default(),
        stop: None,
    }
}

/// Asks along `route`, for 20 s at most.
pub(crate) async fn ask(pointsman: &Pointsman, route: &str, text: &str) -> Result<Answer, Box<Unanswered>> {
    pointsman.send(question(route, text, Duration::from_secs(20))).await
}

/// Asks this many different questions at once and returns what came of each.
pub(crate) async fn ask_many(
    pointsman: &Pointsman,
    route: &str,
    count: usize,
) -> Vec<Result<Answer, Box<Unanswered>>> {
    let asks = (0..count).map(|number| {
        let pointsman = pointsman.clone();
        let ask = question(route, &format!("Question {number}?"), Duration::from_secs(20));
        async move { pointsman.send(ask).await }
    });
    futures_util::future::join_all(asks).await
}

/// The trail of an answer or of none.
pub(crate) fn trail(answered: &Result<Answer, Box<Unanswered>>) -> &Trail {
    match answered {
        Ok(answer) => &answer.trail,
        Err(unanswered) => &unanswered.trail,
    }
}

/// Returns a trail in short, such as `a:server_error a:server_error b:ok`.
pub(crate) fn story(answered: &Result<Answer, Box<Unanswered>>) -> String {
    let word = |attempt: &Attempt| {
        let how = match &attempt.outcome {
            Outcome::Answered => "ok",
            Outcome::Failed(failure) => failure.class.as_str(),
            Outcome::Refused(_) => "refused",
            Outcome::Superseded => "superseded",
            Outcome::BrokenOff => "broken_off",
            Outcome::Lost(_) => "lost",
        };
        format!("{}:{how}", attempt.lane.provider)
    };
    trail(answered).0.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Returns the class of a failure; `None` for an answer.
pub(crate) fn class(answered: &Result<Answer, Box<Unanswered>>) -> Option<Class> {
    answered.as_ref().err().map(|unanswered| unanswered.failure.class)
}

/// Returns how a provider is doing.
pub(crate) fn snapshot(pointsman: &Pointsman, name: &str) -> Snapshot {
    let all = pointsman.providers().into_iter();
    all.into_iter().find(|snapshot| snapshot.provider.as_str() == name).unwrap()
}

/// Waits until something outside of the test's own tasks has come true, for five seconds at most.
pub(crate) async fn until(what: &str, mut come_true: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !come_true() {
        assert!(Instant::now() < end, "{what}: did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Retries that do not take long: two rounds of two attempts.
pub(crate) const QUICK_RETRY: &str =
    "[retry]\nattempts_per_lane = 2\nrounds = 2\nbase = \"10ms\"\nmax = \"40ms\"\n";

/// A run that is over.
pub(crate) struct Ran {
    pub(crate) report: Report,
    pub(crate) lines: Vec<serde_json::Value>,
}

/// Runs this many items, `item-0` and so on, through a pipeline of these steps.
pub(crate) async fn run(pointsman: &Pointsman, steps: &str, items: usize) -> Ran {
    run_with(pointsman, steps, items, RunOptions::default()).await
}

/// As [`run`], as `options` say.
pub(crate) async fn run_with(pointsman: &Pointsman, steps: &str, items: usize, options: RunOptions) -> Ran {
    start_run(pointsman, steps, items, options).await.end().await
}

/// A run that is under way.
pub(crate) struct Begun {
    pub(crate) run: RunHandle,
    out: PathBuf,
    _folder: TempDir,
}

/// Begins what [`run_with`] runs.
pub(crate) async fn start_run(
    pointsman: &Pointsman,
    steps: &str,
    items: usize,
    options: RunOptions,
) -> Begun {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, out) = (folder.path().join("pipeline.toml"), folder.path().join("out.jsonl"));
    std::fs::write(&pipeline, format!("name = \"test\"\n{steps}")).unwrap();
    let pipeline = pointsman.pipeline(&pipeline).unwrap_or_else(|faults| panic!("{faults}"));
    let names: Vec<_> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let sink = Sink::results(Target::file(&out, &[]).unwrap(), Format::Jsonl, &names).unwrap();
    let values = (0..items).map(|number| serde_json::json!({ "id": format!("item-{number}") }));
    let output = Output { lines: sink, rejects: None, ordered: false };
    let run = pointsman.run_with(pipeline, Source::values("items", values), output, &options).await.unwrap();
    Begun { run, out, _folder: folder }
}

impl Begun {
    /// Waits for its end.
    pub(crate) async fn end(mut self) -> Ran {
        let report = self.run.report().await.unwrap();
        let text = std::fs::read_to_string(&self.out).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Ran { report, lines }
    }
}
