//! What a run may spend: makes its purses, and books at its end what nobody has written down.
//!
//! The purse has counted every call, also those whose asker had gone; the store knows those whose end came to
//! their item. The rest is booked when the run ends, so that it counts when it goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::guard::Purse;
use crate::run::RunPurses;
use crate::store::{self, RunNumber, Store};
use crate::types::{Booked, Day, NanoUsd, ProviderName};

use super::pause_options::PauseOptions;

/// How long calls that were broken off may take to notice it.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(2);

/// The spending cap of a run, as its caller names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxCost {
    /// No cap of the run's own, whatever `[budget] run` says.
    Unlimited,
    /// All sessions of the run together may spend this much.
    Limit(NanoUsd),
}

impl MaxCost {
    /// Returns the cap that holds where this was named, or nothing was and the configuration has `configured`.
    pub(super) fn or_configured(named: Option<Self>, configured: Option<NanoUsd>) -> Option<NanoUsd> {
        match named {
            Some(Self::Limit(cap)) => Some(cap),
            Some(Self::Unlimited) => None,
            None => configured,
        }
    }
}

impl From<NanoUsd> for MaxCost {
    fn from(cap: NanoUsd) -> Self {
        Self::Limit(cap)
    }
}

/// What may be said of a run that is not kept; of one that is, [`Keep`](super::Keep) says it.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Most that it may spend; as `[budget] run` says when it is `None`.
    pub max_cost: Option<MaxCost>,
    /// When it pauses.
    pub pause: PauseOptions,
}

/// Waits until no call of the run is out any more, and for no longer than that may take.
pub(super) async fn settled(purses: &RunPurses) {
    let end = Instant::now() + LAST_CALLS;
    while purses.own.state().reserved > NanoUsd(0) && Instant::now() < end {
        sleep(LOOK).await;
    }
}

/// Books what the run has spent and the store does not know; `before` is what it had booked at the start.
pub(super) async fn book_rest(
    store: &dyn Store,
    run: RunNumber,
    purse: &Purse,
    before: &BTreeMap<ProviderName, Booked>,
) -> Result<(), store::Error> {
    let known = store.spent_by(run).await?;
    let rest = purse.by_provider().into_iter().map(|(provider, mut all)| {
        all += before.get(&provider).copied().unwrap_or_default();
        let beyond = all.beyond(known.get(&provider).copied().unwrap_or_default());
        (provider, beyond)
    });
    let rest: BTreeMap<_, _> = rest.filter(|(_, rest)| *rest != Booked::default()).collect();
    if rest.is_empty() {
        return Ok(());
    }
    store.book(run, Day::at(clock::milliseconds()), &rest).await
}
