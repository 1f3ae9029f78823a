//! Encodes a prompt as a request of Gemini's generateContent API.
//!
//! The name of the model is part of the path. It is escaped, so that it cannot change the URL in another way.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::{HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::Value;

use crate::types::{Failure, Media, MediaData, Message, Part, Prompt, Role, Secret};
use crate::wire::schema_rules::GEMINI;
use crate::wire::{Dialect, HttpRequest, request, structured_output, text_document};

const DEFAULT_VERSION: &str = "v1beta";

/// Text types that the vendor accepts as inline data. It rejects others, such as JSON and XML.
const INLINE_TEXTS: [&str; 4] = ["text/plain", "text/html", "text/css", "text/csv"];

pub(in crate::wire) fn encode(
    prompt: &Prompt,
    model: &str,
    dialect: &Dialect,
) -> Result<HttpRequest, Failure> {
    let requested_format =
        structured_output::request_format(&prompt.response_format, dialect.structured_output, Some(&GEMINI));
    let config = Config {
        temperature: prompt.temperature,
        max_output_tokens: prompt.max_tokens,
        response_mime_type: (requested_format.schema.is_some() || requested_format.json_only)
            .then_some("application/json"),
        response_json_schema: requested_format.schema.as_deref(),
    };
    let system = requested_format.system(prompt.system.as_deref());
    let body = Body {
        system_instruction: system.map(|text| Content { role: None, parts: vec![ContentPart::Text(text)] }),
        contents: prompt.messages.iter().map(Content::of).collect::<Result<_, _>>()?,
        generation_config: (!config.is_empty()).then_some(config),
    };
    Ok(HttpRequest {
        path: path(model, dialect.api_version.as_deref()),
        headers: Vec::new(),
        body: request::json_body(&body)?,
    })
}

pub(in crate::wire) fn authorization(key: &Secret) -> Result<(HeaderName, HeaderValue), Failure> {
    request::key_header(HeaderName::from_static("x-goog-api-key"), key)
}

/// Returns the path of `model`, which may be a resource name such as `tunedModels/mine`.
fn path(model: &str, version: Option<&str>) -> String {
    let mut path = String::with_capacity(model.len() + 56);
    path.push('/');
    escape(version.unwrap_or(DEFAULT_VERSION), &mut path);
    path.push('/');
    if !model.contains('/') {
        path.push_str("models/");
    }
    escape(model, &mut path);
    path.push_str(":streamGenerateContent?alt=sse");
    path
}

/// Percent-encodes `text` for a path; slashes are kept.
fn escape(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_config: Option<Config<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a Value>,
}

impl Config<'_> {
    fn is_empty(&self) -> bool {
        self.temperature.is_none() && self.max_output_tokens.is_none() && self.response_mime_type.is_none()
    }
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: Vec<ContentPart<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum ContentPart<'a> {
    Text(Cow<'a, str>),
    #[serde(rename_all = "camelCase")]
    InlineData {
        mime_type: &'a str,
        data: &'a str,
    },
    #[serde(rename_all = "camelCase")]
    FileData {
        mime_type: &'a str,
        file_uri: &'a str,
    },
}

impl<'a> Content<'a> {
    fn of(message: &'a Message) -> Result<Self, Failure> {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "model",
        };
        let parts = message.parts.iter().map(ContentPart::of).collect::<Result<_, _>>()?;
        Ok(Self { role: Some(role), parts })
    }
}

impl<'a> ContentPart<'a> {
    fn of(part: &'a Part) -> Result<Self, Failure> {
        match part {
            Part::Text(text) => Ok(Self::Text(Cow::Borrowed(text))),
            Part::Document(media) => Self::of_document(media),
            Part::Image(media) | Part::Audio(media) => Ok(Self::of_media(media)),
        }
    }

    fn of_document(media: &'a Media) -> Result<Self, Failure> {
        match &media.data {
            MediaData::Base64(base64) if media.is_text() && !INLINE_TEXTS.contains(&&*media.essence()) => {
                Ok(Self::Text(Cow::Owned(text_document::part(media, base64)?)))
            }
            MediaData::Base64(_) | MediaData::Url(_) => Ok(Self::of_media(media)),
        }
    }

    fn of_media(media: &'a Media) -> Self {
        match &media.data {
            MediaData::Base64(data) => Self::InlineData { mime_type: &media.media_type, data },
            MediaData::Url(file_uri) => Self::FileData { mime_type: &media.media_type, file_uri },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::types::{Class, ResponseFormat};
    use crate::wire::{StructuredOutput, fixtures};

    fn body(prompt: &Prompt, dialect: &Dialect) -> Value {
        serde_json::from_slice(&encode(prompt, "gemini-3.8-flash", dialect).unwrap().body).unwrap()
    }

    fn media(media_type: &str, data: MediaData) -> Media {
        Media { media_type: media_type.into(), name: None, data }
    }

    #[test]
    fn a_request_carries_system_images_and_documents() {
        let mut recorded = fixtures::json("gemini_generate_request.json");
        let pixel = recorded.pointer("/contents/0/parts/0/inlineData/data").unwrap().as_str().unwrap();
        let leaflet = recorded.pointer("/contents/0/parts/1/fileData/fileUri").unwrap().as_str().unwrap();
        let prompt = Prompt {
            system: Some("You catalogue books for a village library.".into()),
            messages: vec![Message {
                role: Role::User,
                parts: vec![
                    Part::Image(media("image/png", MediaData::Base64(pixel.into()))),
                    Part::Document(media("application/pdf", MediaData::Url(leaflet.into()))),
                    Part::Text("File this cover.".into()),
                ],
            }],
            max_tokens: Some(400),
            temperature: Some(0.2),
            ..Prompt::default()
        };
        for unsupported_field in ["tools", "toolConfig", "safetySettings"] {
            recorded.as_object_mut().unwrap().remove(unsupported_field);
        }
        for unsupported_field in ["candidateCount", "seed", "stopSequences", "thinkingConfig"] {
            recorded["generationConfig"].as_object_mut().unwrap().remove(unsupported_field);
        }
        assert_eq!(body(&prompt, &Dialect::default()), recorded);
    }

    #[test]
    fn a_schema_is_sent_as_recorded() {
        let recorded = fixtures::json("gemini_generate_request_structured.json");
        let schema = recorded.pointer("/generationConfig/responseJsonSchema").unwrap().clone();
        let prompt = Prompt {
            response_format: ResponseFormat::Json(Arc::new(schema)),
            ..Prompt::text("File 'The Salt Harvest' (1987).")
        };
        assert_eq!(body(&prompt, &Dialect::default()), recorded);
    }

    #[test]
    fn json_mode_is_requested_by_mime_type_and_in_the_prompt() {
        let prompt = Prompt {
            response_format: ResponseFormat::Json(Arc::new(json!({"type": "object"}))),
            ..Prompt::text("Count.")
        };
        let body_with =
            |structured| body(&prompt, &Dialect { structured_output: structured, ..Dialect::default() });
        let json_only = body_with(StructuredOutput::Json);
        assert_eq!(json_only["generationConfig"], json!({"responseMimeType": "application/json"}));
        let instruction = json_only.pointer("/systemInstruction/parts/0/text").unwrap().as_str().unwrap();
        assert!(instruction.contains(r#"{"type":"object"}"#), "{instruction}");
        assert_eq!(body_with(StructuredOutput::Prompt).get("generationConfig"), None);
    }

    #[test]
    fn a_text_document_that_the_vendor_rejects_as_a_file_is_sent_as_text() {
        let part = |media_type: &str| {
            let document = Part::Document(media(media_type, MediaData::Base64("TG93Lg==".into())));
            let message = Message { role: Role::User, parts: vec![document] };
            let body = body(&Prompt { messages: vec![message], ..Prompt::default() }, &Dialect::default());
            body["contents"][0]["parts"][0].clone()
        };
        for text in ["application/json", "application/xml", "text/markdown", "text/xml"] {
            assert_eq!(part(text), json!({ "text": "Low." }), "{text}");
        }
        for file in ["text/plain", "text/csv", "text/html", "application/pdf"] {
            assert_eq!(part(file)["inlineData"]["mimeType"], file);
        }
    }

    #[test]
    fn a_conversation_keeps_its_messages_and_audio() {
        let audio = Part::Audio(media("audio/wav", MediaData::Base64("UklGRg==".into())));
        let prompt = Prompt {
            messages: vec![
                Message::user("Is it in Arden?"),
                Message::assistant("Let me look."),
                Message { role: Role::User, parts: vec![audio] },
            ],
            ..Prompt::default()
        };
        assert_eq!(
            body(&prompt, &Dialect::default()),
            json!({"contents": [
                {"role": "user", "parts": [{"text": "Is it in Arden?"}]},
                {"role": "model", "parts": [{"text": "Let me look."}]},
                {"role": "user", "parts": [{"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}]},
            ]})
        );
    }

    #[test]
    fn the_path_contains_version_and_model() {
        let path = |model: &str, version: Option<&str>| {
            let dialect = Dialect { api_version: version.map(str::to_owned), ..Dialect::default() };
            encode(&Prompt::text("Hi"), model, &dialect).unwrap().path
        };
        let cases = [
            ("gemini-3.8-flash", None, "/v1beta/models/gemini-3.8-flash"),
            ("models/gemini-3.8-flash", Some("v1"), "/v1/models/gemini-3.8-flash"),
            ("tunedModels/mine", None, "/v1beta/tunedModels/mine"),
            ("a b?key=c#d:é", None, "/v1beta/models/a%20b%3Fkey%3Dc%23d%3A%C3%A9"),
            ("", None, "/v1beta/models/"),
        ];
        for (model, version, expected) in cases {
            assert_eq!(path(model, version), format!("{expected}:streamGenerateContent?alt=sse"));
        }
    }

    #[test]
    fn the_key_is_sensitive_and_must_be_valid_in_a_header() {
        let (name, value) = authorization(&Secret::from("AIza1".to_owned())).unwrap();
        assert_eq!(
            (name.as_str(), value.as_bytes(), value.is_sensitive()),
            ("x-goog-api-key", &b"AIza1"[..], true)
        );
        let failure = authorization(&Secret::from("AIza\n1".to_owned())).unwrap_err();
        assert_eq!(failure.class, Class::Auth);
        assert!(!failure.message.contains("AIza"));
    }
}
