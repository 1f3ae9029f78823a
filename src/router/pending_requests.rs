//! The bound on pending requests of callers outside of runs, shared evenly by their scopes.
//!
//! A scope that has many requests pending leaves places for the others ([`has_room`]). Of the scopes that wait for a place,
//! the one with the fewest pending requests gets the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::guard::has_room;
use crate::types::ScopeName;

/// The pending requests of all scopes.
#[derive(Debug)]
pub(super) struct PendingRequests {
    bound: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pending: usize,
    /// The scopes with pending or waiting requests.
    scopes: BTreeMap<ScopeName, OfScope>,
    /// The scopes with waiting requests, in the order in which they get places: by their pending requests, then by the
    /// number of their first waiting request.
    waiting: BTreeSet<(usize, u64, ScopeName)>,
    last_number: u64,
}

#[derive(Debug, Default)]
struct OfScope {
    pending: usize,
    /// By the number of their arrival.
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place among the pending requests. Its drop gives it to the next one.
#[derive(Debug)]
pub(super) struct PendingPermit {
    requests: Arc<PendingRequests>,
    scope: ScopeName,
}

/// A request that waits for a place. Its drop ends the wait, or returns the place if it has one.
#[derive(Debug)]
struct WaitingPlace {
    requests: Arc<PendingRequests>,
    scope: ScopeName,
    number: u64,
    is_taken: bool,
}

impl PendingRequests {
    pub(super) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self { bound, inner: Mutex::default() })
    }

    /// Returns the number of pending requests.
    pub(super) fn len(&self) -> usize {
        self.lock().pending
    }

    /// Takes a place for a request of this scope; `None` if it would have to wait.
    pub(super) fn try_acquire(self: &Arc<Self>, scope: &ScopeName) -> Option<PendingPermit> {
        let mut inner = self.lock();
        let of_scope = inner.scopes.get(scope);
        let must_wait = of_scope.is_some_and(|of_scope| !of_scope.waiting.is_empty());
        if must_wait || !has_room(self.bound, of_scope.map_or(0, |of_scope| of_scope.pending), inner.pending)
        {
            return None;
        }
        inner.add(scope);
        Some(PendingPermit { requests: self.clone(), scope: scope.clone() })
    }

    /// Waits for a place for a request of this scope.
    pub(super) async fn acquire(self: &Arc<Self>, scope: &ScopeName) -> PendingPermit {
        if let Some(permit) = self.try_acquire(scope) {
            return permit;
        }
        // Declared before `waiting`, so that it is dropped after it: a place that was sent is found there.
        let (place_tx, mut place) = oneshot::channel();
        let mut waiting = WaitingPlace {
            requests: self.clone(),
            scope: scope.clone(),
            number: self.lock().push_waiting(scope, place_tx),
            is_taken: false,
        };
        // Between the two locks a place may have become free.
        self.hand_out();
        // The sender is dropped only after it was used, or by the drop of `waiting`.
        if (&mut place).await.is_err() {
            std::future::pending::<()>().await;
        }
        waiting.is_taken = true;
        PendingPermit { requests: self.clone(), scope: scope.clone() }
    }

    /// Gives free places to waiting requests.
    fn hand_out(&self) {
        let mut inner = self.lock();
        // If the first scope has no room, no other has: they have at least as many pending requests.
        while let Some((pending, number, scope)) = inner.waiting.first().cloned() {
            if !has_room(self.bound, pending, inner.pending) {
                return;
            }
            let place = inner.remove_waiting(&scope, number);
            // It has stopped waiting only after it is no longer among the waiting ones.
            if place.is_some_and(|place| place.send(()).is_ok()) {
                inner.add(&scope);
            }
        }
    }

    fn release(&self, scope: &ScopeName) {
        self.lock().remove(scope);
        self.hand_out();
    }

    /// A panic while the lock was held leaves only numbers, which stay usable.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, scope: &ScopeName) {
        self.pending += 1;
        self.update(scope, |of_scope| of_scope.pending += 1);
    }

    fn remove(&mut self, scope: &ScopeName) {
        self.pending = self.pending.saturating_sub(1);
        self.update(scope, |of_scope| of_scope.pending = of_scope.pending.saturating_sub(1));
    }

    fn push_waiting(&mut self, scope: &ScopeName, place: oneshot::Sender<()>) -> u64 {
        self.last_number += 1;
        let number = self.last_number;
        self.update(scope, |of_scope| {
            of_scope.waiting.insert(number, place);
        });
        number
    }

    fn remove_waiting(&mut self, scope: &ScopeName, number: u64) -> Option<oneshot::Sender<()>> {
        self.update(scope, |of_scope| of_scope.waiting.remove(&number))
    }

    /// Changes what is known of a scope, and its position among the waiting ones.
    fn update<R>(&mut self, scope: &ScopeName, change: impl FnOnce(&mut OfScope) -> R) -> R {
        let of_scope = self.scopes.entry(scope.clone()).or_default();
        let before = of_scope.position();
        let result = change(of_scope);
        let after = of_scope.position();
        let is_idle = of_scope.pending == 0 && of_scope.waiting.is_empty();
        if before != after {
            if let Some((pending, number)) = before {
                self.waiting.remove(&(pending, number, scope.clone()));
            }
            if let Some((pending, number)) = after {
                self.waiting.insert((pending, number, scope.clone()));
            }
        }
        if is_idle {
            self.scopes.remove(scope);
        }
        result
    }
}

impl OfScope {
    /// Returns its position among the scopes with waiting requests, if it has any.
    fn position(&self) -> Option<(usize, u64)> {
        let (first, _) = self.waiting.first_key_value()?;
        Some((self.pending, *first))
    }
}

impl Drop for PendingPermit {
    fn drop(&mut self) {
        self.requests.release(&self.scope);
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        if self.is_taken {
            return;
        }
        let was_waiting = self.requests.lock().remove_waiting(&self.scope, self.number).is_some();
        // The place was handed out, and this request does not take it any more.
        if !was_waiting {
            self.requests.release(&self.scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn scope(number: usize) -> ScopeName {
        if number == 0 { ScopeName::default() } else { format!("scope-{number}").as_str().into() }
    }

    fn waiting(requests: &Arc<PendingRequests>, number: usize) -> BoxFuture<'static, PendingPermit> {
        let requests = requests.clone();
        let mut waiting = async move { requests.acquire(&scope(number)).await }.boxed();
        assert!((&mut waiting).now_or_never().is_none(), "it has a place at once");
        waiting
    }

    #[test]
    fn one_scope_takes_the_bound_and_another_still_finds_a_place() {
        let requests = PendingRequests::new(20);
        let flood: Vec<_> = (0..100).map_while(|_| requests.try_acquire(&scope(1))).collect();
        assert_eq!(flood.len(), 20);
        let other = requests.try_acquire(&scope(2));
        assert!(other.is_some());
        drop((flood, other));
        assert_eq!(requests.len(), 0);
        assert!(requests.lock().scopes.is_empty());
    }

    #[test]
    fn the_waiting_scope_with_the_fewest_pending_requests_gets_the_next_place() {
        let requests = PendingRequests::new(20);
        let mut flood: Vec<_> = (0..20).map(|_| requests.try_acquire(&scope(1)).unwrap()).collect();
        let of_other: Vec<_> = (0..2).map_while(|_| requests.try_acquire(&scope(2))).collect();
        let mut again = waiting(&requests, 1);
        let mut other = waiting(&requests, 2);
        flood.truncate(18);
        let place = (&mut other).now_or_never().expect("it has the fewest");
        assert!((&mut again).now_or_never().is_none());
        drop((flood, of_other, place));
        assert!(again.now_or_never().is_some());
    }

    #[test]
    fn a_request_that_stops_waiting_leaves_its_place_to_the_next() {
        let requests = PendingRequests::new(1);
        let first = requests.try_acquire(&scope(1)).unwrap();
        let second = waiting(&requests, 1);
        let third = waiting(&requests, 1);
        drop(first);
        // The second has got the place and is dropped before it has noticed.
        drop(second);
        let third = third.now_or_never().expect("the place is free");
        let fourth = waiting(&requests, 1);
        drop(fourth);
        drop(third);
        assert_eq!(requests.len(), 0);
        let inner = requests.lock();
        assert!(inner.scopes.is_empty() && inner.waiting.is_empty());
    }

    proptest! {
        #[test]
        fn no_place_is_lost_or_given_twice_in_random_histories(
            bound in 1usize..30,
            steps in vec((0usize..4, 0usize..4, any::<prop::sample::Index>()), 1..300),
        ) {
            let requests = PendingRequests::new(bound);
            let mut permits = Vec::new();
            let mut waits: Vec<BoxFuture<'static, PendingPermit>> = Vec::new();
            for (step, number, index) in steps {
                match step {
                    0 => permits.extend(requests.try_acquire(&scope(number))),
                    1 => {
                        let requests = requests.clone();
                        let mut wait = async move { requests.acquire(&scope(number)).await }.boxed();
                        match (&mut wait).now_or_never() {
                            Some(permit) => permits.push(permit),
                            None => waits.push(wait),
                        }
                    }
                    2 if !permits.is_empty() => drop(permits.swap_remove(index.index(permits.len()))),
                    // Also of one that has a place and has not noticed.
                    3 if !waits.is_empty() => drop(waits.swap_remove(index.index(waits.len()))),
                    _ => {}
                }
                if index.index(2) == 0 {
                    let mut left = Vec::new();
                    for mut wait in waits {
                        match (&mut wait).now_or_never() {
                            Some(permit) => permits.push(permit),
                            None => left.push(wait),
                        }
                    }
                    waits = left;
                    prop_assert_eq!(requests.len(), permits.len());
                }
                prop_assert!(requests.len() <= bound + (bound / 10).max(1));
                prop_assert!(requests.len() >= permits.len());
                prop_assert!(waits.is_empty() || requests.len() > 0, "a request waits although nothing is pending");
            }
            drop(permits);
            // The others get their places one after the other.
            while !waits.is_empty() {
                let before = waits.len();
                waits.retain_mut(|wait| wait.now_or_never().is_none());
                prop_assert!(waits.len() < before);
            }
            prop_assert_eq!(requests.len(), 0);
            prop_assert!(requests.lock().scopes.is_empty());
        }
    }
}
