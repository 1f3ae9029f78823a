//! `pointsman completions`: the script by which a shell completes the commands and options.

use clap::CommandFactory;
use clap_complete::aot::{Bash, Fish, Generator, Zsh};

use super::args::Args;
use super::exit::Exit;
use super::open_store::fail;
use super::print::print;
use super::progress::Mode;
use super::shell_args::{Completions, Shell};

/// The name of the program, which the shell completes after.
const PROGRAM: &str = "pointsman";

/// Writes the script for a shell to stdout.
pub(super) fn completions(args: &Completions) -> Exit {
    let printed = print(script(args.shell).trim_end());
    printed.map_or_else(|error| fail(Mode::Lines, error.into()), |()| Exit::Success)
}

/// Returns the script for a shell.
fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => generate(Bash),
        Shell::Zsh => generate(Zsh),
        Shell::Fish => generate(Fish),
    }
}

fn generate(generator: impl Generator) -> String {
    let mut script = Vec::new();
    clap_complete::aot::generate(generator, &mut Args::command(), PROGRAM, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::super::shell_args::COMPLETIONS_HELP;
    use super::*;
    use crate::terminal_text;

    const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

    /// Calls `check` for each visible command, with the commands that lead to it.
    fn for_each_command(command: &Command, path: &[String], check: &mut impl FnMut(&[String], &Command)) {
        check(path, command);
        for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
            let mut path = path.to_vec();
            path.push(command.get_name().to_owned());
            for_each_command(command, &path, check);
        }
    }

    /// Returns the long options of a command that its help shows.
    fn options(command: &Command) -> Vec<String> {
        let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
        shown.filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
    }

    #[test]
    fn every_command_and_option_is_in_the_script_of_each_shell() {
        let mut root = Args::command();
        root.build();
        for shell in SHELLS {
            let script = script(shell);
            let mut seen = 0;
            for_each_command(&root, &[], &mut |path, command| {
                if let Some(name) = path.last() {
                    assert!(script.contains(name.as_str()), "{shell:?}: {path:?}");
                }
                for option in options(command) {
                    let written = match shell {
                        Shell::Bash | Shell::Zsh => format!("--{option}"),
                        Shell::Fish => format!("-l {option}"),
                    };
                    assert!(script.contains(&written), "{shell:?}: {path:?} --{option}");
                    seen += 1;
                }
            });
            assert!(seen > 60, "{shell:?}: the test has seen {seen} options");
        }
    }

    #[test]
    fn bash_completes_the_options_of_a_command_after_that_command() {
        let mut root = Args::command();
        root.build();
        let script = script(Shell::Bash);
        for_each_command(&root, &[], &mut |path, command| {
            let label: Vec<&str> = std::iter::once(PROGRAM).chain(path.iter().map(String::as_str)).collect();
            let label = format!("\n        {})\n            opts=\"", label.join("__subcmd__"));
            let (_, rest) = script.split_once(&label).unwrap_or_else(|| panic!("no {label:?}"));
            let words: Vec<&str> = rest.split('"').next().unwrap().split_whitespace().collect();
            for option in options(command) {
                assert!(words.contains(&format!("--{option}").as_str()), "{path:?} --{option}: {words:?}");
            }
        });
    }

    #[test]
    fn a_script_is_printed_as_it_is() {
        for shell in SHELLS {
            let script = script(shell);
            assert_eq!(terminal_text::lines(script.trim_end()), script.trim_end(), "{shell:?}");
        }
    }

    #[test]
    fn the_help_names_a_place_for_each_shell() {
        for shell in SHELLS {
            let name = format!("{shell:?}").to_lowercase();
            assert!(COMPLETIONS_HELP.contains(&format!("\n  {name} ")), "{name}");
            assert!(COMPLETIONS_HELP.contains(&format!("pointsman completions {name} > ")), "{name}");
        }
    }
}
