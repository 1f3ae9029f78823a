//! Names from the configuration: providers, models, targets, routes, steps, scopes and keys.
//!
//! A clone only increments a reference count.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as a string slice.
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
    /// The name of a provider: `NAME` in `[provider.NAME]`.
    ProviderName
}
name! {
    /// The name of a model: `NAME` in `[provider.X.models.NAME]`. The provider receives the model's `name`
    /// setting.
    ModelName
}
name! {
    /// The name of a route: `NAME` in `[route.NAME]`.
    RouteName
}
name! {
    /// The name of a pipeline step.
    StepName
}
name! {
    /// Identifies a provider's key without showing it, such as `env:OPENAI_API_KEY`.
    KeyLabel
}

/// The name of a scope: `NAME` in `[scope.NAME]`, such as a tenant or the holder of a token. Requests without one belong
/// to the scope with the empty name.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopeName(
    /// `None` for the empty name. Most requests have no scope, and the reference count of a name that all of them share
    /// would be written by every thread.
    Option<Arc<str>>,
);

impl ScopeName {
    /// Returns the name as a string slice.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Returns whether it is the name of requests without a scope.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the scope of the requests that the holder of a token sends to a daemon.
    #[doc(hidden)]
    pub fn of_token(token: &str) -> Self {
        format!("{TOKEN_PREFIX}{token}").into()
    }

    /// Returns the name of the token whose scope this is; `None` for other scopes.
    #[doc(hidden)]
    pub fn token(&self) -> Option<&str> {
        self.as_str().strip_prefix(TOKEN_PREFIX)
    }

    /// Checks that a scope may have this name, which is stored and shown in errors.
    ///
    /// # Errors
    /// If it is too long or has control characters.
    pub fn check(&self) -> Result<(), ScopeNameError> {
        let name = self.as_str();
        match name.len() {
            ..=MAX_SCOPE_NAME_BYTES if !name.contains(char::is_control) => Ok(()),
            bytes => Err(ScopeNameError { bytes }),
        }
    }
}

/// What the scope of a token begins with. The configuration cannot name such a scope.
const TOKEN_PREFIX: &str = "token:";

/// Maximum length of the name of a scope, in bytes.
const MAX_SCOPE_NAME_BYTES: usize = 256;

/// A text cannot be the name of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a scope has at most {MAX_SCOPE_NAME_BYTES} bytes and no control characters; this one has {bytes} bytes"
)]
pub struct ScopeNameError {
    bytes: usize,
}

/// As the hash of the string slice, which [`Borrow`](std::borrow::Borrow) requires.
impl Hash for ScopeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl std::borrow::Borrow<str> for ScopeName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for ScopeName {
    fn from(name: &str) -> Self {
        Self(Some(name).filter(|name| !name.is_empty()).map(Arc::from))
    }
}

impl From<String> for ScopeName {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl fmt::Debug for ScopeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

impl Serialize for ScopeName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ScopeName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::from)
    }
}

/// The name of a target: one model at one provider, written `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct TargetName {
    /// The provider.
    pub provider: ProviderName,
    /// The name of the model in the configuration.
    pub model: ModelName,
}

impl TargetName {
    /// Creates the name of a model at a provider.
    pub fn new(provider: impl Into<ProviderName>, model: impl Into<ModelName>) -> Self {
        Self { provider: provider.into(), model: model.into() }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("{}/{}", self.provider, self.model))
    }
}

/// A text is not a target name of the form `provider/model`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a target is written provider/model, not {0:?}")]
pub struct TargetNameError(String);

impl FromStr for TargetName {
    type Err = TargetNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Ok(Self::new(provider, model))
            }
            _ => Err(TargetNameError(text.to_owned())),
        }
    }
}

impl Serialize for TargetName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The priority of a request. Interactive requests go before batch requests on the same quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A user waits for the response.
    Interactive,
    /// The request may be delayed.
    #[default]
    Batch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_may_contain_slashes() {
        let target: TargetName = "router/meta/llama-4".parse().unwrap();
        assert_eq!((target.provider.as_str(), target.model.as_str()), ("router", "meta/llama-4"));
    }

    #[test]
    fn the_empty_scope_is_one_name_however_it_is_made() {
        let named = ScopeName::from("team");
        for empty in [ScopeName::from(""), String::new().into(), serde_json::from_str("\"\"").unwrap()] {
            assert_eq!(empty, ScopeName::default());
            assert!(empty.is_empty() && empty < named && !named.is_empty());
            assert_eq!(serde_json::to_string(&empty).unwrap(), "\"\"");
        }
        // Maps find a scope by its text.
        let scopes = std::collections::HashMap::from([(named.clone(), 1), (ScopeName::default(), 2)]);
        assert_eq!((scopes.get("team"), scopes.get(""), scopes.get("x")), (Some(&1), Some(&2), None));
        assert_eq!(serde_json::from_str::<ScopeName>("\"team\"").unwrap(), named);
        assert_eq!(format!("{named} {named:?}"), "team \"team\"");
    }

    #[test]
    fn the_name_of_a_scope_is_short_and_has_no_control_characters() {
        for good in ["", "team-a", "Gr\u{fc}n 7", &"x".repeat(256)] {
            assert!(ScopeName::from(good).check().is_ok(), "{good:?}");
        }
        for wrong in ["a\nb", "\u{1b}[2J", "\0", &"x".repeat(257)] {
            let error = ScopeName::from(wrong).check().unwrap_err().to_string();
            assert!(error.contains(&format!("{} bytes", wrong.len())), "{error}");
        }
    }

    #[test]
    fn the_scope_of_a_token_is_no_other_scope() {
        let scope = ScopeName::of_token("ci");
        assert_eq!((scope.as_str(), scope.token()), ("token:ci", Some("ci")));
        for other in ["", "ci", "team:ci", "token"] {
            assert_eq!(ScopeName::from(other).token(), None, "{other:?}");
        }
    }

    #[test]
    fn a_target_without_a_model_is_rejected() {
        for invalid in ["claude", "claude/", "/haiku", ""] {
            assert!(invalid.parse::<TargetName>().is_err(), "{invalid:?}");
        }
    }
}
