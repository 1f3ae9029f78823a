//! Runs every parser of foreign input on recordings that were cut, spliced and mutated.
//!
//! `tests/fuzz` fuzzes the same functions for longer. Here the seeds are fixed, so that a failure is
//! reproducible.

#[expect(unreachable_pub, reason = "tests/fuzz includes the same file and exports its functions")]
mod entries;

use std::fs;
use std::path::Path;

use fastrand::Rng;

/// Fragments that are inserted: numbers, quotes, and syntax of the formats.
const ODD_FRAGMENTS: [&[u8]; 24] = [
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

/// Returns the recordings whose names have one of these endings.
fn recordings(endings: &[&str]) -> Vec<Vec<u8>> {
    recordings_where(|name| endings.iter().any(|end| name.ends_with(end)))
}

fn recordings_where(is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wire");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // The order of directory entries is undefined, and the same seed must give the same input everywhere.
    paths.sort();
    paths.retain(|path| path.file_name().is_some_and(|name| is_wanted(&name.to_string_lossy())));
    assert!(!paths.is_empty(), "no recording matches");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs `entry` with `cases` inputs: every recording unchanged, then mutated recordings and random bytes.
/// Each input has a prefix of `prefix` random bytes.
fn run_mutated(entry: fn(&[u8]), recordings: &[Vec<u8>], prefix: usize, cases: u64) {
    let add_prefix = |random: &mut Rng, data: &[u8]| {
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
                mutate(&mut data, recordings, &mut random);
            }
        }
        let data = add_prefix(&mut random, &data);
        let run = std::panic::catch_unwind(|| entry(&data));
        assert!(run.is_ok(), "seed {seed} failed: {:?}", String::from_utf8_lossy(&data));
    }
}

fn mutate(data: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Rng) {
    let position = random.usize(..=data.len());
    match random.u8(..7) {
        0 => data.truncate(position),
        1 if position < data.len() => data[position] ^= 1 << random.u8(..8),
        2 => {
            let other = &others[random.usize(..others.len())];
            data.truncate(position);
            data.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        3 => drop(data.drain(position..data.len().min(position + random.usize(..40)))),
        4 => {
            drop(data.splice(
                position..position,
                ODD_FRAGMENTS[random.usize(..ODD_FRAGMENTS.len())].iter().copied(),
            ))
        }
        5 => {
            // Replaces a value, from a colon to the next comma or bracket, by an odd fragment.
            let colon = data[position..].iter().position(|byte| *byte == b':');
            let Some(colon) = colon.map(|offset| position + offset + 1) else {
                return;
            };
            let end = data[colon..].iter().position(|byte| matches!(byte, b',' | b'}' | b'\n'));
            let end = end.map_or(data.len(), |offset| colon + offset);
            drop(data.splice(colon..end, ODD_FRAGMENTS[random.usize(..ODD_FRAGMENTS.len())].iter().copied()));
        }
        _ => *data = (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
    }
}

/// Returns the recorded error bodies, each without and with headers before it.
fn recorded_errors() -> Vec<Vec<u8>> {
    let headers = header_lines(&recordings(&["anthropic_headers_429.json"])[0]);
    let bodies = recordings_where(|name| name.contains("error"));
    let with_headers: Vec<_> = bodies.iter().map(|body| [&headers[..], b"\n", body].concat()).collect();
    bodies.into_iter().chain(with_headers).collect()
}

/// Converts recorded headers to lines.
fn header_lines(json: &[u8]) -> Vec<u8> {
    let headers: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json).unwrap();
    let lines = headers.iter().map(|(name, value)| format!("{name}: {}\n", value.as_str().unwrap()));
    lines.collect::<String>().into_bytes()
}

#[test]
fn mutated_headers_are_read_without_a_panic() {
    let mut all: Vec<_> = recordings(&["headers_success.json", "headers_429.json"])
        .iter()
        .map(|json| header_lines(json))
        .collect();
    all.push(b"x-ratelimit-limit: 50\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 1795219200000\nretry-after: Fri, 20 Nov 2026 20:00:07 GMT\n".to_vec());
    all.push(b"ratelimit: \"default\";r=50;t=30\nratelimit-policy: \"default\";q=100;w=60\n".to_vec());
    run_mutated(entries::headers, &all, 0, 4_000);
}

#[test]
fn mutated_errors_are_read_without_a_panic() {
    run_mutated(entries::error, &recorded_errors(), 1, 2_000);
}

#[test]
fn mutated_bodies_are_read_without_a_panic() {
    run_mutated(entries::response_body, &recordings(&[".json", ".sse"]), 0, 4_000);
}

#[test]
fn mutated_streams_give_the_same_result_in_pieces_of_any_size() {
    run_mutated(entries::stream_in_pieces, &recordings(&[".sse"]), 1, 2_000);
}

#[test]
fn mutated_items_are_read_without_a_panic() {
    let mut all = recordings(&[".jsonl"]);
    all.push(b"id,name,note\n1,Ada,\"one, two\"\n2,\"B\"\"ob\",\r\n3,\xc3\xa9,\"a\nb\"\n".to_vec());
    all.push(b"[{\"id\": 1, \"text\": \"a\"}, {\"id\": 1}, {\"text\": [1, {\"b\": null}]}]".to_vec());
    all.push(b"\xef\xbb\xbf{\"id\": \"x\"}\n\n{\"id\": \"x\"}\nno\n{\"text\": \"\\ud83d\\ude00\"}".to_vec());
    run_mutated(entries::items, &all, 2, 1_500);
}

#[test]
fn mutated_documents_are_read_without_a_panic() {
    let read = |path| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let all = ["config.toml", "examples/email/pipeline.toml"].map(read);
    run_mutated(entries::documents, &all, 0, 150);
}
