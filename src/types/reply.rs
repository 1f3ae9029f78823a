//! What a model said, in no provider's format.

use super::Usage;

/// A whole reply: `wire` makes one only when the provider marked its end and the model had said
/// everything. An answer cut by its `max_tokens` is a failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The answer's text. For a JSON shape this is the JSON text, not yet checked.
    pub text: String,
    /// What was used; `None` when the provider did not say, which is unknown and not zero.
    pub usage: Option<Usage>,
    /// The model that answered, as the provider names it; empty when it did not say.
    pub model: String,
    /// The provider's own id of the request, for its support.
    pub request_id: Option<String>,
}
