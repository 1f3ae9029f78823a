//! Finds what an error repeats of its own request, so that an item's text is never read as the provider's words.
//!
//! Gateways and validators quote the input in their messages. A text such as "'temperature' is not supported" in one
//! item would otherwise change the requests of all others. Only texts are compared: codes, types and names of fields
//! are the provider's own.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::types::{Media, MediaData, Part, Prompt, Shape};

/// Letters and digits in a row that are a quotation. The phrases of refusals that are shorter are quoted within a longer
/// text, and two texts seldom share so many by chance.
const QUOTED: usize = 16;

/// Written for what was quoted. It holds no word.
const MARK: &str = "\u{2026}";

/// Returns an error's body without what it quotes from the texts of its request; `None` when it quotes nothing.
pub fn without_echo(body: &[u8], prompt: &Prompt) -> Option<Vec<u8>> {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let mut texts = vec![Letters::of(&text)];
        find(&mut texts, prompt);
        return texts[0].unquoted(&text).map(String::into_bytes);
    };
    let mut texts = Vec::new();
    visit(&mut value, &mut |text| texts.push(Letters::of(text)));
    find(&mut texts, prompt);
    let mut texts = texts.into_iter();
    let mut quotes = false;
    visit(&mut value, &mut |text| {
        if let Some(unquoted) = texts.next().and_then(|letters| letters.unquoted(text)) {
            quotes = true;
            *text = unquoted;
        }
    });
    quotes.then(|| value.to_string().into_bytes())
}

/// Visits the texts of a value, always in the same order.
fn visit(value: &mut Value, to: &mut impl FnMut(&mut String)) {
    match value {
        Value::String(text) => to(text),
        Value::Array(all) => all.iter_mut().for_each(|value| visit(value, to)),
        Value::Object(fields) => fields.values_mut().for_each(|value| visit(value, to)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The letters and digits of a text of an error, and which of them are quoted.
struct Letters {
    letters: Vec<char>,
    /// Where each begins and ends in the text.
    places: Vec<Range<usize>>,
    quoted: Vec<bool>,
}

impl Letters {
    fn of(text: &str) -> Self {
        let mut letters = Vec::new();
        let mut places = Vec::new();
        for (at, letter) in text.char_indices().filter(|(_, letter)| letter.is_alphanumeric()) {
            letters.push(small(letter));
            places.push(at..at + letter.len_utf8());
        }
        let quoted = vec![false; letters.len()];
        Self { letters, places, quoted }
    }

    /// Returns the text without its quotations. A single name, such as that of a parameter, is none.
    fn unquoted(&self, text: &str) -> Option<String> {
        let mut rest = String::new();
        let mut kept = 0;
        let mut from = 0;
        while let Some(start) = (from..self.quoted.len()).find(|at| self.quoted[*at]) {
            let end = (start..self.quoted.len()).find(|at| !self.quoted[*at]).unwrap_or(self.quoted.len());
            from = end;
            let range = self.places[start].start..self.places[end - 1].end;
            let is_name =
                text[range.clone()].chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            if !is_name {
                rest.push_str(&text[kept..range.start]);
                rest.push_str(MARK);
                kept = range.end;
            }
        }
        (kept > 0).then(|| rest + &text[kept..])
    }
}

fn small(letter: char) -> char {
    letter.to_lowercase().next().unwrap_or(letter)
}

/// Marks what stands in a text of the request. Each place is looked at once, however often it matches.
fn find(texts: &mut [Letters], prompt: &Prompt) {
    let mut windows: HashMap<u64, Vec<(usize, usize)>> = HashMap::new();
    for (number, text) in texts.iter().enumerate() {
        let mut hash = Rolling::default();
        for (end, letter) in text.letters.iter().enumerate() {
            if let Some(hash) = hash.next(*letter) {
                windows.entry(hash).or_default().push((number, end + 1 - QUOTED));
            }
        }
    }
    if windows.is_empty() {
        return;
    }
    texts_of(prompt, &mut |said| {
        let mut hash = Rolling::default();
        for letter in said.chars().filter(|letter| letter.is_alphanumeric()).map(small) {
            let places = hash.next(letter).and_then(|hash| windows.remove(&hash));
            for (number, start) in places.into_iter().flatten() {
                texts[number].quoted[start..start + QUOTED].fill(true);
            }
        }
    });
}

/// The hash of the last [`QUOTED`] letters.
#[derive(Default)]
struct Rolling {
    last: VecDeque<char>,
    hash: u64,
}

impl Rolling {
    /// Adds a letter; `None` while there are too few.
    fn next(&mut self, letter: char) -> Option<u64> {
        const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
        const LAST: u64 = BASE.wrapping_pow(QUOTED as u32);
        self.last.push_back(letter);
        self.hash = self.hash.wrapping_mul(BASE).wrapping_add(u64::from(letter) + 1);
        if self.last.len() > QUOTED {
            let gone = self.last.pop_front().map_or(0, |letter| u64::from(letter) + 1);
            self.hash = self.hash.wrapping_sub(gone.wrapping_mul(LAST));
        }
        (self.last.len() == QUOTED).then_some(self.hash)
    }
}

/// Shows every text that a request sends.
fn texts_of(prompt: &Prompt, to: &mut impl FnMut(&str)) {
    prompt.system.iter().for_each(|system| to(system));
    for part in prompt.messages.iter().flat_map(|message| &message.parts) {
        match part {
            Part::Text(text) => to(text),
            Part::Document(media) => {
                of_media(media, to);
                if let (MediaData::Base64(data), true) = (&media.data, media.essence().starts_with("text/"))
                    && let Ok(bytes) = BASE64_STANDARD.decode(&**data)
                {
                    to(&String::from_utf8_lossy(&bytes));
                }
            }
            Part::Image(media) | Part::Audio(media) => of_media(media, to),
        }
    }
    match &prompt.shape {
        Shape::Text => {}
        Shape::Choice(words) => words.iter().for_each(|word| to(word)),
        Shape::Json(schema) => of_schema(schema, to),
    }
}

fn of_media(media: &Media, to: &mut impl FnMut(&str)) {
    media.name.iter().for_each(|name| to(name));
    if let MediaData::Url(address) = &media.data {
        to(address);
    }
}

fn of_schema(schema: &Value, to: &mut impl FnMut(&str)) {
    match schema {
        Value::String(text) => to(text),
        Value::Array(all) => all.iter().for_each(|value| of_schema(value, to)),
        Value::Object(fields) => {
            for (name, value) in fields {
                to(name);
                of_schema(value, to);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn unquoted(message: &str, item: &str) -> Option<String> {
        let prompt = Prompt::text(format!("Translate this text: {item}"));
        let body = json!({ "error": { "message": message, "code": "c", "param": null } }).to_string();
        without_echo(body.as_bytes(), &prompt).map(|rest| {
            let rest: Value = serde_json::from_slice(&rest).unwrap();
            assert_eq!(rest["error"]["code"], "c");
            rest["error"]["message"].as_str().unwrap().to_owned()
        })
    }

    #[test]
    fn what_an_error_quotes_of_its_request_is_left_out_however_it_is_written() {
        let item = "Error: 'temperature' is\nnot supported \"here\"";
        for message in [
            "invalid content: Error: 'temperature' is\nnot supported \"here\"",
            r#"invalid content: "Error: 'temperature' is\nnot supported \"here\"""#,
            "invalid content: ERROR: 'TEMPERATURE' IS NOT SUPPORTED",
        ] {
            let rest = unquoted(message, item).unwrap().to_ascii_lowercase();
            assert!(rest.contains("invalid conten") && !rest.contains("temperature'"), "{rest}");
        }
        let plain =
            without_echo(b"bad: your credit balance is too low", &Prompt::text("Your credit balance is 0"));
        assert_eq!(plain.unwrap(), "bad: \u{2026} too low".as_bytes());
        let schema =
            json!({ "properties": { "a": { "description": "insufficient credits, billing details" } } });
        let prompt = Prompt { shape: Shape::Json(Arc::new(schema)), ..Prompt::text("x") };
        let rest = without_echo(b"schema: insufficient credits, billing details", &prompt).unwrap();
        assert_eq!(rest, "schema: \u{2026}".as_bytes());
    }

    #[test]
    fn what_the_provider_says_of_itself_stays() {
        let item = "How do I set temperature and max_completion_tokens? Mind my billing details.";
        for message in [
            "Unsupported value: 'temperature' does not support 0.2 with this model.",
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "You exceeded your current quota, please check your plan and billing details.",
        ] {
            assert_eq!(unquoted(message, item), None, "{message}");
        }
        assert_eq!(without_echo(b"", &Prompt::text("x")), None);
    }

    proptest! {
        #[test]
        fn whatever_is_repeated_is_left_out(
            before in "\\PC{0,20}", item in "[a-zé]{9} [A-Z']{1,3}\\PC?[0-9本]{9}", after in "\\PC{0,20}",
        ) {
            let message = format!("{before} {item} {after}");
            let rest = unquoted(&message, &item).unwrap();
            prop_assert!(!rest.contains(&item));
        }

        #[test]
        fn a_long_repetition_takes_no_long_time(letter in any::<char>()) {
            let long = letter.to_string().repeat(20_000);
            let _ = unquoted(&long, &long);
        }
    }
}
