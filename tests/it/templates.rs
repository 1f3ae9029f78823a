//! Templates that item data would make large, slow or wrong: the item fails and the run goes on.

use serde_json::Value;

use super::program::{Room, start};

/// A room with a pipeline of one step with this prompt, and these items.
fn room(prompt: &str, items: &[Value]) -> Room {
    let room = Room::new("");
    room.write(
        "pipeline.toml",
        format!("name = \"one\"\n[[step]]\nname = \"answer\"\nprompt = \"\"\"{prompt}\"\"\"\n"),
    );
    room.write("items.jsonl", items.iter().map(|item| format!("{item}\n")).collect::<String>());
    room
}

const RUN: &str =
    "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report report.json";

#[test]
fn an_item_that_makes_a_prompt_too_long_fails_alone() {
    let small = serde_json::json!({ "id": "a", "list": [1, 2], "text": "x" });
    let large = serde_json::json!({ "id": "b", "list": vec![0; 2000], "text": "x".repeat(100_000) });
    let prompt = "{% for _ in item.list %}{{ item.text }}{% endfor %}";
    let room = room(prompt, &[small, large]);
    room.run(RUN).says(1, &["1 completed, 1 failed", "template_error", "`max_prompt_bytes`"]);
    room.nothing_is_lost(2, "o.jsonl", "r.jsonl");
}

#[test]
fn a_template_that_runs_long_leaves_the_run_to_its_signals() {
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let items: Vec<Value> = (1..=200).map(|id| serde_json::json!({ "id": id, "long": id > 2 })).collect();
    let room = room(&format!("{{% if item.long %}}{loops}{{% endif %}}Say a word."), &items);
    let mut running = start(room.program(RUN));
    running.wait_for("2 items done");
    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    assert_eq!(room.lines("o.jsonl").iter().filter(|line| line["status"] == "completed").count(), 2);
}

#[test]
fn a_comparison_of_a_text_with_a_number_fails_its_item_with_advice() {
    let items = ["5", "500"].map(|amount| serde_json::json!({ "id": amount, "amount": amount }));
    let room = room("{% if item.amount > 100 %}much{% else %}little{% endif %}", &items);
    room.run(RUN).says(1, &["2 template_error", "make the text a number with `| float`"]);
}

#[test]
fn a_comparison_of_a_csv_field_with_a_number_is_refused_before_the_run() {
    let room = room("{% if item.amount > 100 %}much{% else %}little{% endif %}", &[]);
    room.write("items.csv", "id,amount\na,5\n");
    room.write("items.tsv", "id\tamount\na\t5\n");
    let tabs = room.run("run pipeline.toml --items items.tsv --out o.jsonl");
    let ended = room.run("run pipeline.toml --items items.csv --out o.jsonl");
    assert_eq!((tabs.code, &tabs.err), (ended.code, &ended.err));
    assert_eq!(ended.code, Some(3), "{}", ended.err);
    assert!(ended.err.contains("cannot compare a text with a number"), "{}", ended.err);
    assert!(ended.err.contains("pipeline.toml:4:19") && ended.err.contains("CSV"), "{}", ended.err);
}
