//! How long a provider's responses take to begin, and whether another was asked meanwhile.
//!
//! A call beside a silent one costs money, so a provider whose headers are only late, as those of servers that write the
//! whole answer first, must not have one beside each call.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What is known of a provider's silences.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Whether another provider was asked beside this one since it answered last.
    asked_beside: AtomicBool,
    /// About the longest time until response headers lately, in milliseconds.
    longest: AtomicU64,
}

impl Silence {
    /// Notes that response headers came, so long after their call left.
    pub(super) fn ended(&self, after: Duration) {
        let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        // Forgets slowly what was long once.
        let known = self.longest.load(Relaxed);
        self.longest.store(after.max(known / 8 * 7), Relaxed);
        self.asked_beside.store(false, Relaxed);
    }

    /// Returns about the longest time until response headers lately; zero before there were any.
    pub(super) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Relaxed))
    }

    /// Returns whether another provider may be asked beside this one, and takes it: once until it answers.
    pub(super) fn may_ask_beside(&self) -> bool {
        !self.asked_beside.swap(true, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_is_asked_once_until_it_has_answered() {
        let silence = Silence::default();
        assert_eq!([silence.may_ask_beside(), silence.may_ask_beside()], [true, false]);
        silence.ended(Duration::from_secs(1));
        assert_eq!([silence.may_ask_beside(), silence.may_ask_beside()], [true, false]);
    }

    #[test]
    fn a_long_silence_is_remembered_for_some_answers() {
        let silence = Silence::default();
        assert_eq!(silence.longest(), Duration::ZERO);
        silence.ended(Duration::from_secs(40));
        silence.ended(Duration::from_secs(1));
        assert_eq!(silence.longest(), Duration::from_secs(35));
        (0..40).for_each(|_| silence.ended(Duration::from_secs(1)));
        assert_eq!(silence.longest(), Duration::from_secs(1));
    }
}
