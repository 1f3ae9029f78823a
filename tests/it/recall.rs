//! Lines that are made again carry the answers of what their items are now, and nothing valid is asked again.

use std::io::Write;

use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::store::{Outline, Sqlite, Store};
use serde_json::{Value, json};

use super::program::*;
use super::stage::{faulty, play, provider};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Two steps: the second waits for the first, and is due where the item wants it.
const TWO_STEPS: &str = r#"
name = "two"
[[step]]
name = "topic"
prompt = "Name the topic of {{ item.text }}"
[[step]]
name = "reply"
needs = ["topic"]
when = "item.wanted"
prompt = "Reply to {{ item.text }}"
"#;

fn item(room: &Room, text: &str) {
    room.write("items.jsonl", format!("{{\"id\":1,\"text\":\"{text}\",\"wanted\":true}}\n"));
}

/// Returns the line of the only item, as `results` makes it and as the next run does, which must be the same.
#[track_caller]
fn line_again(room: &Room, config: &str) -> Value {
    room.config(config);
    let exported = room.run("results 1");
    exported.expect(0);
    std::fs::remove_file(room.path("o.jsonl")).unwrap();
    let code = if exported.out.contains("\"status\":\"failed\"") { 1 } else { 0 };
    room.run(RUN).expect(code);
    let mut lines = room.lines("o.jsonl");
    assert_eq!(lines, super::program::lines(&exported.out));
    assert_eq!(lines.len(), 1);
    lines.remove(0)
}

#[track_caller]
fn mentions(line: &Value, step: &str, words: &str) {
    assert!(line["answers"][step].as_str().unwrap_or_default().contains(words), "{words:?} is not in {line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_is_changed_and_changed_back_has_its_own_answer_again_and_no_call() {
    let simulator = play(Settings::default());
    let config = provider("a", &simulator, "");
    let room = Room::new(&config);
    for (text, calls) in [("a cat", 1), ("a dog", 2), ("a cat", 2), ("a dog", 2), ("a cat", 2)] {
        item(&room, text);
        room.run(RUN).expect(0);
        assert_eq!(simulator.counts().requests, calls, "{text}");
        mentions(&room.lines("o.jsonl")[0], "answer", text);
        mentions(&line_again(&room, &config), "answer", text);
    }
    assert_eq!(simulator.counts().requests, 2);
    let report = room.run("report 1 --json");
    let report: Value = serde_json::from_str(&report.out).unwrap();
    assert_eq!(report["calls"]["made"], 2, "an answer that is recalled is counted once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_is_changed_and_changed_back_gives_the_answers_to_itself() {
    let simulator = play(Settings::default());
    let config = provider("a", &simulator, "");
    let room = Room::new(&config);
    item(&room, "a cat");
    room.run(RUN).expect(0);
    for (words, calls) in [("nothing", 2), ("something", 2), ("nothing", 2), ("something", 2)] {
        room.write("pipeline.toml", ONE_STEP.replace("something", words));
        room.run(&format!("{RUN} --accept-changes")).expect(0);
        assert_eq!(simulator.counts().requests, calls, "{words}");
        mentions(&line_again(&room, &config), "answer", words);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_skipped_or_not_reached_now_shows_no_older_answer() {
    let simulator = play(Settings::default());
    let config = provider("a", &simulator, "");
    let room = Room::new(&config);
    room.write("pipeline.toml", TWO_STEPS);
    item(&room, "a cat");
    room.run(RUN).expect(0);
    mentions(&line_again(&room, &config), "reply", "a cat");

    room.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\",\"wanted\":false}\n");
    room.run(RUN).expect(0);
    let skipped = line_again(&room, &config);
    assert_eq!(
        (&skipped["answers"]["reply"], &skipped["steps"]["reply"]["status"]),
        (&Value::Null, &"skipped".into())
    );
    mentions(&skipped, "topic", "a cat");
    assert_eq!(simulator.counts().requests, 2);

    // The first step cannot be asked: so the second is not reached.
    room.write("items.jsonl", "{\"id\":1,\"wanted\":true}\n");
    room.run(RUN).expect(1);
    let failed = line_again(&room, &config);
    assert_eq!(failed["answers"], serde_json::json!({ "topic": null, "reply": null }));
    assert_eq!((&failed["status"], &failed["error"]["class"]), (&"failed".into(), &"template_error".into()));
    assert_eq!(
        (&failed["steps"]["topic"]["status"], &failed["steps"]["reply"]["status"]),
        (&"failed".into(), &"unfinished".into())
    );

    item(&room, "a cat");
    room.run(RUN).expect(0);
    mentions(&line_again(&room, &config), "reply", "a cat");
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_names_the_target_that_gave_its_answer() {
    let (first, second) = (play(Settings::default()), play(Settings::default()));
    let route = "[route.default]\npolicy = \"priority\"\nlanes = [\"a/m\", \"b/m\"]\n";
    let config = format!("{}{}{route}", provider("a", &first, ""), provider("b", &second, ""));
    let room = Room::new(&config);
    item(&room, "a cat");
    room.run(RUN).expect(0);
    assert_eq!(room.lines("o.jsonl")[0]["steps"]["answer"]["provider"], "a");
    drop(first);
    item(&room, "a dog");
    room.run(RUN).expect(0);
    assert_eq!(room.lines("o.jsonl")[0]["steps"]["answer"]["provider"], "b");
    item(&room, "a cat");
    room.run(RUN).expect(0);
    assert_eq!(room.lines("o.jsonl")[0]["steps"]["answer"]["provider"], "a");
    assert_eq!(line_again(&room, &config)["steps"]["answer"]["provider"], "a");
}

/// Starts a run of three items, changes their file once it has been read, and lets the run end.
fn changed_at_work(simulator: &Simulator, change: impl FnOnce(&Room)) -> Room {
    let room = Room::new(&provider("a", simulator, ""));
    room.items(3);
    let mut running = start(room.program(&format!("{RUN} --json")));
    running.wait_for("\"input_read\":1.0");
    change(&room);
    running.end().expect(0);
    assert_eq!(room.lines("o.jsonl").len(), 3);
    room
}

fn slow() -> Settings {
    toml::from_str("latency = \"2s\"").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_appended_while_a_run_is_at_work_are_done_by_the_next() {
    let simulator = play(slow());
    let room = changed_at_work(&simulator, |room| {
        let mut items = std::fs::OpenOptions::new().append(true).open(room.path("items.jsonl")).unwrap();
        items.write_all(b"{\"id\":\"i4\",\"text\":\"a late thing\"}\n").unwrap();
    });
    room.run(RUN).says(0, &["run 1 goes on: 3 items settled before", "4 completed"]);
    assert_eq!((room.lines("o.jsonl").len(), simulator.counts().requests), (4, 4));
    room.run(RUN).says(0, &["nothing is left"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_replaces_the_input_while_a_run_is_at_work_is_done_by_the_next() {
    let simulator = play(slow());
    let room = changed_at_work(&simulator, |room| {
        room.write("new.jsonl", room.read("items.jsonl").replace("thing 2", "other 2"));
        std::fs::rename(room.path("new.jsonl"), room.path("items.jsonl")).unwrap();
    });
    room.run(RUN).says(0, &["run 1 goes on: 3 items settled before"]);
    let line = room.lines("o.jsonl").into_iter().find(|line| line["key"] == "i2").unwrap();
    mentions(&line, "answer", "other 2");
    assert_eq!(simulator.counts().requests, 4);
    room.run(RUN).says(0, &["nothing is left"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_that_are_swapped_between_routes_are_noticed_and_asked_again() {
    let simulator = play(Settings::default());
    let url = simulator.base_url(pointsman::simulator::Vendor::OpenAi);
    let config = |fast: &str, good: &str| {
        let provider =
            format!("[provider.a]\nbase_url = \"{url}\"\nmodels.small = {{}}\nmodels.large = {{}}\n");
        format!("{provider}[route.fast]\nlanes = [\"a/{fast}\"]\n[route.good]\nlanes = [\"a/{good}\"]\n")
    };
    let room = Room::new(&config("small", "large"));
    let two_routes = TWO_STEPS.replace("name = \"topic\"", "name = \"topic\"\nroute = \"fast\"");
    let two_routes = two_routes.replace("name = \"reply\"", "name = \"reply\"\nroute = \"good\"");
    room.write("pipeline.toml", &two_routes);
    item(&room, "a cat");
    room.run(RUN).expect(0);
    room.config(config("large", "small"));
    room.run(RUN).says(3, &["run 1 has changed since it began: steps that ask other models: topic, reply"]);
    room.run(&format!("{RUN} --accept-changes")).expect(0);
    let line = room.lines("o.jsonl").remove(0);
    let models = ["topic", "reply"].map(|step| line["steps"][step]["model"].as_str().unwrap().to_owned());
    assert_eq!((models, simulator.counts().requests), (["large".to_owned(), "small".to_owned()], 4));

    // A step that is moved to the other route, which both use already, asks the other model.
    room.write(
        "pipeline.toml",
        two_routes.replace("\"good\"", "\"x\"").replace("\"fast\"", "\"good\"").replace("\"x\"", "\"fast\""),
    );
    room.run(RUN).says(3, &["steps that ask other models: topic, reply", "of 2 answers 0 stay valid"]);
    room.run(&format!("{RUN} --accept-changes")).expect(0);
    assert_eq!(simulator.counts().requests, 4, "what each model had answered before is valid again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_is_replaced_under_its_name_is_asked_again() {
    let simulator = play(Settings::default());
    let room = Room::new(&provider("a", &simulator, ""));
    room.write("pipeline.toml", ONE_STEP.replace("[[step]]", "[[step]]\nattach = [\"{{ item.photo }}\"]"));
    let items = ["one", "two"]
        .map(|name| format!("{{\"id\":\"{name}\",\"text\":\"it\",\"photo\":\"{name}.png\"}}\n"));
    room.write("items.jsonl", items.concat());
    room.write("one.png", b"the first picture");
    room.write("two.png", b"the other picture");
    room.run(RUN).expect(0);
    room.run(RUN).says(0, &["2 completed"]);
    assert_eq!(simulator.counts().requests, 2);
    room.write("two.png", b"the third picture");
    room.run(RUN).says(0, &["2 completed"]);
    assert_eq!(simulator.counts().requests, 3);
    // The same content by another file is the same picture.
    room.write("new.png", b"the third picture");
    std::fs::rename(room.path("new.png"), room.path("two.png")).unwrap();
    room.run(RUN).says(0, &["2 completed"]);
    assert_eq!(simulator.counts().requests, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_failed_is_asked_again_when_its_picture_is_replaced() {
    let fault = |kind| Fault { times: Some(1), ..Fault::new(kind) };
    let simulator = faulty([fault(FaultKind::Refusal)]);
    let room = Room::new(&provider("a", &simulator, ""));
    room.write("pipeline.toml", ONE_STEP.replace("[[step]]", "[[step]]\nattach = [\"{{ item.photo }}\"]"));
    room.write("items.jsonl", "{\"id\":1,\"text\":\"it\",\"photo\":\"one.png\"}\n");
    room.write("one.png", b"the first picture");
    room.run(RUN).says(1, &["1 failed"]);
    let asked = simulator.counts().requests;
    room.run(RUN).says(1, &["1 failed"]);
    assert_eq!(simulator.counts().requests, asked, "what failed is asked again by `retry`");
    room.write("one.png", b"another picture");
    room.run(RUN).says(1, &["1 failed"]);
    assert!(simulator.counts().requests > asked, "the picture is another");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_discards_no_answer_is_told_and_not_asked_about() {
    let simulator = play(Settings::default());
    let price = |dollars: &str| {
        let url = simulator.base_url(pointsman::simulator::Vendor::OpenAi);
        format!(
            "[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{ price = {{ input = {dollars}, output = 2 }} }}\n"
        )
    };
    let room = Room::new(&price("1.0"));
    room.items(3);
    room.run(RUN).expect(0);
    room.config(price("2.0"));
    room.run(RUN).says(0, &["run 1 has changed since it began: other prices: a/m; every answer stays valid"]);
    let more = "[[step]]\nname = \"more\"\nprompt = \"Say more about {{ item.text }}\"\n";
    room.write("pipeline.toml", format!("{ONE_STEP}{more}"));
    room.run(RUN).says(0, &["new steps: more; every answer stays valid", "3 calls"]);
    assert!(room.lines("o.jsonl").iter().all(|line| line["answers"]["more"].is_string()));
    assert_eq!(simulator.counts().requests, 6);
}

#[test]
fn a_run_of_the_version_before_is_read_by_every_command() {
    let room = Room::new("");
    std::fs::copy(repository("tests/data/store/version_2.sqlite"), room.path("pointsman.db")).unwrap();
    let listed = room.run("runs");
    listed.expect(0);
    assert_eq!(listed.out.lines().count(), 3, "{}", listed.out);
    for run in [1, 2] {
        let lines = room.run(&format!("results {run}"));
        lines.expect(0);
        assert_eq!(lines.out.lines().count(), 3);
        room.run(&format!("report {run}")).expect(0);
        room.run(&format!("failed {run}")).says(0, &[]);
    }
}

/// Refuses what an item asks for that says so.
const REFUSING: &str = "[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]";

fn statuses(room: &Room) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all: Vec<_> =
        room.lines("o.jsonl").iter().map(|line| (text(&line["key"]), text(&line["status"]))).collect();
    all.sort();
    all
}

#[test]
fn a_retry_that_accepts_changes_keeps_every_other_line_and_leaves_the_run_open() {
    let room = Room::new(REFUSING);
    room.items(12);
    room.run(RUN).expect(1);
    let before = room.lines("o.jsonl");
    let failed = before.iter().filter(|line| line["status"] == "failed").count();
    assert!((1..12).contains(&failed));
    room.config("");
    room.write("pipeline.toml", ONE_STEP.replace("something", "nothing"));
    room.run("retry 1").says(3, &["--accept-changes"]);
    let others = 12 - failed;
    room.run("retry 1 --accept-changes")
        .says(1, &[&format!("{others} items new or changed"), "`pointsman resume 1"]);
    let after = room.lines("o.jsonl");
    assert_eq!(after.len(), 12);
    for line in &after {
        let old = before.iter().find(|old| old["key"] == line["key"]).unwrap();
        if old["status"] == "completed" {
            assert_eq!(line, old);
        } else {
            mentions(line, "answer", "nothing");
        }
    }
    assert!(room.run("runs").out.contains("stopped"));
    let results = room.run("results 1");
    results.says(0, &[&format!("{others} lines of items that settled before the pipeline of run 1 changed")]);
    assert_eq!(results.out.lines().count(), 12);

    room.run("resume 1").says(0, &[&format!("{others} calls")]);
    assert_eq!(room.lines("o.jsonl").len(), 12);
    room.lines("o.jsonl").iter().for_each(|line| mentions(line, "answer", "nothing"));
    room.run(RUN).says(0, &["nothing is left"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrected_row_without_an_id_is_paid_for_once_and_has_one_line() {
    let simulator = play(Settings::default());
    let room = Room::new(&provider("a", &simulator, ""));
    room.write("items.jsonl", "{\"text\":\"a cat\"}\n{\"txt\":\"a dog\"}\n");
    room.run(RUN).expect(1);
    assert_eq!(statuses(&room).iter().filter(|(_, status)| status == "failed").count(), 1);
    // Corrected: it is another item, and the one that failed has left the input.
    room.write("items.jsonl", "{\"text\":\"a cat\"}\n{\"text\":\"a dog\"}\n");
    room.run("retry 1").says(1, &["1 item new or changed", "`pointsman resume 1"]);
    assert_eq!((room.lines("o.jsonl").len(), simulator.counts().requests), (1, 1));
    room.run("resume 1").says(0, &["2 completed"]);
    assert_eq!((room.lines("o.jsonl").len(), simulator.counts().requests), (2, 2));
    // Where the input is gone, what the run last knew of it counts.
    std::fs::remove_file(room.path("items.jsonl")).unwrap();
    room.run("retry 1").says(0, &["nothing has failed of that"]);
    assert_eq!((room.lines("o.jsonl").len(), simulator.counts().requests), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_asks_an_item_as_it_is_now() {
    let simulator = play(Settings::default());
    let room = Room::new(&provider("a", &simulator, ""));
    room.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\"}\n{\"id\":2}\nno item\n");
    room.run(RUN).expect(1);
    room.write("items.jsonl", "{\"id\":1,\"text\":\"a cat\"}\n{\"id\":2,\"text\":\"a dog\"}\nno item\n");
    room.run("retry 1").says(1, &["2 completed, 1 rejected"]);
    mentions(&room.lines("o.jsonl")[1], "answer", "a dog");
    assert_eq!((room.lines("o.jsonl").len(), simulator.counts().requests), (2, 2));
}

#[test]
fn an_execution_that_is_stopped_leaves_every_line_that_is_settled() {
    let room = Room::new("");
    room.items(20);
    room.run(RUN).expect(0);
    let before = room.lines("o.jsonl");
    // Thirty new items come first, and take long.
    let new = (1..=30).map(|number| format!("{{\"id\":\"n{number}\",\"text\":\"new {number}\"}}\n"));
    room.write("items.jsonl", format!("{}{}", new.collect::<String>(), room.read("items.jsonl")));
    room.config("[simulator]\nlatency = \"300ms\"\n[run]\nwindow = 4");
    let mut stopped = start(room.program(&format!("{RUN} --json")));
    stopped.wait_for("\"progress\"");
    stopped.signal("INT");
    stopped.end().expect(130);
    let after = room.lines("o.jsonl");
    assert!((21..50).contains(&after.len()), "{}", after.len());
    assert!(before.iter().all(|line| after.contains(line)));
    assert_eq!(room.run("results 1").out.lines().count(), after.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_manifest_cannot_be_decoded_is_an_error_and_no_empty_result() {
    let room = Room::new("");
    let (name, pipeline) = ("one".to_owned(), ONE_STEP.to_owned());
    let outline = Outline { name, places: Value::Null, pipeline, grounds: json!({ "steps": 3 }) };
    let store = Sqlite::open(&room.path("pointsman.db")).await.unwrap();
    store.create("one", &outline).await.unwrap();
    drop(store);
    for command in ["results 1", "failed 1", "report 1"] {
        let ended = room.run(command);
        ended.says(4, &["what the answers of run 1 depend on cannot be read", "--new"]);
        assert_eq!(ended.out, "");
    }
}
