//! Estimate of the tokens of a call from its prompt, before it is sent.
//!
//! Includes what the model reads besides the text: roles, a schema, images. It uses no learned statistics and
//! does not download media that a prompt links to.

use std::num::NonZeroU32;

use serde_json::Value;

use crate::types::{
    Completion, Format, Media, MediaData, Message, Part, Prompt, Reasoning, ResponseFormat, Tool, ToolCall,
};

use super::token_estimate::estimate_tokens;
use crate::provider::model::Model;

/// Tokens that delimit a message and name its role.
const TOKENS_PER_MESSAGE: u64 = 4;

/// Tokens that start the answer.
const TOKENS_BEFORE_ANSWER: u64 = 3;

/// Tokens of the instruction to use a response format.
const TOKENS_OF_FORMAT_INSTRUCTION: u64 = 30;

/// Tokens that delimit a tool, a call or a result.
const TOKENS_PER_TOOL: u64 = 8;

/// Bytes of JSON per token of the schema of a tool.
const SCHEMA_BYTES_PER_TOKEN: usize = 4;

/// Bytes of a signature per token of reasoning whose text the vendor does not show. It is encrypted and in base64.
const SIGNATURE_BYTES_PER_TOKEN: usize = 6;

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
        if prompt.embedding.is_some() {
            return Self {
                input: prompt.embedding_inputs().map(embedding_tokens).sum(),
                max_tokens: Some(0),
            };
        }
        let messages: u64 = prompt.messages.iter().map(message_tokens).sum();
        let system =
            prompt.system.as_deref().map_or(0, |system| TOKENS_PER_MESSAGE + estimate_tokens(system));
        let model_max_tokens = model.and_then(|model| model.max_tokens).map(NonZeroU32::get);
        Self {
            input: messages
                + system
                + prompt.tools.iter().map(tool_tokens).sum::<u64>()
                + format_tokens(&prompt.response_format)
                + TOKENS_BEFORE_ANSWER,
            max_tokens: prompt.max_tokens.or(model_max_tokens).or(format.default_max_tokens()).map(u64::from),
        }
    }
}

impl Estimate {
    /// Returns whether the call may have output. One for embeddings has none.
    pub(in crate::provider) fn has_output(&self) -> bool {
        self.max_tokens != Some(0)
    }

    /// Returns the part of the input that the context of the model must hold at once: for embeddings the longest input.
    pub(in crate::provider) fn input_in_context(&self, prompt: &Prompt) -> u64 {
        if prompt.embedding.is_none() {
            return self.input;
        }
        prompt.embedding_inputs().map(embedding_tokens).max().unwrap_or_default()
    }
}

fn embedding_tokens(text: &str) -> u64 {
    estimate_tokens(text).max(1)
}

/// Estimates the input tokens of a prompt.
pub fn prompt_tokens(prompt: &Prompt) -> u64 {
    Estimate::of(prompt, None, Format::Openai).input
}

/// Estimates the output tokens of an answer.
pub(in crate::provider) fn answer_tokens(completion: &Completion) -> u64 {
    if completion.parts.is_empty() {
        return estimate_tokens(&completion.text);
    }
    let tokens = |part: &Part| match part {
        Part::Reasoning(reasoning) => reasoning_tokens(reasoning),
        Part::Text(_)
        | Part::Image(_)
        | Part::Document(_)
        | Part::Audio(_)
        | Part::Video(_)
        | Part::ToolCall(_)
        | Part::ToolResult(_) => part_tokens(part),
    };
    completion.parts.iter().map(tokens).sum()
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
        // A second of video has about 100 to 500 KB and 100 to 300 tokens.
        Part::Video(media) => media_tokens(media, 1_000, MAX_TOKENS_PER_MEDIA),
        Part::ToolCall(call) => call_tokens(call),
        Part::ToolResult(result) => TOKENS_PER_TOOL + result.parts.iter().map(part_tokens).sum::<u64>(),
        // Reasoning without a signature is not sent.
        Part::Reasoning(reasoning) if reasoning.signature.is_none() => 0,
        Part::Reasoning(reasoning) => reasoning_tokens(reasoning),
    }
}

fn call_tokens(call: &ToolCall) -> u64 {
    TOKENS_PER_TOOL + estimate_tokens(&call.name) + estimate_tokens(&call.arguments)
}

fn reasoning_tokens(reasoning: &Reasoning) -> u64 {
    match &reasoning.signature {
        Some(signature) if reasoning.text.is_empty() => {
            signature.value.len().div_ceil(SIGNATURE_BYTES_PER_TOKEN) as u64
        }
        Some(_) | None => estimate_tokens(&reasoning.text),
    }
}

fn tool_tokens(tool: &Tool) -> u64 {
    let description = tool.description.as_deref().map_or(0, estimate_tokens);
    let schema = json_bytes(&tool.parameters).div_ceil(SCHEMA_BYTES_PER_TOKEN) as u64;
    TOKENS_PER_TOOL + estimate_tokens(&tool.name) + description + schema
}

/// Returns about how many bytes a value has as JSON. A call must not serialize the schemas of its tools again only to
/// estimate their size.
fn json_bytes(value: &Value) -> usize {
    /// A number, or a word such as `false`.
    const SCALAR: usize = 4;
    /// Two quotation marks and a comma, or two brackets and a comma.
    const DELIMITERS: usize = 3;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => SCALAR,
        Value::String(text) => DELIMITERS + text.len(),
        Value::Array(all) => DELIMITERS + all.iter().map(json_bytes).sum::<usize>(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| DELIMITERS + name.len() + json_bytes(value);
            DELIMITERS + fields.iter().map(field).sum::<usize>()
        }
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
    use crate::types::{EmbeddingOptions, Signature, ToolResult};

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
    fn embeddings_have_input_and_no_output() {
        let text = "The train left at nine, and it is ten.";
        let prompt = Prompt::embeddings([text, text, "x"], EmbeddingOptions::default());
        let model = Model { max_tokens: NonZeroU32::new(9), ..Model::default() };
        for format in Format::ALL {
            let estimate = Estimate::of(&prompt, Some(&model), format);
            assert_eq!(estimate.input, 2 * estimate_tokens(text) + estimate_tokens("x"));
            assert!(!estimate.has_output());
            assert_eq!(estimate.input_in_context(&prompt), estimate_tokens(text));
        }
        let question = Prompt::text(text);
        let estimate = Estimate::of(&question, None, Format::Openai);
        assert_eq!((estimate.has_output(), estimate.input_in_context(&question)), (true, estimate.input));
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
        assert_eq!(tokens_of(Part::Video(media("video/mp4", base64(6_000_000)))), 6_000);
    }

    #[test]
    fn tools_calls_results_and_signed_reasoning_are_counted() {
        let plain = Prompt::text("Is it late?");
        let property = json!({ "type": "string", "description": "The name of the person who wrote it." });
        let schema = json!({ "type": "object", "properties": { "a": property, "b": property } });
        let schema_tokens = schema.to_string().len() as u64 / 4;
        let with_tool = input(&plain.clone().with_tool(Tool::new("clock", schema))) - input(&plain);
        assert!((schema_tokens..schema_tokens + 30).contains(&with_tool), "{with_tool}");
        let text = "The train left at nine, and it is ten.";
        let tokens = estimate_tokens(text);
        let call = ToolCall::new("a", "clock", format!("{{\"note\":\"{text}\"}}"));
        assert!(tokens_of(Part::ToolCall(call)) > tokens);
        assert!(tokens_of(Part::ToolResult(ToolResult::new("a", text))) > tokens);
        let signature = || Signature::new(Format::Anthropic, "A".repeat(600));
        assert_eq!(tokens_of(Part::Reasoning(Reasoning::new(text))), 0);
        assert_eq!(tokens_of(Part::Reasoning(Reasoning::new(text).with_signature(signature()))), tokens);
        assert_eq!(tokens_of(Part::Reasoning(Reasoning::new("").with_signature(signature()))), 100);
    }

    #[test]
    fn an_answer_is_counted_with_its_calls_and_its_reasoning() {
        let text = "The train left at nine, and it is ten.";
        assert_eq!(answer_tokens(&Completion::new(text)), estimate_tokens(text));
        let parts = vec![
            Part::Reasoning(Reasoning::new(text)),
            Part::text(text),
            Part::ToolCall(ToolCall::new("a", "clock", "{}")),
        ];
        let counted = answer_tokens(&Completion { parts, ..Completion::new(text) });
        assert!(counted > 2 * estimate_tokens(text), "{counted}");
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
