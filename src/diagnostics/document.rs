//! A TOML text that has been parsed, and diagnostics at positions in it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Diagnostics, SourceSpan};
use super::explain::syntax_help;
use super::node::span_of;

/// A syntactically valid TOML text.
#[derive(Clone)]
pub struct Document {
    file: Arc<str>,
    text: Arc<str>,
    is_generated: bool,
}

/// The name of a generated document. Its diagnostics do not show it.
const GENERATED: &str = "configuration";

impl fmt::Debug for Document {
    /// Omits the text: it may contain a secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Document").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Document {
    /// Parses `text`; `file` is the file name in diagnostics.
    ///
    /// # Errors
    /// All syntax errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, Diagnostics> {
        Self { file: file.into(), text: text.into(), is_generated: false }.check_syntax()
    }

    /// Parses a text that a program has generated. Its positions mean nothing to a user, so
    /// [`locate_by_key`](Self::locate_by_key) replaces them.
    ///
    /// # Errors
    /// All syntax errors, without positions.
    pub fn generated(text: &str) -> Result<Self, Diagnostics> {
        let document = Self { file: GENERATED.into(), text: text.into(), is_generated: true };
        document.clone().check_syntax().map_err(|mut diagnostics| {
            document.locate_by_key(&mut diagnostics);
            diagnostics
        })
    }

    fn check_syntax(self) -> Result<Self, Diagnostics> {
        let (_, errors) = DeTable::parse_recoverable(&self.text);
        let diagnostics = errors.iter().map(|error| {
            let help = syntax_help(error.message()).map(Into::into);
            Diagnostic { help, ..self.diagnostic(span_of(error), error.message()) }
        });
        let mut diagnostics: Vec<Diagnostic> = diagnostics.collect();
        diagnostics.dedup();
        Diagnostics(diagnostics).into_result(self)
    }

    /// Returns the text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether a program has generated the text.
    pub(super) fn is_generated(&self) -> bool {
        self.is_generated
    }

    /// Creates a diagnostic at `span` of this document.
    pub fn diagnostic(&self, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic { span: Some(SourceSpan::new(&self.file, &self.text, span)), ..Diagnostic::new(message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_is_reported_with_its_line() {
        let diagnostics = Document::parse("c.toml", "a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(diagnostics.0[0].span.as_ref().unwrap().line_and_column().0, 2);
    }
}
