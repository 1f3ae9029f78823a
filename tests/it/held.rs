//! The built program while its provider is out: it says that it holds, waits or pauses, and can be ended at any time.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Latency, Settings, Simulator};
use serde_json::Value;

use super::program::{Room, Running, finish, keys, lines, start};
use super::stage::{PATIENT, QUICK_RETRY, WARY, play, provider, until};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

const ITEMS: usize = 40;

/// Items that have an answer, at least, when an outage begins in the middle of a run.
const BEFORE: u64 = 12;

/// Outages for which a provider is asked again soon.
const OUTAGES: [FaultKind; 3] = [FaultKind::ServerError, FaultKind::Unavailable, FaultKind::Reset];

/// A provider that answers in a hundredth of a second, or is out for every request.
fn settings(outage: Option<FaultKind>) -> Settings {
    let latency = Latency::Fixed(Duration::from_millis(10));
    let faults = outage.map(Fault::new).into_iter().collect();
    Settings { faults, latency, track_prompts: true, ..Settings::default() }
}

/// A run of [`ITEMS`] items at this provider, which may hold for a fifth of a second.
fn room(simulator: &Simulator, guards: &str) -> Room {
    let provider = provider("a", simulator, guards);
    let room = Room::new(&format!("{provider}{QUICK_RETRY}[run]\nwindow = 4\nmax_hold = \"200ms\"\n"));
    room.items(ITEMS);
    room
}

fn program(room: &Room, arguments: &str) -> Command {
    let mut program = room.program(arguments);
    program.env("KEY_a", "secret");
    program
}

/// Starts a run whose provider goes down in the middle of it.
async fn start_with_outage(simulator: &Simulator, room: &Room, options: &str, outage: FaultKind) -> Running {
    let running = start(program(room, &format!("{RUN}{options}")));
    until("some items are answered", || simulator.counts().answered >= BEFORE).await;
    simulator.set(settings(Some(outage)));
    running
}

/// Returns the row of the only run in the list.
fn listed(room: &Room) -> Value {
    let listed = finish(program(room, "runs --json"));
    listed.expect(0);
    lines(&listed.out).remove(0)
}

/// Fails unless every item has one line, none has failed, and none was answered twice.
fn is_whole(room: &Room, simulator: &Simulator) {
    let lines = room.lines("o.jsonl");
    let keys: HashSet<_> = keys(&lines).into_iter().collect();
    assert_eq!((lines.len(), keys.len()), (ITEMS, ITEMS));
    let failed = lines.iter().filter(|line| line["status"] != "completed").count();
    let counts = simulator.counts();
    assert_eq!((failed, counts.distinct_prompts, counts.repeated_prompts), (0, Some(ITEMS as u64), Some(0)));
}

#[test]
fn a_run_whose_reader_has_gone_while_it_holds_ends() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    // Neighbours that always fail: nothing shows that it is their own fault.
    let failing =
        |item| Fault { contains: Some(format!("thing {item}")), ..Fault::new(FaultKind::ServerError) };
    let simulator = play(Settings { faults: [2, 3, 4].map(failing).into(), ..settings(None) });
    let room = room(&simulator, PATIENT);
    let mut program = program(&room, "run pipeline.toml --items items.jsonl --store none");
    let mut running = start({
        program.stdout(Stdio::piped());
        program
    });
    drop(running.child.stdout.take());
    // The others are answered and cannot be written; these are asked again for as long as the run may hold.
    assert_eq!(running.end().code, Some(141));
}

#[test]
fn a_hold_that_begins_with_a_request_which_came_back_is_logged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    // Its breaker never opens.
    let simulator = play(settings(Some(FaultKind::ServerError)));
    let ended = finish(program(&room(&simulator, PATIENT), RUN));
    ended.says(5, &["WARN the run holds", "paused: server_error"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_to_wait_holds_longer_than_it_may_and_completes_when_its_provider_is_back() {
    for outage in OUTAGES {
        let simulator = play(settings(None));
        let room = room(&simulator, WARY);
        let mut running = start_with_outage(&simulator, &room, " --wait", outage).await;
        running.wait_for("the run holds");
        // Each comes a fifth of a second after the one before it.
        let before = simulator.counts().requests;
        until("requests find out", || simulator.counts().requests >= before + 4).await;
        assert!(running.child.try_wait().unwrap().is_none(), "{outage:?}: it has paused");
        simulator.set(settings(None));
        running.end().says(0, &["40 completed"]);
        is_whole(&room, &simulator);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_resumed_in_an_outage_pauses_again_or_holds_until_its_provider_is_back() {
    for outage in OUTAGES {
        let simulator = play(settings(None));
        let room = room(&simulator, WARY);
        let running = start_with_outage(&simulator, &room, "", outage).await;
        running.end().says(5, &["paused: ", "`pointsman resume 1` resumes it"]);
        let answered = simulator.counts().answered;
        for _ in 0..2 {
            let row = listed(&room);
            let counted = ["completed", "failed"].map(|what| row[what].as_u64());
            assert_eq!((&row["state"], counted), (&"paused".into(), [Some(answered), Some(0)]), "{outage:?}");
            finish(program(&room, "resume 1")).says(5, &["the run holds", "paused: "]);
        }
        let mut resumed = start(program(&room, "resume 1 --wait"));
        resumed.wait_for("the run holds");
        simulator.set(settings(None));
        resumed.end().expect(0);
        is_whole(&room, &simulator);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_while_it_holds_asks_nothing_again_that_was_answered() {
    for outage in OUTAGES {
        let simulator = play(settings(None));
        let room = room(&simulator, WARY);
        let mut running = start_with_outage(&simulator, &room, " --wait", outage).await;
        running.wait_for("the run holds");
        until("every answer is kept", || {
            listed(&room)["completed"].as_u64() == Some(simulator.counts().answered)
        })
        .await;
        running.signal("KILL");
        assert_eq!(running.end().code, None);
        simulator.set(settings(None));
        finish(program(&room, "resume 1")).expect(0);
        is_whole(&room, &simulator);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_interrupted_while_it_holds_stops_and_can_be_resumed() {
    for outage in OUTAGES {
        let simulator = play(settings(None));
        let room = room(&simulator, WARY);
        let mut running = start_with_outage(&simulator, &room, " --wait", outage).await;
        running.wait_for("the run holds");
        running.signal("INT");
        running.wait_for("stopping: items in flight");
        let before = simulator.counts().requests;
        running.end().says(130, &["(interrupted)", "`pointsman resume 1` goes on"]);
        // Those that find out within half a second, a fifth of a second apart.
        assert!(simulator.counts().requests <= before + 4, "{outage:?}: it asked on");
        assert_eq!(listed(&room)["failed"], 0);
        simulator.set(settings(None));
        finish(program(&room, "resume 1")).expect(0);
        is_whole(&room, &simulator);
    }
}
