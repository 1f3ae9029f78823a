//! Removes text of the request from the body of an error, so that the text of an item is never parsed as the
//! error message of the provider.
//!
//! Gateways and validators quote the input in their messages. A text such as "'temperature' is not supported" in
//! one item would otherwise change the requests of all other items. Only string values are compared: codes, types
//! and field names come from the provider.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

use crate::types::{Media, MediaData, Part, Prompt, ResponseFormat};

/// The minimum number of consecutive letters and digits of a quotation. Error phrases that are shorter appear
/// within a longer quotation, and two texts seldom share this many by chance.
const MIN_QUOTED_LETTERS: usize = 16;

/// Replaces a quotation. It contains no letters.
const ELLIPSIS: &str = "\u{2026}";

/// Returns the body of an error without its quotations of the request; `None` if it quotes nothing.
pub fn strip_echo(body: &[u8], prompt: &Prompt) -> Option<Vec<u8>> {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let mut texts = vec![NormalizedText::of(&text)];
        mark_quotes(&mut texts, prompt);
        return texts[0].without_quotes(&text).map(String::into_bytes);
    };
    let mut texts = Vec::new();
    visit_texts(&mut value, &mut |text| texts.push(NormalizedText::of(text)));
    mark_quotes(&mut texts, prompt);
    let mut texts = texts.into_iter();
    let mut quotes = false;
    visit_texts(&mut value, &mut |text| {
        if let Some(without_quotes) = texts.next().and_then(|letters| letters.without_quotes(text)) {
            quotes = true;
            *text = without_quotes;
        }
    });
    quotes.then(|| value.to_string().into_bytes())
}

/// Visits all strings of a value in a fixed order.
fn visit_texts(value: &mut Value, visitor: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => visitor(text),
        Value::Array(all) => all.iter_mut().for_each(|value| visit_texts(value, visitor)),
        Value::Object(fields) => fields.values_mut().for_each(|value| visit_texts(value, visitor)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The letters and digits of one string of an error, and which of them are quoted.
struct NormalizedText {
    letters: Vec<char>,
    /// The byte range of each letter in the string.
    ranges: Vec<Range<usize>>,
    quoted: Vec<bool>,
}

impl NormalizedText {
    fn of(text: &str) -> Self {
        let mut letters = Vec::new();
        let mut ranges = Vec::new();
        for (at, letter) in text.char_indices().filter(|(_, letter)| letter.is_alphanumeric()) {
            letters.push(lowercase(letter));
            ranges.push(at..at + letter.len_utf8());
        }
        let quoted = vec![false; letters.len()];
        Self { letters, ranges, quoted }
    }

    /// Returns the text without its quotations. A single name, such as that of a parameter, is not a quotation.
    fn without_quotes(&self, text: &str) -> Option<String> {
        let mut rest = String::new();
        let mut kept = 0;
        let mut from = 0;
        while let Some(start) = (from..self.quoted.len()).find(|at| self.quoted[*at]) {
            let end = (start..self.quoted.len()).find(|at| !self.quoted[*at]).unwrap_or(self.quoted.len());
            from = end;
            let range = self.ranges[start].start..self.ranges[end - 1].end;
            let is_name =
                text[range.clone()].chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            if !is_name {
                rest.push_str(&text[kept..range.start]);
                rest.push_str(ELLIPSIS);
                kept = range.end;
            }
        }
        (kept > 0).then(|| rest + &text[kept..])
    }
}

fn lowercase(letter: char) -> char {
    letter.to_lowercase().next().unwrap_or(letter)
}

/// Marks the letters that occur in a text of the request. Each position is marked once, however often it matches.
fn mark_quotes(texts: &mut [NormalizedText], prompt: &Prompt) {
    let mut windows: HashMap<u64, Vec<(usize, usize)>> = HashMap::new();
    for (number, text) in texts.iter().enumerate() {
        let mut hash = RollingHash::default();
        for (end, letter) in text.letters.iter().enumerate() {
            if let Some(hash) = hash.next(*letter) {
                windows.entry(hash).or_default().push((number, end + 1 - MIN_QUOTED_LETTERS));
            }
        }
    }
    if windows.is_empty() {
        return;
    }
    visit_prompt_texts(prompt, &mut |text| {
        let mut hash = RollingHash::default();
        for letter in text.chars().filter(|letter| letter.is_alphanumeric()).map(lowercase) {
            let ranges = hash.next(letter).and_then(|hash| windows.remove(&hash));
            for (number, start) in ranges.into_iter().flatten() {
                texts[number].quoted[start..start + MIN_QUOTED_LETTERS].fill(true);
            }
        }
    });
}

/// The rolling hash of the last [`MIN_QUOTED_LETTERS`] letters.
#[derive(Default)]
struct RollingHash {
    last: VecDeque<char>,
    hash: u64,
}

impl RollingHash {
    /// Adds a letter and returns the hash; `None` while there are too few letters.
    fn next(&mut self, letter: char) -> Option<u64> {
        const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
        const OLDEST_FACTOR: u64 = BASE.wrapping_pow(MIN_QUOTED_LETTERS as u32);
        self.last.push_back(letter);
        self.hash = self.hash.wrapping_mul(BASE).wrapping_add(u64::from(letter) + 1);
        if self.last.len() > MIN_QUOTED_LETTERS {
            let oldest = self.last.pop_front().map_or(0, |letter| u64::from(letter) + 1);
            self.hash = self.hash.wrapping_sub(oldest.wrapping_mul(OLDEST_FACTOR));
        }
        (self.last.len() == MIN_QUOTED_LETTERS).then_some(self.hash)
    }
}

/// Visits every text that a request sends.
fn visit_prompt_texts(prompt: &Prompt, visitor: &mut impl FnMut(&str)) {
    prompt.system.iter().for_each(|system| visitor(system));
    prompt.messages.iter().for_each(|message| visit_parts(&message.parts, visitor));
    match &prompt.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::Choice(words) => words.iter().for_each(|word| visitor(word)),
        ResponseFormat::Json(schema) => visit_json_texts(schema, visitor),
    }
    for tool in &prompt.tools {
        visitor(&tool.name);
        tool.description.iter().for_each(|description| visitor(description));
        visit_json_texts(&tool.parameters, visitor);
    }
    prompt.stop.iter().chain(&prompt.user).for_each(|text| visitor(text));
    for fields in &prompt.vendor_fields {
        visit_fields(&fields.fields, visitor);
    }
}

fn visit_parts(parts: &[Part], visitor: &mut impl FnMut(&str)) {
    for part in parts {
        match part {
            Part::Text(text) => visitor(text),
            Part::Document(media) => {
                visit_media_texts(media, visitor);
                if let (MediaData::Base64(data), true) = (&media.data, media.essence().starts_with("text/"))
                    && let Ok(bytes) = BASE64_STANDARD.decode(&**data)
                {
                    visitor(&String::from_utf8_lossy(&bytes));
                }
            }
            Part::Image(media) | Part::Audio(media) | Part::Video(media) => visit_media_texts(media, visitor),
            Part::ToolCall(call) => {
                visitor(&call.id);
                visitor(&call.name);
                // An error quotes the arguments as they were sent, or single values of them.
                visitor(&call.arguments);
                if let Ok(arguments) = serde_json::from_str(&call.arguments) {
                    visit_json_texts(&arguments, visitor);
                }
                call.signature.iter().for_each(|signature| visitor(&signature.value));
            }
            Part::ToolResult(result) => {
                visitor(&result.call_id);
                visit_parts(&result.parts, visitor);
            }
            Part::Reasoning(reasoning) => {
                visitor(&reasoning.text);
                reasoning.signature.iter().for_each(|signature| visitor(&signature.value));
            }
        }
    }
}

fn visit_media_texts(media: &Media, visitor: &mut impl FnMut(&str)) {
    media.name.iter().for_each(|name| visitor(name));
    if let MediaData::Url(address) = &media.data {
        visitor(address);
    }
}

fn visit_json_texts(value: &Value, visitor: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visitor(text),
        Value::Array(all) => all.iter().for_each(|value| visit_json_texts(value, visitor)),
        Value::Object(fields) => visit_fields(fields, visitor),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn visit_fields(fields: &Map<String, Value>, visitor: &mut impl FnMut(&str)) {
    for (name, value) in fields {
        visitor(name);
        visit_json_texts(value, visitor);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::types::{Message, Reasoning, Role, Tool, ToolCall, ToolResult};

    fn without_quotes(message: &str, item: &str) -> Option<String> {
        let prompt = Prompt::text(format!("Translate this text: {item}"));
        let body = json!({ "error": { "message": message, "code": "c", "param": null } }).to_string();
        strip_echo(body.as_bytes(), &prompt).map(|rest| {
            let rest: Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!(rest["error"]["code"], "c");
            rest["error"]["message"].as_str().unwrap().to_owned()
        })
    }

    #[test]
    fn quotations_of_the_request_are_removed_in_every_notation() {
        let item = "Error: 'temperature' is\nnot supported \"here\"";
        for message in [
            "invalid content: Error: 'temperature' is\nnot supported \"here\"",
            r#"invalid content: "Error: 'temperature' is\nnot supported \"here\"""#,
            "invalid content: ERROR: 'TEMPERATURE' IS NOT SUPPORTED",
        ] {
            let rest = without_quotes(message, item).unwrap().to_ascii_lowercase();
            assert!(rest.contains("invalid conten") && !rest.contains("temperature'"), "{rest}");
        }
        let plain =
            strip_echo(b"bad: your credit balance is too low", &Prompt::text("Your credit balance is 0"));
        assert_eq!(plain.unwrap(), "bad: \u{2026} too low".as_bytes());
        let schema =
            json!({ "properties": { "a": { "description": "insufficient credits, billing details" } } });
        let prompt = Prompt { response_format: ResponseFormat::Json(Arc::new(schema)), ..Prompt::text("x") };
        let rest = strip_echo(b"schema: insufficient credits, billing details", &prompt).unwrap();
        assert_eq!(rest, "schema: \u{2026}".as_bytes());
    }

    #[test]
    fn quotations_of_tools_their_calls_and_their_results_are_removed() {
        let text = "insufficient credits, billing details";
        let arguments = json!({ "note": format!("\u{e9}\n{text}") }).to_string();
        let call = || ToolCall::new("a", "note", &*arguments);
        let of_assistant = |part| Prompt::text("x").with_message(Message::new(Role::Assistant, [part]));
        let parameters = json!({ "type": "object", "description": text });
        for prompt in [
            Prompt::text("x").with_message(Message::new(Role::System, [Part::text(text)])),
            Prompt::text("x").with_tool(Tool::new("note", parameters)),
            Prompt::text("x").with_tool(Tool::new("note", json!({})).with_description(text)),
            of_assistant(Part::ToolCall(call())),
            of_assistant(Part::ToolCall(ToolCall::new(text, "note", "{}"))),
            of_assistant(Part::Reasoning(Reasoning::new(text))),
            Prompt::text("x").with_message(Message::tool([ToolResult::new("a", text)])),
            Prompt::text("x").with_stop([text]),
            Prompt::text("x").with_user(text),
        ] {
            let rest = strip_echo(format!("bad: {text}").as_bytes(), &prompt);
            assert_eq!(rest.as_deref(), Some("bad: \u{2026}".as_bytes()), "{prompt:?}");
        }
        let quoted = format!("bad arguments {arguments}");
        let rest = strip_echo(quoted.as_bytes(), &of_assistant(Part::ToolCall(call()))).unwrap();
        assert!(!String::from_utf8(rest).unwrap().contains("billing"));
    }

    #[test]
    fn the_words_of_the_provider_are_kept() {
        let item = "How do I set temperature and max_completion_tokens? Mind my billing details.";
        for message in [
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "You exceeded your current quota, please check your plan and billing details.",
        ] {
            assert_eq!(without_quotes(message, item), None, "{message}");
        }
        assert_eq!(strip_echo(b"", &Prompt::text("x")), None);
    }

    proptest! {
        #[test]
        fn any_repeated_text_is_removed(
            before in "\\PC{0,20}", item in "[a-zé]{9} [A-Z']{1,3}\\PC?[0-9本]{9}", after in "\\PC{0,20}",
        ) {
            let message = format!("{before} {item} {after}");
            let rest = without_quotes(&message, &item).unwrap();
            prop_assert!(!rest.contains(&item));
        }

        #[test]
        fn a_long_repetition_is_fast(letter in any::<char>()) {
            let long = letter.to_string().repeat(20_000);
            let _ = without_quotes(&long, &long);
        }
    }
}
