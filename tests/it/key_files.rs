//! A key file may be replaced at any time, without a restart and without a lost request.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use pointsman::runtime::RunOptions;
use pointsman::simulator::{Fault, FaultKind, RetryAfter, Settings};
use pointsman::types::Class;
use tempfile::TempDir;

use super::support::*;

/// A secret as Kubernetes mounts it: the folder of the file is a symbolic link that is replaced, and the
/// modification time of the new file may be before that of the old file.
struct MountedSecret {
    folder: TempDir,
    versions: usize,
}

impl MountedSecret {
    fn new(key: &str) -> Self {
        let mut mounted = Self { folder: tempfile::tempdir().unwrap(), versions: 0 };
        mounted.replace(key);
        mounted
    }

    fn replace(&mut self, key: &str) {
        self.versions += 1;
        let version = self.folder.path().join(format!("version-{}", self.versions));
        fs::create_dir(&version).unwrap();
        fs::write(version.join("key"), key).unwrap();
        let new = self.folder.path().join("new");
        let link = self.folder.path().join("data");
        symlink(version, &new).unwrap();
        fs::rename(new, link).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data/key")
    }

    fn keys(&self) -> String {
        format!("keys = [\"file:{}\"]", self.path().display())
    }
}

fn key_value(name: &str) -> String {
    lookup_key(name).unwrap()
}

/// Returns the settings of a simulator that accepts only these keys and answers after 20 ms.
fn settings_with_keys(keys: &[&str]) -> Settings {
    let settings: Settings = toml::from_str("latency = \"20ms\"").unwrap();
    Settings { keys: keys.iter().map(|name| key_value(name)).collect(), ..settings }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_a_key_file_while_calls_are_in_flight_loses_none() {
    let mut secret = MountedSecret::new(&key_value("K1"));
    let simulator = start_simulator(settings_with_keys(&["K1"]));
    let more = format!("{}\nlimits.concurrency = 8\n{LONG_TIMEOUTS}", secret.keys());
    let pointsman = start_pointsman(&provider_config("a", &simulator, &more));
    let sending = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "default", 200).await }
    });
    wait_until("some requests are answered with the old key", || simulator.counts().answered >= 40).await;
    // The old key is invalid at once: calls in flight with it are refused.
    secret.replace(&key_value("K2"));
    simulator.set(settings_with_keys(&["K2"]));
    let results = sending.await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|answer| answer.is_err()));
    assert!(provider_snapshot(&pointsman, "a").keys_in_cooldown.is_empty());
    let label = format!("file:{}", secret.path().display());
    let shown = format!("{results:?} {pointsman:?} {:?}", provider_snapshot(&pointsman, "a"));
    assert!(shown.contains(&label) && !shown.contains(&key_value("K1")) && !shown.contains(&key_value("K2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_cooldown_is_used_again_when_its_file_has_changed() {
    let mut secret = MountedSecret::new(&key_value("K1"));
    let simulator = start_simulator(settings_with_keys(&["K2"]));
    let pointsman =
        start_pointsman(&provider_config("a", &simulator, &format!("{}{LONG_TIMEOUTS}", secret.keys())));
    let refused = send_request(&pointsman, "default", "Who am I?").await;
    assert_eq!(failure_class(&refused), Some(Class::Auth));
    assert_eq!(simulator.counts().requests, 1, "the refused key is not used again");
    assert_eq!(provider_snapshot(&pointsman, "a").keys_in_cooldown.len(), 1);
    secret.replace(&key_value("K2"));
    wait_until("the new key is loaded", || provider_snapshot(&pointsman, "a").keys_in_cooldown.is_empty())
        .await;
    assert_eq!(attempt_summary(&send_request(&pointsman, "default", "And now?").await), "a:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_or_deleted_key_file_keeps_the_old_key_until_it_has_a_new_one() {
    let mut secret = MountedSecret::new(&key_value("K1"));
    let fault = Fault { contains: Some("Who am I?".to_owned()), ..Fault::new(FaultKind::Auth) };
    let simulator = start_simulator(Settings { faults: vec![fault], ..settings_with_keys(&["K1"]) });
    let pointsman =
        start_pointsman(&provider_config("a", &simulator, &format!("{}{LONG_TIMEOUTS}", secret.keys())));
    fs::write(secret.path(), "\n").unwrap();
    assert_eq!(attempt_summary(&send_request(&pointsman, "default", "Are you there?").await), "a:ok");
    // The file of a refused key is read at once, and it is empty.
    assert_eq!(failure_class(&send_request(&pointsman, "default", "Who am I?").await), Some(Class::Auth));
    fs::remove_file(secret.path()).unwrap();
    assert_eq!(attempt_summary(&send_request(&pointsman, "default", "Still there?").await), "a:refused");
    secret.replace(&key_value("K2"));
    simulator.set(settings_with_keys(&["K2"]));
    wait_until("the new key is loaded", || provider_snapshot(&pointsman, "a").keys_in_cooldown.is_empty())
        .await;
    assert_eq!(attempt_summary(&send_request(&pointsman, "default", "And now?").await), "a:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_holds_for_its_key_continues_when_the_key_file_has_a_new_one() {
    let mut secret = MountedSecret::new(&key_value("K1"));
    let wait = RetryAfter::After(Duration::from_hours(1));
    let exhausted = Fault { retry_after: Some(wait), ..Fault::new(FaultKind::Quota) };
    let simulator = start_simulator(Settings { faults: vec![exhausted], ..settings_with_keys(&["K1"]) });
    let pointsman =
        start_pointsman(&provider_config("a", &simulator, &format!("{}{LONG_TIMEOUTS}", secret.keys())));
    let steps = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";
    let started = start_run(&pointsman, steps, 50, RunOptions::default()).await;
    let progress = started.run.watch_progress();
    let holds_for_an_hour = || {
        let seconds = progress.borrow().holding.as_ref().and_then(|holding| holding.until_in_seconds);
        seconds.is_some_and(|seconds| seconds > 3_000.0)
    };
    wait_until("the run holds for the hour of retry-after", holds_for_an_hour).await;
    simulator.set(settings_with_keys(&["K2"]));
    secret.replace(&key_value("K2"));
    // Much less than the hour for which the old key is in cooldown.
    let finished = tokio::time::timeout(Duration::from_secs(25), started.finish()).await;
    let report = finished.expect("the run waits for the old key").report;
    assert_eq!((report.items.completed, report.items.failed), (50, 0), "{:?}", report.errors);
}
