//! A key file may be replaced at any time: nobody has to restart, and no question is lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use pointsman::runtime::RunOptions;
use pointsman::simulator::{Fault, FaultKind, RetryAfter, Settings};
use pointsman::types::Class;
use tempfile::TempDir;

use super::stage::*;

/// A secret as Kubernetes mounts it: the file's folder is a link that is swapped whole, and the time of
/// the new file may be older than that of the old.
struct Mounted {
    folder: TempDir,
    versions: usize,
}

impl Mounted {
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
        let (new, link) = (self.folder.path().join("new"), self.folder.path().join("data"));
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

fn text(name: &str) -> String {
    key(name).unwrap()
}

/// A simulator that accepts these keys only, and takes a moment for each answer.
fn accepting(keys: &[&str]) -> Settings {
    let settings: Settings = toml::from_str("latency = \"20ms\"").unwrap();
    Settings { keys: keys.iter().map(|name| text(name)).collect(), ..settings }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_that_is_replaced_while_calls_run_loses_none() {
    let mut secret = Mounted::new(&text("K1"));
    let simulator = play(accepting(&["K1"]));
    let more = format!("{}\nlimits.concurrency = 8\n{PATIENT}", secret.keys());
    let pointsman = start(&provider("a", &simulator, &more));
    let asks = spawn({
        let pointsman = pointsman.clone();
        async move { ask_many(&pointsman, "default", 200).await }
    });
    until("some answers with the old key", || simulator.counts().answered >= 40).await;
    // The old key is withdrawn at once: calls that are on their way with it will be refused.
    secret.replace(&text("K2"));
    simulator.set(accepting(&["K2"]));
    let answers = asks.await.unwrap();
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    assert!(snapshot(&pointsman, "a").resting_keys.is_empty());
    let label = format!("file:{}", secret.path().display());
    let shown = format!("{answers:?} {pointsman:?} {:?}", snapshot(&pointsman, "a"));
    assert!(shown.contains(&label) && !shown.contains(&text("K1")) && !shown.contains(&text("K2")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_rests_is_used_again_when_its_file_has_changed() {
    let mut secret = Mounted::new(&text("K1"));
    let simulator = play(accepting(&["K2"]));
    let pointsman = start(&provider("a", &simulator, &format!("{}{PATIENT}", secret.keys())));
    let refused = ask(&pointsman, "default", "Who am I?").await;
    assert_eq!(class(&refused), Some(Class::Auth));
    assert_eq!(simulator.counts().requests, 1, "the same key is not tried again");
    assert_eq!(snapshot(&pointsman, "a").resting_keys.len(), 1);
    secret.replace(&text("K2"));
    until("the new key", || snapshot(&pointsman, "a").resting_keys.is_empty()).await;
    assert_eq!(story(&ask(&pointsman, "default", "And now?").await), "a:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_that_is_emptied_or_gone_keeps_the_old_key_until_it_holds_another() {
    let mut secret = Mounted::new(&text("K1"));
    let once = Fault { contains: Some("Who am I?".to_owned()), ..Fault::new(FaultKind::Auth) };
    let simulator = play(Settings { faults: vec![once], ..accepting(&["K1"]) });
    let pointsman = start(&provider("a", &simulator, &format!("{}{PATIENT}", secret.keys())));
    fs::write(secret.path(), "\n").unwrap();
    assert_eq!(story(&ask(&pointsman, "default", "Are you there?").await), "a:ok");
    // A refused key has its file read at once, and there is nothing in it.
    assert_eq!(class(&ask(&pointsman, "default", "Who am I?").await), Some(Class::Auth));
    fs::remove_file(secret.path()).unwrap();
    assert_eq!(story(&ask(&pointsman, "default", "Still there?").await), "a:refused");
    secret.replace(&text("K2"));
    simulator.set(accepting(&["K2"]));
    until("the new key", || snapshot(&pointsman, "a").resting_keys.is_empty()).await;
    assert_eq!(story(&ask(&pointsman, "default", "And now?").await), "a:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_holds_for_its_key_goes_on_when_the_file_holds_another() {
    let mut secret = Mounted::new(&text("K1"));
    let wait = RetryAfter::After(Duration::from_hours(1));
    let spent = Fault { retry_after: Some(wait), ..Fault::new(FaultKind::Quota) };
    let simulator = play(Settings { faults: vec![spent], ..accepting(&["K1"]) });
    let pointsman = start(&provider("a", &simulator, &format!("{}{PATIENT}", secret.keys())));
    let steps = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"\n";
    let begun = start_run(&pointsman, steps, 50, RunOptions::default()).await;
    let progress = begun.run.progress();
    let names_the_time = || {
        let held = progress.borrow().holding.as_ref().and_then(|held| held.until_in_seconds);
        held.is_some_and(|seconds| seconds > 3_000.0)
    };
    until("it holds for the hour that the provider named", names_the_time).await;
    simulator.set(accepting(&["K2"]));
    secret.replace(&text("K2"));
    // Far less than the hour for which the old key rests.
    let ran = tokio::time::timeout(Duration::from_secs(25), begun.end()).await;
    let report = ran.expect("it waits for the old key").report;
    assert_eq!((report.items.completed, report.items.failed), (50, 0), "{:?}", report.errors);
}
