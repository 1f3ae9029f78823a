//! Calls that have come and that the provider's actor has not looked at yet.
//!
//! Their askers lay them down here and not in the actor's mailbox, which dies with each of its lives: a panic
//! costs the one call that is being looked at, and not the crowd behind it. One short message tells the actor
//! of all of them. Decides nothing about a call, and runs nobody else's code under its lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Addr, Message};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::supervisor::Reply as ReplyTo;
use crate::types::{Class, Failure};

use super::actor::Provider;
use super::call::{Call, Refused, Replied};
use super::state::State;

/// How long waiting calls wait for the next life of an actor before they are sent elsewhere; a restart
/// mostly takes less.
const ORPHANED: Duration = Duration::from_secs(2);

/// How long an actor may be down before that is more than a restart. Pauses as long as this follow only ends
/// that came again and again.
const MISSED: Duration = Duration::from_secs(10);

/// Where it is told how a call ended: whoever drops it breaks the call off. Closed without a word when no
/// call was made after all, or a panic of the actor cost it; it had not left then.
pub type Awaited = oneshot::Receiver<Result<Replied, Refused>>;

/// Where it is told.
pub type ReplyToCall = ReplyTo<Result<Replied, Refused>>;

/// Tells the actor that calls have come.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Arrived;

/// A call that has come.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) call: Call,
    pub(super) reply: ReplyToCall,
    pub(super) asked: Instant,
}

/// The calls that have come, oldest first.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Hall>);

#[derive(Debug, Default)]
struct Hall {
    line: VecDeque<Arrival>,
    /// The actor that looks at them; without one nobody is let in.
    actor: Option<Arc<Addr<Provider>>>,
    /// Whether the actor has looked at all of them and waits to be told of the next.
    idle: bool,
    /// Lives that the actor has begun.
    lives: u64,
    /// When the last of them ended; `None` before the first and while one lasts.
    down_since: Option<Instant>,
}

impl Arrivals {
    /// Lays a call down, and returns the actor if it is to be told; gives the reply back when there is none.
    fn lay(&self, arrival: Arrival) -> Result<Option<Arc<Addr<Provider>>>, ReplyToCall> {
        let mut hall = self.hall();
        let Some(actor) = hall.actor.clone() else { return Err(arrival.reply) };
        hall.line.push_back(arrival);
        Ok(std::mem::take(&mut hall.idle).then_some(actor))
    }

    /// Takes the call that came first; when there is none, the actor will be told of the next.
    pub(super) fn next(&self) -> Option<Arrival> {
        let mut hall = self.hall();
        let next = hall.line.pop_front();
        hall.idle = next.is_none();
        next
    }

    pub(super) fn len(&self) -> usize {
        self.hall().line.len()
    }

    fn life_began(&self, actor: Arc<Addr<Provider>>) {
        let mut hall = self.hall();
        // What was told to an earlier life has died with it: this one looks by itself first.
        (hall.actor, hall.idle, hall.down_since) = (Some(actor), false, None);
        hall.lives += 1;
    }

    /// Notes the end of a life; returns how many there have been.
    fn life_ended(&self, now: Instant) -> u64 {
        let mut hall = self.hall();
        let actor = hall.actor.take();
        hall.down_since.get_or_insert(now);
        let lives = hall.lives;
        drop(hall);
        // Closes a mailbox, if nobody else holds its address: not under the lock.
        drop(actor);
        lives
    }

    /// Takes all calls that no further life has begun for; `None` when one has.
    fn orphans(&self, lives: u64) -> Option<VecDeque<Arrival>> {
        let mut hall = self.hall();
        (hall.lives == lives).then(|| std::mem::take(&mut hall.line))
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a call in, which is made when it may be.
    ///
    /// # Errors
    /// When the provider's actor is not there.
    pub fn call(&self, call: Call) -> Result<Awaited, Refused> {
        let (reply, awaited) = ReplyTo::awaited();
        self.lay(call, reply).map_err(|(_, refused)| refused)?;
        Ok(awaited)
    }

    /// Takes a call in likewise; `reply` hears it too when the provider's actor is not there.
    pub fn call_for(&self, call: Call, reply: ReplyToCall) {
        if let Err((reply, refused)) = self.lay(call, reply) {
            reply.send(Err(refused));
        }
    }

    fn lay(&self, call: Call, reply: ReplyToCall) -> Result<(), (ReplyToCall, Refused)> {
        let now = Instant::now();
        match self.arrivals.lay(Arrival { call, reply, asked: now }) {
            Ok(Some(actor)) => actor.do_send(Arrived),
            Ok(None) => {}
            Err(reply) => return Err((reply, self.absence(now))),
        }
        Ok(())
    }

    /// Returns whether the provider's actor is there.
    pub fn is_up(&self) -> bool {
        self.arrivals.hall().actor.is_some()
    }

    /// Notes that its actor lives, at this address.
    pub(super) fn life_began(&self, actor: Arc<Addr<Provider>>) {
        self.arrivals.life_began(actor);
    }

    /// Sends all waiting calls elsewhere if no further life of its actor begins soon, or none can begin: nobody
    /// else would ever let them leave.
    pub(super) fn life_ended(self: &Arc<Self>) {
        let (state, lives) = (self.clone(), self.arrivals.life_ended(Instant::now()));
        let orphans = async move {
            tokio::select! {
                () = sleep(ORPHANED) => {}
                () = state.slot().retired() => {}
            }
            state.refuse_orphans(lives);
        };
        drop(self.runtime().spawn(orphans));
    }

    fn refuse_orphans(&self, lives: u64) {
        let Some(arrivals) = self.arrivals.orphans(lives) else { return };
        let waiting = self.lock().queue.take_unless(|_| false);
        let replies = waiting.into_iter().map(|waiting| waiting.reply);
        let refused = self.absence(Instant::now());
        for reply in replies.chain(arrivals.into_iter().map(|arrival| arrival.reply)) {
            reply.send(Err(refused.clone()));
        }
    }

    /// Says why there is no actor.
    fn absence(&self, now: Instant) -> Refused {
        let gone = |why: String| {
            let message = format!("the actor of {} {why}", self.name());
            Refused::Gone(Failure::new(Class::Internal, message))
        };
        if self.slot().is_retired() {
            return gone("is down: it used up its restarts".to_owned());
        }
        let down_since = self.arrivals.hall().down_since;
        match down_since.map(|since| now.saturating_duration_since(since)) {
            Some(time) if time >= MISSED => gone(format!("has been down for {} s", time.as_secs())),
            _ => Refused::Down,
        }
    }
}

#[cfg(test)]
mod tests;
