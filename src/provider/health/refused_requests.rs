//! Detects a request that a target repeatedly refuses with a rate limit while it accepts others.
//!
//! Such a refusal says nothing about the shared limit: the request waits by itself, and the target is neither
//! held back nor slowed down. If other requests are refused too, the limit is the cause, and each refusal
//! counts for all. Pure.

use std::sync::Weak;

use tokio::time::Instant;

use crate::types::Prompt;

/// The request that was refused last.
#[derive(Debug, Default)]
pub(in crate::provider) struct RefusedRequests(Option<LastRefusal>);

#[derive(Debug)]
struct LastRefusal {
    request: Weak<Prompt>,
    first_refused_at: Instant,
}

impl RefusedRequests {
    /// Records a refusal; `accepted` is when the target last accepted a request. Returns whether the refusal
    /// concerns this request alone.
    pub(in crate::provider) fn record(
        &mut self,
        request: &Weak<Prompt>,
        accepted: Option<Instant>,
        now: Instant,
    ) -> bool {
        if let Some(last) = self.0.as_ref().filter(|last| last.request.ptr_eq(request)) {
            return accepted.is_some_and(|accepted| accepted > last.first_refused_at);
        }
        self.0 = Some(LastRefusal { request: request.clone(), first_refused_at: now });
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn requests(count: usize) -> Vec<Arc<Prompt>> {
        (0..count).map(|number| Arc::new(Prompt::text(number.to_string()))).collect()
    }

    #[test]
    fn a_second_refusal_concerns_the_request_alone_if_others_were_accepted_since_the_first() {
        let now = Instant::now();
        let one = requests(1).remove(0);
        let second = |seconds| now + Duration::from_secs(seconds);
        let refused = |accepted: Option<Instant>| {
            let mut refused = RefusedRequests::default();
            let record = |number| refused.record(&Arc::downgrade(&one), accepted, second(number));
            (1..4).map(record).collect::<Vec<_>>()
        };
        assert_eq!(refused(Some(second(2))), [false, true, true]);
        assert_eq!(refused(Some(second(1))), [false; 3]);
        assert_eq!(refused(None), [false; 3]);
    }

    #[test]
    fn if_others_are_refused_too_each_refusal_counts_for_all() {
        let mut refused = RefusedRequests::default();
        let now = Instant::now();
        let two = requests(2);
        let accepted = Some(now + Duration::from_secs(1));
        for _ in 0..9 {
            assert!(!two.iter().any(|one| refused.record(&Arc::downgrade(one), accepted, now)));
        }
    }
}
