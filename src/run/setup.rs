//! The parts from which a run is created.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::router::{RequestMetrics, Router, Scope};
use crate::supervisor::Slot;
use crate::types::{Priority, ScopeName};

use super::caps::RunBudgets;
use super::failure_limit::MaxFailures;
use super::gate::RunRoute;
use super::metrics::RunMetrics;
use super::persistence::RunPersistence;
use super::progress::Progress;
use super::report::Report;
use crate::files::protected::ProtectedFiles;
use crate::pipeline::definition::Pipeline;

/// The parts from which a run is created.
#[derive(Debug)]
pub struct RunSetup {
    /// What to do with each item.
    pub pipeline: Arc<Pipeline>,
    /// The router. It is looked up for each request, because a router that was killed is restarted elsewhere.
    pub router: Slot<Router>,
    /// The priority of its requests.
    pub priority: Priority,
    /// The scope of its requests.
    pub scope: ScopeName,
    /// The limits and the budget of that scope, if it has any.
    pub scope_limits: Option<Arc<Scope>>,
    /// Maximum number of items in flight; `None` follows the capacity of the providers of its routes.
    pub window: Option<usize>,
    /// Files that its items may not attach.
    pub protected: Arc<ProtectedFiles>,
    /// Where answers are stored; `None` stores nothing.
    pub persistence: Option<Arc<RunPersistence>>,
    /// The budgets that its requests spend from.
    pub budgets: RunBudgets,
    /// The routes of its steps.
    pub routes: Vec<RunRoute>,
    /// When it pauses.
    pub limits: RunLimits,
    /// Where it counts.
    pub metrics: RunMetrics,
    /// Where its requests are counted.
    pub request_metrics: Arc<RequestMetrics>,
    /// Receives the progress.
    pub progress: Arc<watch::Sender<Progress>>,
    /// Receives the report at the end.
    pub report: oneshot::Sender<Report>,
}

/// When a run pauses.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunLimits {
    /// How long it may hold; `None` for any time.
    pub max_hold: Option<Duration>,
    /// How many of its items may fail, not counting failures of providers, limits and accounts.
    pub max_failures: MaxFailures,
    /// Whether items whose requests are held for longer than `max_hold` fail, instead of pausing the run.
    pub fail_held_items: bool,
}
