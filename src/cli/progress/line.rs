//! A line of the progress display: pieces of text with colors, which fit into a number of columns.
//!
//! All text is made safe for a terminal before it becomes a piece. The columns of a text are the sum of those of its
//! characters: a terminal that joins characters to one, as in an emoji with a skin tone, shows fewer, and none shows more.

use console::{Style, measure_text_width};

use crate::cli::live_lines::LiveLine;
use crate::terminal_text;

/// What a piece of text shows, which decides its color.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    /// The name of the run.
    Title,
    /// Of less interest.
    Dim,
    /// The part of a bar that is done.
    Done,
    Good,
    Warning,
    Problem,
}

impl Paint {
    fn style(self) -> Style {
        let style = Style::new().force_styling(true);
        match self {
            Self::Plain => style,
            Self::Title => style.bold(),
            Self::Dim => style.dim(),
            Self::Done => style.cyan(),
            Self::Good => style.green(),
            Self::Warning => style.yellow(),
            Self::Problem => style.red(),
        }
    }
}

/// A line of the display.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    pieces: Vec<(Paint, String)>,
    columns: usize,
}

impl Line {
    /// Creates a line of one piece.
    pub(super) fn of(paint: Paint, text: &str) -> Self {
        Self::default().with(paint, text)
    }

    /// Adds a piece.
    pub(super) fn with(mut self, paint: Paint, text: &str) -> Self {
        let text = terminal_text::line(text).into_owned();
        self.columns += columns(&text);
        self.pieces.push((paint, text));
        self
    }

    /// Adds spaces up to a column.
    pub(super) fn padded_to(self, column: usize) -> Self {
        let missing = column.saturating_sub(self.columns);
        self.with(Paint::Plain, &" ".repeat(missing))
    }

    /// Returns the columns that it takes.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Truncates it to `width` columns.
    pub(super) fn fitted(self, width: usize) -> Self {
        if self.columns <= width {
            return self;
        }
        let mut fitted = Self::default();
        for (paint, text) in self.pieces {
            let free = width.saturating_sub(fitted.columns);
            if columns(&text) <= free && fitted.columns + columns(&text) < width {
                fitted = fitted.with(paint, &text);
                continue;
            }
            // The rest has at least one more column, for which there is a mark.
            let text = format!("{}{}", start_of(&text, free.saturating_sub(1)), mark(free));
            return fitted.with(paint, &text);
        }
        fitted
    }

    /// Returns it for the terminal.
    pub(super) fn to_live(&self, has_color: bool) -> LiveLine {
        let shown = self.pieces.iter().map(|(paint, text)| match (has_color, *paint) {
            (false, _) | (true, Paint::Plain) => text.clone(),
            (true, paint) => paint.style().apply_to(text).to_string(),
        });
        LiveLine { text: shown.collect(), columns: self.columns }
    }
}

/// Returns the columns that `text` takes at most.
pub(super) fn columns(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    text.chars().map(|letter| measure_text_width(letter.encode_utf8(&mut [0; 4]))).sum()
}

/// Returns `text`, or its start with a mark, in at most `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    let text = terminal_text::line(text);
    if columns(&text) <= width {
        return text.into_owned();
    }
    format!("{}{}", start_of(&text, width.saturating_sub(1)), mark(width))
}

/// Returns the mark of truncated text; nothing if there is no column for it.
fn mark(width: usize) -> &'static str {
    if width > 0 { "…" } else { "" }
}

/// Returns the longest start of `text` with at most `width` columns.
fn start_of(text: &str, width: usize) -> &str {
    let mut used = 0;
    for (at, letter) in text.char_indices() {
        used += columns(letter.encode_utf8(&mut [0; 4]));
        if used > width {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_truncated_at_a_whole_character() {
        let line = || Line::of(Paint::Title, "請求書").with(Paint::Plain, " e\u{301}e\u{301} 👩‍👩‍👧 end");
        assert_eq!(line().to_live(false).text, "請求書 e\u{301}e\u{301} 👩👩👧 end");
        assert_eq!(line().columns(), 6 + 1 + 2 + 1 + 6 + 4);
        for (width, shown) in [
            (100, "請求書 e\u{301}e\u{301} 👩👩👧 end"),
            (20, "請求書 e\u{301}e\u{301} 👩👩👧 end"),
            (19, "請求書 e\u{301}e\u{301} 👩👩👧 e…"),
            (8, "請求書 …"),
            (7, "請求書…"),
            (6, "請求…"),
            (1, "…"),
            (0, ""),
        ] {
            assert_eq!(line().fitted(width).to_live(false).text, shown, "{width}");
        }
        assert_eq!(
            [cut("請求書", 5), cut("請求書", 6), cut("a\u{1b}[2Jb", 9)],
            ["請求…", "請求書", "a\u{fffd}[2Jb"]
        );
    }

    #[test]
    fn only_a_terminal_with_colors_gets_them() {
        let line = Line::of(Paint::Problem, "7 failed").with(Paint::Plain, "!");
        assert_eq!(line.to_live(false).text, "7 failed!");
        let colored = line.to_live(true);
        assert_eq!((colored.text.as_str(), colored.columns), ("\u{1b}[31m7 failed\u{1b}[0m!", 9));
    }

    proptest! {
        #[test]
        fn any_line_fits(texts in prop::collection::vec(any::<String>(), 0..4), width in 0usize..30) {
            let line = texts.iter().fold(Line::default(), |line, text| line.with(Paint::Good, text));
            let fitted = line.fitted(width);
            prop_assert!(fitted.columns() <= width);
            let shown = fitted.to_live(false);
            prop_assert_eq!(columns(&shown.text), shown.columns);
            prop_assert!(measure_text_width(&shown.text) <= width);
        }
    }
}
