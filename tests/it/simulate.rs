//! `pointsman simulate`, and runs against it from another process.

use super::program::{Room, Running, start};

/// Plays providers in a process of their own; returns it with its address.
pub(crate) fn simulator(room: &Room, arguments: &str) -> (Running, String) {
    let mut simulator = start(room.program(&format!("simulate --listen 127.0.0.1:0 {arguments}")));
    let line = simulator.wait_for("playing providers at");
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    (simulator, address.trim_end_matches(';').to_owned())
}

#[test]
fn a_run_uses_providers_that_another_process_plays() {
    let room = Room::empty();
    let (simulator, address) = simulator(&room, "--set latency=50ms --set keys=[\"good\"]");
    let room = Room::new(&format!(
        "[provider.one]\nbase_url = \"http://{address}/v1\"\nkeys = [\"file:key\"]\n[provider.one.models.m]\n\
         [provider.two]\nformat = \"anthropic\"\nbase_url = \"http://{address}\"\nkeys = [\"file:key\"]\n[provider.two.models.m]\n\
         [provider.three]\nformat = \"gemini\"\nbase_url = \"http://{address}\"\nkeys = [\"file:key\"]\n[provider.three.models.m]\n\
         [route.default]\npolicy = \"weighted\"\nlanes = [\"one/m\", \"two/m\", \"three/m\"]\n",
    ));
    room.write("key", "good\n");
    room.items(30);
    room.run("run pipeline.toml --items items.jsonl --out o.jsonl --report report.json").expect(0);
    let lanes = room.json("report.json")["lanes"].as_object().unwrap().len();
    assert_eq!(lanes, 3);
    assert!(
        room.lines("o.jsonl").iter().all(|line| line["practice"] == false),
        "nothing tells it from a real one"
    );
    simulator.signal("INT");
    simulator.end().expect(0);
}

#[test]
fn sigterm_ends_it_as_ctrl_c_does() {
    let room = Room::empty();
    let (simulator, _) = simulator(&room, "");
    simulator.signal("TERM");
    simulator.end().expect(0);
}

#[test]
fn a_set_that_is_wrong_is_refused_with_advice() {
    let room = Room::empty();
    let refused = |set: &str| room.run(&format!("simulate --listen 127.0.0.1:0 --set {set}"));
    refused("latncy=1s").says(3, &["unknown key `latncy`", "did you mean `latency`?"]);
    refused("latency=soon").says(3, &["--set:1:", "\"soon\" is no duration", "the units are ms, s, m and h"]);
    refused("limits.requests_per_minute=0").says(3, &["expected a whole number above 0"]);
    refused("faults=[").says(3, &["--set:1:"]);
}

#[test]
fn an_address_that_cannot_be_had_is_named() {
    let room = Room::empty();
    let (_simulator, address) = simulator(&room, "");
    room.run(&format!("simulate --listen {address}")).says(4, &["--listen", &address]);
    room.run("simulate --listen nowhere").says(2, &["--listen"]);
}
