//! The format of result lines.

use std::path::Path;

/// What is written for a CSV cell that a spreadsheet would run as a formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormulaCells {
    /// The cell starts with an apostrophe, and a spreadsheet shows it as text.
    #[default]
    Escaped,
    /// The cell is written unchanged.
    Verbatim,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values under one header row.
    Csv(FormulaCells),
}

impl Format {
    /// Returns the format for a file of this name: CSV for `.csv`, else JSON lines.
    pub fn of(path: &Path) -> Self {
        let csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if csv { Self::Csv(FormulaCells::default()) } else { Self::Jsonl }
    }
}
