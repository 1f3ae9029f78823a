//! The commands for stored runs.

use std::collections::BTreeSet;

use pointsman::simulator::Settings;
use serde_json::Value;
use sqlx::{Connection, Executor, SqliteConnection};

use super::program::*;
use super::support::{provider_config, start_simulator};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Returns the number of sent calls of a report.
fn sent_calls(report: &Value) -> u64 {
    report["calls"]["sent"].as_u64().unwrap()
}

#[test]
fn a_complete_run_has_nothing_to_do_and_new_processes_every_item_again() {
    let workspace = Workspace::new("");
    workspace.write_items(5);
    workspace.run(RUN).expect_code(0);
    let lines = workspace.read("o.jsonl");
    let second_run = workspace.run(RUN);
    second_run.expect_stderr(
        0,
        &[
            "run 1 is complete, and there is nothing to do: 5 completed",
            "--new --overwrite processes every item again",
        ],
    );
    assert_eq!(workspace.read("o.jsonl"), lines);
    workspace.run(&format!("{RUN} --new --overwrite")).expect_stderr(0, &["5 calls"]);
    let listed = workspace.run("runs");
    listed.expect_code(0);
    assert_eq!(listed.stdout.lines().count(), 3, "{}", listed.stdout);
    assert!(listed.stdout.contains("complete") && listed.stdout.contains("items.jsonl"), "{}", listed.stdout);
}

#[test]
fn a_lost_or_truncated_output_is_restored_without_a_call() {
    let workspace = Workspace::new("");
    workspace.write_items(20);
    workspace.run(RUN).expect_code(0);
    let complete = workspace.output_lines("o.jsonl");
    let text = workspace.read("o.jsonl");
    for damaged in ["", &text[..text.len() / 2], &format!("{text}{{\"key\":\"i1")] {
        workspace.write("o.jsonl", damaged);
        workspace.run(&format!("{RUN} --report r.json")).expect_code(0);
        assert_eq!(sent_calls(&workspace.read_json("r.json")), 0);
        let mut lines = workspace.output_lines("o.jsonl");
        let by_key = |line: &Value| line["key"].to_string();
        lines.sort_by_key(by_key);
        let mut expected = complete.clone();
        expected.sort_by_key(by_key);
        assert_eq!(lines, expected);
    }
    let temporary = std::fs::read_dir(workspace.path("")).unwrap().map(|file| file.unwrap().file_name());
    let temporary: Vec<_> = temporary.filter(|name| name.to_string_lossy().contains("o.jsonl.")).collect();
    assert!(temporary.is_empty(), "{temporary:?}");
}

#[test]
fn resume_does_not_name_options_that_only_run_has() {
    let workspace = Workspace::new("");
    workspace.write_items(5);
    workspace.run(RUN).expect_code(0);
    workspace.write("pipeline.toml", ONE_STEP.replace("something", "nothing"));
    let changed = workspace.run("resume 1");
    changed.expect_stderr(3, &["--accept-changes", "begin a new run (pointsman run ... --new)"]);
    workspace.write_config("[provider.p]\nkeys = [\"env:P_KEY\"]\nmodels.m = {}");
    let keyless = workspace.run("resume 1");
    keyless.expect_stderr(3, &["has no usable key", "set P_KEY"]);
    assert!(!keyless.stderr.contains("simulate"), "{}", keyless.stderr);
    workspace.run(RUN).expect_stderr(3, &["set P_KEY, or simulate the answers (--simulate)"]);
}

#[test]
fn a_changed_pipeline_needs_accept_changes_and_leaves_the_output_unchanged() {
    let workspace = Workspace::new("");
    workspace.write_items(5);
    workspace.run(RUN).expect_code(0);
    let lines = workspace.read("o.jsonl");
    workspace.write("pipeline.toml", ONE_STEP.replace("something", "nothing"));
    workspace.run(RUN).expect_stderr(
        3,
        &["run 1 has changed since it began: changed steps: answer", "--accept-changes", "--new"],
    );
    assert_eq!(workspace.read("o.jsonl"), lines);
    workspace.run(&format!("{RUN} --accept-changes")).expect_stderr(0, &["5 calls"]);
    workspace.run(RUN).expect_stderr(0, &["there is nothing to do"]);
}

#[test]
fn a_stopped_run_is_resumed_by_its_number_from_any_directory() {
    let workspace = Workspace::new("[simulator]\nlatency = \"50ms\"\n[run]\nmax_in_flight_items = 4");
    workspace.write_items(60);
    let mut stopped = start_program(workspace.command(&format!("{RUN} --json")));
    stopped.wait_for_line("\"progress\"");
    stopped.signal("INT");
    stopped
        .wait()
        .expect_stderr(130, &["run 1 is stored in sqlite:pointsman.db: `pointsman resume 1` resumes it"]);
    let before = workspace.output_lines("o.jsonl").len() as u64;
    assert!(before < 60);
    workspace.run("runs").expect_stderr(0, &[]);
    assert!(workspace.run("runs").stdout.contains("stopped"));

    let other_directory = Workspace::empty();
    let store = format!("--store sqlite:{}", workspace.path("pointsman.db").display());
    other_directory.run(&format!("resume {store}")).expect_stderr(0, &["resuming run 1", "60 completed"]);
    let keys: BTreeSet<String> =
        workspace.output_lines("o.jsonl").iter().map(|line| line["key"].to_string()).collect();
    assert_eq!((keys.len(), workspace.output_lines("o.jsonl").len()), (60, 60));
    let report = other_directory.run(&format!("report 1 --json {store}"));
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((sent_calls(&report), report["items"]["completed"].as_u64()), (60, Some(60)));
    other_directory.run(&format!("resume {store}")).expect_stderr(0, &["there is no run to resume"]);
}

/// Returns the only row of `runs --json`.
fn listed_run(workspace: &Workspace) -> Value {
    let listed = workspace.run("runs --json");
    listed.expect_code(0);
    serde_json::from_str(&listed.stdout).unwrap()
}

/// Returns the report of run 1.
fn stored_report(workspace: &Workspace) -> Value {
    let report = workspace.run("report 1 --json");
    report.expect_code(0);
    serde_json::from_str(&report.stdout).unwrap()
}

/// Waits until the progress of a running program counts completed items.
fn wait_for_completed_items(running: &mut RunningProgram) {
    loop {
        let line: Value = serde_json::from_str(&running.wait_for_line("\"progress\"")).unwrap();
        if line["progress"]["items"]["completed"].as_u64().unwrap() > 0 {
            return;
        }
    }
}

#[test]
fn a_stopped_run_is_listed_with_the_totals_of_its_own_report() {
    let workspace = Workspace::new("[simulator]\nlatency = \"3s\"\n[run]\nmax_in_flight_items = 4");
    workspace.write_items(500);
    let mut stopped = start_program(workspace.command(&format!("{RUN} --json --report r.json")));
    wait_for_completed_items(&mut stopped);
    // The next items are in flight for three seconds.
    stopped.signal("INT");
    stopped.wait_for_line("press Ctrl-C again to stop now");
    stopped.signal("INT");
    stopped.wait().expect_code(130);
    let own = workspace.read_json("r.json");
    assert!(own["items"]["unfinished"].as_u64().unwrap() > 0, "{own}");
    assert!(own["unprocessed"]["estimated_items"].as_u64().unwrap() > 400, "{own}");

    let row = listed_run(&workspace);
    let report = stored_report(&workspace);
    for count in ["completed", "failed", "skipped", "unfinished", "rejected", "unwritten", "not_processed"] {
        assert_eq!(report["items"][count], own["items"][count], "{count}");
        assert_eq!(row[count], own["items"][count], "{count}");
    }
    assert_eq!((&report["items"]["paused"], &own["items"]["paused"]), (&0.into(), &0.into()));
    for field in ["run", "outcome", "calls", "cost_usd"] {
        assert_eq!(report[field], own[field], "{field}");
    }
    // The last digit of a number may change when it is stored.
    let is_near = |one: &Value, other: &Value| (one.as_f64().unwrap() - other.as_f64().unwrap()).abs() < 1e-6;
    assert!(is_near(&report["duration_seconds"], &own["duration_seconds"]), "{report}");
    for unprocessed in [&report["unprocessed"], &row["unprocessed"]] {
        assert_eq!(unprocessed["estimated_items"], own["unprocessed"]["estimated_items"]);
        assert!(is_near(&unprocessed["fraction"], &own["unprocessed"]["fraction"]), "{unprocessed}");
    }
    assert_eq!(row["calls"], own["calls"]["sent"]);
    assert_eq!((&row["run"], &row["lost_session"], &own["run"]), (&1.into(), &false.into(), &1.into()));
    let text = workspace.run("report 1").stdout;
    assert!(
        text.contains("one [simulated] (stopped): ") && text.contains("of the input was not started"),
        "{text}"
    );
    let listed = workspace.run("runs").stdout;
    let about = format!("about {}", own["unprocessed"]["estimated_items"]);
    assert!(listed.contains("stopped") && listed.contains(&about), "{listed}");

    workspace.write_config("");
    workspace.run(&format!("{RUN} --report r.json")).expect_stderr(0, &["500 completed"]);
    assert_eq!(stored_report(&workspace)["items"]["completed"], 500);
    let row = listed_run(&workspace);
    assert_eq!((&row["unfinished"], &row["unprocessed"]), (&0.into(), &Value::Null));
}

#[test]
fn a_running_and_a_killed_run_have_no_duration_and_the_cost_of_a_killed_run_is_a_lower_bound() {
    let price = "models.any = { price = { input = 1, output = 5 } }";
    let provider = format!("[provider.p]\nbase_url = \"simulator\"\n{price}\n");
    let slow = "[simulator]\nlatency = \"3s\"\n[run]\nmax_in_flight_items = 4\n";
    let workspace = Workspace::new(&format!("{provider}{slow}"));
    workspace.write_items(500);
    let mut killed = start_program(workspace.command(&format!("{RUN} --json")));
    wait_for_completed_items(&mut killed);
    let report = stored_report(&workspace);
    assert_eq!((&report["outcome"], &report["state"]), (&"running".into(), &"running".into()));
    assert_eq!((&report["duration_seconds"], &report["items_per_second"]), (&Value::Null, &Value::Null));
    let text = workspace.run("report 1").stdout;
    assert!(text.contains("(running): ") && !text.contains("items/s"), "{text}");
    assert!(text.contains("it is not known how much of the input was not started"), "{text}");
    killed.signal("KILL");
    killed.wait();

    let report = stored_report(&workspace);
    assert_eq!((&report["state"], &report["lost_session"]), (&"crashed".into(), &true.into()));
    assert_eq!(report["duration_seconds"], Value::Null);
    let text = workspace.run("report 1").stdout;
    for words in ["(crashed): ", "cost at least $", "the end of a session is not stored"] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    let listed = workspace.run("runs").stdout;
    assert!(listed.contains("crashed") && listed.contains('?') && listed.contains("at least $"), "{listed}");

    // The next session knows what is left, and not what the killed one has sent.
    workspace.write_config(&provider);
    workspace.run(RUN).expect_stderr(0, &["500 completed"]);
    let report = stored_report(&workspace);
    assert_eq!((&report["state"], &report["lost_session"]), (&"completed".into(), &true.into()));
    assert_eq!((&report["duration_seconds"], &report["unprocessed"]), (&Value::Null, &Value::Null));
    assert_eq!(listed_run(&workspace)["lost_session"], true);
}

#[test]
fn the_list_of_runs_and_the_report_say_why_a_run_ended_with_an_io_error() {
    let workspace = Workspace::new("");
    workspace.write_items(20);
    let run = RUN.replace("o.jsonl", "/dev/full");
    let failed = workspace.run(&format!("{run} --report r.json"));
    failed.expect_code(4);
    let own = workspace.read_json("r.json");
    let reason = own["output_error"].as_str().unwrap();
    assert_eq!(stored_report(&workspace)["output_error"], reason);
    assert_eq!(listed_run(&workspace)["output_error"], reason);
    for command in ["report 1", "runs"] {
        let text = workspace.run(command).stdout;
        assert!(text.contains("io_error") && text.contains(&format!("error: {reason}")), "{text}");
    }
}

#[test]
fn failed_items_with_the_same_content_are_retried_each_with_its_key() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"bad\" }]");
    workspace.write("items.csv", "text\nbad\ngood\nbad\ngood\nbad\n");
    let run = "run pipeline.toml --items items.csv --out o.jsonl --ordered";
    workspace.run(run).expect_stderr(1, &["2 completed, 3 failed"]);
    let before = keys(&workspace.output_lines("o.jsonl"));
    assert_eq!([&before[2], &before[4]], [&format!("{}-2", before[0]), &format!("{}-3", before[0])]);
    workspace.write_config("");
    // The failed items are read from the store.
    let items = workspace.read("items.csv");
    std::fs::remove_file(workspace.path("items.csv")).unwrap();
    workspace.run("retry 1").expect_stderr(0, &["3 completed"]);
    workspace.write("items.csv", items);
    workspace.run(run).expect_code(0);
    let lines = workspace.output_lines("o.jsonl");
    assert_eq!(keys(&lines), before);
    assert!(lines.iter().all(|line| line["status"] == "completed"), "{lines:?}");
}

#[test]
fn only_failed_items_are_listed_and_retried() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]");
    workspace.write_items(40);
    workspace.run(RUN).expect_stderr(1, &["`pointsman retry 1` processes the failed items again"]);
    let failed = |workspace: &Workspace| {
        workspace.output_lines("o.jsonl").iter().filter(|line| line["status"] == "failed").count()
    };
    let before = failed(&workspace);
    assert!((1..40).contains(&before));
    let listed = workspace.run("failures 1");
    listed.expect_stderr(0, &[&format!("{before} items failed")]);
    assert_eq!(listed.stdout.lines().count(), before);
    let json = workspace.run("failures 1 --json").stdout;
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["class"].as_str(), first["item"]["id"].as_str()),
        (Some("content_filter"), first["key"].as_str())
    );

    workspace.run("retry 1 --class timeout").expect_stderr(1, &["no failed items of this kind"]);
    workspace.run("retry 1 --class nonsense").expect_stderr(2, &["unknown class", "content_filter"]);
    // The items are stored, so their file is not needed.
    std::fs::remove_file(workspace.path("items.jsonl")).unwrap();
    workspace.write_config("");
    workspace
        .run("retry 1 --class content_filter --class timeout")
        .expect_stderr(0, &[&format!("{before} completed")]);
    assert_eq!((failed(&workspace), workspace.output_lines("o.jsonl").len()), (0, 40));
    assert!(workspace.run("runs").stdout.contains("complete"));
    let first_line =
        |key: &str| workspace.output_lines("o.jsonl").into_iter().find(|line| line["key"] == key).unwrap();
    assert_eq!(first_line("i40")["line"], 40);
}

#[test]
fn results_are_exported_at_any_time_in_both_formats() {
    let workspace = Workspace::new("");
    workspace.write_items(7);
    workspace.run(RUN).expect_code(0);
    let lines = workspace.run("results 1");
    lines.expect_code(0);
    assert_eq!(lines.stdout.lines().count(), 7);
    let mut written: Vec<_> = workspace.read("o.jsonl").lines().map(str::to_owned).collect();
    let mut exported: Vec<_> = lines.stdout.lines().map(str::to_owned).collect();
    written.sort();
    exported.sort();
    assert_eq!(exported, written, "an exported line equals the line that was written first");
    workspace.run("results 1 --out o.csv").expect_code(0);
    assert_eq!(csv::Reader::from_path(workspace.path("o.csv")).unwrap().records().count(), 7);
    workspace.run("results 1 --format csv").expect_code(0);
    workspace
        .run("results 9")
        .expect_stderr(4, &["there is no run 9 in this database; list its runs (pointsman runs)"]);
}

#[test]
fn a_cancelled_run_is_not_resumed_and_a_deleted_run_is_gone() {
    let workspace = Workspace::new("[simulator]\nlatency = \"10s\"");
    workspace.write_items(3);
    let mut running = start_program(workspace.command(&format!("{RUN} --json")));
    running.wait_for_line("\"in_flight\":3");
    workspace.run(RUN).expect_stderr(4, &["run 1 is in use by process"]);
    assert!(workspace.run("runs").stdout.contains("running"));
    assert_eq!(workspace.run("results 1").expect_code(0), "", "no item has finished");
    workspace.run("delete 1").expect_stderr(4, &["run 1 is in use by process"]);
    workspace.run("cancel 1").expect_stderr(0, &["run 1 is being cancelled"]);
    let next = "run 1 was cancelled: the same `pointsman run` with --overwrite begins a new run, `pointsman resume 1` resumes this one";
    running.wait().expect_stderr(130, &[next]);
    assert!(workspace.run("runs").stdout.contains("cancelled"));
    assert!(workspace.run("report 1").stdout.contains(next));

    workspace.write_config("");
    workspace.run(RUN).expect_stderr(0, &["3 completed"]);
    assert!(!workspace.run("results 2").stdout.is_empty());
    workspace.run("cancel 2").expect_stderr(4, &["run 2 is complete"]);
    workspace.run("delete --older-than 1d").expect_stderr(0, &["0 runs deleted, 2 left"]);
    workspace.run("delete 1 2").expect_stderr(0, &["2 runs deleted, 0 left"]);
    workspace.run("runs").expect_stderr(0, &["no runs are stored"]);
}

#[test]
fn without_a_store_nothing_is_stored_and_commands_that_need_one_fail() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.run("runs").expect_stderr(4, &["no runs are stored here: pointsman.db does not exist"]);
    workspace.run(&format!("{RUN} --store none")).expect_code(0);
    workspace.run(&format!("{RUN} --store none --overwrite")).expect_stderr(0, &["3 calls"]);
    assert!(!workspace.path("pointsman.db").exists());
    workspace.write_config("[store]\nurl = \"none\"");
    workspace.run("runs").expect_stderr(4, &["runs are not stored: [store] url is \"none\""]);
    workspace
        .run(&format!("{RUN} --store runs.db"))
        .expect_stderr(2, &["\"runs.db\" is not a store: write \"sqlite:runs.db\""]);
    workspace
        .run(&format!("{RUN} --store sqlite:no/such/runs.db"))
        .expect_stderr(4, &["cannot open the database no/such/runs.db", "check that its directory exists"]);
    workspace.write("other.db", "this file is not a database, although its name ends in .db");
    workspace.run(&format!("{RUN} --store sqlite:other.db")).expect_stderr(4, &["other.db"]);
    assert_eq!(workspace.read("other.db"), "this file is not a database, although its name ends in .db");
}

#[test]
fn a_run_from_stdin_resumes_when_its_items_are_piped_again() {
    let workspace = Workspace::new("");
    workspace.write_items(4);
    let piped = |more: &str| {
        let program = workspace.command(&format!("run pipeline.toml --items - {more}"));
        run_program_with_stdin(program, workspace.read("items.jsonl").as_bytes())
    };
    piped("").expect_stderr(0, &["4 calls"]);
    let second_run = piped("");
    second_run.expect_stderr(0, &["resuming run 1: 4 items finished before"]);
    assert_eq!(second_run.stdout.lines().count(), 4);
    second_run.expect_stderr(0, &["SIMULATED"]);
    assert!(second_run.stderr.contains("0 calls"), "{}", second_run.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_and_real_answers_never_replace_each_other() {
    let simulator = start_simulator(Settings::default());
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.run(RUN).expect_stderr(0, &["SIMULATED", "3 calls"]);
    workspace.write_config(provider_config("a", &simulator, ""));
    let real = workspace.run(&format!("{RUN} --overwrite"));
    real.expect_stderr(0, &["3 calls"]);
    assert!(!real.stderr.contains("resuming run") && !real.stderr.contains("SIMULATED"), "{}", real.stderr);
    assert_eq!(simulator.counts().requests, 3);
    assert!(workspace.output_lines("o.jsonl").iter().all(|line| line["simulated"] == false));

    workspace.write_config("");
    // Nor do simulated answers overwrite real ones.
    workspace
        .run(&format!("{RUN} --report r.json --overwrite"))
        .expect_stderr(4, &["o.jsonl holds real answers"]);
    workspace
        .run(&format!("{} --report s.json", RUN.replace("o.jsonl", "s.jsonl")))
        .expect_stderr(0, &["resuming run 1: 3 items finished before", "SIMULATED"]);
    workspace.write_config(provider_config("a", &simulator, ""));
    workspace
        .run(&format!("{RUN} --report r.json"))
        .expect_stderr(0, &["resuming run 2: 3 items finished before"]);
    assert_eq!(simulator.counts().requests, 3);
}

#[test]
fn an_export_overwrites_no_file_that_the_run_needs() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.run(RUN).expect_code(0);
    for name in ["pointsman.db", "items.jsonl", "config.toml", "pipeline.toml"] {
        let before = std::fs::read(workspace.path(name)).unwrap();
        workspace
            .run(&format!("results 1 --out {name}"))
            .expect_stderr(4, &["name another file to write to"]);
        assert_eq!(std::fs::read(workspace.path(name)).unwrap(), before, "{name}");
    }
    workspace.write("pointsman.db-wal", "");
    workspace.run("run pipeline.toml --items items.jsonl --out pointsman.db-wal --new").expect_code(4);
}

#[test]
fn a_retried_item_stays_failed_until_it_finishes_again() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]");
    workspace.write_items(30);
    workspace.write("items.jsonl", format!("{}no json\n", workspace.read("items.jsonl")));
    let run = format!("{RUN} --rejects rejects.jsonl");
    workspace.run(&run).expect_code(1);
    let lines = workspace.read("o.jsonl");
    let listed = workspace.run("failures 1").stdout;
    assert!(listed.lines().count() > 3);

    workspace.write_config("[simulator]\nlatency = \"10s\"");
    let mut retrying = start_program(workspace.command("retry 1 --json"));
    retrying.wait_for_line("\"progress\"");
    retrying.signal("KILL");
    retrying.wait();
    assert_eq!(workspace.run("failures 1").stdout, listed);
    assert_eq!(workspace.run("results 1").stdout.lines().count(), 30);

    let mut retrying = start_program(workspace.command("retry 1 --json"));
    retrying.wait_for_line("\"progress\"");
    retrying.signal("INT");
    retrying.wait_for_line("stopping");
    retrying.signal("INT");
    assert_eq!(retrying.wait().code, Some(130));
    let mut same: Vec<_> = workspace.read("o.jsonl").lines().map(str::to_owned).collect();
    let mut before: Vec<_> = lines.lines().map(str::to_owned).collect();
    same.sort();
    before.sort();
    assert_eq!(same, before);

    workspace.write_config("");
    workspace.run("retry 1").expect_code(1);
    assert!(workspace.output_lines("o.jsonl").iter().all(|line| line["status"] == "completed"));
    assert_eq!(
        workspace.output_lines("rejects.jsonl").len(),
        1,
        "a record that is not an item stays rejected"
    );
}

#[test]
fn items_missing_from_the_input_are_reported() {
    let workspace = Workspace::new("");
    workspace.write_items(20);
    workspace.run(RUN).expect_code(0);
    workspace.write_items(5);
    workspace.run(RUN).expect_stderr(0, &["15 items of earlier sessions are not in the input any more"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 5);
    assert_eq!(workspace.run("results 1").stdout.lines().count(), 5, "same as the output");
}

#[test]
fn a_failed_item_does_not_count_once_it_is_missing_from_the_input() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 3\" }]");
    workspace.write_items(6);
    workspace.run(RUN).expect_stderr(1, &["5 completed, 1 failed"]);
    workspace.write(
        "items.jsonl",
        workspace.read("items.jsonl").replace("\"i3\"", "\"corrected\"").replace("thing 3", "thing 7"),
    );
    workspace
        .run(RUN)
        .expect_stderr(0, &["6 completed", "1 item of earlier sessions is not in the input any more"]);
    let second_run = workspace.run(RUN);
    second_run.expect_stderr(0, &["there is nothing to do: 6 completed, 0 failed"]);
    assert!(!second_run.stderr.contains("retry"), "{}", second_run.stderr);
    workspace.run("retry 1").expect_stderr(0, &["no failed items: there is nothing to retry"]);
    let row: Value = serde_json::from_str(&workspace.run("runs --json").stdout).unwrap();
    let counts =
        ["completed", "failed", "skipped", "unfinished", "calls"].map(|count| row[count].as_u64().unwrap());
    assert_eq!(counts, [6, 0, 0, 0, 7], "calls that were charged still count");
    let report: Value = serde_json::from_str(&workspace.run("report 1 --json").stdout).unwrap();
    let counts = ["completed", "failed", "missing_from_input", "unfinished"]
        .map(|count| report["items"][count].as_u64());
    assert_eq!(counts, [6, 0, 1, 0].map(Some));
    assert_eq!(report["calls"]["sent"], 7);
    assert_eq!(workspace.run("failures 1").stdout, "");
    let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(lines(workspace.run("results 1").stdout), lines(workspace.read("o.jsonl")));

    // When the item is back in the input, it counts as failed again.
    workspace.write_items(6);
    workspace.run(RUN).expect_stderr(1, &["5 completed, 1 failed"]);
    workspace.run(RUN).expect_stderr(1, &["5 completed, 1 failed", "`pointsman retry 1`"]);
}

#[test]
fn an_input_without_items_leaves_the_output_of_a_run_with_finished_items() {
    let workspace = Workspace::new("");
    workspace.write_items(5);
    workspace.run(RUN).expect_code(0);
    let lines = workspace.read("o.jsonl");
    let items = workspace.read("items.jsonl");
    let only_rejects = "no item\n3\n";
    for emptied in ["", "\n", only_rejects] {
        workspace.write("items.jsonl", emptied);
        for command in [RUN, "resume 1", "retry 1"] {
            let output = workspace.run(command);
            if command == "retry 1" {
                output.expect_stderr(0, &["no failed items: there is nothing to retry"]);
            } else {
                output.expect_stderr(
                    4,
                    &["no items in ", "run 1 has finished items", "o.jsonl is unchanged", "--new"],
                );
            }
            assert_eq!(workspace.read("o.jsonl"), lines);
            assert!(workspace.run("runs").stdout.contains("complete"));
        }
    }
    // That a pipe has no items is known only at its end.
    let piped = RUN.replace("items.jsonl", "-").replace("o.jsonl", "p.jsonl");
    run_program_with_stdin(workspace.command(&piped), items.as_bytes()).expect_code(0);
    let lines = workspace.read("p.jsonl");
    let expected = ["the input has no items, and the run had 5 before", "p.jsonl is unchanged"];
    run_program_with_stdin(workspace.command(&piped), b"").expect_stderr(4, &expected);
    assert_eq!(workspace.read("p.jsonl"), lines);

    workspace.write("items.jsonl", items);
    workspace.run(RUN).expect_stderr(0, &["there is nothing to do"]);
    workspace.write("items.jsonl", "");
    workspace.run(&format!("{RUN} --new --overwrite")).expect_code(0);
    assert_eq!(workspace.read("o.jsonl"), "");
}

#[test]
fn a_session_that_pauses_before_it_has_read_its_input_counts_items_of_earlier_sessions() {
    let price = "models.any = { price = { input = 1, output = 5 } }";
    let config =
        format!("[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n");
    let workspace = Workspace::new(&config);
    workspace.write_items(300);
    workspace.run(&format!("{RUN} --max-cost 0.02")).expect_code(5);
    let finished = workspace.output_lines("o.jsonl").len() as u64;
    assert!((50..300).contains(&finished), "{finished}");
    // New items come first, so that the cap is reached before the others are read.
    let new = (1..=500).map(|number| format!("{{\"id\":\"n{number}\",\"text\":\"new {number}\"}}\n"));
    workspace.write("items.jsonl", format!("{}{}", new.collect::<String>(), workspace.read("items.jsonl")));
    let second_run = workspace.run(&format!("{RUN} --json --max-cost 0.0201"));
    second_run.expect_code(5);
    let report =
        parse_lines(&second_run.stderr).into_iter().find_map(|line| line.get("report").cloned()).unwrap();
    let completed = report["items"]["completed"].as_u64().unwrap();
    assert_eq!(report["items"]["finished_before"], finished, "{}", report["items"]);
    assert_eq!(completed, workspace.output_lines("o.jsonl").len() as u64, "{}", report["items"]);
}

#[test]
fn a_retry_exits_with_1_if_anything_is_missing() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 3\" }]");
    workspace.write_items(6);
    workspace.run(RUN).expect_code(1);
    let missing = "run 1 has 1 item failed: `pointsman retry 1";
    workspace.run("retry 1 --class timeout").expect_stderr(1, &["no failed items of this kind", missing]);
    let quiet = workspace.run("retry 1 --class timeout --quiet");
    assert_eq!((quiet.code, quiet.stderr.lines().count()), (Some(1), 1), "{}", quiet.stderr);

    // Five new items.
    workspace.write_items(11);
    workspace.write_config("");
    workspace.run("retry 1").expect_stderr(
        1,
        &[
            "5 items not processed yet: new, changed since they finished, or never started",
            "`pointsman resume 1",
        ],
    );
    workspace.run("resume 1").expect_stderr(0, &["11 completed"]);
    workspace.run("retry 1").expect_stderr(0, &["no failed items: there is nothing to retry"]);
    workspace.write_config("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 12\" }]");
    workspace.write_items(12);
    workspace.write("items.jsonl", format!("{}no item\n", workspace.read("items.jsonl")));
    workspace.run("resume 1").expect_stderr(1, &["11 completed, 1 failed, 1 rejected"]);
    workspace.write_config("");
    workspace.run("retry 1").expect_stderr(1, &["12 completed, 1 rejected"]);
    workspace.run(RUN).expect_stderr(1, &["there is nothing to do", "1 rejected"]);
}

#[test]
fn a_retry_from_the_store_exits_with_1_if_another_item_has_failed() {
    let kinds = ["refusal", "wrong_content"].map(|kind| {
        let number = if kind == "refusal" { 3 } else { 4 };
        format!("{{ kind = \"{kind}\", contains = \"thing {number}\" }}")
    });
    let workspace = Workspace::new(&format!("[simulator]\nfaults = [{}]", kinds.join(", ")));
    workspace
        .write("pipeline.toml", format!("{ONE_STEP}choice = [\"A\", \"B\"]\nmax_validation_retries = 0\n"));
    workspace.write_items(6);
    workspace.run(RUN).expect_stderr(1, &["2 failed"]);
    workspace.write_config("");
    std::fs::remove_file(workspace.path("items.jsonl")).unwrap();
    workspace
        .run("retry 1 --class content_filter")
        .expect_stderr(1, &["1 completed", "run 1 has 1 item failed"]);
    workspace.run("retry 1").expect_stderr(0, &["1 completed"]);
}

#[test]
fn of_two_processes_that_start_the_same_run_one_fails_and_changes_nothing() {
    let workspace = Workspace::new("[simulator]\nlatency = \"10s\"");
    workspace.write_items(3);
    let outs = ["o.jsonl", "p.jsonl"];
    outs.iter().for_each(|out| workspace.write(out, "unchanged\n"));
    let overwrite = format!("{RUN} --overwrite");
    let mut both = outs.map(|out| start_program(workspace.command(&overwrite.replace("o.jsonl", out))));
    let refused = loop {
        if let Some(output) = both.iter_mut().position(|one| one.child.try_wait().unwrap().is_some()) {
            break output;
        }
        std::thread::yield_now();
    };
    let refused_output = outs[refused];
    let winner = outs[1 - refused];
    let [first, second] = both;
    let (refused_program, mut active_program) = if refused == 0 { (first, second) } else { (second, first) };
    refused_program.wait().expect_stderr(4, &["run 1 is in use by process"]);
    assert_eq!(workspace.read(refused_output), "unchanged\n");

    // Two runs never write to one file.
    active_program.wait_for_line("3 in flight");
    workspace.write("more.jsonl", workspace.read("items.jsonl"));
    let same_file = workspace.run(&format!("run pipeline.toml --items more.jsonl --out {winner}"));
    same_file.expect_stderr(4, &[&format!("another run is writing to {winner}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_base_url_needs_accept_changes_or_a_new_run() {
    let first = start_simulator(Settings::default());
    let second = start_simulator(Settings::default());
    let workspace = Workspace::new(&provider_config("a", &first, ""));
    workspace.write_items(3);
    workspace.run(RUN).expect_code(0);
    workspace.write_config(provider_config("a", &second, ""));
    workspace.run(RUN).expect_stderr(
        3,
        &["run 1 has changed since it began: other addresses: a/m", "answers that stay valid: 3 of 3"],
    );
    workspace.run(&format!("{RUN} --new --overwrite")).expect_stderr(0, &["3 calls"]);
    assert_eq!((first.counts().requests, second.counts().requests), (3, 3));
}

/// Changes the database behind the program's back.
async fn edit_store(workspace: &Workspace, sql: &'static str) {
    let url = format!("sqlite:{}", workspace.path("pointsman.db").display());
    let mut direct = SqliteConnection::connect(&url).await.unwrap();
    direct.execute(sql).await.unwrap();
    direct.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_lost_stored_rows_is_not_exported_or_resumed_as_intact() {
    let losses = [
        ("DELETE FROM items WHERE item = 2", "run 1 has 4 rows of items, but 5 were stored"),
        ("DELETE FROM steps WHERE item = 2", "run 1 has 4 rows of steps, but 5 were stored"),
        // Without the counts, as after a crash.
        (
            "DELETE FROM steps WHERE item = 2; DELETE FROM row_counts",
            "item 2 of run 1 is completed, but the result of step answer is missing",
        ),
        ("CREATE TRIGGER lose AFTER INSERT ON items BEGIN DELETE FROM steps; END", "it has the trigger"),
    ];
    for (loss, message) in losses {
        let workspace = Workspace::new("");
        workspace.write_items(5);
        workspace.run(RUN).expect_code(0);
        edit_store(&workspace, loss).await;
        let damage = ["pointsman.db is damaged", message, "Nothing in it was changed"];
        let lines = workspace.read("o.jsonl");
        workspace.run("results 1 --out o.jsonl").expect_stderr(4, &damage);
        assert_eq!(workspace.read("o.jsonl"), lines, "{loss}");
        workspace.run("report 1").expect_stderr(4, &damage);
        // Something is left to do: the stored items are read.
        std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
        workspace.run("resume 1").expect_stderr(4, &[message]);
    }
}
