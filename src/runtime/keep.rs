//! Finds the run that is to go on, locks it, and tells what has changed since; or begins a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::ledger::Ledger;
use crate::pipeline::{Grounds, LaneGround, Pipeline, Voice};
use crate::provider::{Model, Settings};
use crate::run::{Keeping, sums_of_input};
use crate::sink::{Owner, ReplaceableFile, WrittenFile};
use crate::store::{self, KnownRun, Outline, RunLock, RunNumber, RunState, Store, Sums};
use crate::types::{Fingerprint, LaneName, RouteName};

use super::capped::MaxCost;
use super::error::Error;
use super::keep_options::Keep;
use super::marks;
use super::outcome::{Outcome, outcome_of, rejected_by};
use super::pause_options::PauseOptions;
use super::pointsman::Pointsman;
use super::session::Open;

/// What the identity of a simulated run ends with.
const SIMULATED: &str = " (simulated)";

/// The same, as an earlier version wrote it.
const PRACTICE: &str = " (practice)";

/// What is locked while a run begins that has no number yet.
const NEW: RunNumber = RunNumber(0);

/// How long the lock for new runs is waited for: its holder looks for the run and then creates it, and each of these
/// may wait for the database.
const MAX_CREATION: Duration = store::MAX_WAIT.saturating_mul(2);

/// A run that is to begin, or to go on. Nothing has been asked or written yet; if it is an old one, no other
/// process can work on it while this lives.
#[derive(Debug)]
pub struct Kept {
    keep: Keep,
    outline: Outline,
    grounds: Grounds,
    known: Option<Known>,
    is_simulated: bool,
    /// Files that it writes beside its output.
    others: Vec<WrittenFile>,
    /// Files that it did not write and may replace.
    replaceable: Vec<ReplaceableFile>,
}

#[derive(Debug)]
struct Known {
    run: KnownRun,
    lock: RunLock,
    /// What it has, of whatever input.
    sums: Sums,
    /// What it has of its present input, as far as that is known.
    of_input: Sums,
    anew: bool,
    nothing_left: bool,
    notes: Vec<String>,
}

impl Kept {
    /// Returns the run's number; `None` before a new one has begun.
    pub fn number(&self) -> Option<RunNumber> {
        self.known.as_ref().map(|known| known.run.number)
    }

    /// Returns how many items of its input it has from before, as far as that is known, and what all took.
    pub fn before(&self) -> Sums {
        self.known.as_ref().map(|known| known.of_input).unwrap_or_default()
    }

    /// Returns whether it has settled items, of whatever input.
    pub fn has_settled(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.sums.settled() > 0)
    }

    /// Returns how many pieces of its input were no items, when that was last read to its end.
    pub fn rejected_before(&self) -> u64 {
        self.known.as_ref().map_or(0, |known| rejected_by(&known.run))
    }

    /// Returns whether nothing of it waits to be asked: it was complete before, and no change of it reaches its items.
    pub fn is_whole(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.run.state == RunState::Complete && !known.anew)
    }

    /// Returns whether it was complete before.
    pub fn was_complete(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.run.state == RunState::Complete)
    }

    /// Returns what has changed since it began without making any answer invalid; empty where nothing has.
    pub fn notes(&self) -> &[String] {
        self.known.as_ref().map(|known| known.notes.as_slice()).unwrap_or_default()
    }

    /// Returns whether it is complete, and all of its files are as it left them.
    pub fn nothing_left(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.nothing_left)
    }

    /// Returns who writes its output: the run may replace what it has written itself, and what an earlier session was
    /// allowed to replace.
    pub fn owner(&self) -> Owner {
        let known = self.known.as_ref().map(|known| outcome_of(&known.run)).unwrap_or_default();
        Owner::of(known.outputs).replacing(known.replaceable).simulated(self.is_simulated)
    }

    /// Notes that the run may replace this file, which it did not write: also when it is resumed.
    pub fn may_replace(&mut self, file: ReplaceableFile) {
        self.replaceable.push(file);
    }

    /// Notes that the run writes this file, too, beside its output.
    pub fn also_writes(&mut self, file: WrittenFile) {
        self.others.push(file);
    }

    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.keep.store
    }

    /// Returns the cap that was named for the run: now, or else last.
    pub fn max_cost(&self) -> Option<MaxCost> {
        let before = || self.known.as_ref().and_then(|known| outcome_of(&known.run).max_cost);
        self.keep.max_cost.or_else(before)
    }

    /// Returns when the run pauses.
    pub(super) fn pause(&self) -> PauseOptions {
        self.keep.pause
    }

    /// Begins a session that writes `files`.
    pub(super) async fn begin(
        self,
        pointsman: &Pointsman,
        mut files: Vec<WrittenFile>,
    ) -> Result<Open, Error> {
        let Self { keep, outline, grounds, known, others, replaceable, is_simulated: _ } = self;
        files.extend(others);
        let store = keep.store.clone();
        let begun = match known {
            Some(known) => Begun::Before(Box::new(known)),
            None => begin_new(&keep, &outline, &grounds).await?,
        };
        let (sums, mut outcome) = match &begun {
            Begun::Before(known) => (known.sums, outcome_of(&known.run)),
            Begun::Now(..) => (Sums::default(), Outcome::default()),
        };
        let absent = outcome.absent.clone();
        let had = if keep.partly { 0 } else { sums.open + sums.settled() };
        let (run, state, lock, anew) = match begun {
            Begun::Before(known) => (known.run.number, known.run.state, known.lock, known.anew),
            Begun::Now(run, lock) => (run, RunState::Open, lock, false),
        };
        let is_cap_new = keep.max_cost.is_some() && keep.max_cost != outcome.max_cost;
        outcome.max_cost = keep.max_cost.or(outcome.max_cost);
        if !files.is_empty() || !replaceable.is_empty() || is_cap_new {
            // Before anything is asked or written: the session after one that is killed finds its cap and its files.
            outcome.open(&files);
            outcome.allow(replaceable);
            store.note(run, &serde_json::to_value(&outcome).unwrap_or_default()).await?;
        }
        let before = store.spent_by(run).await?;
        pointsman.purses().learn(&*store).await?;
        pointsman.restore_day(&*store).await?;
        let session = store.begin(run, Some(&outline), anew).await?;
        pointsman.restore_sizes(&*store, run, session.last_item).await?;
        let routes: HashMap<RouteName, Vec<LaneName>> = grounds
            .routes
            .iter()
            .map(|(route, lanes)| (route.clone(), lanes.iter().map(|lane| lane.lane.clone()).collect()))
            .collect();
        let voices = grounds.routes.values().flatten().map(|lane| (lane.lane.clone(), lane.voice)).collect();
        let (runtime, left_calls) = (pointsman.runtime().clone(), pointsman.left_calls());
        let ledger = Ledger::counting(store.clone(), runtime, left_calls);
        let keeping = Arc::new(Keeping {
            ledger,
            run,
            session,
            keep_inputs: keep.keep_inputs,
            retry: keep.retry,
            met: Mutex::default(),
            lined: Mutex::default(),
            absent,
            partly: keep.partly,
            had,
            had_answers: sums.open + sums.completed > 0,
            voices,
            routes,
        });
        let whole = match state {
            _ if !keep.partly => RunState::Complete,
            // Nobody knows what of its input is left.
            RunState::Open => RunState::Stopped,
            // A change reaches the others, too.
            _ if anew => RunState::Stopped,
            before => before,
        };
        Ok(Open {
            keeping,
            store,
            before,
            files: keep.files,
            input: None,
            whole,
            outcome,
            outputs: files,
            partly: keep.partly,
            _lock: lock,
        })
    }
}

/// A run whose session is about to begin.
enum Begun {
    /// It was there before.
    Before(Box<Known>),
    /// It has just been made.
    Now(RunNumber, RunLock),
}

/// Makes a run. Of two that begin the same one at once, one makes it, and the other finds it. The lock for that is held
/// only here: a run that is prepared and never begins holds up no other.
async fn begin_new(keep: &Keep, outline: &Outline, grounds: &Grounds) -> Result<Begun, Error> {
    let beginning = beginning(&*keep.store).await?;
    if let Some(run) = keep.find().await? {
        drop(beginning);
        let known = keep.known(run, grounds, true).await?;
        let settled = known.sums.settled();
        // Its output was prepared as that of a run that has nothing yet.
        return if settled > 0 {
            Err(Error::BegunMeanwhile { run, settled })
        } else {
            Ok(Begun::Before(Box::new(known)))
        };
    }
    let run = keep.store.create(&keep.identity, outline).await?;
    Ok(Begun::Now(run, keep.store.lock(run)?))
}

/// Lets one process at a time begin a run in a store.
async fn beginning(store: &dyn Store) -> Result<RunLock, Error> {
    let end = Instant::now() + MAX_CREATION;
    loop {
        match store.lock(NEW) {
            Ok(lock) => return Ok(lock),
            Err(store::Error::Busy { .. }) if Instant::now() < end => sleep(Duration::from_millis(20)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

impl Keep {
    /// Returns the run that goes on; `None` when a new one begins. What was cancelled begins anew.
    async fn find(&self) -> Result<Option<RunNumber>, Error> {
        if let Some(run) = self.run {
            return Ok(Some(run));
        }
        let found = if self.anew { None } else { self.store.find(&self.identity).await? };
        Ok(found.filter(|run| run.state != RunState::Cancelled).map(|run| run.number))
    }

    /// Locks a run that is there, and compares what it depends on with what it did when it began. `attaches` is whether
    /// its items attach files.
    async fn known(&self, run: RunNumber, grounds: &Grounds, attaches: bool) -> Result<Known, Error> {
        let (keep, store) = (self, &self.store);
        let lock = store.lock(run)?;
        // Read under the lock: another process may have accepted changes since it was found.
        let run = store.run(run).await?;
        let is_simulated = keep.identity.ends_with(SIMULATED);
        match (is_simulated, was_simulated(&run)) {
            (true, false) => return Err(Error::RealRun(run.number)),
            (false, true) => return Err(Error::SimulatedRun(run.number)),
            (true, true) | (false, false) => {}
        }
        let before = Grounds::of_run(&run)?;
        let changes = before.changes(grounds);
        let sums = store.sums(run.number).await?;
        let of_input = sums_of_input(&**store, &run).await?;
        let mut notes = Vec::new();
        if !changes.is_empty() && !keep.accept_changes {
            let answered = store.answers(run.number).await?;
            if changes.discard(&answered, sums.settled(), &before, grounds) {
                let (answers, stay) =
                    (answered.values().sum(), changes.stay_valid(&answered, &before, grounds));
                let (run, settled) = (run.number, sums.settled());
                return Err(Error::Changed { run, changes: Box::new(changes), settled, answers, stay });
            }
            let number = run.number;
            notes.push(format!(
                "run {number} has changed since it began: {changes}; every answer stays valid"
            ));
        }
        // Attached files are compared item by item.
        let is_as_before = run.state == RunState::Complete
            && changes.is_empty()
            && run.outline.places == keep.places
            && !attaches;
        let nothing_left = is_as_before && files_hold(&run).await;
        Ok(Known { run, lock, sums, of_input, anew: changes.reach_items(), nothing_left, notes })
    }
}

impl Pointsman {
    /// Looks for the run of `keep`, so that it can go on, or begin. Nothing is asked and nothing changed yet, and a run
    /// that is to begin holds nothing.
    ///
    /// # Errors
    /// When the store cannot be used, another process works on the run, or the run has changed and that is not
    /// accepted.
    pub async fn keep(&self, pipeline: &Pipeline, mut keep: Keep) -> Result<Kept, Error> {
        let is_simulated = self.is_simulated(pipeline);
        if is_simulated {
            keep.identity.push_str(SIMULATED);
        }
        let grounds = Grounds::of(pipeline, |route| self.lane_grounds(route));
        let written = serde_json::to_value(&grounds).map_err(|error| Error::Grounds(error.to_string()))?;
        let outline = Outline {
            name: pipeline.name().to_owned(),
            places: keep.places.clone(),
            pipeline: pipeline.text().to_owned(),
            grounds: written,
        };
        let known = match keep.find().await? {
            Some(run) => Some(keep.known(run, &grounds, pipeline.attaches()).await?),
            None => None,
        };
        Ok(Kept { keep, outline, grounds, known, is_simulated, others: Vec::new(), replaceable: Vec::new() })
    }

    /// Returns whether the simulator plays a target that `pipeline` asks.
    pub fn is_simulated(&self, pipeline: &Pipeline) -> bool {
        let is_simulated =
            |route: &RouteName| self.lanes_of(route).any(|(_, settings, _)| settings.is_practice());
        pipeline.routes().any(is_simulated)
    }

    /// Returns what the lanes of a route are, as far as answers depend on it.
    fn lane_grounds(&self, route: &RouteName) -> Vec<LaneGround> {
        let ground = |(lane, settings, model): (&LaneName, &Settings, &Model)| {
            let voice = Voice {
                format: settings.format.as_str(),
                model: &model.name,
                practice: settings.is_practice(),
                structured: settings.dialect.structured.unless_default(),
                reasoning_tags: settings.unusual_reasoning_tags(),
                max_tokens: model.max_tokens.map(Into::into),
                temperature: model.temperature,
            };
            let voice: Fingerprint = voice.fingerprint();
            let address = settings.base_url.clone();
            LaneGround { lane: lane.clone(), voice, price: model.price, address }
        };
        self.lanes_of(route).map(ground).collect()
    }

    /// Returns the usable lanes of a route.
    pub(super) fn lanes_of(&self, route: &RouteName) -> impl Iterator<Item = (&LaneName, &Settings, &Model)> {
        let usable = self.usable();
        let lanes = usable.route(route).map(|route| route.lanes.as_slice()).unwrap_or_default();
        lanes.iter().filter_map(|lane| {
            let ready = usable.providers.get(&lane.name.provider)?;
            Some((&lane.name, &ready.settings, ready.settings.models.get(&lane.name.model)?))
        })
    }
}

/// Returns whether a run's answers are simulated.
pub(super) fn was_simulated(run: &KnownRun) -> bool {
    run.identity.ends_with(SIMULATED) || run.identity.ends_with(PRACTICE)
}

/// Returns whether the files of a complete run are as it left them.
async fn files_hold(run: &KnownRun) -> bool {
    let outcome = outcome_of(run);
    let hold = move || !outcome.files.is_empty() && marks::hold(&outcome.files);
    tokio::task::spawn_blocking(hold).await.unwrap_or(false)
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use super::*;
    use crate::store::Sqlite;

    #[tokio::test]
    async fn the_lock_for_new_runs_is_waited_for_as_long_as_its_holder_may_wait_for_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        let held = store.lock(NEW).unwrap();
        tokio::time::pause();
        let (lock, ()) = tokio::join!(beginning(&store), async {
            sleep(store::MAX_WAIT).await;
            drop(held);
        });
        let held = lock.unwrap();
        let refused = beginning(&store).await;
        assert!(matches!(refused, Err(Error::Store(store::Error::Busy { .. }))), "{refused:?}");
        drop(held);
    }
}
