//! Runs the program in a temporary directory, without the environment of the developer.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A pipeline of one step that uses one field.
pub(crate) const ONE_STEP: &str = r#"
name = "one"
[[step]]
name = "answer"
prompt = "Say something about {{ item.text }}"
"#;

/// Maximum duration of a command. A command that takes longer is considered hung.
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A temporary working directory with a `config.toml` and a `pipeline.toml`.
pub(crate) struct Workspace {
    dir: TempDir,
}

/// The exit code and the output of a finished program.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Workspace {
    /// Creates a workspace with [`ONE_STEP`] and this [configuration](Self::write_config).
    pub(crate) fn new(config: &str) -> Self {
        let workspace = Self::empty();
        workspace.write_config(config);
        workspace.write("pipeline.toml", ONE_STEP);
        workspace
    }

    /// Creates an empty workspace.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes `config.toml`. If it has no provider, the simulated provider is added, with the target
    /// `simulated/any`.
    pub(crate) fn write_config(&self, config: impl AsRef<str>) {
        let config = config.as_ref();
        let simulated = if config.contains("[provider") {
            ""
        } else {
            "\n[provider.simulated]\nbase_url = \"simulator\"\n"
        };
        self.write("config.toml", format!("{config}{simulated}"));
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Writes `items.jsonl` with the items `i1`, `i2`, and so on.
    pub(crate) fn write_items(&self, count: usize) {
        let line = |number| format!("{{\"id\":\"i{number}\",\"text\":\"thing {number}\"}}\n");
        self.write("items.jsonl", (1..=count).map(line).collect::<String>());
    }

    /// Returns the command with these arguments and this working directory.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut program = program(arguments);
        program.current_dir(self.dir.path());
        program
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &str) -> Output {
        run_program(self.command(arguments))
    }

    /// Returns the parsed lines of an output file.
    pub(crate) fn output_lines(&self, name: &str) -> Vec<Value> {
        parse_lines(&self.read(name))
    }

    pub(crate) fn read_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// Asserts that `input` records gave as many lines and rejects, with distinct keys.
    pub(crate) fn assert_nothing_is_lost(&self, input: usize, lines: &str, rejects: &str) {
        let lines = self.output_lines(lines);
        let rejects = self.output_lines(rejects);
        let keys = keys(&lines);
        let mut distinct = keys.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), keys.len(), "two lines have the same key: {keys:?}");
        assert_eq!(lines.len() + rejects.len(), input, "{lines:?}\n{rejects:?}");
    }
}

/// Returns the command with these arguments, separated by spaces, and a clean environment.
pub(crate) fn program(arguments: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    // Keys, URLs and proxies of the developer must not change the results.
    program.env_clear().args(arguments.split_whitespace()).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        program.env("PATH", path);
    }
    program
}

/// Runs a program and waits for its end.
pub(crate) fn run_program(program: Command) -> Output {
    run_program_with_stdin(program, b"")
}

/// Runs a program with this standard input and waits for its end.
pub(crate) fn run_program_with_stdin(program: Command, stdin: &[u8]) -> Output {
    let output =
        assert_cmd::Command::from_std(program).timeout(COMMAND_TIMEOUT).write_stdin(stdin).output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Output {
    /// Asserts the exit code, and returns the standard error.
    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        &self.stderr
    }

    /// Asserts the exit code, and that the standard error contains each of `words`.
    #[track_caller]
    pub(crate) fn expect_stderr(&self, code: i32, words: &[&str]) {
        let stderr = self.expect_code(code);
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not in:\n{stderr}");
        }
    }
}

/// A running program whose standard error is read line by line.
pub(crate) struct RunningProgram {
    pub(crate) child: Child,
    stderr_lines: mpsc::Receiver<String>,
    stderr: String,
}

/// Starts a program.
pub(crate) fn start_program(mut program: Command) -> RunningProgram {
    let mut child = program.stderr(Stdio::piped()).spawn().unwrap();
    let (sender, stderr_lines) = mpsc::channel();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // A thread reads, so that a hung program fails its test instead of blocking it.
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    RunningProgram { child, stderr_lines, stderr: String::new() }
}

impl RunningProgram {
    /// Waits for a line on standard error that contains `words`, and returns it.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, words: &str) -> String {
        self.find_line(words).unwrap_or_else(|| panic!("no line contains {words:?}:\n{}", self.stderr))
    }

    /// Waits for a line on standard error that contains `words`. Returns `None` if the program ends without it.
    pub(crate) fn find_line(&mut self, words: &str) -> Option<String> {
        std::iter::from_fn(|| self.next()).find(|line| line.contains(words))
    }

    fn next(&mut self) -> Option<String> {
        match self.stderr_lines.recv_timeout(COMMAND_TIMEOUT) {
            Ok(line) => {
                self.stderr.push_str(&line);
                self.stderr.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the program hangs:\n{}", self.stderr),
        }
    }

    /// Sends a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits for the end of the program.
    pub(crate) fn wait(mut self) -> Output {
        while self.next().is_some() {}
        let code = self.child.wait().unwrap().code();
        let mut stdout = String::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        Output { code, stdout, stderr: std::mem::take(&mut self.stderr) }
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        // The program may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Parses the lines of a JSONL text.
pub(crate) fn parse_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

pub(crate) fn keys(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect()
}

/// Returns the path of a file of the repository.
pub(crate) fn repository_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
