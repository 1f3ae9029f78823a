//! What the program says of a run that has paused for its provider: live, later, and of the command that resumes it.

use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};

use super::program::{Ended, Room, finish, finish_with, lines};
use super::stage::{PATIENT, QUICK_RETRY, play, provider};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// What no command may say of a pause that is not for money, nor of items that a retry asks again.
const WRONG: [&str; 4] = ["budget", "tomorrow", "given up", "not begun"];

fn faulty(faults: impl IntoIterator<Item = Fault>) -> Settings {
    Settings { faults: faults.into_iter().collect(), ..Settings::default() }
}

/// A run at this provider, which may hold for a fifth of a second.
fn room(simulator: &Simulator) -> Room {
    let provider = provider("a", simulator, PATIENT);
    let room = Room::new(&format!("{provider}{QUICK_RETRY}[run]\nwindow = 4\nmax_hold = \"200ms\"\n"));
    room.items(20);
    room
}

fn run(room: &Room, arguments: &str) -> Ended {
    let mut program = room.program(arguments);
    program.env("KEY_a", "secret");
    finish(program)
}

/// Returns the line that begins so.
fn line<'a>(text: &'a str, start: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(start));
    line.unwrap_or_else(|| panic!("no line begins with {start:?}:\n{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_paused_for_its_provider_is_reported_later_as_it_was_live() {
    for (kind, class) in [
        (FaultKind::Quota, "quota"),
        (FaultKind::Auth, "auth"),
        (FaultKind::NotFound, "not_found"),
        (FaultKind::ServerError, "server_error"),
    ] {
        let simulator = play(faulty([Fault::new(kind)]));
        let room = room(&simulator);
        let live = run(&room, RUN);
        live.expect(5);
        let why = line(&live.err, &format!("paused: {class}: "));
        let next = "run 1 is kept in sqlite:pointsman.db: `pointsman resume 1` resumes it";
        assert_eq!(line(&live.err, "run 1 is kept"), next);
        let report = run(&room, "report 1").out;
        assert_eq!((line(&report, "paused: "), line(&report, "run 1 is kept")), (why, next));
        assert!(!WRONG[..3].iter().any(|word| report.contains(word)), "{report}");
        assert!(report.contains(" waiting in "), "{report}");
        let listed = run(&room, "runs").out;
        assert!(listed.contains(&format!("paused: {class}")), "{listed}");
        let row = &lines(&run(&room, "runs --json").out)[0];
        assert_eq!((&row["state"], &row["paused_class"]), (&"paused".into(), &class.into()), "{row}");
        assert!(why.contains(row["paused"].as_str().unwrap()), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_pauses_names_the_command_that_asks_again_what_failed() {
    let refused = Fault { share: 0.5, ..Fault::new(FaultKind::Refusal) };
    let simulator = play(faulty([refused]));
    let room = room(&simulator);
    run(&room, RUN).expect(1);
    for (arguments, classes) in
        [("retry 1", ""), ("retry 1 --class content_filter", " --class content_filter")]
    {
        simulator.set(faulty([Fault::new(FaultKind::ServerError)]));
        let ended = run(&room, arguments);
        let next = format!("`pointsman retry 1{classes}");
        ended.says(5, &["paused: server_error", &next, "` resumes it"]);
        let report = run(&room, "report 1").out;
        let next = format!("{next}` resumes it; with `--give-up` the items that it holds for fail");
        assert!(line(&report, "run 1 is kept").ends_with(&next), "{report}");
        for said in [&ended.err, &report] {
            assert!(!WRONG.iter().any(|word| said.contains(word)), "{said}");
            assert!(!said.contains("pointsman resume"), "{said}");
        }
    }
    simulator.set(faulty([]));
    run(&room, "retry 1").says(0, &["20 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_items_came_from_stdin_names_the_command_that_can_go_on_with_it() {
    let simulator = play(faulty([Fault::new(FaultKind::ServerError)]));
    let room = room(&simulator);
    let piped = || {
        let mut program = room.program("run pipeline.toml --items - --out o.jsonl");
        program.env("KEY_a", "secret");
        finish_with(program, room.read("items.jsonl").as_bytes())
    };
    let next = "its items came from stdin: the same `pointsman run` with them piped in again resumes it";
    let paused = piped();
    paused.says(5, &[next]);
    assert!(!paused.err.contains("pointsman resume"), "{}", paused.err);
    assert!(run(&room, "report 1").out.contains(next));
    simulator.set(faulty([]));
    piped().says(0, &["run 1 goes on", "20 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_items_of_a_run_can_be_given_up_and_asked_again_later() {
    let simulator = play(faulty([Fault::new(FaultKind::ServerError)]));
    let room = room(&simulator);
    let poisoned = Fault { contains: Some("thing 20".into()), ..Fault::new(FaultKind::ServerError) };
    run(&room, RUN).expect(5);
    simulator.set(faulty([poisoned]));
    // Alone it is never sent beside others.
    run(&room, "resume 1").says(5, &["19 completed", "with `--give-up` the items that it holds for fail"]);
    run(&room, "resume 1").says(5, &["paused: server_error", "with `--give-up`"]);
    run(&room, "resume 1 --give-up").says(1, &["1 failed", "`pointsman retry 1 --store"]);
    simulator.set(faulty([]));
    run(&room, "retry 1").says(0, &["20 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_run_that_pauses_says_why_and_which_command_resumes_it() {
    let simulator = play(faulty([Fault::new(FaultKind::ServerError)]));
    let room = room(&simulator);
    run(&room, &format!("{RUN} --quiet"))
        .says(5, &["paused: server_error", "`pointsman resume 1` resumes it"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_that_no_provider_answers_says_so_and_ends_as_a_pause() {
    let simulator = play(faulty([Fault::new(FaultKind::ServerError)]));
    let room = room(&simulator);
    let plan = "plan pipeline.toml --items items.jsonl --sample 5";
    let said = ["the run holds", "paused: server_error: a/m: ", "the same command asks the rest"];
    run(&room, plan).says(5, &said);
    simulator.set(faulty([]));
    run(&room, plan).says(0, &["5 items asked for this are a part of the run"]);
}
