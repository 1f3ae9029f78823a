//! Fingerprints of everything that shapes an answer: by them a kept answer is found again, or is not.
//!
//! The item's key, the step, the whole first question with what is attached to it, and the model that answered.
//! Not the route, the key or the price: they change nothing of what was said.

use crate::types::{Fingerprint, ItemKey, MediaData, Part, Prompt, Role, Shape, StepName};

/// What of a model shapes its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Voice<'a> {
    /// The wire format.
    pub format: &'a str,
    /// The model, as the provider calls it.
    pub model: &'a str,
    /// Whether it is played, so that its answers are made up.
    pub practice: bool,
    /// How a JSON answer is asked for; `None` is the default.
    pub structured: Option<&'a str>,
    /// What becomes of reasoning between tags; `None` is the default.
    pub reasoning_tags: Option<&'a str>,
    /// What is sent where the question does not say.
    pub max_tokens: Option<u32>,
    /// What is sent where the question does not say.
    pub temperature: Option<f64>,
}

impl Voice<'_> {
    /// Returns the fingerprint of the model.
    pub fn fingerprint(&self) -> Fingerprint {
        let max_tokens = self.max_tokens.map_or_else(Vec::new, |most| most.to_le_bytes().to_vec());
        let temperature = self.temperature.map_or_else(Vec::new, |degrees| degrees.to_le_bytes().to_vec());
        let practice = [u8::from(self.practice)];
        let mut parts =
            vec![self.format.as_bytes(), self.model.as_bytes(), &practice, &max_tokens, &temperature];
        parts.extend(self.structured.map(str::as_bytes));
        parts.extend(self.reasoning_tags.map(str::as_bytes));
        Fingerprint::of(parts)
    }
}

/// Returns the fingerprint of a question of an item's step, whoever answers it.
pub(crate) fn question(item: &ItemKey, step: &StepName, prompt: &Prompt) -> Fingerprint {
    let Prompt { system, messages, shape, max_tokens, temperature } = prompt;
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
    match shape {
        Shape::Text => parts.push(b"as text"),
        Shape::Choice(choices) => {
            parts.push(b"one of");
            parts.extend(choices.iter().map(String::as_bytes));
        }
        Shape::Json(value) => {
            schema = value.to_string();
            parts.extend([b"as json", schema.as_bytes()]);
        }
    }
    let most = max_tokens.map_or_else(Vec::new, |most| most.to_le_bytes().to_vec());
    let degrees = temperature.map_or_else(Vec::new, |degrees| degrees.to_le_bytes().to_vec());
    parts.extend([most.as_slice(), degrees.as_slice()]);
    Fingerprint::of(parts)
}

/// Returns the fingerprint of an answer to `question` by the model of that fingerprint.
pub(crate) fn answer(question: Fingerprint, model: Fingerprint) -> Fingerprint {
    Fingerprint::of([question.0.as_slice(), model.0.as_slice()])
}

fn add_part<'a>(part: &'a Part, parts: &mut Vec<&'a [u8]>) {
    let (kind, media): (&[u8], _) = match part {
        Part::Text(text) => return parts.extend([&b"text"[..], text.as_bytes()]),
        Part::Image(media) => (b"image", media),
        Part::Document(media) => (b"document", media),
        Part::Audio(media) => (b"audio", media),
    };
    let (place, data): (&[u8], _) = match &media.data {
        MediaData::Base64(data) => (b"here", data),
        MediaData::Url(url) => (b"there", url),
    };
    let name = media.name.as_deref().unwrap_or_default();
    parts.extend([kind, media.media_type.as_bytes(), name.as_bytes(), place, data.as_bytes()]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{Media, Message};

    fn of(prompt: &Prompt) -> Fingerprint {
        question(&"item-1".into(), &"category".into(), prompt)
    }

    #[test]
    fn whatever_shapes_an_answer_counts() {
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
            Prompt { shape: Shape::Choice(Arc::new(["A".to_owned(), "B".to_owned()])), ..plain() },
            Prompt { shape: Shape::Choice(Arc::new(["AB".to_owned()])), ..plain() },
            Prompt { shape: Shape::Json(Arc::new(serde_json::json!({ "type": "array" }))), ..plain() },
            Prompt { max_tokens: Some(7), ..plain() },
            Prompt { temperature: Some(0.0), ..plain() },
            Prompt { messages: vec![Message::assistant("What is it about?")], ..plain() },
            with(Part::Image(image(MediaData::Base64("AAAA".into())))),
            with(Part::Document(image(MediaData::Base64("AAAA".into())))),
            with(Part::Image(image(MediaData::Url("AAAA".into())))),
            with(Part::Text("image".into())),
        ];
        let all: std::collections::BTreeSet<_> = prompts.iter().map(of).collect();
        assert_eq!(all.len(), prompts.len(), "two questions are taken for one");
        assert_ne!(of(&plain()), question(&"item-2".into(), &"category".into(), &plain()));
        assert_ne!(of(&plain()), question(&"item-1".into(), &"reply".into(), &plain()));
        assert_eq!(of(&plain()), of(&plain()));
    }

    #[test]
    fn a_made_up_answer_is_not_the_models() {
        let real = Voice {
            format: "openai",
            model: "gpt",
            practice: false,
            structured: None,
            reasoning_tags: None,
            max_tokens: None,
            temperature: None,
        };
        let voices = [
            real.clone(),
            Voice { practice: true, ..real.clone() },
            Voice { model: "gpt-2", ..real.clone() },
            Voice { format: "gemini", ..real.clone() },
            Voice { structured: Some("json"), ..real.clone() },
            Voice { reasoning_tags: Some("keep"), ..real.clone() },
            Voice { reasoning_tags: Some("strip"), ..real.clone() },
            Voice { structured: Some("prompt"), ..real.clone() },
            Voice { max_tokens: Some(1), ..real.clone() },
            Voice { temperature: Some(1.0), ..real },
        ];
        let all: std::collections::BTreeSet<_> = voices.iter().map(Voice::fingerprint).collect();
        assert_eq!(all.len(), voices.len());
    }
}
