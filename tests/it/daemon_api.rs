//! The HTTP API as a whole: who may call what, requests, pipelines, providers, the configuration, and the description of
//! the API.

use std::time::Duration;

use pointsman::server::{RunningServer, ServerOptions, serve};
use pointsman::simulator::Settings;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::daemon::*;
use super::support::*;

const TOML: &str = "application/toml";

const TWO: &str = "name = \"two\"\n[[step]]\nname = \"answer\"\nprompt = \"Say {{ item.text }}\"\n";

/// A second server of a daemon, which needs tokens.
struct Guarded {
    server: RunningServer,
    client: Client,
}

/// An operation of the description of the API.
struct Operation {
    id: String,
    method: Method,
    /// With values in place of its parameters.
    path: String,
    needs_token: bool,
}

impl Guarded {
    fn of(daemon: &TestDaemon) -> Self {
        Self {
            server: serve(&daemon.daemon, ServerOptions::new().with_tokens(true)).unwrap(),
            client: client(),
        }
    }

    async fn send(&self, method: &Method, path: &str, token: Option<&str>) -> Answer {
        let mut request =
            self.client.request(method.clone(), format!("http://{}{path}", self.server.address()));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Answer::of(request).await
    }

    /// Returns the operations of the description of the API.
    async fn operations(&self) -> Vec<Operation> {
        let described = self.send(&Method::GET, "/api/openapi.json", None).await;
        assert_eq!(described.status, 200, "{described:?}");
        let described = described.json();
        let mut operations = Vec::new();
        for (path, item) in described["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let mut path = path.clone();
                for (parameter, value) in
                    [("{run}", "1"), ("{name}", "one"), ("{key}", "k"), ("{version}", "1")]
                {
                    path = path.replace(parameter, value);
                }
                assert!(!path.contains('{'), "{path}");
                if path.ends_with("/upload") {
                    path.push_str("?pipeline=one");
                }
                operations.push(Operation {
                    id: operation["operationId"].as_str().unwrap().to_owned(),
                    method: method.to_uppercase().parse().unwrap(),
                    path,
                    needs_token: operation.get("security").is_none(),
                });
            }
        }
        assert!(operations.len() > 40);
        operations
    }
}

/// Creates a token with these permissions over HTTP. Returns its text.
async fn create_token(daemon: &TestDaemon, name: &str, permissions: &[&str]) -> String {
    let created = daemon.post_json("/tokens", &json!({ "name": name, "permissions": permissions })).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.json()["token"].as_str().unwrap().to_owned()
}

async fn put(daemon: &TestDaemon, name: &str, text: &str, condition: Option<(&str, &str)>) -> Answer {
    let mut request = daemon.request(Method::PUT, &format!("/pipelines/{name}")).header(CONTENT_TYPE, TOML);
    if let Some((header, value)) = condition {
        request = request.header(header, value);
    }
    Answer::of(request.body(text.to_owned())).await
}

async fn post_toml(daemon: &TestDaemon, path: &str, text: &str) -> Answer {
    let request = daemon.request(Method::POST, path).header(CONTENT_TYPE, TOML);
    Answer::of(request.body(text.to_owned())).await
}

/// Returns the events of an answer that was streamed, with their data.
#[track_caller]
fn events(answer: &Answer) -> Vec<(String, Value)> {
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"), "{answer:?}");
    let frames = answer.text.split_terminator("\n\n").filter(|frame| !frame.starts_with(':'));
    let parse = |frame: &str| {
        let (event, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (event.to_owned(), serde_json::from_str(data).unwrap())
    };
    frames.map(parse).collect()
}

/// Returns the value of a key in the configuration.
#[track_caller]
fn value<'v>(config: &'v Value, key: &str) -> &'v Value {
    let values = config["values"].as_array().unwrap();
    values.iter().find(|value| value["key"] == key).unwrap_or_else(|| panic!("no {key}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_that_needs_a_token_refuses_a_request_without_a_valid_one() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let guarded = Guarded::of(&daemon);
    let mut open = Vec::new();
    for Operation { id, method, path, needs_token } in guarded.operations().await {
        for token in [None, Some("wrong"), Some("")] {
            let answer = guarded.send(&method, &path, token).await;
            if needs_token {
                answer.assert_problem(401, "no valid token");
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{id}");
            } else {
                assert_eq!(answer.status, 200, "{id}: {answer:?}");
            }
        }
        if !needs_token {
            open.push(id);
        }
    }
    open.sort();
    assert_eq!(open, ["health", "ready", "show_documentation", "show_openapi"]);
    // What does not exist is refused in the same way.
    let missing = guarded.send(&Method::GET, "/api/v1/runs/999", None).await;
    missing.assert_problem(401, "no valid token");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_allows_only_what_its_permissions_say() {
    const SEES_PIPELINES: [&str; 5] = [
        "list_pipelines",
        "show_pipeline",
        "check_pipeline",
        "list_pipeline_versions",
        "show_pipeline_version",
    ];
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let guarded = Guarded::of(&daemon);
    let request = create_token(&daemon, "request", &["request"]).await;
    let read = create_token(&daemon, "read", &["read"]).await;
    let run = create_token(&daemon, "run", &["run"]).await;
    for Operation { id, method, path, .. } in
        guarded.operations().await.into_iter().filter(|one| one.needs_token)
    {
        let is_of_runs = path.starts_with("/api/v1/runs") || path.contains("/items");
        let refused = [
            ("request", &request, id != "send_request"),
            ("read", &read, method != Method::GET && id != "check_pipeline" || path == "/api/v1/tokens"),
            ("run", &run, !is_of_runs && !SEES_PIPELINES.contains(&id.as_str())),
        ];
        for (name, token, is_refused) in refused {
            let is_stream = path.ends_with("/events");
            if is_stream && !is_refused {
                continue;
            }
            let answer = guarded.send(&method, &path, Some(token)).await;
            assert_eq!(answer.status == 403, is_refused, "{id} with {name}: {answer:?}");
            if is_refused {
                answer.assert_problem(403, "the token needs the permission `");
                assert_eq!(answer.json()["class"], "forbidden");
            }
            assert_ne!(answer.status, 401, "{id} with {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_shown_once_and_is_refused_after_it_was_revoked() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let guarded = Guarded::of(&daemon);
    let body = json!({
        "name": "ci",
        "permissions": ["read"],
        "requests_per_minute": 60,
        "concurrency": 4,
        "budget_usd": 20,
        "expires_in": "720h",
    });
    let created = daemon.post_json("/tokens", &body).await;
    assert_eq!((created.status, created.header("cache-control")), (201, "no-store"), "{created:?}");
    assert_eq!(created.header("location"), "/api/v1/tokens/ci");
    let shown = created.json();
    assert_eq!((&shown["name"], &shown["budget_usd"]), (&json!("ci"), &json!(20.0)));
    let token = shown["token"].as_str().unwrap();
    assert_eq!(guarded.send(&Method::GET, "/api/v1/runs", Some(token)).await.status, 200);
    let listed = daemon.get("/tokens").await;
    assert_eq!(listed.json()[0]["requests_per_minute"], 60);
    assert!(!listed.text.contains(token), "{listed:?}");
    daemon.post_json("/tokens", &body).await.assert_problem(409, "ci");
    let wrong = json!({ "name": "x", "permissions": ["write"] });
    daemon.post_json("/tokens", &wrong).await.assert_problem(400, "unknown variant `write`");
    let wrong = json!({ "name": "x", "permissions": ["read"], "budget_usd": 0 });
    daemon.post_json("/tokens", &wrong).await.assert_problem(400, "`budget_usd`");
    let wrong = json!({ "name": "x", "permissions": ["read"], "expires_in": "soon" });
    daemon.post_json("/tokens", &wrong).await.assert_problem(400, "`expires_in`");
    assert_eq!(daemon.delete("/tokens/ci").await.status, 204);
    guarded.send(&Method::GET, "/api/v1/runs", Some(token)).await.assert_problem(401, "no valid token");
    daemon.delete("/tokens/ci").await.assert_problem(404, "ci");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_changed_only_by_a_caller_that_has_seen_it() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let created = put(&daemon, "two", TWO, Some((IF_NONE_MATCH.as_str(), "*"))).await;
    assert_eq!((created.status, created.header("location")), (201, "/api/v1/pipelines/two"), "{created:?}");
    let first = created.header("etag").to_owned();
    assert_eq!(created.json()["version"], 1);
    put(&daemon, "two", TWO, Some((IF_NONE_MATCH.as_str(), "*"))).await.assert_problem(412, "exists already");
    let shown = daemon.get("/pipelines/two").await;
    assert_eq!((shown.header("etag"), &shown.json()["text"]), (first.as_str(), &json!(TWO)));
    let known = daemon.request(Method::GET, "/pipelines/two").header(IF_NONE_MATCH, &first);
    let known = Answer::of(known).await;
    assert_eq!((known.status, known.header("etag"), known.text.as_str()), (304, first.as_str(), ""));
    let changed = TWO.replace("Say", "Write");
    let second = put(&daemon, "two", &changed, Some((IF_MATCH.as_str(), &first))).await;
    assert_eq!(second.status, 200, "{second:?}");
    assert_ne!(second.header("etag"), first);
    let late = put(&daemon, "two", TWO, Some((IF_MATCH.as_str(), &first))).await;
    late.assert_problem(412, "has changed meanwhile");
    put(&daemon, "three", TWO, Some((IF_MATCH.as_str(), "*")))
        .await
        .assert_problem(422, "use one name for both");
    let three = TWO.replace("two", "three");
    put(&daemon, "three", &three, Some((IF_MATCH.as_str(), "*"))).await.assert_problem(412, "no pipeline");
    let versions = daemon.get("/pipelines/two/versions").await.json();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    assert_eq!(daemon.get("/pipelines/two/versions/1").await.json()["text"], TWO);
    daemon.get("/pipelines/two/versions/9").await.assert_problem(404, "version");
    assert_eq!(daemon.delete("/pipelines/two").await.status, 204);
    daemon.get("/pipelines/two").await.assert_problem(404, "two");
    assert_eq!(put(&daemon, "two", TWO, None).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_checked_before_it_is_stored_and_a_file_is_read_only() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let faulty = TWO.replace("prompt", "promt");
    put(&daemon, "two", &faulty, None).await.assert_problem(422, "promt");
    let checked = post_toml(&daemon, "/pipelines/check", &faulty).await.json();
    assert!(checked["problems"].to_string().contains("promt"), "{checked}");
    assert_eq!(checked["valid"], false);
    let checked = post_toml(&daemon, "/pipelines/check", TWO).await.json();
    assert_eq!(checked, json!({ "valid": true, "name": "two", "steps": ["answer"], "problems": [] }));
    put(&daemon, "one", ONE_STEP, None).await.assert_problem(409, "one.toml");
    daemon.delete("/pipelines/one").await.assert_problem(409, "one.toml");
    let listed = daemon.get("/pipelines").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!((&listed[0]["name"], &listed[0]["origin"]), (&json!("one"), &json!("file")));
    let typed =
        daemon.request(Method::PUT, "/pipelines/two").header(CONTENT_TYPE, "application/json").body("{}");
    Answer::of(typed).await.assert_problem(415, "application/toml");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_of_more_than_256_kib_is_not_parsed_and_the_faults_of_a_text_are_bounded() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let long = format!("{TWO}# {}\n", "x".repeat(256 << 10));
    put(&daemon, "two", &long, None).await.assert_problem(422, "the maximum is 256 KiB");
    for path in ["/pipelines/check", "/config/check"] {
        let checked = post_toml(&daemon, path, &long).await.json();
        assert_eq!(checked["valid"], false, "{path}");
        assert_eq!(checked["problems"], json!(["the text has 257 KiB; the maximum is 256 KiB"]), "{path}");
        let keys: String = (0..5_000).map(|number| format!("key{number} = 1\n")).collect();
        let checked = post_toml(&daemon, path, &keys).await.json();
        assert_eq!(checked["valid"], false, "{path}");
        let problems = checked["problems"].as_array().unwrap().len();
        assert!((100..=101).contains(&problems), "{path}: {problems}");
    }
    let longest = &long[..256 << 10];
    assert_eq!(put(&daemon, "two", longest, None).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_that_was_parsed_is_parsed_again_when_its_text_or_its_schema_changes() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let typed = TWO.replace("\"two\"", "\"typed\"").replace("[[", "[input]\nschema = \"typed.json\"\n[[");
    folder.write("pipelines/typed.toml", typed);
    folder.write("pipelines/typed.json", "{}");
    let daemon = folder.start().await;
    assert_eq!(put(&daemon, "two", TWO, None).await.status, 201);
    for _ in 0..2 {
        let listed = daemon.get("/pipelines").await.json();
        assert_eq!(
            (&listed[1]["name"], &listed[1]["steps"]),
            (&json!("two"), &json!(["answer"])),
            "{listed}"
        );
    }
    let renamed = TWO.replace("answer", "reply");
    assert_eq!(put(&daemon, "two", &renamed, None).await.status, 200);
    assert_eq!(daemon.get("/pipelines").await.json()[1]["steps"], json!(["reply"]));
    let item = json!({ "text": "hello" });
    let answer = daemon.post_json("/pipelines/typed/items?wait=30s", &item).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("finished")), "{answer:?}");
    folder.write("pipelines/typed.json", "{\"required\": [\"price\"]}");
    daemon.post_json("/pipelines/typed/items?wait=30s", &item).await.assert_problem(422, "price");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_at_once_or_as_a_stream() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let answer = daemon.post_json("/requests", &json!({ "prompt": "Say hello." })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let text = answer["text"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(answer["parts"], json!([{ "type": "text", "text": text }]));
    assert_eq!((&answer["finish_reason"], &answer["target"]), (&json!("stop"), &json!("a/m")));
    assert_eq!(answer["attempts"][0]["outcome"], "answered");
    assert!(answer["usage"]["output"].as_u64().unwrap() > 0);
    for mode in ["live", "whole"] {
        let body = json!({ "prompt": "Say hello.", "stream": true, "stream_mode": mode });
        let events = events(&daemon.post_json("/requests", &body).await);
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            (names[0], &names[names.len() - 2..]),
            ("started", &["usage", "finished"][..]),
            "{names:?}"
        );
        assert_eq!(events[0].1, json!({ "target": "a/m" }));
        let pieces = events.iter().filter(|(name, _)| name == "text");
        let joined: String = pieces.map(|(_, data)| data["text"].as_str().unwrap()).collect();
        assert_eq!(joined, events.last().unwrap().1["text"].as_str().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_request_names_its_field_and_sends_nothing() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let image = json!({ "type": "image", "media_type": "image/png", "url": "file:///etc/passwd" });
    for (body, part) in [
        (json!({ "prompt": "x", "route": "none" }), "`route`: there is no route"),
        (json!({ "prompt": [{ "role": "user", "content": [image] }] }), "`prompt[0].content[0].url`"),
        (json!({ "prompt": "x", "temperature": 7 }), "`temperature`"),
        (json!({ "prompt": "x", "deadline_seconds": 1e9 }), "`deadline_seconds`"),
        (json!({ "prompt": "x", "modell": "m" }), "unknown field `modell`"),
        (json!({}), "missing field `prompt`"),
        (json!({ "prompt": "" }), "`prompt`: it is empty"),
        (
            json!({ "prompt": "x", "max_tokens": "ten" }),
            "`max_tokens`: the text \\\"ten\\\" is not a whole number",
        ),
        (json!({ "prompt": "x", "stop": "END" }), "`stop`: the text \\\"END\\\" is not a list"),
        (
            json!({ "prompt": "x", "tools": [{ "name": 7, "parameters": {} }] }),
            "`tools[0].name`: 7 is not a text",
        ),
        (json!({ "prompt": "x", "tool_choice": "required" }), "there are no tools"),
    ] {
        daemon.post_json("/requests", &body).await.assert_problem(400, part);
    }
    for (path, body, part) in [
        ("/runs", json!({ "pipeline": 1, "items": [] }), "`pipeline`: 1 is not a text"),
        ("/runs", json!({ "pipeline": "one", "items": "a" }), "`items`: the text"),
        ("/pipelines/one/items", json!(["a"]), "a list is not an object"),
        ("/runs/1/resume", json!({ "accept_changes": "yes" }), "`accept_changes`: the text"),
        ("/runs/1/retry", json!({ "classes": ["slow"] }), "`classes[0]`: unknown variant `slow`"),
        (
            "/tokens",
            json!({ "name": "x", "permissions": [], "concurrency": 0 }),
            "`concurrency`: 0 is not a whole number above 0",
        ),
    ] {
        let answer = daemon.post_json(path, &body).await;
        answer.assert_problem(400, part);
        assert_eq!(
            (&answer.json()["type"], &answer.json()["class"]),
            (&json!("/problems/bad_request"), &json!("bad_request"))
        );
    }
    let empty = daemon.request(Method::POST, "/requests").header(CONTENT_TYPE, "application/json");
    Answer::of(empty).await.assert_problem(400, "the body is empty");
    let deep = format!("{{\"prompt\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let request =
        daemon.request(Method::POST, "/requests").header(CONTENT_TYPE, "application/json").body(deep);
    Answer::of(request).await.assert_problem(400, "recursion limit");
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_request_has_the_status_of_its_class_streamed_or_not() {
    let bodies = [json!({ "prompt": "x" }), json!({ "prompt": "x", "stream": true, "stream_mode": "whole" })];
    for (kind, status, class) in [("auth", 503, "auth"), ("refusal", 422, "content_filter")] {
        for body in &bodies {
            let settings: Settings = toml::from_str(&format!("faults = [{{ kind = \"{kind}\" }}]")).unwrap();
            let simulator = start_simulator(settings);
            let folder = DaemonFolder::new(&simulator);
            let daemon = folder.start().await;
            let answer = daemon.post_json("/requests", body).await;
            answer.assert_problem(status, "");
            assert_eq!(answer.json()["class"], class, "{answer:?}");
            assert_eq!(answer.json()["type"], format!("/problems/request/{class}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_takes_a_model_and_a_provider_out_of_service_and_back() {
    let simulator = start_simulator(Settings::default());
    let folder =
        DaemonFolder::with(&simulator, &Extra { provider: "keys = [\"env:K1\"]", ..Extra::default() });
    let daemon = folder.start().await;
    let request = json!({ "prompt": "Say hello.", "deadline_seconds": 1 });
    let send = || daemon.post_json("/requests", &request);
    let breaker = |state: &str| json!({ "model": "m", "state": state });
    let opened = daemon.post_json("/providers/a/breaker", &breaker("open")).await.json();
    assert_eq!(opened["targets"][0]["forced_open"], true, "{opened}");
    // Durations are numbers of seconds.
    assert_eq!(
        (&opened["held_for_seconds"], &opened["retry_budget_wait_seconds"]),
        (&json!(0.0), &json!(0.0))
    );
    assert!(opened["targets"][0]["probed_in_seconds"].is_f64(), "{opened}");
    assert!(
        opened["keys"][0]["usable_in_seconds"].is_f64() && !opened.to_string().contains("nanos"),
        "{opened}"
    );
    let refused = send().await;
    refused.assert_problem(503, "a/m: its breaker was opened by hand");
    assert_eq!((refused.header("retry-after"), &refused.json()["class"]), ("30", &json!("unavailable")));
    assert!(refused.json()["advice"].is_string(), "{refused:?}");
    daemon.post_json("/providers/a/breaker", &breaker("closed")).await;
    assert_eq!(send().await.status, 200);
    assert_eq!(daemon.post("/providers/a/drain").await.json()["draining"], true);
    send().await.assert_problem(503, "a/m: the provider is drained");
    assert_eq!(daemon.post("/providers/a/resume").await.json()["draining"], false);
    assert_eq!(send().await.status, 200);
    assert_eq!(daemon.post("/providers/a/keys/reload").await.json(), json!({ "keys": ["env:K1"] }));
    assert_eq!(daemon.get("/providers").await.json()[0]["provider"], "a");
    daemon.get("/providers/b").await.assert_problem(404, "b");
    daemon.post("/providers/b/drain").await.assert_problem(404, "b");
    let unknown = json!({ "model": "x", "state": "open" });
    daemon.post_json("/providers/a/breaker", &unknown).await.assert_problem(404, "a/x");
    daemon
        .post_json("/providers/a/breaker", &breaker("half"))
        .await
        .assert_problem(400, "unknown variant `half`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_shows_its_sources_and_no_secret() {
    let simulator = start_simulator(Settings::default());
    let provider = "keys = [\"env:K1\"]\nheaders.x-team = \"hunter2\"\n";
    let folder = DaemonFolder::with(&simulator, &Extra { provider, ..Extra::default() });
    let daemon = folder.start().await;
    let shown = daemon.get("/config").await;
    for secret in ["hunter2", "sk-live"] {
        assert!(!shown.text.contains(secret), "{}", shown.text);
    }
    let config = shown.json();
    let file = folder.path("config.toml").display().to_string();
    let keys = value(&config, "provider.a.keys");
    assert_eq!((&keys["value"], &keys["source"]["from"]), (&json!(["env:K1"]), &json!("file")));
    assert_eq!(keys["source"]["file"], file.as_str());
    let line = usize::try_from(keys["source"]["line"].as_u64().unwrap()).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().nth(line - 1), Some("keys = [\"env:K1\"]"));
    assert_eq!(value(&config, "retry.max_rounds")["source"], json!({ "from": "default" }));
    assert_eq!(value(&config, "provider.a.headers.x-team")["value"], "***");
    let known = daemon.request(Method::GET, "/config").header(IF_NONE_MATCH, shown.header("etag"));
    assert_eq!(Answer::of(known).await.status, 304);
    assert_eq!(
        daemon.get("/prices").await.json()["prices"][0],
        json!({ "target": "a/m", "price": null, "source": "unknown" })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_checked_without_its_files_and_a_faulty_reload_changes_nothing() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let secret = folder.path("secret");
    std::fs::write(&secret, "line one\nline two\n").unwrap();
    let candidate = |keys: &str| format!("[provider.p]\nkeys = [\"{keys}\"]\nmodels.m = {{}}\n");
    // The file has two lines, which are no key: a check that read it would fail, and so would one of a missing file.
    for path in [secret.display().to_string(), "/does/not/exist".to_owned()] {
        let checked = post_toml(&daemon, "/config/check", &candidate(&format!("file:{path}"))).await;
        assert_eq!(checked.status, 200, "{checked:?}");
        let checked = checked.json();
        assert_eq!((&checked["valid"], &checked["problems"]), (&json!(true), &json!([])));
        assert!(checked["notes"].is_array());
    }
    let marker = folder.path("ran");
    let command = candidate(&format!("command:touch {}", marker.display()));
    assert_eq!(post_toml(&daemon, "/config/check", &command).await.json()["valid"], true);
    assert!(!marker.exists());
    let faulty = "[retry]\nmax_rounds = \"three\"\nmax_bakoff = \"1s\"\n";
    let checked = post_toml(&daemon, "/config/check", faulty).await;
    assert_eq!(checked.status, 200, "{checked:?}");
    let checked = checked.json();
    assert_eq!((&checked["valid"], &checked["notes"]), (&json!(false), &json!([])));
    let problems = checked["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{checked}");
    assert!(checked["problems"].to_string().contains("max_bakoff"), "{checked}");
    let before = daemon.get("/config").await;
    let text = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    folder.write("config.toml", format!("{text}\n[retry]\nmax_bakoff = \"1s\"\n"));
    daemon.post("/config/reload").await.assert_problem(422, "max_bakoff");
    assert_eq!(daemon.get("/config").await.header("etag"), before.header("etag"));
    folder.write("config.toml", format!("{text}\n[retry]\nmax_rounds = 7\n"));
    let reloaded = daemon.post("/config/reload").await;
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    let reloaded = reloaded.json();
    assert!(reloaded["changes"].to_string().contains("max_rounds"), "{reloaded}");
    for other in ["diff", "has_new_caps"] {
        assert_eq!(reloaded.get(other), None, "{reloaded}");
    }
    let after = daemon.get("/config").await;
    assert_ne!(after.header("etag"), before.header("etag"));
    assert_eq!(value(&after.json(), "retry.max_rounds")["value"], 7);
}

/// Waits until the reasons why a daemon is not ready are as wanted.
async fn wait_for_reasons(daemon: &TestDaemon, is_wanted: impl Fn(&str) -> bool) {
    let end = Instant::now() + MAX_WAIT;
    loop {
        let reasons = daemon.get("/status").await.json()["reasons"].to_string();
        if is_wanted(&reasons) {
            return;
        }
        assert!(Instant::now() < end, "{reasons}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_file_that_becomes_faulty_is_shown_until_it_is_corrected() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    wait_for_reasons(&daemon, |reasons| reasons == "[]").await;
    folder.write("pipelines/two.toml", TWO.replace("prompt", "promt"));
    folder.write("pipelines/three.toml", ONE_STEP);
    let reloaded = daemon.post("/config/reload").await;
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    let faults = reloaded.json()["pipeline_faults"].to_string();
    for part in ["unknown key `promt`", "another pipeline file has the name \\\"one\\\" too"] {
        assert!(faults.contains(part), "{faults}");
    }
    let is_shown = |reasons: &str| reasons.contains("a pipeline file is faulty") && reasons.contains("promt");
    wait_for_reasons(&daemon, is_shown).await;
    folder.write("pipelines/two.toml", TWO);
    std::fs::remove_file(folder.path("pipelines/three.toml")).unwrap();
    let reloaded = daemon.post("/config/reload").await.json();
    assert_eq!(reloaded["pipeline_faults"], json!([]), "{reloaded}");
    wait_for_reasons(&daemon, |reasons| reasons == "[]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spending_and_caps_are_listed_and_a_wrong_query_is_named() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::with(&simulator, &Extra { tables: "[budget]\nday = 5\n", ..Extra::default() });
    folder.write(
        "config.toml",
        std::fs::read_to_string(folder.path("config.toml"))
            .unwrap()
            .replace("models.m = {}", "models.m = { price = { input = 1.0, output = 5.0 } }"),
    );
    let daemon = folder.start().await;
    assert_eq!(daemon.post_json("/requests", &json!({ "prompt": "Say hello." })).await.status, 200);
    let rows = daemon.get("/spending?by=day,provider").await.json();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["provider"]), (1, &json!("a")), "{rows}");
    assert!(rows[0]["cost_usd"].as_f64().unwrap() > 0.0, "{rows}");
    assert_eq!(daemon.get("/caps").await.json()[0]["cap_usd"], 5.0);
    daemon.get("/spending?by=month").await.assert_problem(400, "`by`");
    daemon.get("/spending?from=yesterday").await.assert_problem(400, "`from`");
    daemon.get("/spending?from=2030-01-02&to=2030-01-01").await.assert_problem(422, "is after the last");
    daemon.get("/spending?unit=eur").await.assert_problem(400, "unit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_outside_the_api_is_answered_with_a_problem() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    for path in ["/v1/chat/completions", "/nowhere"] {
        let url = format!("http://{}{path}", daemon.address());
        for request in [client().get(&url), client().post(&url).body("{}")] {
            Answer::of(request).await.assert_problem(404, "the API is below /api/v1");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_of_the_description_loads_nothing() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let page = Answer::of(client().get(format!("http://{}/api/docs", daemon.address()))).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(page.text.contains("/api/v1/requests") && !page.text.contains("<script"), "{}", page.text);
}

/// Collects the values of all fields whose names end with this.
fn fields_named<'v>(value: &'v Value, end: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name.ends_with(end) {
                    found.push(value);
                }
                fields_named(value, end, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| fields_named(value, end, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_time_is_text_with_milliseconds() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let run = daemon.complete_run(1).await;
    put(&daemon, "two", TWO, None).await;
    create_token(&daemon, "ci", &["read"]).await;
    for (path, count) in [
        (format!("/runs/{run}"), 2),
        ("/runs?summary=true".to_owned(), 4),
        ("/pipelines".to_owned(), 1),
        ("/pipelines/two/versions".to_owned(), 1),
        ("/tokens".to_owned(), 3),
    ] {
        let shown = daemon.get(&path).await.json();
        let mut times = Vec::new();
        fields_named(&shown, "_at", &mut times);
        assert_eq!(times.len(), count, "{path}: {shown}");
        for time in times.into_iter().filter(|time| !time.is_null()) {
            let text = time.as_str().unwrap_or_else(|| panic!("{path}: {time}"));
            assert!(text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.', "{path}: {text}");
        }
        // Where the daemon keeps the files of a run.
        assert!(!shown.to_string().contains("\"daemon\""), "{path}: {shown}");
    }
    let mut events = daemon.events("/events", None).await;
    daemon.create_run(1).await;
    let created = events.next_of("run_created").await;
    assert_eq!(created.data["at"].as_str().map(str::len), Some(24), "{created:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_spent_is_not_a_negative_amount() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let status = daemon.get("/status").await;
    assert!(status.text.contains("\"spent_today_usd\":0.0"), "{}", status.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_is_answered_as_get_without_the_content() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let run = daemon.complete_run(1).await;
    let client = client();
    for path in ["/health", "/ready", "/metrics", "/api/openapi.json", "/api/v1/runs", "/api/v1/config", "/"]
    {
        let url = format!("http://{}{path}", daemon.address());
        let got = Answer::of(client.get(&url)).await;
        let head = Answer::of(client.head(&url)).await;
        assert_eq!((head.status, head.text.as_str()), (got.status, ""), "{path}: {head:?}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        assert!(!head.header("x-request-id").is_empty(), "{path}");
    }
    // Streams of results, and one that would never end.
    for path in [format!("/runs/{run}/results"), "/events".to_owned()] {
        let head = daemon.send(Method::HEAD, &path).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""), "{path}: {head:?}");
    }
    let missing = daemon.send(Method::HEAD, "/runs/999").await;
    assert_eq!((missing.status, missing.text.as_str()), (404, ""));
    assert_eq!(daemon.send(Method::HEAD, "/requests").await.status, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_that_never_admits_a_request_does_not_say_when_to_come_again() {
    let simulator = start_simulator(Settings::default());
    let folder =
        DaemonFolder::with(&simulator, &Extra { tables: "[budget]\nday = 0.000001\n", ..Extra::default() });
    let text = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    folder.write(
        "config.toml",
        text.replace("models.m = {}", "models.m = { price = { input = 1000.0, output = 5000.0 } }"),
    );
    let daemon = folder.start().await;
    let refused = daemon.post_json("/requests", &json!({ "prompt": "Say hello." })).await;
    refused.assert_problem(429, "the call alone is likely to cost");
    assert_eq!((refused.header("retry-after"), &refused.json()["class"]), ("", &json!("budget")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tokens_only_the_host_header_says_for_which_server_a_request_is() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let options = ServerOptions::new().with_hosts(["localhost", "127.0.0.1", "[::1]"]);
    let server = serve(&daemon.daemon, options).unwrap();
    let address = server.address().to_string();
    let local = format!("localhost:{}", server.address().port());
    let own_origin = format!("http://{address}");
    let client = client();
    let send = async |headers: &[(&str, &str)]| {
        let mut request = client.get(format!("http://{address}/api/v1/runs"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    };
    let evil = ("host", "evil.example:7700");
    let refused: [&[(&str, &str)]; 8] = [
        &[evil],
        &[evil, ("x-forwarded-host", &address)],
        &[evil, ("x-forwarded-host", "localhost")],
        &[evil, ("forwarded", "host=localhost;proto=https")],
        &[evil, ("origin", "http://evil.example:7700"), ("x-forwarded-host", "localhost")],
        &[("origin", "http://evil.example"), ("x-forwarded-host", "evil.example")],
        &[("origin", "http://evil.example"), ("forwarded", "host=evil.example")],
        &[("origin", "null")],
    ];
    for headers in refused {
        let answer = send(headers).await;
        answer.assert_problem(403, "the Host or Origin of the request is not that of this server");
        answer.assert_problem(403, "localhost or 127.0.0.1");
    }
    let accepted: [&[(&str, &str)]; 5] = [
        &[],
        &[("host", &local)],
        &[("host", "LOCALHOST")],
        &[("origin", &own_origin)],
        &[("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")],
    ];
    for headers in accepted {
        assert_eq!(send(headers).await.status, 200, "{headers:?}");
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_problem_quotes_only_the_beginning_of_what_it_refuses() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let name = "é".repeat(1 << 20);
    for (path, body) in [
        ("/tokens", json!({ "name": "a", &name: 1 })),
        ("/requests", json!({ "prompt": "a", "route": name })),
        ("/runs", json!({ "pipeline": name, "items": [] })),
    ] {
        let refused = daemon.post_json(path, &body).await;
        assert!((400..500).contains(&refused.status), "{path}: {}", refused.status);
        assert!(refused.text.len() < 8 << 10, "{path}: {} bytes", refused.text.len());
    }
    let keys: String = (0..5_000).map(|number| format!("key{number:04} = 1\n")).collect();
    let step = "[[step]]\nname = \"a\"\nprompt = \"a\"\n";
    let refused = put(&daemon, "two", &format!("name = \"two\"\n{step}{keys}"), None).await;
    refused.assert_problem(422, "fault");
    let diagnostics = refused.json()["diagnostics"].as_array().unwrap().clone();
    assert_eq!(diagnostics.len(), 101);
    assert!(diagnostics[100].as_str().unwrap().contains("and more errors"), "{}", diagnostics[100]);
    let long = format!("name = \"two\"\n{} = 1\n{step}", "key".repeat(30_000));
    for refused in [
        put(&daemon, "two", &long, None).await,
        post_toml(&daemon, "/pipelines/check", &long).await,
        post_toml(&daemon, "/config/check", &long).await,
    ] {
        assert!(refused.text.len() < 8 << 10, "{} bytes", refused.text.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_has_a_bounded_number_of_uploads_in_progress() {
    const MAX_UPLOADS_PER_TOKEN: usize = 4;
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let token = create_token(&daemon, "ci", &["run"]).await;
    let other = create_token(&daemon, "other", &["run"]).await;
    let guarded = Guarded::of(&daemon);
    let address = guarded.server.address();
    let upload = async |token: &str| {
        let url = format!("http://{address}/api/v1/runs/upload?pipeline=one&format=jsonl");
        let request = guarded.client.post(url);
        Answer::of(request.header(AUTHORIZATION, format!("Bearer {token}")).body(jsonl(1))).await
    };
    let mut pending = Vec::new();
    for _ in 0..MAX_UPLOADS_PER_TOKEN {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/v1/runs/upload?pipeline=one&format=jsonl HTTP/1.1\r\nhost: {address}\r\n\
             authorization: Bearer {token}\r\ncontent-length: 100000\r\n\r\n{}",
            jsonl(1)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        pending.push(stream);
    }
    wait_until("the uploads have begun", || folder.data_files("uploads") == MAX_UPLOADS_PER_TOKEN).await;
    let refused = upload(&token).await;
    refused.assert_problem(429, "4 uploads of this token are in progress");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(upload(&other).await.status, 201);
    drop(pending);
    wait_until("the uploads are removed", || folder.data_files("uploads") == 0).await;
    assert_eq!(upload(&token).await.status, 201);
}
