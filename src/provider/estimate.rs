//! Estimates the size of a call from its prompt, before it is sent.
//!
//! Counts what the model reads besides the text, too: roles, a schema, pictures. Knows nothing of what
//! was learned; never fetches what a prompt only points to.

use std::num::NonZeroU32;

use crate::types::{Media, MediaData, Message, Part, Prompt, Shape};

use crate::wire::Format;

use super::characters::tokens;
use super::model::Model;

/// Tokens that mark a message and its role.
const MESSAGE: u64 = 4;

/// Tokens that begin the answer.
const ANSWER: u64 = 3;

/// Tokens of the words that ask for a shape.
const ASKED: u64 = 30;

/// Tokens of a picture: vendors scale large ones down to about as many.
const IMAGE: u64 = 1_000;

/// Tokens of a document or recording that only its address is known of.
const UNSEEN: u64 = 3_000;

/// Most tokens that a document or recording is assumed to have: its size says little about them.
const MOST: u64 = 25_000;

/// What a prompt tells of a call's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Estimate {
    /// Tokens that the model reads, as estimated.
    pub(super) input: u64,
    /// Most tokens that it may write, where the prompt, the model or the format says.
    pub(super) max_tokens: Option<u64>,
}

impl Estimate {
    pub(super) fn of(prompt: &Prompt, model: Option<&Model>, format: Format) -> Self {
        let said: u64 = prompt.messages.iter().map(in_message).sum();
        let system = prompt.system.as_deref().map_or(0, |system| MESSAGE + tokens(system));
        let models_own = model.and_then(|model| model.max_tokens).map(NonZeroU32::get);
        Self {
            input: said + system + in_shape(&prompt.shape) + ANSWER,
            max_tokens: prompt.max_tokens.or(models_own).or(format.assumed_max_tokens()).map(u64::from),
        }
    }
}

/// Returns about how many tokens a model reads of this prompt.
pub fn prompt_tokens(prompt: &Prompt) -> u64 {
    Estimate::of(prompt, None, Format::Openai).input
}

fn in_message(message: &Message) -> u64 {
    MESSAGE + message.parts.iter().map(in_part).sum::<u64>()
}

fn in_part(part: &Part) -> u64 {
    match part {
        Part::Text(text) => tokens(text),
        Part::Image(_) => IMAGE,
        // The model reads all of a text.
        Part::Document(media) if media.is_text() => by_size(media, 4, u64::MAX),
        // A page of a PDF has 40 to 100 KB, and is read as text and as a picture.
        Part::Document(media) => by_size(media, 40, MOST),
        // A second has some 4 to 16 KB and 10 to 32 tokens.
        Part::Audio(media) => by_size(media, 400, MOST),
    }
}

fn by_size(media: &Media, bytes_per_token: u64, most: u64) -> u64 {
    match &media.data {
        // Four characters of base64 are three bytes.
        MediaData::Base64(data) => (data.len() as u64 / 4 * 3).div_ceil(bytes_per_token).clamp(1, most),
        MediaData::Url(_) => UNSEEN,
    }
}

fn in_shape(shape: &Shape) -> u64 {
    match shape {
        Shape::Text => 0,
        Shape::Choice(words) => ASKED + words.iter().map(|word| tokens(word) + 1).sum::<u64>(),
        Shape::Json(schema) => ASKED + tokens(&schema.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn input(prompt: &Prompt) -> u64 {
        Estimate::of(prompt, None, Format::Openai).input
    }

    fn media(media_type: &str, data: MediaData) -> Media {
        Media { media_type: media_type.into(), name: None, data }
    }

    fn of_part(part: Part) -> u64 {
        in_part(&part)
    }

    #[test]
    fn everything_that_the_model_reads_is_counted() {
        let plain = Prompt::text("Is it late?");
        assert_eq!(input(&plain), 4 + 4 + 3);
        let instructed = Prompt { system: Some("You are kind.".into()), ..plain.clone() };
        assert_eq!(input(&instructed), input(&plain) + 4 + 4);
        let words: Arc<[String]> = ["URGENT", "OTHER"].map(str::to_owned).into();
        assert!(input(&Prompt { shape: Shape::Choice(words), ..plain.clone() }) > input(&plain) + 30);
        let property = json!({ "type": "string", "description": "The name of the person who wrote it." });
        let schema = json!({ "type": "object", "properties": { "a": property, "b": property } });
        assert!(input(&Prompt { shape: Shape::Json(schema.into()), ..plain.clone() }) > input(&plain) + 60);
    }

    #[test]
    fn a_picture_has_about_a_thousand_tokens_and_a_document_more_with_its_size() {
        let base64 = |bytes: usize| MediaData::Base64("A".repeat(bytes / 3 * 4).into());
        assert_eq!(of_part(Part::Image(media("image/png", base64(3_000_000)))), 1_000);
        assert_eq!(of_part(Part::Document(media("application/pdf", base64(120_000)))), 3_000);
        assert_eq!(of_part(Part::Document(media("application/pdf", base64(30_000_000)))), 25_000);
        assert_eq!(of_part(Part::Document(media("text/plain", base64(1_200)))), 300);
        assert_eq!(of_part(Part::Document(media("application/json", base64(1_200_000)))), 300_000);
        assert_eq!(of_part(Part::Audio(media("audio/mp3", MediaData::Url("https://a.b/c".into())))), 3_000);
    }

    #[test]
    fn the_prompts_own_max_tokens_goes_before_the_models_and_that_before_what_a_format_sends_else() {
        let of = |prompt: &Prompt, model| Estimate::of(prompt, model, Format::Anthropic).max_tokens;
        let model = Model { max_tokens: NonZeroU32::new(9), ..Model::default() };
        let own = Prompt { max_tokens: Some(5), ..Prompt::text("x") };
        assert_eq!(of(&own, Some(&model)), Some(5));
        assert_eq!(of(&Prompt::text("x"), Some(&model)), Some(9));
        assert_eq!(of(&Prompt::text("x"), None), Some(4_096));
        assert_eq!(Estimate::of(&Prompt::text("x"), None, Format::Openai).max_tokens, None);
    }

    proptest! {
        #[test]
        fn a_further_message_always_adds_to_a_prompt(text in ".*", more in ".*") {
            let mut prompt = Prompt::text(text);
            let before = input(&prompt);
            prompt.messages.push(Message::assistant(more));
            prop_assert!(input(&prompt) > before);
        }
    }
}
