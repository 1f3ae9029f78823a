//! Collects the errors of a pipeline file, each at its position in the file.

use std::ops::Range;

use crate::diagnostics::{Diagnostic, Diagnostics, Document, Spans, TomlString};

use super::toml_string_span;

/// The errors of a pipeline file that are found so far.
pub(super) struct SourceDiagnostics<'d> {
    pub(super) document: &'d Document,
    pub(super) spans: &'d Spans<'d>,
    pub(super) found: Diagnostics,
}

/// A template to compile. `path` is its path in the pipeline file; `None` if it is from the configuration.
pub(super) struct TemplateSource<'s> {
    pub(super) text: &'s str,
    pub(super) path: Option<Vec<String>>,
    pub(super) is_condition: bool,
}

impl SourceDiagnostics<'_> {
    /// Adds a diagnostic, unless there are more than are listed.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if self.found.room() > 0 {
            self.found.push(diagnostic);
        }
    }

    /// Returns whether the file contains the key at `path`, even with an invalid value.
    pub(super) fn is_written(&self, path: &[&str]) -> bool {
        self.spans.contains(path)
    }

    /// Creates a diagnostic at the key at `path`.
    pub(super) fn at(&self, path: &[&str], message: impl Into<String>) -> Diagnostic {
        self.spans.diagnostic(path, message)
    }

    /// Adds a diagnostic at a key of a step.
    pub(super) fn push_at_step(
        &mut self,
        step: usize,
        keys: &[&str],
        message: impl Into<String>,
        help: &str,
    ) {
        let index = step.to_string();
        let path = [&["step", index.as_str()], keys].concat();
        self.push(self.at(&path, message).with_help(help));
    }

    /// Creates a diagnostic at `range` of a template, or at the whole template if the position cannot be
    /// determined.
    pub(super) fn in_template(
        &self,
        source: &TemplateSource<'_>,
        range: Option<Range<usize>>,
        message: String,
    ) -> Diagnostic {
        let Some(path) = &source.path else {
            return Diagnostic::new(format!("in the configuration's [defaults]: {message}"));
        };
        let is_source = |text: &&TomlString| text.path == *path;
        let exact = self.spans.strings().iter().find(is_source).zip(range).and_then(|(text, range)| {
            let raw = self.document.text().get(text.span.clone())?;
            let inside = toml_string_span::locate(raw, &text.value, range)?;
            Some(text.span.start + inside.start..text.span.start + inside.end)
        });
        match exact {
            Some(span) => self.document.diagnostic(span, message),
            None => self.at(&path.iter().map(String::as_str).collect::<Vec<_>>(), message),
        }
    }
}
