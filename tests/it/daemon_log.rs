//! The log of `pointsman serve`: what happens to runs, the requests of callers, and the end of a drain.

use std::time::Duration;

use pointsman::simulator::{Latency, Settings, Simulator};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::daemon::{DaemonFolder, MAX_WAIT, client, values};
use super::program::{Output, RunningProgram, program, start_program};
use super::support::*;

/// A daemon as a process with a log in JSON.
struct Served {
    process: RunningProgram,
    url: String,
}

impl Served {
    fn start(folder: &DaemonFolder) -> Self {
        let mut command = program("serve --config config.toml --log json");
        command.current_dir(folder.path("")).env("LOCAL_KEY", "sk-test");
        let mut process = start_program(command);
        let line = process.wait_for_line("pointsman serves at ");
        let line: Value = serde_json::from_str(&line).unwrap();
        let (_, address) = line["message"].as_str().unwrap().split_once("pointsman serves at ").unwrap();
        let url = address.split(' ').next().unwrap().to_owned();
        Self { process, url }
    }

    async fn create_run(&self, items: usize) -> i64 {
        let body = json!({ "pipeline": "one", "items": values(items) });
        let sent = client().post(format!("{}/api/v1/runs", self.url));
        let sent = sent.header("content-type", "application/json").body(body.to_string()).send();
        let text = sent.await.unwrap().text().await.unwrap();
        let created: Value = serde_json::from_str(&text).unwrap();
        created["run"].as_i64().unwrap_or_else(|| panic!("{created}"))
    }

    async fn get(&self, path: &str) -> String {
        client().get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    /// Stops it. Returns its log.
    fn stop(self) -> Log {
        self.process.signal("TERM");
        let output = self.process.wait();
        output.expect_code(0);
        Log::of(&output)
    }
}

/// The lines of a log after the start.
struct Log(Vec<Value>);

impl Log {
    fn of(output: &Output) -> Self {
        Self(output.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    /// Returns the only line with this message.
    #[track_caller]
    fn only(&self, message: &str) -> &Value {
        let found: Vec<&Value> = self.0.iter().filter(|line| line["message"] == message).collect();
        let [line] = found[..] else { panic!("{} lines {message:?} in {:#?}", found.len(), self.0) };
        line
    }

    #[track_caller]
    fn has_no_line_with(&self, words: &str) {
        let found = self.0.iter().find(|line| line.to_string().contains(words));
        assert!(found.is_none(), "{found:?}");
    }
}

async fn wait_for_calls(simulator: &Simulator, calls: u64) {
    let end = Instant::now() + MAX_WAIT;
    while simulator.counts().in_flight < calls {
        assert!(Instant::now() < end, "{:?}", simulator.counts());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_has_the_life_of_a_run_and_each_request_with_its_client_but_no_probes() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let served = Served::start(&folder);
    let run = served.create_run(3).await;
    let end = Instant::now() + MAX_WAIT;
    while !served.get(&format!("/api/v1/runs/{run}")).await.contains("\"completed\",") {
        assert!(Instant::now() < end, "run {run} does not complete");
        sleep(Duration::from_millis(20)).await;
    }
    for probe in ["/health", "/ready", "/metrics"] {
        assert!(!served.get(probe).await.is_empty());
    }
    assert!(served.get("/api/v1/runs/999").await.contains("999"));
    let log = served.stop();
    for message in ["run created", "run started", "run ended"] {
        let line = log.only(message);
        assert_eq!((&line["run"], &line["pipeline"]), (&run.into(), &"one".into()), "{line}");
        assert_eq!(line["level"], "INFO", "{line}");
    }
    let ended = log.only("run ended");
    assert_eq!(ended["state"], "completed", "{ended}");
    assert_eq!((&ended["completed"], &ended["failed"]), (&3.into(), &0.into()), "{ended}");
    assert_eq!(ended["unsaved_items"], 0, "{ended}");
    let requests: Vec<&Value> = log.0.iter().filter(|line| line["message"] == "request").collect();
    let is_to = |path: &'static str| move |line: &&&Value| line["path"] == path;
    let created = requests.iter().find(is_to("/api/v1/runs")).unwrap();
    assert_eq!((&created["client"], &created["status"]), (&"127.0.0.1".into(), &201.into()), "{created}");
    assert_eq!(requests.iter().filter(is_to("/api/v1/runs/999")).count(), 1);
    for probe in ["/health", "/ready", "/metrics"] {
        assert_eq!(requests.iter().filter(is_to(probe)).count(), 0, "{probe}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_a_drain_aborts_are_one_line_and_the_run_is_resumed_at_the_next_start() {
    let latency = Latency::Fixed(Duration::from_secs(600));
    let simulator = start_simulator(Settings { latency, ..Settings::default() });
    let folder = DaemonFolder::new(&simulator);
    let served = Served::start(&folder);
    let run = served.create_run(2).await;
    wait_for_calls(&simulator, 2).await;
    let log = served.stop();
    let drained = log.only("drain ended: attempts were aborted, and may have been charged");
    assert_eq!((&drained["aborted"], &drained["level"]), (&2.into(), &"INFO".into()), "{drained}");
    log.has_no_line_with("did not stop in time");
    log.has_no_line_with("\"drained\"");
    let ended = log.only("run ended");
    assert_eq!((&ended["run"], &ended["state"]), (&run.into(), &"stopped".into()), "{ended}");
    assert_eq!(ended["unfinished"], 2, "{ended}");

    let mut served = Served::start(&folder);
    served.process.wait_for_line("run resumed");
    let log = served.stop();
    let resumed = log.only("run resumed");
    assert_eq!((&resumed["run"], &resumed["pipeline"]), (&run.into(), &"one".into()), "{resumed}");
}
