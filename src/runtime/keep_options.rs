//! Where a run is kept, under which identity, and what of it is asked.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::store::{RunNumber, Store};
use crate::types::Class;

use super::capped::MaxCost;
use super::pause_options::PauseOptions;

/// Where a run is kept, and as which.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What is the same for every start of the same run, such as the paths of its pipeline and its items. The
    /// latest run of that identity goes on, unless it was cancelled; without one a new run begins. A simulated run
    /// never goes on as a real one, nor the other way round.
    pub identity: String,
    /// The run that goes on, whatever its identity; it must be there.
    pub run: Option<RunNumber>,
    /// Where its files are and how they are written, for whoever lists runs or goes on with one.
    pub places: Value,
    /// The files that it reads and writes: when it is complete and they are as it left them, nothing is left.
    pub files: Vec<PathBuf>,
    /// Whether a run goes on although its pipeline, its models or its prices are others than before.
    pub accept_changes: bool,
    /// Whether a new run begins although there is one.
    pub anew: bool,
    /// Whether its source has only a part of its items: then it is as complete as it was before.
    pub partly: bool,
    /// Whether only failed items are asked, of one of these classes or of any where none is named; every other item
    /// keeps its line. `None` asks what has not settled, and leaves failed items what they are.
    pub retry: Option<Vec<Class>>,
    /// Whether the fields of every item are kept, or of failed ones only.
    pub keep_inputs: bool,
    /// Most that all sessions of the run together may spend. It is stored with the run and holds in later sessions
    /// until another is named. `None` leaves the one that was named last; where none was, `[budget] run` says it.
    pub max_cost: Option<MaxCost>,
    /// When the run pauses.
    pub pause: PauseOptions,
}

impl Keep {
    /// Keeps the run of that identity in `store`, and goes on with it as long as nothing has changed.
    ///
    /// A run that meets its cap pauses: it takes no more items, lets those calls end that are out, and reports
    /// [`Ended::Paused`](crate::run::Ended::Paused). The same call with a higher cap goes on.
    ///
    /// ```no_run
    /// # use pointsman::runtime::Keep;
    /// # fn example(store: std::sync::Arc<dyn pointsman::store::Store>) {
    /// let mut keep = Keep::new(store, "tickets.toml on tickets.jsonl");
    /// keep.max_cost = Some(pointsman::types::NanoUsd(5_000_000_000).into()); // $5.00
    /// # }
    /// ```
    pub fn new(store: Arc<dyn Store>, identity: impl Into<String>) -> Self {
        Self {
            store,
            identity: identity.into(),
            run: None,
            places: Value::Null,
            files: Vec::new(),
            accept_changes: false,
            anew: false,
            partly: false,
            retry: None,
            keep_inputs: true,
            max_cost: None,
            pause: PauseOptions::default(),
        }
    }
}
