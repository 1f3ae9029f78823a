//! Redacts the values of extra headers in failures and answers of a provider.
//!
//! A value often has its secret after a scheme, as in `Bearer TOKEN`, and a provider may repeat only the secret.
//! So each part of a value that was read from a source is redacted like a key.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName};

use crate::types::{Completion, Failure, Secret};

use super::redact::Redactor;

/// Minimum length of a literal value that is redacted. Shorter values are plain words such as the name of a team.
const MIN_REDACTED_LITERAL_LENGTH: usize = 12;

/// Decodes base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Redacts the values of all extra headers of a provider.
#[derive(Debug)]
pub(in crate::provider) struct HeaderRedactor {
    /// For values that were read from a source.
    secrets: Vec<Redactor>,
    /// For literal values, which are not secret but may identify an account.
    literals: Vec<Redactor>,
}

impl HeaderRedactor {
    /// Creates the redactors for `headers`; `is_secret` returns whether the value was read from a source.
    pub(in crate::provider) fn new(headers: &HeaderMap, is_secret: impl Fn(&HeaderName) -> bool) -> Self {
        let mut redactor = Self { secrets: Vec::new(), literals: Vec::new() };
        for (name, value) in headers {
            let Ok(value) = value.to_str() else { continue };
            if is_secret(name) {
                redactor.secrets.extend(secrets(value).map(secret_redactor));
            } else if value.len() >= MIN_REDACTED_LITERAL_LENGTH {
                redactor.literals.push(Redactor::for_whole_value(Secret::from(value.to_owned())));
            }
        }
        redactor
    }

    /// Redacts the values in a failure of the provider.
    pub(in crate::provider) fn redact_failure(&self, failure: &mut Failure) {
        self.secrets.iter().chain(&self.literals).for_each(|redactor| redactor.redact_failure(failure));
    }

    /// Returns how many bytes at the end of `text` may be the beginning of a secret value.
    pub(in crate::provider) fn held_bytes(&self, text: &str) -> usize {
        self.secrets.iter().map(|redactor| redactor.held_bytes(text)).max().unwrap_or(0)
    }

    /// Returns the end of the complete secret value that stands across a position of `text`.
    pub(in crate::provider) fn end_across(&self, text: &str, position: usize) -> Option<usize> {
        self.secrets.iter().filter_map(|redactor| redactor.end_across(text, position)).max()
    }

    /// Redacts the secret values in a text of an answer.
    pub(in crate::provider) fn redact_answer_text(&self, text: &mut String) {
        self.secrets.iter().for_each(|redactor| redactor.redact_answer_text(text));
    }

    /// Redacts the secret values in an answer.
    pub(in crate::provider) fn redact_completion(&self, completion: &mut Completion) {
        self.secrets.iter().for_each(|redactor| redactor.redact_completion(completion));
    }
}

/// Returns the redactor for a value or a secret in it. Of a value of several words, the scheme and the names of
/// fields are not secret, and each secret word has its own redactor.
fn secret_redactor(secret: String) -> Redactor {
    if secret.contains(char::is_whitespace) {
        Redactor::for_whole_value(Secret::from(secret))
    } else {
        Redactor::new(Secret::from(secret))
    }
}

/// Returns the value of a header and each secret in it, longest first, so that a secret that contains another
/// one is redacted completely.
fn secrets(value: &str) -> impl Iterator<Item = String> {
    let mut secrets = vec![value.to_owned()];
    let mut words = value.split_whitespace();
    let scheme = words.clone().next().filter(|first| first.len() < value.len());
    // A scheme is not secret. Without a scheme, the first word is the value, or the first of several fields.
    if scheme.is_some_and(|scheme| !scheme.contains('=')) {
        words.next();
    }
    for word in words {
        secrets.push(word.to_owned());
        // Parameters and cookies, as in `token="TOKEN", id=7`.
        let strip_quotes = |text: &str| text.trim_matches(|mark| "\"',;".contains(mark)).to_owned();
        secrets.push(strip_quotes(word));
        if let Some((_, field)) = word.split_once('=') {
            secrets.push(strip_quotes(field));
        }
    }
    if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        let decoded = value.split_whitespace().nth(1).and_then(|word| BASE64.decode(word).ok());
        if let Some(user_and_password) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
            let password = user_and_password.split_once(':').map(|(_, password)| password.to_owned());
            secrets.extend(password);
            secrets.push(user_and_password);
        }
    }
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.dedup();
    secrets.into_iter()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::types::Class;

    fn redactor(value: &'static str, is_secret: bool) -> HeaderRedactor {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-a"), HeaderValue::from_static(value))]);
        HeaderRedactor::new(&headers, |_| is_secret)
    }

    fn failure(value: &'static str, message: &str) -> String {
        let mut failure = Failure::new(Class::Auth, message);
        redactor(value, true).redact_failure(&mut failure);
        failure.message.into()
    }

    fn answer(value: &'static str, text: &str) -> String {
        let mut completion = Completion::new(text);
        redactor(value, true).redact_completion(&mut completion);
        completion.text
    }

    #[test]
    fn a_secret_after_a_scheme_is_redacted_without_the_scheme() {
        for value in ["Bearer 5kQ0x7Zr2WmN", "token  5kQ0x7Zr2WmN", "GenieKey\t5kQ0x7Zr2WmN"] {
            assert_eq!(failure(value, "bad token 5kQ0x7Zr2WmN, sorry"), "bad token ***, sorry", "{value}");
            assert_eq!(answer(value, "it is 5kQ0x7Zr2WmN."), "it is ***.", "{value}");
            assert_eq!(failure(value, &format!("sent {value}!")), "sent ***!");
        }
        for value in ["Token token=\"5kQ0x7Zr2WmN\", id=7", "a=1; session=5kQ0x7Zr2WmN; b=2"] {
            assert_eq!(failure(value, "bad 5kQ0x7Zr2WmN"), "bad ***", "{value}");
        }
        assert_eq!(failure("Bearer 5kQ0x7Zr2WmN", "write Bearer TOKEN"), "write Bearer TOKEN");
    }

    #[test]
    fn the_password_of_basic_authorization_is_redacted_encoded_and_decoded() {
        // `me:hunter2-9` and `me:hünter2-9`.
        for value in ["Basic bWU6aHVudGVyMi05", "basic bWU6aHVudGVyMi05"] {
            assert_eq!(failure(value, "no bWU6aHVudGVyMi05"), "no ***");
            assert_eq!(failure(value, "no me:hunter2-9 here"), "no *** here");
            assert_eq!(failure(value, "no hunter2-9 here"), "no *** here");
            assert_eq!(answer(value, "it is hunter2-9"), "it is ***");
        }
        assert_eq!(failure("Basic bWU6aMO8bnRlcjItOQ==", "no hünter2-9 hünter2…"), "no *** ***…");
        assert_eq!(failure("Basic bWU6aMO8bnRlcjItOQ", "no hünter2-9"), "no ***");
        assert_eq!(failure("Basic not-base64!", "no not-base64!"), "no ***");
    }

    #[test]
    fn a_short_secret_is_redacted_like_a_short_key() {
        assert_eq!(failure("hunter2", "bad hunter2"), "bad ***");
        assert_eq!(answer("hunter22", "it is hunter22"), "it is ***");
        assert_eq!(answer("crew", "the crew"), "the crew");
        assert_eq!(failure("abc", "abc"), "abc");
        let mut failure = Failure::new(Class::Auth, "the crew of my-long-team-name");
        redactor("crew", false).redact_failure(&mut failure);
        redactor("my-long-team-name", false).redact_failure(&mut failure);
        assert_eq!(&*failure.message, "the crew of ***");
    }
}
