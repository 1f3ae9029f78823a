//! Diagnostics of a TOML file: the error, its position and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::toml_string::TomlString;
use crate::terminal_text;
use crate::types::Advice;

/// A byte range of a file's text.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceSpan {
    file: Arc<str>,
    text: Arc<str>,
    range: Range<usize>,
}

impl SourceSpan {
    pub(super) fn new(file: &Arc<str>, text: &Arc<str>, span: Range<usize>) -> Self {
        // An error-recovering parser may return a span outside the text. Clamp it, so that rendering cannot panic.
        let mut end = span.end.min(text.len());
        let mut start = span.start.min(end);
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        Self { file: file.clone(), text: text.clone(), range: start..end }
    }

    /// Returns the byte range in the text of the file.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    pub(super) fn overlaps(&self, span: &Range<usize>) -> bool {
        self.range.start < span.end && span.start < self.range.end
    }

    /// Returns the text with control characters escaped for a terminal, and the range of this span in it.
    fn for_terminal(&self) -> (String, Range<usize>) {
        let mut text = terminal_text::lines(&self.text[..self.range.start]).into_owned();
        let start = text.len();
        text.push_str(&terminal_text::lines(&self.text[self.range.clone()]));
        let end = text.len();
        text.push_str(&terminal_text::lines(&self.text[self.range.end..]));
        (text, start..end)
    }

    /// Returns the line and the column, both counted from 1; the column counts characters.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = &self.text[..self.range.start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for SourceSpan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(out, "{}:{line}:{column}", self.file)
    }
}

impl fmt::Debug for SourceSpan {
    /// Omits the text: it is long and may contain secrets.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SourceSpan({self})")
    }
}

/// One error in a file, or in a configuration that was built in code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic {
    /// Where the error is; `None` if it has no position in a file.
    pub span: Option<SourceSpan>,
    /// The key of the error in a configuration that was built in code, in TOML syntax:
    /// `provider.openai.models."gpt-4.1"`. `None` if the error is in a file or belongs to no key.
    pub key_path: Option<String>,
    /// The error.
    pub message: String,
    /// What the author can do about it.
    pub help: Option<Advice>,
}

impl Diagnostic {
    /// Creates a diagnostic without a position.
    pub fn new(message: impl Into<String>) -> Self {
        Self { span: None, key_path: None, message: message.into(), help: None }
    }

    /// Sets the position to that of `other`.
    #[must_use]
    pub fn with_position_of(mut self, other: &Self) -> Self {
        self.span = other.span.clone();
        self.key_path = other.key_path.clone();
        self
    }

    /// Sets what the author can do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<Advice>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(span) = &self.span {
            write!(out, "{span}: ")?;
        }
        if let Some(key_path) = &self.key_path {
            write!(out, "{key_path}: ")?;
        }
        out.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(out, "; {help}"),
            None => Ok(()),
        }
    }
}

const REDACTED: &str = "***";

/// Shortest secret, in bytes, that is removed from messages. Replacing a short word everywhere would make the
/// message unreadable; real keys are longer.
const MIN_REDACTED_BYTES: usize = 8;

/// Replaces every byte of `secrets` in `text` with a star. The length stays the same, so spans stay valid.
fn redact_text(text: &str, secrets: &[TomlString]) -> String {
    let mut redacted = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let hidden = secrets.iter().any(|secret| secret.span.contains(&at));
        match character {
            '\n' | '\r' => redacted.push(character),
            _ if hidden => redacted.extend(std::iter::repeat_n('*', character.len_utf8())),
            _ => redacted.push(character),
        }
    }
    redacted
}

/// All errors of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds a diagnostic.
    #[doc(hidden)]
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds all diagnostics of `more`.
    #[doc(hidden)]
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Replaces `secrets` with stars in the source lines that are shown, and with `***` in messages and help. The
    /// spans of `secrets` refer to the text of the file.
    #[doc(hidden)]
    pub fn redact(&mut self, secrets: &[TomlString]) {
        if secrets.is_empty() {
            return;
        }
        let mut redacted: Option<Arc<str>> = None;
        for diagnostic in &mut self.0 {
            if let Some(span) = &mut diagnostic.span {
                span.text = redacted.get_or_insert_with(|| redact_text(&span.text, secrets).into()).clone();
            }
            for secret in secrets.iter().filter(|secret| secret.value.len() >= MIN_REDACTED_BYTES) {
                for spelling in [&secret.value, &secret.value.escape_debug().to_string()] {
                    diagnostic.message = diagnostic.message.replace(spelling, REDACTED);
                    let redact_help = |help: Advice| help.map_text(|text| text.replace(spelling, REDACTED));
                    diagnostic.help = diagnostic.help.take().map(redact_help);
                }
            }
        }
    }

    /// Returns `value` if there are no diagnostics.
    ///
    /// # Errors
    /// The diagnostics, sorted by file and position.
    #[doc(hidden)]
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|diagnostic| {
            diagnostic.span.as_ref().map(|span| (span.file.clone(), span.range.start))
        });
        Err(self)
    }

    /// Renders every diagnostic with its source line, for a terminal.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let rendered = self.0.iter().map(|diagnostic| {
            let title = match &diagnostic.key_path {
                Some(key_path) => format!("{key_path}: {}", diagnostic.message),
                None => diagnostic.message.clone(),
            };
            let title = Level::ERROR.primary_title(terminal_text::lines(&title).into_owned());
            let mut group = match &diagnostic.span {
                Some(span) => {
                    let (text, range) = span.for_terminal();
                    title.element(
                        Snippet::source(text)
                            .path(terminal_text::line(&span.file))
                            .annotation(AnnotationKind::Primary.span(range)),
                    )
                }
                None => Group::with_title(title),
            };
            if let Some(help) = &diagnostic.help {
                let help = help.to_string();
                group = group.element(Level::HELP.message(terminal_text::lines(&help).into_owned()));
            }
            renderer.render(&[group])
        });
        rendered.collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            diagnostic.fmt(out)?;
        }
        Ok(())
    }
}
