//! What is wrong with a file, where, and what to do about it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::Text;
use crate::screen;

/// A stretch of a text.
#[derive(Clone, PartialEq, Eq)]
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

    pub(super) fn overlaps(&self, span: &Range<usize>) -> bool {
        self.span.start < span.end && span.start < self.span.end
    }

    /// Returns the text as a terminal may show it, and where the place is in that.
    fn on_screen(&self) -> (String, Range<usize>) {
        let mut text = screen::lines(&self.text[..self.span.start]).into_owned();
        let start = text.len();
        text.push_str(&screen::lines(&self.text[self.span.clone()]));
        let end = text.len();
        text.push_str(&screen::lines(&self.text[self.span.end..]));
        (text, start..end)
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

impl fmt::Debug for Place {
    /// Leaves the text out: it is long, and may hold what is nobody's business.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Place({self})")
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

const STARS: &str = "***";

/// Replacing every `open` of a message would hide the message; a key is longer.
const SHORTEST_SECRET: usize = 8;

/// Replaces each stretch by as many stars as it has bytes, so that later places stay where they are.
fn cover(text: &str, secrets: &[Text]) -> String {
    let mut covered = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let hidden = secrets.iter().any(|secret| secret.span.contains(&at));
        match character {
            '\n' | '\r' => covered.push(character),
            _ if hidden => covered.extend(std::iter::repeat_n('*', character.len_utf8())),
            _ => covered.push(character),
        }
    }
    covered
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

    /// Puts stars over `secrets`, which stand in the text that the places are of: in the lines that
    /// are shown, and where a message or an advice repeats one.
    pub fn hide(&mut self, secrets: &[Text]) {
        if secrets.is_empty() {
            return;
        }
        let mut covered: Option<Arc<str>> = None;
        for fault in &mut self.0 {
            if let Some(place) = &mut fault.place {
                place.text = covered.get_or_insert_with(|| cover(&place.text, secrets).into()).clone();
            }
            for secret in secrets.iter().filter(|secret| secret.value.len() >= SHORTEST_SECRET) {
                for said in [&secret.value, &secret.value.escape_debug().to_string()] {
                    fault.message = fault.message.replace(said, STARS);
                    fault.advice = fault.advice.take().map(|advice| advice.replace(said, STARS));
                }
            }
        }
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
            let title = Level::ERROR.primary_title(screen::lines(&fault.message));
            let mut group = match &fault.place {
                Some(place) => {
                    let (text, span) = place.on_screen();
                    title.element(
                        Snippet::source(text)
                            .path(screen::line(&place.file))
                            .annotation(AnnotationKind::Primary.span(span)),
                    )
                }
                None => Group::with_title(title),
            };
            if let Some(advice) = &fault.advice {
                group = group.element(Level::HELP.message(screen::lines(advice)));
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
