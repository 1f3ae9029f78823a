//! Exponential back-off.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A wait that doubles with every failure, up to a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The wait after the first failure.
    pub base: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Backoff {
    /// Returns the wait after `failures` consecutive failures. `jitter` lies in `0.0..1.0` and spreads the
    /// wait over its upper half ("equal jitter"), so that callers that failed at the same time do not retry
    /// at the same time.
    pub fn wait(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.base.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.max).mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(20) };

    #[test]
    fn the_wait_doubles_up_to_its_maximum() {
        let waits: Vec<u64> = (1..=7).map(|failures| BACKOFF.wait(failures, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 20, 20]);
    }

    #[test]
    fn jitter_never_cuts_the_wait_below_half() {
        assert_eq!(BACKOFF.wait(3, 0.0), Duration::from_secs(2));
        assert_eq!(BACKOFF.wait(u32::MAX, 0.0), Duration::from_secs(10));
    }
}
