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
}

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
        let document = Self { file: file.into(), text: text.into() };
        let (_, errors) = DeTable::parse_recoverable(&document.text);
        let diagnostics = errors.iter().map(|error| {
            let help = syntax_help(error.message()).map(str::to_owned);
            Diagnostic { help, ..document.diagnostic(span_of(error), error.message()) }
        });
        let mut diagnostics: Vec<Diagnostic> = diagnostics.collect();
        diagnostics.dedup();
        Diagnostics(diagnostics).into_result(document)
    }

    /// Returns the text that was parsed.
    pub fn text(&self) -> &str {
        &self.text
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
