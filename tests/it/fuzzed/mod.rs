//! Everything that reads what others wrote, fed with recordings that were cut, spliced and bent.
//!
//! The same entries are fuzzed for longer in `tests/fuzz`; here the seeds are fixed, so that a failure
//! comes again.

#[expect(unreachable_pub, reason = "tests/fuzz includes the file as well, and uses it from outside")]
mod entries;

use std::fs;
use std::path::Path;

use fastrand::Rng;

/// What is put where it does not belong: numbers, quotes, and marks of the formats.
const ODD: [&[u8]; 24] = [
    b"",
    b"-1",
    b"1e300",
    b"NaN",
    b"18446744073709551616",
    b"null",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\n\n",
    b"\r",
    b"data: [DONE]\n\n",
    b"event: error\n",
    b"{",
    b"]",
    b"[[[[",
    b"{\"error\":",
    b"0",
    b"9999999999999h",
    b":",
    b",",
    b"\xef\xbb\xbf",
    b"=",
];

/// Returns the recordings whose names end so.
fn recordings(ends: &[&str]) -> Vec<Vec<u8>> {
    recordings_that(|name| ends.iter().any(|end| name.ends_with(end)))
}

fn recordings_that(is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The order of a directory is nobody's: the same seed must do the same everywhere.
    paths.sort();
    paths.retain(|path| path.file_name().is_some_and(|name| is_wanted(&name.to_string_lossy())));
    assert!(!paths.is_empty(), "there is no such recording");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Feeds `entry` with every recording as it is, and then with `cases` bent ones and noise.
fn drive(entry: fn(&[u8]), recordings: &[Vec<u8>], prefix: usize, cases: u64) {
    let with_prefix = |random: &mut Rng, data: &[u8]| {
        let mut all: Vec<u8> = (0..prefix).map(|_| random.u8(..)).collect();
        all.extend_from_slice(data);
        all
    };
    for seed in 0..cases {
        let mut random = Rng::with_seed(seed);
        let number = usize::try_from(seed).unwrap();
        let mut data = recordings[number % recordings.len()].clone();
        if number >= recordings.len() {
            for _ in 0..random.usize(1..4) {
                bend(&mut data, recordings, &mut random);
            }
        }
        let data = with_prefix(&mut random, &data);
        let run = std::panic::catch_unwind(|| entry(&data));
        assert!(run.is_ok(), "seed {seed} broke it: {:?}", String::from_utf8_lossy(&data));
    }
}

fn bend(data: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Rng) {
    let at = random.usize(..=data.len());
    match random.u8(..7) {
        0 => data.truncate(at),
        1 if at < data.len() => data[at] ^= 1 << random.u8(..8),
        2 => {
            let other = &others[random.usize(..others.len())];
            data.truncate(at);
            data.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        3 => drop(data.drain(at..data.len().min(at + random.usize(..40)))),
        4 => drop(data.splice(at..at, ODD[random.usize(..ODD.len())].iter().copied())),
        5 => {
            // A value gives way to an odd one: from a colon to the next comma or bracket.
            let Some(colon) = data[at..].iter().position(|byte| *byte == b':').map(|found| at + found + 1)
            else {
                return;
            };
            let end = data[colon..].iter().position(|byte| matches!(byte, b',' | b'}' | b'\n'));
            let end = end.map_or(data.len(), |found| colon + found);
            drop(data.splice(colon..end, ODD[random.usize(..ODD.len())].iter().copied()));
        }
        _ => *data = (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
    }
}

/// Returns the recorded errors, each as it is and after headers.
fn recorded_errors() -> Vec<Vec<u8>> {
    let headers = as_lines(&recordings(&["anthropic_headers_429.json"])[0]);
    let bodies = recordings_that(|name| name.contains("error"));
    let with_headers: Vec<_> = bodies.iter().map(|body| [&headers[..], b"\n", body].concat()).collect();
    bodies.into_iter().chain(with_headers).collect()
}

/// Writes recorded headers as lines.
fn as_lines(json: &[u8]) -> Vec<u8> {
    let headers: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).unwrap();
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\n", value.as_str().unwrap()));
    lines.collect::<String>().into_bytes()
}

#[test]
fn no_headers_are_too_odd() {
    let mut all: Vec<_> =
        recordings(&["headers_success.json", "headers_429.json"]).iter().map(|json| as_lines(json)).collect();
    all.push(b"x-ratelimit-limit: 50\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1795219200000\nretry-after: Fri, 20 Nov 2026 20:00:07 GMT\n".to_vec());
    all.push(b"ratelimit: \"default\";r=50;t=30\nratelimit-policy: \"default\";q=100;w=60\n".to_vec());
    drive(entries::headers, &all, 0, 4_000);
}

#[test]
fn no_refusal_is_too_odd() {
    drive(entries::error, &recorded_errors(), 1, 2_000);
}

#[test]
fn no_body_is_too_odd() {
    drive(entries::whole, &recordings(&[".json", ".sse"]), 0, 4_000);
}

#[test]
fn no_stream_is_too_odd_and_its_pieces_change_nothing() {
    drive(entries::stream_in_pieces, &recordings(&[".sse"]), 1, 2_000);
}

#[test]
fn no_items_are_too_odd() {
    let mut all = recordings(&[".jsonl"]);
    all.push(b"id,name,note\n1,Ada,\"one, two\"\n2,\"B\"\"ob\",\r\n3,\xc3\xa9,\"a\nb\"\n".to_vec());
    all.push(b"[{\"id\": 1, \"text\": \"a\"}, {\"id\": 1}, {\"text\": [1, {\"b\": null}]}]".to_vec());
    all.push(b"\xef\xbb\xbf{\"id\": \"x\"}\n\n{\"id\": \"x\"}\nno\n{\"text\": \"\\ud83d\\ude00\"}".to_vec());
    drive(entries::items, &all, 2, 1_500);
}

#[test]
fn no_document_is_too_odd() {
    let read = |path| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let all = ["config.toml", "examples/email/pipeline.toml"].map(read);
    drive(entries::documents, &all, 0, 150);
}
