//! Shared by the tests of the daemon: a daemon with its server, and its client.
//!
//! - [`DaemonFolder`]: a temporary folder with the configuration, the store, pipelines and items. It outlives daemons.
//! - [`TestDaemon`]: a daemon on such a folder, and requests to it.
//! - [`EventStream`]: the frames of an event stream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use pointsman::config::Config;
use pointsman::daemon::{Daemon, Kind};
use pointsman::runtime::Pointsman;
use pointsman::server::{RunningServer, ServerOptions, serve};
use pointsman::simulator::Simulator;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::support::*;

/// The longest time that a test waits for the daemon.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);

/// A pipeline of one step, `answer`, that uses the field `text`.
pub(crate) const ONE_STEP: &str =
    "name = \"one\"\n[[step]]\nname = \"answer\"\nprompt = \"Say something about {{ item.text }}\"\n";

/// The folder of a daemon: `config.toml`, `runs.db`, `pipelines/one.toml` with [`ONE_STEP`], and an empty `items/`, which
/// is allowed for `items_path`.
pub(crate) struct DaemonFolder {
    folder: Arc<TempDir>,
}

/// What a configuration has besides the provider `a` with the model `m`, the store and the folders.
#[derive(Default)]
pub(crate) struct Extra<'a> {
    /// Lines of `[provider.a]`.
    pub(crate) provider: &'a str,
    /// Lines of `[serve]`.
    pub(crate) serve: &'a str,
    /// Other tables.
    pub(crate) tables: &'a str,
}

/// A running daemon and its server. Dropping it stops both at once, as far as that is possible within a process.
pub(crate) struct TestDaemon {
    pub(crate) daemon: Daemon,
    server: RunningServer,
    client: Client,
    /// Kept while the daemon uses it.
    _folder: Arc<TempDir>,
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

/// A frame of an event stream.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) id: Option<u64>,
    pub(crate) event: String,
    pub(crate) data: Value,
}

/// An event stream, which is read frame by frame. Comments are left out.
pub(crate) struct EventStream {
    body: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl DaemonFolder {
    /// Creates the folder of a daemon whose provider is this simulator.
    pub(crate) fn new(simulator: &Simulator) -> Self {
        Self::with(simulator, &Extra::default())
    }

    /// Creates a folder with more settings.
    pub(crate) fn with(simulator: &Simulator, extra: &Extra<'_>) -> Self {
        let created = Self { folder: Arc::new(tempfile::tempdir().unwrap()) };
        for folder in ["pipelines", "items"] {
            std::fs::create_dir(created.path(folder)).unwrap();
        }
        let provider = provider_config("a", simulator, &format!("{LONG_TIMEOUTS}{}", extra.provider));
        let config = format!(
            "{provider}\n[store]\nurl = \"sqlite:{}\"\n[serve]\nlisten = \"127.0.0.1:0\"\npipelines = [\"pipelines/*.toml\"]\n\
             items = [\"items\"]\ndrain = \"1s\"\n{}\n{}\n",
            created.path("runs.db").display(),
            extra.serve,
            extra.tables
        );
        created.write("config.toml", config);
        created.write("pipelines/one.toml", ONE_STEP);
        created
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Returns how many files a folder of the daemon's data has, such as `uploads`.
    pub(crate) fn data_files(&self, folder: &str) -> usize {
        std::fs::read_dir(self.path("runs.db-data").join(folder)).unwrap().count()
    }

    /// Starts a daemon and its server on a free port. Waits until an earlier daemon of the folder has stopped.
    pub(crate) async fn start(&self) -> TestDaemon {
        let path = self.path("config.toml");
        let load = move || Config::load_with(Some(&path), &lookup_key);
        let end = Instant::now() + MAX_WAIT;
        let daemon = loop {
            let config = load().unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
            let pointsman = Pointsman::start_with(&config, lookup_key).await.unwrap();
            match Daemon::start(pointsman, Arc::new(load.clone())).await {
                Ok(daemon) => break daemon,
                Err(error) if error.kind() == Kind::Conflict && Instant::now() < end => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let server = serve(&daemon, ServerOptions::new()).unwrap();
        TestDaemon { daemon, server, client: client(), _folder: self.folder.clone() }
    }
}

/// Returns an HTTP client that follows no redirect and uses no proxy.
pub(crate) fn client() -> Client {
    // The client requires a crypto provider also for plain HTTP. An error means that another test has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
    client.build().unwrap()
}

/// Returns items `i1`, `i2` and so on as JSON lines.
pub(crate) fn jsonl(count: usize) -> String {
    (1..=count).map(|number| format!("{{\"id\":\"i{number}\",\"text\":\"thing {number}\"}}\n")).collect()
}

/// Returns the items of [`jsonl`] as values.
pub(crate) fn values(count: usize) -> Vec<Value> {
    jsonl(count).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl TestDaemon {
    /// Returns the address of the server, such as `127.0.0.1:40000`.
    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Returns a request to `/api/v1` and this path.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}/api/v1{path}", self.address()))
    }

    /// Sends a request without a body.
    pub(crate) async fn send(&self, method: Method, path: &str) -> Answer {
        Answer::of(self.request(method, path)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path).await
    }

    /// Sends a request without a body, such as `/runs/1/hold`.
    pub(crate) async fn post(&self, path: &str) -> Answer {
        self.send(Method::POST, path).await
    }

    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        Answer::of(request.body(body.to_string())).await
    }

    /// Uploads items for a run of the pipeline `one`, with this media type.
    pub(crate) async fn upload(&self, media_type: &str, items: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, "/runs/upload?pipeline=one");
        Answer::of(request.header(CONTENT_TYPE, media_type).body(items)).await
    }

    /// Creates a run of the pipeline `one` with the items of [`jsonl`]. Returns its number.
    pub(crate) async fn create_run(&self, items: usize) -> i64 {
        let created = self.upload("application/x-ndjson", jsonl(items)).await;
        assert_eq!(created.status, 201, "{created:?}");
        created.json()["run"].as_i64().unwrap()
    }

    /// Waits until a run is in this state. Returns it.
    pub(crate) async fn wait_for_state(&self, run: i64, state: &str) -> Value {
        let end = Instant::now() + MAX_WAIT;
        loop {
            let shown = self.get(&format!("/runs/{run}")).await.json();
            if shown["state"] == state {
                return shown;
            }
            assert!(Instant::now() < end, "run {run} is not {state}: {shown}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Creates a run with [`create_run`](Self::create_run) and waits until it is completed.
    pub(crate) async fn complete_run(&self, items: usize) -> i64 {
        let run = self.create_run(items).await;
        self.wait_for_state(run, "completed").await;
        run
    }

    /// Returns the numbers of all runs, the newest first.
    pub(crate) async fn runs(&self) -> Vec<i64> {
        let page = self.get("/runs").await.json();
        page["runs"].as_array().unwrap().iter().map(|run| run["run"].as_i64().unwrap()).collect()
    }

    /// Returns the result lines of a run.
    pub(crate) async fn results(&self, run: i64) -> Vec<Value> {
        self.get(&format!("/runs/{run}/results")).await.lines()
    }

    /// Opens an event stream. `last` is what a client sends that reconnects.
    pub(crate) async fn events(&self, path: &str, last: Option<u64>) -> EventStream {
        let mut request = self.request(Method::GET, path);
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        EventStream::of(request).await
    }

    /// Stops the daemon and its server, and lets calls in flight end within `drain`. Another one can then be started on
    /// the folder.
    pub(crate) async fn stop(self, drain: Duration) {
        let Self { daemon, server, client, _folder } = self;
        daemon.drain(drain).await;
        // Its open connections would delay the stop.
        drop(client);
        server.stop().await;
    }
}

impl Answer {
    /// Sends a request and reads the whole answer.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response: Response = timeout(MAX_WAIT, request.send()).await.unwrap().unwrap();
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let text = timeout(MAX_WAIT, response.text()).await.unwrap().unwrap();
        Self { status, headers, text }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns the lines of an answer in JSON lines.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        assert_eq!((self.status, self.header("content-type")), (200, "application/x-ndjson"), "{self:?}");
        assert!(self.text.is_empty() || self.text.ends_with('\n'), "{self:?}");
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Asserts that it is a problem with this status, whose detail or advice has this part.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["class"].is_string(), "{problem}");
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        let said = format!("{} {} {}", problem["detail"], problem["advice"], problem["diagnostics"]);
        assert!(said.contains(part), "{problem}");
    }
}

impl EventStream {
    /// Opens a stream with this request.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Self { body: response.bytes_stream().boxed(), text: String::new() }
    }

    /// Returns the next frame; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let parsed = Frame::parse(frame);
                self.text = rest.to_owned();
                if parsed.is_some() {
                    return parsed;
                }
            }
            let piece = timeout(MAX_WAIT, self.body.next()).await.unwrap()?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// Returns all frames until the end of the stream.
    pub(crate) async fn all(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    /// Returns the next frame of this kind, after others.
    pub(crate) async fn next_of(&mut self, event: &str) -> Frame {
        loop {
            let frame = self.next().await.unwrap_or_else(|| panic!("the stream has ended without {event}"));
            if frame.event == event {
                return frame;
            }
        }
    }
}

impl Frame {
    /// Returns a frame; `None` for a comment. The start of a stream, which has no event, is `start`.
    fn parse(text: &str) -> Option<Self> {
        let mut frame = Self { id: None, event: "start".to_owned(), data: Value::Null };
        let mut is_frame = false;
        for line in text.lines() {
            let Some((name, value)) = line.split_once(": ").filter(|(name, _)| !name.is_empty()) else {
                continue;
            };
            is_frame = true;
            match name {
                "id" => frame.id = Some(value.parse().unwrap()),
                "event" => frame.event = value.to_owned(),
                "data" => frame.data = serde_json::from_str(value).unwrap(),
                "retry" => {}
                other => panic!("unknown field {other}"),
            }
        }
        is_frame.then_some(frame)
    }
}
