//! Resumes runs that wait for something that has come: a new day for a budget, a disk that accepts writes again, or items
//! that were missing. It also removes what deleted runs have left.

use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::types::Day;

use super::daemon::{Daemon, Stopping, WeakDaemon};

/// How often it is checked.
const INTERVAL: Duration = Duration::from_secs(30);

/// How many checks lie between two attempts to resume runs that failed or could not be resumed.
const CHECKS_PER_RETRY: u32 = 4;

/// How many checks lie between two times at which files of unknown runs are removed.
const CHECKS_PER_CLEANUP: u32 = 120;

/// How long ago a file of an unknown run was written before it is removed: until then, the run may be being created.
const MIN_FILE_AGE: Duration = Duration::from_secs(3_600);

/// Checks until the daemon stops.
pub(super) async fn watch(daemon: WeakDaemon, mut stopping: Stopping) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut day = Day::at(clock::milliseconds());
    let mut checks: u32 = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stopping.stopped() => return,
        }
        let Some(daemon) = daemon.upgrade() else { return };
        let today = Day::at(clock::milliseconds());
        if today != day {
            day = today;
            daemon.resume_after_budget().await;
        }
        checks = checks.wrapping_add(1);
        if checks.is_multiple_of(CHECKS_PER_RETRY) {
            daemon.retry().await;
        }
        if checks.is_multiple_of(CHECKS_PER_CLEANUP) {
            daemon.clean_up().await;
        }
    }
}

impl Daemon {
    /// Resumes runs that failed or could not be resumed, and makes the store smaller, if it can be written.
    async fn retry(&self) {
        if self.store().check_writable().await.is_err() {
            return;
        }
        self.resume_after_io_error().await;
        self.resume_after_problem().await;
        self.shrink_store().await;
    }

    /// Removes the files of runs that another process has deleted.
    async fn clean_up(&self) {
        if let Some(before) = SystemTime::now().checked_sub(MIN_FILE_AGE) {
            self.remove_unknown_files(before).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::json;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::config::Config;
    use crate::daemon::caller::Caller;
    use crate::daemon::catalogue::{Catalogue, Expected};
    use crate::daemon::daemon::Parts;
    use crate::daemon::data_folder::DataFolder;
    use crate::daemon::events::EventKind;
    use crate::daemon::run_command::{ItemsFile, RunCommand};
    use crate::daemon::runs::{ItemsFrom, NewRun};
    use crate::runtime::Pointsman;
    use crate::store::{RunMetadata, RunNumber, RunState, Sqlite, Store};

    const MAX_WAIT: Duration = Duration::from_secs(30);

    const PIPELINE: &str =
        "name = \"one\"\n[[step]]\nname = \"answer\"\nprompt = \"Say something about {{ item.text }}\"\n";

    /// Creates a daemon with a simulated provider, the pipeline `one` and the store `a.db`. It does nothing by itself.
    async fn opened(folder: &Path) -> (Daemon, Arc<Sqlite>) {
        let text = format!(
            "[provider.a]\nbase_url = \"simulator\"\nmodels.m = {{}}\n[simulator]\nlatency = \"1ms\"\n\
             [serve]\nitems = ['{}']\n",
            folder.display()
        );
        let load = move || Config::parse("test.toml", &text, &|_| None);
        let config = load().unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        let pointsman = Pointsman::start(&config).await.unwrap();
        let store = Arc::new(Sqlite::open(&folder.join("a.db")).await.unwrap());
        let data = DataFolder::open(&folder.join("data"), "127.0.0.1:1").unwrap();
        let catalogue = Catalogue::new(store.clone(), folder.to_owned());
        let load_config = Arc::new(load);
        let daemon =
            Daemon::new(Parts { pointsman, store: store.clone(), data, catalogue, load_config, lock: None });
        daemon.put_pipeline("one", PIPELINE, "", Expected::Any).await.unwrap();
        (daemon, store)
    }

    async fn create(daemon: &Daemon, items: ItemsFrom) -> RunNumber {
        daemon.create_run(NewRun::new("one", items), &Caller::operator()).await.unwrap().run
    }

    /// Waits until a run is not open. Returns its state and the reason.
    async fn ended(daemon: &Daemon, run: RunNumber) -> (&'static str, String) {
        let end = Instant::now() + MAX_WAIT;
        while daemon.open_runs().control(run).is_some() {
            assert!(Instant::now() < end, "the run does not end");
            sleep(Duration::from_millis(10)).await;
        }
        let view = daemon.run(run, &Caller::operator()).await.unwrap();
        (view.state, view.reason.unwrap_or_default())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_run_whose_end_could_not_be_stored_is_resumed_when_the_store_accepts_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, store) = opened(folder.path()).await;
        // As on a full disk, SQLite rolls the transactions back by itself.
        let full = "BEGIN SELECT RAISE(ROLLBACK, 'no space'); END";
        for trigger in ["full_items BEFORE INSERT ON items", "full_check BEFORE INSERT ON write_check"] {
            store.execute(&format!("CREATE TRIGGER {trigger} {full}")).await;
        }
        let ends = "full_runs BEFORE UPDATE ON runs WHEN new.state <> 'running'";
        store.execute(&format!("CREATE TRIGGER {ends} {full}")).await;
        let run = create(&daemon, ItemsFrom::Values(vec![json!({ "id": "1", "text": "a" })])).await;
        let (state, reason) = ended(&daemon, run).await;
        assert_eq!(state, "crashed", "{reason}");
        assert!(reason.contains("its end could not be stored") && reason.contains("no space"), "{reason}");
        daemon.retry().await;
        assert!(daemon.open_runs().control(run).is_none(), "the store accepts no writes yet");
        for trigger in ["full_items", "full_check", "full_runs"] {
            store.execute(&format!("DROP TRIGGER {trigger}")).await;
        }
        assert!(daemon.readiness().await.is_ready());
        daemon.retry().await;
        assert_eq!(ended(&daemon, run).await, ("completed", String::new()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_run_whose_items_were_missing_is_resumed_when_they_are_back() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, store) = opened(folder.path()).await;
        let items = folder.path().join("items.jsonl");
        fs::write(&items, "{\"id\":\"1\",\"text\":\"a\"}\n").unwrap();
        let run = create(&daemon, ItemsFrom::Path(items.clone(), None)).await;
        assert_eq!(ended(&daemon, run).await, ("completed", String::new()));
        // As if its process had been killed.
        store.set_state(run, RunState::Running).await.unwrap();
        let away = folder.path().join("away.jsonl");
        fs::rename(&items, &away).unwrap();
        daemon.resume_interrupted().await;
        daemon.retry().await;
        let (state, reason) = ended(&daemon, run).await;
        assert_eq!(state, "crashed");
        assert!(reason.contains("it could not be resumed: items_path"), "{reason}");
        let events = daemon.events().since(Some(0)).missed;
        let reported = events.iter().filter(|event| event.kind == EventKind::RunFailed).count();
        assert_eq!(reported, 1, "the same reason is reported once: {events:?}");
        fs::rename(&away, &items).unwrap();
        daemon.retry().await;
        assert_eq!(ended(&daemon, run).await, ("completed", String::new()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_run_whose_items_cannot_be_read_is_not_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, _store) = opened(folder.path()).await;
        let path = folder.path().join("items.json");
        let item = |number: u32| format!("{{\"id\":\"{number}\",\"text\":\"a\"}},");
        // The beginning, which is read before there is a run, has no fault.
        fs::write(&path, format!("[{}", (0..1_100).map(item).collect::<String>())).unwrap();
        let run = create(&daemon, ItemsFrom::Path(path, None)).await;
        let (state, reason) = ended(&daemon, run).await;
        assert_eq!(state, "io_error");
        assert!(reason.contains("the input ends inside the array"), "{reason}");
        daemon.retry().await;
        assert_eq!(daemon.run(run, &Caller::operator()).await.unwrap().sessions, 1);
    }

    /// Stores a run whose pipeline has this many bytes. Its items have this ID.
    async fn store_run(store: &Sqlite, id: &str, bytes: usize) -> RunNumber {
        let command = RunCommand {
            pipeline: "one".to_owned(),
            version: None,
            directory: None,
            items: ItemsFile { id: id.to_owned(), path: None, format: None },
            created_by: String::new(),
            one_at_a_time: false,
        };
        let metadata = RunMetadata {
            name: "one".into(),
            command: command.to_value(),
            pipeline: "x".repeat(bytes),
            manifest: json!({}),
        };
        store.create(&format!("daemon:{id}"), &metadata).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_becomes_smaller_after_runs_were_deleted() {
        const BYTES: usize = 3_000_000;
        let folder = tempfile::tempdir().unwrap();
        let (daemon, store) = opened(folder.path()).await;
        let run = store_run(&store, "a", BYTES).await;
        store.checkpoint().await.unwrap();
        let size = || fs::metadata(folder.path().join("a.db")).unwrap().len();
        assert!(size() > BYTES as u64);
        daemon.delete_run(run, &Caller::operator()).await.unwrap();
        daemon.retry().await;
        assert!(size() < BYTES as u64 / 2, "{}", size());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn files_of_runs_that_another_process_has_deleted_are_removed_unless_they_are_new() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, store) = opened(folder.path()).await;
        let file = |id: char| daemon.data().items_file(&id.to_string().repeat(32));
        let write = |id: char, age: Duration| {
            fs::write(file(id), "{}").unwrap();
            let written = SystemTime::now().checked_sub(age).unwrap();
            fs::File::options().write(true).open(file(id)).unwrap().set_modified(written).unwrap();
        };
        store_run(&store, &"a".repeat(32), 1).await;
        let deleted = store_run(&store, &"b".repeat(32), 1).await;
        write('a', 2 * MIN_FILE_AGE);
        write('b', 2 * MIN_FILE_AGE);
        write('c', MIN_FILE_AGE / 2);
        store.delete_runs(&[deleted]).await.unwrap();
        daemon.clean_up().await;
        assert_eq!(['a', 'b', 'c'].map(|id| file(id).exists()), [true, false, true]);
        // Which files a run has is not known: no file is removed.
        write('b', 2 * MIN_FILE_AGE);
        let metadata = RunMetadata {
            name: "one".into(),
            command: json!({ "later": 1 }),
            pipeline: PIPELINE.into(),
            manifest: json!({}),
        };
        store.create("daemon:d", &metadata).await.unwrap();
        daemon.clean_up().await;
        assert!(file('b').exists());
    }
}
