//! Redacts a secret in text from a provider that repeats what it was sent: in errors and in answers.
//!
//! Also finds a secret whose characters are escaped as in JSON or in a URL, a secret with line ends or characters
//! in it that a terminal does not show, a secret in base64, a long part of a secret, and a secret that is cut off
//! at the end of a message. Never prints a secret.

use std::ops::Range;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::types::{Completion, Failure, Format, Part, Secret, Signature};

use super::random_word::has_digits_and_letters;
use super::secret_search::{SearchRules, SecretSearch};

/// What replaces a secret.
const PLACEHOLDER: &str = "***";

/// A shorter value is not a secret; redacting it would only damage harmless words.
const MIN_SECRET_LEN: usize = 4;

/// Minimum length of a secret with both letters and digits that is redacted in an answer. A local server often
/// takes a word such as `ollama` as its key, and an answer may contain that word.
const MIN_MIXED_SECRET_LEN_IN_ANSWERS: usize = 8;

/// Minimum length of any other secret that is redacted in an answer.
const MIN_WORD_SECRET_LEN_IN_ANSWERS: usize = 16;

/// How many characters of a secret may show at the end of a message that was cut off: as many as providers
/// themselves show.
const MAX_SHOWN_PREFIX_LEN: usize = 7;

/// Minimum length of a part of a secret with both letters and digits that is redacted within a message. It is
/// longer than the public prefixes of most keys, such as `sk-proj-`, and too short for the rest to be guessed.
const MIN_PART_LEN: usize = 12;

/// Minimum length of any other part that is redacted. A part of a secret that consists of words may be an
/// ordinary word, and an answer about keys may contain a long public prefix, such as `sk-ant-api03-`.
const MIN_UNLIKELY_PART_LEN: usize = 20;

/// Minimum length of a secret with both letters and digits that is also found in a message with whitespace in it.
const MIN_SPACED_SECRET_LEN_IN_MESSAGES: usize = 8;

/// The same in an answer, in which the words of a shorter secret may follow each other by chance.
const MIN_SPACED_SECRET_LEN_IN_ANSWERS: usize = 16;

/// Minimum length of any other secret that is also found with whitespace in it: `apikey` is not `api key`.
const MIN_SPACED_WORD_SECRET_LEN: usize = 24;

/// Redacts one secret.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Redactor {
    secret: Secret,
    /// Whether a part of the secret is redacted as well.
    has_secret_parts: bool,
    plain: SecretSearch,
    base64: SecretSearch,
}

/// Where a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextKind {
    /// An error, which may be cut off and has a space for each line end and control character.
    Message,
    Answer,
}

impl Redactor {
    pub(in crate::provider) fn new(secret: Secret) -> Self {
        Self::with_parts(secret, true)
    }

    /// Creates a redactor for a value whose parts are not secret. At the end of a message, its beginning is
    /// redacted nevertheless.
    pub(in crate::provider) fn for_whole_value(value: Secret) -> Self {
        Self::with_parts(value, false)
    }

    fn with_parts(secret: Secret, has_secret_parts: bool) -> Self {
        let plain = SecretSearch::new([secret.expose().to_owned()]);
        let base64 = SecretSearch::new(base64_forms(secret.expose()));
        Self { secret, has_secret_parts, plain, base64 }
    }

    /// Returns whether this redactor is for `secret`.
    pub(in crate::provider) fn is_for(&self, secret: &Secret) -> bool {
        self.secret.expose() == secret.expose()
    }

    /// Redacts the secret in all texts of a failure that may come from the provider.
    pub(in crate::provider) fn redact_failure(&self, failure: &mut Failure) {
        self.redact_message(&mut failure.message);
        for text in [&mut failure.code, &mut failure.text].into_iter().flatten() {
            self.redact_message(text);
        }
    }

    /// Redacts the secret in all texts of an answer that come from the provider. The parts of a stream are
    /// joined before, so that a secret that came in several pieces is found as well.
    pub(in crate::provider) fn redact_completion(&self, completion: &mut Completion) {
        if !self.is_redacted_in_answers() {
            return;
        }
        for text in [Some(&mut completion.text), Some(&mut completion.model), completion.request_id.as_mut()]
            .into_iter()
            .flatten()
        {
            if let Some(redacted) = self.redacted(text, TextKind::Answer) {
                *text = redacted;
            }
        }
        completion.parts.iter_mut().for_each(|part| self.redact_part(part));
    }

    fn is_redacted_in_answers(&self) -> bool {
        let secret = self.secret.expose();
        let shortest = if has_digits_and_letters(secret) {
            MIN_MIXED_SECRET_LEN_IN_ANSWERS
        } else {
            MIN_WORD_SECRET_LEN_IN_ANSWERS
        };
        secret.len() >= shortest
    }

    /// Redacts the secret in a text of an answer.
    pub(in crate::provider) fn redact_answer_text(&self, text: &mut String) {
        if self.is_redacted_in_answers()
            && let Some(redacted) = self.redacted(text, TextKind::Answer)
        {
            *text = redacted;
        }
    }

    /// Returns the end of the complete secret that stands across a position of a text of an answer.
    pub(in crate::provider) fn end_across(&self, text: &str, position: usize) -> Option<usize> {
        let secret = self.secret.expose();
        let first = position.saturating_sub(secret.len().saturating_sub(1));
        let starts_here = |start: &usize| text.as_bytes()[*start..].starts_with(secret.as_bytes());
        let start = (first..position).find(starts_here).filter(|_| self.is_redacted_in_answers());
        start.map(|start| start + secret.len())
    }

    /// Returns how many bytes at the end of a text of an answer may be the beginning of the secret.
    pub(in crate::provider) fn held_bytes(&self, text: &str) -> usize {
        if !self.is_redacted_in_answers() {
            return 0;
        }
        let secret = self.secret.expose().as_bytes();
        let longest = secret.len().saturating_sub(1).min(text.len());
        let is_held = |length: &usize| {
            text.as_bytes().ends_with(&secret[..*length]) && text.is_char_boundary(text.len() - length)
        };
        (1..=longest).rev().find(is_held).unwrap_or(0)
    }

    fn redact_part(&self, part: &mut Part) {
        match part {
            Part::Text(text) => self.redact_text(text),
            // No answer has them.
            Part::Image(_) | Part::Document(_) | Part::Audio(_) | Part::Video(_) | Part::ToolResult(_) => {}
            Part::ToolCall(call) => {
                self.redact_text(&mut call.id);
                self.redact_text(&mut call.name);
                if let Some(redacted) = self.redacted_json(&call.arguments) {
                    call.arguments = redacted.into();
                }
                self.redact_signature(call.signature.as_mut());
            }
            Part::Reasoning(reasoning) => {
                self.redact_text(&mut reasoning.text);
                self.redact_signature(reasoning.signature.as_mut());
            }
        }
    }

    fn redact_text(&self, text: &mut Arc<str>) {
        if let Some(redacted) = self.redacted(text, TextKind::Answer) {
            *text = redacted.into();
        }
    }

    /// Redacts the secret in a signature. The vendor then refuses it, but no vendor signs the key of its caller.
    fn redact_signature(&self, signature: Option<&mut Signature>) {
        let Some(Signature { format, value, .. }) = signature else { return };
        let redacted = match format {
            // The signature is a JSON object.
            Format::OpenaiResponses => self.redacted_json(value),
            Format::Openai | Format::Anthropic | Format::Gemini => self.redacted(value, TextKind::Answer),
        };
        if let Some(redacted) = redacted {
            *value = redacted.into();
        }
    }

    /// Returns a JSON object without the secret, which is still a JSON object; `None` if it does not contain the
    /// secret.
    fn redacted_json(&self, json: &str) -> Option<String> {
        let redacted = self.redacted(json, TextKind::Answer)?;
        if is_json_object(&redacted) {
            return Some(redacted);
        }
        // The secret is a number, or stands across a quotation mark.
        let Ok(value) = serde_json::from_str::<Value>(json) else { return Some("{}".to_owned()) };
        let redacted = self.redacted_value(value).to_string();
        let is_clean = is_json_object(&redacted) && self.redacted(&redacted, TextKind::Answer).is_none();
        Some(if is_clean { redacted } else { "{}".to_owned() })
    }

    fn redacted_value(&self, value: Value) -> Value {
        let redact = |text: String| self.redacted(&text, TextKind::Answer).unwrap_or(text);
        match value {
            Value::Null | Value::Bool(_) => value,
            Value::Number(number) => match self.redacted(&number.to_string(), TextKind::Answer) {
                Some(redacted) => Value::String(redacted),
                None => Value::Number(number),
            },
            Value::String(text) => Value::String(redact(text)),
            Value::Array(all) => all.into_iter().map(|value| self.redacted_value(value)).collect(),
            Value::Object(fields) => {
                let fields =
                    fields.into_iter().map(|(name, value)| (redact(name), self.redacted_value(value)));
                Value::Object(fields.collect())
            }
        }
    }

    fn redact_message(&self, text: &mut Box<str>) {
        let secret = self.secret.expose();
        if secret.len() < MIN_SECRET_LEN {
            return;
        }
        if let Some(redacted) = self.redacted(text, TextKind::Message) {
            *text = redacted.into();
        }
    }

    /// Returns the text without the secret; `None` if it does not contain the secret.
    fn redacted(&self, text: &str, kind: TextKind) -> Option<String> {
        let rules = self.rules(kind);
        let mut found = self.plain.find(text, rules);
        found.extend(self.base64.find(text, base64_rules(rules)));
        replace(text, found)
    }

    fn rules(&self, kind: TextKind) -> SearchRules {
        let secret = self.secret.expose();
        let is_mixed = has_digits_and_letters(secret);
        let min_spaced = match kind {
            TextKind::Message | TextKind::Answer if !is_mixed => MIN_SPACED_WORD_SECRET_LEN,
            TextKind::Message => MIN_SPACED_SECRET_LEN_IN_MESSAGES,
            TextKind::Answer => MIN_SPACED_SECRET_LEN_IN_ANSWERS,
        };
        let min_part = match kind {
            TextKind::Message if is_mixed => MIN_PART_LEN,
            TextKind::Message | TextKind::Answer => MIN_UNLIKELY_PART_LEN,
        };
        SearchRules {
            min_part: self.has_secret_parts.then_some(min_part),
            min_cut_off: (kind == TextKind::Message).then_some(MAX_SHOWN_PREFIX_LEN + 1),
            skips_whitespace: self.has_secret_parts && secret.len() >= min_spaced,
        }
    }
}

fn is_json_object(text: &str) -> bool {
    matches!(serde_json::from_str(text), Ok(Value::Object(_)))
}

/// Returns the rules for the base64 of a secret. No ordinary text looks like it, so that whitespace may stand
/// anywhere in it, as the line ends of MIME do.
fn base64_rules(rules: SearchRules) -> SearchRules {
    // With fewer characters, fewer bytes of the secret are complete.
    let min_len = |length: usize| (length * 8).div_ceil(6);
    SearchRules {
        min_part: rules.min_part.map(min_len),
        min_cut_off: rules.min_cut_off.map(min_len),
        skips_whitespace: true,
    }
}

/// Returns the text with [`PLACEHOLDER`] for each range; `None` if there is no range.
fn replace(text: &str, mut ranges: Vec<Range<usize>>) -> Option<String> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut ranges = ranges.into_iter().peekable();
    ranges.peek()?;
    let mut replaced = String::new();
    let mut copied = 0;
    while let Some(range) = ranges.next() {
        let mut end = range.end;
        while let Some(next) = ranges.next_if(|next| next.start <= end) {
            end = end.max(next.end);
        }
        replaced.push_str(text.get(copied..range.start)?);
        replaced.push_str(PLACEHOLDER);
        copied = end;
    }
    replaced.push_str(text.get(copied..)?);
    Some(replaced)
}

/// Returns the base64 forms of a secret that is long enough not to be a harmless word: in both alphabets, and
/// for each of the three offsets at which the secret may begin within a longer text. Characters that also
/// depend on bytes outside the secret are left out.
fn base64_forms(secret: &str) -> Vec<String> {
    if secret.len() < MIN_MIXED_SECRET_LEN_IN_ANSWERS {
        return Vec::new();
    }
    let mut encoded: Vec<String> = Vec::new();
    for (before, begin) in [(0, 0), (1, 2), (2, 3)] {
        let text = [&[0; 2][..before], secret.as_bytes()].concat();
        let end = text.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let whole = engine.encode(&text);
            encoded.extend(whole.get(begin..end).map(str::to_owned).filter(|part| !encoded.contains(part)));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{Class, Reasoning, ToolCall};

    const KEY: &str = "sk-live-0123456789";

    fn redacted(message: &str) -> String {
        let mut failure = Failure::new(Class::Auth, message).with_text(format!("{KEY}!"));
        failure.code = Some(KEY.into());
        Redactor::new(KEY.to_owned().into()).redact_failure(&mut failure);
        assert_eq!((failure.code.as_deref(), failure.text.as_deref()), (Some("***"), Some("***!")));
        failure.message.into()
    }

    fn answer(key: &str, text: &str) -> String {
        let mut completion =
            Completion { model: key.to_owned(), request_id: Some(key.to_owned()), ..Completion::new(text) };
        Redactor::new(key.to_owned().into()).redact_completion(&mut completion);
        assert_eq!(completion.request_id.as_deref(), Some(&*completion.model));
        completion.text
    }

    #[test]
    fn a_key_that_a_provider_repeats_is_redacted() {
        assert_eq!(redacted(&format!("bad key {KEY}, yes, {KEY}")), "bad key ***, yes, ***");
        assert_eq!(redacted("bad key sk-live********6789"), "bad key sk-live********6789");
    }

    #[test]
    fn a_key_that_is_cut_off_is_redacted() {
        assert_eq!(redacted("bad key sk-live-0123…"), "bad key ***…");
        assert_eq!(redacted("bad key sk-live-0123"), "bad key ***");
    }

    #[test]
    fn a_key_that_is_too_short_damages_no_words() {
        let mut failure = Failure::new(Class::Auth, "a bad key");
        Redactor::new("a".to_owned().into()).redact_failure(&mut failure);
        assert_eq!(&*failure.message, "a bad key");
    }

    #[test]
    fn a_key_in_an_answer_is_redacted_and_a_harmless_word_is_not() {
        assert_eq!(answer(KEY, "your key is sk-live-0123456789."), "your key is ***.");
        assert_eq!(answer("ollama", "I run on ollama."), "I run on ollama.");
        assert_eq!(answer("not-needed", "That is not-needed."), "That is not-needed.");
        // An answer is not cut off, so a prefix of a key in it is not a key.
        assert_eq!(answer(KEY, "keys begin with sk-live-"), "keys begin with sk-live-");
    }

    /// Redacts an answer of this part.
    fn redacted_part(key: &str, part: Part) -> Part {
        let mut completion = Completion { parts: vec![part], ..Completion::default() };
        Redactor::new(key.to_owned().into()).redact_completion(&mut completion);
        completion.parts.remove(0)
    }

    fn redacted_arguments(key: &str, arguments: &str) -> String {
        match redacted_part(key, Part::ToolCall(ToolCall::new("a", "note", arguments))) {
            Part::ToolCall(call) => call.arguments.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_in_a_tool_call_is_redacted_and_the_arguments_stay_json() {
        let call = ToolCall::new(KEY, KEY, format!("{{\"note\":\"it is {KEY}.\"}}"));
        let expected = ToolCall::new("***", "***", "{\"note\":\"it is ***.\"}");
        assert_eq!(redacted_part(KEY, Part::ToolCall(call)), Part::ToolCall(expected));
        for (key, arguments, expected) in [
            (KEY, r#"{"a":["\u0073k-live-0123456789"]}"#, r#"{"a":["***"]}"#),
            (KEY, r#"{"sk-live-0123456789":1}"#, r#"{"***":1}"#),
            ("1234567890123456", r#"{"a":1234567890123456,"b":2}"#, r#"{"a":"***","b":2}"#),
            ("sk-0123456789\"}", r#"{"a":"sk-0123456789"}"#, "{}"),
            ("ollama", r#"{"a":"ollama"}"#, r#"{"a":"ollama"}"#),
        ] {
            assert_eq!(redacted_arguments(key, arguments), expected, "{key}");
        }
    }

    #[test]
    fn a_key_in_reasoning_is_redacted_and_an_opaque_signature_is_not_changed() {
        let signature = |value: &str| Signature::new(Format::Anthropic, value);
        let opaque = "ErUBCkYIBxgCIkBXl2mZr0LtQ9dV+sk=";
        let reasoning = Reasoning::new(format!("The key is {KEY}.")).with_signature(signature(opaque));
        let expected = Reasoning::new("The key is ***.").with_signature(signature(opaque));
        assert_eq!(redacted_part(KEY, Part::Reasoning(reasoning)), Part::Reasoning(expected));
        let call = ToolCall::new("a", "note", "{}").with_signature(signature(KEY));
        let expected = ToolCall::new("a", "note", "{}").with_signature(signature("***"));
        assert_eq!(redacted_part(KEY, Part::ToolCall(call)), Part::ToolCall(expected));
        assert_eq!(redacted_part(KEY, Part::text(format!("It is {KEY}."))), Part::text("It is ***."));
        let item = |text: &str| {
            let item = format!("{{\"id\":\"rs_1\",\"summary\":[{{\"text\":\"{text}\"}}]}}");
            Part::Reasoning(Reasoning::new("").with_signature(Signature::new(Format::OpenaiResponses, item)))
        };
        assert_eq!(redacted_part(KEY, item(KEY)), item("***"));
    }

    #[test]
    fn a_key_that_is_escaped_in_json_is_redacted() {
        for escaped in [
            r#"{"a":"\u0073k-live-0123456789"}"#,
            r#"{"a":"\u0073\u006B\u002dlive\u002D0123456789"}"#,
            r#"{"a":"sk\-live-0123456789"}"#,
            r#"{"a":"\\u0073k-live-0123456789"}"#,
            r#"{"a":"sk-live-0123456789"}"#,
        ] {
            assert_eq!(answer(KEY, escaped), r#"{"a":"***"}"#, "{escaped}");
        }
        assert_eq!(answer("sk/0123456789", r#"["sk\/0123456789\n"]"#), r#"["***\n"]"#);
        assert_eq!(answer("sk\\0123456789", r#"["sk\\0123456789 ü"]"#), r#"["*** ü"]"#);
        assert_eq!(answer(KEY, r"ü\n – 0123456789"), r"ü\n – 0123456789");
    }

    #[test]
    fn a_key_with_invisible_characters_in_it_is_redacted() {
        for hidden in [
            "sk-\u{200b}live-0123456789",
            "s\u{feff}k\u{202e}-live-\u{ad}\u{2060}0123456789",
            "sk-live-01234\u{e0041}56789",
            "sk-live\u{7}-0123456789",
            r"sk-\u200blive-\u00ad\u0007\\u200B0123456789",
            "\\u0073k\u{200b}-live-0123456789",
        ] {
            assert_eq!(answer(KEY, &format!("it is {hidden} – ü")), "it is *** – ü", "{hidden}");
            assert_eq!(redacted(&format!("it is {hidden} – ü")), "it is *** – ü", "{hidden}");
        }
        assert_eq!(answer(KEY, "sk-\u{200b}live ü"), "sk-\u{200b}live ü");
        assert_eq!(answer(KEY, "s\u{200b}"), "s\u{200b}");
    }

    #[test]
    fn a_key_in_base64_or_percent_encoding_is_redacted() {
        let key = "sk/live+0123456789?>ÿ";
        for before in ["", "B", "Be", "Bearer ", "user:"] {
            for after in ["", "!", "!!", "@host"] {
                let text = format!("{before}{key}{after}");
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let encoded = engine.encode(&text);
                    let answered = answer(key, &format!("it is {encoded}= or so"));
                    assert!(answered.contains(PLACEHOLDER), "{text}: {answered}");
                    // The remaining characters determine no whole character of the key.
                    let remaining = answered.len() - "it is ***= or so".len();
                    let around = engine.encode(before).len() + engine.encode(after).len();
                    assert!(remaining <= around + 3, "{text}: {answered}");
                }
            }
        }
        for percent in ["sk-live-012345678%39", "sk%2dlive%2D0123456789", "%73%6B-live-0123456789"] {
            assert_eq!(answer(KEY, &format!("at 100% {percent}&x=%20")), "at 100% ***&x=%20", "{percent}");
        }
        // The base64 of a short key would be a harmless word.
        assert!(base64_forms("ollama").is_empty());
    }

    fn redacted_message(key: &str, message: &str) -> String {
        let mut failure = Failure::new(Class::Auth, message);
        Redactor::new(key.to_owned().into()).redact_failure(&mut failure);
        failure.message.into()
    }

    /// Joins the characters of a key with each of the separators in turn.
    fn spread(characters: &[String], separators: &[&str]) -> String {
        let pairs = characters.iter().zip(separators.iter().cycle());
        pairs.map(|(character, separator)| format!("{character}{separator}")).collect()
    }

    #[test]
    fn a_key_with_whitespace_or_control_characters_in_it_is_redacted() {
        let characters: Vec<String> = KEY.chars().map(String::from).collect();
        for separator in
            ["\u{1}", "\u{1b}", "\u{0}", " ", "\n", "\r\n", "\t", "\n    ", r"\n", r"\u0000", r"\x00"]
        {
            let message = format!("it is {}– ü", spread(&characters, &[separator]));
            for shown in [redacted(&message), answer(KEY, &message)] {
                assert!(shown.starts_with("it is ***") && shown.ends_with("– ü"), "{message:?}: {shown:?}");
                assert!(!shown.contains(|character: char| character.is_ascii_digit() && character != '0'));
            }
        }
        assert_eq!(redacted("it is sk-live-01234\r\n56789."), "it is ***.");
        assert_eq!(answer(KEY, "it is sk-live-01234\r\n56789."), "it is ***.");
    }

    #[test]
    fn words_that_follow_each_other_by_chance_are_no_key() {
        assert_eq!(redacted_message("apikey", "invalid api key"), "invalid api key");
        assert_eq!(redacted_message("localdevelopment", "local development only"), "local development only");
        assert_eq!(answer("localdevelopment", "local development only"), "local development only");
        assert_eq!(answer("model2024", "the model 2024"), "the model 2024");
        assert_eq!(redacted_message("myconfigurationkey", "no configuration"), "no configuration");
    }

    #[test]
    fn a_key_in_base64_with_line_ends_is_redacted() {
        let key = "sk-live-".to_owned() + &"0aB3xY9z".repeat(16);
        let encoded = STANDARD_NO_PAD.encode(format!("Bearer {key}"));
        for line_end in ["\n", "\r\n", " ", "\\n"] {
            let lines: Vec<&str> =
                encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
            let message = lines.join(line_end);
            for shown in [redacted_message(&key, &message), answer(&key, &message)] {
                let remaining = shown.len() - PLACEHOLDER.len();
                assert!(shown.contains(PLACEHOLDER) && remaining <= 13, "{line_end:?}: {shown}");
            }
        }
    }

    #[test]
    fn an_encoded_key_that_is_cut_off_is_redacted() {
        let base64 = STANDARD_NO_PAD.encode(KEY);
        for cut in [
            "%73%6B%2dlive%2D0",
            "%73%6B%2dlive%2D0%3",
            r"\u0073k-live-0\u00",
            r"\u0073k-live-0",
            r"sk-live\u002d\",
            &base64[..11],
            &base64[..20],
        ] {
            for end in ["", "…"] {
                let shown = redacted(&format!("bad key {cut}{end}"));
                assert!(shown.starts_with("bad key ***") && shown.ends_with(end), "{cut}: {shown}");
                assert!(!shown.contains("live") && !shown.contains(&base64[..11]), "{cut}: {shown}");
            }
        }
        assert_eq!(redacted("bad key %73%6B%2dlive"), "bad key %73%6B%2dlive");
    }

    #[test]
    fn a_long_part_of_a_key_is_redacted_anywhere() {
        assert_eq!(redacted("key sk-live-0123 is bad"), "key *** is bad");
        assert_eq!(redacted("key ...e-0123456789 is bad"), "key ...*** is bad");
        assert_eq!(redacted("key ..ive-01234567.. is bad"), "key ..***.. is bad");
        assert_eq!(redacted("key sk-live-012 is bad"), "key sk-live-012 is bad");
        let harmless = "a key begins with sk- or sk-live- and has";
        assert_eq!(redacted(harmless), harmless);
        let key = "sk-ant-api03-9Zx7Qw5kQ0x7Zr2WmN";
        assert_eq!(answer(key, "It begins with sk-ant-api03-."), "It begins with sk-ant-api03-.");
        assert_eq!(answer(key, "It begins with sk-ant-api03-9Zx7Qw5."), "It begins with ***.");
    }

    #[test]
    fn parts_of_a_value_that_are_not_secret_are_shown() {
        let message = "no prompt-caching-2025 or prompt-caching-2024-07-31 here";
        let mut failure = Failure::new(Class::Auth, message);
        Redactor::for_whole_value("prompt-caching-2024-07-31".to_owned().into()).redact_failure(&mut failure);
        assert_eq!(&*failure.message, "no prompt-caching-2025 or *** here");
    }

    #[test]
    fn a_long_answer_without_a_key_is_not_copied() {
        let text = "Lines of text, 100%, \\n and s k - l i v e.\n".repeat(1 << 12);
        let redactor = Redactor::new(KEY.to_owned().into());
        assert_eq!(redactor.redacted(&text, TextKind::Answer), None);
        assert_eq!(redactor.redacted(&text, TextKind::Message), None);
    }

    const SEPARATORS: [&str; 8] = ["", " ", "\n", "\r\n", "\t", "\u{0}", "\u{1b}", "\u{200b}"];

    /// Returns a text without the separators.
    fn without_separators(text: &str) -> String {
        text.chars().filter(|character| !SEPARATORS.iter().any(|text| text.contains(*character))).collect()
    }

    proptest! {
        #[test]
        fn no_message_shows_a_long_part_of_a_key(
            key in "[a-z][0-9][A-Za-z0-9_-]{10,60}",
            before in "[a-z :]{0,20}",
            after in "[a-z .]{0,20}",
            encoding in 0..3_usize,
            separators in proptest::collection::vec(proptest::sample::select(SEPARATORS.to_vec()), 1..9),
            begin in 0..4_usize,
            cut in any::<proptest::sample::Index>(),
        ) {
            let encode = |character: char| match encoding {
                0 => character.to_string(),
                1 => format!("%{:02x}", u32::from(character)),
                _ => format!("\\u{:04x}", u32::from(character)),
            };
            let characters: Vec<String> = key.chars().map(encode).collect();
            let whole = format!("{before} {}{after}", spread(&characters[begin..], &separators));
            let message: String = whole.chars().take(cut.index(whole.chars().count()) + 1).collect();
            let shown = without_separators(&redacted_message(&key, &message));
            for part in characters.windows(MIN_PART_LEN) {
                prop_assert!(!shown.contains(&part.concat()), "{message:?}: {shown:?}");
            }
        }

        #[test]
        fn no_message_shows_a_long_part_of_a_key_in_base64(
            key in "[a-z][0-9][A-Za-z0-9_-]{10,60}",
            before in "[a-z:]{0,8}",
            separators in proptest::collection::vec(proptest::sample::select(SEPARATORS.to_vec()), 1..9),
            cut in any::<proptest::sample::Index>(),
        ) {
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{key}"));
            let characters: Vec<String> = encoded.chars().map(String::from).collect();
            let whole = spread(&characters, &separators);
            let message: String = whole.chars().take(cut.index(whole.chars().count()) + 1).collect();
            let shown = without_separators(&redacted_message(&key, &message));
            // The first character of the key may begin within a character of the base64.
            let first = (before.len() * 8).div_ceil(6);
            let last = (before.len() + key.len()) * 8 / 6;
            for part in characters[first..last].windows(MIN_PART_LEN * 8 / 6) {
                prop_assert!(!shown.contains(&part.concat()), "{message:?}: {shown:?}");
            }
        }

        #[test]
        fn no_message_shows_a_key(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let message = format!("{before}{KEY}{after}");
            prop_assert!(!redacted(&message).contains(KEY));
        }

        #[test]
        fn no_argument_of_a_tool_call_shows_a_key(
            before in "\\PC{0,40}",
            after in "\\PC{0,40}",
            key in proptest::sample::select(vec![KEY, "1234567890123456"]),
        ) {
            let text = format!("{before}{key}{after}");
            let number = 1_234_567_890_123_456_u64;
            for arguments in [serde_json::json!({ "a": text }), serde_json::json!({ text: number })] {
                let shown = redacted_arguments(key, &arguments.to_string());
                prop_assert!(!shown.contains(key) && is_json_object(&shown), "{shown}");
            }
        }

        #[test]
        fn no_answer_shows_a_key(before in "[\\\\\\PC]{0,40}", after in "[\\\\\\PC]{0,40}") {
            let text = format!("{before}{KEY}{after}");
            prop_assert!(!answer(KEY, &text).contains(KEY));
        }
    }
}
