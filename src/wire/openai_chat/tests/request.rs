//! Tests of the encoded requests.

use serde_json::{Value, json};

use crate::types::{
    Charged, Class, FailureScope, Fingerprint, Format, Media, MediaData, Message, Part, Prompt,
    ReasoningEffort, ResponseFormat, Role, SharedPrefix, VendorFields,
};
use crate::wire::{Dialect, MaxTokensField, StreamSupport, StructuredOutput};

use super::fixture;

pub(super) const OPENAI: &str = "https://api.openai.com/v1";
pub(super) const LOCAL: &str = "http://localhost:11434/v1";

pub(super) fn encode(prompt: &Prompt, base_url: &str, dialect: &Dialect) -> Value {
    let request = Format::Openai.encode(prompt, "gpt-6-luna", base_url, dialect).unwrap();
    assert_eq!((request.path.as_str(), request.headers.len()), ("/chat/completions", 0));
    serde_json::from_slice(&request.body).unwrap()
}

fn user(parts: Vec<Part>) -> Prompt {
    Prompt { messages: vec![Message { role: Role::User, parts }], ..Prompt::default() }
}

pub(super) fn media(media_type: &str, name: Option<&str>, base64: &str) -> Media {
    Media {
        media_type: media_type.into(),
        name: name.map(Into::into),
        data: MediaData::Base64(base64.into()),
    }
}

pub(super) fn vendor_fields(fields: &Value) -> VendorFields {
    VendorFields::new(Format::Openai, fields.as_object().cloned().unwrap())
}

fn edit(fixture: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut value = serde_json::from_str(fixture).unwrap();
    change(&mut value);
    value["stream"] = json!(true);
    value["stream_options"] = json!({ "include_usage": true });
    value
}

#[test]
fn a_request_with_an_image_and_a_schema_is_sent_as_recorded() {
    let recorded: Value = serde_json::from_str(fixture!("openai_chat_request.json")).unwrap();
    let image = recorded["messages"][1]["content"][1]["image_url"]["url"].as_str().unwrap();
    let base64 = image.strip_prefix("data:image/png;base64,").unwrap();
    let prompt = Prompt {
        system: Some("You catalogue books for a village library.".into()),
        response_format: ResponseFormat::Json(
            recorded["response_format"]["json_schema"]["schema"].clone().into(),
        ),
        max_tokens: Some(400),
        reasoning_effort: Some(ReasoningEffort::Low),
        seed: Some(7),
        ..user(vec![
            Part::Text("Describe this cover and file it.".into()),
            Part::Image(media("image/png", None, base64)),
        ])
    };
    let fields = json!({ "n": 1, "metadata": { "job": "cat-001" } });
    let prompt = prompt.with_vendor_fields(vendor_fields(&fields));
    let expected = edit(fixture!("openai_chat_request.json"), |recorded| {
        // A field that our prompts do not have, and names that we choose.
        recorded["messages"][0]["role"] = json!("system");
        recorded["messages"][1]["content"][1]["image_url"].as_object_mut().unwrap().remove("detail");
        recorded["response_format"]["json_schema"]["name"] = json!("answer");
    });
    assert_eq!(encode(&prompt, OPENAI, &Dialect::default()), expected);
}

#[test]
fn audio_and_documents_are_sent_as_recorded() {
    let prompt = Prompt {
        max_tokens: Some(200),
        ..user(vec![
            Part::Text("Transcribe the note and summarise the leaflet.".into()),
            Part::Audio(media(
                "audio/wav",
                None,
                "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=",
            )),
            Part::Document(media("application/pdf", Some("leaflet.pdf"), "JVBERi0xLjQKJUZpeHR1cmUK")),
        ])
    };
    let expected = edit(fixture!("openai_chat_request_multimodal.json"), |recorded| {
        // Our prompts do not refer to files stored at the provider.
        recorded["messages"][0]["content"].as_array_mut().unwrap().pop();
    });
    assert_eq!(encode(&prompt, OPENAI, &Dialect::default()), expected);
}

#[test]
fn a_conversation_is_sent_as_strings_and_the_token_limit_has_the_name_of_the_server() {
    let prompt = Prompt {
        system: Some("Be brief.".into()),
        messages: vec![Message::user("a \"quoted\" 🌊"), Message::assistant("b"), Message::user("c")],
        max_tokens: Some(9),
        temperature: Some(0.2),
        ..Prompt::default()
    };
    let mut expected = json!({
        "model": "gpt-6-luna",
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "a \"quoted\" 🌊" },
            { "role": "assistant", "content": "b" },
            { "role": "user", "content": "c" },
        ],
        "max_tokens": 9,
        "temperature": 0.2,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    assert_eq!(encode(&prompt, LOCAL, &Dialect::default()), expected);
    let old = Dialect { max_tokens_field: MaxTokensField::MaxTokens, ..Dialect::default() };
    assert_eq!(encode(&prompt, OPENAI, &old), expected);

    expected["max_completion_tokens"] = expected.as_object_mut().unwrap().remove("max_tokens").unwrap();
    assert_eq!(encode(&prompt, OPENAI, &Dialect::default()), expected);
    let new = Dialect { max_tokens_field: MaxTokensField::MaxCompletionTokens, ..Dialect::default() };
    assert_eq!(encode(&prompt, LOCAL, &new), expected);
}

#[test]
fn a_whole_response_is_requested_without_options_of_a_stream() {
    let whole = Dialect { stream: StreamSupport::Never, ..Dialect::default() };
    for base_url in [OPENAI, LOCAL] {
        let mut expected = encode(&Prompt::text("x"), base_url, &Dialect::default());
        assert_eq!(expected["stream"], true);
        expected["stream"] = json!(false);
        expected.as_object_mut().unwrap().remove("stream_options").unwrap();
        assert_eq!(encode(&Prompt::text("x"), base_url, &whole), expected);
    }
}

#[test]
fn a_text_document_is_sent_as_text() {
    for media_type in
        ["text/plain", "text/markdown", "text/csv", "text/html", "application/json", "application/xml"]
    {
        let parts = vec![
            Part::Document(media(media_type, Some("tides"), "TG93IGF0IGRhd24u")),
            Part::Text("When?".into()),
        ];
        let body = encode(&user(parts.clone()), LOCAL, &Dialect::default());
        // Without an image, the parts are joined to one string, which every server supports.
        assert_eq!(body["messages"][0]["content"], "tides:\n\nLow at dawn.\n\nWhen?", "{media_type}");
        let image = Part::Image(media("image/png", None, "AAAA"));
        let body = encode(&user([vec![image], parts].concat()), OPENAI, &Dialect::default());
        assert_eq!(
            body["messages"][0]["content"][1],
            json!({ "type": "text", "text": "tides:\n\nLow at dawn." })
        );
    }
    let broken = user(vec![Part::Document(media("text/plain", Some("tides"), "/w=="))]);
    let failure = Format::Openai.encode(&broken, "m", LOCAL, &Dialect::default()).unwrap_err();
    assert_eq!(
        (failure.class, &*failure.message),
        (Class::ApiError, "tides is not base64-encoded UTF-8 text")
    );
}

#[test]
fn a_document_without_a_name_is_named_after_its_media_type() {
    for (media_type, name) in [
        ("application/pdf", "document.pdf"),
        ("Application/PDF", "document.pdf"),
        ("application/pdf;name=a.pdf", "document.pdf"),
        ("application/zip", "document"),
    ] {
        let document = Part::Document(media(media_type, None, "JVBERi0="));
        let body = encode(&user(vec![document]), OPENAI, &Dialect::default());
        assert_eq!(body["messages"][0]["content"][0]["file"]["filename"], name, "{media_type}");
    }
}

#[test]
fn an_image_url_is_sent_as_a_url() {
    let image = Media {
        data: MediaData::Url("https://example.invalid/a.png".into()),
        ..media("image/png", None, "")
    };
    let body = encode(&user(vec![Part::Image(image)]), LOCAL, &Dialect::default());
    let expected = json!([{ "type": "image_url", "image_url": { "url": "https://example.invalid/a.png" } }]);
    assert_eq!(body["messages"][0]["content"], expected);
}

#[test]
fn a_response_format_is_requested_as_the_dialect_specifies() {
    let open = json!({ "type": "object", "properties": { "a": { "type": "string", "minLength": 1 } } });
    let prompt = Prompt { response_format: ResponseFormat::Json(open.clone().into()), ..Prompt::text("x") };
    let with = |structured| Dialect { structured_output: structured, ..Dialect::default() };

    let body = encode(&prompt, LOCAL, &with(StructuredOutput::Schema));
    let expected = json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": open } });
    assert_eq!((&body["response_format"], body["messages"].as_array().unwrap().len()), (&expected, 1));

    let body = encode(&prompt, LOCAL, &with(StructuredOutput::Json));
    assert_eq!(body["response_format"], json!({ "type": "json_object" }));
    assert!(body["messages"][0]["content"].as_str().unwrap().contains("JSON Schema"));

    let body = encode(&prompt, LOCAL, &with(StructuredOutput::Prompt));
    assert_eq!(body.get("response_format"), None);
    assert_eq!(body["messages"][0]["role"], "system");

    let list = json!({ "type": "array", "items": { "type": "string" } });
    let prompt = Prompt { response_format: ResponseFormat::Json(list.clone().into()), ..Prompt::text("x") };
    let sent = &encode(&prompt, LOCAL, &with(StructuredOutput::Schema))["response_format"]["json_schema"];
    assert_eq!((&sent["strict"], &sent["schema"]["properties"]["answer"]), (&json!(true), &list));

    let prompt = Prompt {
        response_format: ResponseFormat::Choice(["A".to_owned(), "B".to_owned()].into()),
        ..Prompt::text("x")
    };
    let body = encode(&prompt, LOCAL, &with(StructuredOutput::Schema));
    assert_eq!(body.get("response_format"), None);
    assert!(body["messages"][0]["content"].as_str().unwrap().ends_with("\nAnswer with exactly one of: A, B"));
}

#[test]
fn content_that_the_format_does_not_support_is_rejected() {
    let linked =
        |media_type| Media { data: MediaData::Url("https://x".into()), ..media(media_type, None, "") };
    let image = Part::Image(media("image/png", None, "AA=="));
    for prompt in [
        user(vec![Part::Audio(media("audio/ogg", None, "AA=="))]),
        user(vec![Part::Audio(linked("audio/wav"))]),
        user(vec![Part::Document(linked("application/pdf"))]),
        user(vec![Part::Video(media("video/mp4", None, "AA=="))]),
        Prompt::default().with_message(Message::new(Role::Assistant, [image.clone()])),
        Prompt::default().with_message(Message::new(Role::System, [image])),
    ] {
        let failure = Format::Openai.encode(&prompt, "m", OPENAI, &Dialect::default()).unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::ApiError, Charged::No), "{failure}");
        // Another target may accept it.
        assert_eq!(failure.scope, FailureScope::Target, "{failure}");
    }
}

#[test]
fn a_shared_prefix_is_sent_as_a_cache_key_to_openai_only() {
    let plain = || Prompt::text("Sort this: Hello.").with_system("Be brief.");
    let prompt = |tokens| {
        let prefix = SharedPrefix::new(Fingerprint([0x1f; 16]), tokens).with_text_bytes(11);
        plain().with_shared_prefix(prefix)
    };
    let default = Dialect::default();
    let azure = "https://mine.openai.azure.com/openai/v1";
    for base_url in [OPENAI, "https://eu.api.openai.com/v1", azure] {
        let mut expected = encode(&plain(), base_url, &default);
        assert_eq!(encode(&prompt(1023), base_url, &default), expected);
        expected["prompt_cache_key"] = json!("1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f");
        assert_eq!(encode(&prompt(1024), base_url, &default), expected);
    }
    for base_url in [LOCAL, "https://openrouter.ai/api/v1"] {
        assert_eq!(encode(&prompt(9999), base_url, &default), encode(&plain(), base_url, &default));
    }
    let configured = Dialect { min_cache_tokens: Some(2000), ..Dialect::default() };
    assert_eq!(encode(&prompt(1999), OPENAI, &configured).get("prompt_cache_key"), None);

    let own = prompt(1024).with_vendor_fields(vendor_fields(&json!({ "prompt_cache_key": "mine" })));
    assert_eq!(encode(&own, OPENAI, &default)["prompt_cache_key"], "mine");
    assert_eq!(encode(&own, LOCAL, &default)["prompt_cache_key"], "mine");
    let fields = json!({ "prompt_cache_key": "configured" }).as_object().cloned().unwrap();
    let configured = Dialect { extra: Some(fields.into()), ..Dialect::default() };
    assert_eq!(encode(&prompt(1024), OPENAI, &configured)["prompt_cache_key"], "configured");
}
