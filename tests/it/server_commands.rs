//! Commands that ask a daemon: the same output as for its store, and what they say when it cannot be asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Latency, Settings, Simulator};
use pointsman::store::RunNumber;
use reqwest::Method;
use serde_json::Value;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::daemon::*;
use super::program::{Output, parse_lines, program, run_program};
use super::support::*;

/// Runs a command in the folder of a daemon.
fn run(folder: &DaemonFolder, arguments: &str) -> Output {
    run_with(folder, arguments, &[])
}

/// Runs a command with these environment variables.
fn run_with(folder: &DaemonFolder, arguments: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = program(arguments);
    command.current_dir(folder.path("")).envs(environment.iter().copied());
    // The daemon is in this process.
    block_in_place(|| run_program(command))
}

/// Returns an address at which nothing listens.
fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until a session of a run has ended in this state, and nothing of it is open any more.
async fn wait_until_closed(daemon: &TestDaemon, run: i64, state: &str) {
    daemon.wait_for_state(run, state).await;
    let end = Instant::now() + MAX_WAIT;
    loop {
        let is_open = !daemon.get(&format!("/runs/{run}")).await.json()["progress"].is_null();
        if !is_open && !daemon.daemon.store().is_locked(RunNumber(run)) {
            return;
        }
        assert!(Instant::now() < end, "run {run} stays open");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Starts a daemon whose simulator refuses the second item of [`jsonl`], and completes a run of five items, and one of one.
async fn daemon_with_two_runs() -> (Simulator, DaemonFolder, TestDaemon) {
    let refusal = Fault { contains: Some("thing 2".to_owned()), ..Fault::new(FaultKind::Refusal) };
    let simulator = start_faulty_simulator([refusal]);
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    for (run, items) in [(1, 5), (2, 1)] {
        assert_eq!(daemon.complete_run(items).await, run);
        wait_until_closed(&daemon, run, "completed").await;
    }
    (simulator, folder, daemon)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_gives_the_same_output_as_its_store() {
    let (_simulator, folder, daemon) = daemon_with_two_runs().await;
    let server = format!("--server http://{}", daemon.address());
    let store = format!("--store sqlite:{}", folder.path("runs.db").display());
    for command in [
        "runs",
        "runs --json",
        "report 1 --json",
        "report 2",
        "report 2 --json",
        "results 1",
        "results 1 --format csv",
        "results 1 --format csv --csv-formulas keep",
        "results 2",
        "failures 1",
        "failures 1 --json",
        "failures 2",
    ] {
        let [remote, local] = [&server, &store].map(|source| run(&folder, &format!("{command} {source}")));
        local.expect_code(0);
        remote.expect_code(0);
        assert_eq!(remote.stdout, local.stdout, "{command}");
        assert_eq!(remote.stderr.is_empty(), local.stderr.is_empty(), "{command}: {}", remote.stderr);
    }
    let listed = run(&folder, &format!("runs --json {server}"));
    let listed = parse_lines(&listed.stdout);
    assert_eq!(listed.iter().map(|run| &run["failed"]).collect::<Vec<_>>(), [0, 1], "{listed:?}");
    // The last line names a command, and only the daemon can resume its runs.
    let [remote, local] = [&server, &store].map(|source| run(&folder, &format!("report 1 {source}")));
    let without_last = |text: &str| text.trim_end().rsplit_once('\n').unwrap().0.to_owned();
    assert_eq!(without_last(&remote.stdout), without_last(&local.stdout));
    let retry = format!("`pointsman retry 1 {server}` processes the failed items again");
    assert!(remote.stdout.contains(&retry), "{}", remote.stdout);
    let prices = run(&folder, &format!("prices {server}"));
    assert_eq!(prices.stdout, run(&folder, "prices --config config.toml").stdout);
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_a_daemon_replace_a_file_only_as_a_whole_and_if_it_is_allowed() {
    let (_simulator, folder, daemon) = daemon_with_two_runs().await;
    let server = format!("--server http://{}", daemon.address());
    let results = format!("results 1 {server} --out out.jsonl");
    run(&folder, &results).expect_code(0);
    let lines = std::fs::read_to_string(folder.path("out.jsonl")).unwrap();
    assert_eq!(lines, run(&folder, &format!("results 1 {server}")).stdout);
    assert_eq!(parse_lines(&lines).len(), 5);
    folder.write("out.jsonl", "mine\n");
    run(&folder, &results)
        .expect_stderr(4, &["out.jsonl exists and was not written by this run", "(--overwrite)"]);
    run(&folder, &format!("results 7 {server} --out out.jsonl --overwrite")).expect_stderr(4, &["run", "7"]);
    assert_eq!(std::fs::read_to_string(folder.path("out.jsonl")).unwrap(), "mine\n");
    run(&folder, &format!("{results} --overwrite")).expect_code(0);
    assert_eq!(std::fs::read_to_string(folder.path("out.jsonl")).unwrap(), lines);
    let names = std::fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let temporary: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".pointsman-")).collect();
    assert!(temporary.is_empty(), "{temporary:?}");
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_a_daemon_are_resumed_retried_cancelled_and_deleted() {
    let latency = Latency::Fixed(Duration::from_millis(50));
    let simulator = start_simulator(Settings { latency, ..Settings::default() });
    let tables = "[run]\nmax_in_flight_items = 2";
    let folder = DaemonFolder::with(&simulator, &Extra { tables, ..Extra::default() });
    let daemon = folder.start().await;
    let server = format!("--server http://{}", daemon.address());
    run(&folder, &format!("resume {server}")).expect_stderr(0, &["there is no run to resume"]);
    let held = daemon.create_run(400).await;
    daemon.post(&format!("/runs/{held}/hold")).await;
    wait_until_closed(&daemon, held, "paused").await;
    let report = run(&folder, &format!("report {held} {server}"));
    assert!(report.stdout.contains(&format!("`pointsman resume {held} {server}`")), "{}", report.stdout);
    let store = format!("--store sqlite:{}", folder.path("runs.db").display());
    let listed = run(&folder, &format!("runs {store}")).stdout;
    assert!(listed.contains(" paused ") && !listed.contains("cancelled"), "{listed}");
    let report = run(&folder, &format!("report {held} {store}")).stdout;
    assert!(report.contains("belongs to a daemon: start the daemon"), "{report}");
    run(&folder, &format!("resume {server}")).expect_stderr(0, &[&format!("continues run {held}")]);
    daemon.wait_for_state(held, "running").await;
    run(&folder, &format!("resume {held} {server}")).expect_stderr(4, &["in progress"]);
    run(&folder, &format!("resume {held} {server} --wait")).expect_stderr(4, &["has no --wait"]);
    run(&folder, &format!("delete {held} {server}"))
        .expect_stderr(4, &["in progress", "0 runs deleted, 1 left"]);
    run(&folder, &format!("cancel {held} {server}"))
        .expect_stderr(0, &["is being cancelled", "pointsman resume"]);
    wait_until_closed(&daemon, held, "cancelled").await;
    let complete = daemon.complete_run(1).await;
    wait_until_closed(&daemon, complete, "completed").await;
    run(&folder, &format!("cancel {complete} {server}")).expect_stderr(4, &["there is nothing to cancel"]);
    run(&folder, &format!("retry {complete} {server} --class timeout"))
        .expect_stderr(0, &[&format!("continues run {complete}")]);
    wait_until_closed(&daemon, complete, "completed").await;
    run(&folder, &format!("delete 99 {server}")).expect_stderr(4, &["99"]);
    run(&folder, &format!("delete {complete} {server}")).expect_stderr(0, &["1 run deleted, 1 left"]);
    assert_eq!(daemon.runs().await, [held]);
    folder.write("items.jsonl", jsonl(1));
    run(&folder, &format!("run pipelines/one.toml --items items.jsonl --out none.jsonl {store}"))
        .expect_code(0);
    let latest = daemon.daemon.store().runs().await.unwrap().iter().map(|run| run.number.0).max().unwrap();
    assert!(latest > complete);
    run(&folder, &format!("cancel {latest} {server}"))
        .expect_stderr(4, &["was not created by a daemon", "without a server"]);
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_daemon_is_shown_and_its_health_is_an_exit_code() {
    let (_simulator, folder, daemon) = daemon_with_two_runs().await;
    let server = format!("--server http://{}", daemon.address());
    let shown = run(&folder, &format!("status {server}"));
    shown.expect_code(0);
    for part in [
        format!("pointsman {} at http://{}, up ", env!("CARGO_PKG_VERSION"), daemon.address()),
        ": ready\n0 runs open (0 running, 0 holding), 0 paused\n".to_owned(),
        "spent today (UTC): ".to_owned(),
        "\na: breaker closed, 0/".to_owned(),
    ] {
        assert!(shown.stdout.contains(&part), "{part:?} is not in:\n{}", shown.stdout);
    }
    let json: Value = serde_json::from_str(&run(&folder, &format!("status --json {server}")).stdout).unwrap();
    assert_eq!((&json["ready"], &json["runs"]["open"]), (&true.into(), &0.into()));
    assert_eq!(json["server"], format!("http://{}", daemon.address()));
    let health = format!("status --health {server}");
    let healthy = run(&folder, &health);
    assert_eq!((healthy.code, healthy.stdout.as_str(), healthy.stderr.as_str()), (Some(0), "", ""));
    // The environment names the daemon, unless a store is named.
    let address = format!("http://{}", daemon.address());
    let environment = [("POINTSMAN_SERVER", address.as_str())];
    assert!(run_with(&folder, "status", &environment).stdout.contains(": ready\n"));
    let store = run_with(&folder, "status --config config.toml", &environment);
    store.expect_stderr(0, &["no daemon was asked"]);
    assert!(store.stdout.lines().count() == 3, "{}", store.stdout);
    // Without a name, the address of the configuration is asked.
    let config = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    folder.write("other.toml", config.replace("127.0.0.1:0", &daemon.address()));
    let asked = run(&folder, "status --config other.toml");
    asked.expect_stderr(0, &[&format!("asked the daemon at {address}, the address of `listen` in [serve]")]);
    assert!(asked.stdout.contains(&format!(" at {address}, up ")), "{}", asked.stdout);
    let store = format!("status --store sqlite:{}", folder.path("runs.db").display());
    run(&folder, &store).expect_stderr(0, &["no daemon was asked"]);
    daemon.stop(Duration::ZERO).await;
    let store = run(&folder, "status --config other.toml");
    store.expect_stderr(0, &[&format!("no daemon answers at {address}"), "--server URL", "the latest runs"]);
    assert!(store.stdout.lines().count() == 3, "{}", store.stdout);
    let ended = run(&folder, &health);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(4), "", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_created_and_used_over_a_daemon() {
    let (_simulator, folder, daemon) = daemon_with_two_runs().await;
    let server = format!("--server http://{}", daemon.address());
    let created =
        run(&folder, &format!("token new --name ci-1 --scope read --rate 60/m --expires 730d {server}"));
    created.expect_stderr(0, &["token ci-1 created: read, 60 requests per minute, valid until "]);
    let store = format!("--store sqlite:{}", folder.path("runs.db").display());
    let [remote, local] =
        [&server, &store].map(|source| run(&folder, &format!("token list --json {source}")));
    assert_eq!(remote.stdout, local.stdout);
    let token = created.stdout.trim();
    let environment = [("POINTSMAN_TOKEN", token)];
    run_with(&folder, &format!("runs {server}"), &environment).expect_code(0);
    let refused = run_with(&folder, &format!("cancel 1 {server}"), &environment);
    refused.expect_stderr(4, &["does not allow this", "the token needs the permission `run` or `admin`"]);
    let refused = run_with(&folder, &format!("runs {server}"), &[("POINTSMAN_TOKEN", "pmt_wrong")]);
    refused.expect_stderr(4, &["does not accept the token"]);
    assert!(!refused.stderr.contains("pmt_wrong"), "{}", refused.stderr);
    run(&folder, &format!("token revoke ci-1 {server}")).expect_stderr(0, &["token ci-1 is revoked"]);
    run(&folder, &format!("token revoke ci-1 {server}")).expect_code(4);
    assert_eq!(daemon.send(Method::GET, "/tokens").await.json().as_array().unwrap().len(), 0);
    daemon.stop(Duration::ZERO).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_is_used_only_if_its_owner_alone_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let (_simulator, folder, daemon) = daemon_with_two_runs().await;
    let server = format!("--server http://{}", daemon.address());
    let token = run(&folder, &format!("token new --name ci --scope read {server}")).stdout;
    folder.write("token", &token);
    let permit = |mode| {
        std::fs::set_permissions(folder.path("token"), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    permit(0o640);
    let refused = run(&folder, &format!("runs {server} --token-file token"));
    refused.expect_stderr(4, &["cannot use the token file token", "chmod 600 token", "other than its owner"]);
    assert!(!refused.stderr.contains(token.trim()), "{}", refused.stderr);
    permit(0o600);
    run(&folder, &format!("runs {server} --token-file token")).expect_code(0);
    // The file and not the variable.
    let environment = [("POINTSMAN_TOKEN", "pmt_wrong")];
    run_with(&folder, &format!("runs {server} --token-file token"), &environment).expect_code(0);
    run(&folder, "runs --token-file token").expect_stderr(4, &["--server URL"]);
    daemon.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_says_why_it_cannot_ask_a_daemon() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let nowhere = unused_address();
    for command in
        ["runs", "report 1", "results 1", "failures 1", "cancel 1", "delete 1", "status", "token list"]
    {
        let failed = run(&folder, &format!("{command} --server http://{nowhere}"));
        let address = format!("cannot connect to the daemon at http://{nowhere}: ");
        failed.expect_stderr(4, &[&address, "is it running there?"]);
        assert_eq!(failed.stdout, "", "{command}");
    }
    // A web server of another kind.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One read is enough for a short request.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi");
        }
    });
    let failed = run(&folder, &format!("runs --server http://{other}"));
    failed.expect_stderr(4, &[&format!("what answers at http://{other} is not a pointsman daemon")]);
    let failed = run(&folder, &format!("runs --server https://{other}"));
    failed.expect_stderr(
        4,
        &[&format!("the daemon at https://{other} speaks http and not https: write http://")],
    );
    run(&folder, &format!("runs --server http://{other} --store sqlite:a.db")).expect_code(2);
    run(&folder, "runs --server 127.0.0.1:7700").expect_stderr(2, &["http://127.0.0.1:7700"]);
    let environment = [("POINTSMAN_SERVER", "nothing")];
    run_with(&folder, "runs", &environment).expect_stderr(4, &["POINTSMAN_SERVER: "]);
    run(&folder, &format!("run pipelines/one.toml --items a --server http://{other}"))
        .expect_stderr(2, &["POST /api/v1/runs"]);
    run(&folder, &format!("top --server http://{other}")).expect_code(2);
}

#[test]
fn the_terminal_view_is_listed_only_by_a_program_that_has_it() {
    let help = run_program(program("--help"));
    help.expect_code(0);
    let is_listed = help.stdout.lines().any(|line| line.trim_start().starts_with("top "));
    assert_eq!(is_listed, cfg!(feature = "tui"), "{}", help.stdout);
}

/// Runs a command of a shell in a terminal of 80 columns and 24 lines, and types these keys. Returns its exit code and what the
/// terminal got; `None` if the tool for it is not installed.
#[cfg(all(target_os = "linux", feature = "tui"))]
fn run_in_terminal(command: &str, keys: &str) -> Option<(Option<i32>, String)> {
    use std::process::{Command, Stdio};
    let script = format!("stty rows 24 cols 80; {command}");
    let mut terminal = Command::new("timeout");
    terminal.args(["--kill-after=1", "30", "script", "-qec", &script, "/dev/null"]);
    terminal.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        return None;
    }
    let mut terminal = terminal.spawn().unwrap();
    // Open until the end, because its end would end the terminal.
    let mut typed = terminal.stdin.take().unwrap();
    typed.write_all(keys.as_bytes()).unwrap();
    let mut shown = Vec::new();
    terminal.stdout.take().unwrap().read_to_end(&mut shown).unwrap();
    let code = terminal.wait().unwrap().code();
    drop(typed);
    Some((code, String::from_utf8_lossy(&shown).into_owned()))
}

#[cfg(all(target_os = "linux", feature = "tui"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_view_ends_by_a_key_or_a_signal_and_restores_the_terminal() {
    const ENTER: &str = "\u{1b}[?1049h";
    const LEAVE: &str = "\u{1b}[?1049l";
    let (_simulator, _folder, daemon) = daemon_with_two_runs().await;
    let top = format!("{} top --server http://{}", env!("CARGO_BIN_EXE_pointsman"), daemon.address());
    let by_signal = format!("exec timeout --foreground --preserve-status -s TERM 3 {top}");
    for (command, keys, expected) in [(format!("exec {top}"), "jkq", 0), (by_signal, "", 130)] {
        let Some((code, shown)) = block_in_place(|| run_in_terminal(&command, keys)) else { return };
        assert_eq!(code, Some(expected), "{shown}");
        let (_, screen) = shown.split_once(ENTER).unwrap_or_else(|| panic!("no screen: {shown:?}"));
        let (screen, after) = screen.split_once(LEAVE).unwrap_or_else(|| panic!("not restored: {shown:?}"));
        assert!(screen.contains("pointsman"), "{shown:?}");
        assert!(!after.contains(ENTER), "{shown:?}");
    }
    daemon.stop(Duration::ZERO).await;
}
