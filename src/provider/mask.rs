//! Covers a secret in what a provider says when it repeats what it was sent: in errors and in answers.
//!
//! Also finds a secret whose characters are escaped as in JSON, and one that was cut off at the end of a message.
//! Never prints one.

use crate::types::{Failure, Reply, Secret};

/// What stands in place of a secret.
const COVER: &str = "***";

/// Shorter than this nothing is a secret, and covering it would only spoil harmless words.
const SHORTEST: usize = 4;

/// Fewest characters of a secret that is covered in an answer if it has letters and digits. A server of one's own
/// often takes a word such as `ollama` for a key, and an answer may hold that word.
const SHORTEST_IN_ANSWERS: usize = 8;

/// Fewest characters of any other secret that is covered in an answer.
const SHORTEST_WORD_IN_ANSWERS: usize = 16;

/// Most backslashes before one character that are taken for escapes of it.
const MAX_ESCAPES: usize = 8;

/// Characters of a secret that may show at the end of a message that was cut: as many as providers
/// themselves show of one.
const MAY_SHOW: usize = 7;

/// Covers one secret.
#[derive(Debug, Clone)]
pub(super) struct Mask(Secret);

impl Mask {
    pub(super) fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// Returns whether `secret` is what it covers.
    pub(super) fn covers(&self, secret: &Secret) -> bool {
        self.0.expose() == secret.expose()
    }

    /// Covers the secret wherever a failure holds words of the provider.
    pub(super) fn cover_failure(&self, failure: &mut Failure) {
        self.cover_message(&mut failure.message);
        for text in [&mut failure.code, &mut failure.text].into_iter().flatten() {
            self.cover_message(text);
        }
    }

    /// Covers the secret wherever an answer holds words of the provider. Answers are put together before, so that
    /// one that came in pieces is found as well.
    pub(super) fn cover_reply(&self, reply: &mut Reply) {
        let secret = self.0.expose();
        let has = |of: fn(&char) -> bool| secret.chars().any(|character| of(&character));
        let is_mixed = has(char::is_ascii_digit) && has(char::is_ascii_alphabetic);
        let shortest = if is_mixed { SHORTEST_IN_ANSWERS } else { SHORTEST_WORD_IN_ANSWERS };
        if secret.len() < shortest {
            return;
        }
        for text in
            [Some(&mut reply.text), Some(&mut reply.model), reply.request_id.as_mut()].into_iter().flatten()
        {
            if let Some(covered) = self.covered(text) {
                *text = covered;
            }
        }
    }

    fn cover_message(&self, text: &mut Box<str>) {
        let secret = self.0.expose();
        if secret.len() < SHORTEST {
            return;
        }
        if let Some(covered) = self.covered(text) {
            *text = covered.into();
        }
        let (body, ellipsis) = match text.strip_suffix('…') {
            Some(body) => (body, "…"),
            None => (&**text, ""),
        };
        let is_cut =
            |length: &usize| secret.get(..*length).is_some_and(|beginning| body.ends_with(beginning));
        let cut = (MAY_SHOW + 1..secret.len()).rev().find(is_cut);
        if let Some(length) = cut {
            *text = format!("{}{COVER}{ellipsis}", &body[..body.len() - length]).into();
        }
    }

    /// Returns the text without the secret; `None` where it is not in there.
    fn covered(&self, text: &str) -> Option<String> {
        let secret = self.0.expose();
        // Without a backslash nothing is escaped.
        if !text.contains('\\') {
            return text.contains(secret).then(|| text.replace(secret, COVER));
        }
        let mut covered = String::new();
        let mut kept = 0;
        let mut at = 0;
        while at < text.len() {
            match escaped_length(&text.as_bytes()[at..], secret.as_bytes()) {
                Some(length) => {
                    covered.push_str(text.get(kept..at)?);
                    covered.push_str(COVER);
                    at += length;
                    kept = at;
                }
                None => at += 1,
            }
        }
        covered.push_str(text.get(kept..)?);
        (kept > 0).then_some(covered)
    }
}

/// Returns how many bytes `text` begins with that read as `secret`, each character of which may be escaped as in
/// JSON, and that again.
fn escaped_length(text: &[u8], secret: &[u8]) -> Option<usize> {
    let mut at = 0;
    for &character in secret {
        // A run of any length must not be looked through from each of its places.
        let run = text.get(at..)?.iter().take(MAX_ESCAPES);
        let slashes = run.take_while(|byte| **byte == b'\\').count();
        let rest = text.get(at + slashes..)?;
        let is_slash = character == b'\\' && slashes > 0;
        at += match rest {
            _ if is_slash => slashes,
            [first, ..] if *first == character => slashes + 1,
            [b'u', b'0', b'0', high, low, ..] if slashes > 0 && hex([*high, *low]) == Some(character) => {
                slashes + 5
            }
            _ => return None,
        };
    }
    Some(at)
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

    fn covered(message: &str) -> String {
        let mut failure = Failure::new(Class::Auth, message).with_text(format!("{KEY}!"));
        failure.code = Some(KEY.into());
        Mask::new(KEY.to_owned().into()).cover_failure(&mut failure);
        assert_eq!((failure.code.as_deref(), failure.text.as_deref()), (Some("***"), Some("***!")));
        failure.message.into()
    }

    fn answer(key: &str, text: &str) -> String {
        let reply = |text: &str| text.to_owned();
        let mut reply =
            Reply { text: reply(text), usage: None, model: reply(key), request_id: Some(reply(key)) };
        Mask::new(key.to_owned().into()).cover_reply(&mut reply);
        assert_eq!(reply.request_id.as_deref(), Some(&*reply.model));
        reply.text
    }

    #[test]
    fn a_key_that_a_provider_repeats_is_covered() {
        assert_eq!(covered(&format!("bad key {KEY}, yes, {KEY}")), "bad key ***, yes, ***");
        assert_eq!(covered("bad key sk-live********6789"), "bad key sk-live********6789");
    }

    #[test]
    fn a_key_that_was_cut_off_is_covered_too() {
        assert_eq!(covered("bad key sk-live-0123…"), "bad key ***…");
        assert_eq!(covered("bad key sk-live-0123"), "bad key ***");
    }

    #[test]
    fn what_is_too_short_to_be_a_key_spoils_no_words() {
        let mut failure = Failure::new(Class::Auth, "a bad key");
        Mask::new("a".to_owned().into()).cover_failure(&mut failure);
        assert_eq!(&*failure.message, "a bad key");
    }

    #[test]
    fn a_key_in_an_answer_is_covered_and_a_harmless_word_is_not() {
        assert_eq!(answer(KEY, "your key is sk-live-0123456789."), "your key is ***.");
        assert_eq!(answer("ollama", "I run on ollama."), "I run on ollama.");
        assert_eq!(answer("not-needed", "That is not-needed."), "That is not-needed.");
        // An answer is not cut, so that a beginning is no key.
        assert_eq!(answer(KEY, "keys begin with sk-live-"), "keys begin with sk-live-");
    }

    #[test]
    fn a_key_that_is_escaped_in_json_is_covered() {
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

    proptest! {
        #[test]
        fn no_message_shows_a_key(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let message = format!("{before}{KEY}{after}");
            prop_assert!(!covered(&message).contains(KEY));
        }

        #[test]
        fn no_answer_shows_a_key(before in "[\\\\\\PC]{0,40}", after in "[\\\\\\PC]{0,40}") {
            let text = format!("{before}{KEY}{after}");
            prop_assert!(!answer(KEY, &text).contains(KEY));
        }
    }
}
