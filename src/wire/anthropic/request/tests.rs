use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::types::{Charged, Class, Media, MediaData, Part, ResponseFormat, Tool};
use crate::wire::fixtures;

mod cache;
mod content;
mod settings;

fn body(prompt: &Prompt, dialect: &Dialect) -> Value {
    serde_json::from_slice(&encode(prompt, "claude-haiku-5-5", dialect).unwrap().body).unwrap()
}

fn version(version: &str) -> Dialect {
    Dialect { api_version: Some(version.to_owned()), ..Dialect::default() }
}

fn media(media_type: &str, data: MediaData, name: Option<&str>) -> Media {
    Media { media_type: media_type.into(), name: name.map(Arc::from), data }
}

#[test]
fn a_request_carries_all_settings_images_and_documents() {
    let mut recorded = fixtures::json("anthropic_messages_request.json");
    let pixel = recorded.pointer("/messages/0/content/0/source/data").unwrap().as_str().unwrap();
    let prompt = Prompt {
        system: Some("You catalogue books for a village library.".into()),
        messages: vec![Message {
            role: Role::User,
            parts: vec![
                Part::Image(media("image/png", MediaData::Base64(pixel.into()), None)),
                Part::Image(media(
                    "image/png",
                    MediaData::Url("https://example.invalid/cover.png".into()),
                    None,
                )),
                Part::Document(media(
                    "application/pdf",
                    MediaData::Base64("JVBERi0xLjQK".into()),
                    Some("leaflet"),
                )),
                Part::Document(media(
                    "text/plain",
                    MediaData::Base64("T3BlbmluZyBob3VyczogOSB0byA1Lg==".into()),
                    None,
                )),
                Part::Text("File this.".into()),
            ],
        }],
        max_tokens: Some(400),
        stop: vec!["END".into()],
        tools: vec![
            Tool::new("shelf_lookup", recorded["tools"][0]["input_schema"].clone())
                .with_description("Count copies")
                .with_strict(true),
        ],
        parallel_tool_calls: Some(false),
        user: Some("u-17".into()),
        ..Prompt::default()
    };
    // The prompt cache and citations are not requested.
    recorded["system"] = recorded["system"][0]["text"].take();
    recorded["messages"][0]["content"][3].as_object_mut().unwrap().remove("citations");
    recorded["stream"] = json!(true);
    assert_eq!(body(&prompt, &Dialect::default()), recorded);
}

#[test]
fn a_schema_is_sent_as_recorded() {
    let mut recorded = fixtures::json("anthropic_messages_request_structured.json");
    let schema = recorded.pointer("/output_config/format/schema").unwrap().clone();
    let prompt = Prompt {
        response_format: ResponseFormat::Json(Arc::new(schema)),
        max_tokens: Some(300),
        reasoning_effort: Some(ReasoningEffort::Low),
        ..Prompt::text("File 'The Salt Harvest' (1987).")
    };
    recorded["thinking"] = json!({ "type": "adaptive" });
    recorded["stream"] = json!(true);
    assert_eq!(body(&prompt, &Dialect::default()), recorded);
}

#[test]
fn a_schema_that_the_vendor_rejects_is_put_into_the_prompt() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "additionalProperties": false});
    let prompt = Prompt { response_format: ResponseFormat::Json(Arc::new(schema)), ..Prompt::text("Count.") };
    let body = body(&prompt, &Dialect::default());
    assert_eq!(body.get("output_config"), None);
    assert!(body["system"].as_str().unwrap().contains("minimum"), "{body}");
}

#[test]
fn only_a_pdf_is_sent_as_base64_and_a_text_as_a_text_document() {
    let source = |media: Media| {
        let message = Message { role: Role::User, parts: vec![Part::Document(media)] };
        let prompt = Prompt { messages: vec![message], ..Prompt::default() };
        encode(&prompt, "m", &Dialect::default()).map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            body["messages"][0]["content"][0]["source"].clone()
        })
    };
    let base64 = || MediaData::Base64("TG93Lg==".into());
    for text in ["text/plain", "text/csv", "application/json", "application/xml", "text/html; charset=utf-8"]
    {
        let expected = json!({ "type": "text", "media_type": "text/plain", "data": "Low." });
        assert_eq!(source(media(text, base64(), None)).unwrap(), expected, "{text}");
    }
    assert_eq!(source(media("application/pdf", base64(), None)).unwrap()["type"], "base64");
    let url = || MediaData::Url("https://example.invalid/a".into());
    assert_eq!(source(media("application/pdf", url(), None)).unwrap()["type"], "url");
    for unsupported in [media("text/plain", url(), None), media("application/zip", base64(), None)] {
        assert_eq!(source(unsupported).unwrap_err().class, Class::ApiError);
    }
}

#[test]
fn the_media_type_of_base64_is_sent_in_lower_case_and_without_parameters() {
    for (media_type, sent) in [
        ("application/pdf;name=a.pdf", "application/pdf"),
        ("Application/PDF", "application/pdf"),
        ("image/png; x=1", "image/png"),
        ("IMAGE/JPEG", "image/jpeg"),
        ("image/webp", "image/webp"),
    ] {
        let media = media(media_type, MediaData::Base64("TG93Lg==".into()), None);
        let is_image = sent.starts_with("image/");
        let part = if is_image { Part::Image(media) } else { Part::Document(media) };
        let message = Message { role: Role::User, parts: vec![part] };
        let prompt = Prompt { messages: vec![message], ..Prompt::default() };
        let source = &body(&prompt, &Dialect::default())["messages"][0]["content"][0]["source"];
        let expected = json!({ "type": "base64", "media_type": sent, "data": "TG93Lg==" });
        assert_eq!(*source, expected, "{media_type}");
    }
}

#[test]
fn a_conversation_keeps_its_messages() {
    let prompt = Prompt {
        messages: vec![
            Message::user("Is it in Arden?"),
            Message::assistant("Let me look."),
            Message::user("Well?"),
        ],
        temperature: Some(0.5),
        ..Prompt::default()
    };
    assert_eq!(
        body(&prompt, &Dialect::default()),
        json!({
            "model": "claude-haiku-5-5",
            "max_tokens": 4096,
            "messages": [
                {"role": "user", "content": "Is it in Arden?"},
                {"role": "assistant", "content": "Let me look."},
                {"role": "user", "content": "Well?"},
            ],
            "temperature": 0.5,
            "stream": true,
        })
    );
}

#[test]
fn the_version_is_sent_in_its_header() {
    for (dialect, expected) in [(Dialect::default(), "2023-06-01"), (version("2026-10-21"), "2026-10-21")] {
        let request = encode(&Prompt::text("Hi"), "claude-haiku-5-5", &dialect).unwrap();
        assert_eq!(request.path, "/v1/messages");
        assert_eq!(request.headers.len(), 1);
        assert_eq!(
            (request.headers[0].0.as_str(), request.headers[0].1.to_str().unwrap()),
            ("anthropic-version", expected)
        );
    }
    let failure = encode(&Prompt::text("Hi"), "claude-haiku-5-5", &version("20\n26")).unwrap_err();
    assert_eq!(failure.class, Class::ApiError);
}

#[test]
fn a_temperature_is_never_omitted_silently() {
    let prompt = Prompt { temperature: Some(1.0), ..Prompt::text("Hi") };
    let failure = encode(&prompt, "claude-haiku-5-5", &version("2026-10-21")).unwrap_err();
    assert_eq!(failure.class, Class::ApiError);
    assert_eq!(
        &*failure.message,
        "API version 2026-10-21 does not support temperature; remove it or use 2023-06-01"
    );
    assert_eq!(body(&Prompt::text("Hi"), &version("2026-10-21")).get("temperature"), None);
}

#[test]
fn content_that_the_format_does_not_support_is_rejected() {
    let parts = [
        Part::Audio(media("audio/wav", MediaData::Base64("UklGRg==".into()), None)),
        Part::Video(media("video/mp4", MediaData::Base64("UklGRg==".into()), None)),
        Part::Document(media("text/plain", MediaData::Base64("/w==".into()), Some("notes.txt"))),
    ];
    for part in parts {
        let prompt =
            Prompt { messages: vec![Message { role: Role::User, parts: vec![part] }], ..Prompt::default() };
        let failure = encode(&prompt, "claude-haiku-5-5", &Dialect::default()).unwrap_err();
        assert_eq!((failure.class, failure.charged), (Class::ApiError, Charged::No), "{failure}");
    }
}

#[test]
fn the_key_is_sensitive_and_must_be_valid_in_a_header() {
    let (name, value) = authorization(&Secret::from("sk-ant-1".to_owned())).unwrap();
    assert_eq!(
        (name.as_str(), value.as_bytes(), value.is_sensitive()),
        ("x-api-key", &b"sk-ant-1"[..], true)
    );
    let failure = authorization(&Secret::from("sk-ant\n1".to_owned())).unwrap_err();
    assert_eq!(failure.class, Class::Auth);
    assert!(!failure.message.contains("sk-ant"));
}
