//! Estimate of the tokens of a call from its prompt, before it is sent.
//!
//! Includes what the model reads besides the text: roles, a schema, images. It uses no learned statistics and
//! does not download media that a prompt links to.

use std::num::NonZeroU32;

use crate::types::{Media, MediaData, Message, Part, Prompt, ResponseFormat};

use crate::wire::Format;

use super::token_estimate::estimate_tokens;
use crate::provider::model::Model;

/// Tokens that delimit a message and name its role.
const TOKENS_PER_MESSAGE: u64 = 4;

/// Tokens that start the answer.
const TOKENS_BEFORE_ANSWER: u64 = 3;

/// Tokens of the instruction to use a response format.
const TOKENS_OF_FORMAT_INSTRUCTION: u64 = 30;

/// Tokens of an image: vendors scale large images down to about this number.
const TOKENS_PER_IMAGE: u64 = 1_000;

/// Tokens of a document or recording of which only the URL is known.
const TOKENS_PER_LINKED_MEDIA: u64 = 3_000;

/// Upper bound of the tokens of a document or recording: its size in bytes is a weak indicator.
const MAX_TOKENS_PER_MEDIA: u64 = 25_000;

/// The estimated size of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) struct Estimate {
    /// Input tokens.
    pub(in crate::provider) input: u64,
    /// The limit of output tokens, if the prompt, the model or the format has one.
    pub(in crate::provider) max_tokens: Option<u64>,
}

impl Estimate {
    pub(in crate::provider) fn of(prompt: &Prompt, model: Option<&Model>, format: Format) -> Self {
        let messages: u64 = prompt.messages.iter().map(message_tokens).sum();
        let system =
            prompt.system.as_deref().map_or(0, |system| TOKENS_PER_MESSAGE + estimate_tokens(system));
        let model_max_tokens = model.and_then(|model| model.max_tokens).map(NonZeroU32::get);
        Self {
            input: messages + system + format_tokens(&prompt.response_format) + TOKENS_BEFORE_ANSWER,
            max_tokens: prompt.max_tokens.or(model_max_tokens).or(format.default_max_tokens()).map(u64::from),
        }
    }
}

/// Estimates the input tokens of a prompt.
pub fn prompt_tokens(prompt: &Prompt) -> u64 {
    Estimate::of(prompt, None, Format::Openai).input
}

fn message_tokens(message: &Message) -> u64 {
    TOKENS_PER_MESSAGE + message.parts.iter().map(part_tokens).sum::<u64>()
}

fn part_tokens(part: &Part) -> u64 {
    match part {
        Part::Text(text) => estimate_tokens(text),
        Part::Image(_) => TOKENS_PER_IMAGE,
        // The model reads a text document completely.
        Part::Document(media) if media.is_text() => media_tokens(media, 4, u64::MAX),
        // A page of a PDF has 40 to 100 KB, and models read it as text and as an image.
        Part::Document(media) => media_tokens(media, 40, MAX_TOKENS_PER_MEDIA),
        // A second of audio has about 4 to 16 KB and 10 to 32 tokens.
        Part::Audio(media) => media_tokens(media, 400, MAX_TOKENS_PER_MEDIA),
    }
}

fn media_tokens(media: &Media, bytes_per_token: u64, most: u64) -> u64 {
    match &media.data {
        // Four characters of base64 are three bytes.
        MediaData::Base64(data) => (data.len() as u64 / 4 * 3).div_ceil(bytes_per_token).clamp(1, most),
        MediaData::Url(_) => TOKENS_PER_LINKED_MEDIA,
    }
}

fn format_tokens(format: &ResponseFormat) -> u64 {
    match format {
        ResponseFormat::Text => 0,
        ResponseFormat::Choice(words) => {
            TOKENS_OF_FORMAT_INSTRUCTION + words.iter().map(|word| estimate_tokens(word) + 1).sum::<u64>()
        }
        ResponseFormat::Json(schema) => TOKENS_OF_FORMAT_INSTRUCTION + estimate_tokens(&schema.to_string()),
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

    fn tokens_of(part: Part) -> u64 {
        part_tokens(&part)
    }

    #[test]
    fn system_prompt_choices_and_schema_are_counted() {
        let plain = Prompt::text("Is it late?");
        assert_eq!(input(&plain), 4 + 4 + 3);
        let instructed = Prompt { system: Some("You are kind.".into()), ..plain.clone() };
        assert_eq!(input(&instructed), input(&plain) + 4 + 4);
        let words: Arc<[String]> = ["URGENT", "OTHER"].map(str::to_owned).into();
        assert!(
            input(&Prompt { response_format: ResponseFormat::Choice(words), ..plain.clone() })
                > input(&plain) + 30
        );
        let property = json!({ "type": "string", "description": "The name of the person who wrote it." });
        let schema = json!({ "type": "object", "properties": { "a": property, "b": property } });
        assert!(
            input(&Prompt { response_format: ResponseFormat::Json(schema.into()), ..plain.clone() })
                > input(&plain) + 60
        );
    }

    #[test]
    fn an_image_has_a_thousand_tokens_and_a_document_more_with_its_size() {
        let base64 = |bytes: usize| MediaData::Base64("A".repeat(bytes / 3 * 4).into());
        assert_eq!(tokens_of(Part::Image(media("image/png", base64(3_000_000)))), 1_000);
        assert_eq!(tokens_of(Part::Document(media("application/pdf", base64(120_000)))), 3_000);
        assert_eq!(tokens_of(Part::Document(media("application/pdf", base64(30_000_000)))), 25_000);
        assert_eq!(tokens_of(Part::Document(media("text/plain", base64(1_200)))), 300);
        assert_eq!(tokens_of(Part::Document(media("application/json", base64(1_200_000)))), 300_000);
        assert_eq!(tokens_of(Part::Audio(media("audio/mp3", MediaData::Url("https://a.b/c".into())))), 3_000);
    }

    #[test]
    fn max_tokens_of_the_prompt_overrides_the_models_and_that_the_formats() {
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
        fn a_further_message_always_increases_the_estimate(text in ".*", more in ".*") {
            let mut prompt = Prompt::text(text);
            let before = input(&prompt);
            prompt.messages.push(Message::assistant(more));
            prop_assert!(input(&prompt) > before);
        }
    }
}
