//! What the router gives back, with the way it took.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Charged, Class, Failure, KeyLabel, LaneName, NanoUsd, Reply, Usage};

/// One attempt at one lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Where the call went, or would have gone.
    pub lane: LaneName,
    /// The key it used; `None` when it never left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyLabel>,
    /// From asking until the call left (or was refused).
    pub waited: Duration,
    /// From leaving until its end; zero when it never left.
    pub took: Duration,
    /// From leaving until the first piece of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token: Option<Duration>,
    /// Tokens used, on failure too; `None` when the provider did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What they cost; `None` when the price or the usage is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<NanoUsd>,
    /// What it is booked with because it may have cost something and nobody knows what; zero else.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub perhaps: NanoUsd,
    /// Whether it left although its lane's breaker was open, because no other lane was left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// Whether it was sent beside another call to the same question that took long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hedge: bool,
    /// How it ended.
    pub outcome: Outcome,
}

fn is_nothing(money: &NanoUsd) -> bool {
    *money == NanoUsd(0)
}

impl Attempt {
    /// Returns whether it was lost before it left, by a panic of the provider's actor.
    pub fn is_lost(&self) -> bool {
        self.key.is_none() && matches!(self.outcome, Outcome::Failed(_))
    }

    /// Returns whether it was broken off because another lane had answered first. No other call is
    /// cancelled and yet written down.
    pub fn is_beaten(&self) -> bool {
        self.key.is_some()
            && matches!(&self.outcome, Outcome::Failed(failure) if failure.class == Class::Cancelled)
    }

    /// Says what was unusual about it; `None` when nothing was.
    pub fn note(&self) -> Option<String> {
        let note = if self.forced {
            "left although its breaker was open: no other lane was left"
        } else if self.hedge {
            "asked beside another lane that took long"
        } else if self.is_lost() {
            "lost with the actor that held it, before it left"
        } else {
            return None;
        };
        Some(format!("{}: {note}", self.lane))
    }
}

/// How an [`Attempt`] ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With a whole reply.
    Answered,
    /// With a failure.
    Failed(Failure),
    /// The call never left: the provider could not take it, for this reason.
    Refused(Box<str>),
}

/// Every attempt made for one question, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trail(pub Vec<Attempt>);

impl Trail {
    /// Returns how many calls left this machine for certain.
    pub fn calls(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.key.is_some()).count()
    }

    /// Returns the attempt that gave the answer: the last one that was answered.
    pub fn answering(&self) -> Option<&Attempt> {
        self.0.iter().rev().find(|attempt| attempt.outcome == Outcome::Answered)
    }

    /// Returns how many times the question moved to another lane; a lane that was asked beside another is
    /// no move.
    pub fn failovers(&self) -> usize {
        let lanes: Vec<_> = self.0.iter().filter(|attempt| !attempt.hedge).map(|made| &made.lane).collect();
        lanes.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// Returns how many calls were sent beside another that took long.
    pub fn hedges(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.hedge && attempt.key.is_some()).count()
    }

    /// Returns how many calls were broken off because another lane had answered first.
    pub fn beaten(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.is_beaten()).count()
    }

    /// Returns how many calls left although their lane's breaker was open.
    pub fn forced(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.forced).count()
    }

    /// Returns how many calls were lost before they left.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.is_lost()).count()
    }

    /// Returns how many failed calls the provider may have charged for, those included that were beaten.
    pub fn maybe_charged(&self) -> usize {
        let lost = |attempt: &&Attempt| matches!(&attempt.outcome, Outcome::Failed(failure) if failure.charged == Charged::Maybe);
        self.0.iter().filter(lost).count()
    }
}

/// A question answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the model said.
    pub reply: Reply,
    /// The lane that answered.
    pub lane: LaneName,
    /// Whether a played provider answered: the text is made up.
    pub practice: bool,
    /// What it cost; `None` when the price or the usage is unknown.
    pub cost: Option<NanoUsd>,
    /// Every attempt, the successful one last.
    pub trail: Trail,
    /// How often the question was lost before, with the router or on its way, and asked anew.
    /// Calls made for it until then are in no trail, and may have been paid for.
    pub lost: u32,
}

/// A question that no lane answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{failure}")]
pub struct Unanswered {
    /// The failure that ended it.
    pub failure: Failure,
    /// Every attempt.
    pub trail: Trail,
    /// As [`Answer::lost`].
    pub lost: u32,
}

impl From<Failure> for Unanswered {
    /// Makes the end of a question that was never asked.
    fn from(failure: Failure) -> Self {
        Self { failure, trail: Trail::default(), lost: 0 }
    }
}
