//! Lines at the end of a terminal that are redrawn in place. Pure: returns what to write, and writes nothing.
//!
//! The cursor stays at the start of the last line: what the terminal echoes there, such as `^C`, is drawn over. Each line
//! ends with a line feed of its own and is shorter than the terminal is wide, so that the terminal wraps none. If the
//! terminal becomes narrower, it wraps the lines that are too long, and they take more rows. These are computed from the
//! columns of each line, so that nothing of it is left behind.

use std::fmt::Write;

/// A line with the columns that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveLine {
    /// The text, with escape sequences for its colors.
    pub(super) text: String,
    /// The columns of the text.
    pub(super) columns: usize,
}

/// The lines, which are shown or hidden.
#[derive(Debug, Default)]
pub(super) struct LiveLines {
    lines: Vec<LiveLine>,
    /// The width of the terminal when they were drawn.
    width: usize,
    is_shown: bool,
}

impl LiveLines {
    /// Creates an area without lines.
    pub(super) const fn new() -> Self {
        Self { lines: Vec::new(), width: 0, is_shown: false }
    }

    /// Returns whether lines are shown.
    pub(super) fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// Replaces the lines and shows them. Returns what to write on a terminal that is `width` columns wide; nothing if it
    /// shows these lines already.
    pub(super) fn replace(&mut self, lines: Vec<LiveLine>, width: usize) -> String {
        if self.is_shown && self.lines == lines && self.width == width {
            return String::new();
        }
        let start = match self.is_shown {
            true if self.width == width => self.to_start(width),
            true => self.to_start(width) + ERASE_TO_END,
            false => "\r".to_owned(),
        };
        self.lines = lines;
        self.width = width;
        self.is_shown = false;
        start + &self.show()
    }

    /// Returns what to write in order to print `text`, which ends with a line end, above the lines.
    pub(super) fn print_above(&mut self, text: &str, width: usize) -> String {
        if !self.is_shown {
            return text.to_owned();
        }
        let hidden = self.hide(width);
        // Lines that would be wrapped are not shown again. The next ones fit.
        let shown = if width < self.width { String::new() } else { self.show() };
        format!("{hidden}{text}{shown}")
    }

    /// Hides the lines, and returns what to write.
    pub(super) fn hide(&mut self, width: usize) -> String {
        if !self.is_shown {
            return String::new();
        }
        self.is_shown = false;
        self.to_start(width) + ERASE_TO_END
    }

    /// Shows the lines that were hidden at the cursor, and returns what to write.
    pub(super) fn show(&mut self) -> String {
        if self.is_shown || self.lines.is_empty() {
            return String::new();
        }
        self.is_shown = true;
        let mut text = String::new();
        for (index, line) in self.lines.iter().enumerate() {
            text.push_str(&line.text);
            text.push_str(if index + 1 < self.lines.len() { "\x1b[K\r\n" } else { ERASE_TO_END });
        }
        text.push('\r');
        text
    }

    /// Returns what moves the cursor from the start of the last line to that of the first one.
    fn to_start(&self, width: usize) -> String {
        let above = self.lines.split_last().map_or(&[][..], |(_, above)| above);
        let rows: usize = above.iter().map(|line| line.columns.div_ceil(width.max(1)).max(1)).sum();
        let mut text = "\r".to_owned();
        if rows > 0 {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\x1b[{rows}A");
        }
        text
    }
}

/// Erases from the cursor to the end of the terminal.
const ERASE_TO_END: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(texts: &[&str]) -> Vec<LiveLine> {
        texts.iter().map(|text| LiveLine { text: (*text).to_owned(), columns: text.len() }).collect()
    }

    /// A terminal of some rows, as far as the sequences above need it. It wraps its lines again when it is resized.
    struct Terminal {
        width: usize,
        rows: Vec<String>,
        row: usize,
        column: usize,
    }

    impl Terminal {
        fn new(width: usize) -> Self {
            Self { width, rows: vec![String::new()], row: 0, column: 0 }
        }

        fn write(&mut self, text: &str) {
            let mut rest = text;
            while let Some(letter) = rest.chars().next() {
                rest = &rest[letter.len_utf8()..];
                match letter {
                    '\r' => self.column = 0,
                    '\n' => {
                        self.row += 1;
                        self.column = 0;
                        if self.row == self.rows.len() {
                            self.rows.push(String::new());
                        }
                    }
                    '\u{1b}' => {
                        let end = rest.find(|letter: char| letter.is_ascii_alphabetic()).unwrap();
                        let number = rest[1..end].parse::<usize>().unwrap_or(0);
                        match &rest[end..=end] {
                            "A" => self.row = self.row.saturating_sub(number),
                            "K" => self.rows[self.row].truncate(self.column),
                            "J" => {
                                self.rows[self.row].truncate(self.column);
                                self.rows.truncate(self.row + 1);
                            }
                            other => panic!("{other}"),
                        }
                        rest = &rest[end + 1..];
                    }
                    letter => {
                        assert!(self.column < self.width, "a line is wrapped");
                        let row = &mut self.rows[self.row];
                        row.replace_range(self.column..(self.column + 1).min(row.len()), &letter.to_string());
                        self.column += 1;
                    }
                }
            }
        }

        /// Makes it narrower. The cursor, which is at the start of a line, stays there.
        fn resize(&mut self, width: usize) {
            let mut rows = Vec::new();
            let mut row = 0;
            for (index, text) in self.rows.iter().enumerate() {
                if index == self.row {
                    row = rows.len();
                }
                let letters: Vec<char> = text.chars().collect();
                let pieces = letters.chunks(width).map(|piece| piece.iter().collect::<String>());
                rows.extend(pieces);
                if text.is_empty() {
                    rows.push(String::new());
                }
            }
            *self = Self { width, rows, row, column: 0 };
        }

        fn shown(&self) -> Vec<&str> {
            self.rows.iter().map(String::as_str).collect()
        }
    }

    #[test]
    fn lines_are_redrawn_in_place_and_text_is_printed_above_them() {
        let mut live = LiveLines::new();
        let mut terminal = Terminal::new(20);
        terminal.write("first\r\n");
        terminal.write(&live.replace(lines(&["one is long", "two", "three"]), 20));
        assert_eq!(terminal.shown(), ["first", "one is long", "two", "three"]);
        terminal.write(&live.replace(lines(&["1", "2"]), 20));
        assert_eq!(terminal.shown(), ["first", "1", "2"]);
        assert_eq!(live.replace(lines(&["1", "2"]), 20), "", "nothing has changed");
        terminal.write(&live.print_above("note\n", 20));
        assert_eq!(terminal.shown(), ["first", "note", "1", "2"]);
        terminal.write(&live.hide(20));
        terminal.write(&live.print_above("result\n", 20));
        terminal.write(&live.show());
        assert_eq!(terminal.shown(), ["first", "note", "result", "1", "2"]);
        terminal.write(&live.hide(20));
        assert_eq!(terminal.shown(), ["first", "note", "result", ""]);
        assert_eq!(live.print_above("last\n", 20), "last\n");
    }

    #[test]
    fn a_terminal_that_becomes_narrower_or_wider_keeps_no_old_line() {
        let mut live = LiveLines::new();
        let mut terminal = Terminal::new(40);
        terminal.write("first\r\n");
        let long = "a line of thirty-nine columns is drawn.";
        terminal.write(&live.replace(lines(&[long, "short", long]), 40));
        terminal.resize(15);
        assert_eq!(terminal.shown().len(), 1 + 3 + 1 + 3);
        terminal.write(&live.replace(lines(&["fits", "now", "again"]), 15));
        assert_eq!(terminal.shown(), ["first", "fits", "now", "again"]);
        terminal.resize(60);
        terminal.write(&live.replace(lines(&[long, "short"]), 60));
        assert_eq!(terminal.shown(), ["first", long, "short"]);
        terminal.resize(10);
        terminal.write(&live.print_above("note\n", 10));
        assert_eq!(terminal.shown(), ["first", "note", ""]);
        terminal.write(&live.replace(lines(&["fits"]), 10));
        assert_eq!(terminal.shown(), ["first", "note", "fits"]);
    }

    #[test]
    fn an_echoed_key_is_drawn_over() {
        let mut live = LiveLines::new();
        let mut terminal = Terminal::new(20);
        terminal.write(&live.replace(lines(&["one", "  two"]), 20));
        terminal.write("^C");
        assert_eq!(terminal.shown(), ["one", "^Ctwo"]);
        terminal.write(&live.replace(lines(&["1", "  2"]), 20));
        assert_eq!(terminal.shown(), ["1", "  2"]);
    }
}
