//! Identical requests of a process are sent once: the others wait for the answer to the first.
//!
//! The first caller *leads* until its answer is accepted or it drops its [`Leading`], because its request failed, was
//! deferred or was cancelled. Then each of the others continues on its own. An accepted answer stays here for a while,
//! until it is certainly in the store: a request that comes in between finds it here.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::store::{self, CachedAnswer};
use crate::types::Fingerprint;

/// The most accepted answers that are kept. The oldest is dropped first.
const MAX_ACCEPTED: usize = 4_096;

/// The most bytes of these answers in the form of the store.
const MAX_ACCEPTED_BYTES: u64 = 16 << 20;

/// How long an accepted answer is kept: longer than a commit waits for another process that writes.
const ACCEPTED_TIME: Duration = store::MAX_LOCK_WAIT.saturating_mul(2);

/// The requests of a process that others may share. Clones share the list.
#[derive(Clone, Default)]
pub struct SharedRequests(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    requests: HashMap<Fingerprint, State>,
    /// The accepted answers, the oldest first.
    accepted: VecDeque<Accepted>,
    accepted_bytes: u64,
}

enum State {
    InFlight(watch::Receiver<Option<Arc<CachedAnswer>>>),
    Accepted(Arc<CachedAnswer>),
}

struct Accepted {
    request: Fingerprint,
    bytes: u64,
    at: Instant,
}

/// What a caller does with its request.
pub(super) enum Entered {
    /// It sends the request, unless the store has the answer.
    Lead(Leading),
    /// Another caller has sent it.
    Wait(Following),
    /// Another caller has just got this answer.
    Answered(Arc<CachedAnswer>),
}

impl SharedRequests {
    /// Begins a request.
    pub(super) fn enter(&self, request: Fingerprint) -> Entered {
        let mut inner = self.lock();
        inner.drop_accepted(Instant::now());
        match inner.requests.get(&request) {
            Some(State::Accepted(answer)) => Entered::Answered(answer.clone()),
            Some(State::InFlight(answer)) => Entered::Wait(Following(answer.clone())),
            None => {
                let (answer_tx, answer) = watch::channel(None);
                inner.requests.insert(request, State::InFlight(answer));
                Entered::Lead(Leading { requests: self.clone(), request, answer: answer_tx })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedRequests {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SharedRequests").finish_non_exhaustive()
    }
}

impl Inner {
    /// Drops the accepted answers beyond the limits.
    fn drop_accepted(&mut self, now: Instant) {
        while let Some(oldest) = self.accepted.front() {
            let fits = self.accepted.len() <= MAX_ACCEPTED && self.accepted_bytes <= MAX_ACCEPTED_BYTES;
            if fits && now.saturating_duration_since(oldest.at) < ACCEPTED_TIME {
                return;
            }
            self.accepted_bytes -= oldest.bytes;
            self.requests.remove(&oldest.request);
            self.accepted.pop_front();
        }
    }
}

/// The caller whose request others wait for. If it is dropped, they continue on their own.
pub(super) struct Leading {
    requests: SharedRequests,
    request: Fingerprint,
    answer: watch::Sender<Option<Arc<CachedAnswer>>>,
}

impl Leading {
    /// Gives the others the accepted answer.
    pub(super) fn publish(self, answer: Arc<CachedAnswer>) {
        let bytes = answer.bytes;
        let mut inner = self.requests.lock();
        inner.requests.insert(self.request, State::Accepted(answer.clone()));
        inner.accepted.push_back(Accepted { request: self.request, bytes, at: Instant::now() });
        inner.accepted_bytes += bytes;
        inner.drop_accepted(Instant::now());
        drop(inner);
        self.answer.send_replace(Some(answer));
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        if self.answer.borrow().is_none() {
            self.requests.lock().requests.remove(&self.request);
        }
    }
}

/// A caller that waits for the request of another.
pub(super) struct Following(watch::Receiver<Option<Arc<CachedAnswer>>>);

impl Following {
    /// Returns the accepted answer; `None` if the other request has ended without one.
    pub(super) async fn answer(mut self) -> Option<Arc<CachedAnswer>> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::Value;

    use super::*;
    use crate::types::{Attempt, NanoUsd, Outcome};

    fn request(number: u8) -> Fingerprint {
        Fingerprint([number; 16])
    }

    fn answer(bytes: u64) -> Arc<CachedAnswer> {
        let answered_by = Attempt {
            target: "a/m".parse().unwrap(),
            key: None,
            queue_time: Duration::ZERO,
            duration: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: Some(NanoUsd(7)),
            uncertain_cost: NanoUsd(0),
            forced: false,
            hedged: false,
            counted_elsewhere: false,
            cache_savings: None,
            reasoning: None,
            outcome: Outcome::Answered,
        };
        let answer = Value::from("A");
        Arc::new(CachedAnswer { key: request(9), answer, answered_by, simulated: false, bytes })
    }

    fn lead(requests: &SharedRequests, number: u8) -> Leading {
        match requests.enter(request(number)) {
            Entered::Lead(leading) => leading,
            Entered::Wait(_) | Entered::Answered(_) => panic!("another caller leads"),
        }
    }

    fn follow(requests: &SharedRequests, number: u8) -> Following {
        match requests.enter(request(number)) {
            Entered::Wait(following) => following,
            Entered::Lead(_) | Entered::Answered(_) => panic!("no other caller leads"),
        }
    }

    fn is_answered(requests: &SharedRequests, number: u8) -> bool {
        matches!(requests.enter(request(number)), Entered::Answered(_))
    }

    #[tokio::test(start_paused = true)]
    async fn the_others_get_the_answer_of_the_first_and_later_ones_too_for_a_while() {
        let requests = SharedRequests::default();
        let first = lead(&requests, 1);
        let other = follow(&requests, 1);
        let third = follow(&requests, 1);
        let elsewhere = lead(&requests, 2);
        let mut waiting = Box::pin(other.answer());
        assert!((&mut waiting).now_or_never().is_none());
        first.publish(answer(3));
        assert_eq!(waiting.await, Some(answer(3)));
        assert_eq!(third.answer().await, Some(answer(3)));
        assert!(is_answered(&requests, 1));
        tokio::time::advance(ACCEPTED_TIME).await;
        drop(lead(&requests, 1));
        drop(elsewhere);
    }

    #[tokio::test]
    async fn if_the_first_is_dropped_the_others_continue_and_one_that_comes_later_leads() {
        let requests = SharedRequests::default();
        let first = lead(&requests, 1);
        let other = follow(&requests, 1);
        drop(first);
        assert_eq!(other.answer().await, None);
        let second = lead(&requests, 1);
        second.publish(answer(3));
        assert!(is_answered(&requests, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_accepted_answers_are_bounded_by_number_and_by_size() {
        let requests = SharedRequests::default();
        for number in 0..5 {
            lead(&requests, number).publish(answer(MAX_ACCEPTED_BYTES / 2));
        }
        let are_answered = [2, 3, 4].map(|number| is_answered(&requests, number));
        assert_eq!(are_answered, [false, true, true]);
        // The check of request 2 has led it, and dropped it.
        assert_eq!(requests.lock().requests.len(), 2);
        for number in 0..MAX_ACCEPTED + 9 {
            let key = Fingerprint::of([number.to_le_bytes().as_slice()]);
            let Entered::Lead(leading) = requests.enter(key) else { panic!("it is new") };
            leading.publish(answer(1));
        }
        let inner = requests.lock();
        assert!(inner.requests.len() <= MAX_ACCEPTED);
        assert_eq!(inner.accepted.len(), inner.requests.len());
    }
}
