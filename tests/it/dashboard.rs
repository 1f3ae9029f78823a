//! The dashboard over HTTP: what its pages contain, what its forms do, and who may see and send what.

use std::collections::BTreeSet;
use std::time::Duration;

use pointsman::daemon::{NewToken, Permission};
use pointsman::server::{RunningServer, ServerOptions, routes, serve};
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::Secret;
use reqwest::header::{CONTENT_TYPE, COOKIE, ORIGIN};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::daemon::*;
use super::support::*;

/// A text that a page must not show as it is.
const HOSTILE: &str = "<script>alert(1)</script>\" onload=\"alert(2)\u{202e}";

/// The key of an item that needs escapes in paths, attributes and text.
const HOSTILE_KEY: &str = "<b>/\"'?#%&é";

/// What a browser sends with a form of the dashboard itself.
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");

/// A reader of the dashboard at one address.
struct Reader {
    address: String,
    client: Client,
    cookie: Option<String>,
}

impl Reader {
    fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), client: client(), cookie: None }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("http://{}{path}", self.address));
        match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// Returns a page, which must be there.
    async fn page(&self, path: &str) -> Answer {
        let page = self.get(path).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, "text/html; charset=utf-8"),
            "{path}: {page:?}"
        );
        page
    }

    async fn submit(&self, path: &str, fields: &'static str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request(Method::POST, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(fields)).await
    }

    /// Logs in with a token.
    async fn log_in(&mut self, token: &Secret) {
        let request = self.request(Method::POST, "/login").header(SAME_ORIGIN.0, SAME_ORIGIN.1);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer = Answer::of(request.body(format!("token={}", token.expose()))).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{answer:?}");
        let cookie = answer.header("set-cookie");
        for part in ["; HttpOnly", "; SameSite=Strict", "; Max-Age=43200", "; Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Secure") && !cookie.contains(token.expose()), "{cookie}");
        self.cookie = cookie.split(';').next().map(str::to_owned);
    }
}

/// Returns the values of an attribute in a page.
fn attributes<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    let start = format!(" {name}=\"");
    page.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

/// Fails if a page is not strict: its headers, its links, its structure.
#[track_caller]
fn assert_strict(page: &Answer, prefix: &str) {
    let text = &page.text;
    let policy = page.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|given| given == part), "{part} in {policy}");
    }
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(page.header("referrer-policy"), "same-origin");
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    for name in ["href", "src", "action", "data-live"] {
        for link in attributes(text, name) {
            let is_own =
                link.starts_with('#') || link.starts_with(&format!("{prefix}/")) && !link.starts_with("//");
            assert!(is_own, "{name}={link}");
        }
    }
    // The policy would block them.
    assert!(attributes(text, "style").is_empty() && attributes(text, "onclick").is_empty());
    assert_eq!(text.matches("<script").count(), 1);
    assert_eq!(text.matches("<style").count(), 0);
    // A reader without eyes or without a mouse.
    assert!(text.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{text}");
    for part in
        ["<main id=\"main\"", "<nav aria-label=\"Main\"", "href=\"#main\"", "name=\"viewport\"", "<h1>"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
    let mut headers = text.split("<th").skip(1).filter(|rest| !rest.starts_with("ead"));
    assert!(headers.all(|rest| rest.split('>').next().unwrap().contains(" scope=\"")), "{text}");
    let ids = attributes(text, "id");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id is used twice: {ids:?}");
    for id in attributes(text, "aria-labelledby") {
        assert!(ids.contains(&id), "there is no {id}");
    }
}

/// Returns a simulator that refuses prompts with `broken`.
fn simulator() -> Simulator {
    let fault = Fault { contains: Some("broken".to_owned()), ..Fault::new(FaultKind::Refusal) };
    start_faulty_simulator([fault])
}

/// Returns a simulator whose answers take a second.
fn slow_simulator() -> Simulator {
    let settings: Settings = toml::from_str("latency = \"1s\"").unwrap();
    start_simulator(settings)
}

/// Creates a run of hostile items, one of which fails, and waits for its end.
async fn hostile_run(daemon: &TestDaemon) -> i64 {
    let items = json!([
        { "id": "plain", "text": HOSTILE, HOSTILE: [HOSTILE] },
        { "id": HOSTILE_KEY, "text": format!("broken {HOSTILE}") },
        { "id": "..", "text": "a".repeat(100_000) },
    ]);
    let created = daemon.post_json("/runs", &json!({ "pipeline": "one", "items": items })).await;
    assert_eq!(created.status, 201, "{created:?}");
    let run = created.json()["run"].as_i64().unwrap();
    daemon.wait_for_state(run, "completed").await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_strict_and_shows_texts_of_others_as_texts() {
    let simulator = simulator();
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let run = hostile_run(&daemon).await;
    let reader = Reader::new(daemon.address());
    let item = format!("/runs/{run}/items/{}", "%3Cb%3E%2F%22%27%3F%23%25%26%C3%A9");
    let paths = [
        "/".to_owned(),
        "/login".to_owned(),
        format!("/runs/{run}"),
        format!("/runs/{run}?status=failed"),
        format!("/runs/{run}/items/plain"),
        format!("/runs/{run}/item?key=.."),
        item.clone(),
    ];
    for path in &paths {
        let page = reader.page(path).await;
        assert_strict(&page, "");
        for forbidden in ["<script>alert", "\" onload", "\u{202e}", "<b>"] {
            assert!(!page.text.contains(forbidden), "{forbidden:?} in {path}: {}", page.text);
        }
        assert!(page.text.len() < 200_000, "{path}: {}", page.text.len());
    }
    let overview = reader.page("/").await.text;
    for heading in ["Runs", "Providers", "Spending today", "Load", "Failures"] {
        assert!(overview.contains(&format!(">{heading}</h2>")), "{heading} in {overview}");
    }
    assert!(
        overview.contains(&format!("href=\"/runs/{run}\"")) && overview.contains("content filter"),
        "{overview}"
    );
    assert!(attributes(&overview, "href").contains(&item.as_str()), "{overview}");
    let of_run = reader.page(&format!("/runs/{run}")).await.text;
    assert!(of_run.contains("/runs/1/item?key=..") && of_run.contains("Retry failed items"), "{of_run}");
    let of_item = reader.page(&item).await.text;
    assert!(
        of_item.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && of_item.contains("⟨U+202E⟩"),
        "{of_item}"
    );
    assert!(of_item.contains("content filter") && of_item.contains("a/m"), "{of_item}");
    let long = reader.page(&format!("/runs/{run}/item?key=..")).await.text;
    assert!(long.contains("more characters are not shown"), "{long}");
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_a_page_too_and_assets_are_cached_by_their_etag() {
    let simulator = simulator();
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let reader = Reader::new(daemon.address());
    for path in ["/runs/7", "/runs/x", "/runs/7/items/a", "/runs/7/events"] {
        let page = reader.get(path).await;
        assert_eq!((page.status, page.header("content-type")), (404, "text/html; charset=utf-8"), "{path}");
        assert_strict(&page, "");
    }
    for (path, media_type) in [
        ("/assets/pointsman.css", "text/css; charset=utf-8"),
        ("/assets/pointsman.js", "text/javascript; charset=utf-8"),
        ("/assets/pointsman.svg", "image/svg+xml"),
    ] {
        let asset = reader.get(path).await;
        assert_eq!((asset.status, asset.header("content-type")), (200, media_type));
        assert_eq!(asset.header("x-content-type-options"), "nosniff");
        let request = reader.request(Method::GET, path).header("if-none-match", asset.header("etag"));
        let known = Answer::of(request).await;
        assert_eq!((known.status, known.text.as_str()), (304, ""));
    }
    let style = reader.get("/assets/pointsman.css").await.text;
    assert!(style.contains("background-attachment: local, local"), "a wide table shows that it continues");
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_control_a_run() {
    let simulator = simulator();
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let reader = Reader::new(daemon.address());
    let failed = hostile_run(&daemon).await;
    let retried = reader.submit(&format!("/runs/{failed}/retry"), "", &[SAME_ORIGIN]).await;
    assert_eq!(
        (retried.status, retried.header("location")),
        (303, &*format!("/runs/{failed}")),
        "{retried:?}"
    );
    let complete = daemon.complete_run(1).await;
    let shown = reader.page(&format!("/runs/{complete}")).await.text;
    assert!(shown.contains("The run is complete: there is nothing to control."), "{shown}");
    daemon.stop(Duration::ZERO).await;

    let simulator = slow_simulator();
    let folder =
        DaemonFolder::with(&simulator, &Extra { provider: "limits.concurrency = 1", ..Extra::default() });
    let daemon = folder.start().await;
    let reader = Reader::new(daemon.address());
    let run = daemon.create_run(200).await;
    let page = format!("/runs/{run}");
    let shown = reader.page(&page).await.text;
    assert!(shown.contains(&format!("action=\"{page}/hold\"")) && !shown.contains("/resume\""), "{shown}");
    // A browser without `Sec-Fetch-Site` names the origin of the page.
    let origin = format!("http://{}", daemon.address());
    let held = reader.submit(&format!("{page}/hold"), "", &[(ORIGIN.as_str(), origin.as_str())]).await;
    assert_eq!((held.status, held.header("location")), (303, page.as_str()), "{held:?}");
    daemon.wait_for_state(run, "paused").await;
    let shown = reader.page(&page).await.text;
    assert!(shown.contains(&format!("action=\"{page}/resume\"")) && !shown.contains("/hold\""), "{shown}");
    let resumed = reader.submit(&format!("{page}/resume"), "accept_changes=yes", &[SAME_ORIGIN]).await;
    assert_eq!(resumed.status, 303, "{resumed:?}");
    daemon.wait_for_state(run, "running").await;
    let again = reader.submit(&format!("{page}/resume"), "", &[SAME_ORIGIN]).await;
    assert_eq!((again.status, again.header("content-type")), (409, "text/html; charset=utf-8"), "{again:?}");
    assert!(again.text.contains("is in progress"), "{again:?}");
    let cancelled = reader.submit(&format!("{page}/cancel"), "", &[SAME_ORIGIN]).await;
    assert_eq!(cancelled.status, 303, "{cancelled:?}");
    daemon.wait_for_state(run, "cancelled").await;
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_site_is_refused() {
    let simulator = slow_simulator();
    let folder =
        DaemonFolder::with(&simulator, &Extra { provider: "limits.concurrency = 1", ..Extra::default() });
    let daemon = folder.start().await;
    let reader = Reader::new(daemon.address());
    let run = daemon.create_run(200).await;
    let own = format!("http://{}", daemon.address());
    let foreign: [&[(&str, &str)]; 6] = [
        &[],
        &[("origin", "http://example.org")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("origin", own.as_str())],
        &[("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
    ];
    for headers in foreign {
        for path in
            [format!("/runs/{run}/hold"), format!("/runs/{run}/cancel"), "/login".into(), "/logout".into()]
        {
            let refused = reader.submit(&path, "token=x", headers).await;
            assert_eq!(
                (refused.status, refused.header("set-cookie")),
                (403, ""),
                "{path} {headers:?}: {refused:?}"
            );
        }
    }
    assert_eq!(daemon.get(&format!("/runs/{run}")).await.json()["state"], "running");
    daemon.stop(Duration::ZERO).await;
}

/// Starts another server of a daemon, which needs tokens.
fn serve_with_tokens(daemon: &TestDaemon) -> RunningServer {
    serve(&daemon.daemon, ServerOptions::new().with_tokens(true)).unwrap()
}

async fn new_token(daemon: &TestDaemon, name: &str, permissions: &[Permission]) -> Secret {
    let new = NewToken::new(name, permissions);
    daemon.daemon.create_token(&new, "").await.unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_logs_in_with_a_token_and_its_session_is_worth_less() {
    let simulator = slow_simulator();
    let folder =
        DaemonFolder::with(&simulator, &Extra { provider: "limits.concurrency = 1", ..Extra::default() });
    let daemon = folder.start().await;
    let run = daemon.create_run(200).await;
    let server = serve_with_tokens(&daemon);
    let token = new_token(&daemon, "ops", &[Permission::Admin]).await;
    let mut reader = Reader::new(server.address().to_string());
    let page = format!("/runs/{run}");
    for path in ["/", &page, "/events", &format!("{page}/events")] {
        let refused = reader.get(path).await;
        assert_eq!((refused.status, refused.header("location")), (303, "/login"), "{path}: {refused:?}");
        assert!(refused.text.is_empty(), "{refused:?}");
    }
    let wrong = reader.submit("/login", "token=pm_00000000_wrong", &[SAME_ORIGIN]).await;
    assert_eq!((wrong.status, wrong.header("set-cookie")), (403, ""), "{wrong:?}");
    assert!(wrong.text.contains("The token is not valid."), "{wrong:?}");
    assert_strict(&wrong, "");
    reader.cookie = Some("pointsman_session=guessed".to_owned());
    assert_eq!(reader.get("/").await.status, 303);
    reader.cookie = None;

    reader.log_in(&token).await;
    let overview = reader.page("/").await;
    assert_strict(&overview, "");
    assert!(overview.text.contains("Log out"), "{}", overview.text);
    assert_eq!(reader.get("/api/v1/runs").await.status, 200);
    // A page of another site makes the browser send the request.
    for site in ["cross-site", "same-site"] {
        let request = |path: &str| reader.request(Method::GET, path).header("sec-fetch-site", site);
        assert_eq!(Answer::of(request("/")).await.status, 303);
        assert_eq!(Answer::of(request("/api/v1/runs")).await.status, 401);
    }
    // The API changes nothing for a session, whatever it says of its origin.
    for path in [format!("/api/v1{page}/hold"), "/api/v1/config/reload".to_owned()] {
        assert_eq!(reader.submit(&path, "", &[SAME_ORIGIN]).await.status, 401, "{path}");
    }
    assert_eq!(
        reader.submit(&format!("{page}/hold"), "", &[("origin", "http://example.org")]).await.status,
        403
    );
    assert_eq!(daemon.get(&page).await.json()["state"], "running");
    assert_eq!(reader.submit(&format!("{page}/hold"), "", &[SAME_ORIGIN]).await.status, 303);
    daemon.wait_for_state(run, "paused").await;

    let before = reader.cookie.clone();
    let left = reader.submit("/logout", "", &[SAME_ORIGIN]).await;
    assert_eq!((left.status, left.header("location")), (303, "/login"));
    assert!(left.header("set-cookie").contains("Max-Age=0"), "{left:?}");
    reader.cookie = before;
    assert_eq!(reader.get("/").await.status, 303, "the session has ended for the server, too");

    reader.cookie = None;
    reader.log_in(&token).await;
    daemon.daemon.revoke_token("ops", "").await.unwrap();
    assert_eq!(reader.get("/").await.status, 303, "a session ends with its token");
    drop(server);
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_short_whether_its_length_is_announced_or_not_and_a_proxy_is_not_believed() {
    let simulator = simulator();
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let server = serve_with_tokens(&daemon);
    let token = new_token(&daemon, "ops", &[Permission::Read]).await;
    let reader = Reader::new(server.address().to_string());
    let log_in = async |headers: &[(&str, &str)], body: reqwest::Body| {
        let request = reader.request(Method::POST, "/login");
        let mut request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.body(body)).await
    };
    let in_pieces = |count: usize| {
        let piece = "token=".to_owned() + &"x".repeat(1_000);
        let pieces = (0..count).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
    };
    assert_eq!(log_in(&[SAME_ORIGIN], in_pieces(1)).await.status, 403);
    let long = log_in(&[SAME_ORIGIN], in_pieces(12)).await;
    assert_eq!(long.status, 413, "{long:?}");
    assert!(long.text.contains("8192 bytes"), "{}", long.text);
    assert_eq!(log_in(&[SAME_ORIGIN], "x".repeat(9_000).into()).await.status, 413);

    let body = format!("token={}", token.expose());
    let claimed = [("origin", "http://example.org"), ("x-forwarded-host", "example.org")];
    assert_eq!(log_in(&claimed, body.clone().into()).await.status, 403);
    let claimed = [SAME_ORIGIN, ("x-forwarded-proto", "https"), ("forwarded", "proto=https")];
    let begun = log_in(&claimed, body.into()).await;
    assert_eq!(begun.status, 303, "{begun:?}");
    assert!(!begun.header("set-cookie").contains("Secure"), "{begun:?}");
    drop(server);
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_and_does_what_the_token_allows() {
    let simulator = slow_simulator();
    let folder =
        DaemonFolder::with(&simulator, &Extra { provider: "limits.concurrency = 1", ..Extra::default() });
    let daemon = folder.start().await;
    let run = daemon.create_run(200).await;
    let page = format!("/runs/{run}");
    let server = serve_with_tokens(&daemon);
    let mut reader = Reader::new(server.address().to_string());
    reader.log_in(&new_token(&daemon, "watcher", &[Permission::Read]).await).await;
    let shown = reader.page(&page).await.text;
    assert!(!shown.contains("/hold\""), "{shown}");
    let refused = reader.submit(&format!("{page}/hold"), "", &[SAME_ORIGIN]).await;
    assert_eq!(refused.status, 403, "{refused:?}");

    reader.cookie = None;
    reader.log_in(&new_token(&daemon, "ci", &[Permission::Run]).await).await;
    let overview = reader.page("/").await.text;
    assert!(!overview.contains("Providers") && !overview.contains(&page), "{overview}");
    assert!(overview.contains("There are no runs yet."), "{overview}");
    assert_eq!(reader.get(&page).await.status, 404);
    assert_eq!(reader.submit(&format!("{page}/cancel"), "", &[SAME_ORIGIN]).await.status, 404);

    reader.cookie = None;
    reader.log_in(&new_token(&daemon, "app", &[Permission::Request]).await).await;
    assert_eq!(reader.get("/").await.status, 403);
    assert_eq!(daemon.get(&page).await.json()["state"], "running");
    drop(server);
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_gets_the_parts_of_a_page_that_change() {
    let simulator = simulator();
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let reader = Reader::new(daemon.address());
    let mut stream = EventStream::of(reader.request(Method::GET, "/events")).await;
    let mut first = BTreeSet::new();
    while first.len() < 6 {
        let frame = stream.next_of("fragment").await;
        first.insert(frame.data["id"].as_str().unwrap().to_owned());
    }
    let expected = ["failures", "load", "providers", "runs", "spending", "summary"];
    assert!(first.iter().map(String::as_str).eq(expected), "{first:?}");
    let run = daemon.create_run(3).await;
    let link = format!("href=\"/runs/{run}\"");
    loop {
        let Value::Object(data) = stream.next_of("fragment").await.data else { panic!("no object") };
        if data["id"] == "runs" && data["html"].as_str().unwrap().contains(&link) {
            break;
        }
    }
    daemon.wait_for_state(run, "completed").await;
    let path = format!("/runs/{run}/events");
    let mut of_run = EventStream::of(reader.request(Method::GET, &path)).await;
    loop {
        let data = of_run.next_of("fragment").await.data;
        if data["id"] == "run-report" {
            assert!(data["html"].as_str().unwrap().contains("completed"), "{data}");
            break;
        }
    }
    daemon.stop(Duration::ZERO).await;
}

#[test]
fn links_lead_to_where_the_routes_are_mounted() {
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::{App, web};

    actix_web::rt::System::new().block_on(async {
        let simulator = simulator();
        let folder = DaemonFolder::new(&simulator);
        let daemon = folder.start().await;
        let run = daemon.complete_run(2).await;
        let options = ServerOptions::new().with_prefix("/llm");
        let app = App::new().service(web::scope("/llm").configure(routes(&daemon.daemon, options)));
        let app = init_service(app).await;
        for path in
            ["/llm", "/llm/", "/llm/login", &format!("/llm/runs/{run}"), &format!("/llm/runs/{run}/items/i1")]
        {
            let response = call_service(&app, TestRequest::get().uri(path).to_request()).await;
            let status = response.status().as_u16();
            let headers = response.headers().iter();
            let headers = headers.map(|(name, value)| {
                let name: reqwest::header::HeaderName = name.as_str().parse().unwrap();
                (name, reqwest::header::HeaderValue::from_bytes(value.as_bytes()).unwrap())
            });
            let headers = headers.collect();
            let text = String::from_utf8(read_body(response).await.to_vec()).unwrap();
            let page = Answer { status, headers, text };
            assert_eq!(page.status, 200, "{path}: {page:?}");
            assert_strict(&page, "/llm");
        }
        let form = TestRequest::post().uri(&format!("/llm/runs/{run}/retry")).insert_header(SAME_ORIGIN);
        let form = form.insert_header(("content-type", "application/x-www-form-urlencoded"));
        let response = call_service(&app, form.to_request()).await;
        let location = response.headers().get("location").unwrap().to_str().unwrap();
        assert_eq!(location, format!("/llm/runs/{run}"));
        let without = ServerOptions::new().with_dashboard(false);
        let app = init_service(App::new().configure(routes(&daemon.daemon, without))).await;
        assert_eq!(call_service(&app, TestRequest::get().uri("/").to_request()).await.status(), 404);
        assert_eq!(call_service(&app, TestRequest::get().uri("/health").to_request()).await.status(), 200);
        daemon.stop(Duration::from_secs(5)).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn charts_have_samples_after_some_time() {
    let simulator = simulator();
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    daemon.complete_run(20).await;
    let reader = Reader::new(daemon.address());
    let end = Instant::now() + MAX_WAIT;
    loop {
        let page = reader.page("/").await;
        if page.text.contains("<polyline") {
            assert!(page.text.contains("Throughput in the last hour."), "{}", page.text);
            assert_strict(&page, "");
            break;
        }
        assert!(Instant::now() < end, "{}", page.text);
        sleep(Duration::from_millis(500)).await;
    }
    daemon.stop(Duration::ZERO).await;
}
