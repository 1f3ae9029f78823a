//! Starts the program in a directory of its own, without anything of the developer's environment.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A pipeline of one step that mentions one field.
pub(crate) const ONE_STEP: &str = r#"
name = "one"
[[step]]
name = "answer"
prompt = "Say something about {{ item.text }}"
"#;

/// Longer than any test may take; what takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A directory to run in, with a `config.toml` and a `pipeline.toml`.
pub(crate) struct Room {
    dir: TempDir,
}

/// What a program did that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Room {
    /// Makes a room with [`ONE_STEP`] and this [configuration](Self::config).
    pub(crate) fn new(config: &str) -> Self {
        let room = Self::empty();
        room.config(config);
        room.write("pipeline.toml", ONE_STEP);
        room
    }

    /// Makes a room with nothing in it.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes `config.toml`; where it names no provider with the simulated one, `simulated/any`.
    pub(crate) fn config(&self, config: impl AsRef<str>) {
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

    /// Writes `items.jsonl` with the items `i1`, `i2` and so on.
    pub(crate) fn items(&self, count: usize) {
        let line = |number| format!("{{\"id\":\"i{number}\",\"text\":\"thing {number}\"}}\n");
        self.write("items.jsonl", (1..=count).map(line).collect::<String>());
    }

    /// Returns the program with these arguments, to be run here.
    pub(crate) fn program(&self, arguments: &str) -> Command {
        let mut program = program(arguments);
        program.current_dir(self.dir.path());
        program
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &str) -> Ended {
        finish(self.program(arguments))
    }

    /// Returns the lines of an output file.
    pub(crate) fn lines(&self, name: &str) -> Vec<Value> {
        lines(&self.read(name))
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// Fails unless `input` pieces went in and as many came out as lines or rejects, with keys that
    /// are all different.
    pub(crate) fn nothing_is_lost(&self, input: usize, lines: &str, rejects: &str) {
        let (lines, rejects) = (self.lines(lines), self.lines(rejects));
        let keys = keys(&lines);
        let mut different = keys.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), keys.len(), "two lines have one key: {keys:?}");
        assert_eq!(lines.len() + rejects.len(), input, "{lines:?}\n{rejects:?}");
    }
}

/// Returns the program with these arguments, which are parted by spaces, and a clean environment.
pub(crate) fn program(arguments: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    // Keys, addresses and proxies of whoever runs the tests must not decide how they end.
    program.env_clear().args(arguments.split_whitespace()).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        program.env("PATH", path);
    }
    program
}

/// Runs a program to its end.
pub(crate) fn finish(program: Command) -> Ended {
    finish_with(program, b"")
}

/// Runs a program to its end, with this on its stdin.
pub(crate) fn finish_with(program: Command, stdin: &[u8]) -> Ended {
    let output = assert_cmd::Command::from_std(program).timeout(LIMIT).write_stdin(stdin).output().unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ended {
    /// Fails unless the exit code is this one; returns what was said.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}", self.err);
        &self.err
    }

    /// Fails unless the exit code is this one and every one of `words` was said.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) {
        let said = self.expect(code);
        for word in words {
            assert!(said.contains(word), "{word:?} is not in:\n{said}");
        }
    }
}

/// A program that runs, and whose stderr is read as it comes.
pub(crate) struct Running {
    pub(crate) child: Child,
    err: mpsc::Receiver<String>,
    said: String,
}

/// Starts a program.
pub(crate) fn start(mut program: Command) -> Running {
    let mut child = program.stderr(Stdio::piped()).spawn().unwrap();
    let (to, err) = mpsc::channel();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    // A thread, so that a program which hangs fails its test instead of hanging it.
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| to.send(line)));
    Running { child, err, said: String::new() }
}

impl Running {
    /// Waits for a line on stderr that holds `words`, and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        self.find(words).unwrap_or_else(|| panic!("{words:?} was never said:\n{}", self.said))
    }

    /// Waits for a line on stderr that holds `words`; returns `None` when the program ends without it.
    pub(crate) fn find(&mut self, words: &str) -> Option<String> {
        std::iter::from_fn(|| self.next()).find(|line| line.contains(words))
    }

    fn next(&mut self) -> Option<String> {
        match self.err.recv_timeout(LIMIT) {
            Ok(line) => {
                self.said.push_str(&line);
                self.said.push('\n');
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it hangs:\n{}", self.said),
        }
    }

    /// Sends a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        while self.next().is_some() {}
        let code = self.child.wait().unwrap().code();
        let mut out = String::new();
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        Ended { code, out, err: std::mem::take(&mut self.said) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the lines of a JSONL text.
pub(crate) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

pub(crate) fn keys(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect()
}

/// Returns a file of the repository.
pub(crate) fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
