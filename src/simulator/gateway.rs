//! The headers of a gateway in front of a vendor: how the limit of requests stands, by the second or by the minute.
//!
//! Knows no client. What each sends is in <https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-08.html>
//! and in the documentation of Kong's plugin `rate-limiting`, <https://docs.konghq.com/hub/kong-inc/rate-limiting/>.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Gateway;
use super::account::{Quantity, Standing};
use super::settings::BucketSize;

/// Adds a gateway's headers.
pub(super) fn add_standing(
    gateway: Gateway,
    bucket: BucketSize,
    headers: &mut HeaderMap,
    standing: &Standing,
) {
    let requests = |gauge: &&super::account::Gauge| gauge.quantity == Quantity::Requests;
    let Some(gauge) = standing.iter().flatten().find(requests) else { return };
    let window = match bucket {
        BucketSize::Second => 1,
        BucketSize::Minute => 60,
    };
    let limit = (gauge.limit * window / 60).max(1);
    let remaining = gauge.remaining.min(limit);
    // A window that is used is over in a second at least.
    let reset = gauge.reset.as_secs_f64().ceil().clamp(1.0, window as f64) as u64;
    let mut add = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    match gateway {
        Gateway::Ietf => {
            add("ratelimit-policy", format!("\"requests\";q={limit};w={window}"));
            add("ratelimit", format!("\"requests\";r={remaining};t={reset}"));
        }
        Gateway::Kong => {
            add("ratelimit-limit", limit.to_string());
            add("ratelimit-remaining", remaining.to_string());
            add("ratelimit-reset", reset.to_string());
        }
    }
}
