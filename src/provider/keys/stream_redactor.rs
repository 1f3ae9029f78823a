//! Redacts the keys of a call in the pieces of a streamed answer.

use super::header_redactor::HeaderRedactor;
use super::key::ReadyKey;

/// Redacts the key and the secret headers of one call. A key that came in several pieces is found if it is complete
/// and has no other characters in it; [`held_bytes`](Self::held_bytes) says which end of a text to hold for that.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct StreamRedactor<'a> {
    key: &'a ReadyKey,
    headers: &'a HeaderRedactor,
}

impl<'a> StreamRedactor<'a> {
    pub(in crate::provider) fn new(key: &'a ReadyKey, headers: &'a HeaderRedactor) -> Self {
        Self { key, headers }
    }

    /// Returns how many bytes at the end of `text` may be the beginning of a secret.
    pub(in crate::provider) fn held_bytes(&self, text: &str) -> usize {
        let mut split = text.len() - self.headers.held_bytes(text).max(self.key.held_bytes(text));
        // A complete secret is not divided, although its end may be the beginning of one.
        while let Some(end) = self.key.end_across(text, split).max(self.headers.end_across(text, split)) {
            split = end;
        }
        text.len() - split
    }

    /// Redacts the secrets in a text.
    pub(in crate::provider) fn redact(&self, text: &mut String) {
        self.key.redact_answer_text(text);
        self.headers.redact_answer_text(text);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::types::{Format, Secret};

    #[test]
    fn the_end_of_a_text_that_may_be_a_key_is_held() {
        let secret = Secret::from("sk-fixture-0123456789".to_owned());
        let key = ReadyKey::new(Format::Openai, "k".into(), &secret).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-token", http::HeaderValue::from_static("tk-abcdefgh-12345"));
        let headers = HeaderRedactor::new(&headers, |_| true);
        let redactor = StreamRedactor::new(&key, &headers);
        for (text, held) in [
            ("Yes.", 0),
            ("Yes", 1),
            ("It is sk-fix", 6),
            ("sk-fixture-0123456789", 0),
            ("a tk-abc", 6),
            ("", 0),
        ] {
            let expected = if text == "Yes" { 1 } else { held };
            assert_eq!(redactor.held_bytes(text), expected, "{text}");
        }
        let overlapping = Secret::from("sk-abc12345s".to_owned());
        let key = ReadyKey::new(Format::Openai, "k".into(), &overlapping).unwrap();
        let headers = HeaderRedactor::new(&HeaderMap::new(), |_| true);
        assert_eq!(StreamRedactor::new(&key, &headers).held_bytes("It is sk-abc12345s"), 0);
        assert_eq!(StreamRedactor::new(&key, &headers).held_bytes("It is sk-abc12345"), 11);
        let mut text = "It is sk-fixture-0123456789 and tk-abcdefgh-12345.".to_owned();
        redactor.redact(&mut text);
        assert_eq!(text, "It is *** and ***.");
    }
}
