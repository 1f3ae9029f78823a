//! A room imports only from the floors below it: never sideways, never upwards.
//!
//! Cargo enforces this between crates; inside one crate nobody does but this test. It reads every path
//! that begins with `crate::` in `src/`, in code and in docs.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms and their floors, as docs/architecture.md draws them.
const FLOORS: [(&str, u8); 24] = [
    ("chaos", 0),
    ("clock", 0),
    ("screen", 0),
    ("types", 0),
    ("document", 1),
    ("files", 1),
    ("telemetry", 1),
    ("wire", 2),
    ("guard", 2),
    ("supervisor", 2),
    ("store", 2),
    ("source", 3),
    ("sink", 3),
    ("provider", 3),
    ("ledger", 3),
    ("cache", 3),
    ("simulator", 3),
    ("router", 4),
    ("pipeline", 5),
    ("run", 6),
    ("config", 7),
    ("runtime", 8),
    ("server", 9),
    ("cli", 10),
];

/// The doors: who alone may name a heavy dependency.
const DOORS: [(&str, &[&str]); 11] = [
    ("reqwest::", &["src/provider/transport.rs", "src/simulator/"]),
    ("governor::", &["src/guard/rate.rs"]),
    ("sse_stream::", &["src/provider/events.rs", "src/wire/"]),
    ("sqlx::", &["src/store/"]),
    ("minijinja::", &["src/pipeline/"]),
    ("hyper::", &["src/simulator/"]),
    ("clap::", &["src/cli/"]),
    // It panics beyond the year 9999.
    ("Timestamp::now()", &["src/clock.rs", "src/simulator/tests/"]),
    // What is printed is made safe for a terminal there.
    ("stdout()", &["src/cli/print.rs", "src/sink/target.rs"]),
    ("stderr()", &["src/cli/print.rs", "src/cli/live.rs", "src/cli/stderr.rs"]),
    ("indicatif::", &["src/cli/"]),
];

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns every file of `src` by its path from the root, with its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let named = files.into_iter().map(|path| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        (name, text)
    });
    named.collect()
}

fn room_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let room = inside.split('/').next()?;
    Some(room.strip_suffix(".rs").unwrap_or(room)).filter(|room| !matches!(*room, "lib" | "main"))
}

#[test]
fn a_room_imports_only_from_floors_below() {
    let floors = BTreeMap::from(FLOORS);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, text) in sources() {
        let Some(room) = room_of(&file) else { continue };
        let floor = floors.get(room).unwrap_or_else(|| panic!("{file}: the room {room} has no floor"));
        for (number, line) in text.lines().enumerate() {
            for path in line.split("crate::").skip(1) {
                let other: String =
                    path.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                seen += 1;
                match floors.get(other.as_str()) {
                    Some(below) if below < floor || other == room => {}
                    Some(_) => wrong.push(format!("{file}:{}: {room} imports {other}", number + 1)),
                    // `crate::{a, b}` would escape the test, and a macro has no floor.
                    None => wrong.push(format!("{file}:{}: crate::{other} is no room", number + 1)),
                }
            }
        }
    }
    assert!(seen > 100, "the test has read nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_heavy_dependency_has_one_door() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (dependency, doors) in DOORS {
            let is_door = doors.iter().any(|door| file.starts_with(door));
            if !is_door
                && text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(dependency))
            {
                wrong.push(format!("{file} names {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
