//! Takes calls, lets them leave when they may, and tells the router how the provider is doing.
//!
//! Makes no call itself: each is a task on the shared runtime, which outlives the actor. Holds no
//! number that must survive it: those are in its [`State`].

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;
use tracing::debug;

use crate::supervisor::{Later, Stop};

use super::call::{Call, HealthChanged, Refused, Replied};
use super::exchange::exchange;
use super::permit::Ended;
use super::state::{Departure, Next, State};

/// How often waiting calls whose askers have gone are looked for, and health is told anew.
const TICK: Duration = Duration::from_secs(1);

/// The actor of one provider.
pub struct Provider {
    state: Arc<State>,
    router: Recipient<HealthChanged>,
    told: Option<HealthChanged>,
    alarm: Option<(Instant, SpawnHandle)>,
}

/// Tells the actor that a call has ended and another may leave, or that its health changed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Released;

impl Provider {
    /// Makes a life of the provider whose knowledge is `state`.
    pub fn new(state: Arc<State>, router: Recipient<HealthChanged>) -> Self {
        Self { state, router, told: None, alarm: None }
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        loop {
            match self.state.next(Instant::now()) {
                Next::Leave(departure) => {
                    let call = call(self.state.clone(), *departure);
                    drop(self.state.runtime().spawn(call));
                }
                Next::Wait(until) => return self.wake_at(until, ctx),
                Next::Nothing => return,
            }
        }
    }

    fn wake_at(&mut self, at: Instant, ctx: &mut Context<Self>) {
        if let Some((set, alarm)) = self.alarm {
            if set <= at && set > Instant::now() {
                return;
            }
            ctx.cancel_future(alarm);
        }
        let wait = at.saturating_duration_since(Instant::now());
        let alarm = ctx.run_later(wait, |provider, ctx| {
            provider.alarm = None;
            provider.pump(ctx);
        });
        self.alarm = Some((at, alarm));
    }

    fn tell_health(&mut self) {
        let health = self.state.health(Instant::now());
        if self.told.as_ref() != Some(&health) {
            self.router.do_send(health.clone());
            self.told = Some(health);
        }
    }
}

/// Makes the call that may leave, and tells its asker and the state how it ended.
async fn call(state: Arc<State>, departure: Departure) {
    let Departure { waiting, key, permit } = departure;
    let (call, left) = (waiting.call, Instant::now());
    let waited = left - waiting.asked;
    let Some(model) = state.settings().models.get(&call.model) else { return };
    let exchanged = Box::pin(exchange(&state, &call, model, &key)).await;
    let took = left.elapsed();
    let result = exchanged.result;
    permit.settle(&Ended { result: &result, hints: exchanged.hints, took });
    if let Err(failure) = &result {
        debug!(provider = %state.name(), model = %call.model, key = %key.label, %failure, ?took, "call failed");
    }
    let usage = match &result {
        Ok(reply) => reply.usage,
        Err(failure) => failure.usage.as_deref().copied(),
    };
    let cost = model.price.zip(usage).map(|(price, usage)| price.cost(&usage));
    let first_token = exchanged.first_token;
    waiting.reply.send(Ok(Replied { key: key.label, waited, took, first_token, cost, result }));
}

impl Actor for Provider {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.tell_health();
        self.pump(ctx);
        ctx.run_interval(TICK, |provider, ctx| {
            provider.state.sweep(Instant::now());
            provider.tell_health();
            provider.pump(ctx);
        });
    }
}

impl Handler<Call> for Provider {
    type Result = Later<Result<Replied, Refused>>;

    fn handle(&mut self, call: Call, ctx: &mut Self::Context) -> Self::Result {
        let (reply, later) = Later::promise();
        self.state.enqueue(call, reply, Instant::now());
        self.pump(ctx);
        later
    }
}

impl Handler<Released> for Provider {
    type Result = ();

    fn handle(&mut self, _: Released, ctx: &mut Self::Context) {
        self.pump(ctx);
        self.tell_health();
    }
}

impl Handler<Stop> for Provider {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
