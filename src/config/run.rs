//! Settings for runs, `[run]`.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ByteSize;
use crate::guard::DEFAULT_MEMORY;
use crate::pipeline::CacheMode;
use crate::run::MaxFailures;
use crate::types::duration;

/// How a run processes its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSettings {
    /// Maximum number of items in progress. `None` follows the capacity of the providers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight_items: Option<NonZeroUsize>,
    /// Approximate limit on the memory of the items in progress, for all runs in this process together.
    pub max_memory: ByteSize,
    /// How long a run holds before it pauses. `None` is 10 minutes in the program and unlimited in the
    /// library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_hold: Option<MaxHold>,
    /// Number of failed items in a session after which the run pauses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<MaxFailures>,
    /// Which stored answers are reused instead of sending a request.
    pub cache: CacheMode,
}

impl Default for RunSettings {
    fn default() -> Self {
        let max_memory = ByteSize(DEFAULT_MEMORY);
        Self {
            max_in_flight_items: None,
            max_memory,
            max_hold: None,
            max_failures: None,
            cache: CacheMode::Auto,
        }
    }
}

/// How long a run holds before it pauses, written as a duration such as `"10m"`, or as `"none"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaxHold {
    /// No limit.
    Unlimited,
    /// At most this long.
    For(Duration),
}

impl MaxHold {
    /// Returns the limit, if there is one.
    #[doc(hidden)]
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::Unlimited => None,
            Self::For(time) => Some(time),
        }
    }
}

impl From<Duration> for MaxHold {
    fn from(time: Duration) -> Self {
        Self::For(time)
    }
}

impl Serialize for MaxHold {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => to.serialize_str("none"),
            Self::For(time) => duration::serialize(time, to),
        }
    }
}

impl<'de> Deserialize<'de> for MaxHold {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(MaxHoldVisitor)
    }
}

struct MaxHoldVisitor;

impl Visitor<'_> for MaxHoldVisitor {
    type Value = MaxHold;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#"a duration such as "10m", or "none""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<MaxHold, E> {
        match text.trim() {
            "none" => Ok(MaxHold::Unlimited),
            text => duration::parse_from_zero(text).map(MaxHold::For).map_err(E::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_hold_is_a_duration_or_none() {
        let read = |text: &str| toml::from_str::<RunSettings>(&format!("max_hold = {text}"));
        assert_eq!(read("'none'").unwrap().max_hold, Some(MaxHold::Unlimited));
        assert_eq!(read("'90s'").unwrap().max_hold, Some(MaxHold::For(Duration::from_secs(90))));
        assert_eq!(read("'0s'").unwrap().max_hold, Some(MaxHold::For(Duration::ZERO)));
        for wrong in ["'never'", "10", "'-1s'", "''"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let written = toml::to_string(&read("'90s'").unwrap()).unwrap();
        assert_eq!(toml::from_str::<RunSettings>(&written).unwrap(), read("'90s'").unwrap());
    }
}
