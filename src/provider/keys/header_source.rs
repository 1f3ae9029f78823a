//! Sources of the values of extra headers: a literal, or a key source.
//!
//! A literal that looks like a secret is refused, as in `keys`. Values are never shown.

use std::fmt;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer};

use crate::diagnostics::KEY_PREFIXES;

use super::key_error::KeyError;
use super::key_source::{Env, KeySource, StrVisitor};
use super::random_word::is_random;

/// The scheme before a token.
const TOKEN_SCHEME: &str = "bearer ";

/// Minimum length of a value that counts as a key because of its prefix.
const MIN_KEY_LENGTH: usize = 8;

/// Prefixes of identifiers that look random but grant no access.
const IDENTIFIER_PREFIXES: [&str; 3] = ["org-", "proj_", "projects/"];

/// Last words of the names of headers with secrets.
const SECRET_NAME_WORDS: [&str; 23] = [
    "authorization",
    "auth",
    "token",
    "secret",
    "key",
    "apikey",
    "apitoken",
    "apisecret",
    "authkey",
    "authtoken",
    "accesskey",
    "accesstoken",
    "secretkey",
    "jwt",
    "passphrase",
    "password",
    "passwd",
    "pwd",
    "pass",
    "pw",
    "credential",
    "cookie",
    "bearer",
];

/// Words before the last one that show that the value is a number, as in `x-max-tokens`.
const COUNT_WORDS: [&str; 4] = ["max", "min", "total", "output"];

/// The value of an extra header.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// A literal value, which does not look like a secret. Still marked as sensitive, so that it is not printed.
    Value(HeaderValue),
    /// A source to read the value from.
    Read(KeySource),
}

impl HeaderSource {
    /// Reads the value, marked as sensitive; `None` when its variable is not set.
    ///
    /// # Errors
    /// As [`KeySource::read`].
    pub fn read(&self, env: Env<'_>) -> Result<Option<HeaderValue>, KeyError> {
        match self {
            Self::Value(value) => Ok(Some(value.clone())),
            Self::Read(source) => match source.read(env)? {
                Some(secret) => match sensitive(secret.expose()) {
                    Some(value) => Ok(Some(value)),
                    None => Err(KeyError::InvalidKey { label: source.label() }),
                },
                None => Ok(None),
            },
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Ok(source) = text.parse() {
            return Ok(Self::Read(source));
        }
        if names_a_source(text) {
            return Err(
                "this source of a header cannot be read; write env:NAME with letters, digits and `_`, \
                        file:PATH or command:...",
            );
        }
        if is_secret(text) {
            return Err(
                "this looks like a secret; write env:NAME, file:PATH or command:..., never the secret itself",
            );
        }
        let value = sensitive(text)
            .ok_or("this value is not valid in a header; remove line breaks and other control characters")?;
        Ok(Self::Value(value))
    }
}

/// Returns whether the name of a header shows that its value is a secret.
pub(crate) fn is_secret_header(name: &HeaderName) -> bool {
    let is_version = |word: &&str| word.trim_start_matches('v').bytes().all(|byte| byte.is_ascii_digit());
    // A version or a number at the end is ignored, as in `x-api-key-2`.
    let mut words = name.as_str().rsplit(['-', '_']).skip_while(is_version);
    let last = words.next().unwrap_or_default();
    let before = words.next().unwrap_or_default();
    if COUNT_WORDS.contains(&before) {
        return false;
    }
    let last = last.trim_end_matches(|character: char| character.is_ascii_digit());
    let is_secret_word = |word: &str| SECRET_NAME_WORDS.contains(&word);
    is_secret_word(last) || last.strip_suffix('s').is_some_and(is_secret_word)
}

fn names_a_source(text: &str) -> bool {
    let scheme = text.trim().split_once(':').map(|(scheme, _)| scheme.trim().to_ascii_lowercase());
    scheme.is_some_and(|scheme| ["env", "file", "command"].contains(&&*scheme))
}

/// Returns whether a value looks like a key or a token.
fn is_secret(text: &str) -> bool {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let mut prefixes = KEY_PREFIXES.into_iter().chain([TOKEN_SCHEME]);
    if text.len() >= MIN_KEY_LENGTH && prefixes.any(|prefix| lower.starts_with(prefix)) {
        return true;
    }
    if IDENTIFIER_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return false;
    }
    // A URL with a password.
    if lower.contains("://") && lower.contains('@') {
        return true;
    }
    text.split(|character: char| !character.is_ascii_alphanumeric()).any(is_random)
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => out.write_str("Value(..)"),
            Self::Read(source) => source.fmt(out),
        }
    }
}

impl<'de> Deserialize<'de> for HeaderSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(StrVisitor(Self::parse))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_value_is_a_literal_or_read_and_is_never_printed() {
        let env = |name: &str| (name == "ORG").then(|| "org-secret".to_owned());
        for (text, value) in [("'plain'", "plain"), ("'env:ORG'", "org-secret")] {
            #[derive(Deserialize)]
            struct Holder {
                header: HeaderSource,
            }
            let holder: Holder = toml::from_str(&format!("header = {text}")).unwrap();
            let read = holder.header.read(&env).unwrap().unwrap();
            assert_eq!(read, value);
            assert!(!format!("{read:?} {:?}", holder.header).contains(value));
        }
    }

    #[test]
    fn a_literal_secret_is_refused_and_not_repeated() {
        for secret in [
            "sk-live-0123456789",
            "Bearer abcdefgh",
            "hvs.CAESIJ1234",
            "eyJhbGciOiJIUzI1NiJ9.x.y",
            "AKIAIOSFODNN7EXAMPLE",
            "d41d8cd98f00b204e9800998ecf8427e",
            "https://me:hunter2@proxy",
        ] {
            let error = HeaderSource::parse(secret).unwrap_err();
            assert!(error.contains("looks like a secret") && !error.contains(secret), "{secret}");
        }
    }

    #[test]
    fn a_value_that_does_not_look_like_a_secret_may_be_a_literal() {
        for plain in [
            "crew",
            "2023-06-01",
            "prompt-caching-2024-07-31,output-128k-2025-02-19",
            "my-app/1.0 (https://example.com)",
            "org-2AbCdEfGh1JkLmNoPqRsTuVw",
            "true",
        ] {
            assert!(matches!(HeaderSource::parse(plain), Ok(HeaderSource::Value(_))), "{plain}");
        }
    }

    #[test]
    fn an_invalid_source_is_refused_and_not_sent_as_a_literal() {
        for wrong in ["env:MY-ORG", "ENV:ORG", " env: ORG", "file:", "command: "] {
            let error = HeaderSource::parse(wrong).unwrap_err();
            assert!(error.contains("source of a header") && error.contains("; write env:NAME"), "{wrong}");
        }
    }

    #[test]
    fn the_name_of_a_header_shows_whether_its_value_is_secret() {
        for (name, is_secret) in [
            ("authorization", true),
            ("x-api-key", true),
            ("x-auth-token", true),
            ("cookie", true),
            ("x-team", false),
            ("anthropic-beta", false),
            ("x-author", false),
            ("x-api-keys", true),
            ("x-auth-tokens", true),
            ("x-apikeys", true),
            ("x-api-key-2", true),
            ("x-api-key-v2", true),
            ("x-token1", true),
            ("x-accesstoken", true),
            ("credentials", true),
            ("cookies", true),
            ("x-pass", true),
            ("x-key-id", false),
            ("x-max-tokens-limit", false),
            ("x-v2", false),
            ("x-2", false),
            ("x-monkey", false),
            ("x-max-tokens", false),
        ] {
            assert_eq!(is_secret_header(&HeaderName::from_static(name)), is_secret, "{name}");
        }
    }
}
