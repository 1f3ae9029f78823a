//! What the router gives back, with the way it took.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::{Charged, Class, FailedAttempt, Failure, KeyLabel, LaneName, NanoUsd, Reply, Usage};

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
    /// Returns whether the provider may have charged for it although it brought no answer.
    pub fn is_maybe_charged(&self) -> bool {
        match &self.outcome {
            Outcome::Failed(failure) => failure.charged == Charged::Maybe,
            Outcome::Superseded | Outcome::BrokenOff => true,
            Outcome::Answered | Outcome::Refused(_) | Outcome::Lost(_) => false,
        }
    }

    /// Names what versions before 0.2 wrote as a failure without a key, or as a cancelled one with a key.
    fn renamed(mut self) -> Self {
        self.outcome = match (self.outcome, &self.key) {
            (Outcome::Failed(failure), None) => Outcome::Lost(failure),
            (Outcome::Failed(failure), Some(_)) if failure.class == Class::Cancelled => Outcome::Superseded,
            (outcome, _) => outcome,
        };
        self
    }

    /// Says what was unusual about it; `None` when nothing was.
    pub fn note(&self) -> Option<String> {
        let note = if self.forced {
            "left although its breaker was open: no other lane was left"
        } else if self.hedge {
            "asked beside another lane that took long"
        } else if matches!(self.outcome, Outcome::Lost(_)) {
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
    /// It was broken off because another target had answered first. The provider may have charged for it.
    Superseded,
    /// It was broken off because everything stopped. The provider may have charged for it.
    BrokenOff,
    /// It was lost before it left, by a panic of the provider's actor.
    Lost(Failure),
}

/// Every attempt made for one question, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Vec<Attempt>")]
pub struct Trail(pub Vec<Attempt>);

impl From<Vec<Attempt>> for Trail {
    fn from(attempts: Vec<Attempt>) -> Self {
        Self(attempts.into_iter().map(Attempt::renamed).collect())
    }
}

impl Serialize for Trail {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

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
        self.0.iter().filter(|attempt| attempt.outcome == Outcome::Superseded).count()
    }

    /// Returns how many calls left although their lane's breaker was open.
    pub fn forced(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.forced).count()
    }

    /// Returns how many calls were lost before they left.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|attempt| matches!(attempt.outcome, Outcome::Lost(_))).count()
    }

    /// Returns how many calls without an answer the provider may have charged for, those included that were
    /// superseded.
    pub fn maybe_charged(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.is_maybe_charged()).count()
    }

    /// Returns how many of them were not superseded: they brought nothing.
    pub fn charged_in_vain(&self) -> usize {
        let in_vain =
            |attempt: &&Attempt| attempt.is_maybe_charged() && attempt.outcome != Outcome::Superseded;
        self.0.iter().filter(in_vain).count()
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
    /// The target whose failure it is; `None` where it is not that of one target.
    pub lane: Option<LaneName>,
    /// Every attempt.
    pub trail: Trail,
    /// As [`Answer::lost`].
    pub lost: u32,
    /// Its attempts that failed, in the order of the trail.
    pub failed: Vec<FailedAttempt>,
    /// How long it is expected to take until the request is worth sending again, where no target can be used now: an
    /// estimate (the rest of a key, the pause of a breaker), or the time that [`Failure::retry_after`] names. `None`
    /// where waiting changes nothing, or a target can be asked at once.
    pub expected_wait: Option<Duration>,
}

impl From<Failure> for Unanswered {
    /// Makes the end of a question that was never asked.
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            lane: None,
            trail: Trail::default(),
            lost: 0,
            failed: Vec::new(),
            expected_wait: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_that_were_told_by_a_combination_of_fields_are_read_as_what_they_were() {
        let known = |key: &str, class: &str| {
            format!(
                r#"{{"lane":"a/m",{key}"waited":{{"secs":0,"nanos":0}},"took":{{"secs":1,"nanos":0}},
                "outcome":{{"failed":{{"class":"{class}","message":"x","charged":"maybe"}}}}}}"#
            )
        };
        let text = format!(
            "[{},{},{}]",
            known(r#""key":"k","#, "cancelled"),
            known("", "network_error"),
            known(r#""key":"k","#, "timeout")
        );
        let trail: Trail = serde_json::from_str(&text).unwrap();
        let kinds: Vec<_> = trail.0.iter().map(|attempt| std::mem::discriminant(&attempt.outcome)).collect();
        let failure = || Failure::new(Class::Timeout, "x");
        let expected = [Outcome::Superseded, Outcome::Lost(failure()), Outcome::Failed(failure())];
        assert_eq!(kinds, expected.each_ref().map(std::mem::discriminant));
        assert_eq!(
            (trail.beaten(), trail.lost(), trail.maybe_charged(), trail.charged_in_vain()),
            (1, 1, 2, 1)
        );
        let again: Trail = serde_json::from_str(&serde_json::to_string(&trail).unwrap()).unwrap();
        assert_eq!(again, trail);
    }

    #[test]
    fn an_attempt_that_was_broken_off_by_a_stop_is_not_taken_for_one_that_was_superseded() {
        let attempt = |outcome| Attempt {
            lane: "a/m".parse().unwrap(),
            key: Some("k".into()),
            waited: Duration::ZERO,
            took: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: None,
            perhaps: NanoUsd(7),
            forced: false,
            hedge: false,
            outcome,
        };
        let trail = Trail(vec![attempt(Outcome::BrokenOff), attempt(Outcome::Superseded)]);
        let again: Trail = serde_json::from_str(&serde_json::to_string(&trail).unwrap()).unwrap();
        assert_eq!((again.beaten(), again.maybe_charged(), again.charged_in_vain()), (1, 2, 1));
    }
}
