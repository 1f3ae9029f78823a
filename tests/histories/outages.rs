//! Outages: the provider refuses requests for reasons that do not depend on the request.

use serde_json::{Value, json};

use super::setup::{STEPS, Setup, TARGETS};

/// The logged result of a request that an outage has refused. It is not the class of any failed item.
pub(crate) const OUTAGE_RESULT: &str = "outage";

/// How requests are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutageKind {
    /// 503: the provider is overloaded.
    Unavailable,
    /// 429: the quota of the account is exhausted.
    Quota,
    /// 401: the API key is wrong.
    Key,
    /// The connection is closed without a response.
    ConnectionClosed,
}

/// The providers that refuse requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AffectedProviders {
    Both,
    One(&'static str),
}

/// How an outage that begins during a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutageEnd {
    /// After this number of refusals. The run waits and completes.
    AfterRefusals(u8),
    /// After the run has ended.
    AfterRun,
    /// The process is killed while the run holds.
    Kill,
    /// The process is interrupted while the run holds.
    Stop,
}

/// An outage during one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) kind: OutageKind,
    pub(crate) affected: AffectedProviders,
    /// The first request that is refused.
    pub(crate) first_request: usize,
    /// Number of refusals until it ends; `None` if it does not end.
    pub(crate) max_refusals: Option<usize>,
}

impl Outage {
    /// An outage from the first request of a command to the last.
    pub(crate) fn permanent(kind: OutageKind, affected: AffectedProviders) -> Self {
        Self { kind, affected, first_request: 0, max_refusals: None }
    }

    /// Returns whether it refuses request number `number`, to `provider`, after `refused` refusals.
    pub(crate) fn refuses(&self, provider: &str, number: usize, refused: usize) -> bool {
        self.affects(provider)
            && number >= self.first_request
            && self.max_refusals.is_none_or(|max| refused < max)
    }

    fn affects(&self, provider: &str) -> bool {
        self.affected == AffectedProviders::Both
            || self.affected == AffectedProviders::One(if provider == "a" { "a" } else { "b" })
    }
}

/// Returns whether a step has no target left during the outages.
pub(crate) fn leave_step_without_target(outages: &[Outage], setup: &Setup) -> bool {
    let is_down = |target: &usize| outages.iter().any(|outage| outage.affects(TARGETS[*target].0));
    (0..STEPS.len()).any(|step| setup.has(step) && setup.targets(step).iter().all(is_down))
}

/// Returns the response to a refused request in OpenAI's format; `None` if the connection is closed.
pub(crate) fn error_response(kind: OutageKind) -> Option<String> {
    let (status, error): (_, Value) = match kind {
        OutageKind::ConnectionClosed => return None,
        OutageKind::Unavailable => (
            "503 Service Unavailable",
            json!({
                "message": "The server is overloaded or not ready yet.",
                "type": "server_error", "param": null, "code": null,
            }),
        ),
        OutageKind::Quota => (
            "429 Too Many Requests",
            json!({
                "message": "You exceeded your current quota, please check your plan and billing details.",
                "type": "insufficient_quota", "param": null, "code": "insufficient_quota",
            }),
        ),
        OutageKind::Key => (
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
