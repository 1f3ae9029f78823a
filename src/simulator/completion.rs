//! Generates answers: one of the choices, JSON for the schema, or text. Text is marked as simulated.
//!
//! An answer depends only on the settings, the request and its random values.

use std::borrow::Cow;

use fastrand::Rng;
use serde_json::{Value, json};

use super::example::{self, ANSWER_PREFIX};
use super::parsed_request::{AnswerFormat, Delivery, ParsedRequest, tokens};
use super::rng::{Purpose, RequestRng};
use super::{FaultKind, Settings};

/// Maximum number of words of the user message that the default answer repeats.
const MAX_WORDS_IN_DEFAULT_ANSWER: usize = 24;
const REFUSAL_TEXT: &str = "I can't help with that request.";

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    /// `max_tokens` was reached.
    Length,
    /// The model refused. The text is its refusal.
    Refusal,
}

/// A generated answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) text: String,
    pub(super) finish: Finish,
    pub(super) output_tokens: u64,
}

impl Completion {
    fn new(text: String, finish: Finish) -> Self {
        let output_tokens = tokens(text.len());
        Self { text, finish, output_tokens }
    }
}

/// Generates the answer to `request`. Applies `fault` if it affects the content.
pub(super) fn generate(
    settings: &Settings,
    request: &ParsedRequest<'_>,
    request_rng: RequestRng,
    fault: Option<FaultKind>,
) -> Completion {
    match fault {
        Some(FaultKind::Refusal) => return Completion::new(REFUSAL_TEXT.to_owned(), Finish::Refusal),
        Some(FaultKind::Empty) => return Completion::new(String::new(), Finish::Stop),
        Some(FaultKind::WrongContent) => {
            return Completion::new(invalid_text(request, request_rng), Finish::Stop);
        }
        _ => {}
    }
    let whole = valid_answer(settings, request, request_rng);
    match fault {
        Some(FaultKind::Length) => Completion::new(truncated(whole.text, 1, 2), Finish::Length),
        Some(FaultKind::TruncatedJson) if request.delivery != Delivery::Full => {
            Completion::new(truncated(whole.text, 2, 3), Finish::Stop)
        }
        _ => whole,
    }
}

fn valid_answer(settings: &Settings, request: &ParsedRequest<'_>, request_rng: RequestRng) -> Completion {
    let mut rng = request_rng.for_purpose(Purpose::Content);
    match &request.format {
        AnswerFormat::Text => text_answer(settings, request, request_rng),
        AnswerFormat::Choice(options) => {
            Completion::new(options[rng.usize(..options.len())].clone(), Finish::Stop)
        }
        AnswerFormat::Object | AnswerFormat::Schema(_) => {
            Completion::new(structured(request, &mut rng).to_string(), Finish::Stop)
        }
    }
}

fn structured(request: &ParsedRequest<'_>, rng: &mut Rng) -> Value {
    let words: Vec<&str> = words(request).take(200).collect();
    match &request.format {
        AnswerFormat::Schema(schema) => example::example_from(schema, &words, rng),
        _ => {
            json!({ "simulated": true, "answer": words[..words.len().min(MAX_WORDS_IN_DEFAULT_ANSWER)].join(" ") })
        }
    }
}

/// Returns an answer that is invalid for the request: of another type than requested, or none of the options.
fn invalid_text(request: &ParsedRequest<'_>, request_rng: RequestRng) -> String {
    match &request.format {
        AnswerFormat::Text | AnswerFormat::Choice(_) => format!("{ANSWER_PREFIX} none of these"),
        AnswerFormat::Object => json!([ANSWER_PREFIX, "wrong content"]).to_string(),
        AnswerFormat::Schema(_) => {
            match structured(request, &mut request_rng.for_purpose(Purpose::Content)) {
                Value::String(_) => json!({ "simulated": "wrong content" }).to_string(),
                _ => json!(format!("{ANSWER_PREFIX} wrong content")).to_string(),
            }
        }
    }
}

fn text_answer(settings: &Settings, request: &ParsedRequest<'_>, request_rng: RequestRng) -> Completion {
    let Some(length) = settings.answer_tokens else {
        // The default answer is shortened to `max_tokens`, so that it is never cut.
        let mut text = ANSWER_PREFIX.to_owned();
        for word in words(request).take(MAX_WORDS_IN_DEFAULT_ANSWER) {
            if request.max_tokens.is_some_and(|limit| tokens(text.len() + 1 + word.len()) > limit) {
                break;
            }
            text.push(' ');
            text.push_str(word);
        }
        return Completion::new(text, Finish::Stop);
    };
    let sampled = length.sample(&mut request_rng.for_purpose(Purpose::Length));
    let output_tokens = request.max_tokens.map_or(sampled, |limit| sampled.min(limit.max(1)));
    let finish = if output_tokens < sampled { Finish::Length } else { Finish::Stop };
    let mut completion = Completion::new(repeated_words(words(request), output_tokens as usize * 4), finish);
    // A cut before a long character may lose the last token, but the account is charged for it.
    completion.output_tokens = output_tokens;
    completion
}

/// Returns `bytes` bytes of repeated words, cut at the last complete character.
fn repeated_words<'a>(words: impl Iterator<Item = &'a str> + Clone, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    text.push_str(ANSWER_PREFIX);
    // A large prompt may be a single word: copy only as much as needed.
    for word in words.cycle() {
        if text.len() >= bytes {
            break;
        }
        text.push(' ');
        text.push_str(&word[..word.floor_char_boundary(bytes)]);
    }
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Returns the words of the last user message, or a placeholder if there are none.
fn words<'a>(request: &'a ParsedRequest<'_>) -> impl Iterator<Item = &'a str> + Clone {
    let message = request.conversation.last_user_message();
    let empty = message.iter().all(|text| text.trim().is_empty());
    let placeholder = empty.then_some("(a message without words)");
    message.iter().flat_map(|text: &Cow<'_, str>| text.split_whitespace()).chain(placeholder)
}

fn truncated(mut text: String, numerator: usize, denominator: usize) -> String {
    text.truncate(text.floor_char_boundary(text.len() * numerator / denominator));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Length;
    use crate::simulator::parsed_request::{Content, Conversation};

    fn request(text: &str, format: AnswerFormat, max_tokens: Option<u64>) -> ParsedRequest<'_> {
        let mut conversation = Conversation::default();
        conversation.push(Content::Text(Cow::Borrowed(text)), true);
        ParsedRequest { model: "m".into(), delivery: Delivery::Full, conversation, max_tokens, format }
    }

    fn request_rng(request_hash: u64) -> RequestRng {
        RequestRng::new(1, request_hash, 0)
    }

    #[test]
    fn a_text_answer_is_marked_and_repeats_the_user_message() {
        let request = request("Summarise the letter of Mr Gray.", AnswerFormat::Text, None);
        let completion = generate(&Settings::default(), &request, request_rng(1), None);
        assert_eq!(completion.text, "[simulated] Summarise the letter of Mr Gray.");
        assert_eq!((completion.finish, completion.output_tokens), (Finish::Stop, 11));
    }

    #[test]
    fn the_default_answer_fits_any_token_limit() {
        let long = "word ".repeat(500);
        for limit in [3, 4, 10, 1_000] {
            let request = request(&long, AnswerFormat::Text, Some(limit));
            let completion = generate(&Settings::default(), &request, request_rng(1), None);
            assert_eq!(completion.finish, Finish::Stop);
            assert!(completion.output_tokens <= limit, "{} of {limit}", completion.output_tokens);
        }
    }

    #[test]
    fn an_answer_has_the_configured_length_and_is_cut_at_max_tokens() {
        let settings = Settings { answer_tokens: Some(Length::Fixed(400)), ..Settings::default() };
        for (message, limit, tokens, finish) in [
            ("Grüße 🌊 an alle", None, 400, Finish::Stop),
            ("Grüße 🌊 an alle", Some(100), 100, Finish::Length),
            ("", Some(400), 400, Finish::Stop),
        ] {
            let request = request(message, AnswerFormat::Text, limit);
            let completion = generate(&settings, &request, request_rng(1), None);
            assert_eq!((completion.output_tokens, completion.finish), (tokens, finish));
            assert!(
                completion.text.len() as u64 > tokens * 4 - 4 && completion.text.len() as u64 <= tokens * 4
            );
            assert!(completion.text.starts_with(ANSWER_PREFIX));
        }
    }

    #[test]
    fn each_option_is_chosen_by_some_request_and_wrong_content_is_no_option() {
        let options = ["A".to_owned(), "B".to_owned(), "C".to_owned()];
        let request = request("Which?", AnswerFormat::Choice(options.to_vec()), Some(5));
        let mut seen: Vec<_> = (0..50)
            .map(|hash| generate(&Settings::default(), &request, request_rng(hash), None).text)
            .collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, options);
        let wrong =
            generate(&Settings::default(), &request, request_rng(1), Some(FaultKind::WrongContent)).text;
        assert!(!options.contains(&wrong));
    }

    #[test]
    fn wrong_content_is_valid_json_that_violates_the_schema() {
        for schema in [
            json!({ "type": "object" }),
            json!({ "type": "string" }),
            json!({ "type": "array", "items": { "type": "string" } }),
            json!({ "enum": ["a", "b"] }),
            json!({ "type": "integer" }),
        ] {
            let request = request("Which?", AnswerFormat::Schema(schema.clone()), None);
            let wrong =
                generate(&Settings::default(), &request, request_rng(1), Some(FaultKind::WrongContent)).text;
            let value: Value = serde_json::from_str(&wrong).unwrap();
            assert!(!jsonschema::is_valid(&schema, &value), "{schema} {wrong}");
        }
    }
}
