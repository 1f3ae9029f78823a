//! The completed output of a model, independent of the provider's format.

use super::Usage;

/// The completed output of a model. `wire` creates it only if the provider marked the end of the response and the
/// model finished. An answer that was cut at `max_tokens` is a failure.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// The text of the answer. For a JSON response format this is the JSON text, not yet validated.
    pub text: String,
    /// The tokens used; `None` if the provider did not report them (unknown, not zero).
    pub usage: Option<Usage>,
    /// The model that answered, as the provider names it; empty if the provider did not report it.
    pub model: String,
    /// The provider's id of the request, for the provider's support.
    pub request_id: Option<String>,
}
