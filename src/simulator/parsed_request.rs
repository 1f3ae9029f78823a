//! A parsed request, independent of the vendor's format.
//!
//! Strings are borrowed from the request body where JSON allows it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use http::HeaderMap;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::rng::{fingerprint, mix};

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
}

impl<'a> Conversation<'a> {
    /// Adds a message. The answer is generated for the last message with `is_user`.
    pub(super) fn push(&mut self, content: Content<'a>, is_user: bool) {
        let start = self.texts.len();
        match content {
            Content::Empty => {}
            Content::Text(text) => self.texts.push(text),
            Content::Parts(texts, documents) => {
                self.texts.extend(texts);
                self.documents.extend(documents);
            }
        }
        if is_user {
            self.last_user_message = start..self.texts.len();
        }
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
        tokens(self.texts.iter().map(|text| text.len()).sum())
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
    (bytes as u64).div_ceil(4).max(1)
}

/// Content of one message: a string, or the texts of its parts and the media types of its documents.
#[derive(Debug, Default)]
pub(super) enum Content<'a> {
    #[default]
    Empty,
    Text(Cow<'a, str>),
    Parts(Vec<Cow<'a, str>>, Vec<Cow<'a, str>>),
}

impl Content<'_> {
    /// Returns whether the content is missing or null. A list of parts without text is not empty.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// A string that is borrowed if possible. serde does not borrow an `Option<Cow<str>>`: its `borrow` supports only
/// a plain `Cow`.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    /// Anthropic.
    #[serde(borrow, default)]
    source: Option<Source<'a>>,
    /// OpenAI.
    #[serde(borrow, default)]
    file: Option<File<'a>>,
    /// Gemini.
    #[serde(rename = "inlineData", alias = "inline_data", borrow, default)]
    inline_data: Option<InlineData<'a>>,
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

impl<'a> Part<'a> {
    /// Returns the media type of the document in this part, if it is sent as a file.
    fn document(self) -> Option<Cow<'a, str>> {
        if let Some(source) = self.source {
            return (self.kind == "document" && source.kind == "base64").then_some(source.media_type);
        }
        let media_type_of_url =
            |url: &str| url.strip_prefix("data:").and_then(|rest| rest.split(';').next()).map(str::to_owned);
        let media_type_of_file =
            self.file.map(|file| Cow::Owned(media_type_of_url(&file.file_data).unwrap_or_default()));
        media_type_of_file.or(self.inline_data.map(|data| data.mime_type))
    }
}

/// Collects the texts of parts and the media types of their documents.
fn collect_parts<'a>(parts: impl Iterator<Item = Part<'a>>) -> Content<'a> {
    let mut texts = Vec::new();
    let mut documents = Vec::new();
    for mut part in parts {
        texts.extend(part.text.take().map(|text| text.0));
        documents.extend(part.document());
    }
    Content::Parts(texts, documents)
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
        struct Parts<'a> {
            #[serde(borrow)]
            parts: Vec<Part<'a>>,
        }
        let holder = Parts::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        Ok(collect_parts(holder.parts.into_iter()))
    }
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
    fn content_is_a_string_or_parts_and_unescaped_strings_are_borrowed() {
        let parse = |json| serde_json::from_str::<Content<'_>>(json).unwrap();
        assert!(matches!(parse(r#""plain""#), Content::Text(Cow::Borrowed("plain"))));
        assert!(matches!(parse(r#""with \"quotes\"""#), Content::Text(Cow::Owned(_))));
        let parts = r#"[{"type":"text","text":"a"},{"type":"image","source":{}},{"text":"b"}]"#;
        let Content::Parts(texts, _) = parse(parts) else { panic!() };
        assert_eq!(texts, ["a", "b"]);
        let Content::Parts(texts, _) = parse(r#"{"parts":[{"text":"c"}]}"#) else { panic!() };
        assert_eq!(texts, ["c"]);
        assert!(parse("null").is_empty());
        assert!(serde_json::from_str::<Content<'_>>("5").is_err());
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
}
