//! How much may go at once, after a pause and at the start.
//!
//! Begins with one second's worth: a minute's quota fired at once is what draws 429s from providers
//! that count by the second. Where the provider's own headers say that more is left, the burst grows with
//! every call that went through, doubling in each round trip, towards nine tenths of that; a refusal
//! inside a burst ends it, and is remembered. Pure.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::Instant;

use crate::types::duration;

/// How much of one second's worth the first burst is: a bucket of one second has this much room for calls
/// that bunch up on their way.
const SLACK: f64 = 0.9;

/// How much of what the provider says is left a burst may take.
const OF_WHAT_IS_LEFT: f64 = 0.9;

/// How long a size that was refused is not tried again; doubles with each further refusal.
const REMEMBERED: Duration = Duration::from_mins(5);
const REMEMBERED_MOST: Duration = Duration::from_hours(2);

/// How large bursts may be, `burst` among the limits of a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BurstSettings {
    /// Found by itself: `"auto"`.
    #[default]
    Auto,
    /// What the limit brings in so much time: `"10s"`.
    Fixed(Duration),
}

/// The burst of one limit, in cells.
#[derive(Debug)]
pub(super) struct Burst {
    settings: BurstSettings,
    /// Beyond one second's worth.
    grown: f64,
    refused: Option<Refused>,
}

/// What a burst may grow into, in cells.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// What we would let go at once already.
    pub(super) level: f64,
    /// What the provider says is left.
    pub(super) left: f64,
    /// The most that it ever said.
    pub(super) most_left: f64,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    /// The largest burst until then.
    most: f64,
    until: Instant,
    times: u32,
}

impl Burst {
    pub(super) fn new(settings: BurstSettings) -> Self {
        Self { settings, grown: 0.0, refused: None }
    }

    /// Returns the size at a rate of `per_minute`.
    pub(super) fn size(&self, per_minute: f64) -> u64 {
        match self.settings {
            BurstSettings::Auto => (one_second(per_minute) + self.grown) as u64,
            BurstSettings::Fixed(time) => (per_minute / 60.0 * time.as_secs_f64()).max(1.0) as u64,
        }
    }

    /// Returns whether it is larger than one second's worth.
    pub(super) fn is_grown(&self) -> bool {
        self.grown >= 1.0
    }

    /// Grows by what went through while the limit was in use, where the provider has more left than we would let go. Returns whether
    /// it has grown.
    pub(super) fn went_through(&mut self, cells: u64, per_minute: f64, room: Room, now: Instant) -> bool {
        let size = one_second(per_minute) + self.grown;
        let most =
            self.refused.filter(|refused| now < refused.until).map_or(f64::MAX, |refused| refused.most);
        let most = most.min(room.most_left * OF_WHAT_IS_LEFT);
        let room = (room.left * OF_WHAT_IS_LEFT - room.level).min(most - size);
        // What has grown is used once; growth of the same size again and as much would not double anything.
        let more = (2.0 * cells as f64).min(room);
        if self.settings != BurstSettings::Auto || more <= 0.0 {
            return false;
        }
        self.grown += more;
        true
    }

    /// Ends the burst and remembers its size. Returns whether there was one.
    pub(super) fn refused(&mut self, per_minute: f64, now: Instant) -> bool {
        let base = one_second(per_minute);
        let was_burst = self.is_grown();
        if was_burst {
            let times = self.refused.map_or(0, |refused| refused.times);
            let wait = REMEMBERED.saturating_mul(1 << times.min(8)).min(REMEMBERED_MOST);
            let most = ((base + self.grown) / 2.0).max(base);
            self.refused = Some(Refused { most, until: now + wait, times: times + 1 });
        }
        self.grown = 0.0;
        was_burst
    }
}

fn one_second(per_minute: f64) -> f64 {
    (per_minute / 60.0 * SLACK).max(1.0)
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
        from.deserialize_any(AutoOrTime)
    }
}

struct AutoOrTime;

impl Visitor<'_> for AutoOrTime {
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
                r#"{text:?} is no burst; write "auto", or what the limits bring in a time up to a minute, such as "10s""#
            ))),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<BurstSettings, E> {
        let time = format!("{}s", number.clamp(1, 60));
        Err(E::custom(format!(
            "a burst is a time and not a number of calls; write burst = {time:?} for what the limits bring in \
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

    fn room(level: f64, left: f64) -> Room {
        Room { level, left, most_left: 1_000.0 }
    }

    #[test]
    fn it_begins_with_a_second_and_doubles_in_each_round() {
        let (mut burst, now) = (Burst::new(BurstSettings::Auto), Instant::now());
        assert_eq!(burst.size(MINUTE), 15);
        let mut left = 985.0;
        let mut sizes = Vec::new();
        for _ in 0..7 {
            let size = burst.size(MINUTE);
            for _ in 0..size {
                burst.went_through(1, MINUTE, room(0.0, left), now);
                left -= 1.0;
            }
            sizes.push(burst.size(MINUTE));
        }
        assert_eq!(sizes[..3], [45, 135, 405]);
        assert!(sizes[6] <= 900, "{sizes:?}");
    }

    #[test]
    fn it_never_grows_beyond_nine_tenths_of_what_is_left() {
        let (mut burst, now) = (Burst::new(BurstSettings::Auto), Instant::now());
        for _ in 0..1_000 {
            burst.went_through(1, MINUTE, room(0.0, 16.0), now);
        }
        // One second's worth is there in any case.
        assert!(!burst.went_through(1, MINUTE, room(14.4, 16.0), now));
    }

    #[test]
    fn a_refusal_ends_it_and_is_remembered_for_longer_each_time() {
        let (mut burst, mut now) = (Burst::new(BurstSettings::Auto), Instant::now());
        let grow = |burst: &mut Burst, now| {
            (0..500).for_each(|_| {
                burst.went_through(1, MINUTE, room(0.0, 900.0), now);
            })
        };
        grow(&mut burst, now);
        assert_eq!(burst.size(MINUTE), 900);
        assert!(burst.refused(MINUTE, now));
        assert_eq!(burst.size(MINUTE), 15);
        grow(&mut burst, now);
        assert_eq!(burst.size(MINUTE), 450, "half of what was refused");
        now += REMEMBERED;
        grow(&mut burst, now);
        assert!(burst.size(MINUTE) > 450);
        assert!(burst.refused(MINUTE, now));
        now += REMEMBERED;
        grow(&mut burst, now);
        grow(&mut burst, now);
        assert!(burst.size(MINUTE) < 900);
    }

    #[test]
    fn a_fixed_burst_stays() {
        let mut burst = Burst::new(BurstSettings::Fixed(Duration::from_secs(10)));
        assert_eq!(burst.size(600.0), 100);
        assert!(!burst.went_through(1, 600.0, room(0.0, 600.0), Instant::now()));
        burst.refused(600.0, Instant::now());
        assert_eq!(burst.size(600.0), 100);
    }

    #[test]
    fn it_is_read_as_people_write_it() {
        let read = |text: &str| serde_json::from_str::<BurstSettings>(text);
        assert_eq!(read(r#""auto""#).unwrap(), BurstSettings::Auto);
        assert_eq!(read(r#""10s""#).unwrap(), BurstSettings::Fixed(Duration::from_secs(10)));
        for wrong in [r#""0s""#, r#""2m""#, r#""much""#] {
            assert!(read(wrong).unwrap_err().to_string().contains("is no burst"), "{wrong}");
        }
        let error = read("10").unwrap_err().to_string();
        assert!(error.contains(r#"write burst = "10s""#), "{error}");
    }
}
