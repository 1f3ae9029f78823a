//! The actor of one provider: queues the calls of its inbox, dispatches them when they may be sent, and reports
//! the provider's health to the router.
//!
//! The calls themselves run in tasks on I/O threads, which outlive the actor. Everything that must survive a
//! restart of the actor is in its [`State`].

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use crate::chaos;
use crate::supervisor::Stop;

use super::admission::decision::NextCall;
use super::admission::inbox::CallsArrived;
use super::dispatch::worker::dispatch;
use super::state::{CapacityReleased, HealthSink, Provider, State};

/// How often abandoned calls are removed from the queue, and health is reported again.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// Calls that are taken from the inbox before the actor handles other messages.
const MAX_CALLS_PER_TURN: usize = 64;

impl Provider {
    /// Creates an incarnation of the provider with this `state`.
    pub fn new(state: Arc<State>, health_sink: HealthSink) -> Self {
        Self { state, health_sink, last_reported: None, dispatch_timer: None, health_timer: None }
    }

    /// Moves the calls of the inbox into the queue one at a time, so that a panic loses only the current call.
    fn drain_inbox(&mut self, ctx: &mut Context<Self>) {
        for _ in 0..MAX_CALLS_PER_TURN {
            let Some(call) = self.state.inbox.next() else { return };
            chaos::point("provider.call");
            self.state.enqueue(call, Instant::now());
            chaos::point("provider.queued");
            self.dispatch_ready_calls(ctx);
            chaos::point("provider.dispatched");
        }
        ctx.address().do_send(CallsArrived);
    }

    fn dispatch_ready_calls(&mut self, ctx: &mut Context<Self>) {
        loop {
            match self.state.next(Instant::now()) {
                NextCall::Ready(call) => {
                    chaos::point("provider.dispatch");
                    let is_probe = call.permit.is_probe();
                    dispatch(&self.state, call);
                    // Until the probe ends, the router prefers other targets for all other requests.
                    if is_probe {
                        self.report_health(ctx);
                    }
                }
                NextCall::WaitUntil(until) => return self.dispatch_at(until, ctx),
                NextCall::Idle => return,
            }
        }
    }

    fn dispatch_at(&mut self, at: Instant, ctx: &mut Context<Self>) {
        if let Some((due, timer)) = self.dispatch_timer {
            if due <= at && due > Instant::now() {
                return;
            }
            ctx.cancel_future(timer);
        }
        let wait = at.saturating_duration_since(Instant::now());
        let timer = ctx.run_later(wait, |provider, ctx| {
            chaos::point("provider.timer");
            provider.dispatch_timer = None;
            provider.dispatch_ready_calls(ctx);
        });
        self.dispatch_timer = Some((at, timer));
    }

    fn report_health(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        // Health that changes by the passage of time alone is reported at that time, before the next tick.
        let wait = self.state.recovers_at(now).map(|at| at - now).filter(|wait| *wait < TICK_INTERVAL);
        let timer = wait.map(|wait| ctx.run_later(wait, |provider, ctx| provider.report_health(ctx)));
        // There is at most one health timer.
        if let Some(previous) = std::mem::replace(&mut self.health_timer, timer) {
            ctx.cancel_future(previous);
        }
        let health = self.state.health(now);
        if self.last_reported.as_ref() != Some(&health) {
            (self.health_sink)(health.clone());
            self.last_reported = Some(health);
        }
    }
}

impl Actor for Provider {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        chaos::point("provider.started");
        self.state.incarnation_started(Arc::new(ctx.address().recipient()));
        self.report_health(ctx);
        self.dispatch_ready_calls(ctx);
        self.drain_inbox(ctx);
        ctx.run_interval(TICK_INTERVAL, |provider, ctx| {
            chaos::point("provider.tick");
            provider.state.sweep(Instant::now());
            provider.state.read_key_files(Instant::now());
            // Reported again even if unchanged: the router loses all reported health when it panics.
            provider.last_reported = None;
            provider.report_health(ctx);
            provider.dispatch_ready_calls(ctx);
        });
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.state.incarnation_ended();
    }
}

impl Handler<CallsArrived> for Provider {
    type Result = ();

    fn handle(&mut self, _: CallsArrived, ctx: &mut Self::Context) {
        chaos::point("provider.notified");
        self.drain_inbox(ctx);
    }
}

impl Handler<CapacityReleased> for Provider {
    type Result = ();

    fn handle(&mut self, released: CapacityReleased, ctx: &mut Self::Context) {
        chaos::point("provider.released");
        self.dispatch_ready_calls(ctx);
        if released.health_changed {
            self.report_health(ctx);
        }
    }
}

impl Handler<Stop> for Provider {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
