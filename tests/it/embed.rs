//! The host of `examples/embed.rs`: its own routes, its actor, and the routes of the daemon.
#![cfg(feature = "server")]

use std::sync::Arc;
use std::time::Duration;

use actix::Handler;
use actix_web::http::header::{ContentType, LOCATION};
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, HttpServer, web};
use pointsman::server::{ServerOptions, routes};
use pointsman::simulator::{Latency, Settings, Simulator};
use pointsman::{Config, Daemon, Pointsman};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::daemon::{Answer, DaemonFolder, Extra, MAX_WAIT, client, values};
use super::support::{lookup_key, start_simulator};

#[path = "../../examples/embed.rs"]
mod example;

/// Starts the library with a simulated provider and this additional configuration.
fn start(simulator: &str) -> Pointsman {
    let config = format!("[provider.simulated]\nbase_url = 'simulator'\n{simulator}");
    Pointsman::start_blocking(&Config::parse("config.toml", &config, &|_| None).unwrap()).unwrap()
}

async fn post(pointsman: &Pointsman, request: TestRequest) -> (StatusCode, Value) {
    let data = web::Data::new(pointsman.router());
    let app = App::new().app_data(data).route("/summary", web::post().to(example::summary));
    let service = init_service(app).await;
    let response = call_service(&service, request.uri("/summary").method(Method::POST).to_request()).await;
    (response.status(), read_body_json(response).await)
}

fn plain(text: &'static str) -> TestRequest {
    TestRequest::default().insert_header(ContentType::plaintext()).set_payload(text)
}

#[actix_web::test]
async fn plain_text_and_json_are_summarized() {
    let pointsman = start("");
    let json = TestRequest::default().set_json(json!({ "text": "The points froze at six." }));
    for request in [json, plain("The points froze at six.")] {
        let (status, answer) = post(&pointsman, request).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert!(answer["summary"].as_str().unwrap().contains("points froze"), "{answer}");
        assert_eq!((&answer["target"], &answer["simulated"]), (&json!("simulated/any"), &json!(true)));
    }
}

#[actix_web::test]
async fn a_request_without_text_is_a_bad_request() {
    let pointsman = start("");
    let bad = TestRequest::default().set_payload("{\"txt\": 1}").insert_header(ContentType::json());
    for request in [bad, plain(" \n")] {
        let (status, answer) = post(&pointsman, request).await;
        assert_eq!((status, &answer["error"]["class"]), (StatusCode::BAD_REQUEST, &json!("bad_request")));
    }
}

#[actix_web::test]
async fn a_failure_has_a_status_a_class_and_a_message() {
    // The timeout is short only where the provider does not respond. Elsewhere a busy machine needs a long one.
    for (fault, expected, class) in [
        ("kind = 'rate_limited', retry_after = 'absurd'", StatusCode::TOO_MANY_REQUESTS, "rate_limit"),
        ("kind = 'quota'", StatusCode::SERVICE_UNAVAILABLE, "quota"),
        ("kind = 'silent'", StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ("kind = 'auth'", StatusCode::BAD_GATEWAY, "auth"),
        ("kind = 'refusal'", StatusCode::UNPROCESSABLE_ENTITY, "content_filter"),
    ] {
        let first_token = if class == "timeout" { "50ms" } else { "10s" };
        let pointsman = start(&format!(
            "timeouts = {{ first_token = '{first_token}' }}\n[retry]\nmax_rounds = 1\nattempts_per_target = 1\n\
             [simulator]\nfaults = [{{ {fault} }}]"
        ));
        let (status, answer) = post(&pointsman, plain("The points froze at six.")).await;
        assert_eq!((status, &answer["error"]["class"]), (expected, &json!(class)), "{answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{answer}");
    }
}

#[actix_web::test]
async fn after_a_drain_requests_are_refused_as_unavailable() {
    let pointsman = start("");
    pointsman.drain(Duration::from_secs(5)).await;
    let (status, answer) = post(&pointsman, plain("The points froze at six.")).await;
    assert_eq!((status, &answer["error"]["class"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("cancelled")));
}

/// Panics in its handler, as a bug of the host would.
struct Bug;

impl actix::Message for Bug {
    type Result = ();
}

impl Handler<Bug> for example::Titler {
    type Result = ();

    fn handle(&mut self, _: Bug, _: &mut Self::Context) {
        panic!("a bug of the host");
    }
}

#[actix_web::test]
async fn a_supervised_actor_of_the_host_sends_requests_before_and_after_its_own_panic() {
    let pointsman = start("");
    let titles = example::Titles::start(pointsman.router());
    for _ in 0..3 {
        let title = titles.address().send(example::Title("The points froze at six.".to_owned())).await;
        assert!(title.unwrap().unwrap().contains("points froze"));
        let panicked = titles.address();
        assert!(panicked.send(Bug).await.is_err());
        assert!(!panicked.connected());
    }
    // Neither the router nor the thread of the actor was affected.
    let (status, answer) = post(&pointsman, plain("The points froze at six.")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// Starts a daemon on a folder, as a host does.
async fn start_daemon(folder: &DaemonFolder) -> Daemon {
    let path = folder.path("config.toml");
    let load = move || Config::load_with(Some(&path), &lookup_key);
    let pointsman = Pointsman::start_with(&load().unwrap(), lookup_key).await.unwrap();
    Daemon::start(pointsman, Arc::new(load)).await.unwrap()
}

/// Returns a request of a user that the host has authenticated.
fn of_user(method: Method, path: &str) -> TestRequest {
    TestRequest::with_uri(path).method(method).insert_header(("x-user", "ann"))
}

#[actix_web::test]
async fn the_routes_of_the_daemon_are_behind_the_middleware_of_the_host_and_beside_its_own_routes() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = start_daemon(&folder).await;
    let service = init_service(App::new().configure(example::mount(&daemon))).await;
    let send = async |request: TestRequest| {
        let response = call_service(&service, request.to_request()).await;
        let status = response.status();
        let location = response.headers().get(LOCATION).map(|value| value.to_str().unwrap().to_owned());
        let body: Value = read_body_json(response).await;
        (status, location.unwrap_or_default(), body)
    };
    // Without the header of the host, nothing of the daemon answers. Its own routes do.
    for path in ["/llm/api/v1/runs", "/llm/api/openapi.json", "/llm/health", "/llm/metrics"] {
        let (status, _, answer) = send(TestRequest::with_uri(path)).await;
        let class = &answer["error"]["class"];
        assert_eq!((status, class), (StatusCode::UNAUTHORIZED, &json!("unauthorized")), "{path}");
    }
    let (status, _, answer) = send(plain("Six.").uri("/summary").method(Method::POST)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, _, answer) = send(plain("Six.").uri("/title").method(Method::POST)).await;
    assert!(status == StatusCode::OK && answer["title"].is_string(), "{answer}");

    // Links begin with the prefix.
    let body = json!({ "pipeline": "one", "items": values(2) });
    let (status, location, run) = send(of_user(Method::POST, "/llm/api/v1/runs").set_json(body)).await;
    assert_eq!((status, location.as_str()), (StatusCode::CREATED, "/llm/api/v1/runs/1"), "{run}");
    let (status, _, shown) = send(of_user(Method::GET, &location)).await;
    assert_eq!((status, &shown["run"]), (StatusCode::OK, &run["run"]));
    let item = json!({ "id": "a b", "text": "a thing" });
    let submit = of_user(Method::POST, "/llm/api/v1/pipelines/one/items?wait=30s").set_json(item);
    let (status, location, answer) = send(submit).await;
    assert_eq!((status, &answer["status"]), (StatusCode::OK, &json!("finished")), "{answer}");
    assert_eq!(location, "/llm/api/v1/pipelines/one/items/a%20b");
    let (status, _, shown) = send(of_user(Method::GET, &location)).await;
    assert_eq!((status, &shown["line"]["key"]), (StatusCode::OK, &json!("a b")), "{shown}");
    let (_, _, document) = send(of_user(Method::GET, "/llm/api/openapi.json")).await;
    assert_eq!(document["servers"][0]["url"], "/llm");
    let (status, _, problem) = send(of_user(Method::GET, "/llm/api/v1/nothing")).await;
    assert_eq!((status, &problem["class"]), (StatusCode::NOT_FOUND, &json!("not_found")), "{problem}");
    daemon.drain(Duration::from_secs(5)).await;
}

async fn wait_for_in_flight(simulator: &Simulator, calls: u64) {
    let waiting = async {
        while simulator.counts().in_flight < calls {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(MAX_WAIT, waiting).await.unwrap();
}

#[actix_web::test]
async fn a_drain_ends_a_request_and_a_run_in_flight_and_the_next_daemon_resumes_the_run() {
    let latency = Latency::Fixed(Duration::from_secs(1));
    let simulator = start_simulator(Settings { latency, track_prompts: true, ..Settings::default() });
    let tables = "[run]\nmax_in_flight_items = 4";
    let folder = DaemonFolder::with(&simulator, &Extra { tables, ..Extra::default() });
    let daemon = start_daemon(&folder).await;
    let service = init_service(App::new().configure(example::mount(&daemon))).await;
    let body = json!({ "pipeline": "one", "items": values(12) });
    let created = of_user(Method::POST, "/llm/api/v1/runs").set_json(body).to_request();
    let created: Value = read_body_json(call_service(&service, created).await).await;
    let run = created["run"].as_i64().unwrap();
    wait_for_in_flight(&simulator, 4).await;
    let request = of_user(Method::POST, "/llm/api/v1/requests").set_json(json!({ "prompt": "Say hello." }));
    let answered = call_service(&service, request.to_request());
    let drained = async {
        // Four calls of the run, and that of the request.
        wait_for_in_flight(&simulator, 5).await;
        daemon.drain(Duration::from_secs(10)).await
    };
    let (response, drained) = tokio::join!(answered, drained);
    assert_eq!((response.status(), drained.killed), (StatusCode::OK, 0));
    let answer: Value = read_body_json(response).await;
    assert_eq!(answer["finish_reason"], "stop", "{answer}");
    let shown = of_user(Method::GET, &format!("/llm/api/v1/runs/{run}")).to_request();
    let shown: Value = read_body_json(call_service(&service, shown).await).await;
    assert_eq!(shown["state"], "stopped", "{shown}");
    let counts = simulator.counts();
    assert!(counts.abandoned == 0 && counts.answered < 13, "{counts:?}");
    let late = of_user(Method::POST, "/llm/api/v1/requests").set_json(json!({ "prompt": "Hello again." }));
    let late = call_service(&service, late.to_request()).await;
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);

    // The routes hold the daemon.
    drop((late, service, daemon));
    let next = folder.start().await;
    next.wait_for_state(run, "completed").await;
    assert_eq!(next.results(run).await.len(), 12);
    let counts = simulator.counts();
    assert_eq!((counts.answered, counts.repeated_prompts), (13, Some(0)), "{counts:?}");
    next.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routes_work_in_a_host_with_plain_tokio() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = start_daemon(&folder).await;
    let mount = routes(&daemon, ServerOptions::new().with_prefix("/llm"));
    let app = move || App::new().service(web::scope("/llm").configure(mount.clone()));
    let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}/llm/api/v1", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    let calls = async {
        let client = client();
        let body = json!({ "pipeline": "one", "items": values(3) }).to_string();
        let create = client.post(format!("{api}/runs")).header("content-type", "application/json").body(body);
        let created = Answer::of(create.header("idempotency-key", "k")).await;
        assert_eq!((created.status, created.header("location")), (201, "/llm/api/v1/runs/1"), "{created:?}");
        let frames = Answer::of(client.get(format!("{api}/runs/1/events"))).await;
        assert!(frames.text.contains("event: end\n"), "{frames:?}");
        let results = Answer::of(client.get(format!("{api}/runs/1/results"))).await;
        assert_eq!(results.lines().len(), 3);
        daemon.drain(Duration::from_secs(5)).await;
        handle.stop(false).await;
    };
    let (served, ()) = tokio::join!(server, calls);
    served.unwrap();
}
