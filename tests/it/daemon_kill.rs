//! `pointsman serve` as a process that is killed: random histories of work and kills, compared with what was acknowledged.
//!
//! A response with 2xx is a promise: what it acknowledged exists after every kill, and is answered in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pointsman::simulator::{Latency, Settings, Simulator};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::daemon::{ONE_STEP, client, jsonl};
use super::support::*;

/// The longest time that a test waits for the process.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A folder with a configuration, and the process that serves it.
struct Served {
    folder: TempDir,
    client: Client,
    process: Option<Child>,
    address: String,
}

/// What was acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// Items that came alone, by `id`, with their run.
    items: BTreeMap<String, i64>,
    /// Runs, with the number of their items.
    runs: BTreeMap<i64, usize>,
}

impl Served {
    fn new(simulator: &Simulator) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = provider_config("a", simulator, "");
        let config = format!(
            "{provider}\n[store]\nurl = \"sqlite:{}\"\n[serve]\npipelines = [\"one.toml\"]\ndrain = \"1s\"\n",
            folder.path().join("runs.db").display()
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        std::fs::write(folder.path().join("one.toml"), ONE_STEP).unwrap();
        Self { folder, client: client(), process: None, address: String::new() }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Starts the process, and waits until it answers.
    async fn start(&mut self) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        self.address = format!("http://{port}");
        let process = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["serve", "--config"])
            .arg(self.config())
            .args(["--listen", &port.to_string()])
            .current_dir(self.folder.path())
            .env("LOCAL_KEY", "sk-test")
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(process.unwrap());
        let end = Instant::now() + MAX_WAIT;
        loop {
            match self.client.get(format!("{}/health", self.address)).send().await {
                Ok(response) if response.status() == 200 => return,
                Ok(_) | Err(_) => {}
            }
            assert!(Instant::now() < end, "the daemon does not answer");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the process as `kill -9` does.
    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.client.get(format!("{}/api/v1{path}", self.address)).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn lines(&self, run: i64) -> Vec<Value> {
        let url = format!("{}/api/v1/runs/{run}/results", self.address);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until a run is completed.
    async fn complete(&self, run: i64) {
        let end = Instant::now() + MAX_WAIT;
        loop {
            let shown = self.get(&format!("/runs/{run}")).await;
            if shown["state"] == "completed" {
                return;
            }
            assert!(Instant::now() < end, "run {run}: {shown}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Sends single items, uploads and reloads until the process is killed. Returns what was acknowledged.
async fn work(client: Client, address: String, life: usize, random: u64) -> Acknowledged {
    let mut rng = fastrand::Rng::with_seed(random);
    let mut acknowledged = Acknowledged::default();
    let mut number = 0;
    loop {
        number += 1;
        let id = format!("life{life}-{number}");
        let answer = match rng.u8(..10) {
            0 => {
                let count = rng.usize(1..40);
                let url = format!("{address}/api/v1/runs/upload?pipeline=one&format=jsonl");
                let sent = client.post(url).body(jsonl(count)).send().await;
                let Ok(response) = sent else { return acknowledged };
                if response.status() == 201 {
                    let Ok(body) = response.json_value().await else { return acknowledged };
                    acknowledged.runs.insert(body["run"].as_i64().unwrap(), count);
                }
                continue;
            }
            1 => {
                let url = format!("{address}/api/v1/config/reload");
                if client.post(url).send().await.is_err() {
                    return acknowledged;
                }
                continue;
            }
            _ => {
                let wait = if rng.bool() { "0s" } else { "20ms" };
                let url = format!("{address}/api/v1/pipelines/one/items?wait={wait}");
                let body = json!({ "id": id, "text": format!("thing {number}") });
                client
                    .post(url)
                    .header("content-type", "application/json")
                    .body(body.to_string())
                    .send()
                    .await
            }
        };
        let Ok(response) = answer else { return acknowledged };
        if response.status().is_success() {
            let Ok(body) = response.json_value().await else { return acknowledged };
            acknowledged.items.insert(id, body["run"].as_i64().unwrap());
        }
    }
}

/// Reads JSON without the feature `json` of the client.
trait JsonValue {
    async fn json_value(self) -> Result<Value, reqwest::Error>;
}

impl JsonValue for reqwest::Response {
    async fn json_value(self) -> Result<Value, reqwest::Error> {
        let text = self.text().await?;
        Ok(serde_json::from_str(&text).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_daemon_has_acknowledged_survives_kills_at_random_moments() {
    let latency = Latency::Fixed(Duration::from_millis(10));
    let simulator = start_simulator(Settings { latency, ..Settings::default() });
    let mut served = Served::new(&simulator);
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut all = Acknowledged::default();
    for life in 0..5 {
        served.start().await;
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let random = rng.u64(..);
                spawn(work(served.client.clone(), served.address.clone(), life * 3 + worker, random))
            })
            .collect();
        sleep(Duration::from_millis(rng.u64(50..900))).await;
        served.kill();
        for worker in workers {
            let Acknowledged { items, runs } = timeout(MAX_WAIT, worker).await.unwrap().unwrap();
            all.items.extend(items);
            all.runs.extend(runs);
        }
    }
    served.start().await;
    assert!(!all.items.is_empty(), "seed {seed}: nothing was acknowledged");
    let mut of_run: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (id, run) in &all.items {
        // Known at once after the restart, also if the run has not started it.
        let shown = served.get(&format!("/pipelines/one/items/{id}")).await;
        assert_eq!(shown["run"], *run, "seed {seed}: {shown}");
        of_run.entry(*run).or_default().insert(id.clone());
    }
    for (run, ids) in of_run {
        served.complete(run).await;
        let lines = served.lines(run).await;
        let keys: BTreeSet<String> =
            lines.iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
        assert_eq!(keys.len(), lines.len(), "seed {seed}: run {run} has an item twice");
        assert!(ids.is_subset(&keys), "seed {seed}: run {run} lacks {:?}", ids.difference(&keys));
        assert!(lines.iter().all(|line| line["status"] == "completed"), "seed {seed}: {lines:?}");
    }
    for (run, count) in all.runs {
        served.complete(run).await;
        assert_eq!(served.lines(run).await.len(), count, "seed {seed}: run {run}");
    }
    // No upload that a kill has cut is left.
    let data = served.folder.path().join("runs.db-data");
    assert_eq!(std::fs::read_dir(data.join("uploads")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_a_store_is_refused_by_the_name_of_the_first() {
    let simulator = start_simulator(Settings::default());
    let mut served = Served::new(&simulator);
    served.start().await;
    let first = served.process.as_ref().unwrap().id();
    let second = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["serve", "--config"])
        .arg(served.config())
        .args(["--listen", "127.0.0.1:0"])
        .current_dir(served.folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains(&format!("another daemon uses this store: process {first} on ")), "{stderr}");
}
