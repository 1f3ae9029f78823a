//! Tokens of a daemon: what they allow, their limits and budgets, and the command that creates them.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::Request;
use pointsman::config::Config;
use pointsman::daemon::{
    Access, Caller, Daemon, Expected, Idempotent, ItemsFrom, Kind, NewRun, NewToken, Permission,
    RequestDigest, SpendingKey, TokenLimits, TokenStore,
};
use pointsman::run::Cap;
use pointsman::simulator::Simulator;
use pointsman::store::Sqlite;
use pointsman::types::{Class, Day, NanoUsd, Secret};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::program::{Workspace, parse_lines};
use super::support::*;

/// The longest time that a test waits for a result.
const MAX_TEST_WAIT: Duration = Duration::from_secs(60);

const PIPELINE: &str =
    "name = \"mail\"\n[[step]]\nname = \"answer\"\nprompt = \"Say something about {{ item.id }}.\"\n";

/// A daemon with a store in a temporary folder, and a simulated provider whose model has a price.
struct Setup {
    simulator: Simulator,
    folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        Self { simulator: start_simulator(toml::from_str("").unwrap()), folder: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> std::path::PathBuf {
        self.folder.path().join("a.db")
    }

    async fn start(&self) -> Daemon {
        let provider = provider_config("a", &self.simulator, LONG_TIMEOUTS);
        let priced =
            provider.replace("models.m = {}", "models.m = { price = { input = 1.0, output = 5.0 } }");
        let text = format!("{priced}\n[store]\nurl = 'sqlite:{}'\n", self.database().display());
        let pointsman = start_pointsman(&text);
        let load = move || Config::parse("test.toml", &text, &lookup_key);
        Daemon::start(pointsman, Arc::new(load)).await.unwrap()
    }

    /// Returns the tokens of the same store, as another process opens it.
    async fn other_process(&self) -> TokenStore {
        TokenStore::new(Arc::new(Sqlite::open(&self.database()).await.unwrap()))
    }
}

async fn create(daemon: &Daemon, new: NewToken) -> Secret {
    daemon.create_token(&new, "").await.unwrap().1
}

async fn access(daemon: &Daemon, token: &Secret) -> Option<Access> {
    daemon.authenticate(token.expose()).await.unwrap()
}

/// Waits until a token is accepted, or is refused.
async fn wait_for_access(daemon: &Daemon, token: &Secret, is_accepted: bool) {
    let end = Instant::now() + MAX_TEST_WAIT;
    while access(daemon, token).await.is_some() != is_accepted {
        assert!(Instant::now() < end, "the change of the token is not noticed");
        sleep(Duration::from_millis(50)).await;
    }
}

fn request() -> Request {
    new_request("default", "Say hello.", MAX_TEST_WAIT)
}

/// Returns the cap of a token.
fn cap_of(daemon: &Daemon, token: &str) -> Cap {
    let scope = format!("token:{token}");
    let caps = daemon.caps();
    let cap = caps.iter().find(|cap| cap.scope_name.as_ref().is_some_and(|name| name.as_str() == scope));
    cap.unwrap_or_else(|| panic!("there is no cap of {scope}: {caps:?}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_accepted_until_it_is_revoked_and_its_name_can_be_used_again() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let token = create(&daemon, NewToken::new("ci", [Permission::Run])).await;
    let holder = access(&daemon, &token).await.unwrap();
    assert_eq!(holder.caller, Caller::token("ci", "token:ci".into()));
    assert!(holder.has_any(&[Permission::Run]) && !holder.has_any(&[Permission::Read, Permission::Admin]));
    let reader = create(&daemon, NewToken::new("reader", [Permission::Read])).await;
    assert!(access(&daemon, &reader).await.unwrap().caller.sees_all);
    for wrong in ["", "pm_", &token.expose()[..54], &reader.expose().replacen("pm_", "pm-", 1)] {
        assert!(daemon.authenticate(wrong).await.unwrap().is_none(), "{wrong:?}");
    }
    // The ID of one token with the secret part of another.
    let mixed = format!("{}{}", &token.expose()[..12], &reader.expose()[12..]);
    assert!(daemon.authenticate(&mixed).await.unwrap().is_none());
    daemon.revoke_token("ci", "reader").await.unwrap();
    assert!(access(&daemon, &token).await.is_none());
    assert_eq!(daemon.revoke_token("ci", "").await.unwrap_err().kind(), Kind::NotFound);
    let second = create(&daemon, NewToken::new("ci", [Permission::Request])).await;
    assert!(access(&daemon, &token).await.is_none());
    assert!(access(&daemon, &second).await.unwrap().has_any(&[Permission::Request]));
    let listed = daemon.tokens().await.unwrap();
    let names: Vec<_> =
        listed.iter().map(|token| (token.name.as_str(), token.last_used_at.is_some())).collect();
    assert_eq!(names, [("ci", true), ("reader", true)]);
    daemon.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_another_process_creates_and_revokes_are_noticed_and_survive_a_restart() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let tokens = setup.other_process().await;
    let (_, token) = tokens.create(&NewToken::new("ci", [Permission::Run]), "").await.unwrap();
    wait_for_access(&daemon, &token, true).await;
    daemon.drain(Duration::from_secs(5)).await;
    drop(daemon);
    assert!(
        tokens.list().await.unwrap()[0].last_used_at.is_some(),
        "the use is stored when the daemon stops"
    );
    let daemon = setup.start().await;
    assert!(access(&daemon, &token).await.is_some());
    tokens.revoke("ci", "").await.unwrap();
    wait_for_access(&daemon, &token, false).await;
    daemon.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_process_is_accepted_at_once_also_after_an_unknown_one() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let tokens = setup.other_process().await;
    let (_, unknown) = tokens.create(&NewToken::new("old", [Permission::Run]), "").await.unwrap();
    tokens.revoke("old", "").await.unwrap();
    assert!(access(&daemon, &unknown).await.is_none());
    let (_, token) = tokens.create(&NewToken::new("ci", [Permission::Run]), "").await.unwrap();
    assert!(access(&daemon, &token).await.is_some());
    daemon.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_expires() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let new = NewToken::new("short", [Permission::Run]).with_expires_in(Duration::from_millis(300));
    let token = create(&daemon, new).await;
    wait_for_access(&daemon, &token, false).await;
    assert_eq!(daemon.tokens().await.unwrap()[0].state, "expired");
    daemon.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_a_token_limits_its_requests_and_no_others() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let mut limits = TokenLimits::new();
    limits.requests_per_minute = NonZeroU64::new(5);
    let token = create(&daemon, NewToken::new("slow", [Permission::Request]).with_limits(limits)).await;
    let holder = access(&daemon, &token).await.unwrap().caller;
    let sent = join_all((0..50).map(|_| daemon.send(request(), &holder))).await;
    let refused: Vec<_> = sent.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!((45..50).contains(&refused.len()), "{} of 50 were refused", refused.len());
    for error in refused {
        let failure = &error.failure;
        assert_eq!(failure.class, Class::RateLimit, "{failure:?}");
        assert!(failure.retry_after.is_some() && failure.message.contains("token:slow"), "{failure:?}");
    }
    let other = create(&daemon, NewToken::new("fast", [Permission::Request])).await;
    let other = access(&daemon, &other).await.unwrap().caller;
    for result in join_all((0..50).map(|_| daemon.send(request(), &other))).await {
        result.unwrap();
    }
    daemon.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_has_spent_counts_after_a_restart_and_is_reported() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let mut limits = TokenLimits::new();
    limits.budget = Some(NanoUsd(1_000_000_000));
    let token = create(&daemon, NewToken::new("ci", [Permission::Request]).with_limits(limits)).await;
    let holder = access(&daemon, &token).await.unwrap().caller;
    let before = Day::at(now());
    let response = daemon.send(request(), &holder).await.unwrap();
    let streamed = daemon.stream(request(), &holder).response().await.unwrap();
    daemon.send(request(), &Caller::operator()).await.unwrap();
    let cost = response.cost.unwrap().dollars() + streamed.cost.unwrap().dollars();
    let is_cost = |dollars: f64| (dollars - cost).abs() < 1e-9;
    assert!(cost > 0.0 && is_cost(cap_of(&daemon, "ci").spent_usd), "{:?}", cap_of(&daemon, "ci"));
    let rows = daemon.spending(before, Day::at(now()), &[SpendingKey::Token]).await.unwrap();
    let of_token = |name: Option<&str>| {
        let rows = rows.iter().filter(|row| row.token == Some(name.map(str::to_owned)));
        rows.map(|row| row.cost_usd).sum::<f64>()
    };
    assert!(is_cost(of_token(Some("ci"))) && of_token(None) > 0.0, "{rows:?}");
    let all = daemon.spending(before, Day::at(now()), &[]).await.unwrap();
    assert!((all[0].cost_usd - of_token(Some("ci")) - of_token(None)).abs() < 1e-9, "{all:?}");
    let by_both = [SpendingKey::Token, SpendingKey::Provider];
    assert_eq!(daemon.spending(before, before, &by_both).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(daemon.spending(Day(1), Day(0), &[]).await.unwrap_err().kind(), Kind::Invalid);
    daemon.drain(Duration::from_secs(5)).await;
    drop(daemon);
    let daemon = setup.start().await;
    let is_same_day = Day::at(now()) == before;
    let cap = cap_of(&daemon, "ci");
    assert!(!is_same_day || is_cost(cap.spent_usd), "{cap:?}");
    assert_eq!(cap.cap_usd, 1.0);
    daemon.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_budget_is_spent_gets_no_answer_until_it_is_raised() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let with_budget = |budget: u64| {
        let mut limits = TokenLimits::new();
        limits.budget = Some(NanoUsd(budget));
        NewToken::new("ci", [Permission::Request]).with_limits(limits)
    };
    let token = create(&daemon, with_budget(1)).await;
    let holder = access(&daemon, &token).await.unwrap().caller;
    let refused = daemon.send(request(), &holder).await.unwrap_err();
    assert_eq!(refused.failure.class, Class::Budget, "{:?}", refused.failure);
    assert_eq!(setup.simulator.counts().requests, 0);
    daemon.revoke_token("ci", "").await.unwrap();
    let token = create(&daemon, with_budget(1_000_000_000)).await;
    let holder = access(&daemon, &token).await.unwrap().caller;
    daemon.send(request(), &holder).await.unwrap();
    daemon.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_creation_returns_the_same_run_although_it_was_not_answered() {
    let setup = Setup::new();
    let daemon = setup.start().await;
    let caller = Caller::operator();
    daemon.put_pipeline("mail", PIPELINE, "", Expected::New).await.unwrap();
    let mut digest = RequestDigest::new("POST", "/api/v1/runs");
    digest.update(b"{}");
    let digest = digest.finish();
    let mut runs = BTreeSet::new();
    for _ in 0..2 {
        let Idempotent::New(mut guard) = daemon.idempotency(&caller, "key-1", digest).await.unwrap() else {
            panic!("the request was not answered");
        };
        let mut spooled = daemon.data().spool().unwrap();
        spooled.write(b"{\"id\": 1}\n").unwrap();
        let mut new = NewRun::new("mail", ItemsFrom::Spooled(spooled, Some("jsonl".to_owned())));
        new.identity = Some(guard.identity().await.unwrap());
        let created = timeout(MAX_TEST_WAIT, daemon.create_run(new, &caller)).await.unwrap().unwrap();
        runs.insert(created.run);
        // The connection breaks before the response is stored.
        drop(guard);
    }
    assert_eq!(runs.len(), 1, "{runs:?}");
    let Idempotent::New(guard) = daemon.idempotency(&caller, "key-1", digest).await.unwrap() else {
        panic!("the request was not answered");
    };
    guard.finish(201, Some("/api/v1/runs/1"), "{}").await.unwrap();
    let known = daemon.idempotency(&caller, "key-1", digest).await.unwrap();
    assert!(matches!(known, Idempotent::Known(response) if response.status == 201));
    daemon.drain(Duration::from_secs(5)).await;
}

/// Returns the time in milliseconds since 1970.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

#[test]
fn the_command_writes_the_token_alone_to_stdout_and_never_shows_it_again() {
    let workspace = Workspace::new("");
    let new =
        "token new --name ci --scope run,read --rate 60/m --concurrency 10 --budget 20/day --expires 90d";
    let created = workspace.run(new);
    created.expect_stderr(
        0,
        &["token ci created: read,run, 60 requests per minute, 10 at once, $20.00 a day, valid until "],
    );
    let token = created.stdout.trim_end();
    assert!(token.starts_with("pm_") && token.len() == 55 && created.stdout.lines().count() == 1);
    assert!(!created.stderr.contains(token));
    assert_private(&workspace.path("pointsman.db"));
    let listed = workspace.run("token list --json");
    listed.expect_code(0);
    let tokens: Vec<Value> = parse_lines(&listed.stdout);
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    for (key, value) in [
        ("name", Value::from("ci")),
        ("id", token[3..11].into()),
        ("permissions", vec!["read", "run"].into()),
        ("state", "active".into()),
        ("requests_per_minute", 60.into()),
        ("concurrency", 10.into()),
        ("budget_usd", 20.0.into()),
        ("created_by", "".into()),
        ("last_used_at", Value::Null),
    ] {
        assert_eq!(tokens[0][key], value, "{key}");
    }
    let table = workspace.run("token list");
    for output in [&listed, &table] {
        assert!(!output.stdout.contains(&token[12..]) && output.stdout.contains("ci"), "{}", output.stdout);
    }
    workspace.run(new).expect_stderr(4, &["there is a token \"ci\" already"]);
    workspace.run("token revoke ci").expect_stderr(0, &["token ci is revoked"]);
    workspace.run("token revoke ci").expect_stderr(4, &["there is no token \"ci\""]);
    workspace.run("token list").expect_stderr(0, &["there are no tokens"]);
    workspace.run(new).expect_code(0);
}

#[test]
fn wrong_arguments_for_a_token_are_explained() {
    let workspace = Workspace::new("");
    for (arguments, advice) in [
        ("--name ci --scope reed", "there is no permission \"reed\": did you mean `read`?"),
        ("--name ci --scope run,write", "use read, run, request, admin"),
        ("--name ci", "--scope"),
        ("--name ci --scope run --rate 60", "write it as 60/m"),
        ("--name ci --scope run --budget 20/month", "a budget is for a day (UTC)"),
        ("--name ci --scope run --budget 0/day", "write US dollars, such as 20/day"),
        ("--name ci --scope run --expires soon", "is not a duration such as 90d or 12h"),
        ("--name ci --scope run --expires 0d", "the token would never be valid"),
        ("--name ci --scope run --concurrency 0", "--concurrency"),
        ("--name ../ci --scope run", "the name of a token has 1 to 100 letters"),
    ] {
        workspace.run(&format!("token new {arguments}")).expect_stderr(2, &[advice]);
        assert!(!workspace.path("pointsman.db").exists(), "{arguments}");
    }
    workspace.run("token new --name ci --scope run --store none").expect_stderr(4, &["--store sqlite:FILE"]);
}

#[cfg(unix)]
fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
}

#[cfg(not(unix))]
fn assert_private(path: &Path) {
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runs_of_a_revoked_token_are_paused_and_those_of_others_continue() {
    use super::daemon::{DaemonFolder, Extra, values};
    use pointsman::simulator::{Latency, Settings};

    let latency = Latency::Fixed(Duration::from_millis(50));
    let simulator = start_simulator(Settings { latency, ..Settings::default() });
    let tables = "[run]\nmax_in_flight_items = 2";
    let folder = DaemonFolder::with(&simulator, &Extra { tables, ..Extra::default() });
    let daemon = folder.start().await;
    let mut runs = Vec::new();
    for name in ["leaked", "other"] {
        daemon.daemon.create_token(&NewToken::new(name, [Permission::Run]), "").await.unwrap();
        let caller = Caller::token(name, format!("token:{name}").into());
        let new = NewRun::new("one", ItemsFrom::Values(values(300)));
        runs.push(daemon.daemon.create_run(new, &caller).await.unwrap().run.0);
    }
    daemon.daemon.revoke_token("leaked", "").await.unwrap();
    let paused = daemon.wait_for_state(runs[0], "paused").await;
    assert!(paused["reason"].as_str().unwrap().contains("its token leaked was revoked"), "{paused}");
    assert_eq!(daemon.get(&format!("/runs/{}", runs[1])).await.json()["state"], "running");
}
