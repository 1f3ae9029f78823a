//! Content of a message, as the vendors write it: texts, documents, tool calls and their results, and reasoning.
//!
//! Strings are borrowed from the request body where JSON allows it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Content of one message: a string or parts.
#[derive(Debug, Default)]
pub(super) enum Content<'a> {
    #[default]
    Empty,
    Text(Cow<'a, str>),
    Parts(Parts<'a>),
}

/// The parts of a message, sorted by kind.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) texts: Vec<Cow<'a, str>>,
    /// Media types of the documents.
    pub(super) documents: Vec<Cow<'a, str>>,
    /// Each with its index in the message.
    pub(super) exchange: Vec<(usize, ExchangePart<'a>)>,
    pub(super) output_texts: OutputTexts,
}

/// The texts of an answer in OpenAI's responses, which a message contains.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutputTexts {
    #[default]
    None,
    Annotated,
    /// At least one of them lacks its annotations.
    NotAnnotated,
}

/// A part of the exchange between a model and its tools.
#[derive(Debug, PartialEq)]
pub(super) enum ExchangePart<'a> {
    /// A call of a tool. `bytes` counts its name and its arguments.
    Call { id: Cow<'a, str>, name: Cow<'a, str>, bytes: usize, signature: Option<Cow<'a, str>> },
    /// The result of a call, as text or JSON.
    Result { id: Cow<'a, str>, name: Cow<'a, str>, texts: Vec<String> },
    /// Reasoning with its signature.
    Reasoning { text: Cow<'a, str>, signature: Cow<'a, str> },
}

impl<'a> Content<'a> {
    /// Returns whether the content is missing or null. A list of parts without text is not empty.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Returns the texts of an answer, as OpenAI's responses contain them.
    pub(super) fn output_texts(&self) -> OutputTexts {
        match self {
            Self::Empty | Self::Text(_) => OutputTexts::None,
            Self::Parts(parts) => parts.output_texts,
        }
    }

    /// Returns the calls, results and reasoning, each with its index in the message.
    pub(super) fn exchange(&self) -> &[(usize, ExchangePart<'a>)] {
        match self {
            Self::Empty | Self::Text(_) => &[],
            Self::Parts(parts) => &parts.exchange,
        }
    }
}

impl OutputTexts {
    fn of(part: &Part<'_>) -> Self {
        match (&*part.kind, &part.annotations) {
            ("output_text", Some(_)) => Self::Annotated,
            ("output_text", None) => Self::NotAnnotated,
            _ => Self::None,
        }
    }
}

/// A string that is borrowed if possible. serde does not borrow an `Option<Cow<str>>`: its `borrow` supports only
/// a plain `Cow`.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// Returns the string, or an empty one.
fn or_empty(text: Option<Text<'_>>) -> Cow<'_, str> {
    text.map(|text| text.0).unwrap_or_default()
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    /// Anthropic.
    #[serde(borrow, default)]
    source: Option<Source<'a>>,
    /// Anthropic's tool calls, with their arguments in `input`.
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(default)]
    input: Option<Value>,
    /// Anthropic's results of tools.
    #[serde(borrow, default)]
    tool_use_id: Option<Text<'a>>,
    #[serde(default)]
    content: Option<Value>,
    /// Anthropic's reasoning.
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    signature: Option<Text<'a>>,
    /// OpenAI's chat completions.
    #[serde(borrow, default)]
    file: Option<File<'a>>,
    /// OpenAI's responses.
    #[serde(borrow, default)]
    file_data: Option<Text<'a>>,
    #[serde(default)]
    annotations: Option<IgnoredAny>,
    /// Gemini.
    #[serde(rename = "inlineData", alias = "inline_data", borrow, default)]
    inline_data: Option<InlineData<'a>>,
    #[serde(rename = "functionCall", alias = "function_call", borrow, default)]
    function_call: Option<FunctionCall<'a>>,
    #[serde(rename = "functionResponse", alias = "function_response", borrow, default)]
    function_response: Option<FunctionResponse<'a>>,
    #[serde(rename = "thoughtSignature", alias = "thought_signature", borrow, default)]
    thought_signature: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    media_type: Cow<'a, str>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    file_data: Cow<'a, str>,
}

#[derive(Deserialize)]
struct InlineData<'a> {
    #[serde(rename = "mimeType", alias = "mime_type", borrow, default)]
    mime_type: Cow<'a, str>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(default)]
    args: Option<Value>,
}

#[derive(Deserialize)]
struct FunctionResponse<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(default)]
    response: Option<Value>,
}

impl<'a> Part<'a> {
    /// Removes the call, the result or the reasoning from this part.
    fn take_exchange(&mut self) -> Option<ExchangePart<'a>> {
        if let Some(call) = self.function_call.take() {
            let bytes = call.name.len() + json_bytes(call.args.as_ref());
            let signature = self.thought_signature.take().map(|signature| signature.0);
            return Some(ExchangePart::Call { id: or_empty(call.id), name: call.name, bytes, signature });
        }
        if let Some(result) = self.function_response.take() {
            let texts = result.response.iter().map(Value::to_string).collect();
            return Some(ExchangePart::Result { id: or_empty(result.id), name: result.name, texts });
        }
        match &*self.kind {
            "tool_use" => {
                let name = or_empty(self.name.take());
                let bytes = name.len() + json_bytes(self.input.as_ref());
                Some(ExchangePart::Call { id: or_empty(self.id.take()), name, bytes, signature: None })
            }
            "tool_result" => Some(ExchangePart::Result {
                id: or_empty(self.tool_use_id.take()),
                name: Cow::Borrowed(""),
                texts: result_texts(self.content.take()),
            }),
            "thinking" => Some(ExchangePart::Reasoning {
                text: or_empty(self.thinking.take()),
                signature: or_empty(self.signature.take()),
            }),
            _ => None,
        }
    }

    /// Returns the media type of the document in this part, if it is sent as a file.
    fn document(self) -> Option<Cow<'a, str>> {
        if let Some(source) = self.source {
            return (self.kind == "document" && source.kind == "base64").then_some(source.media_type);
        }
        let media_type_of_url =
            |url: &str| url.strip_prefix("data:").and_then(|rest| rest.split(';').next()).map(str::to_owned);
        let file_data = self.file.map(|file| file.file_data).or(self.file_data.map(|data| data.0));
        let media_type_of_file =
            file_data.map(|data| Cow::Owned(media_type_of_url(&data).unwrap_or_default()));
        media_type_of_file.or(self.inline_data.map(|data| data.mime_type))
    }
}

/// Returns the length of a value as compact JSON.
fn json_bytes(value: Option<&Value>) -> usize {
    value.map_or(0, |value| value.to_string().len())
}

/// Returns the texts of a tool's result: a string, or parts with texts.
fn result_texts(content: Option<Value>) -> Vec<String> {
    match content {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str).map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// Sorts parts by kind.
fn collect_parts<'a>(all: impl Iterator<Item = Part<'a>>) -> Content<'a> {
    let mut parts = Parts::default();
    for (index, mut part) in all.enumerate() {
        parts.output_texts = parts.output_texts.max(OutputTexts::of(&part));
        parts.texts.extend(part.text.take().map(|text| text.0));
        parts.exchange.extend(part.take_exchange().map(|part| (index, part)));
        parts.documents.extend(part.document());
    }
    Content::Parts(parts)
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string or an array of parts")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Content::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Content::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Content::Empty)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(part) = parts.next_element::<Part<'de>>()? {
            all.push(part);
        }
        Ok(collect_parts(all.into_iter()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        // Gemini's `systemInstruction` is an object with parts.
        #[derive(Deserialize)]
        struct Holder<'a> {
            #[serde(borrow)]
            parts: Vec<Part<'a>>,
        }
        let holder = Holder::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        Ok(collect_parts(holder.parts.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Content<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn content_is_a_string_or_parts_and_unescaped_strings_are_borrowed() {
        assert!(matches!(parse(r#""plain""#), Content::Text(Cow::Borrowed("plain"))));
        assert!(matches!(parse(r#""with \"quotes\"""#), Content::Text(Cow::Owned(_))));
        let parts = r#"[{"type":"text","text":"a"},{"type":"image","source":{}},{"text":"b"}]"#;
        let Content::Parts(parts) = parse(parts) else { panic!() };
        assert_eq!(parts.texts, ["a", "b"]);
        let Content::Parts(parts) = parse(r#"{"parts":[{"text":"c"}]}"#) else { panic!() };
        assert_eq!(parts.texts, ["c"]);
        assert!(parse("null").is_empty());
        assert!(serde_json::from_str::<Content<'_>>("5").is_err());
    }

    #[test]
    fn calls_and_results_of_two_vendors_are_read_alike() {
        let anthropic = parse(
            r#"[{"type":"tool_use","id":"c1","name":"look","input":{"a":1}},
                {"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"found"}]}]"#,
        );
        let gemini = parse(
            r#"[{"functionCall":{"id":"c1","name":"look","args":{"a":1}}},
                {"functionResponse":{"id":"c1","name":"look","response":{"found":2}}}]"#,
        );
        let call = |id| ExchangePart::Call { id, name: "look".into(), bytes: 11, signature: None };
        for content in [&anthropic, &gemini] {
            assert_eq!(content.exchange()[0], (0, call("c1".into())));
        }
        let results = [&anthropic, &gemini].map(|content| match &content.exchange()[1] {
            (1, ExchangePart::Result { id, texts, .. }) => (id.clone(), texts.concat()),
            other => panic!("{other:?}"),
        });
        assert_eq!(results, [("c1".into(), "found".to_owned()), ("c1".into(), r#"{"found":2}"#.to_owned())]);
    }
}
