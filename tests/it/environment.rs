//! Without any configuration: the variables that people have already.

use super::program::{Ended, ONE_STEP, Room, finish};
use super::simulate::simulator;

const KEY: &str = "sk-secret-4711-0815";
const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl --report report.json";

fn room() -> Room {
    let room = Room::empty();
    room.write("pipeline.toml", ONE_STEP);
    room.items(3);
    room
}

fn run_with(room: &Room, variables: &[(&str, &str)], more: &str) -> Ended {
    let mut program = room.program(&format!("{RUN} {more}"));
    program.envs(variables.iter().copied());
    finish(program)
}

fn nowhere_in(room: &Room, ended: &Ended) {
    let written =
        ["o.jsonl", "report.json"].map(|name| std::fs::read_to_string(room.path(name)).unwrap_or_default());
    for text in [&ended.out, &ended.err, &written[0], &written[1]] {
        // With its dashes: a time of 14.711 ms is no secret.
        let shown = [KEY, "-4711", "4711-"].into_iter().find(|part| text.contains(part));
        assert!(shown.is_none(), "{text}");
    }
}

#[test]
fn a_key_an_address_and_a_model_are_enough() {
    let room = room();
    let (_simulator, address) = simulator(&room, &format!("--set keys=[\"{KEY}\"]"));
    let base_url = format!("http://{address}/v1");
    let variables = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base_url), ("OPENAI_MODEL", "gpt-x")];
    let ended = run_with(&room, &variables, "-vv");
    ended.says(0, &["3 completed"]);
    assert!(!ended.err.to_lowercase().contains("simulated"), "{}", ended.err);
    let lines = room.lines("o.jsonl");
    assert_eq!(
        (&lines[0]["practice"], &lines[0]["steps"]["answer"]["key"]),
        (&false.into(), &"env:OPENAI_API_KEY".into())
    );
    nowhere_in(&room, &ended);
}

#[test]
fn a_key_that_is_refused_is_told_by_its_label_and_never_shown() {
    let room = room();
    let (_simulator, address) = simulator(&room, "--set keys=[\"another\"]");
    let base_url = format!("http://{address}/v1");
    let variables = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base_url), ("OPENAI_MODEL", "gpt-x")];
    for more in ["", "-vv --new --overwrite", "--json -vv --new --overwrite"] {
        let ended = run_with(&room, &variables, more);
        ended.says(5, &["auth", "env:OPENAI_API_KEY"]);
        assert_eq!(room.lines("o.jsonl").len(), 0);
        nowhere_in(&room, &ended);
    }
}

#[test]
fn without_any_key_one_message_names_the_variables_and_the_option_and_nothing_is_written() {
    let room = room();
    for command in [RUN, "plan pipeline.toml --items items.jsonl", "check pipeline.toml"] {
        let ended = finish(room.program(command));
        ended.says(3, &["no provider is configured", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "--simulate"]);
        assert_eq!(ended.err.matches("error: ").count(), 1, "{command}: {}", ended.err);
    }
    let mut there: Vec<_> =
        std::fs::read_dir(room.path(".")).unwrap().map(|it| it.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["items.jsonl", "pipeline.toml"]);
}

#[test]
fn under_cron_a_missing_configuration_is_one_line_and_code_three() {
    let (room, elsewhere) = (room(), Room::empty());
    for (name, more) in [("items.jsonl", "--quiet"), ("items.jsonl", "--quiet --new")] {
        let arguments = format!(
            "run {} --items {} --out {} {more}",
            room.path("pipeline.toml").display(),
            room.path(name).display(),
            room.path("o.jsonl").display(),
        );
        let ended = elsewhere.run(&arguments);
        ended.says(3, &["error: no provider is configured; ", "OPENAI_API_KEY", "--simulate"]);
        assert_eq!((ended.err.lines().count(), ended.out.as_str()), (1, ""), "{}", ended.err);
    }
    assert!(!room.path("o.jsonl").exists());
    assert_eq!(std::fs::read_dir(elsewhere.path(".")).unwrap().count(), 0);
}

#[test]
fn without_any_key_a_run_is_simulated_when_that_is_asked_for() {
    let room = room();
    let ended = run_with(&room, &[], "--simulate");
    ended.says(0, &["one [simulated]: 3 completed", "SIMULATED"]);
    assert_eq!(room.json("report.json")["practice"], true);
    assert!(room.lines("o.jsonl").iter().all(|line| line["practice"] == true));
    let planned = room.run("plan pipeline.toml --items items.jsonl --simulate");
    planned.expect(0);
    assert!(planned.out.contains("simulated/any [simulated]"), "{}", planned.out);
    room.run("check pipeline.toml --simulate").says(0, &["no fault found"]);
}

#[test]
fn a_key_that_goes_missing_never_turns_real_answers_into_simulated_ones() {
    let room = room();
    let (_simulator, address) = simulator(&room, &format!("--set keys=[\"{KEY}\"]"));
    let base_url = format!("http://{address}/v1");
    let variables = [("OPENAI_API_KEY", KEY), ("OPENAI_BASE_URL", &base_url), ("OPENAI_MODEL", "gpt-x")];
    run_with(&room, &variables, "").expect(0);
    let (lines, database) = (room.read("o.jsonl"), std::fs::read(room.path("pointsman.db")).unwrap());
    room.write("items.jsonl", format!("{}{{\"id\":\"new\",\"text\":\"y\"}}\n", room.read("items.jsonl")));
    let ended = run_with(&room, &[("OPENAI_MODEL", "gpt-x")], "--quiet");
    ended.says(3, &["OPENAI_API_KEY", "--simulate"]);
    assert_eq!((room.read("o.jsonl"), std::fs::read(room.path("pointsman.db")).unwrap()), (lines, database));
}

#[test]
fn a_key_without_a_model_is_refused_with_the_variable_that_is_missing() {
    let room = room();
    let ended = run_with(&room, &[("OPENAI_API_KEY", KEY)], "");
    ended.says(3, &["OPENAI_MODEL is not set", "OPENAI_MODEL="]);
    nowhere_in(&room, &ended);
    assert!(!room.path("o.jsonl").exists());
}

#[test]
fn every_variable_that_is_wrong_is_told_at_once() {
    let room = room();
    let variables = [
        ("OPENAI_API_KEY", KEY),
        ("OPENAI_MODEL", "m"),
        ("OPENAI_BASE_URL", "nowhere"),
        ("OPENAI_TEMPERATURE", "hot"),
        ("CLAUDE_API_KEY", KEY),
    ];
    let ended = run_with(&room, &variables, "");
    ended.says(3, &["OPENAI_BASE_URL", "OPENAI_TEMPERATURE", "ANTHROPIC_MODEL is not set"]);
    nowhere_in(&room, &ended);
}
