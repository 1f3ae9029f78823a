//! The text of a token, which only its holder knows.
//!
//! ```text
//! pm_  0f3a9c21  _  43 characters of URL-safe Base64 for 32 random bytes
//!      ID
//! ```
//!
//! The ID finds the token in the store and is no secret. The store has a hash of the whole text. The text is random, so that
//! a plain hash cannot be reversed by guessing.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::types::Secret;

use super::error::Error;

/// What every token begins with.
const PREFIX: &str = "pm_";

/// Bytes of the ID. It has two hexadecimal digits for each.
const ID_BYTES: usize = 4;

/// Random bytes of the secret part.
const SECRET_BYTES: usize = 32;

/// Characters of the secret part.
const SECRET_CHARACTERS: usize = (SECRET_BYTES * 8).div_ceil(6);

/// The SHA-256 hash of the text of a token. Two are compared in constant time.
#[derive(Clone, Copy)]
pub(super) struct TokenHash([u8; 32]);

/// The text of a token that a caller has presented, as the store knows it.
#[derive(Debug)]
pub(super) struct PresentedToken<'a> {
    pub(super) id: &'a str,
    pub(super) hash: TokenHash,
}

impl TokenHash {
    /// The hash with which the text of an unknown token is compared, so that it takes as long as a known one.
    pub(super) const OF_NONE: Self = Self([0; 32]);

    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Reads a hash that the store has; `None` if it is malformed.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if hex.len() != 2 * bytes.len() || !hex.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// Returns whether both are the same. How long it takes does not depend on the hashes.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TokenHash(..)")
    }
}

impl<'a> PresentedToken<'a> {
    /// Reads the text of a token; `None` if it cannot be one.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(2 * ID_BYTES)?;
        let secret = secret.strip_prefix('_')?;
        let is_id = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let is_secret_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_secret = secret.len() == SECRET_CHARACTERS && secret.bytes().all(is_secret_byte);
        (is_id && is_secret).then(|| Self { id, hash: TokenHash::of(text) })
    }
}

/// Makes the text of a new token from the random source of the system.
///
/// # Errors
/// If that source fails.
pub(super) fn generate() -> Result<Secret, Error> {
    let mut id = [0; ID_BYTES];
    let mut secret = [0; SECRET_BYTES];
    fill_random(&mut id)?;
    fill_random(&mut secret)?;
    let id = u32::from_be_bytes(id);
    let text = format!("{PREFIX}{id:08x}_{}", URL_SAFE_NO_PAD.encode(secret));
    Ok(Secret::from(text))
}

/// Makes a text that cannot be guessed and is no token.
///
/// # Errors
/// If the random source of the system fails.
pub(super) fn random_text() -> Result<Secret, Error> {
    let mut secret = [0; SECRET_BYTES];
    fill_random(&mut secret)?;
    Ok(Secret::from(URL_SAFE_NO_PAD.encode(secret)))
}

fn fill_random(bytes: &mut [u8]) -> Result<(), Error> {
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(bytes).map_err(|_| Error::Io {
        doing: "make a token".to_owned(),
        source: std::io::Error::other("the random source of the system failed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_random_and_has_an_id_that_is_no_secret() {
        let one = generate().unwrap();
        let other = generate().unwrap();
        assert_ne!(one.expose(), other.expose());
        for token in [&one, &other] {
            let text = token.expose();
            assert_eq!((text.len(), &text[..3]), (55, "pm_"));
            let parsed = PresentedToken::parse(text).unwrap();
            assert_eq!(parsed.id, &text[3..11]);
            let stored = TokenHash::parse(&parsed.hash.to_string()).unwrap();
            assert!(stored.is(&parsed.hash) && !stored.is(&TokenHash::OF_NONE));
        }
        let hash = |secret: &Secret| PresentedToken::parse(secret.expose()).unwrap().hash;
        assert!(!hash(&one).is(&hash(&other)));
    }

    #[test]
    fn a_text_that_cannot_be_a_token_is_none() {
        let token = generate().unwrap();
        let text = token.expose();
        let wrong = [
            String::new(),
            "pm_".to_owned(),
            text[..54].to_owned(),
            format!("{text}A"),
            format!(" {text}"),
            text.replacen("pm_", "sk_", 1),
            format!("pm_0123456G_{}", &text[12..]),
            format!("pm_0123456\u{e9}_{}", &text[12..]),
            format!("{}\u{e9}", &text[..53]),
            format!("{}=", &text[..54]),
        ];
        for wrong in wrong {
            assert!(PresentedToken::parse(&wrong).is_none(), "{wrong:?}");
        }
        for wrong in ["", "00", &"g".repeat(64), &"\u{e9}".repeat(32)] {
            assert!(TokenHash::parse(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn neither_a_token_nor_its_hash_is_printed() {
        let token = generate().unwrap();
        let parsed = PresentedToken::parse(token.expose()).unwrap();
        let printed = format!("{token:?} {parsed:?}");
        assert!(!printed.contains(&token.expose()[12..]) && !printed.contains(&parsed.hash.to_string()));
    }
}
