//! The commands for runs that are kept, as a user types them.

use std::collections::BTreeSet;

use pointsman::simulator::Settings;
use serde_json::Value;

use super::program::*;
use super::stage::{play, provider};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Calls that a report counts.
fn calls(report: &Value) -> u64 {
    report["calls"]["made"].as_u64().unwrap()
}

#[test]
fn a_complete_run_says_that_nothing_is_left_and_new_asks_again() {
    let room = Room::new("");
    room.items(5);
    room.run(RUN).expect(0);
    let lines = room.read("o.jsonl");
    let again = room.run(RUN);
    again.says(
        0,
        &["run 1 is complete, and nothing is left of it: 5 completed", "--new asks everything again"],
    );
    assert_eq!(room.read("o.jsonl"), lines);
    room.run(&format!("{RUN} --new --overwrite")).says(0, &["5 calls"]);
    let listed = room.run("runs");
    listed.expect(0);
    assert_eq!(listed.out.lines().count(), 3, "{}", listed.out);
    assert!(listed.out.contains("complete") && listed.out.contains("items.jsonl"), "{}", listed.out);
}

#[test]
fn an_output_that_was_lost_or_torn_is_made_whole_without_a_call() {
    let room = Room::new("");
    room.items(20);
    room.run(RUN).expect(0);
    let whole = room.lines("o.jsonl");
    let text = room.read("o.jsonl");
    for left in ["", &text[..text.len() / 2], &format!("{text}{{\"key\":\"i1")] {
        room.write("o.jsonl", left);
        room.run(&format!("{RUN} --report r.json")).expect(0);
        assert_eq!(calls(&room.json("r.json")), 0);
        let mut lines = room.lines("o.jsonl");
        let by_key = |line: &Value| line["key"].to_string();
        lines.sort_by_key(by_key);
        let mut asked = whole.clone();
        asked.sort_by_key(by_key);
        assert_eq!(lines, asked);
    }
    let beside = std::fs::read_dir(room.path("")).unwrap().map(|file| file.unwrap().file_name());
    let beside: Vec<_> = beside.filter(|name| name.to_string_lossy().contains("o.jsonl.")).collect();
    assert!(beside.is_empty(), "{beside:?}");
}

#[test]
fn a_changed_pipeline_wants_a_word_and_leaves_the_output_as_it_was() {
    let room = Room::new("");
    room.items(5);
    room.run(RUN).expect(0);
    let lines = room.read("o.jsonl");
    room.write("pipeline.toml", ONE_STEP.replace("something", "nothing"));
    room.run(RUN)
        .says(3, &["run 1 has changed since it began: changed steps: answer", "--accept-changes", "--new"]);
    assert_eq!(room.read("o.jsonl"), lines);
    room.run(&format!("{RUN} --accept-changes")).says(0, &["5 calls"]);
    room.run(RUN).says(0, &["nothing is left"]);
}

#[test]
fn a_run_that_was_stopped_is_resumed_by_its_number_from_anywhere() {
    let room = Room::new("[simulator]\nlatency = \"50ms\"\n[run]\nwindow = 4");
    room.items(60);
    let mut stopped = start(room.program(&format!("{RUN} --json")));
    stopped.wait_for("\"progress\"");
    stopped.signal("INT");
    stopped.end().says(130, &["run 1 is kept in sqlite:pointsman.db: `pointsman resume 1` goes on"]);
    let before = room.lines("o.jsonl").len() as u64;
    assert!(before < 60);
    room.run("runs").says(0, &[]);
    assert!(room.run("runs").out.contains("stopped"));

    let elsewhere = Room::empty();
    let store = format!("--store sqlite:{}", room.path("pointsman.db").display());
    elsewhere.run(&format!("resume {store}")).says(0, &["run 1 goes on", "60 completed"]);
    let keys: BTreeSet<String> = room.lines("o.jsonl").iter().map(|line| line["key"].to_string()).collect();
    assert_eq!((keys.len(), room.lines("o.jsonl").len()), (60, 60));
    let report = elsewhere.run(&format!("report 1 --json {store}"));
    let report: Value = serde_json::from_str(&report.out).unwrap();
    assert_eq!((calls(&report), report["items"]["completed"].as_u64()), (60, Some(60)));
    elsewhere.run(&format!("resume {store}")).says(0, &["nothing is left to go on with"]);
}

#[test]
fn what_failed_is_listed_and_asked_again_alone() {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]");
    room.items(40);
    room.run(RUN).says(1, &["`pointsman retry 1` asks again what failed"]);
    let failed = |room: &Room| room.lines("o.jsonl").iter().filter(|line| line["status"] == "failed").count();
    let before = failed(&room);
    assert!((1..40).contains(&before));
    let listed = room.run("failed 1");
    listed.says(0, &[&format!("{before} items failed")]);
    assert_eq!(listed.out.lines().count(), before);
    let json = room.run("failed 1 --json").out;
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (first["class"].as_str(), first["item"]["id"].as_str()),
        (Some("content_filter"), first["key"].as_str())
    );

    room.run("retry 1 --class timeout").says(1, &["nothing has failed of that"]);
    room.run("retry 1 --class nonsense").says(2, &["there is no such class", "content_filter"]);
    // The items are in the store: their file is not needed any more.
    std::fs::remove_file(room.path("items.jsonl")).unwrap();
    room.config("");
    room.run("retry 1 --class content_filter --class timeout").says(0, &[&format!("{before} completed")]);
    assert_eq!((failed(&room), room.lines("o.jsonl").len()), (0, 40));
    assert!(room.run("runs").out.contains("complete"));
    let first_line = |key: &str| room.lines("o.jsonl").into_iter().find(|line| line["key"] == key).unwrap();
    assert_eq!(first_line("i40")["line"], 40);
}

#[test]
fn results_are_exported_at_any_time_in_both_formats() {
    let room = Room::new("");
    room.items(7);
    room.run(RUN).expect(0);
    let lines = room.run("results 1");
    lines.expect(0);
    assert_eq!(lines.out.lines().count(), 7);
    let mut written: Vec<_> = room.read("o.jsonl").lines().map(str::to_owned).collect();
    let mut exported: Vec<_> = lines.out.lines().map(str::to_owned).collect();
    written.sort();
    exported.sort();
    assert_eq!(exported, written, "a line made again is the line that was written first");
    room.run("results 1 --out o.csv").expect(0);
    assert_eq!(csv::Reader::from_path(room.path("o.csv")).unwrap().records().count(), 7);
    room.run("results 1 --format csv").expect(0);
    room.run("results 9").says(4, &["there is no run 9 in this database; `pointsman runs` lists them"]);
}

#[test]
fn a_cancelled_run_begins_anew_and_a_forgotten_one_is_gone() {
    let room = Room::new("[simulator]\nlatency = \"10s\"");
    room.items(3);
    let mut running = start(room.program(&format!("{RUN} --json")));
    running.wait_for("\"in_flight\":3");
    room.run(RUN).says(4, &["run 1 is being worked on by process"]);
    assert!(room.run("runs").out.contains("running"));
    assert_eq!(room.run("results 1").expect(0), "", "nothing has settled");
    room.run("forget 1").says(4, &["run 1 is being worked on by process"]);
    room.run("cancel 1").says(0, &["run 1 is told to stop now"]);
    assert_eq!(running.end().code, Some(130));
    assert!(room.run("runs").out.contains("cancelled"));

    room.config("");
    room.run(RUN).says(0, &["3 completed"]);
    assert!(!room.run("results 2").out.is_empty());
    room.run("cancel 2").says(4, &["run 2 is complete"]);
    room.run("forget --older-than 1d").says(0, &["0 runs forgotten, 2 left"]);
    room.run("forget 1 2").says(0, &["2 runs forgotten, 0 left"]);
    room.run("runs").says(0, &["no run is kept"]);
}

#[test]
fn without_a_store_nothing_is_kept_and_commands_that_need_one_say_so() {
    let room = Room::new("");
    room.items(3);
    room.run("runs").says(4, &["no run is kept here: there is no pointsman.db"]);
    room.run(&format!("{RUN} --store none")).expect(0);
    room.run(&format!("{RUN} --store none --overwrite")).says(0, &["3 calls"]);
    assert!(!room.path("pointsman.db").exists());
    room.config("[store]\nurl = \"none\"");
    room.run("runs").says(4, &["runs are not kept: [store] url is \"none\""]);
    room.run(&format!("{RUN} --store runs.db"))
        .says(2, &["\"runs.db\" names no store: it is written \"sqlite:runs.db\""]);
    room.run(&format!("{RUN} --store sqlite:no/such/runs.db"))
        .says(4, &["cannot open the database no/such/runs.db", "is its directory there"]);
    room.write("other.db", "this is no database, though it has a name like one");
    room.run(&format!("{RUN} --store sqlite:other.db")).says(4, &["other.db"]);
    assert_eq!(room.read("other.db"), "this is no database, though it has a name like one");
}

#[test]
fn items_from_stdin_go_on_when_they_are_piped_again() {
    let room = Room::new("");
    room.items(4);
    let piped = |more: &str| {
        let program = room.program(&format!("run pipeline.toml --items - {more}"));
        finish_with(program, room.read("items.jsonl").as_bytes())
    };
    piped("").says(0, &["4 calls"]);
    let again = piped("");
    again.says(0, &["run 1 goes on: 4 items settled before"]);
    assert_eq!(again.out.lines().count(), 4);
    again.says(0, &["SIMULATED"]);
    assert!(again.err.contains("0 calls"), "{}", again.err);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_answers_never_stand_for_real_ones_nor_the_other_way_round() {
    let simulator = play(Settings::default());
    let room = Room::new("");
    room.items(3);
    room.run(RUN).says(0, &["SIMULATED", "3 calls"]);
    room.config(provider("a", &simulator, ""));
    let real = room.run(&format!("{RUN} --overwrite"));
    real.says(0, &["3 calls"]);
    assert!(!real.err.contains("goes on") && !real.err.contains("SIMULATED"), "{}", real.err);
    assert_eq!(simulator.counts().requests, 3);
    assert!(room.lines("o.jsonl").iter().all(|line| line["practice"] == false));

    room.config("");
    // Nor are they written over them.
    room.run(&format!("{RUN} --report r.json --overwrite")).says(4, &["o.jsonl holds real answers"]);
    room.run(&format!("{} --report s.json", RUN.replace("o.jsonl", "s.jsonl")))
        .says(0, &["run 1 goes on: 3 items settled before", "SIMULATED"]);
    room.config(provider("a", &simulator, ""));
    room.run(&format!("{RUN} --report r.json")).says(0, &["run 2 goes on: 3 items settled before"]);
    assert_eq!(simulator.counts().requests, 3);
}

#[test]
fn an_export_overwrites_nothing_that_the_run_needs() {
    let room = Room::new("");
    room.items(3);
    room.run(RUN).expect(0);
    for name in ["pointsman.db", "items.jsonl", "config.toml", "pipeline.toml"] {
        let before = std::fs::read(room.path(name)).unwrap();
        room.run(&format!("results 1 --out {name}")).says(4, &["name another file to write to"]);
        assert_eq!(std::fs::read(room.path(name)).unwrap(), before, "{name}");
    }
    room.write("pointsman.db-wal", "");
    room.run("run pipeline.toml --items items.jsonl --out pointsman.db-wal --new").expect(4);
}

#[test]
fn what_fails_and_is_asked_again_has_failed_until_it_settles_anew() {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]");
    room.items(30);
    room.write("items.jsonl", format!("{}no json\n", room.read("items.jsonl")));
    let run = format!("{RUN} --rejects rejects.jsonl");
    room.run(&run).expect(1);
    let (lines, listed) = (room.read("o.jsonl"), room.run("failed 1").out);
    assert!(listed.lines().count() > 3);

    room.config("[simulator]\nlatency = \"10s\"");
    let mut retrying = start(room.program("retry 1 --json"));
    retrying.wait_for("\"progress\"");
    retrying.signal("KILL");
    retrying.end();
    assert_eq!(room.run("failed 1").out, listed);
    assert_eq!(room.run("results 1").out.lines().count(), 30);

    let mut retrying = start(room.program("retry 1 --json"));
    retrying.wait_for("\"progress\"");
    retrying.signal("INT");
    retrying.wait_for("stopping");
    retrying.signal("INT");
    assert_eq!(retrying.end().code, Some(130));
    let mut same: Vec<_> = room.read("o.jsonl").lines().map(str::to_owned).collect();
    let mut before: Vec<_> = lines.lines().map(str::to_owned).collect();
    same.sort();
    before.sort();
    assert_eq!(same, before);

    room.config("");
    room.run("retry 1").expect(1);
    assert!(room.lines("o.jsonl").iter().all(|line| line["status"] == "completed"));
    assert_eq!(room.lines("rejects.jsonl").len(), 1, "what was no item is no item still");
}

#[test]
fn items_that_are_gone_from_the_input_are_told() {
    let room = Room::new("");
    room.items(20);
    room.run(RUN).expect(0);
    room.items(5);
    room.run(RUN).says(0, &["15 items that this run had before are not in its input any more"]);
    assert_eq!(room.lines("o.jsonl").len(), 5);
    assert_eq!(room.run("results 1").out.lines().count(), 5, "as the output");
}

#[test]
fn an_item_that_failed_counts_no_more_once_it_has_left_the_input() {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 3\" }]");
    room.items(6);
    room.run(RUN).says(1, &["5 completed, 1 failed"]);
    room.write(
        "items.jsonl",
        room.read("items.jsonl").replace("\"i3\"", "\"corrected\"").replace("thing 3", "thing 7"),
    );
    room.run(RUN).says(0, &["6 completed", "1 item that this run had before is not in its input any more"]);
    let again = room.run(RUN);
    again.says(0, &["nothing is left of it: 6 completed, 0 failed"]);
    assert!(!again.err.contains("retry"), "{}", again.err);
    room.run("retry 1").says(0, &["nothing has failed of that"]);
    let row: Value = serde_json::from_str(&room.run("runs --json").out).unwrap();
    let counts =
        ["completed", "failed", "skipped", "open", "calls"].map(|count| row[count].as_u64().unwrap());
    assert_eq!(counts, [6, 0, 0, 0, 7], "what was paid stays");
    let report: Value = serde_json::from_str(&room.run("report 1 --json").out).unwrap();
    let counts = ["completed", "failed", "gone", "unfinished"].map(|count| report["items"][count].as_u64());
    assert_eq!(counts, [6, 0, 1, 0].map(Some));
    assert_eq!(report["calls"]["made"], 7);
    assert_eq!(room.run("failed 1").out, "");
    let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(lines(room.run("results 1").out), lines(room.read("o.jsonl")));

    // Back in the input, it has failed again.
    room.items(6);
    room.run(RUN).says(1, &["5 completed, 1 failed"]);
    room.run(RUN).says(1, &["5 completed, 1 failed", "`pointsman retry 1`"]);
}

#[test]
fn an_input_without_any_item_leaves_the_output_of_a_run_that_has_settled_some() {
    let room = Room::new("");
    room.items(5);
    room.run(RUN).expect(0);
    let (output, items) = (room.read("o.jsonl"), room.read("items.jsonl"));
    let only_rejects = "no item\n3\n";
    for emptied in ["", "\n", only_rejects] {
        room.write("items.jsonl", emptied);
        for command in [RUN, "resume 1", "retry 1"] {
            let ended = room.run(command);
            if command == "retry 1" {
                ended.says(0, &["nothing has failed of that"]);
            } else {
                ended.says(
                    4,
                    &["no items in ", "run 1 has settled some before", "o.jsonl is as it was", "--new"],
                );
            }
            assert_eq!(room.read("o.jsonl"), output);
            assert!(room.run("runs").out.contains("complete"));
        }
    }
    // What comes from a pipe is known to have no items at its end alone.
    let piped = RUN.replace("items.jsonl", "-").replace("o.jsonl", "p.jsonl");
    finish_with(room.program(&piped), items.as_bytes()).expect(0);
    let output = room.read("p.jsonl");
    let said = ["the input has no items, and the run had 5 before", "p.jsonl is as it was before"];
    finish_with(room.program(&piped), b"").says(4, &said);
    assert_eq!(room.read("p.jsonl"), output);

    room.write("items.jsonl", items);
    room.run(RUN).says(0, &["nothing is left"]);
    room.write("items.jsonl", "");
    room.run(&format!("{RUN} --new --overwrite")).expect(0);
    assert_eq!(room.read("o.jsonl"), "");
}

#[test]
fn a_session_that_pauses_before_it_has_read_its_input_counts_what_was_settled_before() {
    let price = "models.any = { price = { input = 1, output = 5 } }";
    let config =
        format!("[provider.p]\nbase_url = \"simulator\"\n{price}\n[simulator]\nanswer_tokens = 20\n");
    let room = Room::new(&config);
    room.items(300);
    room.run(&format!("{RUN} --max-cost 0.02")).expect(5);
    let settled = room.lines("o.jsonl").len() as u64;
    assert!((50..300).contains(&settled), "{settled}");
    // New items come first, so that the cap is met before the others are read.
    let new = (1..=500).map(|number| format!("{{\"id\":\"n{number}\",\"text\":\"new {number}\"}}\n"));
    room.write("items.jsonl", format!("{}{}", new.collect::<String>(), room.read("items.jsonl")));
    let again = room.run(&format!("{RUN} --json --max-cost 0.0201"));
    again.expect(5);
    let report = lines(&again.err).into_iter().find_map(|line| line.get("report").cloned()).unwrap();
    let completed = report["items"]["completed"].as_u64().unwrap();
    assert_eq!(report["items"]["settled_before"], settled, "{}", report["items"]);
    assert_eq!(completed, room.lines("o.jsonl").len() as u64, "{}", report["items"]);
}

#[test]
fn a_retry_ends_with_1_where_anything_is_missing() {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 3\" }]");
    room.items(6);
    room.run(RUN).expect(1);
    let missing = "run 1 has 1 item failed: `pointsman retry 1";
    room.run("retry 1 --class timeout").says(1, &["nothing has failed of that", missing]);
    let quiet = room.run("retry 1 --class timeout --quiet");
    assert_eq!((quiet.code, quiet.err.lines().count()), (Some(1), 1), "{}", quiet.err);

    // Five that are new, and a piece that is no item.
    room.items(11);
    room.config("");
    room.run("retry 1")
        .says(1, &["5 items new or changed since they settled, and not asked", "`pointsman resume 1"]);
    room.run("resume 1").says(0, &["11 completed"]);
    room.run("retry 1").says(0, &["nothing has failed of that"]);
    room.config("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 12\" }]");
    room.items(12);
    room.write("items.jsonl", format!("{}no item\n", room.read("items.jsonl")));
    room.run("resume 1").says(1, &["11 completed, 1 failed, 1 rejected"]);
    room.config("");
    room.run("retry 1").says(1, &["12 completed, 1 rejected"]);
    room.run(RUN).says(1, &["nothing is left", "1 rejected"]);
}

#[test]
fn a_retry_from_the_store_ends_with_1_where_another_item_has_failed() {
    let kinds = ["refusal", "wrong_content"].map(|kind| {
        let number = if kind == "refusal" { 3 } else { 4 };
        format!("{{ kind = \"{kind}\", contains = \"thing {number}\" }}")
    });
    let room = Room::new(&format!("[simulator]\nfaults = [{}]", kinds.join(", ")));
    room.write("pipeline.toml", format!("{ONE_STEP}choice = [\"A\", \"B\"]\nreasks = 0\n"));
    room.items(6);
    room.run(RUN).says(1, &["2 failed"]);
    room.config("");
    std::fs::remove_file(room.path("items.jsonl")).unwrap();
    room.run("retry 1 --class content_filter").says(1, &["1 completed", "run 1 has 1 item failed"]);
    room.run("retry 1").says(0, &["1 completed"]);
}

#[test]
fn of_two_that_begin_the_same_run_one_does_and_the_other_touches_nothing() {
    let room = Room::new("[simulator]\nlatency = \"10s\"");
    room.items(3);
    let outs = ["o.jsonl", "p.jsonl"];
    outs.iter().for_each(|out| room.write(out, "as it was\n"));
    let overwrite = format!("{RUN} --overwrite");
    let mut both = outs.map(|out| start(room.program(&overwrite.replace("o.jsonl", out))));
    let refused = loop {
        if let Some(ended) = both.iter_mut().position(|one| one.child.try_wait().unwrap().is_some()) {
            break ended;
        }
        std::thread::yield_now();
    };
    let (loser, winner) = (outs[refused], outs[1 - refused]);
    let [first, second] = both;
    let (lost, mut won) = if refused == 0 { (first, second) } else { (second, first) };
    lost.end().says(4, &["run 1 is being worked on by process"]);
    assert_eq!(room.read(loser), "as it was\n");

    // Nor do two runs write to one file.
    won.wait_for("3 in flight");
    room.write("more.jsonl", room.read("items.jsonl"));
    let same_file = room.run(&format!("run pipeline.toml --items more.jsonl --out {winner}"));
    same_file.says(4, &[&format!("another run is writing to {winner}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_address_is_told_before_anything_goes_on() {
    let (rehearsal, real) = (play(Settings::default()), play(Settings::default()));
    let room = Room::new(&provider("a", &rehearsal, ""));
    room.items(3);
    room.run(RUN).expect(0);
    room.config(provider("a", &real, ""));
    room.run(RUN)
        .says(3, &["run 1 has changed since it began: other addresses: a/m", "of 3 answers 3 stay valid"]);
    room.run(&format!("{RUN} --new --overwrite")).says(0, &["3 calls"]);
    assert_eq!((rehearsal.counts().requests, real.counts().requests), (3, 3));
}
