//! The JSON structures of a message and of its stream events.
//!
//! Unknown fields and event types are ignored.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::types::{Class, Failure, Tokens, Usage};
use crate::wire::bounded_json::BoundedJson;
use crate::wire::bounded_list;
use crate::wire::count::Count;
use crate::wire::http_error;
use crate::wire::lenient::{LenientIndex, LenientObject, LenientText};

/// A stream event of any type; each type sets some of the fields.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) message: Option<MessageStart<'a>>,
    #[serde(borrow)]
    pub(super) content_block: Option<Block<'a>>,
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    #[serde(default)]
    pub(super) usage: LenientObject<Counts>,
    pub(super) error: Option<BoundedJson>,
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

    /// Accepts an event of an unknown type, whose fields may have any structure.
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
                usage: LenientObject(None),
                error: None,
            }),
            _ => {
                let message = format!("cannot read an event of the stream: {error}");
                Err(http_error::failure(Class::Unreadable, None, &message))
            }
        }
    }
}

/// Returns the index of the block to which an event belongs. [`Event`] does not have it: reading a number can cost an
/// allocation, and most pieces of text do not need it.
pub(super) fn block_index(data: &str) -> u64 {
    #[derive(Deserialize)]
    struct Indexed {
        #[serde(default)]
        index: LenientIndex,
    }
    serde_json::from_str::<Indexed>(data).map_or(0, |event| event.index.0)
}

/// The message in a `message_start` event.
#[derive(Deserialize, Default)]
pub(super) struct MessageStart<'a> {
    #[serde(borrow, default)]
    pub(super) id: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) model: LenientText<'a>,
    #[serde(default)]
    pub(super) usage: LenientObject<Counts>,
}

/// A content block: complete in a message, or as it begins in a stream.
#[derive(Deserialize, Default)]
pub(super) struct Block<'a> {
    #[serde(rename = "type", borrow, default)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) text: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) thinking: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) signature: LenientText<'a>,
    /// The content of redacted reasoning.
    #[serde(borrow, default)]
    pub(super) data: LenientText<'a>,
    /// The id of a tool call.
    #[serde(borrow, default)]
    pub(super) id: LenientText<'a>,
    /// The name of a tool.
    #[serde(borrow, default)]
    pub(super) name: LenientText<'a>,
    /// The arguments of a tool call.
    #[serde(default)]
    input: Option<Value>,
}

impl Block<'_> {
    /// Returns the arguments of a tool call as JSON; `None` if there are none, or only an empty object.
    pub(super) fn arguments(&self) -> Option<String> {
        match &self.input {
            None | Some(Value::Null) => None,
            Some(Value::Object(fields)) if fields.is_empty() => None,
            // Some servers send the JSON as a string.
            Some(Value::String(json)) => Some(json.clone()),
            Some(input @ (Value::Object(_) | Value::Array(_) | Value::Bool(_) | Value::Number(_))) => {
                Some(input.to_string())
            }
        }
    }
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
    pub(super) signature: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) partial_json: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) stop_reason: LenientText<'a>,
    #[serde(default)]
    pub(super) stop_details: LenientObject<StopDetails>,
}

/// A complete message from a response without a stream.
#[derive(Deserialize)]
pub(super) struct FullMessage<'a> {
    #[serde(borrow, default)]
    pub(super) id: LenientText<'a>,
    #[serde(borrow, default)]
    pub(super) model: LenientText<'a>,
    #[serde(borrow, default, deserialize_with = "bounded_list::required")]
    pub(super) content: Vec<Block<'a>>,
    #[serde(borrow, default)]
    pub(super) stop_reason: LenientText<'a>,
    #[serde(default)]
    pub(super) stop_details: LenientObject<StopDetails>,
    #[serde(default)]
    pub(super) usage: LenientObject<Counts>,
    pub(super) error: Option<BoundedJson>,
}

/// The reason of a refusal.
#[derive(Debug, Deserialize, Default)]
pub(super) struct StopDetails {
    category: Option<String>,
    explanation: Option<String>,
}

impl StopDetails {
    /// Truncates the texts to the length of a message.
    pub(super) fn truncated(self) -> Self {
        let short = |text: Option<String>| text.as_deref().map(http_error::single_line);
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

/// Token counts of this vendor: cached tokens are not included in `input_tokens`.
#[derive(Debug, Clone, Copy, Deserialize, Default)]
pub(super) struct Counts {
    #[serde(default)]
    input_tokens: Count,
    #[serde(default)]
    cache_creation_input_tokens: Count,
    #[serde(default)]
    cache_creation: LenientObject<CacheCreation>,
    #[serde(default)]
    cache_read_input_tokens: Count,
    #[serde(default)]
    output_tokens: Count,
    #[serde(default)]
    output_tokens_details: LenientObject<OutputDetails>,
}

/// What was written to the cache, by how long it is kept. The total is in another field.
#[derive(Debug, Clone, Copy, Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_1h_input_tokens: Count,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct OutputDetails {
    #[serde(default)]
    thinking_tokens: Count,
}

impl Counts {
    /// Updates the counts. Later counts are cumulative and omit unchanged values. Some gateways send zeros
    /// instead. A cumulative count never decreases, so a zero does not replace an earlier value.
    pub(super) fn update(&mut self, later: Self) {
        self.input_tokens = later.input_tokens.or_earlier(self.input_tokens);
        self.cache_creation_input_tokens =
            later.cache_creation_input_tokens.or_earlier(self.cache_creation_input_tokens);
        let ephemeral_1h_input_tokens = later.cache_write_1h().or_earlier(self.cache_write_1h());
        self.cache_creation = LenientObject(Some(CacheCreation { ephemeral_1h_input_tokens }));
        self.cache_read_input_tokens = later.cache_read_input_tokens.or_earlier(self.cache_read_input_tokens);
        self.output_tokens = later.output_tokens.or_earlier(self.output_tokens);
        self.output_tokens_details =
            LenientObject(later.output_tokens_details.0.or(self.output_tokens_details.0));
    }

    fn cache_write_1h(&self) -> Count {
        self.cache_creation.0.map_or(Count::Missing, |written| written.ephemeral_1h_input_tokens)
    }

    /// Converts the counts to [`Usage`]; `None` if a count is missing or not credible.
    pub(super) fn usage(self) -> Option<Usage> {
        let cached = Tokens(self.cache_read_input_tokens.or_zero()?);
        let cache_write = Tokens(self.cache_creation_input_tokens.or_zero()?);
        let thinking = self.output_tokens_details.0.map_or(Count::Missing, |details| details.thinking_tokens);
        let usage = Usage {
            input: Tokens(self.input_tokens.required()?) + cached + cache_write,
            cached,
            cache_write,
            cache_write_1h: Tokens(self.cache_write_1h().or_zero()?),
            output: Tokens(self.output_tokens.required()?),
            reasoning: Tokens(thinking.or_zero()?),
        };
        usage.credible()
    }
}
