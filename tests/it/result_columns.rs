//! The columns of tables of results: those of the input, one per step, and how the item ended.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::program::{Workspace, keys, parse_lines, run_program_with_stdin, start_program};

const RUN: &str = "run pipeline.toml --items items.csv --out o.csv --ordered";

/// A CSV file without an `id`, with a column that a result is called, too.
fn write_csv(workspace: &Workspace, rows: usize) {
    let row = |number: usize| format!("thing {number},\"a, b\",open {number}\n");
    workspace.write("items.csv", format!("text,note,status\n{}", (1..=rows).map(row).collect::<String>()));
}

/// Waits for what another process does, for 30 seconds at most.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let end = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < end, "{what}: timed out");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// Returns how many lines the results have by now.
fn lines_of(workspace: &Workspace) -> usize {
    std::fs::read_to_string(workspace.path("o.csv")).unwrap_or_default().lines().count()
}

/// Returns the rows of a CSV file, the header first.
fn rows(text: &str) -> Vec<Vec<String>> {
    let reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.into_records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// Returns the cells of a column.
fn column(rows: &[Vec<String>], name: &str) -> Vec<String> {
    let at =
        rows[0].iter().position(|found| found == name).unwrap_or_else(|| panic!("{name} in {:?}", rows[0]));
    rows[1..].iter().map(|row| row[at].clone()).collect()
}

#[test]
fn a_table_has_the_columns_of_the_input_then_the_answers_and_how_the_item_ended() {
    let workspace = Workspace::new("");
    write_csv(&workspace, 3);
    workspace.run(RUN).expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(table[0], ["text", "note", "input.status", "answer", "status", "error", "key", "simulated"]);
    assert_eq!(column(&table, "text"), ["thing 1", "thing 2", "thing 3"]);
    assert_eq!(column(&table, "input.status"), ["open 1", "open 2", "open 3"]);
    assert_eq!(column(&table, "note"), ["a, b", "a, b", "a, b"]);
    assert_eq!(column(&table, "status"), ["completed"; 3]);
    assert!(column(&table, "key").iter().all(|key| key.starts_with("sha-")), "{table:?}");
    assert!(column(&table, "answer").iter().all(|answer| !answer.is_empty()), "{table:?}");
    // The same command with other columns writes the file of the same run again.
    workspace.run(&format!("{RUN} --output-columns minimal")).expect_stderr(0, &["resuming run 1"]);
    let minimal = rows(&workspace.read("o.csv"));
    assert_eq!(minimal[0], ["key", "answer", "simulated"]);
    assert_eq!(column(&minimal, "answer"), column(&table, "answer"));
    workspace.run(&format!("{RUN} --output-columns full")).expect_stderr(0, &["resuming run 1"]);
    let full = rows(&workspace.read("o.csv"));
    assert_eq!(
        full[0],
        [
            "text",
            "note",
            "input.status",
            "answer",
            "status",
            "error",
            "error_class",
            "error_step",
            "error_message",
            "key",
            "line",
            "simulated",
            "answer.provider",
            "answer.model",
            "input_tokens",
            "output_tokens",
            "cost_usd",
            "duration_seconds",
            "attempts"
        ]
    );
    assert_eq!(column(&full, "line"), ["2", "3", "4"]);
    assert_eq!(column(&full, "answer.provider"), ["simulated"; 3]);
    workspace.run(RUN).expect_code(0);
    assert_eq!(rows(&workspace.read("o.csv")), table);
}

#[test]
fn an_input_with_a_key_needs_no_other_one() {
    let workspace = Workspace::new("");
    workspace.write("items.csv", "id,text\n7,a\n8,b\n");
    workspace.run(RUN).expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(table[0], ["id", "text", "answer", "status", "error", "simulated"]);
    assert_eq!(column(&table, "id"), ["7", "8"]);
    workspace.write("items.csv", "id,text\n7,a\n,b\n");
    workspace.run(&format!("{RUN} --new --overwrite")).expect_code(0);
    assert_eq!(column(&rows(&workspace.read("o.csv")), "key")[0], "7");
}

#[test]
fn the_error_of_a_failed_item_is_in_its_row() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", share = 1.0 }]");
    write_csv(&workspace, 1);
    workspace.run(RUN).expect_code(1);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(
        (column(&table, "status"), column(&table, "answer")),
        (vec!["failed".into()], vec![String::new()])
    );
    assert!(column(&table, "error")[0].starts_with("content_filter: "), "{table:?}");
}

#[test]
fn the_fields_of_an_answer_with_a_schema_are_columns() {
    let workspace = Workspace::new("");
    let schema = "type = \"object\"\nrequired = [\"name\", \"tags\"]\nadditionalProperties = false\n\
                  properties.name = { type = \"string\" }\nproperties.tags = { type = \"array\", items = { type = \"string\" } }";
    workspace.write(
        "pipeline.toml",
        format!(
            "name = \"p\"\n[[step]]\nname = \"facts\"\nprompt = \"Read {{{{ item.text }}}}\"\n[step.schema]\n{schema}\n\
             [[step]]\nname = \"word\"\nprompt = \"Say {{{{ facts.name }}}}\"\n"
        ),
    );
    write_csv(&workspace, 2);
    workspace.run(RUN).expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(
        table[0],
        [
            "text",
            "note",
            "input.status",
            "facts.name",
            "facts.tags",
            "word",
            "status",
            "error",
            "key",
            "simulated"
        ]
    );
    let tags = column(&table, "facts.tags");
    assert!(tags.iter().all(|tags| serde_json::from_str::<Vec<String>>(tags).is_ok()), "{tags:?}");
    // The results of the stored run have the same columns and cells.
    assert_eq!(rows(&workspace.run("results 1 --format csv").stdout), table);
}

#[test]
fn fields_that_only_later_items_have_are_in_one_column() {
    let workspace = Workspace::new("");
    let item = |number: usize| match number {
        1_200 => json!({ "id": number, "text": "t", "late": { "a": 1 } }),
        2 => json!({ "id": number, "second": true, "text": "t" }),
        _ => json!({ "id": number, "text": "t" }),
    };
    let lines = |count: usize| (1..=count).map(|number| format!("{}\n", item(number))).collect::<String>();
    workspace.write("items.jsonl", lines(1_000));
    let run = "run pipeline.toml --items items.jsonl --ordered --out";
    workspace.run(&format!("{run} o.csv")).expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(table[0], ["id", "text", "second", "more", "answer", "status", "error", "simulated"]);
    workspace.write("items.jsonl", lines(1_200));
    workspace.run(&format!("{run} o.csv")).expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(table[0], ["id", "text", "second", "more", "answer", "status", "error", "simulated"]);
    assert_eq!(column(&table, "second")[..3], ["", "true", ""]);
    let more = column(&table, "more");
    assert!(
        more[..1_199].iter().all(String::is_empty) && more[1_199] == "{\"late\":{\"a\":1}}",
        "{:?}",
        more[1_199]
    );
    // What the run has read to its end is known.
    let table = rows(&workspace.run("results 1 --format csv").stdout);
    assert_eq!(table[0], ["id", "text", "second", "late", "answer", "status", "error", "simulated"]);
    assert_eq!(column(&table, "late")[1_199], "{\"a\":1}");
}

#[test]
fn items_of_a_pipe_have_their_columns_and_the_first_one_does_not_wait_for_the_last() {
    let workspace = Workspace::new("");
    let arguments = "run pipeline.toml --items - --output-format csv --store none";
    let output =
        run_program_with_stdin(workspace.command(arguments), b"{\"text\":\"a\",\"n\":1}\n{\"text\":\"b\"}\n");
    output.expect_code(0);
    assert_eq!(rows(&output.stdout)[0], ["text", "n", "answer", "status", "error", "key", "simulated"]);
    let csv = workspace.command(&format!("{arguments} --input-format csv"));
    assert_eq!(rows(&run_program_with_stdin(csv, b"text\na\n").stdout)[1][0], "a");
    // The pipe stays open: a line is written all the same.
    let mut program = workspace.command(&format!("{arguments} --out o.csv"));
    program.stdin(Stdio::piped());
    let mut running = start_program(program);
    let mut stdin = running.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"{\"text\":\"a\"}\n").unwrap();
    wait_for("a line is written", || lines_of(&workspace) >= 2);
    std::io::Write::write_all(&mut stdin, b"{\"text\":\"b\",\"late\":2}\n").unwrap();
    drop(stdin);
    assert_eq!(running.wait().code, Some(0));
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(table[0], ["text", "more", "answer", "status", "error", "key", "simulated"]);
    assert_eq!(column(&table, "more"), ["", "{\"late\":2}"]);
}

#[test]
fn json_lines_have_their_item_if_that_is_asked_for() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    let run = "run pipeline.toml --items items.jsonl --out o.jsonl --ordered";
    workspace.run(run).expect_code(0);
    let without = workspace.read("o.jsonl");
    assert!(workspace.output_lines("o.jsonl").iter().all(|line| line.get("item").is_none()));
    workspace.run(&format!("{run} --with-item")).expect_stderr(0, &["resuming run 1"]);
    let lines = workspace.output_lines("o.jsonl");
    assert_eq!(lines[1]["item"], json!({ "id": "i2", "text": "thing 2" }));
    // The rest of the line is the same, byte for byte.
    for (with, without) in workspace.read("o.jsonl").lines().zip(without.lines()) {
        assert_eq!(with.split_once(",\"item\":").unwrap().0, without.strip_suffix('}').unwrap());
    }
    // `retry` and `resume` use the options of the command.
    std::fs::remove_file(workspace.path("o.jsonl")).unwrap();
    workspace.run("resume 1").expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl"), lines);
    assert_eq!(parse_lines(&workspace.run("results 1 --with-item").stdout), lines);
    assert_eq!(workspace.run("results 1").stdout, without);
}

#[test]
fn options_that_lines_do_not_have_are_refused() {
    let workspace = Workspace::new("");
    workspace.write_items(1);
    let run = "run pipeline.toml --items items.jsonl";
    for (arguments, words) in [
        (format!("{run} --out o.jsonl --output-columns full"), "--output-columns is for tables"),
        (format!("{run} --output-columns minimal"), "--output-columns is for tables"),
        (format!("{run} --out o.csv --with-item"), "--with-item is for JSON lines"),
    ] {
        workspace.run(&arguments).expect_stderr(2, &[words]);
    }
    assert!(!workspace.path("o.csv").exists());
    workspace.run(&format!("{run} --out o.jsonl")).expect_code(0);
    workspace.run("results 1 --output-columns full").expect_stderr(4, &["--output-columns is for tables"]);
}

#[test]
fn results_have_the_columns_of_the_input_while_it_can_be_read() {
    let workspace = Workspace::new("[store]\nkeep_inputs = \"failed\"\n");
    write_csv(&workspace, 5);
    workspace.run(RUN).expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    let results = rows(&workspace.run("results 1 --format csv").stdout);
    assert_eq!(results, table);
    // An item that is not as it was is not the one that was answered.
    let items = workspace.read("items.csv");
    workspace.write("items.csv", items.replace("open 3", "closed 3"));
    let refused = "the fields of 1 of its finished items are not stored (`keep_inputs` of `[store]`)";
    workspace.run("results 1 --out r.csv").expect_stderr(4, &[refused, "(--output-columns minimal)"]);
    assert!(!workspace.path("r.csv").exists());
    std::fs::remove_file(workspace.path("items.csv")).unwrap();
    let refused = workspace.run("results 1 --format csv");
    refused.expect_stderr(4, &["the fields of 5 of its finished items are not stored"]);
    let minimal = workspace.run("results 1 --out r.csv --output-columns minimal");
    minimal.expect_code(0);
    let minimal = rows(&workspace.read("r.csv"));
    assert_eq!(column(&minimal, "answer"), column(&table, "answer"));
    assert_eq!(column(&minimal, "key"), column(&table, "key"));
}

/// Runs, kills the run when some lines are written, and resumes it.
fn killed_and_resumed(config: &str) -> Workspace {
    let workspace = Workspace::new(&format!(
        "[simulator]\nlatency = {{ median = \"40ms\", p95 = \"60ms\" }}\n[run]\nmax_in_flight_items = 3\n{config}"
    ));
    write_csv(&workspace, 60);
    let mut program = workspace.command(RUN);
    let mut child = program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("lines are written", || lines_of(&workspace) >= 8);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(workspace.read("o.csv").lines().count() < 61, "the run was not killed");
    workspace.run("resume 1").expect_code(0);
    workspace
}

#[test]
fn a_killed_and_resumed_run_writes_the_file_of_an_uninterrupted_one() {
    let whole = Workspace::new("");
    write_csv(&whole, 60);
    whole.run(RUN).expect_code(0);
    let expected = rows(&whole.read("o.csv"));
    for config in ["", "[store]\nkeep_inputs = \"failed\"\n"] {
        let resumed = killed_and_resumed(config);
        assert_eq!(rows(&resumed.read("o.csv")), expected);
    }
}

#[test]
fn a_table_whose_fields_are_not_stored_is_not_replaced_by_one_with_less() {
    let workspace = killed_and_resumed("[store]\nkeep_inputs = \"failed\"\n");
    let complete = workspace.read("o.csv");
    // A new item, at the beginning: the session is stopped when the items after it were not read.
    let items = workspace.read("items.csv");
    workspace.write("items.csv", items.replacen("text,note,status\n", "text,note,status\nnew,n,s\n", 1));
    workspace.write_config(
        "[simulator]\nlatency = { median = \"60s\", p95 = \"60s\" }\n[run]\nmax_in_flight_items = 1\n[store]\nkeep_inputs = \"failed\"\n",
    );
    let mut running = start_program(workspace.command("resume 1 --json"));
    running.wait_for_line("\"in_flight\":1");
    running.signal("INT");
    // Two signals at once may arrive as one.
    running.wait_for_line("stopping");
    running.signal("INT");
    assert_ne!(running.wait().code, Some(0));
    assert_eq!(workspace.read("o.csv"), complete);
    workspace.write_config("[store]\nkeep_inputs = \"failed\"\n");
    workspace.run("resume 1").expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!((table.len(), table[1][0].as_str()), (62, "new"));
}

#[test]
fn a_column_of_the_input_never_makes_real_answers_look_simulated() {
    let workspace = Workspace::new("");
    workspace.write("items.csv", "id,text,simulated\n1,a,true\n");
    workspace.run(RUN).expect_code(0);
    let table = rows(&workspace.read("o.csv"));
    assert_eq!(table[0], ["id", "text", "input.simulated", "answer", "status", "error", "simulated"]);
    // The same file, as a real run writes it.
    let real: String = workspace
        .read("o.csv")
        .lines()
        .map(|line| format!("{}\n", line.rsplit_once(',').unwrap().0))
        .collect();
    workspace.write("real.csv", real);
    let run = "run pipeline.toml --items items.csv --out real.csv --new --overwrite";
    workspace.run(run).expect_stderr(4, &["holds real answers"]);
}

#[test]
fn the_keys_of_a_table_are_those_of_json_lines() {
    let workspace = Workspace::new("");
    write_csv(&workspace, 4);
    workspace.run(RUN).expect_code(0);
    let lines: Vec<Value> = parse_lines(&workspace.run("results 1").stdout);
    assert_eq!(keys(&lines), column(&rows(&workspace.read("o.csv")), "key"));
}

/// Returns the rows of a Parquet file, each cell with its type, and the header first.
#[cfg(feature = "parquet")]
fn parquet_rows(workspace: &Workspace, name: &str) -> Vec<Vec<String>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(std::fs::File::open(workspace.path(name)).unwrap()).unwrap();
    let columns = reader.metadata().file_metadata().schema().get_fields();
    let mut rows = vec![columns.iter().map(|column| column.name().to_owned()).collect()];
    for row in reader.get_row_iter(None).unwrap() {
        rows.push(row.unwrap().get_column_iter().map(|(_, field)| format!("{field:?}")).collect());
    }
    rows
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_has_the_columns_of_a_table_with_numbers_where_all_values_are() {
    let workspace = Workspace::new("");
    workspace.write(
        "items.jsonl",
        "{\"id\":\"a\",\"text\":\"x\",\"n\":1,\"f\":0.5,\"mixed\":1,\"ok\":true,\"tags\":[1]}\n\
         {\"id\":\"b\",\"text\":\"é\",\"n\":-2,\"f\":3,\"mixed\":\"1\",\"big\":123456789012345678901234567890}\n",
    );
    let run = "run pipeline.toml --items items.jsonl --out o.parquet --ordered";
    workspace.run(run).expect_code(0);
    let table = parquet_rows(&workspace, "o.parquet");
    assert_eq!(
        table[0],
        ["id", "text", "n", "f", "mixed", "ok", "tags", "big", "answer", "status", "error", "simulated"]
    );
    assert_eq!(
        table[1][..8],
        [
            "Str(\"a\")",
            "Str(\"x\")",
            "Long(1)",
            "Double(0.5)",
            "Str(\"1\")",
            "Bool(true)",
            "Str(\"[1]\")",
            "Null"
        ]
    );
    assert_eq!(
        table[2][..8],
        [
            "Str(\"b\")",
            "Str(\"é\")",
            "Long(-2)",
            "Double(3.0)",
            "Str(\"1\")",
            "Null",
            "Null",
            "Str(\"123456789012345678901234567890\")"
        ]
    );
    assert_eq!(table[1][9..], ["Str(\"completed\")", "Null", "Bool(true)"]);
    workspace.run("results 1 --out r.parquet").expect_code(0);
    assert_eq!(parquet_rows(&workspace, "r.parquet"), table);
    workspace.run(&format!("{run} --output-columns full")).expect_stderr(0, &["resuming run 1"]);
    let full = parquet_rows(&workspace, "o.parquet");
    assert_eq!(column(&full, "input_tokens").len(), 2);
    assert!(column(&full, "input_tokens")[0].starts_with("Long("), "{full:?}");
    assert!(column(&full, "duration_seconds")[0].starts_with("Double("), "{full:?}");
    // The files of the run are replaced, and no other one is.
    workspace.write("o.parquet", "mine");
    workspace.run(run).expect_stderr(4, &["was not written by this run"]);
    let left: Vec<_> =
        std::fs::read_dir(workspace.path("")).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{left:?}");
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_needs_a_file() {
    let workspace = Workspace::new("");
    workspace.write_items(1);
    for arguments in
        ["run pipeline.toml --items items.jsonl --output-format parquet", "results 1 --format parquet"]
    {
        let refused =
            "standard output is not a file, and Parquet can be written only to one: name a file (--out FILE)";
        if arguments.starts_with("results") {
            workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl").expect_code(0);
        }
        workspace.run(arguments).expect_stderr(4, &[refused]);
    }
}

#[cfg(feature = "parquet")]
#[test]
fn a_parquet_file_is_whole_or_as_it_was() {
    let config =
        "[simulator]\nlatency = { median = \"150ms\", p95 = \"200ms\" }\n[run]\nmax_in_flight_items = 2\n";
    let workspace = Workspace::new(config);
    write_csv(&workspace, 40);
    let run = RUN.replace("o.csv", "o.parquet");
    let wait_for_items = |items: usize| {
        wait_for("items have finished", || workspace.run("results 1").stdout.lines().count() >= items);
    };
    let mut running = start_program(workspace.command(&run));
    wait_for_items(5);
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert_eq!(std::fs::metadata(workspace.path("o.parquet")).unwrap().len(), 0);
    // A session that is stopped writes what has finished.
    let mut running = start_program(workspace.command("resume 1"));
    running.wait_for_line("resuming run 1");
    wait_for_items(12);
    running.signal("INT");
    assert_ne!(running.wait().code, Some(0));
    let stopped = parquet_rows(&workspace, "o.parquet");
    assert!((13..41).contains(&stopped.len()), "{}", stopped.len());
    workspace.run("resume 1").expect_code(0);
    let whole = parquet_rows(&workspace, "o.parquet");
    assert_eq!((whole.len(), column(&whole, "text")[39].as_str()), (41, "Str(\"thing 40\")"));
    // Real answers are recognized in Parquet, too.
    let real = std::fs::read(workspace.path("o.parquet")).unwrap();
    let at = real.windows(18).position(|window| window == b"pointsman.simulate").unwrap();
    let mut real = real;
    real.splice(at..at + 27, *b"pointsman.real_results\0\0\0\0\0");
    workspace.write("real.parquet", &real);
    let other = RUN.replace("o.csv", "real.parquet");
    workspace.run(&format!("{other} --new --overwrite")).expect_stderr(4, &["holds real answers"]);
}
