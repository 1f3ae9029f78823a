//! Outages: the provider refuses requests for reasons that are not theirs.

use serde_json::{Value, json};

use super::world::{STEPS, Setup, TARGETS};

/// What stands in the log for a request that an outage has refused. It is the class of no failed item.
pub(crate) const REFUSED: &str = "outage";

/// How requests are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 503: the provider is overloaded.
    Unavailable,
    /// 429: the money of the account is spent.
    Quota,
    /// 401: the key is wrong.
    Key,
    /// The connection is closed without an answer.
    BrokenOff,
}

/// Which providers refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Both,
    One(&'static str),
}

/// How an outage ends that begins while a run is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// After so many refusals: the run waits for it, and completes.
    Passes(u8),
    /// Not before the run has ended.
    Lasts,
    /// The process is killed while the run holds.
    Kill,
    /// The process is interrupted while the run holds.
    Stop,
}

/// An outage in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) kind: Kind,
    pub(crate) which: Which,
    /// The first request that is refused.
    pub(crate) from: usize,
    /// Refusals until it ends; `None` where it does not end.
    pub(crate) refusals: Option<usize>,
}

impl Outage {
    /// One that is there from the first request of a session to the last.
    pub(crate) fn lasting(kind: Kind, which: Which) -> Self {
        Self { kind, which, from: 0, refusals: None }
    }

    /// Whether it refuses a request to `provider`, which is the `number`th, after `refused` others.
    pub(crate) fn refuses(&self, provider: &str, number: usize, refused: usize) -> bool {
        self.is_of(provider) && number >= self.from && self.refusals.is_none_or(|most| refused < most)
    }

    fn is_of(&self, provider: &str) -> bool {
        self.which == Which::Both || self.which == Which::One(if provider == "a" { "a" } else { "b" })
    }
}

/// Returns whether the outages leave a step no target.
pub(crate) fn leave_no_target(outages: &[Outage], setup: &Setup) -> bool {
    let is_down = |target: &usize| outages.iter().any(|outage| outage.is_of(TARGETS[*target].0));
    (0..STEPS.len()).any(|step| setup.has(step) && setup.targets(step).iter().all(is_down))
}

/// The response to a refused request, in OpenAI's form; `None` where the connection is closed.
pub(crate) fn response(kind: Kind) -> Option<String> {
    let (status, error): (_, Value) = match kind {
        Kind::BrokenOff => return None,
        Kind::Unavailable => (
            "503 Service Unavailable",
            json!({
                "message": "The server is overloaded or not ready yet.",
                "type": "server_error", "param": null, "code": null,
            }),
        ),
        Kind::Quota => (
            "429 Too Many Requests",
            json!({
                "message": "You exceeded your current quota, please check your plan and billing details.",
                "type": "insufficient_quota", "param": null, "code": "insufficient_quota",
            }),
        ),
        Kind::Key => (
            "401 Unauthorized",
            json!({
                "message": "Incorrect API key provided: none.",
                "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
            }),
        ),
    };
    let body = json!({ "error": error }).to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n");
    Some(format!("{head}content-length: {}\r\n\r\n{body}", body.len()))
}
