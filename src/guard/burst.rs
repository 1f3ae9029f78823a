//! Burst size of one limit: how many permits may be taken at once, after a pause and at the start.
//!
//! The burst starts at one second's worth, because a minute's quota sent at once causes 429 responses from
//! providers that count by the second. Where the provider's headers show a larger remainder, the burst
//! grows with every accepted call, doubling with each round trip, towards nine tenths of that remainder. A
//! 429 response inside a burst resets it, and its size is remembered. Pure.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

use crate::types::duration;

/// The initial burst, in seconds' worth of the limit: a bucket of one second then still has permits for calls
/// that bunch up in transit.
const INITIAL_BURST_SECONDS: f64 = 0.9;

/// The share of the advertised remainder that a burst may take.
const MAX_SHARE_OF_REMAINING: f64 = 0.9;

/// For how long a rejected burst size is not tried again; doubles with each further rejection.
const INITIAL_REJECTED_BURST_TTL: Duration = Duration::from_mins(5);
const MAX_REJECTED_BURST_TTL: Duration = Duration::from_hours(2);

/// Burst size, `burst` among the limits of a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BurstSettings {
    /// Adapts by itself: `"auto"`.
    #[default]
    Auto,
    /// What the limit allows in this time: `"10s"`.
    Fixed(Duration),
}

/// The burst of one limit, in permits.
#[derive(Debug)]
pub(super) struct Burst {
    settings: BurstSettings,
    /// Size beyond one second's worth.
    growth: f64,
    rejected: Option<RejectedBurst>,
}

/// How far a burst can grow, in permits.
#[derive(Debug, Clone, Copy)]
pub(super) struct BurstHeadroom {
    /// What the limiter would admit at once already.
    pub(super) level: f64,
    /// The remainder that the provider advertises.
    pub(super) remaining: f64,
    /// The largest remainder ever advertised.
    pub(super) max_remaining: f64,
}

#[derive(Debug, Clone, Copy)]
struct RejectedBurst {
    /// Upper bound of the burst until then.
    max: f64,
    until: Instant,
    times: u32,
}

impl Burst {
    pub(super) fn new(settings: BurstSettings) -> Self {
        Self { settings, growth: 0.0, rejected: None }
    }

    /// Returns the settings.
    pub(super) fn settings(&self) -> BurstSettings {
        self.settings
    }

    /// Sets the settings, and forgets the growth: it was measured under the former limit.
    pub(super) fn set_settings(&mut self, settings: BurstSettings) {
        self.settings = settings;
        self.growth = 0.0;
    }

    /// Returns the burst size at a rate of `per_minute`.
    pub(super) fn size(&self, per_minute: f64) -> u64 {
        match self.settings {
            BurstSettings::Auto => (initial_size(per_minute) + self.growth) as u64,
            BurstSettings::Fixed(time) => (per_minute / 60.0 * time.as_secs_f64()).max(1.0) as u64,
        }
    }

    /// Returns whether the burst is larger than one second's worth.
    pub(super) fn is_grown(&self) -> bool {
        self.growth >= 1.0
    }

    /// Grows by the permits of a call that was accepted while the limit was in use, if the provider's
    /// remainder exceeds our level. Returns whether it grew.
    pub(super) fn record_accepted(
        &mut self,
        permits: u64,
        per_minute: f64,
        headroom: BurstHeadroom,
        now: Instant,
    ) -> bool {
        let size = initial_size(per_minute) + self.growth;
        let rejected = self.rejected.filter(|rejected| now < rejected.until);
        let max = rejected.map_or(f64::MAX, |rejected| rejected.max);
        let max = max.min(headroom.max_remaining * MAX_SHARE_OF_REMAINING);
        let max_increase = (headroom.remaining * MAX_SHARE_OF_REMAINING - headroom.level).min(max - size);
        // Twice the permits: one part replaces the growth that this call used, the other doubles it.
        let increase = (2.0 * permits as f64).min(max_increase);
        if self.settings != BurstSettings::Auto || increase <= 0.0 {
            return false;
        }
        self.growth += increase;
        true
    }

    /// Resets the burst after a 429 response and remembers its size. Returns whether it was larger than one
    /// second's worth.
    pub(super) fn record_throttled(&mut self, per_minute: f64, now: Instant) -> bool {
        let initial = initial_size(per_minute);
        let was_burst = self.is_grown();
        if was_burst {
            let times = self.rejected.map_or(0, |rejected| rejected.times);
            let ttl =
                INITIAL_REJECTED_BURST_TTL.saturating_mul(1 << times.min(8)).min(MAX_REJECTED_BURST_TTL);
            let max = ((initial + self.growth) / 2.0).max(initial);
            self.rejected = Some(RejectedBurst { max, until: now + ttl, times: times + 1 });
        }
        self.growth = 0.0;
        was_burst
    }
}

fn initial_size(per_minute: f64) -> f64 {
    (per_minute / 60.0 * INITIAL_BURST_SECONDS).max(1.0)
}

impl Serialize for BurstSettings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Fixed(time) => duration::serialize(time, to),
        }
    }
}

impl<'de> Deserialize<'de> for BurstSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(BurstVisitor)
    }
}

struct BurstVisitor;

impl Visitor<'_> for BurstVisitor {
    type Value = BurstSettings;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(r#""auto", or a time up to a minute such as "10s""#)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<BurstSettings, E> {
        if text == "auto" {
            return Ok(BurstSettings::Auto);
        }
        match duration::parse(text) {
            Ok(time) if time <= Duration::from_mins(1) => Ok(BurstSettings::Fixed(time)),
            _ => Err(E::custom(format!(
                r#"{text:?} is not a valid burst; write "auto", or a time up to a minute, such as "10s""#
            ))),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<BurstSettings, E> {
        let time = format!("{}s", number.clamp(1, 60));
        Err(E::custom(format!(
            "a burst is a time and not a number of calls; write burst = {time:?} for what the limits allow in \
             that time, or burst = \"auto\""
        )))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<BurstSettings, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: f64 = 1_000.0;

    fn headroom(level: f64, remaining: f64) -> BurstHeadroom {
        BurstHeadroom { level, remaining, max_remaining: 1_000.0 }
    }

    #[test]
    fn the_burst_starts_at_one_second_and_doubles_with_each_round_trip() {
        let mut burst = Burst::new(BurstSettings::Auto);
        let now = Instant::now();
        assert_eq!(burst.size(MINUTE), 15);
        let mut remaining = 985.0;
        let mut sizes = Vec::new();
        for _ in 0..7 {
            let size = burst.size(MINUTE);
            for _ in 0..size {
                burst.record_accepted(1, MINUTE, headroom(0.0, remaining), now);
                remaining -= 1.0;
            }
            sizes.push(burst.size(MINUTE));
        }
        assert_eq!(sizes[..3], [45, 135, 405]);
        assert!(sizes[6] <= 900, "{sizes:?}");
    }

    #[test]
    fn the_burst_never_exceeds_nine_tenths_of_the_remainder() {
        let mut burst = Burst::new(BurstSettings::Auto);
        let now = Instant::now();
        for _ in 0..1_000 {
            burst.record_accepted(1, MINUTE, headroom(0.0, 16.0), now);
        }
        // One second's worth is available in any case.
        assert!(!burst.record_accepted(1, MINUTE, headroom(14.4, 16.0), now));
    }

    #[test]
    fn a_throttled_burst_is_reset_and_its_size_remembered_for_longer_each_time() {
        let mut burst = Burst::new(BurstSettings::Auto);
        let mut now = Instant::now();
        let grow = |burst: &mut Burst, now| {
            (0..500).for_each(|_| {
                burst.record_accepted(1, MINUTE, headroom(0.0, 900.0), now);
            })
        };
        grow(&mut burst, now);
        assert_eq!(burst.size(MINUTE), 900);
        assert!(burst.record_throttled(MINUTE, now));
        assert_eq!(burst.size(MINUTE), 15);
        grow(&mut burst, now);
        assert_eq!(burst.size(MINUTE), 450, "half of the rejected size");
        now += INITIAL_REJECTED_BURST_TTL;
        grow(&mut burst, now);
        assert!(burst.size(MINUTE) > 450);
        assert!(burst.record_throttled(MINUTE, now));
        now += INITIAL_REJECTED_BURST_TTL;
        grow(&mut burst, now);
        grow(&mut burst, now);
        assert!(burst.size(MINUTE) < 900);
    }

    #[test]
    fn a_fixed_burst_does_not_change() {
        let mut burst = Burst::new(BurstSettings::Fixed(Duration::from_secs(10)));
        assert_eq!(burst.size(600.0), 100);
        assert!(!burst.record_accepted(1, 600.0, headroom(0.0, 600.0), Instant::now()));
        burst.record_throttled(600.0, Instant::now());
        assert_eq!(burst.size(600.0), 100);
    }

    #[test]
    fn burst_settings_are_parsed() {
        let read = |text: &str| serde_json::from_str::<BurstSettings>(text);
        assert_eq!(read(r#""auto""#).unwrap(), BurstSettings::Auto);
        assert_eq!(read(r#""10s""#).unwrap(), BurstSettings::Fixed(Duration::from_secs(10)));
        for wrong in [r#""0s""#, r#""2m""#, r#""much""#] {
            assert!(read(wrong).unwrap_err().to_string().contains("is not a valid burst"), "{wrong}");
        }
        let error = read("10").unwrap_err().to_string();
        assert!(error.contains(r#"write burst = "10s""#), "{error}");
    }
}
