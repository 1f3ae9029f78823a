//! Records are durable before anybody is told so, in few commits, and a broken store takes no more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::Value;
use tokio::sync::Semaphore;

use super::*;
use crate::store::{
    Answer, CallCount, Error, ItemHead, ItemNumber, KnownItem, KnownRun, Outline, RunLock, RunNumber,
    RunState, Session, Sqlite, Sums,
};
use crate::types::{Booked, Day, Fingerprint, ItemKey, LaneName, ProviderName, StepName};

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
    fn write<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.gate.acquire().await.unwrap().forget();
            self.commits.fetch_add(1, SeqCst);
            assert!(!one_less(&self.panics), "planned");
            if one_less(&self.fails) {
                let why = "disk full".into();
                return Err(Error::Io { path: "a.db".into(), doing: "write", why });
            }
            self.inner.write(records).await
        })
    }
    fn runs(&self) -> Answer<'_, Vec<KnownRun>> {
        self.inner.runs()
    }
    fn run(&self, run: RunNumber) -> Answer<'_, KnownRun> {
        self.inner.run(run)
    }
    fn find<'a>(&'a self, identity: &'a str) -> Answer<'a, Option<KnownRun>> {
        self.inner.find(identity)
    }
    fn create<'a>(&'a self, identity: &'a str, outline: &'a Outline) -> Answer<'a, RunNumber> {
        self.inner.create(identity, outline)
    }
    fn lock(&self, run: RunNumber) -> Result<RunLock, Error> {
        self.inner.lock(run)
    }
    fn is_at_work(&self, run: RunNumber) -> bool {
        self.inner.is_at_work(run)
    }
    fn begin<'a>(&'a self, run: RunNumber, outline: Option<&'a Outline>, anew: bool) -> Answer<'a, Session> {
        self.inner.begin(run, outline, anew)
    }
    fn touch<'a>(&'a self, run: RunNumber, state: RunState, outcome: &'a Value) -> Answer<'a, ()> {
        self.inner.touch(run, state, outcome)
    }
    fn note<'a>(&'a self, run: RunNumber, outcome: &'a Value) -> Answer<'a, ()> {
        self.inner.note(run, outcome)
    }
    fn look_up<'a>(&'a self, run: RunNumber, keys: &'a [ItemKey]) -> Answer<'a, Vec<Option<KnownItem>>> {
        self.inner.look_up(run, keys)
    }
    fn items(&self, run: RunNumber, after: ItemNumber, most: u32) -> Answer<'_, Vec<KnownItem>> {
        self.inner.items(run, after, most)
    }
    fn failed(&self, run: RunNumber, after: ItemNumber, most: u32) -> Answer<'_, Vec<KnownItem>> {
        self.inner.failed(run, after, most)
    }
    fn sums(&self, run: RunNumber) -> Answer<'_, Sums> {
        self.inner.sums(run)
    }

    fn counts<'a>(&'a self, run: RunNumber, groups: &'a [(i64, i64)]) -> Answer<'a, Sums> {
        self.inner.counts(run, groups)
    }
    fn forget<'a>(&'a self, runs: &'a [RunNumber]) -> Answer<'a, ()> {
        self.inner.forget(runs)
    }
    fn shrink(&self) -> Answer<'_, ()> {
        self.inner.shrink()
    }
    fn state(&self, run: RunNumber) -> Answer<'_, RunState> {
        self.inner.state(run)
    }
    fn set(&self, run: RunNumber, state: RunState) -> Answer<'_, ()> {
        self.inner.set(run, state)
    }
    fn answers(&self, run: RunNumber) -> Answer<'_, BTreeMap<StepName, u64>> {
        self.inner.answers(run)
    }
    fn count_calls<'a>(&'a self, calls: &'a BTreeMap<LaneName, u64>) -> Answer<'a, ()> {
        self.inner.count_calls(calls)
    }
    fn calls_of_day(&self) -> Answer<'_, Vec<CallCount>> {
        self.inner.calls_of_day()
    }
    fn spent_on(&self, day: Day) -> Answer<'_, BTreeMap<ProviderName, Booked>> {
        self.inner.spent_on(day)
    }
    fn spent_by(&self, run: RunNumber) -> Answer<'_, BTreeMap<ProviderName, Booked>> {
        self.inner.spent_by(run)
    }
    fn book<'a>(
        &'a self,
        run: RunNumber,
        day: Day,
        spent: &'a BTreeMap<ProviderName, Booked>,
    ) -> Answer<'a, ()> {
        self.inner.book(run, day, spent)
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
    Record { run: RunNumber(1), session: 1, item: Arc::new(head), steps: Vec::new(), settled: None }
}

async fn kept(store: &Gated) -> Vec<i64> {
    let items = store.items(RunNumber(1), ItemNumber(0), 1_000).await.unwrap();
    items.iter().map(|item| item.head.number.0).collect()
}

#[tokio::test]
async fn what_comes_during_a_commit_shares_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    let ledger = Ledger::new(store.clone(), Handle::current());
    let handed: Vec<_> = (1..=100).map(|item| ledger.record(vec![record(item)])).collect();
    store.gate.add_permits(2);
    for durable in handed {
        durable.await.unwrap();
    }
    assert_eq!((kept(&store).await.len(), store.commits.load(SeqCst)), (100, 2));
}

#[tokio::test]
async fn nobody_is_told_before_the_commit_and_a_record_is_kept_though_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    let ledger = Ledger::new(store.clone(), Handle::current());
    drop(ledger.record(vec![record(1)]));
    let mut second = std::pin::pin!(ledger.record(vec![record(2)]));
    assert!(futures_util::poll!(&mut second).is_pending());
    assert!(kept(&store).await.is_empty());
    store.gate.add_permits(2);
    second.await.unwrap();
    assert_eq!(kept(&store).await, [1, 2]);
}

#[tokio::test]
async fn a_store_that_fails_is_told_to_all_who_wait_and_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    store.fails.store(1, SeqCst);
    let ledger = Ledger::new(store.clone(), Handle::current());
    let (first, second) = (ledger.record(vec![record(1)]), ledger.record(vec![record(2)]));
    store.gate.add_permits(10);
    let why = Unkept("cannot write the database a.db: disk full".into());
    assert_eq!((first.await, second.await), (Err(why.clone()), Err(why.clone())));
    assert_eq!(ledger.record(vec![record(3)]).await, Err(why.clone()));
    assert_eq!((ledger.broken(), store.commits.load(SeqCst)), (Some(why), 1));
}

#[tokio::test]
async fn a_commit_that_panics_is_made_again_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    store.panics.store(2, SeqCst);
    let ledger = Ledger::new(store.clone(), Handle::current());
    let handed: Vec<_> = (1..=10).map(|item| ledger.record(vec![record(item)])).collect();
    store.gate.add_permits(10);
    for durable in handed {
        durable.await.unwrap();
    }
    assert_eq!(kept(&store).await, (1..=10).collect::<Vec<_>>());

    store.panics.store(9, SeqCst);
    let given_up = ledger.record(vec![record(11)]).await.unwrap_err();
    assert!(given_up.to_string().contains("panicked again and again"), "{given_up}");
}

#[test]
fn a_ledger_whose_runtime_has_stopped_says_so_and_never_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, reading) =
        (tokio::runtime::Runtime::new().unwrap(), tokio::runtime::Runtime::new().unwrap());
    let store = reading.block_on(Gated::open(folder.path()));
    let ledger = Ledger::new(store, runtime.handle().clone());
    let first = ledger.record(vec![record(1)]);
    let second = ledger.record(vec![record(2)]);
    // The commit waits at its gate, and another batch has gathered behind it.
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime.shutdown_background();
        drop(ledger.record(vec![record(3)]));
        let told = reading.block_on(async { (first.await, second.await, ledger.record(Vec::new()).await) });
        let _ = ended.send((told, ledger.broken()));
    });
    let (told, broken) = end.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    let stopped = broken.unwrap();
    assert!(stopped.to_string().contains("stopped"), "{stopped}");
    assert_eq!(told, (Err(stopped.clone()), Err(stopped.clone()), Err(stopped)));
}

#[tokio::test]
async fn calls_that_left_are_counted_once_with_the_next_commit_however_often_it_panics() {
    let folder = tempfile::tempdir().unwrap();
    let store = Gated::open(folder.path()).await;
    let target: LaneName = "a/m".parse().unwrap();
    let left = Mutex::new(BTreeMap::new());
    let left = Arc::new(left);
    let source = left.clone();
    let take = move || std::mem::take(&mut *source.lock().unwrap());
    let ledger = Ledger::counting(store.clone(), Handle::current(), Some(Box::new(take)));
    store.gate.add_permits(10);
    for calls in [3, 4] {
        store.panics.store(2, SeqCst);
        left.lock().unwrap().insert(target.clone(), calls);
        ledger.settle().await.unwrap();
    }
    let counted = store.calls_of_day().await.unwrap();
    assert!(counted.iter().all(|count| count.target == target));
    assert_eq!(counted.iter().map(|count| count.calls).sum::<u64>(), 7);
}
