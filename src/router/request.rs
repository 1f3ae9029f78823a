//! A request to the targets of a route.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use tokio::time::Instant;
use tracing::Span;

use crate::guard::{HeldMemory, SharedBudget};
use crate::provider::AnswerStream;
use crate::telemetry::{RequestAttributes, RequestTrace, TraceContext};
use crate::types::{Failure, Priority, Prompt, RequestContext, RequestError, Response, RouteName, ScopeName};

use super::counts::CallCounts;
use super::live_log::LiveLog;
use super::scope::Scope;
use super::stop_signal::StopSignal;

/// The failure message of a request that arrives while the router stops.
pub(super) const STOPPING_MESSAGE: &str = "pointsman is stopping and accepts no more requests";

/// The failure message of a request that the router had accepted when it stopped.
pub(super) const STOPPED_MESSAGE: &str = "pointsman has stopped before the request was answered";

/// The deadline of a request whose caller sets none.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);

/// The longest deadline. A longer one could overflow the clock.
const MAX_DEADLINE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// A request to the router: one prompt, answered by one target of a route.
///
/// ```no_run
/// use std::time::Duration;
///
/// use pointsman::{Pointsman, Priority, Prompt, Request};
///
/// # async fn example(pointsman: Pointsman) -> Result<(), Box<dyn std::error::Error>> {
/// let response = pointsman.send(Request::new("default", "Say hello.")).await?;
/// println!("{}", response.text());
///
/// let prompt = Prompt::text("Summarise the minutes: ...").with_max_tokens(500);
/// let request = Request::new("default", prompt)
///     .with_priority(Priority::Batch)
///     .with_deadline(Duration::from_secs(3600));
/// println!("{}", pointsman.send(request).await?.text());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// The route whose targets may answer.
    pub route: RouteName,
    /// The priority. An interactive request must not be delayed.
    pub priority: Priority,
    /// The time after which the response is useless.
    pub deadline: Instant,
    /// The run, item and step, for fairness between runs and for statistics.
    #[doc(hidden)]
    pub context: RequestContext,
    /// Counts its calls when they end; `None` if they are not counted.
    #[doc(hidden)]
    pub counts: Option<Arc<CallCounts>>,
    /// The budget that its calls spend; `None` if spending is not counted for a run.
    #[doc(hidden)]
    pub budget: Option<Arc<SharedBudget>>,
    /// The memory allowance that its responses take from. By default they take from that of the process until the
    /// request has ended.
    #[doc(hidden)]
    pub memory: HeldMemory,
    /// Signals that the caller stops. A call that is not sent soon after that is withdrawn.
    #[doc(hidden)]
    pub stop: Option<StopSignal>,
    /// When a stream of its answer commits to a target.
    pub stream_mode: StreamMode,
    /// Where its answer is streamed to; `None` if it is not.
    #[doc(hidden)]
    pub stream: Option<AnswerStream>,
    /// The limits and the budget of its scope; `None` if the scope has neither. The handle and the run that send the
    /// request set it.
    #[doc(hidden)]
    pub scope_limits: Option<Arc<Scope>>,
    /// Its place in a trace.
    pub(super) trace: RequestTrace,
    /// Whether its scope has admitted it.
    pub(super) is_admitted: bool,
    /// Gets its attempts while it is executed; `None` if only their end counts.
    pub(super) live_log: Option<Arc<LiveLog>>,
}

/// When a stream commits to the target that answers. From then on a failure ends the stream with an error; until then
/// the request is sent again or to another target, and the reader does not notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamMode {
    /// At the first piece of the answer. The reader gets each piece as it arrives.
    #[default]
    Live,
    /// At the end of the answer, so that a failure can be followed by a retry or another target. The reader gets the answer
    /// at once.
    Whole,
}

impl Request {
    /// Creates an interactive request with a deadline of ten minutes from now.
    pub fn new(route: impl Into<RouteName>, prompt: impl Into<Prompt>) -> Self {
        Self::from_shared(route, Arc::new(prompt.into()))
    }

    /// As [`new`](Self::new), for a prompt that the caller shares, so that it is not copied.
    #[doc(hidden)]
    pub fn from_shared(route: impl Into<RouteName>, prompt: Arc<Prompt>) -> Self {
        Self {
            prompt,
            route: route.into(),
            priority: Priority::Interactive,
            deadline: Instant::now() + DEFAULT_DEADLINE,
            context: RequestContext::default(),
            counts: None,
            budget: None,
            memory: HeldMemory::default(),
            stop: None,
            stream_mode: StreamMode::Live,
            stream: None,
            scope_limits: None,
            trace: RequestTrace::default(),
            is_admitted: false,
            live_log: None,
        }
    }

    /// Sets when a stream of its answer commits to a target.
    #[must_use]
    pub fn with_stream_mode(mut self, stream_mode: StreamMode) -> Self {
        self.stream_mode = stream_mode;
        self
    }

    /// Sets the priority.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the scope: a tenant or the holder of a token. Scopes share the providers evenly, and `[scope.NAME]` sets
    /// the limits of one.
    #[must_use]
    pub fn with_scope(mut self, scope: impl Into<ScopeName>) -> Self {
        self.context.scope = scope.into();
        self
    }

    /// Sets the trace of the caller: the request's spans belong to it, and a provider with `traceparent = true` gets it.
    /// A request without one belongs to the caller's current span, if that is traced.
    #[must_use]
    pub fn with_trace(mut self, context: TraceContext) -> Self {
        self.trace.set_context(context);
        self
    }

    /// Sets the span that it belongs to.
    #[doc(hidden)]
    #[must_use]
    pub fn with_parent_span(mut self, parent: Span) -> Self {
        self.trace.set_parent(parent);
        self
    }

    /// Sets the deadline, from now. One of more than 30 years is 30 years.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        self.with_deadline_at(Instant::now() + deadline.min(MAX_DEADLINE))
    }

    /// Sets the deadline to an instant.
    #[doc(hidden)]
    #[must_use]
    pub fn with_deadline_at(mut self, deadline: Instant) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the run, item and step.
    #[doc(hidden)]
    #[must_use]
    pub fn with_context(mut self, context: RequestContext) -> Self {
        self.context = context;
        self
    }

    /// Counts its calls when they end.
    #[doc(hidden)]
    #[must_use]
    pub fn with_counts(mut self, counts: Arc<CallCounts>) -> Self {
        self.counts = Some(counts);
        self
    }

    /// Sets the budget that its calls spend.
    #[doc(hidden)]
    #[must_use]
    pub fn with_budget(mut self, budget: Arc<SharedBudget>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Sets the memory allowance that its responses take from.
    #[doc(hidden)]
    #[must_use]
    pub fn with_memory(mut self, memory: HeldMemory) -> Self {
        self.memory = memory;
        self
    }

    /// Sets the signal that the caller stops.
    #[doc(hidden)]
    #[must_use]
    pub fn with_stop(mut self, stop: StopSignal) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Sets the limits and the budget of its scope.
    #[doc(hidden)]
    #[must_use]
    pub fn with_scope_limits(mut self, scope_limits: Option<Arc<Scope>>) -> Self {
        self.scope_limits = scope_limits;
        self
    }

    /// Returns its scope if that has limits and has not admitted the request.
    #[doc(hidden)]
    pub fn limited_scope(&self) -> Option<&Arc<Scope>> {
        self.scope_limits.as_ref().filter(|scope| scope.is_limited() && !self.is_admitted)
    }

    /// Starts its span, and returns it.
    pub(super) fn start_span(&mut self) -> Span {
        let scope = self.context.scope.as_str();
        let attributes = RequestAttributes {
            operation: if self.prompt.embedding.is_some() { "embeddings" } else { "chat" },
            route: self.route.as_str(),
            scope: (!scope.is_empty()).then_some(scope),
        };
        self.trace.start(&attributes)
    }

    /// Returns the failure that reports that the cap of its run or of its scope is reached.
    pub(super) fn cap_failure(&self) -> Option<Failure> {
        let of_run = self.budget.as_ref().and_then(|budget| budget.cap_failure());
        of_run.or_else(|| self.scope_limits.as_ref()?.cap_failure())
    }
}

impl Message for Request {
    type Result = Result<Response, Box<RequestError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_new_request_is_interactive_and_has_ten_minutes() {
        let request = Request::new("default", "Say hello.");
        assert_eq!(*request.prompt, Prompt::text("Say hello."));
        assert_eq!((request.route.as_str(), request.priority), ("default", Priority::Interactive));
        assert_eq!(request.deadline - Instant::now(), Duration::from_secs(600));
        assert_eq!(request.context, RequestContext::default());
        let batch = request.with_priority(Priority::Batch).with_deadline(Duration::from_secs(5));
        assert_eq!(batch.priority, Priority::Batch);
        assert_eq!(batch.deadline - Instant::now(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_beyond_the_clock_is_the_longest_one() {
        let request = Request::new("default", "Say hello.").with_deadline(Duration::MAX);
        assert_eq!(request.deadline - Instant::now(), MAX_DEADLINE);
    }
}
