//! Redacts a secret in text from a provider that repeats what it was sent: in errors and in answers.
//!
//! Also finds a secret whose characters are escaped as in JSON or in a URL, a secret with characters in it that
//! a terminal does not show, a secret in base64, and a secret that is cut off at the end of a message. Never
//! prints a secret.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::terminal_text;
use crate::types::{Completion, Failure, Secret};

use super::random_word::has_digits_and_letters;

/// What replaces a secret.
const PLACEHOLDER: &str = "***";

/// A shorter value is not a secret; redacting it would only damage harmless words.
const MIN_SECRET_LEN: usize = 4;

/// Minimum length of a secret with both letters and digits that is redacted in an answer. A local server often
/// takes a word such as `ollama` as its key, and an answer may contain that word.
const MIN_MIXED_SECRET_LEN_IN_ANSWERS: usize = 8;

/// Minimum length of any other secret that is redacted in an answer.
const MIN_WORD_SECRET_LEN_IN_ANSWERS: usize = 16;

/// Maximum number of backslashes before one character that count as escapes of it.
const MAX_ESCAPES: usize = 8;

/// How many characters of a secret may show at the end of a message that was cut off: as many as providers
/// themselves show.
const MAX_SHOWN_PREFIX_LEN: usize = 7;

/// Redacts one secret.
#[derive(Debug, Clone)]
pub(in crate::provider) struct Redactor {
    secret: Secret,
    /// The secret in base64.
    encoded: Arc<[Secret]>,
}

impl Redactor {
    pub(in crate::provider) fn new(secret: Secret) -> Self {
        let encoded = base64_forms(secret.expose());
        Self { secret, encoded }
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
        let secret = self.secret.expose();
        let shortest = if has_digits_and_letters(secret) {
            MIN_MIXED_SECRET_LEN_IN_ANSWERS
        } else {
            MIN_WORD_SECRET_LEN_IN_ANSWERS
        };
        if secret.len() < shortest {
            return;
        }
        for text in [Some(&mut completion.text), Some(&mut completion.model), completion.request_id.as_mut()]
            .into_iter()
            .flatten()
        {
            if let Some(redacted) = self.redacted(text) {
                *text = redacted;
            }
        }
    }

    fn redact_message(&self, text: &mut Box<str>) {
        let secret = self.secret.expose();
        if secret.len() < MIN_SECRET_LEN {
            return;
        }
        if let Some(redacted) = self.redacted(text) {
            *text = redacted.into();
        }
        let (body, ellipsis) = match text.strip_suffix('…') {
            Some(body) => (body, "…"),
            None => (&**text, ""),
        };
        let is_cut =
            |length: &usize| secret.get(..*length).is_some_and(|beginning| body.ends_with(beginning));
        let cut = (MAX_SHOWN_PREFIX_LEN + 1..secret.len()).rev().find(is_cut);
        if let Some(length) = cut {
            *text = format!("{}{PLACEHOLDER}{ellipsis}", &body[..body.len() - length]).into();
        }
    }

    /// Returns the text without the secret; `None` if it does not contain the secret.
    fn redacted(&self, text: &str) -> Option<String> {
        // A text with escapes or invisible characters is searched character by character.
        let is_plain = !text.contains(['\\', '%']) && !text.chars().any(terminal_text::is_invisible);
        let mut redacted = redact_one(text, self.secret.expose(), is_plain);
        for encoded in &*self.encoded {
            let further = redact_one(redacted.as_deref().unwrap_or(text), encoded.expose(), is_plain);
            redacted = further.or(redacted);
        }
        redacted
    }
}

/// Returns the base64 forms of a secret that is long enough not to be a harmless word: in both alphabets, and
/// for each of the three offsets at which the secret may begin within a longer text. Characters that also
/// depend on bytes outside the secret are left out.
fn base64_forms(secret: &str) -> Arc<[Secret]> {
    if secret.len() < MIN_MIXED_SECRET_LEN_IN_ANSWERS {
        return Arc::default();
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
    encoded.into_iter().map(Secret::from).collect()
}

/// Returns the text without `secret`; `None` if it does not contain `secret`.
fn redact_one(text: &str, secret: &str, is_plain: bool) -> Option<String> {
    if is_plain {
        return text.contains(secret).then(|| text.replace(secret, PLACEHOLDER));
    }
    let mut redacted = String::new();
    let mut copied = 0;
    let first = secret.as_bytes().first()?;
    let may_begin = |byte: &u8| byte == first || matches!(byte, b'\\' | b'%');
    let mut at = 0;
    while let Some(before) = text.as_bytes().get(at..)?.iter().position(may_begin) {
        at += before;
        match encoded_len(text.as_bytes().get(at..)?, secret.as_bytes()) {
            Some(length) => {
                redacted.push_str(text.get(copied..at)?);
                redacted.push_str(PLACEHOLDER);
                at += length;
                copied = at;
            }
            None => at += 1,
        }
    }
    redacted.push_str(text.get(copied..)?);
    (copied > 0).then_some(redacted)
}

/// Returns the length of the prefix of `text` that decodes to `secret`. Each character may be escaped as in
/// JSON (also twice) or as in a URL. Invisible characters may stand between the characters.
fn encoded_len(text: &[u8], secret: &[u8]) -> Option<usize> {
    let mut at = 0;
    for (index, &character) in secret.iter().enumerate() {
        if index > 0 {
            at += invisible_len(text.get(at..)?);
        }
        // Bounded: a long run of backslashes must not be scanned again from each of its positions.
        let run = text.get(at..)?.iter().take(MAX_ESCAPES);
        let slashes = run.take_while(|byte| **byte == b'\\').count();
        let rest = text.get(at + slashes..)?;
        let is_slash = character == b'\\' && slashes > 0;
        at += match rest {
            _ if is_slash => slashes,
            [first, ..] if *first == character => slashes + 1,
            [b'%', high, low, ..] if hex([*high, *low]) == Some(character) => slashes + 3,
            [b'u', b'0', b'0', high, low, ..] if slashes > 0 && hex([*high, *low]) == Some(character) => {
                slashes + 5
            }
            _ => return None,
        };
    }
    Some(at)
}

/// Returns the length of the prefix of `text` that consists of invisible characters, plain or escaped as in
/// JSON.
fn invisible_len(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        at += match rest {
            [b' '..=b'~', ..] => match escaped_invisible_len(rest) {
                Some(length) => length,
                None => return at,
            },
            _ => match first_character(rest).filter(|character| terminal_text::is_invisible(*character)) {
                Some(character) => character.len_utf8(),
                None => return at,
            },
        };
    }
}

/// Returns the length of an escape such as `\u200b` at the start of `text`, if its character is invisible.
fn escaped_invisible_len(text: &[u8]) -> Option<usize> {
    let slashes = text.iter().take(MAX_ESCAPES).take_while(|byte| **byte == b'\\').count();
    let digits = text.get(slashes..)?.strip_prefix(b"u")?.get(..4).filter(|_| slashes > 0)?;
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    char::from_u32(number).filter(|character| terminal_text::is_invisible(*character)).map(|_| slashes + 5)
}

fn first_character(text: &[u8]) -> Option<char> {
    let most = text.len().min(4);
    let valid = (1..=most).find_map(|length| std::str::from_utf8(text.get(..length)?).ok())?;
    valid.chars().next()
}

fn hex(digits: [u8; 2]) -> Option<u8> {
    let digits = std::str::from_utf8(&digits).ok()?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Class;

    const KEY: &str = "sk-live-0123456789";

    fn redacted(message: &str) -> String {
        let mut failure = Failure::new(Class::Auth, message).with_text(format!("{KEY}!"));
        failure.code = Some(KEY.into());
        Redactor::new(KEY.to_owned().into()).redact_failure(&mut failure);
        assert_eq!((failure.code.as_deref(), failure.text.as_deref()), (Some("***"), Some("***!")));
        failure.message.into()
    }

    fn answer(key: &str, text: &str) -> String {
        let completion = |text: &str| text.to_owned();
        let mut completion = Completion {
            text: completion(text),
            usage: None,
            model: completion(key),
            request_id: Some(completion(key)),
        };
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

    proptest! {
        #[test]
        fn no_message_shows_a_key(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let message = format!("{before}{KEY}{after}");
            prop_assert!(!redacted(&message).contains(KEY));
        }

        #[test]
        fn no_answer_shows_a_key(before in "[\\\\\\PC]{0,40}", after in "[\\\\\\PC]{0,40}") {
            let text = format!("{before}{KEY}{after}");
            prop_assert!(!answer(KEY, &text).contains(KEY));
        }
    }
}
