//! The things that can go wrong, by name.
//!
//! Says nothing of when or to whom.

use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Answers 429 although no limit was reached.
    RateLimited,
    /// Answers 500, or `status`.
    ServerError,
    /// Answers 503, or `status`.
    Unavailable,
    /// Answers as an overloaded vendor does (529 at Anthropic, 503 elsewhere), or with `status`.
    Overloaded,
    /// Resets the connection before any header.
    Reset,
    /// Takes the request and never answers.
    Silent,
    /// Lets the first piece of the answer come only after `delay`.
    SlowFirstToken,
    /// Closes the connection in the middle of the answer.
    Cut,
    /// Stops in the middle of the answer and keeps the connection open.
    Stalled,
    /// Breaks the JSON of one piece of the answer.
    MalformedChunk,
    /// Ends the stream properly but without its terminal mark. Only streams.
    NoEnd,
    /// Cuts the JSON and yet says that it is finished: in a stream the structured answer, else the body.
    TruncatedJson,
    /// Answers a page of HTML with status 200, or `status`.
    Html,
    /// Answers properly, but not with the schema or choice that was asked for. Not for plain text.
    WrongContent,
    /// Answers properly, with nothing.
    Empty,
    /// Cuts the answer and says that `max_tokens` was reached.
    Length,
    /// Refuses in the model's name, as each vendor marks it.
    Refusal,
    /// Rejects the key.
    Auth,
    /// Says that the account's money or daily quota is spent.
    Quota,
    /// Says that there is no such model.
    NotFound,
    /// Reports an error inside a 200: in a stream after its first piece.
    ErrorInStream,
    /// A firewall before the API answers 403 and a page of HTML.
    Firewall,
    /// Refuses with a 403 that does not say what is refused.
    Forbidden,
    /// Refuses with a 403 that names the model.
    ModelForbidden,
    /// Refuses with a 403 that names a file of the request.
    FileForbidden,
    /// Refuses with a 402: the account cannot afford as many `max_tokens`.
    MaxTokensUnaffordable,
}

impl FaultKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 26] = [
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
    ];

    /// Says whether its status can be chosen.
    pub(super) fn takes_status(self) -> bool {
        matches!(self, Self::ServerError | Self::Unavailable | Self::Overloaded | Self::Html)
    }

    /// Says whether this fault is decided at the door: it costs nothing of the account's limits.
    pub(in crate::simulator) fn at_the_door(self) -> bool {
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
