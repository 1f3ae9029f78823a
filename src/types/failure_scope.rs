//! The scope of a failure: a key, one model, or one request.

/// The scope of a failure, where its class does not determine it. It is not stored, because it matters only while
/// the request is in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum FailureScope {
    /// Determined by the class: `auth` and `quota` affect the account, all others the request.
    #[default]
    Class,
    /// `auth` and `quota`: the provider named the model. The key may work for other models.
    Model,
    /// The provider did not say whether it rejects the key or only this request. The failure is an `api_error`
    /// until other requests show that it is the key.
    Unclear,
    /// `auth` and `quota`: the rejected key worked before, and whether it still works is not yet known.
    KeyUnderRecheck,
    /// `api_error` and `content_filter`: another key or another target may accept the request.
    Key,
    /// `api_error` and `content_filter`: another target may accept the request. `rate_limit` and `too_long`: the
    /// request exceeds the whole limit of this target, so waiting does not help. Other targets may accept it.
    Target,
    /// `api_error`: the model does not support this parameter.
    Parameter(Parameter),
    /// `validation_error`: the provider rejected the output of the model. A retry may succeed. It is not evidence
    /// about the health of the target.
    Answer,
}

/// A request parameter that can be omitted or changed if the model does not support it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Parameter {
    /// The sampling temperature.
    Temperature,
    /// The limit on output tokens, under its old name.
    MaxTokens,
    /// The option to report usage at the end of a stream.
    StreamOptions,
    /// The option that requests a JSON answer.
    ResponseFormat,
    /// The option that requests encrypted reasoning, in OpenAI's responses format.
    EncryptedReasoning,
}

impl Parameter {
    /// Returns the name of the parameter in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::MaxTokens => "max_tokens",
            Self::StreamOptions => "stream_options",
            Self::ResponseFormat => "response_format",
            Self::EncryptedReasoning => "include",
        }
    }
}

impl FailureScope {
    /// Returns whether it is not yet known if the key or only this request is rejected.
    pub fn is_undecided(self) -> bool {
        match self {
            Self::Unclear | Self::KeyUnderRecheck => true,
            Self::Class | Self::Model | Self::Key | Self::Target | Self::Parameter(_) | Self::Answer => false,
        }
    }
}
