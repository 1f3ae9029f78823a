//! Plausibility check of the token counts of a provider: a call cannot have used more than its request and
//! answer allow.
//!
//! An implausible count is discarded: usage and cost are then unknown, and the call is booked with its
//! expected cost, or with that of what was received if it is more. A zero, which some servers send because they do not count, is discarded as well. Counts are
//! never corrected.

use crate::types::{Completion, Failure, Format, Part, Prompt, Tokens, Usage};

use super::estimate::answer_tokens;
use super::token_estimate::estimate_tokens;

/// Maximum input tokens per byte of a request's body. A token has at least one byte; some services read a
/// prompt several times, with a tool of their own in between.
const MAX_INPUT_TOKENS_PER_BYTE: u64 = 4;

/// Maximum tokens that a service adds to a prompt: its own instructions, search results.
const MAX_ADDED_INPUT_TOKENS: u64 = 100_000;

/// Maximum tokens of one attachment, which may be only an address: the longest context of any model.
const MAX_TOKENS_PER_ATTACHMENT: u64 = 2_000_000;

/// Maximum output tokens if the request sets no limit, and maximum reasoning tokens that a limit does not
/// cover. The longest output that a vendor documents is 128,000 tokens.
const MAX_OUTPUT_WITHOUT_LIMIT: u64 = 200_000;

/// How many tokens a provider may exceed the limit of a request, in addition to a tenth of it.
const MAX_OUTPUT_OVERSHOOT: u64 = 1_000;

/// The maximum usage of one call.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct UsageBounds {
    input: u64,
    /// As limited by the request.
    output: Option<u64>,
    /// Whether that limit also covers reasoning.
    covers_reasoning: bool,
}

impl UsageBounds {
    /// Returns the bounds of a call whose request body has so many bytes.
    pub(in crate::provider) fn new(prompt: &Prompt, format: Format, body_bytes: usize) -> Self {
        let attachments: usize = prompt.messages.iter().map(|message| attachments(&message.parts)).sum();
        // The vendor's own fields may name content that the vendor has stored.
        let stored = prompt.vendor_fields.iter().filter(|fields| fields.format == format).count();
        let attachment_tokens =
            (attachments as u64).saturating_add(stored as u64).saturating_mul(MAX_TOKENS_PER_ATTACHMENT);
        let body_tokens = (body_bytes as u64).saturating_mul(MAX_INPUT_TOKENS_PER_BYTE);
        let limit = prompt.max_tokens.or(format.default_max_tokens()).map(u64::from);
        let with_overshoot =
            |limit: u64| limit.saturating_add(limit / 10).saturating_add(MAX_OUTPUT_OVERSHOOT);
        // Embeddings have no output tokens.
        let output = if prompt.embedding.is_some() { Some(0) } else { limit.map(with_overshoot) };
        Self {
            input: body_tokens.saturating_add(MAX_ADDED_INPUT_TOKENS).saturating_add(attachment_tokens),
            output,
            // Several servers with OpenAI's formats limit only the output after the reasoning.
            covers_reasoning: match format {
                Format::Openai | Format::OpenaiResponses => false,
                Format::Anthropic | Format::Gemini => true,
            },
        }
    }

    /// Removes the usage from a result if it is implausible.
    pub(in crate::provider) fn apply(&self, result: &mut Result<Completion, Failure>) {
        match result {
            Ok(completion) => {
                let is_empty = completion.text.is_empty() && completion.parts.is_empty();
                let tokens = || answer_tokens(completion);
                completion.usage = completion.usage.filter(|usage| self.allow(usage, is_empty, tokens));
            }
            Err(failure) => {
                let text = failure.text.as_deref().unwrap_or_default();
                let tokens = || estimate_tokens(text);
                failure.usage =
                    failure.usage.take().filter(|usage| self.allow(usage, text.is_empty(), tokens));
            }
        }
    }

    /// Returns whether a call can have used so much. `is_empty` is whether it has no answer, and `tokens` estimates
    /// the tokens of the answer.
    fn allow(&self, usage: &Usage, is_empty: bool, tokens: impl Fn() -> u64) -> bool {
        let is_counted = usage.input > Tokens(0) && (usage.output > Tokens(0) || is_empty);
        is_counted && usage.input.0 <= self.input && self.allow_output(usage, tokens)
    }

    fn allow_output(&self, usage: &Usage, tokens: impl Fn() -> u64) -> bool {
        match self.output {
            Some(limit) if self.covers_reasoning => usage.output.0 <= limit,
            Some(limit) => {
                let reasoning = usage.reasoning.0;
                usage.output.0.saturating_sub(reasoning) <= limit
                    && reasoning <= limit.max(MAX_OUTPUT_WITHOUT_LIMIT)
            }
            // The estimate of an answer is within a factor of four.
            None => {
                usage.output.0 <= MAX_OUTPUT_WITHOUT_LIMIT || usage.output.0 <= tokens().saturating_mul(4)
            }
        }
    }
}

/// Returns the number of attachments, also in results of tools.
fn attachments(parts: &[Part]) -> usize {
    let attachments_of = |part: &Part| match part {
        Part::Text(_) | Part::ToolCall(_) | Part::Reasoning(_) => 0,
        Part::Image(_) | Part::Document(_) | Part::Audio(_) | Part::Video(_) => 1,
        Part::ToolResult(result) => attachments(&result.parts),
    };
    parts.iter().map(attachments_of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{
        Charged, Class, EmbeddingOptions, Media, MediaData, Message, Reasoning, Role, ToolCall, ToolResult,
    };

    const TEXT: &str = "Hello.";

    fn usage(input: u64, output: u64, reasoning: u64) -> Usage {
        let reasoning = Tokens(reasoning);
        Usage { input: Tokens(input), output: Tokens(output), reasoning, ..Usage::default() }
    }

    fn limited(max_tokens: Option<u32>) -> Prompt {
        Prompt { max_tokens, ..Prompt::text("x") }
    }

    fn bounds(max_tokens: Option<u32>, format: Format) -> UsageBounds {
        UsageBounds::new(&limited(max_tokens), format, 1_000)
    }

    fn is_plausible(bounds: UsageBounds, usage: Usage) -> bool {
        let mut result = Ok(Completion { usage: Some(usage), ..Completion::new(TEXT) });
        bounds.apply(&mut result);
        result.unwrap().usage == Some(usage)
    }

    #[test]
    fn a_count_of_zero_is_discarded() {
        let bounds = bounds(None, Format::Openai);
        assert!(!is_plausible(bounds, usage(0, 5, 0)));
        assert!(!is_plausible(bounds, usage(5, 0, 0)));
        assert!(is_plausible(bounds, usage(1, 1, 0)));
        // Without text, no output is plausible.
        let mut failed = Err(Failure::new(Class::ContentFilter, "no").with_usage(Some(usage(5, 0, 0))));
        bounds.apply(&mut failed);
        assert!(failed.unwrap_err().usage.is_some());
    }

    #[test]
    fn more_input_than_the_request_can_have_is_discarded() {
        let bounds = bounds(None, Format::Openai);
        assert!(is_plausible(bounds, usage(104_000, 1, 0)));
        assert!(!is_plausible(bounds, usage(104_001, 1, 0)));
        let address = MediaData::Url("https://a.example/book.pdf".into());
        let media = Media { media_type: "application/pdf".into(), name: None, data: address };
        let mut message = Message::user("Read it.");
        message.parts.push(Part::Document(media));
        let prompt = Prompt { messages: vec![message], ..Prompt::default() };
        let attached = UsageBounds::new(&prompt, Format::Openai, 1_000);
        assert!(is_plausible(attached, usage(1_500_000, 1, 0)));
        assert!(!is_plausible(attached, usage(90_000_000, 1, 0)));
    }

    #[test]
    fn embeddings_have_no_output() {
        let prompt = Prompt::embeddings(["low tide"], EmbeddingOptions::default());
        let is_plausible = |usage: Usage| {
            let embeddings = vec![[0.5, 0.5].into()];
            let mut result = Ok(Completion { embeddings, usage: Some(usage), ..Completion::default() });
            UsageBounds::new(&prompt, Format::Openai, 1_000).apply(&mut result);
            result.unwrap().usage.is_some()
        };
        assert!(is_plausible(usage(2, 0, 0)));
        assert!(!is_plausible(usage(0, 0, 0)));
        assert!(!is_plausible(usage(2, 1, 0)));
        assert!(!is_plausible(usage(104_001, 0, 0)));
    }

    #[test]
    fn more_output_than_the_request_allows_is_discarded() {
        for format in Format::ALL {
            let bounds = bounds(Some(100), format);
            assert!(is_plausible(bounds, usage(10, 1_110, 0)), "{format:?}");
            assert!(!is_plausible(bounds, usage(10, 1_111, 0)), "{format:?}");
            let covers_reasoning = !matches!(format, Format::Openai | Format::OpenaiResponses);
            assert_eq!(is_plausible(bounds, usage(10, 32_000, 31_950)), !covers_reasoning, "{format:?}");
            assert!(!is_plausible(bounds, usage(10, 200_110, 200_001)), "{format:?}");
        }
        // Anthropic's requests always set a limit.
        assert!(!is_plausible(bounds(None, Format::Anthropic), usage(10, 100_000, 0)));
    }

    #[test]
    fn without_a_limit_more_output_than_any_model_writes_is_discarded() {
        let bounds = bounds(None, Format::Gemini);
        assert!(is_plausible(bounds, usage(10, 200_000, 199_000)));
        assert!(!is_plausible(bounds, usage(10, 200_001, 0)));
        let text = "tide ".repeat(200_000);
        let mut long = Ok(Completion { usage: Some(usage(10, 250_000, 0)), ..Completion::new(text) });
        bounds.apply(&mut long);
        assert!(long.unwrap().usage.is_some());
    }

    #[test]
    fn tool_calls_and_reasoning_are_output() {
        let call = || Part::ToolCall(ToolCall::new("a", "clock", "{}"));
        let is_plausible = |parts: Vec<Part>, usage: Usage| {
            let mut result = Ok(Completion { parts, usage: Some(usage), ..Completion::default() });
            bounds(None, Format::Gemini).apply(&mut result);
            result.unwrap().usage.is_some()
        };
        // An answer of a call alone has output.
        assert!(!is_plausible(vec![call()], usage(10, 0, 0)));
        assert!(is_plausible(vec![call()], usage(10, 5, 0)));
        assert!(!is_plausible(vec![call()], usage(10, 250_000, 0)));
        let long = Part::Reasoning(Reasoning::new("tide ".repeat(200_000)));
        assert!(is_plausible(vec![long, call()], usage(10, 250_000, 0)));
    }

    #[test]
    fn an_attachment_in_the_result_of_a_tool_is_input_and_a_call_is_not_an_attachment() {
        let image = Part::Image(Media::url("image/png", "https://a.example/a.png"));
        let call = Part::ToolCall(ToolCall::new("a", "camera", "{}"));
        let called = Prompt::text("Look.").with_message(Message::new(Role::Assistant, [call]));
        let is_allowed = |prompt: &Prompt| {
            is_plausible(UsageBounds::new(prompt, Format::Openai, 1_000), usage(1_500_000, 1, 0))
        };
        assert!(!is_allowed(&called));
        let result = ToolResult::new("a", "See the picture.").with_part(image);
        assert!(is_allowed(&called.with_message(Message::tool([result]))));
    }

    #[test]
    fn a_failure_whose_count_is_discarded_may_still_be_charged() {
        let mut failed =
            Err(Failure::new(Class::Truncated, "cut").with_usage(Some(usage(10, 90_000_000, 0))));
        bounds(None, Format::Openai).apply(&mut failed);
        let failure = failed.unwrap_err();
        assert_eq!((failure.usage, failure.charged), (None, Charged::Maybe));
    }
}
