//! Looks at calls that have come, lets them leave when they may, and tells the router how the provider is doing.
//!
//! Makes no call itself: they are tasks on threads of their own, which outlive the actor. Holds no call and no
//! number that must survive it: those are in its [`State`].

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use crate::chaos;
use crate::supervisor::Stop;

use super::arrivals::Arrived;
use super::call::HealthChanged;
use super::outgoing::leave;
use super::state::{Next, State};

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

/// Tells the actor that another call may leave, where no call that ends hands its place on.
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
                    leave(&self.state, *departure);
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
