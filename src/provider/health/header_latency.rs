//! How long the response headers of a provider take, and whether a request was hedged meanwhile.
//!
//! A hedge costs money. A provider whose headers are merely late (servers that generate the whole answer first)
//! must not cause a hedge beside each call. Providers that are asked for whole responses (`stream = "never"`) are not
//! hedged for this reason at all, see `State::max_header_latency`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Time to response headers of a provider.
#[derive(Debug, Default)]
pub(in crate::provider) struct HeaderLatency {
    /// Whether a call at another provider was made beside one at this provider since its last response.
    is_hedged: AtomicBool,
    /// About the longest recent time until response headers, in milliseconds.
    longest: AtomicU64,
}

impl HeaderLatency {
    /// Records response headers that came so long after their call was sent.
    pub(in crate::provider) fn record(&self, after: Duration) {
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        // A long time decays slowly.
        let longest = self.longest.load(Relaxed);
        self.longest.store(after.max(longest / 8 * 7), Relaxed);
        self.is_hedged.store(false, Relaxed);
    }

    /// Returns about the longest recent time until response headers; zero before the first response.
    pub(in crate::provider) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Relaxed))
    }

    /// Returns whether a call at this provider may be hedged, and takes the permission: once until the next
    /// response.
    pub(in crate::provider) fn try_hedge(&self) -> bool {
        !self.is_hedged.swap(true, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hedge_is_allowed_until_the_next_response() {
        let latency = HeaderLatency::default();
        assert_eq!([latency.try_hedge(), latency.try_hedge()], [true, false]);
        latency.record(Duration::from_secs(1));
        assert_eq!([latency.try_hedge(), latency.try_hedge()], [true, false]);
    }

    #[test]
    fn a_long_time_to_headers_decays_over_several_responses() {
        let latency = HeaderLatency::default();
        assert_eq!(latency.longest(), Duration::ZERO);
        latency.record(Duration::from_secs(40));
        latency.record(Duration::from_secs(1));
        assert_eq!(latency.longest(), Duration::from_secs(35));
        (0..40).for_each(|_| latency.record(Duration::from_secs(1)));
        assert_eq!(latency.longest(), Duration::from_secs(1));
    }
}
