//! What is wrong with a file, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A stretch of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    text: Arc<str>,
    span: Range<usize>,
}

impl Place {
    pub(super) fn new(file: &Arc<str>, text: &Arc<str>, span: Range<usize>) -> Self {
        // A span can come from a parser's recovery: clamp it, so that showing a fault never fails.
        let mut end = span.end.min(text.len());
        let mut start = span.start.min(end);
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        while !text.is_char_boundary(end) {
            end += 1;
        }
        Self { file: file.clone(), text: text.clone(), span: start..end }
    }

    /// Returns the line and the column, both counted from 1; the column counts characters.
    pub fn line_and_column(&self) -> (usize, usize) {
        let before = &self.text[..self.span.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_and_column();
        write!(out, "{}:{line}:{column}", self.file)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where; `None` for what is missing from no particular place.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Fault {
    /// Makes a fault without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), advice: None }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(out, "{place}: ")?;
        }
        out.write_str(&self.message)?;
        match &self.advice {
            Some(advice) => write!(out, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Adds one.
    pub fn push(&mut self, fault: Fault) {
        self.0.push(fault);
    }

    /// Adds all of another's.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Returns `value` if nothing is wrong.
    ///
    /// # Errors
    /// Itself, when anything is, sorted by file and place.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        let place = |fault: &Fault| fault.place.as_ref().map(|place| (place.file.clone(), place.span.start));
        self.0.sort_by_key(place);
        Err(self)
    }

    /// Shows every fault with its line of the file under it, for a terminal.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let shown = self.0.iter().map(|fault| {
            let title = Level::ERROR.primary_title(fault.message.as_str());
            let mut group = match &fault.place {
                Some(place) => title.element(
                    Snippet::source(&*place.text)
                        .path(&*place.file)
                        .annotation(AnnotationKind::Primary.span(place.span.clone())),
                ),
                None => Group::with_title(title),
            };
            if let Some(advice) = &fault.advice {
                group = group.element(Level::HELP.message(advice.as_str()));
            }
            renderer.render(&[group])
        });
        shown.collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            fault.fmt(out)?;
        }
        Ok(())
    }
}
