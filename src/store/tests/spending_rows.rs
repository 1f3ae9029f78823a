//! The rows of the recorded spend have all of it, by day, provider or scope, run and pipeline.

use super::*;
use crate::types::ProviderName;

fn spend(cost: u64, uncertain: u64) -> Spend {
    Spend { cost: NanoUsd(cost), uncertain_cost: NanoUsd(uncertain) }
}

fn at_providers<const N: usize>(spends: [(&str, Spend); N]) -> BTreeMap<ProviderName, Spend> {
    spends.into_iter().map(|(provider, spend)| (ProviderName::from(provider), spend)).collect()
}

fn row(day: i64, provider: &str, run: RunNumber, pipeline: Option<&str>, spend: Spend) -> SpendingRow {
    SpendingRow {
        day: Day(day),
        provider: provider.into(),
        run,
        pipeline: pipeline.map(str::to_owned),
        spend,
    }
}

fn scope_row(
    day: i64,
    scope: &str,
    run: RunNumber,
    pipeline: Option<&str>,
    spend: Spend,
) -> ScopeSpendingRow {
    ScopeSpendingRow { day: Day(day), scope: scope.into(), run, pipeline: pipeline.map(str::to_owned), spend }
}

/// Spends on the days 7, 8 and 9. Returns a stored run and a deleted one.
async fn spend_on_days(store: &Sqlite) -> [RunNumber; 2] {
    let run = begun(store).await;
    let deleted = begun(store).await;
    let more = at_providers([("claude", spend(3, 5)), ("other", spend(0, 2))]);
    let scope = ScopeName::from("token:ci");
    store.add_spend(run, &scope, Day(7), &more).await.unwrap();
    store.add_spend(deleted, &ScopeName::default(), Day(7), &more).await.unwrap();
    store.add_spend(RunNumber::NONE, &scope, Day(8), &more).await.unwrap();
    store.add_spend(RunNumber::NONE, &scope, Day(8), &more).await.unwrap();
    store
        .add_spend(deleted, &"team-a".into(), Day(9), &at_providers([("claude", spend(9, 0))]))
        .await
        .unwrap();
    store.delete_runs(&[deleted]).await.unwrap();
    [run, deleted]
}

#[tokio::test]
async fn rows_of_spending_are_those_of_the_days_with_the_pipelines_of_stored_runs() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let [run, deleted] = spend_on_days(&store).await;
    let day_7 = [
        row(7, "claude", run, Some("email"), spend(3, 5)),
        row(7, "claude", deleted, None, spend(3, 5)),
        row(7, "other", run, Some("email"), spend(0, 2)),
        row(7, "other", deleted, None, spend(0, 2)),
    ];
    let day_8 = [
        row(8, "claude", RunNumber::NONE, None, spend(6, 10)),
        row(8, "other", RunNumber::NONE, None, spend(0, 4)),
    ];
    let day_9 = [row(9, "claude", deleted, None, spend(9, 0))];
    assert_eq!(store.spending(Day(7), Day(7)).await.unwrap(), day_7);
    assert_eq!(store.spending(Day(8), Day(9)).await.unwrap(), [&day_8[..], &day_9[..]].concat());
    assert_eq!(store.spending(Day(-9), Day(7)).await.unwrap(), day_7);
    assert_eq!(store.spending(Day(9), Day(7)).await.unwrap(), []);
    assert_eq!(store.spending(Day(i64::MIN), Day(i64::MAX)).await.unwrap().len(), 7);

    let scopes = [
        scope_row(7, "token:ci", run, Some("email"), spend(3, 7)),
        scope_row(8, "token:ci", RunNumber::NONE, None, spend(6, 14)),
        scope_row(9, "team-a", deleted, None, spend(9, 0)),
    ];
    assert_eq!(store.scope_spending(Day(7), Day(9)).await.unwrap(), scopes);
    assert_eq!(store.scope_spending(Day(8), Day(8)).await.unwrap(), scopes[1..2]);
    assert_eq!(store.scope_spending(Day(10), Day(11)).await.unwrap(), []);
}

#[tokio::test]
async fn more_rows_than_the_limit_are_an_error_and_not_a_part_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    spend_on_days(&store).await;
    assert_eq!(store.spending_rows(Day(7), Day(9), 7).await.unwrap().len(), 7);
    let refused = store.spending_rows(Day(7), Day(9), 6).await.unwrap_err();
    assert!(matches!(refused, Error::TooMuchSpending { max: 6 }), "{refused:?}");
    assert!(refused.to_string().contains("more than 6 rows of spend: ask for fewer days"), "{refused}");
    assert_eq!(store.scope_spending_rows(Day(7), Day(9), 3).await.unwrap().len(), 3);
    let refused = store.scope_spending_rows(Day(7), Day(9), 2).await.unwrap_err();
    assert!(matches!(refused, Error::TooMuchSpending { max: 2 }), "{refused:?}");
}

#[tokio::test]
async fn spend_outside_of_runs_is_counted_and_shows_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let more = at_providers([("claude", spend(3, 5))]);
    store.add_spend(RunNumber::NONE, &"token:ci".into(), Day(7), &more).await.unwrap();
    store.close().await;
    let store = open(folder.path()).await;
    assert_eq!(store.spent_on(Day(7)).await.unwrap(), more);
    let scopes = BTreeMap::from([(ScopeName::from("token:ci"), spend(3, 5))]);
    assert_eq!(store.scopes_spent_on(Day(7), None).await.unwrap(), scopes);
    assert_eq!(store.spent_by(RunNumber::NONE).await.unwrap(), more);

    assert_eq!(store.runs().await.unwrap(), []);
    assert_eq!(store.runs_page(&RunFilter { max: 9, ..RunFilter::default() }).await.unwrap(), []);
    assert_eq!(store.unfinished_runs("").await.unwrap(), []);
    assert!(matches!(store.run(RunNumber::NONE).await, Err(Error::NoRun(RunNumber::NONE))));
    assert!(matches!(store.delete_runs(&[RunNumber::NONE]).await, Err(Error::NoRun(RunNumber::NONE))));
    let run = begun(&store).await;
    assert_ne!(run, RunNumber::NONE);
    store.delete_runs(&[run]).await.unwrap();
    store.vacuum().await.unwrap();
    assert_eq!(store.spent_on(Day(7)).await.unwrap(), more);
}

#[tokio::test]
async fn rows_of_spending_that_are_not_what_was_written_are_reported() {
    let changes = [
        ("UPDATE spending SET cost = cost / 2", "a row of spending: the checksum"),
        (
            "UPDATE spending SET provider = 'third' WHERE provider = 'other'",
            "a row of spending: the checksum",
        ),
        ("UPDATE scope_spending SET cost = cost / 2", "a row of scope_spending: the checksum"),
        (
            "UPDATE scope_spending SET scope = 'team-b' WHERE scope = 'team-a'",
            "a row of scope_spending: the checksum",
        ),
    ];
    for (change, message) in changes {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        spend_on_days(&store).await;
        store.close().await;
        edit(&folder.path().join("a.db"), change).await;
        let store = open(folder.path()).await;
        let read = async {
            store.spending(Day(7), Day(9)).await?;
            store.scope_spending(Day(7), Day(9)).await
        };
        let refused = read.await.unwrap_err().to_string();
        assert!(refused.contains("is damaged") && refused.contains(message), "{change}: {refused}");
    }
}
