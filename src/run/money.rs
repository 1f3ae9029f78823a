//! What a run may spend and has spent, as its progress and its report tell it.
//!
//! Only looks; what holds the calls back are the purses themselves.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::guard::{Met, Purse, PurseOf, PurseState};
use crate::types::ProviderName;

/// The purses that a run's calls spend from.
#[derive(Debug, Clone)]
pub struct RunPurses {
    /// Its own.
    pub own: Arc<Purse>,
    /// The day's, and those of the providers that its routes lead to.
    pub shared: Vec<Arc<Purse>>,
}

/// A cap and what counts against it, in US dollars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cap {
    /// What it holds.
    pub of: CapOf,
    /// Whose it is, where it is a provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderName>,
    /// The cap.
    pub cap_usd: f64,
    /// What is spent: by all sessions of the run, or by everything today. What is perhaps charged is in it.
    pub spent_usd: f64,
    /// The part of it that nobody knows for sure: calls that may have been charged for and did not tell what they
    /// used count with what was reserved for them.
    pub perhaps_usd: f64,
    /// What is reserved for calls that are out.
    pub reserved_usd: f64,
    /// How much more than the cap was spent.
    pub overshoot_usd: f64,
    /// How things were when it was met; `None` (`null`) while it is not.
    pub met: Option<CapMet>,
}

/// What a cap holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapOf {
    /// The run, all of its sessions together.
    Run,
    /// Everything in a day, UTC.
    Day,
    /// A provider in a day.
    Provider,
}

/// How things were when a cap was met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CapMet {
    /// What the call was likely to cost that did not fit any more, or that came back and had cost more than was left;
    /// in US dollars.
    pub likely_usd: f64,
    /// Calls that were out then, that one among them if it was.
    pub calls_in_flight: u64,
    /// What was reserved for them, in US dollars.
    pub in_flight_usd: f64,
}

impl RunPurses {
    /// Makes the purses of a run that nothing holds.
    pub fn uncapped() -> Self {
        Self { own: Purse::of_run(None, Default::default(), false), shared: Vec::new() }
    }

    /// Returns every cap that holds the run, its own first.
    pub fn caps(&self) -> Vec<Cap> {
        [&self.own].into_iter().chain(&self.shared).filter_map(|purse| cap(purse)).collect()
    }

    /// Says which cap is met, and by how much now; `None` while none is.
    pub fn met(&self) -> Option<String> {
        let met = [&self.own].into_iter().chain(&self.shared).find_map(|purse| purse.met());
        met.map(|met| met.message.to_string())
    }

    /// Returns what its calls perhaps cost, in this session, in US dollars.
    pub fn perhaps_usd(&self) -> f64 {
        self.own.by_provider().values().map(|booked| booked.perhaps).sum::<crate::types::NanoUsd>().dollars()
    }
}

fn cap(purse: &Purse) -> Option<Cap> {
    let PurseState { cap, spent, reserved, overshoot, met } = purse.state();
    let (of, provider) = match purse.of() {
        PurseOf::Run => (CapOf::Run, None),
        PurseOf::Day => (CapOf::Day, None),
        PurseOf::Provider(provider) => (CapOf::Provider, Some(provider.clone())),
    };
    let met = met.map(|Met { likely, calls, reserved }| CapMet {
        likely_usd: likely.dollars(),
        calls_in_flight: calls,
        in_flight_usd: reserved.dollars(),
    });
    Some(Cap {
        of,
        provider,
        cap_usd: cap?.dollars(),
        spent_usd: spent.all().dollars(),
        perhaps_usd: spent.perhaps.dollars(),
        reserved_usd: reserved.dollars(),
        overshoot_usd: overshoot.dollars(),
        met,
    })
}
