//! A request for embeddings, and its result. The router treats it as any other request.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::TraceContext;
use crate::types::{
    AttemptLog, EmbeddingOptions, NanoUsd, Priority, Prompt, Response, RouteName, ScopeName, TargetName,
    Usage,
};

use super::request::Request;

/// A request for embeddings: vectors of numbers that represent texts, such as for a search by meaning.
///
/// It is sent along a route as a [`Request`] is, with the same limits, retries, failover and budgets. A target whose
/// format has no embeddings (Anthropic's, OpenAI's responses) is left out. All targets of the route should be the
/// same model: vectors of different models cannot be compared.
#[derive(Debug, Clone)]
pub struct EmbeddingRequest {
    request: Request,
}

impl EmbeddingRequest {
    /// Creates an interactive request for one vector per input, with a deadline of ten minutes from now. There are 1 to
    /// 2,048 inputs, and none is empty.
    pub fn new(route: impl Into<RouteName>, inputs: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        let prompt = Prompt::embeddings(inputs, EmbeddingOptions::default());
        Self { request: Request::new(route, prompt) }
    }

    /// Sets the number of dimensions of each vector, for models that can shorten them. Zero leaves it to the model, as
    /// without this setting.
    #[must_use]
    pub fn with_dimensions(self, dimensions: u32) -> Self {
        let options = EmbeddingOptions::new(NonZeroU32::new(dimensions));
        self.with_prompt(|prompt| Prompt { embedding: Some(options), ..prompt })
    }

    /// Sets the priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { request: self.request.with_priority(priority) }
    }

    /// Sets the scope, as [`Request::with_scope`] does.
    #[must_use]
    pub fn with_scope(self, scope: impl Into<ScopeName>) -> Self {
        Self { request: self.request.with_scope(scope) }
    }

    /// Sets the trace of the caller, as [`Request::with_trace`] does. A joined call is in the trace of the first caller.
    #[must_use]
    pub fn with_trace(self, context: TraceContext) -> Self {
        Self { request: self.request.with_trace(context) }
    }

    /// Sets the deadline, from now. One of more than 30 years is 30 years.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { request: self.request.with_deadline(deadline) }
    }

    /// Sets the end user, for the provider's abuse detection. Gemini's format has no such field.
    #[must_use]
    pub fn with_user(self, user: impl Into<Arc<str>>) -> Self {
        self.with_prompt(|prompt| prompt.with_user(user))
    }

    fn with_prompt(mut self, change: impl FnOnce(Prompt) -> Prompt) -> Self {
        self.request.prompt = Arc::new(change(Arc::unwrap_or_clone(self.request.prompt)));
        self
    }
}

impl From<EmbeddingRequest> for Request {
    fn from(request: EmbeddingRequest) -> Self {
        request.request
    }
}

/// The vectors of an [`EmbeddingRequest`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Embeddings {
    /// One vector per input, in the order of the inputs. All have the same number of dimensions.
    pub vectors: Vec<Arc<[f32]>>,
    /// The target that answered.
    pub target: TargetName,
    /// The model that answered, as the provider names it; empty if the provider did not report it.
    pub model: String,
    /// The tokens used; `None` if the provider did not report them, as Gemini does not.
    pub usage: Option<Usage>,
    /// The cost; `None` if the price or the usage is unknown.
    pub cost: Option<NanoUsd>,
    /// All attempts, the successful one last.
    pub attempts: AttemptLog,
    /// The provider's id of the request, for the provider's support.
    pub request_id: Option<String>,
    /// Whether a simulated provider answered; its vectors are generated.
    pub simulated: bool,
}

impl From<Response> for Embeddings {
    fn from(response: Response) -> Self {
        let Response { completion, target, simulated, cost, attempts, resends: _ } = response;
        Self {
            vectors: completion.embeddings,
            target,
            model: completion.model,
            usage: completion.usage,
            cost,
            attempts,
            request_id: completion.request_id,
            simulated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_setter_of_a_request_sets_its_field() {
        let caller = TraceContext::random();
        let request = EmbeddingRequest::new("search", ["low tide", "high tide"])
            .with_trace(caller.clone())
            .with_dimensions(256)
            .with_priority(Priority::Batch)
            .with_user("user-1")
            .with_scope("team-a")
            .with_deadline(Duration::from_secs(7));
        let Request { prompt, route, priority, deadline, context, trace, .. } = Request::from(request);
        assert_eq!(trace.call(1, false).context.as_deref(), Some(&caller));
        assert_eq!(context.scope.as_str(), "team-a");
        let options = EmbeddingOptions::new(NonZeroU32::new(256));
        assert_eq!(*prompt, Prompt::embeddings(["low tide", "high tide"], options).with_user("user-1"));
        assert_eq!((route.as_str(), priority), ("search", Priority::Batch));
        assert_eq!(deadline - tokio::time::Instant::now(), Duration::from_secs(7));
        let without = EmbeddingRequest::new("search", ["low tide"]).with_dimensions(0);
        assert_eq!(Request::from(without).prompt.embedding, Some(EmbeddingOptions::default()));
    }
}
