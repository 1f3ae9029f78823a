//! The spend of scopes is recorded with the spend of their runs, once.

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use super::*;
use crate::clock;

fn spend(cost: u64, uncertain: u64) -> Spend {
    Spend { cost: NanoUsd(cost), uncertain_cost: NanoUsd(uncertain) }
}

fn scoped(scope: &str, record: Record) -> Record {
    Record { scope: scope.into(), ..record }
}

/// Returns the record of an item whose step has a certain cost.
fn priced(run: RunNumber, item: i64) -> Record {
    record(run, item, vec![answered("category", json!("A"))], None)
}

fn by_scope<const N: usize>(spends: [(&str, Spend); N]) -> BTreeMap<ScopeName, Spend> {
    spends.into_iter().map(|(scope, spend)| (ScopeName::from(scope), spend)).collect()
}

/// Returns the spend of scopes of today and of the days beside it, since the test may run over midnight.
async fn spent_by_scopes(store: &Sqlite) -> BTreeMap<ScopeName, Spend> {
    let today = Day::at(clock::milliseconds()).0;
    let mut sums = BTreeMap::<ScopeName, Spend>::new();
    for day in today - 1..=today + 1 {
        for (scope, spend) in store.scopes_spent_on(Day(day), None).await.unwrap() {
            *sums.entry(scope).or_default() += spend;
        }
    }
    sums
}

#[tokio::test]
async fn the_spend_of_a_scope_counts_replaced_records_once_and_outlives_its_runs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let one = begun(&store).await;
    let other = begun(&store).await;
    let mut log = AttemptLog(vec![attempt(Some(40), Outcome::Answered)]);
    let step = |log: &AttemptLog| StepRecord { attempts: log.clone(), ..answered("category", json!("A")) };
    let first = scoped("team-a", record(one, 1, vec![step(&log)], None));
    log.0.push(Attempt {
        target: "other/m".parse().unwrap(),
        uncertain_cost: NanoUsd(9),
        ..attempt(None, Outcome::Failed(Failure::new(Class::Timeout, "slow").maybe_charged().into()))
    });
    let second = scoped("team-a", record(one, 1, vec![step(&log)], None));
    // Each has all that its session knows: twice the same, in one commit and in two.
    store.write_records(&[first.clone(), second.clone()]).await.unwrap();
    store.write_records(std::slice::from_ref(&second)).await.unwrap();
    assert_eq!(spent_by_scopes(&store).await, by_scope([("team-a", spend(40, 9))]));
    // The scope of a run can change with the session, and runs can share a scope.
    store.write_records(&[Record { session: 2, ..scoped("team-b", first) }]).await.unwrap();
    let others = [scoped("team-b", priced(other, 1)), priced(other, 2)];
    store.write_records(&others).await.unwrap();
    let expected = by_scope([("team-a", spend(40, 9)), ("team-b", spend(80, 0))]);
    assert_eq!(spent_by_scopes(&store).await, expected);

    let more = BTreeMap::from([("claude".into(), spend(3, 5)), ("other".into(), spend(0, 2))]);
    store.add_spend(one, &"team-a".into(), Day(7), &more).await.unwrap();
    store.add_spend(one, &"team-a".into(), Day(7), &more).await.unwrap();
    store.add_spend(other, &ScopeName::default(), Day(7), &more).await.unwrap();
    store.delete_runs(&[one, other]).await.unwrap();
    store.vacuum().await.unwrap();
    store.close().await;
    let store = open(folder.path()).await;
    assert_eq!(store.scopes_spent_on(Day(7), None).await.unwrap(), by_scope([("team-a", spend(6, 14))]));
    assert_eq!(store.scopes_spent_on(Day(8), None).await.unwrap(), BTreeMap::new());
    assert_eq!(spent_by_scopes(&store).await, expected);
}

#[tokio::test]
async fn a_run_without_a_scope_records_no_spend_of_scopes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    store.write_records(&[priced(run, 1), priced(run, 2)]).await.unwrap();
    let more = BTreeMap::from([("claude".into(), spend(3, 5))]);
    store.add_spend(run, &ScopeName::default(), Day(7), &more).await.unwrap();
    assert_eq!(store.spent_by(run).await.unwrap(), BTreeMap::from([("claude".into(), spend(83, 5))]));
    assert_eq!(spent_by_scopes(&store).await, BTreeMap::new());
    assert_eq!(store.scopes_spent_on(Day(7), None).await.unwrap(), BTreeMap::new());
}

#[tokio::test]
async fn a_record_whose_steps_cost_nothing_records_no_spend_of_its_scope() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let free = AttemptLog(vec![attempt(None, Outcome::Answered)]);
    let step = StepRecord { simulated: true, attempts: free, ..answered("category", json!("A")) };
    store.write_records(&[scoped("team-a", record(run, 1, vec![step], None))]).await.unwrap();
    assert_eq!(spent_by_scopes(&store).await, BTreeMap::new());
}

#[tokio::test]
async fn rows_of_scope_spending_that_are_not_what_was_written_are_refused() {
    let changes = [
        "UPDATE scope_spending SET cost = cost / 2",
        "UPDATE scope_spending SET uncertain_cost = 1",
        "UPDATE scope_spending SET scope = 'team-b'",
        "UPDATE scope_spending SET run = 7",
        "UPDATE scope_spending SET day = 8",
    ];
    for change in changes {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let run = begun(&store).await;
        let more = BTreeMap::from([("claude".into(), spend(40, 0))]);
        store.add_spend(run, &"team-a".into(), Day(7), &more).await.unwrap();
        store.close().await;
        edit(&folder.path().join("a.db"), change).await;
        let store = open(folder.path()).await;
        let read = async {
            store.scopes_spent_on(Day(7), None).await?;
            store.scopes_spent_on(Day(8), None).await
        };
        let refused = read.await.unwrap_err().to_string();
        assert!(refused.contains("is damaged"), "{change}: {refused}");
        assert!(refused.contains("a row of scope_spending: the checksum"), "{change}: {refused}");
        let other = ScopeName::from("team-c");
        assert_eq!(store.scopes_spent_on(Day(7), Some(&other)).await.unwrap(), BTreeMap::new(), "{change}");
    }
}

#[tokio::test]
async fn a_commit_that_finds_a_damaged_row_of_scope_spending_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    store.write_records(&[scoped("team-a", priced(run, 1))]).await.unwrap();
    let known = store.spent_by(run).await.unwrap();
    store.close().await;
    edit(&folder.path().join("a.db"), "UPDATE scope_spending SET cost = 1").await;
    let store = open(folder.path()).await;
    let refused = store.write_records(&[scoped("team-a", priced(run, 2))]).await.unwrap_err().to_string();
    assert!(refused.contains("a row of scope_spending"), "{refused}");
    assert_eq!(store.spent_by(run).await.unwrap(), known);
    assert_eq!(store.items(run, ItemNumber(0), 10).await.unwrap().len(), 1);
    // Other scopes, and runs without one, are not affected.
    store.write_records(&[scoped("team-b", priced(run, 2)), priced(run, 3)]).await.unwrap();
    assert_eq!(store.items(run, ItemNumber(0), 10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_database_of_an_earlier_program_records_the_spend_of_scopes_from_its_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    store.write_records(&[priced(run, 1)]).await.unwrap();
    store.close().await;
    edit(&path, "DROP TABLE scope_spending").await;
    let store = Sqlite::open_read_only(&path).await.unwrap();
    assert_eq!(spent_by_scopes(&store).await, BTreeMap::new());
    assert_eq!(store.spent_by(run).await.unwrap().len(), 1);
    store.close().await;

    let store = open(folder.path()).await;
    assert_eq!(spent_by_scopes(&store).await, BTreeMap::new());
    store.write_records(&[scoped("team-a", priced(run, 2))]).await.unwrap();
    assert_eq!(spent_by_scopes(&store).await, by_scope([("team-a", spend(40, 0))]));
}

/// A write of the property below.
type Write = (usize, i64, i64, Option<(bool, u8, u8)>, bool);

/// Writes these changes of items as records with complete attempt logs. Returns the spend of each scope in the store, and
/// the sum of its attempts.
async fn write_all(
    scopes: &[&str],
    writes: Vec<Write>,
    added: Vec<(usize, u8)>,
) -> [BTreeMap<ScopeName, Spend>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let runs = [begun(&store).await, begun(&store).await];
    let mut logs = BTreeMap::<(usize, i64, i64), AttemptLog>::new();
    let mut expected = BTreeMap::<ScopeName, Spend>::new();
    let mut expect = |scope: &str, spend: Spend| {
        if !scope.is_empty() && spend != Spend::default() {
            *expected.entry(scope.into()).or_default() += spend;
        }
    };
    let mut batch = Vec::new();
    for (run, item, session, sent, ends_batch) in writes {
        let run = run % runs.len();
        // A session has one scope.
        let scope = scopes[(run + session as usize) % scopes.len()];
        let log = logs.entry((run, item, session)).or_default();
        if let Some((is_other, cost, uncertain)) = sent {
            let target = if is_other { "other/m" } else { "claude/haiku" };
            log.0.push(Attempt {
                target: target.parse().unwrap(),
                uncertain_cost: NanoUsd(uncertain.into()),
                ..attempt(Some(cost.into()), Outcome::Answered)
            });
            expect(scope, spend(cost.into(), uncertain.into()));
        }
        let step = StepRecord { attempts: log.clone(), ..answered("category", json!("A")) };
        let record = scoped(scope, record(runs[run], item, vec![step], None));
        batch.push(Record { session, ..record });
        if ends_batch {
            store.write_records(&batch).await.unwrap();
            batch.clear();
        }
    }
    store.write_records(&batch).await.unwrap();
    for (scope, cost) in added {
        let scope = scopes[scope % scopes.len()];
        let more = BTreeMap::from([("claude".into(), spend(cost.into(), 1))]);
        let today = Day::at(clock::milliseconds());
        store.add_spend(runs[0], &scope.into(), today, &more).await.unwrap();
        expect(scope, spend(cost.into(), 1));
    }
    [spent_by_scopes(&store).await, expected]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_spend_of_each_scope_is_the_sum_of_its_attempts_in_whatever_records_they_are_written(
        writes in vec(
            (0..2_usize, 1..4_i64, 1..4_i64, proptest::option::of(any::<(bool, u8, u8)>()), any::<bool>()),
            0..24,
        ),
        added in vec((0..3_usize, any::<u8>()), 0..3),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let [stored, expected] = runtime.block_on(write_all(&["", "team-a", "team-b"], writes, added));
        prop_assert_eq!(stored, expected);
    }
}
