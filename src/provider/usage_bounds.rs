//! What is believed of the tokens that a provider counts for a call: no more than its request and its answer can have.
//!
//! A count beyond that is unknown, and so is what it cost: the call is booked with what was reserved for it. So is a
//! zero, with which servers say that they do not count. Never changes a count.

use crate::types::{Failure, Part, Prompt, Reply, Tokens, Usage};
use crate::wire::Format;

use super::characters::tokens;

/// Most tokens for each byte of a request's body. A token has a byte at least; some services read a prompt several times,
/// with a tool of their own in between.
const INPUT_PER_BYTE: u64 = 4;

/// Most tokens that a service adds to a prompt: its own instructions, what it found on the web.
const ADDED_INPUT: u64 = 100_000;

/// Most tokens of one attachment, which may be only an address: the longest context of any model.
const INPUT_PER_ATTACHMENT: u64 = 2_000_000;

/// Most tokens that are written where the request sets no limit, and most tokens of reasoning that a limit does not
/// cover. The longest output that a vendor documents is 128,000 tokens.
const UNLIMITED_OUTPUT: u64 = 200_000;

/// How far a provider may be above the limit that a request sets, beside a tenth of it.
const OVERSHOOT: u64 = 1_000;

/// The most that one call can have used.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsageBounds {
    input: u64,
    /// As the request limits the answer.
    output: Option<u64>,
    /// Whether that limit covers reasoning, too.
    covers_reasoning: bool,
}

impl UsageBounds {
    /// Returns the bounds of a call whose request has a body of so many bytes.
    pub(super) fn new(prompt: &Prompt, format: Format, body_bytes: usize) -> Self {
        let parts = prompt.messages.iter().flat_map(|message| &message.parts);
        let attachments = parts.filter(|part| !matches!(part, Part::Text(_))).count();
        let of_attachments = (attachments as u64).saturating_mul(INPUT_PER_ATTACHMENT);
        let of_body = (body_bytes as u64).saturating_mul(INPUT_PER_BYTE);
        let most = prompt.max_tokens.or(format.assumed_max_tokens()).map(u64::from);
        Self {
            input: of_body.saturating_add(ADDED_INPUT).saturating_add(of_attachments),
            output: most.map(|most| most.saturating_add(most / 10).saturating_add(OVERSHOOT)),
            // Several servers that speak OpenAI's format limit only what comes after the reasoning.
            covers_reasoning: format != Format::Openai,
        }
    }

    /// Takes a count away that cannot be that of the call.
    pub(super) fn apply(&self, result: &mut Result<Reply, Failure>) {
        match result {
            Ok(reply) => reply.usage = reply.usage.filter(|usage| self.allow(usage, &reply.text)),
            Err(failure) => {
                let text = failure.text.as_deref().unwrap_or_default();
                failure.usage = failure.usage.take().filter(|usage| self.allow(usage, text));
            }
        }
    }

    /// Says whether a call that answered with `text` can have used so much.
    fn allow(&self, usage: &Usage, text: &str) -> bool {
        let is_counted = usage.input > Tokens(0) && (usage.output > Tokens(0) || text.is_empty());
        is_counted && usage.input.0 <= self.input && self.allow_output(usage, text)
    }

    fn allow_output(&self, usage: &Usage, text: &str) -> bool {
        match self.output {
            Some(most) if self.covers_reasoning => usage.output.0 <= most,
            Some(most) => {
                let reasoning = usage.reasoning.0;
                usage.output.0.saturating_sub(reasoning) <= most && reasoning <= most.max(UNLIMITED_OUTPUT)
            }
            // Each text is estimated within a factor of four.
            None => usage.output.0 <= UNLIMITED_OUTPUT || usage.output.0 <= tokens(text).saturating_mul(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Charged, Class, Media, MediaData, Message};

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

    fn is_believed(bounds: UsageBounds, usage: Usage) -> bool {
        let reply =
            Reply { text: TEXT.to_owned(), usage: Some(usage), model: String::new(), request_id: None };
        let mut result = Ok(reply);
        bounds.apply(&mut result);
        result.unwrap().usage == Some(usage)
    }

    #[test]
    fn a_zero_is_a_server_that_does_not_count() {
        let bounds = bounds(None, Format::Openai);
        assert!(!is_believed(bounds, usage(0, 5, 0)));
        assert!(!is_believed(bounds, usage(5, 0, 0)));
        assert!(is_believed(bounds, usage(1, 1, 0)));
        // Where nothing was said nothing was written.
        let mut failed = Err(Failure::new(Class::ContentFilter, "no").used(Some(usage(5, 0, 0))));
        bounds.apply(&mut failed);
        assert!(failed.unwrap_err().usage.is_some());
    }

    #[test]
    fn more_input_than_the_request_has_is_unknown() {
        let bounds = bounds(None, Format::Openai);
        assert!(is_believed(bounds, usage(104_000, 1, 0)));
        assert!(!is_believed(bounds, usage(104_001, 1, 0)));
        let address = MediaData::Url("https://a.example/book.pdf".into());
        let media = Media { media_type: "application/pdf".into(), name: None, data: address };
        let mut message = Message::user("Read it.");
        message.parts.push(Part::Document(media));
        let prompt = Prompt { messages: vec![message], ..Prompt::default() };
        let attached = UsageBounds::new(&prompt, Format::Openai, 1_000);
        assert!(is_believed(attached, usage(1_500_000, 1, 0)));
        assert!(!is_believed(attached, usage(90_000_000, 1, 0)));
    }

    #[test]
    fn more_output_than_the_request_allows_is_unknown() {
        for format in [Format::Openai, Format::Anthropic, Format::Gemini] {
            let bounds = bounds(Some(100), format);
            assert!(is_believed(bounds, usage(10, 1_110, 0)), "{format:?}");
            assert!(!is_believed(bounds, usage(10, 1_111, 0)), "{format:?}");
            let covers_reasoning = format != Format::Openai;
            assert_eq!(is_believed(bounds, usage(10, 32_000, 31_950)), !covers_reasoning, "{format:?}");
            assert!(!is_believed(bounds, usage(10, 200_110, 200_001)), "{format:?}");
        }
        // Anthropic's requests always set a limit.
        assert!(!is_believed(bounds(None, Format::Anthropic), usage(10, 100_000, 0)));
    }

    #[test]
    fn without_a_limit_more_output_than_any_model_writes_is_unknown() {
        let bounds = bounds(None, Format::Gemini);
        assert!(is_believed(bounds, usage(10, 200_000, 199_000)));
        assert!(!is_believed(bounds, usage(10, 200_001, 0)));
        let text = "tide ".repeat(200_000);
        let mut long =
            Ok(Reply { text, usage: Some(usage(10, 250_000, 0)), model: String::new(), request_id: None });
        bounds.apply(&mut long);
        assert!(long.unwrap().usage.is_some());
    }

    #[test]
    fn a_failure_whose_count_is_not_believed_may_still_be_charged() {
        let mut failed = Err(Failure::new(Class::Truncated, "cut").used(Some(usage(10, 90_000_000, 0))));
        bounds(None, Format::Openai).apply(&mut failed);
        let failure = failed.unwrap_err();
        assert_eq!((failure.usage, failure.charged), (None, Charged::Maybe));
    }
}
