//! Runs that many callers share: which items each has taken, and who waits for them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::sink::Line;
use crate::store::RunNumber;
use crate::types::{Fingerprint, ItemKey};

use super::error::Error;
use super::growing_file::GrowingFile;

/// The shared runs that take items now.
#[derive(Debug, Default)]
pub(super) struct SharedRuns {
    runs: Mutex<HashMap<RunKey, Vec<Arc<SharedRun>>>>,
    /// Lets one task at a time begin a run.
    pub(super) beginning: tokio::sync::Mutex<()>,
}

/// The pipeline and the caller.
pub(super) type RunKey = (String, String);

/// A run whose items come one at a time.
#[derive(Debug)]
pub(super) struct SharedRun {
    pub(super) run: RunNumber,
    /// Its pipeline, as it was parsed when the run began.
    text: Arc<str>,
    max_items: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where items are appended; `None` when the run takes no more.
    file: Option<Arc<GrowingFile>>,
    /// The items that it has taken, with the fingerprints of their contents.
    items: HashMap<ItemKey, Fingerprint>,
    /// Those that have no line yet.
    unfinished: HashSet<ItemKey>,
    /// Those that are not on the disk yet, and who waits until they are.
    appending: HashMap<ItemKey, Vec<oneshot::Sender<()>>>,
    /// Who waits for the line of an item.
    waiters: HashMap<ItemKey, Vec<oneshot::Sender<Arc<Line>>>>,
}

#[derive(Debug)]
pub(super) enum Answer {
    /// It comes.
    Awaited(oneshot::Receiver<Arc<Line>>),
    /// It had finished before.
    Stored,
}

/// Passes lines to those who wait for them, until the run has ended.
pub(super) async fn dispatch(run: &SharedRun, mut lines: mpsc::Receiver<Line>) {
    while let Some(line) = lines.recv().await {
        let waiters = {
            let mut state = run.lock();
            state.unfinished.remove(&line.key);
            state.waiters.remove(&line.key)
        };
        let Some(waiters) = waiters else { continue };
        let line = Arc::new(line);
        // One that has gone reads the line from the store later.
        waiters.into_iter().for_each(|waiter| drop(waiter.send(line.clone())));
    }
    run.close();
}

/// What became of an item that a run was asked to take.
pub(super) enum Taken {
    /// It has it already.
    Known(Answer),
    /// It is to be appended here.
    New(Arc<GrowingFile>, Answer),
    /// Another caller appends it now.
    Appending(oneshot::Receiver<()>),
    /// It takes no more items.
    Closed,
}

impl SharedRun {
    /// Creates the shared form of a run of a pipeline with this text, which takes `max_items` into `file`.
    pub(super) fn new(run: RunNumber, text: Arc<str>, max_items: u64, file: GrowingFile) -> Self {
        let state = State {
            file: Some(Arc::new(file)),
            items: HashMap::new(),
            unfinished: HashSet::new(),
            appending: HashMap::new(),
            waiters: HashMap::new(),
        };
        Self { run, text, max_items, state: Mutex::new(state) }
    }

    /// Returns whether it has taken an item with this key.
    pub(super) fn has(&self, key: &ItemKey) -> bool {
        self.lock().items.contains_key(key)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, key: &ItemKey, fingerprint: Fingerprint) -> Result<Taken, Error> {
        let mut state = self.lock();
        match state.items.get(key) {
            Some(known) if *known != fingerprint => {
                return Err(Error::conflict(format!(
                    "another item has the id {key:?}: use another `id`, or send the same item"
                )));
            }
            Some(_) if state.appending.contains_key(key) => {
                let (to, from) = oneshot::channel();
                let waiting = state.appending.entry(key.clone()).or_default();
                waiting.retain(|waiter| !waiter.is_closed());
                waiting.push(to);
                return Ok(Taken::Appending(from));
            }
            Some(_) if !state.unfinished.contains(key) => return Ok(Taken::Known(Answer::Stored)),
            Some(_) => return Ok(Taken::Known(Answer::Awaited(state.wait_for(key)))),
            None => {}
        }
        let Some(file) = state.file.clone() else { return Ok(Taken::Closed) };
        state.items.insert(key.clone(), fingerprint);
        state.unfinished.insert(key.clone());
        state.appending.insert(key.clone(), Vec::new());
        let answer = Answer::Awaited(state.wait_for(key));
        if state.items.len() as u64 >= self.max_items {
            // This item is its last one. The file is closed when it is appended.
            state.file = None;
        }
        Ok(Taken::New(file, answer))
    }

    /// Records that an item is on the disk.
    pub(super) fn record_appended(&self, key: &ItemKey) {
        let waiting = self.lock().appending.remove(key);
        // One who has gone needs no answer.
        waiting.into_iter().flatten().for_each(|waiting| {
            let _ = waiting.send(());
        });
    }

    /// Forgets an item that could not be appended.
    pub(super) fn give_back(&self, key: &ItemKey) {
        let mut state = self.lock();
        // Those who wait try again when this is dropped.
        state.appending.remove(key);
        state.items.remove(key);
        state.unfinished.remove(key);
        state.waiters.remove(key);
    }

    /// Takes no more items. Those that it has are processed.
    fn close(&self) {
        let mut state = self.lock();
        state.file = None;
        // Their items have no line: the run is paused or stopped.
        state.waiters.clear();
    }

    fn stop_taking(&self) {
        self.lock().file = None;
    }
}

impl State {
    fn wait_for(&mut self, key: &ItemKey) -> oneshot::Receiver<Arc<Line>> {
        let (to, from) = oneshot::channel();
        let waiters = self.waiters.entry(key.clone()).or_default();
        // Callers that have gone would pile up while the item waits.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(to);
        from
    }
}

impl SharedRuns {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunKey, Vec<Arc<SharedRun>>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the run that takes items of a pipeline with this text. Runs of an earlier text take no more.
    pub(super) fn taking(&self, key: &RunKey, text: &str) -> Option<Arc<SharedRun>> {
        let runs = self.lock();
        let of_key = runs.get(key)?;
        of_key.iter().filter(|run| *run.text != *text).for_each(|run| run.stop_taking());
        of_key.iter().find(|run| *run.text == *text && run.lock().file.is_some()).cloned()
    }

    pub(super) fn open_runs(&self, key: &RunKey) -> usize {
        self.lock().get(key).map_or(0, Vec::len)
    }

    pub(super) fn add(&self, key: RunKey, run: Arc<SharedRun>) {
        self.lock().entry(key).or_default().push(run);
    }

    pub(super) fn remove(&self, run: &Arc<SharedRun>) {
        let mut runs = self.lock();
        runs.values_mut().for_each(|of_key| of_key.retain(|known| !Arc::ptr_eq(known, run)));
        runs.retain(|_, of_key| !of_key.is_empty());
    }

    pub(super) fn find(&self, run: RunNumber) -> Option<Arc<SharedRun>> {
        self.lock().values().flatten().find(|known| known.run == run).cloned()
    }

    /// Takes no more items.
    pub(super) fn close(&self) {
        self.lock().values().flatten().for_each(|run| run.stop_taking());
    }
}
