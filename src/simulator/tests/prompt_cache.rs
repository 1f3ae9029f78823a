//! The simulated prompt caches: what each vendor reads, writes and counts, in responses and streams.
//!
//! The calls do not pass through a connection, so that the clock can be paused.

mod anthropic;
mod properties;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderValue;
use http_body_util::BodyExt;
use tokio::time::{advance, sleep, timeout};

use crate::simulator::connection::ResetSwitch;
use crate::simulator::handler::{IncomingCall, handle};
use crate::simulator::parsed_request::RequestHead;
use crate::simulator::prompt_prefixes::CacheablePrompt;
use crate::simulator::request_scope::Shared;
use crate::simulator::vendor_format::{cacheable_prompt, parse_request};
use crate::simulator::wire_format::WireFormat;

use super::exchange::*;
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const OPENAI_FORMATS: [WireFormat; 2] = [WireFormat::OpenAiChat, WireFormat::OpenAiResponses];

/// Input tokens in the usage of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct InputUsage {
    /// As the vendor counts them: at Anthropic without those of the cache.
    input: u64,
    read: u64,
    written_five_minutes: u64,
    written_one_hour: u64,
}

fn shared(toml: &str) -> Arc<Shared> {
    let settings = format!("prompt_cache = \"vendor\"\n{toml}");
    Arc::new(Shared::new(toml::from_str(&settings).unwrap()))
}

/// Sends a request with a key. Returns the status and the body of the response.
async fn send_with(
    shared: &Arc<Shared>,
    format: WireFormat,
    stream: bool,
    key: &str,
    body: &Value,
) -> (u16, String) {
    let mut body = body.clone();
    let is_gemini = format == WireFormat::Gemini;
    if stream && !is_gemini {
        body["stream"] = json!(true);
    }
    if stream && format == WireFormat::OpenAiChat {
        body["stream_options"] = json!({ "include_usage": true });
    }
    let mut headers = HeaderMap::new();
    headers.insert("anthropic-version", HeaderValue::from_static("2026-10-21"));
    let head = RequestHead {
        headers: &headers,
        query: if stream { "alt=sse" } else { "" },
        model: is_gemini.then_some("m"),
        stream: is_gemini && stream,
    };
    let body = body.to_string();
    let call = IncomingCall { wire_format: format, head, key: Some(key), body: body.as_bytes() };
    let response = handle(shared, &ResetSwitch::default(), call).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Sends a request that is answered. Returns its usage.
async fn send(shared: &Arc<Shared>, format: WireFormat, stream: bool, body: &Value) -> InputUsage {
    let (status, response) = send_with(shared, format, stream, "key", body).await;
    assert_eq!(status, 200, "{response}");
    input_usage(format, stream, &response)
}

async fn send_anthropic(shared: &Arc<Shared>, body: &Value) -> InputUsage {
    send(shared, WireFormat::Anthropic, false, body).await
}

fn input_usage(format: WireFormat, stream: bool, response: &str) -> InputUsage {
    let events = if stream { events(response) } else { vec![serde_json::from_str(response).unwrap()] };
    let last = events.last().unwrap();
    match format {
        WireFormat::OpenAiChat => InputUsage {
            input: last["usage"]["prompt_tokens"].as_u64().unwrap(),
            read: last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap(),
            ..InputUsage::default()
        },
        WireFormat::OpenAiResponses => {
            let usage = if stream { &last["response"]["usage"] } else { &last["usage"] };
            InputUsage {
                input: usage["input_tokens"].as_u64().unwrap(),
                read: usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap(),
                ..InputUsage::default()
            }
        }
        WireFormat::Anthropic => {
            let usage = if stream { &events[0]["message"]["usage"] } else { &last["usage"] };
            let written = &usage["cache_creation"];
            let read = InputUsage {
                input: usage["input_tokens"].as_u64().unwrap(),
                read: usage["cache_read_input_tokens"].as_u64().unwrap(),
                written_five_minutes: written["ephemeral_5m_input_tokens"].as_u64().unwrap(),
                written_one_hour: written["ephemeral_1h_input_tokens"].as_u64().unwrap(),
            };
            let written = json!(read.written_five_minutes + read.written_one_hour);
            assert_eq!(usage["cache_creation_input_tokens"], written);
            // The end of a stream repeats the counts.
            let end = if stream { &events[events.len() - 2]["usage"] } else { usage };
            for name in ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"] {
                assert_eq!(end[name], usage[name], "{name}");
            }
            read
        }
        WireFormat::Gemini => {
            let usage = &last["usageMetadata"];
            let total = usage["promptTokenCount"].as_u64().unwrap()
                + usage["candidatesTokenCount"].as_u64().unwrap_or_default();
            assert_eq!(usage["totalTokenCount"], json!(total));
            InputUsage {
                input: usage["promptTokenCount"].as_u64().unwrap(),
                read: usage["cachedContentTokenCount"].as_u64().unwrap_or_default(),
                ..InputUsage::default()
            }
        }
    }
}

/// Returns a text of this many tokens.
fn text(tokens: usize) -> String {
    "word".repeat(tokens)
}

/// Returns a block of this many tokens, with a mark unless `mark` is null.
fn block(tokens: usize, mark: Value) -> Value {
    let mut block = json!({ "type": "text", "text": text(tokens) });
    if !mark.is_null() {
        block["cache_control"] = mark;
    }
    block
}

fn five_minutes() -> Value {
    json!({ "type": "ephemeral" })
}

/// Returns Anthropic's request with this `system` and a question of one token.
fn anthropic(system: Value, question: &str) -> Value {
    let messages = json!([{ "role": "user", "content": question }]);
    json!({ "model": "m", "max_tokens": 400, "system": system, "messages": messages })
}

/// Returns a request with a system prompt of this many tokens and a question. It has no key of the cache.
fn with_system(format: WireFormat, tokens: usize, question: &str) -> Value {
    match format {
        WireFormat::OpenAiChat => json!({ "model": "m", "messages": [
            { "role": "system", "content": text(tokens) }, { "role": "user", "content": question }] }),
        WireFormat::OpenAiResponses => {
            json!({ "model": "m", "instructions": text(tokens), "input": question })
        }
        WireFormat::Anthropic => anthropic(json!([block(tokens, five_minutes())]), question),
        WireFormat::Gemini => json!({ "systemInstruction": { "parts": [{ "text": text(tokens) }] },
            "contents": [{ "role": "user", "parts": [{ "text": question }] }] }),
    }
}

/// Returns a request that reaches the same cache as all others of this function.
fn with_cache(format: WireFormat, tokens: usize, question: &str) -> Value {
    let mut body = with_system(format, tokens, question);
    if OPENAI_FORMATS.contains(&format) {
        body["prompt_cache_key"] = json!("one");
    }
    body
}

fn written(input: u64, tokens: u64) -> InputUsage {
    InputUsage { input, written_five_minutes: tokens, ..InputUsage::default() }
}

fn read(input: u64, tokens: u64) -> InputUsage {
    InputUsage { input, read: tokens, ..InputUsage::default() }
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_nothing_is_cached_or_counted() {
    let shared = Arc::new(Shared::new(Settings::default()));
    let blocks: Vec<Value> = (0..5).map(|_| block(2_000, five_minutes())).collect();
    for stream in [false, true] {
        for _ in 0..2 {
            let usage = send(&shared, WireFormat::Anthropic, stream, &anthropic(json!(blocks), "q001")).await;
            assert_eq!(usage, InputUsage { input: 10_001, ..InputUsage::default() });
        }
    }
    assert!(!serde_json::to_string(&shared.counts()).unwrap().contains("cache"));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_sent_together_all_miss_until_the_first_token() {
    for format in FORMATS {
        for stream in [false, true] {
            let shared = shared("latency = \"4s\"\nfirst_token = \"2s\"");
            let ask = async |delay: Duration, question: &str| {
                sleep(delay).await;
                send(&shared, format, stream, &with_cache(format, 1_536, question)).await.read
            };
            let reads = join_all([
                ask(Duration::ZERO, "q001"),
                ask(Duration::ZERO, "q002"),
                ask(Duration::from_millis(1_900), "q003"),
                ask(Duration::from_millis(2_100), "q004"),
                ask(3 * SECOND, "q005"),
            ]);
            assert_eq!(reads.await, [0, 0, 0, 1_536, 1_536], "{format:?} {stream}");
            let counts = shared.counts();
            assert_eq!((counts.cache_hits, counts.cache_misses), (2, 3));
            let writes = if format == WireFormat::Anthropic { 3 * 1_536 } else { 0 };
            assert_eq!((counts.cache_read_tokens, counts.cache_write_tokens), (2 * 1_536, writes));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_disconnects_before_the_first_token_writes_nothing() {
    for format in FORMATS {
        for (stream, disconnects_after, tokens) in
            [(false, 1, 0), (true, 1, 0), (false, 3, 1_536), (true, 3, 1_536)]
        {
            let shared = shared("latency = \"4s\"\nfirst_token = \"2s\"");
            let first = with_cache(format, 1_536, "q001");
            let first = send(&shared, format, stream, &first);
            assert!(timeout(disconnects_after * SECOND, first).await.is_err());
            sleep(4 * SECOND).await;
            let second = send(&shared, format, stream, &with_cache(format, 1_536, "q002")).await;
            assert_eq!(second.read, tokens, "{format:?} {stream} {disconnects_after}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn openai_reads_the_longest_common_prefix_in_steps_of_128_tokens() {
    for format in OPENAI_FORMATS {
        for stream in [false, true] {
            let shared = shared("");
            let ask = async |tokens, question: &str| {
                let usage = send(&shared, format, stream, &with_cache(format, tokens, question)).await;
                assert_eq!(usage.input, tokens as u64 + question.len().div_ceil(4) as u64);
                usage.read
            };
            assert_eq!(ask(1_500, "q001").await, 0);
            assert_eq!(ask(1_500, "q002").await, 1_408);
            // The whole prompt can be read.
            assert_eq!(ask(1_500, &text(36)).await, 1_408);
            assert_eq!(ask(1_500, &text(36)).await, 1_536);
            // A prompt below the minimum is not cached, and a long one reads only what is long enough.
            assert_eq!([ask(900, "q001").await, ask(900, "q001").await], [0, 0]);
            let counts = shared.counts();
            assert_eq!((counts.cache_hits, counts.cache_misses, counts.cache_write_tokens), (3, 1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_belongs_to_one_account_one_model_and_one_key_of_the_cache() {
    for format in FORMATS {
        let shared = shared("");
        let ask = async |key: &str, change: &dyn Fn(&mut Value)| {
            let mut body = with_cache(format, 1_536, "q001");
            change(&mut body);
            let (_, response) = send_with(&shared, format, false, key, &body).await;
            input_usage(format, false, &response).read
        };
        assert_eq!([ask("a", &|_| {}).await, ask("a", &|_| {}).await], [0, 1_536]);
        assert_eq!([ask("b", &|_| {}).await, ask("b", &|_| {}).await], [0, 1_536]);
        if format != WireFormat::Gemini {
            let other_model = |body: &mut Value| body["model"] = json!("other");
            assert_eq!([ask("a", &other_model).await, ask("a", &other_model).await], [0, 1_536]);
        }
        if OPENAI_FORMATS.contains(&format) {
            let other_key = |body: &mut Value| body["prompt_cache_key"] = json!("two");
            assert_eq!([ask("a", &other_key).await, ask("a", &other_key).await], [0, 1_536]);
        }
    }
    let shared = shared("limits = { shared_across_keys = true }");
    let body = anthropic(json!([block(2_000, five_minutes())]), "q001");
    for (key, tokens) in [("a", 0), ("b", 2_000)] {
        let (_, response) = send_with(&shared, WireFormat::Anthropic, false, key, &body).await;
        assert_eq!(input_usage(WireFormat::Anthropic, false, &response).read, tokens);
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_the_requests_to_openai_without_a_key_find_no_entry() {
    for format in OPENAI_FORMATS {
        let reads = async |toml: &str| {
            let shared = shared(toml);
            let mut reads = Vec::new();
            for nth in 0..200 {
                let body = with_system(format, 1_536, &format!("q{nth:03}"));
                reads.push(send(&shared, format, false, &body).await.read);
            }
            reads
        };
        let first = reads("").await;
        let hits = first.iter().filter(|read| **read == 1_536).count();
        assert_eq!(hits + first.iter().filter(|read| **read == 0).count(), 200);
        assert!((70..130).contains(&hits), "{hits}");
        assert_eq!(reads("").await, first);
        assert_ne!(reads("seed = 7").await, first);
    }
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_openai_and_gemini_expires_after_ten_minutes_without_use() {
    for format in [WireFormat::OpenAiChat, WireFormat::OpenAiResponses, WireFormat::Gemini] {
        let shared = shared("");
        let ask = async |question: &str| {
            send(&shared, format, false, &with_cache(format, 1_536, question)).await.read
        };
        assert_eq!(ask("q001").await, 0);
        for _ in 0..3 {
            advance(10 * MINUTE - SECOND).await;
            assert_eq!(ask("q002").await, 1_536, "{format:?}");
        }
        advance(10 * MINUTE).await;
        assert_eq!(ask("q003").await, 0, "{format:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn gemini_always_reads_the_longest_common_prefix() {
    for stream in [false, true] {
        let shared = shared("");
        for nth in 0..50 {
            let body = with_system(WireFormat::Gemini, 1_500, &format!("q{nth:03}"));
            let usage = send(&shared, WireFormat::Gemini, stream, &body).await;
            assert_eq!(usage, read(1_501, if nth == 0 { 0 } else { 1_408 }), "{nth}");
        }
        let short = with_system(WireFormat::Gemini, 1_020, "q001");
        for _ in 0..2 {
            let usage = send(&shared, WireFormat::Gemini, stream, &short).await;
            assert_eq!(usage, read(1_021, 0));
        }
        assert_eq!((shared.counts().cache_hits, shared.counts().cache_misses), (49, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_or_rejected_request_neither_reads_nor_writes() {
    for format in FORMATS {
        let faults = "faults = [{ kind = \"server_error\", contains = \"bad0\" }]";
        let shared = shared(&format!("{faults}\nlimits = {{ requests_per_minute = 2 }}"));
        let ask = async |question: &str| {
            let body = with_cache(format, 1_536, question);
            let (status, response) = send_with(&shared, format, false, "key", &body).await;
            (status, if status == 200 { input_usage(format, false, &response).read } else { 0 })
        };
        assert_eq!(ask("bad0").await, (500, 0));
        assert_eq!(ask("q001").await, (200, 0), "{format:?}");
        assert_eq!(ask("q002").await, (200, 1_536));
        assert_eq!(ask("q003").await.0, 429);
        assert_eq!((shared.counts().cache_hits, shared.counts().cache_misses), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn only_anthropics_input_limit_does_not_count_what_is_read() {
    let limits = "limits = { input_tokens_per_minute = 5_000 }";
    let statuses = async |format: WireFormat, toml: &str| {
        let shared = shared(toml);
        let mut statuses = Vec::new();
        for nth in 0..4 {
            let body = with_cache(format, 3_072, &format!("q{nth:03}"));
            statuses.push(send_with(&shared, format, false, "key", &body).await.0);
        }
        statuses
    };
    assert_eq!(statuses(WireFormat::Anthropic, limits).await, [200; 4]);
    assert_eq!(statuses(WireFormat::OpenAiChat, limits).await, [200, 429, 429, 429]);
    assert_eq!(statuses(WireFormat::Gemini, limits).await, [200, 429, 429, 429]);
    let all_tokens = "limits = { tokens_per_minute = 5_000 }";
    assert_eq!(statuses(WireFormat::Anthropic, all_tokens).await, [200, 429, 429, 429]);
}

#[tokio::test(start_paused = true)]
async fn a_reset_empties_the_cache() {
    let shared = shared("");
    let body = anthropic(json!([block(2_000, five_minutes())]), "q001");
    assert_eq!(send_anthropic(&shared, &body).await, written(1, 2_000));
    shared.reset();
    assert_eq!(send_anthropic(&shared, &body).await, written(1, 2_000));
    assert_eq!(shared.counts().cache_misses, 1);
}

#[tokio::test]
async fn the_sizes_of_prefixes_are_those_of_the_usage() {
    let simulator = start(Settings::default());
    for format in FORMATS {
        for padding in (0..700).step_by(23) {
            let prompt = format!("{}Call the tools a and b", "x".repeat(5_000 + padding));
            let mut body = with_tools(format, question(format, &prompt), &["a", "b"]);
            if format == WireFormat::Anthropic {
                body["thinking"] = json!({ "type": "adaptive" });
            }
            let answer = answer(&simulator, format, false, &body).await;
            assert_eq!(answer.calls.len(), 2);
            let body = with_results(format, body, &answer).to_string();
            let mut headers = HeaderMap::new();
            headers.insert("anthropic-version", HeaderValue::from_static("2026-10-21"));
            let head = RequestHead { headers: &headers, query: "", model: Some("m"), stream: false };
            let parsed = parse_request(format, &head, body.as_bytes(), &Settings::default()).unwrap();
            let tokens = parsed.conversation.tokens();
            match cacheable_prompt(format, body.as_bytes()).unwrap() {
                CacheablePrompt::Blocks(blocks) => assert_eq!(blocks.last().unwrap().tokens, tokens),
                CacheablePrompt::Steps { digests, .. } => {
                    // Tokens are rounded up from 4 bytes, steps are rounded down from 512 bytes.
                    let steps = digests.len() as u64;
                    let possible = (tokens * 4 - 3) / 512..=tokens * 4 / 512;
                    assert!(possible.contains(&steps), "{format:?} {padding}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_cache_is_used_over_http_and_its_counts_are_available() {
    let simulator = start_with("prompt_cache = \"vendor\"");
    for format in FORMATS {
        for stream in [false, true] {
            let body = with_cache(format, 1_536, if stream { "q002" } else { "q001" });
            let (status, response) = post(&simulator, format, stream, &body).await;
            assert_eq!(status, 200);
            let expected = if stream { 1_536 } else { 0 };
            assert_eq!(input_usage(format, stream, &response).read, expected, "{format:?}");
        }
    }
    let url = format!("http://{}/simulator/counts", simulator.addr());
    let counts = client().get(url).send().await.unwrap().text().await.unwrap();
    let counts: Value = serde_json::from_str(&counts).unwrap();
    assert_eq!((&counts["cache_hits"], &counts["cache_misses"]), (&json!(4), &json!(4)));
    assert_eq!((&counts["cache_read_tokens"], &counts["cache_write_tokens"]), (&json!(6_144), &json!(1_536)));
}
