//! Parsing of the three headers that state one rate limit: the limit, what remains, and the time until the reset.

use std::time::SystemTime;

use http::HeaderMap;

use crate::types::{LimitWindow, RateLimitStatus};

use super::retry_after::{header_text, parse_count, parse_reset};

/// Parses the three headers of one limit; `None` without a valid remaining count.
pub(super) fn read_limit_status(
    headers: &HeaderMap,
    [limit, remaining, reset]: [&str; 3],
    now: SystemTime,
) -> Option<RateLimitStatus> {
    let count = |name| header_text(headers, name).and_then(parse_count);
    Some(RateLimitStatus {
        remaining: count(remaining)?,
        limit: count(limit).filter(|limit| *limit > 0),
        reset: header_text(headers, reset).and_then(|text| parse_reset(text, now)),
        window: LimitWindow::VendorDefault,
    })
}
