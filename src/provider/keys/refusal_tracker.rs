//! Decides whether refusals concern a key, or the requests that were sent with it.
//!
//! A key that has answered is not disabled for one refusal: a provider refuses single requests with the same
//! status (a file that the account may not read, a prompt that a firewall blocks). Several consecutive refusals
//! without an answer between them concern the key. Pure.

use std::sync::Weak;

use crate::types::Prompt;

/// Consecutive refusals after which a key that has answered counts as refused.
const MIN_CONSECUTIVE_REFUSALS: usize = 3;

/// The same while requests that were sent before the first refusal have no response yet: their answers would
/// show that the key works.
const MIN_CONSECUTIVE_REFUSALS_WHILE_PENDING: usize = 12;

/// One refused attempt.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct RefusedAttempt<'a> {
    /// Its prompt.
    pub(in crate::provider) request: &'a Weak<Prompt>,
    /// Whether the provider states that it refuses the key, or its use of the model.
    pub(in crate::provider) is_explicit: bool,
    /// The number of the oldest attempt without response headers.
    pub(in crate::provider) oldest_pending: Option<u64>,
    /// The number of the attempt that was sent last.
    pub(in crate::provider) latest_sent: u64,
}

/// Consecutive refusals of one key, or of one key's use of one model.
#[derive(Debug, Default)]
pub(in crate::provider) struct RefusalTracker {
    has_answered: bool,
    /// The requests that were refused since the last answer. Explicit refusals count each, all others once per
    /// request.
    refused: Vec<Weak<Prompt>>,
    /// The number of the attempt that had been sent last when the first refusal arrived.
    first_refusal_number: u64,
    /// The first request that was refused before any was answered.
    first_refused: Option<Weak<Prompt>>,
    /// Whether another request was refused as well before any was answered.
    is_confirmed: bool,
}

impl RefusalTracker {
    /// Records an answer.
    pub(in crate::provider) fn record_answered(&mut self) {
        self.has_answered = true;
        self.refused.clear();
    }

    /// Records that the provider accepted a request.
    pub(in crate::provider) fn record_accepted(&mut self) {
        self.refused.clear();
    }

    /// Returns whether a single request was refused, before any was answered: the provider may refuse that request
    /// and not the key.
    pub(in crate::provider) fn is_shown_by_one_request(&self) -> bool {
        !self.has_answered && !self.is_confirmed
    }

    /// Records a refusal. Returns whether the key counts as refused.
    pub(in crate::provider) fn record_refused(&mut self, attempt: RefusedAttempt<'_>) -> bool {
        if !self.has_answered {
            let first = self.first_refused.get_or_insert_with(|| attempt.request.clone());
            self.is_confirmed |= !first.ptr_eq(attempt.request);
        }
        if self.refused.is_empty() {
            self.first_refusal_number = attempt.latest_sent;
        }
        let are_others_pending =
            attempt.oldest_pending.is_some_and(|oldest| oldest <= self.first_refusal_number);
        if attempt.is_explicit && !self.has_answered && !are_others_pending {
            return true;
        }
        let is_new = !self.refused.iter().any(|known| known.ptr_eq(attempt.request));
        if (is_new || attempt.is_explicit) && self.refused.len() < MIN_CONSECUTIVE_REFUSALS_WHILE_PENDING {
            self.refused.push(attempt.request.clone());
        }
        self.refused.len()
            >= if are_others_pending {
                MIN_CONSECUTIVE_REFUSALS_WHILE_PENDING
            } else {
                MIN_CONSECUTIVE_REFUSALS
            }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn requests(count: usize) -> Vec<Arc<Prompt>> {
        (0..count).map(|number| Arc::new(Prompt::text(number.to_string()))).collect()
    }

    /// Refuses these requests while the attempt of number `oldest_pending` waits. Returns the result of each.
    fn refuse(
        tracker: &mut RefusalTracker,
        requests: &[Arc<Prompt>],
        is_explicit: bool,
        oldest_pending: Option<u64>,
    ) -> Vec<bool> {
        let one = |request| {
            let request = &Arc::downgrade(request);
            tracker.record_refused(RefusedAttempt { request, is_explicit, oldest_pending, latest_sent: 10 })
        };
        requests.iter().map(one).collect()
    }

    #[test]
    fn a_key_that_never_answered_is_refused_by_the_first_explicit_refusal_unless_others_are_pending() {
        assert_eq!(refuse(&mut RefusalTracker::default(), &requests(1), true, None), [true]);
        // Attempts that were sent with it may show that the key works.
        let with_others = refuse(&mut RefusalTracker::default(), &requests(12), true, Some(1));
        assert_eq!(with_others.iter().position(|refused| *refused), Some(11));
        let unclear = refuse(&mut RefusalTracker::default(), &requests(3), false, None);
        assert_eq!(unclear, [false, false, true]);
    }

    #[test]
    fn a_key_that_has_answered_is_refused_after_three_different_requests_without_an_answer_between() {
        let mut tracker = RefusalTracker::default();
        tracker.record_answered();
        let requests = requests(5);
        assert_eq!(refuse(&mut tracker, &requests[..2], true, None), [false, false]);
        tracker.record_answered();
        assert_eq!(refuse(&mut tracker, &requests[..3], true, None), [false, false, true]);
        tracker.record_accepted();
        assert_eq!(refuse(&mut tracker, &requests[3..], true, None), [false, false]);
    }

    #[test]
    fn repeated_refusals_of_one_request_do_not_concern_the_key_unless_they_are_explicit() {
        let mut tracker = RefusalTracker::default();
        tracker.record_answered();
        let one = vec![requests(1).remove(0); 20];
        assert!(!refuse(&mut tracker, &one, false, None).contains(&true));
        tracker.record_answered();
        assert_eq!(refuse(&mut tracker, &one[..3], true, None), [false, false, true]);
    }

    #[test]
    fn requests_sent_before_are_waited_for_unless_very_many_are_refused() {
        let mut tracker = RefusalTracker::default();
        tracker.record_answered();
        let requests = requests(13);
        let many = refuse(&mut tracker, &requests[..12], false, Some(10));
        assert_eq!(many.iter().position(|refused| *refused), Some(11));
        tracker.record_answered();
        assert!(!refuse(&mut tracker, &requests[..3], false, Some(10)).contains(&true));
        // Their responses arrived and were no answers.
        assert_eq!(refuse(&mut tracker, &requests[3..4], false, Some(11)), [true]);
    }

    #[test]
    fn a_key_that_never_answered_is_refused_for_certain_if_it_is_refused_for_two_requests() {
        let mut tracker = RefusalTracker::default();
        let requests = requests(2);
        let first = [requests[0].clone(), requests[0].clone()];
        assert_eq!(refuse(&mut tracker, &first, true, None), [true, true]);
        assert!(tracker.is_shown_by_one_request());
        assert_eq!(refuse(&mut tracker, &requests[1..], true, None), [true]);
        assert!(!tracker.is_shown_by_one_request());
    }

    #[test]
    fn a_request_that_has_ended_is_not_mistaken_for_a_new_one_at_its_address() {
        let mut tracker = RefusalTracker::default();
        tracker.record_answered();
        let each = (0..3).map(|_| refuse(&mut tracker, &requests(1), false, None)[0]);
        assert_eq!(each.collect::<Vec<_>>(), [false, false, true]);
    }

    /// What happens to a key.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Answered,
        LetIn,
        Refused { request: usize, is_explicit: bool },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => Just(Event::Answered),
            1 => Just(Event::LetIn),
            6 => (0..5usize, any::<bool>()).prop_map(|(request, is_explicit)| Event::Refused { request, is_explicit }),
        ]
    }

    proptest! {
        #[test]
        fn a_key_is_refused_after_exactly_the_required_consecutive_refusals(events in vec(event(), 1..200)) {
            let requests = requests(5);
            let mut tracker = RefusalTracker::default();
            let mut has_answered = false;
            // Refusals since the last answer; explicit refusals count each.
            let mut consecutive: Vec<(usize, bool)> = Vec::new();
            for event in events {
                match event {
                    Event::Answered => {
                        tracker.record_answered();
                        has_answered = true;
                        consecutive.clear();
                    }
                    Event::LetIn => {
                        tracker.record_accepted();
                        consecutive.clear();
                    }
                    Event::Refused { request, is_explicit } => {
                        let one = &requests[request..=request];
                        let is_refused = refuse(&mut tracker, one, is_explicit, None)[0];
                        if is_explicit && !has_answered {
                            prop_assert!(is_refused);
                            continue;
                        }
                        if is_explicit || consecutive.iter().all(|(known, _)| *known != request) {
                            consecutive.push((request, is_explicit));
                        }
                        prop_assert_eq!(is_refused, consecutive.len() >= MIN_CONSECUTIVE_REFUSALS);
                    }
                }
            }
        }
    }
}
