//! Runs over HTTP: how they are created, watched, controlled and read, and what is refused.

use std::collections::BTreeSet;
use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Latency, Settings, Simulator, Vendor};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::daemon::*;
use super::support::*;

const JSONL: &str = "application/x-ndjson";

/// Keeps four items in flight. With [`slow_simulator`], 200 items take a second and a half.
const FOUR_IN_FLIGHT: Extra<'static> =
    Extra { provider: "", serve: "", tables: "[run]\nmax_in_flight_items = 4" };

fn slow_simulator() -> Simulator {
    let latency = Latency::Fixed(Duration::from_millis(30));
    start_simulator(Settings { latency, track_prompts: true, ..Settings::default() })
}

/// Waits until a run has at least so many result lines. Returns them.
async fn wait_for_lines(daemon: &TestDaemon, run: i64, count: usize) -> Vec<Value> {
    let end = Instant::now() + MAX_WAIT;
    loop {
        let lines = daemon.results(run).await;
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < end, "run {run} has {} lines", lines.len());
        sleep(Duration::from_millis(20)).await;
    }
}

fn keys(lines: &[Value]) -> BTreeSet<String> {
    lines.iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect()
}

/// Asserts that a run has one line for each of the items of [`jsonl`].
#[track_caller]
fn assert_all_lines(lines: &[Value], count: usize) {
    let expected: BTreeSet<String> = (1..=count).map(|number| format!("i{number}")).collect();
    assert_eq!(keys(lines), expected);
    assert_eq!(lines.len(), count);
    assert!(lines.iter().all(|line| line["status"] == "completed"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_items_in_the_body_completes_and_all_its_parts_can_be_read() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let created = daemon.post_json("/runs", &json!({ "pipeline": "one", "items": values(5) })).await;
    assert_eq!((created.status, created.header("location")), (201, "/api/v1/runs/1"), "{created:?}");
    let run = created.json();
    assert_eq!((&run["run"], &run["pipeline"]), (&json!(1), &json!("one")));
    daemon.wait_for_state(1, "completed").await;
    assert_all_lines(&daemon.results(1).await, 5);
    let report = daemon.get("/runs/1/report").await.json();
    assert_eq!((&report["items"]["completed"], &report["run"]), (&json!(5), &json!(1)), "{report}");
    assert!(daemon.get("/runs/1/failures").await.lines().is_empty());
    assert!(daemon.get("/runs/1/rejects").await.lines().is_empty());
    assert_eq!(daemon.runs().await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_in_all_formats_give_the_same_lines() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let rows = |separator: &str| {
        let row = |number: usize| format!("i{number}{separator}thing {number}\n");
        format!("id{separator}text\n{}", (1..=30).map(row).collect::<String>())
    };
    let array = Value::Array(values(30)).to_string();
    for (media_type, body) in [
        (JSONL, jsonl(30)),
        ("application/jsonl; charset=utf-8", jsonl(30)),
        ("application/json", array),
        ("text/csv", rows(",")),
        ("text/tab-separated-values", rows("\t")),
    ] {
        let created = daemon.upload(media_type, body).await;
        assert_eq!(created.status, 201, "{media_type}: {created:?}");
        let run = created.json()["run"].as_i64().unwrap();
        assert_eq!(created.header("location"), format!("/api/v1/runs/{run}"));
        daemon.wait_for_state(run, "completed").await;
        assert_all_lines(&daemon.results(run).await, 30);
    }
    // The query says the format, whatever the type is.
    let request = daemon.request(Method::POST, "/runs/upload?pipeline=one&format=csv");
    let created = Answer::of(request.body(rows(","))).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!((folder.data_files("uploads"), folder.data_files("items")), (0, 6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_are_whole_lines_while_a_run_is_in_progress_and_continue_after_an_item() {
    let simulator = slow_simulator();
    let daemon = DaemonFolder::with(&simulator, &FOUR_IN_FLIGHT).start().await;
    let run = daemon.create_run(200).await;
    let some = wait_for_lines(&daemon, run, 10).await;
    assert!(some.len() < 200, "the run is too fast for this test");
    let shown = daemon.get(&format!("/runs/{run}")).await.json();
    assert_eq!(shown["state"], "running");
    assert!(shown["progress"]["items"]["completed"].as_u64().unwrap() >= 10, "{shown}");
    let unfinished = daemon.get(&format!("/runs/{run}/report")).await.json();
    assert_eq!(unfinished["outcome"], "running");
    daemon.wait_for_state(run, "completed").await;
    let all = daemon.results(run).await;
    assert_all_lines(&all, 200);
    // A download that was cut continues after the last line that arrived.
    let last = all[119]["key"].as_str().unwrap();
    let rest = daemon.get(&format!("/runs/{run}/results?after_key={last}")).await.lines();
    assert_eq!(rest, all[120..]);
    let item = daemon.get(&format!("/runs/{run}/items/{last}")).await.json();
    let rest = daemon.get(&format!("/runs/{run}/results?after={}", item["number"])).await.lines();
    assert_eq!(rest, all[120..]);
    daemon.get(&format!("/runs/{run}/results?after_key=none")).await.assert_problem(404, "none");
    daemon.get(&format!("/runs/{run}/results?after=1&after_key=i1")).await.assert_problem(400, "either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_in_csv_have_the_columns_of_the_command_line() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    let run = daemon.complete_run(120).await;
    let csv = daemon.get(&format!("/runs/{run}/results?format=csv&columns=full")).await;
    assert_eq!((csv.status, csv.header("content-type")), (200, "text/csv; charset=utf-8"));
    assert!(csv.header("content-disposition").contains(&format!("run-{run}.csv")));
    let mut rows = csv.text.lines();
    assert_eq!(
        rows.next(),
        Some(
            "id,text,answer,status,error,error_class,error_step,error_message,key,line,simulated,answer.provider,answer.model,\
             input_tokens,output_tokens,cost_usd,duration_seconds,attempts"
        )
    );
    let first: BTreeSet<&str> = rows.map(|row| row.split(',').next().unwrap()).collect();
    assert_eq!(first.len(), 120);
    // The rest of a file has no second header.
    let rest = daemon.get(&format!("/runs/{run}/results?format=csv&after=100")).await;
    assert_eq!(rest.text.lines().count(), 20);
    for (columns, header) in [
        ("", "id,text,answer,status,error"),
        ("&columns=default", "id,text,answer,status,error"),
        ("&columns=minimal", "key,answer"),
    ] {
        let csv = daemon.get(&format!("/runs/{run}/results?format=csv{columns}")).await;
        assert_eq!((csv.text.lines().next(), csv.text.lines().count()), (Some(header), 121));
    }
    let lines = daemon.get(&format!("/runs/{run}/results?item=true")).await.lines();
    assert_eq!(lines.len(), 120);
    assert!(lines.iter().all(|line| line["item"]["id"] == line["key"]), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_that_is_not_an_item_is_among_the_rejects() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    let nested = format!("{{\"id\":\"deep\",\"text\":{}", "[".repeat(100_000));
    let body = format!("{}no item\n{nested}\n{{\"id\":\"i4\",\"text\":\"d\"}}\n", jsonl(1));
    let created = daemon.upload(JSONL, body).await;
    let run = created.json()["run"].as_i64().unwrap();
    daemon.wait_for_state(run, "completed").await;
    assert_eq!(keys(&daemon.results(run).await), BTreeSet::from(["i1".to_owned(), "i4".to_owned()]));
    let rejects = daemon.get(&format!("/runs/{run}/rejects")).await.lines();
    let lines: Vec<u64> = rejects.iter().map(|reject| reject["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3], "{rejects:?}");
    let counts = json!({ "completed": 2, "failed": 0, "skipped": 0, "unfinished": 0, "rejected": 2 });
    assert_eq!(closed_run(&daemon, run).await["items"], counts);
    assert_eq!(daemon.get("/runs").await.json()["runs"][0]["items"], counts);
}

/// Returns a run when the daemon does not work on it any more.
async fn closed_run(daemon: &TestDaemon, run: i64) -> Value {
    let end = Instant::now() + MAX_WAIT;
    loop {
        let shown = daemon.get(&format!("/runs/{run}")).await.json();
        if shown["progress"].is_null() {
            return shown;
        }
        assert!(Instant::now() < end, "run {run} stays open: {shown}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_has_ended_shows_its_cost_over_all_sessions() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::Refusal)]);
    let folder = DaemonFolder::new(&simulator);
    let config = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    let priced = "models.m = { price = { input = 1.0, output = 5.0 } }";
    assert!(config.contains("models.m = {}"), "{config}");
    folder.write("config.toml", config.replace("models.m = {}", priced));
    let daemon = folder.start().await;
    let run = daemon.complete_run(3).await;
    let failed = closed_run(&daemon, run).await;
    assert_eq!((&failed["items"]["completed"], &failed["items"]["failed"]), (&json!(0), &json!(3)));
    simulator.set(Settings::default());
    assert_eq!(daemon.post(&format!("/runs/{run}/retry")).await.status, 200);
    daemon.wait_for_state(run, "completed").await;
    let retried = closed_run(&daemon, run).await;
    assert_eq!((&retried["items"]["completed"], &retried["items"]["failed"]), (&json!(3), &json!(0)));
    assert_eq!(retried["sessions"], 2);
    let cost = retried["cost_usd"].as_f64().unwrap();
    assert!(cost > failed["cost_usd"].as_f64().unwrap_or_default(), "{failed} {retried}");
    let report = daemon.get(&format!("/runs/{run}/report")).await.json();
    assert_eq!(report["cost_usd"].as_f64(), Some(cost), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_a_run_cannot_read_are_refused_and_leave_nothing() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    folder.write("items/wrong.csv", jsonl(2));
    let daemon = folder.start().await;
    let array = Value::Array(values(2)).to_string();
    let json = "application/json";
    let csv = "text/csv";
    let uploads = [
        (
            json,
            jsonl(2),
            "line 2, column 1: there is more after the end of the object; choose the format jsonl",
        ),
        (json, "[{\"id\":1},".to_owned(), "the input ends inside the array"),
        (JSONL, array, "format=json)"),
        (
            JSONL,
            "id,text\ni1,a\ni2,b\n".to_owned(),
            "none of the first records (3) is an item: line 1 is not JSON",
        ),
        (csv, jsonl(2), "format=jsonl)"),
        (csv, "id,text\n".to_owned(), "there is no item"),
        (JSONL, String::new(), "there is no item"),
        (JSONL, "\n \n".to_owned(), "there is no item"),
        (csv, "PK\u{3}\u{4}".to_owned(), "compressed, Parquet and Excel items are not read here"),
    ];
    let mut answers = Vec::new();
    for (media_type, items, part) in uploads {
        answers.push((daemon.upload(media_type, items).await, part));
    }
    for (items, part) in [(json!([]), "there is no item"), (json!([1, 2]), "is a number, not a JSON object")]
    {
        let body = json!({ "pipeline": "one", "items": items });
        answers.push((daemon.post_json("/runs", &body).await, part));
    }
    let of_path = daemon.post_json("/runs", &json!({ "pipeline": "one", "items_path": "wrong.csv" })).await;
    of_path.assert_problem(422, "wrong.csv, line 1: looks like JSON lines");
    for (answer, part) in &answers {
        answer.assert_problem(422, part);
        assert!(answer.text.contains("the items"), "{answer:?}");
        assert!(!answer.text.contains("runs.db-data"), "{answer:?}");
    }
    assert!(daemon.runs().await.is_empty());
    for folder_name in ["uploads", "items", "rejects"] {
        assert_eq!(folder.data_files(folder_name), 0, "{folder_name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packed_items_are_refused_whatever_their_format_is_said_to_be() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, jsonl(2).as_bytes()).unwrap();
    let packed = [
        ("items.jsonl.gz", encoder.finish().unwrap()),
        ("items.csv.zst", b"\x28\xb5\x2f\xfd\x04\x00".to_vec()),
        ("items.xlsx", b"PK\x03\x04\x14\0".to_vec()),
        ("items.parquet", b"PAR1\x15\x04\x15".to_vec()),
    ];
    for (name, bytes) in &packed {
        folder.write(&format!("items/{name}"), bytes);
    }
    let daemon = folder.start().await;
    let reason =
        "compressed, Parquet and Excel items are not read here; send them as JSON lines, JSON, CSV or TSV";
    for (name, bytes) in packed {
        for media_type in [JSONL, "application/json", "text/csv", "text/tab-separated-values"] {
            daemon.upload(media_type, bytes.clone()).await.assert_problem(422, reason);
        }
        let of_path = json!({ "pipeline": "one", "items_path": name });
        daemon.post_json("/runs", &of_path).await.assert_problem(422, reason);
        let of_format = json!({ "pipeline": "one", "items_path": name, "format": "jsonl" });
        daemon.post_json("/runs", &of_format).await.assert_problem(422, reason);
    }
    assert!(daemon.runs().await.is_empty());
    assert_eq!(folder.data_files("items"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_that_break_off_later_end_the_run_with_the_reason_and_its_class() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    let mut stream = daemon.events("/events", None).await;
    let array = Value::Array(values(1_100)).to_string();
    let created = daemon.upload("application/json", format!("{},7", array.trim_end_matches(']'))).await;
    assert_eq!(created.status, 201, "{created:?}");
    let ended = stream.next_of("run_ended").await.data;
    daemon.wait_for_state(1, "io_error").await;
    let shown = closed_run(&daemon, 1).await;
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.starts_with("the items, line 1, column "), "{shown}");
    assert!(reason.contains("the input ends inside"), "{shown}");
    assert_eq!(
        (&shown["class"], &shown["items"]["completed"]),
        (&json!("internal"), &json!(1_100)),
        "{shown}"
    );
    assert_eq!(ended["data"]["reason"], reason, "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_items_are_listed_and_retried() {
    let simulator = start_faulty_simulator([Fault::new(FaultKind::Refusal)]);
    let daemon = DaemonFolder::new(&simulator).start().await;
    let run = daemon.complete_run(5).await;
    let failures = daemon.get(&format!("/runs/{run}/failures")).await.lines();
    assert_eq!(failures.len(), 5);
    let fields: Vec<&str> = failures[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["key", "line", "class", "step", "message", "item"]);
    assert_eq!((&failures[0]["class"], &failures[0]["step"]), (&json!("content_filter"), &json!("answer")));
    assert_eq!(failures[0]["item"]["id"], failures[0]["key"]);
    let failed = daemon.get(&format!("/runs/{run}/items?status=failed")).await.json();
    assert_eq!(failed["items"].as_array().unwrap().len(), 5);
    assert_eq!(failed["items"][0]["error"]["class"], "content_filter");
    let none = daemon.get(&format!("/runs/{run}/items?status=completed")).await.json();
    assert_eq!((&none["items"], &none["next_cursor"]), (&json!([]), &Value::Null));
    simulator.set(Settings::default());
    let other = daemon.post_json(&format!("/runs/{run}/retry"), &json!({ "classes": ["truncated"] })).await;
    assert_eq!(other.status, 200, "{other:?}");
    daemon.wait_for_state(run, "completed").await;
    assert_eq!(daemon.get(&format!("/runs/{run}/failures")).await.lines().len(), 5);
    assert_eq!(daemon.post(&format!("/runs/{run}/retry")).await.status, 200);
    daemon.wait_for_state(run, "completed").await;
    assert_all_lines(&daemon.results(run).await, 5);
    assert!(daemon.get(&format!("/runs/{run}/failures")).await.lines().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_shows_as_complete_can_be_retried_and_deleted_at_once() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let run = daemon.complete_run(1).await;
    for _ in 0..40 {
        let retried = daemon.post_json(&format!("/runs/{run}/retry"), &json!({})).await;
        assert_eq!(retried.status, 200, "{retried:?}");
        // Without a pause between the views: the end is stored before the session has ended.
        while daemon.get(&format!("/runs/{run}")).await.json()["state"] != "completed" {}
    }
    let deleted = daemon.delete(&format!("/runs/{run}")).await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_items_have_every_item_once_with_its_attempts() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    let run = daemon.complete_run(50).await;
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = daemon.get(&format!("/runs/{run}/items?limit=7{cursor}")).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 7);
        found.extend(items.iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_all_lines(&found, 50);
    for item in &found {
        assert_eq!(item["fields"]["id"], item["key"]);
        let step = &item["steps"][0];
        assert_eq!((&step["step"], &step["state"]), (&json!("answer"), &json!("answered")));
        assert!(step["answer"].is_string(), "{item}");
        let attempt = &step["attempts"][0];
        assert_eq!((&attempt["target"], &attempt["outcome"]), (&json!("a/m"), &json!("answered")), "{item}");
        assert!(attempt["duration_seconds"].is_number() && attempt["tokens"]["input"].is_number(), "{item}");
    }
    let one = daemon.get(&format!("/runs/{run}/items/i7")).await.json();
    assert!(found.contains(&one));
    daemon.get(&format!("/runs/{run}/items/i51")).await.assert_problem(404, "i51");
    daemon.get(&format!("/runs/{run}/items?status=done")).await.assert_problem(400, "use open, completed");
    daemon.get(&format!("/runs/{run}/items?cursor=x")).await.assert_problem(422, "next_cursor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_a_slash_or_a_space_is_one_item() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    let items = json!([{ "id": "a/b c%", "text": "x" }]);
    let created = daemon.post_json("/runs", &json!({ "pipeline": "one", "items": items })).await.json();
    daemon.wait_for_state(created["run"].as_i64().unwrap(), "completed").await;
    let item = daemon.get("/runs/1/items/a%2Fb%20c%25").await;
    assert_eq!((item.status, &item.json()["key"]), (200, &json!("a/b c%")), "{item:?}");
    assert_eq!(daemon.get("/runs/1/results?after_key=a%2Fb%20c%25").await.lines().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_run_stays_paused_across_a_restart_until_it_is_resumed() {
    let simulator = slow_simulator();
    let folder = DaemonFolder::with(&simulator, &FOUR_IN_FLIGHT);
    let daemon = folder.start().await;
    let run = daemon.create_run(200).await;
    wait_for_lines(&daemon, run, 5).await;
    assert_eq!(daemon.post(&format!("/runs/{run}/hold")).await.status, 200);
    let held = daemon.wait_for_state(run, "paused").await;
    assert!(held["reason"].as_str().unwrap().contains("held by the operator"), "{held}");
    assert_eq!(held["class"], Value::Null);
    // Holding it again changes nothing.
    assert_eq!(daemon.post(&format!("/runs/{run}/hold")).await.json()["state"], "paused");
    daemon.stop(Duration::from_secs(5)).await;
    let daemon = folder.start().await;
    let before = daemon.results(run).await.len();
    assert!(before < 200);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(daemon.get(&format!("/runs/{run}")).await.json()["state"], "paused");
    assert_eq!(daemon.results(run).await.len(), before);
    let resumed = daemon.post(&format!("/runs/{run}/resume")).await;
    assert_eq!((resumed.status, &resumed.json()["state"]), (200, &json!("running")), "{resumed:?}");
    daemon.wait_for_state(run, "completed").await;
    assert_all_lines(&daemon.results(run).await, 200);
    daemon.post(&format!("/runs/{run}/resume")).await.assert_problem(409, "is complete");
    daemon.post(&format!("/runs/{run}/hold")).await.assert_problem(409, "cannot be held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_progress_is_deleted_only_after_it_was_cancelled() {
    let simulator = slow_simulator();
    let folder = DaemonFolder::with(&simulator, &FOUR_IN_FLIGHT);
    let daemon = folder.start().await;
    let run = daemon.create_run(2_000).await;
    wait_for_lines(&daemon, run, 5).await;
    daemon.delete(&format!("/runs/{run}")).await.assert_problem(409, "cancel it first");
    assert_eq!(daemon.post(&format!("/runs/{run}/cancel")).await.status, 200);
    daemon.wait_for_state(run, "cancelled").await;
    // This waits until its calls in flight were aborted.
    assert_eq!(daemon.delete(&format!("/runs/{run}")).await.status, 204);
    for path in ["", "/report", "/results", "/failures", "/rejects", "/items", "/items/i1", "/events"] {
        daemon.get(&format!("/runs/{run}{path}")).await.assert_problem(404, "there is no run");
    }
    daemon.post(&format!("/runs/{run}/cancel")).await.assert_problem(404, "there is no run");
    assert!(daemon.runs().await.is_empty());
    assert_eq!((folder.data_files("items"), folder.data_files("rejects")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_continues_by_itself_after_a_restart_and_no_item_is_lost_or_paid_twice() {
    let simulator = slow_simulator();
    let folder = DaemonFolder::with(&simulator, &FOUR_IN_FLIGHT);
    let daemon = folder.start().await;
    let run = daemon.create_run(250).await;
    wait_for_lines(&daemon, run, 20).await;
    // Calls in flight end within this time.
    daemon.stop(Duration::from_secs(10)).await;
    let before = simulator.counts().answered;
    assert!((20..250).contains(&before), "{before}");
    let daemon = folder.start().await;
    daemon.wait_for_state(run, "completed").await;
    assert_all_lines(&daemon.results(run).await, 250);
    let counts = simulator.counts();
    assert_eq!((counts.answered, counts.repeated_prompts), (250, Some(0)), "{counts:?}");
    let report = daemon.get(&format!("/runs/{run}/report")).await.json();
    assert_eq!(
        (&report["items"]["completed"], &report["items"]["failed"]),
        (&json!(250), &json!(0)),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_run_get_its_view_its_events_and_its_report() {
    let simulator = slow_simulator();
    let daemon = DaemonFolder::with(&simulator, &FOUR_IN_FLIGHT).start().await;
    let run = daemon.create_run(250).await;
    let path = format!("/runs/{run}/events");
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(daemon.events(&path, None).await);
    }
    let frames = daemon.events(&path, None).await.all().await;
    assert_eq!(frames[0].event, "start");
    assert!(frames[0].id.is_some());
    let views: Vec<&Value> =
        frames.iter().filter(|frame| frame.event == "run").map(|frame| &frame.data).collect();
    assert!(views.len() >= 2, "{frames:?}");
    assert_eq!((&views[0]["run"], &views[0]["state"]), (&json!(run), &json!("running")));
    assert!(views[0]["progress"].is_object());
    assert_eq!(views[views.len() - 1]["state"], "completed");
    let ended: Vec<&Frame> = frames.iter().filter(|frame| frame.event == "run_ended").collect();
    assert_eq!(ended.len(), 1, "{frames:?}");
    assert!(ended[0].id > frames[0].id && ended[0].data["run"] == run);
    let last = &frames[frames.len() - 1];
    assert_eq!((last.event.as_str(), &last.data["outcome"]), ("end", &json!("completed")));
    assert_eq!(last.data["items"]["completed"], 250);
    for other in others {
        let frames = other.all().await;
        assert_eq!(frames[frames.len() - 1].data, last.data);
        assert!(frames.iter().filter(|frame| frame.event == "run").count() >= 2);
    }
    // A client that comes again after the end gets what it missed, and the end.
    let frames = daemon.events(&path, frames[0].id).await.all().await;
    let kinds: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    assert!(kinds.contains(&"run_ended") && kinds.contains(&"run") && kinds.ends_with(&["end"]), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reconnects_gets_the_events_that_it_missed() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    let mut stream = daemon.events("/events", None).await;
    let position = stream.next_of("start").await.id.unwrap();
    drop(stream);
    let run = daemon.complete_run(3).await;
    let mut stream = daemon.events("/events", Some(position)).await;
    let mut kinds = Vec::new();
    let mut last = position;
    assert_eq!(stream.next().await.unwrap().event, "start");
    loop {
        let frame = stream.next().await.unwrap();
        assert_eq!(frame.data["run"], run, "{frame:?}");
        let id = frame.id.unwrap();
        assert!(id > last, "{frame:?}");
        last = id;
        kinds.push(frame.event);
        if kinds.len() == 3 {
            break;
        }
    }
    assert_eq!(kinds, ["run_created", "run_started", "run_ended"]);
    // Those of an earlier process are not remembered.
    let mut stream = daemon.events("/events", Some(1)).await;
    assert_eq!(stream.next().await.unwrap().event, "start");
    assert_eq!(stream.next().await.unwrap().event, "reset");
    let wrong = daemon.request(Method::GET, "/events").header("last-event-id", "abc");
    Answer::of(wrong).await.assert_problem(400, "Last-Event-ID");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_streams_end_when_the_daemon_stops() {
    let simulator = slow_simulator();
    let daemon = DaemonFolder::with(&simulator, &FOUR_IN_FLIGHT).start().await;
    let run = daemon.create_run(2_000).await;
    let mut all = daemon.events("/events", None).await;
    let mut of_run = daemon.events(&format!("/runs/{run}/events"), None).await;
    of_run.next_of("run").await;
    let stopping = {
        let daemon = daemon.daemon.clone();
        spawn(async move { daemon.drain(Duration::from_secs(5)).await })
    };
    all.next_of("stopping").await;
    timeout(Duration::from_secs(2), all.all()).await.unwrap();
    timeout(Duration::from_secs(2), of_run.all()).await.unwrap();
    stopping.await.unwrap();
    let refused = daemon.upload(JSONL, jsonl(1)).await;
    refused.assert_problem(503, "stopping");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 0);
}

/// Sends the head of an upload and a part of its body, and ends the connection: half, so that the answer can be read.
async fn send_cut_upload(daemon: &TestDaemon, head: &str, part: &str) -> String {
    let mut stream = TcpStream::connect(daemon.address()).await.unwrap();
    let text = format!(
        "POST /api/v1/runs/upload?pipeline=one HTTP/1.1\r\nhost: {}\r\ncontent-type: {JSONL}\r\n{head}\r\n\r\n{part}",
        daemon.address()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(MAX_WAIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_ends_early_creates_no_run_and_leaves_nothing() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let part = jsonl(3);
    let chunk = format!("{:x}\r\n{part}\r\n", part.len());
    for (head, part) in [
        ("content-length: 100000", part.as_str()),
        ("content-length: 100000", ""),
        ("transfer-encoding: chunked", chunk.as_str()),
        ("transfer-encoding: chunked", &chunk[..20]),
    ] {
        let answer = send_cut_upload(&daemon, head, part).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("ended early"), "{head}: {answer}");
    }
    // A client that is gone.
    let mut stream = TcpStream::connect(daemon.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/runs/upload?pipeline=one&format=jsonl HTTP/1.1\r\nhost: {}\r\ncontent-length: 100000\r\n\r\n{part}",
        daemon.address()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    wait_until("the upload has begun", || folder.data_files("uploads") == 1).await;
    drop(stream);
    wait_until("the upload is removed", || folder.data_files("uploads") == 0).await;
    assert!(daemon.runs().await.is_empty());
    assert_eq!((folder.data_files("items"), folder.data_files("rejects")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_pauses_too_long_is_refused() {
    // It also bounds the heads of the requests below, on a busy machine.
    let serve = "read_timeout = \"2s\"";
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::with(&simulator, &Extra { serve, ..Extra::default() });
    let daemon = folder.start().await;
    let mut stream = TcpStream::connect(daemon.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/runs/upload?pipeline=one&format=jsonl HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\r\n{}",
        daemon.address(),
        jsonl(1)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    timeout(MAX_WAIT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    assert_eq!(folder.data_files("uploads"), 0);
    assert!(daemon.runs().await.is_empty());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_path_leads_only_to_files_in_the_allowed_folders() {
    use std::os::unix::fs::symlink;
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    folder.write("outside.jsonl", jsonl(1));
    folder.write("items/ok.jsonl", jsonl(4));
    std::fs::create_dir(folder.path("items/sub")).unwrap();
    std::fs::create_dir(folder.path("items-not")).unwrap();
    folder.write("items-not/a.jsonl", jsonl(1));
    folder.write("items/sub/ok.csv", "id,text\ni1,a\n");
    symlink(folder.path("outside.jsonl"), folder.path("items/link.jsonl")).unwrap();
    symlink(folder.path(""), folder.path("items/up")).unwrap();
    symlink("ok.jsonl", folder.path("items/inner.jsonl")).unwrap();
    let pipe = folder.path("items/pipe.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let daemon = folder.start().await;
    let create = |path: String| json!({ "pipeline": "one", "items_path": path });
    let outside = folder.path("outside.jsonl").display().to_string();
    for wrong in [
        "../outside.jsonl",
        "sub/../../outside.jsonl",
        "./../items/../outside.jsonl",
        "../items-not/a.jsonl",
        "link.jsonl",
        "up/outside.jsonl",
        "pipe.jsonl",
        "sub",
        "missing.jsonl",
        "",
        ".",
        "/etc/passwd",
        "/dev/stdin",
        "ok.jsonl\0",
        outside.as_str(),
    ] {
        let answer = daemon.post_json("/runs", &create(wrong.to_owned())).await;
        // The same text for all: it does not say what exists.
        answer.assert_problem(422, "is not a file in a folder of `items` in [serve]");
    }
    assert!(daemon.runs().await.is_empty());
    let absolute = folder.path("items/ok.jsonl").display().to_string();
    for (path, items) in [("ok.jsonl", 4), ("inner.jsonl", 4), ("sub/ok.csv", 1), (absolute.as_str(), 4)] {
        let created = daemon.post_json("/runs", &create(path.to_owned())).await;
        assert_eq!(created.status, 201, "{path}: {created:?}");
        let run = created.json()["run"].as_i64().unwrap();
        daemon.wait_for_state(run, "completed").await;
        assert_eq!(daemon.results(run).await.len(), items, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_runs_has_every_run_once_the_newest_first() {
    let simulator = start_simulator(Settings::default());
    let daemon = DaemonFolder::new(&simulator).start().await;
    for _ in 0..5 {
        daemon.complete_run(1).await;
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = daemon.get(&format!("/runs?limit=2&pipeline=one&state=completed{cursor}")).await.json();
        let runs = page["runs"].as_array().unwrap();
        assert!((1..=2).contains(&runs.len()), "{page}");
        found.extend(runs.iter().map(|run| run["run"].as_i64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, [5, 4, 3, 2, 1]);
    for nothing in ["state=paused", "state=holding", "state=crashed", "state=empty", "pipeline=two"] {
        let page = daemon.get(&format!("/runs?{nothing}")).await.json();
        assert_eq!(page, json!({ "runs": [], "next_cursor": null }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_request_is_refused_with_a_problem_and_creates_nothing() {
    let serve = "max_body = \"200KiB\"\nmax_upload = \"200KiB\"";
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::with(&simulator, &Extra { serve, ..Extra::default() });
    let daemon = folder.start().await;
    let create = async |body: String| {
        let request = daemon.request(Method::POST, "/runs").header(CONTENT_TYPE, "application/json");
        Answer::of(request.body(body)).await
    };
    let nested = format!("{{\"pipeline\":\"one\",\"items\":{}", "[".repeat(100_000));
    create(nested).await.assert_problem(400, "recursion limit");
    let closed = format!("{{\"pipeline\":\"one\",\"items\":[{}{}]}}", "[".repeat(90_000), "]".repeat(90_000));
    create(closed).await.assert_problem(400, "recursion limit");
    create("{\"pipeline\":\"one\"".to_owned()).await.assert_problem(400, "EOF");
    create("{\"pipeline\":\"one\"}".to_owned()).await.assert_problem(400, "either `items` or `items_path`");
    create("{\"pipeline\":\"one\",\"itmes\":[]}".to_owned()).await.assert_problem(400, "itmes");
    create("{\"pipeline\":\"two\",\"items\":[]}".to_owned()).await.assert_problem(404, "two");
    create("{\"pipeline\":\"one\",\"items\":[],\"max_cost_usd\":-1}".to_owned())
        .await
        .assert_problem(400, "max_cost_usd");
    create(" ".repeat(300_000)).await.assert_problem(413, "204800 bytes");
    let typed = daemon.request(Method::POST, "/runs").header(CONTENT_TYPE, "text/plain").body("{}");
    Answer::of(typed).await.assert_problem(415, "application/json");

    daemon.upload(JSONL, jsonl(20_000)).await.assert_problem(413, "204800 bytes");
    let pieces = (0..1_000).map(|_| Ok::<_, std::io::Error>(jsonl(10)));
    let streamed = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    daemon.upload(JSONL, streamed).await.assert_problem(413, "204800 bytes");
    for media_type in ["application/octet-stream", "text/plain", "", "application/x-www-form-urlencoded"] {
        daemon.upload(media_type, jsonl(1)).await.assert_problem(415, "format=jsonl");
    }
    let packed = daemon.request(Method::POST, "/runs/upload?pipeline=one&format=jsonl");
    let packed = packed.header(CONTENT_ENCODING, "gzip").body(jsonl(1));
    Answer::of(packed).await.assert_problem(415, "uncompressed");
    for (query, status, part) in [
        ("pipeline=two&format=jsonl", 404, "two"),
        ("format=jsonl", 400, "pipeline"),
        ("pipeline=one&format=xml", 400, "xml"),
        ("pipeline=one&format=jsonl&max_cost_usd=abc", 400, "query"),
        ("pipeline=one&format=jsonl&max_cost_usd=0", 400, "max_cost_usd"),
        ("pipeline=one&format=jsonl&max_cost_usd=0.5", 422, "a/m has no price"),
        ("pipeline=one&format=jsonl&more=1", 400, "more"),
    ] {
        let request = daemon.request(Method::POST, &format!("/runs/upload?{query}")).body(jsonl(1));
        Answer::of(request).await.assert_problem(status, part);
    }

    for path in
        ["/runs/abc", "/runs/-1", "/runs/99999999999999999999", "/runs/1/nothing", "/nothing", "/runs/"]
    {
        daemon.get(path).await.assert_problem(404, "there is no");
    }
    daemon.get("/runs/7").await.assert_problem(404, "there is no run");
    daemon.get("/runs?limit=abc").await.assert_problem(400, "query");
    daemon.get("/runs?state=asleep").await.assert_problem(400, "asleep");
    daemon.get("/runs?state=asleep").await.assert_problem(400, "holding, paused");
    daemon.get("/runs?cursor=abc").await.assert_problem(422, "cursor");
    let wrong_method = daemon.send(Method::PATCH, "/runs/7").await;
    wrong_method.assert_problem(405, "use ");
    let allowed: BTreeSet<&str> = wrong_method.header("allow").split(", ").collect();
    assert_eq!(allowed, BTreeSet::from(["DELETE", "GET", "HEAD"]));
    daemon.get("/runs/upload").await.assert_problem(405, "POST");
    daemon.get("/runs/7/hold").await.assert_problem(405, "POST");
    assert!(daemon.runs().await.is_empty());
    for folder_name in ["uploads", "items", "rejects"] {
        assert_eq!(folder.data_files(folder_name), 0, "{folder_name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_that_is_repeated_with_its_idempotency_key_creates_one_run() {
    let simulator = start_simulator(Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let create = async |key: &str, items: usize| {
        let request = daemon.request(Method::POST, "/runs").header(CONTENT_TYPE, "application/json");
        let body = json!({ "pipeline": "one", "items": values(items) }).to_string();
        Answer::of(request.header("idempotency-key", key).body(body)).await
    };
    let upload = async |key: &str, items: usize| {
        let request = daemon.request(Method::POST, "/runs/upload?pipeline=one&format=jsonl");
        Answer::of(request.header("idempotency-key", key).header(ACCEPT, "*/*").body(jsonl(items))).await
    };
    let first = create("a", 2).await;
    let again = create("a", 2).await;
    assert_eq!((first.status, again.status), (201, 201), "{first:?} {again:?}");
    assert_eq!(
        (first.text.as_str(), first.header("location")),
        (again.text.as_str(), again.header("location"))
    );
    assert_eq!((first.header("idempotent-replayed"), again.header("idempotent-replayed")), ("", "true"));
    create("a", 3).await.assert_problem(422, "another request");
    let first = upload("b", 2).await;
    let again = upload("b", 2).await;
    assert_eq!((first.status, first.text.as_str()), (201, again.text.as_str()), "{first:?} {again:?}");
    upload("b", 3).await.assert_problem(422, "another request");
    upload("a", 2).await.assert_problem(422, "another request");
    upload("a b", 2).await.assert_problem(422, "visible ASCII");
    assert_eq!(daemon.runs().await, [2, 1]);
    assert_eq!((folder.data_files("uploads"), folder.data_files("items")), (0, 2));
    // Also after a restart.
    for run in [1, 2] {
        daemon.wait_for_state(run, "completed").await;
    }
    daemon.stop(Duration::from_secs(1)).await;
    let daemon = folder.start().await;
    let request = daemon.request(Method::POST, "/runs/upload?pipeline=one&format=jsonl");
    let again = Answer::of(request.header("idempotency-key", "b").body(jsonl(2))).await;
    assert_eq!((again.status, again.text.as_str()), (201, first.text.as_str()), "{again:?}");
    assert_eq!(daemon.runs().await, [2, 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_selects_by_the_state_that_it_shows() {
    let simulator = slow_simulator();
    let daemon = DaemonFolder::new(&simulator).start().await;
    let completed = daemon.complete_run(1).await;
    assert_eq!(
        daemon.post_json("/providers/a/breaker", &json!({ "model": "m", "state": "open" })).await.status,
        200
    );
    let waiting = daemon.create_run(1).await;
    let shown = daemon.wait_for_state(waiting, "holding").await;
    assert!(shown["reason"].is_string(), "{shown}");
    let listed = async |state: &str| {
        let page = daemon.get(&format!("/runs?state={state}")).await.json();
        page["runs"].as_array().unwrap().iter().map(|run| run["run"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(listed("holding").await, [waiting]);
    assert!(listed("running").await.is_empty());
    assert_eq!(listed("completed").await, [completed]);
    assert_eq!(daemon.post(&format!("/runs/{waiting}/cancel")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_run_is_refused_with_advice_for_the_api_until_the_changes_are_accepted() {
    let simulator = slow_simulator();
    let folder = DaemonFolder::with(&simulator, &FOUR_IN_FLIGHT);
    let daemon = folder.start().await;
    let run = daemon.create_run(100).await;
    wait_for_lines(&daemon, run, 5).await;
    daemon.post(&format!("/runs/{run}/hold")).await;
    daemon.wait_for_state(run, "paused").await;
    let other = slow_simulator();
    let text = std::fs::read_to_string(folder.path("config.toml")).unwrap();
    let moved = text.replace(&simulator.base_url(Vendor::OpenAi), &other.base_url(Vendor::OpenAi));
    folder.write("config.toml", moved);
    assert_eq!(daemon.post("/config/reload").await.status, 200);
    for action in ["resume", "retry"] {
        let refused = daemon.post(&format!("/runs/{run}/{action}")).await;
        refused.assert_problem(409, "has changed since it began");
        let problem = refused.json();
        assert_eq!((&problem["type"], &problem["class"]), (&json!("/problems/changed"), &json!("changed")));
        let advice = problem["advice"].as_str().unwrap();
        assert!(advice.contains("{\"accept_changes\": true}"), "{problem}");
        // The advice is there once, and not that of the library.
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.contains("accept") && !detail.contains("begin a new run"), "{problem}");
    }
    let accepted = daemon.post_json(&format!("/runs/{run}/resume"), &json!({ "accept_changes": true })).await;
    assert_eq!(accepted.status, 200, "{accepted:?}");
    daemon.wait_for_state(run, "completed").await;
}
