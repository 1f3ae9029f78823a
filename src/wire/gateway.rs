//! Parsing of the rate-limit headers of gateways, which can precede servers of any format.
//!
//! | source | headers |
//! |---|---|
//! | draft-ietf-httpapi-ratelimit-headers-08 and later | `RateLimit-Policy: "burst";q=20;w=1, "day";q=1000;w=86400` and `RateLimit: "burst";r=19;t=1` |
//! | version 07 | `RateLimit-Policy: 100;w=60` and `RateLimit: limit=100, remaining=50, reset=30` |
//! | version 06 and earlier, Kong, GitLab | `RateLimit-Limit: 20, 20;w=1`, `RateLimit-Remaining`, `RateLimit-Reset` in seconds |
//! | Kong in addition | `X-RateLimit-Limit-Second`, `X-RateLimit-Remaining-Second`; the same with `-Minute`, `-Hour`, `-Day` |
//! | many | `X-RateLimit-Limit`, `X-RateLimit-Remaining`, `X-RateLimit-Reset` |
//!
//! A window that the headers do not state is unknown: a limit per second then looks like one per minute.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::types::{LimitWindow, RateLimitStatus};

use super::limit_status::read_limit_status;
use super::retry_after::{header_text, parse_count, parse_reset};

/// The maximum window of a limit over one or a few seconds.
const MAX_SHORT_WINDOW: Duration = Duration::from_secs(30);

/// The request limits of a gateway, by window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GatewayLimits {
    pub(super) short: Option<RateLimitStatus>,
    pub(super) minute: Option<RateLimitStatus>,
    pub(super) long: Option<RateLimitStatus>,
}

impl GatewayLimits {
    /// Parses the headers of a response.
    pub(super) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        let mut all = Self::default();
        let candidates = [read_old_draft(headers, now), read_plain(headers, now)];
        let nearest = candidates.into_iter().flatten().next();
        for (name, seconds) in [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)] {
            let Some(named) = read_named(headers, name, seconds, now) else { continue };
            // Kong's reset is that of the limit with the least remaining.
            let matching =
                nearest.filter(|status| (status.limit, status.remaining) == (named.limit, named.remaining));
            all.add(RateLimitStatus { reset: matching.and_then(|status| status.reset), ..named });
        }
        if all != Self::default() {
            return all;
        }
        for status in read_drafts(headers, now) {
            all.add(status);
        }
        if all == Self::default() {
            nearest.into_iter().for_each(|status| all.add(status));
        }
        all
    }

    /// Stores a limit by its window; the first of several wins.
    fn add(&mut self, status: RateLimitStatus) {
        let slot = match status.window {
            LimitWindow::Fixed(window) if window <= MAX_SHORT_WINDOW => &mut self.short,
            LimitWindow::Fixed(window) if window > LimitWindow::MAX_MINUTE => &mut self.long,
            LimitWindow::Fixed(_) | LimitWindow::VendorDefault | LimitWindow::Unknown => &mut self.minute,
        };
        *slot = slot.or(Some(status));
    }
}

fn read_named(headers: &HeaderMap, name: &str, seconds: u64, now: SystemTime) -> Option<RateLimitStatus> {
    let header_name = |what| format!("x-ratelimit-{what}-{name}");
    let read = read_limit_status(
        headers,
        [&header_name("limit"), &header_name("remaining"), &header_name("reset")],
        now,
    )?;
    Some(RateLimitStatus { window: LimitWindow::Fixed(Duration::from_secs(seconds)), ..read })
}

/// Parses `X-RateLimit-Limit` and its companions.
fn read_plain(headers: &HeaderMap, now: SystemTime) -> Option<RateLimitStatus> {
    let names = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"];
    read_with_window(headers, names, now)
}

fn read_old_draft(headers: &HeaderMap, now: SystemTime) -> Option<RateLimitStatus> {
    read_with_window(headers, ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"], now)
}

/// Parses three headers, of which the first may state windows: `20, 20;w=1`, `100;window=60`.
fn read_with_window(headers: &HeaderMap, names: [&str; 3], now: SystemTime) -> Option<RateLimitStatus> {
    let read = read_limit_status(headers, names, now)?;
    let policies = [header_text(headers, names[0]), header_text(headers, "ratelimit-policy")];
    let mut policies = policies.into_iter().flatten().flat_map(Policy::all);
    let matching = policies.find(|policy| policy.window.is_some() && policy.limit == read.limit);
    Some(RateLimitStatus { window: limit_window(matching.and_then(|policy| policy.window)), ..read })
}

fn limit_window(named: Option<Duration>) -> LimitWindow {
    named.map_or(LimitWindow::Unknown, LimitWindow::Fixed)
}

/// Parses `RateLimit` in the forms of the drafts from version 07 on.
fn read_drafts(headers: &HeaderMap, now: SystemTime) -> Vec<RateLimitStatus> {
    let Some(header) = header_text(headers, "ratelimit") else { return Vec::new() };
    let policies: Vec<Policy<'_>> =
        header_text(headers, "ratelimit-policy").into_iter().flat_map(Policy::all).collect();
    if let Some(remaining) = find_field(header, &["remaining"]).and_then(parse_count) {
        let limit = find_field(header, &["limit"]).and_then(parse_count).filter(|limit| *limit > 0);
        let policy = policies.iter().find(|policy| limit.is_some() && policy.limit == limit);
        let reset = find_field(header, &["reset"]).and_then(|text| parse_reset(text, now));
        let window = limit_window(policy.and_then(|policy| policy.window));
        return vec![RateLimitStatus { limit, remaining, reset, window }];
    }
    let parse_item = |item: &str| {
        let name = item.split(';').next().unwrap_or_default().trim();
        let own = policies.iter().find(|policy| policy.name == name);
        let policy = own.or(policies.first().filter(|_| policies.len() == 1));
        if policy.is_some_and(|policy| !policy.of_requests) {
            return None;
        }
        Some(RateLimitStatus {
            limit: policy.and_then(|policy| policy.limit),
            remaining: find_field(item, &["r"]).and_then(parse_count)?,
            reset: find_field(item, &["t"]).and_then(|text| parse_reset(text, now)),
            window: limit_window(policy.and_then(|policy| policy.window)),
        })
    };
    header.split(',').filter_map(parse_item).collect()
}

/// One quota policy: `"burst";q=20;w=1` or `100;w=60`.
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
            let limit = find_field(item, &["q"]).and_then(parse_count).or_else(|| parse_count(name));
            let seconds =
                find_field(item, &["w", "window"]).and_then(parse_count).filter(|seconds| *seconds > 0);
            let unit = find_field(item, &["qu"]).map(|unit| unit.trim_matches('"'));
            Self {
                name,
                limit: limit.filter(|limit| *limit > 0),
                window: seconds.map(Duration::from_secs),
                of_requests: unit.is_none_or(|unit| unit == "requests"),
            }
        })
    }
}

/// Returns the first value with one of these names in `a=1;b=2, c=3`.
fn find_field<'t>(fields: &'t str, names: &[&str]) -> Option<&'t str> {
    let pairs = fields.split([',', ';']).filter_map(|field| field.split_once('='));
    pairs
        .map(|(name, value)| (name.trim(), value.trim()))
        .find(|(name, _)| names.contains(name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Format;
    use crate::wire::{RateLimitHeaders, fixtures};

    fn read(pairs: &[(&'static str, &'static str)]) -> RateLimitHeaders {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let headers: HeaderMap = headers.collect();
        let [limits, others @ ..] =
            Format::ALL.map(|format| format.read_rate_limit_headers(&headers, fixtures::arrival()));
        assert_eq!(others, [limits, limits, limits], "gateway headers are read in every format");
        limits
    }

    fn status(limit: u64, remaining: u64, seconds: Option<u64>, window: u64) -> Option<RateLimitStatus> {
        let reset = seconds.map(Duration::from_secs);
        let window = LimitWindow::Fixed(Duration::from_secs(window));
        Some(RateLimitStatus { limit: Some(limit), remaining, reset, window })
    }

    #[test]
    fn limits_per_second_and_per_day_are_distinguished() {
        let second = RateLimitHeaders {
            requests_per_second: status(20, 19, Some(1), 1),
            ..RateLimitHeaders::default()
        };
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
        let day = status(1_000, 900, Some(3_000), 86_400);
        assert_eq!(both, RateLimitHeaders { requests_per_day: day, ..second });
        let hour = read(&[
            ("ratelimit-limit", "500, 500;w=3600"),
            ("ratelimit-remaining", "7"),
            ("ratelimit-reset", "20"),
        ]);
        assert_eq!(
            hour,
            RateLimitHeaders {
                requests_per_day: status(500, 7, Some(20), 3_600),
                ..RateLimitHeaders::default()
            }
        );
    }

    #[test]
    fn the_limits_of_kong_are_distinguished_by_their_names() {
        let limits = read(&[
            ("x-ratelimit-limit-second", "20"),
            ("x-ratelimit-remaining-second", "3"),
            ("x-ratelimit-limit-minute", "600"),
            ("x-ratelimit-remaining-minute", "500"),
            ("ratelimit-limit", "20"),
            ("ratelimit-remaining", "3"),
            ("ratelimit-reset", "1"),
        ]);
        let requests = status(600, 500, None, 60);
        assert_eq!(
            limits,
            RateLimitHeaders {
                requests,
                requests_per_second: status(20, 3, Some(1), 1),
                ..RateLimitHeaders::default()
            }
        );
        // Without these names the window is unknown.
        let limits =
            read(&[("ratelimit-limit", "20"), ("ratelimit-remaining", "3"), ("ratelimit-reset", "1")]);
        let unknown = status(20, 3, Some(1), 1)
            .map(|status| RateLimitStatus { window: LimitWindow::Unknown, ..status });
        assert_eq!(limits, RateLimitHeaders { requests: unknown, ..RateLimitHeaders::default() });
    }
}
