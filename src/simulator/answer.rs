//! Makes up answers: one of the choices, JSON for the schema, or prose that says it is practice.
//!
//! An answer is decided by the request and its draws. It never passes for a real one by accident.

use std::borrow::Cow;

use fastrand::Rng;
use serde_json::{Value, json};

use super::ask::{Ask, Delivery, Shape, tokens};
use super::draw::{Draws, Purpose};
use super::{FaultKind, Settings, example};

/// What prose and made-up strings begin with.
pub(super) const MARK: &str = "[practice]";
/// Most words of the question that a short answer repeats.
const SHORT: usize = 24;
const REFUSAL: &str = "I can't help with that request.";

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    /// At `max_tokens`.
    Length,
    /// The model declined; the text is its refusal.
    Refusal,
}

/// A made-up answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) finish: Finish,
    pub(super) output_tokens: u64,
}

impl Answer {
    fn new(text: String, finish: Finish) -> Self {
        let output_tokens = tokens(text.len());
        Self { text, finish, output_tokens }
    }
}

/// Makes up the answer to `ask`, spoilt by `fault` where that is about the content.
pub(super) fn answer(settings: &Settings, ask: &Ask<'_>, draws: Draws, fault: Option<FaultKind>) -> Answer {
    match fault {
        Some(FaultKind::Refusal) => return Answer::new(REFUSAL.to_owned(), Finish::Refusal),
        Some(FaultKind::Empty) => return Answer::new(String::new(), Finish::Stop),
        Some(FaultKind::WrongContent) => return Answer::new(wrong(ask, draws), Finish::Stop),
        _ => {}
    }
    let whole = right(settings, ask, draws);
    match fault {
        Some(FaultKind::Length) => Answer::new(cut(whole.text, 1, 2), Finish::Length),
        Some(FaultKind::TruncatedJson) if ask.delivery != Delivery::Whole => {
            Answer::new(cut(whole.text, 2, 3), Finish::Stop)
        }
        _ => whole,
    }
}

fn right(settings: &Settings, ask: &Ask<'_>, draws: Draws) -> Answer {
    let mut rng = draws.stream(Purpose::Content);
    match &ask.shape {
        Shape::Text => prose(settings, ask, draws),
        Shape::Choice(options) => Answer::new(options[rng.usize(..options.len())].clone(), Finish::Stop),
        Shape::Object | Shape::Schema(_) => Answer::new(structured(ask, &mut rng).to_string(), Finish::Stop),
    }
}

fn structured(ask: &Ask<'_>, rng: &mut Rng) -> Value {
    let words: Vec<&str> = words(ask).take(200).collect();
    match &ask.shape {
        Shape::Schema(schema) => example::of(schema, &words, rng),
        _ => json!({ "practice": true, "answer": words[..words.len().min(SHORT)].join(" ") }),
    }
}

/// Returns what a valid reply must not say: another type than was asked for, or no option.
fn wrong(ask: &Ask<'_>, draws: Draws) -> String {
    match &ask.shape {
        Shape::Text | Shape::Choice(_) => format!("{MARK} none of these"),
        Shape::Object => json!([MARK, "wrong content"]).to_string(),
        Shape::Schema(_) => match structured(ask, &mut draws.stream(Purpose::Content)) {
            Value::String(_) => json!({ "practice": "wrong content" }).to_string(),
            _ => json!(format!("{MARK} wrong content")).to_string(),
        },
    }
}

fn prose(settings: &Settings, ask: &Ask<'_>, draws: Draws) -> Answer {
    let Some(length) = settings.answer_tokens else {
        // The default answer is as short as it must be, so that it is never cut.
        let mut text = MARK.to_owned();
        for word in words(ask).take(SHORT) {
            if ask.max_tokens.is_some_and(|most| tokens(text.len() + 1 + word.len()) > most) {
                break;
            }
            text.push(' ');
            text.push_str(word);
        }
        return Answer::new(text, Finish::Stop);
    };
    let wanted = length.draw(&mut draws.stream(Purpose::Length));
    let given = ask.max_tokens.map_or(wanted, |most| wanted.min(most.max(1)));
    let finish = if given < wanted { Finish::Length } else { Finish::Stop };
    let mut answer = Answer::new(filled(words(ask), given as usize * 4), finish);
    // A cut before a wide character may cost the last token; the account says what was drawn.
    answer.output_tokens = given;
    answer
}

/// Returns words over and over until they are `bytes` long, cut at the last whole character.
fn filled<'a>(words: impl Iterator<Item = &'a str> + Clone, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    text.push_str(MARK);
    // A single word may be the whole of a large prompt: only what is needed is copied.
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

/// Returns the words of the question, or a stand-in where it has none.
fn words<'a>(ask: &'a Ask<'_>) -> impl Iterator<Item = &'a str> + Clone {
    let question = ask.conversation.question();
    let empty = question.iter().all(|text| text.trim().is_empty());
    let stand_in = empty.then_some("(a question without words)");
    question.iter().flat_map(|text: &Cow<'_, str>| text.split_whitespace()).chain(stand_in)
}

fn cut(mut text: String, numerator: usize, denominator: usize) -> String {
    text.truncate(text.floor_char_boundary(text.len() * numerator / denominator));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Length;
    use crate::simulator::ask::{Content, Conversation};

    fn ask(text: &str, shape: Shape, max_tokens: Option<u64>) -> Ask<'_> {
        let mut conversation = Conversation::default();
        conversation.push(Content::One(Cow::Borrowed(text)), true);
        Ask { model: "m".into(), delivery: Delivery::Whole, conversation, max_tokens, shape }
    }

    fn draws(request: u64) -> Draws {
        Draws::new(1, request, 0)
    }

    #[test]
    fn prose_is_marked_and_repeats_the_question() {
        let ask = ask("Summarise the letter of Mr Gray.", Shape::Text, None);
        let answer = answer(&Settings::default(), &ask, draws(1), None);
        assert_eq!(answer.text, "[practice] Summarise the letter of Mr Gray.");
        assert_eq!((answer.finish, answer.output_tokens), (Finish::Stop, 11));
    }

    #[test]
    fn the_default_answer_fits_any_limit_and_is_never_cut() {
        let long = "word ".repeat(500);
        for most in [3, 4, 10, 1_000] {
            let ask = ask(&long, Shape::Text, Some(most));
            let answer = answer(&Settings::default(), &ask, draws(1), None);
            assert_eq!(answer.finish, Finish::Stop);
            assert!(answer.output_tokens <= most, "{} of {most}", answer.output_tokens);
        }
    }

    #[test]
    fn a_long_answer_has_its_length_and_is_cut_at_max_tokens() {
        let settings = Settings { answer_tokens: Some(Length::Fixed(400)), ..Settings::default() };
        for (question, most, tokens, finish) in [
            ("Grüße 🌊 an alle", None, 400, Finish::Stop),
            ("Grüße 🌊 an alle", Some(100), 100, Finish::Length),
            ("", Some(400), 400, Finish::Stop),
        ] {
            let ask = ask(question, Shape::Text, most);
            let answer = answer(&settings, &ask, draws(1), None);
            assert_eq!((answer.output_tokens, answer.finish), (tokens, finish));
            assert!(answer.text.len() as u64 > tokens * 4 - 4 && answer.text.len() as u64 <= tokens * 4);
            assert!(answer.text.starts_with(MARK));
        }
    }

    #[test]
    fn every_choice_is_given_by_some_request_and_wrong_content_is_none_of_them() {
        let options = ["A".to_owned(), "B".to_owned(), "C".to_owned()];
        let ask = ask("Which?", Shape::Choice(options.to_vec()), Some(5));
        let mut seen: Vec<_> =
            (0..50).map(|request| answer(&Settings::default(), &ask, draws(request), None).text).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, options);
        let wrong = answer(&Settings::default(), &ask, draws(1), Some(FaultKind::WrongContent)).text;
        assert!(!options.contains(&wrong));
    }

    #[test]
    fn wrong_content_is_valid_json_that_breaks_the_schema() {
        for schema in [
            json!({ "type": "object" }),
            json!({ "type": "string" }),
            json!({ "type": "array", "items": { "type": "string" } }),
            json!({ "enum": ["a", "b"] }),
            json!({ "type": "integer" }),
        ] {
            let ask = ask("Which?", Shape::Schema(schema.clone()), None);
            let wrong = answer(&Settings::default(), &ask, draws(1), Some(FaultKind::WrongContent)).text;
            let value: Value = serde_json::from_str(&wrong).unwrap();
            assert!(!jsonschema::is_valid(&schema, &value), "{schema} {wrong}");
        }
    }
}
