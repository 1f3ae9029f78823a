//! What a call is likely to cost, reserved before it leaves and booked however it ends.
//!
//! Nothing leaks: what is reserved is given back when it is dropped before the call has left, and after that
//! counts as perhaps spent. Knows no limit and no breaker.

use std::sync::Arc;

use crate::clock;
use crate::guard::{Need, Purse, Unreserved};
use crate::types::{
    Booked, Charged, Class, Day, Failure, ModelName, NanoUsd, Price, ProviderName, Reply, Tokens, Usage,
};

use super::call::{Call, Refused};

/// Whose money a provider's calls spend, beside their run's.
#[derive(Debug, Default)]
pub(super) struct Spending {
    provider: Option<ProviderName>,
    /// Answers are made up, and cost nothing unless a price is written for them.
    practice: bool,
    purses: Vec<Arc<Purse>>,
}

/// Why a call cannot have its money.
pub(super) enum NoMoney {
    /// It may when calls that are out have come back: those of its run, or others as well.
    Busy {
        /// Whether only calls of its own run have to wait for that.
        of_run: bool,
    },
    Refused(Refused),
}

/// The money of one call.
#[derive(Debug)]
pub(super) struct Money {
    purses: Vec<Arc<Purse>>,
    provider: ProviderName,
    kept: bool,
    price: Option<Price>,
    likely: NanoUsd,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reserved,
    Out,
    Over,
}

impl Spending {
    pub(super) fn new(provider: ProviderName, practice: bool, purses: Vec<Arc<Purse>>) -> Self {
        Self { provider: Some(provider), practice, purses }
    }

    /// Notes that time has passed: a new day begins with nothing spent.
    pub(super) fn turn_to_today(&self) {
        if !self.purses.is_empty() {
            let today = Day::at(clock::milliseconds());
            self.purses.iter().for_each(|purse| purse.turn_to(today));
        }
    }

    /// Says which cap a call meets, if one is met.
    pub(super) fn met(&self, call: &Call) -> Option<Refused> {
        self.of(call).find_map(|purse| Some(refused(purse, purse.met()?)))
    }

    /// Reserves what a call is likely to cost that needs so much.
    pub(super) fn reserve(&self, call: &Call, price: Option<Price>, need: Need) -> Result<Money, NoMoney> {
        let kept = call.purse.as_ref().is_some_and(|purse| purse.is_kept());
        let provider = self.provider.clone().unwrap_or_else(|| "".into());
        let mut money = Money {
            purses: Vec::new(),
            provider,
            kept,
            price,
            likely: likely(price, need),
            stage: Stage::Reserved,
        };
        if price.is_none() && self.practice {
            return Ok(money);
        }
        for purse in self.of(call) {
            if price.is_none() && purse.is_capped() {
                let refused = Refused::Budget { failure: unpriced(&money.provider, &call.model), all: false };
                return Err(NoMoney::Refused(refused));
            }
            // What was reserved of others is given back with `money`.
            match purse.reserve(money.likely) {
                Ok(()) => money.purses.push(purse.clone()),
                Err(Unreserved::Busy) => {
                    return Err(NoMoney::Busy { of_run: *purse.of() == crate::guard::PurseOf::Run });
                }
                Err(Unreserved::Met) => {
                    let met = purse.met().unwrap_or_else(|| Failure::new(Class::Budget, "a cap is met"));
                    return Err(NoMoney::Refused(refused(purse, met)));
                }
            }
        }
        Ok(money)
    }

    fn of<'a>(&'a self, call: &'a Call) -> impl Iterator<Item = &'a Arc<Purse>> {
        call.purse.iter().chain(&self.purses)
    }
}

/// Where a provider's own money is at an end others may go on; that of a run or a day is everybody's.
fn refused(purse: &Purse, failure: Failure) -> Refused {
    Refused::Budget { failure, all: !matches!(purse.of(), crate::guard::PurseOf::Provider(_)) }
}

fn unpriced(provider: &ProviderName, model: &ModelName) -> Failure {
    let why = format!("nobody knows what {provider}/{model} costs, and spending is capped");
    Failure::new(Class::Budget, format!("{why}: write its price in the configuration"))
}

fn likely(price: Option<Price>, need: Need) -> NanoUsd {
    let usage = Usage { input: Tokens(need.input), output: Tokens(need.output), ..Usage::default() };
    // What cannot be reckoned is reserved as the most that is believed: too much rather than too little.
    price.map_or(NanoUsd(0), |price| price.cost(&usage).unwrap_or(NanoUsd::MAX_CREDIBLE_COST))
}

impl Money {
    /// Returns what was reserved.
    pub(super) fn likely(&self) -> NanoUsd {
        self.likely
    }

    /// Notes that the call has left: from here on it may cost something.
    pub(super) fn leaves(&mut self) {
        self.stage = Stage::Out;
    }

    /// Books what the call cost, and returns it.
    pub(super) fn settle(&mut self, result: &Result<Reply, Failure>) -> Booked {
        let (usage, charged) = match result {
            Ok(reply) => (reply.usage, Charged::Maybe),
            Err(failure) => (failure.usage.as_deref().copied(), failure.charged),
        };
        let known = self.price.zip(usage).and_then(|(price, usage)| price.cost(&usage));
        let booked = match (known, charged) {
            (Some(cost), _) => Booked { cost, ..Booked::default() },
            (None, Charged::No) => Booked::default(),
            (None, Charged::Maybe) => self.perhaps(),
        };
        self.book(booked);
        booked
    }

    /// Books the call as perhaps paid for, unless it is booked already.
    pub(super) fn abandon(&mut self) {
        if self.stage == Stage::Out {
            self.book(self.perhaps());
        }
    }

    /// What is booked of a call of which nobody knows what it used.
    fn perhaps(&self) -> Booked {
        Booked { perhaps: self.likely, ..Booked::default() }
    }

    fn book(&mut self, booked: Booked) {
        self.stage = Stage::Over;
        for purse in self.purses.drain(..) {
            purse.settle(self.likely, &self.provider, booked, self.kept);
        }
    }
}

impl Drop for Money {
    fn drop(&mut self) {
        self.abandon();
        if self.stage == Stage::Reserved {
            self.book(Booked::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::PurseOf;
    use crate::provider::state::tests::call;

    const PRICE: Price = Price { input: 1.0, output: 5.0, cached: None, cache_write: None, long: None };

    /// Calls of 10 tokens in and 20 out, likely to cost 110,000 nano-dollars.
    fn reserve(spending: &Spending, run: &Arc<Purse>, price: Option<Price>) -> Result<Money, NoMoney> {
        let call = Call { purse: Some(run.clone()), ..call(std::time::Duration::from_secs(9)) };
        spending.reserve(&call, price, Need { input: 10, output: 20 })
    }

    fn purses(run: u64, provider: u64) -> (Spending, Arc<Purse>) {
        let of_provider = Purse::of_day(PurseOf::Provider("a".into()), NanoUsd(provider));
        let run = Purse::of_run(Some(NanoUsd(run)), Booked::default(), true);
        (Spending::new("a".into(), false, vec![of_provider]), run)
    }

    fn failed(class: Class) -> Failure {
        Failure::new(class, "no")
    }

    #[test]
    fn however_a_call_ends_its_reservation_is_given_back_and_what_it_may_have_cost_is_booked() {
        let (spending, run) = purses(1_000_000, 1_000_000);
        let usage = Usage { input: Tokens(10), output: Tokens(4), ..Usage::default() };
        let reply = Reply { text: String::new(), usage: Some(usage), model: String::new(), request_id: None };
        let mut gone = Booked::default();
        for (result, cost, perhaps) in [
            (Some(Ok(reply.clone())), 30_000, 0),
            (Some(Ok(Reply { usage: None, ..reply })), 0, 110_000),
            (Some(Err(failed(Class::RateLimit))), 0, 0),
            (Some(Err(failed(Class::Timeout).maybe_charged())), 0, 110_000),
            (Some(Err(failed(Class::Truncated).used(Some(usage)))), 30_000, 0),
            (None, 0, 110_000),
        ] {
            let Ok(mut money) = reserve(&spending, &run, Some(PRICE)) else { panic!("there is enough") };
            money.leaves();
            assert_eq!(run.state().reserved, NanoUsd(110_000));
            result.as_ref().map(|result| money.settle(result));
            drop(money);
            gone += Booked { cost: NanoUsd(cost), perhaps: NanoUsd(perhaps) };
            for purse in [&run, &spending.purses[0]] {
                assert_eq!((purse.state().reserved, purse.state().spent), (NanoUsd(0), gone), "{result:?}");
            }
        }
        assert_eq!(run.by_provider()[&ProviderName::from("a")], gone);
    }

    #[test]
    fn what_one_purse_refuses_is_given_back_to_the_others() {
        let (spending, run) = purses(1_000_000, 150_000);
        let first = reserve(&spending, &run, Some(PRICE));
        assert!(matches!(reserve(&spending, &run, Some(PRICE)), Err(NoMoney::Busy { of_run: false })));
        assert_eq!(run.state().reserved, NanoUsd(110_000));
        // One that did not leave has cost nothing.
        drop(first);
        assert_eq!((run.state().reserved, run.state().spent), (NanoUsd(0), Booked::default()));
    }

    #[test]
    fn a_call_without_a_price_is_refused_where_money_is_capped_and_practice_is_let_through() {
        let (mut spending, run) = purses(1_000_000, 1_000_000);
        let refused = reserve(&spending, &run, None);
        assert!(matches!(refused, Err(NoMoney::Refused(Refused::Budget { all: false, .. }))));
        spending.practice = true;
        assert!(reserve(&spending, &run, None).is_ok());
        let free = Purse::of_run(None, Booked::default(), false);
        assert!(reserve(&Spending::new("a".into(), false, Vec::new()), &free, None).is_ok());
    }
}
