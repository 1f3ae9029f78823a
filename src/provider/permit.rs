//! Permission for one call to be out, which gives itself back.
//!
//! Nothing is counted by hand: however a call ends, and be it by a panic, its permit is dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::chaos;
use crate::guard::{Need, Pass};
use crate::types::{Failure, KeyLabel, ModelName, Reply};
use crate::wire::Hints;

use super::state::State;

/// One call that may be out.
#[derive(Debug)]
pub(super) struct Permit {
    state: Arc<State>,
    /// `None` once it is given back.
    taken: Option<Taken>,
}

/// What a call took from the provider's state when it left.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) model: ModelName,
    pub(super) key: KeyLabel,
    pub(super) pass: Pass,
    pub(super) need: Need,
}

/// How a call ended, as far as the provider's state is concerned.
pub(super) struct Ended<'a> {
    pub(super) result: &'a Result<Reply, Failure>,
    /// What the headers said, and when they came.
    pub(super) hints: Option<(Instant, Hints)>,
    pub(super) took: Duration,
    /// Whether the answer had begun.
    pub(super) began: bool,
}

impl Permit {
    pub(super) fn new(state: Arc<State>, taken: Taken) -> Self {
        Self { state, taken: Some(taken) }
    }

    /// Returns whether the call is the probe of its lane's breaker.
    pub(super) fn is_probe(&self) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.pass.is_probe())
    }

    /// Gives the permit back with what the call taught.
    pub(super) fn settle(mut self, ended: &Ended<'_>) {
        chaos::point("call.settle");
        self.state.settle(&mut self.taken, Some(ended), Instant::now());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.taken.is_some() {
            self.state.settle(&mut self.taken, None, Instant::now());
        }
    }
}
