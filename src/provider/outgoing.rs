//! Makes calls that may leave, each series of them in a task of its own.
//!
//! A call that ends hands its place on to the next. Decides nothing: who may leave, the state says. A task that
//! panics costs its call; the actor hears of it and looks at the others.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use crate::chaos;
use crate::supervisor::Reply as ReplyTo;
use crate::types::{Class, Failure, NanoUsd, Scope};

use super::call::{Left, Refused, Replied};
use super::exchange::{Exchanged, exchange};
use super::key::KeyId;
use super::keys::Blame;
use super::outlet::Outlet;
use super::permit::Ended;
use super::state::{Departure, Next, State};

/// Lets a call leave.
pub(super) fn leave(state: &Arc<State>, departure: Departure) {
    let series = Series { state: state.clone(), outlet: state.outlets.begin() };
    let runtime = &state.outlets.get(series.outlet).runtime;
    drop(runtime.spawn(calls(series, departure)));
}

/// Makes a call that may leave, and then one of those that may leave for its end, and so on: a place that is
/// handed on within a task wakes no other thread.
async fn calls(series: Series, departure: Departure) {
    let (state, outlet) = (&series.state, series.state.outlets.get(series.outlet));
    let mut next = Some(departure);
    while let Some(departure) = next {
        let place = Place(Some(state));
        call(state, outlet, departure).await;
        next = place.hand_on();
    }
}

/// Calls that follow each other at one outlet.
struct Series {
    state: Arc<State>,
    outlet: usize,
}

impl Drop for Series {
    fn drop(&mut self) {
        self.state.outlets.ended(self.outlet);
    }
}

/// The place of a call that has left. Where it is not handed on (by a panic), the actor is told.
struct Place<'a>(Option<&'a Arc<State>>);

impl Place<'_> {
    /// Returns the call that may leave now. Lets all leave that may, and tells the actor of what only it can do.
    fn hand_on(mut self) -> Option<Departure> {
        // While there is no actor nobody leaves: its next life looks first.
        let state = self.0.filter(|state| state.slot().shared().is_some())?;
        let mut first = None;
        loop {
            match state.next(Instant::now()) {
                Next::Leave(departure) => {
                    if departure.permit.is_probe() {
                        state.tell_actor(true);
                    }
                    match first {
                        None => first = Some(*departure),
                        Some(_) => leave(state, *departure),
                    }
                }
                Next::Wait(_) => break,
                Next::Nothing => {
                    self.0 = None;
                    break;
                }
            }
        }
        first
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            state.tell_actor(false);
        }
    }
}

/// Makes the call that may leave, and tells its asker and the state how it ended.
async fn call(state: &Arc<State>, outlet: &Outlet, departure: Departure) {
    chaos::point("call.leave");
    let Departure { waiting, key, mut permit } = departure;
    let (call, left) = (waiting.call, Instant::now());
    let Some(model) = state.settings().models.get(&call.model) else { return };
    if waiting.reply.is_abandoned() {
        return;
    }
    if let Some(departure) = &call.departure
        && !departure.leave(Left {
            at: left,
            number: permit.number(),
            key: key.id.label.clone(),
            likely: permit.likely(),
        })
    {
        return debug!(provider = %state.name(), "the call was withdrawn as it was about to leave");
    }
    permit.leaves();
    let mut owed = Owed {
        reply: Some(waiting.reply),
        number: permit.number(),
        key: key.id.clone(),
        probe: permit.is_probe(),
        forced: permit.is_forced(),
        perhaps: permit.likely(),
        left,
        waited: left - waiting.asked,
    };
    let exchanged = {
        let exchange = pin!(exchange(state, outlet, &call, model, &key, &permit));
        tokio::select! {
            biased;
            exchanged = exchange => exchanged,
            () = owed.abandoned() => {
                state.broken_off(&call.model, left.elapsed());
                return debug!(provider = %state.name(), "nobody waits for the call any more");
            }
        }
    };
    let Exchanged { mut result, first_token, left_out } = exchanged;
    let took = left.elapsed();
    let began = first_token.is_some();
    let paused = call.departure.as_ref().map(|departure| departure.paused()).unwrap_or_default();
    // Of the provider's speed the time says nothing in which its reply was not read.
    let took = took.saturating_sub(paused);
    let (booked, blame) = permit.settle(&Ended { result: &result, took, began });
    owed.perhaps = booked.perhaps;
    if let Err(failure) = &mut result {
        conclude(failure, blame);
        if let Scope::Parameter(parameter) = failure.scope
            && !state.leave_out(&call.model, parameter, left_out)
        {
            failure.scope = Scope::Class;
        }
        debug!(provider = %state.name(), model = %call.model, key = %key.id.label, %failure, ?took, "call failed");
    }
    let usage = match &result {
        Ok(reply) => reply.usage,
        Err(failure) => failure.usage.as_deref().copied(),
    };
    let cost = model.price.zip(usage).and_then(|(price, usage)| price.cost(&usage));
    chaos::point("call.tell");
    owed.pay(first_token, cost, result);
}

/// Says how far a refusal reaches, now that it is known if the key is to blame. What may be only this request's
/// is no failure of the account.
fn conclude(failure: &mut Failure, blame: Blame) {
    match (blame, failure.scope) {
        (Blame::Open, Scope::Unclear) => failure.class = Class::ApiError,
        (Blame::Open, _) => failure.scope = Scope::Doubtful,
        (Blame::TheKey, Scope::Unclear) => failure.scope = Scope::Class,
        (Blame::TheKey | Blame::NotTheKey, _) => {}
    }
}

/// The answer to a call that has left. Whoever drops it unpaid (by a panic) says so: the provider may have
/// executed the call.
struct Owed {
    reply: Option<ReplyTo<Result<Replied, Refused>>>,
    number: u64,
    key: KeyId,
    probe: bool,
    forced: bool,
    /// What the call is booked with as long as nobody knows what it cost.
    perhaps: NanoUsd,
    left: Instant,
    waited: Duration,
}

impl Owed {
    async fn abandoned(&mut self) {
        match &mut self.reply {
            Some(reply) => reply.abandoned().await,
            None => std::future::pending().await,
        }
    }

    fn pay(
        &mut self,
        first_token: Option<Duration>,
        cost: Option<NanoUsd>,
        result: Result<crate::types::Reply, Failure>,
    ) {
        let Some(reply) = self.reply.take() else { return };
        let (key, waited, took) = (self.key.clone(), self.waited, self.left.elapsed());
        let (probe, forced, perhaps) = (self.probe, self.forced, self.perhaps);
        let number = self.number;
        reply.send(Ok(Replied {
            number,
            key,
            waited,
            probe,
            forced,
            took,
            first_token,
            cost,
            perhaps,
            result,
        }));
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let lost = "the call was lost with the task that made it";
        self.pay(None, None, Err(Failure::new(Class::NetworkError, lost).maybe_charged()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_call_whose_task_panics_may_have_been_executed() {
        let (reply, awaited) = ReplyTo::awaited();
        let (left, waited) = (Instant::now(), Duration::ZERO);
        let (reply, perhaps) = (Some(reply), NanoUsd(7));
        let owed = Owed {
            reply,
            number: 1,
            key: KeyId::first("k".into()),
            probe: false,
            forced: false,
            perhaps,
            left,
            waited,
        };
        let task = actix_rt::spawn(async move {
            let _owed = owed;
            panic!("as planned");
        });
        assert!(task.await.unwrap_err().is_panic());
        let replied = awaited.await.unwrap().unwrap();
        let failure = replied.result.unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::NetworkError, crate::types::Charged::Maybe));
        assert_eq!((replied.key.label().as_str(), replied.perhaps), ("k", NanoUsd(7)));
    }
}
