//! Names that a configuration gives: providers, models, lanes, routes, steps, keys.
//!
//! Cloning one costs a reference count, so every call may carry them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, out)
            }
        }
    };
}
pub(super) use name;

name! {
    /// A provider, as `[provider.NAME]` calls it.
    ProviderName
}
name! {
    /// A model, as `[provider.X.models.NAME]` calls it; what is sent to the provider is the model's `name`.
    ModelName
}
name! {
    /// A route, as `[route.NAME]` calls it.
    RouteName
}
name! {
    /// A step of a pipeline.
    StepName
}
name! {
    /// Tells one key of a provider from another without showing it, such as `env:OPENAI_API_KEY`.
    KeyLabel
}

/// One model of one provider: where a call can go. Written `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneName {
    /// The provider.
    pub provider: ProviderName,
    /// The model, by its name in the configuration.
    pub model: ModelName,
}

impl fmt::Display for LaneName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("{}/{}", self.provider, self.model))
    }
}

/// A lane that is not written `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a lane is written provider/model, not {0:?}")]
pub struct LaneNameError(String);

impl FromStr for LaneName {
    type Err = LaneNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Ok(Self { provider: provider.into(), model: model.into() })
            }
            _ => Err(LaneNameError(text.to_owned())),
        }
    }
}

impl Serialize for LaneName {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LaneName {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who waits for a call: a person goes before a nightly run, on the same quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A person is waiting.
    Interactive,
    /// A run that may take its time.
    #[default]
    Batch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_may_hold_slashes() {
        let lane: LaneName = "router/meta/llama-4".parse().unwrap();
        assert_eq!((lane.provider.as_str(), lane.model.as_str()), ("router", "meta/llama-4"));
    }

    #[test]
    fn a_lane_without_a_model_is_refused() {
        for wrong in ["claude", "claude/", "/haiku", ""] {
            assert!(wrong.parse::<LaneName>().is_err(), "{wrong:?}");
        }
    }
}
