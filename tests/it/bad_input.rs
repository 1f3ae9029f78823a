//! Bad input: one clear message, what can be done is done, and nothing disappears.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use super::program::{Room, finish, finish_with};
use super::simulate::simulator;

const RUN: &str =
    "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report report.json";

/// A provider of this model at this address that practises nothing, and a route to it alone.
fn provider(address: &str) -> String {
    format!("[provider.p]\nbase_url = \"http://{address}/v1\"\n[provider.p.models.m]\n")
}

#[test]
fn an_empty_input_is_told_as_that() {
    let room = Room::new("");
    for (name, text) in
        [("a.jsonl", ""), ("b.jsonl", "\n\n"), ("a.csv", ""), ("b.csv", "id,text\n"), ("a.json", "[]")]
    {
        room.write(name, text);
        let ended = room.run(&format!("run pipeline.toml --items {name} --out o.jsonl"));
        ended.says(0, &[&format!("no items in {name}\n")]);
        assert!(!ended.err.contains("error"), "{}", ended.err);
        assert_eq!(room.read("o.jsonl"), "");
    }
    finish_with(room.program("run pipeline.toml --items - --out o.jsonl"), b"")
        .says(0, &["no items in stdin\n"]);
}

#[test]
fn a_line_of_fifty_megabytes_is_rejected_and_the_next_is_read() {
    let room = Room::new("");
    let long = format!("{{\"id\":\"b\",\"text\":\"{}\"}}", "y".repeat(50_000_000));
    room.write(
        "items.jsonl",
        format!("{{\"id\":\"a\",\"text\":\"x\"}}\n{long}\n{{\"id\":\"c\",\"text\":\"z\"}}\n"),
    );
    room.run(RUN)
        .says(1, &["2 completed, 1 rejected", "such as line 2: is longer than the limit of 16777216 bytes"]);
    room.nothing_is_lost(3, "o.jsonl", "r.jsonl");
    assert!(room.read("r.jsonl").len() < 5_000, "a reject holds the beginning only");
}

#[test]
fn what_is_no_item_is_rejected_with_its_line_and_reason() {
    let room = Room::new("");
    room.write(
        "items.jsonl",
        b"{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\",\"text\":\"\xff\"}\nnot json\n[1]\n\n{\"id\":\"c\",\"text\":\"z\"\n{\"id\":\"d\",\"text\":\"z\"}",
    );
    room.run(RUN).says(1, &["2 completed, 4 rejected", "such as line 2: is not UTF-8"]);
    room.nothing_is_lost(6, "o.jsonl", "r.jsonl");
    let reasons: Vec<(u64, String)> = room
        .lines("r.jsonl")
        .iter()
        .map(|reject| (reject["line"].as_u64().unwrap(), reject["reason"].as_str().unwrap().to_owned()))
        .collect();
    let starts = [
        (2, "is not UTF-8: its byte"),
        (3, "is not JSON: expected null, true or false"),
        (4, "is an array"),
        (6, "is not JSON: EOF"),
    ];
    for ((line, reason), (expected, start)) in reasons.iter().zip(starts) {
        assert!(*line == expected && reason.starts_with(start), "{reasons:?}");
    }
    // The same without a place for rejects: they are counted, and the first is told.
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl")
        .says(1, &["4 rejected", "such as line 2"]);
}

#[test]
fn ragged_rows_of_a_csv_are_rejected_with_their_lines() {
    let room = Room::new("");
    room.write("items.csv", "id,text\na,x\nb\nc,y,z\nd,\"two\nlines\"\ne,\"x\"\n");
    room.run("run pipeline.toml --items items.csv --out o.jsonl --rejects r.jsonl")
        .says(1, &["3 completed, 2 rejected", "such as line 3: has 1 field, the header has 2"]);
    room.nothing_is_lost(5, "o.jsonl", "r.jsonl");
    assert_eq!(room.lines("r.jsonl")[1]["line"], 4);
}

#[test]
fn a_json_array_that_breaks_off_ends_with_what_was_read_before() {
    let room = Room::new("");
    room.write("items.json", "[{\"id\":\"a\",\"text\":\"x\"},\n{\"id\":\"b\",\"text\":\"y\"},\n{\"id\":");
    room.run("run pipeline.toml --items items.json --out o.jsonl")
        .says(4, &["2 completed", "error: items.json, line 3, column", "2 items were read before"]);
    assert_eq!(room.lines("o.jsonl").len(), 2);
}

#[test]
fn a_field_that_one_item_lacks_fails_that_item_alone() {
    let room = Room::new("");
    room.write(
        "items.jsonl",
        "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\"}\n{\"id\":\"c\",\"text\":\"z\"}\n",
    );
    room.run(RUN).says(
        1,
        &["2 completed, 1 failed", "1 template_error, such as: step answer", "`item.text` is undefined"],
    );
    room.nothing_is_lost(3, "o.jsonl", "r.jsonl");
    assert_eq!(room.json("report.json")["calls"]["made"], 2, "what cannot be asked costs nothing");
}

#[test]
fn a_key_that_is_rejected_pauses_the_run_soon() {
    let room = Room::empty();
    let (_simulator, address) = simulator(&room, "--set keys=[\"good\"]");
    let room = Room::new(&provider(&address).replace("[provider.p]", "[provider.p]\nkeys = [\"file:key\"]"));
    room.write("key", "wrong-key");
    room.items(100);
    let ended = room.run(RUN);
    ended.says(5, &["paused: auth", "Incorrect API key", "check the key", "`pointsman resume 1` resumes it"]);
    assert_eq!(room.lines("o.jsonl").len(), 0);
    let made = room.json("report.json")["calls"]["made"].as_u64().unwrap();
    assert!(made < 100, "a key that was refused rests: {made} calls");
}

#[test]
fn a_model_that_does_not_exist_pauses_the_run_by_its_name() {
    let room = Room::new("[simulator]\nmodels = [\"another\"]");
    room.items(100);
    let ended = room.run(RUN);
    ended.says(5, &["paused: not_found", "`any` does not exist", "check the model's name"]);
    assert_eq!(room.lines("o.jsonl").len(), 0);
}

#[test]
fn an_address_that_refuses_connections_is_named_at_once_and_pauses_the_run_when_it_has_held_for_long() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let room = Room::new(&format!("{}[run]\nmax_hold = \"1s\"", provider(&address)));
    room.items(20);
    let ended = room.run(RUN);
    let holding = format!("holding: p/m: network_error: cannot connect to {address}: ");
    let paused = format!("paused: network_error: p/m: cannot connect to {address}: ");
    ended.says(5, &[&holding, &paused, "Connection refused", "check `base_url`", "20 waiting"]);
    assert_eq!(room.lines("o.jsonl").len(), 0);
}

#[test]
fn a_directory_or_a_missing_file_as_input_is_named() {
    let room = Room::new("");
    fs::create_dir(room.path("items")).unwrap();
    room.run("run pipeline.toml --items items --out o.jsonl")
        .says(4, &["error: --items: items is a directory; name a file of items in it"]);
    room.run("run pipeline.toml --items nothing.jsonl --out o.jsonl")
        .says(4, &["error: --items: cannot open nothing.jsonl"]);
    assert!(!room.path("o.jsonl").exists());
}

#[test]
fn utf_16_and_headers_that_cannot_be_used_are_told() {
    let room = Room::new("");
    let utf16: Vec<u8> = "\u{feff}{\"id\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    room.write("a.jsonl", utf16);
    room.run("run pipeline.toml --items a.jsonl --out o.jsonl")
        .says(4, &["a.jsonl is UTF-16 text; save it as UTF-8"]);
    room.write("a.csv", "id,id\n1,2\n");
    room.run("run pipeline.toml --items a.csv --out o.jsonl").says(4, &["a.csv, line 1: "]);
}

#[test]
fn a_csv_of_a_spreadsheet_with_semicolons_is_read_by_its_columns() {
    let room = Room::new("");
    room.write("items.csv", "sep=;\r\nid;text;price\r\na;one, or two;1,5\r\n;;\r\nb;three\r\nc;four;2\r\n");
    room.run("run pipeline.toml --items items.csv --out o.jsonl --rejects r.jsonl --ordered")
        .says(1, &["2 completed, 1 rejected", "such as line 5: has 2 fields, the header has 3"]);
    let lines = room.lines("o.jsonl");
    let told: Vec<_> =
        lines.iter().map(|line| (line["key"].as_str().unwrap(), line["line"].as_u64())).collect();
    assert_eq!(told, [("a", Some(3)), ("c", Some(6))]);
    room.write("items.csv", "name;net, total;city\r\na;1,5;b\r\n");
    room.run("run pipeline.toml --items items.csv --out p.jsonl")
        .says(4, &["items.csv, line 1: it is unclear"]);
}

#[test]
fn a_file_in_another_format_than_its_name_says_is_refused_before_anything_is_asked() {
    let room = Room::new("");
    let pretty = "{\n  \"id\": 1,\n  \"text\": \"x\"\n}\n".repeat(100);
    for (name, text, advice) in [
        ("a.jsonl", pretty.as_bytes(), "--from json"),
        ("b.csv", b"{\"id\": 1, \"text\": \"x\"}\n", "--from jsonl"),
        ("c.csv", b"id,text,Gr\xf6\xdfe\n1,x,2\n", "save the file as CSV UTF-8"),
    ] {
        room.write(name, text);
        let ended = room
            .run(&format!("run pipeline.toml --items {name} --out o.jsonl --rejects r.jsonl --overwrite"));
        ended.says(4, &[&format!("error: {name}, line 1: "), advice]);
        assert_eq!(ended.err.matches("error: ").count(), 1, "{}", ended.err);
        assert_eq!((room.read("o.jsonl"), room.read("r.jsonl")), (String::new(), String::new()));
    }
}

#[test]
fn an_output_or_a_database_is_not_created_through_a_link() {
    let room = Room::new("");
    room.items(2);
    for name in ["o.jsonl", "runs.db"] {
        std::os::unix::fs::symlink(room.path("nothing"), room.path(name)).unwrap();
    }
    for (files, code) in [("--out o.jsonl --store none", 4), ("--out p.jsonl --store sqlite:runs.db", 4)] {
        room.run(&format!("run pipeline.toml --items items.jsonl {files}"))
            .says(code, &["it is a link to a file that does not exist; create that file, remove the link"]);
        assert!(!room.path("nothing").exists(), "{files}");
    }
}

#[test]
fn an_output_that_cannot_be_opened_is_told_before_anything_is_asked() {
    let room = Room::new("");
    room.items(2);
    fs::create_dir(room.path("folder")).unwrap();
    room.run("run pipeline.toml --items items.jsonl --out folder").says(4, &["--out: folder is a directory"]);
    room.run("run pipeline.toml --items items.jsonl --out no/o.jsonl")
        .says(4, &["--out: cannot open no/o.jsonl to write to it; make its directory first: No such file"]);
    room.write("locked.jsonl", "");
    fs::set_permissions(room.path("locked.jsonl"), fs::Permissions::from_mode(0o444)).unwrap();
    // Root may write to it all the same.
    if fs::File::options().write(true).open(room.path("locked.jsonl")).is_err() {
        room.run("run pipeline.toml --items items.jsonl --out locked.jsonl")
            .says(4, &["--out: cannot open locked.jsonl"]);
    }
}

#[test]
fn the_input_is_never_the_output_under_any_name() {
    let room = Room::new("");
    room.items(2);
    let before = room.read("items.jsonl");
    std::os::unix::fs::symlink(room.path("items.jsonl"), room.path("link.jsonl")).unwrap();
    fs::hard_link(room.path("items.jsonl"), room.path("hard.jsonl")).unwrap();
    for out in [
        "--out items.jsonl",
        "--out link.jsonl",
        "--out hard.jsonl",
        "--out o.jsonl --rejects items.jsonl",
        "--out o.jsonl --report link.jsonl",
        "--out pipeline.toml",
        "--out config.toml",
    ] {
        room.run(&format!("run pipeline.toml --items items.jsonl {out}"))
            .says(4, &["name another file to write to"]);
    }
    let mut program = room.program("run pipeline.toml --items - --out items.jsonl");
    program.stdin(fs::File::open(room.path("items.jsonl")).unwrap());
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    let mut program = room.program("run pipeline.toml --items items.jsonl");
    program.stdout(fs::File::options().append(true).open(room.path("items.jsonl")).unwrap());
    assert_eq!(program.output().unwrap().status.code(), Some(4));
    assert_eq!(room.read("items.jsonl"), before);
}

#[test]
fn a_file_of_the_wrong_kind_is_not_refused_once_for_each_of_its_lines() {
    let room = Room::new("");
    room.items(500);
    let ended = room.run("run items.jsonl --items pipeline.toml");
    ended.says(3, &["items.jsonl:1:", "\nand "]);
    assert!(ended.err.lines().count() < 200, "{}", ended.err);
}

#[test]
fn a_full_disk_stops_the_run_and_keeps_whole_lines() {
    let room = Room::new("[run]\nwindow = 10");
    room.items(200);
    // Files may have eight blocks of 1 KB here; the report is written to a pipe.
    let mut limited = Command::new("bash");
    let command = format!(
        "ulimit -f 8; exec {} run pipeline.toml --items items.jsonl --out o.jsonl --report - --store none",
        env!("CARGO_BIN_EXE_pointsman")
    );
    limited.env_clear().args(["-c", &command]).current_dir(room.path(""));
    let ended = finish(limited);
    ended.says(
        4,
        &["(broken off)", "error: cannot write to o.jsonl; ", "lines are safely written; raise the limit on file sizes (`ulimit -f`), then run the same command again: File too large"],
    );
    assert_eq!(ended.err.matches("error: ").count(), 1, "{}", ended.err);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    let (items, lines) = (&report["items"], room.lines("o.jsonl").len() as u64);
    let count = |name: &str| items[name].as_u64().unwrap();
    assert!(lines > 5 && lines < 20, "{lines}");
    assert_eq!(count("completed") - count("unwritten"), lines);
    assert!(count("completed") < 60, "no more is asked than was under way: {items}");
}

#[test]
fn a_disk_that_is_full_from_the_first_byte_is_told_once() {
    let room = Room::new("");
    room.items(20);
    let ended = room.run("run pipeline.toml --items items.jsonl --out /dev/full");
    ended.says(4, &["error: cannot write to /dev/full; nothing is safely written; free some space, then run the same command again: No \
                     space left on device"]);
    assert_eq!(ended.err.matches("error: ").count(), 1, "{}", ended.err);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl --report /dev/full");
    ended.says(4, &["error: --report: cannot write to /dev/full"]);
    assert_eq!(room.lines("o.jsonl").len(), 20, "the results are safe all the same");
    room.write("bad.jsonl", "no\n{\"id\":1,\"text\":\"x\"}\n");
    let ended = room.run("run pipeline.toml --items bad.jsonl --out bad.out.jsonl --rejects /dev/full");
    ended.says(4, &["error: cannot write to /dev/full"]);
}
