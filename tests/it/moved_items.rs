//! `resume --items` and `retry --items`: an items file that was moved, and columns that a table does not have.

use super::program::*;

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

fn rename(workspace: &Workspace, from: &str, to: &str) {
    std::fs::rename(workspace.path(from), workspace.path(to)).unwrap();
}

#[test]
fn a_run_continues_with_the_new_path_of_its_items_and_keeps_its_number() {
    let workspace = Workspace::new("");
    workspace.write_items(20);
    workspace.run(&format!("{RUN} --limit 5")).expect_code(0);
    rename(&workspace, "items.jsonl", "moved.jsonl");
    workspace.run("resume 1").expect_stderr(4, &["items.jsonl", "name its new path (--items FILE)"]);
    workspace
        .run("resume 1 --items moved.jsonl")
        .expect_stderr(0, &["resuming run 1: 5 items finished before"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 20);
    // The new path is a part of the run now.
    workspace.run("resume 1").expect_stderr(0, &["nothing to do"]);
    workspace
        .run("run pipeline.toml --items moved.jsonl --out o.jsonl")
        .expect_stderr(0, &["run 1 is complete, and there is nothing to do"]);
    assert_eq!(workspace.run("runs --json").stdout.lines().count(), 1);
}

#[test]
fn a_file_without_items_of_the_run_is_refused_unless_changes_are_accepted() {
    let workspace = Workspace::new("");
    workspace.write_items(6);
    workspace.run(&format!("{RUN} --limit 3")).expect_code(0);
    workspace.write("other.jsonl", "{\"id\":\"x1\",\"text\":\"a\"}\n{\"id\":\"x2\",\"text\":\"b\"}\n");
    let refused = workspace.run("resume 1 --items other.jsonl");
    refused.expect_stderr(4, &["other.jsonl lacks 3 items of run 1", "--accept-changes"]);
    // One item in common does not make it the moved file.
    let mixed = workspace.read("other.jsonl") + workspace.read("items.jsonl").lines().next().unwrap() + "\n";
    workspace.write("mixed.jsonl", mixed);
    workspace.run("resume 1 --items mixed.jsonl").expect_stderr(4, &["mixed.jsonl lacks 2 items of run 1"]);
    assert_eq!(refused.stderr.matches("error:").count(), 1, "{}", refused.stderr);
    // Nothing was changed.
    assert_eq!(workspace.output_lines("o.jsonl").len(), 3);
    workspace.run("resume 1 --items other.jsonl --accept-changes --overwrite").expect_code(0);
    let mut keys = keys(&workspace.output_lines("o.jsonl"));
    keys.sort();
    assert_eq!(keys, ["x1", "x2"]);
}

#[test]
fn failed_items_are_retried_with_the_new_path() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\" }]");
    workspace.write_items(4);
    workspace.run(RUN).expect_code(1);
    workspace.write_config("");
    rename(&workspace, "items.jsonl", "moved.jsonl");
    workspace.run("retry 1 --items moved.jsonl").expect_code(0);
    let lines = workspace.output_lines("o.jsonl");
    assert!(lines.len() == 4 && lines.iter().all(|line| line["status"] == "completed"), "{lines:?}");
    workspace.run("resume 1 --items -").expect_stderr(4, &["--items names the new path"]);
}

#[test]
fn a_table_without_a_column_of_the_templates_is_refused_with_the_nearest_names() {
    let workspace = Workspace::new("");
    workspace.write("items.csv", "id,txt,note\n1,a,b\n2,c,d\n");
    let output = workspace.run("run pipeline.toml --items items.csv --out o.csv");
    output.expect_stderr(
        3,
        &["items.csv does not have every column", "`item.text` is undefined; did you mean `txt`?"],
    );
    assert_eq!(output.stderr.matches("item.text").count(), 1, "{}", output.stderr);
    assert!(!workspace.path("o.csv").exists() && !workspace.path("pointsman.db").exists());
    workspace
        .write("pipeline.toml", ONE_STEP.replace("{{ item.text }}", "{{ item.text | default('nothing') }}"));
    workspace.run("run pipeline.toml --items items.csv --out o.csv").expect_code(0);
}
