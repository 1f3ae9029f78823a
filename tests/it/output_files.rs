//! Ownership of output files: a run replaces only files that it wrote itself, unless `--overwrite` is given.

use pointsman::simulator::Settings;

use super::program::{ONE_STEP, Workspace, keys, start_program};
use super::support::{provider_config, start_simulator, wait_until};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";
const FOREIGN_TEXT: &str = "written by another program\n";

/// Waits until the output has this number of lines.
async fn wait_for_lines(workspace: &Workspace, lines: usize) {
    let output = workspace.path("o.jsonl");
    let has_lines = || std::fs::read_to_string(&output).is_ok_and(|text| text.lines().count() >= lines);
    wait_until("lines are written", has_lines).await;
}

#[test]
fn a_file_that_the_run_did_not_write_is_refused_without_overwrite() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.write("items.jsonl", format!("{}no json\n", workspace.read("items.jsonl")));
    for (option, name) in [("--out", "o.jsonl"), ("--rejects", "r.jsonl"), ("--report", "report.json")] {
        workspace.write(name, FOREIGN_TEXT);
        let command = format!("run pipeline.toml --items items.jsonl {option} {name}");
        let output = workspace.run(&command);
        output.expect_stderr(4, &[option, name, "was not written by this run", "--overwrite"]);
        assert_eq!((workspace.read(name).as_str(), output.stdout.as_str()), (FOREIGN_TEXT, ""));
        assert_eq!(workspace.run(&format!("{command} --store none")).code, Some(4));
        assert!(
            !workspace.path("pointsman.db").exists()
                || workspace.run("runs").stderr.contains("no runs are stored")
        );
    }
    let all = "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report report.json";
    workspace.run(&format!("{all} --overwrite")).expect_stderr(1, &["3 completed", "1 rejected"]);
    assert_eq!((workspace.output_lines("o.jsonl").len(), workspace.output_lines("r.jsonl").len()), (3, 1));
    assert_eq!(workspace.read_json("report.json")["items"]["completed"], 3);
    // From now on the files belong to the run.
    workspace.write_items(5);
    workspace.run(all).expect_stderr(0, &["resuming run 1", "5 completed"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 5);
}

#[test]
fn an_empty_file_or_a_device_may_be_the_output() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    workspace.write("o.jsonl", "");
    workspace.run(RUN).expect_code(0);
    workspace.run("run pipeline.toml --items items.jsonl --out /dev/null --new").expect_code(0);
}

#[test]
fn a_run_never_replaces_the_output_of_another_run() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.write("more.jsonl", "{\"id\":\"x\",\"text\":\"x\"}\n");
    workspace.run(RUN).expect_code(0);
    let before = workspace.read("o.jsonl");
    for command in [
        "run pipeline.toml --items more.jsonl --out o.jsonl",
        "run pipeline.toml --items items.jsonl --out o.jsonl --new",
        "run pipeline.toml --items items.jsonl --out o.jsonl --store none",
        "run pipeline.toml --items items.jsonl --out o.jsonl --store sqlite:other.db",
    ] {
        workspace.run(command).expect_stderr(4, &["o.jsonl exists and was not written by this run"]);
        assert_eq!(workspace.read("o.jsonl"), before, "{command}");
    }
    workspace.run("run pipeline.toml --items more.jsonl --out o.jsonl --overwrite").expect_code(0);
    assert_eq!(keys(&workspace.output_lines("o.jsonl")), ["x"]);
}

#[test]
fn a_stopped_run_never_replaces_a_file_with_fewer_lines() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"300ms\"");
    workspace.write_items(400);
    let before = FOREIGN_TEXT.repeat(300);
    workspace.write("o.jsonl", &before);
    let mut running = start_program(workspace.command(&format!("{RUN} --overwrite")));
    running.wait_for_line("in flight");
    running.signal("INT");
    running.wait().expect_stderr(130, &["o.jsonl is unchanged"]);
    assert_eq!(workspace.read("o.jsonl"), before);
}

#[tokio::test]
async fn the_rejects_file_is_unchanged_if_a_session_ends_before_it_has_read_as_many() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"100ms\"");
    workspace.write("pipeline.toml", ONE_STEP);
    workspace.write_items(2);
    let few = workspace.read("items.jsonl");
    let run = format!("{RUN} --rejects r.jsonl");
    workspace.write("items.jsonl", format!("no json\n{few}nor this\n"));
    workspace.run(&run).expect_stderr(1, &["2 completed", "2 rejected"]);
    let before = workspace.read("r.jsonl");
    workspace.write_items(400);
    workspace.write("items.jsonl", format!("no json\n{}nor this\n", workspace.read("items.jsonl")));
    for signal in ["KILL", "INT"] {
        let mut running = start_program(workspace.command(&run));
        running.wait_for_line("in flight");
        running.signal(signal);
        running.wait();
        assert_eq!(workspace.read("r.jsonl"), before, "{signal}");
    }
}

#[test]
fn a_run_that_paused_before_it_replaced_a_file_replaces_it_when_it_is_resumed() {
    let workspace = Workspace::new(
        "[provider.p]\nbase_url = \"simulator\"\nmodels.any = { price = { input = 1, output = 5 } }\n",
    );
    workspace.write_items(200);
    workspace.write("items.jsonl", format!("no json\n{}", workspace.read("items.jsonl")));
    let before = FOREIGN_TEXT.repeat(300);
    let names = ["o.jsonl", "r.jsonl"];
    names.iter().for_each(|name| workspace.write(name, &before));
    let run = format!("{RUN} --rejects r.jsonl --max-cost 0.01");
    workspace
        .run(&format!("{run} --overwrite"))
        .expect_stderr(5, &["o.jsonl is unchanged", "`pointsman resume 1"]);
    for name in names {
        assert_eq!(workspace.read(name), before);
    }
    // The permission is only for the files in that state and for this run.
    workspace.write("o.jsonl", before.replace("another", "any"));
    for command in ["resume 1 --max-cost 5", &run] {
        workspace.run(command).expect_stderr(4, &["o.jsonl exists and was not written by this run"]);
    }
    workspace
        .run("run pipeline.toml --items items.jsonl --out r.jsonl --new")
        .expect_stderr(4, &["r.jsonl exists and was not written by this run"]);
    workspace.run(&format!("{run} --overwrite")).expect_stderr(5, &["o.jsonl is unchanged"]);
    workspace.run("resume 1 --max-cost 5").expect_stderr(1, &["200 completed", "1 rejected"]);
    assert_eq!((workspace.output_lines("o.jsonl").len(), workspace.output_lines("r.jsonl").len()), (200, 1));
    // The replaced files belong to the run, and the permission is used up.
    workspace.write("o.jsonl", &before);
    workspace.write(
        "items.jsonl",
        format!("{}{{\"id\":\"new\",\"text\":\"x\"}}\n", workspace.read("items.jsonl")),
    );
    workspace
        .run("resume 1 --max-cost 5")
        .expect_stderr(4, &["o.jsonl exists and was not written by this run"]);
    assert_eq!(workspace.read("o.jsonl"), before);
}

#[tokio::test]
async fn a_run_that_was_killed_before_it_replaced_a_file_replaces_it_when_it_is_resumed() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"100ms\"");
    workspace.write_items(60);
    let before = FOREIGN_TEXT.repeat(61);
    ["o.jsonl", "report.json"].iter().for_each(|name| workspace.write(name, &before));
    let running = start_program(workspace.command(&format!("{RUN} --report report.json --overwrite --json")));
    wait_until("the run is active", || {
        workspace.path("pointsman.db").exists() && workspace.run("runs").stdout.contains("running")
    })
    .await;
    running.signal("KILL");
    running.wait();
    assert_eq!((workspace.read("o.jsonl"), workspace.read("report.json")), (before.clone(), before));
    workspace.write_config("");
    workspace.run("resume").expect_stderr(0, &["resuming run 1", "60 completed"]);
    assert_eq!(
        (
            workspace.output_lines("o.jsonl").len(),
            workspace.read_json("report.json")["items"]["completed"].as_u64()
        ),
        (60, Some(60))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_answers_are_never_replaced_by_simulated_ones() {
    let simulator = start_simulator(Settings::default());
    for out in ["o.jsonl", "o.csv"] {
        let workspace = Workspace::new(&provider_config("a", &simulator, ""));
        workspace.write_items(3);
        let run = RUN.replace("o.jsonl", out);
        workspace.run(&run).expect_code(0);
        let before = workspace.read(out);
        for more in ["", "--overwrite"] {
            workspace
                .run(&format!("{run} --simulate {more}"))
                .expect_stderr(4, &["holds real answers, which a simulated run never replaces"]);
        }
        assert_eq!(workspace.read(out), before);
        workspace
            .run(&format!("{} --simulate", run.replace(out, "s.jsonl")))
            .expect_stderr(0, &["SIMULATED"]);
        workspace
            .run(&format!("results 2 --out {out} --overwrite"))
            .expect_stderr(4, &["holds real answers"]);
        assert_eq!(workspace.read(out), before);
        // A real run cannot be resumed as a simulated one, nor the other way round.
        workspace.run("resume 1 --accept-changes").expect_stderr(0, &["there is nothing to do"]);
        workspace.write("items.jsonl", "{\"id\":\"new\",\"text\":\"x\"}\n");
        workspace.run("resume 2").expect_stderr(0, &["resuming run 2", "SIMULATED"]);
    }
}

#[tokio::test]
async fn a_killed_run_recognises_its_output() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"100ms\"");
    workspace.write_items(60);
    for lines in [1, 20] {
        let running = start_program(workspace.command(&format!("{RUN} --json")));
        wait_for_lines(&workspace, lines).await;
        running.signal("KILL");
        running.wait();
    }
    workspace.write_config("");
    workspace.run(RUN).expect_stderr(0, &["resuming run 1", "60 completed"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 60);
}

#[tokio::test]
async fn a_killed_runs_output_that_was_replaced_since_is_refused() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"100ms\"");
    workspace.write_items(60);
    let running = start_program(workspace.command(&format!("{RUN} --json")));
    wait_for_lines(&workspace, 1).await;
    running.signal("KILL");
    running.wait();
    for in_place in [true, false] {
        if !in_place {
            std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
        }
        workspace.write("o.jsonl", FOREIGN_TEXT);
        workspace.run(RUN).expect_stderr(4, &["was not written by this run"]);
        assert_eq!(workspace.read("o.jsonl"), FOREIGN_TEXT);
    }
}

#[test]
fn a_copy_of_a_runs_output_is_refused_and_a_removed_output_is_written_again() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.run(RUN).expect_code(0);
    let before = workspace.read("o.jsonl");
    std::fs::copy(workspace.path("o.jsonl"), workspace.path("copy")).unwrap();
    std::fs::rename(workspace.path("copy"), workspace.path("o.jsonl")).unwrap();
    workspace.write_items(4);
    workspace.run(RUN).expect_stderr(4, &["was not written by this run"]);
    assert_eq!(workspace.read("o.jsonl"), before);
    std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
    workspace.run(RUN).expect_stderr(0, &["4 completed"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 4);
}

#[test]
fn an_export_and_a_retry_refuse_a_file_that_the_run_did_not_write() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    workspace.write_items(3);
    workspace.run(RUN).expect_code(1);
    workspace.write("foreign.jsonl", FOREIGN_TEXT);
    workspace.run("results 1 --out foreign.jsonl").expect_stderr(4, &["was not written by this run"]);
    assert_eq!(workspace.read("foreign.jsonl"), FOREIGN_TEXT);
    workspace.run("results 1 --out foreign.jsonl --overwrite").expect_code(0);
    workspace.run("results 1 --out foreign.jsonl").expect_code(0);
    assert_eq!(workspace.output_lines("foreign.jsonl").len(), 3);

    let lines = workspace.read("o.jsonl");
    workspace.write("o.jsonl", FOREIGN_TEXT);
    workspace.write_config("");
    let refused = workspace.run("retry 1");
    refused.expect_stderr(
        4,
        &[
            "o.jsonl exists and was not written by this run; move that file away, or overwrite it (--overwrite); \
             `pointsman results 1 --store ",
            " --out OTHER` writes the results to another file",
        ],
    );
    assert!(!refused.stderr.contains("name another file"), "{}", refused.stderr);
    workspace.write("o.jsonl", lines);
    workspace.run("retry 1").expect_stderr(0, &["3 completed", "1 call in this session"]);
    workspace.write_items(4);
    workspace.run(RUN).expect_stderr(0, &["4 completed"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 4);
}

#[tokio::test]
async fn an_output_removed_during_the_run_is_written_again_at_the_end() {
    for store in ["", "--store none"] {
        let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"50ms\"");
        workspace.write("pipeline.toml", ONE_STEP);
        workspace.write_items(40);
        workspace.write("items.jsonl", format!("no json\n{}", workspace.read("items.jsonl")));
        let running = start_program(workspace.command(&format!("{RUN} --rejects r.jsonl --json {store}")));
        wait_for_lines(&workspace, 1).await;
        std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
        std::fs::remove_file(workspace.path("r.jsonl")).unwrap();
        running.wait().expect_code(1);
        workspace.assert_nothing_is_lost(41, "o.jsonl", "r.jsonl");
        if store.is_empty() {
            workspace
                .run(&format!("{RUN} --rejects r.jsonl"))
                .expect_stderr(1, &["there is nothing to do", "1 rejected before"]);
        }
    }
}

#[tokio::test]
async fn an_output_replaced_by_another_file_during_the_run_is_an_io_error() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"50ms\"");
    workspace.write_items(40);
    let running = start_program(workspace.command(&format!("{RUN} --json")));
    wait_for_lines(&workspace, 1).await;
    std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
    workspace.write("o.jsonl", FOREIGN_TEXT);
    running.wait().expect_stderr(
        4,
        &[
            "no line was saved: another file has taken its place",
            "{\"error\":\"cannot write to o.jsonl; no line was saved: another file has taken its place",
            "`pointsman results 1 --out OTHER` writes the finished items to another file",
        ],
    );
    assert_eq!(workspace.read("o.jsonl"), FOREIGN_TEXT);
    assert_eq!(workspace.run("results 1").stdout.lines().count(), 40);
}

#[tokio::test]
async fn an_output_truncated_during_the_run_is_an_io_error_and_the_next_start_writes_it_again() {
    for store in ["", "--store none"] {
        let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"50ms\"");
        workspace.write_items(40);
        let running = start_program(workspace.command(&format!("{RUN} --json {store}")));
        wait_for_lines(&workspace, 2).await;
        workspace.write("o.jsonl", "");
        running.wait().expect_stderr(4, &["another program has changed o.jsonl while it was written"]);
        assert!(!workspace.read("o.jsonl").contains('\0'));
        if store.is_empty() {
            workspace.write_config("");
            workspace.run(RUN).expect_stderr(0, &["resuming run 1", "40 completed"]);
            assert_eq!(workspace.output_lines("o.jsonl").len(), 40);
            workspace.run(RUN).expect_stderr(0, &["there is nothing to do"]);
        }
    }
}

#[test]
fn an_output_truncated_after_the_run_is_written_again_by_the_next_start() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    workspace.run(RUN).expect_code(0);
    let before = workspace.read("o.jsonl");
    let first_line = &before[..=before.find('\n').unwrap()];
    for content in ["", first_line] {
        workspace.write("o.jsonl", content);
        let output = workspace.run(RUN);
        assert!(!output.expect_code(0).contains("there is nothing to do"), "{}", output.stderr);
        assert_eq!(workspace.output_lines("o.jsonl").len(), 3);
    }
    workspace.run(RUN).expect_stderr(0, &["there is nothing to do"]);
}

#[test]
fn an_export_does_not_change_when_a_run_was_last_active() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    workspace.run(RUN).expect_code(0);
    let before = workspace.run("runs --json").stdout;
    workspace.run("results 1 --out copy.jsonl").expect_code(0);
    workspace.run("results 1 --out copy.jsonl").expect_code(0);
    assert_eq!(workspace.run("runs --json").stdout, before);
}

#[test]
fn an_output_keeps_its_lines_if_the_rejects_cannot_be_written() {
    let workspace = Workspace::new("");
    workspace.write_items(10);
    workspace.run(RUN).expect_code(0);
    // The first line of the input is invalid now. The other items have finished, and their lines are rewritten.
    workspace.write("items.jsonl", format!("no json\n{}", workspace.read("items.jsonl")));
    workspace.run(&format!("{RUN} --rejects /dev/full")).expect_stderr(4, &["cannot write to /dev/full"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 10);
}

#[test]
fn a_row_that_was_added_by_hand_is_not_dropped_without_overwrite() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    for (name, run) in [("o.csv", "1"), ("o.jsonl", "2")] {
        let command = format!("run pipeline.toml --items items.jsonl --out {name} --new");
        workspace.run(&command).expect_code(0);
        let again = format!("run pipeline.toml --items items.jsonl --out {name}");
        let extended = format!("{}mine,added\n", workspace.read(name));
        workspace.write(name, &extended);
        for command in [again.clone(), format!("resume {run}")] {
            let message = format!("{name} since this run wrote it");
            workspace
                .run(&command)
                .expect_stderr(4, &["another program has added to ", &message, "--overwrite"]);
            assert_eq!(workspace.read(name), extended);
        }
        workspace.run(&format!("{again} --overwrite")).expect_code(0);
        assert!(!workspace.read(name).contains("mine"));
        workspace.run(&again).expect_stderr(0, &["there is nothing to do"]);
    }
}

#[test]
fn a_table_without_rows_of_another_run_is_replaced() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    workspace.write("o.csv", "id,text,answer,status,error\n");
    workspace.run("run pipeline.toml --items items.jsonl --out o.csv").expect_code(0);
    assert_eq!(workspace.read("o.csv").lines().count(), 3);
}
