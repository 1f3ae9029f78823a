//! Looks at calls that have come, lets them leave when they may, and tells the router how the provider is doing.
//!
//! Makes no call itself: each is a task on the shared runtime, which outlives the actor. Holds no call and no
//! number that must survive it: those are in its [`State`].

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;
use tracing::debug;

use crate::chaos;
use crate::supervisor::{Reply as ReplyTo, Stop};
use crate::types::{Class, Failure, KeyLabel, NanoUsd};

use super::arrivals::Arrived;
use super::call::{HealthChanged, Left, Refused, Replied};
use super::exchange::exchange;
use super::permit::Ended;
use super::state::{Departure, Next, State};

/// How often waiting calls whose askers have gone are looked for, and health is told anew.
const TICK: Duration = Duration::from_secs(1);

/// How many calls that have come are looked at before anything else has its turn.
const AT_ONCE: usize = 64;

/// Tells whoever plans how the provider is doing.
pub type TellHealth = Arc<dyn Fn(HealthChanged) + Send + Sync>;

/// The actor of one provider.
pub struct Provider {
    state: Arc<State>,
    tell: TellHealth,
    told: Option<HealthChanged>,
    alarm: Option<(Instant, SpawnHandle)>,
    /// When health changes by time alone, and is told.
    recovery: Option<SpawnHandle>,
}

/// Tells the actor that a call has ended and another may leave.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Released {
    /// Whether the end of that call changed how the provider is doing.
    pub(super) health_changed: bool,
}

impl Provider {
    /// Makes a life of the provider whose knowledge is `state`.
    pub fn new(state: Arc<State>, tell: TellHealth) -> Self {
        Self { state, tell, told: None, alarm: None, recovery: None }
    }

    /// Puts those that have come into the queue, one by one: a panic costs no more than the one it comes at.
    fn receive(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..AT_ONCE {
            let Some(arrival) = self.state.arrivals.next() else { return };
            chaos::point("provider.call");
            self.state.enqueue(arrival, Instant::now());
            chaos::point("provider.queued");
            self.pump(ctx);
            chaos::point("provider.pumped");
        }
        ctx.address().do_send(Arrived);
    }

    fn pump(&mut self, ctx: &mut Context<Self>) {
        loop {
            match self.state.next(Instant::now()) {
                Next::Leave(departure) => {
                    chaos::point("provider.leave");
                    let probe = departure.permit.is_probe();
                    let call = call(self.state.clone(), *departure);
                    drop(self.state.runtime().spawn(call));
                    // Until the probe has come back the others do better elsewhere.
                    if probe {
                        self.tell_health(ctx);
                    }
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
            chaos::point("provider.alarm");
            provider.alarm = None;
            provider.pump(ctx);
        });
        self.alarm = Some((at, alarm));
    }

    fn tell_health(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        // What changes by time alone is told when it does, and not only at the next tick.
        let soon = self.state.recovers(now).map(|at| at - now).filter(|wait| *wait < TICK);
        let next = soon.map(|wait| ctx.run_later(wait, |provider, ctx| provider.tell_health(ctx)));
        // One alarm at a time, however often it is told.
        if let Some(before) = std::mem::replace(&mut self.recovery, next) {
            ctx.cancel_future(before);
        }
        let health = self.state.health(now);
        if self.told.as_ref() != Some(&health) {
            (self.tell)(health.clone());
            self.told = Some(health);
        }
    }
}

/// Makes the call that may leave, and tells its asker and the state how it ended.
async fn call(state: Arc<State>, departure: Departure) {
    chaos::point("call.leave");
    let Departure { waiting, key, permit } = departure;
    let (call, left) = (waiting.call, Instant::now());
    let Some(model) = state.settings().models.get(&call.model) else { return };
    if let Some(departure) = &call.departure {
        // Told once; whoever waits for it may have gone.
        let _ = departure.set(Left { at: left, key: key.id.label.clone(), likely: permit.likely() });
    }
    let mut owed = Owed {
        reply: Some(waiting.reply),
        key: key.id.label.clone(),
        probe: permit.is_probe(),
        forced: permit.is_forced(),
        perhaps: permit.likely(),
        left,
        waited: left - waiting.asked,
    };
    let exchanged = tokio::select! {
        biased;
        exchanged = Box::pin(exchange(&state, &call, model, &key, &permit)) => exchanged,
        () = owed.abandoned() => {
            state.broken_off(&call.model, left.elapsed());
            return debug!(provider = %state.name(), "nobody waits for the call any more");
        }
    };
    let (result, took) = (exchanged.result, left.elapsed());
    let began = exchanged.first_token.is_some();
    owed.perhaps = permit.settle(&Ended { result: &result, took, began }).perhaps;
    if let Err(failure) = &result {
        debug!(provider = %state.name(), model = %call.model, key = %key.id.label, %failure, ?took, "call failed");
    }
    let usage = match &result {
        Ok(reply) => reply.usage,
        Err(failure) => failure.usage.as_deref().copied(),
    };
    let cost = model.price.zip(usage).map(|(price, usage)| price.cost(&usage));
    chaos::point("call.tell");
    owed.pay(exchanged.first_token, cost, result);
}

/// The answer to a call that has left. Whoever drops it unpaid (by a panic) says so: the provider may have
/// executed the call.
struct Owed {
    reply: Option<ReplyTo<Result<Replied, Refused>>>,
    key: KeyLabel,
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
        reply.send(Ok(Replied { key, waited, probe, forced, took, first_token, cost, perhaps, result }));
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let lost = "the call was lost with the task that made it";
        self.pay(None, None, Err(Failure::new(Class::NetworkError, lost).maybe_charged()));
    }
}

impl Actor for Provider {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        chaos::point("provider.started");
        self.state.life_began(Arc::new(ctx.address()));
        self.tell_health(ctx);
        self.pump(ctx);
        self.receive(ctx);
        ctx.run_interval(TICK, |provider, ctx| {
            chaos::point("provider.tick");
            provider.state.sweep(Instant::now());
            provider.state.read_key_files(Instant::now());
            // Told anew even if nothing has changed: the router forgets everything when it panics.
            provider.told = None;
            provider.tell_health(ctx);
            provider.pump(ctx);
        });
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.state.life_ended();
    }
}

impl Handler<Arrived> for Provider {
    type Result = ();

    fn handle(&mut self, _: Arrived, ctx: &mut Self::Context) {
        chaos::point("provider.told");
        self.receive(ctx);
    }
}

impl Handler<Released> for Provider {
    type Result = ();

    fn handle(&mut self, released: Released, ctx: &mut Self::Context) {
        chaos::point("provider.released");
        self.pump(ctx);
        if released.health_changed {
            self.tell_health(ctx);
        }
    }
}

impl Handler<Stop> for Provider {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
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
        let owed = Owed { reply, key: "k".into(), probe: false, forced: false, perhaps, left, waited };
        let task = actix_rt::spawn(async move {
            let _owed = owed;
            panic!("as planned");
        });
        assert!(task.await.unwrap_err().is_panic());
        let replied = awaited.await.unwrap().unwrap();
        let failure = replied.result.unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::NetworkError, crate::types::Charged::Maybe));
        assert_eq!((replied.key.as_str(), replied.perhaps), ("k", NanoUsd(7)));
    }
}
