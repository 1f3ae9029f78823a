//! Whose an output file is: what a run did not write it does not replace, and what it wrote it writes again.

use pointsman::simulator::Settings;

use super::program::{ONE_STEP, Room, keys, start};
use super::stage::{play, provider, until};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";
const MINE: &str = "what somebody else wrote\n";

/// Waits until so many lines are in the output.
async fn written(room: &Room, lines: usize) {
    let output = room.path("o.jsonl");
    let has_lines = || std::fs::read_to_string(&output).is_ok_and(|text| text.lines().count() >= lines);
    until("lines are written", has_lines).await;
}

#[test]
fn a_file_that_the_run_did_not_write_is_refused_unless_it_is_to_be_overwritten() {
    let room = Room::new("");
    room.items(3);
    room.write("items.jsonl", format!("{}no json\n", room.read("items.jsonl")));
    for (option, name) in [("--out", "o.jsonl"), ("--rejects", "r.jsonl"), ("--report", "report.json")] {
        room.write(name, MINE);
        let command = format!("run pipeline.toml --items items.jsonl {option} {name}");
        let ended = room.run(&command);
        ended.says(4, &[option, name, "holds what this run did not write", "--overwrite"]);
        assert_eq!((room.read(name).as_str(), ended.out.as_str()), (MINE, ""));
        assert_eq!(room.run(&format!("{command} --store none")).code, Some(4));
        assert!(!room.path("pointsman.db").exists() || room.run("runs").err.contains("no run is kept"));
    }
    let all = "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report report.json";
    room.run(&format!("{all} --overwrite")).says(1, &["3 completed", "1 rejected"]);
    assert_eq!((room.lines("o.jsonl").len(), room.lines("r.jsonl").len()), (3, 1));
    assert_eq!(room.json("report.json")["items"]["completed"], 3);
    // What it wrote is its own from now on.
    room.items(5);
    room.run(all).says(0, &["run 1 goes on", "5 completed"]);
    assert_eq!(room.lines("o.jsonl").len(), 5);
}

#[test]
fn an_empty_file_and_a_device_are_free() {
    let room = Room::new("");
    room.items(2);
    room.write("o.jsonl", "");
    room.run(RUN).expect(0);
    room.run("run pipeline.toml --items items.jsonl --out /dev/null --new").expect(0);
}

#[test]
fn another_run_never_replaces_what_one_has_written() {
    let room = Room::new("");
    room.items(3);
    room.write("more.jsonl", "{\"id\":\"x\",\"text\":\"x\"}\n");
    room.run(RUN).expect(0);
    let before = room.read("o.jsonl");
    for command in [
        "run pipeline.toml --items more.jsonl --out o.jsonl",
        "run pipeline.toml --items items.jsonl --out o.jsonl --new",
        "run pipeline.toml --items items.jsonl --out o.jsonl --store none",
        "run pipeline.toml --items items.jsonl --out o.jsonl --store sqlite:other.db",
    ] {
        room.run(command).says(4, &["o.jsonl holds what this run did not write"]);
        assert_eq!(room.read("o.jsonl"), before, "{command}");
    }
    room.run("run pipeline.toml --items more.jsonl --out o.jsonl --overwrite").expect(0);
    assert_eq!(keys(&room.lines("o.jsonl")), ["x"]);
}

#[test]
fn a_run_that_is_stopped_never_leaves_fewer_lines_than_it_overwrites() {
    let room = Room::new("[run]\nwindow = 2\n[simulator]\nlatency = \"300ms\"");
    room.items(400);
    let before = MINE.repeat(300);
    room.write("o.jsonl", &before);
    let mut running = start(room.program(&format!("{RUN} --overwrite")));
    running.wait_for("in flight");
    running.signal("INT");
    running.end().says(130, &["o.jsonl is as it was before"]);
    assert_eq!(room.read("o.jsonl"), before);
}

#[tokio::test]
async fn rejects_stay_where_a_session_ends_before_it_has_read_as_many() {
    let room = Room::new("[run]\nwindow = 2\n[simulator]\nlatency = \"100ms\"");
    room.write("pipeline.toml", ONE_STEP);
    room.items(2);
    let few = room.read("items.jsonl");
    let run = format!("{RUN} --rejects r.jsonl");
    room.write("items.jsonl", format!("no json\n{few}nor this\n"));
    room.run(&run).says(1, &["2 completed", "2 rejected"]);
    let before = room.read("r.jsonl");
    room.items(400);
    room.write("items.jsonl", format!("no json\n{}nor this\n", room.read("items.jsonl")));
    for signal in ["KILL", "INT"] {
        let mut running = start(room.program(&run));
        running.wait_for("in flight");
        running.signal(signal);
        running.end();
        assert_eq!(room.read("r.jsonl"), before, "{signal}");
    }
}

#[test]
fn a_run_that_paused_before_it_replaced_a_file_replaces_it_when_it_is_resumed() {
    let room = Room::new(
        "[provider.p]\nbase_url = \"simulator\"\nmodels.any = { price = { input = 1, output = 5 } }\n",
    );
    room.items(200);
    room.write("items.jsonl", format!("no json\n{}", room.read("items.jsonl")));
    let before = MINE.repeat(300);
    let names = ["o.jsonl", "r.jsonl"];
    names.iter().for_each(|name| room.write(name, &before));
    let run = format!("{RUN} --rejects r.jsonl --max-cost 0.01");
    room.run(&format!("{run} --overwrite")).says(5, &["o.jsonl is as it was before", "`pointsman resume 1"]);
    for name in names {
        assert_eq!(room.read(name), before);
    }
    // The permission is for the files as they were, and of this run.
    room.write("o.jsonl", before.replace("somebody", "anybody"));
    for command in ["resume 1 --max-cost 5", &run] {
        room.run(command).says(4, &["o.jsonl holds what this run did not write"]);
    }
    room.run("run pipeline.toml --items items.jsonl --out r.jsonl --new")
        .says(4, &["r.jsonl holds what this run did not write"]);
    room.run(&format!("{run} --overwrite")).says(5, &["o.jsonl is as it was before"]);
    room.run("resume 1 --max-cost 5").says(1, &["200 completed", "1 rejected"]);
    assert_eq!((room.lines("o.jsonl").len(), room.lines("r.jsonl").len()), (200, 1));
    // What it has replaced is its own, and the permission is used up.
    room.write("o.jsonl", &before);
    room.write("items.jsonl", format!("{}{{\"id\":\"new\",\"text\":\"x\"}}\n", room.read("items.jsonl")));
    room.run("resume 1 --max-cost 5").says(4, &["o.jsonl holds what this run did not write"]);
    assert_eq!(room.read("o.jsonl"), before);
}

#[tokio::test]
async fn a_run_that_was_killed_before_it_replaced_a_file_replaces_it_when_it_is_resumed() {
    let room = Room::new("[run]\nwindow = 2\n[simulator]\nlatency = \"100ms\"");
    room.items(60);
    let before = MINE.repeat(61);
    ["o.jsonl", "report.json"].iter().for_each(|name| room.write(name, &before));
    let running = start(room.program(&format!("{RUN} --report report.json --overwrite --json")));
    until("the run is at work", || {
        room.path("pointsman.db").exists() && room.run("runs").out.contains("running")
    })
    .await;
    running.signal("KILL");
    running.end();
    assert_eq!((room.read("o.jsonl"), room.read("report.json")), (before.clone(), before));
    room.config("");
    room.run("resume").says(0, &["run 1 goes on", "60 completed"]);
    assert_eq!(
        (room.lines("o.jsonl").len(), room.json("report.json")["items"]["completed"].as_u64()),
        (60, Some(60))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_answers_are_never_replaced_by_simulated_ones() {
    let simulator = play(Settings::default());
    for out in ["o.jsonl", "o.csv"] {
        let room = Room::new(&provider("a", &simulator, ""));
        room.items(3);
        let run = RUN.replace("o.jsonl", out);
        room.run(&run).expect(0);
        let before = room.read(out);
        for more in ["", "--overwrite"] {
            room.run(&format!("{run} --simulate {more}"))
                .says(4, &["holds real answers, which a simulated run never replaces"]);
        }
        assert_eq!(room.read(out), before);
        room.run(&format!("{} --simulate", run.replace(out, "s.jsonl"))).says(0, &["SIMULATED"]);
        room.run(&format!("results 2 --out {out} --overwrite")).says(4, &["holds real answers"]);
        assert_eq!(room.read(out), before);
        // Nor does one go on as the other.
        room.run("resume 1 --accept-changes").says(0, &["nothing is left"]);
        room.write("items.jsonl", "{\"id\":\"new\",\"text\":\"x\"}\n");
        room.run("resume 2").says(0, &["run 2 goes on", "SIMULATED"]);
    }
}

#[tokio::test]
async fn a_killed_run_finds_its_output_again() {
    let room = Room::new("[run]\nwindow = 2\n[simulator]\nlatency = \"100ms\"");
    room.items(60);
    for lines in [1, 20] {
        let running = start(room.program(&format!("{RUN} --json")));
        written(&room, lines).await;
        running.signal("KILL");
        running.end();
    }
    room.config("");
    room.run(RUN).says(0, &["run 1 goes on", "60 completed"]);
    assert_eq!(room.lines("o.jsonl").len(), 60);
}

#[tokio::test]
async fn a_killed_runs_output_that_was_replaced_since_is_refused() {
    let room = Room::new("[run]\nwindow = 2\n[simulator]\nlatency = \"100ms\"");
    room.items(60);
    let running = start(room.program(&format!("{RUN} --json")));
    written(&room, 1).await;
    running.signal("KILL");
    running.end();
    for in_place in [true, false] {
        if !in_place {
            std::fs::remove_file(room.path("o.jsonl")).unwrap();
        }
        room.write("o.jsonl", MINE);
        room.run(RUN).says(4, &["holds what this run did not write"]);
        assert_eq!(room.read("o.jsonl"), MINE);
    }
}

#[test]
fn a_copy_of_a_runs_output_is_not_its_own_and_a_removed_one_is_written_again() {
    let room = Room::new("");
    room.items(3);
    room.run(RUN).expect(0);
    let before = room.read("o.jsonl");
    std::fs::copy(room.path("o.jsonl"), room.path("copy")).unwrap();
    std::fs::rename(room.path("copy"), room.path("o.jsonl")).unwrap();
    room.items(4);
    room.run(RUN).says(4, &["holds what this run did not write"]);
    assert_eq!(room.read("o.jsonl"), before);
    std::fs::remove_file(room.path("o.jsonl")).unwrap();
    room.run(RUN).says(0, &["4 completed"]);
    assert_eq!(room.lines("o.jsonl").len(), 4);
}

#[test]
fn an_export_refuses_what_the_run_did_not_write_and_a_retry_asks_nothing_then() {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    room.items(3);
    room.run(RUN).expect(1);
    room.write("mine.jsonl", MINE);
    room.run("results 1 --out mine.jsonl").says(4, &["holds what this run did not write"]);
    assert_eq!(room.read("mine.jsonl"), MINE);
    room.run("results 1 --out mine.jsonl --overwrite").expect(0);
    room.run("results 1 --out mine.jsonl").expect(0);
    assert_eq!(room.lines("mine.jsonl").len(), 3);

    let lines = room.read("o.jsonl");
    room.write("o.jsonl", MINE);
    room.config("");
    room.run("retry 1").says(4, &["holds what this run did not write"]);
    room.write("o.jsonl", lines);
    room.run("retry 1").says(0, &["3 completed", "1 call in this session"]);
    room.items(4);
    room.run(RUN).says(0, &["4 completed"]);
    assert_eq!(room.lines("o.jsonl").len(), 4);
}

#[tokio::test]
async fn an_output_that_is_removed_while_it_is_written_is_written_again_at_the_end() {
    for store in ["", "--store none"] {
        let room = Room::new("[run]\nwindow = 2\n[simulator]\nlatency = \"50ms\"");
        room.write("pipeline.toml", ONE_STEP);
        room.items(40);
        room.write("items.jsonl", format!("no json\n{}", room.read("items.jsonl")));
        let running = start(room.program(&format!("{RUN} --rejects r.jsonl --json {store}")));
        written(&room, 1).await;
        std::fs::remove_file(room.path("o.jsonl")).unwrap();
        std::fs::remove_file(room.path("r.jsonl")).unwrap();
        running.end().expect(1);
        room.nothing_is_lost(41, "o.jsonl", "r.jsonl");
        if store.is_empty() {
            room.run(&format!("{RUN} --rejects r.jsonl")).says(1, &["nothing is left", "1 rejected before"]);
        }
    }
}

#[tokio::test]
async fn an_output_whose_place_another_file_has_taken_shows_in_the_exit_code() {
    let room = Room::new("[run]\nwindow = 2\n[simulator]\nlatency = \"50ms\"");
    room.items(40);
    let running = start(room.program(&format!("{RUN} --json")));
    written(&room, 1).await;
    std::fs::remove_file(room.path("o.jsonl")).unwrap();
    room.write("o.jsonl", MINE);
    running.end().says(4, &["nothing is safely written: another file has taken its place"]);
    assert_eq!(room.read("o.jsonl"), MINE);
    assert_eq!(room.run("results 1").out.lines().count(), 40);
}

#[test]
fn a_copy_of_its_lines_does_not_change_when_a_run_was_last_at_work() {
    let room = Room::new("");
    room.items(2);
    room.run(RUN).expect(0);
    let before = room.run("runs --json").out;
    room.run("results 1 --out copy.jsonl").expect(0);
    room.run("results 1 --out copy.jsonl").expect(0);
    assert_eq!(room.run("runs --json").out, before);
}

#[test]
fn an_output_keeps_its_lines_where_the_rejects_cannot_be_written() {
    let room = Room::new("");
    room.items(10);
    room.run(RUN).expect(0);
    // Its first line is no item now. All the others have settled, and their lines are to be written again.
    room.write("items.jsonl", format!("no json\n{}", room.read("items.jsonl")));
    room.run(&format!("{RUN} --rejects /dev/full")).says(4, &["cannot write to /dev/full"]);
    assert_eq!(room.lines("o.jsonl").len(), 10);
}
