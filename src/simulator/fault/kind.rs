//! Kinds of injected faults.

use serde::{Deserialize, Serialize};

/// Kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Responds with 429 although no limit is reached.
    RateLimited,
    /// Responds with 500, or `status`.
    ServerError,
    /// Responds with 503, or `status`.
    Unavailable,
    /// Responds as an overloaded vendor (529 at Anthropic, 503 elsewhere), or with `status`.
    Overloaded,
    /// Resets the connection before any header.
    Reset,
    /// Receives the request and never responds.
    Silent,
    /// Sends the first chunk of the answer only after `delay`.
    SlowFirstToken,
    /// Closes the connection in the middle of the answer.
    Cut,
    /// Stops in the middle of the answer and keeps the connection open.
    Stalled,
    /// Corrupts the JSON of one chunk of the answer.
    MalformedChunk,
    /// Ends the stream normally but without its end marker. Applies only to streams.
    NoEnd,
    /// Truncates JSON but marks the response as complete: the structured answer in a stream, otherwise the body.
    TruncatedJson,
    /// Responds with an HTML page and status 200, or `status`.
    Html,
    /// Responds with an answer that does not match the requested schema or choice. Does not apply to plain text.
    WrongContent,
    /// Responds with an empty answer.
    Empty,
    /// Truncates the answer and reports that `max_tokens` was reached.
    Length,
    /// Responds with a refusal of the model, in the vendor's format.
    Refusal,
    /// Rejects the key.
    Auth,
    /// Reports that the account's credit or daily quota is used up.
    Quota,
    /// Reports that the model does not exist.
    NotFound,
    /// Reports an error in a response with status 200: in a stream after its first chunk.
    ErrorInStream,
    /// A firewall in front of the API responds with 403 and an HTML page.
    Firewall,
    /// Responds with a 403 that does not name the resource.
    Forbidden,
    /// Responds with a 403 that names the model.
    ModelForbidden,
    /// Responds with a 403 that names a file of the request.
    FileForbidden,
    /// Responds with 402: the account's credits do not cover `max_tokens`.
    MaxTokensUnaffordable,
    /// Responds with a call of a tool that the request does not offer, with text or without.
    UnofferedToolCall,
}

impl FaultKind {
    /// All kinds, in the order of the documentation.
    pub const ALL: [Self; 27] = [
        Self::RateLimited,
        Self::ServerError,
        Self::Unavailable,
        Self::Overloaded,
        Self::Reset,
        Self::Silent,
        Self::SlowFirstToken,
        Self::Cut,
        Self::Stalled,
        Self::MalformedChunk,
        Self::NoEnd,
        Self::TruncatedJson,
        Self::Html,
        Self::WrongContent,
        Self::Empty,
        Self::Length,
        Self::Refusal,
        Self::Auth,
        Self::Quota,
        Self::NotFound,
        Self::ErrorInStream,
        Self::Firewall,
        Self::Forbidden,
        Self::ModelForbidden,
        Self::FileForbidden,
        Self::MaxTokensUnaffordable,
        Self::UnofferedToolCall,
    ];

    /// Returns whether the status can be set.
    pub(super) fn takes_status(self) -> bool {
        matches!(self, Self::ServerError | Self::Unavailable | Self::Overloaded | Self::Html)
    }

    /// Returns whether the fault applies before admission, and so consumes nothing of the account's limits.
    pub(in crate::simulator) fn precedes_admission(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::ServerError
                | Self::Unavailable
                | Self::Overloaded
                | Self::Reset
                | Self::Silent
                | Self::Html
                | Self::Auth
                | Self::Quota
                | Self::NotFound
                | Self::Firewall
                | Self::Forbidden
                | Self::ModelForbidden
                | Self::FileForbidden
                | Self::MaxTokensUnaffordable
        )
    }
}
