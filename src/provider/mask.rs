//! Covers a secret in what a provider says when it repeats what it was sent: in errors and in answers.
//!
//! Also finds a secret whose characters are escaped as in JSON or in a URL, one with characters in it that a terminal does
//! not show, one in base64, and one that was cut off at the end of a message. Never prints one.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::screen;
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
pub(super) struct Mask {
    secret: Secret,
    /// What the secret looks like in base64.
    encoded: Arc<[Secret]>,
}

impl Mask {
    pub(super) fn new(secret: Secret) -> Self {
        let encoded = in_base64(secret.expose());
        Self { secret, encoded }
    }

    /// Returns whether `secret` is what it covers.
    pub(super) fn covers(&self, secret: &Secret) -> bool {
        self.secret.expose() == secret.expose()
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
        let secret = self.secret.expose();
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
        let secret = self.secret.expose();
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
        // What is not written plainly is looked for character by character.
        let is_plain = !text.contains(['\\', '%']) && !text.chars().any(screen::is_unseen);
        let mut covered = covered(text, self.secret.expose(), is_plain);
        for encoded in &*self.encoded {
            let further = self::covered(covered.as_deref().unwrap_or(text), encoded.expose(), is_plain);
            covered = further.or(covered);
        }
        covered
    }
}

/// Returns the base64 of a secret that is long enough not to be a harmless word, in both alphabets and at each of the
/// three places at which it may begin within a longer text. Characters that others than the secret decide are left out.
fn in_base64(secret: &str) -> Arc<[Secret]> {
    if secret.len() < SHORTEST_IN_ANSWERS {
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

/// Returns the text without `secret`; `None` where it is not in there.
fn covered(text: &str, secret: &str, is_plain: bool) -> Option<String> {
    if is_plain {
        return text.contains(secret).then(|| text.replace(secret, COVER));
    }
    let mut covered = String::new();
    let mut kept = 0;
    let first = secret.as_bytes().first()?;
    let may_begin = |byte: &u8| byte == first || matches!(byte, b'\\' | b'%');
    let mut at = 0;
    while let Some(before) = text.as_bytes().get(at..)?.iter().position(may_begin) {
        at += before;
        match written_length(text.as_bytes().get(at..)?, secret.as_bytes()) {
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

/// Returns how many bytes `text` begins with that read as `secret`, each character of which may be escaped as in
/// JSON, and that again, or as in a URL. Between its characters may be some that are not seen.
fn written_length(text: &[u8], secret: &[u8]) -> Option<usize> {
    let mut at = 0;
    for (index, &character) in secret.iter().enumerate() {
        if index > 0 {
            at += unseen_length(text.get(at..)?);
        }
        // A run of any length must not be looked through from each of its places.
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

/// Returns how many bytes `text` begins with that are characters which are not seen, plain or escaped as in JSON.
fn unseen_length(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = &text[at..];
        at += match rest {
            [b' '..=b'~', ..] => match escaped_unseen(rest) {
                Some(length) => length,
                None => return at,
            },
            _ => match first_character(rest).filter(|character| screen::is_unseen(*character)) {
                Some(character) => character.len_utf8(),
                None => return at,
            },
        };
    }
}

/// Returns the length of an escape such as `\u200b` that `text` begins with, if its character is not seen.
fn escaped_unseen(text: &[u8]) -> Option<usize> {
    let slashes = text.iter().take(MAX_ESCAPES).take_while(|byte| **byte == b'\\').count();
    let digits = text.get(slashes..)?.strip_prefix(b"u")?.get(..4).filter(|_| slashes > 0)?;
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    char::from_u32(number).filter(|character| screen::is_unseen(*character)).map(|_| slashes + 5)
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

    #[test]
    fn a_key_with_unseen_characters_in_it_is_covered() {
        for hidden in [
            "sk-\u{200b}live-0123456789",
            "s\u{feff}k\u{202e}-live-\u{ad}\u{2060}0123456789",
            "sk-live-01234\u{e0041}56789",
            "sk-live\u{7}-0123456789",
            r"sk-\u200blive-\u00ad\u0007\\u200B0123456789",
            "\\u0073k\u{200b}-live-0123456789",
        ] {
            assert_eq!(answer(KEY, &format!("it is {hidden} – ü")), "it is *** – ü", "{hidden}");
            assert_eq!(covered(&format!("it is {hidden} – ü")), "it is *** – ü", "{hidden}");
        }
        assert_eq!(answer(KEY, "sk-\u{200b}live ü"), "sk-\u{200b}live ü");
        assert_eq!(answer(KEY, "s\u{200b}"), "s\u{200b}");
    }

    #[test]
    fn a_key_in_base64_or_percent_encoded_is_covered() {
        let key = "sk/live+0123456789?>ÿ";
        for before in ["", "B", "Be", "Bearer ", "user:"] {
            for after in ["", "!", "!!", "@host"] {
                let text = format!("{before}{key}{after}");
                for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                    let encoded = engine.encode(&text);
                    let said = answer(key, &format!("it is {encoded}= or so"));
                    assert!(said.contains(COVER), "{text}: {said}");
                    // What is left of it decides no whole character of the key.
                    let left = said.len() - "it is ***= or so".len();
                    let around = engine.encode(before).len() + engine.encode(after).len();
                    assert!(left <= around + 3, "{text}: {said}");
                }
            }
        }
        for percent in ["sk-live-012345678%39", "sk%2dlive%2D0123456789", "%73%6B-live-0123456789"] {
            assert_eq!(answer(KEY, &format!("at 100% {percent}&x=%20")), "at 100% ***&x=%20", "{percent}");
        }
        // The base64 of a short key would be a harmless word.
        assert!(in_base64("ollama").is_empty());
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
