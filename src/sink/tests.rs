//! Tests that write complete outputs to good and bad destinations and check the result.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::{
    Attempt, AttemptLog, Charged, Class, Failure, InputFields, ItemStatus, NanoUsd, Outcome, StepName,
    TargetName, Tokens, Usage, error_chain,
};

fn attempt(target: &str, outcome: Outcome) -> Attempt {
    let answered = outcome == Outcome::Answered;
    let usage = Usage { input: Tokens(100), output: Tokens(20), ..Usage::default() };
    Attempt {
        target: target.parse().unwrap(),
        key: Some("env:KEY".into()),
        queue_time: Duration::from_millis(200),
        duration: Duration::from_millis(1000),
        first_token: None,
        usage: answered.then_some(usage),
        cost: answered.then_some(NanoUsd(123_000)),
        uncertain_cost: NanoUsd(0),
        forced: false,
        hedged: false,
        counted_elsewhere: false,
        cache_savings: None,
        reasoning: None,
        outcome,
    }
}

/// A completed item with the steps `summary` (which failed over to a second provider) and `reply` (skipped).
fn line(key: &str, summary: Value) -> Line {
    let refused = Outcome::Failed(Failure::new(Class::RateLimit, "slow down").into());
    let attempts =
        AttemptLog(vec![attempt("claude/haiku", refused), attempt("gemini/flash", Outcome::Answered)]);
    let steps: Vec<(StepName, StepLine)> = vec![
        ("summary".into(), StepLine::completed(&attempts, false)),
        ("reply".into(), StepLine::skipped()),
    ];
    let mut line = Line::new(key.into(), 3, ItemStatus::Completed, Duration::from_micros(1_234_567), steps);
    line.answers.insert("summary".into(), summary);
    line.answers.insert("reply".into(), Value::Null);
    line
}

fn steps() -> Vec<StepName> {
    vec!["summary".into(), "reply".into()]
}

/// A writer to memory that the test can read later.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

async fn written(format: Format, steps: &[StepName], lines: Vec<Line>) -> String {
    let memory = Memory::default();
    let sink = Sink::results(Destination::writer("memory", memory.clone()), format, steps).unwrap();
    written_to(memory, sink, lines).await
}

/// Writes a table with the columns of `choice`.
async fn table(choice: OutputColumns, layout: &RowLayout, lines: Vec<Line>) -> String {
    let memory = Memory::default();
    let destination = Destination::writer("memory", memory.clone());
    let options = LineOptions::new().with_columns(choice);
    let format = Format::Csv(FormulaCells::default());
    let mut sink = Sink::results_with(destination, format, options, &[]).unwrap();
    sink.set_layout(layout);
    written_to(memory, sink, lines).await
}

fn layout(fields: &[&str]) -> RowLayout {
    let steps = steps().into_iter().map(StepColumns::new).collect();
    RowLayout::new(steps).with_fields(InputFields::new(fields.iter().copied()))
}

async fn written_to(memory: Memory, sink: Sink<Line>, lines: Vec<Line>) -> String {
    let count = lines.len() as u64;
    for line in lines {
        sink.write(line).await.unwrap();
    }
    let written = sink.finish().await.unwrap();
    let text = memory.text();
    assert_eq!(written, WriteSummary { lines: count, bytes: text.len() as u64, kept_original: false });
    text
}

#[tokio::test]
async fn a_result_line_has_exactly_the_documented_fields() {
    let text = written(Format::Jsonl, &steps(), vec![line("42", json!("Short."))]).await;
    let expected = json!({
        "key": "42",
        "line": 3,
        "status": "completed",
        "simulated": false,
        "answers": {"summary": "Short.", "reply": null},
        "error": null,
        "steps": {
            "summary": {
                "status": "completed",
                "provider": "gemini",
                "model": "flash",
                "key": "env:KEY",
                "simulated": false,
                "attempts": 2,
                "tokens": {"input": 100, "output": 20},
                "cost_usd": 0.000123,
                "duration_seconds": 2.4,
                "error": null,
                "notes": [],
            },
            "reply": {
                "status": "skipped",
                "provider": null,
                "model": null,
                "key": null,
                "simulated": false,
                "attempts": 0,
                "tokens": {"input": 0, "output": 0},
                "cost_usd": 0.0,
                "duration_seconds": 0.0,
                "error": null,
                "notes": [],
            },
        },
        "tokens": {"input": 100, "output": 20},
        "cost_usd": 0.000123,
        "duration_seconds": 1.234,
        "attempts": 2,
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    assert!(text.starts_with(
        "{\"key\":\"42\",\"line\":3,\"status\":\"completed\",\"simulated\":false,\"answers\":{"
    ));
    assert_eq!(text.matches('\n').count(), 1);
}

#[tokio::test]
async fn a_failed_item_has_class_step_and_message() {
    let failure = Failure::new(Class::Timeout, "no first token within 30 s").maybe_charged();
    let attempts = AttemptLog(vec![attempt("claude/haiku", Outcome::Failed(failure.clone().into()))]);
    let steps = vec![(StepName::from("summary"), StepLine::failed(&attempts, &failure, true))];
    let mut line = Line::new("42".into(), 3, ItemStatus::Failed, Duration::from_secs(30), steps);
    line.error = Some(LineError {
        class: failure.class,
        step: Some("summary".into()),
        message: failure.message.into(),
    });
    let text = written(Format::Jsonl, &[], vec![line]).await;
    let line: Value = serde_json::from_str(&text).unwrap();
    let message = "no first token within 30 s";
    assert_eq!(line["error"], json!({"class": "timeout", "step": "summary", "message": message}));
    assert_eq!(line["steps"]["summary"]["error"], json!({"class": "timeout", "message": message}));
    // The provider may have charged: the cost is unknown, not zero.
    assert_eq!(line["cost_usd"], Value::Null);
    assert_eq!(line["steps"]["summary"]["tokens"], Value::Null);
    assert_eq!((&line["simulated"], &line["attempts"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn a_csv_row_has_a_cell_for_every_column() {
    let lines = || {
        let mut line = line("42", json!(["a", 1]));
        line.item = Some(json!({ "text": "long", "tags": ["x"], "n": 1.50 }));
        vec![line]
    };
    let layout = layout(&["n", "text", "tags", "absent"]);
    assert_eq!(
        table(OutputColumns::Full, &layout, lines()).await,
        "n,text,tags,absent,summary,reply,status,error,error_class,error_step,error_message,key,line,simulated,\
         summary.provider,summary.model,reply.provider,reply.model,\
         input_tokens,output_tokens,cost_usd,duration_seconds,attempts\n\
         1.5,long,\"[\"\"x\"\"]\",,\"[\"\"a\"\",1]\",,completed,,,,,42,3,false,\
         gemini,flash,,,100,20,0.000123,1.234,2\n"
    );
    assert_eq!(
        table(OutputColumns::Default, &layout, lines()).await,
        "n,text,tags,absent,summary,reply,status,error,key\n\
         1.5,long,\"[\"\"x\"\"]\",,\"[\"\"a\"\",1]\",,completed,,42\n"
    );
    assert_eq!(
        table(OutputColumns::Minimal, &layout, lines()).await,
        "key,summary,reply\n42,\"[\"\"a\"\",1]\",\n"
    );
    assert_eq!(
        table(OutputColumns::Minimal, &layout.simulated(true), lines()).await,
        "key,summary,reply,simulated\n42,\"[\"\"a\"\",1]\",,false\n"
    );
}

#[tokio::test]
async fn a_field_without_a_column_is_in_the_column_for_others() {
    let mut line = line("42", Value::Null);
    line.item = Some(json!({ "id": 42, "b": 1, "more": 2 }));
    let fields = InputFields::new(["id", "more"]).with_more(true).with_key(true);
    let layout = RowLayout::new(Vec::new()).with_fields(fields);
    let text = table(OutputColumns::Default, &layout, vec![line]).await;
    assert_eq!(text, "id,input.more,more,status,error\n42,2,\"{\"\"b\"\":1}\",completed,\n");
}

#[tokio::test]
async fn a_field_is_not_dropped_if_no_column_has_it() {
    let mut line = line("42", Value::Null);
    line.item = Some(json!({ "id": 42, "new": 1 }));
    let format = Format::Csv(FormulaCells::default());
    let memory = Memory::default();
    let mut sink = Sink::results(Destination::writer("memory", memory.clone()), format, &[]).unwrap();
    sink.set_layout(&RowLayout::new(Vec::new()).with_fields(InputFields::new(["id"]).with_key(true)));
    sink.write(line).await.unwrap();
    let error = error_chain(&sink.finish().await.unwrap_err());
    assert!(error.contains("item 42 has the field \"new\", and the table has no column for it"), "{error}");
    assert_eq!(memory.text(), "id,status,error\n");
}

#[tokio::test]
async fn a_field_named_like_a_result_is_renamed_and_the_result_is_not() {
    let names = ["status", "input.status", "summary", "simulated", "error_class", "key"];
    let mut line = line("42", json!("s"));
    let fields = names.map(|name| (name.to_owned(), json!(name)));
    line.item = Some(Value::Object(fields.into_iter().collect()));
    let text = table(OutputColumns::Default, &layout(&names), vec![line]).await;
    assert_eq!(
        text,
        "input.input.status,input.status,input.summary,input.simulated,error_class,input.key,\
         summary,reply,status,error,key\n\
         status,input.status,summary,simulated,error_class,key,s,,completed,,42\n"
    );
}

#[tokio::test]
async fn the_fields_of_an_answer_that_is_an_object_are_columns() {
    let properties = json!({ "name": { "type": "string" }, "tags": { "type": "array" } });
    let mut schema = json!({ "type": "object", "properties": properties });
    let answer = json!({ "name": "n", "tags": [1], "extra": true });
    for (others, default_header, default_row) in [
        (None, "summary.name,summary.tags,status,error,key", "n,[1],completed,,42"),
        (Some(json!(false)), "summary.name,summary.tags,status,error,key", "n,[1],completed,,42"),
        (
            Some(json!(true)),
            "summary.name,summary.tags,summary.more,status,error,key",
            "n,[1],\"{\"\"extra\"\":true}\",completed,,42",
        ),
    ] {
        if let Some(others) = others {
            schema["additionalProperties"] = others;
        }
        let layout = RowLayout::new(vec![StepColumns::of_schema("summary".into(), &schema)]);
        let text = table(OutputColumns::Default, &layout, vec![line("42", answer.clone())]).await;
        assert_eq!(text, format!("{default_header}\n{default_row}\n"));
    }
    let schema = json!({ "type": "object", "properties": properties });
    let layout = RowLayout::new(vec![StepColumns::of_schema("summary".into(), &schema)]);
    let text = table(OutputColumns::Full, &layout, vec![line("42", answer)]).await;
    assert!(text.starts_with("summary.name,summary.tags,summary.more,status,"), "{text}");
    assert!(text.contains("n,[1],\"{\"\"extra\"\":true}\",completed,"), "{text}");
}

#[tokio::test]
async fn the_error_of_a_row_names_its_step_if_there_are_several() {
    let mut failed = line("42", Value::Null);
    failed.status = ItemStatus::Failed;
    failed.error =
        Some(LineError { class: Class::Timeout, step: Some("reply".into()), message: "30 s".to_owned() });
    let text = table(OutputColumns::Default, &layout(&[]), vec![failed.clone()]).await;
    assert!(text.ends_with("\n,,failed,timeout in step reply: 30 s,42\n"), "{text}");
    let one_step = RowLayout::new(vec![StepColumns::new("reply".into())]);
    let text = table(OutputColumns::Default, &one_step, vec![failed]).await;
    assert!(text.ends_with("\n,failed,timeout: 30 s,42\n"), "{text}");
}

#[tokio::test]
async fn a_json_line_has_its_item_at_its_end() {
    let mut with_item = line("42", json!("x"));
    let without = written(Format::Jsonl, &steps(), vec![with_item.clone()]).await;
    with_item.item = Some(json!({ "id": 42, "b": { "c": [1] } }));
    let text = written(Format::Jsonl, &steps(), vec![with_item]).await;
    let same = without.trim_end().strip_suffix('}').unwrap();
    assert_eq!(text, format!("{same},\"item\":{{\"id\":42,\"b\":{{\"c\":[1]}}}}}}\n"));
}

/// Returns each answer as it is written to CSV.
async fn in_csv(answers: &[&str], formulas: FormulaCells) -> Vec<String> {
    let lines = answers.iter().map(|answer| line("42", json!(answer))).collect();
    let text = written(Format::Csv(formulas), &steps(), lines).await;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows = reader.deserialize().map(|row| row.unwrap());
    rows.map(|row: HashMap<String, String>| row["summary"].clone()).collect()
}

#[tokio::test]
async fn a_cell_that_a_spreadsheet_would_run_is_escaped_unless_formulas_are_verbatim() {
    let run = [
        "=1+1",
        "=cmd|' /C calc'!A0",
        "+SUM(A1:A2)",
        "-2+3",
        "@SUM(1)",
        "  =1+1",
        "\u{a0}=1+1",
        "\"=1+1\"",
        "'=1+1",
        "\u{200b}=1+1",
        "\u{ff1d}1+1",
        "\u{fe66}1+1",
        "\u{fe62}1+1",
        "\u{fe63}1+1",
        "\u{fe6b}SUM(1)",
        "\u{2212}1+1",
        "\u{207c}1+1",
        "\u{208c}1+1",
        "\u{207a}1+1",
        "\u{207b}1+1",
        "-5 apples",
        "+1 555 0100",
        "-inf",
        "--5",
    ];
    let neutral: Vec<String> = run.iter().map(|cell| format!("'{cell}")).collect();
    assert_eq!(in_csv(&run, FormulaCells::Escaped).await, neutral);
    assert_eq!(in_csv(&run, FormulaCells::Verbatim).await, run);
    for (cell, neutral) in [
        ("\t=1+1", "'\t'=1+1"),
        ("\r=1+1", "'\r'=1+1"),
        ("\n=1+1", "'\n'=1+1"),
        // Split at the separator of another locale, at a tab or at a line end.
        ("x;=cmd()", "x;'=cmd()"),
        ("x\t@SUM(1)", "x\t'@SUM(1)"),
        ("x\n+SUM(1)\ny", "x\n'+SUM(1)\ny"),
        ("x\r\n=cmd|' /C calc'!A0;-2+3", "x\r\n'=cmd|' /C calc'!A0;'-2+3"),
        ("x; \"=1+1\"", "x;' \"=1+1\""),
        ("=1;=2", "'=1;'=2"),
        ("{\"a\":\"x;=1+1\"}", "{\"a\":\"x;'=1+1\"}"),
        ("list:\n- HYPERLINK(\"x\")\n- cmd|'x'!A0", "list:\n'- HYPERLINK(\"x\")\n'- cmd|'x'!A0"),
        ("x;- one", "x;'- one"),
        ("x;\u{fe66}cmd()", "x;'\u{fe66}cmd()"),
        ("x\n-one", "x\n'-one"),
    ] {
        assert_eq!(in_csv(&[cell], FormulaCells::Escaped).await, [neutral]);
        assert_eq!(in_csv(&[cell], FormulaCells::Verbatim).await, [cell]);
    }
    let plain = [
        "-5",
        "+3.2",
        "-1.5e-7",
        " -5",
        "\u{2212}5",
        "-",
        "a=b",
        "1-2",
        "",
        "name@example.com",
        "\"quoted\"",
        "日本",
        "1;-5;3",
        "a; b",
        "x\n-5\n",
        "so:\n- one\n  - two, or 2\n---\n",
        ";-)",
        "a;b=c\td",
    ];
    assert_eq!(in_csv(&plain, FormulaCells::Escaped).await, plain);
}

#[test]
#[cfg(unix)]
fn an_output_is_not_created_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("o.jsonl");
    std::os::unix::fs::symlink(folder.path().join("nothing"), &link).unwrap();
    let refused = Destination::file(&link, &[]).err().unwrap();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("a link to a file that does not exist"), "{refused}: {cause}");
    assert!(!folder.path().join("nothing").exists());
}

#[tokio::test]
async fn every_cell_with_external_text_is_escaped() {
    let mut hostile = line("=key", json!(["=in JSON"]));
    hostile.error = Some(LineError { class: Class::Timeout, step: None, message: "@message".into() });
    hostile.item = Some(json!({ "=field": "=cell" }));
    let text = table(OutputColumns::Full, &layout(&["=field"]), vec![hostile]).await;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let row: HashMap<String, String> = reader.deserialize().next().unwrap().unwrap();
    assert_eq!((row["key"].as_str(), row["error_message"].as_str()), ("'=key", "'@message"));
    assert_eq!(row["'=field"], "'=cell");
    assert_eq!(row["summary"], "[\"=in JSON\"]");
}

#[tokio::test]
async fn control_characters_are_removed_for_a_terminal_and_kept_in_a_file() {
    let hostile = "a\u{1b}[2J\u{202e}b\u{7f}";
    let steps = steps();
    for format in [Format::Jsonl, Format::Csv(FormulaCells::Escaped)] {
        for is_terminal in [false, true] {
            let memory = Memory::default();
            let destination = Destination { is_terminal, ..Destination::writer("memory", memory.clone()) };
            let sink = Sink::results(destination, format, &steps).unwrap();
            sink.write(line(hostile, json!(hostile))).await.unwrap();
            sink.finish().await.unwrap();
            let text = memory.text();
            assert_eq!(text.contains('\u{202e}'), !is_terminal, "{text:?}");
            assert!(
                !is_terminal || text.chars().all(|letter| letter == '\n' || !letter.is_control()),
                "{text:?}"
            );
            if format == Format::Jsonl {
                assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["key"], hostile);
            }
        }
    }
}

#[test]
#[cfg(unix)]
fn a_new_output_is_readable_by_its_owner_only_and_an_existing_one_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    Destination::file(&path, &[]).unwrap().overwrite("{}").unwrap();
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(Destination::file(&path, &[]).unwrap().replacing_after(&path, 1));
    assert_eq!(mode(), 0o644);
}

#[tokio::test]
async fn a_csv_without_lines_still_has_its_header() {
    let text = written(Format::Csv(FormulaCells::default()), &[], vec![]).await;
    assert_eq!(text, "status,error,key\n");
    let text = table(OutputColumns::Full, &layout(&["a"]), vec![]).await;
    assert!(text.starts_with("a,summary,reply,status,error,error_class,"), "{text}");
}

#[tokio::test]
async fn a_step_named_like_a_column_has_its_answer_in_a_separate_column() {
    let steps: Vec<StepName> = vec!["status".into(), "a".into(), "a.model".into()];
    let layout = RowLayout::new(steps.into_iter().map(StepColumns::new).collect());
    let text = table(OutputColumns::Full, &layout, vec![]).await;
    assert!(text.starts_with("answer.status,a,answer.a.model,status,error,error_class"), "{text}");
}

#[tokio::test]
async fn a_reject_line_has_line_reason_key_and_text() {
    let memory = Memory::default();
    let sink = Sink::rejects(Destination::writer("memory", memory.clone())).unwrap();
    let reject =
        RejectLine { line: 7, reason: "is a number, not a JSON object".into(), text: "7".into(), key: None };
    sink.write(reject).await.unwrap();
    sink.finish().await.unwrap();
    assert_eq!(
        memory.text(),
        "{\"line\":7,\"reason\":\"is a number, not a JSON object\",\"key\":null,\"text\":\"7\"}\n"
    );
}

/// Accepts `remaining` bytes, at most 100 at a time, then fails.
struct Full {
    remaining: usize,
    kind: io::ErrorKind,
    memory: Memory,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.remaining).min(100);
        if count == 0 {
            return Err(self.kind.into());
        }
        self.remaining -= count;
        self.memory.write(&bytes[..count])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes until it fails. Returns the errors of the last write and of `finish`.
async fn write_until_it_fails(sink: Sink<Line>) -> (Error, Error) {
    loop {
        if let Err(error) = sink.write(line("42", json!("Short."))).await {
            return (error, sink.finish().await.unwrap_err());
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_by_the_next_write_and_by_finish() {
    let memory = Memory::default();
    let full = Full { remaining: 100_000, kind: io::ErrorKind::StorageFull, memory: memory.clone() };
    let sink = Sink::results(Destination::writer("results.jsonl", full), Format::Jsonl, &[]).unwrap();
    let (write_error, finish_error) = write_until_it_fails(sink).await;
    let complete_lines = memory.text().matches('\n').count();
    assert!(complete_lines > 10);
    for error in [write_error, finish_error] {
        assert_eq!(
            error.to_string(),
            format!(
                "cannot write to results.jsonl; {complete_lines} lines were saved; free some space, then start the \
                 run again"
            )
        );
        assert!(!error.is_broken_pipe());
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn a_broken_pipe_is_distinguished_from_a_failure() {
    let full = Full { remaining: 1000, kind: io::ErrorKind::BrokenPipe, memory: Memory::default() };
    let sink = Sink::results(Destination::writer("stdout", full), Format::Jsonl, &[]).unwrap();
    let (write_error, finish_error) = write_until_it_fails(sink).await;
    assert!(write_error.is_broken_pipe() && finish_error.is_broken_pipe());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_device_that_is_full_from_the_start_fails_with_no_line_written() {
    let destination = Destination::file("/dev/full", &[]).unwrap();
    let (_, finish_error) =
        write_until_it_fails(Sink::results(destination, Format::Jsonl, &[]).unwrap()).await;
    assert_eq!(
        finish_error.to_string(),
        "cannot write to /dev/full; no line was saved; free some space, then start the run again"
    );
}

#[tokio::test]
async fn a_partial_line_is_removed_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.csv");
    let mut destination = Destination::file(&path, &[]).unwrap();
    // The same file, on a disk that is full after 1,000 bytes.
    struct Small(fs::File, usize);
    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.1);
            self.1 -= count;
            if count == 0 { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(&bytes[..count]) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    destination.out = Some(Box::new(Small(fs::OpenOptions::new().write(true).open(&path).unwrap(), 1000)));
    let (_, finish_error) = write_until_it_fails(
        Sink::results(destination, Format::Csv(FormulaCells::default()), &steps()).unwrap(),
    )
    .await;
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n') && text.len() < 1000);
    let lines = text.lines().count() - 1;
    assert!(finish_error.to_string().contains(&format!("; {lines} lines were saved")), "{finish_error}");
}

#[tokio::test]
async fn a_file_that_another_program_changes_while_it_is_written_ends_the_output_with_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.jsonl");
    for writes_more in [false, true] {
        for content in ["", "of another program\n"] {
            let destination = Destination::file(&path, &[]).unwrap();
            let sink = Sink::results(destination, Format::Jsonl, &[]).unwrap();
            sink.write(line("1", json!("x"))).await.unwrap();
            while sink.lines() == 0 {
                tokio::task::yield_now().await;
            }
            fs::write(&path, content).unwrap();
            if writes_more {
                // The error may be that of this line or that of the end.
                drop(sink.write(line("2", json!("x"))).await);
            }
            let error = sink.finish().await.unwrap_err();
            assert!(matches!(error, Error::Changed { lines: 1, .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}

#[tokio::test]
async fn a_file_that_another_program_appends_to_while_it_is_written_ends_the_output_with_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let destination = Destination::file(file.path(), &[]).unwrap();
    let sink = Sink::results(destination, Format::Jsonl, &[]).unwrap();
    sink.write(line("1", json!("x"))).await.unwrap();
    while sink.lines() == 0 {
        tokio::task::yield_now().await;
    }
    let mut appended = fs::OpenOptions::new().append(true).open(file.path()).unwrap();
    appended.write_all(b"of another program\n").unwrap();
    let error = sink.finish().await.unwrap_err();
    assert!(matches!(error, Error::Changed { lines: 1, .. }), "{error}");
}

#[tokio::test]
async fn an_original_file_stays_if_another_program_changes_its_replacement() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.jsonl");
    fs::write(&path, "before\n").unwrap();
    let destination = Destination::file(&path, &[]).unwrap().replacing_after(&path, 9);
    let replacement = destination.file.as_ref().unwrap().try_clone().unwrap();
    let sink = Sink::results(destination, Format::Jsonl, &[]).unwrap();
    sink.write(line("1", json!("x"))).await.unwrap();
    while sink.lines() == 0 {
        tokio::task::yield_now().await;
    }
    replacement.set_len(0).unwrap();
    let error = sink.finish().await.unwrap_err();
    assert!(matches!(error, Error::Changed { lines: 1, .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
}

#[test]
#[cfg(unix)]
fn a_write_after_another_program_has_truncated_the_file_leaves_no_gap() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.jsonl");
    for is_replacement in [false, true] {
        fs::write(&path, "before\n").unwrap();
        let destination = Destination::file(&path, &[]).unwrap();
        let destination = if is_replacement { destination.replacing_after(&path, 1) } else { destination };
        let file = destination.file.as_ref().unwrap().try_clone().unwrap();
        let mut out = destination.out.unwrap();
        file.set_len(0).unwrap();
        out.write_all(b"one\n").unwrap();
        file.set_len(0).unwrap();
        out.write_all(b"two\n").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4);
    }
}

#[tokio::test]
async fn a_writer_that_panics_is_reported() {
    struct Panicking;
    impl Write for Panicking {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            panic!("on purpose")
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::results(Destination::writer("mine", Panicking), Format::Jsonl, &[]).unwrap();
    let (write_error, finish_error) = write_until_it_fails(sink).await;
    assert_eq!(write_error.to_string(), "the thread that writes mine panicked");
    assert_eq!(finish_error.to_string(), "the thread that writes mine panicked");
}

#[tokio::test]
async fn a_line_is_written_before_the_next_one_arrives() {
    let (from, to) = std::sync::mpsc::channel();
    struct SendToTest(std::sync::mpsc::Sender<Vec<u8>>);
    impl Write for SendToTest {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::results(Destination::writer("pipe", SendToTest(from)), Format::Jsonl, &[]).unwrap();
    for key in ["1", "2"] {
        sink.write(line(key, json!("x"))).await.unwrap();
        assert!(to.recv().unwrap().ends_with(b"\n"));
    }
}

#[tokio::test]
async fn a_sink_that_writes_nothing_counts_its_lines() {
    let sink = Sink::results(Destination::none(), Format::Jsonl, &[]).unwrap();
    sink.write(line("1", json!("x"))).await.unwrap();
    assert_eq!(sink.finish().await.unwrap().lines, 1);
}

#[test]
fn a_destination_that_cannot_be_opened_is_reported_before_anything_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let error = Destination::file(directory.path(), &[]).err().unwrap();
    assert!(matches!(error, Error::Directory { .. }), "{error}");
    let error = Destination::file(directory.path().join("none/results.jsonl"), &[]).err().unwrap();
    assert!(error.to_string().contains("none/results.jsonl"), "{error}");
}

#[test]
fn the_input_is_never_overwritten_under_any_of_its_names() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("items.jsonl"), "{}\n").unwrap();
    fs::hard_link(at("items.jsonl"), at("linked.jsonl")).unwrap();
    let around = directory.path().join("../").join(directory.path().file_name().unwrap()).join("items.jsonl");
    let input = at("items.jsonl");
    for output in [&input, &at("linked.jsonl"), &around] {
        let error = Destination::file(output, &[Path::new("elsewhere"), &input]).err().unwrap();
        assert!(matches!(error, Error::SameFile { .. }), "{error}");
    }
    assert_eq!(fs::read_to_string(&input).unwrap(), "{}\n");
}

#[tokio::test]
async fn an_old_file_is_truncated_only_when_something_is_about_to_be_written() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "old").unwrap();
    let destination = Destination::file(file.path(), &[]).unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"old");
    Sink::results(destination, Format::Jsonl, &[]).unwrap().finish().await.unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"");

    fs::write(file.path(), "old and long").unwrap();
    Destination::file(file.path(), &[]).unwrap().overwrite("new").unwrap();
    assert_eq!(fs::read(file.path()).unwrap(), b"new");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_answer_can_be_read_back_from_csv(
        answers in prop::collection::vec("[a,;\"'\r\n\t =+@é\u{1f600}\u{0}]{0,12}", 1..8),
    ) {
        let lines = answers.iter().map(|answer| line(answer, json!(answer))).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let text = runtime.block_on(written(Format::Csv(FormulaCells::Verbatim), &steps(), lines));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<HashMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
        prop_assert_eq!(rows.len(), answers.len());
        for (row, answer) in rows.iter().zip(&answers) {
            prop_assert_eq!(&row["summary"], answer);
            prop_assert_eq!(&row["key"], answer);
        }
    }
}

#[test]
fn the_cost_of_a_step_is_unknown_when_one_of_its_attempts_may_have_been_charged() {
    let failure = Failure { charged: Charged::Maybe, ..Failure::new(Class::NetworkError, "reset") };
    let lost = Outcome::Failed(failure.into());
    let target: TargetName = "a/b".parse().unwrap();
    let known = StepLine::completed(
        &AttemptLog(vec![attempt("a/b", Outcome::Answered), attempt("a/b", Outcome::Answered)]),
        false,
    );
    assert_eq!(known.cost, Some(NanoUsd(246_000)));
    assert_eq!(known.tokens, Some(TokenCount { input: 200, output: 40 }));
    assert_eq!((known.provider, known.duration), (Some(target.provider), Duration::from_millis(2400)));
    let unknown = StepLine::completed(
        &AttemptLog(vec![attempt("a/b", lost), attempt("a/b", Outcome::Answered)]),
        false,
    );
    assert_eq!((unknown.cost, unknown.tokens), (None, None));
}

#[test]
fn an_attempt_that_was_sent_through_an_open_breaker_is_noted_once() {
    let forced = || Attempt { forced: true, ..attempt("a/b", Outcome::Answered) };
    let line =
        StepLine::completed(&AttemptLog(vec![forced(), forced(), attempt("c/d", Outcome::Answered)]), false);
    assert_eq!(line.notes, ["a/b: sent although its breaker was open: no other target was left"]);
}

#[test]
fn an_attempt_that_was_never_sent_costs_nothing_and_keeps_the_sum_known() {
    let refused = Outcome::Refused("no key is left".into());
    let line = StepLine::completed(
        &AttemptLog(vec![attempt("a/m", refused), attempt("b/m", Outcome::Answered)]),
        false,
    );
    assert_eq!((line.cost, line.tokens.map(|tokens| tokens.output)), (Some(NanoUsd(123_000)), Some(20)));
    let nothing = Outcome::Refused("no key is left".into());
    let failed = StepLine::unfinished(&AttemptLog(vec![attempt("a/m", nothing)]));
    assert_eq!(failed.cost, Some(NanoUsd(0)));
}
