//! Tests the classification of errors against a table of recorded and documented error bodies.
//!
//! `tests/data/errors/README.md` describes the table.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{Dialect, fixtures};
use crate::types::{Class, Failure, FailureScope, Format, Prompt};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    server: String,
    format: Format,
    status: u16,
    #[serde(default)]
    headers: serde_json::Map<String, serde_json::Value>,
    body: String,
    class: Class,
    /// The expected scope; absent where it makes no difference.
    scope: Option<String>,
    retry_after: Option<f64>,
    source: String,
    kind: Kind,
}

#[derive(Deserialize, PartialEq, Eq, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Recorded,
    Documentation,
    Unverified,
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/errors/bodies.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Reads a row like a call does: an error may have a success status.
fn read(row: &Row, headers: &HeaderMap) -> Failure {
    let body = row.body.as_bytes();
    let now = fixtures::arrival();
    if row.status != 200 {
        return row.format.read_error(row.status, headers, body, now);
    }
    let mut decoder = row.format.decoder(&Prompt::text("x"), &Dialect::default());
    let failure = decoder.push_body(body).expect_err(&row.body);
    row.format.apply_headers(failure, headers, now)
}

fn scope_word(scope: FailureScope) -> &'static str {
    match scope {
        FailureScope::Class => "class",
        FailureScope::Model => "model",
        FailureScope::Unclear => "unclear",
        FailureScope::KeyUnderRecheck => "doubtful",
        FailureScope::Key => "key",
        FailureScope::Target => "target",
        FailureScope::Parameter(_) => "parameter",
        FailureScope::Answer => "answer",
    }
}

#[test]
fn every_recorded_error_body_is_classified() {
    let mut wrong = Vec::new();
    for row in rows() {
        let mut headers = HeaderMap::new();
        for (name, value) in &row.headers {
            let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
            headers.insert(HeaderName::try_from(name).unwrap(), value);
        }
        let failure = read(&row, &headers);
        let scope = scope_word(failure.scope);
        let waits = failure.retry_after.map(|wait| wait.as_secs_f64());
        let right = failure.class == row.class
            && row.scope.as_deref().is_none_or(|expected| expected == scope)
            && row
                .retry_after
                .is_none_or(|expected| waits.is_some_and(|wait| (wait - expected).abs() < 0.01))
            && failure.status == Some(row.status).filter(|status| *status != 200)
            && !failure.message.is_empty();
        if !right {
            let Row { server, status, class, scope: expected, body, .. } = &row;
            wrong.push(format!(
                "{server} {status}: {class} {expected:?} expected, found {} {scope} after {waits:?}: {body}",
                failure.class
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_table_of_error_bodies_is_large_and_names_its_sources() {
    let rows = rows();
    let verified: Vec<&Row> = rows.iter().filter(|row| row.kind != Kind::Unverified).collect();
    let servers: std::collections::BTreeSet<&str> = verified.iter().map(|row| &*row.server).collect();
    assert!(verified.len() >= 120 && servers.len() >= 20, "{} of {}", verified.len(), servers.len());
    assert!(verified.iter().all(|row| row.source.starts_with("https://")));
}
