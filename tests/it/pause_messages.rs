//! Messages about a run that paused for its provider: during the run, in later reports, and the command that
//! resumes it.

use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};

use super::program::{Output, Workspace, parse_lines, run_program, run_program_with_stdin};
use super::support::{LONG_TIMEOUTS, QUICK_RETRY, provider_config, start_simulator};

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Words that no message may contain about a pause that is not for a budget, or about items of a retry.
const FORBIDDEN_WORDS: [&str; 4] = ["budget", "tomorrow", "cancelled", "not started"];

fn settings_with_faults(faults: impl IntoIterator<Item = Fault>) -> Settings {
    Settings { faults: faults.into_iter().collect(), ..Settings::default() }
}

/// Creates a workspace with 20 items for this provider. A run may hold for 200 ms.
fn new_workspace(simulator: &Simulator) -> Workspace {
    let provider = provider_config("a", simulator, LONG_TIMEOUTS);
    let workspace = Workspace::new(&format!(
        "{provider}{QUICK_RETRY}[run]\nmax_in_flight_items = 4\nmax_hold = \"200ms\"\n"
    ));
    workspace.write_items(20);
    workspace
}

fn run(workspace: &Workspace, arguments: &str) -> Output {
    let mut program = workspace.command(arguments);
    program.env("KEY_a", "secret");
    run_program(program)
}

/// Returns the line that begins with `start`.
fn line<'a>(text: &'a str, start: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(start));
    line.unwrap_or_else(|| panic!("no line begins with {start:?}:\n{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_report_of_a_run_that_paused_for_its_provider_repeats_what_the_run_printed() {
    for (kind, class) in [
        (FaultKind::Quota, "quota"),
        (FaultKind::Auth, "auth"),
        (FaultKind::NotFound, "not_found"),
        (FaultKind::ServerError, "server_error"),
    ] {
        let simulator = start_simulator(settings_with_faults([Fault::new(kind)]));
        let workspace = new_workspace(&simulator);
        let paused = run(&workspace, RUN);
        paused.expect_code(5);
        let reason = line(&paused.stderr, &format!("paused: {class}: "));
        let next = "run 1 is stored in sqlite:pointsman.db: `pointsman resume 1` resumes it";
        assert_eq!(line(&paused.stderr, "run 1 is stored"), next);
        let report = run(&workspace, "report 1").stdout;
        assert_eq!((line(&report, "paused: "), line(&report, "run 1 is stored")), (reason, next));
        assert!(!FORBIDDEN_WORDS[..3].iter().any(|word| report.contains(word)), "{report}");
        assert!(report.contains(" waiting in "), "{report}");
        let listed = run(&workspace, "runs").stdout;
        assert!(listed.contains(&format!("paused: {class}")), "{listed}");
        let row = &parse_lines(&run(&workspace, "runs --json").stdout)[0];
        assert_eq!((&row["state"], &row["paused_class"]), (&"paused".into(), &class.into()), "{row}");
        assert!(reason.contains(row["paused"].as_str().unwrap()), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_retry_names_the_command_that_resumes_it() {
    let refused = Fault { share: 0.5, ..Fault::new(FaultKind::Refusal) };
    let simulator = start_simulator(settings_with_faults([refused]));
    let workspace = new_workspace(&simulator);
    run(&workspace, RUN).expect_code(1);
    for (arguments, classes) in
        [("retry 1", ""), ("retry 1 --class content_filter", " --class content_filter")]
    {
        simulator.set(settings_with_faults([Fault::new(FaultKind::ServerError)]));
        let output = run(&workspace, arguments);
        let next = format!("`pointsman retry 1{classes}");
        output.expect_stderr(5, &["paused: server_error", &next, "` resumes it"]);
        let report = run(&workspace, "report 1").stdout;
        let next = format!("{next}` resumes it; with `--give-up` the items that hold fail");
        assert!(line(&report, "run 1 is stored").ends_with(&next), "{report}");
        for text in [&output.stderr, &report] {
            // The log of the retry budget is not advice.
            let advice: Vec<_> = text.lines().filter(|line| !line.contains("WARN retry budget")).collect();
            let has_word = |word: &&str| advice.iter().any(|line| line.contains(*word));
            assert!(!FORBIDDEN_WORDS.iter().any(has_word), "{text}");
            assert!(!text.contains("pointsman resume"), "{text}");
        }
    }
    simulator.set(settings_with_faults([]));
    run(&workspace, "retry 1").expect_stderr(0, &["20 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_run_from_stdin_names_the_command_that_resumes_it() {
    let simulator = start_simulator(settings_with_faults([Fault::new(FaultKind::ServerError)]));
    let workspace = new_workspace(&simulator);
    let piped = || {
        let mut program = workspace.command("run pipeline.toml --items - --out o.jsonl");
        program.env("KEY_a", "secret");
        run_program_with_stdin(program, workspace.read("items.jsonl").as_bytes())
    };
    let next = "its items came from stdin: the same `pointsman run` with the items piped in again resumes it";
    let paused = piped();
    paused.expect_stderr(5, &[next]);
    assert!(!paused.stderr.contains("pointsman resume"), "{}", paused.stderr);
    assert!(run(&workspace, "report 1").stdout.contains(next));
    simulator.set(settings_with_faults([]));
    piped().expect_stderr(0, &["resuming run 1", "20 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_items_of_a_run_can_fail_with_give_up_and_be_retried_later() {
    let simulator = start_simulator(settings_with_faults([Fault::new(FaultKind::ServerError)]));
    let workspace = new_workspace(&simulator);
    let fault = Fault { contains: Some("thing 20".into()), ..Fault::new(FaultKind::ServerError) };
    run(&workspace, RUN).expect_code(5);
    simulator.set(settings_with_faults([fault]));
    // The last item is never sent together with others that succeed, so the run pauses.
    run(&workspace, "resume 1")
        .expect_stderr(5, &["19 completed", "with `--give-up` the items that hold fail"]);
    run(&workspace, "resume 1").expect_stderr(5, &["paused: server_error", "with `--give-up`"]);
    run(&workspace, "resume 1 --give-up").expect_stderr(1, &["1 failed", "`pointsman retry 1 --store"]);
    simulator.set(settings_with_faults([]));
    run(&workspace, "retry 1").expect_stderr(0, &["20 completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_with_too_many_failed_items_names_the_option_and_the_commands_for_them() {
    let simulator = start_simulator(settings_with_faults([Fault::new(FaultKind::Refusal)]));
    let workspace = new_workspace(&simulator);
    let paused = run(&workspace, &format!("{RUN} --max-failures 3 --report report.json"));
    let next = "run 1 is stored in sqlite:pointsman.db: `pointsman resume 1` resumes it, `pointsman failures 1` lists \
                the failed items, `pointsman retry 1` processes the failed items again";
    paused.expect_stderr(5, &["paused: content_filter: ", " (--max-failures sets another limit)", next]);
    let report = workspace.read_json("report.json");
    let failed = report["items"]["failed"].as_u64().unwrap();
    let message = format!("{failed} of {failed} items failed, and max_failures is 3; the last at step ");
    assert!(report["paused"].as_str().unwrap().starts_with(&message), "{report}");
    assert_eq!(report["max_failures_reached"], true);
    let reason = line(&paused.stderr, "paused: ");
    let repeated = run(&workspace, "report 1").stdout;
    assert_eq!((line(&repeated, "paused: "), line(&repeated, "run 1 is stored")), (reason, next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_give_up_the_command_for_the_failed_items_is_printed_too() {
    let simulator = start_simulator(settings_with_faults([Fault::new(FaultKind::ServerError)]));
    let workspace = new_workspace(&simulator);
    run(&workspace, &format!("{RUN} --give-up")).expect_stderr(
        5,
        &["`pointsman resume 1` resumes it, `pointsman retry 1` processes the failed items again"],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_run_that_pauses_prints_the_reason_and_the_command_that_resumes_it() {
    let simulator = start_simulator(settings_with_faults([Fault::new(FaultKind::ServerError)]));
    let workspace = new_workspace(&simulator);
    run(&workspace, &format!("{RUN} --quiet"))
        .expect_stderr(5, &["paused: server_error", "`pointsman resume 1` resumes it"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_without_any_response_pauses_with_the_reason() {
    let simulator = start_simulator(settings_with_faults([Fault::new(FaultKind::ServerError)]));
    let workspace = new_workspace(&simulator);
    let plan = "plan pipeline.toml --items items.jsonl --sample 5";
    let expected = ["the run holds", "paused: server_error: a/m: ", "the same command processes the rest"];
    run(&workspace, plan).expect_stderr(5, &expected);
    simulator.set(settings_with_faults([]));
    run(&workspace, plan).expect_stderr(0, &["5 items of the sample are part of the run"]);
}
