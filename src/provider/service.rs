//! Takes a provider or a target out of service and back: by hand, and when a reload removes or replaces it.

use std::sync::Arc;

use tokio::time::Instant;

use crate::types::ModelName;

use super::out_of_service::OutOfService;
use super::state::State;

impl State {
    /// Returns why it takes no new calls; `None` if it takes them.
    pub fn out_of_service(&self) -> Option<OutOfService> {
        self.lock().out_of_service
    }

    /// Takes no more calls, until it is resumed. Queued calls are rejected, so that they go to other targets; calls in flight
    /// end.
    pub fn drain(&self) {
        let mut scheduler = self.lock();
        scheduler.out_of_service.get_or_insert(OutOfService::Drained);
        drop(scheduler);
        self.reject_out_of_service();
    }

    /// Takes calls again after [`drain`](Self::drain).
    pub fn resume(&self) {
        let mut scheduler = self.lock();
        scheduler.out_of_service.take_if(|reason| *reason == OutOfService::Drained);
        drop(scheduler);
        self.notify_actor(true);
    }

    /// Takes no more calls for ever. Queued calls and calls in flight end. Later calls go to `successor`, if there is one.
    pub fn retire(&self, successor: Option<Arc<Self>>) {
        let reason = if successor.is_some() { OutOfService::Replaced } else { OutOfService::Removed };
        self.lock().out_of_service = Some(reason);
        if let Some(successor) = successor {
            self.set_successor(successor);
        }
        self.notify_actor(true);
    }

    /// Returns whether no call is queued or in flight.
    pub fn is_idle(&self) -> bool {
        let scheduler = self.lock();
        scheduler.in_flight == 0 && scheduler.queue.is_empty() && self.inbox.len() == 0
    }

    /// Opens the breaker of a target until it is closed by hand. Queued calls are rejected; calls in flight end. Returns
    /// whether there is such a model.
    pub fn force_breaker_open(&self, model: &ModelName) -> bool {
        let mut scheduler = self.lock();
        let Some(target) = scheduler.targets.get_mut(model).filter(|target| !target.is_retired) else {
            return false;
        };
        target.is_forced_open = true;
        drop(scheduler);
        self.reject_out_of_service();
        true
    }

    /// Closes the breaker of a target now, also one that was opened by hand, and the breaker of the address. Returns whether
    /// there is such a model.
    pub fn force_breaker_closed(&self, model: &ModelName) -> bool {
        let mut scheduler = self.lock();
        let Some(target) = scheduler.targets.get_mut(model).filter(|target| !target.is_retired) else {
            return false;
        };
        target.is_forced_open = false;
        if target.breaker.force_close() {
            target.concurrency.restart_after_outage(Instant::now());
        }
        scheduler.endpoint_breaker.force_close();
        drop(scheduler);
        self.notify_actor(true);
        true
    }

    /// Rejects the queued calls of targets that were taken out of service by hand.
    fn reject_out_of_service(&self) {
        let evicted = self.lock().evict_out_of_service();
        evicted.into_iter().for_each(|(queued, rejection)| queued.responder.send(Err(rejection)));
        self.notify_actor(true);
    }
}
