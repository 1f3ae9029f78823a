//! Which requests a target refuses for its rate limit again and again, while it accepts others.
//!
//! Such a refusal says nothing of the limit that others meet: the request waits by itself, and the target is neither held
//! back nor paced for it. Where others are refused too it is the limit, and each refusal counts for all. Pure.

use std::sync::Weak;

use tokio::time::Instant;

use crate::types::Prompt;

/// The request that was refused last.
#[derive(Debug, Default)]
pub(super) struct RefusedRequests(Option<Refused>);

#[derive(Debug)]
struct Refused {
    request: Weak<Prompt>,
    first: Instant,
}

impl RefusedRequests {
    /// Learns that a request was refused; `accepted` is when the target accepted one last. Returns whether the refusal
    /// is for this request alone.
    pub(super) fn add(&mut self, request: &Weak<Prompt>, accepted: Option<Instant>, now: Instant) -> bool {
        if let Some(known) = self.0.as_ref().filter(|known| known.request.ptr_eq(request)) {
            return accepted.is_some_and(|accepted| accepted > known.first);
        }
        self.0 = Some(Refused { request: request.clone(), first: now });
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
    fn a_second_refusal_of_a_request_is_its_own_where_others_were_accepted_since_the_first() {
        let (now, one) = (Instant::now(), requests(1).remove(0));
        let second = |seconds| now + Duration::from_secs(seconds);
        let refused = |accepted: Option<Instant>| {
            let mut refused = RefusedRequests::default();
            let add = |number| refused.add(&Arc::downgrade(&one), accepted, second(number));
            (1..4).map(add).collect::<Vec<_>>()
        };
        assert_eq!(refused(Some(second(2))), [false, true, true]);
        assert_eq!(refused(Some(second(1))), [false; 3]);
        assert_eq!(refused(None), [false; 3]);
    }

    #[test]
    fn where_others_are_refused_too_each_refusal_counts_for_all() {
        let (mut refused, now, two) = (RefusedRequests::default(), Instant::now(), requests(2));
        let accepted = Some(now + Duration::from_secs(1));
        for _ in 0..9 {
            assert!(!two.iter().any(|one| refused.add(&Arc::downgrade(one), accepted, now)));
        }
    }
}
