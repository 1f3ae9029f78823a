//! Commands that only look at kept runs, on a database that cannot be written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use super::program::{Ended, Room, finish, start};

/// A user who owns nothing.
const OTHER: u32 = 65_534;

/// Makes the room read-only, and back again at its end.
struct ReadOnly<'a>(&'a Room);

impl<'a> ReadOnly<'a> {
    fn new(room: &'a Room) -> Self {
        for entry in fs::read_dir(room.path(".")).unwrap() {
            fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o444)).unwrap();
        }
        fs::set_permissions(room.path("."), Permissions::from_mode(0o555)).unwrap();
        Self(room)
    }

    /// Runs a command; as another user where permissions do not hold for this one.
    fn run(&self, arguments: &str) -> Ended {
        let mut program = self.0.program(arguments);
        if is_root() {
            // The program may be where only this user can go.
            let copy = self.0.path("pointsman");
            let mut other = Command::new(copy);
            other.env_clear().args(arguments.split_whitespace()).current_dir(self.0.path("."));
            other.uid(OTHER).gid(OTHER);
            program = other;
        }
        finish(program)
    }

    /// What is in the room: names, sizes and times.
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

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn looks_and_writes_nothing(room: &Room, completed: usize) {
    if is_root() {
        let program = env!("CARGO_BIN_EXE_pointsman");
        let copy = room.path("pointsman");
        fs::copy(program, &copy).unwrap();
    }
    let room = ReadOnly::new(room);
    if is_root() {
        fs::set_permissions(room.0.path("pointsman"), Permissions::from_mode(0o755)).unwrap();
    }
    let before = room.state();
    for command in ["runs", "report 1", "results 1", "failed 1"] {
        room.run(command).expect(0);
    }
    assert_eq!(room.run("results 1").out.lines().count(), completed);
    assert!(room.run("report 1").out.contains(&format!("{completed} completed")));
    let written = room.run("results 1 --out new.jsonl");
    written.says(4, &["--out", "new.jsonl"]);
    assert_eq!(room.state(), before);
}

#[test]
fn a_complete_run_can_be_looked_at_where_nothing_can_be_written() {
    let room = Room::new("");
    room.items(4);
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect(0);
    looks_and_writes_nothing(&room, 4);
}

#[test]
fn a_killed_run_can_be_looked_at_where_nothing_can_be_written() {
    let room = Room::new("[run]\nwindow = 1\n[simulator]\nlatency = \"200ms\"");
    room.items(50);
    let mut running = start(room.program("run pipeline.toml --items items.jsonl --out o.jsonl --json"));
    running.wait_for("\"completed\":2");
    running.signal("KILL");
    running.end();
    assert!(room.path("pointsman.db-wal").exists(), "its journal is not folded in");
    let copy = Room::empty();
    for name in ["pointsman.db", "pointsman.db-wal", "pointsman.db-shm"] {
        fs::copy(room.path(name), copy.path(name)).unwrap();
    }
    let settled = copy.run("results 1").out.lines().count();
    assert!(settled >= 2);
    looks_and_writes_nothing(&room, settled);
}
