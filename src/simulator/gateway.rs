//! Rate-limit headers of an API gateway in front of a vendor, for requests per second or per minute.
//!
//! Sources: <https://www.ietf.org/archive/id/draft-ietf-httpapi-ratelimit-headers-08.html> and the documentation
//! of Kong's plugin `rate-limiting`, <https://docs.konghq.com/hub/kong-inc/rate-limiting/>.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Gateway;
use super::account::{LimitKind, LimitStatuses};
use super::settings::BucketSize;

/// Adds the rate-limit headers of a gateway.
pub(super) fn add_rate_limit_headers(
    gateway: Gateway,
    bucket: BucketSize,
    headers: &mut HeaderMap,
    limit_statuses: &LimitStatuses,
) {
    let is_requests =
        |limit_status: &&super::account::LimitStatus| limit_status.limit_kind == LimitKind::Requests;
    let Some(limit_status) = limit_statuses.iter().flatten().find(is_requests) else { return };
    let window = match bucket {
        BucketSize::Second => 1,
        BucketSize::Minute => 60,
    };
    let limit = (limit_status.limit * window / 60).max(1);
    let remaining = limit_status.remaining.min(limit);
    // A used window has at least one second left.
    let reset = limit_status.reset.as_secs_f64().ceil().clamp(1.0, window as f64) as u64;
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
