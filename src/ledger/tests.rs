//! Records are durable before their caller is notified, commits are few, and a failed store accepts no more
//! records.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::Value;
use tokio::sync::Semaphore;

use super::*;
use crate::store::{
    CallCount, Document, DocumentKind, Error, ExpectedVersion, ItemHead, ItemNumber, RunFilter, RunLock,
    RunMetadata, RunNumber, RunState, RunTotals, ScopeSpendingRow, Session, SpendingRow, Sqlite, StoreFuture,
    StoredItem, StoredRun,
};
use crate::telemetry::{Samples, text_of};
use crate::types::{Day, Fingerprint, ItemKey, ProviderName, ScopeName, Spend, StepName, TargetName};

/// A store whose commits begin when they are let, and may fail or panic.
#[derive(Debug)]
struct Gated {
    inner: Sqlite,
    gate: Semaphore,
    commits: AtomicUsize,
    fails: AtomicUsize,
    panics: AtomicUsize,
}

impl Gated {
    async fn open(folder: &Path) -> Arc<Self> {
        let inner = Sqlite::open(&folder.join("a.db")).await.unwrap();
        let count = || AtomicUsize::new(0);
        Arc::new(Self { inner, gate: Semaphore::new(0), commits: count(), fails: count(), panics: count() })
    }
}

fn one_less(count: &AtomicUsize) -> bool {
    count.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Store for Gated {
    fn write_records<'a>(&'a self, records: &'a [Record]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            self.commits.fetch_add(1, SeqCst);
            assert!(!one_less(&self.panics), "planned");
            if one_less(&self.fails) {
                let why = "disk full".into();
                return Err(Error::Io { path: "a.db".into(), doing: "write", why });
            }
            self.inner.write_records(records).await
        })
    }
    fn runs(&self) -> StoreFuture<'_, Vec<StoredRun>> {
        self.inner.runs()
    }
    fn run(&self, run: RunNumber) -> StoreFuture<'_, StoredRun> {
        self.inner.run(run)
    }
    fn find_latest<'a>(&'a self, identity: &'a str) -> StoreFuture<'a, Option<StoredRun>> {
        self.inner.find_latest(identity)
    }
    fn create<'a>(&'a self, identity: &'a str, outline: &'a RunMetadata) -> StoreFuture<'a, RunNumber> {
        self.inner.create(identity, outline)
    }
    fn lock(&self, run: RunNumber) -> Result<RunLock, Error> {
        self.inner.lock(run)
    }
    fn is_locked(&self, run: RunNumber) -> bool {
        self.inner.is_locked(run)
    }
    fn begin_session<'a>(
        &'a self,
        run: RunNumber,
        outline: Option<&'a RunMetadata>,
        restarts_items: bool,
    ) -> StoreFuture<'a, Session> {
        self.inner.begin_session(run, outline, restarts_items)
    }
    fn finish_session<'a>(
        &'a self,
        run: RunNumber,
        state: RunState,
        outcome: &'a Value,
    ) -> StoreFuture<'a, ()> {
        self.inner.finish_session(run, state, outcome)
    }
    fn record_outcome<'a>(&'a self, run: RunNumber, outcome: &'a Value) -> StoreFuture<'a, ()> {
        self.inner.record_outcome(run, outcome)
    }
    fn look_up<'a>(
        &'a self,
        run: RunNumber,
        keys: &'a [ItemKey],
    ) -> StoreFuture<'a, Vec<Option<StoredItem>>> {
        self.inner.look_up(run, keys)
    }
    fn items(&self, run: RunNumber, after: ItemNumber, limit: u32) -> StoreFuture<'_, Vec<StoredItem>> {
        self.inner.items(run, after, limit)
    }
    fn failed(&self, run: RunNumber, after: ItemNumber, limit: u32) -> StoreFuture<'_, Vec<StoredItem>> {
        self.inner.failed(run, after, limit)
    }
    fn totals(&self, run: RunNumber) -> StoreFuture<'_, RunTotals> {
        self.inner.totals(run)
    }

    fn item_counts<'a>(&'a self, run: RunNumber, groups: &'a [(i64, i64)]) -> StoreFuture<'a, RunTotals> {
        self.inner.item_counts(run, groups)
    }
    fn verify_rows(&self, run: RunNumber) -> StoreFuture<'_, ()> {
        self.inner.verify_rows(run)
    }
    fn damage(&self, what: String) -> Error {
        self.inner.damage(what)
    }
    fn delete_runs<'a>(&'a self, runs: &'a [RunNumber]) -> StoreFuture<'a, ()> {
        self.inner.delete_runs(runs)
    }
    fn vacuum(&self) -> StoreFuture<'_, ()> {
        self.inner.vacuum()
    }
    fn state(&self, run: RunNumber) -> StoreFuture<'_, RunState> {
        self.inner.state(run)
    }
    fn set_state(&self, run: RunNumber, state: RunState) -> StoreFuture<'_, ()> {
        self.inner.set_state(run, state)
    }
    fn set_identity<'a>(&'a self, run: RunNumber, identity: &'a str) -> StoreFuture<'a, ()> {
        self.inner.set_identity(run, identity)
    }
    fn answer_counts(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<StepName, u64>> {
        self.inner.answer_counts(run)
    }
    fn count_calls<'a>(&'a self, calls: &'a BTreeMap<TargetName, u64>) -> StoreFuture<'a, ()> {
        self.inner.count_calls(calls)
    }
    fn calls_of_last_day(&self) -> StoreFuture<'_, Vec<CallCount>> {
        self.inner.calls_of_last_day()
    }
    fn spent_on(&self, day: Day) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>> {
        self.inner.spent_on(day)
    }
    fn scopes_spent_on<'a>(
        &'a self,
        day: Day,
        only: Option<&'a ScopeName>,
    ) -> StoreFuture<'a, BTreeMap<ScopeName, Spend>> {
        self.inner.scopes_spent_on(day, only)
    }
    fn spent_by(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>> {
        self.inner.spent_by(run)
    }
    fn add_spend<'a>(
        &'a self,
        run: RunNumber,
        scope: &'a ScopeName,
        day: Day,
        spent: &'a BTreeMap<ProviderName, Spend>,
    ) -> StoreFuture<'a, ()> {
        self.inner.add_spend(run, scope, day, spent)
    }
    fn runs_page<'a>(&'a self, filter: &'a RunFilter) -> StoreFuture<'a, Vec<StoredRun>> {
        self.inner.runs_page(filter)
    }
    fn unfinished_runs<'a>(&'a self, identity_prefix: &'a str) -> StoreFuture<'a, Vec<StoredRun>> {
        self.inner.unfinished_runs(identity_prefix)
    }
    fn spending(&self, from: Day, to: Day) -> StoreFuture<'_, Vec<SpendingRow>> {
        self.inner.spending(from, to)
    }
    fn scope_spending(&self, from: Day, to: Day) -> StoreFuture<'_, Vec<ScopeSpendingRow>> {
        self.inner.scope_spending(from, to)
    }
    fn check_writable(&self) -> StoreFuture<'_, ()> {
        self.inner.check_writable()
    }
    fn put_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        value: &'a Value,
        by: &'a str,
        expires_at: Option<i64>,
        expected: ExpectedVersion,
    ) -> StoreFuture<'a, Document> {
        self.inner.put_document(kind, name, value, by, expires_at, expected)
    }
    fn replace_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        value: &'a Value,
        by: &'a str,
        expires_at: Option<i64>,
        expected: ExpectedVersion,
    ) -> StoreFuture<'a, Document> {
        self.inner.replace_document(kind, name, value, by, expires_at, expected)
    }
    fn document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        now: i64,
    ) -> StoreFuture<'a, Option<Document>> {
        self.inner.document(kind, name, now)
    }
    fn document_version<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        version: i64,
    ) -> StoreFuture<'a, Option<Document>> {
        self.inner.document_version(kind, name, version)
    }
    fn document_versions<'a>(&'a self, kind: DocumentKind, name: &'a str) -> StoreFuture<'a, Vec<Document>> {
        self.inner.document_versions(kind, name)
    }
    fn documents<'a>(
        &'a self,
        kind: DocumentKind,
        after: Option<&'a str>,
        max: u32,
    ) -> StoreFuture<'a, Vec<Document>> {
        self.inner.documents(kind, after, max)
    }
    fn delete_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        by: &'a str,
    ) -> StoreFuture<'a, bool> {
        self.inner.delete_document(kind, name, by)
    }
    fn remove_document<'a>(&'a self, kind: DocumentKind, name: &'a str) -> StoreFuture<'a, bool> {
        self.inner.remove_document(kind, name)
    }
    fn remove_expired(&self, kind: DocumentKind, now: i64) -> StoreFuture<'_, u64> {
        self.inner.remove_expired(kind, now)
    }
}

fn record(item: i64) -> Record {
    let head = ItemHead {
        number: ItemNumber(item),
        key: format!("item-{item}").into(),
        content: Fingerprint::of([b"x".as_slice()]),
        line: 1,
        input: None,
    };
    Record {
        run: RunNumber(1),
        session: 1,
        scope: ScopeName::default(),
        item: Arc::new(head),
        steps: Vec::new(),
        outcome: None,
    }
}

async fn stored_items(store: &Gated) -> Vec<i64> {
    let items = store.items(RunNumber(1), ItemNumber(0), 1_000).await.unwrap();
    items.iter().map(|item| item.head.number.0).collect()
}

#[tokio::test]
async fn records_that_arrive_during_a_commit_share_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    let ledger = Ledger::new(store.clone(), Handle::current());
    let handed: Vec<_> = (1..=100).map(|item| ledger.record(vec![record(item)])).collect();
    store.gate.add_permits(2);
    for durable in handed {
        durable.await.unwrap();
    }
    assert_eq!((stored_items(&store).await.len(), store.commits.load(SeqCst)), (100, 2));
}

#[tokio::test]
async fn commits_and_their_records_are_counted_when_their_callers_are_notified() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    let metrics = Arc::new(LedgerMetrics::default());
    let value = |series: &str| {
        let mut samples = Samples::default();
        metrics.report_metrics(&mut samples);
        let text = text_of(&samples).replace("{}", "");
        let mut values = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.next().unwrap_or_else(|| panic!("no {series} in {text}")).parse::<f64>().unwrap()
    };
    let ledger = Ledger::new(store.clone(), Handle::current()).with_metrics(metrics.clone());
    let handed: Vec<_> = (1..=100).map(|item| ledger.record(vec![record(item)])).collect();
    assert_eq!(value("pointsman_commits_total"), 0.0);
    store.gate.add_permits(2);
    for durable in handed {
        durable.await.unwrap();
    }
    assert_eq!((value("pointsman_commits_total"), value("pointsman_committed_records_total")), (2.0, 100.0));
    assert_eq!(value("pointsman_commit_duration_seconds_count"), 2.0);
    assert!(value("pointsman_commit_duration_seconds_sum") > 0.0);
    assert_eq!(value("pointsman_failed_commits_total"), 0.0);

    // Another ledger adds to the same counts. A commit that panicked is counted once, and one that failed elsewhere.
    let other = Ledger::new(store.clone(), Handle::current()).with_metrics(metrics.clone());
    store.panics.store(1, SeqCst);
    store.gate.add_permits(10);
    other.record(vec![record(101)]).await.unwrap();
    assert_eq!((value("pointsman_commits_total"), value("pointsman_committed_records_total")), (3.0, 101.0));
    store.fails.store(1, SeqCst);
    other.record(vec![record(102)]).await.unwrap_err();
    assert_eq!((value("pointsman_commits_total"), value("pointsman_committed_records_total")), (3.0, 101.0));
    assert_eq!(value("pointsman_failed_commits_total"), 1.0);
}

#[tokio::test]
async fn a_caller_is_notified_after_the_commit_and_a_record_without_a_waiting_caller_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    let ledger = Ledger::new(store.clone(), Handle::current());
    drop(ledger.record(vec![record(1)]));
    let mut second = std::pin::pin!(ledger.record(vec![record(2)]));
    assert!(futures_util::poll!(&mut second).is_pending());
    assert!(stored_items(&store).await.is_empty());
    store.gate.add_permits(2);
    second.await.unwrap();
    assert_eq!(stored_items(&store).await, [1, 2]);
}

#[tokio::test]
async fn a_store_failure_is_reported_to_all_waiting_callers_and_later_records_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    store.fails.store(1, SeqCst);
    let ledger = Ledger::new(store.clone(), Handle::current());
    let first = ledger.record(vec![record(1)]);
    let second = ledger.record(vec![record(2)]);
    store.gate.add_permits(10);
    let why = CommitError("cannot write the database a.db: disk full".into());
    assert_eq!((first.await, second.await), (Err(why.clone()), Err(why.clone())));
    assert_eq!(ledger.record(vec![record(3)]).await, Err(why.clone()));
    assert_eq!((ledger.broken(), store.commits.load(SeqCst)), (Some(why), 1));
}

#[tokio::test]
async fn a_commit_that_panics_is_repeated_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    store.panics.store(2, SeqCst);
    let ledger = Ledger::new(store.clone(), Handle::current());
    let handed: Vec<_> = (1..=10).map(|item| ledger.record(vec![record(item)])).collect();
    store.gate.add_permits(10);
    for durable in handed {
        durable.await.unwrap();
    }
    assert_eq!(stored_items(&store).await, (1..=10).collect::<Vec<_>>());

    store.panics.store(9, SeqCst);
    let failed = ledger.record(vec![record(11)]).await.unwrap_err();
    assert!(failed.to_string().contains("panicked repeatedly"), "{failed}");
}

#[test]
fn a_ledger_whose_runtime_has_stopped_returns_an_error_and_never_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reading = tokio::runtime::Runtime::new().unwrap();
    let store = reading.block_on(Gated::open(folder.path()));
    let ledger = Ledger::new(store, runtime.handle().clone());
    let first = ledger.record(vec![record(1)]);
    let second = ledger.record(vec![record(2)]);
    // The commit waits at its gate, and another batch has gathered behind it.
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime.shutdown_background();
        drop(ledger.record(vec![record(3)]));
        let results =
            reading.block_on(async { (first.await, second.await, ledger.record(Vec::new()).await) });
        // The receiver is dropped only if the test has failed.
        let _ = ended.send((results, ledger.broken()));
    });
    let (results, broken) = end.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    let stopped = broken.unwrap();
    assert!(stopped.to_string().contains("stopped"), "{stopped}");
    assert_eq!(results, (Err(stopped.clone()), Err(stopped.clone()), Err(stopped)));
}

#[tokio::test]
async fn sent_calls_are_counted_once_with_the_next_commit_however_often_it_panics() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    let target: TargetName = "a/m".parse().unwrap();
    let left = Mutex::new(BTreeMap::new());
    let left = Arc::new(left);
    let source = left.clone();
    let take = move || std::mem::take(&mut *source.lock().unwrap());
    let ledger = Ledger::counting(store.clone(), Handle::current(), Some(Box::new(take)));
    store.gate.add_permits(10);
    for calls in [3, 4] {
        store.panics.store(2, SeqCst);
        left.lock().unwrap().insert(target.clone(), calls);
        ledger.flush().await.unwrap();
    }
    let counted = store.calls_of_last_day().await.unwrap();
    assert!(counted.iter().all(|count| count.target == target));
    assert_eq!(counted.iter().map(|count| count.calls).sum::<u64>(), 7);
}
