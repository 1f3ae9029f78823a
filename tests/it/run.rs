//! `pointsman run` without failures, or with failed items only.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::program::{
    Workspace, keys, parse_lines, program, repository_path, run_program, run_program_with_stdin,
    start_program,
};

/// Runs an example with the command of its README, and returns its lines and its report.
fn run_example(name: &str, items: &str, count: usize) -> (Vec<Value>, Value) {
    let workspace = Workspace::empty();
    let out = workspace.path("results.jsonl");
    let report = workspace.path("report.json");
    let arguments = format!(
        "run examples/{name}/pipeline.toml --items examples/{name}/{items} --simulate --out {} --report {} \
         --store sqlite:{}",
        out.display(),
        report.display(),
        workspace.path("runs.db").display(),
    );
    let mut program = program(&arguments);
    program.current_dir(repository_path(""));
    run_program(program)
        .expect_stderr(0, &["[simulated]", "SIMULATED", &format!("{count} completed (100.0% success)")]);
    (workspace.output_lines("results.jsonl"), workspace.read_json("report.json"))
}

#[test]
fn an_old_word_of_the_command_line_is_refused_with_its_new_name() {
    let workspace = Workspace::new("");
    for (arguments, help) in [
        ("run pipeline.toml --items i.csv --from csv", "`--from` is now called `--input-format`"),
        ("run pipeline.toml --items i.csv --to csv", "`--to` is now called `--output-format`"),
        ("forget 1", "`forget` is now called `delete`"),
        ("failed 1", "`failed` is now called `failures`"),
    ] {
        workspace.run(arguments).expect_stderr(2, &[help]);
    }
    assert!(!workspace.run("run --frm csv").stderr.contains("is now called"));
}

#[test]
fn an_argument_of_another_command_is_refused_with_the_one_to_use() {
    let workspace = Workspace::new("");
    for (arguments, help) in [
        ("run pipeline.toml items.jsonl", "the items are an option: --items items.jsonl"),
        ("plan pipeline.toml items.jsonl", "the items are an option: --items items.jsonl"),
        ("run pipeline.toml $(id).jsonl", "the items are an option: --items '$(id).jsonl'"),
        ("run pipeline.toml --items items.jsonl --sample 3", "`pointsman plan ... --sample ITEMS`"),
        ("results 1 --output-format csv", "the format of `results` is `--format`"),
        ("results 1 --to csv", "the format of `results` is `--format`"),
    ] {
        workspace.run(arguments).expect_stderr(2, &[help]);
    }
    for arguments in ["run pipeline.toml other.toml --items items.jsonl", "report 1 items.jsonl"] {
        let refused = workspace.run(arguments);
        refused.expect_code(2);
        assert!(!refused.stderr.contains("are an option"), "{arguments}: {}", refused.stderr);
    }
}

#[test]
fn the_readmes_command_completes_twenty_emails_and_marks_them_as_simulated() {
    let (lines, report) = run_example("email", "emails.jsonl", 20);
    assert_eq!(lines.len(), 20);
    for line in &lines {
        assert_eq!((&line["status"], &line["simulated"]), (&"completed".into(), &true.into()), "{line}");
        let category = line["answers"]["category"].as_str().unwrap();
        assert!(["URGENT", "MEETING", "SUPPORT", "MARKETING", "PERSONAL", "OTHER"].contains(&category));
        assert!(line["answers"]["action_items"].is_array(), "{line}");
        let replies = line["answers"]["replies"].as_array().map(Vec::len);
        assert_eq!(replies, (category != "MARKETING").then_some(3), "{line}");
    }
    assert_eq!(report["simulated"], true);
    assert_eq!(report["outcome"], "completed");
    assert_eq!(report["items"]["completed"], 20);
    let sum =
        |count: fn(&Value) -> &Value| lines.iter().map(|line| count(line).as_u64().unwrap()).sum::<u64>();
    assert_eq!(report["calls"]["sent"], sum(|line| &line["attempts"]));
    assert_eq!(report["tokens"]["input"], sum(|line| &line["tokens"]["input"]));
    assert_eq!(report["tokens"]["output"], sum(|line| &line["tokens"]["output"]));
    let steps = report["steps"].as_object().unwrap().values();
    assert_eq!(report["calls"]["sent"], steps.map(|step| step["calls"].as_u64().unwrap()).sum::<u64>());
    let times = &report["item_duration_seconds"];
    assert!(times["p50"].as_f64() > Some(0.0) && times["p50"].as_f64() <= times["max"].as_f64(), "{times}");
}

#[test]
fn two_hundred_ad_accounts_are_completed() {
    let (lines, report) = run_example("ad_accounts", "accounts.jsonl", 200);
    assert_eq!(lines.len(), 200);
    assert_eq!((&report["calls"]["sent"], &report["items"]["rejected"]), (&600.into(), &0.into()));
}

#[test]
fn fifty_leads_from_csv_are_completed() {
    let (lines, report) = run_example("leads", "leads.csv", 50);
    assert_eq!(lines.len(), 50);
    assert_eq!((&report["calls"]["sent"], &report["items"]["rejected"]), (&50.into(), &0.into()));
}

#[test]
fn items_are_read_from_every_format_and_from_stdin() {
    let workspace = Workspace::new("");
    workspace.write("a.jsonl", "{\"id\":\"1\",\"text\":\"x\"}\n\n{\"id\":\"2\",\"text\":\"y\"}");
    workspace.write("a.csv", "\u{feff}id,text\n1,x\n2,\"y\nand, more\"\n");
    workspace.write("a.json", "[{\"id\":\"1\",\"text\":\"x\"},\n {\"id\":\"2\",\"text\":\"y\"}]");
    workspace.write("a.txt", "id,text\n1,x\n2,y\n");
    for items in ["a.jsonl", "a.csv", "a.json", "a.txt --input-format csv"] {
        workspace
            .run(&format!("run pipeline.toml --items {items} --out o.jsonl --ordered --overwrite"))
            .expect_code(0);
        assert_eq!(keys(&workspace.output_lines("o.jsonl")), ["1", "2"], "{items}");
    }
    for (stdin, format) in [("a.jsonl", ""), ("a.json", ""), ("a.csv", "--input-format csv")] {
        let program = workspace.command(&format!("run pipeline.toml --items - --ordered --quiet {format}"));
        let output = run_program_with_stdin(program, workspace.read(stdin).as_bytes());
        output.expect_code(0);
        assert_eq!(keys(&parse_lines(&output.stdout)), ["1", "2"], "{stdin}");
    }
}

#[test]
fn results_are_written_as_jsonl_as_csv_and_to_stdout() {
    let workspace = Workspace::new("");
    workspace.write_items(3);
    let csv = |text: &str| -> Vec<Vec<String>> {
        let rows = csv::Reader::from_reader(text.as_bytes()).into_records();
        rows.map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
    };
    workspace.run("run pipeline.toml --items items.jsonl --out o.csv --ordered").expect_code(0);
    let rows = csv(&workspace.read("o.csv"));
    assert_eq!(rows.iter().map(|row| &row[0]).collect::<Vec<_>>(), ["i1", "i2", "i3"]);
    assert_eq!(workspace.read("o.csv").lines().next(), Some("id,text,answer,status,error,simulated"));
    assert_eq!((rows[0][1].as_str(), rows[0][2].is_empty()), ("thing 1", false));
    assert_eq!(rows[0][3..], ["completed", "", "true"]);
    let stdout = workspace.run("run pipeline.toml --items items.jsonl --output-format csv");
    stdout.expect_code(0);
    assert_eq!(csv(&stdout.stdout).len(), 3);
    assert_eq!(parse_lines(&workspace.run("run pipeline.toml --items items.jsonl").stdout).len(), 3);
}

#[test]
fn ordered_output_has_the_order_of_the_input() {
    let workspace = Workspace::new("[simulator]\nlatency = { median = \"20ms\", p95 = \"150ms\" }");
    workspace.write_items(60);
    let expected: Vec<String> = (1..=60).map(|number| format!("i{number}")).collect();
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --ordered").expect_code(0);
    assert_eq!(keys(&workspace.output_lines("o.jsonl")), expected);

    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --new --overwrite").expect_code(0);
    let mut completed = keys(&workspace.output_lines("o.jsonl"));
    assert_ne!(completed, expected, "items complete in another order");
    completed.sort_by_key(|key| key[1..].parse::<u32>().unwrap());
    assert_eq!(completed, expected);
}

#[test]
fn an_item_without_an_id_has_the_same_key_in_every_run_and_at_every_position() {
    let workspace = Workspace::new("");
    workspace.write("a.jsonl", "{\"text\":\"x\"}\n{\"text\":\"y\"}\n");
    workspace.write("b.jsonl", "{\"text\":\"y\"}\n{\"text\":\"z\"}\n{\"text\":\"x\"}\n");
    let keys_of = |items: &str| {
        workspace
            .run(&format!("run pipeline.toml --items {items} --out o.jsonl --ordered --overwrite"))
            .expect_code(0);
        keys(&workspace.output_lines("o.jsonl"))
    };
    let a = keys_of("a.jsonl");
    let b = keys_of("b.jsonl");
    assert_eq!((&a[0], &a[1]), (&b[2], &b[0]));
    assert_ne!(a[0], a[1]);
}

#[test]
fn an_id_that_repeats_is_rejected_with_its_line_number_and_an_equal_record_without_an_id_is_processed() {
    let workspace = Workspace::new("");
    let items =
        "{\"id\":\"a\",\"text\":\"x\"}\n{\"text\":\"y\"}\n{\"id\":\"a\",\"text\":\"z\"}\n{\"text\":\"y\"}\n";
    workspace.write("items.jsonl", items);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl");
    output.expect_stderr(
        1,
        &["3 completed, 1 rejected", "such as line 3: has the key \"a\" of the item on line 1"],
    );
    workspace.assert_nothing_is_lost(4, "o.jsonl", "r.jsonl");
    let rejects = workspace.output_lines("r.jsonl");
    assert_eq!((&rejects[0]["line"], &rejects[0]["key"]), (&3.into(), &"a".into()));
    assert_eq!(rejects.len(), 1);
    let line_of = |line: u64| {
        workspace.output_lines("o.jsonl").into_iter().find(|found| found["line"] == line).unwrap()
    };
    assert_eq!(line_of(4)["key"], format!("{}-2", line_of(2)["key"].as_str().unwrap()));
}

#[test]
fn equal_records_keep_their_lines_when_their_number_changes() {
    let workspace = Workspace::new("");
    let run = "run pipeline.toml --items items.csv --out o.jsonl --ordered";
    let keys_of = |rows: usize| {
        workspace.write("items.csv", format!("text\nother\n{}", "good\n".repeat(rows)));
        workspace.run(run).expect_code(0);
        keys(&workspace.output_lines("o.jsonl"))
    };
    let two = keys_of(2);
    assert_eq!(two.len(), 3);
    let four = keys_of(4);
    assert_eq!((&four[..3], four.len()), (&two[..], 5));
    assert_eq!(keys_of(4), four);
    let fewer = keys_of(1);
    assert_eq!(fewer, two[..2]);
    assert_eq!(keys_of(2), two);
}

#[test]
fn an_item_that_violates_the_schema_costs_nothing_and_does_not_use_up_its_key() {
    let workspace = Workspace::new("");
    workspace.write(
        "pipeline.toml",
        "name = \"one\"\n[input.schema]\nrequired = [\"text\"]\n[[step]]\nname = \"answer\"\nprompt = \"{{ item.text }}\"",
    );
    workspace.write(
        "items.jsonl",
        "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\"}\n{\"id\":\"b\",\"text\":\"y\"}\n",
    );
    let arguments = "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report r.json";
    workspace.run(arguments).expect_stderr(1, &["2 completed, 1 rejected", "such as line 2: "]);
    workspace.assert_nothing_is_lost(3, "o.jsonl", "r.jsonl");
    assert_eq!(workspace.output_lines("r.jsonl")[0]["key"], "b");
    assert_eq!(workspace.read_json("r.json")["calls"]["sent"], 2);
}

#[test]
fn a_failed_item_has_a_line_and_the_exit_code_is_1() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    workspace.write_items(3);
    let output =
        workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json --ordered");
    output.expect_stderr(
        1,
        &[
            "2 completed, 1 failed (66.6% success)",
            "failed items by class:\n  1 content_filter, such as: step answer:",
        ],
    );
    let lines = workspace.output_lines("o.jsonl");
    assert_eq!(
        (&lines[1]["status"], &lines[1]["error"]["class"]),
        (&"failed".into(), &"content_filter".into())
    );
    assert_eq!(lines[1]["error"]["step"], "answer");
    assert_eq!(workspace.read_json("report.json")["errors"]["content_filter"]["count"], 1);
}

#[test]
fn a_closed_stdout_ends_the_run_without_a_message() {
    let workspace = Workspace::new("");
    workspace.write_items(1_000);
    let mut program = workspace.command("run pipeline.toml --items items.jsonl");
    let mut running = start_program({
        program.stdout(Stdio::piped());
        program
    });
    let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let output = running.wait();
    assert!(first.starts_with("{\"key\""), "{first}");
    let stderr = output.expect_code(141);
    assert!(
        !stderr.contains("error") && !stderr.contains("pipe") && !stderr.contains("completed"),
        "{stderr}"
    );
}

#[test]
fn quiet_prints_nothing_on_success_and_the_failures_otherwise() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    workspace.write_items(1);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --quiet");
    assert_eq!((output.expect_code(0), output.stdout.as_str()), ("", ""));
    workspace.write_items(2);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --quiet");
    let stderr = output.expect_code(1);
    let (line, problems) = stderr.split_once('\n').unwrap();
    assert!(line.starts_with("one [simulated]: 1 completed, 1 failed"), "{stderr}");
    assert!(problems.starts_with("failed items by class:\n  1 content_filter"), "{stderr}");
    // If there is nothing to do, failures still determine the exit code.
    let second_run = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --quiet");
    assert_eq!(second_run.expect_code(1).lines().count(), 1, "{}", second_run.stderr);
    second_run.expect_stderr(1, &["run 1 is complete", "1 failed"]);
}

#[test]
fn a_complete_run_with_rejected_records_exits_with_1() {
    let workspace = Workspace::new("");
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"x\"}\nno json\n");
    const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";
    workspace.run(RUN).expect_stderr(1, &["1 completed, 1 rejected"]);
    workspace
        .run(RUN)
        .expect_stderr(1, &["there is nothing to do", "1 completed, 0 failed, 0 skipped, 1 rejected before"]);
    workspace.run("retry 1");
    workspace.run(RUN).expect_stderr(1, &["there is nothing to do", "1 rejected before"]);
    workspace.write("items.jsonl", "{\"id\":1,\"text\":\"x\"}\n");
    workspace.run(RUN).expect_stderr(0, &["1 completed"]);
    workspace.run(RUN).expect_stderr(0, &["there is nothing to do", "0 skipped before"]);
}

#[test]
fn with_json_every_line_on_stderr_is_json() {
    let workspace = Workspace::new("[simulator]\nlatency = \"300ms\"");
    workspace.write_items(2);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --json -v");
    output.expect_code(0);
    let stderr = parse_lines(&output.stderr);
    let kinds: Vec<&str> =
        stderr.iter().map(|line| line.as_object().unwrap().keys().next().unwrap().as_str()).collect();
    assert!(kinds.iter().all(|kind| ["note", "log", "progress", "report"].contains(kind)), "{kinds:?}");
    assert_eq!(kinds.iter().rfind(|kind| **kind != "log"), Some(&"report"));
    let report = stderr.iter().find(|line| line["report"].is_object()).unwrap();
    assert_eq!(report["report"]["items"]["completed"], 2);
    let first = stderr.iter().find(|line| line["progress"].is_object()).unwrap();
    assert!(first["progress"]["elapsed_seconds"].as_f64() < Some(0.3), "the first progress is late: {first}");
    assert_eq!(first["progress"]["in_flight"], 2);

    workspace.write("pipeline.toml", "name = 1");
    let refused = workspace.run("run pipeline.toml --items items.jsonl --json");
    refused.expect_code(3);
    let invalid = parse_lines(&refused.stderr).pop().unwrap();
    assert!(
        invalid["diagnostics"][0]["location"].as_str().unwrap().starts_with("pipeline.toml:1:"),
        "{invalid}"
    );
    let missing =
        parse_lines(&workspace.run("run nothing.toml --items items.jsonl --json").stderr).pop().unwrap();
    assert!(missing["diagnostics"][0]["message"].as_str().unwrap().contains("nothing.toml"), "{missing}");
}

#[test]
fn the_log_is_json_on_request() {
    let workspace = Workspace::new("[simulator]\nfaults = [{ kind = \"server_error\", share = 0.5 }]");
    workspace.write_items(4);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --quiet -vv --log json");
    let lines: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with('{')).collect();
    let events = parse_lines(&lines.join("\n"));
    assert!(!events.is_empty(), "{}", output.stderr);
    for event in &events {
        for key in ["timestamp", "level", "module", "message"] {
            assert!(event[key].is_string(), "{key}: {event}");
        }
        assert!(event["module"].as_str().unwrap().starts_with("pointsman"), "{event}");
    }
    // In JSON mode a line of the log is below `log`, as the other lines are below their kinds.
    let output =
        workspace.run("run pipeline.toml --items items.jsonl --out p.jsonl --new --json -vv --log json");
    let lines = parse_lines(&output.stderr);
    let is_event = |line: &Value| line["log"]["message"].is_string();
    assert!(lines.iter().any(is_event), "{}", output.stderr);
}

#[test]
fn without_a_terminal_progress_is_an_occasional_line() {
    let workspace = Workspace::new("[simulator]\nlatency = \"400ms\"");
    workspace.write_items(2);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl");
    let stderr = output.expect_code(0);
    let progress: Vec<&str> = stderr.lines().filter(|line| line.contains("in flight (oldest i1")).collect();
    assert_eq!(progress.len(), 1, "{stderr}");
    assert!(
        progress[0].contains("breaker closed, 2/32 calls in flight") && progress[0].contains("[simulated]")
    );
    assert!(!stderr.contains('\u{1b}'), "escape sequences without a terminal: {stderr:?}");
}

#[test]
fn an_unknown_cost_is_never_shown_as_zero() {
    let workspace = Workspace::new("[simulator]\nlatency = \"200ms\"");
    workspace.write_items(2);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json");
    output.expect_stderr(
        0,
        &["cost unknown\n", "no price of simulated/any, for 2 calls: its answers are simulated"],
    );
    assert!(!output.stderr.contains('$'), "{}", output.stderr);
    let report = workspace.read_json("report.json");
    assert_eq!((&report["cost_usd"], &report["calls_of_unknown_cost"]), (&Value::Null, &2.into()));
    assert_eq!(workspace.output_lines("o.jsonl")[0]["cost_usd"], Value::Null);
}

#[test]
fn a_partly_known_cost_is_shown_as_at_least_that() {
    let priced = "[provider.p]\nbase_url = \"simulator\"\n[provider.p.models.a]\nprice = { input = 10, output = 10 }\n";
    let both = format!(
        "{priced}[provider.p.models.b]\n[route.a]\ntargets = [\"p/a\"]\n[route.b]\ntargets = [\"p/b\"]"
    );
    let workspace = Workspace::new(&both);
    workspace.write(
        "pipeline.toml",
        "name = \"two\"\n[[step]]\nname = \"a\"\nroute = \"a\"\nprompt = \"{{ item.text }}\"\n\
         [[step]]\nname = \"b\"\nroute = \"b\"\nprompt = \"{{ item.text }}\"",
    );
    workspace.write_items(2);
    workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl --report r.json").expect_stderr(
        0,
        &["cost at least $0.000", "no price of p/b, for 2 calls: its answers are simulated"],
    );
    assert!(workspace.read_json("r.json")["cost_usd"].as_f64() > Some(0.0));

    workspace.write(
        "pipeline.toml",
        "name = \"one\"\n[[step]]\nname = \"a\"\nroute = \"a\"\nprompt = \"{{ item.text }}\"",
    );
    let known = workspace.run("run pipeline.toml --items items.jsonl --out known.jsonl --store none");
    known.expect_stderr(0, &["cost $0.000"]);
    assert!(!known.stderr.contains("unknown") && !known.stderr.contains("at least"), "{}", known.stderr);
}

#[test]
fn the_report_fits_100_columns_even_with_long_names() {
    let workspace = Workspace::new("");
    let name = "a_step_whose_name_is_longer_than_a_table_has_room_for";
    workspace.write(
        "pipeline.toml",
        format!("name = \"one\"\n[[step]]\nname = \"{name}\"\nprompt = \"{{{{ item.text }}}}\""),
    );
    workspace.write_items(2);
    let output = workspace.run("run pipeline.toml --items items.jsonl --out o.jsonl");
    let table: Vec<&str> =
        output.expect_code(0).lines().skip_while(|line| !line.contains("step or")).collect();
    assert!(table.len() > 4, "{}", output.stderr);
    let widest = table.iter().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{}", table.join("\n"));
}

#[test]
fn a_refused_command_leaves_the_output_unchanged() {
    let workspace = Workspace::new("");
    workspace.write_items(2);
    workspace.write("o.jsonl", "yesterday's\n");
    workspace.write("bad.toml", "name = \"bad\"\n[[step]]\nname = \"a\"\nprompt = \"{{ b }}\"");
    workspace.write("broken.toml", "[retry]\nmax_rounds = 0");
    for (arguments, code) in [
        ("run bad.toml --items items.jsonl --out o.jsonl", 3),
        ("run nothing.toml --items items.jsonl --out o.jsonl", 3),
        ("run pipeline.toml --items items.jsonl --out o.jsonl --config broken.toml", 3),
        ("run pipeline.toml --items items.jsonl --out o.jsonl --config nothing.toml", 3),
        ("run pipeline.toml --items nothing.jsonl --out o.jsonl", 4),
        ("run pipeline.toml --items items.jsonl --out o.jsonl --rejects o.jsonl", 4),
        ("run pipeline.toml --items items.jsonl --out o.jsonl --rejects no/r.jsonl", 4),
        ("run pipeline.toml --items items.jsonl --out o.jsonl --report o.jsonl", 4),
        ("run pipeline.toml --items items.jsonl --out o.jsonl --report no/report.json", 4),
        ("run pipeline.toml --items items.jsonl --report - --out -", 2),
        ("run pipeline.toml --out o.jsonl", 2),
        ("run pipeline.toml --items items.jsonl --out o.jsonl --quiet --json", 2),
    ] {
        let output = workspace.run(arguments);
        let stderr = output.expect_code(code);
        assert_eq!(stderr.matches("error: ").count(), 1, "{arguments}: {stderr}");
        assert_eq!(workspace.read("o.jsonl"), "yesterday's\n", "{arguments}");
        assert_eq!(output.stdout, "");
    }
}
