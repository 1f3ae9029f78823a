//! What the program prints, of data that would command a terminal.

use std::process::Command;

use super::program::*;

/// An item's id, a text, a file's name: an escape sequence, a C1 control, text that runs backwards, and what is not seen.
const EVIL: &str = "a\u{1b}[2J\u{9b}31m\u{202e}b\u{2066}\u{200b}\u{e0041}c\u{7f}\u{200f}\u{61c}";

/// Fails where a terminal would act on a character of `text`, or show nothing for it.
#[track_caller]
fn is_safe(text: &str) {
    let unseen = ['\u{202e}', '\u{2066}', '\u{200b}', '\u{e0041}', '\u{200f}', '\u{61c}'];
    let odd = |letter: &char| (letter.is_control() && *letter != '\n') || unseen.contains(letter);
    assert!(!text.chars().any(|letter| odd(&letter)), "{text:?}");
}

/// A room whose items, and the names of whose files, are evil. Half of the items fail, with their id in the message.
fn evil_room() -> Room {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]");
    let item =
        |number: u32| serde_json::json!({ "id": format!("{EVIL}\n{number}"), "text": EVIL }).to_string();
    let mut items: Vec<String> = (0..20).map(item).collect();
    items.push(item(3));
    items.push(format!("{{\"{EVIL}"));
    room.write(&format!("{EVIL}.jsonl"), items.join("\n"));
    room
}

#[test]
fn what_items_and_files_are_called_is_printed_without_controls() {
    let room = evil_room();
    let run =
        format!("run pipeline.toml --items {EVIL}.jsonl --out {EVIL}.out.jsonl --rejects {EVIL}.rejects");
    for more in ["-vv", "--json", "--quiet"] {
        let ended = room.run(&format!("{run} --new --overwrite {more}"));
        ended.expect(1);
        is_safe(&ended.err);
        is_safe(&ended.out);
    }
    for verb in ["runs", "runs --json", "report 1", "report 1 --json", "failed 1", "failed 1 --json"] {
        let ended = room.run(verb);
        ended.expect(0);
        assert!(!ended.out.is_empty(), "{verb}");
        is_safe(&ended.out);
        is_safe(&ended.err);
    }
    // Each failed item is one line, whatever its id.
    let failed = room.run("failed 1");
    assert!(failed.out.lines().all(|line| line.contains("content_filter")), "{}", failed.out);
    assert!(failed.out.lines().count() > 1);
    // The id is in the JSON as it was.
    let json = room.run("failed 1 --json");
    let first: serde_json::Value = serde_json::from_str(json.out.lines().next().unwrap()).unwrap();
    assert!(first["key"].as_str().unwrap().starts_with(EVIL), "{first}");
}

#[test]
fn files_and_pipes_hold_the_data_as_it_is() {
    let room = evil_room();
    let out = room.run(&format!("run pipeline.toml --items {EVIL}.jsonl --rejects rejects.jsonl"));
    out.expect(1);
    let keys = keys(&lines(&out.out));
    assert!(keys.iter().all(|key| key.starts_with(EVIL)), "{keys:?}");
    assert!(out.out.contains('\u{202e}'));
    assert!(room.read("rejects.jsonl").contains('\u{202e}'));
}

#[test]
fn errors_faults_and_arguments_are_printed_without_controls() {
    let room = Room::new("");
    room.items(1);
    let missing = room.run(&format!("run pipeline.toml --items {EVIL}"));
    assert_ne!(missing.code, Some(0));
    is_safe(&missing.err);
    assert!(missing.err.contains("\u{fffd}[2J"), "{}", missing.err);

    let argument = room.run(&format!("run pipeline.toml --{EVIL}"));
    argument.expect(2);
    is_safe(&argument.err);

    room.write(&format!("{EVIL}.toml"), format!("{ONE_STEP}\nnonsense = \"\u{202e}\u{2066}text\u{200b}\"\n"));
    let faults = room.run(&format!("check {EVIL}.toml"));
    faults.says(3, &["nonsense", "text"]);
    is_safe(&faults.err);
}

#[test]
fn a_cell_that_a_spreadsheet_would_run_is_text_unless_the_run_keeps_formulas() {
    let config = "[simulator]\nfaults = [{ kind = \"refusal\", share = 0.5 }]";
    let run = "run pipeline.toml --items items.jsonl --out o.csv";
    for (more, first) in [("", "'=id"), ("--csv-formulas keep", "=id")] {
        let room = Room::new(config);
        let item = |number| format!("{{\"id\":\"=id{number}\",\"text\":\"thing {number}\"}}\n");
        room.write("items.jsonl", (0..20).map(item).collect::<String>());
        let keys_of = |room: &Room| -> Vec<String> {
            let mut rows = csv::Reader::from_path(room.path("o.csv")).unwrap();
            rows.records().map(|row| row.unwrap()[0].to_owned()).collect()
        };
        let all_begin = |keys: &[String]| keys.len() == 20 && keys.iter().all(|key| key.starts_with(first));
        room.run(&format!("{run} {more}")).expect(1);
        assert!(all_begin(&keys_of(&room)), "{:?}", keys_of(&room));
        // A run that goes on writes as its command said.
        room.config("");
        room.run("retry 1").expect(0);
        assert!(all_begin(&keys_of(&room)), "{:?}", keys_of(&room));
        room.run(&format!("results 1 --out o.csv {more}")).expect(0);
        assert!(all_begin(&keys_of(&room)), "{:?}", keys_of(&room));
    }
}

#[test]
#[cfg(unix)]
fn many_runs_are_forgotten_with_few_open_files() {
    use pointsman::store::{RunNumber, Sqlite, Store};
    const RUNS: i64 = 130;
    let room = Room::new("");
    room.items(1);
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Sqlite::open(&room.path("pointsman.db")).await.unwrap();
        let outline = store.run(RunNumber(1)).await.unwrap().outline;
        for run in 1..RUNS {
            store.create(&format!("run {run}"), &outline).await.unwrap();
        }
        store.close().await;
    });
    let few = format!("ulimit -n 100; exec {} \"$@\"", env!("CARGO_BIN_EXE_pointsman"));
    let forget = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.current_dir(room.path("")).args(["-c", &few, "sh", "forget"]).args(arguments);
        finish(shell)
    };
    forget(&["1", "2", "999"]).says(4, &["there is no run 999"]);
    forget(&["--older-than", "1ms"]).says(0, &["130 runs forgotten, 0 left"]);
    let beside = std::fs::read_dir(room.path("")).unwrap().map(|file| file.unwrap().file_name());
    let beside: Vec<_> = beside.filter(|name| name.to_string_lossy().contains("lock")).collect();
    assert!(beside.is_empty(), "{beside:?}");
}
