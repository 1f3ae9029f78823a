//! The estimate of a run, its steps and its targets.

use std::fmt;

use indexmap::IndexMap;
use serde::Serialize;

use crate::types::{Price, RouteName, StepName, TargetName};

use super::range::Range;

/// The estimate of a run. Costs are in US dollars, durations in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// Items of the input.
    pub items: u64,
    /// Lines of the input that are not valid items.
    pub rejected: u64,
    /// Items of the sample; 0 without one.
    pub sampled: u64,
    /// Items of the sample that failed.
    pub sample_failed: u64,
    /// Calls.
    pub calls: Range,
    /// Why no call is expected, if none is.
    pub no_calls: Option<NoCalls>,
    /// Input tokens.
    pub input: Range,
    /// Output tokens.
    pub output: Range,
    /// The cost of the run; `None` if a price is not known.
    pub cost_usd: Option<Range>,
    /// The cost of the sample, which is part of the run's cost.
    pub spent_usd: Option<f64>,
    /// By step, in the pipeline's order.
    pub steps: IndexMap<StepName, StepPlan>,
    /// The targets of each route, in their order.
    pub routes: IndexMap<RouteName, Vec<TargetPlan>>,
    /// The minimum duration by each known limit, the longest first.
    pub bounds: Vec<Bound>,
}

/// Why a plan expects no call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCalls {
    /// The input has no items.
    NoItems,
    /// Every line of the input was rejected.
    AllRejected {
        /// Why the first line was rejected.
        reason: String,
    },
    /// Every rendered item fails before its first request.
    AllFail {
        /// The failed step of the first item.
        step: StepName,
        /// The error of that step.
        message: String,
    },
    /// No rendered item has a step to run: every condition is false.
    AllSkipped,
}

impl fmt::Display for NoCalls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoItems => out.write_str("the input has no items"),
            Self::AllRejected { reason } => {
                write!(out, "all of the input is rejected; the first rejection: {reason}")
            }
            Self::AllFail { step, message } => {
                write!(out, "every item fails before its first request; the first at step {step}: {message}")
            }
            Self::AllSkipped => out.write_str("no item has a step to run: every condition (`when`) is false"),
        }
    }
}

/// The estimate of one step.
#[derive(Debug, Clone, Serialize)]
pub struct StepPlan {
    /// The route of its requests.
    pub route: RouteName,
    /// As in [`Plan`]. Requests for embeddings count as if none were joined, or are joined as in the sample.
    pub calls: Range,
    /// As in [`Plan`].
    pub input: Range,
    /// As in [`Plan`].
    pub output: Range,
    /// As in [`Plan`], at the prices of the targets that answered the sample, or of [`estimated_at`](Self::estimated_at).
    pub cost_usd: Option<Range>,
    /// The target whose price the cost has: the first usable one of the route, or its first one if none is usable.
    /// `None` with a sample.
    pub estimated_at: Option<TargetName>,
    /// How its requests use the provider's cache; `None` if they share too little to be cached anywhere.
    pub cache: Option<CachePlan>,
    /// How its requests for embeddings are joined; `None` if none are.
    pub joined: Option<JoinedPlan>,
}

impl StepPlan {
    /// Returns its fewest calls: those in which its requests for embeddings are joined in the best case.
    pub fn min_calls(&self) -> Range {
        self.joined.map_or(self.calls, |joined| joined.min_calls)
    }
}

/// How the requests of a step for embeddings are joined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct JoinedPlan {
    /// Maximum number of texts in a call.
    pub max_inputs: u64,
    /// Its calls if every one is full. Fewer texts are joined if fewer items are ready at the same time.
    pub min_calls: Range,
}

/// How the requests of a step use the cache of the route's first usable target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CachePlan {
    /// Estimated tokens of the beginning that the requests share.
    pub shared_tokens: u64,
    /// How many tokens it needs to be cached; `None` if the route has no target.
    pub min_tokens: Option<u64>,
    /// Whether it is cached.
    pub cached: bool,
    /// The cost of the step if it were not; `None` if it is not, or if a price is not known.
    pub uncached_cost_usd: Option<Range>,
}

/// One target of a route, with its cost if it answered all requests of the route that it can answer: a target without
/// embeddings cannot answer those of a step with `embed`.
#[derive(Debug, Clone, Serialize)]
pub struct TargetPlan {
    /// The target.
    pub target: TargetName,
    /// The price of its tokens.
    pub price: Option<Price>,
    /// The cost of these requests at this target.
    pub cost_usd: Option<Range>,
    /// Its share of the sample's calls.
    pub share: Option<f64>,
    /// Whether the target is simulated.
    pub simulated: bool,
    /// Whether the target has a key.
    pub usable: bool,
}

/// One limit, and the duration of a run if only this limit applied.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// The provider or target that has the limit.
    pub limit_of: String,
    /// The limit, as text.
    pub limit: String,
    /// Seconds.
    pub seconds: Range,
}
