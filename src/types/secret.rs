//! A secret string that is never printed.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// An API key. Its `Debug` output is redacted, it cannot be serialized, and its memory is overwritten on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Returns the secret. Only the transport needs it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::from("sk-very-secret".to_owned());
        assert!(!format!("{secret:?} {secret:#?}").contains("very"));
    }
}
