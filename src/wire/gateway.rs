//! Reads the rate-limit headers of gateways, which stand in front of servers of any format.
//!
//! | who | headers |
//! |---|---|
//! | draft-ietf-httpapi-ratelimit-headers-08 and later | `RateLimit-Policy: "burst";q=20;w=1, "day";q=1000;w=86400` and `RateLimit: "burst";r=19;t=1` |
//! | version 07 | `RateLimit-Policy: 100;w=60` and `RateLimit: limit=100, remaining=50, reset=30` |
//! | version 06 and before, Kong, GitLab | `RateLimit-Limit: 20, 20;w=1`, `RateLimit-Remaining`, `RateLimit-Reset` in seconds |
//! | Kong beside these | `X-RateLimit-Limit-Second`, `X-RateLimit-Remaining-Second`; the same with `-Minute`, `-Hour`, `-Day` |
//! | many | `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset` |
//!
//! Where no window is named it is unknown: a second's limit looks like a minute's then.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::types::LimitWindow;

use super::Remaining;
use super::times::{count, reset, text};

/// A limit of requests over at most this is a second's, or of a few.
const SHORT: Duration = Duration::from_secs(30);
/// One over more than this is not counted by the minute.
const LONG: Duration = Duration::from_secs(70);

/// The limits of requests that a gateway names, by their windows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gateway {
    pub(super) short: Option<Remaining>,
    pub(super) minute: Option<Remaining>,
    pub(super) long: Option<Remaining>,
}

impl Gateway {
    /// Reads the headers of a response.
    pub(super) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let mut all = Self::default();
        let said = [old_draft(headers, now), plain(headers, now)];
        let nearest = said.into_iter().flatten().next();
        for (name, seconds) in [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)] {
            let Some(named) = named(headers, name, seconds, now) else { continue };
            // Kong's reset is that of the limit of which least is left.
            let same = nearest.filter(|said| (said.limit, said.remaining) == (named.limit, named.remaining));
            all.add(Remaining { reset: same.and_then(|said| said.reset), ..named });
        }
        if all != Self::default() {
            return all;
        }
        for remaining in drafts(headers, now) {
            all.add(remaining);
        }
        if all == Self::default() {
            nearest.into_iter().for_each(|said| all.add(said));
        }
        all
    }

    /// Sorts a limit by its window; of several the first counts.
    fn add(&mut self, remaining: Remaining) {
        let place = match remaining.window {
            LimitWindow::Is(window) if window <= SHORT => &mut self.short,
            LimitWindow::Is(window) if window > LONG => &mut self.long,
            LimitWindow::Is(_) | LimitWindow::OfVendor | LimitWindow::Unknown => &mut self.minute,
        };
        *place = place.or(Some(remaining));
    }
}

fn named(headers: &HeaderMap, name: &str, seconds: u64, now: SystemTime) -> Option<Remaining> {
    let of = |what| format!("x-ratelimit-{what}-{name}");
    let read = Remaining::read(headers, [&of("limit"), &of("remaining"), &of("reset")], now)?;
    Some(Remaining { window: LimitWindow::Is(Duration::from_secs(seconds)), ..read })
}

/// Reads `X-RateLimit-Limit` and what belongs to it.
fn plain(headers: &HeaderMap, now: SystemTime) -> Option<Remaining> {
    let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    windowed(headers, names, now)
}

fn old_draft(headers: &HeaderMap, now: SystemTime) -> Option<Remaining> {
    windowed(headers, ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"], now)
}

/// Reads three headers, of which the first may name windows: `20, 20;w=1`, `100;window=60`.
fn windowed(headers: &HeaderMap, names: [&str; 3], now: SystemTime) -> Option<Remaining> {
    let read = Remaining::read(headers, names, now)?;
    let policies = [text(headers, names[0]), text(headers, "ratelimit-policy")];
    let mut policies = policies.into_iter().flatten().flat_map(Policy::all);
    let same = policies.find(|policy| policy.window.is_some() && policy.limit == read.limit);
    Some(Remaining { window: window(same.and_then(|policy| policy.window)), ..read })
}

fn window(named: Option<Duration>) -> LimitWindow {
    named.map_or(LimitWindow::Unknown, LimitWindow::Is)
}

/// Reads `RateLimit`, in the forms of the drafts from version 07 on.
fn drafts(headers: &HeaderMap, now: SystemTime) -> Vec<Remaining> {
    let Some(said) = text(headers, "ratelimit") else { return Vec::new() };
    let policies: Vec<Policy<'_>> =
        text(headers, "ratelimit-policy").into_iter().flat_map(Policy::all).collect();
    if let Some(remaining) = find(said, &["remaining"]).and_then(count) {
        let limit = find(said, &["limit"]).and_then(count).filter(|limit| *limit > 0);
        let policy = policies.iter().find(|policy| limit.is_some() && policy.limit == limit);
        let until = find(said, &["reset"]).and_then(|text| reset(text, now));
        let window = window(policy.and_then(|policy| policy.window));
        return vec![Remaining { limit, remaining, reset: until, window }];
    }
    let item = |item: &str| {
        let name = item.split(';').next().unwrap_or_default().trim();
        let own = policies.iter().find(|policy| policy.name == name);
        let policy = own.or(policies.first().filter(|_| policies.len() == 1));
        if policy.is_some_and(|policy| !policy.of_requests) {
            return None;
        }
        Some(Remaining {
            limit: policy.and_then(|policy| policy.limit),
            remaining: find(item, &["r"]).and_then(count)?,
            reset: find(item, &["t"]).and_then(|text| reset(text, now)),
            window: window(policy.and_then(|policy| policy.window)),
        })
    };
    said.split(',').filter_map(item).collect()
}

/// One quota: `"burst";q=20;w=1`, or `100;w=60`.
struct Policy<'t> {
    name: &'t str,
    limit: Option<u64>,
    window: Option<Duration>,
    of_requests: bool,
}

impl<'t> Policy<'t> {
    fn all(text: &'t str) -> impl Iterator<Item = Self> {
        text.split(',').map(|item| {
            let name = item.split(';').next().unwrap_or_default().trim();
            let limit = find(item, &["q"]).and_then(count).or_else(|| count(name));
            let seconds = find(item, &["w", "window"]).and_then(count).filter(|seconds| *seconds > 0);
            let unit = find(item, &["qu"]).map(|unit| unit.trim_matches('"'));
            Self {
                name,
                limit: limit.filter(|limit| *limit > 0),
                window: seconds.map(Duration::from_secs),
                of_requests: unit.is_none_or(|unit| unit == "requests"),
            }
        })
    }
}

/// Returns the first value that has one of these names, among `a=1;b=2, c=3`.
fn find<'t>(fields: &'t str, names: &[&str]) -> Option<&'t str> {
    let pairs = fields.split([',', ';']).filter_map(|field| field.split_once('='));
    pairs
        .map(|(name, value)| (name.trim(), value.trim()))
        .find(|(name, _)| names.contains(name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Format, Hints, fixtures};

    fn read(pairs: &[(&'static str, &'static str)]) -> Hints {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        let all = [Format::Openai, Format::Anthropic, Format::Gemini];
        let [hints, others @ ..] = all.map(|format| format.read_hints(&headers, fixtures::arrival()));
        assert_eq!(others, [hints, hints], "a gateway stands in front of every format");
        hints
    }

    fn left(limit: u64, remaining: u64, seconds: Option<u64>, window: u64) -> Option<Remaining> {
        let (reset, window) =
            (seconds.map(Duration::from_secs), LimitWindow::Is(Duration::from_secs(window)));
        Some(Remaining { limit: Some(limit), remaining, reset, window })
    }

    #[test]
    fn a_limit_by_the_second_is_read_as_such_and_one_of_a_day_is_no_minutes() {
        let second = Hints { requests_per_second: left(20, 19, Some(1), 1), ..Hints::default() };
        for headers in [
            &[("ratelimit", "\"default\";r=19;t=1"), ("ratelimit-policy", "\"default\";q=20;w=1")][..],
            &[("ratelimit", "limit=20, remaining=19, reset=1"), ("ratelimit-policy", "20;w=1")],
            &[("ratelimit-limit", "20, 20;w=1"), ("ratelimit-remaining", "19"), ("ratelimit-reset", "1")],
            &[("x-ratelimit-limit", "20;w=1"), ("x-ratelimit-remaining", "19"), ("x-ratelimit-reset", "1")],
        ] {
            assert_eq!(read(headers), second, "{headers:?}");
        }
        let both = read(&[
            ("ratelimit", "\"burst\";r=19;t=1, \"day\";r=900;t=3000"),
            ("ratelimit-policy", "\"burst\";q=20;w=1,\"day\";q=1000;w=86400"),
        ]);
        let day = left(1_000, 900, Some(3_000), 86_400);
        assert_eq!(both, Hints { requests_per_day: day, ..second });
        let hour = read(&[
            ("ratelimit-limit", "500, 500;w=3600"),
            ("ratelimit-remaining", "7"),
            ("ratelimit-reset", "20"),
        ]);
        assert_eq!(hour, Hints { requests_per_day: left(500, 7, Some(20), 3_600), ..Hints::default() });
    }

    #[test]
    fn kongs_limits_are_told_apart_by_their_names() {
        let hints = read(&[
            ("x-ratelimit-limit-second", "20"),
            ("x-ratelimit-remaining-second", "3"),
            ("x-ratelimit-limit-minute", "600"),
            ("x-ratelimit-remaining-minute", "500"),
            ("ratelimit-limit", "20"),
            ("ratelimit-remaining", "3"),
            ("ratelimit-reset", "1"),
        ]);
        let requests = left(600, 500, None, 60);
        assert_eq!(
            hints,
            Hints { requests, requests_per_second: left(20, 3, Some(1), 1), ..Hints::default() }
        );
        // Without the names nothing says that it is a second's.
        let hints =
            read(&[("ratelimit-limit", "20"), ("ratelimit-remaining", "3"), ("ratelimit-reset", "1")]);
        let unknown = left(20, 3, Some(1), 1).map(|left| Remaining { window: LimitWindow::Unknown, ..left });
        assert_eq!(hints, Hints { requests: unknown, ..Hints::default() });
    }
}
