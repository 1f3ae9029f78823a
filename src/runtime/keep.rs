//! Begins a run that is kept, or goes on with one: finds it, locks it, and tells what has changed since.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::guard::Purse;
use crate::ledger::Ledger;
use crate::pipeline::run::{Ended, Keeping, Report};
use crate::pipeline::{Grounds, LaneGround, Pipeline, Voice};
use crate::store::{self, Outline, RunLock, RunNumber, RunState, Store};
use crate::types::{Booked, Fingerprint, LaneName, NanoUsd, ProviderName, RouteName, whole_story};

use super::capped::book_rest;
use super::error::Error;
use super::pointsman::Pointsman;

/// Where a run is kept, and as which.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What is the same for every start of the same run, such as the paths of its pipeline and its items. The
    /// latest run of that identity goes on; without one a new run begins.
    pub identity: String,
    /// Where its files are, for whoever lists runs.
    pub places: Value,
    /// Whether a run goes on although its pipeline, its models or its prices are others than before.
    pub accept_changes: bool,
    /// Whether a new run begins although there is one.
    pub anew: bool,
    /// Whether the fields of every item are kept, or of failed ones only.
    pub keep_inputs: bool,
    /// Most that all sessions of the run together may spend; as `[budget] run` says when it is `None`. Given anew
    /// each time that the run goes on.
    pub max_cost: Option<NanoUsd>,
}

impl Keep {
    /// Keeps the run of that identity in `store`, and goes on with it as long as nothing has changed.
    ///
    /// A run that meets its cap pauses: it takes no more items, lets those calls end that are out, and reports
    /// [`Ended::Paused`]. The same call with a higher cap goes on.
    ///
    /// ```no_run
    /// # use pointsman::runtime::Keep;
    /// # fn example(store: std::sync::Arc<dyn pointsman::store::Store>) {
    /// let mut keep = Keep::new(store, "tickets.toml on tickets.jsonl");
    /// keep.max_cost = Some(pointsman::types::NanoUsd(5_000_000_000)); // $5.00
    /// # }
    /// ```
    pub fn new(store: Arc<dyn Store>, identity: impl Into<String>) -> Self {
        let identity = identity.into();
        Self {
            store,
            identity,
            places: Value::Null,
            accept_changes: false,
            anew: false,
            keep_inputs: true,
            max_cost: None,
        }
    }
}

/// A run that is open in its store, for as long as this lives.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) keeping: Arc<Keeping>,
    pub(super) store: Arc<dyn Store>,
    /// What the run had spent before.
    pub(super) before: BTreeMap<ProviderName, Booked>,
    _lock: RunLock,
}

impl Open {
    /// Notes how the run ended and what it has spent; before its lock goes.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn close(self, report: Option<&Report>, purse: &Purse) -> Result<(), String> {
        // How it ended is noted also where its spending cannot be.
        let booked = self.book(purse).await;
        self.note(report).await.map_err(|error| whole_story(&error)).and(booked)
    }

    async fn book(&self, purse: &Purse) -> Result<(), String> {
        // What is still on its way into the store would be booked twice.
        self.keeping.ledger.settle().await.map_err(|unkept| unkept.to_string())?;
        let rest = book_rest(&*self.store, self.keeping.run, purse, &self.before);
        rest.await.map_err(|error| whole_story(&error))
    }

    async fn note(&self, report: Option<&Report>) -> Result<(), store::Error> {
        let state = match report.map(|report| report.ended) {
            Some(Ended::Whole) => RunState::Complete,
            Some(Ended::Interrupted) => RunState::Stopped,
            Some(Ended::Paused) => RunState::Paused,
            Some(Ended::Broken) | None => RunState::Broken,
        };
        let outcome = report.and_then(|report| serde_json::to_value(report).ok()).unwrap_or_default();
        self.store.touch(self.keeping.run, state, &outcome).await
    }

    pub(super) fn run(&self) -> RunNumber {
        self.keeping.run
    }
}

impl Pointsman {
    /// Opens the run of `keep`, or makes it.
    pub(super) async fn open(&self, pipeline: &Pipeline, keep: &Keep) -> Result<Open, Error> {
        let store = keep.store.clone();
        let grounds = Grounds::of(pipeline, |route| self.lane_grounds(route));
        let written = serde_json::to_value(&grounds).map_err(|error| Error::Grounds(error.to_string()))?;
        let outline = Outline {
            name: pipeline.name().to_owned(),
            places: keep.places.clone(),
            pipeline: pipeline.text().to_owned(),
            grounds: written,
        };
        let known = if keep.anew { None } else { store.find(&keep.identity).await? };
        let run = match known {
            Some(known) => known.number,
            None => store.create(&keep.identity, &outline).await?,
        };
        let lock = store.lock(run)?;
        // Read under the lock: another process may have accepted changes since it was found. What cannot be read
        // was written by a version that knew less: then everything has changed.
        let before = store.run(run).await?.outline.grounds;
        let changes = serde_json::from_value::<Grounds>(before).unwrap_or_default().changes(&grounds);
        if !changes.is_empty() && !keep.accept_changes {
            let settled = store.sums(run).await?.settled();
            return Err(Error::Changed { run, changes: Box::new(changes), settled });
        }
        let before = store.spent_by(run).await?;
        let session = store.begin(run, Some(&outline), changes.reach_items()).await?;
        let routes: HashMap<RouteName, Vec<LaneName>> = grounds
            .routes
            .iter()
            .map(|(route, lanes)| (route.clone(), lanes.iter().map(|lane| lane.lane.clone()).collect()))
            .collect();
        let voices = grounds.routes.values().flatten().map(|lane| (lane.lane.clone(), lane.voice)).collect();
        let ledger = Ledger::new(store.clone(), self.runtime().clone());
        let keep_inputs = keep.keep_inputs;
        let keeping = Arc::new(Keeping { ledger, run, session, keep_inputs, voices, routes });
        self.purses().learn(&*store).await?;
        Ok(Open { keeping, store, before, _lock: lock })
    }

    /// Returns what the lanes of a route are, as far as answers depend on it.
    fn lane_grounds(&self, route: &RouteName) -> Vec<LaneGround> {
        let usable = self.usable();
        let lanes = usable.route(route).map(|route| route.lanes.as_slice()).unwrap_or_default();
        let ground = |lane: &crate::router::Lane| {
            let ready = usable.providers.get(&lane.name.provider)?;
            let model = ready.settings.models.get(&lane.name.model)?;
            let voice = Voice {
                format: ready.settings.format.as_str(),
                model: &model.name,
                practice: ready.settings.is_practice(),
                max_tokens: model.max_tokens.map(Into::into),
                temperature: model.temperature,
            };
            let voice: Fingerprint = voice.fingerprint();
            Some(LaneGround { lane: lane.name.clone(), voice, price: model.price })
        };
        lanes.iter().filter_map(ground).collect()
    }
}
