//! Commands that only read stored runs, on a database that cannot be written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use super::program::{Output, Workspace, run_program, start_program};

/// The id of a user who owns no file.
const OTHER_USER: u32 = 65_534;

/// Makes the workspace read-only until it is dropped.
struct ReadOnly<'a>(&'a Workspace);

impl<'a> ReadOnly<'a> {
    fn new(workspace: &'a Workspace) -> Self {
        for entry in fs::read_dir(workspace.path(".")).unwrap() {
            fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o444)).unwrap();
        }
        fs::set_permissions(workspace.path("."), Permissions::from_mode(0o555)).unwrap();
        Self(workspace)
    }

    /// Runs a command. Root ignores permissions, so then the command runs as another user.
    fn run(&self, arguments: &str) -> Output {
        let mut program = self.0.command(arguments);
        if is_root() {
            // Other users may not have access to the directory of the program.
            let copy = self.0.path("pointsman");
            let mut other = Command::new(copy);
            other.env_clear().args(arguments.split_whitespace()).current_dir(self.0.path("."));
            other.uid(OTHER_USER).gid(OTHER_USER);
            program = other;
        }
        run_program(program)
    }

    /// Returns the names, sizes and modification times of the files.
    fn state(&self) -> Vec<(PathBuf, u64, SystemTime)> {
        let entries = fs::read_dir(self.0.path(".")).unwrap().map(|entry| entry.unwrap());
        let mut state: Vec<_> = entries
            .map(|entry| {
                let metadata = entry.metadata().unwrap();
                (entry.path(), metadata.len(), metadata.modified().unwrap())
            })
            .collect();
        state.sort();
        state
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        fs::set_permissions(self.0.path("."), Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_file_that_is_not_a_database_stays_as_it_is() {
    let workspace = Workspace::new("");
    workspace.write_items(1);
    let files = [("empty", ""), ("byte", "x"), ("bytes", "SQLite"), ("page", &"x".repeat(4096))];
    for (name, text) in files {
        workspace.write(name, text);
        let message = if text.is_empty() { "no runs are stored" } else { "does not begin like a database" };
        let readers = ["runs", "report 1", "results 1", "failures 1"];
        for command in readers.into_iter().chain(["cancel 1", "delete 1", "resume", "retry 1"]) {
            workspace.run(&format!("{command} --store sqlite:{name}")).expect_stderr(4, &[message, name]);
            assert_eq!(workspace.read(name), text, "{command}");
        }
    }
    let run = "run pipeline.toml --items items.jsonl --out o.jsonl";
    for (name, text) in &files[1..] {
        workspace.run(&format!("{run} --store sqlite:{name}")).expect_code(4);
        assert_eq!(workspace.read(name), *text);
    }
    workspace.run(&format!("{run} --store sqlite:empty")).expect_code(0);
    workspace.run("runs --store sqlite:empty").expect_code(0);
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn assert_reads_without_writing(workspace: &Workspace, completed: usize) {
    if is_root() {
        let program = env!("CARGO_BIN_EXE_pointsman");
        let copy = workspace.path("pointsman");
        fs::copy(program, &copy).unwrap();
    }
    let workspace = ReadOnly::new(workspace);
    if is_root() {
        fs::set_permissions(workspace.0.path("pointsman"), Permissions::from_mode(0o755)).unwrap();
    }
    let before = workspace.state();
    for command in ["runs", "report 1", "results 1", "failures 1"] {
        workspace.run(command).expect_code(0);
    }
    assert_eq!(workspace.run("results 1").stdout.lines().count(), completed);
    assert!(workspace.run("report 1").stdout.contains(&format!("{completed} completed")));
    let written = workspace.run("results 1 --out new.jsonl");
    written.expect_stderr(4, &["--out", "new.jsonl"]);
    assert_eq!(workspace.state(), before);
}

#[test]
fn a_complete_run_can_be_read_in_a_read_only_directory() {
    let workspace = Workspace::new("");
    workspace.write_items(4);
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect_code(0);
    assert_reads_without_writing(&workspace, 4);
}

#[test]
fn a_killed_run_can_be_read_in_a_read_only_directory() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 1\n[simulator]\nlatency = \"200ms\"");
    workspace.write_items(50);
    let mut running =
        start_program(workspace.command("run pipeline.toml --items items.jsonl --out o.jsonl --json"));
    running.wait_for_line("\"completed\":2");
    running.signal("KILL");
    running.wait();
    assert!(workspace.path("pointsman.db-wal").exists(), "the journal was not merged into the database");
    let copy = Workspace::empty();
    for name in ["pointsman.db", "pointsman.db-wal", "pointsman.db-shm"] {
        fs::copy(workspace.path(name), copy.path(name)).unwrap();
    }
    let completed = copy.run("results 1").stdout.lines().count();
    assert!(completed >= 2);
    assert_reads_without_writing(&workspace, completed);
}
