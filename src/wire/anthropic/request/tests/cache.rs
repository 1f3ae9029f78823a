//! Tests of the block with which the cached part of a request ends.

use super::*;
use crate::types::{CacheTtl, Fingerprint, SharedPrefix, VendorFields};

const MODEL: &str = "claude-sonnet-5-5";

fn prefix(text_bytes: usize) -> SharedPrefix {
    SharedPrefix::new(Fingerprint([1; 16]), 1024).with_text_bytes(text_bytes)
}

fn cached(prompt: &Prompt) -> Value {
    let request = encode(prompt, MODEL, &Dialect::default()).unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert!(request.body.windows(15).filter(|bytes| bytes == b"\"cache_control\"").count() <= 1);
    body
}

fn with_tools(prompt: Prompt) -> Prompt {
    prompt
        .with_tool(Tool::new("clock", json!({ "type": "object" })))
        .with_tool(Tool::new("weather", json!({ "type": "object" })))
}

fn image() -> Part {
    Part::Image(media("image/png", MediaData::Url("https://example.invalid/a.png".into()), None))
}

fn image_block() -> Value {
    json!({ "type": "image", "source": { "type": "url", "url": "https://example.invalid/a.png" } })
}

#[test]
fn the_cached_part_ends_with_the_constant_text() {
    let prompt = with_tools(Prompt::text("Sort this: Hello.").with_system("Be brief."));
    let expected = json!({
        "model": MODEL,
        "max_tokens": 4096,
        "system": "Be brief.",
        "messages": [{
            "role": "user",
            "content": [
                { "type": "text", "text": "Sort this: ", "cache_control": { "type": "ephemeral" } },
                { "type": "text", "text": "Hello." },
            ],
        }],
        "tools": [
            { "name": "clock", "input_schema": { "type": "object" } },
            { "name": "weather", "input_schema": { "type": "object" } },
        ],
        "stream": true,
    });
    assert_eq!(cached(&prompt.with_shared_prefix(prefix(11))), expected);
}

#[test]
fn a_text_that_is_wholly_constant_is_one_block() {
    let prompt = Prompt::text("Say hello.").with_shared_prefix(prefix(10));
    let block = json!({ "type": "text", "text": "Say hello.", "cache_control": { "type": "ephemeral" } });
    assert_eq!(cached(&prompt)["messages"], json!([{ "role": "user", "content": [block] }]));
}

#[test]
fn the_cached_part_ends_with_the_system_prompt_if_no_text_is_constant() {
    let prompt = with_tools(Prompt::text("Hello.").with_system("Be brief.")).with_shared_prefix(prefix(0));
    let sent = cached(&prompt);
    let block = json!({ "type": "text", "text": "Be brief.", "cache_control": { "type": "ephemeral" } });
    assert_eq!(sent["system"], json!([block]));
    assert_eq!(sent["messages"], json!([{ "role": "user", "content": "Hello." }]));

    let leading = Message::new(Role::System, [Part::text("Be kind.")]);
    let prompt = Prompt { messages: vec![leading, Message::user("Hello.")], ..prompt };
    let blocks = json!([
        { "type": "text", "text": "Be brief." },
        { "type": "text", "text": "Be kind.", "cache_control": { "type": "ephemeral" } },
    ]);
    assert_eq!(cached(&prompt)["system"], blocks);
}

#[test]
fn an_instruction_in_the_system_prompt_is_cached_with_it() {
    let prompt = Prompt::text("Hello.").with_response_format(ResponseFormat::choice(["A", "B"]));
    let plain = body(&prompt, &Dialect::default());
    let sent = cached(&prompt.clone().with_shared_prefix(prefix(0)));
    let text = plain["system"].as_str().unwrap();
    assert_eq!(
        sent["system"],
        json!([{ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } }])
    );
}

#[test]
fn the_cached_part_ends_with_the_last_tool_if_there_is_no_system_prompt() {
    for system in [None, Some(" ".into())] {
        let prompt = Prompt { system, ..with_tools(Prompt::text("Hello.")) };
        let mut expected = body(&prompt, &Dialect::default());
        expected["model"] = json!(MODEL);
        expected["tools"][1]["cache_control"] = json!({ "type": "ephemeral" });
        assert_eq!(cached(&prompt.with_shared_prefix(prefix(0))), expected);
    }
    let nothing = Prompt::text("Hello.");
    assert_eq!(cached(&nothing.clone().with_shared_prefix(prefix(0))), cached(&nothing));
}

#[test]
fn nothing_is_cached_below_the_minimum_of_the_model() {
    let prompt = || with_tools(Prompt::text("Sort this: Hello.").with_system("Be brief."));
    let sent = |model, tokens, dialect: &Dialect| -> Value {
        let prefix = SharedPrefix::new(Fingerprint([1; 16]), tokens).with_text_bytes(11);
        let request = encode(&prompt().with_shared_prefix(prefix), model, dialect).unwrap();
        serde_json::from_slice(&request.body).unwrap()
    };
    let default = Dialect::default();
    for (model, min) in [(MODEL, 1024), ("claude-haiku-4-5", 4096), ("claude-3-5-haiku-latest", 2048)] {
        let plain: Value = serde_json::from_slice(&encode(&prompt(), model, &default).unwrap().body).unwrap();
        assert_eq!(sent(model, min - 1, &default), plain, "{model}");
        assert_ne!(sent(model, min, &default), plain, "{model}");
        let configured = Dialect { min_cache_tokens: Some(min + 1), ..Dialect::default() };
        assert_eq!(sent(model, min, &configured), plain, "{model}");
    }
}

#[test]
fn an_hour_is_requested_in_every_place() {
    let an_hour = json!({ "type": "ephemeral", "ttl": "1h" });
    let prefix = |text_bytes| prefix(text_bytes).with_ttl(CacheTtl::OneHour);
    let text = cached(&Prompt::text("Sort: a").with_shared_prefix(prefix(6)));
    assert_eq!(text["messages"][0]["content"][0]["cache_control"], an_hour);
    let system = cached(&Prompt::text("a").with_system("Sort.").with_shared_prefix(prefix(0)));
    assert_eq!(system["system"][0]["cache_control"], an_hour);
    let tools = cached(&with_tools(Prompt::text("a")).with_shared_prefix(prefix(0)));
    assert_eq!(tools["tools"][1]["cache_control"], an_hour);
}

#[test]
fn a_long_constant_text_is_sent_before_attachments_and_a_short_one_is_not_cached() {
    let long = "x".repeat(1024);
    let message = |text: String| Message::new(Role::User, [image(), Part::text(text), image()]);
    let prompt = |text: String| Prompt { messages: vec![message(text)], ..Prompt::default() };
    let sent = cached(&prompt(format!("{long} Hello.")).with_shared_prefix(prefix(1024)));
    let expected = json!([
        { "type": "text", "text": long, "cache_control": { "type": "ephemeral" } },
        image_block(),
        { "type": "text", "text": " Hello." },
        image_block(),
    ]);
    assert_eq!(sent["messages"][0]["content"], expected);

    let short = prompt(format!("{long} Hello.")).with_system("Be brief.").with_shared_prefix(prefix(1023));
    let sent = cached(&short);
    let in_order =
        json!([image_block(), { "type": "text", "text": format!("{long} Hello.") }, image_block()]);
    assert_eq!(sent["messages"][0]["content"], in_order);
    assert_eq!(sent["system"][0]["cache_control"], json!({ "type": "ephemeral" }));
}

#[test]
fn attachments_after_the_text_keep_their_place() {
    let prompt = Prompt::text("Look: a").with_part(image()).with_shared_prefix(prefix(6));
    let expected = json!([
        { "type": "text", "text": "Look: ", "cache_control": { "type": "ephemeral" } },
        { "type": "text", "text": "a" },
        image_block(),
    ]);
    assert_eq!(cached(&prompt)["messages"][0]["content"], expected);
}

#[test]
fn only_the_first_message_is_split() {
    let prompt = Prompt::text("Sort: a")
        .with_message(Message::assistant("A"))
        .with_message(Message::user("Sort: again"))
        .with_shared_prefix(prefix(6));
    let sent = cached(&prompt);
    assert_eq!(sent["messages"][0]["content"][1]["text"], "a");
    assert_eq!(sent["messages"][1]["content"], "A");
    assert_eq!(sent["messages"][2]["content"], "Sort: again");

    let messages = vec![Message::assistant("A"), Message::user("Sort: a")];
    let prompt = Prompt { messages, ..prompt }.with_system("Be brief.");
    let sent = cached(&prompt);
    assert_eq!(sent["messages"][1]["content"], "Sort: a");
    assert_eq!(sent["system"][0]["cache_control"], json!({ "type": "ephemeral" }));
}

#[test]
fn a_mark_in_the_vendors_fields_is_kept() {
    let fields = json!({ "cache_control": { "type": "ephemeral" } }).as_object().unwrap().clone();
    let prompt = Prompt::text("Sort: a")
        .with_shared_prefix(prefix(6))
        .with_vendor_fields(VendorFields::new(Format::Anthropic, fields));
    let request = encode(&prompt, MODEL, &Dialect::default()).unwrap();
    let sent: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent["cache_control"], json!({ "type": "ephemeral" }));
    assert_eq!(sent["messages"][0]["content"][0]["cache_control"], json!({ "type": "ephemeral" }));
}
