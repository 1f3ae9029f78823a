//! Loads the recorded requests and responses in `tests/data/wire`, for the tests of all formats.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Returns the recorded bytes.
pub(super) fn bytes(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/wire/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the recorded JSON.
pub(super) fn json(name: &str) -> Value {
    serde_json::from_slice(&bytes(name)).unwrap()
}

/// Returns the names of the recorded JSON files that begin like this.
pub(super) fn names(start: &str) -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/wire");
    let all =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    all.filter(|name| name.starts_with(start) && name.ends_with(".json")).collect()
}

/// Returns the recorded headers.
pub(super) fn headers(name: &str) -> HeaderMap {
    let json = json(name);
    let pairs = json.as_object().unwrap().iter();
    pairs
        .map(|(name, value)| {
            (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value.as_str().unwrap()).unwrap())
        })
        .collect()
}

/// Returns the events of a recorded stream: name and data.
pub(super) fn events(name: &str) -> Vec<(Option<String>, String)> {
    let text = String::from_utf8(bytes(name)).unwrap().replace("\r\n", "\n");
    let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
    blocks
        .map(|block| {
            let field = |field: &str| {
                block.lines().find_map(|line| line.strip_prefix(field)).map(|rest| rest.trim().to_owned())
            };
            (field("event:"), field("data:").unwrap_or_default())
        })
        .collect()
}

/// Returns the time at which the recorded headers were received.
pub(super) fn arrival() -> SystemTime {
    // 2026-11-20T20:00:00Z
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_204_800)
}
