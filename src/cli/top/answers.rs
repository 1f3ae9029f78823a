//! What the screen reads of the daemon's answers.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::remote::views::ScopeWaitView;
use crate::run::Items;
use crate::store::RunNumber;
use crate::types::Class;

/// A run.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct RunView {
    pub(super) run: RunNumber,
    pub(super) pipeline: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) class: Option<Class>,
    /// Set while the daemon works on it.
    pub(super) progress: Option<ProgressView>,
}

/// The progress of a run.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(super) struct ProgressView {
    pub(super) items: Items,
    pub(super) in_flight: u64,
    pub(super) items_per_second: f64,
    pub(super) cost_usd: Option<f64>,
    pub(super) calls_of_unknown_cost: u64,
    pub(super) remaining_seconds: Option<f64>,
    pub(super) input_fraction: Option<f64>,
    pub(super) holding: Option<HoldingView>,
    pub(super) waiting_for_scope: Option<ScopeWaitView>,
}

/// Why a run holds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct HoldingView {
    pub(super) target: Option<String>,
    pub(super) class: Class,
    pub(super) message: String,
    pub(super) retry_in_seconds: f64,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct EventView {
    pub(super) number: u64,
    pub(super) at: i64,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) run: Option<RunNumber>,
    pub(super) data: Value,
}
