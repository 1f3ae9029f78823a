//! Errors of requests to a daemon, each with what the user can do.

use serde::Deserialize;

/// The class of a refusal because changes affect the stored answers of a run.
const CHANGED: &str = "changed";

/// What the user of a command can do about it.
const CHANGED_ADVICE: &str =
    "accept the changes to process only what they affect (--accept-changes), or begin a new run";

/// Why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum RemoteError {
    /// No connection.
    #[error(
        "cannot connect to the daemon at {url}: {why}; is it running there? `pointsman serve` starts one"
    )]
    Connect {
        /// The address.
        url: String,
        /// The cause.
        why: String,
    },
    /// An answer without TLS to a URL with `https`.
    #[error("the daemon at {url} speaks http and not https: write http:// in place of https://")]
    NotTls {
        /// The address.
        url: String,
    },
    /// No answer.
    #[error("the daemon at {url} does not answer in time")]
    Timeout {
        /// The address.
        url: String,
    },
    /// The connection ended before the end of the answer.
    #[error("the connection to the daemon at {url} ended early: {why}")]
    Interrupted {
        /// The address.
        url: String,
        /// The cause.
        why: String,
    },
    /// The daemon needs a token, and there is none.
    #[error(
        "the daemon at {url} needs a token: name a file with one (--token-file FILE), or set POINTSMAN_TOKEN"
    )]
    NoToken {
        /// The address.
        url: String,
    },
    /// The daemon does not accept the token.
    #[error(
        "the daemon at {url} does not accept the token: it is wrong, expired or revoked; `pointsman token new` creates \
         another"
    )]
    WrongToken {
        /// The address.
        url: String,
    },
    /// The caller may not do it.
    #[error("the daemon at {url} does not allow this: {}", forbidden_advice(*.has_token, .refusal))]
    Forbidden {
        /// The address.
        url: String,
        /// Whether there is a token.
        has_token: bool,
        /// What the daemon says.
        refusal: Box<Refusal>,
    },
    /// The daemon refused the request.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Something else answers.
    #[error("what answers at {url} is not a pointsman daemon (HTTP status {status})")]
    NotPointsman {
        /// The address.
        url: String,
        /// The status of its answer.
        status: u16,
    },
    /// The answer has another form than this version expects.
    #[error(
        "cannot read the answer of the daemon at {url}, which is of version {daemon}; this program is of version {program}: \
         use the same version"
    )]
    OtherVersion {
        /// The address.
        url: String,
        /// The version of the daemon, or `unknown`.
        daemon: String,
        /// The version of this program.
        program: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

fn forbidden_advice(has_token: bool, refusal: &Refusal) -> String {
    if has_token {
        format!("{refusal}; `pointsman token list` shows what each token may do")
    } else {
        "without a token it accepts only requests to localhost, 127.0.0.1 and [::1]".to_owned()
    }
}

/// Problem details of the daemon (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct Refusal {
    /// The HTTP status.
    pub(in crate::cli) status: u16,
    detail: String,
    #[serde(default)]
    class: String,
    #[serde(default)]
    advice: Option<String>,
    #[serde(default)]
    diagnostics: Vec<String>,
    #[serde(default)]
    request_id: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.detail)?;
        for diagnostic in &self.diagnostics {
            write!(out, "; {diagnostic}")?;
        }
        if self.class == CHANGED {
            // The advice of the daemon is for a program that sends JSON.
            out.write_str("; ")?;
            out.write_str(CHANGED_ADVICE)?;
        } else if let Some(advice) = &self.advice {
            write!(out, "; {advice}")?;
        }
        // The log of the daemon has the cause.
        if self.status >= 500 && !self.request_id.is_empty() {
            write!(out, " (request {})", self.request_id)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_details_are_shown_with_their_advice() {
        let parse = |json: &str| serde_json::from_str::<Refusal>(json).unwrap().to_string();
        let conflict = r#"{"type":"/problems/conflict","title":"Conflict","status":409,"class":"conflict",
            "detail":"run 3 is in progress","advice":"cancel it first","request_id":"req-1"}"#;
        assert_eq!(parse(conflict), "run 3 is in progress; cancel it first");
        let changed = r#"{"status":409,"class":"changed","detail":"run 3 has other models",
            "advice":"send {\"accept_changes\": true}"}"#;
        assert_eq!(
            parse(changed),
            "run 3 has other models; accept the changes to process only what they affect (--accept-changes), or begin a new \
             run"
        );
        let internal = r#"{"status":500,"detail":"cannot write","request_id":"req-1"}"#;
        assert_eq!(parse(internal), "cannot write (request req-1)");
        let faulty = r#"{"status":422,"detail":"there are 2 faults","diagnostics":["a","b"]}"#;
        assert_eq!(parse(faulty), "there are 2 faults; a; b");
    }
}
