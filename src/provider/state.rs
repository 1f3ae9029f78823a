//! What a provider knows: its arrivals, queue, limits, keys, breakers and counts.
//!
//! Every life of the actor shares it, so that a restart forgets nothing, and calls that outlive a
//! life still count. Holds its lock only for as long as it takes to decide.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::chaos;
use crate::guard::{BreakerState, Purse};
use crate::supervisor::{Reply as ReplyTo, Slot};
use crate::types::{
    AttemptCounts, Class, Failure, KeyLabel, LaneName, ModelName, Parameter, ProviderName, StepName,
};
use crate::wire::{Hints, LeftOut};

use super::actor::{Provider, Released};
use super::arrivals::{Arrival, Arrivals};
use super::book::{Book, Turn};
use super::call::{Call, HealthChanged, Refused, Replied};
use super::estimate::Estimate;
use super::first_attempts::FirstAttempts;
use super::key::{KeyId, ReadyKey};
use super::key_source::Key;
use super::keys::{Blame, Keys};
use super::lane::{ConcurrencyNews, Lane};
use super::money::Spending;
use super::outage::Outage;
use super::outcome::News;
use super::outlet::{CallThreads, Outlets};
use super::permit::{Ended, Permit, Taken};
use super::settings::Settings;
use super::silence::Silence;
use super::snapshot::{LaneSnapshot, RestingKey, Snapshot};
use super::transport;

/// What a provider's state is made from.
#[derive(Debug, Clone)]
pub struct Account {
    /// The provider's name.
    pub name: ProviderName,
    /// Its settings.
    pub settings: Settings,
    /// Where it is; a played provider's address is known only once it listens.
    pub base_url: String,
    /// Its keys, best first; none for a server that wants none.
    pub keys: Vec<Key>,
    /// Headers sent with every call.
    pub headers: HeaderMap,
    /// What its calls spend beside their runs' money: its own of the day, and everybody's.
    pub purses: Vec<Arc<Purse>>,
}

/// The state of one provider.
#[derive(Debug)]
pub struct State {
    name: ProviderName,
    practice: bool,
    base_url: String,
    settings: Settings,
    pub(super) outlets: Outlets,
    slot: Slot<Provider>,
    pub(super) arrivals: Arrivals,
    pub(super) silence: Silence,
    inner: Mutex<Book>,
    /// One reader of key files at a time: a disk that hangs must not gather threads.
    pub(super) reader: Arc<Semaphore>,
    /// Runs that share its capacity.
    pub(super) runs: Arc<AtomicUsize>,
}

/// A call in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) call: Call,
    pub(super) reply: ReplyTo<Result<Replied, Refused>>,
    pub(super) asked: Instant,
    pub(super) estimate: Estimate,
}

/// A call that may leave.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) waiting: Waiting,
    pub(super) key: ReadyKey,
    pub(super) permit: Permit,
}

/// What the queue allows now.
pub(super) enum Next {
    /// This call leaves.
    Leave(Box<Departure>),
    /// The call whose turn it is may leave at that instant.
    Wait(Instant),
    /// There is nothing to do before a call comes, or one that is out ends.
    Nothing,
}

impl State {
    /// Makes the state of a provider; its calls run on `threads`.
    ///
    /// # Errors
    /// When no HTTP client can be made, or a key is not fit to be sent.
    pub fn new(account: Account, threads: impl Into<CallThreads>) -> Result<Arc<Self>, transport::Error> {
        let Account { name, settings, base_url, keys, headers, purses } = account;
        let outlets = Outlets::new(threads.into(), &settings, &base_url, &headers)?;
        let now = Instant::now();
        let keys = Keys::new(settings.format, &keys, settings.rotate_every, now);
        let mut book = Book::new(&settings, keys.map_err(transport::Error::Key)?, now);
        let (slot, practice) = (Slot::default(), settings.is_practice());
        book.spending = Spending::new(name.clone(), practice, purses);
        Ok(Arc::new(Self {
            name,
            practice,
            base_url,
            settings,
            outlets,
            slot,
            arrivals: Arrivals::default(),
            silence: Silence::default(),
            inner: Mutex::new(book),
            reader: Arc::new(Semaphore::new(1)),
            runs: Arc::default(),
        }))
    }

    /// Returns the provider's name.
    pub fn name(&self) -> &ProviderName {
        &self.name
    }

    /// Returns whether the provider is played.
    pub fn is_practice(&self) -> bool {
        self.practice
    }

    /// Returns where the living actor is found.
    pub fn slot(&self) -> &Slot<Provider> {
        &self.slot
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(super) fn runtime(&self) -> &Handle {
        self.outlets.runtime()
    }

    /// Puts a call into the queue, or tells it at once why not.
    pub(super) fn enqueue(&self, arrival: Arrival, now: Instant) {
        let Arrival { call, reply, asked } = arrival;
        if reply.is_abandoned() {
            return;
        }
        // Before the lock: a long prompt takes a millisecond to read.
        let (model, format) = (self.settings.models.get(&call.model), self.settings.format);
        let estimate = Estimate::of(&call.prompt, model, format);
        let mut inner = self.lock();
        chaos::point("state.enqueue");
        inner.spending.turn_to_today();
        match inner.admissible(&self.name, &self.settings, &call, estimate, now) {
            Ok(()) => inner.queue.push(call.place(), Waiting { call, reply, asked, estimate }),
            Err(refused) => {
                drop(inner);
                reply.send(Err(refused));
            }
        }
    }

    /// Decides about the call whose turn it is.
    pub(super) fn next(self: &Arc<Self>, now: Instant) -> Next {
        // Made before the lock is taken, so that it is dropped after the lock is released: it takes it again.
        let mut permit = Permit::empty(self.clone());
        let mut inner = self.lock();
        inner.spending.turn_to_today();
        loop {
            chaos::point("state.next");
            match inner.next(now) {
                Turn::Leave(leaving) => {
                    let (waiting, key, taken, money) = *leaving;
                    permit.hold(taken, money);
                    chaos::point("state.admitted");
                    return Next::Leave(Box::new(Departure { waiting, key, permit }));
                }
                Turn::Refuse(waiting, refused) => {
                    if matches!(refused, Refused::RetriesSpent { .. }) && !inner.retries_ran_out {
                        inner.retries_ran_out = true;
                        warn!(provider = %self.name, "retries have run out, calls that failed wait for more");
                    }
                    waiting.reply.send(Err(refused));
                }
                Turn::Wait(until) => return Next::Wait(until),
                Turn::Nothing => return Next::Nothing,
            }
        }
    }

    /// Believes what the headers of a response say; others may leave at once for it.
    pub(super) fn heard(&self, taken: &Taken, hints: &Hints, accepted: bool, now: Instant) {
        let mut inner = self.lock();
        let heard = inner.heard(taken, hints, accepted, now);
        drop(inner);
        if heard.calls || heard.health {
            self.tell_actor(heard.health);
        }
    }

    /// Takes back what a call took, if that has not been done; `None` is a call that died without an outcome.
    /// Returns whether its key is to blame for its failure.
    pub(super) fn settle(
        self: &Arc<Self>,
        taken: &mut Option<Taken>,
        ended: Option<&Ended<'_>>,
        now: Instant,
    ) -> Blame {
        let mut inner = self.lock();
        if ended.is_some() {
            chaos::point("state.settle");
        }
        let Some(taken) = &taken.take() else { return Blame::NotTheKey };
        let news = inner.settle(taken, ended, now);
        let failed = ended.is_some_and(|ended| ended.result.is_err());
        let away = if failed || news.health { inner.turn_away(now) } else { Vec::new() };
        // After a call that has come to its own end its task looks at what waits.
        let wake = news.health || ended.is_none() && !inner.queue.is_empty();
        let doubtful = inner.keys.are_in_doubt(now);
        drop(inner);
        away.into_iter().for_each(|(waiting, refused)| waiting.reply.send(Err(refused)));
        self.announce(news, taken, ended);
        if doubtful {
            self.read_key_files(now);
        }
        if wake {
            self.tell_actor(news.health);
        }
        news.blame
    }

    /// Tells the actor that calls that wait may leave, or that the provider is doing otherwise than before.
    pub(super) fn tell_actor(&self, health_changed: bool) {
        if let Some(actor) = self.slot.shared() {
            actor.do_send(Released { health_changed });
        }
    }

    fn announce(&self, news: News, taken: &Taken, ended: Option<&Ended<'_>>) {
        let (provider, model, key) = (&self.name, &taken.model, &taken.key.label);
        let failure = ended.and_then(|ended| ended.result.as_ref().err());
        match (news.moved_to, failure) {
            (_, Some(failure)) if news.model_is_missing => {
                warn!(
                    %provider, %model, %failure,
                    "the provider refuses this model to every request, resting the lane; check the model's name and \
                     what the key may use"
                );
            }
            (Some(BreakerState::Open), Some(failure)) if failure.class != Class::NotFound => {
                warn!(%provider, %model, %failure, "lane keeps failing, resting it");
            }
            (Some(BreakerState::Closed), _) => info!(%provider, %model, "lane is well again"),
            _ => {}
        }
        if news.counts_max_tokens {
            warn!(
                %provider, %model,
                "provider counts max_tokens when a call arrives: reserving them from now on; write \
                 reserve = \"max_tokens\" to do so from the start, or lower max_tokens"
            );
        }
        match news.concurrency {
            Some(ConcurrencyNews::Reduced { to, from }) => {
                warn!(%provider, %model, to, from, "provider objects to so many calls at once, making fewer");
            }
            Some(ConcurrencyNews::Restored(to)) => {
                info!(%provider, %model, to, "as many calls at once as before")
            }
            None => {}
        }
        if news.retries_are_back {
            info!(%provider, "retries are there again");
        }
        if let (true, Some(failure)) = (news.key_rests, failure) {
            warn!(%provider, %key, %failure, "key was refused, resting it");
        }
    }

    /// Sends waiting calls away whose asker has gone, whose time is up or whose money is spent, and lets silent
    /// lanes rest; what waits for them goes elsewhere.
    pub(super) fn sweep(&self, now: Instant) {
        let worth_waiting = |waiting: &Waiting| !waiting.reply.is_abandoned() && waiting.call.deadline > now;
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.spending.turn_to_today();
        let met = |call: &Call| inner.spending.met(call);
        let over = inner.queue.take_unless(|waiting| worth_waiting(waiting) && met(&waiting.call).is_none());
        let why = |waiting: Waiting| (met(&waiting.call).unwrap_or(Refused::Busy { until: now }), waiting);
        let over: Vec<_> = over.into_iter().map(why).collect();
        let silent = inner.look_for_silence(now);
        let away = inner.turn_away(now);
        drop(guard);
        for model in silent {
            warn!(provider = %self.name, %model, "lane has fallen silent, asking others meanwhile");
        }
        for (refused, waiting) in over {
            waiting.reply.send(Err(refused));
        }
        for (waiting, refused) in away {
            waiting.reply.send(Err(refused));
        }
    }

    /// Returns what requests to `model` leave out.
    pub(super) fn left_out(&self, model: &ModelName) -> LeftOut {
        self.lock().lanes.get(model).map(|lane| lane.left_out).unwrap_or_default()
    }

    /// Learns that a model does not take a parameter. Returns whether another request than one that left out
    /// `sent` may be taken.
    pub(super) fn leave_out(&self, model: &ModelName, parameter: Parameter, sent: LeftOut) -> bool {
        let mut inner = self.lock();
        let Some(lane) = inner.lanes.get_mut(model) else { return false };
        if lane.left_out != sent {
            return true;
        }
        let is_new = lane.left_out.learn(parameter);
        drop(inner);
        if is_new {
            let (provider, parameter) = (&self.name, parameter.as_str());
            warn!(%provider, %model, parameter, "the model does not take this parameter, asking without it");
        }
        is_new
    }

    /// Returns whether there is a key for `model` beside those that a request was refused with.
    pub fn has_other_key(&self, model: &ModelName, not_with: &[KeyId], now: Instant) -> bool {
        self.lock().keys.has_other(model, not_with, now)
    }

    /// Returns why no request can be answered by `model` within `patience`; `None` where some may.
    pub fn outage(&self, model: &ModelName, patience: Duration, now: Instant) -> Option<Outage> {
        self.lock().outage(model, patience, now)
    }

    /// Returns whether `model` has fallen silent, its probe is due, and no call waits to be it.
    pub fn wants_probe(&self, model: &ModelName, now: Instant) -> bool {
        let inner = self.lock();
        let waits = inner.queue.lanes_waiting().any(|(waiting, _)| waiting == model);
        !waits && inner.lanes.get(model).is_some_and(|lane| lane.is_silent() && lane.breaker.would_admit(now))
    }

    /// Returns whether `model` has fallen silent. Then it has said nothing yet to any call that has had no word: one
    /// that left earlier than the others has waited for longer.
    pub fn is_silent(&self, model: &ModelName) -> bool {
        self.lock().lanes.get(model).is_some_and(Lane::is_silent)
    }

    /// Returns how the attempts at `model` have ended.
    pub fn attempt_counts(&self, model: &ModelName) -> AttemptCounts {
        self.lock().lanes.get(model).map(|lane| lane.counts).unwrap_or_default()
    }

    /// Looks at how the first attempts of requests at `model` have ended.
    pub fn with_first_attempts<T>(
        &self,
        model: &ModelName,
        look: impl FnOnce(&FirstAttempts) -> T,
    ) -> Option<T> {
        self.lock().lanes.get(model).map(|lane| look(&lane.first_attempts))
    }

    /// Returns when the oldest of the attempts at `model` left that have had no word yet.
    pub fn oldest_unheard(&self, model: &ModelName) -> Option<Instant> {
        self.lock().lanes.get(model)?.oldest_unheard()
    }

    pub(super) fn health(&self, now: Instant) -> HealthChanged {
        let inner = self.lock();
        let health = inner.health(now).into_iter();
        let lane = |model| LaneName { provider: self.name.clone(), model };
        HealthChanged { lanes: health.map(|(model, health)| (lane(model), health)).collect() }
    }

    /// Returns how the provider is doing.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let arrived = self.arrivals.len();
        let inner = self.lock();
        let waiting: HashMap<_, _> = inner.queue.lanes_waiting().collect();
        let lanes = inner.lanes.iter().map(|(model, lane)| LaneSnapshot {
            model: model.clone(),
            breaker: inner.breaker_of(model, now).unwrap_or(BreakerState::Closed),
            in_flight: lane.concurrency.in_flight(),
            concurrency: lane.concurrency.reachable(lane.is_paced(&inner.limits)),
            waiting: waiting.get(model).copied().unwrap_or(0),
            reduced_from: lane.concurrency.reduced_from(),
            probed_in: inner.rests_for(lane, now),
            last_failure: inner.last_failure_of(lane).map(|last| (last.class, last.message.clone())),
        });
        Snapshot {
            provider: self.name.clone(),
            practice: self.practice,
            up: self.is_up(),
            in_flight: inner.in_flight,
            concurrency: inner.concurrency(),
            waiting: inner.queue.len() + arrived,
            capacity: inner.capacity(Duration::MAX, now),
            calls: inner.calls,
            throttled: inner.throttled,
            limit: inner.limit_use(now),
            held_for: inner.longest_hold(now),
            retries_wait_for: inner.retries.wait(now),
            lanes: lanes.collect(),
            resting_keys: inner.keys.resting(now).map(resting).collect(),
        }
    }

    /// Returns until when a call of that size would wait.
    #[cfg(test)]
    pub(super) fn expected(&self, need: crate::guard::Need, now: Instant) -> Instant {
        self.lock().limits.expected(0, need, now)
    }

    /// Takes over what an earlier session of a run learned: the tokens of the answers of a step by a model.
    pub fn restore(&self, model: &ModelName, step: &StepName, written: impl IntoIterator<Item = u64>) {
        if let Some(lane) = self.lock().lanes.get_mut(model) {
            lane.sizes.restore(step, written);
        }
    }

    /// A panic while the lock was held leaves numbers, not broken promises: go on with them.
    pub(super) fn lock(&self) -> MutexGuard<'_, Book> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resting((key, why): (&KeyLabel, &Failure)) -> RestingKey {
    RestingKey { key: key.clone(), class: why.class, message: why.message.clone() }
}

#[cfg(test)]
mod silent;
#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod unreachable;
