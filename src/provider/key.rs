//! The keys of one account at a provider: which is used, and which rest.
//!
//! Never shows a key, and covers it where a provider repeats it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::types::{Class, Failure, KeyLabel};
use crate::wire::Format;

use super::key_source::Key;
use super::mask::Mask;

/// How long a key rests that was refused, or whose quota is spent, when the provider names no time.
const REST: Duration = Duration::from_secs(600);

/// How long a key rests at most: somebody may pay before the month is over.
const LONGEST_REST: Duration = Duration::from_hours(24);

/// One key, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct ReadyKey {
    /// What it is called where people can see it.
    pub(super) label: KeyLabel,
    header: Option<(HeaderName, HeaderValue)>,
    mask: Option<Mask>,
}

impl ReadyKey {
    /// Returns the header that carries it; `None` for a server that wants no key.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        self.header.clone()
    }

    /// Covers the key in the words of a provider that repeats what it was sent.
    pub(super) fn cover(&self, failure: &mut Failure) {
        if let Some(mask) = &self.mask {
            mask.cover_failure(failure);
        }
    }
}

/// The keys, in the order in which they are used.
#[derive(Debug)]
pub(super) struct Keys(Vec<(ReadyKey, Option<Rest>)>);

#[derive(Debug)]
struct Rest {
    until: Instant,
    why: Failure,
}

impl Keys {
    /// Makes the keys of a provider; none at all is a server that wants none.
    ///
    /// # Errors
    /// `auth` for a key that no header can carry; its text is not repeated.
    pub(super) fn new(format: Format, keys: &[Key]) -> Result<Self, Failure> {
        if keys.is_empty() {
            let none = ReadyKey { label: "no key".into(), header: None, mask: None };
            return Ok(Self(vec![(none, None)]));
        }
        let keys = keys.iter().map(|Key { label, secret }| {
            let (header, mask) = (format.authorization(secret)?, Mask::new(secret.clone()));
            Ok((ReadyKey { label: label.clone(), header: Some(header), mask: Some(mask) }, None))
        });
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// Returns the first key that does not rest.
    ///
    /// # Errors
    /// Why the key that comes back first rests.
    pub(super) fn pick(&self, now: Instant) -> Result<&ReadyKey, Failure> {
        let usable = self.0.iter().find(|(_, rest)| rest.as_ref().is_none_or(|rest| rest.until <= now));
        let first_back = || self.0.iter().filter_map(|(_, rest)| rest.as_ref()).min_by_key(|rest| rest.until);
        match (usable, first_back()) {
            (Some((key, _)), _) => Ok(key),
            (None, Some(rest)) => Err(rest.why.clone()),
            (None, None) => Err(Failure::new(Class::Auth, "the provider has no key")),
        }
    }

    /// Returns whether every key rests.
    pub(super) fn are_out(&self, now: Instant) -> bool {
        self.0.iter().all(|(_, rest)| rest.as_ref().is_some_and(|rest| rest.until > now))
    }

    /// Lets a key rest if `failure` says that it, and not the call, is at fault. Returns whether it does.
    pub(super) fn rest(&mut self, label: &KeyLabel, failure: &Failure, now: Instant) -> bool {
        if !matches!(failure.class, Class::Auth | Class::Quota) {
            return false;
        }
        let until = now + failure.retry_after.unwrap_or(REST).clamp(REST, LONGEST_REST);
        for (_, rest) in self.0.iter_mut().filter(|(key, _)| key.label == *label) {
            *rest = Some(Rest { until, why: failure.clone() });
        }
        true
    }

    /// Returns the label and what ails it, of every key that rests.
    pub(super) fn resting(&self, now: Instant) -> impl Iterator<Item = (&KeyLabel, &Failure)> {
        self.0.iter().filter_map(move |(key, rest)| {
            let rest = rest.as_ref().filter(|rest| rest.until > now)?;
            Some((&key.label, &rest.why))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let key = |label: &str| Key { label: label.into(), secret: format!("sk-{label}").into() };
        Keys::new(Format::Openai, &[key("a"), key("b")]).unwrap()
    }

    #[test]
    fn a_refused_key_rests_and_the_next_is_used() {
        let (mut keys, now) = (keys(), Instant::now());
        assert!(keys.rest(&"a".into(), &Failure::new(Class::Auth, "invalid key"), now));
        assert_eq!(keys.pick(now).unwrap().label.as_str(), "b");
        assert_eq!(keys.pick(now + REST).unwrap().label.as_str(), "a");
    }

    #[test]
    fn a_key_rests_as_long_as_its_quota_says_but_is_tried_again_after_a_day() {
        let (mut keys, now) = (keys(), Instant::now());
        for (told, rest) in [(1, REST), (7_200, Duration::from_hours(2)), (30 * 86_400, LONGEST_REST)] {
            let spent = Failure {
                retry_after: Some(Duration::from_secs(told)),
                ..Failure::new(Class::Quota, "spent")
            };
            keys.rest(&"a".into(), &spent, now);
            assert_eq!(keys.pick(now + rest - Duration::from_secs(1)).unwrap().label.as_str(), "b");
            assert_eq!(keys.pick(now + rest).unwrap().label.as_str(), "a");
        }
    }

    #[test]
    fn when_all_rest_the_reason_is_told() {
        let (mut keys, now) = (keys(), Instant::now());
        keys.rest(&"a".into(), &Failure::new(Class::Auth, "invalid key"), now);
        keys.rest(&"b".into(), &Failure::new(Class::Quota, "no money"), now + REST);
        assert_eq!(keys.pick(now).unwrap_err().class, Class::Auth);
        assert!(keys.are_out(now) && !keys.are_out(now + REST));
    }

    #[test]
    fn a_failure_of_the_call_does_not_rest_the_key() {
        assert!(!keys().rest(&"a".into(), &Failure::new(Class::RateLimit, "slow down"), Instant::now()));
    }
}
