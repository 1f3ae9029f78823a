//! A parsed request, independent of the vendor's format.
//!
//! Strings are borrowed from the request body where JSON allows it.

use std::borrow::Cow;
use std::ops::Range;

use http::HeaderMap;
use serde_json::Value;

use super::content::{Content, ExchangePart};
use super::reasoning::ReasoningRequest;
use super::rng::{fingerprint, mix};
use super::tool_settings::ToolSettings;

/// Bytes of text that count as one token.
pub(super) const BYTES_PER_TOKEN: usize = 4;
/// Start of the line by which a prompt requests one of several options.
const CHOICE_INSTRUCTION: &str = "Answer with exactly one of: ";

/// A parsed request.
#[derive(Debug)]
pub(super) struct ParsedRequest<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) delivery: Delivery,
    pub(super) conversation: Conversation<'a>,
    pub(super) max_tokens: Option<u64>,
    pub(super) format: AnswerFormat,
    /// Texts before which the answer ends.
    pub(super) stop: Vec<String>,
    pub(super) tools: ToolSettings,
    /// `None` if the model does not reason.
    pub(super) reasoning: Option<ReasoningRequest>,
    /// Whether a tool call that the client sends back has lost its signature. Only Gemini answers such a request,
    /// with a finish reason of its own.
    pub(super) lacks_signature: bool,
}

/// The parts of a request besides its body that a format uses.
pub(super) struct RequestHead<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) query: &'a str,
    /// The model, if the path contains it.
    pub(super) model: Option<&'a str>,
    /// Whether the path requests a stream.
    pub(super) stream: bool,
}

/// How the response is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As one JSON object.
    Full,
    /// As server-sent events. `usage` is whether the client requested token usage at the end.
    EventStream { usage: bool },
    /// As one JSON array of the events.
    JsonArray,
}

/// Requested format of the answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum AnswerFormat {
    Text,
    Choice(Vec<String>),
    /// Any JSON object.
    Object,
    Schema(Value),
}

/// All texts of a prompt.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    texts: Vec<Cow<'a, str>>,
    /// Media types of the documents.
    documents: Vec<Cow<'a, str>>,
    last_user_message: Range<usize>,
    /// Bytes of tool definitions, tool calls and reasoning.
    other_bytes: usize,
    /// Whether the last message consists of results of tools.
    ends_with_results: bool,
}

impl<'a> Conversation<'a> {
    /// Adds a message. The answer is generated for the last message with `is_user` that has more than results of
    /// tools.
    pub(super) fn push(&mut self, content: Content<'a>, is_user: bool) {
        let mut start = self.texts.len();
        let mut has_results = false;
        match content {
            Content::Empty => {}
            Content::Text(text) => self.texts.push(text),
            Content::Parts(parts) => {
                for (_, part) in parts.exchange {
                    has_results |= matches!(part, ExchangePart::Result { .. });
                    self.push_exchange(part);
                }
                start = self.texts.len();
                self.texts.extend(parts.texts);
                self.documents.extend(parts.documents);
            }
        }
        self.ends_with_results = has_results && self.texts.len() == start;
        if is_user && !self.ends_with_results {
            self.last_user_message = start..self.texts.len();
        }
    }

    fn push_exchange(&mut self, part: ExchangePart<'a>) {
        match part {
            ExchangePart::Call { bytes, .. } => self.add_bytes(bytes),
            ExchangePart::Result { texts, .. } => self.texts.extend(texts.into_iter().map(Cow::Owned)),
            ExchangePart::Reasoning { text, .. } => self.add_bytes(text.len()),
        }
    }

    /// Adds a message that is the result of a tool.
    pub(super) fn push_result(&mut self, content: Content<'a>) {
        self.push(content, false);
        self.ends_with_results = true;
    }

    /// Adds bytes of JSON that are input but no text: tool definitions and tool calls.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.other_bytes += bytes;
    }

    /// Returns whether the last message consists of results of tools.
    pub(super) fn ends_with_results(&self) -> bool {
        self.ends_with_results
    }

    /// Returns the media type of the first document that the vendor does not support.
    pub(super) fn unsupported_document(&self, is_supported: impl Fn(&str) -> bool) -> Option<&str> {
        self.documents.iter().map(|media_type| &**media_type).find(|media_type| !is_supported(media_type))
    }

    /// Returns the texts of the last user message.
    pub(super) fn last_user_message(&self) -> &[Cow<'a, str>] {
        &self.texts[self.last_user_message.clone()]
    }

    /// Returns the number of input tokens.
    pub(super) fn tokens(&self) -> u64 {
        tokens(self.texts.iter().map(|text| text.len()).sum::<usize>() + self.other_bytes)
    }

    /// Returns whether any message contains `text`.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.texts.iter().any(|part| part.contains(text))
    }

    /// Returns a hash of all texts. It does not depend on the vendor or the model.
    pub(super) fn fingerprint(&self) -> u64 {
        self.texts.iter().fold(0, |hash, text| mix(hash ^ fingerprint(text.as_bytes())))
    }

    /// Returns the options of the line `Answer with exactly one of: A, B, C`, if there is one.
    pub(super) fn choice_options(&self) -> Option<Vec<String>> {
        let line = self.texts.iter().rev().find_map(|text| {
            let (before, after) = text.rsplit_once(CHOICE_INSTRUCTION)?;
            (before.is_empty() || before.ends_with('\n')).then(|| after.lines().next())?
        })?;
        Some(line.split(", ").map(|option| option.trim().to_owned()).collect())
    }
}

/// Returns the number of tokens of a text of `bytes` bytes. The simulator counts 4 bytes as one token.
pub(super) fn tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(BYTES_PER_TOKEN as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(texts: &[&'static str]) -> Conversation<'static> {
        let mut conversation = Conversation::default();
        for text in texts {
            conversation.push(Content::Text(Cow::Borrowed(text)), true);
        }
        conversation
    }

    #[test]
    fn a_choice_instruction_is_found_only_at_the_start_of_a_line() {
        let options =
            conversation(&["Sort this.\n\nAnswer with exactly one of: URGENT, OTHER"]).choice_options();
        assert_eq!(options.unwrap(), ["URGENT", "OTHER"]);
        let options =
            conversation(&["Answer with exactly one of: A, B C\nNothing else.", "x"]).choice_options();
        assert_eq!(options.unwrap(), ["A", "B C"]);
        assert_eq!(conversation(&["Never say: Answer with exactly one of: A, B"]).choice_options(), None);
        assert_eq!(conversation(&["Hello"]).choice_options(), None);
    }

    #[test]
    fn four_bytes_are_one_token_rounded_up() {
        assert_eq!([0, 1, 4, 5, 8].map(tokens), [1, 1, 1, 2, 2]);
        assert_eq!(conversation(&["abcd", "efghi"]).tokens(), 3);
    }

    #[test]
    fn a_message_that_consists_of_results_is_no_user_message() {
        fn parse(json: &str) -> Content<'_> {
            serde_json::from_str(json).unwrap()
        }
        let result = r#"{"type":"tool_result","tool_use_id":"a","content":"found"}"#;
        let only_result = format!("[{result}]");
        let with_text = format!(r#"[{result},{{"type":"text","text":"And now?"}}]"#);
        let mut conversation = conversation(&["Hello"]);
        conversation.push(parse(&only_result), true);
        assert!(conversation.ends_with_results() && conversation.contains("found"));
        assert_eq!(conversation.last_user_message(), ["Hello"]);
        conversation.push(parse(&with_text), true);
        assert!(!conversation.ends_with_results());
        assert_eq!(conversation.last_user_message(), ["And now?"]);
        assert_eq!(conversation.tokens(), tokens("Hellofoundfound".len() + "And now?".len()));
    }
}
