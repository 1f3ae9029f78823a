//! Failures and the retry decision for each.
//!
//! A failure is classified in the module where it occurs. Later decisions use the [`RetryAction`] and never a
//! status code. The message is for the user.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, FailureScope, RateLimitResource, Usage};

/// The class of the failure of a call, a step or an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// The provider rejected the request because of a rate limit.
    RateLimit,
    /// The account's credit or its daily quota is exhausted.
    Quota,
    /// The provider reported that it is overloaded.
    Overloaded,
    /// The provider failed internally.
    ServerError,
    /// The provider could not be reached, or the connection broke before the response began.
    NetworkError,
    /// The provider sent nothing for longer than the timeout.
    Timeout,
    /// The response could not be parsed, was cut off, or ended without a finish reason.
    Unreadable,
    /// The provider rejected the key.
    Auth,
    /// The provider does not have the model or the URL path.
    NotFound,
    /// The prompt does not fit the model.
    TooLong,
    /// The provider's content filter, or the model itself, refused.
    ContentFilter,
    /// The provider rejected the request as invalid.
    ApiError,
    /// The answer reached `max_tokens` and is cut.
    Truncated,
    /// The answer failed validation after all validation retries, or the provider's own validation.
    ValidationError,
    /// The item lacks a value that the pipeline's templates need.
    TemplateError,
    /// A budget was exhausted.
    Budget,
    /// No target answered before the deadline, or a large template or validation was still queued at the
    /// deadline.
    Deadline,
    /// The run was cancelled.
    Cancelled,
    /// An internal error: an actor, a call or a validation panicked, or a validation took too long.
    Internal,
}

impl Class {
    /// All classes, in the order of the documentation.
    pub const ALL: [Self; 19] = [
        Self::RateLimit,
        Self::Quota,
        Self::Overloaded,
        Self::ServerError,
        Self::NetworkError,
        Self::Timeout,
        Self::Unreadable,
        Self::Auth,
        Self::NotFound,
        Self::TooLong,
        Self::ContentFilter,
        Self::ApiError,
        Self::Truncated,
        Self::ValidationError,
        Self::TemplateError,
        Self::Budget,
        Self::Deadline,
        Self::Cancelled,
        Self::Internal,
    ];

    /// Returns the name that output lines and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Quota => "quota",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::NetworkError => "network_error",
            Self::Timeout => "timeout",
            Self::Unreadable => "unreadable",
            Self::Auth => "auth",
            Self::NotFound => "not_found",
            Self::TooLong => "too_long",
            Self::ContentFilter => "content_filter",
            Self::ApiError => "api_error",
            Self::Truncated => "truncated",
            Self::ValidationError => "validation_error",
            Self::TemplateError => "template_error",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// Returns whether the failure is evidence that the provider is unhealthy. No `_` arm, so that a new class
    /// does not compile without a decision.
    pub fn is_provider_fault(self) -> bool {
        match self {
            Self::Overloaded | Self::ServerError | Self::NetworkError | Self::Timeout | Self::Unreadable => {
                true
            }
            Self::RateLimit
            | Self::Quota
            | Self::Auth
            | Self::NotFound
            | Self::TooLong
            | Self::ContentFilter
            | Self::ApiError
            | Self::Truncated
            | Self::ValidationError
            | Self::TemplateError
            | Self::Budget
            | Self::Deadline
            | Self::Cancelled
            | Self::Internal => false,
        }
    }
}

impl Class {
    /// Returns what the failure is attributed to. No `_` arm, so that a new class does not compile without a
    /// decision.
    pub fn attribution(self) -> Attribution {
        match self {
            Self::Overloaded | Self::ServerError | Self::NetworkError | Self::Timeout | Self::Unreadable => {
                Attribution::Attempt
            }
            Self::RateLimit => Attribution::Limit,
            Self::Quota | Self::Auth | Self::Budget => Attribution::Account,
            Self::NotFound
            | Self::TooLong
            | Self::ContentFilter
            | Self::ApiError
            | Self::Truncated
            | Self::ValidationError
            | Self::TemplateError => Attribution::Request,
            Self::Deadline | Self::Cancelled | Self::Internal => Attribution::Router,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// What a failure is attributed to. It determines what happens to the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribution {
    /// The attempt: the provider failed. This is no evidence about the request unless other requests succeed
    /// meanwhile.
    Attempt,
    /// A rate limit: the request has to wait.
    Limit,
    /// The account: its key, its credit or its quota.
    Account,
    /// The request: its content, its template or its answer.
    Request,
    /// This program: a deadline, a cancellation or an internal error.
    Router,
}

/// The router's action after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryAction {
    /// Retry the same target, not before `after` has passed if it is set.
    Retry {
        /// The wait that the provider requested.
        after: Option<Duration>,
    },
    /// Use another target now.
    Failover,
    /// Fail the request: a retry would fail in the same way.
    Fail,
}

/// Whether the provider may have charged for a failed call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Charged {
    /// The provider rejected the call before any work.
    #[default]
    No,
    /// The outcome of the call is unknown, or it was cut after work began.
    Maybe,
}

/// A requested wait of this length or more is ignored: believing it would disable a whole provider.
const MAX_CREDIBLE_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The failure of a call, with all that is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{class}: {message}")]
#[non_exhaustive]
pub struct Failure {
    /// The class of the failure.
    pub class: Class,
    /// The message, in the provider's words if there are any.
    pub message: Box<str>,
    /// The HTTP status, for display only. Decisions do not use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's own error code, such as `insufficient_quota`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Box<str>>,
    /// The cause, where it decides which remedy helps.
    #[serde(skip)]
    #[doc(hidden)]
    pub cause: Option<Cause>,
    /// The scope, where the class does not determine it.
    #[serde(skip)]
    #[doc(hidden)]
    pub scope: FailureScope,
    /// The wait that the provider requested or that a limit requires. An estimate only if the request was not accepted
    /// because a queue was full or its scope was at its limits, unlike
    /// [`RequestError::expected_wait`](super::RequestError::expected_wait).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// The resource whose rate limit was reached, if the provider reported it.
    #[serde(skip)]
    #[doc(hidden)]
    pub limited_resource: Option<RateLimitResource>,
    /// Whether the call may have been charged.
    #[serde(default)]
    pub charged: Charged,
    /// The tokens used despite the failure, if the provider reported them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Box<Usage>>,
    /// The output of the model, if a validation or a limit caused the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Box<str>>,
}

impl Failure {
    /// Creates a failure of a call that was not charged.
    pub fn new(class: Class, message: impl Into<Box<str>>) -> Self {
        Self {
            class,
            message: message.into(),
            status: None,
            code: None,
            cause: None,
            scope: FailureScope::Class,
            retry_after: None,
            limited_resource: None,
            charged: Charged::No,
            usage: None,
            text: None,
        }
    }

    /// Marks the call as possibly charged.
    #[must_use]
    #[doc(hidden)]
    pub fn maybe_charged(mut self) -> Self {
        self.charged = Charged::Maybe;
        self
    }

    /// Sets the tokens used and marks the call as possibly charged.
    #[must_use]
    #[doc(hidden)]
    pub fn with_usage(mut self, usage: Option<Usage>) -> Self {
        self.usage = usage.map(Box::new);
        self.maybe_charged()
    }

    /// Sets the scope.
    #[must_use]
    #[doc(hidden)]
    pub fn with_scope(mut self, scope: FailureScope) -> Self {
        self.scope = scope;
        self
    }

    /// Sets the cause.
    #[must_use]
    #[doc(hidden)]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Sets the provider's own error code.
    #[must_use]
    #[doc(hidden)]
    pub fn with_code(mut self, code: impl Into<Box<str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Returns the wait that the provider requested; `None` if it is too long to be credible.
    #[doc(hidden)]
    pub fn credible_retry_after(&self) -> Option<Duration> {
        self.retry_after.filter(|wait| *wait < MAX_CREDIBLE_RETRY_AFTER)
    }

    /// Returns whether another key of the same provider may be used for the same request.
    #[doc(hidden)]
    pub fn allows_another_key(&self) -> bool {
        matches!(self.class, Class::Auth | Class::Quota)
            || matches!(self.scope, FailureScope::Key | FailureScope::Unclear)
    }

    /// Sets the output of the model.
    #[must_use]
    #[doc(hidden)]
    pub fn with_text(mut self, text: impl Into<Box<str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Returns what to do next. No `_` arm, so that a new class does not compile without a decision.
    pub fn retry_action(&self) -> RetryAction {
        match self.class {
            Class::RateLimit if self.scope == FailureScope::Target => RetryAction::Failover,
            Class::RateLimit | Class::Overloaded | Class::ServerError => {
                RetryAction::Retry { after: self.retry_after }
            }
            Class::Quota
            | Class::NetworkError
            | Class::Timeout
            | Class::Unreadable
            | Class::Auth
            | Class::NotFound
            | Class::TooLong => RetryAction::Failover,
            Class::ContentFilter | Class::ApiError => match self.scope {
                FailureScope::Parameter(_) => RetryAction::Retry { after: None },
                FailureScope::Key | FailureScope::Target | FailureScope::Unclear => RetryAction::Failover,
                FailureScope::Class
                | FailureScope::Model
                | FailureScope::KeyUnderRecheck
                | FailureScope::Answer => RetryAction::Fail,
            },
            Class::ValidationError if self.scope == FailureScope::Answer => {
                RetryAction::Retry { after: self.retry_after }
            }
            Class::Truncated
            | Class::ValidationError
            | Class::TemplateError
            | Class::Budget
            | Class::Deadline
            | Class::Cancelled
            | Class::Internal => RetryAction::Fail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_deserializes_from_its_name() {
        for class in Class::ALL {
            let name = serde_json::to_string(&class).unwrap();
            assert_eq!(name, format!("\"{class}\""));
            assert_eq!(serde_json::from_str::<Class>(&name).unwrap(), class);
        }
    }
}
