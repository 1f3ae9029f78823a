//! `pointsman help`: texts about topics, and the help of commands.

use std::ffi::OsString;

use clap::{Command, CommandFactory};

use crate::diagnostics::nearest;

use super::args::{Args, Help};
use super::exit::Exit;
use super::print;
use super::progress::Mode;

/// A topic: its name, what it explains, and its text.
struct Topic {
    name: &'static str,
    about: &'static str,
    text: &'static str,
}

/// The topics, in the order in which they are listed.
const TOPICS: [Topic; 6] = [
    Topic {
        name: "pipelines",
        about: "the steps for each item, in a file or on the command line",
        text: include_str!("help_topics/pipelines.txt"),
    },
    Topic {
        name: "templates",
        about: "prompts with fields of the item and answers of other steps",
        text: include_str!("help_topics/templates.txt"),
    },
    Topic { name: "schemas", about: "answers that are JSON", text: include_str!("help_topics/schemas.txt") },
    Topic {
        name: "inputs",
        about: "files of items, their keys, and rejected records",
        text: include_str!("help_topics/inputs.txt"),
    },
    Topic {
        name: "configuration",
        about: "providers, models, routes, keys and budgets",
        text: include_str!("help_topics/configuration.txt"),
    },
    Topic {
        name: "exit-codes",
        about: "what the exit code says, and how to continue",
        text: include_str!("help_topics/exit-codes.txt"),
    },
];

/// Shows a topic, the help of a command, or the list of topics.
pub(super) fn help(args: &Help) -> Exit {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => show(&list()),
        path => match topic(path) {
            Some(topic) => show(topic.text.trim_end()),
            None if is_command(path) => show_command(path),
            None => Mode::Lines.fail(&anyhow::anyhow!("{}", unknown(path)), Exit::Usage),
        },
    }
}

/// Returns the topic that the words name.
fn topic(words: &[&str]) -> Option<&'static Topic> {
    TOPICS.iter().find(|topic| words == [topic.name])
}

/// Returns the list of topics.
fn list() -> String {
    let width = TOPICS.iter().map(|topic| topic.name.len()).max().unwrap_or_default();
    let mut lines = vec!["Topics:".to_owned()];
    lines.extend(TOPICS.iter().map(|topic| format!("  {:width$}  {}", topic.name, topic.about)));
    lines.push(String::new());
    lines.push(
        "`pointsman help TOPIC` shows one, and `pointsman help COMMAND` the help of a command.".to_owned(),
    );
    lines.push("`pointsman --help` lists the commands.".to_owned());
    lines.join("\n")
}

/// Returns whether the words are a command, such as `token new`.
fn is_command(path: &[&str]) -> bool {
    let program = Args::command();
    let mut command: Option<&Command> = Some(&program);
    for word in path {
        command = command.and_then(|command| command.find_subcommand(word));
    }
    command.is_some()
}

/// Shows the help of a command, as its `--help` does.
fn show_command(path: &[&str]) -> Exit {
    let words = ["pointsman"].into_iter().chain(path.iter().copied()).chain(["--help"]);
    let arguments: Vec<OsString> = words.map(OsString::from).collect();
    match Args::parse_shown(&arguments) {
        Ok(_) => Exit::Success,
        Err(help) => print::usage(&help, &arguments)
            .unwrap_or_else(|error| Mode::Lines.fail(&error.into(), Exit::IoError)),
    }
}

/// Returns that there is no such topic or command, with the nearest names.
fn unknown(path: &[&str]) -> String {
    let program = Args::command();
    let commands: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
    let wrong = path.join(" ");
    let names = TOPICS.iter().map(|topic| topic.name).chain(commands);
    match nearest(&wrong, names) {
        Some(meant) => format!("there is no help on {wrong:?}; did you mean `pointsman help {meant}`?"),
        None => {
            let topics: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
            format!("there is no help on {wrong:?}; the topics are {}", topics.join(", "))
        }
    }
}

fn show(text: &str) -> Exit {
    match print::print(text) {
        Ok(()) => Exit::Success,
        Err(error) => Mode::Lines.fail(&error.into(), Exit::IoError),
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit;
    use super::*;

    #[test]
    fn a_topic_fits_a_screen_and_has_an_example() {
        for Topic { name, text, .. } in &TOPICS {
            assert!(text.lines().count() <= 60, "{name}");
            assert!(text.lines().any(|line| line.starts_with("  $ pointsman ")), "{name}");
            let is_long = |line: &&str| line.chars().count() > 132;
            assert_eq!(text.lines().find(is_long), None, "{name}");
        }
    }

    #[test]
    fn the_topic_of_exit_codes_has_all_of_them() {
        let text = topic(&["exit-codes"]).unwrap().text;
        for line in exit::HELP.lines().skip(1) {
            assert!(text.contains(line), "{line:?}");
        }
    }
}
