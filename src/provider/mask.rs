//! Covers a secret in the words of a provider that repeats what it was sent.
//!
//! Also finds a secret that was cut off at the end of a message. Never prints one.

use crate::types::{Failure, Secret};

/// What stands in place of a secret.
const COVER: &str = "***";

/// Shorter than this nothing is a secret, and covering it would only spoil harmless words.
const SHORTEST: usize = 4;

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
        self.cover(&mut failure.message);
        for text in [&mut failure.code, &mut failure.text].into_iter().flatten() {
            self.cover(text);
        }
    }

    fn cover(&self, text: &mut Box<str>) {
        let secret = self.0.expose();
        if secret.len() < SHORTEST {
            return;
        }
        if text.contains(secret) {
            *text = text.replace(secret, COVER).into();
        }
        let (body, ellipsis) = match text.strip_suffix('…') {
            Some(body) => (body, "…"),
            None => (&**text, ""),
        };
        // Keys are ASCII, so every length is a boundary.
        let cut = (MAY_SHOW + 1..secret.len()).rev().find(|length| body.ends_with(&secret[..*length]));
        if let Some(length) = cut {
            *text = format!("{}{COVER}{ellipsis}", &body[..body.len() - length]).into();
        }
    }
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

    proptest! {
        #[test]
        fn no_message_shows_a_key(before in "\\PC{0,40}", after in "\\PC{0,40}") {
            let message = format!("{before}{KEY}{after}");
            prop_assert!(!covered(&message).contains(KEY));
        }
    }
}
