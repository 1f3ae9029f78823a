//! What went wrong, decided once, and what to do about it.
//!
//! A failure is classified in the room where it arises. After that nobody looks at a status code:
//! the router reads the [`Verdict`], people read the message.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Cause, Limited, Scope, Usage};

/// Why a call, a step or an item failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The provider asked us to slow down.
    RateLimit,
    /// The account's money or daily quota is spent.
    Quota,
    /// The provider says that it is overloaded.
    Overloaded,
    /// The provider failed.
    ServerError,
    /// The provider could not be reached, or the connection broke before an answer began.
    NetworkError,
    /// The provider stayed silent for longer than it may.
    Timeout,
    /// The reply could not be understood, broke off, or stopped without its finish reason.
    Unreadable,
    /// The provider refused the key.
    Auth,
    /// The provider knows no such model or address.
    NotFound,
    /// The prompt does not fit the model.
    TooLong,
    /// The provider's safety systems, or the model itself, refused.
    ContentFilter,
    /// The provider refused the request as wrong.
    ApiError,
    /// The answer reached its own `max_tokens` and is cut.
    Truncated,
    /// The answer failed its check after every re-ask, or the provider's own check.
    ValidationError,
    /// The item lacks something that the pipeline's templates need.
    TemplateError,
    /// A spending cap was met.
    Budget,
    /// No lane could answer in time, or a large template or check waited for its turn until then.
    Deadline,
    /// The run was stopped.
    Cancelled,
    /// A bug of ours: an actor, a call or the check of an answer panicked; or a check took too long.
    Internal,
}

impl Class {
    /// Every class, in the order of the documentation.
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

    /// Returns the word used in output lines and reports.
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

    /// Returns whether it says that the provider is not well: it answered badly, or not at all. No `_` arm:
    /// a new class does not compile until someone has decided.
    pub fn is_providers_fault(self) -> bool {
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
    /// Returns whose failure it is. No `_` arm: a new class does not compile until someone has decided.
    pub fn whose(self) -> Whose {
        match self {
            Self::Overloaded | Self::ServerError | Self::NetworkError | Self::Timeout | Self::Unreadable => {
                Whose::Attempt
            }
            Self::RateLimit => Whose::Limit,
            Self::Quota | Self::Auth | Self::Budget => Whose::Account,
            Self::NotFound
            | Self::TooLong
            | Self::ContentFilter
            | Self::ApiError
            | Self::Truncated
            | Self::ValidationError
            | Self::TemplateError => Whose::Request,
            Self::Deadline | Self::Cancelled | Self::Internal => Whose::Ours,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Whose failure it is: what becomes of an item follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The attempt's: the provider failed, which says nothing about the request unless others succeed meanwhile.
    Attempt,
    /// The limit's: the request has to wait.
    Limit,
    /// The account's: its key, its money or its quota.
    Account,
    /// The request's: its content, its template or its answer.
    Request,
    /// Ours.
    Ours,
}

/// What the router does about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the same lane again, not before `after` when it is given.
    Again {
        /// How long the provider asked us to wait.
        after: Option<Duration>,
    },
    /// Ask another lane now.
    Elsewhere,
    /// Give up: asking again would fail again.
    Never,
}

/// Whether the provider may have charged for a failed call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charged {
    /// The provider refused it before any work.
    #[default]
    No,
    /// The call's fate is unknown, or it was cut after work had begun.
    Maybe,
}

/// A failed call, with everything that is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct Failure {
    /// Why, in one word.
    pub class: Class,
    /// Why, in the provider's words where there are any.
    pub message: Box<str>,
    /// The HTTP status, for people; no code decides by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's own error code, such as `insufficient_quota`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Box<str>>,
    /// What is known of the reason beside the class, where that decides what helps.
    #[serde(skip)]
    pub cause: Option<Cause>,
    /// How far it reaches, where the class does not say.
    #[serde(skip)]
    pub scope: Scope,
    /// How long the provider asked us to wait, or a limit requires. Never an estimate:
    /// [`Unanswered::expected_wait`](super::Unanswered::expected_wait) may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// What the rate limit counts that was met, where the provider said so.
    #[serde(skip)]
    pub limited: Option<Limited>,
    /// Whether it may have cost money.
    #[serde(default)]
    pub charged: Charged,
    /// The tokens that were used all the same, where the provider said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Box<Usage>>,
    /// What the model had said, where a check or a limit made it a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Box<str>>,
}

impl Failure {
    /// Makes a failure that cost nothing.
    pub fn new(class: Class, message: impl Into<Box<str>>) -> Self {
        Self {
            class,
            message: message.into(),
            status: None,
            code: None,
            cause: None,
            scope: Scope::Class,
            retry_after: None,
            limited: None,
            charged: Charged::No,
            usage: None,
            text: None,
        }
    }

    /// Says that the provider may have charged for it.
    #[must_use]
    pub fn maybe_charged(mut self) -> Self {
        self.charged = Charged::Maybe;
        self
    }

    /// Says what it used all the same, and so cost.
    #[must_use]
    pub fn used(mut self, usage: Option<Usage>) -> Self {
        self.usage = usage.map(Box::new);
        self.maybe_charged()
    }

    /// Says how far it reaches.
    #[must_use]
    pub fn reaching(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Says what is known of the reason.
    #[must_use]
    pub fn because(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Returns whether another key of the same provider may be taken for the same request.
    pub fn may_take_another_key(&self) -> bool {
        matches!(self.class, Class::Auth | Class::Quota) || matches!(self.scope, Scope::Key | Scope::Unclear)
    }

    /// Keeps what the model had said.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Box<str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Returns what to do next. No `_` arm: a new class does not compile until someone has decided.
    pub fn verdict(&self) -> Verdict {
        match self.class {
            Class::RateLimit if self.scope == Scope::Target => Verdict::Elsewhere,
            Class::RateLimit | Class::Overloaded | Class::ServerError => {
                Verdict::Again { after: self.retry_after }
            }
            Class::Quota
            | Class::NetworkError
            | Class::Timeout
            | Class::Unreadable
            | Class::Auth
            | Class::NotFound
            | Class::TooLong => Verdict::Elsewhere,
            Class::ContentFilter | Class::ApiError => match self.scope {
                Scope::Parameter(_) => Verdict::Again { after: None },
                Scope::Key | Scope::Target | Scope::Unclear => Verdict::Elsewhere,
                Scope::Class | Scope::Model | Scope::Doubtful | Scope::Answer => Verdict::Never,
            },
            Class::ValidationError if self.scope == Scope::Answer => {
                Verdict::Again { after: self.retry_after }
            }
            Class::Truncated
            | Class::ValidationError
            | Class::TemplateError
            | Class::Budget
            | Class::Deadline
            | Class::Cancelled
            | Class::Internal => Verdict::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_reads_back_from_its_word() {
        for class in Class::ALL {
            let word = serde_json::to_string(&class).unwrap();
            assert_eq!(word, format!("\"{class}\""));
            assert_eq!(serde_json::from_str::<Class>(&word).unwrap(), class);
        }
    }
}
