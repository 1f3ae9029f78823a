//! What is said to a provider and what it says back.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Message;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use crate::guard::{HeldMemory, Purse};
use crate::types::{Asker, Failure, KeyLabel, LaneName, ModelName, NanoUsd, Priority, Prompt, Reply};

use super::key::KeyId;
use super::queue::Place;

/// One call that a provider is to make, when it may.
#[derive(Debug, Clone)]
pub struct Call {
    /// What to ask.
    pub prompt: Arc<Prompt>,
    /// Whom to ask, by the configuration's name.
    pub model: ModelName,
    /// Who is waiting.
    pub priority: Priority,
    /// For what.
    pub asker: Asker,
    /// Whether this provider has already failed the same question: the call then counts against its
    /// retry budget.
    pub retry: bool,
    /// Whether no other lane is left for the question: a breaker that is open by statistics alone then
    /// lets it through.
    pub alone: bool,
    /// Whether there is nowhere else to go, now or later: the call then waits here even while the
    /// provider has asked us to stay away for long. Else it is refused, to be taken elsewhere.
    pub stay: bool,
    /// The keys that were refused for the same request: another one is used if there is any.
    pub not_with: Vec<KeyId>,
    /// Who is told that the call has left; `None` where nobody cares.
    pub departure: Option<Arc<Departure>>,
    /// Whose money it spends; `None` where nobody's in particular is counted.
    pub purse: Option<Arc<Purse>>,
    /// Whose memory its reply takes; empty where that is the process's.
    pub held: HeldMemory,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

impl Call {
    /// Returns where it waits.
    pub(super) fn place(&self) -> Place {
        Place {
            lane: self.model.clone(),
            priority: self.priority,
            run: self.asker.run,
            rank: self.asker.rank,
        }
    }
}

/// Whether a call has left, or was withdrawn before: one of them, and once.
#[derive(Debug, Default)]
pub struct Departure {
    left: SetOnce<Option<Left>>,
    /// Whether response headers have come.
    word: AtomicBool,
    /// Whether one that left later has shown that the model works again after an outage.
    hangs: AtomicBool,
    pauses: Mutex<Pauses>,
}

/// How long the call itself has not read its reply, because there was no memory for it.
#[derive(Debug, Default)]
struct Pauses {
    ended: Duration,
    since: Option<Instant>,
}

impl Departure {
    /// Makes that of a call of which neither is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the call leaves. Returns whether it may: one that was withdrawn may not.
    pub fn leave(&self, left: Left) -> bool {
        self.left.set(Some(left)).is_ok()
    }

    /// Withdraws the call. Returns whether that was in time: one that has left stays out.
    pub fn withdraw(&self) -> bool {
        self.left.set(None).is_ok() || self.left().is_none()
    }

    /// Returns what is known of the call if it has left.
    pub fn left(&self) -> Option<&Left> {
        self.left.get().and_then(Option::as_ref)
    }

    /// Notes that response headers have come.
    pub fn had_word(&self) {
        self.word.store(true, Relaxed);
    }

    /// Returns whether response headers have come.
    pub fn has_word(&self) -> bool {
        self.word.load(Relaxed)
    }

    /// Notes that a call that left later has shown that the model works again: this one is not likely to be answered.
    pub fn hang(&self) {
        self.hangs.store(true, Relaxed);
    }

    /// Returns whether it hangs.
    pub fn hangs(&self) -> bool {
        self.hangs.load(Relaxed) && !self.has_word()
    }

    /// Notes that the call does not read its reply until the guard is dropped.
    pub(crate) fn pause(&self) -> Pause<'_> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).since = Some(Instant::now());
        Pause(self)
    }

    /// Returns how long the call has not read its reply, until now. The provider was not waited for in that time.
    pub fn paused(&self) -> Duration {
        let pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.ended + pauses.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits until the call leaves; for ever where it was withdrawn.
    pub async fn has_left(&self) -> &Left {
        match self.left.wait().await {
            Some(left) => left,
            None => std::future::pending().await,
        }
    }
}

/// A call that does not read its reply.
pub(crate) struct Pause<'a>(&'a Departure);

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let mut pauses = self.0.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = pauses.since.take() {
            pauses.ended += since.elapsed();
        }
    }
}

/// A call that has left.
#[derive(Debug, Clone)]
pub struct Left {
    /// When.
    pub at: Instant,
    /// Its number among the provider's calls.
    pub number: u64,
    /// With which key.
    pub key: KeyLabel,
    /// What it is likely to cost.
    pub likely: NanoUsd,
}

/// A call that left, and how it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Replied {
    /// Its number among the provider's calls.
    pub number: u64,
    /// The key it used.
    pub key: KeyId,
    /// From asking until the call left.
    pub waited: Duration,
    /// Whether it was the one call that finds out if the lane is well again.
    pub probe: bool,
    /// Whether it left although the breaker was open, because no other lane was left.
    pub forced: bool,
    /// From leaving until its end.
    pub took: Duration,
    /// From leaving until the first piece of the answer.
    pub first_token: Option<Duration>,
    /// What it cost; `None` when the price or the usage is unknown.
    pub cost: Option<NanoUsd>,
    /// What it is booked with because it may have cost something and nobody knows what.
    pub perhaps: NanoUsd,
    /// What came back.
    pub result: Result<Reply, Failure>,
}

/// A call that did not leave; nothing was spent on it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The wait for its turn would outlast its deadline, or the queue is full.
    #[error("its turn would come too late")]
    Busy {
        /// When its turn would come.
        until: Instant,
    },
    /// Too many of its calls are second attempts already.
    #[error("its retries are used up for the moment")]
    RetriesSpent {
        /// When there is room for one again.
        until: Instant,
    },
    /// The breaker is open.
    #[error("its breaker is open")]
    Open {
        /// When it will let a probe through; `None` while a probe is under way.
        until: Option<Instant>,
    },
    /// The breaker is open, and the lane has not answered once since the start: its address is wrong,
    /// rather than its provider out for a while.
    #[error("it has never answered: {0}")]
    NeverAnswered(Failure),
    /// The provider has answered no request yet, and refused several because there is no such model.
    #[error("there is no such model: {0}")]
    NoModel(Failure),
    /// No key is left: each was refused, or its quota is spent.
    #[error("no key is left: {0}")]
    NoKey(Failure),
    /// The call is larger than the model or a whole minute's limit.
    #[error("{0}")]
    TooLarge(Failure),
    /// A cap on money is met, or holds what has no price.
    #[error("{failure}")]
    Budget {
        /// Which cap.
        failure: Failure,
        /// Whether no other lane has money left either.
        all: bool,
    },
    /// The actor is not there: it is being restarted, and back in a moment.
    #[error("it is down")]
    Down,
    /// The actor has been down for long, or used up its restarts: nobody knows when it comes back.
    #[error("{0}")]
    Gone(Failure),
}

/// Tells the router how a provider is doing.
#[derive(Debug, Clone, PartialEq, Message)]
#[rtype(result = "()")]
pub struct HealthChanged {
    /// Every lane of the provider.
    pub lanes: Vec<(LaneName, LaneHealth)>,
}

/// How one lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneHealth {
    /// It takes calls.
    Good,
    /// It refuses calls, or would let them wait for long.
    Poor,
    /// It cannot take any: no key is left.
    Out,
}
