//! Permission for one call to be out, which gives itself back.
//!
//! Nothing is counted by hand: however a call ends, and be it by a panic, its permit is dropped.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::chaos;
use crate::guard::{Left, Pass, Ticket};
use crate::types::{Booked, Failure, ModelName, NanoUsd, Prompt, Reply, StepName};
use crate::wire::Hints;

use super::key::KeyId;
use super::keys::Blame;
use super::money::Money;
use super::reservation::Reservation;
use super::state::State;

/// One call that may be out.
#[derive(Debug)]
pub(super) struct Permit {
    state: Arc<State>,
    /// `None` before anything is taken, and once it is given back.
    taken: Option<Taken>,
    /// Dropped before the call leaves, it is given back; dropped after that and before it is settled, it counts as
    /// perhaps spent.
    money: Option<Money>,
}

/// What a call took from the provider's state when it left.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) model: ModelName,
    pub(super) key: KeyId,
    /// What it asks.
    pub(super) request: Weak<Prompt>,
    /// Its number among the provider's calls.
    pub(super) number: u64,
    /// Of the breaker that all lanes share.
    pub(super) door: Pass,
    /// Of its lane's breaker.
    pub(super) pass: Pass,
    pub(super) ticket: Ticket,
    /// Whether it was taken from the retry budget.
    pub(super) is_retry: bool,
    /// Whether it is the first attempt of its request.
    pub(super) is_first: bool,
    pub(super) step: Option<StepName>,
    pub(super) reserved: Reservation,
    /// What it took of the account's limits, and of its model's own.
    pub(super) shared: Left,
    pub(super) own: Left,
}

/// How a call ended, as far as the provider's state is concerned.
pub(super) struct Ended<'a> {
    pub(super) result: &'a Result<Reply, Failure>,
    pub(super) took: Duration,
    /// Whether the answer had begun.
    pub(super) began: bool,
}

impl Permit {
    /// Makes a permit that holds nothing yet: it is there before anything is taken.
    pub(super) fn empty(state: Arc<State>) -> Self {
        Self { state, taken: None, money: None }
    }

    /// Holds what a call has taken.
    pub(super) fn hold(&mut self, taken: Taken, money: Money) {
        self.taken = Some(taken);
        self.money = Some(money);
    }

    /// Returns the call's number among those of its provider.
    pub(super) fn number(&self) -> u64 {
        self.taken.as_ref().map_or(0, |taken| taken.number)
    }

    /// Notes that the call leaves: from here on it may cost something.
    pub(super) fn leaves(&mut self) {
        if let Some(money) = &mut self.money {
            money.leaves();
        }
    }

    /// Returns what the call is likely to cost.
    pub(super) fn likely(&self) -> NanoUsd {
        self.money.as_ref().map(Money::likely).unwrap_or_default()
    }

    /// Returns whether the call is the probe of a breaker.
    pub(super) fn is_probe(&self) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.pass.is_probe() || taken.door.is_probe())
    }

    /// Returns whether the call passed an open breaker, because no other lane was left.
    pub(super) fn is_forced(&self) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.pass.is_forced() || taken.door.is_forced())
    }

    /// Passes on what the headers of the response said, and whether the provider took the call.
    pub(super) fn heard(&self, hints: &Hints, accepted: bool) {
        if let Some(taken) = &self.taken {
            self.state.heard(taken, hints, accepted, Instant::now());
        }
    }

    /// Gives the permit back with what the call taught, and returns what it cost and whether its key is to blame.
    pub(super) fn settle(mut self, ended: &Ended<'_>) -> (Booked, Blame) {
        chaos::point("call.settle");
        // First: whoever is told next may leave for it.
        let booked = self.money.as_mut().map(|money| money.settle(ended.result)).unwrap_or_default();
        let blame = self.state.settle(&mut self.taken, Some(ended), Instant::now());
        (booked, blame)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Before others may leave for it.
        self.money = None;
        if self.taken.is_some() {
            self.state.settle(&mut self.taken, None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Handle;

    use super::*;
    use crate::guard::Need;
    use crate::provider::arrivals::Arrival;
    use crate::provider::call::Call;
    use crate::provider::state::Next;
    use crate::provider::{Account, Settings};
    use crate::supervisor::Reply as ReplyTo;
    use crate::types::{Asker, Class, Priority, Prompt, Tokens, Usage};

    fn state() -> Arc<State> {
        let settings =
            "base_url = 'http://127.0.0.1:9'\nmodels.m = {}\nlimits.output_tokens_per_minute = 60_000";
        let settings: Settings = toml::from_str(settings).unwrap();
        let (base_url, headers) = (settings.base_url.clone().unwrap(), http::HeaderMap::new());
        let account =
            Account { name: "a".into(), settings, base_url, keys: Vec::new(), headers, purses: Vec::new() };
        State::new(account, Handle::current()).unwrap()
    }

    /// Lets a call of a step leave, after a pause that pays every debt.
    async fn leave(state: &Arc<State>) -> Permit {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (now, asker) = (Instant::now(), Asker { step: Some("s".into()), ..Asker::default() });
        let (prompt, deadline) = (Arc::new(Prompt::text("Anybody?")), now + Duration::from_secs(60));
        let (priority, retry, alone) = (Priority::Batch, false, false);
        let (stay, departure, purse) = (true, None, None);
        let call = Call {
            prompt,
            model: "m".into(),
            priority,
            asker,
            retry,
            alone,
            stay,
            not_with: Vec::new(),
            departure,
            purse,
            held: crate::guard::HeldMemory::default(),
            deadline,
        };
        // Without the other end nobody would wait for the answer, and it would not leave.
        let (reply, _awaited) = ReplyTo::awaited();
        state.enqueue(Arrival { call, reply, asked: now }, now);
        match state.next(now) {
            Next::Leave(departure) => {
                let mut permit = departure.permit;
                permit.leaves();
                permit
            }
            Next::Wait(_) | Next::Nothing => panic!("it may not leave"),
        }
    }

    /// Output tokens that are taken now: a thousand come in a second, and nine hundred are there after a pause.
    fn taken(state: &State) -> u128 {
        let now = Instant::now();
        (state.expected(Need { input: 0, output: 900 }, now) - now).as_millis()
    }

    #[actix_web::test]
    async fn however_a_call_ends_no_more_stays_taken_than_it_used() {
        tokio::time::pause();
        let state = state();
        let ended = |permit: Permit, result: Result<Reply, Failure>| {
            permit.settle(&Ended { result: &result, took: Duration::from_secs(1), began: true });
        };
        for output in [[10; 18].as_slice(), &[200, 200]].concat() {
            let usage = Usage { input: Tokens(9), output: Tokens(output), ..Usage::default() };
            let reply =
                Reply { text: String::new(), usage: Some(usage), model: String::new(), request_id: None };
            ended(leave(&state).await, Ok(reply));
            assert_eq!(taken(&state), u128::from(output));
        }
        let permit = leave(&state).await;
        assert_eq!(taken(&state), 200);
        // Cancelled: its answer may have been as long as they are on average.
        drop(permit);
        assert_eq!(taken(&state), 29);
        ended(leave(&state).await, Err(Failure::new(Class::Overloaded, "not now")));
        assert_eq!(taken(&state), 0);
        ended(leave(&state).await, Err(Failure::new(Class::Timeout, "silent").maybe_charged()));
        assert_eq!(taken(&state), 29);
    }
}
