//! `pointsman run`, when all goes well or only items fail.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::program::{Room, finish, finish_with, keys, lines, program, repository, start};

/// Runs one of the examples as its README says, and returns its lines and report.
fn example(name: &str, items: &str, count: usize) -> (Vec<Value>, Value) {
    let room = Room::empty();
    let (out, report) = (room.path("results.jsonl"), room.path("report.json"));
    let arguments = format!(
        "run examples/{name}/pipeline.toml --items examples/{name}/{items} --simulate --out {} --report {} \
         --store sqlite:{}",
        out.display(),
        report.display(),
        room.path("runs.db").display(),
    );
    let mut program = program(&arguments);
    program.current_dir(repository(""));
    finish(program).says(0, &["[simulated]", "SIMULATED", &format!("{count} completed (100.0% success)")]);
    (room.lines("results.jsonl"), room.json("report.json"))
}

#[test]
fn the_readmes_command_completes_twenty_emails_and_marks_them_as_simulated() {
    let (lines, report) = example("email", "emails.jsonl", 20);
    assert_eq!(lines.len(), 20);
    for line in &lines {
        assert_eq!((&line["status"], &line["practice"]), (&"completed".into(), &true.into()), "{line}");
        let category = line["answers"]["category"].as_str().unwrap();
        assert!(["URGENT", "MEETING", "SUPPORT", "MARKETING", "PERSONAL", "OTHER"].contains(&category));
        assert!(line["answers"]["action_items"].is_array(), "{line}");
        let replies = line["answers"]["replies"].as_array().map(Vec::len);
        assert_eq!(replies, (category != "MARKETING").then_some(3), "{line}");
    }
    assert_eq!(report["practice"], true);
    assert_eq!(report["ended"], "whole");
    assert_eq!(report["items"]["completed"], 20);
    let sum =
        |count: fn(&Value) -> &Value| lines.iter().map(|line| count(line).as_u64().unwrap()).sum::<u64>();
    assert_eq!(report["calls"]["made"], sum(|line| &line["attempts"]));
    assert_eq!(report["tokens"]["input"], sum(|line| &line["tokens"]["input"]));
    assert_eq!(report["tokens"]["output"], sum(|line| &line["tokens"]["output"]));
    let steps = report["steps"].as_object().unwrap().values();
    assert_eq!(report["calls"]["made"], steps.map(|step| step["calls"].as_u64().unwrap()).sum::<u64>());
    let times = &report["item_seconds"];
    assert!(times["p50"].as_f64() > Some(0.0) && times["p50"].as_f64() <= times["max"].as_f64(), "{times}");
}

#[test]
fn two_hundred_ad_accounts_are_completed() {
    let (lines, report) = example("ad_accounts", "accounts.jsonl", 200);
    assert_eq!(lines.len(), 200);
    assert_eq!((&report["calls"]["made"], &report["items"]["rejected"]), (&600.into(), &0.into()));
}

#[test]
fn fifty_leads_from_csv_are_completed() {
    let (lines, report) = example("leads", "leads.csv", 50);
    assert_eq!(lines.len(), 50);
    assert_eq!((&report["calls"]["made"], &report["items"]["rejected"]), (&50.into(), &0.into()));
}

#[test]
fn items_are_read_from_every_format_and_from_stdin() {
    let room = Room::new("");
    room.write("a.jsonl", "{\"id\":\"1\",\"text\":\"x\"}\n\n{\"id\":\"2\",\"text\":\"y\"}");
    room.write("a.csv", "\u{feff}id,text\n1,x\n2,\"y\nand, more\"\n");
    room.write("a.json", "[{\"id\":\"1\",\"text\":\"x\"},\n {\"id\":\"2\",\"text\":\"y\"}]");
    room.write("a.txt", "id,text\n1,x\n2,y\n");
    for items in ["a.jsonl", "a.csv", "a.json", "a.txt --from csv"] {
        room.run(&format!("run pipeline.toml --items {items} --out o.jsonl --ordered --overwrite")).expect(0);
        assert_eq!(keys(&room.lines("o.jsonl")), ["1", "2"], "{items}");
    }
    for (stdin, format) in [("a.jsonl", ""), ("a.json", ""), ("a.csv", "--from csv")] {
        let program = room.program(&format!("run pipeline.toml --items - --ordered --quiet {format}"));
        let ended = finish_with(program, room.read(stdin).as_bytes());
        ended.expect(0);
        assert_eq!(keys(&lines(&ended.out)), ["1", "2"], "{stdin}");
    }
}

#[test]
fn results_go_to_jsonl_to_csv_and_to_stdout() {
    let room = Room::new("");
    room.items(3);
    let csv = |text: &str| -> Vec<Vec<String>> {
        let rows = csv::Reader::from_reader(text.as_bytes()).into_records();
        rows.map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
    };
    room.run("run pipeline.toml --items items.jsonl --out o.csv --ordered").expect(0);
    let rows = csv(&room.read("o.csv"));
    assert_eq!(rows.iter().map(|row| &row[0]).collect::<Vec<_>>(), ["i1", "i2", "i3"]);
    assert_eq!(rows[0][2..4], ["completed", "true"]);
    let stdout = room.run("run pipeline.toml --items items.jsonl --to csv");
    stdout.expect(0);
    assert_eq!(csv(&stdout.out).len(), 3);
    assert_eq!(lines(&room.run("run pipeline.toml --items items.jsonl").out).len(), 3);
}

#[test]
fn in_order_means_in_the_inputs_order_whatever_comes_back_first() {
    let room = Room::new("[simulator]\nlatency = { median = \"20ms\", p95 = \"150ms\" }");
    room.items(60);
    let asked: Vec<String> = (1..=60).map(|number| format!("i{number}")).collect();
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl --ordered").expect(0);
    assert_eq!(keys(&room.lines("o.jsonl")), asked);

    room.run("run pipeline.toml --items items.jsonl --out o.jsonl --new --overwrite").expect(0);
    let mut completed = keys(&room.lines("o.jsonl"));
    assert_ne!(completed, asked, "with such latencies the order of completion is another");
    completed.sort_by_key(|key| key[1..].parse::<u32>().unwrap());
    assert_eq!(completed, asked);
}

#[test]
fn an_item_without_an_id_has_the_same_key_in_every_run_and_every_place() {
    let room = Room::new("");
    room.write("a.jsonl", "{\"text\":\"x\"}\n{\"text\":\"y\"}\n");
    room.write("b.jsonl", "{\"text\":\"y\"}\n{\"text\":\"z\"}\n{\"text\":\"x\"}\n");
    let keys_of = |items: &str| {
        room.run(&format!("run pipeline.toml --items {items} --out o.jsonl --ordered --overwrite")).expect(0);
        keys(&room.lines("o.jsonl"))
    };
    let (a, b) = (keys_of("a.jsonl"), keys_of("b.jsonl"));
    assert_eq!((&a[0], &a[1]), (&b[2], &b[0]));
    assert_ne!(a[0], a[1]);
}

#[test]
fn duplicates_are_named_and_rejected_with_their_lines() {
    let room = Room::new("");
    let items =
        "{\"id\":\"a\",\"text\":\"x\"}\n{\"text\":\"y\"}\n{\"id\":\"a\",\"text\":\"z\"}\n{\"text\":\"y\"}\n";
    room.write("items.jsonl", items);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl");
    ended.says(1, &["2 rejected", "such as line 3: has the key \"a\" of the item on line 1"]);
    room.nothing_is_lost(4, "o.jsonl", "r.jsonl");
    let rejects = room.lines("r.jsonl");
    assert_eq!((&rejects[0]["line"], &rejects[0]["key"]), (&3.into(), &"a".into()));
    assert!(rejects[1]["reason"].as_str().unwrap().contains("same content as the item on line 2"));
}

#[test]
fn an_item_that_is_not_as_the_schema_asks_costs_nothing_and_leaves_its_key_to_a_later_one() {
    let room = Room::new("");
    room.write(
        "pipeline.toml",
        "name = \"one\"\n[input.schema]\nrequired = [\"text\"]\n[[step]]\nname = \"answer\"\nprompt = \"{{ item.text }}\"",
    );
    room.write(
        "items.jsonl",
        "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\"}\n{\"id\":\"b\",\"text\":\"y\"}\n",
    );
    let arguments = "run pipeline.toml --items items.jsonl --out o.jsonl --rejects r.jsonl --report r.json";
    room.run(arguments).says(1, &["2 completed, 1 rejected", "such as line 2: "]);
    room.nothing_is_lost(3, "o.jsonl", "r.jsonl");
    assert_eq!(room.lines("r.jsonl")[0]["key"], "b");
    assert_eq!(room.json("r.json")["calls"]["made"], 2);
}

#[test]
fn a_failed_item_makes_the_code_one_and_has_its_line() {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    room.items(3);
    let ended =
        room.run("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json --ordered");
    ended.says(
        1,
        &[
            "2 completed, 1 failed (66.6% success)",
            "items failed of:\n  1 content_filter, such as: step answer:",
        ],
    );
    let lines = room.lines("o.jsonl");
    assert_eq!(
        (&lines[1]["status"], &lines[1]["error"]["class"]),
        (&"failed".into(), &"content_filter".into())
    );
    assert_eq!(lines[1]["error"]["step"], "answer");
    assert_eq!(room.json("report.json")["errors"]["content_filter"]["count"], 1);
}

#[test]
fn a_reader_that_has_gone_ends_the_run_without_a_word() {
    let room = Room::new("");
    room.items(1_000);
    let mut program = room.program("run pipeline.toml --items items.jsonl");
    let mut running = start({
        program.stdout(Stdio::piped());
        program
    });
    let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let ended = running.end();
    assert!(first.starts_with("{\"key\""), "{first}");
    let said = ended.expect(141);
    assert!(!said.contains("error") && !said.contains("pipe") && !said.contains("completed"), "{said}");
}

#[test]
fn quiet_says_nothing_when_all_is_well_and_what_failed_otherwise() {
    let room = Room::new("[simulator]\nfaults = [{ kind = \"refusal\", contains = \"thing 2\" }]");
    room.items(1);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl --quiet");
    assert_eq!((ended.expect(0), ended.out.as_str()), ("", ""));
    room.items(2);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl --quiet");
    let said = ended.expect(1);
    let (line, problems) = said.split_once('\n').unwrap();
    assert!(line.starts_with("one [simulated]: 1 completed, 1 failed"), "{said}");
    assert!(problems.starts_with("items failed of:\n  1 content_filter"), "{said}");
    // That nothing is left of it does not hide that something failed.
    let again = room.run("run pipeline.toml --items items.jsonl --out o.jsonl --quiet");
    assert_eq!(again.expect(1).lines().count(), 1, "{}", again.err);
    again.says(1, &["run 1 is complete", "1 failed"]);
}

#[test]
fn that_nothing_is_left_of_a_run_does_not_hide_that_pieces_of_its_input_were_rejected() {
    let room = Room::new("");
    room.write("items.jsonl", "{\"id\":1,\"text\":\"x\"}\nno json\n");
    const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";
    room.run(RUN).says(1, &["1 completed, 1 rejected"]);
    room.run(RUN).says(1, &["nothing is left of it", "1 completed, 0 failed, 0 skipped, 1 rejected before"]);
    room.run("retry 1");
    room.run(RUN).says(1, &["nothing is left of it", "1 rejected before"]);
    room.write("items.jsonl", "{\"id\":1,\"text\":\"x\"}\n");
    room.run(RUN).says(0, &["1 completed"]);
    room.run(RUN).says(0, &["nothing is left of it", "0 skipped before"]);
}

#[test]
fn for_machines_every_line_is_json() {
    let room = Room::new("[simulator]\nlatency = \"300ms\"");
    room.items(2);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl --json -v");
    ended.expect(0);
    let said = lines(&ended.err);
    let kinds: Vec<&str> =
        said.iter().map(|line| line.as_object().unwrap().keys().next().unwrap().as_str()).collect();
    assert!(kinds.iter().all(|kind| ["note", "log", "progress", "report"].contains(kind)), "{kinds:?}");
    assert_eq!(kinds.iter().rfind(|kind| **kind != "log"), Some(&"report"));
    let report = said.iter().find(|line| line["report"].is_object()).unwrap();
    assert_eq!(report["report"]["items"]["completed"], 2);
    let first = said.iter().find(|line| line["progress"].is_object()).unwrap();
    assert!(first["progress"]["seconds"].as_f64() < Some(0.3), "the first progress comes late: {first}");
    assert_eq!(first["progress"]["in_flight"], 2);

    room.write("pipeline.toml", "name = 1");
    let refused = room.run("run pipeline.toml --items items.jsonl --json");
    refused.expect(3);
    let faults = lines(&refused.err).pop().unwrap();
    assert!(faults["faults"][0]["place"].as_str().unwrap().starts_with("pipeline.toml:1:"), "{faults}");
    let broken = lines(&room.run("run nothing.toml --items items.jsonl --json").err).pop().unwrap();
    assert!(broken["faults"][0]["message"].as_str().unwrap().contains("nothing.toml"), "{broken}");
}

#[test]
fn where_nothing_can_be_drawn_over_progress_is_a_line_now_and_then() {
    let room = Room::new("[simulator]\nlatency = \"400ms\"");
    room.items(2);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl");
    let said = ended.expect(0);
    let progress: Vec<&str> = said.lines().filter(|line| line.contains("in flight (oldest i1")).collect();
    assert_eq!(progress.len(), 1, "{said}");
    assert!(progress[0].contains("breaker closed, 2/32 calls out") && progress[0].contains("[simulated]"));
    assert!(!said.contains('\u{1b}'), "no escapes where it is no terminal: {said:?}");
}

#[test]
fn a_cost_that_nobody_knows_never_shows_as_nothing() {
    let room = Room::new("[simulator]\nlatency = \"200ms\"");
    room.items(2);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json");
    ended.says(0, &["cost unknown\n", "no price of simulated/any, for 2 calls: its answers are simulated"]);
    assert!(!ended.err.contains('$'), "{}", ended.err);
    let report = room.json("report.json");
    assert_eq!((&report["cost_usd"], &report["calls_of_unknown_cost"]), (&Value::Null, &2.into()));
    assert_eq!(room.lines("o.jsonl")[0]["cost_usd"], Value::Null);
}

#[test]
fn a_cost_that_is_known_in_part_shows_as_at_least_that() {
    let priced = "[provider.p]\nbase_url = \"simulator\"\n[provider.p.models.a]\nprice = { input = 10, output = 10 }\n";
    let both =
        format!("{priced}[provider.p.models.b]\n[route.a]\nlanes = [\"p/a\"]\n[route.b]\nlanes = [\"p/b\"]");
    let room = Room::new(&both);
    room.write(
        "pipeline.toml",
        "name = \"two\"\n[[step]]\nname = \"a\"\nroute = \"a\"\nprompt = \"{{ item.text }}\"\n\
         [[step]]\nname = \"b\"\nroute = \"b\"\nprompt = \"{{ item.text }}\"",
    );
    room.items(2);
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl --report r.json")
        .says(0, &["cost at least $0.000", "no price of p/b, for 2 calls: its answers are simulated"]);
    assert!(room.json("r.json")["cost_usd"].as_f64() > Some(0.0));

    room.write(
        "pipeline.toml",
        "name = \"one\"\n[[step]]\nname = \"a\"\nroute = \"a\"\nprompt = \"{{ item.text }}\"",
    );
    let known = room.run("run pipeline.toml --items items.jsonl --out known.jsonl --store none");
    known.says(0, &["cost $0.000"]);
    assert!(!known.err.contains("unknown") && !known.err.contains("at least"), "{}", known.err);
}

#[test]
fn the_report_fits_a_hundred_columns_with_long_names_too() {
    let room = Room::new("");
    let name = "a_step_whose_name_is_longer_than_anybody_would_like_it_to_be";
    room.write(
        "pipeline.toml",
        format!("name = \"one\"\n[[step]]\nname = \"{name}\"\nprompt = \"{{{{ item.text }}}}\""),
    );
    room.items(2);
    let ended = room.run("run pipeline.toml --items items.jsonl --out o.jsonl");
    let table: Vec<&str> = ended.expect(0).lines().skip_while(|line| !line.contains("step or")).collect();
    assert!(table.len() > 4, "{}", ended.err);
    let widest = table.iter().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{}", table.join("\n"));
}

#[test]
fn what_is_refused_leaves_the_output_as_it_was() {
    let room = Room::new("");
    room.items(2);
    room.write("o.jsonl", "yesterday's\n");
    room.write("bad.toml", "name = \"bad\"\n[[step]]\nname = \"a\"\nprompt = \"{{ b }}\"");
    room.write("broken.toml", "[retry]\nrounds = 0");
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
        let ended = room.run(arguments);
        let said = ended.expect(code);
        assert_eq!(said.matches("error: ").count(), 1, "{arguments}: {said}");
        assert_eq!(room.read("o.jsonl"), "yesterday's\n", "{arguments}");
        assert_eq!(ended.out, "");
    }
}
