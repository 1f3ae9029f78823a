//! Generates answers: tool calls, one of the choices, JSON for the schema, or text. Text is marked as simulated.
//!
//! An answer depends only on the settings, the request and its random values.

mod generated;

use std::borrow::Cow;

use fastrand::Rng;
use serde_json::{Value, json};

use super::example::{self, ANSWER_PREFIX};
use super::parsed_request::{AnswerFormat, Delivery, ParsedRequest, tokens};
use super::reasoning::ReasoningRequest;
use super::rng::{Purpose, RequestRng};
use super::tool_settings::OfferedTool;
use super::{Fault, FaultKind, Settings};

pub(super) use generated::{Completion, Finish, GeneratedCall, GeneratedReasoning};

/// Maximum number of words of the user message that the default answer repeats.
const MAX_WORDS_IN_DEFAULT_ANSWER: usize = 24;
/// Maximum number of words of the user message that the reasoning repeats.
const MAX_WORDS_IN_REASONING: usize = 12;
const REFUSAL_TEXT: &str = "I can't help with that request.";
/// Name of the tool that an answer calls although the request does not offer it.
const UNOFFERED_TOOL: &str = "simulated_unoffered_tool";

/// Generates the answer to `request`. Applies `fault` if it affects the content.
pub(super) fn generate(
    settings: &Settings,
    request: &ParsedRequest<'_>,
    request_rng: RequestRng,
    fault: Option<&Fault>,
) -> Completion {
    let kind = fault.map(|fault| fault.kind);
    match kind {
        Some(FaultKind::Refusal) => return Completion::new(REFUSAL_TEXT.to_owned(), Finish::Refusal),
        Some(FaultKind::Empty) => return Completion::new(String::new(), Finish::Stop),
        Some(FaultKind::WrongContent) => {
            return Completion::new(invalid_text(request, request_rng), Finish::Stop);
        }
        Some(FaultKind::UnofferedToolCall) => {
            let has_text = fault.and_then(|fault| fault.with_text).unwrap_or(false);
            let text = if has_text { default_text(request, request.max_tokens) } else { String::new() };
            return Completion::with_calls(text, vec![unoffered_call(request, request_rng)]);
        }
        _ => {}
    }
    if request.lacks_signature {
        return Completion { output_tokens: 0, ..Completion::new(String::new(), Finish::MissingSignature) };
    }
    let whole = valid_answer(settings, request, request_rng);
    match kind {
        Some(FaultKind::Length) => {
            Completion::new(truncated(whole.text, 1, 2), Finish::Length).with_reasoning(whole.reasoning)
        }
        Some(FaultKind::TruncatedJson) if request.delivery != Delivery::Full && whole.calls.is_empty() => {
            Completion::new(truncated(whole.text, 2, 3), Finish::Stop).with_reasoning(whole.reasoning)
        }
        _ => whole,
    }
}

fn valid_answer(settings: &Settings, request: &ParsedRequest<'_>, request_rng: RequestRng) -> Completion {
    let reasoning = request.reasoning.map(|asked| generate_reasoning(request, asked));
    let reasoning_tokens = reasoning.as_ref().map_or(0, |reasoning| reasoning.tokens);
    let limit = request.max_tokens.map(|limit| limit.saturating_sub(reasoning_tokens));
    let calls = tool_calls(request, request_rng);
    if !calls.is_empty() {
        return Completion::with_calls(String::new(), calls).with_reasoning(reasoning);
    }
    let mut rng = request_rng.for_purpose(Purpose::Content);
    let answer = match &request.format {
        AnswerFormat::Text => text_answer(settings, request, limit, request_rng),
        AnswerFormat::Choice(options) => {
            Completion::new(options[rng.usize(..options.len())].clone(), Finish::Stop)
        }
        AnswerFormat::Object | AnswerFormat::Schema(_) => {
            Completion::new(structured(request, &mut rng).to_string(), Finish::Stop)
        }
    };
    cut_at_stop(answer, &request.stop).with_reasoning(reasoning)
}

/// Cuts an answer before the first of the stop sequences, if one occurs.
fn cut_at_stop(answer: Completion, stop: &[String]) -> Completion {
    let found = stop.iter().filter(|stop| !stop.is_empty());
    let found = found.filter_map(|stop| answer.text.find(stop.as_str()).map(|at| (at, stop)));
    match found.min_by_key(|(at, _)| *at) {
        Some((at, stop)) => Completion::new(answer.text[..at].to_owned(), Finish::StopSequence(stop.clone())),
        None => answer,
    }
}

fn generate_reasoning(request: &ParsedRequest<'_>, asked: ReasoningRequest) -> GeneratedReasoning {
    let text = if asked.shows_text {
        let words: Vec<&str> = words(request).take(MAX_WORDS_IN_REASONING).collect();
        format!("{ANSWER_PREFIX} thinking about: {}", words.join(" "))
    } else {
        String::new()
    };
    let max = request.max_tokens.map_or(u64::MAX, |limit| limit / 2);
    GeneratedReasoning { text, tokens: asked.tokens.min(max), is_encrypted: asked.is_encrypted }
}

/// Returns the calls of the answer, with arguments that are valid for the tools' schemas.
fn tool_calls(request: &ParsedRequest<'_>, request_rng: RequestRng) -> Vec<GeneratedCall> {
    if request.conversation.ends_with_results() {
        return Vec::new();
    }
    let mut rng = request_rng.for_purpose(Purpose::ToolCall);
    let called = request.tools.called(request.conversation.last_user_message(), &mut rng);
    let words: Vec<&str> = words(request).take(200).collect();
    let call = |tool: &OfferedTool| {
        let id = call_id(&mut rng);
        let arguments = match example::example_from(&tool.schema, &words, &mut rng) {
            Value::Object(arguments) => Value::Object(arguments).to_string(),
            // A schema that does not say that the arguments are an object.
            _ => "{}".to_owned(),
        };
        GeneratedCall { id, name: tool.name.clone(), arguments }
    };
    called.into_iter().map(call).collect()
}

fn call_id(rng: &mut Rng) -> String {
    format!("{:016x}", rng.u64(..))
}

/// Returns a call of a tool that the request does not offer.
fn unoffered_call(request: &ParsedRequest<'_>, request_rng: RequestRng) -> GeneratedCall {
    let mut name = UNOFFERED_TOOL.to_owned();
    while request.tools.find(&name).is_some() {
        name.push('_');
    }
    let id = call_id(&mut request_rng.for_purpose(Purpose::ToolCall));
    GeneratedCall { id, name, arguments: json!({ "simulated": true }).to_string() }
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

/// Returns a short text of at most `limit` tokens, so that it is never cut.
fn default_text(request: &ParsedRequest<'_>, limit: Option<u64>) -> String {
    let mut text = ANSWER_PREFIX.to_owned();
    for word in words(request).take(MAX_WORDS_IN_DEFAULT_ANSWER) {
        if limit.is_some_and(|limit| tokens(text.len() + 1 + word.len()) > limit) {
            break;
        }
        text.push(' ');
        text.push_str(word);
    }
    text
}

/// Generates a text of at most `limit` tokens.
fn text_answer(
    settings: &Settings,
    request: &ParsedRequest<'_>,
    limit: Option<u64>,
    request_rng: RequestRng,
) -> Completion {
    let Some(length) = settings.answer_tokens else {
        return Completion::new(default_text(request, limit), Finish::Stop);
    };
    let sampled = length.sample(&mut request_rng.for_purpose(Purpose::Length));
    let output_tokens = limit.map_or(sampled, |limit| sampled.min(limit.max(1)));
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
    use crate::simulator::content::Content;
    use crate::simulator::parsed_request::Conversation;
    use crate::simulator::tool_settings::ToolSettings;

    fn request(text: &str, format: AnswerFormat, max_tokens: Option<u64>) -> ParsedRequest<'_> {
        let mut conversation = Conversation::default();
        conversation.push(Content::Text(Cow::Borrowed(text)), true);
        ParsedRequest {
            model: "m".into(),
            delivery: Delivery::Full,
            conversation,
            max_tokens,
            format,
            stop: Vec::new(),
            tools: ToolSettings::default(),
            reasoning: None,
            lacks_signature: false,
        }
    }

    fn wrong_content(request: &ParsedRequest<'_>) -> String {
        let fault = Fault::new(FaultKind::WrongContent);
        generate(&Settings::default(), request, request_rng(1), Some(&fault)).text
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
        let wrong = wrong_content(&request);
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
            let wrong = wrong_content(&request);
            let value: Value = serde_json::from_str(&wrong).unwrap();
            assert!(!jsonschema::is_valid(&schema, &value), "{schema} {wrong}");
        }
    }

    #[test]
    fn an_answer_ends_before_its_first_stop_sequence() {
        let stopped = ParsedRequest {
            stop: vec!["Mr".to_owned(), "letter".to_owned()],
            ..request("Summarise the letter of Mr Gray.", AnswerFormat::Text, None)
        };
        let completion = generate(&Settings::default(), &stopped, request_rng(1), None);
        assert_eq!(completion.text, "[simulated] Summarise the ");
        assert_eq!(completion.finish, Finish::StopSequence("letter".to_owned()));
        assert_eq!(completion.output_tokens, tokens(completion.text.len()));
    }

    #[test]
    fn reasoning_uses_at_most_half_of_the_limit_and_the_answer_the_rest() {
        let asked = ReasoningRequest { tokens: 64, shows_text: true, is_encrypted: false };
        let long = "word ".repeat(500);
        for limit in [8, 20, 1_000] {
            let reasoned =
                ParsedRequest { reasoning: Some(asked), ..request(&long, AnswerFormat::Text, Some(limit)) };
            let completion = generate(&Settings::default(), &reasoned, request_rng(1), None);
            assert_eq!(completion.reasoning_tokens(), (limit / 2).min(64));
            assert!(completion.output_tokens <= limit, "{} of {limit}", completion.output_tokens);
            assert!(completion.reasoning.unwrap().text.starts_with("[simulated] thinking about: word"));
        }
    }
}
