//! `pointsman check --items`: what the items lack, the rendered prompts and the estimate, without a request.

use super::program::*;

const TWO_STEPS: &str = r#"
name = "two"
[[step]]
name = "kind"
system = "You sort."
prompt = "Sort: {{ item.text }}"
choice = ["bug", "praise"]
[[step]]
name = "reply"
prompt = "Reply to a {{ kind }} on {{ item.text }}"
"#;

#[test]
fn the_first_prompt_of_each_step_and_the_estimate_are_shown_without_a_request() {
    let workspace = Workspace::new("");
    workspace.write("pipeline.toml", TWO_STEPS);
    workspace.write_items(3);
    let output = workspace.run("check pipeline.toml --items items.jsonl");
    output.expect_stderr(0, &["no problems found", "items.jsonl: 3 items, all templates can be rendered"]);
    for shown in [
        "step kind, line 1, item i1:\n  [system]\n  You sort.\n  [prompt]\n  Sort: thing 1\n",
        "step reply, line 1, item i1, with a placeholder for the answer of kind:\n  [prompt]\n  Reply to a bug on thing 1\n",
        "two: 3 items\n",
        "calls 6",
        "cost ",
    ] {
        assert!(output.stdout.contains(shown), "{shown:?} is not in:\n{}", output.stdout);
    }
    assert!(!workspace.path("pointsman.db").exists());
    let three = workspace.run("check pipeline.toml --items items.jsonl --show 3");
    assert_eq!(three.stdout.matches("step kind, line ").count(), 3, "{}", three.stdout);
    let none = workspace.run("check pipeline.toml --items items.jsonl --show 0");
    assert!(!none.stdout.contains("[prompt]") && none.stdout.contains("calls 6"), "{}", none.stdout);
}

#[test]
fn every_unknown_field_is_reported_once_with_its_items_and_its_first_line() {
    let workspace = Workspace::new("");
    workspace.write(
        "pipeline.toml",
        "name = \"p\"\n[[step]]\nname = \"a\"\nprompt = \"{{ item.txt }} {{ item.authr }}\"\n\
         [[step]]\nname = \"b\"\nprompt = \"{{ a }} {{ item.txt }} {{ item.note }} {{ item.x | default('-') }}\"\n",
    );
    let mut items = String::from("id,text,author,note\n");
    (1..=40).for_each(|number| items.push_str(&format!("i{number},thing,me,n\n")));
    workspace.write("items.csv", items);
    let output = workspace.run("check pipeline.toml --items items.csv");
    output.expect_stderr(
        1,
        &[
            "`item.txt` is undefined; did you mean `text`? (40 items, the first on line 2: i1)",
            "`item.authr` is undefined; did you mean `author`? (40 items, the first on line 2: i1)",
            "items.csv: 40 of 40 items would fail before a request",
        ],
    );
    assert_eq!(output.stderr.matches("item.txt").count(), 1, "{}", output.stderr);
    assert!(!output.stderr.contains("item.x") && !output.stderr.contains("item.note"), "{}", output.stderr);
}

#[test]
fn a_field_that_only_some_items_lack_is_reported_with_the_first_of_them() {
    let workspace = Workspace::new("");
    let line = |number: u32| match number % 10 {
        7 => format!("{{\"id\":{number},\"txt\":\"t\"}}\n"),
        _ => format!("{{\"id\":{number},\"text\":\"t\"}}\n"),
    };
    workspace.write("items.jsonl", (1..=5_000).map(line).collect::<String>());
    let output = workspace.run("check pipeline.toml --items items.jsonl");
    output.expect_stderr(1, &["`item.text` is undefined", "(500 items, the first on line 7: 7)"]);
}

#[test]
fn rejected_records_and_files_that_cannot_be_read_are_reported() {
    let workspace = Workspace::new("");
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"t\"}\nnot JSON\n");
    let output = workspace.run("check pipeline.toml --items items.jsonl");
    output.expect_stderr(1, &["1 record of the input would be rejected, such as line 2"]);
    workspace.run("check pipeline.toml --items none.jsonl").expect_stderr(4, &["--items", "none.jsonl"]);
    workspace.run("check --items items.jsonl").expect_stderr(2, &["--items needs one pipeline"]);
}

#[test]
fn a_setting_that_no_target_can_express_is_an_error_and_one_that_some_can_is_a_note() {
    let providers = "[provider.a]\nformat = \"anthropic\"\nkeys = [\"env:A_KEY\"]\n[provider.a.models.m]\n\
                     [provider.o]\nkeys = [\"env:A_KEY\"]\n[provider.o.models.m]\n";
    let pipeline = "name = \"p\"\n[[step]]\nname = \"answer\"\nseed = 7\nprompt = \"{{ item.text }}\"\n";
    let check = |targets: &str| {
        let workspace = Workspace::new("");
        workspace.write("config.toml", format!("{providers}[route.default]\ntargets = [{targets}]\n"));
        workspace.write("pipeline.toml", pipeline);
        let mut command = workspace.command("check pipeline.toml");
        command.env("A_KEY", "k");
        run_program(command)
    };
    check("\"a/m\"").expect_stderr(
        3,
        &[
            "no target of route `default` can take the requests of step `answer`",
            "cannot express seed",
            "drop_parameters",
        ],
    );
    check("\"a/m\", \"o/m\"")
        .expect_stderr(0, &["only to some targets of route `default`: a/m: ", "cannot express seed"]);
    let both = check("\"o/m\"");
    both.expect_code(0);
    assert!(!both.stderr.contains("seed"), "{}", both.stderr);
}
