//! `pointsman help`: every example of the topics works.

use std::process::Command;

use super::program::*;

const TOPICS: [&str; 6] = ["pipelines", "templates", "schemas", "inputs", "configuration", "exit-codes"];

/// Returns the examples of a topic as a script of the shell: the indented lines from a command to its end.
fn script(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut is_document = false;
    for line in text.lines() {
        let Some(line) = line.strip_prefix("  ").or(line.is_empty().then_some("")) else { continue };
        if is_document {
            is_document = line != "END";
            lines.push(line);
        } else if let Some(command) = line.strip_prefix("$ ") {
            is_document = command.contains("<<'END'");
            lines.push(command);
        }
    }
    lines.join("\n")
}

#[test]
fn the_topics_are_listed_and_shown() {
    let workspace = Workspace::empty();
    let list = workspace.run("help");
    list.expect_code(0);
    for topic in TOPICS {
        assert!(list.stdout.contains(&format!("\n  {topic}")), "{topic}: {}", list.stdout);
        let shown = workspace.run(&format!("help {topic}"));
        shown.expect_code(0);
        assert!(shown.stdout.lines().count() > 10, "{topic}: {}", shown.stdout);
    }
}

#[test]
fn the_help_of_a_command_is_that_of_its_option() {
    let workspace = Workspace::empty();
    for command in ["run", "plan", "help"] {
        let shown = workspace.run(&format!("help {command}"));
        shown.expect_code(0);
        assert_eq!(shown.stdout, workspace.run(&format!("{command} --help")).stdout, "{command}");
        assert!(shown.stdout.contains("Usage:"), "{}", shown.stdout);
    }
    #[cfg(feature = "server")]
    assert_eq!(workspace.run("help token new").stdout, workspace.run("token new --help").stdout);
}

#[test]
fn a_topic_that_does_not_exist_is_an_error_with_the_nearest_one() {
    let workspace = Workspace::empty();
    workspace.run("help pipeline").expect_stderr(2, &["did you mean `pointsman help pipelines`?"]);
    workspace.run("help reusme").expect_stderr(2, &["did you mean `pointsman help resume`?"]);
    workspace.run("help everything").expect_stderr(2, &["the topics are pipelines, templates"]);
}

#[test]
#[cfg(unix)]
fn every_example_of_the_topics_works() {
    for topic in TOPICS {
        let workspace = Workspace::new("");
        let text = workspace.run(&format!("help {topic}")).stdout;
        let script = script(&text);
        assert!(script.contains("pointsman "), "{topic}");
        let function = format!(
            "pointsman() {{ case $1 in run|plan|check|ask) '{program}' \"$@\" --simulate;; *) '{program}' \"$@\";; esac; }}",
            program = env!("CARGO_BIN_EXE_pointsman")
        );
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("set -euo pipefail\n{function}\n{script}")]);
        shell.current_dir(workspace.path(""));
        let output = run_program(shell);
        assert_eq!(output.code, Some(0), "{topic}:\n{script}\n{}\n{}", output.stdout, output.stderr);
    }
}
