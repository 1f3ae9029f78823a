//! A string, a key or a number of a TOML document, which may be a secret.

use std::fmt;
use std::ops::Range;

/// A string value of a document. Also a key or a number, where one may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct TomlString {
    /// Its path from the root.
    pub path: Vec<String>,
    /// Its byte range in the text, quotes included.
    pub span: Range<usize>,
    /// Its value. May be a secret, so `Debug` omits it.
    pub value: String,
}

impl fmt::Debug for TomlString {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TomlString")
            .field("path", &self.path)
            .field("span", &self.span)
            .finish_non_exhaustive()
    }
}
