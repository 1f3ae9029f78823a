//! `completions`, `man` and `--version`: what a shell and a manual need of the program.

use std::fs;
use std::io::ErrorKind;
use std::process::Command;

use super::program::{Output, Workspace, program, run_program};

/// Returns the script for a shell.
fn script(shell: &str) -> String {
    let output = run_program(program(&format!("completions {shell}")));
    assert_eq!(output.expect_code(0), "");
    output.stdout
}

/// Runs a program of this machine and returns its output; `None` if it is not installed.
fn run_installed(name: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(name).args(arguments).output() {
        Ok(output) => Some(Output {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

#[test]
fn each_script_has_the_syntax_of_its_shell() {
    let workspace = Workspace::empty();
    for (shell, option) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        workspace.write(shell, script(shell));
        let path = workspace.path(shell);
        // The script is tested where its shell is installed.
        let Some(checked) = run_installed(shell, &[option, path.to_str().unwrap()]) else { continue };
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{shell}");
    }
}

/// Returns what bash offers for the last of these words.
fn bash_offers(workspace: &Workspace, words: &[&str]) -> Option<Vec<String>> {
    let last = words.last().unwrap();
    let before = words[words.len() - 2];
    let program = format!(
        "source ./script\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_pointsman pointsman {last:?} {before:?}\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "),
        words.len() - 1,
    );
    workspace.write("complete", format!("cd {}\n{program}", workspace.path("").display()));
    let offered = run_installed("bash", &[workspace.path("complete").to_str().unwrap()])?;
    offered.expect_code(0);
    Some(offered.stdout.lines().map(str::to_owned).collect())
}

#[test]
fn bash_offers_commands_and_their_options() {
    let workspace = Workspace::empty();
    workspace.write("script", script("bash"));
    for (words, expected) in [
        (vec!["pointsman", "ru"], vec!["run", "runs"]),
        (vec!["pointsman", "compl"], vec!["completions"]),
        (vec!["pointsman", "run", "--max-c"], vec!["--max-cost"]),
        (vec!["pointsman", "completions", "b"], vec!["bash"]),
        (vec!["pointsman", "man", "--d"], vec!["--dir"]),
        #[cfg(feature = "server")]
        (vec!["pointsman", "token", "l"], vec!["list"]),
        #[cfg(feature = "server")]
        (vec!["pointsman", "token", "list", "--js"], vec!["--json"]),
    ] {
        let Some(offered) = bash_offers(&workspace, &words) else { return };
        for word in &expected {
            assert!(offered.iter().any(|offered| offered == word), "{words:?}: {offered:?}");
        }
    }
}

#[test]
fn the_help_of_completions_says_where_the_script_belongs() {
    let help = run_program(program("completions --help"));
    help.expect_code(0);
    for place in [
        "~/.local/share/bash-completion/completions/pointsman",
        "~/.zfunc/_pointsman",
        "~/.config/fish/completions/pointsman.fish",
    ] {
        assert!(help.stdout.contains(place), "{place}:\n{}", help.stdout);
    }
    run_program(program("completions tcsh")).expect_stderr(2, &["tcsh", "bash, zsh, fish"]);
    run_program(program("completions")).expect_stderr(2, &["<SHELL>"]);
}

/// Returns the commands that a help lists.
fn listed_commands(arguments: &str) -> Vec<String> {
    let help = run_program(program(arguments)).stdout;
    let Some((_, commands)) = help.split_once("Commands:\n") else { return Vec::new() };
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    names.map(|line| line.split(' ').next().unwrap().to_owned()).filter(|name| name != "help").collect()
}

#[test]
fn every_command_has_a_page_in_the_folder_with_the_options_of_its_help() {
    let workspace = Workspace::empty();
    let output = workspace.run("man --dir share/man/man1");
    output.expect_stderr(0, &[" pages written to share/man/man1"]);
    assert_eq!(output.stdout, "");
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    commands.extend(listed_commands("--help").into_iter().map(|name| vec![name]));
    for name in listed_commands("--help") {
        let inner = listed_commands(&format!("{name} --help"));
        commands.extend(inner.into_iter().map(|inner| vec![name.clone(), inner]));
    }
    assert!(commands.len() > 15, "{commands:?}");
    for command in &commands {
        let name = ["pointsman"].into_iter().chain(command.iter().map(String::as_str)).collect::<Vec<_>>();
        let page = workspace.read(&format!("share/man/man1/{}.1", name.join("-")));
        let help = run_program(program(&format!("{} --help", command.join(" ")))).stdout;
        let words = help.split(|letter: char| !(letter.is_alphanumeric() || letter == '-'));
        for option in words.filter(|word| word.starts_with("--") && word.len() > 2) {
            let shown = option.replace('-', "\\-");
            assert!(page.contains(&shown), "{command:?}: {option}");
        }
    }
    let written = fs::read_dir(workspace.path("share/man/man1")).unwrap().count();
    assert!(written >= commands.len(), "{written} pages, {} commands", commands.len());
    // Again, over the pages of before.
    workspace.run("man --dir share/man/man1").expect_code(0);
    workspace.write("file", "");
    workspace.run("man --dir file").expect_stderr(4, &["cannot create file"]);
}

#[test]
fn the_page_of_the_program_is_written_to_stdout_and_is_valid() {
    let workspace = Workspace::empty();
    let output = workspace.run("man");
    assert_eq!(output.expect_code(0), "");
    workspace.run("man --dir pages").expect_code(0);
    assert_eq!(output.stdout, workspace.read("pages/pointsman.1"));
    for page in fs::read_dir(workspace.path("pages")).unwrap() {
        let page = page.unwrap().path();
        let arguments = ["-ww", "-man", "-K", "utf8", "-Tutf8", "-z", page.to_str().unwrap()];
        // The pages are tested where groff is installed.
        let Some(checked) = run_installed("groff", &arguments) else { return };
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""), "{}", page.display());
    }
}

#[test]
fn the_version_is_one_line_and_the_long_one_names_the_features() {
    let version = env!("CARGO_PKG_VERSION");
    let short = run_program(program("-V"));
    assert_eq!(short.expect_code(0), "");
    assert_eq!(short.stdout, format!("pointsman {version}\n"));
    let long = run_program(program("--version"));
    assert_eq!(long.expect_code(0), "");
    let features = long.stdout.strip_prefix(&format!("pointsman {version} (features: ")).unwrap();
    let features: Vec<&str> = features.strip_suffix(")\n").unwrap().split(", ").collect();
    assert!(features.contains(&"cli"), "{features:?}");
    for (name, is_built_in) in [
        ("server", cfg!(feature = "server")),
        ("tui", cfg!(feature = "tui")),
        ("otel", cfg!(feature = "otel")),
    ] {
        assert_eq!(features.contains(&name), is_built_in, "{name}: {features:?}");
    }
    assert!(features.is_sorted(), "{features:?}");
}
