//! One key of an account, ready to be sent.
//!
//! Never shows the key, and covers it where a provider repeats it.

use http::{HeaderName, HeaderValue};

use crate::types::{Failure, KeyLabel, Reply, Secret};
use crate::wire::Format;

use super::mask::Mask;

/// Which key it was: what is said of a key that has been replaced since holds for its successor no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId {
    /// What it is called where people can see it.
    pub(super) label: KeyLabel,
    /// How many have borne the label before it.
    version: u32,
}

impl KeyId {
    /// Makes that of the first key of this label.
    pub fn first(label: KeyLabel) -> Self {
        Self { label, version: 0 }
    }

    /// Returns what it is called where people can see it.
    pub fn label(&self) -> &KeyLabel {
        &self.label
    }
}

/// One key, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct ReadyKey {
    pub(super) id: KeyId,
    header: Option<(HeaderName, HeaderValue)>,
    mask: Option<Mask>,
}

impl ReadyKey {
    /// Makes the first key of this label.
    ///
    /// # Errors
    /// `auth` for a key that no header can carry; its text is not repeated.
    pub(super) fn new(format: Format, label: KeyLabel, secret: &Secret) -> Result<Self, Failure> {
        let header = Some(format.authorization(secret)?);
        let mask = Some(Mask::new(secret.clone()));
        Ok(Self { id: KeyId::first(label), header, mask })
    }

    /// Makes what stands for a key at a server that wants none.
    pub(super) fn none() -> Self {
        Self { id: KeyId::first("no key".into()), header: None, mask: None }
    }

    /// Makes the key that takes the place of this one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn successor(&self, format: Format, secret: &Secret) -> Result<Self, Failure> {
        let mut successor = Self::new(format, self.id.label.clone(), secret)?;
        successor.id.version = self.id.version.wrapping_add(1);
        Ok(successor)
    }

    /// Returns whether this is its text.
    pub(super) fn is(&self, secret: &Secret) -> bool {
        self.mask.as_ref().is_some_and(|mask| mask.covers(secret))
    }

    /// Returns the header that carries it; `None` for a server that wants no key.
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        self.header.clone()
    }

    /// Covers the key in the words of a provider that repeats what it was sent.
    pub(super) fn cover(&self, failure: &mut Failure) {
        if let Some(mask) = &self.mask {
            mask.cover_failure(failure);
        }
    }

    /// Covers the key in an answer that repeats it.
    pub(super) fn cover_reply(&self, reply: &mut Reply) {
        if let Some(mask) = &self.mask {
            mask.cover_reply(reply);
        }
    }
}
