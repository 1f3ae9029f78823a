//! What is written is read again, whole; what was damaged is not.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::*;
use crate::types::{
    Attempt, AttemptLog, Class, Day, Failure, Fingerprint, ItemKey, ItemStatus, NanoUsd, Outcome, ScopeName,
    Spend, Tokens, Usage, UsageTotals,
};

mod answers;
mod documents;
mod failed_transactions;
mod run_pages;
mod scope_spending;
mod spending_rows;

fn metadata(pipeline: &str) -> RunMetadata {
    RunMetadata {
        name: "email".into(),
        command: json!({ "items": "emails.jsonl" }),
        pipeline: pipeline.into(),
        manifest: json!({ "steps": { "category": "00" } }),
    }
}

async fn open(folder: &Path) -> Sqlite {
    Sqlite::open(&folder.join("a.db")).await.unwrap()
}

fn head(number: i64) -> Arc<ItemHead> {
    Arc::new(ItemHead {
        number: ItemNumber(number),
        key: format!("item-{number}").into(),
        content: Fingerprint::of([number.to_le_bytes().as_slice()]),
        line: number as u64 + 1,
        input: (number % 2 == 0).then(|| format!("{{\"id\":\"item-{number}\"}}").into()),
    })
}

fn attempt(cost: Option<u64>, outcome: Outcome) -> Attempt {
    let tokens = Usage { input: Tokens(10), output: Tokens(3), ..Usage::default() };
    Attempt {
        target: "claude/haiku".parse().unwrap(),
        key: Some("env:KEY".into()),
        queue_time: Duration::from_millis(3),
        duration: Duration::from_millis(700),
        first_token: None,
        usage: cost.map(|_| tokens),
        cost: cost.map(NanoUsd),
        uncertain_cost: NanoUsd(0),
        forced: false,
        hedged: false,
        counted_elsewhere: false,
        cache_savings: None,
        reasoning: None,
        outcome,
    }
}

fn answered(step: &str, answer: Value) -> StepRecord {
    StepRecord {
        step: step.into(),
        state: StepState::Answered,
        answer_key: Some(Fingerprint::of([step.as_bytes()])),
        answer,
        failure: None,
        simulated: false,
        attempts: AttemptLog(vec![attempt(Some(40), Outcome::Answered)]),
        restored_from: None,
        files: Vec::new(),
        reused: None,
        cache_key: None,
    }
}

/// Returns how these records of the first session are read again.
fn known(steps: Vec<StepRecord>) -> Vec<StoredStep> {
    let known = |record: StepRecord| {
        let answered_by =
            record.attempts.answered_attempt().filter(|_| record.state == StepState::Answered).cloned();
        StoredStep { session: 1, record, answered_by }
    };
    steps.into_iter().map(known).collect()
}

fn failed(step: &str) -> StepRecord {
    let failure = Failure::new(Class::Timeout, "slow").maybe_charged();
    StepRecord {
        state: StepState::Failed,
        answer_key: None,
        answer: Value::Null,
        failure: Some(failure.clone()),
        attempts: AttemptLog(vec![attempt(None, Outcome::Failed(failure.into()))]),
        ..answered(step, Value::Null)
    }
}

fn settled(status: ItemStatus) -> OutcomeRecord {
    let failed = || ("reply".into(), Failure::new(Class::Timeout, "slow").maybe_charged());
    OutcomeRecord {
        status,
        error: (status == ItemStatus::Failed).then(failed),
        duration: Duration::from_micros(1_234_567),
        incarnations: 1,
        revision: 1,
        session: Some(1),
    }
}

fn record(run: RunNumber, item: i64, steps: Vec<StepRecord>, settled: Option<OutcomeRecord>) -> Record {
    Record { run, session: 1, scope: ScopeName::default(), item: head(item), steps, outcome: settled }
}

/// Changes a database behind the store's back.
async fn edit(path: &Path, sql: &'static str) {
    use sqlx::{Connection, Executor};
    let mut direct =
        sqlx::SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", path.display())).await.unwrap();
    direct.execute(sql).await.unwrap();
    direct.close().await.unwrap();
}

async fn begun(store: &Sqlite) -> RunNumber {
    let run = store.create("email on emails.jsonl", &metadata("a")).await.unwrap();
    store.begin_session(run, None, false).await.unwrap();
    run
}

#[tokio::test]
async fn what_is_written_is_read_again_also_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let records = [
        record(run, 1, vec![answered("category", json!("URGENT"))], None),
        record(
            run,
            2,
            vec![answered("category", json!(null)), failed("reply")],
            Some(settled(ItemStatus::Failed)),
        ),
        record(
            run,
            3,
            vec![answered("category", json!({ "a": [1, "é"] }))],
            Some(settled(ItemStatus::Completed)),
        ),
    ];
    store.write_records(&records).await.unwrap();
    drop(store);

    let store = open(folder.path()).await;
    let keys = ["item-3", "item-99", "item-2", "item-1"].map(ItemKey::from);
    let found = store.look_up(run, &keys).await.unwrap();
    let want = |record: &Record| {
        let Record { item, steps, outcome: settled, .. } = record.clone();
        Some(StoredItem { head: ItemHead::clone(&item), outcome: settled, steps: known(steps) })
    };
    assert_eq!(found, [want(&records[2]), None, want(&records[1]), want(&records[0])]);
    let page = store.items(run, ItemNumber(1), 10).await.unwrap();
    assert_eq!(page.iter().map(|item| item.head.number.0).collect::<Vec<_>>(), [2, 3]);
    let RunTotals { open, completed, failed, skipped, usage: spent } = store.totals(run).await.unwrap();
    assert_eq!((open, completed, failed, skipped), (1, 1, 1, 0));
    let tokens = Usage { input: Tokens(30), output: Tokens(9), ..Usage::default() };
    assert_eq!(
        spent,
        UsageTotals { calls: 4, possibly_charged: 1, tokens, cost: NanoUsd(120), calls_of_unknown_cost: 1 }
    );
}

#[tokio::test]
async fn a_later_record_of_a_session_replaces_and_that_of_another_stands_beside() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let open_step = StepRecord { state: StepState::Open, ..failed("category") };
    store.write_records(&[record(run, 1, vec![open_step], None)]).await.unwrap();
    store
        .write_records(&[record(run, 1, vec![failed("category")], Some(settled(ItemStatus::Failed)))])
        .await
        .unwrap();
    assert_eq!(store.totals(run).await.unwrap().usage.calls, 1, "the same call is counted once");

    let again = Record { session: 2, ..record(run, 1, vec![answered("category", json!("A"))], None) };
    store.write_records(&[again]).await.unwrap();
    let known = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    let status = known.outcome.map(|settled| settled.status);
    assert_eq!(
        status,
        Some(ItemStatus::Failed),
        "an item that is processed again has failed until it finishes again"
    );
    let states: Vec<_> = known.steps.iter().map(|step| step.record.state).collect();
    assert_eq!(states, [StepState::Failed, StepState::Answered]);
    assert_eq!(store.totals(run).await.unwrap().usage.calls, 2, "what was paid before is still counted");

    store.write_records(&[record(run, 1, Vec::new(), Some(settled(ItemStatus::Completed)))]).await.unwrap();
    let known = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(known.outcome.map(|settled| settled.status), Some(ItemStatus::Completed));
}

#[tokio::test]
async fn what_steps_cost_is_booked_once_and_outlives_their_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let cost = |cost, uncertain| Spend { cost: NanoUsd(cost), uncertain_cost: NanoUsd(uncertain) };
    let doubtful = Attempt {
        target: "other/m".parse().unwrap(),
        uncertain_cost: NanoUsd(9),
        ..attempt(None, Outcome::Failed(Failure::new(Class::Timeout, "slow").maybe_charged().into()))
    };
    let mut log = AttemptLog(vec![attempt(Some(40), Outcome::Answered)]);
    let step = |log: &AttemptLog| StepRecord { attempts: log.clone(), ..answered("category", json!("A")) };
    let first = record(run, 1, vec![step(&log)], None);
    log.0.push(doubtful);
    let second = record(run, 1, vec![step(&log)], None);
    // Each says everything that its session knows: twice the same, in one commit and in two.
    store.write_records(&[first.clone(), second.clone()]).await.unwrap();
    store.write_records(std::slice::from_ref(&second)).await.unwrap();
    store.write_records(&[Record { session: 2, ..first }]).await.unwrap();
    let mut known = BTreeMap::from([("claude".into(), cost(80, 0)), ("other".into(), cost(0, 9))]);
    assert_eq!(store.spent_by(run).await.unwrap(), known);
    let more = BTreeMap::from([("claude".into(), cost(0, 5))]);
    store.add_spend(run, &ScopeName::default(), Day(7), &more).await.unwrap();
    *known.get_mut("claude").unwrap() += cost(0, 5);
    assert_eq!(store.spent_by(run).await.unwrap(), known);
    store.delete_runs(&[run]).await.unwrap();
    store.vacuum().await.unwrap();
    assert_eq!(store.spent_on(Day(7)).await.unwrap(), more);
    assert_eq!(store.spent_on(Day(8)).await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn what_runs_of_the_first_version_cost_is_found_in_their_trails() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let steps = |item| vec![answered("category", json!("A")), answered(&format!("b{item}"), json!("B"))];
    store.write_records(&[record(run, 1, steps(1), None), record(run, 2, steps(2), None)]).await.unwrap();
    let known = store.spent_by(run).await.unwrap();
    assert!(known["claude"].cost > NanoUsd(0));
    store.close().await;
    edit(
        &folder.path().join("a.db"),
        "DROP TABLE answers; ALTER TABLE steps DROP COLUMN reused; DROP TABLE spending; DROP INDEX items_failed; ALTER TABLE items DROP COLUMN session; \
         ALTER TABLE steps DROP COLUMN restored_from; ALTER TABLE steps DROP COLUMN files; \
         ALTER TABLE runs RENAME COLUMN command TO places; \
         ALTER TABLE runs RENAME COLUMN manifest TO grounds; \
         ALTER TABLE runs RENAME COLUMN revision TO edition; \
         ALTER TABLE runs RENAME COLUMN created_at TO begun; \
         ALTER TABLE runs RENAME COLUMN updated_at TO touched; \
         ALTER TABLE items RENAME COLUMN revision TO edition; \
         ALTER TABLE items RENAME COLUMN duration_us TO took; \
         ALTER TABLE items RENAME COLUMN incarnations TO lives; \
         ALTER TABLE items RENAME COLUMN checksum TO seal; \
         ALTER TABLE steps RENAME COLUMN answer_key TO shaped; \
         ALTER TABLE steps RENAME COLUMN simulated TO practice; \
         ALTER TABLE steps RENAME COLUMN attempts TO trail; \
         ALTER TABLE steps RENAME COLUMN possibly_charged TO maybe; \
         ALTER TABLE steps RENAME COLUMN cache_write TO written; \
         ALTER TABLE steps RENAME COLUMN reasoning TO reasoned; \
         ALTER TABLE steps RENAME COLUMN unknown_cost TO unknown; \
         ALTER TABLE steps RENAME COLUMN checksum TO seal; \
         UPDATE steps SET trail = replace(trail, '\"target\":', '\"lane\":'); \
         ALTER TABLE runs DROP COLUMN checksum; PRAGMA user_version = 1",
    )
    .await;
    assert_eq!(open(folder.path()).await.spent_by(run).await.unwrap(), known);
}

#[tokio::test]
async fn a_record_is_kept_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let mut twin = record(run, 2, vec![answered("category", json!("B"))], None);
    Arc::make_mut(&mut twin.item).key = "item-1".into();
    let records = [record(run, 1, vec![answered("category", json!("A"))], None), twin];
    store.write_records(&records).await.unwrap_err();
    assert_eq!(store.items(run, ItemNumber(0), 10).await.unwrap(), []);
    store.write_records(&records[..1]).await.unwrap();
    assert_eq!(store.items(run, ItemNumber(0), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_is_found_by_its_identity_and_its_changes_count_editions() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let first = begun(&store).await;
    let second = begun(&store).await;
    assert_eq!(store.find_latest("email on emails.jsonl").await.unwrap().unwrap().number, second);
    assert_eq!(store.find_latest("item-99").await.unwrap(), None);

    let session = store.begin_session(first, Some(&metadata("b")), true).await.unwrap();
    assert_eq!(session, Session { number: 2, revision: 2, last_item: ItemNumber(0) });
    store.write_records(&[record(first, 7, Vec::new(), None)]).await.unwrap();
    store.finish_session(first, RunState::Paused, &json!({ "why": "budget" })).await.unwrap();
    let known = store.run(first).await.unwrap();
    assert_eq!((known.metadata.pipeline.as_str(), known.state), ("b", RunState::Paused));
    assert_eq!(store.begin_session(first, None, false).await.unwrap().last_item, ItemNumber(7));
    assert_eq!(store.run(first).await.unwrap().state, RunState::Running);

    store.set_state(first, RunState::Cancelled).await.unwrap();
    assert_eq!(store.state(first).await.unwrap(), RunState::Cancelled);
    store.delete_runs(&[first]).await.unwrap();
    assert!(matches!(store.run(first).await, Err(Error::NoRun(run)) if run == first));
    assert_eq!(store.items(first, ItemNumber(0), 9).await.unwrap(), []);
    assert_eq!(store.runs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_processes_share_a_database_but_not_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let one = open(folder.path()).await;
    let other = open(folder.path()).await;
    let first = begun(&one).await;
    let second = begun(&other).await;
    let lock = one.lock(first).unwrap();
    assert!(matches!(other.lock(first), Err(Error::Busy { run, .. }) if run == first));
    let _second = other.lock(second).unwrap();
    let records = [first, second].map(|run| [record(run, 1, vec![answered("a", json!(1))], None)]);
    let written = tokio::join!(one.write_records(&records[0]), other.write_records(&records[1]));
    assert!(written.0.is_ok() && written.1.is_ok());
    assert!(other.is_locked(first));
    drop(lock);
    assert!(!other.is_locked(first) && other.lock(first).is_ok());
}

#[tokio::test]
#[cfg(unix)]
async fn a_run_has_one_lock_by_whatever_path_its_database_was_opened() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(store.path(), &link).unwrap();
    let linked = Sqlite::open(&link).await.unwrap();
    let _lock = store.lock(run).unwrap();
    assert!(linked.is_locked(run));
    assert!(matches!(linked.lock(run), Err(Error::Busy { .. })));
}

#[tokio::test]
#[cfg(unix)]
async fn a_database_is_not_created_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(folder.path().join("nothing"), &link).unwrap();
    let refused = Sqlite::open(&link).await.err().unwrap().to_string();
    assert!(refused.contains("a link to a file that does not exist"), "{refused}");
    assert!(!folder.path().join("nothing").exists());
}

#[tokio::test]
#[cfg(unix)]
async fn a_new_database_and_the_files_beside_it_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let modes = || {
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap());
        let mode = |file: &std::fs::DirEntry| file.metadata().unwrap().permissions().mode() & 0o777;
        let mut modes: Vec<_> =
            files.map(|file| (file.file_name().into_string().unwrap(), mode(&file))).collect();
        modes.sort();
        modes
    };
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let lock = store.lock(run).unwrap();
    let names = ["a.db", "a.db-run1.lock", "a.db-shm", "a.db-wal"];
    assert_eq!(modes(), names.map(|name| (name.to_owned(), 0o600)));

    drop(lock);
    store.close().await;
    std::fs::set_permissions(folder.path().join("a.db"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let again = open(folder.path()).await;
    begun(&again).await;
    assert_eq!(modes(), ["a.db", "a.db-shm", "a.db-wal"].map(|name| (name.to_owned(), 0o640)));
}

#[tokio::test]
async fn a_database_of_a_later_version_or_of_another_program_is_refused_with_advice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    open(folder.path()).await.close().await;
    edit(&path, "PRAGMA user_version = 99").await;
    let refused = Sqlite::open(&path).await.unwrap_err().to_string();
    assert!(
        refused.contains("schema version 99, but this program supports at most 5: use the version"),
        "{refused}"
    );

    std::fs::remove_file(&path).unwrap();
    edit(&path, "CREATE TABLE theirs (a)").await;
    let refused = Sqlite::open(&path).await.unwrap_err().to_string();
    assert!(refused.contains("is a database of another program: set another file"), "{refused}");

    std::fs::write(&path, "no database at all, but long enough to be taken for one").unwrap();
    let refused = Sqlite::open(&path).await.unwrap_err().to_string();
    assert!(refused.contains("is damaged: it does not begin like a database"), "{refused}");

    let refused = Sqlite::open(&folder.path().join("none/a.db")).await.unwrap_err().to_string();
    assert!(
        refused.contains("cannot open the database") && refused.contains("check that its directory exists"),
        "{refused}"
    );
}

/// Damages a copy of a database everywhere in turn, and reads it again.
#[tokio::test]
async fn no_flipped_or_missing_byte_turns_into_another_answer() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let records: Vec<_> = (1..=40)
        .map(|item| {
            record(
                run,
                item,
                vec![answered("category", json!(format!("answer {item}")))],
                Some(settled(ItemStatus::Completed)),
            )
        })
        .collect();
    store.write_records(&records).await.unwrap();
    store.close().await;
    let whole = std::fs::read(folder.path().join("a.db")).unwrap();

    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    let mut same = 0;
    for round in 0..150 {
        let mut bytes = whole.clone();
        if round % 5 == 0 {
            bytes.truncate(random.usize(..bytes.len()));
        } else {
            let at = random.usize(..bytes.len());
            bytes[at] ^= 1 << random.u32(..8);
        }
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(copy.path().join("a.db"), bytes).unwrap();
        let read = async {
            let store = Sqlite::open(&copy.path().join("a.db")).await?;
            store.items(run, ItemNumber(0), 100).await
        };
        match read.await {
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
            Ok(items) => {
                same += 1;
                for item in items {
                    let number = item.head.number.0;
                    let Record { item: head, steps, outcome: settled, .. } = &records[number as usize - 1];
                    assert_eq!((&item.head, &item.outcome), (&**head, settled), "round {round}");
                    // A step may be missing: then it is asked again. It is never another.
                    assert!(item.steps.is_empty() || item.steps == known(steps.clone()), "round {round}");
                }
            }
        }
    }
    assert!(refused > 20 && same > 20, "{refused} refused, {same} the same");
}

/// A process that dies leaves a journal; whatever part of it reached the disk, what is read was written.
#[tokio::test]
async fn a_torn_journal_loses_whole_commits_from_its_end_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    for item in 1..=30 {
        let answer = json!(format!("answer {item}"));
        store
            .write_records(&[record(
                run,
                item,
                vec![answered("category", answer)],
                Some(settled(ItemStatus::Completed)),
            )])
            .await
            .unwrap();
    }
    let main = folder.path().join("a.db");
    let journal = folder.path().join("a.db-wal");
    let main = std::fs::read(main).unwrap();
    let journal = std::fs::read(journal).unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut lengths = std::collections::BTreeSet::new();
    for round in 0..60 {
        let mut torn = journal.clone();
        let at = random.usize(..torn.len());
        if round % 2 == 0 {
            torn.truncate(at)
        } else {
            torn[at] ^= 0x10
        }
        let copy = tempfile::tempdir().unwrap();
        std::fs::write(copy.path().join("a.db"), &main).unwrap();
        std::fs::write(copy.path().join("a.db-wal"), torn).unwrap();
        let store = Sqlite::open(&copy.path().join("a.db")).await;
        let Ok(store) = store else { continue };
        let Ok(items) = store.items(run, ItemNumber(0), 100).await else { continue };
        let numbers: Vec<_> = items.iter().map(|item| item.head.number.0).collect();
        assert_eq!(numbers, (1..=items.len() as i64).collect::<Vec<_>>(), "round {round}: no gap");
        assert!(items.iter().all(|item| item.steps.len() == 1), "round {round}: no half record");
        lengths.insert(items.len());
    }
    assert!(lengths.len() > 5, "{lengths:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_number_make_one_database_at_once() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let opened = (0..6).map(|_| {
            let path = path.clone();
            Handle::current().spawn(async move { Sqlite::open(&path).await })
        });
        for opened in futures_util::future::join_all(opened).await {
            opened.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn an_answer_that_was_recalled_is_read_from_the_session_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let mut first = answered("category", json!({ "a": [1, "é"] }));
    first.attempts.set_reasoning("It is sunny.".into());
    store.write_records(&[record(run, 1, vec![first.clone()], None)]).await.unwrap();
    let again = StepRecord { attempts: AttemptLog::default(), restored_from: Some(1), ..first.clone() };
    let settled = OutcomeRecord { session: Some(3), ..settled(ItemStatus::Completed) };
    store
        .write_records(&[Record { session: 3, ..record(run, 1, vec![again.clone()], Some(settled)) }])
        .await
        .unwrap();

    let item = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(item.outcome.and_then(|settled| settled.session), Some(3));
    let answered_by = first.attempts.answered_attempt().cloned();
    let reasoning = answered_by.as_ref().and_then(|attempt| attempt.reasoning.as_deref());
    assert_eq!(reasoning, Some("It is sunny."));
    let recalled = StoredStep { session: 3, record: again, answered_by };
    assert_eq!(item.steps, [known(vec![first]).remove(0), recalled]);
    assert_eq!(store.totals(run).await.unwrap().usage.calls, 1, "the call that gave it is counted once");

    store.close().await;
    edit(&folder.path().join("a.db"), "DELETE FROM steps WHERE session = 1").await;
    let refused = open(folder.path()).await.items(run, ItemNumber(0), 9).await.unwrap_err().to_string();
    assert!(
        refused.contains("item 1 of run 1: the answer of step category of session 1 is missing"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_item_that_is_asked_again_stays_as_it_settled_until_it_settles_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let before = record(run, 1, vec![answered("category", json!("A"))], Some(settled(ItemStatus::Completed)));
    store.write_records(std::slice::from_ref(&before)).await.unwrap();
    let mut changed = Record { session: 2, ..record(run, 1, vec![answered("category", json!("B"))], None) };
    Arc::make_mut(&mut changed.item).content = Fingerprint::of([b"another".as_slice()]);
    store.write_records(&[changed.clone()]).await.unwrap();
    let item = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!((&item.head, &item.outcome), (&*before.item, &before.outcome));

    let settled = OutcomeRecord { session: Some(2), ..settled(ItemStatus::Completed) };
    store.write_records(&[Record { outcome: Some(settled), ..changed.clone() }]).await.unwrap();
    let item = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(item.head.content, changed.item.content);
}

#[tokio::test]
async fn rows_of_runs_and_spending_that_are_not_what_was_written_are_refused() {
    let changes = [
        ("UPDATE runs SET state = 'completed'", "a row of runs"),
        ("UPDATE runs SET revision = 7", "a row of runs"),
        ("UPDATE runs SET manifest = '{}'", "a row of runs"),
        ("UPDATE spending SET cost = cost / 2", "a row of spending"),
        ("UPDATE spending SET day = day - 1", "a row of spending"),
    ];
    for (change, what) in changes {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let run = begun(&store).await;
        store.write_records(&[record(run, 1, vec![answered("category", json!("A"))], None)]).await.unwrap();
        store.close().await;
        edit(&folder.path().join("a.db"), change).await;
        let store = open(folder.path()).await;
        let read = async { store.run(run).await.and(store.spent_by(run).await) };
        let refused = read.await.unwrap_err().to_string();
        assert!(refused.contains("is damaged") && refused.contains(what), "{change}: {refused}");
    }
}

#[tokio::test]
async fn a_run_that_is_cancelled_as_its_session_ends_stays_cancelled_unless_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    store.set_state(run, RunState::Cancelled).await.unwrap();
    for state in [RunState::Stopped, RunState::Paused, RunState::IoFailed] {
        store.finish_session(run, state, &json!({ "ended": state.as_str() })).await.unwrap();
        let known = store.run(run).await.unwrap();
        assert_eq!((known.state, known.outcome), (RunState::Cancelled, json!({ "ended": state.as_str() })));
    }
    store.finish_session(run, RunState::Completed, &Value::Null).await.unwrap();
    assert_eq!(store.state(run).await.unwrap(), RunState::Completed);
    store.set_state(run, RunState::Cancelled).await.unwrap();
    store.begin_session(run, None, false).await.unwrap();
    store.finish_session(run, RunState::Stopped, &Value::Null).await.unwrap();
    assert_eq!(store.state(run).await.unwrap(), RunState::Stopped, "a new session takes the run up again");
}

#[tokio::test]
async fn counts_that_no_model_has_do_not_keep_a_run_from_being_summed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let most = Tokens(u64::MAX);
    let usage = Usage {
        input: most,
        cached: most,
        cache_write: most,
        cache_write_1h: most,
        output: most,
        reasoning: most,
    };
    let attempts = vec![Attempt { usage: Some(usage), ..attempt(Some(i64::MAX as u64), Outcome::Answered) }];
    let step = StepRecord { attempts: AttemptLog(attempts), ..answered("category", json!("A")) };
    let records = [
        record(run, 1, vec![step.clone()], None),
        record(run, 2, vec![step], None),
        record(run, 3, vec![answered("category", json!("A"))], None),
    ];
    store.write_records(&records).await.unwrap();
    let spent = store.totals(run).await.unwrap().usage;
    assert_eq!(
        (spent.calls, spent.tokens.input, spent.tokens.output),
        (3, Tokens(200_000_010), Tokens(200_000_003))
    );
    assert_eq!(spent.cost, NanoUsd(2 * NanoUsd::MAX_CREDIBLE_COST.0 + 40));
}

#[tokio::test]
async fn the_state_of_a_run_is_read_without_its_other_columns() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    edit(&folder.path().join("a.db"), "UPDATE runs SET outcome = 'no JSON'").await;
    assert!(matches!(store.run(run).await, Err(Error::Damaged { .. })));
    assert_eq!(store.state(run).await.unwrap(), RunState::Running);
    edit(&folder.path().join("a.db"), "UPDATE runs SET state = 'odd'").await;
    assert!(matches!(store.state(run).await, Err(Error::Damaged { .. })));
    assert!(matches!(store.state(RunNumber(9)).await, Err(Error::NoRun(RunNumber(9)))));
}

/// Opens a copy of a database that the version before this one wrote.
async fn of_the_version_before(folder: &Path) -> Sqlite {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store/version_2.sqlite");
    std::fs::copy(written, folder.join("a.db")).unwrap();
    open(folder).await
}

#[tokio::test]
async fn a_database_of_the_version_before_is_not_migrated_while_a_run_of_it_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store/version_2.sqlite");
    std::fs::copy(written, &path).unwrap();
    for (number, name) in [(1, "run 1"), (0, "a new run")] {
        let at_work = RunLock::take(&path.canonicalize().unwrap(), RunNumber(number)).unwrap();
        let refused = Sqlite::open(&path).await.unwrap_err().to_string();
        let why =
            format!("cannot be migrated to version 5 now: an earlier version of pointsman is running {name}");
        assert!(refused.contains(&why) && refused.contains("Wait until it has ended"), "{refused}");
        drop(at_work);
    }
    assert_eq!(open(folder.path()).await.run(RunNumber(1)).await.unwrap().sessions, 3);
}

#[tokio::test]
async fn a_database_of_the_version_before_is_migrated_with_all_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let store = of_the_version_before(folder.path()).await;
    let runs = store.runs().await.unwrap();
    let said: Vec<_> = runs.iter().map(|run| (run.number.0, run.state, run.sessions)).collect();
    assert_eq!(said, [(2, RunState::Completed, 2), (1, RunState::Completed, 3)]);
    let cost = Spend { cost: NanoUsd(420_000), uncertain_cost: NanoUsd(0) };
    assert_eq!(store.spent_by(RunNumber(2)).await.unwrap(), BTreeMap::from([("a".into(), cost)]));

    // Of an item that was changed and changed back nothing says which session's answers are its own.
    let items = store.items(RunNumber(1), ItemNumber(0), 9).await.unwrap();
    let settled = |item: &StoredItem| item.outcome.as_ref().and_then(|settled| settled.session);
    assert_eq!(items.iter().map(settled).collect::<Vec<_>>(), [Some(1), None, Some(1)]);
    assert_eq!(items.iter().map(|item| item.steps.len()).collect::<Vec<_>>(), [2, 4, 2]);

    store.set_state(RunNumber(1), RunState::Stopped).await.unwrap();
    let session = store.begin_session(RunNumber(1), None, false).await.unwrap();
    assert_eq!(session, Session { number: 4, revision: 1, last_item: ItemNumber(3) });
    drop(store);
    assert_eq!(open(folder.path()).await.run(RunNumber(1)).await.unwrap().sessions, 4);
}

/// Copies a database of schema version 3, which the previous program wrote, to `folder`.
fn copy_of_version_3(folder: &Path) {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store/version_3/pointsman.sqlite");
    std::fs::copy(written, folder.join("a.db")).unwrap();
}

#[tokio::test]
async fn a_database_of_version_3_is_migrated_with_all_its_data() {
    let folder = tempfile::tempdir().unwrap();
    copy_of_version_3(folder.path());
    let store = open(folder.path()).await;
    let runs = store.runs().await.unwrap();
    let states: Vec<_> = runs.iter().map(|run| (run.number.0, run.state, run.sessions)).collect();
    assert_eq!(states, [(2, RunState::Completed, 1), (1, RunState::Running, 1)]);
    assert_eq!(runs[1].metadata.command["items"], "/tmp/pointsman-v3/items.jsonl");

    let totals = store.totals(RunNumber(1)).await.unwrap();
    assert_eq!((totals.completed, totals.failed, totals.open, totals.skipped), (6, 2, 2, 0));
    assert_eq!((totals.usage.calls, totals.usage.possibly_charged), (31, 7));
    let spend = Spend { cost: NanoUsd(1_130_000), uncertain_cost: NanoUsd(12_580_000) };
    assert_eq!(store.spent_by(RunNumber(1)).await.unwrap(), BTreeMap::from([("a".into(), spend)]));

    // Every checksum is verified, and every attempt log is read.
    let items = store.items(RunNumber(1), ItemNumber(0), 99).await.unwrap();
    let steps = || items.iter().flat_map(|item| &item.steps);
    let of_attempts = steps().flat_map(|step| Spend::by_provider(&step.record.attempts).into_values());
    assert_eq!(of_attempts.sum::<Spend>(), spend);
    assert_eq!(steps().filter(|step| step.record.state == StepState::Answered).count(), 24);
    assert!(steps().all(|step| !step.record.simulated));
    let simulated = store.items(RunNumber(2), ItemNumber(0), 99).await.unwrap();
    assert!(simulated.iter().flat_map(|item| &item.steps).any(|step| step.record.simulated));
}

#[tokio::test]
async fn a_damaged_row_of_version_3_is_not_repaired_by_the_migration() {
    let folder = tempfile::tempdir().unwrap();
    copy_of_version_3(folder.path());
    edit(&folder.path().join("a.db"), "UPDATE runs SET name = 'another' WHERE run = 1").await;
    let store = open(folder.path()).await;
    assert!(matches!(store.run(RunNumber(1)).await, Err(Error::Damaged { .. })));
    assert_eq!(store.run(RunNumber(2)).await.unwrap().state, RunState::Completed);
}

/// Writes a run of 40 items, of which every fifth has failed, whose session has ended if `ends`.
async fn stored_run(folder: &Path, ends: bool) -> RunNumber {
    let store = open(folder).await;
    let run = begun(&store).await;
    let records: Vec<_> = (1..=40)
        .map(|item| {
            let (step, status) = if item % 5 == 0 {
                (failed("category"), ItemStatus::Failed)
            } else {
                (answered("category", json!(format!("answer {item}"))), ItemStatus::Completed)
            };
            record(run, item, vec![step], Some(settled(status)))
        })
        .collect();
    store.write_records(&records).await.unwrap();
    if ends {
        store.finish_session(run, RunState::Completed, &Value::Null).await.unwrap();
    }
    store.close().await;
    run
}

/// Returns the message of the damage of a run.
async fn damage(path: &Path, run: RunNumber) -> String {
    let verified = async { Sqlite::open(path).await?.verify_rows(run).await };
    let error = verified.await.unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_run_that_lost_rows_since_its_session_ended_is_damaged() {
    let losses = [
        ("DELETE FROM items WHERE item = 7", "run 1 has 39 rows of items, but 40 were stored"),
        ("DELETE FROM items", "run 1 has 0 rows of items, but 40 were stored"),
        ("DELETE FROM steps WHERE item = 7", "run 1 has 39 rows of steps, but 40 were stored"),
        ("UPDATE row_counts SET items = 0", "a row of row_counts: the checksum"),
    ];
    for (loss, message) in losses {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let run = stored_run(folder.path(), true).await;
        Sqlite::open(&path).await.unwrap().verify_rows(run).await.unwrap();
        edit(&path, loss).await;
        let damage = damage(&path, run).await;
        assert!(damage.contains(message), "{loss}: {damage}");
    }
}

#[tokio::test]
async fn a_new_session_counts_the_rows_of_a_crashed_one_and_keeps_higher_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let run = stored_run(folder.path(), false).await;
    let store = open(folder.path()).await;
    store.begin_session(run, None, false).await.unwrap();
    store.verify_rows(run).await.unwrap();
    store.close().await;
    edit(&path, "DELETE FROM steps WHERE item = 7").await;
    let store = open(folder.path()).await;
    store.begin_session(run, None, false).await.unwrap();
    store.finish_session(run, RunState::Stopped, &Value::Null).await.unwrap();
    store.close().await;
    assert!(damage(&path, run).await.contains("run 1 has 39 rows of steps, but 40 were stored"));

    let store = open(folder.path()).await;
    store.delete_runs(&[run]).await.unwrap();
    store.verify_rows(run).await.unwrap();
}

/// Lowers the count of cells in the header of each leaf page in turn.
#[tokio::test]
async fn a_page_that_lost_its_last_row_is_damage() {
    /// The type of a leaf page of an index or of a table without a rowid.
    const INDEX_LEAF: u8 = 10;
    for ends in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let run = stored_run(folder.path(), ends).await;
        let whole = std::fs::read(folder.path().join("a.db")).unwrap();
        let page_size = usize::from(u16::from_be_bytes([whole[16], whole[17]]));
        let mut pages_of_items = 0;
        for start in (page_size..whole.len()).step_by(page_size) {
            let cells = u16::from_be_bytes([whole[start + 3], whole[start + 4]]);
            if whole[start] != INDEX_LEAF || cells < 2 {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[start + 3..start + 5].copy_from_slice(&(cells - 1).to_be_bytes());
            let copy = tempfile::tempdir().unwrap();
            std::fs::write(copy.path().join("a.db"), bytes).unwrap();
            let store = open(copy.path()).await;
            let has_all_steps = match store.items(run, ItemNumber(0), 100).await {
                Ok(items) => items.len() < 40 || items.iter().all(|item| !item.steps.is_empty()),
                Err(_) => false,
            };
            // Without the counts of a session a missing result of a step is noticed when its item is read.
            let verified = store.verify_rows(run).await;
            assert!(verified.is_err() || (!ends && !has_all_steps), "page at {start}, {ends}: {verified:?}");
            pages_of_items += u32::from(verified.is_err());
        }
        assert!(pages_of_items >= 3, "{pages_of_items} pages");
    }
}

#[tokio::test]
async fn a_schema_that_the_program_did_not_create_is_damage() {
    let changes = [
        (
            "CREATE TRIGGER lose AFTER INSERT ON items BEGIN DELETE FROM steps; END",
            "it has the trigger \"lose\", which this program did not create",
        ),
        ("CREATE VIEW all_items AS SELECT * FROM items", "it has the view \"all_items\""),
        ("CREATE INDEX by_line ON items (run, line)", "it has the index \"by_line\""),
        ("CREATE INDEX by_writer ON documents (created_by)", "it has the index \"by_writer\""),
        ("DROP INDEX items_failed", "the index items_failed is missing"),
        ("DROP TABLE steps", "the table steps is missing"),
        (
            "ALTER TABLE steps RENAME TO others; CREATE VIEW steps AS SELECT * FROM others",
            "it has the view \"steps\"",
        ),
    ];
    for (change, message) in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        stored_run(folder.path(), true).await;
        edit(&path, change).await;
        let opened = Sqlite::open(&path).await.map(drop);
        let opened_read_only = Sqlite::open_read_only(&path).await.map(drop);
        for refused in [opened, opened_read_only] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("is damaged") && refused.contains(message), "{change}: {refused}");
        }
    }
}

#[tokio::test]
async fn a_database_without_counts_or_with_a_further_table_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let run = stored_run(folder.path(), true).await;
    edit(&path, "DROP TABLE row_counts; CREATE TABLE later (a); CREATE INDEX later_a ON later (a)").await;
    Sqlite::open_read_only(&path).await.unwrap().verify_rows(run).await.unwrap();
    Sqlite::open(&path).await.unwrap().verify_rows(run).await.unwrap();
}
