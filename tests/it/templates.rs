//! Templates that item data makes large, slow or invalid: the item fails and the run continues.

use serde_json::Value;

use super::program::{Workspace, start_program};

/// Creates a workspace with a pipeline of one step with this prompt, and these items.
fn new_workspace(prompt: &str, items: &[Value]) -> Workspace {
    let workspace = Workspace::new("");
    workspace.write(
        "pipeline.toml",
        format!("name = \"one\"\n[[step]]\nname = \"answer\"\nprompt = \"\"\"{prompt}\"\"\"\n"),
    );
    workspace.write("items.jsonl", items.iter().map(|item| format!("{item}\n")).collect::<String>());
    workspace
}

const RUN: &str =
    "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report report.json";

#[test]
fn an_item_that_makes_a_prompt_too_long_fails_alone() {
    let small = serde_json::json!({ "id": "a", "list": [1, 2], "text": "x" });
    let large = serde_json::json!({ "id": "b", "list": vec![0; 2000], "text": "x".repeat(100_000) });
    let prompt = "{% for _ in item.list %}{{ item.text }}{% endfor %}";
    let workspace = new_workspace(prompt, &[small, large]);
    workspace.run(RUN).expect_stderr(1, &["1 completed, 1 failed", "template_error", "`max_prompt_bytes`"]);
    workspace.assert_nothing_is_lost(2, "o.jsonl", "r.jsonl");
}

#[test]
fn a_slow_template_does_not_delay_signals() {
    let loops = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let items: Vec<Value> = (1..=200).map(|id| serde_json::json!({ "id": id, "long": id > 2 })).collect();
    let workspace = new_workspace(&format!("{{% if item.long %}}{loops}{{% endif %}}Say hello."), &items);
    let mut running = start_program(workspace.command(RUN));
    running.wait_for_line("2 items done");
    running.signal("TERM");
    let output = running.wait();
    assert_eq!(output.code, Some(130), "{}", output.stderr);
    assert_eq!(
        workspace.output_lines("o.jsonl").iter().filter(|line| line["status"] == "completed").count(),
        2
    );
}

#[test]
fn a_comparison_of_a_text_with_a_number_fails_its_item_with_advice() {
    let items = ["5", "500"].map(|amount| serde_json::json!({ "id": amount, "amount": amount }));
    let workspace = new_workspace("{% if item.amount > 100 %}much{% else %}little{% endif %}", &items);
    workspace.run(RUN).expect_stderr(1, &["2 template_error", "make the text a number with `| float`"]);
}

#[test]
fn a_comparison_of_a_csv_field_with_a_number_is_refused_before_the_run() {
    let workspace = new_workspace("{% if item.amount > 100 %}much{% else %}little{% endif %}", &[]);
    workspace.write("items.csv", "id,amount\na,5\n");
    workspace.write("items.tsv", "id\tamount\na\t5\n");
    let tabs = workspace.run("run pipeline.toml --items items.tsv --out o.jsonl");
    let output = workspace.run("run pipeline.toml --items items.csv --out o.jsonl");
    assert_eq!((tabs.code, &tabs.stderr), (output.code, &output.stderr));
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.contains("cannot compare a text with a number"), "{}", output.stderr);
    assert!(
        output.stderr.contains("pipeline.toml:4:19") && output.stderr.contains("CSV"),
        "{}",
        output.stderr
    );
}
