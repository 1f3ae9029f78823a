//! What is written is read again, whole; what was damaged is not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::*;
use crate::types::{
    Attempt, Class, Failure, Fingerprint, ItemStatus, NanoUsd, Outcome, Spent, Tokens, Trail, Usage,
};

fn outline(pipeline: &str) -> Outline {
    Outline {
        name: "email".into(),
        places: json!({ "items": "emails.jsonl" }),
        pipeline: pipeline.into(),
        grounds: json!({ "steps": { "category": "00" } }),
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
        lane: "claude/haiku".parse().unwrap(),
        key: Some("env:KEY".into()),
        waited: Duration::from_millis(3),
        took: Duration::from_millis(700),
        first_token: None,
        usage: cost.map(|_| tokens),
        cost: cost.map(NanoUsd),
        perhaps: NanoUsd(0),
        forced: false,
        hedge: false,
        outcome,
    }
}

fn answered(step: &str, answer: Value) -> StepRecord {
    StepRecord {
        step: step.into(),
        state: StepState::Answered,
        shaped: Some(Fingerprint::of([step.as_bytes()])),
        answer,
        failure: None,
        practice: false,
        trail: Trail(vec![attempt(Some(40), Outcome::Answered)]),
        recalled: None,
        files: Vec::new(),
    }
}

/// Returns how these records of the first session are read again.
fn known(steps: Vec<StepRecord>) -> Vec<KnownStep> {
    let known = |record: StepRecord| {
        let answered_by = record.trail.answering().filter(|_| record.state == StepState::Answered).cloned();
        KnownStep { session: 1, record, answered_by }
    };
    steps.into_iter().map(known).collect()
}

fn failed(step: &str) -> StepRecord {
    let failure = Failure::new(Class::Timeout, "slow").maybe_charged();
    StepRecord {
        state: StepState::Failed,
        shaped: None,
        answer: Value::Null,
        failure: Some(failure.clone()),
        trail: Trail(vec![attempt(None, Outcome::Failed(failure))]),
        ..answered(step, Value::Null)
    }
}

fn settled(status: ItemStatus) -> SettledRecord {
    let failed = || ("reply".into(), Failure::new(Class::Timeout, "slow").maybe_charged());
    SettledRecord {
        status,
        error: (status == ItemStatus::Failed).then(failed),
        took: Duration::from_micros(1_234_567),
        lives: 1,
        edition: 1,
        session: Some(1),
    }
}

fn record(run: RunNumber, item: i64, steps: Vec<StepRecord>, settled: Option<SettledRecord>) -> Record {
    Record { run, session: 1, item: head(item), steps, settled }
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
    let run = store.create("email on emails.jsonl", &outline("a")).await.unwrap();
    store.begin(run, None, false).await.unwrap();
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
    store.write(&records).await.unwrap();
    drop(store);

    let store = open(folder.path()).await;
    let keys = ["item-3", "nobody", "item-2", "item-1"].map(ItemKey::from);
    let found = store.look_up(run, &keys).await.unwrap();
    let want = |record: &Record| {
        let Record { item, steps, settled, .. } = record.clone();
        Some(KnownItem { head: ItemHead::clone(&item), settled, steps: known(steps) })
    };
    assert_eq!(found, [want(&records[2]), None, want(&records[1]), want(&records[0])]);
    let page = store.items(run, ItemNumber(1), 10).await.unwrap();
    assert_eq!(page.iter().map(|item| item.head.number.0).collect::<Vec<_>>(), [2, 3]);
    let Sums { open, completed, failed, skipped, spent } = store.sums(run).await.unwrap();
    assert_eq!((open, completed, failed, skipped), (1, 1, 1, 0));
    let tokens = Usage { input: Tokens(30), output: Tokens(9), ..Usage::default() };
    assert_eq!(spent, Spent { calls: 4, maybe_charged: 1, tokens, cost: NanoUsd(120), unknown: 1 });
}

#[tokio::test]
async fn a_later_record_of_a_session_replaces_and_that_of_another_stands_beside() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let open_step = StepRecord { state: StepState::Open, ..failed("category") };
    store.write(&[record(run, 1, vec![open_step], None)]).await.unwrap();
    store
        .write(&[record(run, 1, vec![failed("category")], Some(settled(ItemStatus::Failed)))])
        .await
        .unwrap();
    assert_eq!(store.sums(run).await.unwrap().spent.calls, 1, "the same call is counted once");

    let again = Record { session: 2, ..record(run, 1, vec![answered("category", json!("A"))], None) };
    store.write(&[again]).await.unwrap();
    let known = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    let status = known.settled.map(|settled| settled.status);
    assert_eq!(status, Some(ItemStatus::Failed), "what is asked again has failed until it settles anew");
    let states: Vec<_> = known.steps.iter().map(|step| step.record.state).collect();
    assert_eq!(states, [StepState::Failed, StepState::Answered]);
    assert_eq!(store.sums(run).await.unwrap().spent.calls, 2, "what was paid before is still counted");

    store.write(&[record(run, 1, Vec::new(), Some(settled(ItemStatus::Completed)))]).await.unwrap();
    let known = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(known.settled.map(|settled| settled.status), Some(ItemStatus::Completed));
}

#[tokio::test]
async fn what_steps_cost_is_booked_once_and_outlives_their_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let cost = |cost, perhaps| Booked { cost: NanoUsd(cost), perhaps: NanoUsd(perhaps) };
    let doubtful = Attempt {
        lane: "other/m".parse().unwrap(),
        perhaps: NanoUsd(9),
        ..attempt(None, Outcome::Failed(Failure::new(Class::Timeout, "slow").maybe_charged()))
    };
    let mut trail = Trail(vec![attempt(Some(40), Outcome::Answered)]);
    let step = |trail: &Trail| StepRecord { trail: trail.clone(), ..answered("category", json!("A")) };
    let first = record(run, 1, vec![step(&trail)], None);
    trail.0.push(doubtful);
    let second = record(run, 1, vec![step(&trail)], None);
    // Each says everything that its session knows: twice the same, in one commit and in two.
    store.write(&[first.clone(), second.clone()]).await.unwrap();
    store.write(std::slice::from_ref(&second)).await.unwrap();
    store.write(&[Record { session: 2, ..first }]).await.unwrap();
    let mut known = BTreeMap::from([("claude".into(), cost(80, 0)), ("other".into(), cost(0, 9))]);
    assert_eq!(store.spent_by(run).await.unwrap(), known);
    let more = BTreeMap::from([("claude".into(), cost(0, 5))]);
    store.book(run, Day(7), &more).await.unwrap();
    *known.get_mut("claude").unwrap() += cost(0, 5);
    assert_eq!(store.spent_by(run).await.unwrap(), known);
    store.forget(&[run]).await.unwrap();
    store.shrink().await.unwrap();
    assert_eq!(store.spent_on(Day(7)).await.unwrap(), more);
    assert_eq!(store.spent_on(Day(8)).await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn what_runs_of_the_first_version_cost_is_found_in_their_trails() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let steps = |item| vec![answered("category", json!("A")), answered(&format!("b{item}"), json!("B"))];
    store.write(&[record(run, 1, steps(1), None), record(run, 2, steps(2), None)]).await.unwrap();
    let known = store.spent_by(run).await.unwrap();
    assert!(known["claude"].cost > NanoUsd(0));
    store.close().await;
    edit(
        &folder.path().join("a.db"),
        "DROP TABLE spending; DROP INDEX items_failed; ALTER TABLE items DROP COLUMN session; \
         ALTER TABLE steps DROP COLUMN recalled; ALTER TABLE steps DROP COLUMN files; \
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
    store.write(&records).await.unwrap_err();
    assert_eq!(store.items(run, ItemNumber(0), 10).await.unwrap(), []);
    store.write(&records[..1]).await.unwrap();
    assert_eq!(store.items(run, ItemNumber(0), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_is_found_by_its_identity_and_its_changes_count_editions() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let first = begun(&store).await;
    let second = begun(&store).await;
    assert_eq!(store.find("email on emails.jsonl").await.unwrap().unwrap().number, second);
    assert_eq!(store.find("nobody").await.unwrap(), None);

    let session = store.begin(first, Some(&outline("b")), true).await.unwrap();
    assert_eq!(session, Session { session: 2, edition: 2, last_item: ItemNumber(0) });
    store.write(&[record(first, 7, Vec::new(), None)]).await.unwrap();
    store.touch(first, RunState::Paused, &json!({ "why": "budget" })).await.unwrap();
    let known = store.run(first).await.unwrap();
    assert_eq!((known.outline.pipeline.as_str(), known.state), ("b", RunState::Paused));
    assert_eq!(store.begin(first, None, false).await.unwrap().last_item, ItemNumber(7));
    assert_eq!(store.run(first).await.unwrap().state, RunState::Open);

    store.set(first, RunState::Cancelled).await.unwrap();
    assert_eq!(store.state(first).await.unwrap(), RunState::Cancelled);
    store.forget(&[first]).await.unwrap();
    assert!(matches!(store.run(first).await, Err(Error::NoRun(run)) if run == first));
    assert_eq!(store.items(first, ItemNumber(0), 9).await.unwrap(), []);
    assert_eq!(store.runs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn two_processes_share_a_database_but_not_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()).await, open(folder.path()).await);
    let (first, second) = (begun(&one).await, begun(&other).await);
    let lock = one.lock(first).unwrap();
    assert!(matches!(other.lock(first), Err(Error::Busy { run, .. }) if run == first));
    let _second = other.lock(second).unwrap();
    let records = [first, second].map(|run| [record(run, 1, vec![answered("a", json!(1))], None)]);
    let written = tokio::join!(one.write(&records[0]), other.write(&records[1]));
    assert!(written.0.is_ok() && written.1.is_ok());
    assert!(other.is_at_work(first));
    drop(lock);
    assert!(!other.is_at_work(first) && other.lock(first).is_ok());
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
    assert!(linked.is_at_work(run));
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
        refused.contains("schema version 99, and this program knows 3 at most: use the version"),
        "{refused}"
    );

    std::fs::remove_file(&path).unwrap();
    edit(&path, "CREATE TABLE theirs (a)").await;
    let refused = Sqlite::open(&path).await.unwrap_err().to_string();
    assert!(refused.contains("is a database of another program: name another file"), "{refused}");

    std::fs::write(&path, "no database at all, but long enough to be taken for one").unwrap();
    let refused = Sqlite::open(&path).await.unwrap_err().to_string();
    assert!(refused.contains("is damaged: it does not begin as a database does"), "{refused}");

    let refused = Sqlite::open(&folder.path().join("none/a.db")).await.unwrap_err().to_string();
    assert!(
        refused.contains("cannot open the database") && refused.contains("is its directory there"),
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
    store.write(&records).await.unwrap();
    store.close().await;
    let whole = std::fs::read(folder.path().join("a.db")).unwrap();

    let mut random = fastrand::Rng::with_seed(7);
    let (mut refused, mut same) = (0, 0);
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
                    let Record { item: head, steps, settled, .. } = &records[number as usize - 1];
                    assert_eq!((&item.head, &item.settled), (&**head, settled), "round {round}");
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
            .write(&[record(
                run,
                item,
                vec![answered("category", answer)],
                Some(settled(ItemStatus::Completed)),
            )])
            .await
            .unwrap();
    }
    let (main, journal) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
    let (main, journal) = (std::fs::read(main).unwrap(), std::fs::read(journal).unwrap());
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
    let first = answered("category", json!({ "a": [1, "é"] }));
    store.write(&[record(run, 1, vec![first.clone()], None)]).await.unwrap();
    let again = StepRecord { trail: Trail::default(), recalled: Some(1), ..first.clone() };
    let settled = SettledRecord { session: Some(3), ..settled(ItemStatus::Completed) };
    store
        .write(&[Record { session: 3, ..record(run, 1, vec![again.clone()], Some(settled)) }])
        .await
        .unwrap();

    let item = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(item.settled.and_then(|settled| settled.session), Some(3));
    let answered_by = first.trail.answering().cloned();
    let recalled = KnownStep { session: 3, record: again, answered_by };
    assert_eq!(item.steps, [known(vec![first]).remove(0), recalled]);
    assert_eq!(store.sums(run).await.unwrap().spent.calls, 1, "the call that gave it is counted once");

    store.close().await;
    edit(&folder.path().join("a.db"), "DELETE FROM steps WHERE session = 1").await;
    let refused = open(folder.path()).await.items(run, ItemNumber(0), 9).await.unwrap_err().to_string();
    assert!(
        refused.contains("item 1 of run 1: the answer of step category that session 1 had is gone"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_item_that_is_asked_again_stays_as_it_settled_until_it_settles_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let before = record(run, 1, vec![answered("category", json!("A"))], Some(settled(ItemStatus::Completed)));
    store.write(std::slice::from_ref(&before)).await.unwrap();
    let mut changed = Record { session: 2, ..record(run, 1, vec![answered("category", json!("B"))], None) };
    Arc::make_mut(&mut changed.item).content = Fingerprint::of([b"another".as_slice()]);
    store.write(&[changed.clone()]).await.unwrap();
    let item = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!((&item.head, &item.settled), (&*before.item, &before.settled));

    let settled = SettledRecord { session: Some(2), ..settled(ItemStatus::Completed) };
    store.write(&[Record { settled: Some(settled), ..changed.clone() }]).await.unwrap();
    let item = store.look_up(run, &["item-1".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(item.head.content, changed.item.content);
}

#[tokio::test]
async fn rows_of_runs_and_spending_that_are_not_what_was_written_are_refused() {
    let changes = [
        ("UPDATE runs SET state = 'complete'", "a row of runs"),
        ("UPDATE runs SET edition = 7", "a row of runs"),
        ("UPDATE runs SET grounds = '{}'", "a row of runs"),
        ("UPDATE spending SET cost = cost / 2", "a row of spending"),
        ("UPDATE spending SET day = day - 1", "a row of spending"),
    ];
    for (change, what) in changes {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let run = begun(&store).await;
        store.write(&[record(run, 1, vec![answered("category", json!("A"))], None)]).await.unwrap();
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
    store.set(run, RunState::Cancelled).await.unwrap();
    for state in [RunState::Stopped, RunState::Paused, RunState::Broken] {
        store.touch(run, state, &json!({ "ended": state.as_str() })).await.unwrap();
        let known = store.run(run).await.unwrap();
        assert_eq!((known.state, known.outcome), (RunState::Cancelled, json!({ "ended": state.as_str() })));
    }
    store.touch(run, RunState::Complete, &Value::Null).await.unwrap();
    assert_eq!(store.state(run).await.unwrap(), RunState::Complete);
    store.set(run, RunState::Cancelled).await.unwrap();
    store.begin(run, None, false).await.unwrap();
    store.touch(run, RunState::Stopped, &Value::Null).await.unwrap();
    assert_eq!(store.state(run).await.unwrap(), RunState::Stopped, "a new session takes the run up again");
}

#[tokio::test]
async fn counts_that_no_model_has_do_not_keep_a_run_from_being_summed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let most = Tokens(u64::MAX);
    let usage = Usage { input: most, cached: most, cache_write: most, output: most, reasoning: most };
    let attempts = vec![Attempt { usage: Some(usage), ..attempt(Some(i64::MAX as u64), Outcome::Answered) }];
    let step = StepRecord { trail: Trail(attempts), ..answered("category", json!("A")) };
    let records = [
        record(run, 1, vec![step.clone()], None),
        record(run, 2, vec![step], None),
        record(run, 3, vec![answered("category", json!("A"))], None),
    ];
    store.write(&records).await.unwrap();
    let spent = store.sums(run).await.unwrap().spent;
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
    assert_eq!(store.state(run).await.unwrap(), RunState::Open);
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
            format!("cannot be brought to version 3 now: {name} is being worked on by an earlier version");
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
    assert_eq!(said, [(2, RunState::Complete, 2), (1, RunState::Complete, 3)]);
    let cost = Booked { cost: NanoUsd(420_000), perhaps: NanoUsd(0) };
    assert_eq!(store.spent_by(RunNumber(2)).await.unwrap(), BTreeMap::from([("a".into(), cost)]));

    // Of an item that was changed and changed back nothing says which session's answers are its own.
    let items = store.items(RunNumber(1), ItemNumber(0), 9).await.unwrap();
    let settled = |item: &KnownItem| item.settled.as_ref().and_then(|settled| settled.session);
    assert_eq!(items.iter().map(settled).collect::<Vec<_>>(), [Some(1), None, Some(1)]);
    assert_eq!(items.iter().map(|item| item.steps.len()).collect::<Vec<_>>(), [2, 4, 2]);

    store.set(RunNumber(1), RunState::Stopped).await.unwrap();
    let session = store.begin(RunNumber(1), None, false).await.unwrap();
    assert_eq!(session, Session { session: 4, edition: 1, last_item: ItemNumber(3) });
    drop(store);
    assert_eq!(open(folder.path()).await.run(RunNumber(1)).await.unwrap().sessions, 4);
}
