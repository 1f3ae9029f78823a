//! Anthropic's prompt cache: marks, minimum, order, lifetime.

use super::*;

fn one_hour() -> Value {
    json!({ "type": "ephemeral", "ttl": "1h" })
}

#[tokio::test(start_paused = true)]
async fn anthropic_writes_a_marked_prefix_and_then_reads_it() {
    for stream in [false, true] {
        let shared = shared("");
        let ask = async |question: &str| {
            let body = anthropic(json!([block(2_000, five_minutes())]), question);
            send(&shared, WireFormat::Anthropic, stream, &body).await
        };
        assert_eq!(ask("q001").await, written(1, 2_000));
        assert_eq!(ask("q002").await, read(1, 2_000));
        assert_eq!(ask("q002 and more").await, read(4, 2_000));
        let counts = shared.counts();
        assert_eq!((counts.cache_read_tokens, counts.cache_write_tokens), (4_000, 2_000));
        assert_eq!((counts.cache_hits, counts.cache_misses), (2, 1));
        // The tokens of the cache are input as well.
        assert_eq!(counts.input_tokens, 2_001 + 2_001 + 2_004);
    }
}

#[tokio::test(start_paused = true)]
async fn anthropic_ignores_a_prefix_below_the_minimum() {
    for (toml, tokens, is_cached) in [
        ("", 1_023, false),
        ("", 1_024, true),
        ("prompt_cache_min_tokens = 2048", 2_047, false),
        ("prompt_cache_min_tokens = 2048", 2_048, true),
    ] {
        let shared = shared(toml);
        let body = anthropic(json!([block(tokens, five_minutes())]), "q001");
        let tokens = tokens as u64;
        let both = [send_anthropic(&shared, &body).await, send_anthropic(&shared, &body).await];
        let none = InputUsage { input: tokens + 1, ..InputUsage::default() };
        let expected = if is_cached { [written(1, tokens), read(1, tokens)] } else { [none; 2] };
        assert_eq!(both, expected, "{tokens}");
        let misses = u64::from(is_cached);
        assert_eq!((shared.counts().cache_hits, shared.counts().cache_misses), (misses, misses));
    }
}

#[tokio::test(start_paused = true)]
async fn anthropic_accepts_at_most_four_marks_and_checks_each() {
    let shared = shared("");
    let error = async |body: Value| send_with(&shared, WireFormat::Anthropic, false, "key", &body).await;
    let marked = |count| -> Vec<Value> { (0..count).map(|_| block(300, five_minutes())).collect() };
    assert_eq!(error(anthropic(json!(marked(4)), "q001")).await.0, 200);
    let (status, response) = error(anthropic(json!(marked(5)), "q001")).await;
    assert!(status == 400 && response.contains("maximum of 4 blocks with cache_control"), "{response}");
    let mut automatic = anthropic(json!(marked(4)), "q001");
    automatic["cache_control"] = five_minutes();
    assert_eq!(error(automatic).await.0, 400);
    for (mark, field) in [
        (json!({ "type": "persistent" }), "system.0.cache_control.type"),
        (json!({ "type": "ephemeral", "ttl": "2h" }), "system.0.cache_control.ephemeral.ttl"),
    ] {
        let (status, response) = error(anthropic(json!([block(9, mark)]), "q001")).await;
        assert!(status == 400 && response.contains(field), "{response}");
    }
    // Only the admitted call counts, and its prefix of 1,200 tokens is long enough.
    assert_eq!((shared.counts().cache_misses, shared.counts().cache_hits), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn anthropic_reads_the_longest_prefix_in_the_order_of_tools_system_and_messages() {
    let shared = shared("");
    let body = |tool: &str, system: usize, question: usize| {
        let question = json!([block(question, five_minutes()), block(1, json!(null))]);
        let mut body = json!({ "model": "m", "max_tokens": 400, "system": [block(system, five_minutes())],
            "messages": [{ "role": "user", "content": question }] });
        body["tools"] = json!([{ "name": "look", "input_schema": parameters(), "description": text(1_500) },
            { "name": tool, "input_schema": parameters(), "cache_control": one_hour() }]);
        body
    };
    let first = send_anthropic(&shared, &body("sort", 2_000, 3_000)).await;
    let tools = first.written_one_hour;
    assert!((1_500..1_700).contains(&tools), "{first:?}");
    // The closing bracket of the tools belongs to the system prompt, and tokens are rounded.
    assert!((5_000..=5_001).contains(&first.written_five_minutes), "{first:?}");
    let other_question = send_anthropic(&shared, &body("sort", 2_000, 3_100)).await;
    assert!((2_000 + tools..=2_001 + tools).contains(&other_question.read), "{other_question:?}");
    assert_eq!((other_question.written_five_minutes, other_question.written_one_hour), (3_100, 0));
    let other_system = send_anthropic(&shared, &body("sort", 2_100, 3_000)).await;
    assert_eq!((other_system.read, other_system.written_one_hour), (tools, 0));
    let other_tool = send_anthropic(&shared, &body("ship", 2_000, 3_000)).await;
    assert_eq!(other_tool, first);
    assert_eq!(send_anthropic(&shared, &body("sort", 2_000, 3_000)).await.written_five_minutes, 0);
}

#[tokio::test(start_paused = true)]
async fn an_entry_of_anthropic_expires_after_its_time_without_use() {
    for (mark, lifetime) in [(five_minutes(), 5 * MINUTE), (one_hour(), 60 * MINUTE)] {
        let shared = shared("");
        let body = anthropic(json!([block(2_000, mark.clone())]), "q001");
        let first = send_anthropic(&shared, &body).await;
        assert_eq!(first.written_five_minutes + first.written_one_hour, 2_000);
        assert_eq!(first.written_one_hour > 0, mark == one_hour());
        for _ in 0..3 {
            advance(lifetime - SECOND).await;
            assert_eq!(send_anthropic(&shared, &body).await, read(1, 2_000), "a read refreshes it");
        }
        advance(lifetime).await;
        assert_eq!(send_anthropic(&shared, &body).await, first);
    }
}

#[tokio::test(start_paused = true)]
async fn anthropic_reads_an_entry_of_the_last_twenty_blocks() {
    let conversation = |messages: usize| {
        let mut content = vec![block(2_000, json!(null))];
        content.extend((0..messages).map(|_| block(100, json!(null))));
        content[messages]["cache_control"] = five_minutes();
        json!({ "model": "m", "max_tokens": 400, "messages": [{ "role": "user", "content": content }] })
    };
    let shared = shared("");
    assert_eq!(send_anthropic(&shared, &conversation(2)).await, written(0, 2_200));
    let grown = InputUsage { read: 2_200, ..written(0, 1_900) };
    assert_eq!(send_anthropic(&shared, &conversation(21)).await, grown);
    // The last entry is the first of 21 blocks.
    assert_eq!(send_anthropic(&shared, &conversation(41)).await, written(0, 6_100));
}

#[tokio::test(start_paused = true)]
async fn a_mark_of_the_whole_request_is_placed_at_its_last_block() {
    let shared = shared("");
    let mut body = question(WireFormat::Anthropic, &text(1_500));
    body["cache_control"] = five_minutes();
    assert_eq!(send_anthropic(&shared, &body).await, written(0, 1_500));
    messages(WireFormat::Anthropic, &mut body).push(json!({ "role": "assistant", "content": text(30) }));
    messages(WireFormat::Anthropic, &mut body).push(json!({ "role": "user", "content": text(20) }));
    assert_eq!(send_anthropic(&shared, &body).await, InputUsage { read: 1_500, ..written(0, 50) });
}
