//! What a request asks for, in no vendor's format.
//!
//! Texts are borrowed from the body where JSON allows it; nothing here knows which vendor is played.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::draw::{fingerprint, mix};

/// The line by which a prompt asks for one of several words.
const CHOICE_LINE: &str = "Answer with exactly one of: ";

/// A request, understood.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) delivery: Delivery,
    pub(super) conversation: Conversation<'a>,
    pub(super) max_tokens: Option<u64>,
    pub(super) shape: Shape,
}

/// How the answer is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// As one JSON object.
    Whole,
    /// As server-sent events; `usage` says whether the client asked for it at the end.
    Events { usage: bool },
    /// As one JSON array of what would have been events.
    Array,
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Text,
    Choice(Vec<String>),
    /// Any JSON object.
    Object,
    Schema(Value),
}

/// Every text of a prompt.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    texts: Vec<Cow<'a, str>>,
    /// The media types of the documents.
    documents: Vec<Cow<'a, str>>,
    question: Range<usize>,
}

impl<'a> Conversation<'a> {
    /// Adds instructions or a turn; the last one that `asks` is the question.
    pub(super) fn push(&mut self, content: Content<'a>, asks: bool) {
        let start = self.texts.len();
        match content {
            Content::Nothing => {}
            Content::One(text) => self.texts.push(text),
            Content::Many(texts, documents) => {
                self.texts.extend(texts);
                self.documents.extend(documents);
            }
        }
        if asks {
            self.question = start..self.texts.len();
        }
    }

    /// Returns the media type of the first document that is none of those that the vendor takes.
    pub(super) fn refused_document(&self, takes: impl Fn(&str) -> bool) -> Option<&str> {
        self.documents.iter().map(|media_type| &**media_type).find(|media_type| !takes(media_type))
    }

    /// Returns the texts of the last question.
    pub(super) fn question(&self) -> &[Cow<'a, str>] {
        &self.texts[self.question.clone()]
    }

    /// Returns how many tokens the model reads.
    pub(super) fn tokens(&self) -> u64 {
        tokens(self.texts.iter().map(|text| text.len()).sum())
    }

    /// Says whether `text` stands anywhere in it.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.texts.iter().any(|part| part.contains(text))
    }

    /// Returns a hash of all texts, the same for every vendor and model.
    pub(super) fn fingerprint(&self) -> u64 {
        self.texts.iter().fold(0, |hash, text| mix(hash ^ fingerprint(text.as_bytes())))
    }

    /// Returns the options of the line `Answer with exactly one of: A, B, C`, where there is one.
    pub(super) fn choice(&self) -> Option<Vec<String>> {
        let line = self.texts.iter().rev().find_map(|text| {
            let (before, after) = text.rsplit_once(CHOICE_LINE)?;
            (before.is_empty() || before.ends_with('\n')).then(|| after.lines().next())?
        })?;
        Some(line.split(", ").map(|option| option.trim().to_owned()).collect())
    }
}

/// Returns how many tokens so many bytes of text are, in the simulator's own simple measure.
pub(super) fn tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4).max(1)
}

/// The texts of one message: a string, or parts of which some have a `text`, and the media types of its documents.
#[derive(Debug, Default)]
pub(super) enum Content<'a> {
    #[default]
    Nothing,
    One(Cow<'a, str>),
    Many(Vec<Cow<'a, str>>, Vec<Cow<'a, str>>),
}

impl Content<'_> {
    /// Says whether it holds nothing, not even a part without text.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// A string that is borrowed where it can be. `Option<Cow<str>>` never is: serde's `borrow` looks only at
/// a bare `Cow`.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    /// Anthropic's.
    #[serde(borrow, default)]
    source: Option<Source<'a>>,
    /// OpenAI's.
    #[serde(borrow, default)]
    file: Option<File<'a>>,
    /// Gemini's.
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
    /// Returns the media type of the document that it carries as a file.
    fn document(self) -> Option<Cow<'a, str>> {
        if let Some(source) = self.source {
            return (self.kind == "document" && source.kind == "base64").then_some(source.media_type);
        }
        let of_url =
            |url: &str| url.strip_prefix("data:").and_then(|rest| rest.split(';').next()).map(str::to_owned);
        let of_file = self.file.map(|file| Cow::Owned(of_url(&file.file_data).unwrap_or_default()));
        of_file.or(self.inline_data.map(|data| data.mime_type))
    }
}

/// Reads parts: their texts, and the media types of their documents.
fn many<'a>(parts: impl Iterator<Item = Part<'a>>) -> Content<'a> {
    let (mut texts, mut documents) = (Vec::new(), Vec::new());
    for mut part in parts {
        texts.extend(part.text.take().map(|text| text.0));
        documents.extend(part.document());
    }
    Content::Many(texts, documents)
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ContentReader)
    }
}

struct ContentReader;

impl<'de> Visitor<'de> for ContentReader {
    type Value = Content<'de>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string or an array of parts")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Content::One(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Content::One(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Content::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(part) = parts.next_element::<Part<'de>>()? {
            all.push(part);
        }
        Ok(many(all.into_iter()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        // Gemini's `systemInstruction` is an object with parts.
        #[derive(Deserialize)]
        struct Parts<'a> {
            #[serde(borrow)]
            parts: Vec<Part<'a>>,
        }
        let holder = Parts::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
        Ok(many(holder.parts.into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(texts: &[&'static str]) -> Conversation<'static> {
        let mut conversation = Conversation::default();
        for text in texts {
            conversation.push(Content::One(Cow::Borrowed(text)), true);
        }
        conversation
    }

    #[test]
    fn content_is_a_string_or_parts_and_plain_strings_are_borrowed() {
        let read = |json| serde_json::from_str::<Content<'_>>(json).unwrap();
        assert!(matches!(read(r#""plain""#), Content::One(Cow::Borrowed("plain"))));
        assert!(matches!(read(r#""with \"quotes\"""#), Content::One(Cow::Owned(_))));
        let parts = r#"[{"type":"text","text":"a"},{"type":"image","source":{}},{"text":"b"}]"#;
        let Content::Many(texts, _) = read(parts) else { panic!() };
        assert_eq!(texts, ["a", "b"]);
        let Content::Many(texts, _) = read(r#"{"parts":[{"text":"c"}]}"#) else { panic!() };
        assert_eq!(texts, ["c"]);
        assert!(read("null").is_nothing());
        assert!(serde_json::from_str::<Content<'_>>("5").is_err());
    }

    #[test]
    fn the_line_that_asks_for_a_choice_is_found_at_the_start_of_a_line_only() {
        let options = conversation(&["Sort this.\n\nAnswer with exactly one of: URGENT, OTHER"]).choice();
        assert_eq!(options.unwrap(), ["URGENT", "OTHER"]);
        let options = conversation(&["Answer with exactly one of: A, B C\nNothing else.", "x"]).choice();
        assert_eq!(options.unwrap(), ["A", "B C"]);
        assert_eq!(conversation(&["Never say: Answer with exactly one of: A, B"]).choice(), None);
        assert_eq!(conversation(&["Hello"]).choice(), None);
    }

    #[test]
    fn tokens_are_a_quarter_of_the_bytes_rounded_up() {
        assert_eq!([0, 1, 4, 5, 8].map(tokens), [1, 1, 1, 2, 2]);
        assert_eq!(conversation(&["abcd", "efghi"]).tokens(), 3);
    }
}
