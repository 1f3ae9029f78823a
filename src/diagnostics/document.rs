//! A TOML text that has been parsed, and diagnostics at positions in it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Diagnostics, SourceSpan};
use super::dotted_names::with_joined_names;
use super::explain::syntax_help;
use super::node::{Node, children, span_of};

/// A syntactically valid TOML text.
#[derive(Clone)]
pub struct Document {
    file: Arc<str>,
    text: Arc<str>,
    is_generated: bool,
    /// The path of the tables whose names may have dots.
    dotted_names: Option<&'static [&'static str]>,
}

/// Longest path of a key: all keys that contain it, and itself, in bytes. The position of each key is kept with its path.
const MAX_PATH_BYTES: usize = 2 << 10;

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
        Self { file: file.into(), text: text.into(), is_generated: false, dotted_names: None }.check_syntax()
    }

    /// Parses a text that a program has generated. Its positions mean nothing to a user, so
    /// [`locate_by_key`](Self::locate_by_key) replaces them.
    ///
    /// # Errors
    /// All syntax errors, without positions.
    pub fn generated(text: &str) -> Result<Self, Diagnostics> {
        let document =
            Self { file: GENERATED.into(), text: text.into(), is_generated: true, dotted_names: None };
        document.clone().check_syntax().map_err(|mut diagnostics| {
            document.locate_by_key(&mut diagnostics);
            diagnostics
        })
    }

    fn check_syntax(self) -> Result<Self, Diagnostics> {
        let (root, errors) = DeTable::parse_recoverable(&self.text);
        let root = Spanned::new(root.span(), DeValue::Table(root.into_inner()));
        let mut long = Vec::new();
        collect_long_paths(&root, 0, &mut long);
        drop(root);
        let diagnostics = errors.iter().map(|error| {
            let help = syntax_help(error.message()).map(Into::into);
            Diagnostic { help, ..self.diagnostic(span_of(error), error.message()) }
        });
        let mut diagnostics: Vec<Diagnostic> = diagnostics.collect();
        diagnostics.dedup();
        if diagnostics.is_empty() {
            let help = "use shorter names";
            let message = "this key is too long, with those that contain it";
            let long = long.into_iter().map(|span| self.diagnostic(span, message).with_help(help));
            diagnostics.extend(long);
        }
        Diagnostics(diagnostics).into_result(self)
    }

    /// Reads names with dots in the tables at `place` also without quotes, if they are versions as in `gpt-4.1`. In the path
    /// of the tables `*` is any key.
    #[must_use]
    pub fn with_dotted_names(self, place: &'static [&'static str]) -> Self {
        Self { dotted_names: Some(place), ..self }
    }

    /// Returns the tree of the text.
    pub(super) fn root(&self) -> Spanned<DeTable<'_>> {
        let (root, _) = DeTable::parse_recoverable(&self.text);
        let Some(place) = self.dotted_names else { return root };
        let span = root.span();
        Spanned::new(span, with_joined_names(root.into_inner(), place))
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

/// Collects the positions of the outermost keys below `node` whose paths are too long. `length` is that of the path of
/// `node`.
fn collect_long_paths(node: &Node<'_>, length: usize, found: &mut Vec<Range<usize>>) {
    for (key, child) in children(node) {
        let length = length + key.map_or(0, |key| key.get_ref().len());
        match key {
            Some(key) if length > MAX_PATH_BYTES => found.push(key.span()),
            Some(_) | None => collect_long_paths(child, length, found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_a_long_path_is_an_error() {
        let half = "a".repeat(MAX_PATH_BYTES / 2);
        assert!(Document::parse("c.toml", &format!("{half}.{half} = 1\n")).is_ok());
        let found = Document::parse("c.toml", &format!("[[{half}]]\nb.{half} = 1\nc = 1\n")).unwrap_err();
        assert_eq!(found.0.len(), 1, "{found}");
        assert!(found.0[0].message.contains("too long"), "{found}");
        assert_eq!(found.0[0].span.as_ref().unwrap().line_and_column().0, 2);
    }

    #[test]
    fn of_many_syntax_errors_the_first_are_listed() {
        let found = Document::parse("c.toml", &"a = = 1\n".repeat(5_000)).unwrap_err();
        assert!((2..=101).contains(&found.0.len()), "{}", found.0.len());
    }

    #[test]
    fn a_syntax_error_is_reported_with_its_line() {
        let diagnostics = Document::parse("c.toml", "a = 1\nb = = 2\n").unwrap_err();
        assert_eq!(diagnostics.0[0].span.as_ref().unwrap().line_and_column().0, 2);
    }
}
