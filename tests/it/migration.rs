//! A database of the previous version is migrated, and its runs are resumed.
//!
//! `tests/data/store/version_3` was written by the previous version of the program: run 1 was killed with
//! `kill -9`, run 2 is a completed simulated run. A run is identified by absolute paths, so the test uses the
//! directory in which it was written.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use pointsman::simulator::{Settings, Vendor};

use super::program::{Output, parse_lines, program, repository_path, run_program};
use super::support::start_simulator;

const DIRECTORY: &str = "/tmp/pointsman-v3";

fn run(arguments: &str) -> Output {
    let mut command: Command = program(arguments);
    command.current_dir(DIRECTORY);
    run_program(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_version_3_is_resumed_without_repeating_a_request() {
    // Another checkout of the project may run the same test on this machine.
    let lock = File::create("/tmp/pointsman-v3.lock").unwrap();
    lock.lock().unwrap();
    let _ = fs::remove_dir_all(DIRECTORY);
    fs::create_dir(DIRECTORY).unwrap();
    for (file, name) in [
        ("pointsman.sqlite", "pointsman.db"),
        ("pipeline.toml", "pipeline.toml"),
        ("items.jsonl", "items.jsonl"),
    ] {
        let written = repository_path("tests/data/store/version_3").join(file);
        fs::copy(written, Path::new(DIRECTORY).join(name)).unwrap();
    }
    let simulator = start_simulator(Settings::default());
    let config = format!(
        "[provider.a]\nbase_url = \"{}\"\nmodels.m = {{ price = {{ input = 1.0, output = 5.0 }} }}\n\
         [route.default]\ntargets = [\"a/m\"]\n",
        simulator.base_url(Vendor::OpenAi)
    );
    fs::write(Path::new(DIRECTORY).join("config.toml"), config).unwrap();

    run("resume 1").expect_stderr(3, &["addresses: a/m", "--accept-changes"]);
    run("resume 1 --accept-changes").expect_stderr(1, &["10 completed, 2 failed"]);
    // 24 of the 32 steps that have an answer now were answered by the previous version.
    assert_eq!(simulator.counts().requests, 8);
    let results = parse_lines(&fs::read_to_string(Path::new(DIRECTORY).join("out.jsonl")).unwrap());
    assert_eq!(results.len(), 12);
    assert!(results.iter().all(|line| line["simulated"] == false));
    assert!(run("report 2").stdout.contains("12 completed"));
    assert!(run("runs").stdout.contains("completed"));
    fs::remove_dir_all(DIRECTORY).unwrap();
}
