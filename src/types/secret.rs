//! A text that never prints.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// An API key. Printing it shows nothing, serialising it does not compile, and dropping it
/// overwrites its memory.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Returns the text itself; only the transport has a reason to.
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
    fn a_secret_never_prints() {
        let secret = Secret::from("sk-very-secret".to_owned());
        assert!(!format!("{secret:?} {secret:#?}").contains("very"));
    }
}
