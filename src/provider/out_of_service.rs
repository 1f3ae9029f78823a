//! Why an operator, or a change of the configuration, has taken a provider or a target out of service.

use serde::Serialize;

use crate::types::{Cause, Class, Failure};

/// Why no new call is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutOfService {
    /// An operator drains the provider, until it is resumed.
    Drained,
    /// The provider is no longer configured.
    Removed,
    /// A changed provider has taken its place.
    Replaced,
    /// The model is no longer configured.
    ModelRemoved,
    /// An operator has opened the breaker of the target, until it is closed by hand.
    BreakerForcedOpen,
}

impl OutOfService {
    /// Returns whether the calls that are queued are rejected, too. Otherwise they end as if nothing had changed.
    pub(super) fn rejects_queued(self) -> bool {
        match self {
            Self::Drained | Self::BreakerForcedOpen => true,
            Self::Removed | Self::Replaced | Self::ModelRemoved => false,
        }
    }

    /// Returns whether it is for ever, so that another provider may have the same name.
    pub(super) fn is_final(self) -> bool {
        match self {
            Self::Removed | Self::Replaced => true,
            Self::Drained | Self::ModelRemoved | Self::BreakerForcedOpen => false,
        }
    }

    /// Returns the failure of a call that is not accepted. It is no evidence about the provider.
    pub(super) fn failure(self) -> Failure {
        let message = match self {
            Self::Drained => "the provider is drained and takes no calls until it is resumed",
            Self::Removed => "the provider is no longer configured",
            Self::Replaced => "a changed provider has taken the place of this one",
            Self::ModelRemoved => "the model is no longer configured",
            Self::BreakerForcedOpen => "its breaker was opened by hand and stays open until it is closed",
        };
        Failure::new(Class::NetworkError, message).with_cause(Cause::OutOfService)
    }
}
