//! What the actor of an item needs for its work.

use std::sync::Arc;

use super::gate::Gate;
use super::persistence::ItemPersistence;
use super::warmup_gate::WarmupGates;
use crate::files::protected::ProtectedFiles;
use crate::guard::SharedBudget;
use crate::pipeline::definition::Pipeline;
use crate::pipeline::template::ItemHolder;
use crate::router::{CallCounts, EmbeddingBatcher, Router, Scope, StopSignal};
use crate::source;
use crate::supervisor::Slot;
use crate::telemetry::NestedSpan;
use crate::types::{Priority, RunId, ScopeName};

/// What an item needs. A second incarnation starts from it again.
pub(super) struct Job {
    pub(super) pipeline: Arc<Pipeline>,
    /// Files that it may not attach.
    pub(super) protected: Arc<ProtectedFiles>,
    pub(super) item: source::Item,
    pub(super) router: Slot<Router>,
    pub(super) priority: Priority,
    pub(super) run: RunId,
    /// The scope of its requests.
    pub(super) scope: ScopeName,
    /// The limits and the budget of that scope, if it has any.
    pub(super) scope_limits: Option<Arc<Scope>>,
    /// Counts of the run's attempts, updated as they end.
    pub(super) counts: Arc<CallCounts>,
    /// Signals that the run stops.
    pub(super) stop: StopSignal,
    /// The budget that its requests spend from.
    pub(super) budget: Arc<SharedBudget>,
    /// Where its answers are stored, if they are.
    pub(super) persistence: Option<ItemPersistence>,
    /// Where its requests wait while the run holds.
    pub(super) gate: Arc<Gate>,
    /// Joins the requests for embeddings of the run.
    pub(super) embeddings: Arc<EmbeddingBatcher>,
    /// Where its requests wait while another one warms the provider's cache.
    pub(super) warmups: Arc<WarmupGates>,
    /// The span of the item.
    pub(super) span: NestedSpan,
}

impl ItemHolder for Job {
    fn item(&self) -> &serde_json::Value {
        &self.item.value
    }
}
