//! Durations as numbers of seconds in JSON. For serde's `with`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Serializes a duration as seconds.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// Deserializes seconds.
///
/// # Errors
/// If the value is not a number of seconds from 0.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Wait(#[serde(with = "super")] Duration);

    #[test]
    fn a_duration_is_a_number_of_seconds() {
        let wait = Wait(Duration::from_millis(1_500));
        assert_eq!(serde_json::to_string(&wait).unwrap(), "1.5");
        assert_eq!(serde_json::from_str::<Wait>("1.5").unwrap(), wait);
        assert_eq!(serde_json::from_str::<Wait>("0").unwrap(), Wait(Duration::ZERO));
        assert!(serde_json::from_str::<Wait>("-1").is_err());
    }
}
