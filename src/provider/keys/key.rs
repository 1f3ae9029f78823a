//! One key of an account, in the form in which it is sent.
//!
//! Never shows the key, and redacts it where a provider repeats it.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::types::{Completion, Failure, Format, KeyLabel, Secret};

use super::redact::Redactor;

/// Identifies a key and its version: results of a replaced key do not apply to its replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId {
    /// The label for messages and reports.
    pub(in crate::provider) label: KeyLabel,
    /// How many keys had this label before.
    version: u32,
}

impl KeyId {
    /// Creates the id of the first key with this label.
    pub fn first(label: KeyLabel) -> Self {
        Self { label, version: 0 }
    }

    /// Returns the label for messages and reports.
    pub fn label(&self) -> &KeyLabel {
        &self.label
    }
}

/// One key, in the form in which it is sent.
#[derive(Debug, Clone)]
pub(in crate::provider) struct ReadyKey {
    pub(in crate::provider) id: KeyId,
    header: Option<(HeaderName, HeaderValue)>,
    /// Shared because every call has a copy of its key.
    redactor: Option<Arc<Redactor>>,
}

impl ReadyKey {
    /// Creates the first key with this label.
    ///
    /// # Errors
    /// `auth` for a key that is not valid in a header. The error does not contain the key.
    pub(in crate::provider) fn new(
        format: Format,
        label: KeyLabel,
        secret: &Secret,
    ) -> Result<Self, Failure> {
        let header = Some(format.authorization(secret)?);
        let mask = Some(Arc::new(Redactor::new(secret.clone())));
        Ok(Self { id: KeyId::first(label), header, redactor: mask })
    }

    /// Creates the placeholder for a server that requires no key.
    pub(in crate::provider) fn none() -> Self {
        Self { id: KeyId::first("no key".into()), header: None, redactor: None }
    }

    /// Creates the key that replaces this one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(in crate::provider) fn replacement(&self, format: Format, secret: &Secret) -> Result<Self, Failure> {
        let mut replacement = Self::new(format, self.id.label.clone(), secret)?;
        replacement.id.version = self.id.version.wrapping_add(1);
        Ok(replacement)
    }

    /// Gives the key the version after an earlier key with the same label.
    pub(in crate::provider) fn succeed(&mut self, earlier: &KeyId) {
        if self.id.label == earlier.label {
            self.id.version = self.id.version.max(earlier.version.wrapping_add(1));
        }
    }

    /// Returns whether the key has this secret.
    pub(in crate::provider) fn has_secret(&self, secret: &Secret) -> bool {
        self.redactor.as_ref().is_some_and(|mask| mask.is_for(secret))
    }

    /// Returns the header with the key; `None` for a server that requires no key.
    pub(in crate::provider) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        self.header.clone()
    }

    /// Redacts the key in a failure whose text repeats it.
    pub(in crate::provider) fn redact_failure(&self, failure: &mut Failure) {
        if let Some(mask) = &self.redactor {
            mask.redact_failure(failure);
        }
    }

    /// Returns how many bytes at the end of `text` may be the beginning of the key.
    pub(in crate::provider) fn held_bytes(&self, text: &str) -> usize {
        self.redactor.as_ref().map_or(0, |mask| mask.held_bytes(text))
    }

    /// Returns the end of the complete key that stands across a position of `text`.
    pub(in crate::provider) fn end_across(&self, text: &str, position: usize) -> Option<usize> {
        self.redactor.as_ref()?.end_across(text, position)
    }

    /// Redacts the key in a text of an answer that repeats it.
    pub(in crate::provider) fn redact_answer_text(&self, text: &mut String) {
        if let Some(mask) = &self.redactor {
            mask.redact_answer_text(text);
        }
    }

    /// Redacts the key in an answer that repeats it.
    pub(in crate::provider) fn redact_completion(&self, completion: &mut Completion) {
        if let Some(mask) = &self.redactor {
            mask.redact_completion(completion);
        }
    }
}
