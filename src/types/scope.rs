//! How far a refusal reaches: to everything that is asked with a key, to one model, or to one request.

/// How far a failure reaches, where its class alone does not say. It is not stored: it matters only while the
/// request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// As far as the class says: `auth` and `quota` are the account's, all others are the request's.
    #[default]
    Class,
    /// `auth` and `quota`: the provider names the model. The key may be used for others.
    Model,
    /// The provider does not say whether it refuses the key or only this request. The failure is an `api_error`
    /// until other requests have shown that it is the key.
    Unclear,
    /// `auth` and `quota`: the refused key has answered before, and whether it still works is not known yet.
    Doubtful,
    /// `api_error` and `content_filter`: another key or another target may take the request.
    Key,
    /// `api_error` and `content_filter`: another target may take the request. `rate_limit` and `too_long`: this
    /// target's limit has no room for the request however long it waits, which says nothing of other targets.
    Target,
    /// `api_error`: the model does not take this parameter.
    Parameter(Parameter),
    /// `validation_error`: the provider refused what the model had written. Asked again, the model may write what
    /// is wanted. It says nothing of the target's health.
    Answer,
}

/// What a request can do without where a model does not take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parameter {
    /// How random the answer is.
    Temperature,
    /// The limit of an answer's length under its old name.
    MaxTokens,
    /// The wish for usage at the end of a stream.
    StreamOptions,
    /// How a JSON answer is asked for.
    ResponseFormat,
}

impl Parameter {
    /// Returns its name in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::MaxTokens => "max_tokens",
            Self::StreamOptions => "stream_options",
            Self::ResponseFormat => "response_format",
        }
    }
}

impl Scope {
    /// Returns whether it is still open if the key or only this request is refused.
    pub fn is_open(self) -> bool {
        match self {
            Self::Unclear | Self::Doubtful => true,
            Self::Class | Self::Model | Self::Key | Self::Target | Self::Parameter(_) | Self::Answer => false,
        }
    }
}
