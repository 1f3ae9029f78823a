//! The JSON of a message and of the events that carry its pieces.
//!
//! Fields and kinds that are not known here are passed over; it never decides what a piece means.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use crate::types::{Class, Failure, Tokens, Usage};
use crate::wire::count::Count;
use crate::wire::excerpt::Excerpt;
use crate::wire::lenient::{Label, Object};
use crate::wire::refused;

/// Any event: each fills some of the fields.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) message: Option<Start<'a>>,
    #[serde(borrow)]
    pub(super) content_block: Option<Block<'a>>,
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(default)]
    pub(super) usage: Object<Counts>,
    pub(super) error: Option<Excerpt>,
}

impl<'a> Event<'a> {
    pub(super) fn read(name: Option<&'a str>, data: &'a str) -> Result<Self, Failure> {
        let mut event: Self = match serde_json::from_str(data) {
            Ok(event) => event,
            Err(error) => return Self::unknown(data, &error),
        };
        if event.kind.is_empty() {
            event.kind = Cow::Borrowed(name.unwrap_or_default());
        }
        Ok(event)
    }

    /// An event of a kind that did not exist when this was written may have any fields.
    fn unknown(data: &str, error: &serde_json::Error) -> Result<Self, Failure> {
        const KNOWN: [&str; 6] = [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "message_delta",
            "message_stop",
            "error",
        ];
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        match serde_json::from_str::<Kind>(data) {
            Ok(Kind { kind }) if !KNOWN.contains(&&*kind) => Ok(Self {
                kind: Cow::Owned(kind),
                message: None,
                content_block: None,
                delta: None,
                usage: Object(None),
                error: None,
            }),
            _ => {
                let message = format!("cannot read an event of the stream: {error}");
                Err(refused::failure(Class::Unreadable, None, &message))
            }
        }
    }
}

/// The message as it opens.
#[derive(Deserialize, Default)]
pub(super) struct Start<'a> {
    #[serde(borrow, default)]
    pub(super) id: Label<'a>,
    #[serde(borrow, default)]
    pub(super) model: Label<'a>,
    #[serde(default)]
    pub(super) usage: Object<Counts>,
}

#[derive(Deserialize, Default)]
pub(super) struct Block<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) text: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
pub(super) struct Delta<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) text: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) thinking: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) partial_json: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Label<'a>,
    #[serde(default)]
    pub(super) stop_details: Object<StopDetails>,
}

/// A message that came in one piece.
#[derive(Deserialize)]
pub(super) struct Whole<'a> {
    #[serde(borrow, default)]
    pub(super) id: Label<'a>,
    #[serde(borrow, default)]
    pub(super) model: Label<'a>,
    #[serde(borrow, default)]
    pub(super) content: Vec<Block<'a>>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Label<'a>,
    #[serde(default)]
    pub(super) stop_details: Object<StopDetails>,
    #[serde(default)]
    pub(super) usage: Object<Counts>,
    pub(super) error: Option<Excerpt>,
}

/// Why the model refused.
#[derive(Debug, Deserialize, Default)]
pub(super) struct StopDetails {
    category: Option<String>,
    explanation: Option<String>,
}

impl StopDetails {
    /// Returns them as short as a message is.
    pub(super) fn cut(self) -> Self {
        let short = |text: Option<String>| text.as_deref().map(refused::short);
        Self { category: short(self.category), explanation: short(self.explanation) }
    }
}

impl fmt::Display for StopDetails {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(category) = &self.category {
            write!(out, " ({category})")?;
        }
        if let Some(explanation) = &self.explanation {
            write!(out, ": {explanation}")?;
        }
        Ok(())
    }
}

/// Tokens as this vendor counts them: what the cache held stands beside `input_tokens`.
#[derive(Debug, Clone, Copy, Deserialize, Default)]
pub(super) struct Counts {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    output_tokens_details: Object<OutputDetails>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct OutputDetails {
    #[serde(default)]
    thinking_tokens: Count,
}

impl Counts {
    /// Takes later counts, which are cumulative and leave out what has not changed. Some gateways write zeros instead of
    /// leaving it out: a sum never falls, so a zero replaces nothing.
    pub(super) fn update(&mut self, later: Self) {
        self.input_tokens = later.input_tokens.or_unless_zero(self.input_tokens);
        self.cache_creation_input_tokens =
            later.cache_creation_input_tokens.or_unless_zero(self.cache_creation_input_tokens);
        self.cache_read_input_tokens =
            later.cache_read_input_tokens.or_unless_zero(self.cache_read_input_tokens);
        self.output_tokens = later.output_tokens.or_unless_zero(self.output_tokens);
        self.output_tokens_details = Object(later.output_tokens_details.0.or(self.output_tokens_details.0));
    }

    /// Brings the counts to our one form; `None` when one of them is missing or cannot be believed.
    pub(super) fn usage(self) -> Option<Usage> {
        let cached = Tokens(self.cache_read_input_tokens.or_zero()?);
        let cache_write = Tokens(self.cache_creation_input_tokens.or_zero()?);
        let thinking = self.output_tokens_details.0.map_or(Count::Missing, |details| details.thinking_tokens);
        let usage = Usage {
            input: Tokens(self.input_tokens.needed()?) + cached + cache_write,
            cached,
            cache_write,
            output: Tokens(self.output_tokens.needed()?),
            reasoning: Tokens(thinking.or_zero()?),
        };
        usage.credible()
    }
}
