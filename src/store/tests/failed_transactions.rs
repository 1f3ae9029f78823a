//! A transaction that fails leaves the store usable, also if SQLite has rolled it back by itself.

use super::*;
use crate::store::sqlite::DocumentChange;
use crate::types::{ProviderName, TargetName};

/// Larger than a page of the database.
const LARGE: usize = 100_000;

/// A kind of write. Each has a transaction of its own.
#[derive(Debug, Clone, Copy)]
enum Write {
    Records,
    NewRun,
    SessionStart,
    SessionEnd,
    Outcome,
    State,
    DeletedRun,
    Spend,
    Calls,
    Document,
    DeletedDocument,
    RemovedDocument,
    ExpiredDocuments,
    Check,
}

/// What the writes change.
struct Changed {
    run: RunNumber,
    other: RunNumber,
}

/// Creates the runs and documents that the writes change.
async fn prepare(store: &Sqlite) -> Changed {
    let run = begun(store).await;
    let other = store.create("other", &metadata("b")).await.unwrap();
    for (name, expires_at) in [("deleted", None), ("removed", None), ("expired", Some(1))] {
        put(store, name, expires_at).await.unwrap();
    }
    Changed { run, other }
}

async fn put(store: &Sqlite, name: &str, expires_at: Option<i64>) -> Result<(), Error> {
    let value = json!("x".repeat(LARGE));
    let change = DocumentChange {
        kind: DocumentKind::Pipeline,
        name,
        value: &value,
        by: "ann",
        expires_at,
        expected: ExpectedVersion::Any,
        overwrites: false,
    };
    store.write_document(change, 0).await.map(drop)
}

/// Writes more than a page where that is possible.
async fn write(store: &Sqlite, changed: &Changed, kind: Write) -> Result<(), Error> {
    let large = "x".repeat(LARGE);
    let run = changed.run;
    let pipeline = DocumentKind::Pipeline;
    match kind {
        Write::Records => {
            let steps = vec![answered("category", json!(large))];
            store.write_records(&[record(run, 1, steps, None)]).await
        }
        Write::NewRun => store.create("new", &metadata(&large)).await.map(drop),
        Write::SessionStart => store.begin_session(run, Some(&metadata(&large)), true).await.map(drop),
        Write::SessionEnd => store.finish_session(run, RunState::Stopped, &json!(large)).await,
        Write::Outcome => store.record_outcome(run, &json!(large)).await,
        Write::State => store.set_state(run, RunState::Paused).await,
        Write::DeletedRun => store.delete_runs(&[changed.other]).await,
        Write::Spend => {
            let spend = Spend { cost: NanoUsd(7), ..Spend::default() };
            let spent = BTreeMap::from([(ProviderName::from(large.as_str()), spend)]);
            store.add_spend(run, &ScopeName::default(), Day(1), &spent).await
        }
        Write::Calls => {
            let target = TargetName { provider: large.as_str().into(), model: "m".into() };
            store.count_calls(&BTreeMap::from([(target, 1)])).await
        }
        Write::Document => put(store, "new", None).await,
        Write::DeletedDocument => store.delete_document(pipeline, "deleted", "bob").await.map(drop),
        Write::RemovedDocument => store.remove_document(pipeline, "removed").await.map(drop),
        Write::ExpiredDocuments => store.remove_expired(pipeline, 2).await.map(drop),
        Write::Check => store.check_writable().await,
    }
}

#[tokio::test]
async fn a_database_that_was_full_can_be_written_when_it_may_grow_again() {
    let kinds = [
        Write::Records,
        Write::NewRun,
        Write::SessionStart,
        Write::SessionEnd,
        Write::Outcome,
        Write::Spend,
        Write::Calls,
        Write::Document,
    ];
    for kind in kinds {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let changed = prepare(&store).await;
        // The limit is never below the present size.
        store.execute("PRAGMA max_page_count = 1").await;
        let refused = write(&store, &changed, kind).await.unwrap_err().to_string();
        assert!(refused.contains("database or disk is full"), "{kind:?}: {refused}");
        store.execute("PRAGMA max_page_count = 1000000").await;
        store.check_writable().await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        write(&store, &changed, kind).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let runs = store.runs().await.unwrap().len();
        assert_eq!(runs, if matches!(kind, Write::NewRun) { 3 } else { 2 }, "{kind:?}");
    }
}

#[tokio::test]
async fn a_transaction_that_sqlite_has_rolled_back_does_not_break_the_next() {
    let kinds = [
        (Write::Records, "INSERT ON steps"),
        (Write::NewRun, "INSERT ON runs"),
        (Write::SessionStart, "UPDATE ON runs"),
        (Write::SessionEnd, "UPDATE ON runs"),
        (Write::Outcome, "UPDATE ON runs"),
        (Write::State, "UPDATE ON runs"),
        (Write::DeletedRun, "DELETE ON runs"),
        (Write::Spend, "INSERT ON spending"),
        (Write::Calls, "INSERT ON calls"),
        (Write::Document, "INSERT ON documents"),
        (Write::DeletedDocument, "INSERT ON documents"),
        (Write::RemovedDocument, "DELETE ON documents"),
        (Write::ExpiredDocuments, "DELETE ON documents"),
        (Write::Check, "INSERT ON write_check"),
    ];
    for (kind, change) in kinds {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let changed = prepare(&store).await;
        // A temporary trigger belongs to one connection.
        store.roll_back(change).await;
        let refused = write(&store, &changed, kind).await.unwrap_err().to_string();
        assert!(refused.contains("no space"), "{kind:?}: {refused}");
        store.execute("DROP TRIGGER IF EXISTS temp.roll_back").await;
        for next in [Write::Check, kind, Write::Records, Write::NewRun, Write::Document, Write::State] {
            let written = write(&store, &changed, next).await;
            written.unwrap_or_else(|error| panic!("{next:?} after {kind:?}: {error}"));
        }
        let items = store.items(changed.run, ItemNumber(0), 10).await.unwrap();
        assert_eq!(items.len(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn a_connection_is_replaced_only_by_one_to_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(folder.path()).await;
    let changed = prepare(&store).await;
    store.roll_back("INSERT ON write_check").await;
    store.check_writable().await.unwrap_err();
    std::fs::rename(&path, folder.path().join("b.db")).unwrap();
    let refused = store.check_writable().await.unwrap_err().to_string();
    assert!(refused.contains("it was moved or removed"), "{refused}");
    assert!(!path.exists());
    std::fs::rename(folder.path().join("b.db"), &path).unwrap();
    store.check_writable().await.unwrap();
    write(&store, &changed, Write::Records).await.unwrap();
}
