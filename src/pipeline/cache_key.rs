//! Keys under which answers are stored and found again: fingerprints of everything that affects an answer.
//!
//! A key covers the item's key, the step, the complete first request with its attachments, and the model. The
//! route, the API key and the price do not affect answers and are not part of it. Keys are stored, so the bytes
//! that are hashed here must not change.

use crate::types::{Fingerprint, ItemKey, MediaData, Part, Prompt, ResponseFormat, Role, StepName};

/// The settings of a model that affect its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelIdentity<'a> {
    /// The wire format.
    pub format: &'a str,
    /// The provider's name of the model.
    pub model: &'a str,
    /// Whether the provider is simulated, so that its answers are generated.
    pub simulated: bool,
    /// How JSON answers are requested; `None` is the default.
    pub structured_output: Option<&'a str>,
    /// How reasoning between tags is handled; `None` is the default.
    pub reasoning_tags: Option<&'a str>,
    /// `max_tokens` of requests that set none.
    pub max_tokens: Option<u32>,
    /// `temperature` of requests that set none.
    pub temperature: Option<f64>,
}

impl ModelIdentity<'_> {
    /// Returns the fingerprint of the model.
    pub fn fingerprint(&self) -> Fingerprint {
        let max_tokens = self.max_tokens.map_or_else(Vec::new, |tokens| tokens.to_le_bytes().to_vec());
        let temperature = self.temperature.map_or_else(Vec::new, |number| number.to_le_bytes().to_vec());
        let simulated = [u8::from(self.simulated)];
        let mut parts =
            vec![self.format.as_bytes(), self.model.as_bytes(), &simulated, &max_tokens, &temperature];
        parts.extend(self.structured_output.map(str::as_bytes));
        parts.extend(self.reasoning_tags.map(str::as_bytes));
        Fingerprint::of(parts)
    }
}

/// Returns the key of a request of an item's step, without the model.
pub(crate) fn request_key(item: &ItemKey, step: &StepName, prompt: &Prompt) -> Fingerprint {
    let Prompt { system, messages, response_format, max_tokens, temperature } = prompt;
    let mut parts: Vec<&[u8]> = vec![item.as_str().as_bytes(), step.as_str().as_bytes()];
    let has_system: &[u8] = if system.is_some() { b"system" } else { b"" };
    parts.extend([has_system, system.as_deref().unwrap_or_default().as_bytes()]);
    for message in messages {
        let role = match message.role {
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        parts.push(role.as_bytes());
        message.parts.iter().for_each(|part| add_part(part, &mut parts));
    }
    let schema;
    match response_format {
        ResponseFormat::Text => parts.push(b"as text"),
        ResponseFormat::Choice(choices) => {
            parts.push(b"one of");
            parts.extend(choices.iter().map(String::as_bytes));
        }
        ResponseFormat::Json(value) => {
            schema = value.to_string();
            parts.extend([b"as json", schema.as_bytes()]);
        }
    }
    let max_tokens = max_tokens.map_or_else(Vec::new, |tokens| tokens.to_le_bytes().to_vec());
    let temperature = temperature.map_or_else(Vec::new, |number| number.to_le_bytes().to_vec());
    parts.extend([max_tokens.as_slice(), temperature.as_slice()]);
    Fingerprint::of(parts)
}

/// Returns the key of an answer: the key of its request and the fingerprint of its model.
pub(crate) fn answer_key(request: Fingerprint, model: Fingerprint) -> Fingerprint {
    Fingerprint::of([request.0.as_slice(), model.0.as_slice()])
}

fn add_part<'a>(part: &'a Part, parts: &mut Vec<&'a [u8]>) {
    let (kind, media): (&[u8], _) = match part {
        Part::Text(text) => return parts.extend([&b"text"[..], text.as_bytes()]),
        Part::Image(media) => (b"image", media),
        Part::Document(media) => (b"document", media),
        Part::Audio(media) => (b"audio", media),
    };
    let (source, data): (&[u8], _) = match &media.data {
        MediaData::Base64(data) => (b"here", data),
        MediaData::Url(url) => (b"there", url),
    };
    let name = media.name.as_deref().unwrap_or_default();
    parts.extend([kind, media.media_type.as_bytes(), name.as_bytes(), source, data.as_bytes()]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{Media, Message};

    fn key(prompt: &Prompt) -> Fingerprint {
        request_key(&"item-1".into(), &"category".into(), prompt)
    }

    #[test]
    fn everything_that_affects_an_answer_changes_its_key() {
        let plain = || Prompt::text("What is it about?");
        let image = |data| Media { media_type: "image/png".into(), name: None, data };
        let with = |part| {
            let mut prompt = plain();
            prompt.messages[0].parts.insert(0, part);
            prompt
        };
        let prompts = [
            plain(),
            Prompt::text("What is it about"),
            Prompt { system: Some("".into()), ..plain() },
            Prompt { system: Some("Be brief.".into()), ..plain() },
            Prompt {
                response_format: ResponseFormat::Choice(Arc::new(["A".to_owned(), "B".to_owned()])),
                ..plain()
            },
            Prompt { response_format: ResponseFormat::Choice(Arc::new(["AB".to_owned()])), ..plain() },
            Prompt {
                response_format: ResponseFormat::Json(Arc::new(serde_json::json!({ "type": "array" }))),
                ..plain()
            },
            Prompt { max_tokens: Some(7), ..plain() },
            Prompt { temperature: Some(0.0), ..plain() },
            Prompt { messages: vec![Message::assistant("What is it about?")], ..plain() },
            with(Part::Image(image(MediaData::Base64("AAAA".into())))),
            with(Part::Document(image(MediaData::Base64("AAAA".into())))),
            with(Part::Image(image(MediaData::Url("AAAA".into())))),
            with(Part::Text("image".into())),
        ];
        let all: std::collections::BTreeSet<_> = prompts.iter().map(key).collect();
        assert_eq!(all.len(), prompts.len(), "two requests have the same key");
        assert_ne!(key(&plain()), request_key(&"item-2".into(), &"category".into(), &plain()));
        assert_ne!(key(&plain()), request_key(&"item-1".into(), &"reply".into(), &plain()));
        assert_eq!(key(&plain()), key(&plain()));
    }

    #[test]
    fn every_setting_of_a_model_changes_its_fingerprint() {
        let base = ModelIdentity {
            format: "openai",
            model: "gpt",
            simulated: false,
            structured_output: None,
            reasoning_tags: None,
            max_tokens: None,
            temperature: None,
        };
        let identities = [
            base.clone(),
            ModelIdentity { simulated: true, ..base.clone() },
            ModelIdentity { model: "gpt-2", ..base.clone() },
            ModelIdentity { format: "gemini", ..base.clone() },
            ModelIdentity { structured_output: Some("json"), ..base.clone() },
            ModelIdentity { reasoning_tags: Some("keep"), ..base.clone() },
            ModelIdentity { reasoning_tags: Some("strip"), ..base.clone() },
            ModelIdentity { structured_output: Some("prompt"), ..base.clone() },
            ModelIdentity { max_tokens: Some(1), ..base.clone() },
            ModelIdentity { temperature: Some(1.0), ..base },
        ];
        let all: std::collections::BTreeSet<_> = identities.iter().map(ModelIdentity::fingerprint).collect();
        assert_eq!(all.len(), identities.len());
    }
}
