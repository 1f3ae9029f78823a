//! Whether refusals are about a key, or about the requests that were made with it.
//!
//! A key that has answered is not given up for one refusal: a provider refuses single requests with the same
//! status (a file that the account may not read, a prompt that a firewall blocks). Several refusals in a row
//! without an answer between them are about the key. Pure.

use std::sync::Weak;

use crate::types::Prompt;

/// Refusals in a row after which a key that has answered is refused.
const IN_A_ROW: usize = 3;

/// The same while requests that left before the first of them are still without a word: their answers would
/// show that the key works.
const IN_A_ROW_WHILE_OTHERS_WAIT: usize = 12;

/// One refused attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefusedAttempt<'a> {
    /// What was asked.
    pub(super) request: &'a Weak<Prompt>,
    /// Whether the provider says that it refuses the key, or its use of the model.
    pub(super) is_certain: bool,
    /// The number of the oldest attempt that still waits for a word.
    pub(super) oldest_waiting: Option<u64>,
    /// The number of the attempt that left last.
    pub(super) latest: u64,
}

/// What is known against one key, or against one key's use of one model.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    has_answered: bool,
    /// The requests that were refused since the last answer. Refusals that are certain count each, all others
    /// once for each request.
    refused: Vec<Weak<Prompt>>,
    /// The number of the attempt that had left last when the first of them came.
    since: u64,
}

impl Suspicion {
    /// Learns that a request was answered.
    pub(super) fn answered(&mut self) {
        self.has_answered = true;
        self.refused.clear();
    }

    /// Learns that the provider has let a request in.
    pub(super) fn let_in(&mut self) {
        self.refused.clear();
    }

    /// Learns that a request was refused, and returns whether the key is.
    pub(super) fn refused(&mut self, attempt: RefusedAttempt<'_>) -> bool {
        if self.refused.is_empty() {
            self.since = attempt.latest;
        }
        let others_wait = attempt.oldest_waiting.is_some_and(|oldest| oldest <= self.since);
        if attempt.is_certain && !self.has_answered && !others_wait {
            return true;
        }
        let is_new = !self.refused.iter().any(|known| known.ptr_eq(attempt.request));
        if (is_new || attempt.is_certain) && self.refused.len() < IN_A_ROW_WHILE_OTHERS_WAIT {
            self.refused.push(attempt.request.clone());
        }
        self.refused.len() >= if others_wait { IN_A_ROW_WHILE_OTHERS_WAIT } else { IN_A_ROW }
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

    /// Refuses these requests while the attempt of number `oldest` waits, and returns what is concluded from each.
    fn refuse(
        suspicion: &mut Suspicion,
        requests: &[Arc<Prompt>],
        is_certain: bool,
        oldest_waiting: Option<u64>,
    ) -> Vec<bool> {
        let one = |request| {
            let request = &Arc::downgrade(request);
            suspicion.refused(RefusedAttempt { request, is_certain, oldest_waiting, latest: 10 })
        };
        requests.iter().map(one).collect()
    }

    #[test]
    fn a_key_that_never_answered_is_refused_by_the_first_refusal_that_names_it_unless_others_are_out() {
        assert_eq!(refuse(&mut Suspicion::default(), &requests(1), true, None), [true]);
        // Those that left with it may show that the key works.
        let with_others = refuse(&mut Suspicion::default(), &requests(12), true, Some(1));
        assert_eq!(with_others.iter().position(|refused| *refused), Some(11));
        let unclear = refuse(&mut Suspicion::default(), &requests(3), false, None);
        assert_eq!(unclear, [false, false, true]);
    }

    #[test]
    fn a_key_that_has_answered_is_refused_after_three_different_requests_without_an_answer_between() {
        let mut suspicion = Suspicion::default();
        suspicion.answered();
        let requests = requests(5);
        assert_eq!(refuse(&mut suspicion, &requests[..2], true, None), [false, false]);
        suspicion.answered();
        assert_eq!(refuse(&mut suspicion, &requests[..3], true, None), [false, false, true]);
        suspicion.let_in();
        assert_eq!(refuse(&mut suspicion, &requests[3..], true, None), [false, false]);
    }

    #[test]
    fn one_request_that_is_refused_again_and_again_says_nothing_of_the_key_unless_the_provider_does() {
        let mut suspicion = Suspicion::default();
        suspicion.answered();
        let one = vec![requests(1).remove(0); 20];
        assert!(!refuse(&mut suspicion, &one, false, None).contains(&true));
        suspicion.answered();
        assert_eq!(refuse(&mut suspicion, &one[..3], true, None), [false, false, true]);
    }

    #[test]
    fn requests_that_left_before_are_waited_for_unless_very_many_are_refused() {
        let mut suspicion = Suspicion::default();
        suspicion.answered();
        let requests = requests(13);
        let many = refuse(&mut suspicion, &requests[..12], false, Some(10));
        assert_eq!(many.iter().position(|refused| *refused), Some(11));
        suspicion.answered();
        assert!(!refuse(&mut suspicion, &requests[..3], false, Some(10)).contains(&true));
        // Their word came, and it was no answer.
        assert_eq!(refuse(&mut suspicion, &requests[3..4], false, Some(11)), [true]);
    }

    #[test]
    fn a_request_that_has_ended_is_not_taken_for_a_new_one_in_its_place() {
        let mut suspicion = Suspicion::default();
        suspicion.answered();
        let each = (0..3).map(|_| refuse(&mut suspicion, &requests(1), false, None)[0]);
        assert_eq!(each.collect::<Vec<_>>(), [false, false, true]);
    }

    /// What happens to a key.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Answered,
        LetIn,
        Refused { request: usize, is_certain: bool },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            1 => Just(Event::Answered),
            1 => Just(Event::LetIn),
            6 => (0..5usize, any::<bool>()).prop_map(|(request, is_certain)| Event::Refused { request, is_certain }),
        ]
    }

    proptest! {
        #[test]
        fn a_key_is_refused_exactly_when_refusals_in_a_row_say_so(events in vec(event(), 1..200)) {
            let requests = requests(5);
            let mut suspicion = Suspicion::default();
            let mut has_answered = false;
            // What was refused since the last answer, certain refusals each.
            let mut in_a_row: Vec<(usize, bool)> = Vec::new();
            for event in events {
                match event {
                    Event::Answered => {
                        suspicion.answered();
                        has_answered = true;
                        in_a_row.clear();
                    }
                    Event::LetIn => {
                        suspicion.let_in();
                        in_a_row.clear();
                    }
                    Event::Refused { request, is_certain } => {
                        let one = &requests[request..=request];
                        let is_refused = refuse(&mut suspicion, one, is_certain, None)[0];
                        if is_certain && !has_answered {
                            prop_assert!(is_refused);
                            continue;
                        }
                        if is_certain || in_a_row.iter().all(|(known, _)| *known != request) {
                            in_a_row.push((request, is_certain));
                        }
                        prop_assert_eq!(is_refused, in_a_row.len() >= IN_A_ROW);
                    }
                }
            }
        }
    }
}
