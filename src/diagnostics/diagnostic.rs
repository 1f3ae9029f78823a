//! Diagnostics of a TOML file: the error, its position and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::likely_key::{REDACTED, hide_likely_secrets};
use super::toml_string::TomlString;
use crate::terminal_text;
use crate::types::{Advice, bounded_text};

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

    /// Changes the message, the help and the path of the key.
    fn map_texts(&mut self, change: &impl Fn(&str) -> String) {
        self.message = change(&self.message);
        self.help = self.help.take().map(|help| help.map_text(change));
        self.key_path = self.key_path.as_deref().map(change);
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

/// Shortest secret, in bytes, that is removed from messages. Replacing a short word everywhere would make the
/// message unreadable; real keys are longer.
const MIN_REDACTED_BYTES: usize = 8;

/// Most errors of a file that are listed. A text from outside may have as many as it has keys.
pub(super) const MAX_LISTED: usize = 100;

/// What is listed after [`MAX_LISTED`] errors.
const MORE: &str = "and more errors, which are listed when these are corrected";

/// Longest text of an error in [`Diagnostics::texts`], in bytes. An error may quote a key of any length.
const MAX_TEXT_BYTES: usize = 2 << 10;

/// Replaces every byte of `secrets` in `text` with a star. The length stays the same, so spans stay valid.
fn redact_text(text: &str, secrets: &[TomlString]) -> String {
    let mut spans: Vec<Range<usize>> = secrets.iter().map(|secret| secret.span.clone()).collect();
    spans.sort_by_key(|span| span.start);
    let mut spans = spans.into_iter().peekable();
    let mut hidden_until = 0;
    let mut redacted = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        while let Some(span) = spans.next_if(|span| span.start <= at) {
            hidden_until = hidden_until.max(span.end);
        }
        let hidden = at < hidden_until;
        match character {
            '\n' | '\r' => redacted.push(character),
            _ if hidden => redacted.extend(std::iter::repeat_n('*', character.len_utf8())),
            _ => redacted.push(character),
        }
    }
    redacted
}

/// Replaces a secret, given in lower case, in `text` with `***`. The case of letters is ignored: the name of a header is
/// shown in lower case.
fn replace_secret(text: &str, lower_text: &str, lower_secret: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, found) in lower_text.match_indices(lower_secret) {
        replaced.push_str(&text[copied..at]);
        replaced.push_str(REDACTED);
        copied = at + found.len();
    }
    replaced.push_str(&text[copied..]);
    replaced
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

    /// Replaces `secrets` with stars in the source lines that are shown, and with `***` in messages, help and keys.
    /// The spans of `secrets` refer to the text of the file.
    #[doc(hidden)]
    pub fn redact(&mut self, secrets: &[TomlString]) {
        if secrets.is_empty() {
            return;
        }
        let is_long = |secret: &&TomlString| secret.value.len() >= MIN_REDACTED_BYTES;
        let mut values: Vec<&str> =
            secrets.iter().filter(is_long).map(|secret| secret.value.as_str()).collect();
        // The longest first: a secret may be a part of another one.
        values.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        values.dedup();
        let spellings =
            values.iter().flat_map(|value| [(*value).to_owned(), value.escape_debug().to_string()]);
        let spellings: Vec<String> = spellings.map(|spelling| spelling.to_ascii_lowercase()).collect();
        let redact = |text: &str| {
            let mut text = text.to_owned();
            let mut lower_text = text.to_ascii_lowercase();
            for spelling in &spellings {
                // Few of the secrets of a file are in one message.
                if lower_text.contains(spelling) {
                    text = replace_secret(&text, &lower_text, spelling);
                    lower_text = text.to_ascii_lowercase();
                }
            }
            text
        };
        let mut redacted: Option<Arc<str>> = None;
        for diagnostic in &mut self.0 {
            if let Some(span) = &mut diagnostic.span {
                span.text = redacted.get_or_insert_with(|| redact_text(&span.text, secrets).into()).clone();
            }
            diagnostic.map_texts(&redact);
        }
    }

    /// Replaces words that look like keys with `***` in messages, help and keys, for diagnostics without a document.
    pub(crate) fn hide_likely_secrets(&mut self) {
        for diagnostic in &mut self.0 {
            diagnostic.map_texts(&|text| hide_likely_secrets(text).into_owned());
        }
    }

    /// Returns how many more are worth finding: one more than are listed, in all.
    pub(crate) fn room(&self) -> usize {
        (MAX_LISTED + 1).saturating_sub(self.0.len())
    }

    /// Returns `value` if there are no diagnostics.
    ///
    /// # Errors
    /// The diagnostics, sorted by file and position. Only the first ones are listed if there are more than a reader corrects
    /// at once.
    #[doc(hidden)]
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|diagnostic| {
            diagnostic.span.as_ref().map(|span| (span.file.clone(), span.range.start))
        });
        if self.0.len() > MAX_LISTED {
            self.0.truncate(MAX_LISTED);
            let more = Diagnostic::new(MORE);
            // At the last position, so that it stays behind it if the diagnostics of several files are sorted.
            let more = match self.0.last() {
                Some(last) => more.with_position_of(last),
                None => more,
            };
            self.0.push(more);
        }
        Err(self)
    }

    /// Returns the text of each diagnostic, for a caller over the network. A long text is cut.
    #[doc(hidden)]
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(|diagnostic| bounded_text(diagnostic.to_string(), MAX_TEXT_BYTES)).collect()
    }

    /// Sets the help of the diagnostics at `at` that have this message.
    pub(crate) fn set_help_at(&mut self, at: &Range<usize>, message: &str, help: &str) {
        for diagnostic in &mut self.0 {
            let is_there = diagnostic.span.as_ref().is_some_and(|span| span.overlaps(at));
            if is_there && diagnostic.message == message {
                diagnostic.help = Some(help.into());
            }
        }
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
