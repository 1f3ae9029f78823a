//! Invalid input and unusable providers: one clear message, valid items are processed, and no record is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use super::program::{Workspace, run_program, run_program_with_stdin, start_program};
use super::simulate::start_simulator_process;
use super::support::wait_until;

const RUN: &str =
    "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report report.json";

/// Returns the configuration of one provider at this address, with the model `m`.
fn provider(address: &str) -> String {
    format!("[provider.p]\nbase_url = \"http://{address}/v1\"\n[provider.p.models.m]\n")
}

#[test]
fn an_empty_input_is_reported_as_no_items() {
    let workspace = Workspace::new("");
    for (name, text) in
        [("a.jsonl", ""), ("b.jsonl", "\n\n"), ("a.csv", ""), ("b.csv", "id,text\n"), ("a.json", "[]")]
    {
        workspace.write(name, text);
        let output = workspace.run(&format!("run pipeline.toml --items {name} --out o.jsonl"));
        output.expect_stderr(0, &[&format!("no items in {name}\n")]);
        assert!(!output.stderr.contains("error"), "{}", output.stderr);
        assert_eq!(workspace.read("o.jsonl"), "");
    }
    run_program_with_stdin(workspace.command("run pipeline.toml --items - --out o.jsonl"), b"")
        .expect_stderr(0, &["no items in stdin\n"]);
}

#[test]
fn a_line_of_fifty_megabytes_is_rejected_and_the_next_is_read() {
    let workspace = Workspace::new("");
    let long = format!("{{\"id\":\"b\",\"text\":\"{}\"}}", "y".repeat(50_000_000));
    workspace.write(
        "items.jsonl",
        format!("{{\"id\":\"a\",\"text\":\"x\"}}\n{long}\n{{\"id\":\"c\",\"text\":\"z\"}}\n"),
    );
    workspace.run(RUN).expect_stderr(
        1,
        &["2 completed, 1 rejected", "such as line 2: is longer than the limit of 16777216 bytes"],
    );
    workspace.assert_nothing_is_lost(3, "o.jsonl", "r.jsonl");
    assert!(workspace.read("r.jsonl").len() < 5_000, "a reject holds the beginning only");
}

#[test]
fn an_invalid_record_is_rejected_with_its_line_and_reason() {
    let workspace = Workspace::new("");
    workspace.write(
        "items.jsonl",
        b"{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\",\"text\":\"\xff\"}\nnot json\n[1]\n\n{\"id\":\"c\",\"text\":\"z\"\n{\"id\":\"d\",\"text\":\"z\"}",
    );
    workspace.run(RUN).expect_stderr(1, &["2 completed, 4 rejected", "such as line 2: is not UTF-8"]);
    workspace.assert_nothing_is_lost(6, "o.jsonl", "r.jsonl");
    let reasons: Vec<(u64, String)> = workspace
        .output_lines("r.jsonl")
        .iter()
        .map(|reject| (reject["line"].as_u64().unwrap(), reject["reason"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        (2, "is not UTF-8: its byte"),
        (3, "is not JSON: expected null, true or false"),
        (4, "is an array"),
        (6, "is not JSON: EOF"),
    ];
    for ((line, reason), (expected_line, start)) in reasons.iter().zip(expected) {
        assert!(*line == expected_line && reason.starts_with(start), "{reasons:?}");
    }
    // Without --rejects, the rejected records are counted, and the first is reported.
    workspace
        .run("run pipeline.toml --items items.jsonl --out o.jsonl")
        .expect_stderr(1, &["4 rejected", "such as line 2"]);
}

#[test]
fn csv_records_with_a_wrong_number_of_fields_are_rejected_with_their_lines() {
    let workspace = Workspace::new("");
    workspace.write("items.csv", "id,text\na,x\nb\nc,y,z\nd,\"two\nlines\"\ne,\"x\"\n");
    workspace
        .run("run pipeline.toml --items items.csv --out o.jsonl --rejects r.jsonl")
        .expect_stderr(1, &["3 completed, 2 rejected", "such as line 3: has 1 field, the header has 2"]);
    workspace.assert_nothing_is_lost(5, "o.jsonl", "r.jsonl");
    assert_eq!(workspace.output_lines("r.jsonl")[1]["line"], 4);
}

#[test]
fn the_items_before_the_end_of_a_truncated_json_array_are_processed() {
    let workspace = Workspace::new("");
    workspace
        .write("items.json", "[{\"id\":\"a\",\"text\":\"x\"},\n{\"id\":\"b\",\"text\":\"y\"},\n{\"id\":");
    workspace
        .run("run pipeline.toml --items items.json --out o.jsonl")
        .expect_stderr(4, &["2 completed", "error: items.json, line 3, column", "(items read: 2)"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 2);
}

#[test]
fn advice_for_an_unreadable_input_without_a_store_names_nothing_that_is_stored() {
    let workspace = Workspace::new("");
    workspace.write("items.json", "[{\"id\":\"a\",\"text\":\"x\"},\n{\"id\":");
    workspace.write("o.jsonl", "{}\n".repeat(5));
    let output = workspace.run("run pipeline.toml --items items.json --out o.jsonl --store none --overwrite");
    output.expect_stderr(4, &["o.jsonl is unchanged", "Nothing was stored: run the items again"]);
    for stored in ["Resume the run", "pointsman results", "all of the input was started"] {
        assert!(!output.stderr.contains(stored), "{stored}: {}", output.stderr);
    }
    assert_eq!(workspace.read("o.jsonl"), "{}\n".repeat(5));
}

#[test]
fn resume_names_a_missing_input_and_the_option_for_its_new_path() {
    let workspace = Workspace::new("");
    workspace.write("items.json", "[{\"id\":\"a\",\"text\":\"x\"},\n{\"id\":");
    workspace.run("run pipeline.toml --items items.json --out o.jsonl").expect_code(4);
    fs::remove_file(workspace.path("items.json")).unwrap();
    let resumed = workspace.run("resume 1");
    resumed.expect_stderr(4, &["error: cannot open the items file ", "items.json"]);
    // Its command had the option for the old path, and this one has it only for a new path.
    assert_eq!(resumed.stderr.matches("--items").count(), 1, "{}", resumed.stderr);
    assert!(resumed.stderr.contains("name its new path (--items FILE)"), "{}", resumed.stderr);
}

#[tokio::test]
async fn an_input_rewritten_during_the_run_is_an_io_error_and_the_next_start_reads_it_again() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 2\n[simulator]\nlatency = \"50ms\"");
    // More than is read ahead.
    let more = "x".repeat(100_000);
    let items = |text: &str| {
        let line = |id| format!("{{\"id\":\"i{id}\",\"text\":\"{text} {id}\",\"more\":\"{more}\"}}\n");
        (1..=100).map(line).collect::<String>()
    };
    workspace.write("items.jsonl", items("thing"));
    let changed_items = items("other");
    let running = start_program(workspace.command(&format!("{RUN} --json")));
    let output = workspace.path("o.jsonl");
    let has_line = || fs::read_to_string(&output).is_ok_and(|text| text.contains('\n'));
    wait_until("a line is written", has_line).await;
    workspace.write("items.jsonl", changed_items);
    running.wait().expect_stderr(4, &["items.jsonl was changed while it was read"]);
    workspace.write_config("");
    workspace.run(RUN).expect_stderr(0, &["resuming run 1"]);
    workspace.assert_nothing_is_lost(100, "o.jsonl", "r.jsonl");
    assert_eq!(workspace.output_lines("o.jsonl").len(), 100);
}

#[test]
fn a_missing_field_fails_only_its_item() {
    let workspace = Workspace::new("");
    workspace.write(
        "items.jsonl",
        "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\"}\n{\"id\":\"c\",\"text\":\"z\"}\n",
    );
    workspace.run(RUN).expect_stderr(
        1,
        &["2 completed, 1 failed", "1 template_error, such as: step answer", "`item.text` is undefined"],
    );
    workspace.assert_nothing_is_lost(3, "o.jsonl", "r.jsonl");
    assert_eq!(
        workspace.read_json("report.json")["calls"]["sent"],
        2,
        "an item whose prompt cannot be rendered causes no call"
    );
}

#[test]
fn a_key_that_the_provider_rejects_pauses_the_run_after_few_calls() {
    let workspace = Workspace::empty();
    let (_simulator, address) = start_simulator_process(&workspace, "--set keys=[\"good\"]");
    let workspace =
        Workspace::new(&provider(&address).replace("[provider.p]", "[provider.p]\nkeys = [\"file:key\"]"));
    workspace.write("key", "wrong-key");
    workspace.write_items(100);
    let output = workspace.run(RUN);
    output.expect_stderr(
        5,
        &["paused: auth", "Incorrect API key", "check the key", "`pointsman resume 1` resumes it"],
    );
    assert_eq!(workspace.output_lines("o.jsonl").len(), 0);
    let calls = workspace.read_json("report.json")["calls"]["sent"].as_u64().unwrap();
    assert!(calls < 100, "a rejected key is not used again: {calls} calls");
}

#[test]
fn a_model_that_does_not_exist_pauses_the_run_and_is_named() {
    let workspace = Workspace::new("[simulator]\nmodels = [\"another\"]");
    workspace.write_items(100);
    let output = workspace.run(RUN);
    output.expect_stderr(5, &["paused: not_found", "`any` does not exist", "check the model's name"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 0);
}

#[test]
fn an_address_that_refuses_connections_is_reported_immediately_and_pauses_the_run_after_the_maximum_hold() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let workspace = Workspace::new(&format!("{}[run]\nmax_hold = \"1s\"", provider(&address)));
    workspace.write_items(20);
    let output = workspace.run(RUN);
    let holding = format!("holding: p/m: network_error: cannot connect to {address}: ");
    let paused = format!("paused: network_error: p/m: cannot connect to {address}: ");
    output.expect_stderr(5, &[&holding, &paused, "Connection refused", "check `base_url`", "20 waiting"]);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 0);
}

#[test]
fn an_input_that_is_a_directory_or_is_missing_is_named() {
    let workspace = Workspace::new("");
    fs::create_dir(workspace.path("items")).unwrap();
    workspace.run("run pipeline.toml --items items --out o.jsonl").expect_stderr(
        4,
        &["error: --items: no files for items: none is found in that place; check the path"],
    );
    workspace
        .run("run pipeline.toml --items nothing.jsonl --out o.jsonl")
        .expect_stderr(4, &["error: --items: cannot open the items file nothing.jsonl"]);
    assert!(!workspace.path("o.jsonl").exists());
}

#[test]
fn utf_16_text_and_unusable_headers_are_reported() {
    let workspace = Workspace::new("");
    let utf16: Vec<u8> = "{\"id\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    workspace.write("a.jsonl", utf16);
    workspace
        .run("run pipeline.toml --items a.jsonl --out o.jsonl")
        .expect_stderr(4, &["a.jsonl is UTF-16 text without a byte-order mark; save it as UTF-8"]);
    workspace.write("a.csv", "id,id\n1,2\n");
    workspace.run("run pipeline.toml --items a.csv --out o.jsonl").expect_stderr(4, &["a.csv, line 1: "]);
}

#[test]
fn a_csv_file_with_semicolons_is_read_by_its_columns() {
    let workspace = Workspace::new("");
    workspace
        .write("items.csv", "sep=;\r\nid;text;price\r\na;one, or two;1,5\r\n;;\r\nb;three\r\nc;four;2\r\n");
    workspace
        .run("run pipeline.toml --items items.csv --out o.jsonl --rejects r.jsonl --ordered")
        .expect_stderr(1, &["2 completed, 1 rejected", "such as line 5: has 2 fields, the header has 3"]);
    let lines = workspace.output_lines("o.jsonl");
    let keys_and_lines: Vec<_> =
        lines.iter().map(|line| (line["key"].as_str().unwrap(), line["line"].as_u64())).collect();
    assert_eq!(keys_and_lines, [("a", Some(3)), ("c", Some(6))]);
    workspace.write("items.csv", "name;net, total;city\r\na;1,5;b\r\n");
    workspace
        .run("run pipeline.toml --items items.csv --out p.jsonl")
        .expect_stderr(4, &["items.csv, line 1: it is unclear"]);
}

#[test]
fn a_file_whose_format_contradicts_its_name_is_refused_before_any_call() {
    let workspace = Workspace::new("");
    let pretty = "{\n  \"id\": 1,\n  \"text\": \"x\"\n}\n".repeat(100);
    for (name, text, advice) in [
        ("a.jsonl", pretty.as_bytes(), "--input-format json"),
        ("b.csv", b"{\"id\": 1, \"text\": \"x\"}\n", "--input-format jsonl"),
        ("c.csv", b"id,text,Gr\xf6\xdfe\n1,x,2\n", "save the file as CSV UTF-8"),
    ] {
        workspace.write(name, text);
        let output = workspace
            .run(&format!("run pipeline.toml --items {name} --out o.jsonl --rejects r.jsonl --overwrite"));
        output.expect_stderr(4, &[&format!("error: {name}, line 1: "), advice]);
        assert_eq!(output.stderr.matches("error: ").count(), 1, "{}", output.stderr);
        assert_eq!((workspace.read("o.jsonl"), workspace.read("r.jsonl")), (String::new(), String::new()));
    }
}

#[test]
fn an_output_or_a_database_is_not_created_through_a_link() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    for name in ["o.jsonl", "runs.db"] {
        std::os::unix::fs::symlink(workspace.path("nothing"), workspace.path(name)).unwrap();
    }
    for (files, code) in [("--out o.jsonl --store none", 4), ("--out p.jsonl --store sqlite:runs.db", 4)] {
        workspace.run(&format!("run pipeline.toml --items items.jsonl {files}")).expect_stderr(
            code,
            &["it is a link to a file that does not exist; create that file, remove the link"],
        );
        assert!(!workspace.path("nothing").exists(), "{files}");
    }
}

#[test]
fn an_output_that_cannot_be_opened_is_reported_before_any_call() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    fs::create_dir(workspace.path("folder")).unwrap();
    workspace
        .run("run pipeline.toml --items items.jsonl --out folder")
        .expect_stderr(4, &["--out: folder is a directory"]);
    workspace.run("run pipeline.toml --items items.jsonl --out no/o.jsonl").expect_stderr(
        4,
        &["--out: cannot open no/o.jsonl for writing; create its directory first: No such file"],
    );
    workspace.write("locked.jsonl", "");
    fs::set_permissions(workspace.path("locked.jsonl"), fs::Permissions::from_mode(0o444)).unwrap();
    // Root may write to a read-only file.
    if fs::File::options().write(true).open(workspace.path("locked.jsonl")).is_err() {
        workspace
            .run("run pipeline.toml --items items.jsonl --out locked.jsonl")
            .expect_stderr(4, &["--out: cannot open locked.jsonl"]);
    }
}

#[test]
fn an_output_is_never_a_file_that_the_run_reads_under_any_name() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    let before = workspace.read("items.jsonl");
    std::os::unix::fs::symlink(workspace.path("items.jsonl"), workspace.path("link.jsonl")).unwrap();
    fs::hard_link(workspace.path("items.jsonl"), workspace.path("hard.jsonl")).unwrap();
    for out in [
        "--out items.jsonl",
        "--out link.jsonl",
        "--out hard.jsonl",
        "--out o.jsonl --rejects items.jsonl",
        "--out o.jsonl --report link.jsonl",
        "--out pipeline.toml",
        "--out config.toml",
    ] {
        workspace
            .run(&format!("run pipeline.toml --items items.jsonl {out}"))
            .expect_stderr(4, &["name another file to write to"]);
    }
    let mut program = workspace.command("run pipeline.toml --items - --out items.jsonl");
    program.stdin(fs::File::open(workspace.path("items.jsonl")).unwrap());
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    let mut program = workspace.command("run pipeline.toml --items items.jsonl");
    program.stdout(fs::File::options().append(true).open(workspace.path("items.jsonl")).unwrap());
    assert_eq!(program.output().unwrap().status.code(), Some(4));
    assert_eq!(workspace.read("items.jsonl"), before);
}

#[test]
fn the_errors_of_a_file_that_is_not_a_pipeline_are_limited_in_number() {
    let workspace = Workspace::new("");
    workspace.write_items(500);
    let output = workspace.run("run items.jsonl --items pipeline.toml");
    output.expect_stderr(3, &["items.jsonl:1:", "\nand "]);
    assert!(output.stderr.lines().count() < 200, "{}", output.stderr);
}

#[test]
fn a_full_disk_stops_the_run_and_keeps_complete_lines() {
    let workspace = Workspace::new("[run]\nmax_in_flight_items = 10");
    workspace.write_items(200);
    // A file may have eight blocks of 1 KiB. The report is written to a pipe, which has no limit.
    let mut limited = Command::new("bash");
    let command = format!(
        "ulimit -f 8; exec {} run pipeline.toml --items items.jsonl --out o.jsonl --report - --store none",
        env!("CARGO_BIN_EXE_pointsman")
    );
    limited.env_clear().args(["-c", &command]).current_dir(workspace.path(""));
    let output = run_program(limited);
    output.expect_stderr(
        4,
        &["(I/O error)", "error: cannot write to o.jsonl; ", "lines were saved; raise the limit on file sizes (`ulimit -f`), then start the run again: File too large",
          "nothing was stored: a new start needs --overwrite"],
    );
    assert_eq!(output.stderr.matches("error: ").count(), 1, "{}", output.stderr);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let items = &report["items"];
    let lines = workspace.output_lines("o.jsonl").len() as u64;
    let count = |name: &str| items[name].as_u64().unwrap();
    assert!(lines > 5 && lines < 20, "{lines}");
    assert_eq!(count("completed") - count("unwritten"), lines);
    assert!(count("completed") < 60, "only items that were in progress are processed: {items}");
}

#[test]
fn a_disk_that_is_full_from_the_first_byte_is_reported_once() {
    let workspace = Workspace::new("");
    workspace.write_items(20);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out /dev/full");
    output.expect_stderr(4, &["error: cannot write to /dev/full; no line was saved; free some space, then start the run again: No \
                     space left on device"]);
    assert_eq!(output.stderr.matches("error: ").count(), 1, "{}", output.stderr);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --report /dev/full");
    output.expect_stderr(
        4,
        &[
            "error: --report: cannot write to /dev/full; free some space: No space left on device",
            " --json` shows the report",
        ],
    );
    assert!(!output.stderr.contains("line was saved"), "{}", output.stderr);
    assert_eq!(
        workspace.output_lines("o.jsonl").len(),
        20,
        "the results are written even if the report is not"
    );
    workspace.write("bad.jsonl", "no\n{\"id\":1,\"text\":\"x\"}\n");
    let output = workspace.run("run pipeline.toml --items bad.jsonl --out bad.out.jsonl --rejects /dev/full");
    output.expect_stderr(4, &["error: cannot write to /dev/full"]);
}
