//! Covers the values of extra headers in what a provider says.
//!
//! A value often holds its secret behind a scheme, as in `Bearer TOKEN`, and a provider repeats the secret alone. So
//! each part of a value that was read from a source is covered as a key is.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName};

use crate::types::{Failure, Reply, Secret};

use super::mask::Mask;

/// Fewest characters of a value that is written out and covered; a shorter one is a plain word such as a team's name.
const SHORTEST_WRITTEN: usize = 12;

/// Reads base64 with or without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Covers the values of all extra headers of a provider.
#[derive(Debug)]
pub(super) struct HeaderMasks {
    /// Of the values that were read as secrets are.
    secrets: Vec<Mask>,
    /// Of those that are written out, which are no secrets but may name an account.
    written: Vec<Mask>,
}

impl HeaderMasks {
    /// Makes the masks of `headers`; `is_secret` says whose value was read from a source.
    pub(super) fn of(headers: &HeaderMap, is_secret: impl Fn(&HeaderName) -> bool) -> Self {
        let mut masks = Self { secrets: Vec::new(), written: Vec::new() };
        for (name, value) in headers {
            let Ok(value) = value.to_str() else { continue };
            if is_secret(name) {
                masks.secrets.extend(secrets(value).map(|secret| Mask::new(Secret::from(secret))));
            } else if value.len() >= SHORTEST_WRITTEN {
                masks.written.push(Mask::new(Secret::from(value.to_owned())));
            }
        }
        masks
    }

    /// Covers the values in a provider's words.
    pub(super) fn cover_failure(&self, failure: &mut Failure) {
        self.secrets.iter().chain(&self.written).for_each(|mask| mask.cover_failure(failure));
    }

    /// Covers the values that are secrets in an answer.
    pub(super) fn cover_reply(&self, reply: &mut Reply) {
        self.secrets.iter().for_each(|mask| mask.cover_reply(reply));
    }
}

/// Returns the value of a header and each secret in it, longest first: the one that holds another is covered whole.
fn secrets(value: &str) -> impl Iterator<Item = String> {
    let mut secrets = vec![value.to_owned()];
    let mut words = value.split_whitespace();
    let scheme = words.clone().next().filter(|first| first.len() < value.len());
    // A scheme is no secret. Where there is none, the first word is the value, or the first of several fields.
    if scheme.is_some_and(|scheme| !scheme.contains('=')) {
        words.next();
    }
    for word in words {
        secrets.push(word.to_owned());
        // Parameters and cookies, as in `token="TOKEN", id=7`.
        let bare = |text: &str| text.trim_matches(|mark| "\"',;".contains(mark)).to_owned();
        secrets.push(bare(word));
        if let Some((_, field)) = word.split_once('=') {
            secrets.push(bare(field));
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

    fn masks(value: &'static str, is_secret: bool) -> HeaderMasks {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-a"), HeaderValue::from_static(value))]);
        HeaderMasks::of(&headers, |_| is_secret)
    }

    fn failure(value: &'static str, said: &str) -> String {
        let mut failure = Failure::new(Class::Auth, said);
        masks(value, true).cover_failure(&mut failure);
        failure.message.into()
    }

    fn answer(value: &'static str, text: &str) -> String {
        let mut reply = Reply { text: text.to_owned(), usage: None, model: String::new(), request_id: None };
        masks(value, true).cover_reply(&mut reply);
        reply.text
    }

    #[test]
    fn a_secret_behind_a_scheme_is_covered_alone_too() {
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
    fn the_password_of_basic_authorization_is_covered_however_it_is_repeated() {
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
    fn a_short_secret_is_covered_as_a_short_key_is() {
        assert_eq!(failure("hunter2", "bad hunter2"), "bad ***");
        assert_eq!(answer("hunter22", "it is hunter22"), "it is ***");
        assert_eq!(answer("crew", "the crew"), "the crew");
        assert_eq!(failure("abc", "abc"), "abc");
        let mut failure = Failure::new(Class::Auth, "the crew of my-long-team-name");
        masks("crew", false).cover_failure(&mut failure);
        masks("my-long-team-name", false).cover_failure(&mut failure);
        assert_eq!(&*failure.message, "the crew of ***");
    }
}
