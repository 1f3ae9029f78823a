//! The result of a request, with the log of its attempts.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::{
    Charged, Class, Completion, FailedAttempt, Failure, FinishReason, KeyLabel, Message, NanoUsd, Savings,
    TargetName, ToolCall, Usage,
};

/// One attempt: one HTTP call to one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Attempt {
    // The aliases are the names in databases of earlier builds.
    /// The target of the call, whether or not it was sent.
    #[serde(alias = "lane")]
    pub target: TargetName,
    /// The key used; `None` if the call was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyLabel>,
    /// The time from admission request until the call was sent or rejected.
    #[serde(alias = "waited")]
    pub queue_time: Duration,
    /// The time from send until the end; zero if the call was not sent.
    #[serde(alias = "took")]
    pub duration: Duration,
    /// The time from send until the first part of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token: Option<Duration>,
    /// The tokens used, on failure too; `None` if the provider did not report them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The cost; `None` if the price or the usage is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<NanoUsd>,
    /// What the provider's cache saved; `None` if it was not used or the price is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_savings: Option<Savings>,
    /// The amount recorded for a call that may have been charged an unknown amount; zero for all others.
    #[serde(default, alias = "perhaps", skip_serializing_if = "is_zero")]
    pub uncertain_cost: NanoUsd,
    /// Whether it was sent although the breaker of its target was open, because no other target was left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
    /// Whether it is a hedge: sent in parallel because an earlier call of the same request was slow.
    #[serde(default, alias = "hedge", skip_serializing_if = "std::ops::Not::not")]
    pub hedged: bool,
    /// Whether the log of another request counts the same call: it had the inputs of several requests for embeddings.
    /// The tokens and the cost of each log are the part of its request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub counted_elsewhere: bool,
    /// The reasoning of its answer, in a step with `keep_reasoning`. A request of a program has it in the parts of
    /// its [`Completion`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Arc<str>>,
    /// The outcome.
    pub outcome: Outcome,
}

fn is_zero(money: &NanoUsd) -> bool {
    *money == NanoUsd(0)
}

impl Attempt {
    /// Returns whether the provider may have charged for it although it returned no answer.
    pub fn is_possibly_charged(&self) -> bool {
        match &self.outcome {
            Outcome::Failed(failure) => failure.charged == Charged::Maybe,
            Outcome::Superseded | Outcome::BrokenOff => true,
            Outcome::Answered | Outcome::Refused(_) | Outcome::Lost(_) => false,
        }
    }

    /// Converts the format of earlier builds, which stored a lost attempt as a failure without a key and a
    /// superseded attempt as a cancelled one with a key.
    fn migrated(mut self) -> Self {
        self.outcome = match (self.outcome, &self.key) {
            (Outcome::Failed(failure), None) => Outcome::Lost(failure),
            (Outcome::Failed(failure), Some(_)) if failure.class == Class::Cancelled => Outcome::Superseded,
            (outcome, _) => outcome,
        };
        self
    }

    /// Returns a note if the attempt was unusual.
    pub fn note(&self) -> Option<String> {
        let note = if self.forced {
            "sent although its breaker was open: no other target was left"
        } else if self.hedged {
            "hedge: sent in parallel to a slow call to another target"
        } else if matches!(self.outcome, Outcome::Lost(_)) {
            "lost before it was sent: the actor that held it panicked"
        } else {
            return None;
        };
        Some(format!("{}: {note}", self.target))
    }
}

/// The outcome of an [`Attempt`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// A complete response.
    Answered,
    /// A failure. Boxed because every attempt has the size of its largest outcome, and most are answered.
    Failed(Box<Failure>),
    /// The call was not sent: it was not admitted, for this reason.
    Refused(Box<str>),
    /// Aborted because another target answered first. The provider may have charged for it.
    Superseded,
    /// Aborted because the program stopped. The provider may have charged for it.
    BrokenOff,
    /// Lost before it was sent, because the provider's actor panicked.
    Lost(Box<Failure>),
}

/// All attempts of one request, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Vec<Attempt>")]
pub struct AttemptLog(pub Vec<Attempt>);

impl From<Vec<Attempt>> for AttemptLog {
    fn from(attempts: Vec<Attempt>) -> Self {
        Self(attempts.into_iter().map(Attempt::migrated).collect())
    }
}

impl Serialize for AttemptLog {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl AttemptLog {
    /// Returns the number of calls that were certainly sent.
    pub fn calls(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.key.is_some()).count()
    }

    /// Returns the attempt that returned the answer: the last one that was answered.
    pub fn answered_attempt(&self) -> Option<&Attempt> {
        self.0.iter().rev().find(|attempt| attempt.outcome == Outcome::Answered)
    }

    /// Sets the reasoning of the answer.
    pub(crate) fn set_reasoning(&mut self, reasoning: Arc<str>) {
        let answered = self.0.iter_mut().rev().find(|attempt| attempt.outcome == Outcome::Answered);
        if let Some(attempt) = answered {
            attempt.reasoning = Some(reasoning);
        }
    }

    /// Returns how often the request moved to another target. A hedge does not count.
    pub fn failovers(&self) -> usize {
        let targets: Vec<_> =
            self.0.iter().filter(|attempt| !attempt.hedged).map(|attempt| &attempt.target).collect();
        targets.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }

    /// Returns the number of hedges that were sent.
    pub fn hedges(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.hedged && attempt.key.is_some()).count()
    }

    /// Returns the number of calls that were aborted because another target answered first.
    pub fn superseded(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.outcome == Outcome::Superseded).count()
    }

    /// Returns the number of calls that were sent although the breaker of their target was open.
    pub fn forced(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.forced).count()
    }

    /// Returns the number of calls that were lost before they were sent.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|attempt| matches!(attempt.outcome, Outcome::Lost(_))).count()
    }

    /// Returns the number of calls without an answer that the provider may have charged, superseded ones
    /// included.
    pub fn possibly_charged(&self) -> usize {
        self.0.iter().filter(|attempt| attempt.is_possibly_charged()).count()
    }

    /// Returns the number of possibly charged calls without those that were superseded.
    pub fn possibly_charged_without_answer(&self) -> usize {
        let attempts = self.0.iter().filter(|attempt| attempt.outcome != Outcome::Superseded);
        attempts.filter(|attempt| attempt.is_possibly_charged()).count()
    }
}

/// The response to a request.
///
/// ```no_run
/// # async fn example(pointsman: pointsman::Pointsman) -> Result<(), Box<dyn std::error::Error>> {
/// use pointsman::Request;
///
/// let response = pointsman.send(Request::new("default", "Say hello.")).await?;
/// println!("{} answered after {} calls: {}", response.target, response.attempts.calls(), response.text());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// The output of the model.
    pub completion: Completion,
    /// The target that answered.
    pub target: TargetName,
    /// Whether a simulated provider answered; its text is generated.
    pub simulated: bool,
    /// The cost; `None` if the price or the usage is unknown.
    pub cost: Option<NanoUsd>,
    /// All attempts, the successful one last.
    pub attempts: AttemptLog,
    /// How often the request was lost (in the router or in transit) and sent again. The attempt log does not
    /// contain the calls made before the last loss, which may have been charged.
    pub resends: u32,
}

impl Response {
    /// Returns the text of the answer. For a JSON response format this is the JSON text, not yet validated.
    pub fn text(&self) -> &str {
        &self.completion.text
    }

    /// Returns the answer as a message, with which the conversation continues.
    pub fn message(&self) -> Message {
        self.completion.message()
    }

    /// Returns the tool calls of the answer, in their order.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.completion.tool_calls()
    }

    /// Returns the text of the reasoning; empty if the provider showed none or the request did not ask for it.
    pub fn reasoning(&self) -> String {
        self.completion.reasoning()
    }

    /// Returns why the model stopped.
    pub fn finish_reason(&self) -> FinishReason {
        self.completion.finish_reason
    }
}

/// A request that no target answered.
///
/// ```no_run
/// # async fn example(pointsman: pointsman::Pointsman) {
/// use pointsman::{Class, Request};
///
/// match pointsman.send(Request::new("default", "Say hello.")).await {
///     Ok(response) => println!("{}", response.text()),
///     Err(error) if error.class() == Class::ContentFilter => println!("refused: {}", error.failure.message),
///     Err(error) => println!("{error}; retry in {:?}", error.expected_wait),
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{failure}")]
#[non_exhaustive]
pub struct RequestError {
    /// The failure that ended the request.
    pub failure: Failure,
    /// The target that failed; `None` if the failure is not that of one target.
    pub target: Option<TargetName>,
    /// All attempts.
    pub attempts: AttemptLog,
    /// As [`Response::resends`].
    pub resends: u32,
    /// The failed attempts, in the order of the attempt log.
    pub failed_attempts: Vec<FailedAttempt>,
    /// The expected wait until a retry of the request may succeed, if no target is available now: an estimate
    /// (the cool-down of a key, the open duration of a breaker) or [`Failure::retry_after`]. `None` if waiting
    /// does not help or a target is available at once.
    pub expected_wait: Option<Duration>,
}

impl RequestError {
    /// Returns the class of the failure that ended the request.
    pub fn class(&self) -> Class {
        self.failure.class
    }
}

impl From<Failure> for RequestError {
    /// Creates the error of a request without attempts.
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            target: None,
            attempts: AttemptLog::default(),
            resends: 0,
            failed_attempts: Vec::new(),
            expected_wait: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every request moves these through its futures and channels. A field that few requests need is boxed.
    #[test]
    fn what_every_request_moves_stays_small() {
        for (name, bytes, max) in [
            ("Completion", size_of::<Completion>(), 184),
            ("Failure", size_of::<Failure>(), 88),
            ("Outcome", size_of::<Outcome>(), 24),
            // The first allocation of a log has room for four of them.
            ("Attempt", size_of::<Attempt>(), 240),
            ("Response", size_of::<Response>(), 264),
        ] {
            assert!(bytes <= max, "{name}: {bytes}");
        }
    }

    #[test]
    fn attempts_of_old_versions_are_converted_to_their_outcome() {
        let stored = |key: &str, class: &str| {
            format!(
                r#"{{"lane":"a/m",{key}"waited":{{"secs":0,"nanos":0}},"took":{{"secs":1,"nanos":0}},
                "outcome":{{"failed":{{"class":"{class}","message":"x","charged":"maybe"}}}}}}"#
            )
        };
        let text = format!(
            "[{},{},{}]",
            stored(r#""key":"k","#, "cancelled"),
            stored("", "network_error"),
            stored(r#""key":"k","#, "timeout")
        );
        let log: AttemptLog = serde_json::from_str(&text).unwrap();
        let kinds: Vec<_> = log.0.iter().map(|attempt| std::mem::discriminant(&attempt.outcome)).collect();
        let failure = || Box::new(Failure::new(Class::Timeout, "x"));
        let expected = [Outcome::Superseded, Outcome::Lost(failure()), Outcome::Failed(failure())];
        assert_eq!(kinds, expected.each_ref().map(std::mem::discriminant));
        assert_eq!(
            (log.superseded(), log.lost(), log.possibly_charged(), log.possibly_charged_without_answer()),
            (1, 1, 2, 1)
        );
        let reread: AttemptLog = serde_json::from_str(&serde_json::to_string(&log).unwrap()).unwrap();
        assert_eq!(reread, log);
    }

    #[test]
    fn the_reasoning_belongs_to_the_attempt_that_answered_and_is_stored_only_if_there_is_one() {
        let stored = |outcome: &str| {
            format!(
                r#"{{"target":"a/m","queue_time":{{"secs":0,"nanos":0}},"duration":{{"secs":1,"nanos":0}},
                "outcome":{outcome}}}"#
            )
        };
        let text = format!("[{},{}]", stored("\"answered\""), stored("\"superseded\""));
        let mut log: AttemptLog = serde_json::from_str(&text).unwrap();
        assert!(!serde_json::to_string(&log).unwrap().contains("reasoning"));
        log.set_reasoning("It is sunny.".into());
        let reread: AttemptLog = serde_json::from_str(&serde_json::to_string(&log).unwrap()).unwrap();
        let reasoning: Vec<_> = reread.0.iter().map(|attempt| attempt.reasoning.as_deref()).collect();
        assert_eq!(reasoning, [Some("It is sunny."), None]);
    }

    #[test]
    fn cache_savings_are_stored_and_absent_in_attempts_of_earlier_builds() {
        let stored = r#"[{"target":"a/m","key":"k","queue_time":{"secs":0,"nanos":0},"duration":{"secs":0,"nanos":0},
            "outcome":"answered"}]"#;
        let mut log: AttemptLog = serde_json::from_str(stored).unwrap();
        assert_eq!(log.0[0].cache_savings, None);
        assert!(!serde_json::to_string(&log).unwrap().contains("cache_savings"));
        log.0[0].cache_savings = Some(Savings(-7));
        let reread: AttemptLog = serde_json::from_str(&serde_json::to_string(&log).unwrap()).unwrap();
        assert_eq!(reread, log);
    }

    #[test]
    fn an_attempt_aborted_by_a_stop_is_not_read_as_superseded() {
        let attempt = |outcome| Attempt {
            target: "a/m".parse().unwrap(),
            key: Some("k".into()),
            queue_time: Duration::ZERO,
            duration: Duration::ZERO,
            first_token: None,
            usage: None,
            cost: None,
            uncertain_cost: NanoUsd(7),
            forced: false,
            hedged: false,
            counted_elsewhere: false,
            cache_savings: None,
            reasoning: None,
            outcome,
        };
        let log = AttemptLog(vec![attempt(Outcome::BrokenOff), attempt(Outcome::Superseded)]);
        let reread: AttemptLog = serde_json::from_str(&serde_json::to_string(&log).unwrap()).unwrap();
        assert_eq!(
            (reread.superseded(), reread.possibly_charged(), reread.possibly_charged_without_answer()),
            (1, 2, 1)
        );
    }
}
